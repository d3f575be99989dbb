//! The file system as the watcher sees it: signatures, bytes, and a clock that only goes forward.
//!
//! A [`Signature`] stands for a file's contents without reading them. Paths are resolved each time, through every symbolic link, so
//! that it is the file which a path leads to *now*: when the kubelet turns `..data` to another directory, everything below it has
//! another inode. A file that is written to gets another change time, which no program can set back. That time ticks coarsely
//! (a hundredth of a second, on some file systems a whole one), so two writes may share it; the watcher's quiet period is longer.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::binary;
use crate::limits::MODULE_BYTES_MAX;

/// Which file this is and when it changed last: another one, other bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Bytes.
    pub(super) size: u64,
    /// Seconds and nanoseconds.
    pub(super) modified: (i64, i64),
    /// Of contents or of anything else about the file, seconds and nanoseconds.
    pub(super) changed: (i64, i64),
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stat {
    Absent,
    /// What the file system said.
    Unreadable(String),
    /// A directory, a pipe.
    NotAFile,
    File(Signature),
}

/// Why a file was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is not what it was, or was changed meanwhile.
    Changed,
    /// It is larger than a module may be.
    TooLarge,
    /// The file system said no; it may say yes the next time.
    Refused(String),
}

/// A file system and a clock; in tests, simulated ones.
pub(super) trait Disk {
    /// Since some moment.
    fn now(&self) -> Duration;
    /// What `path` leads to.
    fn stat(&self, path: &Path) -> Stat;
    /// All bytes of the file at `path`, if it has this signature before and after.
    fn read(&self, path: &Path, signature: Signature) -> Result<Vec<u8>, Unread>;
    /// Whether it was last changed more than `age` ago, as far as the file system's clock can be believed.
    fn is_older(&self, signature: Signature, age: Duration) -> bool;
}

/// The real one.
#[derive(Debug)]
pub(super) struct Os {
    started: Instant,
}

impl Os {
    pub(super) fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Disk for Os {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn stat(&self, path: &Path) -> Stat {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => Stat::File(Signature::of(&metadata)),
            Ok(_) => Stat::NotAFile,
            // A link that leads nowhere, and a path through a file that should be a directory, lead to nothing either.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Stat::Absent
            }
            Err(error) => Stat::Unreadable(error.to_string()),
        }
    }

    fn read(&self, path: &Path, signature: Signature) -> Result<Vec<u8>, Unread> {
        if signature.size > MODULE_BYTES_MAX as u64 {
            return Err(Unread::TooLarge);
        }
        let refused = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Unread::Changed,
            _ => Unread::Refused(error.to_string()),
        };
        let file = File::open(path).map_err(refused)?;
        let unchanged = || -> Result<(), Unread> {
            let now = Signature::of(&file.metadata().map_err(refused)?);
            if now == signature { Ok(()) } else { Err(Unread::Changed) }
        };
        unchanged()?;
        let bytes = binary::bounded(&file).map_err(refused)?;
        unchanged()?;
        bytes.ok_or(Unread::TooLarge)
    }

    fn is_older(&self, signature: Signature, age: Duration) -> bool {
        let (seconds, nanos) = signature.changed;
        let changed = Duration::new(seconds.max(0).cast_unsigned(), u32::try_from(nanos).unwrap_or(0));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.checked_sub(changed).is_some_and(|since| since > age)
    }
}

impl Signature {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
