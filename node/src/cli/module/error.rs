//! Why a subcommand of `balsa module` failed.

use std::io;
use std::path::PathBuf;

use super::Exit;
use super::new::NameError;
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
    /// Too large to be looked at.
    #[error("{} has {bytes} bytes; a module has at most {max}", .path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// What there may be.
        max: u64,
    },
    /// A file is not a module.
    #[error("{} is not a module that can be read: {why}", .path.display())]
    NotAModule {
        /// Which.
        path: PathBuf,
        /// Why.
        why: Rejection,
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
    /// The wasm engine of this machine.
    #[error("this machine cannot run modules: {0}")]
    Engine(#[from] HostFault),
}

impl Error {
    /// What kind of failure it is.
    pub(in crate::cli) fn exit(&self) -> Exit {
        match self {
            Self::NotAModule { .. } => Exit::No,
            _ => Exit::Usage,
        }
    }
}
