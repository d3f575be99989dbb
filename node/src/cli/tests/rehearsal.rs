//! Backups, and what is tried on them.

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::entry::RaftEntry;

use super::*;
use crate::command::{APPLY_VERSION, Command};
use crate::ids::ModuleHash;
use crate::proto::command as pb;
use crate::proto::command::command::Kind;
use crate::raft::codec::log_id;
use crate::raft::types::Entry;
use crate::state_machine::{Options, StateMachine};
use crate::testing::{Tape, engine, on_a_wasm_thread};

/// A cluster with `tape` 0.1.0, in which `a` and `b` are stored.
fn cluster() -> FakeCluster {
    let cluster = FakeCluster::of(1);
    let snapshot = on_a_wasm_thread(|| snapshot(&Tape::default()));
    cluster.change(|cluster| cluster.snapshot = snapshot);
    cluster
}

/// The stream of the state after a module was activated and used.
fn snapshot(tape: &Tape<'_>) -> Vec<Bytes> {
    let directory = tempfile::tempdir().unwrap();
    let mut machine = StateMachine::open(engine(), Options::new(directory.path())).unwrap();
    let activate = pb::Activate { name: "tape".into(), wasm: tape.wasm().into(), ..Default::default() };
    let put = |text: &str| {
        let request = [&[0x0a, text.len() as u8], text.as_bytes()].concat().into();
        Kind::Call(pb::Call { method: "/tape.v1.Tape/Put".into(), request, key: String::new() })
    };
    let kinds = [Kind::Activate(activate), put("a=1"), put("b=2")];
    let entries: Vec<_> = (1..).zip(kinds).map(|(index, kind)| entry(index, kind)).collect();
    machine.apply(&entries, &mut |_, _| ()).unwrap();
    let mut reader = machine.snapshot().unwrap().reader();
    std::iter::from_fn(|| reader.next_chunk().unwrap()).collect()
}

fn entry(index: u64, kind: Kind) -> Entry {
    let random = vec![index as u8; 32].into();
    let command = pb::Command { apply_version: APPLY_VERSION, time_ms: 1_000 + index, random, kind: Some(kind) };
    Entry::new(log_id(1, index), EntryPayload::Normal(Command::new(&command)))
}

/// The file that `balsa backup` makes of it.
pub(super) fn backup() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("b").display().to_string();
    Shell::on(&cluster(), &["backup", &path]).run().exits(Exit::Ok);
    std::fs::read(path).unwrap()
}

fn try_on(backup: &[u8], tape: Tape<'_>, arguments: &[&str]) -> Ran {
    let arguments = [&["module", "try", "t.wasm", "--on", "b"], arguments].concat();
    Shell::new(&arguments).file("t.wasm", &tape.wasm()).file("b", backup).run()
}

fn next(migrate: &str) -> Tape<'_> {
    Tape { version: "0.2.0", migrate, ..Tape::default() }
}

/// Fuel, times and hashes differ from one machine or compiler to another.
fn without_figures(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let measured = line.starts_with("  fuel") || line.starts_with("  time") || line.starts_with("backup of");
        let kept = if measured { line.split_whitespace().next().unwrap_or_default() } else { line };
        let is_hash = |word: &str| word.len() >= 12 && word.chars().all(|c| c.is_ascii_hexdigit());
        let words = kept.split(' ').map(|word| if is_hash(word.trim_end_matches(',')) { "HASH" } else { word });
        lines.push(words.collect::<Vec<_>>().join(" "));
    }
    lines.join("\n")
}

#[test]
fn a_backup_is_verified_and_says_what_it_holds() {
    let cluster = cluster();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("b");
    std::fs::write(&path, "an older one").unwrap();
    let ran = Shell::on(&cluster, &["backup", &path.display().to_string()]).run().exits(Exit::Ok);
    assert!(ran.text().contains(": the state after index 3, "), "{}", ran.text());
    let file = std::fs::read(&path).unwrap();
    assert!(ran.text().ends_with(&format!("BLAKE3      {}\n", blake3::hash(&file).to_hex())), "{}", ran.text());
    assert!(file.starts_with(b"balsa backup 1\n"));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "the draft has become the file");
}

