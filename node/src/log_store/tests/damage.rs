//! Damage is found and named; a torn write is cut.

use super::rig::{Model, Rig, small};
use super::simulated::Simulated;
use crate::log_store::segment::segment_name;
use crate::log_store::{Damage, Error};
use crate::raft::codec::log_id;

/// A log of several segments with everything in it, settled.
fn log() -> (Simulated, Rig) {
    let disk = Simulated::default();
    let mut rig = Rig::open(&disk, small()).unwrap();
    rig.vote(1);
    rig.append(1, 20, 100);
    rig.settle();
    rig.truncate(15);
    rig.settle();
    rig.append(2, 20, 100);
    rig.vote(2);
    rig.settle();
    rig.purge(log_id(1, 3));
    rig.append(2, 3, 60);
    rig.settle();
    (disk, rig)
}

/// Where the records of the last segment end, the seal included.
fn end(rig: &Rig) -> (u64, usize) {
    let tail = rig.writer.tail();
    (tail.segment.number, tail.end as usize)
}

/// The file and offset that opening names.
fn refused(disk: &Simulated) -> (String, u64) {
    match Rig::open(disk, small()).map(|rig| Model::of(&rig.store)) {
        Err(Error::Damaged { file, offset, .. }) => (file.file_name().unwrap().to_str().unwrap().to_owned(), offset),
        Err(error) => panic!("the damage was not recognised: {error}"),
        Ok(model) => panic!("the damage was accepted: {model:?}"),
    }
}

#[test]
fn a_flipped_bit_anywhere_is_refused_with_file_and_offset_or_does_no_harm() {
    let (disk, rig) = log();
    let (last, end) = end(&rig);
    assert!(last > 2, "several segments");
    let (mut refusals, mut harmless) = (0, 0);
    for number in 1..=last {
        let name = segment_name(number);
        let bytes = if number == last { end } else { disk.content(&name).len() };
        for at in 0..bytes {
            let disk = disk.copy();
            disk.tamper(&name, |content| content[at] ^= 1 << (at % 8));
            match Rig::open(&disk, small()) {
                Ok(opened) => {
                    assert_eq!(&Model::of(&opened.store), rig.model(), "{name}, byte {at}");
                    harmless += 1; // padding, what follows the last record of a segment, the last seal
                }
                Err(Error::Damaged { file, offset, .. }) => {
                    assert!(file.ends_with(&name), "{name}, byte {at}: {}", file.display());
                    assert!(offset <= at as u64 && at as u64 - offset < 160, "byte {at}, record at {offset}");
                    refusals += 1;
                }
                Err(error) => panic!("{name}, byte {at}: {error}"),
            }
        }
    }
    assert!(harmless < refusals / 10, "{harmless} harmless, {refusals} refused");
}

#[test]
fn a_flipped_byte_in_the_synced_last_record_is_refused() {
    let (disk, rig) = log();
    let (last, end) = end(&rig);
    let record = end - 24 - 96; // a seal, and an entry of 60 bytes before it
    disk.tamper(&segment_name(last), |content| content[record + 50] ^= 1);
    assert_eq!(refused(&disk), (segment_name(last), record as u64));
}

#[test]
fn a_zeroed_end_of_what_was_synced_is_refused_as_long_as_its_seal_is_there() {
    let (disk, rig) = log();
    let (last, end) = end(&rig);
    disk.tamper(&segment_name(last), |content| content[end - 24 - 200..end - 24].fill(0));
    refused(&disk);
}

