//! One file of the log: its names, its size, reading and writing it with errors that say which.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::{Damage, Error};
use super::files::{File, Files, zero};

/// An open segment. Whoever may still read it holds an `Arc`: only a file that nobody reads is written over.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) file_bytes: u64,
    path: PathBuf,
    file: Arc<dyn File>,
}

/// What a file name in the directory means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// `0000000007.log`: a segment, or one that is prepared.
    Segment(u64),
    /// `spare-0000000007`: it was segment 7 and waits to be another one.
    Spare(u64),
    /// `new.tmp`, `log.meta.tmp`: was being written when the machine stopped.
    Unfinished,
    /// Not ours to touch.
    Other,
}

/// The log's identity.
pub(super) const META: &str = "log.meta";
/// The same while it is being written.
pub(super) const META_UNFINISHED: &str = "log.meta.tmp";
/// A file that is being zero-filled.
pub(super) const UNFINISHED: &str = "new.tmp";

/// The name of segment `number`. Ten digits: 64 MiB segments for longer than disks last.
pub(super) fn segment_name(number: u64) -> String {
    format!("{number:010}.log")
}

/// The name of what was segment `number`.
pub(super) fn spare_name(number: u64) -> String {
    format!("spare-{number:010}")
}

impl Name {
    pub(super) fn of(name: &str) -> Self {
        let segment = || name.strip_suffix(".log")?.parse().ok().map(Self::Segment);
        let spare = || name.strip_prefix("spare-")?.parse().ok().map(Self::Spare);
        let unfinished = || (name == UNFINISHED || name == META_UNFINISHED).then_some(Self::Unfinished);
        segment().or_else(spare).or_else(unfinished).unwrap_or(Self::Other)
    }
}

impl Segment {
    /// Opens the file of segment `number`.
    pub(super) fn open(files: &dyn Files, number: u64) -> Result<Self, Error> {
        let name = segment_name(number);
        let file = files.open(&name).map_err(files.failed("open", &name))?;
        let file_bytes = file.len().map_err(files.failed("read the size of", &name))?;
        Ok(Self { number, file_bytes, path: files.dir().join(name), file })
    }

    /// An error at `offset` of this segment.
    pub(super) fn damaged(&self, offset: u64, damage: Damage) -> Error {
        Error::Damaged { file: self.path.clone(), offset, damage }
    }

    fn io(&self, action: &'static str) -> impl Fn(io::Error) -> Error {
        move |source| Error::Io { action, file: self.path.clone(), source }
    }

    /// Fills `buffer` from `offset` on.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
        self.file.read_at(buffer, offset).map_err(self.io("read"))
    }

    /// Writes without syncing.
    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        self.file.write_at(bytes, offset).map_err(self.io("write"))
    }

    /// Makes all writes durable.
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.file.sync().map_err(self.io("sync"))
    }

    /// Writes durable zeros to `from..to`.
    pub(super) fn zero(&self, from: u64, to: u64) -> Result<(), Error> {
        zero(self.file.as_ref(), from, to).map_err(self.io("write zeros to"))
    }

    /// Grows the file with durable zeros, for a record above the usual size.
    pub(super) fn grow(&mut self, file_bytes: u64) -> Result<(), Error> {
        self.zero(self.file_bytes, file_bytes)?;
        self.file_bytes = file_bytes;
        Ok(())
    }
}
