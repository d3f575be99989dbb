//! What `/metrics` of real nodes says, and that whatever is built on it (rules, dashboard, documentation) names what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use balsa::client::{Call, Kind};
use tokio::process::Command;

use crate::exposition::{self, Family};
use crate::harness::{Cluster, Node, SLOW_ELECTIONS, Setup, balsa, run, until};
use crate::python::python;

type Families = BTreeMap<String, Family>;

async fn text(node: &Node) -> String {
    let answer = until("the metrics are there", async || node.get("/metrics").await).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.to_ascii_lowercase().contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    body.to_owned()
}

async fn families(node: &Node) -> Families {
    exposition::read(&text(node).await)
}

fn series(families: &Families) -> BTreeSet<String> {
    let samples = families.values().flat_map(|family| &family.samples);
    samples.map(|sample| format!("{}{:?}", sample.name, sample.labels)).collect()
}

/// The value of the only series of `name` with these labels.
fn value(families: &Families, name: &str, labels: &[(&str, &str)]) -> f64 {
    let mut found = families[name].samples.iter().filter(|sample| {
        !sample.name.ends_with("_bucket")
            && !sample.name.ends_with("_sum")
            && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|found| found == value))
    });
    let sample = found.next().unwrap_or_else(|| panic!("{name} {labels:?}"));
    assert!(found.next().is_none(), "{name} {labels:?} is not one");
    sample.value
}

