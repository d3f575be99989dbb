//! Snapshots as streams: sent while writers go on, refused when damaged.

use std::path::Path;

use super::super::{SnapshotError, StateMachine};
use super::harness::{self, apply, command, eventful_log, fingerprint, open, tape_call, transfer};
use crate::storage::Disk;
use crate::storage::sim_disk::SimDisk;
use crate::testing::on_a_wasm_thread;

fn fresh() -> StateMachine {
    open(&SimDisk::default())
}

fn sender() -> StateMachine {
    let mut machine = fresh();
    apply(&mut machine, &eventful_log()).unwrap();
    machine
}

fn stream(machine: &StateMachine) -> Vec<u8> {
    let mut reader = machine.snapshot().unwrap().reader();
    std::iter::from_fn(|| reader.next_chunk().unwrap()).flat_map(|chunk| chunk.to_vec()).collect()
}

fn receive(machine: &StateMachine, stream: &[u8]) -> Result<super::super::Received, SnapshotError> {
    let mut writer = machine.receiver().begin()?;
    writer.write(stream)?;
    writer.finish()
}

#[test]
fn a_stream_may_be_cut_anywhere() {
    on_a_wasm_thread(|| {
        let sender = sender();
        for piece in [1, 7, 4096, usize::MAX] {
            let mut receiver = fresh();
            transfer(&sender, &mut receiver, piece).unwrap();
            assert_eq!(fingerprint(&receiver), fingerprint(&sender));
            assert_eq!(receiver.last_applied(), sender.last_applied());
            assert_eq!(receiver.membership(), sender.membership());
            assert_eq!(receiver.durable_applied(), sender.last_applied(), "it is durable once installed");
        }
    });
}

#[test]
fn a_large_state_goes_in_many_chunks_while_writers_go_on() {
    on_a_wasm_thread(|| {
        let (mut sender, mut receiver) = (sender(), fresh());
        // Remembered replies of 9 KiB are the quickest way to some MiB of state.
        let mut next = sender.last_applied().unwrap().index() + 1;
        let mut time = sender.progress().time_ms;
        let unlimited = crate::limits::Replicated::default();
        let limits = crate::proto::command::SetLimits { limits: Some(unlimited.into()) };
        let mut log = vec![command(next, time, crate::proto::command::command::Kind::SetLimits(limits))];
        for row in 0..400_u64 {
            next += 1;
            time += 1;
            log.push(command(next, time, tape_call("Big", "9", &harness::key_at(time, row as u8))));
        }
        apply(&mut sender, &log).unwrap();
        let (sent, snapshot) = (fingerprint(&sender), sender.snapshot().unwrap());
        let (mut reader, mut writer) = (snapshot.reader(), receiver.receiver().begin().unwrap());
        let mut chunks = 0;
        while let Some(chunk) = reader.next_chunk().unwrap() {
            chunks += 1;
            next += 1;
            apply(&mut sender, &[command(next, time, tape_call("Put", "w=while it was sent", ""))]).unwrap();
            writer.write(&chunk).unwrap();
        }
        assert!(chunks > 3, "{chunks}");
        receiver.install(writer.finish().unwrap()).unwrap();
        assert_eq!(fingerprint(&receiver), sent);
        assert_ne!(fingerprint(&sender), sent);
        assert_eq!(receiver.last_applied(), Some(snapshot.last_applied()));
    });
}

#[test]
fn any_flipped_bit_is_noticed() {
    on_a_wasm_thread(|| {
        let (sender, receiver) = (sender(), fresh());
        let sound = stream(&sender);
        assert!(receive(&receiver, &sound).is_ok());
        let step = (sound.len() / 60).max(1);
        for at in (0..sound.len()).step_by(step) {
            let mut flipped = sound.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(matches!(receive(&receiver, &flipped), Err(SnapshotError::Damaged(_))), "at {at}");
        }
    });
}

#[test]
fn a_stream_that_ends_early_or_goes_on_is_refused() {
    on_a_wasm_thread(|| {
        let disk = SimDisk::default();
        let (sender, receiver) = (sender(), open(&disk));
        let sound = stream(&sender);
        for keep in [0, 1, sound.len() / 2, sound.len() - 1] {
            assert!(matches!(receive(&receiver, &sound[..keep]), Err(SnapshotError::Damaged(_))), "{keep}");
        }
        let twice = [sound.clone(), sound.clone()].concat();
        assert!(matches!(receive(&receiver, &twice), Err(SnapshotError::Damaged(_))));
        assert!(disk.list(Path::new("d/tmp")).unwrap().is_empty(), "nothing is left of a refused one");
    });
}

#[test]
fn a_snapshot_that_is_behind_is_refused() {
    on_a_wasm_thread(|| {
        let (mut behind, mut ahead) = (fresh(), sender());
        apply(&mut behind, &eventful_log()[..4]).unwrap();
        let before = fingerprint(&ahead);
        assert!(transfer(&behind, &mut ahead, 4096).is_err());
        assert_eq!(fingerprint(&ahead), before);
    });
}

#[test]
fn readers_follow_an_installed_snapshot() {
    on_a_wasm_thread(|| {
        let (sender, mut receiver) = (sender(), fresh());
        let reader = receiver.reader();
        let old = reader.view();
        assert!(reader.catalog().modules.is_empty());
        transfer(&sender, &mut receiver, 4096).unwrap();
        let served: Vec<_> = reader.catalog().modules.iter().map(|module| module.module.name().to_string()).collect();
        assert_eq!(served, ["tape"], "the other one was dropped");
        assert_eq!(reader.published_index(), sender.last_applied().unwrap().index());
        assert_eq!(reader.recent_digests(5), [(reader.published_index(), sender.progress().digest)]);
        assert_eq!(old.state_hash().unwrap().keys, 0, "a view that was taken before still shows what was");
    });
}
