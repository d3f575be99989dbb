//! The files of a running cluster change, and the cluster switches at one index: no connection breaks, no command is lost or
//! doubled, none is answered by the wrong version. What is refused changes nothing.

use balsa::proto::admin::StatusResponse;
use balsa::proto::command::Activation;

use crate::abacus::{Abacus, Migrate, hash};
use crate::harness::{Cluster, File, Setup, until};
use crate::operator::{activated, decided, history_of, refused};
use crate::witness::{Temper, Witnesses};

/// Small, so that a migration that never ends does.
pub(crate) const LIMITS: &str = "migrate_fuel = 20000000\nmigrate_writes = 1000\n";

/// A cluster of abacuses with this file.
pub(crate) fn files<'a>(file: &'a [File<'a>]) -> Setup<'a> {
    Setup { modules: Some(file), limits: LIMITS, ..Setup::default() }
}

/// The abacus of these bytes, which may not break clients.
pub(crate) fn file(wasm: &[u8]) -> File<'_> {
    File { name: "abacus", wasm, allow_breaking: false }
}

/// Gives all nodes this file, and returns what became of it.
async fn swap(cluster: &Cluster, wasm: &[u8]) -> Activation {
    let before = history_of(cluster, "abacus").await.last().map_or(0, |row| row.index);
    cluster.put_all("abacus.wasm", wasm);
    decided(cluster, "abacus", wasm, before).await
}

async fn status_says(cluster: &Cluster, what: &str, says: impl Fn(&StatusResponse) -> bool) {
    until(&format!("the status says {what}"), async || says(&cluster.status().await).then_some(())).await;
}

fn has_problem(status: &StatusResponse, node: usize, text: &str) -> bool {
    status.nodes[node].problems.iter().any(|problem| problem.contains(text))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_swap_the_code_under_load_and_no_connection_breaks() {
    let first = Abacus::default().wasm();
    let cluster = Cluster::start(files(&[file(&first)])).await;
    let witnesses = Witnesses::start(&cluster, Temper::Strict, 6, 0).await;
    witnesses.go_on(100).await;

    // The same version in other bytes, and back again: nothing has migrated, so the old file is as good as ever.
    let again = Abacus { salt: "again", ..Abacus::default() }.wasm();
    activated(&swap(&cluster, &again).await);
    witnesses.go_on(50).await;
    let back = swap(&cluster, &first).await;
    assert_eq!(activated(&back).from_hash[..], hash(&again));
    witnesses.go_on(50).await;

    halves_are_never_read(&cluster).await;
    witnesses.go_on(50).await;
    each_node_at_its_own_time(&cluster).await;
    witnesses.go_on(50).await;
    what_migrated_does_not_go_back_by_accident(&cluster, &first).await;
    witnesses.go_on(50).await;

    let compressed = Abacus { migrate: Migrate::Well, ..Abacus::version("0.4.0") }.wasm();
    let before = history_of(&cluster, "abacus").await.last().unwrap().index;
    let frame = ruzstd::encoding::compress_to_vec(&compressed[..], ruzstd::encoding::CompressionLevel::Fastest);
    cluster.put_all("abacus.wasm", &frame);
    activated(&decided(&cluster, "abacus", &compressed, before).await);
    witnesses.go_on(50).await;

    witnesses.stop().await.assert_kept(&cluster).await;
    cluster.assert_same_state().await;
}

/// Overwrites the files in place, in two steps.
async fn halves_are_never_read(cluster: &Cluster) {
    let rows = history_of(cluster, "abacus").await.len();
    let migrating = Abacus { migrate: Migrate::Slowly(200_000), ..Abacus::version("0.2.0") }.wasm();
    let finish: Vec<_> = cluster.nodes.iter().map(|node| node.volume.put_half("abacus.wasm", &migrating)).collect();
    let broken = |status: &StatusResponse| (0..3).all(|node| has_problem(status, node, "is not a complete"));
    status_says(cluster, "that the file is broken", broken).await;
    assert_eq!(history_of(cluster, "abacus").await.len(), rows, "half a file changed something");
    finish.into_iter().for_each(|finish| finish());
    let row = decided(cluster, "abacus", &migrating, 0).await;
    let done = activated(&row);
    assert_eq!((&*row.version, &*done.from_version, done.writes), ("0.2.0", "0.1.0", 1));
    assert!(done.fuel > 200_000, "{done:?}");
    status_says(cluster, "that all is well", |status| status.warnings.is_empty()).await;
}

/// The kubelet turns a link on each node when it comes by.
async fn each_node_at_its_own_time(cluster: &Cluster) {
    let third = Abacus { migrate: Migrate::Well, ..Abacus::version("0.3.0") }.wasm();
    let rows = history_of(cluster, "abacus").await.len();
    cluster.give(&cluster.nodes[1], files(&[file(&third)]));
    let odd = "balsa-1's files ask for something else than a majority's; they are not obeyed";
    status_says(cluster, "that one is odd", |status| status.warnings.iter().any(|warning| warning == odd)).await;
    assert_eq!(history_of(cluster, "abacus").await.len(), rows, "one node is no majority");
    cluster.give(&cluster.nodes[2], files(&[file(&third)]));
    let row = decided(cluster, "abacus", &third, 0).await;
    activated(&row);
    assert_eq!(row.proposed_by, "files of balsa-1, balsa-2 (2 of 3 voters)");
    cluster.give(&cluster.nodes[0], files(&[file(&third)]));
    status_says(cluster, "that all is well", |status| status.warnings.is_empty()).await;
    assert_eq!(history_of(cluster, "abacus").await.len(), rows + 1, "the last one to see it changed nothing");
}

async fn what_migrated_does_not_go_back_by_accident(cluster: &Cluster, first: &[u8]) {
    let row = swap(cluster, first).await;
    let why = "abacus 0.3.0 migrated its state when it was activated, and 0.1.0 has no migrate";
    assert!(refused(&row).reason.starts_with(why), "{row:?}");
    let allowed = [File { allow_breaking: true, ..file(first) }];
    cluster.give_all(files(&allowed));
    let row = decided(cluster, "abacus", first, row.index).await;
    assert_eq!((activated(&row).writes, &*row.version), (0, "0.1.0"));
}

/// The module with one wrong byte in its code.
pub(crate) fn corrupt(abacus: &Abacus<'_>) -> Vec<u8> {
    let mut wasm = abacus.wasm();
    let load = wasm.windows(3).position(|bytes| bytes == [0x29, 0x03, 0x00]);
    wasm[load.expect("an i64.load")] = 0xff;
    wasm
}

/// A file and what is said about it.
struct Bad<'a> {
    wasm: Vec<u8>,
    says: &'a str,
}

