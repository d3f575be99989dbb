//! Modules on their way, and what is kept of those that came and went.

use bytes::Bytes;

use super::super::StateMachine;
use super::harness::{self, apply, command, fingerprint, open, transfer, uploads};
use crate::command::{Outcome, Refusal};
use crate::ids::ModuleHash;
use crate::limits::{
    HISTORY_ROWS_ALL_MAX, HISTORY_ROWS_MAX, MODULE_BYTES_MAX, MODULE_PART_BYTES_MAX, UPLOAD_EXPIRES_MS, UPLOADS_MAX,
};
use crate::proto::command as pb;
use crate::proto::command::command::Kind;
use crate::storage::sim_disk::SimDisk;
use crate::testing::on_a_wasm_thread;

const TIME: u64 = 1_000_000;
/// What is there after any entry.
const PROGRESS_ROW: u64 = 1;

/// One replica, to which entries come one by one.
struct Log {
    machine: StateMachine,
    next: u64,
    time_ms: u64,
}

impl Log {
    fn new() -> Self {
        Self { machine: open(&SimDisk::default()), next: 1, time_ms: TIME }
    }

    fn enter(&mut self, kind: Kind) -> Outcome {
        let entry = command(self.next, self.time_ms, kind);
        self.next += 1;
        harness::outcome(&apply(&mut self.machine, &[entry]).unwrap()[0])
    }

    /// How many bytes of the module with this hash are there, if all of them are.
    fn whole(&self, hash: ModuleHash) -> Option<usize> {
        self.machine.reader().view().wasm(hash).unwrap().map(|wasm| wasm.len())
    }

    fn rows(&self) -> u64 {
        fingerprint(&self.machine).rows
    }
}

fn part(hash: ModuleHash, size: u64, offset: u64, data: Vec<u8>) -> Kind {
    Kind::Upload(pb::Upload { hash: hash.0.to_vec().into(), size, offset, data: data.into() })
}

/// An upload of one byte that is no module, but what its hash says.
fn tiny(number: u8) -> Kind {
    part(ModuleHash::of(&[number]), 1, 0, vec![number])
}

fn done() -> Outcome {
    Outcome::Ok(Bytes::new())
}

fn refused(refusal: Refusal) -> Outcome {
    Outcome::Refused(refusal)
}

/// Three parts, the last one short.
fn bytes() -> Vec<u8> {
    (0..2 * MODULE_PART_BYTES_MAX + 5).map(|at| (at % 251) as u8).collect()
}

#[test]
fn parts_come_in_order_and_again_change_nothing() {
    on_a_wasm_thread(|| {
        let (mut log, bytes) = (Log::new(), bytes());
        let (hash, parts): (_, Vec<_>) = (ModuleHash::of(&bytes), uploads(&bytes).collect());
        assert_eq!(log.enter(parts[1].clone()), refused(Refusal::UploadOutOfPlace));
        assert_eq!(log.enter(parts[0].clone()), done());
        assert_eq!(log.enter(parts[2].clone()), refused(Refusal::UploadOutOfPlace));
        let rows = log.rows();
        assert_eq!(log.enter(parts[0].clone()), done());
        assert_eq!((log.rows(), log.whole(hash)), (rows, None));
        assert_eq!(log.enter(parts[1].clone()), done());
        assert_eq!(log.enter(parts[2].clone()), done());
        assert_eq!(log.whole(hash), Some(bytes.len()));
        for again in parts {
            assert_eq!(log.enter(again), done());
        }
        assert_eq!(log.whole(hash), Some(bytes.len()));
    });
}

#[test]
fn what_is_no_part_of_a_module_is_refused() {
    on_a_wasm_thread(|| {
        let (mut log, hash, part_bytes) = (Log::new(), ModuleHash::of(b"x"), MODULE_PART_BYTES_MAX as u64);
        let too_large = MODULE_BYTES_MAX as u64 + 1;
        for (size, offset, data) in [
            (0, 0, 0),
            (5, 0, 4),
            (5, 0, 6),
            (5, 5, 0),
            (2 * part_bytes, 1, part_bytes),
            (2 * part_bytes, u64::MAX, 0),
            (too_large, 0, part_bytes),
            (u64::MAX, 0, part_bytes),
        ] {
            let outcome = log.enter(part(hash, size, offset, vec![0; data as usize]));
            assert_eq!(outcome, refused(Refusal::UploadOutOfPlace), "{data} bytes at {offset} of {size}");
        }
        let short = pb::Upload { hash: vec![7; 31].into(), size: 1, offset: 0, data: vec![0].into() };
        assert_eq!(log.enter(Kind::Upload(short)), refused(Refusal::UploadOutOfPlace));
        assert_eq!(log.rows(), PROGRESS_ROW);
        // Another size than the first part said.
        assert_eq!(log.enter(part(hash, 2 * part_bytes, 0, vec![0; part_bytes as usize])), done());
        let other = part(hash, part_bytes + 1, part_bytes, vec![0]);
        assert_eq!(log.enter(other), refused(Refusal::UploadOutOfPlace));
    });
}