/// The node's metrics, once they have these values: those of a machine that stood still are others for a while.
async fn shows(node: &Node, values: &[(&str, f64)]) -> Families {
    until(&format!("the metrics say {values:?}"), async || {
        let seen = families(node).await;
        values.iter().all(|(name, expected)| value(&seen, name, &[]) == *expected).then_some(seen)
    })
    .await
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[tokio::test]
async fn the_metrics_of_a_cluster_say_what_happens_and_clients_make_no_series() {
    let setup = Setup { raft: Some(SLOW_ELECTIONS), ..Setup::default() };
    let cluster = Cluster::start(setup).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let node = &cluster.nodes[follower];
    let endpoint = node.address();
    let balsa = async |arguments: &[&str]| {
        balsa(cluster.dir(), &[&["--endpoints", &endpoint, "--timeout", "60s"], arguments].concat()).await
    };
    balsa(&["put", "fruit", "apple"]).await.ends(0);
    balsa(&["get", "fruit"]).await.ends(0);

    let put = [("module", "kvstore-wasm"), ("method", "kvstore.v1.KvStore/Put")];
    let get = [("module", "kvstore-wasm"), ("method", "kvstore.v1.KvStore/Get")];
    let seen = families(node).await;
    assert_eq!(value(&seen, "balsa_commands", &[put[0], put[1], ("code", "OK")]), 1.0);
    assert_eq!(value(&seen, "balsa_queries", &[get[0], get[1], ("code", "OK")]), 1.0);
    assert_eq!(value(&seen, "balsa_command_duration_seconds", &put), 1.0);
    for name in ["balsa_run_seconds", "balsa_run_fuel", "balsa_run_memory_bytes"] {
        assert_eq!(value(&seen, name, &put), 1.0, "{name}");
    }
    let seen = shows(
        node,
        &[
            ("balsa_ready", 1.0),
            ("balsa_raft_voters", 3.0),
            ("balsa_raft_voters_reachable", 3.0),
            ("balsa_members_waiting", 0.0),
            ("balsa_members_refused", 0.0),
            ("balsa_raft_leader_known", 1.0),
            ("balsa_fenced", 0.0),
            ("balsa_clock_off", 0.0),
            ("balsa_sessions", 1.0),
            ("balsa_unknown_methods", 0.0),
        ],
    )
    .await;
    assert_eq!(value(&seen, "balsa_raft_role", &[("role", "follower")]), 1.0);
    let kvstore = |families: &Families, name: &str| families[name].samples[0].labels["module"].clone();
    assert_eq!(
        [kvstore(&seen, "balsa_module_active"), kvstore(&seen, "balsa_module_wanted")],
        ["kvstore-wasm", "kvstore-wasm"]
    );
    for name in
        ["balsa_storage_bytes", "balsa_filesystem_size_bytes", "process_resident_memory_bytes", "process_cpu_seconds"]
    {
        assert!(seen[name].samples.iter().any(|sample| sample.value > 0.0), "{name}");
    }
    assert!(!seen.contains_key("balsa_peer_lag_entries"), "a follower does not know it");
    let peer = cluster.nodes[follower].name.as_str();
    let leaders = until("the leader reaches the follower", async || {
        let leaders = families(&cluster.nodes[leader]).await;
        (value(&leaders, "balsa_peer_reachable", &[("peer", peer)]) == 1.0).then_some(leaders)
    })
    .await;
    assert!(value(&leaders, "balsa_raft_proposal_seconds", &[]) >= 1.0);
    assert!(value(&leaders, "balsa_raft_append_seconds", &[]) >= 1.0);
    assert!(value(&leaders, "balsa_peer_lag_entries", &[("peer", peer)]) < 1000.0);

    // Paths that nobody serves, and calls that fail in every way a client can make them fail.
    let client = node.client();
    for round in 0..50 {
        for path in
            [format!("/kvstore.v1.KvStore/M{round}"), format!("/s{round}.v1.S/Put"), format!("/balsa.x{round}/M")]
        {
            let call = Call { path, request: "".into(), kind: Kind::Command { key: format!("key-{round}") } };
            client.call(&call).await.unwrap_err();
        }
    }
    let after = families(node).await;
    assert_eq!(value(&after, "balsa_unknown_methods", &[]), 150.0);
    assert_eq!(series(&after).difference(&series(&seen)).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(series(&after).len() < 1000, "{}", series(&after).len());
}

#[tokio::test]
async fn a_node_that_is_not_let_in_is_seen_on_both_sides() {
    let mut cluster = Cluster::start(Setup { replicas: 1, spare: 1, ..Setup::default() }).await;
    cluster.nodes[1].start();
    let leaders = until("the leader has refused it", async || {
        let leaders = families(&cluster.nodes[0]).await;
        (value(&leaders, "balsa_members_refused", &[]) > 0.0).then_some(leaders)
    })
    .await;
    assert_eq!(value(&leaders, "balsa_members_refused", &[]), 1.0);
    assert_eq!(value(&leaders, "balsa_raft_role", &[("role", "leader")]), 1.0);
    let own = until("it says that it asks", async || {
        let own = families(&cluster.nodes[1]).await;
        (value(&own, "balsa_raft_role", &[("role", "joining")]) > 0.0).then_some(own)
    })
    .await;
    assert_eq!(own["balsa_raft_role"].samples.iter().map(|sample| sample.value).sum::<f64>(), 1.0);
    assert_eq!(value(&own, "balsa_ready", &[]), 0.0);
}

#[tokio::test]
async fn what_is_built_on_the_metrics_names_what_is_there() {
    let setup = Setup { raft: Some(SLOW_ELECTIONS), ..Setup::default() };
    let cluster = Cluster::start(setup).await;
    let leader = &cluster.nodes[cluster.leader().await];
    cluster.balsa(&["put", "fruit", "apple"]).await.ends(0);
    let (told, families, documented) = (text(leader).await, families(leader).await, documented());
    for (name, family) in &families {
        let known = documented.get(name).unwrap_or_else(|| panic!("{name} is not in docs/metrics.md"));
        assert_eq!((&family.kind, family.labels()), (&known.kind, known.labels.clone()), "{name} in docs/metrics.md");
    }
    // What has no series is left out. Nothing was refused here; `swapped.rs` sees this one.
    let absent: Vec<_> = documented.keys().filter(|name| !families.contains_key(*name)).collect();
    assert_eq!(absent, ["balsa_module_refused"], "they are in docs/metrics.md");
    let samples: BTreeMap<_, _> = documented
        .iter()
        .flat_map(|(name, Documented { kind, labels })| {
            let family = Family { kind: kind.clone(), ..Family::default() };
            family.sample_names(name).into_iter().map(move |sample| (sample, labels.clone()))
        })
        .collect();
    let monitoring = root().join("k8s/overlays/monitoring");
    let mut named = BTreeSet::new();
    for file in ["prometheusrule.yaml", "dashboard.json"] {
        let text = fs::read_to_string(monitoring.join(file)).unwrap();
        let used = used(&text);
        assert!(used.len() > 10, "{file} asks for {used:?}");
        for (name, labels) in used {
            let known = samples.get(&name).unwrap_or_else(|| panic!("{file} asks for {name}, which no node has"));
            for label in labels {
                // What Prometheus adds to every series of a pod, and a histogram's bound.
                let added = ["namespace", "pod", "job", "instance", "le"].contains(&label.as_str());
                assert!(added || known.contains(&label), "{file}: {name} has no label {label}, but {known:?}");
            }
            named.insert(name);
        }
    }
    assert!(named.contains("balsa_raft_role") && named.contains("balsa_log_fsync_seconds_bucket"), "{named:?}");
    strictly_parsed(&told).await;
}

/// Prometheus' own parser for Python, which is strict, takes it too.
async fn strictly_parsed(text: &str) {
    let Some(python) = python().await else { return };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let program = "import sys\n\
                   from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
                   print(len(list(parse(open(sys.argv[1]).read()))))";
    let mut command = Command::new(python);
    command.args(["-c", program]).arg(file.path()).stdin(Stdio::null());
    let said = run(command).await.ends(0);
    assert_eq!(said.trim().parse::<usize>().unwrap(), exposition::read(text).len());
}

/// A row of the table in `docs/metrics.md`.
struct Documented {
    kind: String,
    labels: BTreeSet<String>,
}

/// All of them, by the families' names.
fn documented() -> BTreeMap<String, Documented> {
    let text = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let row = |row: &str| {
        let mut cells = row.split('|').map(str::trim);
        let (name, kind, labels) = (cells.next().unwrap(), cells.next().unwrap(), cells.next().unwrap());
        let name = name.trim_end_matches('`');
        let name = if kind == "counter" { name.strip_suffix("_total").unwrap() } else { name };
        let labels = labels.split(", ").map(|label| label.trim_matches('`')).filter(|label| !label.is_empty());
        (name.to_owned(), Documented { kind: kind.to_owned(), labels: labels.map(str::to_owned).collect() })
    };
    rows.map(row).collect()
}

/// Every metric of ours that a file of queries names, with the labels that it selects by. Comments may name what they like.
fn used(text: &str) -> Vec<(String, BTreeSet<String>)> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let text = lines.collect::<Vec<_>>().join("\n").replace("\\\"", "\"");
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut used = Vec::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("balsa_").into_iter().chain(rest.find("process_")).min() {
        let inside = rest[..at].ends_with(|c| is_word(c) || c == '-');
        rest = &rest[at..];
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after;
        if inside {
            continue;
        }
        let matchers = after.strip_prefix('{').and_then(|after| after.split_once('}')).map_or("", |(inside, _)| inside);
        // Values hold no commas in these files.
        let labels = matchers
            .split(',')
            .filter_map(|matcher| matcher.split_once(['=', '!']))
            .map(|(label, _)| label.trim().to_owned());
        used.push((name.to_owned(), labels.collect()));
    }
    used
}

#[test]
fn metrics_and_labels_are_found_in_queries() {
    let text = "# balsa_in_a_comment\nexpr: sum by (pod) (rate(balsa_a_total{code!=\\\"OK\\\",module=\"x\"}[5m])) > process_b\n- not-balsa_c";
    let labels = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect();
    let expected = [("balsa_a_total".to_owned(), labels(&["code", "module"])), ("process_b".to_owned(), labels(&[]))];
    assert_eq!(used(text), expected);
}
