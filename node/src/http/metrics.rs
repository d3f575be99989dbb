//! What the node counts and measures.
//!
//! Names follow Prometheus: a unit at the end, base units (seconds, bytes), counters end in `_total`. Cardinality is low by
//! construction: labels are methods of active modules, gRPC codes and a few fixed words, never anything a client sends. The
//! front end records the requests; everybody else sets the rest through these public fields, which are cheap handles.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tonic::Code;

use crate::command::code_name;
use crate::wasm::MethodKind;

/// From what a local command takes to what a client gives up on, seconds.
const LATENCY_BUCKETS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// The words of `balsa_raft_role`.
pub const ROLES: [&str; 6] = ["leader", "follower", "candidate", "learner", "starting", "fenced"];

/// A method of a module.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MethodLabels {
    /// `kvstore`
    pub module: String,
    /// `kvstore.v1.KvStore/Put`
    pub method: String,
}

/// How calls of a method ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CodeLabels {
    /// `kvstore`
    pub module: String,
    /// `kvstore.v1.KvStore/Put`
    pub method: String,
    /// A gRPC code in its usual spelling, `OK` or `NOT_FOUND`.
    pub code: CodeLabel,
}

/// A gRPC code as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CodeLabel(pub Code);

impl EncodeLabelValue for CodeLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        code_name(self.0).encode(encoder)
    }
}

/// One of [`ROLES`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RoleLabels {
    /// `leader`
    pub role: &'static str,
}

/// `log`, `state` or `snapshots`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StoreLabels {
    /// `log`
    pub store: &'static str,
}

/// `commands` or `queries`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct QueueLabels {
    /// `commands`
    pub queue: &'static str,
}

/// A module as it serves, or as this node's files want it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ModuleLabels {
    /// Its name.
    pub module: String,
    /// The first 12 hex digits of its hash; `embedded` for a wish for the module in the binary.
    pub hash: String,
}

/// A module whose files ask for what was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusedLabels {
    /// Its name.
    pub module: String,
    /// What refused it: `check`, a refusal of the log, or the class of a trap; `balsa status` has the words.
    pub by: &'static str,
}

type Histograms = Family<MethodLabels, Histogram, fn() -> Histogram>;

