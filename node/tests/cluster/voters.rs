//! Every voter must be able to run a module before it serves. One that is silent or cannot says nothing about the module: the
//! change waits, says for whom, and an operator may go on without it.

use std::fs;
use std::time::Duration;

use balsa::limits::PUSHES_MAX;
use balsa::proto::admin::{Change, ModulePush};
use rustix::process::{Resource, Rlimit, prlimit};
use tonic::Code;

use crate::abacus::{Abacus, Migrate, add, hash, total};
use crate::harness::{Cluster, Node, SLOW_ELECTIONS, Setup, stays, until};
use crate::operator::{Push, activated, decided, history_of, push, retry};
use crate::swapped::{file, files};
use crate::witness::{Temper, Witnesses};

/// Until the leader's status shows a change at a stage with all these words.
async fn shows(cluster: &Cluster, words: &[&str]) -> Change {
    until(&format!("status shows a change that is {words:?}"), async || {
        let leader = cluster.leader().await;
        let changes = cluster.nodes[leader].status().await?.changes;
        changes.into_iter().find(|change| words.iter().all(|word| change.stage.contains(word)))
    })
    .await
}

async fn rows(cluster: &Cluster) -> usize {
    history_of(cluster, "abacus").await.len()
}

/// Leaves a process so little address space that the stack of another thread to compile on (8 MiB) is not to be had.
fn starve(node: &Node) {
    let status = fs::read_to_string(format!("/proc/{}/status", node.id().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    limit(node, Some((kib + 5 * 1024) * 1024));
}

fn limit(node: &Node, bytes: Option<u64>) {
    prlimit(Some(node.id()), Resource::As, Rlimit { current: bytes, maximum: None }).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_waits_for_a_voter_that_cannot_and_goes_on_without_it_if_told_so() {
    let first = Abacus::default().wasm();
    // No leader dies, and a process without memory is none to lead.
    let start = [file(&first)];
    let mut cluster = Cluster::start(Setup { raft: Some(SLOW_ELECTIONS), ..files(&start) }).await;
    let witnesses = Witnesses::start(&cluster, Temper::Persistent, 4, 0).await;
    witnesses.go_on(50).await;

    // One that has no memory for it: it says so, and nothing is recorded; when it has, all goes on by itself.
    let second = Abacus { migrate: Migrate::Well, ..Abacus::version("0.2.0") }.wasm();
    let poor = cluster.follower().await;
    let name = cluster.nodes[poor].name.clone();
    // A process that has just started has no stack left over from compiling.
    cluster.nodes[poor].kill().await;
    cluster.nodes[poor].start();
    cluster.ready().await;
    // What is left has to do for all else.
    let rest = witnesses.rest().await;
    starve(&cluster.nodes[poor]);
    cluster.put_all("abacus.wasm", &second);
    let change = shows(&cluster, &["waiting for ", &name, "no thread to compile on"]).await;
    assert_eq!((&*change.name, &change.hash[..]), ("abacus", &hash(&second)[..]));
    stays("it waits", Duration::from_millis(1500), async || rows(&cluster).await == 1).await;
    limit(&cluster.nodes[poor], None);
    drop(rest);
    activated(&decided(&cluster, "abacus", &second, 0).await);
    witnesses.go_on(50).await;

    // One that does not move: the change waits, until an operator says that it need not.
    let third = Abacus { migrate: Migrate::Well, ..Abacus::version("0.3.0") }.wasm();
    let paused = cluster.follower().await;
    let name = cluster.nodes[paused].name.clone();
    cluster.nodes[paused].freeze();
    cluster.put_all("abacus.wasm", &third);
    shows(&cluster, &["waiting for ", &name]).await;
    stays("it waits", Duration::from_millis(1500), async || rows(&cluster).await == 2).await;
    witnesses.go_on(50).await;
    let through = cluster.running().last().unwrap();
    assert_eq!(retry(through, "abacus", &[&name]).await, ["abacus"]);
    activated(&decided(&cluster, "abacus", &third, 0).await);
    witnesses.go_on(50).await;
    cluster.nodes[paused].thaw();
    cluster.ready().await;
    let slept = cluster.nodes[paused].client();
    assert_eq!(total(&slept, "abacus").await.unwrap().version, "0.3.0");

    // The same with a push, which says itself whom it need not wait for.
    let fourth = Abacus { migrate: Migrate::Well, ..Abacus::version("0.4.0") }.wasm();
    cluster.nodes[paused].kill().await;
    let through = cluster.running().next().unwrap();
    pushes_that_wait_are_few(through).await;
    let header = ModulePush { without: vec![name], ..ModulePush::default() };
    // The leader's places are free once its changes have noticed that nobody waits for them.
    let row = until("there is room for one more", async || {
        let push = async || Push::begin(through, &fourth, header.clone()).await?.done().await;
        match push().await {
            Ok(row) => Some(row),
            Err(refused) if refused.code() == Code::ResourceExhausted => None,
            Err(other) => panic!("{other:?}"),
        }
    });
    activated(&row.await);
    cluster.nodes[paused].start();
    cluster.ready().await;
    witnesses.go_on(50).await;
    witnesses.stop().await.assert_kept(&cluster).await;
    cluster.assert_same_state().await;
}

/// Each holds its module as long as it waits, so the next one is refused; whoever hangs up makes room.
async fn pushes_that_wait_are_few(node: &Node) {
    let begin = async |number: usize| {
        let salt = format!("push {number}");
        let wasm = Abacus { migrate: Migrate::Well, salt: &salt, ..Abacus::version("0.3.1") }.wasm();
        Push::begin(node, &wasm, ModulePush::default()).await
    };
    let mut waiting = Vec::new();
    for number in 0..PUSHES_MAX {
        let mut push = begin(number).await.unwrap();
        assert_eq!(push.reaches("waiting for ").await.unwrap(), None);
        waiting.push(push);
    }
    let refused = begin(PUSHES_MAX).await.err().expect("one too many");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    drop(waiting);
    until("there is room again", async || begin(PUSHES_MAX).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_leaders_that_conduct_one_change_make_one_activation() {
    let first = Abacus::default().wasm();
    let mut cluster = Cluster::start(files(&[file(&first)])).await;
    let witnesses = Witnesses::start(&cluster, Temper::Persistent, 4, 0).await;
    for (number, stage) in ["waiting for ", "activating"].into_iter().enumerate() {
        let version = format!("0.{}.0", number + 2);
        let wasm = Abacus { migrate: Migrate::Well, functions: 400, ..Abacus::version(&version) }.wasm();
        let said = cluster.said();
        cluster.put_all("abacus.wasm", &wasm);
        let old = cluster.one_says(&said, stage).await;
        cluster.nodes[old].freeze();
        // The next one does not wait for the one that stands still, since somebody says so: both have the change in hand.
        let new = cluster.leader().await;
        assert_ne!(new, old);
        let name = cluster.nodes[old].name.clone();
        until("the new leader has done it", async || {
            retry(&cluster.nodes[new], "abacus", &[&name]).await;
            let rows = history_of(&cluster, "abacus").await;
            rows.iter().any(|row| row.hash[..] == hash(&wasm)).then_some(())
        })
        .await;
        cluster.nodes[old].thaw();
        cluster.ready().await;
        witnesses.go_on(50).await;
        let rows = history_of(&cluster, "abacus").await;
        assert_eq!(rows.iter().filter(|row| row.hash[..] == hash(&wasm)).count(), 1, "{rows:#?}");
        activated(rows.last().unwrap());
    }
    witnesses.stop().await.assert_kept(&cluster).await;
    cluster.assert_same_state().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_four_voters_are_no_majority_and_status_says_so() {
    let first = Abacus::default().wasm();
    let start = [file(&first)];
    let mut cluster = Cluster::start(Setup { replicas: 4, ..files(&start) }).await;
    let second = Abacus { migrate: Migrate::Well, ..Abacus::version("0.2.0") }.wasm();
    for node in &cluster.nodes[..2] {
        node.volume.put("abacus.wasm", &second);
    }
    until("status names all four", async || {
        let warnings = cluster.status().await.warnings;
        let undecided = warnings.iter().filter(|one| one.contains("no majority of the 4 voters has the same")).count();
        (undecided == 4).then_some(())
    })
    .await;
    stays("nothing happens", Duration::from_millis(2500), async || rows(&cluster).await == 1).await;
    assert_eq!(add(&cluster.client(), "abacus", 1).await.unwrap().version, "0.1.0");

    // A push is not the files' business; and a third file makes a majority of the files.
    let pushed = Abacus { salt: "pushed", ..Abacus::default() }.wasm();
    activated(&push(&cluster.nodes[3], &pushed).await);
    cluster.nodes[2].volume.put("abacus.wasm", &second);
    let row = decided(&cluster, "abacus", &second, 0).await;
    activated(&row);
    assert_eq!(row.proposed_by, "files of balsa-0, balsa-1, balsa-2 (3 of 4 voters)");
    let odd = "balsa-3's files ask for something else than a majority's; they are not obeyed";
    until("status names the odd one", async || cluster.status().await.warnings.contains(&odd.to_owned()).then_some(()))
        .await;
    // Also after restarts, and if it leads.
    for at in 0..3 {
        cluster.nodes[at].kill().await;
        cluster.nodes[at].start();
    }
    cluster.ready().await;
    cluster.lead(3).await;
    stays("nothing happens", Duration::from_millis(2500), async || rows(&cluster).await == 3).await;
    assert_eq!(add(&cluster.client(), "abacus", 1).await.unwrap().version, "0.2.0");
    cluster.assert_same_state().await;
}
