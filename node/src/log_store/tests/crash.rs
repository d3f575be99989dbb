//! The power is cut at every operation of random scripts, and of the reopening after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::rig::{Model, Rig, small};
use super::simulated::{Simulated, Trouble};
use super::{command, flushed};
use crate::log_store::Error;
use crate::log_store::queue::Waiter;

/// Runs a random script until it is done or something fails. None if the log could not even be opened.
fn run(disk: &Simulated, seed: u64, groups: usize) -> Option<Rig> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut rig = Rig::open(disk, small()).ok()?;
    for _ in 0..groups {
        if rig.store.shared.check().is_err() {
            break;
        }
        rig.random_group(&mut rng);
    }
    Some(rig)
}

/// What was acknowledged is there, and what is there was written, up to some record.
fn check(found: &Model, states: &[Model], acknowledged: usize, what: &str) {
    assert!(states[acknowledged..].contains(found), "{what}: {found:#?}\nis none of\n{:#?}", &states[acknowledged..]);
}

/// Opens the log after a crash; and again after a crash during that, at a place that `seed` chooses.
fn reopen(disk: &Simulated, seed: u64, what: &str) -> (Simulated, Model) {
    let interrupted = disk.copy();
    interrupted.arrange(seed % 12, Trouble::PowerCut);
    let after = Rig::open(&interrupted, small()).map(drop);
    let disk = if after.is_err() { interrupted.after_power_cut(seed) } else { disk.copy() };
    let mut rig = Rig::open(&disk, small()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = Model::of(&rig.store);
    // And it goes on as if nothing had happened.
    rig.append(9, 3, 100);
    rig.settle();
    assert_eq!(rig.acknowledged, rig.states.len() - 1, "{what}");
    let again = Rig::open(&disk.after_power_cut(seed), small()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(&Model::of(&again.store), rig.model(), "{what}");
    (disk, found)
}

fn crash_everywhere(script: u64, groups: usize, seeds: u64) {
    let whole = Simulated::default();
    run(&whole, script, groups);
    for at in 0..whole.operations() {
        let disk = Simulated::default();
        disk.arrange(at, Trouble::PowerCut);
        let rig = run(&disk, script, groups);
        for seed in 0..seeds {
            let what = format!("script {script}, power cut at operation {at}, seed {seed}");
            let (_, found) = reopen(&disk.after_power_cut(at * 1000 + seed), at * 1000 + seed, &what);
            match &rig {
                Some(rig) => check(&found, &rig.states, rig.acknowledged, &what),
                None => assert_eq!(found, Model::default(), "{what}"),
            }
        }
    }
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_at_every_operation() {
    (1..9).for_each(|script| crash_everywhere(script, 25, 5));
}

#[test]
fn a_killed_process_leaves_all_that_it_wrote() {
    for script in 20..40 {
        let disk = Simulated::default();
        let rig = run(&disk, script, 40).unwrap();
        let reopened = Rig::open(&disk.after_kill(), small()).unwrap();
        assert_eq!(&Model::of(&reopened.store), rig.model());
    }
}

#[test]
fn what_a_killed_process_left_unsynced_is_durable_after_reopening() {
    let disk = Simulated::default();
    let mut rig = Rig::open(&disk, small()).unwrap();
    rig.append(1, 5, 100);
    // The group is written, its sync fails, and the process dies of it.
    disk.arrange(disk.operations() + 1, Trouble::Once);
    rig.step();
    assert_eq!(rig.acknowledged, 0);
    let disk = disk.after_kill();
    let reopened = Model::of(&Rig::open(&disk, small()).unwrap().store);
    assert_eq!(reopened.entries.len(), 5, "Raft takes all of them for flushed");
    for seed in 0..20 {
        assert_eq!(Model::of(&Rig::open(&disk.after_power_cut(seed), small()).unwrap().store), reopened);
    }
}

#[test]
fn an_append_is_acknowledged_after_its_sync_and_not_before() {
    let disk = Simulated::default();
    let mut rig = Rig::open(&disk, small()).unwrap();
    let (flushed, done) = flushed();
    rig.store.stage([command(1, 0, 50)]).unwrap();
    rig.store.queue(Waiter::Append(flushed)).unwrap();
    let (done, syncs) = (Arc::new(Mutex::new(done)), Arc::new(AtomicUsize::new(0)));
    let (waiting, counted) = (done.clone(), syncs.clone());
    disk.before_sync(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        assert!(waiting.lock().try_recv().is_err(), "acknowledged before the sync");
    });
    rig.step();
    assert_eq!(syncs.load(Ordering::Relaxed), 1);
    assert!(matches!(done.lock().try_recv(), Ok(Ok(()))));
}

#[test]
fn many_calls_share_one_sync() {
    let disk = Simulated::default();
    let mut rig = Rig::open(&disk, small()).unwrap();
    let before = disk.operations();
    (0..5).for_each(|_| rig.append(1, 2, 10));
    rig.vote(3);
    rig.step();
    assert_eq!(disk.operations() - before, 2, "one write, one sync");
    assert_eq!(rig.acknowledged, 11);
}

#[test]
fn after_any_failed_operation_nothing_is_acknowledged() {
    let whole = Simulated::default();
    run(&whole, 50, 20);
    for (at, trouble) in (3..whole.operations()).flat_map(|at| [(at, Trouble::Full), (at, Trouble::Once)]) {
        let disk = Simulated::default();
        disk.arrange(at, trouble);
        let Some(mut rig) = run(&disk, 50, 20) else { continue };
        let acknowledged = rig.acknowledged;
        if rig.store.shared.check().is_ok() {
            continue; // It was forgiven: a file could be prepared at the second try, or the room was not needed.
        }
        rig.store.staged.clear();
        let refused = rig.store.stage([command(9, 1000, 1)]);
        assert!(matches!(refused, Err(Error::Poisoned(_))), "{trouble:?} at {at}");
        rig.vote(9);
        rig.step();
        assert_eq!(rig.acknowledged, acknowledged, "{trouble:?} at {at}");
        assert!(rig.store.handle().status().borrow().fault.is_some());
        // What it acknowledged before is there when there is room again.
        let reopened = Rig::open(&disk.after_power_cut(at), small()).unwrap();
        check(&Model::of(&reopened.store), &rig.states, acknowledged, "after a failure");
    }
}
