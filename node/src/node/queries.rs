//! The threads that run queries.
//!
//! A query may take long, so it runs neither on the thread that serves the network nor behind commands. Each of a few
//! threads takes the next one from a bounded queue.

use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::oneshot;

use crate::fatal::Fatal;
use crate::limits::PENDING_QUERIES_MAX;
use crate::service::ServiceError;
use crate::wasm::HostFault;

type Job = Box<dyn FnOnce() -> Result<(), HostFault> + Send>;

/// The pool. Clones are the same one; its threads end with the last.
#[derive(Debug, Clone)]
pub(super) struct Queries(Sender<Job>);

impl Queries {
    /// Starts `threads` threads.
    pub(super) fn start(threads: usize, fatal: &Fatal) -> Self {
        let (jobs, queue) = bounded(PENDING_QUERIES_MAX);
        for number in 0..threads {
            let (queue, fatal) = (queue.clone(), fatal.clone());
            thread::Builder::new()
                .name(format!("query-{number}"))
                .stack_size(16 * 1024 * 1024)
                .spawn(move || work(&queue, &fatal))
                .expect("the system has a thread to give at start");
        }
        Self(jobs)
    }

    /// How many are waiting for a thread.
    pub(super) fn waiting(&self) -> usize {
        self.0.len()
    }

    /// Runs `query` on one of the threads, unless its client has gone or its deadline has passed by then.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        deadline: Option<Instant>,
        query: impl FnOnce() -> Result<T, HostFault> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let (answer, answered) = oneshot::channel();
        let job = move || {
            let late = deadline.is_some_and(|deadline| deadline <= Instant::now());
            if !late && !answer.is_closed() {
                let _ = answer.send(query()?);
            }
            Ok(())
        };
        match self.0.try_send(Box::new(job)) {
            Ok(()) => answered.await.map_err(|_| ServiceError::Deadline),
            Err(TrySendError::Full(_)) => Err(ServiceError::Overloaded("too many queries are waiting")),
            Err(TrySendError::Disconnected(_)) => Err(ServiceError::ShuttingDown),
        }
    }
}

fn work(queue: &Receiver<Job>, fatal: &Fatal) {
    for job in queue {
        if let Err(fault) = job() {
            return fatal.raise(fault);
        }
    }
}
