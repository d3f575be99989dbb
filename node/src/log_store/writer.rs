//! The log thread: the only one that writes.
//!
//! It takes all that is queued, stamps the records where they will stand, writes them in one piece, syncs once, and
//! only then tells readers, waiters and whoever watches `flushed`. What comes in meanwhile is the next group: on a slow
//! disk groups grow by themselves.
//!
//! A group that does not fit is cut where the segment ends, and the old segment is synced before the new one is begun,
//! so that only the last segment can ever hold anything that was not synced.

use std::sync::Arc;

use super::error::Error;
use super::queue::{Batch, Next};
use super::record::{self, FRAME_BYTES, Key, Record};
use super::segment::Segment;
use super::shared::Shared;
use super::spares::Spares;
use super::state::State;
use crate::measure::Stopwatch;

/// Where the log ends on disk.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) segment: Arc<Segment>,
    /// Where the next record goes.
    pub(super) end: u64,
    /// Up to where the segment is known to be durable.
    pub(super) synced: u64,
}

#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    spares: Spares,
    tail: Tail,
    /// What the records so far add up to.
    state: State,
    /// Whether a seal vouches for the last group.
    sealed: bool,
    /// Reused: a header or a seal.
    scratch: Vec<u8>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, spares: Spares, tail: Tail, state: State) -> Self {
        let mut writer = Self { shared, spares, tail, state, sealed: false, scratch: Vec::new() };
        writer.retire();
        writer
    }

    /// Works until the log is closed. After a failure it only hands out errors.
    pub(super) fn run(mut self) {
        let mut batch = Batch::default();
        while self.step(&mut batch) {}
    }

    /// One group, or a seal if there is none; false when the log is closed and done.
    pub(super) fn step(&mut self, batch: &mut Batch) -> bool {
        let idle = (!self.sealed && self.shared.check().is_ok()).then_some(self.shared.options.seal_after);
        let next = self.shared.queue.take(batch, idle);
        let result = match next {
            Next::Batch => self.write(batch),
            Next::Idle | Next::Closed => self.seal(),
        };
        let result = result.map_err(Arc::new);
        if let Err(error) = &result {
            self.shared.poison(error.clone());
        }
        batch.waiters.complete(&result);
        batch.clear();
        next != Next::Closed
    }

    /// Makes a batch durable.
    fn write(&mut self, batch: &mut Batch) -> Result<(), Error> {
        self.shared.check()?;
        let Batch { bytes, records, .. } = batch;
        let (mut from, mut at, mut first) = (0, 0, 0);
        for n in 0..records.len() {
            let span = record::unstamped_span(&bytes[at..]);
            if !self.fits(at - from + span) {
                self.commit(&bytes[from..at], &records[first..n])?;
                self.roll(span)?;
                (from, first) = (at, n);
            }
            record::stamp(&mut bytes[at..at + FRAME_BYTES], self.key(), self.tail.synced);
            at += span;
        }
        self.commit(&bytes[from..at], &records[first..])?;
        if records.iter().any(|record| matches!(record, Record::Purge(_))) {
            self.retire();
        }
        if self.tail.end > self.tail.segment.file_bytes / 2 {
            self.spares.request(self.tail.segment.number + 1);
        }
        Ok(())
    }

    /// Where the log ends.
    #[cfg(test)]
    pub(super) fn tail(&self) -> &Tail {
        &self.tail
    }

    fn key(&self) -> Key {
        Key { salt: self.shared.salt, segment: self.tail.segment.number }
    }

    /// Whether `bytes` and a seal after them fit the segment.
    fn fits(&self, bytes: usize) -> bool {
        self.tail.end + bytes as u64 + FRAME_BYTES as u64 <= self.tail.segment.file_bytes
    }

    /// Writes, syncs and publishes stamped records that fit the segment.
    fn commit(&mut self, bytes: &[u8], records: &[Record]) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        let watch = Stopwatch::start();
        self.tail.segment.write(bytes, self.tail.end)?;
        self.tail.segment.sync()?;
        self.shared.metrics.synced(records, bytes.len() as u64, watch.stop());
        self.publish(bytes, records);
        self.tail.end += bytes.len() as u64;
        self.tail.synced = self.tail.end;
        self.sealed = false;
        Ok(())
    }

    /// Tells readers where the records stand, and what is durable now.
    fn publish(&mut self, bytes: &[u8], records: &[Record]) {
        let mut view = self.shared.view.lock();
        let mut at = 0;
        for record in records {
            let end = at + record::unstamped_span(&bytes[at..]);
            self.state.apply(record).expect("callers check what they queue");
            view.synced(record, self.tail.end + at as u64..self.tail.end + end as u64);
            at = end;
        }
        let written = super::state::next(self.state.last);
        view.cache.shrink(self.shared.options.cache_bytes, written);
        let flushed = view.flushed;
        drop(view);
        self.shared.publish(flushed);
    }

    /// Begins the next segment, with room for a record of `span` bytes. What is written here is synced with the first
    /// group.
    fn roll(&mut self, span: usize) -> Result<(), Error> {
        let mut segment = self.spares.take(self.tail.segment.number + 1)?;
        self.header(segment.file_bytes);
        let needed = (self.scratch.len() + span + FRAME_BYTES) as u64;
        if needed > segment.file_bytes {
            segment.grow(needed)?;
            self.header(segment.file_bytes);
        }
        let end = self.scratch.len() as u64;
        self.tail = Tail { segment: Arc::new(segment), end, synced: 0 };
        self.write_scratch(0)?;
        self.shared.view.lock().index.add_segment(self.tail.segment.clone(), end);
        Ok(())
    }

    /// Puts the header of a segment after this one into `scratch`.
    fn header(&mut self, file_bytes: u64) {
        self.scratch.clear();
        // Not the end: a seal that is not synced is no part of what this segment promises.
        self.state.header(file_bytes, self.tail.synced).push(&mut self.scratch);
    }

    /// Stamps and writes the record in `scratch`.
    fn write_scratch(&mut self, offset: u64) -> Result<(), Error> {
        let key = self.key();
        record::stamp(&mut self.scratch[..FRAME_BYTES], key, self.tail.synced);
        self.tail.segment.write(&self.scratch, offset)
    }

    /// Vouches for the last group: after a crash, a bad record before this one was damaged and not torn. Not synced:
    /// that comes with the next group, and without it the seal is only lost together with the power.
    fn seal(&mut self) -> Result<(), Error> {
        if self.sealed || self.shared.check().is_err() {
            return Ok(());
        }
        self.scratch.clear();
        Record::Seal.push(&mut self.scratch);
        self.write_scratch(self.tail.end)?;
        self.tail.end += self.scratch.len() as u64;
        self.sealed = true;
        Ok(())
    }

    /// Disposes of segments of which everything was purged. Only after the purge is durable: it is why they may be
    /// missing.
    fn retire(&mut self) {
        let dead = self.shared.view.lock().index.take_dead_segments();
        dead.into_iter().for_each(|segment| self.spares.retire(segment));
    }
}

impl Drop for Writer {
    /// A panic here is a failure of the log like any other: nobody may wait for this thread any more.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.poison(Arc::new(Error::Closed));
            self.shared.queue.close();
            self.shared.queue.take(&mut Batch::default(), None);
        }
    }
}
