//! Counters of the log, for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of [`Metrics::sync_buckets`], microseconds: from below a fast NVMe's sync to a disk in
/// trouble.
pub const SYNC_BUCKETS_US: [u64; 12] = [32, 64, 128, 256, 512, 1_000, 2_000, 5_000, 10_000, 50_000, 250_000, 1_000_000];

/// What the log did since it was opened. Counters only grow; read one at a time.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Entries made durable.
    pub entries: AtomicU64,
    /// Bytes of records made durable, frames included.
    pub bytes: AtomicU64,
    /// `fdatasync`s of groups of records: entries / syncs is the mean group.
    pub syncs: AtomicU64,
    /// Microseconds spent in writing and syncing them.
    pub sync_us_sum: AtomicU64,
    /// The longest.
    pub sync_us_max: AtomicU64,
    /// How many took at most that long, by [`SYNC_BUCKETS_US`] (not cumulative); the last one: longer.
    pub sync_buckets: [AtomicU64; SYNC_BUCKETS_US.len() + 1],
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

impl Metrics {
    pub(super) fn synced(&self, entries: u64, bytes: u64, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        add(&self.entries, entries);
        add(&self.bytes, bytes);
        add(&self.syncs, 1);
        add(&self.sync_us_sum, us);
        self.sync_us_max.fetch_max(us, Ordering::Relaxed);
        add(&self.sync_buckets[SYNC_BUCKETS_US.partition_point(|bound| *bound < us)], 1);
    }
}
