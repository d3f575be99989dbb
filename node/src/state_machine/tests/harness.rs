//! Making logs, and applying them.

use std::sync::Arc;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use prost::Message;

use super::super::{Options, SnapshotError, StateMachine};
use crate::command::{APPLY_VERSION, Command, Outcome, Reply};
use crate::ids::{Digest, ModuleHash, NodeId};
use crate::limits::{MODULE_PART_BYTES_MAX, UPLOAD_EXPIRES_MS};
use crate::proto::command as pb;
use crate::proto::command::command::Kind;
use crate::raft::codec::log_id;
use crate::raft::types::{Entry, Member, Membership};
use crate::storage::sim_disk::SimDisk;
use crate::testing;
use crate::wasm::HostFault;

/// Small, so that redb must write pages out before a checkpoint.
pub(super) const CACHE_BYTES: usize = 64 * 1024;
pub(super) const TERM: u64 = 7;

/// A state machine on a simulated disk, which syncs in no time.
pub(super) fn open(disk: &SimDisk) -> StateMachine {
    try_open(disk).unwrap()
}

pub(super) fn try_open(disk: &SimDisk) -> Result<StateMachine, HostFault> {
    StateMachine::open(testing::engine(), options(disk))
}

pub(super) fn options(disk: &SimDisk) -> Options {
    Options { disk: Arc::new(disk.clone()), cache_bytes: CACHE_BYTES, ..Options::new("d") }
}

pub(super) fn command(index: u64, time_ms: u64, kind: Kind) -> Entry {
    let random = [index as u8; 32].to_vec().into();
    let command = pb::Command { apply_version: APPLY_VERSION, time_ms, random, kind: Some(kind) };
    Entry::new(log_id(TERM, index), EntryPayload::Normal(Command::new(&command)))
}

pub(super) fn blank(index: u64) -> Entry {
    Entry::new(log_id(TERM, index), EntryPayload::Blank)
}

pub(super) fn membership(index: u64, names: &[&str]) -> Entry {
    let members = names.iter().enumerate().map(|(at, name)| {
        let member = Member {
            name: (*name).into(),
            peer_addr: format!("{name}:6001"),
            client_addr: format!("{name}:6000"),
            kept: false,
        };
        (NodeId(at as u64 + 1), member)
    });
    let members: std::collections::BTreeMap<_, _> = members.collect();
    let voters = members.keys().copied().collect();
    let membership = Membership::new(vec![voters], members).unwrap();
    Entry::new(log_id(TERM, index), EntryPayload::Membership(membership))
}

pub(super) fn call(method: &str, request: Bytes, key: &str) -> Kind {
    Kind::Call(pb::Call { method: method.into(), request, key: key.into() })
}

/// A request or response of `testing::tape`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Text {
    #[prost(string, tag = "1")]
    pub(super) text: String,
}

pub(super) fn tape_call(method: &str, text: &str, key: &str) -> Kind {
    call(&format!("/tape.v1.Tape/{method}"), Text { text: text.into() }.encode_to_vec().into(), key)
}

pub(super) fn activate(name: &str, wasm: Vec<u8>, expected_generation: u64) -> Kind {
    Kind::Activate(pb::Activate {
        name: name.into(),
        expected_generation,
        wasm: wasm.into(),
        proposed_by: "balsa-0".into(),
        ..pb::Activate::default()
    })
}

/// The parts of `wasm`, on their way.
pub(super) fn uploads(wasm: &[u8]) -> impl Iterator<Item = Kind> {
    let (hash, size) = (ModuleHash::of(wasm), wasm.len() as u64);
    wasm.chunks(MODULE_PART_BYTES_MAX).enumerate().map(move |(part, data)| {
        let offset = (part * MODULE_PART_BYTES_MAX) as u64;
        Kind::Upload(pb::Upload { hash: hash.0.to_vec().into(), size, offset, data: data.to_vec().into() })
    })
}

/// Activates what was uploaded.
pub(super) fn activate_uploaded(name: &str, wasm: &[u8], expected_generation: u64) -> Kind {
    Kind::Activate(pb::Activate {
        name: name.into(),
        expected_generation,
        hash: ModuleHash::of(wasm).0.to_vec().into(),
        proposed_by: "balsa-0".into(),
        source: pb::Source::Files.into(),
        ..pb::Activate::default()
    })
}

/// A UUIDv7 made at `millis`.
pub(super) fn key_at(millis: u64, tail: u8) -> String {
    let random = [0, 0, 0, 0, 0, 0, 0, 0, 0, tail];
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().to_string()
}

pub(super) fn apply(machine: &mut StateMachine, entries: &[Entry]) -> Result<Vec<Reply>, HostFault> {
    let mut replies = Vec::new();
    machine.apply(entries, &mut |position, reply| {
        assert_eq!(position, replies.len(), "replies come in order");
        replies.push(reply);
    })?;
    Ok(replies)
}

pub(super) fn outcome(reply: &Reply) -> Outcome {
    pb::Outcome::decode(reply.outcome.clone()).unwrap().try_into().unwrap()
}

/// A checkpoint of a machine whose log is durable.
pub(super) fn checkpoint(machine: &mut StateMachine) -> Result<(), HostFault> {
    machine.checkpoint(&mut |_| Ok(()))
}

/// Everything two replicas must agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub(super) digest: Digest,
    pub(super) state: [u8; 32],
    pub(super) rows: u64,
}

