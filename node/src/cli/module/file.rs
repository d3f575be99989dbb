//! A module's file: `.wasm`, or the same compressed.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::Error;
use crate::files::binary;

/// A module's bytes, and where they came from.
pub(super) struct ModuleFile {
    /// Where.
    pub(super) path: PathBuf,
    /// Bytes on disk.
    pub(super) file_bytes: usize,
    /// Uncompressed.
    pub(super) wasm: Vec<u8>,
}

impl ModuleFile {
    /// Reads `path`, taken from `directory` if it is not absolute.
    pub(super) fn read(path: &Path, directory: &Path) -> Result<Self, Error> {
        let raw = read(path, directory)?;
        let file_bytes = raw.len();
        let wasm = binary::expand(raw).map_err(|why| Error::File { path: path.into(), why })?;
        Ok(Self { path: path.into(), file_bytes, wasm })
    }

    /// Whether it is smaller on disk.
    pub(super) fn is_compressed(&self) -> bool {
        self.file_bytes != self.wasm.len()
    }
}

/// The bytes of a file as they are, if they can be a module's.
pub(in crate::cli) fn read(path: &Path, directory: &Path) -> Result<Vec<u8>, Error> {
    let read = File::open(directory.join(path)).and_then(binary::bounded);
    let bytes = read.map_err(|error| Error::Read { path: path.into(), error })?;
    bytes.ok_or_else(|| Error::File { path: path.into(), why: binary::Error::TooLarge })
}
