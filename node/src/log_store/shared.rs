//! What store, readers, handles and the log thread share.
//!
//! Two locks, never held during I/O and never both: the queue's, and that of the [`View`]. The view has two halves that
//! move at different times. Callers change `state` and `cache` before they queue a record: the log as Raft sees it. The
//! log thread changes `index` and `flushed` after the sync: the log as the disk has it. Entries between the two are in
//! the cache.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::Options;
use super::cache::Cache;
use super::error::Error;
use super::index::{Index, Stretch};
use super::metrics::Metrics;
use super::queue::{Batch, Queue};
use super::record::Record;
use super::state::{State, next};
use crate::raft::types::{Entry, LogId};

/// How far the log is durable, and whether it failed.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// The last log id that is synced (or purged).
    pub flushed: Option<LogId>,
    /// The store was dropped: nothing more will be flushed.
    pub closed: bool,
    /// Set once, when the log fails; it is of no use any more and the node has to stop.
    pub fault: Option<Arc<Error>>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) salt: u32,
    pub(super) queue: Queue,
    pub(super) view: Mutex<View>,
    pub(super) metrics: Metrics,
    pub(super) status: watch::Sender<Status>,
    fault: OnceLock<Arc<Error>>,
    /// With the view's lock: `flushed` or the fault changed.
    moved: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct View {
    /// The log as Raft sees it; but for the vote, which is the durable one.
    pub(super) state: State,
    /// The first index of a log of which nothing was purged.
    start: u64,
    pub(super) cache: Cache,
    pub(super) index: Index,
    pub(super) flushed: Option<LogId>,
    closed: bool,
    /// First indexes to keep, and how many keep each.
    pins: BTreeMap<u64, usize>,
    /// What was to be purged when a pin was in the way.
    postponed: Option<LogId>,
}

/// What a reader has to do for a range: read stretches, then append what was cached.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) stretches: Vec<Stretch>,
    pub(super) cached: Vec<Entry>,
}

impl View {
    /// The view of a log that was just opened.
    pub(super) fn opened(state: State, index: Index) -> Self {
        let mut cache = Cache::default();
        cache.restart(next(state.last));
        let start = index.first().unwrap_or_else(|| next(state.last));
        let state = State { committed: std::cmp::min_by_key(state.committed, state.last, |id| next(*id)), ..state };
        Self { flushed: state.last, state, start, cache, index, ..Self::default() }
    }

    /// Indexes of the log.
    pub(super) fn range(&self) -> Range<u64> {
        let end = next(self.state.last);
        next(self.state.purged).max(self.start).min(end)..end
    }

    /// Appends entries with their bytes, all or none.
    pub(super) fn append(&mut self, entries: &mut Vec<(Entry, usize)>) -> Result<(), Error> {
        let Some((first, _)) = entries.first() else { return Ok(()) };
        let first = first.log_id.index;
        let expected = if self.state.last.is_some() { next(self.state.last) } else { first };
        for (expected, (entry, _)) in (expected..).zip(&*entries) {
            if entry.log_id.index != expected {
                return Err(Error::NotContiguous { expected, found: entry.log_id.index });
            }
        }
        if self.state.last.is_none() {
            self.start = first;
            self.cache.restart(first);
        }
        for (entry, bytes) in entries.drain(..) {
            self.state.last = Some(entry.log_id);
            self.cache.push(entry, bytes);
        }
        Ok(())
    }

    /// Whether there is anything after `after` to truncate; does it.
    pub(super) fn truncate(&mut self, after: Option<LogId>) -> bool {
        if next(after) >= next(self.state.last) {
            return false;
        }
        self.state.apply(&Record::Truncate(after)).expect("a truncation always applies");
        self.cache.truncate(next(self.state.last));
        true
    }

    /// Purges up to `upto` or what pins leave of it; returns what is to be recorded.
    pub(super) fn purge(&mut self, upto: LogId) -> Option<LogId> {
        let bound = self.unpinned(upto);
        self.postponed = (bound != Some(upto)).then_some(upto).max(self.postponed.filter(|old| Some(*old) > bound));
        let upto = bound.filter(|upto| Some(*upto) > self.state.purged)?;
        self.state.apply(&Record::Purge(upto)).expect("a purge always applies");
        let first = self.range().start;
        if self.cache.first() < first {
            self.cache.forget_before(first);
        }
        if self.range().is_empty() {
            self.cache.restart(first);
        }
        Some(upto)
    }

    /// `upto`, or the id just before the first pinned index. A purge beyond the log's end is what follows the
    /// installation of a snapshot: nothing before it is of use, pinned or not, and the log could not continue after it
    /// with a gap.
    fn unpinned(&self, upto: LogId) -> Option<LogId> {
        match self.pins.first_key_value() {
            Some((pin, _)) if *pin <= upto.index && upto.index < self.range().end => self.log_id(pin.checked_sub(1)?),
            _ => Some(upto),
        }
    }

