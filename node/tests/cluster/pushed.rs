//! What an operator pushes stays until the files change, whatever the nodes' files say meanwhile, and whether they have any.

use std::time::Duration;

use balsa::limits::MODULE_BYTES_MAX;
use balsa::proto::admin::ModulePush;
use balsa::proto::command::Source;
use tonic::Code;

use crate::abacus::{Abacus, Migrate, add, hash, total};
use crate::harness::{Cluster, stays, until};
use crate::operator::{Push, activated, decided, history_of, push, refused, retry};
use crate::swapped::{file, files};
use crate::witness::{Temper, Witnesses};

/// What a leader does about the files, it does each second; it has to know the others' first.
const SOME_ROUNDS: Duration = Duration::from_millis(3500);

/// Every node serves these bytes, and nothing is decided for a while.
async fn stays_active(cluster: &Cluster, wasm: &[u8]) {
    let rows = history_of(cluster, "abacus").await.len();
    let hash = hash(wasm);
    stays("what was pushed stays", SOME_ROUNDS, async || {
        let Some(status) = cluster.nodes[1].status().await else { return true };
        status
            .nodes
            .iter()
            .filter(|node| node.reachable)
            .all(|node| node.modules.iter().all(|one| one.hash[..] == hash))
    })
    .await;
    assert_eq!(history_of(cluster, "abacus").await.len(), rows);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_stays_through_restarts_until_the_files_change() {
    let first = Abacus::default().wasm();
    let mut cluster = Cluster::start(files(&[file(&first)])).await;
    let witnesses = Witnesses::start(&cluster, Temper::Persistent, 6, 0).await;
    witnesses.go_on(50).await;

    let large = Abacus { migrate: Migrate::Well, padding: 9 << 20, ..Abacus::version("0.2.0") }.wasm();
    let header = ModulePush { pushed_by: "ada".into(), ..ModulePush::default() };
    let through = &cluster.nodes[cluster.follower().await];
    let row = Push::begin(through, &large, header).await.unwrap().done().await.unwrap();
    assert_eq!((activated(&row).writes, &*row.proposed_by, row.source()), (1, "pushed by ada", Source::Push));
    witnesses.go_on(50).await;

    // A restart of all with the old files, and one of them with none at all.
    for at in 0..3 {
        cluster.nodes[at].kill().await;
    }
    cluster.nodes[0].volume.remove("abacus.wasm");
    cluster.start_all();
    cluster.ready().await;
    witnesses.go_on(50).await;
    stays_active(&cluster, &large).await;
    let status = cluster.status().await;
    let problems = &status.nodes[0].problems;
    assert!(problems.iter().any(|problem| problem.contains("abacus.wasm does not exist")), "{status:#?}");
    assert_eq!(
        total(&cluster.nodes[0].client(), "abacus").await.unwrap().version,
        "0.2.0",
        "it runs what the log says"
    );

    // Files that change win again, and the same push again is no change at all.
    let third = Abacus { migrate: Migrate::Well, ..Abacus::version("0.3.0") }.wasm();
    cluster.put_all("abacus.wasm", &third);
    let row = decided(&cluster, "abacus", &third, row.index).await;
    assert_eq!((activated(&row).from_version.as_str(), row.source()), ("0.2.0", Source::Files));
    let rows = history_of(&cluster, "abacus").await.len();
    assert_eq!(push(&cluster.nodes[2], &third).await.index, row.index);
    assert_eq!(history_of(&cluster, "abacus").await.len(), rows);
    witnesses.go_on(50).await;
    witnesses.stop().await.assert_kept(&cluster).await;
    cluster.assert_same_state().await;
    a_push_that_is_no_module_says_why(&cluster).await;
    restarts_around_an_activation(&mut cluster).await;
}

async fn a_push_that_is_no_module_says_why(cluster: &Cluster) {
    for (bytes, says) in [
        (&b"#!/bin/sh\n"[..], "is not a WebAssembly module: it begins with #!/b"),
        (&vec![0; MODULE_BYTES_MAX + 1], "the module has more than 33554432 bytes"),
        (&Abacus::default().wasm()[..500], "is not a complete"),
    ] {
        let status = match Push::begin(&cluster.nodes[0], bytes, ModulePush::default()).await {
            Ok(push) => push.done().await.unwrap_err(),
            Err(status) => status,
        };
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        assert!(status.message().contains(says), "{status:?}");
    }
}

/// Each node restarts right before, at, and right after an activation, once with a goodbye and once without.
async fn restarts_around_an_activation(cluster: &mut Cluster) {
    for at in 0..3 {
        let version = format!("1.{at}.0");
        let wasm = Abacus { migrate: Migrate::Well, functions: 100, ..Abacus::version(&version) }.wasm();
        let through = &cluster.nodes[(at + 1) % 3];
        let mut push = Push::begin(through, &wasm, ModulePush::default()).await.unwrap();
        let early = push.reaches("waiting for ").await.unwrap();
        assert!(early.is_none(), "{early:?}");
        cluster.nodes[at].kill().await;
        cluster.nodes[at].start();
        activated(&push.done().await.unwrap());
        cluster.nodes[at].kill().await;
        cluster.nodes[at].start();
        cluster.ready().await;
        assert!(cluster.nodes[at].terminate().await.success());
        cluster.nodes[at].start();
        cluster.ready().await;
        let client = cluster.nodes[at].client();
        assert_eq!(add(&client, "abacus", 1).await.unwrap().version, version);
        assert_eq!(total(&client, "abacus").await.unwrap().version, version);
        cluster.assert_same_state().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_refused_is_not_tried_again_by_three_leaders_but_by_retry() {
    let first = Abacus::default().wasm();
    let mut cluster = Cluster::start(files(&[file(&first)])).await;
    let bad = Abacus { migrate: Migrate::Refuse, ..Abacus::version("0.2.0") }.wasm();
    cluster.put_all("abacus.wasm", &bad);
    let row = decided(&cluster, "abacus", &bad, 0).await;
    refused(&row);
    for _ in 0..3 {
        let leader = cluster.leader().await;
        cluster.nodes[leader].kill().await;
        cluster.nodes[leader].start();
        cluster.ready().await;
        let next = cluster.leader().await;
        stays("what was refused stays so", SOME_ROUNDS, async || {
            let rows = crate::operator::history(&cluster.nodes[next], "abacus").await;
            rows.is_none_or(|rows| rows.len() == 2)
        })
        .await;
    }
    let status = cluster.status().await;
    let says = "its init or migrate refused: no";
    assert!(status.warnings.iter().any(|warning| warning.contains(says)), "{status:#?}");
    assert_eq!(add(&cluster.client(), "abacus", 1).await.unwrap().version, "0.1.0");

    // Retry tries it again, once; and a push of something else makes it worth another try.
    let through = &cluster.nodes[cluster.follower().await];
    assert_eq!(retry(through, "abacus", &[]).await, ["abacus"]);
    let row = decided(&cluster, "abacus", &bad, row.index).await;
    refused(&row);
    assert_eq!(retry(through, "nobody", &[]).await, Vec::<String>::new());
    let good = Abacus { migrate: Migrate::Well, ..Abacus::version("0.1.1") }.wasm();
    activated(&push(through, &good).await);
    refused(&decided(&cluster, "abacus", &bad, row.index).await);

    // The old file mends it.
    cluster.put_all("abacus.wasm", &good);
    until("all is well", async || cluster.status().await.warnings.is_empty().then_some(())).await;
    assert_eq!(add(&cluster.client(), "abacus", 1).await.unwrap().version, "0.1.1");
    cluster.assert_same_state().await;
}
