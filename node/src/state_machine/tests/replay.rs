//! The same log gives the same state, however it is cut into batches and however often the node stops.

use super::harness::{self, Fingerprint, apply, checkpoint, eventful_log, fingerprint, open};
use crate::command::{Outcome, Refusal, Reply, TrapClass};
use crate::storage::sim_disk::SimDisk;
use crate::testing::on_a_wasm_thread;

/// All at once, without a stop.
fn reference() -> (Fingerprint, Vec<Reply>) {
    let mut machine = open(&SimDisk::default());
    let replies = apply(&mut machine, &eventful_log()).unwrap();
    (fingerprint(&machine), replies)
}

#[test]
fn the_log_of_these_tests_is_eventful() {
    let (_, replies) = on_a_wasm_thread(reference);
    let outcomes: Vec<_> = replies.iter().filter(|reply| !reply.outcome.is_empty()).map(harness::outcome).collect();
    let some = |wanted: &dyn Fn(&Outcome) -> bool| outcomes.iter().any(wanted);
    assert!(some(&|outcome| matches!(outcome, Outcome::Ok(bytes) if bytes.len() > 4096)));
    assert!(some(&|outcome| matches!(outcome, Outcome::Status(_))));
    assert!(some(&|outcome| matches!(outcome, Outcome::Trap(TrapClass::OutOfFuel))));
    assert!(some(&|outcome| matches!(outcome, Outcome::Trap(TrapClass::Unreachable))));
    for refusal in [
        Refusal::KeyReused,
        Refusal::KeyForgotten,
        Refusal::UnknownMethod,
        Refusal::NotACommand,
        Refusal::GenerationMismatch,
        Refusal::InvalidModule,
        Refusal::ServiceTaken,
        Refusal::MigrationFailed,
    ] {
        assert!(some(&|outcome| *outcome == Outcome::Refused(refusal)), "{refusal:?}");
    }
    assert!(replies.iter().any(|reply| reply.replayed));
}

#[test]
fn batches_do_not_matter() {
    on_a_wasm_thread(|| {
        let (expected, replies) = reference();
        for size in [1, 2, 3, 7] {
            let mut machine = open(&SimDisk::default());
            let log = eventful_log();
            let batched: Vec<_> = log.chunks(size).flat_map(|batch| apply(&mut machine, batch).unwrap()).collect();
            assert_eq!(fingerprint(&machine), expected, "batches of {size}");
            assert_eq!(batched, replies, "batches of {size}");
        }
    });
}

#[test]
fn a_restart_at_any_index_does_not_matter() {
    on_a_wasm_thread(|| {
        let (expected, _) = reference();
        let log = eventful_log();
        for stop in 0..log.len() {
            let disk = SimDisk::default();
            let mut machine = open(&disk);
            // A checkpoint, then some more that a restart must apply again.
            let durable = stop - stop % 3;
            apply(&mut machine, &log[..durable]).unwrap();
            checkpoint(&mut machine).unwrap();
            apply(&mut machine, &log[durable..stop]).unwrap();
            drop(machine);
            let mut machine = open(&disk);
            let next = machine.last_applied().map_or(0, |id| id.index() as usize + 1);
            assert_eq!(next, durable, "a restart begins at the last checkpoint");
            apply(&mut machine, &log[next..]).unwrap();
            assert_eq!(fingerprint(&machine), expected, "stopped after {stop} entries");
        }
    });
}

#[test]
fn a_snapshot_at_any_index_does_not_matter() {
    on_a_wasm_thread(|| {
        let (expected, _) = reference();
        let log = eventful_log();
        for cut in (1..log.len()).step_by(3) {
            let (first, second) = (SimDisk::default(), SimDisk::default());
            let (mut sender, mut receiver) = (open(&first), open(&second));
            apply(&mut sender, &log[..cut]).unwrap();
            harness::transfer(&sender, &mut receiver, 1 << 16).unwrap();
            assert_eq!(fingerprint(&receiver), fingerprint(&sender), "at {cut}");
            drop(receiver);
            let mut receiver = open(&second);
            assert_eq!(fingerprint(&receiver), fingerprint(&sender), "an installed snapshot is durable");
            apply(&mut receiver, &log[cut..]).unwrap();
            assert_eq!(fingerprint(&receiver), expected, "a snapshot after {cut} entries");
        }
    });
}

#[test]
fn readers_see_digests_and_publications_in_step() {
    on_a_wasm_thread(|| {
        let published = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
        let seen = published.clone();
        let mut options = harness::options(&SimDisk::default());
        options.on_publish = std::sync::Arc::new(move |index| seen.lock().push(index));
        let mut machine = super::super::StateMachine::open(crate::testing::engine(), options).unwrap();
        let reader = machine.reader();
        assert!(reader.snapshot().is_none() && reader.recent_digests(9).is_empty());
        for batch in eventful_log().chunks(5) {
            apply(&mut machine, batch).unwrap();
            let view = reader.view();
            assert_eq!(view.index(), reader.published_index());
            assert_eq!(reader.digest_at(view.index()), Some(view.progress().digest));
            assert_eq!(reader.recent_digests(4).last(), Some(&(view.index(), view.progress().digest)));
        }
        assert_eq!(published.lock().last(), Some(&reader.published_index()));
        assert!(published.lock().is_sorted());
    });
}
