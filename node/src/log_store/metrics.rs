//! Counters of the log, for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::measure::{Histogram, SYNC_NS};

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
    /// Entries served from memory.
    pub reads_cached: AtomicU64,
    /// Entries read from segments.
    pub reads_disk: AtomicU64,
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
            reads_cached: AtomicU64::default(),
            reads_disk: AtomicU64::default(),
        }
    }
}

impl Metrics {
    pub(super) fn synced(&self, entries: u64, bytes: u64, took: Duration) {
        add(&self.entries, entries);
        add(&self.bytes, bytes);
        self.syncs.took(took);
    }
}
