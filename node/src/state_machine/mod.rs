//! The replicated state machine: what a command *does*.
//!
//! [`StateMachine::apply`] is a function of the log's entries and of the state they found, and of nothing else. It reads no
//! clock (time is stamped into entries), draws no random numbers (they are in entries too), does not depend on the order of a
//! hash map, on this node's configuration, on where one batch ends and the next begins, or on when a restart or a snapshot
//! happened. After the same entry every replica holds the same bytes and gave the same reply; [`digest`] is how they check.
//!
//! A command ends in one of three ways. A guest's answer or error and a trap are *outcomes*: deterministic, part of the digest,
//! remembered for a retry. A refusal is the host's deterministic no: of a call it leaves nothing behind, of a change of modules
//! that it is in their history. Everything else is a
//! [`Fault`] of this host (a disk, damaged bytes, an entry from the future): it is never answered, never skipped, and
//! stops the node.
//!
//! One thread owns the [`StateMachine`]. All others read through a [`Reader`], which always shows the state right after some
//! whole batch: keys, modules, limits and index out of one read transaction.
//!
//! | file          | noun |
//! |---------------|------|
//! | `machine`     | the state machine as its thread holds it: open, publish, checkpoint, install |
//! | `apply`       | entries in, outcomes out |
//! | `modules`     | which module serves which method |
//! | `life`        | modules uploaded, activated, refused, stopped, dropped |
//! | `uploads`     | modules on their way, in parts |
//! | `history`     | what became of modules, and which wishes were answered |
//! | `sessions`    | exactly once |
//! | `settings`    | the replicated limits |
//! | `progress`    | the row that changes with every batch |
//! | `digest`      | the rolling digest and the deep hash |
//! | `query`       | reading: views, queries |
//! | `appointments` | the state right after one entry, for who asked beforehand |
//! | `fit`         | whether a module may take its place: advice, before the log is asked |
//! | `snapshot`    | the state as a stream |

#![deny(clippy::iter_over_hash_type, clippy::disallowed_methods)]

mod apply;
mod appointments;
pub mod digest;
mod fit;
mod history;
mod life;
mod machine;
mod modules;
mod progress;
mod query;
mod sessions;
mod settings;
mod snapshot;
mod uploads;

#[cfg(test)]
mod tests;

pub use appointments::{Appointment, Kept};
pub use fit::{Fit, broken, served_before};
pub use machine::{Options, StateMachine, load_membership};
pub use modules::{ActiveModule, Registry};
pub use progress::Progress;
pub use query::{QueryError, Reader, View};
pub use settings::clamp;
pub use snapshot::{
    CHUNK_BYTES_MAX, CodeFinder, Contents, Received, Receiver, Snapshot, SnapshotDecoder, SnapshotError,
    SnapshotReader, SnapshotWriter,
};

use crate::raft::types::LogId;
use crate::storage;
use crate::wasm::{HostFault, Rejection};

/// Why this node cannot go on. None of these is a module's or a client's doing.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The state database failed.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The wasm host failed.
    #[error(transparent)]
    Host(#[from] HostFault),
    /// An entry was left out, or came twice.
    #[error("entry {got} came where the one after {} was to be applied; a part of the log is missing or came twice", shown(.last))]
    Gap {
        /// The last applied.
        last: Option<LogId>,
        /// What came.
        got: LogId,
    },
    /// An entry that a newer version wrote.
    #[error("entry {index} needs apply version {version}, this balsa knows version {known}; upgrade this node", known = crate::command::APPLY_VERSION)]
    UnknownVersion {
        /// Its log index.
        index: u64,
        /// What it asks for.
        version: u32,
    },
    /// An entry of a kind that this version does not know.
    #[error("entry {index} is of a kind that this balsa does not know; upgrade this node")]
    UnknownKind {
        /// Its log index.
        index: u64,
    },
    /// An entry that no balsa wrote.
    #[error("entry {index} is malformed: {why}")]
    MalformedEntry {
        /// Its log index.
        index: u64,
        /// What is wrong.
        why: String,
    },
    /// A row of the state that no balsa wrote.
    #[error(
        "the state is damaged: {what}; this volume is lost: empty it and start the node, which joins anew (docs/operations.md, A lost node)"
    )]
    Corrupt {
        /// Which row, and what is wrong with it.
        what: String,
    },
    /// A module that the log activated cannot be loaded on this node.
    #[error("module {name}, which the log activated, cannot be loaded on this node: {why}")]
    Module {
        /// Its name.
        name: String,
        /// What the loader says.
        why: Rejection,
    },
    /// An earlier fault was not obeyed.
    #[error("the state machine has stopped after an earlier fault; restart the node")]
    Stopped,
    /// A snapshot that is behind what is already applied.
    #[error("the snapshot ends at {}, which is behind what is applied here already ({})", shown(.snapshot), shown(.applied))]
    OldSnapshot {
        /// The last entry in it.
        snapshot: Option<LogId>,
        /// The last entry here.
        applied: Option<LogId>,
    },
}

fn shown(id: &Option<LogId>) -> String {
    id.map_or("nothing".into(), |id| format!("entry {id}"))
}

impl Fault {
    fn corrupt(what: impl ToString) -> Self {
        Self::Corrupt { what: what.to_string() }
    }
}

impl From<Fault> for HostFault {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Host(fault) => fault,
            other => Self(other.to_string()),
        }
    }
}
