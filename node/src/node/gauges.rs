//! What is looked at when somebody asks for `/metrics`, since that is cheaper than to follow it.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

use openraft::async_runtime::WatchReceiver;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::Node;
use super::status::{refused_by, short};
use crate::http::{
    CheckLabels, Metrics, ModuleLabels, PeerLabels, QueueLabels, RefusedLabels, SourceLabels, StoreLabels,
};
use crate::limits::{PENDING_COMMANDS_MAX, PENDING_QUERIES_MAX, STREAMS_MAX};
use crate::proto::admin;
use crate::raft::clock::wall_clock_ms;

fn set(gauge: &Gauge, value: impl TryInto<i64>) {
    gauge.set(value.try_into().unwrap_or(i64::MAX));
}

/// For what is counted elsewhere: a counter there only grows, so the one that is shown does too.
fn count(counter: &Counter, value: u64) {
    counter.inner().store(value, Ordering::Relaxed);
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are below 2^53")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1e3
}

impl Node {
    /// Sets every gauge to what is so now.
    pub(super) fn set_gauges(&self, metrics: &Metrics) {
        // A module that is new has its methods shown before anybody calls one.
        metrics.serve(&self.inner.reader.catalog());
        let status = self.own_status();
        self.set_raft_gauges(metrics, &status);
        self.set_peer_gauges(metrics);
        set(&metrics.members_waiting, status.waiting.len());
        set(&metrics.members_refused, status.candidates.len());
        self.set_log_gauges(metrics);
        self.set_state_gauges(metrics);
        self.set_queue_gauges(metrics);
        self.set_clock_gauges(metrics);
        self.set_health_gauges(metrics);
        set_module_gauges(metrics, &status);
        metrics.module_refused.clear();
        for row in self.refused_wishes() {
            let labels = RefusedLabels { module: row.name.clone(), by: refused_by(&row) };
            metrics.module_refused.get_or_create(&labels).set(1);
        }
    }

    fn set_raft_gauges(&self, metrics: &Metrics, status: &admin::NodeStatus) {
        metrics.set_role(&status.role);
        set(&metrics.raft_term, status.term);
        set(&metrics.raft_leader_known, i64::from(self.is_led().is_ok()));
        count(&metrics.raft_leader_changes, self.inner.leader_changes.load(Ordering::Relaxed));
        set(&metrics.raft_last_index, status.last_index);
        set(&metrics.raft_committed_index, status.committed_index);
        set(&metrics.raft_applied_index, status.applied_index);
        set(&metrics.raft_lag_entries, status.committed_index.saturating_sub(status.applied_index));
        let behind = self.inner.lag.lock().behind(status.applied_index, Instant::now());
        metrics.raft_lag.set(behind.as_secs_f64());
        set(&metrics.digest_index, status.digest_index);
    }

    fn set_peer_gauges(&self, metrics: &Metrics) {
        let raft = self.inner.raft.metrics().borrow_watched().clone();
        let (own, voters) = (self.inner.peers.own(), self.voters());
        let members = raft.membership_config.nodes().count();
        set(&metrics.raft_voters, voters.len());
        set(&metrics.raft_learners, members - voters.len().min(members));
        let views = self.inner.views.lock();
        let is_reachable = |id| views.get(id).is_some_and(super::status::PeerView::is_fresh);
        let reachable = voters.iter().filter(|id| **id == own || is_reachable(id)).count();
        set(&metrics.raft_voters_reachable, reachable);
        metrics.peer_reachable.clear();
        metrics.peer_lag_entries.clear();
        for (id, member) in raft.membership_config.nodes().filter(|(id, _)| **id != own) {
            let labels = PeerLabels { peer: member.name.clone() };
            metrics.peer_reachable.get_or_create(&labels).set(i64::from(is_reachable(id)));
            let Some(matched) = raft.replication.as_ref().and_then(|peers| peers.get(id)) else { continue };
            let matched = matched.map_or(0, |id| id.index());
            let lag = raft.last_log_index.unwrap_or(0).saturating_sub(matched);
            set(&metrics.peer_lag_entries.get_or_create(&labels), lag);
        }
    }

