//! A disk that crashes: what was not synced may be lost, kept or torn, whichever is worst.
//!
//! It counts what changes it. At a chosen change it stops, and everything fails from then on, as for a process that is no more.
//! [`SimDisk::after_crash`] is what a machine finds when it comes up: of each database file what was synced, and of the
//! writes since then some, whole or a part of their sectors, drawn by a seed; of the changes of names since the last `sync_dir`
//! the first few.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;

use super::Disk;

const SECTOR: usize = 512;

#[derive(Debug, Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<Disks>>);

#[derive(Debug, Default)]
struct Disks {
    files: Vec<File>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<NameChange>,
    changes: u64,
    crash_at: Option<u64>,
}

#[derive(Debug, Default, Clone)]
struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Resize(usize),
}

#[derive(Debug, Clone)]
enum NameChange {
    Made(PathBuf, usize),
    Moved(PathBuf, PathBuf),
    Removed(PathBuf),
}

/// splitmix64: a seed is all there is to a failing case.
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound.max(1) as u64) as usize
    }
}

impl SimDisk {
    /// Stops at the `at`th change from now on.
    pub(crate) fn crash_at(&self, at: u64) {
        let mut disks = self.0.lock();
        disks.crash_at = Some(disks.changes + at);
    }

    /// How often it was changed.
    pub(crate) fn changes(&self) -> u64 {
        self.0.lock().changes
    }

    /// What is left, on a disk that works.
    pub(crate) fn after_crash(&self, seed: u64) -> Self {
        let (disks, mut dice) = (self.0.lock(), Dice(seed));
        let mut names = disks.durable_names.clone();
        let kept = dice.below(disks.pending_names.len() + 1);
        disks.pending_names[..kept].iter().for_each(|change| change.apply(&mut names));
        let left = disks.files.iter().map(|file| file.left(&mut dice)).map(|bytes| File {
            now: bytes.clone(),
            durable: bytes,
            unsynced: Vec::new(),
        });
        let files = left.collect();
        Self(Arc::new(Mutex::new(Disks { files, durable_names: names.clone(), names, ..Disks::default() })))
    }

    /// Flips one bit of the file called `path`.
    pub(crate) fn flip(&self, path: &Path, offset: usize, bit: u8) {
        let mut disks = self.0.lock();
        let file = disks.names[path];
        disks.files[file].now[offset] ^= 1 << bit;
        disks.files[file].durable[offset] ^= 1 << bit;
    }

    /// What the file called `path` holds.
    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        let disks = self.0.lock();
        disks.files[disks.names[path]].now.clone()
    }
}

impl Disks {
    fn change(&mut self) -> io::Result<()> {
        if self.crash_at.is_some_and(|at| self.changes >= at) {
            return Err(io::Error::other("the power is off"));
        }
        self.changes += 1;
        Ok(())
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn make(&mut self, path: &Path, file: File) -> usize {
        self.files.push(file);
        self.rename(NameChange::Made(path.into(), self.files.len() - 1));
        self.files.len() - 1
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Made(path, file) => drop(names.insert(path.clone(), *file)),
            Self::Removed(path) => drop(names.remove(path)),
            Self::Moved(from, to) => {
                let file = names.remove(from).expect("changes are applied in order");
                names.insert(to.clone(), file);
            }
        }
    }
}

impl File {
    /// What a crash leaves: what was synced, and of each later change all, nothing, or a part.
    fn left(&self, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for change in &self.unsynced {
            match (change, dice.below(3)) {
                (_, 0) => {}
                (Change::Resize(len), _) => bytes.resize(*len, 0),
                (Change::Write(offset, data), 1) => write_at(&mut bytes, *offset, data),
                (Change::Write(offset, data), _) => {
                    let sectors = data.len().div_ceil(SECTOR);
                    let torn = data.len().min(dice.below(sectors) * SECTOR);
                    write_at(&mut bytes, *offset, &data[..torn]);
                }
            }
        }
        bytes
    }
}

fn write_at(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if bytes.len() < offset + data.len() {
        bytes.resize(offset + data.len(), 0);
    }
    bytes[offset..offset + data.len()].copy_from_slice(data);
}

impl Disk for SimDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.0.lock().names.keys().filter(|path| path.parent() == Some(dir)).cloned().collect())
    }

    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let disks = self.0.lock();
        Ok(disks.names.get(path).map(|file| disks.files[*file].now.clone()))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut disks = self.0.lock();
        // Two chances to crash: with the file made and empty, and with its contents.
        disks.change()?;
        let file = disks.make(path, File::default());
        disks.change()?;
        disks.files[file] = File { now: bytes.to_vec(), durable: bytes.to_vec(), unsynced: Vec::new() };
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StorageBackend>> {
        let mut disks = self.0.lock();
        let file = match disks.names.get(path).copied() {
            Some(file) => file,
            None => {
                disks.change()?;
                disks.make(path, File::default())
            }
        };
        Ok(Box::new(SimFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disks = self.0.lock();
        disks.change()?;
        disks.rename(NameChange::Moved(from.into(), to.into()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disks = self.0.lock();
        disks.change()?;
        if !disks.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disks.rename(NameChange::Removed(path.into()));
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut disks = self.0.lock();
        disks.change()?;
        disks.durable_names = disks.names.clone();
        disks.pending_names.clear();
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl StorageBackend for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().files[self.file].now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disks = self.disk.0.lock();
        let bytes = disks.files[self.file].now.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disks = self.disk.0.lock();
        disks.change()?;
        let file = &mut disks.files[self.file];
        file.now.resize(len as usize, 0);
        file.unsynced.push(Change::Resize(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disks = self.disk.0.lock();
        disks.change()?;
        let file = &mut disks.files[self.file];
        file.durable.clone_from(&file.now);
        file.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disks = self.disk.0.lock();
        disks.change()?;
        let file = &mut disks.files[self.file];
        write_at(&mut file.now, offset as usize, data);
        file.unsynced.push(Change::Write(offset as usize, data.to_vec()));
        Ok(())
    }
}
