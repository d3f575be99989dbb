use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use tonic::Code;

use super::*;
use crate::service::Active;
use crate::testing::{self, exposition};
use crate::wasm::embedded;

/// A node's metrics with a series of each kind in every family.
fn full() -> Metrics {
    let meters = Meters::default();
    let metrics = Metrics::with(&meters);
    metrics.serve(&catalog());
    meters.apply.batch.took(Duration::from_micros(700));
    metrics.set_role("follower");
    metrics.pending.get_or_create(&QueueLabels { queue: "commands" }).set(1);
    metrics.pending_limit.get_or_create(&QueueLabels { queue: "commands" }).set(1);
    metrics.ready_check.get_or_create(&CheckLabels { check: "voter" }).set(1);
    metrics.peer_reachable.get_or_create(&PeerLabels { peer: "balsa-1".into() }).set(1);
    metrics.peer_lag_entries.get_or_create(&PeerLabels { peer: "balsa-1".into() }).set(1);
    metrics.log_reads.get_or_create(&SourceLabels { source: "disk" }).inc();
    metrics.storage_bytes.get_or_create(&StoreLabels { store: "log" }).set(9);
    let module = || ModuleLabels { module: "kvstore-wasm".into(), hash: "0123456789ab".into() };
    metrics.module_active.get_or_create(&module()).set(7);
    metrics.module_wanted.get_or_create(&module()).set(1);
    metrics.module_refused.get_or_create(&RefusedLabels { module: "kvstore-wasm".into(), by: "check" }).set(1);
    metrics
}

fn catalog() -> Catalog {
    let module = Module::load(&testing::engine(), embedded::KVSTORE).unwrap();
    Catalog { modules: vec![Active { module, generation: 1 }] }
}

#[test]
fn every_metric_keeps_the_rules() {
    let families = exposition::read(&full().encode());
    assert!(families.len() > 60, "{}", families.len());
    assert_eq!(families["balsa_storage_bytes"].samples[0].labels["store"], "log");
    assert_eq!(families["balsa_raft_role"].samples.iter().map(|sample| sample.value).sum::<f64>(), 1.0);
    assert!(families["process_resident_memory_bytes"].samples[0].value > 1e6);
    let started = families["process_start_time_seconds"].samples[0].value;
    let now = crate::raft::clock::wall_clock_ms() as f64 / 1e3;
    assert!((now - 3600.0 * 24.0..=now + 1.0).contains(&started), "{started} of {now}");
}

#[test]
fn a_value_with_any_character_in_it_stays_one_value() {
    let metrics = Metrics::new();
    let peer = "a\"b\\c\nd,e} f".to_owned();
    metrics.peer_reachable.get_or_create(&PeerLabels { peer: peer.clone() }).set(1);
    let families = exposition::read(&metrics.encode());
    assert_eq!(families["balsa_peer_reachable"].samples[0].labels["peer"], peer);
}

#[test]
fn the_calls_of_a_method_are_counted_by_code_and_timed() {
    let (metrics, catalog) = (Metrics::new(), catalog());
    metrics.serve(&catalog);
    let module = &catalog.modules[0].module;
    let put = metrics.calls(module.name(), module.method("/kvstore.v1.KvStore/Put").unwrap());
    put.answered(Code::Ok, Duration::from_millis(2));
    put.answered(Code::FailedPrecondition, Duration::from_millis(3));
    put.replayed();
    let text = metrics.encode();
    let labels = r#"module="kvstore-wasm",method="kvstore.v1.KvStore/Put""#;
    for line in [
        format!(r#"balsa_commands_total{{{labels},code="OK"}} 1"#),
        format!(r#"balsa_commands_total{{{labels},code="FAILED_PRECONDITION"}} 1"#),
        format!(r#"balsa_commands_replayed_total{{{labels}}} 1"#),
        format!(r#"balsa_command_duration_seconds_count{{{labels}}} 2"#),
        format!(r#"balsa_command_duration_seconds_sum{{{labels}}} 0.005"#),
        format!(r#"balsa_command_duration_seconds_bucket{{le="0.0025",{labels}}} 1"#),
        format!(r#"balsa_command_duration_seconds_bucket{{le="+Inf",{labels}}} 2"#),
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }
}

#[test]
fn the_methods_that_are_shown_are_those_of_the_catalog() {
    let metrics = Metrics::new();
    metrics.serve(&catalog());
    let count = |metrics: &Metrics| exposition::read(&metrics.encode())["balsa_commands"].samples.len();
    let with = count(&metrics);
    metrics.serve(&catalog());
    assert_eq!(count(&metrics), with, "the same module again");
    metrics.serve(&Catalog::default());
    assert!(with > 0 && count(&metrics) == 0);
}

/// `docs/metrics.md` is generated: `BALSA_UPDATE_DOCS=1 cargo test -p balsa the_list_of_metrics` writes it.
#[test]
fn the_list_of_metrics_is_current() {
    testing::assert_generated("metrics.md", "node/src/http/metrics/mod.rs", &table());
}

#[test]
fn each_role_is_among_the_words_that_are_explained() {
    let document = include_str!("../../../../docs/metrics.md");
    let (_, words) = document.split_once("`role`:").expect("they are under Words");
    let (words, _) = words.split_once('.').expect("it is a sentence");
    let quoted: Vec<_> = words.split('`').skip(1).step_by(2).collect();
    assert_eq!(quoted, ROLES);
}

fn table() -> String {
    let mut table = "| name | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for (name, family) in exposition::read(&full().encode()) {
        let shown = if family.kind == "counter" { format!("{name}_total") } else { name };
        let labels: BTreeSet<_> = family.labels().into_iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.into_iter().collect::<Vec<_>>().join(", ");
        writeln!(table, "| `{shown}` | {} | {labels} | {} |", family.kind, family.help).unwrap();
    }
    table.push('\n');
    table
}
