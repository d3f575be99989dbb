//! What is made of which change, step by step.

use std::time::Duration;

use insta::assert_snapshot;

use super::simulated::{Change, Simulated};
use super::{loaded, wasm};
use crate::config::Recipe;
use crate::files::watcher::{PATIENCE, QUIET, Watcher};
use crate::files::{LOOK, Wanted};
use crate::ids::ModuleHash;
use crate::wasm::embedded;

const TOML: &str = "/c/balsa.toml";
const ONE: &str = "[[module]]\nname = \"a\"\npath = \"a.wasm\"\n";
const TWO: &str = "[[module]]\nname = \"a\"\npath = \"a.wasm\"\n[[module]]\nname = \"b\"\npath = \"b.wasm\"\n";

/// A watcher, and the disk that it watches.
struct World {
    disk: Simulated,
    watcher: Watcher<Simulated>,
    published: usize,
}

impl World {
    /// All these files have been there for long.
    fn new(toml: &str, files: &[(&str, Vec<u8>)]) -> Self {
        let disk = Simulated::default();
        disk.put(TOML, toml);
        for (path, bytes) in files {
            disk.put(path, bytes.clone());
        }
        disk.pass(2 * QUIET);
        let mut watcher = Watcher::new(disk.clone(), loaded(TOML, toml), 77);
        watcher.trust_old_files();
        Self { disk, watcher, published: 0 }
    }

    fn wanted(&self) -> &Wanted {
        self.watcher.wanted()
    }

    /// Looks for as long as it takes to notice and take a change.
    fn settle(&mut self) -> &Wanted {
        self.look_for(4 * QUIET);
        self.watcher.wanted()
    }

    fn look_for(&mut self, time: Duration) {
        let until = self.disk_now() + time;
        while self.disk_now() < until {
            self.disk.pass(LOOK);
            self.published += usize::from(self.watcher.step());
        }
    }

    fn disk_now(&self) -> Duration {
        use crate::files::disk::Disk;
        self.disk.now()
    }

