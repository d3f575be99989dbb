//! What waits for the log thread: encoded records and whoever waits for them to be durable.
//!
//! One buffer, filled by callers and taken whole by the log thread, which hands an empty one back: no allocation in the
//! steady state, and all that came in during one sync is the next group.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::storage::IOFlushed;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::error::Error;
use super::record::Record;
use crate::raft::types::{LogId, TypeConfig};

/// A buffer that has grown beyond this for some huge entry is given back to the system.
const KEEP_BYTES: usize = 8 * 1024 * 1024;

/// Records in the order of the disk, unstamped.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// What they are, one each.
    pub(super) records: Vec<Record>,
    pub(super) waiters: Waiters,
}

impl Batch {
    /// Adds a record that is not an entry.
    pub(super) fn push(&mut self, record: Record) {
        record.push(&mut self.bytes);
        self.records.push(record);
    }

    /// Ready for the next group.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEEP_BYTES);
        self.records.clear();
    }

    fn append(&mut self, other: &mut Self) {
        if self.bytes.is_empty() && self.waiters.0.is_empty() {
            return std::mem::swap(self, other);
        }
        self.bytes.extend_from_slice(&other.bytes);
        self.records.append(&mut other.records);
        self.waiters.0.append(&mut other.waiters.0);
        other.clear();
    }

    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.waiters.0.is_empty()
    }
}

/// Someone who is told when a batch is durable.
pub(super) enum Waiter {
    Append(IOFlushed<TypeConfig>),
    Call(oneshot::Sender<Result<(), Arc<Error>>>),
}

/// All who wait for a batch. Dropped without an answer, they get an error: nobody ever waits for a thread that is gone.
#[derive(Default)]
pub(super) struct Waiters(Vec<Waiter>);

impl Waiters {
    pub(super) fn push(&mut self, waiter: Waiter) {
        self.0.push(waiter);
    }

    /// Tells them all. The last first: openraft takes an append that is flushed as word for all before it, so that the
    /// Raft core is woken once, for the whole group.
    pub(super) fn complete(&mut self, result: &Result<(), Arc<Error>>) {
        for waiter in self.0.drain(..).rev() {
            match waiter {
                Waiter::Append(flushed) => flushed.io_completed(result.clone().map_err(poisoned)),
                // Whoever called may have given up.
                Waiter::Call(sender) => drop(sender.send(result.clone())),
            }
        }
    }
}

impl Drop for Waiters {
    fn drop(&mut self) {
        self.complete(&Err(Arc::new(Error::Closed)));
    }
}

impl std::fmt::Debug for Waiters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} waiters", self.0.len())
    }
}

/// `error` as openraft wants it.
pub(super) fn poisoned(error: Arc<Error>) -> io::Error {
    Error::Poisoned(error).into()
}

#[derive(Debug, Default)]
struct Waiting {
    batch: Batch,
    /// Not worth a group of its own: rides with the next one.
    committed: Option<LogId>,
    closing: bool,
}

/// Between callers and the log thread.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

/// What the log thread finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The batch holds something.
    Batch,
    /// Nothing came for as long as asked.
    Idle,
    /// Nothing more will come; the batch holds what was left, if anything.
    Closed,
}

impl Queue {
    /// Moves all of `staged` into the queue.
    pub(super) fn push(&self, staged: &mut Batch) -> Result<(), Error> {
        let mut waiting = self.waiting.lock();
        if waiting.closing {
            return Err(Error::Closed);
        }
        waiting.batch.append(staged);
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    /// Notes what is committed, without waking anyone.
    pub(super) fn set_committed(&self, committed: Option<LogId>) {
        self.waiting.lock().committed = committed;
    }

    /// Takes all there is into `batch`, which is clear; waits for it, but not longer than `idle`.
    pub(super) fn take(&self, batch: &mut Batch, idle: Option<Duration>) -> Next {
        let mut waiting = self.waiting.lock();
        while waiting.batch.is_empty() && !waiting.closing {
            match idle {
                None => self.filled.wait(&mut waiting),
                Some(idle) => {
                    if self.filled.wait_for(&mut waiting, idle).timed_out() && waiting.batch.is_empty() {
                        return if waiting.closing { Next::Closed } else { Next::Idle };
                    }
                }
            }
        }
        std::mem::swap(&mut waiting.batch, batch);
        let last = waiting.closing;
        if (last || !batch.records.is_empty())
            && let Some(committed) = waiting.committed.take()
        {
            batch.push(Record::Committed(committed));
        }
        if last && batch.is_empty() { Next::Closed } else { Next::Batch }
    }

    /// Lets the log thread finish what is queued and end.
    pub(super) fn close(&self) {
        self.waiting.lock().closing = true;
        self.filled.notify_one();
    }
}
