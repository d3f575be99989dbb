//! Whoever writes, however, and whenever we look: only bytes that were complete at some time are published.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::simulated::{Change, Simulated};
use super::{loaded, wasm};
use crate::files::LOOK;
use crate::files::watcher::{QUIET, Watcher};
use crate::ids::ModuleHash;

const TOML: &str = "/c/balsa.toml";
const TEXT: &str = "[[module]]\nname = \"a\"\npath = \"a.wasm\"\n[[module]]\nname = \"b\"\npath = \"b.wasm\"\n";
const PATHS: [&str; 2] = ["/c/a.wasm", "/c/b.wasm"];

/// How somebody puts the next module there.
#[derive(Debug, Clone)]
enum Way {
    /// Written elsewhere, then renamed.
    Rename,
    /// Gone for a while, then there.
    Late,
    /// Cut to nothing, then written in pieces.
    Overwrite(usize),
    /// Written over the old bytes in pieces, then cut.
    InPlace(usize),
}

/// One change: of which file, how, how long after the one before, and how long its pieces are apart.
#[derive(Debug, Clone)]
struct Act {
    file: usize,
    way: Way,
    after: Duration,
    pause: Duration,
}

fn way(in_place: bool) -> impl Strategy<Value = Way> {
    let last = if in_place { 4 } else { 3 };
    (0..last, 1..6usize).prop_map(|(way, pieces)| match way {
        0 => Way::Rename,
        1 => Way::Late,
        2 => Way::Overwrite(pieces),
        _ => Way::InPlace(pieces),
    })
}

fn acts(in_place: bool, pause: std::ops::Range<u64>) -> impl Strategy<Value = Vec<Act>> {
    let act = (0..PATHS.len(), way(in_place), 0..4_000u64, pause).prop_map(|(file, way, after, pause)| Act {
        file,
        way,
        after: Duration::from_millis(after),
        pause: Duration::from_millis(pause),
    });
    vec(act, 1..8)
}

fn ticks() -> impl Strategy<Value = Vec<Duration>> {
    vec((0..40u64).prop_map(Duration::from_millis), 1..20)
}

/// The pieces of a change, and when it is complete.
fn pieces(act: &Act, path: &Path, old: usize, bytes: &[u8], start: Duration) -> (Vec<(Duration, Change)>, Duration) {
    let path = || path.to_owned();
    let mut at = start;
    let mut changes = Vec::new();
    let mut write = |count: usize, changes: &mut Vec<_>| {
        let size = bytes.len().div_ceil(count);
        for (number, piece) in bytes.chunks(size).enumerate() {
            changes.push((at, Change::Write(path(), number * size, piece.to_vec())));
            at += act.pause;
        }
        at
    };
    match act.way {
        Way::Rename => changes.push((at, Change::Replace(path(), bytes.to_vec()))),
        Way::Late => {
            changes.push((at, Change::Remove(path())));
            at += act.pause;
            changes.push((at, Change::Replace(path(), bytes.to_vec())));
        }
        Way::Overwrite(count) => {
            changes.push((start, Change::Resize(path(), 0)));
            at = write(count, &mut changes);
        }
        Way::InPlace(count) => {
            at = write(count, &mut changes);
            if old > bytes.len() {
                changes.push((at, Change::Resize(path(), bytes.len())));
            }
        }
    }
    (changes, at)
}

