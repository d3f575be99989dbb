//! What this node's files ask for, and every change of it.
//!
//! `balsa.toml` and the modules' files may change while the node runs, and nobody tells it. [`watch()`] starts a thread that looks, and
//! what it finds is a [`Wanted`]: a wish for the replicated part (modules and limits), which each node announces and the leader
//! proposes when a majority of the voters has the same one ([`agreed`]), and what this node itself makes of the rest. Nothing in
//! here changes what is served: files only propose, the log decides.
//!
//! # What a change is, and when it is taken
//!
//! Files change in many ways: a rename over the old one (all at once), a plain overwrite (in pieces, the file is broken meanwhile),
//! the kubelet, which turns one link, `..data`, to another directory (all files at once, each node at its own time), files that
//! appear late or vanish. The watcher treats all of them alike. It looks at signatures (which file a path leads to, its size, its
//! times: `disk.rs`) and takes the files when none has changed for a second, all of them in one consistent look, if they
//! are complete (`binary.rs`). So a module that is still being written is never taken for one, two files that belong together are
//! taken together, and what cannot be taken is said in words, in `balsa status` and in the log, while everything stays as it was.
//!
//! # Why it polls
//!
//! Four times a second, a handful of `stat` calls: some microseconds. inotify would seem to be what is made for this, and is fragile
//! exactly where Balsa runs. It watches inodes, not paths, so every link on the way to a file needs a watch of its own, set up anew
//! after each turn of `..data`. On overlay file systems, changes in a lower layer may go unseen, and on network and FUSE volumes the
//! changes of other hosts do. Its instances are few (128 for each user by default, and in Kubernetes all pods of a host share them),
//! and its queue overflows, so a full look must be possible at any time anyway. Even with it one must wait for a quiet
//! period after each event. A second's delay is of no importance for a change of code.
//!
//! Looking is done in a thread of its own: a network file system that hangs must hang nothing but this.

pub mod binary;
mod disk;
mod restart;
mod watcher;
mod wish;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tracing::Level;

use crate::config::{Config, Loaded};
use crate::ids::ModuleHash;
use crate::limits::Replicated;
use crate::proto::admin;
use disk::{Disk, Os};
use watcher::{Held, PATIENCE, Watcher};
pub use wish::{agreed, agreed_replicas};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// What this node's files ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The replicated part. Its hash is empty until all modules' files have been there once since the process started: a node that
    /// lacks a file does not ask for a cluster without that module, it has no wish.
    pub wish: admin::Wish,
    /// What is wrong with the files, one sentence each. Whatever it is about stays as it was wished before.
    pub problems: Vec<String>,
    /// What was changed and is not obeyed by this process: `raft.heartbeat_interval_ms: 125 ms -> 250 ms`.
    pub restart_for: Vec<String>,
    limits: Replicated,
    level: Level,
    modules: Vec<Held>,
}

impl Wanted {
    /// Before the first look.
    fn unknown(config: &Config) -> Self {
        Self {
            wish: admin::Wish::default(),
            problems: Vec::new(),
            restart_for: Vec::new(),
            limits: config.limits,
            level: config.log.level,
            modules: Vec::new(),
        }
    }

    /// Whether the files have been complete once, so that `wish` is one.
    pub fn is_known(&self) -> bool {
        !self.wish.hash.is_empty()
    }

    /// The uncompressed bytes of a module that is wished for; with no `[[module]]`, of the one that is built in.
    pub fn bytes(&self, hash: ModuleHash) -> Option<Bytes> {
        self.modules.iter().find(|held| held.hash == hash).map(|held| held.wasm.clone())
    }

    /// The limits that are wished for.
    pub fn limits(&self) -> Replicated {
        self.limits
    }
}

/// Watches the files that `loaded` came from until nobody listens any more. The first value is there when this returns, which may take
/// some seconds if a file is being written just now. `on_level` is called with each new log level.
///
/// # Panics
///
/// If the system cannot start a thread.
pub fn watch(loaded: Loaded, on_level: impl FnMut(Level) + Send + 'static) -> watch::Receiver<Arc<Wanted>> {
    let watches_something = loaded.recipe.path.is_some();
    let mut watcher = Watcher::new(Os::new(), loaded, rand::random());
    let level = watcher.wanted().level;
    watcher.trust_old_files();
    while watcher.is_restless() && watcher.age() < PATIENCE {
        thread::sleep(LOOK);
        watcher.step();
    }
    report(&Wanted { problems: Vec::new(), restart_for: Vec::new(), ..watcher.wanted().clone() }, watcher.wanted());
    let (sender, receiver) = watch::channel(Arc::new(watcher.wanted().clone()));
    let round = Round { watcher, sender, level, on_level };
    // Without a file there is nothing that could change.
    if watches_something {
        thread::Builder::new()
            .name("files".into())
            .spawn(move || round.run())
            .expect("the system gives a new process a few threads");
    }
    receiver
}

/// The thread's.
struct Round<D, F> {
    watcher: Watcher<D>,
    sender: watch::Sender<Arc<Wanted>>,
    level: Level,
    on_level: F,
}

impl<D: Disk, F: FnMut(Level)> Round<D, F> {
    fn run(mut self) {
        while !self.sender.is_closed() {
            self.set_level();
            thread::sleep(LOOK);
            if self.watcher.step() {
                let wanted = Arc::new(self.watcher.wanted().clone());
                report(&self.sender.send_replace(Arc::clone(&wanted)), &wanted);
            }
        }
    }

    fn set_level(&mut self) {
        let level = self.watcher.wanted().level;
        let before = std::mem::replace(&mut self.level, level);
        // Said at the more talkative of the two levels.
        if level < before {
            tracing::info!(%level, "log.level was changed");
        }
        if level != before {
            (self.on_level)(level);
        }
        if level > before {
            tracing::info!(%level, "log.level was changed");
        }
    }
}

/// Says once what is new.
fn report(before: &Wanted, now: &Wanted) {
    for problem in now.problems.iter().filter(|problem| !before.problems.contains(problem)) {
        tracing::warn!("files: {problem}");
    }
    if now.problems.is_empty() && !before.problems.is_empty() {
        tracing::info!("files: all well again");
    }
    for change in now.restart_for.iter().filter(|change| !before.restart_for.contains(change)) {
        tracing::warn!("files: changed, and obeyed only after a restart: {change}");
    }
    if now.wish.replicas != before.wish.replicas && !before.wish.hash.is_empty() {
        tracing::info!(replicas = now.wish.replicas, "files: this node asks for another number of nodes now");
    }
    if now.is_known() && before.wish.hash != now.wish.hash {
        tracing::info!(modules = describe(&now.wish), "files: this node asks for something else now");
    }
}

fn describe(wish: &admin::Wish) -> String {
    let one = |module: &admin::ModuleWish| match <[u8; 32]>::try_from(&module.hash[..]) {
        Ok(hash) => format!("{} {}", module.name, ModuleHash(hash).short()),
        Err(_) => format!("{} (built in)", module.name),
    };
    wish.modules.iter().map(one).collect::<Vec<_>>().join(", ")
}
