//! A disk whose power can be cut at any operation.
//!
//! The process sees what it wrote. What survives a cut is what was synced, and of the rest any sectors of 512 bytes and
//! any directory operations, drawn from a seed.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::log_store::files::{File, Files};

const SECTOR: usize = 512;

/// An operation on the directory that is not synced yet.
#[derive(Debug, Clone)]
enum Change {
    Link(String, usize),
    Rename(String, String),
    Remove(String),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, inode) => drop(names.insert(name.clone(), *inode)),
            Self::Remove(name) => drop(names.remove(name)),
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

fn overwrite(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    content.resize(content.len().max(at + bytes.len()), 0);
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Inode {
    fn sync(&mut self) {
        self.durable.clone_from(&self.now);
        self.unsynced.clear();
    }

    /// What is there after the power was cut.
    fn survive(&self, rng: &mut StdRng, probability: f64) -> Self {
        let mut content = self.durable.clone();
        for (at, bytes) in &self.unsynced {
            let mut from = *at;
            while from < at + bytes.len() {
                let to = ((from / SECTOR + 1) * SECTOR).min(at + bytes.len());
                if rng.random_bool(probability) {
                    overwrite(&mut content, from, &bytes[from - at..to - at]);
                }
                from = to;
            }
        }
        Self { now: content.clone(), durable: content, unsynced: Vec::new() }
    }
}

/// What goes wrong, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// From this operation on, nothing works; this one still may reach the disk.
    PowerCut,
    /// From this operation on, there is no room for writes.
    Full,
    /// Only this operation fails.
    Once,
}

#[derive(Default)]
struct World {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    changes: Vec<Change>,
    operations: u64,
    trouble: Option<(u64, Trouble)>,
    before_sync: Option<Box<dyn FnMut() + Send>>,
}

impl World {
    /// Counts an operation; says whether it is carried out and how it ends.
    fn operation(&mut self, writes: bool) -> (bool, io::Result<()>) {
        let n = self.operations;
        self.operations += 1;
        match self.trouble {
            Some((at, Trouble::PowerCut)) if n >= at => (n == at, Err(io::Error::other("the power is off"))),
            Some((at, Trouble::Full)) if n >= at && writes => (false, Err(io::ErrorKind::StorageFull.into())),
            Some((at, Trouble::Once)) if n == at => (false, Err(io::Error::other("a hiccup"))),
            _ => (true, Ok(())),
        }
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        let (happens, result) = self.operation(matches!(change, Change::Link(..)));
        if happens {
            change.apply(&mut self.names);
            self.changes.push(change);
        }
        result
    }

    fn inode(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// The disk; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Simulated {
    world: Arc<Mutex<World>>,
}

impl std::fmt::Debug for Simulated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a simulated disk")
    }
}

impl Simulated {
    /// Operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.world.lock().operations
    }

    /// Arranges for trouble at operation `at`.
    pub(crate) fn arrange(&self, at: u64, trouble: Trouble) {
        self.world.lock().trouble = Some((at, trouble));
    }

    /// Is called before each sync of a file.
    pub(crate) fn before_sync(&self, hook: impl FnMut() + Send + 'static) {
        self.world.lock().before_sync = Some(Box::new(hook));
    }

    /// The disk as it is after the power was cut now.
    pub(crate) fn after_power_cut(&self, seed: u64) -> Self {
        let world = self.world.lock();
        let mut rng = StdRng::seed_from_u64(seed);
        let probability = [0.0, 0.1, 0.5, 0.9, 1.0][rng.random_range(0..5)];
        let inodes: Vec<_> = world.inodes.iter().map(|inode| inode.survive(&mut rng, probability)).collect();
        let mut names = world.durable_names.clone();
        for change in &world.changes {
            if rng.random_bool(probability) {
                change.apply(&mut names);
            }
        }
        let world = World { inodes, durable_names: names.clone(), names, ..World::default() };
        Self { world: Arc::new(Mutex::new(world)) }
    }

    /// The disk as another process finds it after this one was killed.
    pub(crate) fn after_kill(&self) -> Self {
        let world = self.world.lock();
        let World { inodes, names, durable_names, changes, .. } = &*world;
        let (inodes, names) = (inodes.clone(), names.clone());
        let (durable_names, changes) = (durable_names.clone(), changes.clone());
        Self { world: Arc::new(Mutex::new(World { inodes, names, durable_names, changes, ..World::default() })) }
    }

    /// A copy with everything synced.
    pub(crate) fn copy(&self) -> Self {
        let copy = self.after_kill();
        copy.world.lock().inodes.iter_mut().for_each(Inode::sync);
        copy.sync().unwrap();
        copy
    }

    /// The content of a file.
    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        let world = self.world.lock();
        world.inodes[world.names[name]].now.clone()
    }

    /// Changes a file behind everybody's back.
    pub(crate) fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut world = self.world.lock();
        let inode = world.names[name];
        change(&mut world.inodes[inode].now);
        world.inodes[inode].sync();
    }
}

impl Files for Simulated {
    fn dir(&self) -> &Path {
        Path::new("simulated")
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.world.lock().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let inode = self.world.lock().inode(name)?;
        Ok(Arc::new(Handle { world: self.world.clone(), inode }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut world = self.world.lock();
        let inode = world.inodes.len();
        world.inodes.push(Inode::default());
        world.change(Change::Link(name.to_owned(), inode))?;
        Ok(Arc::new(Handle { world: self.world.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world.lock();
        world.inode(from)?;
        world.change(Change::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.world.lock();
        world.inode(name)?;
        world.change(Change::Remove(name.to_owned()))
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.world.lock();
        let (_, result) = world.operation(false);
        if result.is_ok() {
            world.durable_names = world.names.clone();
            world.changes.clear();
        }
        result
    }
}

struct Handle {
    world: Arc<Mutex<World>>,
    inode: usize,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "inode {}", self.inode)
    }
}

impl File for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.world.lock().inodes[self.inode].now.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let world = self.world.lock();
        let content = world.inodes[self.inode].now.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(content.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.world.lock();
        let (happens, result) = world.operation(true);
        if happens {
            let inode = &mut world.inodes[self.inode];
            overwrite(&mut inode.now, offset as usize, bytes);
            inode.unsynced.push((offset as usize, bytes.to_vec()));
        }
        result
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.world.lock();
        if let Some(mut hook) = world.before_sync.take() {
            hook();
            world.before_sync = Some(hook);
        }
        let (_, result) = world.operation(false);
        if result.is_ok() {
            world.inodes[self.inode].sync();
        }
        result
    }
}