#[test]
fn a_backup_that_comes_damaged_or_cut_leaves_the_older_one() {
    let whole: Vec<u8> = on_a_wasm_thread(|| snapshot(&Tape::default())).concat();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for stream in [flipped, whole[..whole.len() - 1].to_vec(), Vec::new()] {
        let cluster = FakeCluster::of(1);
        cluster.change(|cluster| cluster.snapshot = vec![stream.into()]);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("b");
        std::fs::write(&path, "older").unwrap();
        let ran = Shell::on(&cluster, &["backup", &path.display().to_string()]).run().exits(Exit::Usage);
        assert!(ran.err.contains("the snapshot is damaged: "), "{}", ran.err);
        assert_eq!(std::fs::read(&path).unwrap(), b"older");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left of the new one");
    }
}

#[test]
fn a_migration_is_rehearsed_on_the_state_of_a_backup() {
    let backup = backup();
    let ran = try_on(&backup, next("ok"), &[]).exits(Exit::Ok);
    insta::assert_snapshot!(without_figures(ran.text()), @"
    backup
    tape 0.2.0 HASH in place of 0.1.0 HASH
    migrate: ok
      writes  1 of 100000 (0.0 %)
      bytes   6 of 67108864 (0.0 %)
    fuel
    time
    rows: 1 added, 0 changed, 0 deleted
      + m = 0.1.0
    OK
    ");
    let ran = try_on(&backup, next("ok"), &["-o", "json"]).exits(Exit::Ok);
    let json = ran.json();
    assert_eq!((&json["from_version"], &json["transition"]["rows"]["added"]), (&"0.1.0".into(), &1.into()));
    assert!(json["made_ms"].as_u64() > Some(0) && json["from_hash"].as_str().unwrap().len() == 64, "{json}");
    assert!(json["transition"]["ms_per_million_fuel"].is_null(), "so little fuel says nothing about the rate");
    let spun = try_on(&backup, next("spin"), &["-o", "json"]).exits(Exit::No).json();
    assert!(spun["transition"]["ms_per_million_fuel"].as_f64().unwrap() > 0.0, "{spun}");
}

#[test]
fn a_migration_that_would_fail_says_why_and_changes_nothing() {
    let backup = backup();
    for (migrate, why) in [
        ("refuse", "migrate fails, so it would be refused: FAILED_PRECONDITION: no\n"),
        ("trap", "migrate fails, so it would be refused: the module stopped with a trap"),
        ("flood", "migrate fails, so it would be refused: the migration wrote more than its limits"),
    ] {
        let ran = try_on(&backup, next(migrate), &[]).exits(Exit::No);
        assert!(ran.text().contains(why), "{migrate}: {}", ran.text());
        assert!(ran.text().ends_with("rows: 0 added, 0 changed, 0 deleted\nNOT OK\n"), "{}", ran.text());
    }
}

#[test]
fn what_clients_would_notice_is_an_objection_unless_it_is_allowed() {
    let backup = backup();
    let other = Tape { service: "Disc", ..next("ok") };
    let ran = try_on(&backup, other, &[]).exits(Exit::No);
    assert!(ran.text().contains("it would be refused: tape 0.2.0 would break clients of 0.1.0:\n- "), "{}", ran.text());
    assert!(ran.text().contains("tape.v1.Tape"), "{}", ran.text());
    try_on(&backup, other, &["--allow-breaking"]).exits(Exit::Ok);
}

#[test]
fn nothing_runs_for_the_code_that_is_there_or_has_nothing_to_do() {
    let backup = backup();
    for tape in [Tape::default(), next("")] {
        let ran = try_on(&backup, tape, &[]).exits(Exit::Ok);
        assert!(ran.text().contains("no code would run on the state\nOK\n"), "{}", ran.text());
    }
}

#[test]
fn a_module_that_no_node_takes_is_refused_before_the_backup_is_read() {
    let ran = Shell::new(&["module", "try", "t.wasm", "--on", "b"]).file("t.wasm", b"\0asm\x01\0\0\0").run();
    let ran = ran.exits(Exit::No);
    assert!(ran.err.starts_with("error: t.wasm is refused: "), "{}", ran.err);
}

#[test]
fn a_file_that_is_no_backup_is_told_so() {
    let ran = try_on(b"PK\x03\x04", next(""), &[]).exits(Exit::Usage);
    assert!(ran.err.contains("is not a backup that this balsa can read"), "{}", ran.err);
    let mut damaged = backup();
    damaged[20] ^= 1;
    let ran = try_on(&damaged, next(""), &[]).exits(Exit::Usage);
    assert!(ran.err.ends_with(" is damaged: its header\n"), "{}", ran.err);
    let mut cut = backup();
    cut.truncate(cut.len() - 10);
    let ran = try_on(&cut, next(""), &[]).exits(Exit::Usage);
    assert!(ran.err.ends_with("the snapshot is damaged: it ends too early\n"), "{}", ran.err);
}

#[test]
fn a_check_compares_with_an_older_file_or_with_the_cluster() {
    let (old, other) = (Tape::default().wasm(), Tape { service: "Disc", ..next("") }.wasm());
    let against = |file: &[u8], arguments: &[&str]| {
        let arguments = [&["module", "check", "new.wasm"], arguments].concat();
        Shell::on(&cluster(), &arguments).file("new.wasm", file).file("old.wasm", &old).run()
    };
    for arguments in [&["--against", "old.wasm"][..], &["--against-cluster"]] {
        let ran = against(&next("").wasm(), arguments).exits(Exit::Ok);
        assert!(ran.text().ends_with("clients of the other version would notice nothing\nOK\n"), "{}", ran.text());
        let ran = against(&other, arguments).exits(Exit::No);
        assert!(ran.text().contains("clients of the other version would notice:\n- "), "{}", ran.text());
        assert!(ran.text().ends_with("\nNOT OK\n"), "{}", ran.text());
    }
    let ran = against(crate::wasm::embedded::KVSTORE, &["--against-cluster"]).exits(Exit::No);
    assert!(ran.err.contains("the cluster has no module called kvstore-wasm"), "{}", ran.err);
}

#[test]
fn a_check_compares_nothing_for_clients_that_have_had_the_module_before() {
    let other = Tape { service: "Disc", ..next("") }.wasm();
    let row = |outcome| pb::Activation {
        name: "tape".into(),
        hash: ModuleHash::of(&other).0.to_vec().into(),
        outcome: Some(outcome),
        ..pb::Activation::default()
    };
    let check = |outcome| {
        let cluster = cluster();
        cluster.change(|cluster| cluster.history = vec![row(outcome)]);
        Shell::on(&cluster, &["module", "check", "old.wasm", "--against-cluster"]).file("old.wasm", &other).run()
    };
    let ran = check(pb::activation::Outcome::Activated(pb::Activated::default())).exits(Exit::Ok);
    assert!(
        ran.text().ends_with("very bytes before, so nobody compares what they would notice\nOK\n"),
        "{}",
        ran.text()
    );
    // What was refused, nobody has had.
    check(pb::activation::Outcome::Refused(pb::Refused::default())).exits(Exit::No);
}

#[test]
fn a_compressed_module_is_as_good() {
    // `zstd` of eight bytes: a frame with one raw block.
    let wasm = b"\0asm\x01\0\0\0";
    let frame = [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, 8, 0x41, 0, 0][..], wasm].concat();
    let ran = Shell::new(&["module", "check", "m.wasm.zst"]).file("m.wasm.zst", &frame).run().exits(Exit::No);
    assert!(ran.text().contains("does not export"), "it was expanded and looked at: {}", ran.text());
    let ran = Shell::new(&["module", "check", "m.zst"]).file("m.zst", &frame[..12]).run().exits(Exit::No);
    assert!(ran.err.contains("is not a complete zstd file"), "{}", ran.err);
}
