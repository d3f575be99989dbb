//! A node that is gone is worth a line when that is seen, and one when it is back; not ten a second, nor any work to speak of.

use std::time::Duration;

use crate::harness::{Cluster, SLOW_ELECTIONS, Setup, stays, until};

/// Lines about trouble since `from`.
fn warnings(log: &str, from: usize) -> Vec<&str> {
    log[from..].lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect()
}

#[tokio::test]
async fn a_dead_peer_is_one_line_in_each_log_and_its_return_another() {
    // That a machine which stands still makes somebody stand for election is worth lines of its own.
    let setup = Setup { raft: Some(SLOW_ELECTIONS), ..Setup::default() };
    let mut cluster = Cluster::start(setup).await;
    let leader = cluster.leader().await;
    let dead = cluster.follower().await;
    let others: Vec<_> = (0..3).filter(|at| *at != dead).collect();
    let from: Vec<_> = cluster.nodes.iter().map(|node| node.log().len()).collect();
    cluster.nodes[dead].kill().await;
    for at in &others {
        let node = &cluster.nodes[*at];
        until("it says so", async || (!warnings(&node.log(), from[*at]).is_empty()).then_some(())).await;
    }
    cluster.balsa(&["put", "fruit", "apple"]).await.ends(0);
    let worked = cluster.nodes[leader].cpu_time();
    stays("it says no more about it", Duration::from_secs(3), async || {
        others.iter().all(|at| warnings(&cluster.nodes[*at].log(), from[*at]).len() == 1)
    })
    .await;
    let worked = cluster.nodes[leader].cpu_time() - worked;
    assert!(worked < Duration::from_secs(1), "the leader worked for {worked:?} in three seconds");
    let log = cluster.nodes[leader].log();
    let line = warnings(&log, from[leader])[0];
    assert!(line.contains("the peer does not answer") && line.contains(&cluster.nodes[dead].name), "{line}");
    cluster.nodes[dead].start();
    for at in others {
        let node = &cluster.nodes[at];
        until("it says that it is back", async || node.log().contains("the peer answers again").then_some(())).await;
        assert_eq!(warnings(&node.log(), from[at]).len(), 1);
    }
}
