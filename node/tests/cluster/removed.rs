//! What is already in the log when a module changes meets the new one: it runs there, or is answered that nobody has the method;
//! and who was away across a change arrives in the same state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use balsa::client::{Client, Code, Error};
use balsa::proto::admin::ModulePush;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::abacus::{Abacus, Migrate, Reading, amount, path, total};
use crate::harness::{Cluster, PATIENCE, Setup, until};
use crate::load::pause;
use crate::operator::{Push, activated, history, history_of, push};
use crate::swapped::{file, files};
use crate::witness::{Temper, Witnesses};

/// Attempts to reach a dead node, at most: heartbeats, of which each read that is confirmed wants one, entries, a snapshot, and two nodes
/// that ask how it is.
const ATTEMPTS_A_SECOND: f64 = 40.0;

/// Calls `Undo` until there is none; where the log answered so, the index is past the activation.
async fn undo_for_ever(client: Client, stop: Arc<AtomicBool>) -> (Vec<u64>, u64) {
    let (mut done, mut refused) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) || refused == 0 {
        match client.command(&path("abacus", "Undo"), amount(0)).await {
            Ok(reply) => {
                assert_eq!(refused, 0, "a method that was gone came back");
                assert_eq!(Reading::of(&reply).version, "0.1.0");
                done.push(reply.index.unwrap());
            }
            Err(Error::Refused(refusal)) => {
                assert_eq!((refusal.code, refusal.reason.as_deref()), (Code::Unimplemented, Some("UNKNOWN_METHOD")));
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
        pause().await;
    }
    (done, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_wait_for_a_method_that_goes_are_answered_that_it_is_gone() {
    let first = Abacus::default().wasm();
    let cluster = Cluster::start(files(&[file(&first)])).await;
    let witnesses = Witnesses::start(&cluster, Temper::Strict, 3, 0).await;
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..6)
        .map(|at| {
            let (client, stop) = (cluster.nodes[at % 3].client(), Arc::clone(&stop));
            tokio::spawn(undo_for_ever(client, stop))
        })
        .collect();
    witnesses.go_on(50).await;
    // All commands behind it wait while it migrates, and those that are logged meanwhile name a method that will be gone.
    let without = Abacus { undo: false, migrate: Migrate::Slowly(2_000_000), ..Abacus::version("0.2.0") }.wasm();
    let header = ModulePush { allow_breaking: true, ..ModulePush::default() };
    let row = Push::begin(&cluster.nodes[0], &without, header).await.unwrap().done().await.unwrap();
    activated(&row);
    witnesses.go_on(50).await;
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        let told = tokio::time::timeout(PATIENCE, caller).await.expect("a method that is gone is refused some time");
        let (done, refused) = told.unwrap();
        assert!(refused > 0);
        assert!(!done.is_empty() && done.iter().all(|index| *index < row.index), "{done:?} {row:?}");
    }
    witnesses.stop().await.assert_kept(&cluster).await;
    cluster.assert_same_state().await;
}

/// Takes all calls at an address, and hangs up.
struct Calls {
    count: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Calls {
    async fn at(address: &str) -> Self {
        let (listener, count) = (TcpListener::bind(address).await.unwrap(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&count);
        let task = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { count, task }
    }

    /// How many there were; the address is free again.
    async fn end(self) -> usize {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
        self.count.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_carries_a_change_that_was_missed_and_the_code_with_it() {
    let first = Abacus::default().wasm();
    let start = [file(&first)];
    let raft = "snapshot_log_bytes = \"1 MiB\"\nkeep_log_bytes = 0\n";
    let mut cluster = Cluster::start(Setup { raft: Some(raft), ..files(&start) }).await;
    let witnesses = Witnesses::start(&cluster, Temper::Persistent, 6, 16 << 10).await;
    witnesses.go_on(100).await;
    let away = cluster.follower().await;
    let name = cluster.nodes[away].name.clone();
    cluster.nodes[away].kill().await;
    let (begun, calls) = (Instant::now(), Calls::at(&cluster.nodes[away].peer_address()).await);
    let second = Abacus { migrate: Migrate::Well, padding: 2 << 20, ..Abacus::version("0.2.0") }.wasm();
    let header = ModulePush { without: vec![name], ..ModulePush::default() };
    let through = cluster.running().next().unwrap();
    let row = Push::begin(through, &second, header).await.unwrap().done().await.unwrap();
    activated(&row);
    until("the others have purged the activation", async || {
        cluster.running().all(|node| node.trims_above(row.index) >= 3).then_some(())
    })
    .await;
    let (attempts, time) = (calls.end().await, begun.elapsed());
    let most = 10.0 + ATTEMPTS_A_SECOND * time.as_secs_f64();
    assert!(attempts > 0, "nobody looks whether it is back");
    assert!((attempts as f64) < most, "a dead node's address is tried all the time: {attempts} times in {time:?}");
    let said = cluster.nodes[away].log().len();
    cluster.nodes[away].start();
    cluster.ready().await;
    witnesses.go_on(100).await;
    let log = cluster.nodes[away].log();
    assert!(log[said..].contains("receiving a snapshot"), "it came back by the log");
    assert_eq!(total(&cluster.nodes[away].client(), "abacus").await.unwrap().version, "0.2.0");
    let rows = until("it tells the history", async || history(&cluster.nodes[away], "abacus").await).await;
    assert_eq!(rows.len(), 2);

    // What it got it can run, compile and pass on: it leads a change.
    for at in (0..3).filter(|at| *at != away) {
        cluster.nodes[at].kill().await;
        cluster.nodes[at].start();
        cluster.ready().await;
    }
    cluster.lead(away).await;
    let third = Abacus { migrate: Migrate::Well, ..Abacus::version("0.3.0") }.wasm();
    activated(&push(&cluster.nodes[away], &third).await);
    witnesses.go_on(50).await;
    witnesses.stop().await.assert_kept(&cluster).await;
    assert_eq!(history_of(&cluster, "abacus").await.len(), 3);
    cluster.assert_same_state().await;
}
