//! Nodes that are left without a majority say so, and clients are not sent to them.

use crate::harness::{Cluster, Setup, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_left_without_a_majority_is_not_ready_whoever_it_holds_for_the_leader() {
    let mut cluster = Cluster::start(Setup::default()).await;
    cluster.balsa(&["put", "fruit", "apple"]).await.ends(0);
    // Once the leader is left, and once a follower, who has nobody to tell it that the leader is gone.
    for leads in [true, false] {
        let left = if leads { cluster.leader().await } else { cluster.follower().await };
        for at in (0..3).filter(|at| *at != left) {
            cluster.nodes[at].freeze();
        }
        let (node, why) = (&cluster.nodes[left], "[-]leader_known failed: ");
        let said = until("it is not ready", async || {
            node.get("/readyz?verbose").await.filter(|answer| answer.contains("HTTP/1.1 503") && answer.contains(why))
        })
        .await;
        let ends =
            ["no majority has confirmed that it still is: too few voters are within reach", "no leader is known"];
        let line = said.lines().find(|line| line.starts_with(why)).unwrap_or_else(|| panic!("{said}"));
        assert!(ends.iter().any(|end| line.ends_with(end)), "{said}");
        // The others do not answer the question either; what it says is of this node alone.
        let status = until("it shows its status", async || node.status().await).await;
        let said = status.warnings.first().map_or("", String::as_str);
        assert!(ends.iter().any(|end| said.ends_with(end)), "{:?}", status.warnings);
        for said in ["balsa_raft_leader_known 0", "balsa_ready 0"] {
            until(&format!("its metrics say {said}"), async || {
                node.get("/metrics").await?.lines().any(|line| line == said).then_some(())
            })
            .await;
        }
        for at in (0..3).filter(|at| *at != left) {
            cluster.nodes[at].thaw();
        }
        cluster.ready().await;
        cluster.balsa(&["put", "fruit", "apple"]).await.ends(0);
    }
}
