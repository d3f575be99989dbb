//! Reading entries: from memory nearly always, from segments when a follower or a restart is far behind.
//!
//! A reader plans under the view's lock and reads without it. What it reads cannot change under it: segments only grow,
//! a truncation leaves the bytes, and a purged file is written over only when nobody holds it. Every entry between the
//! first and last of a range is there or the read fails. Reads from segments block, which for a page cache is a matter
//! of microseconds.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, stream};
use openraft::RaftLogReader;
use prost::Message;

use super::error::{Damage, Error};
use super::index::Stretch;
use super::metrics::add;
use super::record::{FRAME_BYTES, Frame, Key, Kind};
use super::shared::Shared;
use super::state::next;
use crate::proto::raft as pb;
use crate::raft::codec::decode_entry;
use crate::raft::types::{Entry, TypeConfig, Vote};

/// Bytes that are read from a segment at once.
const CHUNK_BYTES: u64 = 256 * 1024;

/// Reads the log. Clones are cheap and see appended entries at once.
#[derive(Debug, Clone)]
pub struct LogReader {
    shared: Arc<Shared>,
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// All entries of `range` that the log holds.
    pub(super) fn read(&self, range: Range<u64>) -> Result<Vec<Entry>, Error> {
        let plan = {
            let view = self.shared.view.lock();
            let log = view.range();
            // Raft only asks for committed entries to apply them, and a missing one would be skipped.
            if log.end < range.end.min(next(view.state.committed)) {
                return Err(view.missing(log.end));
            }
            let wanted = range.start.max(log.start)..range.end.min(log.end);
            if wanted.is_empty() {
                return Ok(Vec::new());
            }
            view.plan(wanted, usize::MAX)?
        };
        let mut entries = self.read_stretches(&plan.stretches, u64::MAX)?;
        self.count(entries.len(), plan.cached.len());
        if entries.is_empty() {
            return Ok(plan.cached);
        }
        entries.extend(plan.cached);
        Ok(entries)
    }

    /// The first entries of `range`, at least one and about as much as one message should carry. None if the log does
    /// not reach to its start (any more), which a leader can see that was just deposed.
    fn read_some(&self, range: Range<u64>) -> Result<Vec<Entry>, Error> {
        let options = &self.shared.options;
        let plan = {
            let view = self.shared.view.lock();
            let log = view.range();
            let wanted = range.start..range.end.min(log.end).min(range.start.saturating_add(options.read_entries_max));
            if wanted.is_empty() || !log.contains(&wanted.start) {
                return Ok(Vec::new());
            }
            // Never mixed: what is on disk first, and the next call finds the rest in memory.
            let cached_from = view.cache.first();
            let end = if wanted.start < cached_from { wanted.end.min(cached_from) } else { wanted.end };
            view.plan(wanted.start..end, options.read_bytes_max)?
        };
        let entries = self.read_stretches(&plan.stretches, options.read_bytes_max as u64)?;
        self.count(entries.len(), plan.cached.len());
        Ok(if entries.is_empty() { plan.cached } else { entries })
    }

    fn count(&self, disk: usize, cached: usize) {
        add(&self.shared.metrics.reads_disk, disk as u64);
        add(&self.shared.metrics.reads_cached, cached as u64);
    }

    /// The entries of `stretches`; fewer, but at least one, where they are more than `bytes_max`.
    pub(super) fn read_stretches(&self, stretches: &[Stretch], bytes_max: u64) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        let mut left = bytes_max;
        for stretch in stretches {
            let mut walk = Walk::new(stretch, self.shared.salt);
            while walk.next < stretch.entries.end && (left > 0 || entries.is_empty()) {
                let taken = walk.chunk(&mut entries, left)?;
                left = left.saturating_sub(taken);
            }
            if walk.next < stretch.entries.end {
                break;
            }
        }
        Ok(entries)
    }
}

/// Passes over the records of a stretch, chunk by chunk.
struct Walk<'a> {
    stretch: &'a Stretch,
    key: Key,
    /// The index of the next entry to come.
    next: u64,
    offset: u64,
    /// How much to read at once: more than a chunk when one record is larger.
    chunk_bytes: u64,
}

impl<'a> Walk<'a> {
    fn new(stretch: &'a Stretch, salt: u32) -> Self {
        let key = Key { salt, segment: stretch.segment.number };
        Self { stretch, key, next: stretch.first, offset: stretch.offset, chunk_bytes: CHUNK_BYTES }
    }

