//! Compiling beside everything else.
//!
//! A module takes from some milliseconds to many seconds to compile. That must hold up neither the network's thread, where
//! heartbeats are answered, nor a query's, nor apply: so it has a thread of its own for as long as it takes, one at a time.
//! What was compiled stays in the engine's memory, where apply finds it at the activation.

use std::thread;

use bytes::Bytes;
use tokio::sync::{Mutex, oneshot};

use crate::wasm::{Engine, HostFault, Module, Rejection, THREAD_STACK_BYTES};

/// Compiles modules, one after the other.
#[derive(Debug)]
pub(super) struct Compiler {
    engine: Engine,
    one: Mutex<()>,
}

impl Compiler {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine, one: Mutex::default() }
    }

    /// What the node says to these bytes: checked, compiled and started once.
    pub(super) async fn load(&self, wasm: Bytes) -> Result<Module, Rejection> {
        let _one = self.one.lock().await;
        let (answer, answered) = oneshot::channel();
        let engine = self.engine.clone();
        let job = move || {
            let _ = answer.send(Module::load(&engine, &wasm));
        };
        // A start-up run needs the stack of a call.
        let spawned = thread::Builder::new().name("compile".into()).stack_size(THREAD_STACK_BYTES * 2).spawn(job);
        spawned.map_err(|error| HostFault(format!("no thread to compile on: {error}")))?;
        answered.await.unwrap_or_else(|_| Err(HostFault("the compiler failed; this node's log says how".into()).into()))
    }
}
