//! Where entries stand in the segments: runs of consecutive entries with a few signposts each.
//!
//! A *run* is a stretch of consecutive indexes of one term, in one segment, in the order of the file (other records may
//! stand between them). Truncation cuts runs and the entries written after it begin a new one, so a superseded entry is
//! in no run and is never read, though its bytes stay. Within a run only every 64 KiB has a signpost: 2 GiB of log need
//! half a megabyte here, whatever the size of the entries; a reader passes over what lies between.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::record::Record;
use super::segment::Segment;
use super::state::next;
use crate::raft::codec::log_id;
use crate::raft::types::LogId;

/// Bytes between signposts: what a reader reads at most before the entry it wants.
const SIGNPOST_BYTES: u64 = 64 * 1024;

#[derive(Debug)]
struct Run {
    term: u64,
    first: u64,
    /// One past its last index.
    end: u64,
    segment: Arc<Segment>,
    /// Where its last record ends.
    end_offset: u64,
    /// A truncation came after it: superseded entries follow in the file, so it does not grow any more.
    closed: bool,
    /// (index, offset) of its first entry and of one every [`SIGNPOST_BYTES`].
    signposts: Vec<(u64, u64)>,
}

impl Run {
    /// The last signpost at or before `index`.
    fn signpost(&self, index: u64) -> (u64, u64) {
        let after = self.signposts.partition_point(|(at, _)| *at <= index);
        self.signposts[after.saturating_sub(1)]
    }
}

/// A part of a run to read: the entries of `entries` are among the records from `offset` on, and the first entry there
/// has index `first`.
#[derive(Debug, Clone)]
pub(super) struct Stretch {
    pub(super) segment: Arc<Segment>,
    pub(super) entries: Range<u64>,
    pub(super) first: u64,
    pub(super) offset: u64,
    pub(super) end_offset: u64,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    runs: VecDeque<Run>,
    /// Every live segment with the bytes of records in it.
    segments: BTreeMap<u64, (Arc<Segment>, u64)>,
}

impl Index {
    /// A new segment, in which `bytes` are taken already.
    pub(super) fn add_segment(&mut self, segment: Arc<Segment>, bytes: u64) {
        self.segments.insert(segment.number, (segment, bytes));
    }

    /// The log's first index that is in a segment.
    pub(super) fn first(&self) -> Option<u64> {
        self.runs.front().map(|run| run.first)
    }

    /// Takes into account that `record` stands in the last segment at `range`.
    pub(super) fn apply(&mut self, record: &Record, range: Range<u64>) {
        match record {
            Record::Entry(id) => self.push(*id, range.clone()),
            Record::Truncate(after) => self.truncate(next(*after)),
            Record::Purge(upto) => self.forget_before(upto.index + 1),
            _ => {}
        }
        let mut last = self.segments.last_entry().expect("records are in a segment");
        last.get_mut().1 = range.end;
    }

    fn push(&mut self, id: LogId, range: Range<u64>) {
        let (segment, _) = self.segments.last_entry().expect("records are in a segment").get().clone();
        let term = id.committed_leader_id().term;
        match self.runs.back_mut() {
            Some(run) if !run.closed && (run.end, run.term, run.segment.number) == (id.index, term, segment.number) => {
                if range.start - run.signposts.last().expect("a run begins with one").1 >= SIGNPOST_BYTES {
                    run.signposts.push((id.index, range.start));
                }
                run.end += 1;
                run.end_offset = range.end;
            }
            _ => self.runs.push_back(Run {
                term,
                first: id.index,
                end: id.index + 1,
                segment,
                end_offset: range.end,
                closed: false,
                signposts: vec![(id.index, range.start)],
            }),
        }
    }

    fn truncate(&mut self, end: u64) {
        while self.runs.back().is_some_and(|run| run.first >= end) {
            self.runs.pop_back();
        }
        if let Some(run) = self.runs.back_mut() {
            // Its end offset stays, too far by what was cut: a reader stops at the index.
            run.end = run.end.min(end);
            run.closed = true;
            run.signposts.retain(|(at, _)| *at < end);
        }
    }

    fn forget_before(&mut self, first: u64) {
        while self.runs.front().is_some_and(|run| run.end <= first) {
            self.runs.pop_front();
        }
        if let Some(run) = self.runs.front_mut().filter(|run| run.first < first) {
            run.first = first;
        }
    }

    /// Takes out the segments, oldest first, that hold no entry of the log and precede all that do. What else they said
    /// is repeated in the header of the next one.
    pub(super) fn take_dead_segments(&mut self) -> Vec<Arc<Segment>> {
        let newest = self.segments.last_key_value().map(|(number, _)| *number);
        let Some(keep) = self.runs.front().map(|run| run.segment.number).or(newest) else { return Vec::new() };
        let live = self.segments.split_off(&keep);
        std::mem::replace(&mut self.segments, live).into_values().map(|(segment, _)| segment).collect()
    }

    /// The id of the entry at `index`.
    pub(super) fn log_id(&self, index: u64) -> Option<LogId> {
        let run = self.run(index)?;
        (run.first <= index).then(|| log_id(run.term, index))
    }

    fn run(&self, index: u64) -> Option<&Run> {
        self.runs.get(self.runs.partition_point(|run| run.end <= index))
    }

    /// The stretches that hold `range`; what is beyond the first gap is left out.
    pub(super) fn locate(&self, range: Range<u64>) -> Vec<Stretch> {
        let mut at = range.start;
        let mut stretches = Vec::new();
        for run in self.runs.range(self.runs.partition_point(|run| run.end <= at)..) {
            if at >= range.end || run.first > at {
                break;
            }
            let entries = at..run.end.min(range.end);
            at = entries.end;
            let (first, offset) = run.signpost(entries.start);
            let segment = run.segment.clone();
            stretches.push(Stretch { segment, entries, first, offset, end_offset: run.end_offset });
        }
        stretches
    }

    /// Live segments, and bytes of records in them.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.segments.len() as u64, self.segments.values().map(|(_, bytes)| bytes).sum())
    }

    /// Bytes of the entries from `index` on, give or take a signpost's distance.
    pub(super) fn bytes_from(&self, index: u64) -> u64 {
        let runs = self.runs.range(self.runs.partition_point(|run| run.end <= index)..);
        runs.map(|run| run.end_offset - run.signpost(index).1).sum()
    }

    /// The last index that has about `bytes` of log from it on; `None` if all of it has fewer.
    pub(super) fn index_with(&self, bytes: u64) -> Option<u64> {
        let mut after = 0;
        for run in self.runs.iter().rev() {
            let kept = |(_, offset): &&(u64, u64)| after + run.end_offset - offset >= bytes;
            if let Some((index, _)) = run.signposts.iter().rev().find(kept) {
                return Some((*index).max(run.first));
            }
            after += run.end_offset - run.signposts[0].1;
        }
        None
    }
}