    /// Reads one chunk and takes the wanted entries out of it, until they have `bytes_max`; returns how many bytes they
    /// have.
    fn chunk(&mut self, entries: &mut Vec<Entry>, bytes_max: u64) -> Result<u64, Error> {
        let rest = self.stretch.end_offset - self.offset;
        let mut bytes = vec![0; self.chunk_bytes.min(rest) as usize];
        self.stretch.segment.read(&mut bytes, self.offset)?;
        let bytes = Bytes::from(bytes); // Entries share it: no copy of the commands.
        let (mut at, mut taken) = (0, 0);
        while self.next < self.stretch.entries.end && (taken < bytes_max || entries.is_empty()) {
            let Some(frame) = self.frame(&bytes[at..], rest == bytes.len() as u64)? else { break };
            if let Some(entry) = self.entry(&frame, &bytes.slice(at..)).map_err(|damage| self.damaged(damage))? {
                taken += frame.span() as u64;
                entries.push(entry);
            }
            at += frame.span();
            self.offset += frame.span() as u64;
        }
        Ok(taken)
    }

    /// The frame of the next record; none if the record is not in `bytes` as a whole, which is an error if there are no
    /// more.
    fn frame(&mut self, bytes: &[u8], all: bool) -> Result<Option<Frame>, Error> {
        if bytes.len() >= FRAME_BYTES {
            let frame = Frame::parse(bytes, self.key).map_err(|damage| self.damaged(damage))?;
            if frame.span() <= bytes.len() {
                return Ok(Some(frame));
            }
            self.chunk_bytes = CHUNK_BYTES.max(frame.span() as u64);
        }
        let missing = Damage::NotContiguous { expected: self.next, found: self.stretch.entries.end };
        if all { Err(self.damaged(missing)) } else { Ok(None) }
    }

    /// The entry in this record, if it is a wanted one.
    fn entry(&mut self, frame: &Frame, bytes: &Bytes) -> Result<Option<Entry>, Damage> {
        if frame.kind != Kind::Entry {
            return Ok(None);
        }
        let expected = self.next;
        self.next += 1;
        if expected < self.stretch.entries.start {
            return Ok(None);
        }
        let payload = bytes.slice_ref(frame.payload(bytes)?);
        let entry = decode_entry(pb::Entry::decode(payload)?)?;
        let found = entry.log_id.index;
        if found == expected { Ok(Some(entry)) } else { Err(Damage::NotContiguous { expected, found }) }
    }

    fn damaged(&self, damage: Damage) -> Error {
        self.stretch.segment.damaged(self.offset, damage)
    }
}

/// `range` with its end excluded.
fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

/// Entries of a range, a message's worth at a time: a restart may have to apply a gigabyte of them.
#[derive(Debug)]
pub(super) struct Entries {
    reader: LogReader,
    range: Range<u64>,
    ready: std::vec::IntoIter<Entry>,
}

impl Iterator for Entries {
    type Item = Result<Entry, io::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(entry) = self.ready.next() {
            return Some(Ok(entry));
        }
        if self.range.is_empty() {
            return None;
        }
        match self.reader.read_next(&mut self.range) {
            Ok(entries) => self.ready = entries.into_iter(),
            Err(error) => {
                self.range.end = self.range.start;
                return Some(Err(error.into()));
            }
        }
        self.ready.next().map(Ok)
    }
}

impl LogReader {
    /// The entries of `range`; what was purged or is committed must be there.
    pub(super) fn entries(&self, range: Range<u64>) -> Entries {
        Entries { reader: self.clone(), range, ready: Vec::new().into_iter() }
    }

    /// Takes the first entries off `range`.
    fn read_next(&self, range: &mut Range<u64>) -> Result<Vec<Entry>, Error> {
        let entries = self.read_some(range.clone())?;
        if entries.is_empty() {
            let view = self.shared.view.lock();
            let required = view.range().start.max(next(view.state.committed));
            if range.start < required {
                return Err(view.missing(range.start));
            }
        }
        range.start = entries.last().map_or(range.end, |entry| entry.log_id.index + 1);
        Ok(entries)
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + openraft::OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.read(half_open(&range))?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.view.lock().state.vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        Ok(self.read_some(start..end)?)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + openraft::OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + openraft::OptionalSend,
    {
        stream::iter(self.entries(half_open(&range)))
    }
}
