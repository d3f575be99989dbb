//! What readers see, from memory and from segments.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use openraft::storage::RaftLogReader;

use super::rig::{Rig, small};
use super::simulated::Simulated;
use crate::log_store::segment::segment_name;
use crate::log_store::{Error, LogReader};
use crate::raft::codec::log_id;
use crate::raft::types::Entry;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    futures::FutureExt::now_or_never(future).expect("reading never waits")
}

fn rig() -> Rig {
    Rig::open(&Simulated::default(), small()).unwrap()
}

fn some(reader: &mut LogReader, start: u64, end: u64) -> Vec<Entry> {
    block_on(reader.limited_get_log_entries(start, end)).unwrap()
}

#[test]
fn a_log_reads_like_a_map_whatever_is_cached() {
    for seed in 0..30 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut rig = rig();
        let mut reader = rig.store.handle().reader();
        for _ in 0..40 {
            rig.random_group(&mut rng);
            let model = rig.model();
            let range = model.purged.map_or(0, |purged| purged.index + 1)..model.last.map_or(0, |last| last.index + 1);
            let start = rng.random_range(range.start.saturating_sub(3)..range.end + 3);
            let end = start + rng.random_range(0..30);
            let expected: Vec<_> = model.entries.range(start..end).map(|(_, entry)| entry.clone()).collect();
            assert_eq!(reader.read(start..end).unwrap(), expected, "seed {seed}");
            let some = some(&mut reader, start, end);
            if model.entries.contains_key(&start) && start < end {
                assert!(!some.is_empty() && some[..] == expected[..some.len()], "seed {seed}");
            } else {
                assert!(some.is_empty());
            }
        }
    }
}

#[test]
fn a_message_is_bounded_by_bytes_and_count_but_has_an_entry() {
    let mut rig = rig();
    rig.append(1, 30, 10);
    rig.append(1, 4, 200);
    rig.append(1, 1, 3000);
    let mut reader = rig.store.handle().reader();
    for written in [false, true] {
        assert_eq!(some(&mut reader, 0, 30).len(), 7, "by count");
        assert!((1..=3).contains(&some(&mut reader, 30, 34).len()), "by bytes");
        assert_eq!(some(&mut reader, 34, 35).len(), 1, "a large one alone");
        if !written {
            rig.settle();
        }
    }
}

#[test]
fn appended_entries_are_readable_at_once_by_every_clone() {
    let mut rig = rig();
    let readers = [rig.store.handle().reader(), rig.store.handle().reader()];
    rig.append(1, 3, 10);
    for reader in &readers {
        assert_eq!(reader.clone().read(0..3).unwrap().len(), 3, "before anything is written");
    }
}

#[test]
fn a_committed_entry_that_is_missing_is_an_error_and_no_short_read() {
    let mut rig = rig();
    rig.append(1, 3, 10);
    rig.settle();
    rig.store.shared.view.lock().state.committed = Some(log_id(1, 5));
    let reader = rig.store.handle().reader();
    assert!(matches!(reader.read(0..6), Err(Error::Missing { index: 3, first: 0, end: 3 })));
    let mut stream = reader.entries(0..6);
    assert_eq!(stream.by_ref().filter(Result::is_ok).count(), 3);
}

#[test]
fn a_stream_of_committed_entries_fails_on_the_first_that_is_missing() {
    let mut rig = rig();
    rig.append(1, 10, 10);
    rig.settle();
    rig.purge(log_id(1, 4));
    rig.step();
    let reader = rig.store.handle().reader();
    let mut purged = reader.entries(3..8);
    assert!(purged.next().is_some_and(|entry| entry.is_err()));
    assert!(purged.next().is_none());
    rig.store.shared.view.lock().state.committed = Some(log_id(1, 12));
    let items: Vec<_> = reader.entries(5..13).collect();
    assert_eq!((items.len(), items.iter().filter(|item| item.is_ok()).count()), (6, 5));
}

#[test]
fn damage_under_a_running_reader_is_an_error() {
    let disk = Simulated::default();
    let mut rig = Rig::open(&disk, small()).unwrap();
    rig.append(1, 40, 100);
    rig.settle();
    disk.tamper(&segment_name(1), |content| content[700..720].fill(0));
    let error = rig.store.handle().reader().read(0..40).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("0000000001.log"), "{error}");
}

#[test]
fn a_segment_that_someone_reads_is_not_written_over() {
    let mut rig = rig();
    rig.append(1, 20, 100);
    rig.settle();
    let plan = rig.store.shared.view.lock().plan(0..5, usize::MAX).unwrap();
    rig.purge(log_id(1, 19));
    rig.settle();
    for _ in 0..10 {
        rig.append(2, 10, 100);
        rig.settle();
    }
    assert_eq!(rig.store.handle().reader().read_stretches(&plan.stretches, u64::MAX).unwrap().len(), 5);
}

#[test]
fn a_pin_holds_off_a_purge_until_it_goes() {
    let disk = Simulated::default();
    let mut rig = Rig::open(&disk, small()).unwrap();
    rig.append(1, 60, 100);
    rig.settle();
    let handle = rig.store.handle();
    let mut pin = handle.pin(20);
    rig.purge(log_id(1, 50));
    rig.settle();
    assert_eq!(handle.range(), 20..60);
    assert_eq!(Rig::open(&disk.copy(), small()).unwrap().store.handle().range(), 20..60);
    pin.advance(30);
    rig.settle();
    assert_eq!(handle.range(), 30..60);
    let segments = handle.size().segments;
    drop(pin);
    rig.settle();
    assert_eq!(handle.range(), 51..60);
    assert!(handle.size().segments < segments);
}

#[test]
fn a_snapshot_beyond_the_log_is_not_held_off() {
    let mut rig = rig();
    rig.append(1, 10, 100);
    rig.settle();
    let handle = rig.store.handle();
    let _pin = handle.pin(5);
    rig.purge(log_id(2, 100));
    rig.settle();
    assert_eq!(handle.range(), 101..101);
    assert_eq!(handle.flushed(), Some(log_id(2, 100)));
    rig.append(2, 3, 10);
    assert_eq!(handle.range(), 101..104);
}

#[test]
fn sizes_tell_how_much_log_there_is() {
    let mut rig = rig();
    rig.append(1, 100, 100); // 136 bytes each
    rig.settle();
    let handle = rig.store.handle();
    let size = handle.size();
    assert!((13_600..16_000).contains(&size.bytes) && size.segments > 6, "{size:?}");
    let last_half = handle.bytes_from(50);
    assert!((6_800..9_000).contains(&last_half), "{last_half}");
    let index = handle.index_keeping(6_800).unwrap();
    assert!((36..=50).contains(&index), "{index}");
    assert_eq!(handle.index_keeping(100_000), None);
}

#[test]
fn a_gap_is_not_appended() {
    let mut rig = rig();
    rig.append(1, 3, 10);
    let refused = rig.store.stage([super::blank(1, 4)]);
    assert!(matches!(refused, Err(Error::NotContiguous { expected: 3, found: 4 })));
}