#[test]
fn a_torn_tail_is_cut_and_does_not_come_back() {
    let (_, rig) = log();
    let before = rig.model().clone();
    let (disk, mut rig) = log();
    rig.append(3, 3, 100);
    rig.append(3, 3, 100);
    rig.step();
    let (last, end) = end(&rig);
    let group = end - 6 * 136;
    // The second of six records is torn; the third and later ones are whole, and stay so on this disk.
    disk.tamper(&segment_name(last), |content| content[group + 136 + 40] ^= 1);
    let mut rig = Rig::open(&disk, small()).unwrap();
    assert_eq!(rig.model().entries.len(), before.entries.len() + 1);
    assert_eq!(rig.writer.tail().end as usize, group + 136);
    // An entry of the same size ends exactly where the third one was.
    rig.append(4, 1, 100);
    rig.step();
    let reopened = Rig::open(&disk, small()).unwrap();
    assert_eq!(&Model::of(&reopened.store), rig.model());
}

#[test]
fn a_segment_that_was_cut_short_is_refused() {
    let (disk, rig) = log();
    for number in 1..=end(&rig).0 {
        let disk = disk.copy();
        disk.tamper(&segment_name(number), |content| content.truncate(1500));
        assert_eq!(refused(&disk), (segment_name(number), 1500));
    }
}

#[test]
fn a_missing_segment_is_refused() {
    let (disk, mut rig) = log();
    // More than half of the last one, so that the next one is prepared and tells of it.
    rig.append(2, 9, 100);
    rig.settle();
    for number in 1..=end(&rig).0 {
        use crate::log_store::files::Files;
        let disk = disk.copy();
        disk.remove(&segment_name(number)).unwrap();
        match Rig::open(&disk, small()).map(drop) {
            Err(Error::Damaged { damage: Damage::MissingSegment(missing), .. }) => assert_eq!(missing, number),
            other => panic!("segment {number}: {other:?}"),
        }
    }
}

#[test]
fn a_log_without_its_meta_file_is_refused() {
    let (disk, _) = log();
    disk.tamper("log.meta", |content| content[12] ^= 1);
    assert_eq!(refused(&disk).0, "log.meta");
}

#[test]
fn a_log_without_any_segment_is_refused() {
    use crate::log_store::files::Files;
    let (disk, rig) = log();
    (1..=end(&rig).0).for_each(|number| disk.remove(&segment_name(number)).unwrap());
    assert_eq!(refused(&disk).0, "log.meta");
}

#[test]
fn records_of_the_file_s_former_life_are_not_replayed() {
    let disk = Simulated::default();
    let mut rig = Rig::open(&disk, small()).unwrap();
    for round in 0..30 {
        rig.append(1, 6, 200);
        rig.settle();
        rig.purge(log_id(1, round * 6 + 3));
        rig.vote(round);
        rig.settle();
        let reopened = Rig::open(&disk.after_power_cut(round), small()).unwrap();
        assert_eq!(&Model::of(&reopened.store), rig.model());
    }
    let metrics = rig.store.handle();
    let recycled = metrics.metrics().segments_recycled.load(std::sync::atomic::Ordering::Relaxed);
    assert!(recycled > 10, "{recycled} segments were recycled");
}

#[test]
fn bytes_that_a_client_sends_do_not_pass_for_records() {
    use crate::log_store::record::{Key, Record, stamp};
    // A value full of seals that claim that everything was synced, right but for the salt that no client knows.
    let mut forged = Vec::new();
    Record::Seal.push(&mut forged);
    stamp(&mut forged, Key { salt: 0, segment: 1 }, 2000);
    let forged = forged.repeat(20);
    let disk = Simulated::default();
    let mut rig = Rig::open(&disk, small()).unwrap();
    rig.append(1, 2, 100);
    rig.settle();
    let payload = openraft::EntryPayload::Normal(crate::command::Command::encoded(forged));
    rig.store.stage([openraft::entry::RaftEntry::new(log_id(1, 2), payload)]).unwrap();
    rig.vote(1);
    rig.step();
    let at = end(&rig).1 - 48 - 400;
    disk.tamper(&segment_name(1), |content| content[at] ^= 1);
    let opened = Rig::open(&disk, small()).unwrap();
    assert_eq!(Model::of(&opened.store).entries.len(), 2, "the torn entry is cut");
}
