//! A data directory that no node has open, and what an operator makes of it: [`restore`] fills an empty one from a backup, [`recover`]
//! makes the node of one the only voter of a new cluster.
//!
//! Both give a new cluster id, and so cut the directory off from all nodes of the old one: each message between nodes says which cluster
//! it is of, and one of another cluster is refused. Nothing here talks to a node. The directory is locked meanwhile, as by a node.

pub mod recover;
pub mod restore;

use std::io;
use std::path::{Path, PathBuf};

use crate::ids::NodeId;
use crate::log_store;
use crate::meta;
use crate::raft::types::{LogId, Vote};
use crate::state_machine::{Fault, SnapshotError};
use crate::storage;
use crate::wasm::HostFault;

/// Why a data directory was left as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its identity, or its lock.
    #[error(transparent)]
    Meta(#[from] meta::Error),
    /// A file or directory.
    #[error("cannot {what} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something is in it that a restore would mix with.
    #[error("{} is not empty: there is {found} in it; a backup is restored into an empty directory, so that nothing is lost that somebody may want", .dir.display())]
    NotEmpty {
        /// Which directory.
        dir: PathBuf,
        /// A name in it.
        found: String,
    },
    /// The backup.
    #[error("the backup cannot be restored: {0}")]
    Snapshot(#[from] SnapshotError),
    /// The state.
    #[error("the state cannot be used: {0}")]
    State(#[from] HostFault),
    /// The log.
    #[error("the log cannot be used: {0}")]
    Log(#[from] log_store::Error),
    /// The log, by way of openraft's interface.
    #[error("the log cannot be used: {0}")]
    LogIo(io::Error),
    /// There is nothing to recover.
    #[error("{} holds no node of a cluster, so there is nothing to recover", .0.display())]
    NoCluster(PathBuf),
    /// This node shut itself out: its state is suspect.
    #[error("this node has fenced itself ({0}), so its state is suspect; recover another one, or restore a backup")]
    Fenced(String),
    /// It was never let in, or was removed.
    #[error("node {0} is not a member of its cluster, as far as its log says; recover a member")]
    NotAMember(NodeId),
    /// It is done already.
    #[error("this node is the only voter of its cluster already: start it")]
    AloneAlready,
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::State(fault.into())
    }
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        Fault::from(error).into()
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}

fn term(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.committed_leader_id().term)
}

/// The vote of a node for itself in `term`, before anybody else has voted.
fn vote(term: u64, node: NodeId) -> Vote {
    crate::proto::raft::Vote { term, node: node.0, committed: false }.into()
}

/// Runs what openraft's interface of the log makes asynchronous.
fn wait<T>(work: impl Future<Output = T>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(Error::LogIo)?.block_on(work))
}
