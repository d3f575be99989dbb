//! Two of three nodes are lost for good: the third one goes on as a new cluster, and says before what that may cost.

use balsa::client::Read;

use crate::harness::{Cluster, Node, Ran, Setup, balsa, until};
use crate::hostile::{add, total};
use crate::load::Load;

async fn recover(cluster: &Cluster, node: &Node, more: &[&str]) -> Ran {
    let config = node.config().display().to_string();
    let arguments = [&["recover", "--config", &config, "--name", &node.name], more].concat();
    balsa(cluster.dir(), &arguments).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_node_of_three_goes_on_alone_and_refuses_the_others() {
    let mut cluster = Cluster::start(Setup { hostile: true, ..Setup::default() }).await;
    let load = Load::patient(&cluster, 4, 100);
    load.goes_on(100).await;
    let tally = load.stop().await;
    let before = cluster.status().await.cluster_id;
    let survivor = cluster.follower().await;
    let lost = [(survivor + 1) % 3, (survivor + 2) % 3];

    // Not while it runs.
    let ran = recover(&cluster, &cluster.nodes[survivor], &["--yes"]).await;
    assert!(ran.code == 2 && ran.err.contains("is in use by another balsa process"), "{ran:?}");

    // All that was acknowledged has come to the survivor: nothing is given up here, and that can be counted.
    let last = cluster.status().await.nodes.iter().map(|node| node.last_index).max().unwrap();
    until("the survivor has all of the log", async || {
        let own = cluster.nodes[survivor].own_status().await?;
        (own.last_index >= last).then_some(())
    })
    .await;
    for node in &mut cluster.nodes {
        node.kill().await;
    }

    // It has even given up its place: who is left has no choice, but is told.
    let why = "has less on its volume than it had confirmed";
    let standing = format!("version = 1\nstanding = \"rolled back\"\nwhy = \"{why}\"\n");
    std::fs::write(cluster.nodes[survivor].data_dir.join("standing"), standing).unwrap();
    cluster.nodes[survivor].start();
    assert_eq!(cluster.nodes[survivor].exited().await.code(), Some(6));

    // It says what it knows, and does nothing without being told to.
    let ran = recover(&cluster, &cluster.nodes[survivor], &[]).await;
    assert!(ran.code == 2 && ran.err.contains("nobody is at a terminal"), "{ran:?}");
    let name = &cluster.nodes[survivor].name;
    let retired = format!("this node {why}.");
    for words in ["Given up: every entry after", "Its log ends with index", "voter, 127.0.0.1:", &retired, name] {
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
    }
    let meta = std::fs::read_to_string(cluster.nodes[survivor].data_dir.join("node.meta")).unwrap();
    assert!(meta.contains(&before));

    let ran = recover(&cluster, &cluster.nodes[survivor], &["--yes", "-o", "json"]).await.json();
    assert_eq!(ran["was"], before.as_str());
    let ran = recover(&cluster, &cluster.nodes[survivor], &["--yes"]).await;
    assert!(ran.code == 2 && ran.err.contains("is the only voter of its cluster already"), "{ran:?}");

    cluster.nodes[survivor].start();
    cluster.ready().await;
    let client = cluster.nodes[survivor].client();
    assert_eq!(total(&client, Read::Linearizable).await.unwrap(), tally.added);
    client.call(&add("goes-on", 5)).await.unwrap();
    let after = cluster.status().await;
    assert_ne!(after.cluster_id, before);
    assert_eq!(after.nodes.len(), 1);

    // One of the others turns up with its old volume.
    let old = lost[0];
    cluster.nodes[old].start();
    cluster.nodes[old].says(0, "the peer refuses this node: this node belongs to cluster").await;
    assert!(!cluster.nodes[old].is_ready().await);
    assert_eq!(total(&client, Read::Linearizable).await.unwrap(), tally.added + 5);
    assert_eq!(cluster.nodes[survivor].tells_status().await.nodes.len(), 1);

    // It survives its own death as well.
    cluster.nodes[survivor].kill().await;
    cluster.nodes[survivor].start();
    until("it is ready again", async || cluster.nodes[survivor].is_ready().await.then_some(())).await;
    assert_eq!(total(&client, Read::Linearizable).await.unwrap(), tally.added + 5);
}
