//! A log store whose log thread is the test itself, beside a model of what it should hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::oneshot;

use super::simulated::Simulated;
use super::{command, flushed, vote};
use crate::log_store::queue::{Batch, Waiter};
use crate::log_store::record::Record;
use crate::log_store::spares::Spares;
use crate::log_store::writer::Writer;
use crate::log_store::{Error, LogStore, Options};
use crate::raft::codec::log_id;
use crate::raft::types::{Entry, LogId, Vote};

/// Small, so that a few entries fill a segment and the cache holds fewer than the log.
pub(crate) fn small() -> Options {
    Options {
        segment_bytes: 2048,
        spares_max: 2,
        cache_bytes: 600,
        read_bytes_max: 500,
        read_entries_max: 7,
        seal_after: Duration::ZERO,
    }
}

/// What a log is to its users.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Model {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) last: Option<LogId>,
    pub(crate) entries: BTreeMap<u64, Entry>,
}

impl Model {
    /// What the log in `store` holds.
    pub(crate) fn of(store: &LogStore) -> Self {
        let entries = store.handle().reader().read(0..u64::MAX).unwrap();
        let entries = entries.into_iter().map(|entry| (entry.log_id.index, entry)).collect();
        let state = store.shared.view.lock().state.clone();
        Self { vote: state.vote, purged: state.purged, last: state.last, entries }
    }

    fn append(&mut self, entry: Entry) {
        self.last = Some(entry.log_id);
        self.entries.insert(entry.log_id.index, entry);
    }

    fn truncate(&mut self, after: LogId) {
        self.entries.retain(|index, _| *index <= after.index);
        self.last = Some(after);
    }

    fn purge(&mut self, upto: LogId) {
        self.entries.retain(|index, _| *index > upto.index);
        self.purged = Some(upto);
        self.last = self.last.max(Some(upto));
    }
}

type Done = oneshot::Receiver<Result<(), Arc<Error>>>;

/// Someone who waits for records.
enum Pending {
    Append(oneshot::Receiver<std::io::Result<()>>),
    Call(Done),
}

impl Pending {
    fn done(&mut self) -> Option<bool> {
        match self {
            Self::Append(done) => done.try_recv().ok().map(|result| result.is_ok()),
            Self::Call(done) => done.try_recv().ok().map(|result| result.is_ok()),
        }
    }
}

pub(crate) struct Rig {
    pub(crate) store: LogStore,
    pub(crate) writer: Writer,
    batch: Batch,
    /// The log after each record, the first one as it was opened.
    pub(crate) states: Vec<Model>,
    /// Which of them was acknowledged.
    pub(crate) acknowledged: usize,
    pending: Vec<(usize, Pending)>,
    /// Raft never truncates below it.
    committed: u64,
}

impl Rig {
    pub(crate) fn open(disk: &Simulated, options: Options) -> Result<Self, Error> {
        let here = |workshop, prepared| Ok(Spares::here(workshop, prepared));
        let (store, writer) = LogStore::assemble(Arc::new(disk.clone()), options, here)?;
        let states = vec![Model::of(&store)];
        Ok(Self { store, writer, batch: Batch::default(), states, acknowledged: 0, pending: Vec::new(), committed: 0 })
    }

    pub(crate) fn model(&self) -> &Model {
        self.states.last().unwrap()
    }

    fn changed(&mut self, change: impl FnOnce(&mut Model)) {
        let mut model = self.model().clone();
        change(&mut model);
        self.states.push(model);
    }

    /// Queues entries of `term` with commands of `bytes`.
    pub(crate) fn append(&mut self, term: u64, count: u64, bytes: usize) {
        let next = self.model().last.map_or(0, |last| last.index + 1);
        let entries: Vec<_> = (next..next + count).map(|index| command(term, index, bytes)).collect();
        let (flushed, done) = flushed();
        if self.store.stage(entries.clone()).is_ok() && self.store.queue(Waiter::Append(flushed)).is_ok() {
            entries.into_iter().for_each(|entry| self.changed(|model| model.append(entry)));
            self.pending.push((self.states.len() - 1, Pending::Append(done)));
        }
    }

    fn call(&mut self, record: Record, change: impl FnOnce(&mut Model)) {
        let (sender, done) = oneshot::channel();
        self.store.staged.push(record);
        if self.store.queue(Waiter::Call(sender)).is_ok() {
            self.changed(change);
            self.pending.push((self.states.len() - 1, Pending::Call(done)));
        }
    }

    pub(crate) fn vote(&mut self, term: u64) {
        let vote = vote(term);
        self.call(Record::Vote(vote), |model| model.vote = Some(vote));
    }

    /// Truncates after the entry at `index`.
    pub(crate) fn truncate(&mut self, index: u64) {
        let after = self.model().entries[&index].log_id;
        if self.store.shared.view.lock().truncate(Some(after)) {
            self.call(Record::Truncate(Some(after)), |model| model.truncate(after));
        }
    }

    pub(crate) fn purge(&mut self, upto: LogId) {
        if self.store.shared.purge(upto).is_ok() {
            self.changed(|model| model.purge(upto));
        }
    }

    /// Lets the log thread work once. There must be something to do.
    pub(crate) fn step(&mut self) {
        assert!(self.writer.step(&mut self.batch));
        let Self { pending, acknowledged, .. } = self;
        pending.retain_mut(|(state, pending)| match pending.done() {
            Some(true) => {
                *acknowledged = (*acknowledged).max(*state);
                false
            }
            done => done.is_none(),
        });
        // Someone who got neither waits for a thread that will do nothing more for them.
        assert!(self.pending.is_empty(), "all that was queued is answered");
    }

    /// Lets the log thread write the group and a seal.
    pub(crate) fn settle(&mut self) {
        self.step();
        if self.store.shared.check().is_ok() {
            self.step();
        }
    }

    /// Queues one to three random calls, and lets the log thread write them.
    pub(crate) fn random_group(&mut self, rng: &mut StdRng) {
        for _ in 0..rng.random_range(1..=3) {
            self.random_call(rng);
        }
        self.vote(rng.random_range(1..9));
        self.step();
        if rng.random_bool(0.5) && self.store.shared.check().is_ok() {
            self.step();
        }
    }

    fn random_call(&mut self, rng: &mut StdRng) {
        let model = self.model().clone();
        let (first, last) = (model.entries.keys().next().copied(), model.last.map_or(0, |last| last.index));
        match rng.random_range(0..10) {
            0 => self.vote(rng.random_range(1..9)),
            1 if first.is_some_and(|first| first.max(self.committed) < last) => {
                self.truncate(rng.random_range(first.unwrap().max(self.committed)..last));
                // Nobody appends before a truncation is durable; entries that replace others have a later term.
                self.step();
            }
            2 if first.is_some() => {
                let index = rng.random_range(first.unwrap()..=last);
                self.purge(model.entries[&index].log_id);
            }
            3 if rng.random_bool(0.1) => self.purge(log_id(self.term(), last + rng.random_range(1..5))),
            4 => {
                self.store.shared.queue.set_committed(model.last);
                self.committed = last;
            }
            5 if rng.random_bool(0.2) => self.append(self.term(), 1, 2500), // more than a segment
            _ => self.append(self.term() + rng.random_range(0..2), rng.random_range(1..6), rng.random_range(0..300)),
        }
    }

    fn term(&self) -> u64 {
        self.model().last.map_or(1, |last| last.committed_leader_id().term)
    }
}
