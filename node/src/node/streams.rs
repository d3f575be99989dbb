//! The threads of queries that answer with a stream.
//!
//! Such a query stands still while its client is slow, so each has a thread of its own and not one of the pool's, which others
//! wait for. There are few, for a bounded time: one that would be too many is refused, and a client that takes nothing for
//! [`STALL`] loses its stream.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::fatal::Fatal;
use crate::limits::STREAMS_MAX;
use crate::service::{Query, ServiceError, Streaming};
use crate::state_machine::{QueryError, View};
use crate::stream::{self, Sender};
use crate::wasm::{Cut, THREAD_STACK_BYTES};

/// How long a stream waits for its client to take a message.
const STALL: Duration = Duration::from_secs(10);
/// How long a stream may take in all: as long it holds a thread, and keeps the state file from reusing the pages of its state.
pub(super) const WHOLE: Duration = Duration::from_secs(300);

/// Who may start one. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    free: Arc<Semaphore>,
    fatal: Fatal,
}

impl Streams {
    pub(super) fn new(fatal: &Fatal) -> Self {
        Self { free: Arc::new(Semaphore::new(STREAMS_MAX as usize)), fatal: fatal.clone() }
    }

    /// How many are being read.
    pub(super) fn open(&self) -> usize {
        STREAMS_MAX as usize - self.free.available_permits()
    }

    /// Runs `query` in `view` on a thread of its own.
    pub(super) fn start(&self, view: Arc<View>, query: Query, deadline: Instant) -> Result<Streaming, ServiceError> {
        let Ok(permit) = self.free.clone().try_acquire_owned() else {
            return Err(ServiceError::Overloaded("too many streams are being read"));
        };
        let (sender, messages) = stream::channel();
        let index = view.index();
        let running = Running { view, query, deadline, sender: Arc::new(sender), fatal: self.fatal.clone(), permit };
        let thread = thread::Builder::new().name("stream".into()).stack_size(THREAD_STACK_BYTES);
        match thread.spawn(move || running.run()) {
            Ok(_) => Ok(Streaming { index, messages }),
            Err(_) => Err(ServiceError::Overloaded("no thread is to be had for another stream")),
        }
    }
}

struct Running {
    view: Arc<View>,
    query: Query,
    deadline: Instant,
    sender: Arc<Sender>,
    fatal: Fatal,
    permit: OwnedSemaphorePermit,
}

impl Running {
    fn run(self) {
        let Self { view, query, deadline, sender, fatal, permit } = self;
        let taker = sender.clone();
        let sink = move |message| match taker.send(message, deadline.min(Instant::now() + STALL)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        let ended = view.query_stream(&query.method, query.request, Some(deadline), Box::new(sink));
        // Whoever reads the end may start the next one at once.
        drop((view, permit));
        match ended {
            Ok(executed) => sender.end(Ok(executed)),
            Err(QueryError::Fault(fault)) => fatal.raise(fault),
            Err(QueryError::Cut(Cut::Unwanted)) if Instant::now() < deadline => {
                sender.end(Err(ServiceError::SlowClient));
            }
            Err(error) => sender.end(Err(super::read::refused(&error))),
        }
    }
}
