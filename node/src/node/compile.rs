//! Compiling beside everything else.
//!
//! A module takes from some milliseconds to many seconds to compile. That must hold up neither the network's thread, where
//! heartbeats are answered, nor a query's, nor apply: so it has a thread of its own for as long as it takes, one at a time. Who
//! asked may give up meanwhile; the thread cannot, and the next one waits for it all the same.
//! What was compiled stays in the engine's memory, where apply finds it at the activation.

use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use tokio::sync::{Mutex, oneshot};

use crate::ids::ModuleHash;
use crate::state_machine::Reader;
use crate::wasm::{Engine, HostFault, Module, Rejection, THREAD_STACK_BYTES};

/// Compiles modules, one after the other.
#[derive(Debug)]
pub(super) struct Compiler {
    engine: Engine,
    one: Arc<Mutex<()>>,
}

impl Compiler {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine, one: Arc::default() }
    }

    /// What the node says to these bytes: checked, compiled and started once.
    pub(super) async fn load(&self, wasm: Bytes) -> Result<Module, Rejection> {
        let engine = self.engine.clone();
        self.alone(move || Module::load(&engine, &wasm)).await?
    }

    /// The same of bytes that are in the state, if they are. They are read when it is their turn, so that no more than one
    /// module waits in memory.
    pub(super) async fn load_stored(&self, hash: ModuleHash, reader: &Reader) -> Result<Option<Module>, Rejection> {
        let (engine, reader) = (self.engine.clone(), reader.clone());
        let load = move || match reader.view().wasm(hash)? {
            Some(wasm) => Module::load(&engine, &wasm).map(Some),
            None => Ok(None),
        };
        self.alone(load).await?
    }

    /// Runs `job` on a thread, when no other one runs.
    async fn alone<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, HostFault> {
        let one = Arc::clone(&self.one).lock_owned().await;
        let (answer, answered) = oneshot::channel();
        let job = move || {
            let done = job();
            // Whoever gets the answer may ask for the next at once.
            drop(one);
            let _ = answer.send(done);
        };
        // A start-up run needs the stack of a call.
        let spawned = thread::Builder::new().name("compile".into()).stack_size(THREAD_STACK_BYTES * 2).spawn(job);
        spawned.map_err(|error| HostFault(format!("no thread to compile on: {error}")))?;
        answered.await.map_err(|_| HostFault("the compiler failed; this node's log says how".into()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::mpsc;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[tokio::test]
    async fn a_thread_that_nobody_waits_for_any_more_still_keeps_the_next_one_back() {
        let compiler = Compiler::new(crate::testing::engine());
        let ((begun, begins), (end, ends)) = (mpsc::channel(), mpsc::channel::<()>());
        let mut asked = Box::pin(compiler.alone(move || {
            begun.send(()).unwrap();
            let _ = ends.recv();
        }));
        assert!(poll(asked.as_mut()).is_pending());
        begins.recv().unwrap();
        drop(asked);

        let mut next = pin!(compiler.alone(|| 7));
        assert!(poll(next.as_mut()).is_pending());
        assert!(compiler.one.try_lock().is_err(), "nothing else may begin");
        drop(end);
        assert_eq!(next.await.unwrap(), 7);
    }

    fn poll<F: Future + ?Sized>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn a_thread_that_panics_makes_room_for_the_next_one() {
        let compiler = Compiler::new(crate::testing::engine());
        assert!(compiler.alone(|| panic!("on purpose")).await.is_err());
        assert_eq!(compiler.alone(|| 7).await.unwrap(), 7);
    }
}
