//! One flipped bit in one replica ends in a fence of that replica alone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use balsa::client::{Error, Read};
use balsa::proto::kvstore::GetRequest;
use balsa::storage::keys::state_prefix;
use balsa::storage::{Database, Files, Overlay};
use prost::Message;

use crate::harness::{Cluster, Setup, stays, until};

const GET: &str = "/kvstore.v1.KvStore/Get";

/// Flips a bit of the value that the key/value store keeps under `key`, and of nothing else.
fn flip_a_bit(data_dir: &Path, key: &[u8]) {
    let mut database = Database::open(Arc::new(Files), data_dir, 1 << 20).unwrap();
    let start = state_prefix("kvstore-wasm");
    let mut rows = Vec::new();
    let visit = |row: &[u8], value: &[u8]| {
        if row.starts_with(&start) && row.ends_with(key) {
            rows.push((row.to_vec(), value.to_vec()));
        }
        std::ops::ControlFlow::Continue(())
    };
    database.view().each(&start, visit).unwrap();
    let [(row, value)] = &mut rows[..] else { panic!("one row has that key: {rows:?}") };
    // Its last byte is the user's; what is before it is the store's own.
    *value.last_mut().unwrap() ^= 1;
    database.commit(&Overlay::from([(row.clone(), Some(value.clone()))])).unwrap();
    database.checkpoint().unwrap();
}

#[tokio::test]
async fn a_flipped_bit_fences_that_node_alone_and_for_good() {
    let mut cluster = Cluster::start(Setup::default()).await;
    cluster.balsa(&["put", "fruit", "apple"]).await.ends(0);
    let broken = cluster.follower().await;
    assert!(cluster.nodes[broken].terminate().await.success());
    flip_a_bit(&cluster.nodes[broken].data_dir, b"fruit");
    cluster.nodes[broken].start();
    cluster.ready().await;
    // Nobody has looked at the value yet. This command does, and answers with it.
    assert_eq!(cluster.balsa(&["put", "fruit", "pear", "--prev"]).await.ends(0), "apple");
    assert_fenced(&cluster, broken).await;
    assert!(cluster.nodes[broken].data_dir.join("fenced").exists());
    no_majority_is_built_on_it(&cluster, broken).await;

    cluster.balsa(&["put", "fruit", "plum"]).await.ends(0);
    assert_eq!(cluster.balsa(&["get", "fruit"]).await.ends(0), "plum");
    cluster.nodes[broken].kill().await;
    cluster.nodes[broken].start();
    assert_fenced(&cluster, broken).await;
    no_majority_is_built_on_it(&cluster, broken).await;
    let node = &cluster.nodes[broken];
    stays("it stays fenced", Duration::from_secs(1), async || !node.is_ready().await).await;
    cluster.balsa(&["put", "fruit", "fig"]).await.ends(0);

    // The others agree.
    cluster.nodes[broken].kill().await;
    cluster.ready().await;
    cluster.assert_same_state().await;
}

/// It talks, and follows nobody: without the other follower the leader would be alone.
async fn no_majority_is_built_on_it(cluster: &Cluster, broken: usize) {
    let other = until("one follows", async || {
        let statuses = cluster.nodes[(broken + 1) % 3].status().await?.nodes;
        statuses.iter().position(|node| node.role == "follower")
    })
    .await;
    let ran = cluster.balsa(&["member", "remove", &cluster.nodes[other].name, "--yes"]).await;
    let why = "the others could not go on without it: of 2 voters 1 would be able";
    assert!(ran.code == 5 && ran.err.contains(why), "{ran:?}");
}

async fn assert_fenced(cluster: &Cluster, broken: usize) {
    let name = &cluster.nodes[broken].name;
    for node in cluster.running() {
        let fenced = until(&format!("{} knows that {name} is fenced", node.name), async || {
            let status = node.status().await?;
            let fenced: Vec<_> = status.nodes.into_iter().filter(|node| !node.fenced.is_empty()).collect();
            (!fenced.is_empty()).then_some(fenced)
        })
        .await;
        assert!(fenced.iter().all(|fenced| fenced.name == *name && fenced.role == "fenced"), "{fenced:?}");
    }
    let node = &cluster.nodes[broken];
    until("it says why it is not ready", async || {
        node.get("/readyz?verbose").await.filter(|answer| answer.contains("[-]not_fenced failed"))
    })
    .await;
    let get = GetRequest { key: "fruit".into() }.encode_to_vec();
    let client = node.client_within(Duration::from_secs(1));
    for read in [Read::Linearizable, Read::Stale { min_index: 0 }] {
        until("a read is told why it is not served", async || match client.query(GET, get.clone(), read).await {
            Err(Error::Unavailable { last, .. }) => last.contains("FENCED").then_some(()),
            other => panic!("a fenced node answered {other:?}"),
        })
        .await;
    }
    for at in (0..3).filter(|at| *at != broken) {
        let other = &cluster.nodes[at];
        until(&format!("{} is not concerned", other.name), async || other.is_ready().await.then_some(())).await;
    }
}
