//! Counters of the log, for `/metrics`.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::record::Record;
use crate::measure::{Histogram, SYNC_NS, Span};

/// What the log did since it was opened. Counters only grow; read one at a time.
#[derive(Debug)]
pub struct Metrics {
    /// Entries made durable.
    pub entries: AtomicU64,
    /// Bytes of records made durable, frames included.
    pub bytes: AtomicU64,
    /// Writing and syncing a group of records, nanoseconds; entries / its count is the mean group.
    pub syncs: Histogram,
    /// Segments begun on a new file.
    pub segments_made: AtomicU64,
    /// Segments begun on a recycled file.
    pub segments_recycled: AtomicU64,
    /// Times that the log thread had to wait for the next segment to be zero-filled.
    pub roll_waits: AtomicU64,
    /// When the last groups were written.
    pub flushes: Flushes,
    /// Entries served from memory.
    pub reads_cached: AtomicU64,
    /// Entries read from segments.
    pub reads_disk: AtomicU64,
}

/// Groups that are remembered: whoever asks for one does so as soon as its entries are applied.
const FLUSHES_KEPT: usize = 4096;

/// When entries became durable, for traces; kept only where somebody traces.
#[derive(Debug, Default)]
pub struct Flushes {
    kept: AtomicBool,
    recent: Mutex<VecDeque<(RangeInclusive<u64>, Span)>>,
}

impl Flushes {
    /// Keeps them from now on.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// When the entry at `index` was written and synced, and how many were with it, if that was a moment ago.
    pub fn of(&self, index: u64) -> Option<(Span, u64)> {
        let recent = self.recent.lock();
        let (group, span) = recent.iter().rev().find(|(group, _)| group.contains(&index))?;
        Some((*span, group.end() - group.start() + 1))
    }

    fn push(&self, group: RangeInclusive<u64>, span: Span) {
        let mut recent = self.recent.lock();
        if recent.len() == FLUSHES_KEPT {
            recent.pop_front();
        }
        recent.push_back((group, span));
    }
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            entries: AtomicU64::default(),
            bytes: AtomicU64::default(),
            syncs: Histogram::new(SYNC_NS),
            segments_made: AtomicU64::default(),
            segments_recycled: AtomicU64::default(),
            roll_waits: AtomicU64::default(),
            flushes: Flushes::default(),
            reads_cached: AtomicU64::default(),
            reads_disk: AtomicU64::default(),
        }
    }
}

impl Metrics {
    /// A group of records was written.
    pub(super) fn synced(&self, records: &[Record], bytes: u64, took: Span) {
        let indexes = || {
            records.iter().filter_map(|record| match record {
                Record::Entry(id) => Some(id.index),
                _ => None,
            })
        };
        add(&self.entries, indexes().count() as u64);
        add(&self.bytes, bytes);
        self.syncs.took(took.elapsed());
        if self.flushes.kept.load(Ordering::Relaxed)
            && let (Some(first), Some(last)) = (indexes().min(), indexes().max())
        {
            self.flushes.push(first..=last, took);
        }
    }
}
