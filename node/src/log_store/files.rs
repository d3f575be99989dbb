//! The file operations that the log needs, so that tests can pull the plug at any of them.
//!
//! A trait because there are two implementations: [`Disk`], and the simulated disk of the crash tests, which forgets
//! what was not synced. Nothing here retries or interprets an error.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::Error;

/// A flat directory.
pub(super) trait Files: Debug + Send + Sync {
    /// Shown in errors.
    fn dir(&self) -> &Path;
    /// Names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// An existing file, for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// A new, empty file; an old one of that name is emptied.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Takes the place of a file named `to`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync(&self) -> io::Result<()>;
}

impl dyn Files + '_ {
    /// Makes errors that say what was tried with which file.
    pub(super) fn failed(&self, action: &'static str, name: &str) -> impl Fn(io::Error) -> Error + use<> {
        let file = self.dir().join(name);
        move |source| Error::Io { action, file: file.clone(), source }
    }
}

/// An open file. Reads and writes name their offset: any thread may read while the log thread writes elsewhere.
pub(super) trait File: Debug + Send + Sync {
    fn len(&self) -> io::Result<u64>;
    /// All of `buffer` or an error.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// All of `bytes` or an error; the file grows if need be.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes content and size durable.
    fn sync(&self) -> io::Result<()>;
}

/// Writes zeros to `from..to` and syncs every so often, so that no one else's sync has to wait for all of it.
pub(super) fn zero(file: &dyn File, from: u64, to: u64) -> io::Result<()> {
    const STEP: u64 = 4 * 1024 * 1024;
    let zeros = vec![0; STEP.min(to.saturating_sub(from)) as usize];
    let mut at = from;
    while at < to {
        let step = STEP.min(to - at);
        file.write_at(&zeros[..step as usize], at)?;
        file.sync()?;
        at += step;
    }
    Ok(())
}

/// The real thing.
#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
    handle: fs::File,
    /// Holds the lock on the directory for as long as this lives.
    _lock: fs::File,
}

impl Disk {
    /// Opens `dir`, made if need be, for this process alone.
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        let io = |action| move |source| Error::Io { action, file: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(io("create"))?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(io("sync the parent of"))?;
        }
        let lock = fs::File::create(dir.join("lock")).map_err(io("create a lock file in"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => Error::Locked { dir: dir.to_owned() },
            fs::TryLockError::Error(source) => io("lock")(source),
        })?;
        let handle = fs::File::open(dir).map_err(io("open"))?;
        Ok(Self { dir: dir.to_owned(), handle, _lock: lock })
    }
}

impl Files for Disk {
    fn dir(&self) -> &Path {
        &self.dir
    }

    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.dir)?.map(|item| Ok(item?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(fs::OpenOptions::new().read(true).write(true).open(self.dir.join(name))?))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        Ok(Arc::new(options.read(true).write(true).create(true).truncate(true).open(self.dir.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

impl File for fs::File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync: on a zero-filled file it need not write any metadata, which is why files are zero-filled.
        self.sync_data()
    }
}
