//! A backup's file: a header that says whose it is, and the snapshot stream as a follower would get it.
//!
//! ```text
//! file    = "balsa backup 1\n" (15 bytes), u32le length of header, header, u32le CRC-32C of header, stream
//! header  = protobuf BackupHeader
//! stream  = as in state_machine/snapshot.rs, with checksums of its own; nothing comes after it
//! ```
//!
//! It is written under another name, verified while it is, made durable, and only then given its own: a file of that name is
//! whole, and an older one is there until a newer one is.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use prost::Message;

use crate::state_machine::{Contents, SnapshotDecoder, SnapshotError};

/// What each backup begins with; the number is that of the format.
const MAGIC: &[u8; 15] = b"balsa backup 1\n";
/// Bytes of a header; a longer one is none.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// Read from the file at a time.
const PIECE_BYTES: usize = 1024 * 1024;

/// Whose state it is.
#[derive(Clone, PartialEq, Message)]
pub(in crate::cli) struct BackupHeader {
    /// 32 hex digits.
    #[prost(string, tag = "1")]
    pub(in crate::cli) cluster_id: String,
    /// When it was made, by the clock of the machine that asked for it; Unix milliseconds.
    #[prost(uint64, tag = "2")]
    pub(in crate::cli) made_ms: u64,
    /// The `balsa` that asked for it.
    #[prost(string, tag = "3")]
    pub(in crate::cli) version: String,
}

/// Why a file is not a backup.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("cannot {what} {}: {error}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It begins with something else.
    #[error("{} is not a backup that this balsa can read: it does not begin with \"balsa backup 1\"", .0.display())]
    NotABackup(PathBuf),
    /// Its header is not whole.
    #[error("{} is damaged: its header", .0.display())]
    Header(PathBuf),
    /// Its stream.
    #[error("{}: {error}", .path.display())]
    Stream {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        error: Box<SnapshotError>,
    },
}

/// A backup that is being written. Dropped, it leaves nothing behind.
pub(super) struct Draft {
    target: PathBuf,
    path: PathBuf,
    file: Option<File>,
    decoder: SnapshotDecoder,
    hasher: blake3::Hasher,
    bytes: u64,
}

/// A backup that was written.
pub(super) struct Written {
    pub(super) contents: Contents,
    /// Of all of the file.
    pub(super) hash: blake3::Hash,
    pub(super) bytes: u64,
}

impl Draft {
    pub(super) fn begin(target: &Path, header: &BackupHeader) -> Result<Self, Error> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".partial-{}", std::process::id()));
        let path = target.with_file_name(name);
        let file = File::create(&path).map_err(io_error("create", &path))?;
        let mut draft = Self {
            target: target.into(),
            path,
            file: Some(file),
            decoder: SnapshotDecoder::default(),
            hasher: blake3::Hasher::new(),
            bytes: 0,
        };
        draft.append(&encode(header))?;
        Ok(draft)
    }

    /// Adds the next bytes of the stream, and verifies them.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.decoder.write(bytes, &mut |_| Ok(())).map_err(stream_error(&self.path))?;
        self.append(bytes)
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives it its name, if all of the stream came.
    pub(super) fn finish(mut self) -> Result<Written, Error> {
        let contents = std::mem::take(&mut self.decoder).finish().map_err(stream_error(&self.path))?;
        let file = self.file.take().expect("it is taken here and by drop only");
        file.sync_all().map_err(io_error("sync", &self.path))?;
        fs::rename(&self.path, &self.target).map_err(io_error("rename", &self.path))?;
        let parent = self.target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(io_error("sync", parent))?;
        Ok(Written { contents, hash: self.hasher.finalize(), bytes: self.bytes })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let file = self.file.as_mut().expect("it is taken by finish, which consumes self");
        file.write_all(bytes).map_err(io_error("write", &self.path))?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Taken: it was renamed, or is about to be reported.
        let _ = fs::remove_file(&self.path);
    }
}

fn encode(header: &BackupHeader) -> Vec<u8> {
    let header = header.encode_to_vec();
    let length = u32::try_from(header.len()).expect("an id, a time and a version are short");
    [MAGIC, &length.to_le_bytes()[..], &header, &crc32c::crc32c(&header).to_le_bytes()].concat()
}

/// A backup that is being read.
pub(in crate::cli) struct Backup {
    path: PathBuf,
    file: File,
    pub(in crate::cli) header: BackupHeader,
}

impl Backup {
    /// Opens the backup at `path`, and reads its header.
    pub(in crate::cli) fn open(path: &Path) -> Result<Self, Error> {
        let mut file = File::open(path).map_err(io_error("open", path))?;
        let mut magic = [0; MAGIC.len()];
        match file.read_exact(&mut magic) {
            Ok(()) if &magic == MAGIC => {}
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(io_error("read", path)(error)),
            _ => return Err(Error::NotABackup(path.into())),
        }
        let header = read_header(&mut file).ok_or_else(|| Error::Header(path.into()))?;
        Ok(Self { path: path.into(), file, header })
    }

    /// Where it lies.
    pub(in crate::cli) fn path(&self) -> &Path {
        &self.path
    }

    /// Hands all of the stream to `take`, piece by piece.
    pub(in crate::cli) fn read(
        mut self,
        take: &mut dyn FnMut(&[u8]) -> Result<(), SnapshotError>,
    ) -> Result<(), Error> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match self.file.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(read) => take(&piece[..read]).map_err(stream_error(&self.path))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error("read", &self.path)(error)),
            }
        }
    }
}

fn read_header(file: &mut File) -> Option<BackupHeader> {
    let mut word = [0; 4];
    file.read_exact(&mut word).ok()?;
    let length = Some(u32::from_le_bytes(word)).filter(|length| *length <= HEADER_BYTES_MAX)?;
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).ok()?;
    file.read_exact(&mut word).ok()?;
    let sound = crc32c::crc32c(&header) == u32::from_le_bytes(word);
    BackupHeader::decode(&header[..]).ok().filter(|_| sound)
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::Io { what, path, error }
}

/// For whoever reads the stream elsewhere.
pub(in crate::cli) fn stream_error(path: &Path) -> impl FnOnce(SnapshotError) -> Error {
    let path = path.to_owned();
    move |error| Error::Stream { path, error: Box::new(error) }
}
