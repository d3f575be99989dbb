//! A disk in memory, whose clock moves while it is looked at, and with it those who write there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::files::disk::{Disk, Signature, Stat, Unread};

/// What somebody does to the files.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// The file is made anew, with another inode.
    Replace(PathBuf, Vec<u8>),
    /// The file is cut or extended to this size.
    Resize(PathBuf, usize),
    /// These bytes are written there.
    Write(PathBuf, usize, Vec<u8>),
    Remove(PathBuf),
    /// All below `..data` is other files from now on.
    Turn(Vec<(PathBuf, Vec<u8>)>),
}

#[derive(Debug, Clone)]
struct Node {
    inode: u64,
    bytes: Vec<u8>,
    changed: Duration,
}

#[derive(Debug, Default)]
struct State {
    now: Duration,
    files: BTreeMap<PathBuf, Node>,
    inodes: u64,
    /// What will be done, ascending by time.
    future: Vec<(Duration, Change)>,
    /// How far the clock moves at each call, in turn.
    ticks: Vec<Duration>,
    calls: usize,
    reads: usize,
    /// Nothing can be read.
    refuses: bool,
}

/// The disk; clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Simulated(Rc<RefCell<State>>);

impl Simulated {
    pub(super) fn new(ticks: Vec<Duration>, mut future: Vec<(Duration, Change)>) -> Self {
        future.sort_by_key(|(at, _)| *at);
        Self(Rc::new(RefCell::new(State { ticks, future, ..State::default() })))
    }

    pub(super) fn apply(&self, change: Change) {
        self.0.borrow_mut().apply(change);
    }

    pub(super) fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.apply(Change::Replace(path.into(), bytes.into()));
    }

    pub(super) fn pass(&self, time: Duration) {
        let mut state = self.0.borrow_mut();
        let until = state.now + time;
        state.run(until);
    }

    pub(super) fn refuse(&self, refuses: bool) {
        self.0.borrow_mut().refuses = refuses;
    }

    /// Files read so far.
    pub(super) fn reads(&self) -> usize {
        self.0.borrow().reads
    }

    pub(super) fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        self.0.borrow().files.get(path).map(|node| node.bytes.clone())
    }

    fn tick(&self) {
        let mut state = self.0.borrow_mut();
        if state.ticks.is_empty() {
            return;
        }
        state.calls += 1;
        let until = state.now + state.ticks[state.calls % state.ticks.len()];
        state.run(until);
    }
}

impl State {
    fn run(&mut self, until: Duration) {
        let due = self.future.partition_point(|(at, _)| *at <= until);
        let due: Vec<_> = self.future.drain(..due).collect();
        for (at, change) in due {
            self.now = self.now.max(at);
            self.apply(change);
        }
        self.now = until;
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Replace(path, bytes) => self.replace(path, bytes),
            Change::Remove(path) => drop(self.files.remove(&path)),
            Change::Turn(files) => files.into_iter().for_each(|(path, bytes)| self.replace(path, bytes)),
            Change::Resize(path, size) => self.edit(path, |bytes| bytes.resize(size, 0)),
            Change::Write(path, at, piece) => self.edit(path, |bytes| {
                bytes.resize(bytes.len().max(at + piece.len()), 0);
                bytes[at..at + piece.len()].copy_from_slice(&piece);
            }),
        }
    }

    fn replace(&mut self, path: PathBuf, bytes: Vec<u8>) {
        self.inodes += 1;
        self.files.insert(path, Node { inode: self.inodes, bytes, changed: self.now });
    }

    fn edit(&mut self, path: PathBuf, edit: impl FnOnce(&mut Vec<u8>)) {
        if !self.files.contains_key(&path) {
            self.replace(path.clone(), Vec::new());
        }
        let node = self.files.get_mut(&path).expect("it was just made");
        edit(&mut node.bytes);
        node.changed = self.now;
    }
}

impl Node {
    fn signature(&self) -> Signature {
        // The clock of this file system ticks each 10 ms.
        let ticks = self.changed.as_millis() as i64 / 10;
        let changed = (ticks / 100, ticks % 100 * 10_000_000);
        Signature { device: 1, inode: self.inode, size: self.bytes.len() as u64, modified: changed, changed }
    }
}

impl Disk for Simulated {
    fn now(&self) -> Duration {
        self.0.borrow().now
    }

    fn stat(&self, path: &Path) -> Stat {
        self.tick();
        self.0.borrow().files.get(path).map_or(Stat::Absent, |node| Stat::File(node.signature()))
    }

    /// Takes a while: half of the file is read, then the writers go on, then the other half is.
    fn read(&self, path: &Path, signature: Signature) -> Result<Vec<u8>, Unread> {
        self.0.borrow_mut().reads += 1;
        if self.0.borrow().refuses {
            return Err(Unread::Refused("Input/output error".into()));
        }
        let same = || self.stat(path) == Stat::File(signature);
        if !same() {
            return Err(Unread::Changed);
        }
        let half = signature.size as usize / 2;
        let mut bytes = self.contents(path).unwrap_or_default();
        bytes.truncate(half);
        self.tick();
        bytes.extend(self.contents(path).unwrap_or_default().into_iter().skip(half));
        if same() { Ok(bytes) } else { Err(Unread::Changed) }
    }

    fn is_older(&self, signature: Signature, age: Duration) -> bool {
        let (seconds, nanos) = signature.changed;
        let changed = Duration::new(seconds as u64, nanos as u32);
        self.now().checked_sub(changed).is_some_and(|since| since > age)
    }
}
