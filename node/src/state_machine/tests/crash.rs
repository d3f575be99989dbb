//! Crashes at every step: unsynced writes lost or torn, names not yet durable.

use std::path::Path;

use super::harness::{self, apply, eventful_log, fingerprint, open, try_open};
use crate::raft::types::{Entry, LogId};
use crate::storage::sim_disk::SimDisk;
use crate::testing::on_a_wasm_thread;
use crate::wasm::HostFault;

/// Applies `log` with a checkpoint every seven entries. `begun` is told where each begins, before it does.
fn run(disk: &SimDisk, log: &[Entry], begun: &mut Vec<Option<LogId>>) -> Result<(), HostFault> {
    let mut machine = try_open(disk)?;
    for (at, entry) in log.iter().enumerate() {
        apply(&mut machine, std::slice::from_ref(entry))?;
        if at % 7 == 6 {
            begun.push(machine.last_applied());
            harness::checkpoint(&mut machine)?;
        }
    }
    Ok(())
}

#[test]
fn after_a_crash_at_any_step_the_log_leads_to_the_same_state() {
    on_a_wasm_thread(|| {
        let log = &eventful_log()[..30];
        let whole = SimDisk::default();
        run(&whole, log, &mut Vec::new()).unwrap();
        let expected = {
            let mut machine = open(&SimDisk::default());
            apply(&mut machine, log).unwrap();
            fingerprint(&machine)
        };
        for at in 0..whole.changes() {
            let (disk, mut begun) = (SimDisk::default(), vec![None]);
            disk.crash_at(at);
            // redb does not always write in the same order, so that a late crash may come after the end.
            let _ = run(&disk, log, &mut begun);
            let mut machine = try_open(&disk.after_crash(at)).unwrap_or_else(|fault| panic!("crash at {at}: {fault}"));
            let found = machine.last_applied();
            let late = &begun[begun.len().saturating_sub(2)..];
            assert!(late.contains(&found), "crash at {at}: opened at {found:?}, checkpoints {late:?}");
            assert_eq!(machine.durable_applied(), found);
            apply(&mut machine, &log[found.map_or(0, |id| id.index() as usize + 1)..]).unwrap();
            assert_eq!(fingerprint(&machine), expected, "crash at {at}");
        }
    });
}

#[test]
fn after_a_crash_while_a_snapshot_is_installed_there_is_the_old_state_or_the_new_one() {
    on_a_wasm_thread(|| {
        let log = eventful_log();
        let mut sender = open(&SimDisk::default());
        apply(&mut sender, &log).unwrap();
        let new = fingerprint(&sender);

        let behind = |disk: &SimDisk| {
            let mut machine = open(disk);
            apply(&mut machine, &log[..6]).unwrap();
            harness::checkpoint(&mut machine).unwrap();
            machine
        };
        let whole = SimDisk::default();
        let mut receiver = behind(&whole);
        let old = fingerprint(&receiver);
        let before = whole.changes();
        harness::transfer(&sender, &mut receiver, 1 << 20).unwrap();
        let steps = whole.changes() - before;
        drop(receiver);

        let mut ends = [0, 0];
        for at in 0..steps {
            let disk = SimDisk::default();
            let mut receiver = behind(&disk);
            disk.crash_at(at);
            let installed = harness::transfer(&sender, &mut receiver, 1 << 20).is_ok();
            drop(receiver);
            for seed in [at, !at] {
                let left = disk.after_crash(seed);
                let machine = try_open(&left).unwrap_or_else(|fault| panic!("crash at {at}: {fault}"));
                let found = fingerprint(&machine);
                assert!(found == new || found == old && !installed, "crash at {at}");
                ends[usize::from(found == new)] += 1;
                assert_eq!(machine.durable_applied(), machine.last_applied());
            }
        }
        assert!(ends.iter().all(|count| *count > 0), "both ends happen: {ends:?}");
    });
}

#[test]
fn a_checkpoint_waits_for_the_log_and_is_not_made_if_that_fails() {
    on_a_wasm_thread(|| {
        let (disk, log) = (SimDisk::default(), eventful_log());
        let mut machine = open(&disk);
        apply(&mut machine, &log[..5]).unwrap();
        let before = disk.changes();
        let failed = machine.checkpoint(&mut |_| Err(HostFault("the log's disk is gone".into())));
        assert!(failed.is_err());
        assert_eq!(disk.changes(), before, "nothing was written before the log was flushed");
        assert_eq!(machine.durable_applied(), None);

        let mut waited = Vec::new();
        let mut wait = |id| {
            waited.push(id);
            Ok(())
        };
        machine.checkpoint(&mut wait).unwrap();
        machine.checkpoint(&mut wait).unwrap();
        assert_eq!(waited, [log[4].log_id], "a second one has nothing to do");
        assert_eq!((machine.durable_applied(), machine.dirty_bytes()), (Some(log[4].log_id), 0));
    });
}

#[test]
fn a_node_whose_commit_failed_answers_nothing_more() {
    on_a_wasm_thread(|| {
        let (disk, log) = (SimDisk::default(), eventful_log());
        let mut machine = open(&disk);
        apply(&mut machine, &log[..5]).unwrap();
        disk.crash_at(2);
        assert!(harness::checkpoint(&mut machine).is_err());
        assert!(apply(&mut machine, &log[5..6]).is_err());
    });
}

#[test]
fn one_flipped_bit_of_stored_state_changes_the_deep_hash() {
    on_a_wasm_thread(|| {
        let disk = SimDisk::default();
        let mut machine = open(&disk);
        let log = eventful_log();
        apply(&mut machine, &log).unwrap();
        harness::checkpoint(&mut machine).unwrap();
        let sound = fingerprint(&machine);
        drop(machine);

        // The value of a key that nothing touches any more, wherever pages hold a copy of it.
        let file = Path::new("d/state/1.redb");
        let bytes = disk.bytes(file);
        let needle = b"round 3";
        let copies: Vec<_> = (0..bytes.len() - needle.len()).filter(|at| bytes[*at..].starts_with(needle)).collect();
        assert!(!copies.is_empty());
        copies.iter().for_each(|at| disk.flip(file, *at, 3));
        let machine = open(&disk);
        let found = fingerprint(&machine);
        assert_eq!(found.digest, sound.digest, "the chain cannot see corruption at rest");
        assert_ne!(found.state, sound.state, "the deep hash can");
    });
}
