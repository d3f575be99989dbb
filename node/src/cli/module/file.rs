//! A module's file: `.wasm`, or the same compressed.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Error;
use crate::files::binary;
use crate::limits::MODULE_BYTES_MAX;

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
        let wasm = binary::expand(raw).map_err(|why| Error::Compressed { path: path.into(), why })?;
        Ok(Self { path: path.into(), file_bytes, wasm })
    }

    /// Whether it is smaller on disk.
    pub(super) fn is_compressed(&self) -> bool {
        self.file_bytes != self.wasm.len()
    }
}

/// The bytes of a file as they are, if they can be a module's.
pub(in crate::cli) fn read(path: &Path, directory: &Path) -> Result<Vec<u8>, Error> {
    read_bounded(&directory.join(path)).map_err(|error| match error {
        ReadError::Io(error) => Error::Read { path: path.into(), error },
        ReadError::TooLarge(bytes) => Error::TooLarge { path: path.into(), bytes, max: MODULE_BYTES_MAX as u64 },
    })
}

enum ReadError {
    Io(std::io::Error),
    TooLarge(u64),
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, ReadError> {
    let file = File::open(path).map_err(ReadError::Io)?;
    let size = file.metadata().map_err(ReadError::Io)?.len();
    let mut bytes = Vec::new();
    let read = file.take(MODULE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    if read > MODULE_BYTES_MAX { Err(ReadError::TooLarge(size.max(read as u64))) } else { Ok(bytes) }
}
