//! What is counted and timed on the way of a call: a few atomics for each thing, and nothing else.
//!
//! A counter of a method is looked up when a module is loaded and not when it is called, so a call pays for additions: no lock,
//! no allocation, no look-up. Prometheus' client has a histogram, but behind a lock; hence one of our own. How all of it is shown
//! is `http/metrics.rs`'s business.
//!
//! Numbers of one histogram are read one after the other while others add to them, so a sum may be of a few observations more or
//! fewer than its buckets. The count that is shown is the buckets' own, and never contradicts them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tonic::Code;

const RELAXED: Ordering = Ordering::Relaxed;

/// Nanoseconds: from what a local command takes to what a client gives up on.
pub const LATENCY_NS: &[u64] = &[
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
];
/// Nanoseconds: from below a fast NVMe's sync to a disk in trouble.
pub const SYNC_NS: &[u64] = &[
    32_000,
    64_000,
    128_000,
    256_000,
    512_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    250_000_000,
    1_000_000_000,
];
/// Nanoseconds in a module: from a get of one key to all of a large command's fuel.
pub const RUN_NS: &[u64] =
    &[5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000, 25_000_000, 100_000_000, 1_000_000_000];
/// Fuel: about one unit an instruction; the limits are 50 and 200 million unless somebody sets others.
pub const FUEL: &[u64] = &[3_000, 10_000, 30_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];
/// Bytes of linear memory: a small module's first megabyte, up to the most that can be allowed.
pub const MEMORY_BYTES: &[u64] = &[64 << 10, 1 << 20, 2 << 20, 4 << 20, 8 << 20, 16 << 20, 64 << 20, 256 << 20];

/// A stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its first moment.
    pub from: Instant,
    /// Its last one.
    pub to: Instant,
}

/// Looks at the clock for those who must not let what they do depend on it.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// From then until now.
    pub fn stop(self) -> Span {
        Span { from: self.0, to: Instant::now() }
    }

    /// The same, and starts again where that ends.
    pub fn lap(&mut self) -> Span {
        let span = self.stop();
        self.0 = span.to;
        span
    }
}

impl Span {
    /// How long it is.
    pub fn elapsed(&self) -> Duration {
        self.to.saturating_duration_since(self.from)
    }
}

/// Counts observations by their size. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    bounds: &'static [u64],
    /// Not cumulative; the last one is for what is above all bounds.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// With these upper bounds, ascending.
    pub fn new(bounds: &'static [u64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Buckets { bounds, counts, sum: AtomicU64::new(0) }))
    }

    /// Takes in one observation, in the unit of the bounds.
    pub fn observe(&self, value: u64) {
        let Buckets { bounds, counts, sum } = &*self.0;
        counts[bounds.partition_point(|bound| *bound < value)].fetch_add(1, RELAXED);
        sum.fetch_add(value, RELAXED);
    }

    /// The same for one whose bounds are nanoseconds.
    pub fn took(&self, duration: Duration) {
        self.observe(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Each bound with how many are at most that and above the one before; the last bound is `None`.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = self.0.bounds.iter().copied().map(Some).chain([None]);
        bounds.zip(self.0.counts.iter().map(|count| count.load(RELAXED)))
    }

    /// Of all observations.
    pub fn sum(&self) -> u64 {
        self.0.sum.load(RELAXED)
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets().map(|(_, count)| count).sum()
    }
}

/// How many codes gRPC has.
const CODES: usize = 17;

/// What clients got of one method of one module.
#[derive(Debug)]
pub struct CallMeter {
    /// How long they waited, nanoseconds.
    latency: Histogram,
    codes: [AtomicU64; CODES],
    replayed: AtomicU64,
}

impl Default for CallMeter {
    fn default() -> Self {
        Self { latency: Histogram::new(LATENCY_NS), codes: Default::default(), replayed: AtomicU64::new(0) }
    }
}

impl CallMeter {
    /// A client got its answer.
    pub fn answered(&self, code: Code, took: Duration) {
        self.codes[code as usize].fetch_add(1, RELAXED);
        self.latency.took(took);
    }

    /// It was the answer to an earlier attempt.
    pub fn replayed(&self) {
        self.replayed.fetch_add(1, RELAXED);
    }

    /// How many of those there were.
    pub fn replays(&self) -> u64 {
        self.replayed.load(RELAXED)
    }

    /// How long clients waited, nanoseconds.
    pub fn latency(&self) -> &Histogram {
        &self.latency
    }

    /// How many calls ended with each code; OK always, others only where there were some.
    pub fn codes(&self) -> impl Iterator<Item = (Code, u64)> {
        let counted = self.codes.iter().zip(0..).map(|(count, code)| (Code::from_i32(code), count.load(RELAXED)));
        counted.filter(|(code, count)| *code == Code::Ok || *count > 0)
    }
}

/// What one method of one module used on this node, whoever asked for it.
#[derive(Debug)]
pub struct RunMeter {
    /// Nanoseconds in the module, without any waiting; not of streams, which wait for their clients meanwhile.
    pub time: Histogram,
    /// Fuel of a call.
    pub fuel: Histogram,
    /// Linear memory at the end of a call, bytes; memory never shrinks.
    pub memory: Histogram,
}