/// Traps and loops in a migration: see `midway`.
fn refusals() -> [Bad<'static>; 7] {
    let second = || Abacus::version("0.2.0");
    let migrating = |migrate| Abacus { migrate, ..second() }.wasm();
    [
        Bad { wasm: migrating(Migrate::Refuse), says: "its init or migrate refused: no" },
        Bad {
            wasm: migrating(Migrate::Flood),
            says: "its init or migrate failed: the migration wrote more than its limits",
        },
        Bad { wasm: corrupt(&second()), says: "the module is not valid" },
        Bad {
            wasm: Abacus { import: "wasi_snapshot_preview1.sock_shutdown", ..second() }.wasm(),
            says: "the module imports `wasi_snapshot_preview1.sock_shutdown`, which the host does not offer",
        },
        Bad { wasm: Abacus { undo: false, ..second() }.wasm(), says: "\n- abacus.v1.Abacus/Undo is removed\n" },
        Bad {
            wasm: Abacus { amount: "double", ..second() }.wasm(),
            says: "field 1 `amount` of abacus.v1.AddRequest was fixed64 and is double",
        },
        Bad {
            wasm: Abacus { name: "ledger", ..second() }.wasm(),
            says: "the file holds a module called \"ledger\", and [[module]] calls it \"abacus\"",
        },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_recorded_with_its_reason_and_changes_nothing() {
    let first = Abacus::default().wasm();
    let cluster = Cluster::start(files(&[file(&first)])).await;
    let witnesses = Witnesses::start(&cluster, Temper::Strict, 3, 0).await;
    witnesses.go_on(50).await;
    for Bad { wasm, says } in refusals() {
        let row = swap(&cluster, &wasm).await;
        refused(&row);
        let shown = |status: &StatusResponse| status.warnings.iter().any(|warning| warning.contains(says));
        status_says(&cluster, says, shown).await;
        witnesses.go_on(20).await;
    }
    let metrics = cluster.nodes[0].tells("/metrics").await;
    assert!(metrics.contains("balsa_module_refused{module=\"abacus\",by=\"check\"} "), "{metrics}");
    assert!(cluster.nodes.iter().any(|node| node.log().contains("the migration wrote more than its limits")));

    // What is no module at all asks for nothing.
    let rows = history_of(&cluster, "abacus").await.len();
    cluster.put_all("abacus.wasm", b"#!/bin/sh\n");
    let no_module =
        |status: &StatusResponse| (0..3).all(|node| has_problem(status, node, "is not a WebAssembly module"));
    status_says(&cluster, "that it is no module", no_module).await;
    assert_eq!(history_of(&cluster, "abacus").await.len(), rows);

    // The file that serves all the time.
    cluster.put_all("abacus.wasm", &first);
    status_says(&cluster, "that all is well", |status| status.warnings.is_empty()).await;
    let status = cluster.status().await;
    assert!(status.nodes.iter().all(|node| node.modules[0].hash[..] == hash(&first)), "{status:#?}");
    witnesses.stop().await.assert_kept(&cluster).await;
    cluster.assert_same_state().await;
}