/// Every metric of a node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    commands: Family<CodeLabels, Counter>,
    command_duration: Histograms,
    queries: Family<CodeLabels, Counter>,
    query_duration: Histograms,
    /// The current term.
    pub raft_term: Gauge,
    /// One for the present role, zero for the others; see [`Metrics::set_role`].
    pub raft_role: Family<RoleLabels, Gauge>,
    /// Times that another node, or none, became the leader.
    pub raft_leader_changes: Counter,
    /// Highest log index known to be committed.
    pub raft_committed_index: Gauge,
    /// Highest log index applied.
    pub raft_applied_index: Gauge,
    /// Highest log index in this node's log.
    pub raft_last_index: Gauge,
    /// fsyncs of the log. With the next two: entries an fsync, and the mean time of one.
    pub log_fsyncs: Counter,
    /// Time spent in them.
    pub log_fsync_time: Counter<f64, AtomicU64>,
    /// Entries they made durable.
    pub log_entries: Counter,
    /// First index in the log; what was before it is only in the state.
    pub log_first_index: Gauge,
    /// Idempotency keys remembered.
    pub sessions: Gauge,
    /// Bytes of idempotency rows.
    pub session_bytes: Gauge,
    /// Bytes on disk, by store.
    pub storage_bytes: Family<StoreLabels, Gauge>,
    /// The index of the newest rolling digest.
    pub digest_index: Gauge,
    /// Calls accepted and not yet answered, by queue.
    pub pending: Family<QueueLabels, Gauge>,
    /// The generation of each module that serves: the log index of its activation.
    pub module_active: Family<ModuleLabels, Gauge>,
    /// One for each module that this node's files want.
    pub module_wanted: Family<ModuleLabels, Gauge>,
    /// One for each module whose files ask for what was refused.
    pub module_refused: Family<RefusedLabels, Gauge>,
    /// Changes of modules that this node conducts as the leader.
    pub module_changes: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut metrics = Self::unregistered();
        let mut registry = Registry::with_prefix("balsa");
        metrics.register_calls(&mut registry);
        metrics.register_raft(&mut registry);
        metrics.register_storage(&mut registry);
        metrics.register_modules(&mut registry);
        metrics.registry = registry;
        metrics
    }

    fn unregistered() -> Self {
        let latencies = || Family::new_with_constructor((|| Histogram::new(LATENCY_BUCKETS)) as fn() -> Histogram);
        Self {
            registry: Registry::default(),
            commands: Family::default(),
            command_duration: latencies(),
            queries: Family::default(),
            query_duration: latencies(),
            raft_term: Gauge::default(),
            raft_role: Family::default(),
            raft_leader_changes: Counter::default(),
            raft_committed_index: Gauge::default(),
            raft_applied_index: Gauge::default(),
            raft_last_index: Gauge::default(),
            log_fsyncs: Counter::default(),
            log_fsync_time: Counter::default(),
            log_entries: Counter::default(),
            log_first_index: Gauge::default(),
            sessions: Gauge::default(),
            session_bytes: Gauge::default(),
            storage_bytes: Family::default(),
            digest_index: Gauge::default(),
            pending: Family::default(),
            module_active: Family::default(),
            module_wanted: Family::default(),
            module_refused: Family::default(),
            module_changes: Gauge::default(),
        }
    }

    fn register_calls(&self, registry: &mut Registry) {
        registry.register("commands", "Commands answered to clients, by gRPC code", self.commands.clone());
        registry.register_with_unit(
            "command_duration",
            "From a command's headers to its reply",
            Unit::Seconds,
            self.command_duration.clone(),
        );
        registry.register("queries", "Queries answered to clients, by gRPC code", self.queries.clone());
        registry.register_with_unit(
            "query_duration",
            "From a query's headers to its reply",
            Unit::Seconds,
            self.query_duration.clone(),
        );
        registry.register("pending", "Calls accepted and not yet answered", self.pending.clone());
    }

    fn register_raft(&self, registry: &mut Registry) {
        registry.register("raft_term", "Current term", self.raft_term.clone());
        registry.register("raft_role", "1 for the node's present role", self.raft_role.clone());
        registry.register("raft_leader_changes", "Times the known leader changed", self.raft_leader_changes.clone());
        registry.register("raft_last_index", "Last index of the node's log", self.raft_last_index.clone());
        registry.register("raft_committed_index", "Last index known committed", self.raft_committed_index.clone());
        registry.register("raft_applied_index", "Last index applied", self.raft_applied_index.clone());
        registry.register("digest_index", "Index of the newest state digest", self.digest_index.clone());
    }

    fn register_storage(&self, registry: &mut Registry) {
        registry.register("log_fsyncs", "fsyncs of the log", self.log_fsyncs.clone());
        let time = self.log_fsync_time.clone();
        registry.register_with_unit("log_fsync", "Time spent in fsyncs of the log", Unit::Seconds, time);
        registry.register("log_entries", "Log entries made durable", self.log_entries.clone());
        let first = self.log_first_index.clone();
        registry.register("log_first_index", "First index in the log; what was before is only in the state", first);
        registry.register_with_unit("storage", "Size on disk", Unit::Bytes, self.storage_bytes.clone());
        registry.register("sessions", "Idempotency keys remembered", self.sessions.clone());
        let session_bytes = self.session_bytes.clone();
        registry.register_with_unit("sessions_size", "Size of what is remembered", Unit::Bytes, session_bytes);
    }

    fn register_modules(&self, registry: &mut Registry) {
        let active = self.module_active.clone();
        registry.register("module_active", "Modules that serve; the value is the index of the activation", active);
        let wanted = self.module_wanted.clone();
        registry.register("module_wanted", "Modules that this node's files want", wanted);
        let refused = self.module_refused.clone();
        registry.register("module_refused", "Modules whose files ask for what was refused", refused);
        let changes = self.module_changes.clone();
        registry.register("module_changes", "Changes of modules under way on this leader", changes);
    }

    /// In OpenMetrics' text format.
    pub fn encode(&self) -> String {
        let mut encoded = String::new();
        text::encode(&mut encoded, &self.registry).expect("writing to a String cannot fail");
        encoded
    }

    /// The handles for one method's calls.
    pub fn call(&self, module: &str, service: &str, method: &str, kind: MethodKind) -> CallMetrics {
        let labels = MethodLabels { module: module.to_owned(), method: format!("{service}/{method}") };
        let (counts, durations) = match kind {
            MethodKind::Command => (&self.commands, &self.command_duration),
            MethodKind::Query => (&self.queries, &self.query_duration),
        };
        let ok = counts.get_or_create_owned(&labels.with(Code::Ok));
        let duration = durations.get_or_create_owned(&labels);
        CallMetrics { counts: counts.clone(), ok, duration, labels }
    }

    /// `role` is one of [`ROLES`].
    pub fn set_role(&self, role: &str) {
        for name in ROLES {
            self.raft_role.get_or_create(&RoleLabels { role: name }).set(i64::from(name == role));
        }
    }
}

impl MethodLabels {
    fn with(&self, code: Code) -> CodeLabels {
        CodeLabels { module: self.module.clone(), method: self.method.clone(), code: CodeLabel(code) }
    }
}

/// Where the calls of one method are recorded.
#[derive(Debug)]
pub struct CallMetrics {
    counts: Family<CodeLabels, Counter>,
    /// The usual one, found beforehand.
    ok: Counter,
    duration: Histogram,
    labels: MethodLabels,
}

impl CallMetrics {
    /// Records one call.
    pub fn observe(&self, code: Code, duration: Duration) {
        match code {
            Code::Ok => self.ok.inc(),
            code => self.counts.get_or_create(&self.labels.with(code)).inc(),
        };
        self.duration.observe(duration.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_help_text_and_its_unit() {
        let metrics = Metrics::new();
        let call = metrics.call("kvstore", "kvstore.v1.KvStore", "Put", MethodKind::Command);
        call.observe(Code::Ok, Duration::from_millis(2));
        call.observe(Code::FailedPrecondition, Duration::from_millis(3));
        metrics.set_role("follower");
        metrics.storage_bytes.get_or_create(&StoreLabels { store: "log" }).set(9);
        let text = metrics.encode();
        let labels = r#"module="kvstore",method="kvstore.v1.KvStore/Put""#;
        for line in [
            format!(r#"balsa_commands_total{{{labels},code="OK"}} 1"#),
            format!(r#"balsa_commands_total{{{labels},code="FAILED_PRECONDITION"}} 1"#),
            format!(r#"balsa_command_duration_seconds_count{{{labels}}} 2"#),
            format!(r#"balsa_command_duration_seconds_bucket{{le="0.0025",{labels}}} 1"#),
            r#"balsa_raft_role{role="follower"} 1"#.to_owned(),
            r#"balsa_raft_role{role="leader"} 0"#.to_owned(),
            "# UNIT balsa_log_fsync_seconds seconds".to_owned(),
            "# UNIT balsa_storage_bytes bytes".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
        let families = text.lines().filter(|line| line.starts_with("# TYPE")).count();
        assert_eq!(text.lines().filter(|line| line.starts_with("# HELP")).count(), families);
    }
}
