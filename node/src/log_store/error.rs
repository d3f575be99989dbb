//! What can go wrong with a log, in types that say which file and where.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::raft::codec::Malformed;

/// A failed operation of the log store. `Damaged` and `Io` end the use of this log; nothing here is ever retried, since
/// a failed `fdatasync` says nothing about what a second one would mean.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bytes that were synced are not what was written. Never repaired silently: it may have been acknowledged.
    #[error(
        "{} is damaged at byte {offset}: {damage}. Acknowledged entries may be lost, so this node does not start; \
         docs/operations.md says what can be done", file.display()
    )]
    Damaged {
        /// The segment.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// The operating system said no.
    #[error("cannot {action} {}: {source}", file.display())]
    Io {
        /// `write`, `sync`, ...
        action: &'static str,
        /// The file or directory.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has the directory open.
    #[error("{} is in use by another process", dir.display())]
    Locked {
        /// The log's directory.
        dir: PathBuf,
    },
    /// An earlier failure; the log takes and gives nothing any more.
    #[error("the log failed before: {0}")]
    Poisoned(Arc<Error>),
    /// The log was closed, or its thread is gone.
    #[error("the log is closed")]
    Closed,
    /// Entries must follow one another.
    #[error("an entry with index {found} was appended where {expected} is next")]
    NotContiguous {
        /// The index that would continue the log.
        expected: u64,
        /// The one given.
        found: u64,
    },
    /// An entry that cannot be framed.
    #[error("an entry of {bytes} bytes is above the limit of {} bytes", super::record::PAYLOAD_BYTES_MAX)]
    TooLarge {
        /// Its encoded size.
        bytes: usize,
    },
    /// An entry that the log should hold is not there: a bug or a failing disk, never answered by a short read.
    #[error("entry {index} should be in the log ({first}..{end}) and is not")]
    Missing {
        /// The first one that is missing.
        index: u64,
        /// First index of the log.
        first: u64,
        /// One past its last index.
        end: u64,
    },
}

/// What exactly is wrong at an offset of a segment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Covers the frame's own fields, so its length is not trusted either.
    #[error("no record begins here (the checksum of its frame is wrong)")]
    Frame,
    /// The frame is fine and says how long the payload is.
    #[error("the record's payload does not match its checksum")]
    Payload,
    /// A length that cannot be.
    #[error("the record's {length} bytes would end beyond the file")]
    BeyondFile {
        /// Its payload.
        length: u64,
    },
    /// Written by a newer version, most likely.
    #[error("records of kind {0} are not known to this version")]
    UnknownKind(u8),
    /// The checksum is right and the content is not: written by something else.
    #[error("the record does not decode: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// The checksum is right and the content is no entry: written by something else.
    #[error("the entry does not decode: {0}")]
    MalformedEntry(#[from] Malformed),
    /// A header in the middle, or something else in front.
    #[error("a segment begins with exactly one header record")]
    Misplaced,
    /// Written by a newer version.
    #[error("the segment has format {0}, which this version does not know")]
    Format(u32),
    /// Indexes jump.
    #[error("entry {found} follows where {expected} should")]
    NotContiguous {
        /// The index that would continue the log.
        expected: u64,
        /// The one found.
        found: u64,
    },
    /// The proof that this was no torn write.
    #[error("{bad}, but a later record shows that everything before byte {synced} was synced")]
    Synced {
        /// What is wrong with the record.
        bad: Box<Damage>,
        /// The watermark of a later record.
        synced: u64,
    },
    /// The next segment's header tells where this one ended.
    #[error("{bad}, but segment {next} shows that this one was complete up to byte {end}")]
    Continued {
        /// What is wrong with the record.
        bad: Box<Damage>,
        /// The next segment.
        next: u64,
        /// Where this one ended.
        end: u64,
    },
    /// The header does not continue what came before it.
    #[error("this segment does not continue segment {previous}")]
    Discontinued {
        /// The segment before.
        previous: u64,
    },
    /// The file was cut.
    #[error("the file has {found} bytes instead of at least {expected}")]
    Short {
        /// What its header says.
        expected: u64,
        /// Its size.
        found: u64,
    },
    /// Deleted, or never restored.
    #[error("segment {0} is missing")]
    MissingSegment(u64),
    /// `log.meta` is missing or unreadable although there are segments.
    #[error("the log's identity cannot be read, and without it no record can be checked")]
    Meta,
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Io { source, .. } => source.kind(),
            Error::Damaged { .. } => io::ErrorKind::InvalidData,
            Error::NotContiguous { .. } | Error::TooLarge { .. } => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
