//! The real file system, a real thread and real time: each test waits for what it expects, for at most a minute.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::watch;

use super::{loaded, wasm};
use crate::files::{self, Wanted};
use crate::ids::ModuleHash;

const ONE: &str = "[[module]]\nname = \"a\"\npath = \"a.wasm\"\n";
const DEADLINE: Duration = Duration::from_secs(60);

/// A watched directory.
struct World {
    directory: TempDir,
    wanted: watch::Receiver<Arc<Wanted>>,
    levels: Arc<Mutex<Vec<tracing::Level>>>,
}

impl World {
    fn watch(directory: TempDir, toml: &str) -> Self {
        let text = fs::read_to_string(directory.path().join(toml)).unwrap();
        let loaded = loaded(directory.path().join(toml).to_str().unwrap(), &text);
        let levels = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&levels);
        let wanted = files::watch(loaded, move |level| heard.lock().push(level));
        Self { directory, wanted, levels }
    }

    fn new(files: &[(&str, &[u8])]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(directory.path().join(name), bytes).unwrap();
        }
        Self::watch(directory, "balsa.toml")
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    async fn wait(&mut self, what: &str, is_there: impl Fn(&Wanted) -> bool) {
        let met = tokio::time::timeout(DEADLINE, self.wanted.wait_for(|wanted| is_there(wanted))).await;
        let met = met.map(|met| drop(met.expect("the watcher lives as long as somebody listens")));
        met.unwrap_or_else(|_| panic!("waited for {what}, but there is {:?}", self.wanted.borrow()));
    }

    async fn wait_for_module(&mut self, number: u32) {
        self.wait(&format!("module {number}"), |wanted| asks_for(wanted, number)).await;
        assert_eq!(self.wanted.borrow().bytes(ModuleHash::of(&wasm(number))).unwrap(), wasm(number));
    }
}

fn asks_for(wanted: &Wanted, number: u32) -> bool {
    wanted.wish.modules.iter().any(|module| module.hash[..] == ModuleHash::of(&wasm(number)).0[..])
}

#[tokio::test]
async fn the_first_value_is_there_when_watch_returns() {
    let world = World::new(&[("balsa.toml", ONE.as_bytes()), ("a.wasm", &wasm(1))]);
    assert!(asks_for(&world.wanted.borrow(), 1));
}

#[tokio::test]
async fn a_rename_over_the_old_file_is_seen() {
    let mut world = World::new(&[("balsa.toml", ONE.as_bytes()), ("a.wasm", &wasm(1))]);
    fs::write(world.path("a.new"), wasm(2)).unwrap();
    fs::rename(world.path("a.new"), world.path("a.wasm")).unwrap();
    world.wait_for_module(2).await;
}

#[tokio::test]
async fn an_overwrite_that_stops_halfway_is_a_problem_until_it_goes_on() {
    let mut world = World::new(&[("balsa.toml", ONE.as_bytes()), ("a.wasm", &wasm(1))]);
    let bytes = wasm(2);
    let (head, tail) = bytes.split_at(bytes.len() / 2);
    let mut file = fs::File::create(world.path("a.wasm")).unwrap();
    file.write_all(head).unwrap();
    let is_incomplete = |wanted: &Wanted| wanted.problems.iter().any(|problem| problem.contains("not a complete"));
    world.wait("a problem", is_incomplete).await;
    assert!(asks_for(&world.wanted.borrow(), 1), "what was wished for stays");
    file.write_all(tail).unwrap();
    world.wait_for_module(2).await;
    assert!(world.wanted.borrow().problems.is_empty());
}

/// As the kubelet does it: a new directory, a new link beside the old one, a rename of the link, the old directory removed.
fn turn(mount: &Path, generation: u32, toml: &str, module: &[u8]) {
    let data = mount.join(format!("..2025_{generation}"));
    fs::create_dir(&data).unwrap();
    fs::write(data.join("balsa.toml"), toml).unwrap();
    fs::write(data.join("a.wasm"), module).unwrap();
    let old = fs::read_link(mount.join("..data")).ok();
    symlink(data.file_name().unwrap(), mount.join("..data_tmp")).unwrap();
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    if let Some(old) = old {
        fs::remove_dir_all(mount.join(old)).unwrap();
    }
}

#[tokio::test]
async fn the_kubelets_turn_of_a_link_changes_all_files_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mount = directory.path();
    turn(mount, 1, ONE, &wasm(1));
    symlink("..data/balsa.toml", mount.join("balsa.toml")).unwrap();
    symlink("..data/a.wasm", mount.join("a.wasm")).unwrap();
    let mut world = World::watch(directory, "balsa.toml");
    assert!(asks_for(&world.wanted.borrow(), 1));
    let generous = format!("{ONE}[limits]\nquery_fuel = 1000000000\n");
    turn(world.directory.path(), 2, &generous, &wasm(2));
    world.wait("a change", |wanted| wanted.wish.sequence == 2).await;
    let wanted = world.wanted.borrow().clone();
    assert!(asks_for(&wanted, 2) && wanted.limits().query_fuel == 1_000_000_000, "both in one step: {wanted:?}");
    turn(world.directory.path(), 3, ONE, &wasm(1));
    world.wait("the old files", |wanted| wanted.wish.sequence == 3).await;
    assert!(asks_for(&world.wanted.borrow(), 1));
}

#[tokio::test]
async fn a_file_that_comes_late_is_waited_for() {
    let mut world = World::new(&[("balsa.toml", ONE.as_bytes())]);
    assert!(!world.wanted.borrow().is_known());
    let compressed = ruzstd::encoding::compress_to_vec(&wasm(1)[..], ruzstd::encoding::CompressionLevel::Fastest);
    fs::write(world.path("a.wasm"), compressed).unwrap();
    world.wait_for_module(1).await;
}

#[tokio::test]
async fn the_log_level_changes_while_the_node_runs() {
    let mut world = World::new(&[("balsa.toml", b"[log]\nlevel = \"warn\"\n")]);
    fs::write(world.path("balsa.toml"), "[log]\nlevel = \"debug\"\nformat = \"json\"\n").unwrap();
    world.wait("the format", |wanted| !wanted.restart_for.is_empty()).await;
    assert_eq!(world.wanted.borrow().restart_for, ["log.format: \"text\" -> \"json\""]);
    // The level is set right after the value is published; the next change is published after that.
    fs::write(world.path("balsa.toml"), "[log]\nlevel = \"debug\"\n").unwrap();
    world.wait("the old format", |wanted| wanted.restart_for.is_empty()).await;
    assert_eq!(*world.levels.lock(), [tracing::Level::DEBUG]);
}
