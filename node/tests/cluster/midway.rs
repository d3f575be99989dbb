//! `kill -9` of the leader in the middle of a change, at every step of it: the next leader brings it to its end, and no
//! command is lost, doubled, or answered by the wrong version.

use std::sync::Arc;

use balsa::proto::admin::ModulePush;
use tonic::Code;

use crate::abacus::{Abacus, Migrate, hash};
use crate::harness::{Cluster, Turn, turn_alone, until};
use crate::operator::{Push, activated, decided, history_of, refused};
use crate::swapped::{corrupt, file, files};
use crate::witness::{Temper, Witnesses};

/// More than one part, so that an upload takes its time.
const PADDING: usize = 4 << 20;
/// So many that compiling them takes its time.
const FUNCTIONS: usize = 400;

/// How far a change has come when the leader dies, as it says it: the second part is uploaded, it is checked, the voters check and compile, it
/// is activated; and once all is over, which is said in other words.
const STEPS: [&str; 5] = [UPLOADING, CHECKING, "waiting for ", "activating", THE_END];
const UPLOADING: &str = "uploading: 1048576 of ";
const CHECKING: &str = "checking";
const THE_END: &str = "the end";

/// A change, and what must become of it.
struct Kind {
    name: &'static str,
    wasm: Vec<u8>,
    allow_breaking: bool,
    /// Whether the leader's check has nothing against it.
    fits: bool,
    end: End,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Activated,
    Refused,
    /// No module at all, so that not even the history has a row of it.
    Invalid,
}

impl Kind {
    /// Whether it ever says that it has come to that step.
    fn comes_to(&self, step: &str) -> bool {
        match step {
            UPLOADING => self.wasm.len() > PADDING,
            CHECKING => true,
            THE_END => false,
            _ => self.fits,
        }
    }
}

/// In this order, since each follows on the one before.
fn kinds() -> Vec<Kind> {
    let slow = Abacus { padding: PADDING, functions: FUNCTIONS, ..Abacus::default() };
    let second = Abacus { version: "0.2.0", migrate: Migrate::Well, ..slow };
    let third = Abacus { version: "0.3.0", undo: false, ..second };
    let fourth = Abacus { version: "0.4.0", ..third };
    let good = |name, abacus: Abacus<'_>| {
        let wasm = abacus.wasm();
        Kind { name, wasm, allow_breaking: false, fits: true, end: End::Activated }
    };
    let bad = |name, abacus: Abacus<'_>| Kind { end: End::Refused, ..good(name, abacus) };
    let none = |name, wasm| Kind { wasm, fits: false, end: End::Invalid, ..good(name, fourth) };
    vec![
        good("the same version", Abacus { salt: "again", ..slow }),
        good("the old one back", Abacus::default()),
        good("an upgrade with a migration", second),
        Kind { fits: false, ..bad("a breaking change", third) },
        Kind { allow_breaking: true, ..good("a breaking change that is allowed", third) },
        bad("a migration that refuses", Abacus { migrate: Migrate::Refuse, ..fourth }),
        bad("a migration that traps", Abacus { migrate: Migrate::Trap, ..fourth }),
        bad("a migration that never ends", Abacus { migrate: Migrate::Spin, ..fourth }),
        bad("a migration that writes too much", Abacus { migrate: Migrate::Flood, ..fourth }),
        none("a corrupt file", corrupt(&fourth)),
        none("an import that is not allowed", Abacus { import: "env.open", ..fourth }.wasm()),
        good("a slow migration", Abacus { migrate: Migrate::Slowly(300_000), ..fourth }),
    ]
}

/// Pushes through a follower and kills the leader at `step`.
async fn change(cluster: &mut Cluster, kind: &Kind, step: &str) {
    println!("--- the leader dies at {step:?} of {}", kind.name);
    let leader = cluster.leader().await;
    let header = ModulePush { allow_breaking: kind.allow_breaking, ..ModulePush::default() };
    let through = &cluster.nodes[(leader + 1) % 3];
    let mut push = Push::begin(through, &kind.wasm, header).await.unwrap();
    let ended = push.reaches(step).await;
    assert_eq!(matches!(ended, Ok(None)), kind.comes_to(step), "{}: {ended:?}", kind.name);
    cluster.nodes[leader].kill().await;
    // A change waits for every voter.
    cluster.nodes[leader].start();
    let row = match ended {
        Ok(None) => push.done().await,
        Ok(Some(row)) => Ok(row),
        Err(status) => Err(status),
    };
    match (kind.end, row) {
        (End::Activated, Ok(row)) => drop(activated(&row)),
        (End::Refused, Ok(row)) => drop(refused(&row)),
        (End::Invalid, Err(status)) => assert_eq!(status.code(), Code::FailedPrecondition),
        (_, row) => panic!("{} ended with {row:?}", kind.name),
    }
    cluster.ready().await;
}

/// Goes through all changes, in each of which the leader dies at `step`.
async fn go_through(turn: Turn, kinds: Arc<Vec<Kind>>, step: &'static str) {
    let first = Abacus::default().wasm();
    let mut cluster = Cluster::start_in(turn, files(&[file(&first)])).await;
    let witnesses = Witnesses::start(&cluster, Temper::Persistent, 3, 0).await;
    witnesses.go_on(50).await;
    for kind in &*kinds {
        change(&mut cluster, kind, step).await;
        witnesses.go_on(30).await;
    }
    witnesses.stop().await.assert_kept(&cluster).await;
    cluster.assert_same_state().await;
}

/// A cluster for each step. Most of the time each waits for an election or for a process to start, so they go side by side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_at_every_step_of_every_change_loses_nothing() {
    let (turn, kinds) = (turn_alone().await, Arc::new(kinds()));
    let clusters = STEPS.into_iter().map(|step| go_through(Turn::clone(&turn), Arc::clone(&kinds), step));
    futures::future::join_all(clusters).await;
}

/// What the files want goes on without anybody who waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_files_want_is_done_by_the_next_leader() {
    let first = Abacus::default().wasm();
    let mut cluster = Cluster::start(files(&[file(&first)])).await;
    let witnesses = Witnesses::start(&cluster, Temper::Persistent, 6, 0).await;
    for (number, step) in ["uploading: ", "waiting for ", "activating", "activated"].into_iter().enumerate() {
        let version = format!("0.{}.0", number + 2);
        let migrate = if number == 2 { Migrate::Spin } else { Migrate::Well };
        let wasm = Abacus { migrate, functions: FUNCTIONS, ..Abacus::version(&version) }.wasm();
        let said = cluster.said();
        let before = history_of(&cluster, "abacus").await.last().unwrap().index;
        cluster.put_all("abacus.wasm", &wasm);
        let leader = cluster.one_says(&said, step).await;
        cluster.nodes[leader].kill().await;
        cluster.nodes[leader].start();
        let row = decided(&cluster, "abacus", &wasm, before).await;
        match migrate {
            Migrate::Spin => drop(refused(&row)),
            _ => assert_eq!(activated(&row).writes, 1),
        }
        cluster.ready().await;
        witnesses.go_on(30).await;
        let rows = history_of(&cluster, "abacus").await;
        assert_eq!(rows.iter().filter(|row| row.hash[..] == hash(&wasm)).count(), 1, "it was decided twice: {rows:#?}");
    }
    until("no file is refused but the one that spins", async || {
        let warnings = cluster.status().await.warnings;
        warnings.is_empty().then_some(())
    })
    .await;
    witnesses.stop().await.assert_kept(&cluster).await;
    cluster.assert_same_state().await;
}
