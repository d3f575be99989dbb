//! The state database: what a replica knows after the last entry it applied.
//!
//! One redb table maps bytes to bytes. [`keys`] is its schema and says which key means what; [`Txn`] is how the state machine
//! and a module see it: a read view of the last commit, under an overlay for the batch of entries that is being applied, under
//! an overlay for the one command that is running. [`Database`] is the file: commits, durable checkpoints, generations.
//!
//! What it relies on: **the Raft log is the only write-ahead log.** A commit per batch reaches memory alone
//! (`Durability::None`), so after a crash the file holds exactly some earlier durable checkpoint, and the log is applied again
//! from there. Nothing in this folder decides anything; that is `state_machine/`.
//!
//! redb types are named here and nowhere else.

mod database;
mod disk;
mod fence;
pub mod keys;
mod txn;

#[cfg(test)]
pub(crate) mod sim_disk;

pub use database::{Database, Generation, Incoming, ReadView};
pub use disk::{Disk, Files};
pub use fence::Fence;
pub use txn::{ModuleState, Overlay, Txn, Visit};

use std::io;
use std::path::PathBuf;

/// Why the state cannot be read or written. Every one of these stops the node: none is a module's doing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system said no.
    #[error("cannot {what} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// redb said no.
    #[error("the state database failed: {0}")]
    Redb(#[source] Box<redb::Error>),
    /// A commit failed before; whether it took effect is not known, so nothing more is written.
    #[error(
        "an earlier commit to the state database failed; restart the node, which continues from its last checkpoint"
    )]
    Poisoned,
    /// `CURRENT` does not name a generation.
    #[error("{} does not name a generation of the state (a number); put the file back, if you have it from this very volume; else this volume is lost: empty it and start the node, which joins anew (docs/operations.md, A lost node)", .0.display())]
    BadCurrent(PathBuf),
    /// `CURRENT` names a file that is not there, or a file is there that no `CURRENT` names.
    #[error("{} and the files beside it do not belong together: {why}", .path.display())]
    Mismatched {
        /// The `CURRENT` file.
        path: PathBuf,
        /// What does not fit.
        why: &'static str,
    },
    /// The file was written by a version with another layout.
    #[error("{} was written in a layout that this version of balsa does not know", .0.display())]
    UnknownLayout(PathBuf),
}

impl<E: Into<redb::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Redb(Box::new(error.into()))
    }
}

impl From<Error> for crate::wasm::HostFault {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}
