//! The state right after one entry, wherever batches end.

use std::sync::mpsc::{self, Receiver};

use super::super::{Appointment, Kept, StateMachine};
use super::harness::{Fingerprint, apply, eventful_log, fingerprint, open};
use crate::storage::sim_disk::SimDisk;
use crate::testing::on_a_wasm_thread;

fn appoint(machine: &StateMachine, index: u64) -> (Appointment, Receiver<Kept>) {
    let (keep, kept) = mpsc::channel();
    let appointment = machine.reader().appoint(index, move |what| keep.send(what).unwrap());
    (appointment, kept)
}

/// The hash of the state after the entry, if that is what was kept.
fn hash(kept: &Receiver<Kept>) -> Result<[u8; 32], u64> {
    match kept.try_recv().expect("what is due is kept at once") {
        Kept::There(view) => Ok(view.state_hash().unwrap().hash),
        Kept::Missed(at) => Err(at),
    }
}

/// The state after each entry, by a machine that publishes each.
fn one_by_one() -> (Vec<(u64, [u8; 32])>, Fingerprint) {
    let mut machine = open(&SimDisk::default());
    let log = eventful_log();
    let after_each = log.iter().map(|entry| {
        apply(&mut machine, std::slice::from_ref(entry)).unwrap();
        (entry.log_id.index, machine.reader().view().state_hash().unwrap().hash)
    });
    // Entry 0 is the founding membership, after which nobody can ask for anything.
    let states = after_each.skip(1).collect();
    (states, fingerprint(&machine))
}

#[test]
fn a_state_in_the_midst_of_a_batch_is_seen_as_it_was_and_the_rest_goes_on() {
    on_a_wasm_thread(|| {
        let (states, end) = one_by_one();
        let mut machine = open(&SimDisk::default());
        let appointments: Vec<_> = states.iter().step_by(3).map(|(index, _)| appoint(&machine, *index)).collect();
        apply(&mut machine, &eventful_log()).unwrap();
        for ((_, kept), (index, expected)) in appointments.iter().zip(states.iter().step_by(3)) {
            assert_eq!(hash(kept), Ok(*expected), "after entry {index}");
        }
        assert_eq!(fingerprint(&machine), end);
    });
}

#[test]
fn where_the_state_is_now_is_kept_at_once_and_what_is_past_is_missed() {
    on_a_wasm_thread(|| {
        let mut machine = open(&SimDisk::default());
        apply(&mut machine, &eventful_log()[..5]).unwrap();
        let at = machine.progress().index();
        let now = machine.reader().view().state_hash().unwrap().hash;
        assert_eq!(hash(&appoint(&machine, at).1), Ok(now));
        assert_eq!(hash(&appoint(&machine, at - 1).1), Err(at));
    });
}

#[test]
fn an_appointment_that_is_dropped_is_not_kept() {
    on_a_wasm_thread(|| {
        let mut machine = open(&SimDisk::default());
        let (appointment, kept) = appoint(&machine, eventful_log()[3].log_id.index);
        drop(appointment);
        apply(&mut machine, &eventful_log()).unwrap();
        assert_eq!(kept.try_recv().unwrap_err(), mpsc::TryRecvError::Disconnected);
    });
}