#[test]
fn wrong_bytes_go_and_leave_room_for_the_right_ones() {
    on_a_wasm_thread(|| {
        let (mut log, bytes) = (Log::new(), bytes());
        let hash = ModuleHash::of(&bytes);
        let mut wrong = bytes.clone();
        wrong[0] ^= 1;
        let parts = wrong.chunks(MODULE_PART_BYTES_MAX).enumerate();
        let parts =
            parts.map(|(at, data)| part(hash, bytes.len() as u64, (at * MODULE_PART_BYTES_MAX) as u64, data.to_vec()));
        let outcomes: Vec<_> = parts.map(|part| log.enter(part)).collect();
        assert_eq!(outcomes, [done(), done(), refused(Refusal::UploadOutOfPlace)]);
        assert_eq!((log.rows(), log.whole(hash)), (PROGRESS_ROW, None));
        assert!(uploads(&bytes).all(|part| log.enter(part) == done()));
        assert_eq!(log.whole(hash), Some(bytes.len()));
    });
}

#[test]
fn uploads_at_once_have_a_limit_of_bytes() {
    on_a_wasm_thread(|| {
        let mut log = Log::new();
        let first_part = |number: u8| {
            let data = vec![number; MODULE_PART_BYTES_MAX];
            part(ModuleHash::of(&[number]), MODULE_BYTES_MAX as u64, 0, data)
        };
        assert_eq!([1, 2, 3].map(|n| log.enter(first_part(n))), [done(), done(), refused(Refusal::UploadsFull)]);
        assert_eq!(log.enter(tiny(4)), refused(Refusal::UploadsFull));
        // One that is under way goes on.
        assert_eq!(log.enter(first_part(1)), done());
    });
}

#[test]
fn uploads_at_once_have_a_limit_of_number_and_make_room_when_they_expire() {
    on_a_wasm_thread(|| {
        let mut log = Log::new();
        let uploads_max = u8::try_from(UPLOADS_MAX).unwrap();
        assert!((0..uploads_max).all(|number| log.enter(tiny(number)) == done()));
        let full = log.rows();
        assert_eq!(log.enter(tiny(uploads_max)), refused(Refusal::UploadsFull));
        // One that is known needs no room.
        assert_eq!(log.enter(tiny(0)), done());
        log.time_ms = TIME + UPLOAD_EXPIRES_MS;
        assert_eq!(log.enter(tiny(uploads_max)), refused(Refusal::UploadsFull));
        log.time_ms += 1;
        assert_eq!(log.enter(tiny(uploads_max)), done());
        assert_eq!(log.rows(), full - 2 * (UPLOADS_MAX as u64 - 1));
    });
}

#[test]
fn an_upload_goes_on_behind_a_snapshot() {
    on_a_wasm_thread(|| {
        let (mut log, bytes) = (Log::new(), bytes());
        let mut parts = uploads(&bytes);
        parts.by_ref().take(2).for_each(|part| assert_eq!(log.enter(part), done()));
        let mut other = open(&SimDisk::default());
        transfer(&log.machine, &mut other, 1 << 16).unwrap();
        log.machine = other;
        assert_eq!(log.enter(parts.next().unwrap()), done());
        assert_eq!(log.whole(ModuleHash::of(&bytes)), Some(bytes.len()));
    });
}

fn refusal_of(name: String) -> Kind {
    Kind::Refuse(pb::Refuse { name, reason: "no".into(), ..pb::Refuse::default() })
}

#[test]
fn the_history_of_a_module_keeps_its_last_rows() {
    on_a_wasm_thread(|| {
        let mut log = Log::new();
        log.enter(refusal_of("other".into()));
        for _ in 0..HISTORY_ROWS_MAX + 3 {
            log.enter(refusal_of("tape".into()));
        }
        let view = log.machine.reader().view();
        let indexes: Vec<_> = view.history(Some("tape")).unwrap().iter().map(|row| row.index).collect();
        assert_eq!(indexes, (5..5 + HISTORY_ROWS_MAX as u64).collect::<Vec<_>>());
        assert_eq!(view.history(Some("other")).unwrap().len(), 1);
    });
}

#[test]
fn the_history_of_made_up_names_does_not_grow_for_ever() {
    on_a_wasm_thread(|| {
        const MORE: usize = 3;
        let mut log = Log::new();
        let names = (0..HISTORY_ROWS_ALL_MAX + MORE).map(|number| format!("{}-{number}", "n".repeat(number % 7)));
        let entries: Vec<_> = (1..).zip(names).map(|(index, name)| command(index, TIME, refusal_of(name))).collect();
        apply(&mut log.machine, &entries).unwrap();
        let mut indexes: Vec<_> =
            log.machine.reader().view().history(None).unwrap().iter().map(|row| row.index).collect();
        indexes.sort_unstable();
        let first = MORE as u64 + 1;
        assert_eq!(indexes, (first..first + HISTORY_ROWS_ALL_MAX as u64).collect::<Vec<_>>());
    });
}
