//! What the node counts and measures, as Prometheus reads it.
//!
//! Names follow Prometheus: a unit at the end, base units (seconds, bytes), counters end in `_total`. Cardinality is low by
//! construction: labels are methods of active modules, members, gRPC codes and a few fixed words ([`labels`]), never anything a client
//! sends. What is on the way of calls is counted in [`crate::measure`] and shown from there ([`shown`]); the rest is looked at
//! when somebody asks (`node/gauges.rs`), and set through these public fields. `docs/metrics.md` is made from what is registered here.

mod labels;
mod process;
mod shown;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry, Unit};

pub use self::labels::{
    BuildLabels, CheckLabels, CodeLabel, CodeLabels, MethodLabels, ModuleLabels, PeerLabels, QueueLabels,
    RefusedLabels, RoleLabels, SourceLabels, StoreLabels,
};
use self::process::Process;
use self::shown::{Methods, Served, Shown, Snapshots};
use crate::measure::{ApplyMeter, ByMethod, CallMeter, Histogram, LATENCY_NS, ReplicationMeter, SYNC_NS};
use crate::service::Catalog;
use crate::wasm::{Method, Module};

/// The words of `balsa_raft_role`.
pub const ROLES: [&str; 8] = ["leader", "follower", "candidate", "learner", "joining", "starting", "fenced", "stopped"];

/// A gauge of seconds.
type Seconds = Gauge<f64, AtomicU64>;

/// What others measure while they work.
#[derive(Debug, Clone)]
pub struct Meters {
    /// The network's.
    pub replication: ReplicationMeter,
    /// The apply thread's.
    pub apply: ApplyMeter,
    /// The log thread's: writing and syncing a group of records, nanoseconds.
    pub log_syncs: Histogram,
    /// From proposing a command on this leader until it is applied here, nanoseconds.
    pub proposals: Histogram,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            replication: ReplicationMeter::default(),
            apply: ApplyMeter::default(),
            log_syncs: Histogram::new(SYNC_NS),
            proposals: Histogram::new(LATENCY_NS),
        }
    }
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $shown:literal $(in $unit:ident)?, $help:literal;)*) => {
        /// Every metric of a node.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            process: Registry,
            calls: ByMethod<CallMeter>,
            methods: Arc<Methods>,
            $($(#[$doc])* #[doc = $help] pub $name: $type,)*
        }

        impl Metrics {
            fn unregistered() -> Self {
                Self {
                    registry: Registry::with_prefix("balsa"),
                    process: Registry::with_prefix("process"),
                    calls: ByMethod::default(),
                    methods: Arc::default(),
                    $($name: <$type>::default(),)*
                }
            }

            fn register(&mut self) {
                $(register(&mut self.registry, $shown, $help, metrics!(@unit $($unit)?), self.$name.clone());)*
            }
        }
    };
    (@unit) => { None };
    (@unit $unit:ident) => { Some(Unit::$unit) };
}

fn register(registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>, metric: impl Metric) {
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, metric),
        None => registry.register(name, help, metric),
    }
}

