//! Nodes that are told to stop leave without anybody noticing: one after the other under load, also from the previous version's
//! program to this one's.
//!
//! What is counted is calls that failed in spite of the client's retries, and there is none. How long the longest ones took is printed;
//! `docs/performance.md` says what that was on one machine. That none waits for an election is shown where elections are so slow that a
//! busy machine cannot be taken for one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Cluster, Setup, run, until};
use crate::hostile::total;
use crate::load::{Load, Tally};

/// For load balancers to notice; as long as the test would have to wait if the node waited it out.
const DRAIN_WAIT: Duration = Duration::from_secs(45);
const CLIENTS: usize = 6;
const VALUE_BYTES: usize = 200;

/// Commands, queries and streams, all of which are retried until they are answered.
fn load(cluster: &Cluster) -> Load {
    Load::patient(cluster, CLIENTS, VALUE_BYTES).with_readers(cluster)
}

/// Ends the load: nothing was lost, doubled, refused or left unknown.
async fn nobody_noticed(cluster: &Cluster, load: Load, what: &str) -> Tally {
    let tally = load.stop().await;
    let Tally { commands, queries, streams, begun_again, .. } = &tally;
    eprintln!("--- {what}: {commands:?}, {queries:?}, {streams:?}, {begun_again} of them begun again");
    assert_eq!((tally.refused, tally.unknown), (0, 0), "calls that failed");
    tally.assert_kept(cluster, VALUE_BYTES).await;
    cluster.assert_same_state().await;
    tally
}

/// Restarts every node, the leader in the middle of it.
async fn restart_each(cluster: &mut Cluster, load: &Load, change: impl Fn(&mut crate::harness::Node)) {
    let first = cluster.follower().await;
    for at in [first, (first + 1) % 3, (first + 2) % 3] {
        assert!(cluster.nodes[at].terminate().await.success(), "{} did not leave in order", cluster.nodes[at].name);
        load.goes_on(60).await;
        change(&mut cluster.nodes[at]);
        cluster.nodes[at].start();
        cluster.ready().await;
        load.goes_on(60).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_all_nodes_are_restarted_one_after_the_other() {
    let mut cluster = Cluster::start(Setup { hostile: true, ..Setup::default() }).await;
    let load = load(&cluster);
    load.goes_on(100).await;
    for _ in 0..2 {
        restart_each(&mut cluster, &load, |_| ()).await;
    }
    nobody_noticed(&cluster, load, "rolling restart").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_waits_for_an_election_while_all_nodes_are_restarted_one_after_the_other() {
    // The others would not stand for election within twenty seconds of the last word of a leader that only went.
    let slow = "heartbeat_interval_ms = 500\nelection_timeout_min_ms = 20000\nelection_timeout_max_ms = 30000\n";
    let mut cluster = Cluster::start(Setup { hostile: true, raft: Some(slow), ..Setup::default() }).await;
    let load = load(&cluster);
    load.goes_on(100).await;
    restart_each(&mut cluster, &load, |_| ()).await;
    let tally = nobody_noticed(&cluster, load, "rolling restart, with slow elections").await;
    for took in [tally.commands, tally.queries, tally.streams] {
        assert!(took.calls > 0 && took.longest < Duration::from_secs(15), "{took:?}: a hand-over failed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_nodes_go_over_from_the_previous_version_to_this_one() {
    let Some(previous) = std::env::var_os("BALSA_PREVIOUS_BINARY").filter(|path| !path.is_empty()) else {
        eprintln!("SKIPPED: BALSA_PREVIOUS_BINARY is not set, so that there is no previous version; see .ci/previous");
        return;
    };
    let previous = PathBuf::from(previous);
    let mut cluster = Cluster::stopped(Setup { hostile: true, ..Setup::default() }).await;
    cluster.nodes.iter_mut().for_each(|node| node.program = Some(previous.clone()));
    cluster.start_all();
    cluster.ready().await;
    let load = load(&cluster);
    load.goes_on(100).await;

    let leader = cluster.leader().await;
    for at in [(leader + 1) % 3, leader, (leader + 2) % 3] {
        assert!(cluster.nodes[at].terminate().await.success());
        cluster.nodes[at].program = None;
        cluster.nodes[at].start();
        cluster.ready().await;
        // Mixed for a while: commands through every node, and the same bytes in each.
        load.goes_on_for(Duration::from_secs(2)).await;
        load.goes_on(100).await;
        cluster.assert_same_state().await;
    }
    nobody_noticed(&cluster, load, "from the previous version to this one").await;
}

#[tokio::test]
async fn where_there_is_no_previous_version_the_summary_of_ci_says_so() {
    let ci = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci");
    let checkout = tempfile::tempdir().unwrap();
    let copy = checkout.path().join(".ci");
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(ci.join("previous"), copy.join("previous")).unwrap();
    let mut script = tokio::process::Command::new("sh");
    script.arg(copy.join("previous")).arg(checkout.path().join("previous"));
    // Git looks no higher, whatever the directory of temporary files is in.
    script.env("GIT_CEILING_DIRECTORIES", checkout.path().parent().unwrap());
    let ran = run(script).await;
    assert!(ran.code == 0 && ran.err.lines().any(|line| line.starts_with("==> SKIPPED")), "{ran:?}");
    assert!(std::fs::read_to_string(ci.join("run")).unwrap().contains("|==> SKIPPED|"));
    assert_eq!(std::fs::read_to_string(checkout.path().join("previous/path")).unwrap(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_told_to_stop_serves_on_until_load_balancers_have_noticed() {
    let mut cluster = Cluster::stopped(Setup { hostile: true, ..Setup::default() }).await;
    cluster
        .nodes
        .iter_mut()
        .for_each(|node| node.environment = vec![("BALSA_NODE__DRAIN_WAIT_MS", DRAIN_WAIT.as_millis().to_string())]);
    cluster.start_all();
    cluster.ready().await;
    let leader = cluster.leader().await;
    let node = &cluster.nodes[leader];
    let told = Instant::now();
    node.signal(Signal::TERM);
    until("it says that it is not ready", async || {
        let answer = node.get("/readyz").await?;
        (answer.contains("503") && answer.contains("the node is stopping")).then_some(())
    })
    .await;
    until("another one leads", async || {
        let said = cluster.nodes[(leader + 1) % 3].status().await?;
        said.nodes.iter().any(|other| other.role == "leader" && other.name != node.name).then_some(())
    })
    .await;
    // It serves, commands as well: those that came to it before anybody noticed.
    total(&node.client(), balsa::client::Read::Linearizable).await.unwrap();
    assert!(!node.is_ready().await);
    // Told by somebody who waits, it waits no more.
    node.signal(Signal::INT);
    assert!(cluster.nodes[leader].exited().await.success());
    assert!(told.elapsed() < DRAIN_WAIT, "it waited all the same");
}