    /// The id of the entry at `index`.
    fn log_id(&self, index: u64) -> Option<LogId> {
        let cached = self.cache.get(index).map(|entry| entry.log_id);
        cached.or_else(|| self.index.log_id(index)).filter(|_| self.range().contains(&index))
    }

    /// How to read `wanted`, which is within the log. Not more than `bytes_max` of cached entries, but at least one.
    pub(super) fn plan(&self, wanted: Range<u64>, bytes_max: usize) -> Result<Plan, Error> {
        let cached_from = self.cache.first().clamp(wanted.start, wanted.end);
        let stretches =
            if cached_from > wanted.start { self.index.locate(wanted.start..cached_from) } else { Vec::new() };
        let found = stretches.last().map_or(wanted.start, |stretch| stretch.entries.end);
        if found < cached_from {
            return Err(self.missing(found));
        }
        let cached =
            if cached_from < wanted.end { self.cache.read(cached_from..wanted.end, bytes_max) } else { Vec::new() };
        Ok(Plan { stretches, cached })
    }

    /// The error that `index` is not in the log.
    pub(super) fn missing(&self, index: u64) -> Error {
        let Range { start: first, end } = self.range();
        Error::Missing { index, first, end }
    }

    /// Takes into account that `record` is durable in the last segment at `range`.
    pub(super) fn synced(&mut self, record: &Record, range: Range<u64>) {
        self.index.apply(record, range);
        match record {
            Record::Entry(id) => self.flushed = Some(*id),
            Record::Vote(vote) => self.state.vote = Some(*vote),
            Record::Truncate(after) => self.flushed = self.flushed.min((*after).max(self.state.purged)),
            Record::Purge(upto) => self.flushed = self.flushed.max(Some(*upto)),
            Record::Header(_) | Record::Committed(_) | Record::Seal => {}
        }
    }
}

impl Shared {
    pub(super) fn new(options: Options, salt: u32, view: View) -> Self {
        let status = Status { flushed: view.flushed, ..Status::default() };
        Self {
            options,
            salt,
            queue: Queue::default(),
            view: Mutex::new(view),
            metrics: Metrics::default(),
            status: watch::Sender::new(status),
            fault: OnceLock::new(),
            moved: Condvar::new(),
        }
    }

    /// An error if the log has failed.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.fault.get().map_or(Ok(()), |fault| Err(Error::Poisoned(fault.clone())))
    }

    /// Ends the use of this log. The first fault counts.
    pub(super) fn poison(&self, fault: Arc<Error>) {
        if self.fault.set(fault.clone()).is_ok() {
            tracing::error!(%fault, "the log failed");
            self.status.send_modify(|status| status.fault = Some(fault));
        }
        let _view = self.view.lock(); // A waiter has either seen the fault or is waiting now.
        self.moved.notify_all();
    }

    /// Tells everybody that the log thread has ended.
    pub(super) fn closed(&self) {
        self.view.lock().closed = true;
        self.status.send_modify(|status| status.closed = true);
        self.moved.notify_all();
    }

    /// Tells everybody that the view's `flushed` has moved.
    pub(super) fn publish(&self, flushed: Option<LogId>) {
        self.status.send_modify(|status| status.flushed = flushed);
        self.moved.notify_all();
    }

    /// Blocks until `id` is durable.
    pub(super) fn wait_flushed(&self, id: LogId) -> Result<(), Error> {
        let mut view = self.view.lock();
        while view.flushed < Some(id) {
            self.check()?;
            if view.closed {
                return Err(Error::Closed);
            }
            self.moved.wait(&mut view);
        }
        Ok(())
    }

    /// Purges up to `upto` as far as pins allow: at once for readers, on disk some time later.
    pub(super) fn purge(&self, upto: LogId) -> Result<(), Error> {
        // Drops the lock before it queues: the two are never held together.
        let purged = self.view.lock().purge(upto);
        let Some(upto) = purged else { return Ok(()) };
        let mut batch = Batch::default();
        batch.push(Record::Purge(upto));
        self.queue.push(&mut batch)
    }

    /// Keeps entries from `index` on.
    pub(super) fn pin(&self, index: u64) {
        *self.view.lock().pins.entry(index).or_default() += 1;
    }

    /// Undoes one `pin(index)` and makes up for what it postponed.
    pub(super) fn unpin(&self, index: u64) {
        let mut view = self.view.lock();
        if let Some(count) = view.pins.get_mut(&index) {
            *count -= 1;
            if *count == 0 {
                view.pins.remove(&index);
            }
        }
        let postponed = view.postponed;
        drop(view);
        // A log that is closed has nothing to purge; after reopening, Raft will ask again.
        let _ = postponed.map(|upto| self.purge(upto));
    }
}