    fn set_log_gauges(&self, metrics: &Metrics) {
        let (log, size) = (self.inner.log.metrics(), self.inner.log.size());
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        count(&metrics.log_entries, load(&log.entries));
        count(&metrics.log_bytes, load(&log.bytes));
        count(&metrics.log_segments_begun, load(&log.segments_made) + load(&log.segments_recycled));
        count(&metrics.log_segment_waits, load(&log.roll_waits));
        for (source, counter) in [("memory", &log.reads_cached), ("disk", &log.reads_disk)] {
            count(&metrics.log_reads.get_or_create(&SourceLabels { source }), load(counter));
        }
        set(&metrics.log_first_index, self.inner.log.range().start);
        set(&metrics.log_segments, size.segments);
        set(&metrics.storage_bytes.get_or_create(&StoreLabels { store: "log" }), size.bytes);
    }

    fn set_state_gauges(&self, metrics: &Metrics) {
        let view = self.inner.reader.view();
        let progress = *view.progress();
        set(&metrics.sessions, progress.session_rows);
        set(&metrics.session_bytes, progress.session_bytes);
        set(&metrics.session_limit, view.limits().idempotency_keys);
        // A state that cannot be read ends the node wherever it is used; here it only leaves a number out.
        let oldest = view.oldest_session_ms().ok().flatten().unwrap_or(progress.time_ms);
        metrics.session_oldest.set(seconds(progress.time_ms.saturating_sub(oldest).cast_signed()));
        metrics.log_time.set(seconds(progress.time_ms.cast_signed()));
        set(&metrics.storage_dirty, self.inner.meters.apply.dirty_bytes.load(Ordering::Relaxed));
        set(&metrics.storage_cache_limit, self.inner.config.storage.cache_bytes);
        let dir = &self.inner.config.node.data_dir;
        for (store, place) in [("state", "state"), ("incoming", "tmp")] {
            set(&metrics.storage_bytes.get_or_create(&StoreLabels { store }), files_bytes(&dir.join(place)));
        }
        if let Ok(disk) = rustix::fs::statvfs(dir) {
            set(&metrics.filesystem_size, disk.f_blocks.saturating_mul(disk.f_frsize));
            set(&metrics.filesystem_available, disk.f_bavail.saturating_mul(disk.f_frsize));
        }
    }

    fn set_queue_gauges(&self, metrics: &Metrics) {
        let (commands, queries) = (self.inner.admission.pending(), self.inner.queries.waiting());
        let queues = [
            ("commands", commands, PENDING_COMMANDS_MAX),
            ("queries", queries, PENDING_QUERIES_MAX),
            ("streams", self.inner.streams.open(), STREAMS_MAX as usize),
        ];
        for (queue, pending, limit) in queues {
            set(&metrics.pending.get_or_create(&QueueLabels { queue }), pending);
            set(&metrics.pending_limit.get_or_create(&QueueLabels { queue }), limit);
        }
        set(&metrics.pending_bytes, self.inner.admission.pending_bytes());
    }

    fn set_clock_gauges(&self, metrics: &Metrics) {
        let offset = self.inner.clock.lock().offset_ms(wall_clock_ms(), Instant::now());
        metrics.clock_offset.set(seconds(offset.unwrap_or(0)));
        set(&metrics.clock_off, i64::from(self.inner.clock_off.load(Ordering::Relaxed)));
    }

    fn set_health_gauges(&self, metrics: &Metrics) {
        let readiness = self.readiness();
        set(&metrics.ready, i64::from(readiness.is_ready()));
        for check in &readiness.checks {
            let labels = CheckLabels { check: check.name };
            metrics.ready_check.get_or_create(&labels).set(i64::from(check.result.is_ok()));
        }
        set(&metrics.fenced, i64::from(self.fenced().is_some()));
        set(&metrics.states_undecided, i64::from(self.inner.undecided.lock().is_some()));
    }
}

fn set_module_gauges(metrics: &Metrics, status: &admin::NodeStatus) {
    metrics.module_active.clear();
    for module in &status.modules {
        let labels = ModuleLabels { module: module.name.clone(), hash: short(&module.hash) };
        set(&metrics.module_active.get_or_create(&labels), module.generation);
    }
    metrics.module_wanted.clear();
    for module in status.wish.iter().flat_map(|wish| &wish.modules) {
        let hash = if module.hash.is_empty() { "embedded".to_owned() } else { short(&module.hash) };
        metrics.module_wanted.get_or_create(&ModuleLabels { module: module.name.clone(), hash }).set(1);
    }
    set(&metrics.module_changes, status.changes.len());
}

/// What the files in `dir` take on disk, which may be less than their length. A file that goes away meanwhile takes nothing.
fn files_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten();
    let sizes =
        files.filter_map(|file| Some(std::os::unix::fs::MetadataExt::blocks(&file.ok()?.metadata().ok()?) * 512));
    sizes.sum()
}