metrics! {
    unknown_methods: Counter = "unknown_methods", "Calls of paths that no active module serves; the paths are in nobody's labels";
    pending: Family<QueueLabels, Gauge> = "pending", "Calls accepted and not yet answered";
    pending_bytes: Gauge = "pending" in Bytes, "Size of the commands that are accepted and not yet answered";
    pending_limit: Family<QueueLabels, Gauge> = "pending_limit", "How many calls may be pending; above it they are refused";

    ready: Gauge = "ready", "1 if clients should be sent here";
    ready_check: Family<CheckLabels, Gauge> = "ready_check", "1 for each check of /readyz?verbose that is well";
    fenced: Gauge = "fenced", "1 if the node has shut itself out because its state differs from the majority's";
    states_undecided: Gauge = "states_undecided", "1 if the nodes' states differ and none has a majority: no commands are accepted";
    digest_index: Gauge = "digest_index", "Index of the newest state digest";

    raft_term: Gauge = "raft_term", "Current term";
    raft_role: Family<RoleLabels, Gauge> = "raft_role", "1 for the node's present role, 0 for the others";
    raft_leader_known: Gauge = "raft_leader_known", "1 if a majority has lately confirmed the leader that the node knows";
    raft_leader_changes: Counter = "raft_leader_changes", "Times that another node, or none, became the known leader";
    raft_voters: Gauge = "raft_voters", "Members of the cluster that vote, this node included if it does";
    raft_learners: Gauge = "raft_learners", "Members of the cluster that do not vote";
    members_waiting: Gauge = "members_waiting", "On the leader: what it would change about the members, and cannot yet";
    members_refused: Gauge = "members_refused", "On the leader: nodes that have asked to be let in within half a minute, and were refused";
    raft_voters_reachable: Gauge = "raft_voters_reachable", "Voters that this node has heard of in the last five seconds, itself included";
    raft_last_index: Gauge = "raft_last_index", "Last index of the node's log";
    raft_committed_index: Gauge = "raft_committed_index", "Last index known to be committed";
    raft_applied_index: Gauge = "raft_applied_index", "Last index applied and published to readers";
    raft_lag_entries: Gauge = "raft_lag_entries", "Entries that are known to be committed and not yet applied here";
    raft_lag: Seconds = "raft_lag" in Seconds, "How long the oldest known of these has been waiting";
    peer_reachable: Family<PeerLabels, Gauge> = "peer_reachable", "1 for each other member that was heard of in the last five seconds";
    peer_lag_entries: Family<PeerLabels, Gauge> = "peer_lag_entries", "On the leader: entries of its log that it does not know to be on the peer's disk";

    log_entries: Counter = "log_entries", "Log entries made durable";
    log_bytes: Counter = "log_written" in Bytes, "Log records made durable";
    log_first_index: Gauge = "log_first_index", "First index in the log; what was before it is only in the state";
    log_segments: Gauge = "log_segments", "Segment files of the log in use";
    log_segments_begun: Counter = "log_segments_begun", "Segment files begun";
    log_segment_waits: Counter = "log_segment_waits", "Times that writing waited for the next segment file";
    log_reads: Family<SourceLabels, Counter> = "log_entries_read", "Log entries read, for apply and for followers";

    storage_bytes: Family<StoreLabels, Gauge> = "storage" in Bytes, "Size on disk";
    storage_cache_limit: Gauge = "storage_cache_limit" in Bytes, "Size that the state's cache may have";
    storage_dirty: Gauge = "storage_dirty" in Bytes, "Changes of the state that the next checkpoint makes durable";
    filesystem_size: Gauge = "filesystem_size" in Bytes, "Size of the file system that holds the data directory";
    filesystem_available: Gauge = "filesystem_available" in Bytes, "Of that, what is free for this process";

    sessions: Gauge = "sessions", "Idempotency keys remembered";
    session_bytes: Gauge = "sessions_size" in Bytes, "Size of what is remembered";
    session_limit: Gauge = "sessions_limit", "Idempotency keys that may be remembered; above it new ones are refused";
    session_oldest: Seconds = "sessions_oldest" in Seconds, "Age of the oldest key that is remembered, in log time";

    module_active: Family<ModuleLabels, Gauge> = "module_active", "Modules that serve; the value is the index of the activation";
    module_wanted: Family<ModuleLabels, Gauge> = "module_wanted", "1 for each module that this node's files want";
    module_refused: Family<RefusedLabels, Gauge> = "module_refused", "1 for each module whose files ask for what was refused";
    module_changes: Gauge = "module_changes", "Changes of modules under way on this leader";

    clock_offset: Seconds = "clock_offset" in Seconds, "This machine's clock minus the median of the voters', as far as a majority's are known";
    clock_off: Gauge = "clock_off", "1 if that is so much that this node does not lead";
    log_time: Seconds = "log_time" in Seconds, "Log time of the last applied entry, since 1970";

    build: Family<BuildLabels, Gauge> = "build_info", "1, with what this binary is";
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero, and nobody measures.
    pub fn new() -> Self {
        Self::with(&Meters::default())
    }

    /// With what these measure.
    pub fn with(meters: &Meters) -> Self {
        let mut metrics = Self::unregistered();
        metrics.registry.register_collector(Box::new(Arc::clone(&metrics.methods)));
        metrics.register();
        metrics.register_meters(meters);
        metrics.process.register_collector(Box::new(Process));
        let build = BuildLabels { version: env!("CARGO_PKG_VERSION"), arch: std::env::consts::ARCH };
        metrics.build.get_or_create(&build).set(1);
        metrics
    }

    fn register_meters(&mut self, meters: &Meters) {
        let Meters { replication, apply, log_syncs, proposals } = meters;
        let seconds = [
            ("raft_proposal", "On the leader: from proposing a command until it is applied", proposals),
            (
                "raft_append",
                "On the leader: from sending entries to a follower until it has them on its disk",
                &replication.append,
            ),
            ("log_fsync", "Writing and syncing one group of log records", log_syncs),
            ("apply_batch", "Applying one batch of entries and publishing the state after it", &apply.batch),
            ("checkpoint", "Making the state durable, with the wait for the log", &apply.checkpoint),
        ];
        for (name, help, histogram) in seconds {
            register(&mut self.registry, name, help, Some(Unit::Seconds), Shown::seconds(histogram));
        }
        let (sent, received) = (Arc::clone(&replication.sent), Arc::clone(&replication.received));
        self.registry.register_collector(Box::new(Snapshots { sent, received }));
    }

    /// In OpenMetrics' text format.
    pub fn encode(&self) -> String {
        let mut encoded = String::new();
        [&self.registry, &self.process]
            .into_iter()
            .try_for_each(|registry| text::encode_registry(&mut encoded, registry))
            .and_then(|()| text::encode_eof(&mut encoded))
            .expect("writing to a String cannot fail");
        encoded
    }

    /// Where the calls of one method are counted: the same for all modules of that name that have it.
    pub fn calls(&self, module: &str, method: &Method) -> Arc<CallMeter> {
        self.calls.of(module, &method.path)
    }

    /// Shows the methods of `catalog` from now on, and no others.
    pub fn serve(&self, catalog: &Catalog) {
        let served = |module: &Module, method: &Method| Served {
            kind: method.kind,
            labels: MethodLabels {
                module: module.name().to_owned(),
                method: method.path.trim_start_matches('/').to_owned(),
            },
            calls: self.calls(module.name(), method),
            runs: Arc::clone(module.meter(method)),
        };
        let modules = catalog.modules.iter().map(|active| &active.module);
        let methods = modules.flat_map(|module| module.methods().iter().map(move |method| served(module, method)));
        self.methods.0.store(Arc::new(methods.collect()));
    }

    /// `role` is one of [`ROLES`].
    pub fn set_role(&self, role: &str) {
        debug_assert!(ROLES.contains(&role), "{role} is in no series");
        for name in ROLES {
            self.raft_role.get_or_create(&RoleLabels { role: name }).set(i64::from(name == role));
        }
    }
}
