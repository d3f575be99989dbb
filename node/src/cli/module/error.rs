//! Why a subcommand of `balsa module` failed.

use std::io;
use std::path::PathBuf;

use super::Exit;
use super::new::NameError;
use crate::cli::{self, backup};
use crate::client::{self, Code};
use crate::files::binary;
use crate::wasm::{HostFault, Rejection};

/// See the module's documentation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file is too large to be looked at, or cannot be expanded.
    #[error("{} {why}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: binary::Error,
    },
    /// A file is not a module.
    #[error("{} is not a module that can be read: {why}", .path.display())]
    NotAModule {
        /// Which.
        path: PathBuf,
        /// Why.
        why: Box<Rejection>,
    },
    /// A file is a module that no node takes.
    #[error("{} is refused: {why}", .path.display())]
    NotTaken {
        /// Which.
        path: PathBuf,
        /// Why.
        why: Box<Rejection>,
    },
    /// What a new module is to be called.
    #[error(transparent)]
    Name(NameError),
    /// Something is in the place of a new project.
    #[error("{} exists already, and nothing in it is overwritten; choose another name, or another place with --dir", .0.display())]
    Exists(PathBuf),
    /// A file or directory cannot be written.
    #[error("cannot write {}: {error}", .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A push that ended before its time was up, or with it.
    #[error("not decided in time ({last}); the cluster was {stage:?}, and may still finish: see `balsa module list`")]
    Undecided {
        /// What the cluster was doing.
        stage: String,
        /// The last failure.
        last: String,
    },
    /// The node said no to an operator.
    #[error("refused: {0}")]
    Refused(String),
    /// Nothing serves, is wanted or is kept under this name.
    #[error("no module called {0} is there; `balsa module list` shows those that are")]
    Unknown(String),
    /// The file of a backup.
    #[error(transparent)]
    BackupFile(#[from] backup::Error),
    /// What is in a backup.
    #[error("the backup cannot be used: {0}")]
    Backup(String),
    /// What is to be compared with.
    #[error("the older version is not a module that can be compared with: {why}")]
    Old {
        /// Why.
        why: Box<Rejection>,
    },
    /// There is nothing to compare with.
    #[error("the cluster has no module called {0}, so there is nothing to compare with")]
    NothingThere(String),
    /// The wasm engine of this machine.
    #[error("this machine cannot run modules: {0}")]
    Engine(#[from] HostFault),
}

impl Error {
    /// What kind of failure it is.
    pub(in crate::cli) fn exit(&self) -> Exit {
        match self {
            Self::NotAModule { .. }
            | Self::NotTaken { .. }
            | Self::File { .. }
            | Self::Unknown(_)
            | Self::NothingThere(_) => Exit::No,
            Self::Undecided { .. } => Exit::Unavailable,
            Self::Refused(_) => Exit::Rejected,
            _ => Exit::Usage,
        }
    }
}

/// What an operator's call says when it fails: no module was asked, so none has said no.
pub(in crate::cli) fn of_operator(error: client::Error) -> cli::Error {
    match error {
        client::Error::Rejected(rejection) => Error::Refused(rejection.message).into(),
        client::Error::Refused(refusal) if refusal.code != Code::Unimplemented => {
            Error::Refused(refusal.message).into()
        }
        other => other.into(),
    }
}
