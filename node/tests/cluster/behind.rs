//! A follower that was away catches up: by the log, or where that is gone, by a snapshot.

use std::time::{Duration, Instant};

use balsa::client::Read;

use crate::harness::{Cluster, Setup, calm, turn_alone, until};
use crate::hostile::total;
use crate::load::Load;

const VALUE_BYTES: usize = 16 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_stands_still_for_5_s_under_full_load_ends_caught_up() {
    let mut cluster = Cluster::start_in(turn_alone().await, Setup { hostile: true, ..Setup::default() }).await;
    let load = Load::full(&cluster, 16, VALUE_BYTES);
    load.goes_on(200).await;
    calm("waking up, it should not depose the leader", async || {
        let (before, follower) = (cluster.term().await, cluster.follower().await);
        cluster.nodes[follower].freeze();
        load.goes_on_for(Duration::from_secs(5)).await;
        let missed = load.acknowledged();
        load.goes_on(100).await;
        cluster.nodes[follower].thaw();
        let slept = &cluster.nodes[follower];
        until("it has what it slept through, while the others go on", async || {
            (slept.own_status().await?.applied_index >= missed).then_some(())
        })
        .await;
        cluster.ready().await;
        (before, cluster.term().await)
    })
    .await;
    let tally = load.stop().await;
    tally.assert_kept(&cluster, VALUE_BYTES).await;
    cluster.assert_same_state().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_missed_more_than_the_log_holds_catches_up_by_a_snapshot() {
    let raft = "snapshot_log_bytes = \"1 MiB\"\nkeep_log_bytes = 0\n";
    let setup = Setup { hostile: true, raft: Some(raft), ..Setup::default() };
    let mut cluster = Cluster::start(setup).await;
    let load = Load::start(&cluster, 8, VALUE_BYTES);
    load.goes_on(100).await;
    let follower = cluster.follower().await;
    cluster.nodes[follower].kill().await;
    let leader = cluster.leader().await;
    let known = cluster.nodes[leader].tells_own_status().await.last_index;
    until("the others have purged what it needs", async || {
        for node in cluster.running() {
            if node.metric("balsa_log_first_index").await? <= known {
                return None;
            }
        }
        Some(())
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_trimmed_as_often_as_it_has_grown_though_its_files_are_larger() {
    let raft = "snapshot_log_bytes = \"1 MiB\"\nkeep_log_bytes = 0\n";
    let setup = Setup { hostile: true, raft: Some(raft), ..Setup::default() };
    let cluster = Cluster::start(setup).await;
    let load = Load::start(&cluster, 8, VALUE_BYTES);
    until("every node has trimmed its log", async || {
        cluster.running().all(|node| node.trims_above(0) >= 2).then_some(())
    })
    .await;
    load.stop().await;
    // What is written from now on, a tick a second, fills no MiB.
    let leader = cluster.leader().await;
    let last = cluster.nodes[leader].tells_own_status().await.last_index;
    // What is due is done first.
    let trims = || cluster.running().map(|node| node.trims_above(0)).collect::<Vec<_>>();
    let (mut before, mut since) = (trims(), Instant::now());
    until("no log is trimmed again", async || {
        let now = trims();
        if now != before {
            (before, since) = (now, Instant::now());
        }
        (since.elapsed() >= Duration::from_secs(4)).then_some(())
    })
    .await;
    assert!(cluster.running().all(|node| node.trims_above(last) == 0), "no log is trimmed beyond that");
}
