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
        let status = first.tells_status().await;
        status.cluster_id.is_empty() && !first.is_ready().await
    })
    .await;
    // An attempt that is not answered for a second might have been made.
    until("a client is told that nothing was done", async || {
        let put = cluster.balsa(&["--timeout", "3s", "put", "fruit", "apple"]).await;
        assert!(matches!(put.code, 3 | 4), "{put:?}");
        (put.code == 3).then_some(())
    })
    .await;

    cluster.nodes[2].start();
    cluster.ready().await;
    cluster.balsa(&["check", "--timeout", "100s"]).await.ends(0);
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
            assert_eq!(node.tells_status().await.cluster_id, id);
        }
        assert!(!cluster.nodes[0].log().split("starting name").last().unwrap().contains("a new cluster has begun"));
        assert_eq!(cluster.balsa(&["get", "fruit"]).await.ends(0), "apple");
        cluster.balsa(&["put", "fruit", "apple"]).await.ends(0);
    }
}

/// A file that counts fewer nodes than there are names nobody to be asked, and is no reason to begin a cluster beside the one that is there.
#[tokio::test]
async fn a_first_node_with_an_emptied_directory_joins_whatever_number_its_file_says() {
    let mut cluster = Cluster::start(Setup::default()).await;
    cluster.balsa(&["put", "fruit", "apple"]).await.ends(0);
    let id = cluster.status().await.cluster_id;
    let usual = cluster.toml(Setup::default());
    for other in [usual.replace("replicas = 3", "replicas = 1"), usual.replace("replicas = 3", "")] {
        assert_ne!(other, usual);
        cluster.nodes[0].kill().await;
        cluster.nodes[0].lose_volume();
        let said = cluster.nodes[0].log().len();
        cluster.nodes[0].start_with(&other);
        cluster.ready().await;
        assert_eq!(cluster.nodes[0].tells_status().await.cluster_id, id);
        assert!(!cluster.nodes[0].log()[said..].contains("a new cluster has begun"));
        assert_eq!(cluster.balsa(&["get", "fruit"]).await.ends(0), "apple");
    }
    // Alone, it is what such a file is for.
    let mut alone = Cluster::stopped_in(cluster.into_turn(), Setup { replicas: 1, ..Setup::default() });
    alone.start_all();
    alone.ready().await;
    assert!(alone.nodes[0].log().contains("a new cluster has begun"));
}

#[tokio::test]
async fn who_was_asked_by_a_first_node_that_was_lost_before_it_began_begins_with_the_next_one() {
    let mut cluster = Cluster::stopped(Setup::default()).await;
    for at in [1, 2] {
        cluster.nodes[at].start();
        let node = &cluster.nodes[at];
        until("it waits for the first one", async || node.status().await).await;
        cluster.nodes[at].kill().await;
        // As after the first one's question; then its volume was lost.
        let meta = cluster.nodes[at].data_dir.join("node.meta");
        let adopted = format!("cluster_id = \"{}\"\n", "ab".repeat(16));
        fs::write(&meta, fs::read_to_string(&meta).unwrap() + &adopted).unwrap();
    }
    cluster.start_all();
    cluster.ready().await;
    let id = cluster.status().await.cluster_id;
    assert_ne!(id, "ab".repeat(16));
    for node in &cluster.nodes {
        assert_eq!(node.tells_status().await.cluster_id, id);
    }
    cluster.balsa(&["check", "--timeout", "100s"]).await.ends(0);
}

#[tokio::test]
async fn an_identity_without_its_log_is_no_node() {
    let mut cluster = Cluster::start(Setup::default()).await;
    cluster.nodes[2].kill().await;
    fs::remove_dir_all(cluster.nodes[2].data_dir.join("log")).unwrap();
    cluster.nodes[2].start();
    assert_eq!(cluster.nodes[2].exited().await.code(), Some(1));
    assert!(cluster.nodes[2].log().contains("and its log (log/) is missing"), "{}", cluster.nodes[2].log());
    cluster.nodes[2].lose_volume();
    cluster.nodes[2].start();
    cluster.ready().await;
}
