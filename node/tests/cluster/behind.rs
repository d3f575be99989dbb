//! A follower that was away catches up: by the log, or where that is gone, by a snapshot.

use std::time::Duration;

use balsa::client::Read;

use crate::harness::{Cluster, Setup, until};
use crate::hostile::total;
use crate::load::Load;

const VALUE_BYTES: usize = 16 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_stands_still_for_5_s_under_full_load_ends_caught_up() {
    let mut cluster = Cluster::start(Setup { hostile: true, ..Setup::default() }).await;
    let load = Load::start(&cluster, 16, VALUE_BYTES);
    load.goes_on(200).await;
    let follower = cluster.follower().await;
    let leader = cluster.leader().await;
    let term = cluster.nodes[leader].own_status().await.unwrap().term;
    cluster.nodes[follower].freeze();
    // The five seconds are what is tested.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let missed = load.acknowledged();
    load.goes_on(100).await;
    cluster.nodes[follower].thaw();
    let slept = &cluster.nodes[follower];
    until("it has what it slept through, while the others go on", async || {
        (slept.own_status().await?.applied_index >= missed).then_some(())
    })
    .await;
    let tally = load.stop().await;
    cluster.ready().await;
    tally.assert_kept(&cluster, VALUE_BYTES).await;
    cluster.assert_same_state().await;
    let term_now = cluster.nodes[leader].own_status().await.unwrap().term;
    assert_eq!(term_now, term, "waking up, it did not depose the leader");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_missed_more_than_the_log_holds_catches_up_by_a_snapshot() {
    let raft = "snapshot_log_bytes = \"1 MiB\"\nkeep_log_bytes = 0\n";
    let mut cluster = Cluster::start(Setup { hostile: true, raft: Some(raft), ..Setup::default() }).await;
    let load = Load::start(&cluster, 8, VALUE_BYTES);
    load.goes_on(100).await;
    let follower = cluster.follower().await;
    let applied = cluster.nodes[follower].own_status().await.unwrap().applied_index;
    cluster.nodes[follower].kill().await;
    until("the others have purged what it needs", async || {
        let purged = cluster.running().all(|node| purged_to(&node.log()) > applied + 1000);
        purged.then_some(())
    })
    .await;
    let away = cluster.nodes[follower].log().len();
    cluster.nodes[follower].start();
    cluster.ready().await;
    load.goes_on(100).await;
    let tally = load.stop().await;
    assert!(cluster.nodes[follower].log()[away..].contains("receiving a snapshot"), "it came back by the log");
    tally.assert_kept(&cluster, VALUE_BYTES).await;
    cluster.assert_same_state().await;

    // What was installed is durable, and the log goes on behind it.
    cluster.nodes[follower].kill().await;
    cluster.nodes[follower].start();
    cluster.ready().await;
    assert!(total(&cluster.nodes[follower].client(), Read::Linearizable).await.unwrap() >= tally.added);
    cluster.assert_same_state().await;
}

/// The last index that a node's log says it has purged.
fn purged_to(log: &str) -> u64 {
    let last = log.lines().rev().find_map(|line| line.split_once("trimming the log upto="));
    last.map_or(0, |(_, rest)| rest.split(' ').next().unwrap().parse().unwrap())
}
