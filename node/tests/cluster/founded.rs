//! A cluster begins once, with all its first members, and never again.

use std::fs;
use std::time::Duration;

use crate::harness::{Cluster, Setup, stays, until};

#[tokio::test]
async fn two_of_three_nodes_do_not_begin_a_cluster() {
    let mut cluster = Cluster::stopped(Setup::default()).await;
    cluster.nodes[0].start();
    cluster.nodes[1].start();
    let first = &cluster.nodes[0];
    until("the first node waits for the third", async || {
        let log = first.log();
        let waits = |line: &str| line.contains("balsa-2 at ") && line.contains("does not answer yet");
        log.lines().any(waits).then_some(())
    })
    .await;
    stays("they wait", Duration::from_secs(2), async || {
        let status = first.status().await.unwrap();
        status.cluster_id.is_empty() && !first.is_ready().await
    })
    .await;
    cluster.balsa(&["--timeout", "1s", "put", "fruit", "apple"]).await.ends(3);

    cluster.nodes[2].start();
    cluster.ready().await;
    cluster.balsa(&["check", "--timeout", "30s"]).await.ends(0);
}

#[tokio::test]
async fn a_first_node_with_an_emptied_directory_joins_and_never_begins_a_second_cluster() {
    let mut cluster = Cluster::start(Setup::default()).await;
    cluster.balsa(&["put", "fruit", "apple"]).await.ends(0);
    let id = cluster.status().await.cluster_id;
    // Twice: beside two nodes that run, and beside two that only come up, one by one.
    for others_run in [true, false] {
        cluster.nodes[0].kill().await;
        fs::remove_dir_all(&cluster.nodes[0].data_dir).unwrap();
        if !others_run {
            cluster.nodes[1].kill().await;
            cluster.nodes[2].kill().await;
        }
        cluster.nodes[0].start();
        if !others_run {
            let first = &cluster.nodes[0];
            until("it answers", async || first.status().await).await;
            cluster.nodes[1].start();
            let [first, second, _] = &cluster.nodes[..] else { panic!("there are three") };
            until("the second one answers", async || second.status().await).await;
            stays("nobody is let in by one of three", Duration::from_secs(2), async || !first.is_ready().await).await;
            cluster.nodes[2].start();
        }
        cluster.ready().await;
        for node in &cluster.nodes {
            assert_eq!(node.status().await.unwrap().cluster_id, id);
        }
        assert!(!cluster.nodes[0].log().split("starting name").last().unwrap().contains("a new cluster has begun"));
        assert_eq!(cluster.balsa(&["get", "fruit"]).await.ends(0), "apple");
        cluster.balsa(&["put", "fruit", "apple"]).await.ends(0);
    }
}