/// Lets all of it happen under the watcher's eyes; returns what it published, and checks each of it as it goes.
fn run(acts: &[Act], ticks: Vec<Duration>) -> Result<(), TestCaseError> {
    let begin = 2 * QUIET;
    let mut future = Vec::new();
    let mut complete = [BTreeSet::from([ModuleHash::of(&wasm(0))]), BTreeSet::from([ModuleHash::of(&wasm(1))])];
    let mut last = [wasm(0), wasm(1)];
    let mut free = [begin; 2];
    let mut at = begin;
    for (number, act) in acts.iter().enumerate() {
        // One writer at a time for each file.
        at = (at + act.after).max(free[act.file]);
        let bytes = wasm(10 + number as u32 * 1000);
        let (changes, end) = pieces(act, Path::new(PATHS[act.file]), last[act.file].len(), &bytes, at);
        future.extend(changes);
        free[act.file] = end + Duration::from_millis(10);
        complete[act.file].insert(ModuleHash::of(&bytes));
        last[act.file] = bytes;
    }
    let end = free.into_iter().max().unwrap_or(begin);
    let disk = Simulated::new(ticks, future);
    disk.put(TOML, TEXT);
    disk.put(PATHS[0], wasm(0));
    disk.put(PATHS[1], wasm(1));
    let mut watcher = Watcher::new(disk.clone(), loaded(TOML, TEXT), 1);
    use crate::files::disk::Disk;
    while disk.now() < end + 4 * QUIET {
        disk.pass(LOOK);
        watcher.step();
        for (module, complete) in watcher.wanted().wish.modules.iter().zip(&complete) {
            let hash = ModuleHash(module.hash[..].try_into().unwrap());
            prop_assert!(complete.contains(&hash), "{} at {:?} was never complete", module.name, disk.now());
        }
    }
    let wished: Vec<_> = watcher.wanted().wish.modules.iter().map(|module| module.hash.to_vec()).collect();
    let there = PATHS.map(|path| ModuleHash::of(&disk.contents(Path::new(path)).unwrap()).0.to_vec());
    prop_assert_eq!(wished, there, "and in the end it is what is there");
    prop_assert!(watcher.wanted().problems.is_empty());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn only_what_was_complete_is_published_if_writers_pause_for_less_than_the_quiet_period(
        acts in acts(true, 0..QUIET.as_millis() as u64 - 50), ticks in ticks(),
    ) {
        run(&acts, ticks)?;
    }

    #[test]
    fn only_what_was_complete_is_published_however_long_writers_pause_unless_they_mix_old_and_new(
        acts in acts(false, 0..5_000), ticks in ticks(),
    ) {
        run(&acts, ticks)?;
    }

    /// What the kubelet turns at once is taken at once.
    #[test]
    fn files_that_change_together_are_published_together(
        turns in vec(0..4_000u64, 1..6), ticks in ticks(),
    ) {
        let mut at = 2 * QUIET;
        let mut future = Vec::new();
        for (number, after) in turns.iter().enumerate() {
            at += Duration::from_millis(*after);
            let [a, b] = [0, 1].map(|file| wasm(2 * (number as u32 + 1) + file));
            let limits = format!("{TEXT}[limits]\nquery_fuel = {}\n", 1_000_000 + number);
            let files = [(TOML, limits.into_bytes()), (PATHS[0], a), (PATHS[1], b)];
            let files = files.map(|(path, bytes)| (PathBuf::from(path), bytes));
            future.push((at, Change::Turn(files.to_vec())));
        }
        let disk = Simulated::new(ticks, future);
        disk.put(TOML, format!("{TEXT}[limits]\nquery_fuel = 999999\n"));
        disk.put(PATHS[0], wasm(0));
        disk.put(PATHS[1], wasm(1));
        let mut watcher = Watcher::new(disk.clone(), loaded(TOML, TEXT), 1);
        use crate::files::disk::Disk;
        while disk.now() < at + 4 * QUIET {
            disk.pass(LOOK);
            watcher.step();
            let wanted = watcher.wanted();
            if wanted.is_known() {
                let turn = wanted.limits().query_fuel - 999_999;
                let expected = [0, 1].map(|file| ModuleHash::of(&wasm(2 * turn as u32 + file)).0.to_vec());
                let wished: Vec<_> = wanted.wish.modules.iter().map(|module| module.hash.to_vec()).collect();
                prop_assert_eq!(wished, expected, "turn {}", turn);
            }
        }
        prop_assert_eq!(watcher.wanted().limits().query_fuel, 999_999 + turns.len() as u64);
    }
}