pub(super) fn fingerprint(machine: &StateMachine) -> Fingerprint {
    let view = machine.reader().view();
    let hash = view.state_hash().unwrap();
    Fingerprint { digest: view.progress().digest, state: hash.hash, rows: hash.keys }
}

/// Sends the state of one to the other, through pieces of `piece` bytes.
pub(super) fn transfer(from: &StateMachine, to: &mut StateMachine, piece: usize) -> Result<(), SnapshotError> {
    let mut writer = to.receiver().begin()?;
    let mut reader = from.snapshot().unwrap().reader();
    while let Some(chunk) = reader.next_chunk().unwrap() {
        assert!(!chunk.is_empty() && chunk.len() <= super::super::CHUNK_BYTES_MAX);
        chunk.chunks(piece).try_for_each(|piece| writer.write(piece))?;
    }
    let received = writer.finish()?;
    to.install(received).map_err(|fault| SnapshotError::Fault(fault.into()))
}

/// Of the four rounds of [`eventful_log`]; each takes 7 s of log time and begins with a key of its own time.
fn calls_of(round: u64) -> [Kind; 14] {
    let minted = 1_001_500 + round * 7_000;
    let first = ['a', 'b', 'c', 'd'][round as usize];
    [
        tape_call("Put", &format!("{first}=round {round}"), &key_at(minted, 1)),
        tape_call("Put", "z=again", &key_at(minted, 1)),
        tape_call("Put", &format!("z={round}"), "an opaque key"),
        tape_call("Put", &format!("z={round}"), "an opaque key"),
        tape_call("Fail", "f=failed", &key_at(minted, 2)),
        tape_call("Trap", "t=trapped", &key_at(minted, 3)),
        tape_call("Spin", "s=spun", ""),
        tape_call("Big", "6", &key_at(minted + 2_000, 4)),
        tape_call("Put", "z=too late", &key_at(minted - 4_000, 5)),
        tape_call("Now", "", ""),
        tape_call("Delete", "z", ""),
        tape_call("Get", "a", ""),
        tape_call("Nothing", "a", ""),
        Kind::Tick(pb::Tick {}),
    ]
}

/// A log in which everything happens at least once: activations good and bad, answers, errors, traps, retries, deletes,
/// limits, members, sessions of both kinds remembered and forgotten.
pub(super) fn eventful_log() -> Vec<Entry> {
    let mut log = vec![membership(0, &["balsa-0"]), blank(1)];
    let mut time = 1_000_000;
    // The index of the entry, which is a module's generation if it activates one.
    let mut add = |kind| {
        let index = log.len() as u64;
        time += 500;
        log.push(command(index, time, kind));
        index
    };
    let small_window = pb::Limits { idempotency_window_ms: 3_000, ..crate::limits::Replicated::default().into() };
    let little_fuel = pb::Limits { command_fuel: 400_000, migrate_fuel: 4_000_000, ..small_window };
    let one = add(activate("tape", testing::tape("Tape", "one"), 0));
    add(Kind::SetLimits(pb::SetLimits { limits: Some(little_fuel) }));
    for round in 0..4_u64 {
        for kind in calls_of(round) {
            add(kind);
        }
    }
    let two = add(activate("tape", testing::tape("Tape", "two"), one));
    add(activate("tape", testing::tape("Tape", "three"), one));
    add(activate("other", testing::tape("Tape", "claims a service"), 0));
    let other = add(activate("other", testing::tape("Other", ""), 0));
    add(activate("bad", b"not wasm".to_vec(), 0));
    add(tape_call("Put", "e=end", ""));
    // It is replaced by an upload in three parts, in the middle of which a client calls.
    let large = testing::Tape { version: "0.2.0", migrate: "ok", padding: 1_200_000, ..testing::Tape::default() };
    let large = large.wasm();
    let mut parts = uploads(&large);
    add(parts.next().expect("it has parts"));
    add(tape_call("Put", "y=between the parts", ""));
    for part in parts {
        add(part);
    }
    let tape = add(activate_uploaded("tape", &large, two));
    for migrate in ["refuse", "trap", "spin", "flood"] {
        let bad = testing::Tape { version: "0.3.0", migrate, ..testing::Tape::default() }.wasm();
        for part in uploads(&bad) {
            add(part);
        }
        add(activate_uploaded("tape", &bad, tape));
        add(tape_call("Get", "m", ""));
    }
    for part in uploads(&testing::tape("Tape", "nobody activates it")) {
        add(part);
    }
    let refuse = pb::Refuse {
        name: "tape".into(),
        expected_generation: tape,
        decides: vec![7; 32].into(),
        ..pb::Refuse::default()
    };
    add(Kind::Refuse(refuse));
    add(Kind::Retry(pb::Retry { name: "tape".into() }));
    let stop = pb::Deactivate {
        name: "other".into(),
        expected_generation: other,
        source: pb::Source::Files.into(),
        ..pb::Deactivate::default()
    };
    add(Kind::Deactivate(stop));
    add(call("/tape.v1.Other/Put", Bytes::new(), ""));
    add(Kind::Drop(pb::Drop { name: "other".into(), proposed_by: "me".into() }));
    let next = log.len() as u64;
    // So late that the upload which nobody activated has expired.
    log.push(command(next, time + UPLOAD_EXPIRES_MS, Kind::Tick(pb::Tick {})));
    let next = log.len() as u64;
    log.push(membership(next, &["balsa-0", "balsa-1", "balsa-2"]));
    log
}
