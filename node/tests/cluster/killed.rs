//! `kill -9` under load: no acknowledged write is lost, and none is applied twice.

use std::time::Instant;

use balsa::client::Read;

use crate::harness::{Cluster, DEFAULT_TIMINGS, Setup};
use crate::hostile::total;
use crate::load::Load;

const CLIENTS: usize = 8;
const VALUE_BYTES: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_or_doubled_when_any_node_is_killed() {
    let mut cluster = Cluster::start(Setup { hostile: true, ..Setup::default() }).await;
    let load = Load::start(&cluster, CLIENTS, VALUE_BYTES);
    load.goes_on(200).await;
    let leader = cluster.leader().await;
    // The leader first and last; each of the others between, whatever it is by then.
    for victim in [Some(leader), Some((leader + 1) % 3), Some((leader + 2) % 3), None, None] {
        let victim = match victim {
            Some(victim) => victim,
            None => cluster.leader().await,
        };
        cluster.nodes[victim].kill().await;
        load.goes_on(200).await;
        cluster.nodes[victim].start();
        cluster.ready().await;
        load.goes_on(100).await;
    }
    let tally = load.stop().await;
    assert!(tally.added > 500, "{tally:?}");
    tally.assert_kept(&cluster, VALUE_BYTES).await;
    cluster.assert_same_state().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_when_all_nodes_are_killed_at_once() {
    let mut cluster = Cluster::start(Setup { hostile: true, ..Setup::default() }).await;
    let load = Load::start(&cluster, CLIENTS, VALUE_BYTES);
    for _ in 0..2 {
        load.goes_on(300).await;
        for node in &mut cluster.nodes {
            node.kill().await;
        }
        cluster.start_all();
        cluster.ready().await;
    }
    load.goes_on(100).await;
    let tally = load.stop().await;
    tally.assert_kept(&cluster, VALUE_BYTES).await;
    cluster.assert_same_state().await;
    let through_each: Vec<_> = cluster.nodes.iter().map(|node| node.client()).collect();
    for client in through_each {
        assert!(total(&client, Read::Linearizable).await.unwrap() >= tally.added);
    }
}

/// How long that takes is in docs/performance.md.
#[tokio::test]
async fn one_command_outlives_the_leader_with_the_timings_of_every_day() {
    let mut cluster = Cluster::start(Setup { raft: Some(DEFAULT_TIMINGS), ..Setup::default() }).await;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        let begun = Instant::now();
        cluster.nodes[leader].kill().await;
        cluster.balsa(&["put", "fruit", "apple"]).await.ends(0);
        println!("a put begun at the leader's death was answered after {:?}", begun.elapsed());
        cluster.start_all();
        cluster.ready().await;
    }
}
