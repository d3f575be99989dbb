//! Keys and values on the command line: bytes, however they are written.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use bytes::Bytes;

use super::Console;
use crate::ids::unhex;
use crate::limits::{KEY_BYTES_MAX, REQUEST_BYTES_MAX, VALUE_BYTES_MAX};

/// Why a key or a value is none.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// With `--hex`.
    #[error("'{}' is not hexadecimal; with --hex, write pairs of the digits 0-9 and a-f, such as 68656c6c6f", .0.display())]
    Hex(OsString),
    /// Of a key.
    #[error("the key is empty; a key is 1 to {KEY_BYTES_MAX} bytes")]
    EmptyKey,
    /// Of a key.
    #[error("the key is {0} bytes long; a key is 1 to {KEY_BYTES_MAX} bytes")]
    LongKey(usize),
    /// Of a value.
    #[error("the value is longer than {VALUE_BYTES_MAX} bytes, which is the most that one value may have")]
    LongValue,
    /// Of a request.
    #[error("the message is longer than {REQUEST_BYTES_MAX} bytes, which is the most that one request may have")]
    LongMessage,
    /// Of `@file`.
    #[error("cannot read '{}': {error}; write @FILE for a file's content, @@... for text that begins with @", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Of `-`.
    #[error("cannot read standard input: {0}")]
    Stdin(io::Error),
}

/// A key, as it is or in hex.
pub(super) fn key(text: &OsStr, hex: bool) -> Result<Bytes, Error> {
    let key = prefix(text, hex)?;
    match key.len() {
        0 => Err(Error::EmptyKey),
        length if length > KEY_BYTES_MAX => Err(Error::LongKey(length)),
        _ => Ok(key),
    }
}

/// What keys begin with; it may be empty.
pub(super) fn prefix(text: &OsStr, hex: bool) -> Result<Bytes, Error> {
    if !hex {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    }
    let digits = text.to_str().and_then(unhex);
    digits.map(Bytes::from).ok_or_else(|| Error::Hex(text.to_owned()))
}

/// A value: as it is or in hex, `@file`, or `-` for standard input. Files and standard input are taken as they are.
pub(super) fn value(text: &OsStr, hex: bool, console: &mut Console) -> Result<Bytes, Error> {
    let value = match source(text) {
        Source::Literal(text) => prefix(text, hex)?,
        source => source.read(console, VALUE_BYTES_MAX)?,
    };
    if value.len() > VALUE_BYTES_MAX { Err(Error::LongValue) } else { Ok(value) }
}

/// A message in JSON: as it is, `@file`, or `-` for standard input.
pub(super) fn message(text: &OsStr, console: &mut Console) -> Result<Bytes, Error> {
    // JSON spells bytes in base64, and may be indented, so it is longer than the message it stands for.
    let bytes_max = 8 * REQUEST_BYTES_MAX;
    let message = source(text).read(console, bytes_max)?;
    if message.len() > bytes_max { Err(Error::LongMessage) } else { Ok(message) }
}

enum Source<'a> {
    Literal(&'a OsStr),
    File(PathBuf),
    Stdin,
}

fn source(text: &OsStr) -> Source<'_> {
    match text.as_bytes() {
        b"-" => Source::Stdin,
        [b'@', rest @ ..] if rest.starts_with(b"@") => Source::Literal(OsStr::from_bytes(rest)),
        [b'@', path @ ..] => Source::File(PathBuf::from(OsStr::from_bytes(path))),
        _ => Source::Literal(text),
    }
}

impl Source<'_> {
    /// At most one byte more than `bytes_max`: enough to see that there is too much.
    fn read(self, console: &mut Console, bytes_max: usize) -> Result<Bytes, Error> {
        match self {
            Self::Literal(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
            Self::Stdin => read(&mut console.stdin, bytes_max).map_err(Error::Stdin),
            Self::File(path) => {
                let file = std::fs::File::open(console.directory.join(&path));
                let content = file.and_then(|mut file| read(&mut file, bytes_max));
                content.map_err(|error| Error::File { path, error })
            }
        }
    }
}

fn read(from: &mut dyn Read, bytes_max: usize) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    from.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}