impl Default for RunMeter {
    fn default() -> Self {
        let [time, fuel, memory] = [RUN_NS, FUEL, MEMORY_BYTES].map(Histogram::new);
        Self { time, fuel, memory }
    }
}

/// One meter for each method that somebody holds it for: a module that takes another's place goes on counting where that one was.
#[derive(Debug)]
pub struct ByMethod<T>(Mutex<HashMap<(String, String), Weak<T>>>);

impl<T> Default for ByMethod<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> ByMethod<T> {
    /// That of the method at `path` of `module`. For when a module is loaded or begins to serve, not for each call.
    pub fn of(&self, module: &str, path: &str) -> Arc<T> {
        let mut known = self.0.lock();
        known.retain(|_, meter| meter.strong_count() > 0);
        let slot = known.entry((module.to_owned(), path.to_owned())).or_default();
        slot.upgrade().unwrap_or_else(|| {
            let meter = Arc::<T>::default();
            *slot = Arc::downgrade(&meter);
            meter
        })
    }
}

/// What replication does, on both ends of it. Clones are the same one.
#[derive(Debug, Clone)]
pub struct ReplicationMeter {
    /// From sending entries to a follower until it has them on its disk, nanoseconds.
    pub append: Histogram,
    /// Snapshots that went out.
    pub sent: Arc<SnapshotMeter>,
    /// Snapshots that came in.
    pub received: Arc<SnapshotMeter>,
}

impl Default for ReplicationMeter {
    fn default() -> Self {
        Self { append: Histogram::new(LATENCY_NS), sent: Arc::default(), received: Arc::default() }
    }
}

/// Snapshots on their way in one direction.
#[derive(Debug, Default)]
pub struct SnapshotMeter {
    whole: AtomicU64,
    bytes: AtomicU64,
    last_bytes: AtomicU64,
}

impl SnapshotMeter {
    /// A piece passed.
    pub fn piece(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, RELAXED);
    }

    /// The last piece of a snapshot of `bytes` passed.
    pub fn whole(&self, bytes: u64) {
        self.whole.fetch_add(1, RELAXED);
        self.last_bytes.store(bytes, RELAXED);
    }

    /// How many passed whole.
    pub fn count(&self) -> u64 {
        self.whole.load(RELAXED)
    }

    /// Bytes that passed, also of those that did not pass whole.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(RELAXED)
    }

    /// How large the last whole one was.
    pub fn last_bytes(&self) -> u64 {
        self.last_bytes.load(RELAXED)
    }
}

/// What applying does. Clones are the same one.
#[derive(Debug, Clone)]
pub struct ApplyMeter {
    /// Batches of entries, each one transaction of the state: nanoseconds.
    pub batch: Histogram,
    /// Making the state durable, with the wait for the log: nanoseconds.
    pub checkpoint: Histogram,
    /// Bytes that the next checkpoint will make durable.
    pub dirty_bytes: Arc<AtomicU64>,
}

impl Default for ApplyMeter {
    fn default() -> Self {
        let (batch, checkpoint) = (Histogram::new(LATENCY_NS), Histogram::new(LATENCY_NS));
        Self { batch, checkpoint, dirty_bytes: Arc::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_lands_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&[10, 20]);
        [0, 10, 11, 20, 21, u64::MAX / 2].into_iter().for_each(|value| histogram.observe(value));
        let buckets: Vec<_> = histogram.buckets().collect();
        assert_eq!(buckets, [(Some(10), 2), (Some(20), 2), (None, 2)]);
        assert_eq!((histogram.count(), histogram.sum()), (6, 62 + u64::MAX / 2));
    }

    #[test]
    fn all_bounds_ascend() {
        for bounds in [LATENCY_NS, SYNC_NS, RUN_NS, FUEL, MEMORY_BYTES] {
            assert!(bounds.is_sorted_by(|left, right| left < right), "{bounds:?}");
        }
    }

    #[test]
    fn a_module_that_follows_another_goes_on_counting_and_one_that_is_gone_is_forgotten() {
        let meters = ByMethod::<CallMeter>::default();
        let old = meters.of("kv", "/kv/Put");
        old.answered(Code::Ok, Duration::from_millis(1));
        let new = meters.of("kv", "/kv/Put");
        drop(old);
        assert_eq!(new.codes().collect::<Vec<_>>(), [(Code::Ok, 1)]);
        drop(new);
        assert_eq!(meters.of("kv", "/kv/Put").latency().count(), 0);
        assert_eq!(meters.0.lock().len(), 1);
    }

    #[test]
    fn a_code_that_never_came_is_not_shown_but_for_ok() {
        let meter = CallMeter::default();
        meter.answered(Code::Unavailable, Duration::ZERO);
        assert_eq!(meter.codes().collect::<Vec<_>>(), [(Code::Ok, 0), (Code::Unavailable, 1)]);
    }
}