    /// `a=1 b=2!`: each module's number, and whether it may break.
    fn asks(&self) -> String {
        let one = |module: &crate::proto::admin::ModuleWish| {
            let breaking = if module.allow_breaking { "!" } else { "" };
            if module.hash.is_empty() {
                return format!("{} built in", module.name);
            }
            let hash = |number| ModuleHash::of(&wasm(number)).0;
            let number = (0..100).find(|number| hash(*number)[..] == module.hash[..]).unwrap();
            assert_eq!(self.wanted().bytes(ModuleHash(hash(number))).unwrap(), wasm(number));
            assert_eq!(module.size, wasm(number).len() as u64);
            format!("{}={number}{breaking}", module.name)
        };
        self.wanted().wish.modules.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    fn problems(&self) -> String {
        self.wanted().problems.join("\n")
    }
}

#[test]
fn files_that_were_there_before_the_start_are_taken_at_once() {
    let world = World::new(ONE, &[("/c/a.wasm", wasm(1))]);
    assert_eq!(world.asks(), "a=1");
    assert!(world.wanted().is_known());
    assert_eq!((world.wanted().wish.boot, world.wanted().wish.sequence), (77, 1));
    assert!(world.wanted().problems.is_empty());
}

#[test]
fn a_file_that_was_written_just_before_the_start_has_to_stand_still_first() {
    let disk = Simulated::default();
    disk.put(TOML, ONE);
    disk.put("/c/a.wasm", wasm(1));
    let mut watcher = Watcher::new(disk.clone(), loaded(TOML, ONE), 1);
    watcher.trust_old_files();
    assert!(watcher.is_restless() && !watcher.wanted().is_known());
    disk.pass(QUIET);
    assert!(watcher.step());
    assert!(!watcher.is_restless() && watcher.wanted().is_known());
}

#[test]
fn without_modules_the_built_in_one_is_asked_for_and_its_bytes_are_there() {
    let world = World::new("", &[]);
    assert_eq!(world.asks(), "kvstore-wasm built in");
    let hash = ModuleHash::of(embedded::KVSTORE);
    assert_eq!(world.wanted().bytes(hash).unwrap(), embedded::KVSTORE);
    assert_eq!(world.wanted().wish.modules[0].size, 0, "releases with other modules inside ask for the same");
}

#[test]
fn a_new_module_file_is_a_new_wish_and_the_old_file_is_the_old_wish() {
    let mut world = World::new(ONE, &[("/c/a.wasm", wasm(1))]);
    let first = world.wanted().wish.clone();
    world.disk.put("/c/a.wasm", wasm(2));
    world.settle();
    assert_eq!(world.asks(), "a=2");
    assert_ne!(world.wanted().wish.hash, first.hash);
    world.disk.put("/c/a.wasm", wasm(1));
    world.settle();
    assert_eq!(world.wanted().wish.hash, first.hash);
    assert_eq!(world.wanted().wish.sequence, 3);
    assert_eq!(world.published, 2);
}

#[test]
fn an_unchanged_file_is_not_read_again() {
    let mut world = World::new(TWO, &[("/c/a.wasm", wasm(1)), ("/c/b.wasm", wasm(2))]);
    let reads = world.disk.reads();
    world.settle();
    assert_eq!(world.disk.reads(), reads);
    world.disk.put("/c/b.wasm", wasm(3));
    world.settle();
    assert_eq!(world.disk.reads(), reads + 1, "only the one that changed");
}

#[test]
fn the_same_bytes_written_again_are_no_change() {
    let mut world = World::new(ONE, &[("/c/a.wasm", wasm(1))]);
    world.disk.put("/c/a.wasm", wasm(1));
    world.settle();
    assert_eq!((world.published, world.wanted().wish.sequence), (0, 1));
}

#[test]
fn a_broken_file_is_a_problem_and_the_former_wish_stays() {
    let mut world = World::new(TWO, &[("/c/a.wasm", wasm(1)), ("/c/b.wasm", wasm(2))]);
    let before = world.wanted().wish.clone();
    world.disk.put("/c/a.wasm", wasm(3)[..50].to_vec());
    world.settle();
    assert_eq!(world.wanted().wish, before);
    assert_snapshot!(world.problems(), @r#"module "a": /c/a.wasm is not a complete WebAssembly module: unexpected end-of-file (at byte 36 of 50)"#);
    world.disk.put("/c/b.wasm", wasm(4));
    world.settle();
    assert_eq!(world.asks(), "a=1 b=4", "the others go on");
    world.disk.put("/c/a.wasm", wasm(3));
    world.settle();
    assert_eq!((world.asks().as_str(), world.problems().as_str()), ("a=3 b=4", ""));
}

#[test]
fn a_file_that_vanishes_is_a_problem_and_the_former_wish_stays() {
    let mut world = World::new(ONE, &[("/c/a.wasm", wasm(1))]);
    world.disk.apply(Change::Remove("/c/a.wasm".into()));
    world.settle();
    assert_eq!(world.asks(), "a=1");
    assert_snapshot!(world.problems(), @r#"module "a": /c/a.wasm does not exist"#);
    world.disk.put("/c/a.wasm", wasm(1));
    world.settle();
    assert_eq!((world.problems().as_str(), world.wanted().wish.sequence), ("", 1));
}

#[test]
fn a_file_that_cannot_be_read_is_tried_again() {
    let mut world = World::new(ONE, &[("/c/a.wasm", wasm(1))]);
    world.disk.put("/c/a.wasm", wasm(2));
    world.disk.refuse(true);
    world.settle();
    assert_eq!(world.asks(), "a=1");
    assert_snapshot!(world.problems(), @r#"module "a": /c/a.wasm cannot be read: Input/output error"#);
    world.disk.refuse(false);
    world.look_for(LOOK);
    assert_eq!((world.asks().as_str(), world.problems().as_str()), ("a=2", ""));
}

#[test]
fn a_node_that_lacks_a_file_since_its_start_asks_for_nothing_at_all() {
    let mut world = World::new(TWO, &[("/c/a.wasm", wasm(1))]);
    assert!(!world.wanted().is_known(), "a wish without b would ask for b to be stopped");
    assert_snapshot!(world.problems(), @r#"
    module "b": /c/b.wasm does not exist
    this node's files ask for nothing until there is a module file for b
    "#);
    world.disk.put("/c/b.wasm", wasm(2));
    world.settle();
    assert_eq!((world.asks().as_str(), world.problems().as_str()), ("a=1 b=2", ""));
}

#[test]
fn a_module_can_be_added_and_its_file_may_come_late() {
    let mut world = World::new(ONE, &[("/c/a.wasm", wasm(1))]);
    world.disk.put(TOML, TWO);
    world.settle();
    assert_eq!(world.asks(), "a=1");
    assert_snapshot!(world.problems(), @r#"module "b": /c/b.wasm does not exist"#);
    world.disk.put("/c/b.wasm", wasm(2));
    world.settle();
    assert_eq!(world.asks(), "a=1 b=2");
    world.disk.put(TOML, ONE);
    world.settle();
    assert_eq!(world.asks(), "a=1");
    world.disk.put(TOML, "");
    world.settle();
    assert_eq!(world.asks(), "kvstore-wasm built in");
}

#[test]
fn the_only_module_is_not_given_up_for_one_that_is_not_there() {
    let mut world = World::new(ONE, &[("/c/a.wasm", wasm(1))]);
    world.disk.put(TOML, ONE.replace('a', "z").replace("nzme", "name").replace("pzth", "path").replace("wzsm", "wasm"));
    world.settle();
    assert_eq!(world.asks(), "a=1");
    assert!(world.problems().contains("/c/z.wasm does not exist"), "{}", world.problems());
    world.disk.put("/c/z.wasm", wasm(2));
    world.settle();
    assert_eq!(world.asks(), "z=2");
}

#[test]
fn leave_to_break_is_part_of_the_wish() {
    let mut world = World::new(ONE, &[("/c/a.wasm", wasm(1))]);
    world.disk.put(TOML, format!("{ONE}allow_breaking = true\n"));
    world.settle();
    assert_eq!(world.asks(), "a=1!");
}

#[test]
fn limits_are_part_of_the_wish() {
    let mut world = World::new("", &[]);
    let before = world.wanted().wish.clone();
    world.disk.put(TOML, "[limits]\nquery_fuel = 1000000\n");
    world.settle();
    assert_ne!(world.wanted().wish.hash, before.hash);
    assert_eq!(world.wanted().limits().query_fuel, 1_000_000);
    assert_eq!(world.wanted().wish.limits.as_ref().unwrap().query_fuel, 1_000_000);
    assert!(world.wanted().restart_for.is_empty());
}

#[test]
fn a_wrong_file_changes_nothing_and_neither_do_the_modules_beside_it() {
    let mut world = World::new(ONE, &[("/c/a.wasm", wasm(1))]);
    let before = world.wanted().wish.clone();
    world.disk.put(TOML, format!("{ONE}[limits]\nquery_feul = 1\nmemory_bytes = \"1 GiB\"\n"));
    world.disk.put("/c/a.wasm", wasm(2));
    world.settle();
    assert_eq!(world.wanted().wish, before);
    assert_snapshot!(world.problems(), @"/c/balsa.toml:5:1: unknown key `query_feul` in [limits] (did you mean `query_fuel`?); and 1 more error; nothing new is taken from the files until this is mended");
    world.disk.put(TOML, ONE);
    world.settle();
    assert_eq!((world.asks().as_str(), world.problems().as_str()), ("a=2", ""));
}

#[test]
fn a_file_that_is_gone_changes_nothing() {
    let mut world = World::new(ONE, &[("/c/a.wasm", wasm(1))]);
    world.disk.apply(Change::Remove(TOML.into()));
    world.settle();
    assert_eq!(world.asks(), "a=1");
    assert_snapshot!(world.problems(), @"/c/balsa.toml does not exist; nothing new is taken from the files until this is mended");
}

#[test]
fn what_needs_a_restart_is_named_with_both_values_until_it_is_taken_back() {
    let mut world = World::new("[cluster]\nreplicas = 3\nnode_name = \"balsa-{ordinal}\"\n", &[]);
    world.disk.put(
        TOML,
        "[cluster]\nreplicas = 5\nname = \"other\"\nnode_name = \"balsa-{ordinal}\"\n[raft]\nheartbeat_interval_ms = 100\n[node]\nadvertise_peer_addr = \"h:{1 + ordinal}\"\n\
         [storage]\ncache_bytes = \"1 GiB\"\n[log]\nformat = \"json\"\nlevel = \"debug\"\n",
    );
    world.settle();
    assert_snapshot!(world.wanted().restart_for.join("\n"), @r#"
    node.advertise_peer_addr: peer_addr -> "h:{1 + ordinal}"
    cluster.name: "balsa" -> "other" (and only if no cluster is founded yet)
    raft.heartbeat_interval_ms: 125 ms -> 100 ms
    storage.cache_bytes: 256 MiB -> 1 GiB
    log.format: "text" -> "json"
    "#);
    assert_eq!(world.wanted().level, tracing::Level::DEBUG, "this one is obeyed at once");
    assert_eq!((world.wanted().wish.sequence, world.wanted().wish.replicas), (2, 5), "but for the number of nodes");
    world.disk.put(TOML, "[cluster]\nreplicas = 3\nnode_name = \"balsa-{ordinal}\"\n");
    world.settle();
    assert!(world.wanted().restart_for.is_empty());
    assert_eq!((world.wanted().wish.sequence, world.wanted().wish.replicas), (3, 3));
}

#[test]
fn what_the_environment_says_stays_above_a_file_that_changes() {
    let disk = Simulated::default();
    disk.put(TOML, "");
    let env = vec![("BALSA_LOG__LEVEL".to_owned(), "debug".to_owned())];
    let recipe = Recipe { path: Some(TOML.into()), env, ..Recipe::default() };
    let watcher = Watcher::new(disk.clone(), recipe.settings_of(Vec::new()).unwrap(), 1);
    let mut world = World { disk, watcher, published: 0 };
    world.settle();
    world.disk.put(TOML, "[log]\nlevel = \"warn\"\n[limits]\nquery_fuel = 1000000\n");
    world.settle();
    assert_eq!(world.wanted().limits().query_fuel, 1_000_000, "it was read");
    assert_eq!(world.wanted().level, tracing::Level::DEBUG);
}

#[test]
fn files_that_never_stand_still_are_a_problem_after_a_while() {
    let mut world = World::new(ONE, &[("/c/a.wasm", wasm(1))]);
    let until = world.disk_now() + PATIENCE + QUIET;
    while world.disk_now() < until {
        world.disk.put("/c/a.wasm", wasm(2));
        world.look_for(LOOK);
    }
    assert_eq!(world.asks(), "a=1");
    assert_snapshot!(world.problems(), @"the files go on changing and are taken when they stand still for 1 s: /c/balsa.toml, /c/a.wasm");
    assert_eq!(world.published, 1, "said once");
    world.settle();
    assert_eq!((world.asks().as_str(), world.problems().as_str()), ("a=2", ""));
}
