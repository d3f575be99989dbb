//! From a file's bytes to a module's: expanded, and complete.
//!
//! A module may be compressed with zstd, whatever its file is called: the first bytes decide. It is expanded here, before anything
//! else looks at it, into at most [`MODULE_BYTES_MAX`] bytes, so that a small file cannot take all memory; hashes and sizes are
//! always those of the expanded bytes.
//!
//! *Complete* means that the sections of the binary are all there, in order, each as long as it says, with as many function bodies
//! as functions, and the section in which a module says who it is, which linkers put behind the code. That is cheap (no
//! function body is looked into), and it tells a module from a file that is still being written, which is all it is for. Whether
//! Balsa can run the module is for the check in `wasm` to say. Two things no look at the bytes can find: a plain file that was cut
//! exactly between two of the custom sections after that one, and one that was overwritten in place and holds half of the new and
//! half of the old. The watcher's quiet period is there for these, and a zstd file carries a checksum.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use wasmparser::{Encoding, Parser, Payload, Validator};

use crate::limits::MODULE_BYTES_MAX;
use crate::wasm::METADATA_SECTION;

/// What a zstd frame begins with.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What a skippable zstd frame begins with, but for the lowest four bits.
const ZSTD_SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// What WebAssembly begins with.
const WASM: [u8; 4] = *b"\0asm";

/// Why a file's bytes are no module. The message goes on a sentence that begins with the file's name.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no file.
    #[error("does not exist")]
    Missing,
    /// The file system said no.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// The file, or what it expands to.
    #[error("has more than {MODULE_BYTES_MAX} bytes, which is the most that a module has")]
    TooLarge,
    /// Nothing is in it.
    #[error("is empty")]
    Empty,
    /// It begins with other bytes.
    #[error("is not a WebAssembly module: it begins with {}, not with \\0asm, and it is not compressed with zstd either", start(.0))]
    NotWasm(Vec<u8>),
    /// A section is missing, cut off, or wrong.
    #[error("is not a complete WebAssembly module: {message} (at byte {offset} of {size})")]
    Incomplete {
        /// What the parser said.
        message: String,
        /// Where.
        offset: usize,
        /// Of the whole.
        size: usize,
    },
    /// All there is is well, but this is not all.
    #[error(
        "is not a complete Balsa module: it has no custom section `{METADATA_SECTION}`; generate it with balsa-build and \
         balsa_sdk::export!, and do not strip custom sections"
    )]
    NoMetadata,
    /// Another kind of WebAssembly.
    #[error("is a WebAssembly component; build a core module, for the target wasm32-wasip1")]
    Component,
    /// It cannot be expanded.
    #[error("is not a complete zstd file: {0}")]
    Zstd(&'static str),
}

fn start(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(4)].escape_ascii().to_string()
}

/// Reads the module in the file at `path`.
pub fn read(path: &Path) -> Result<Bytes, Error> {
    module(read_file(path)?)
}

/// Reads a file of at most [`MODULE_BYTES_MAX`] bytes.
fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::Missing,
        _ => Error::Unreadable(error),
    })?;
    if !file.metadata().map_err(Error::Unreadable)?.is_file() {
        return Err(Error::Unreadable(io::Error::other("it is not a file")));
    }
    bounded(file).map_err(Error::Unreadable)?.ok_or(Error::TooLarge)
}

/// The bytes of the module in a file's `bytes`: expanded, complete.
pub fn module(bytes: Vec<u8>) -> Result<Bytes, Error> {
    let wasm = expand(bytes)?;
    complete(&wasm)?;
    Ok(wasm.into())
}

/// Expands what zstd compressed; anything else stays as it is. At most [`MODULE_BYTES_MAX`] bytes either way.
pub fn expand(bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
    if !is_zstd(&bytes) {
        return if bytes.len() > MODULE_BYTES_MAX { Err(Error::TooLarge) } else { Ok(bytes) };
    }
    let (mut rest, mut expanded) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        rest = expand_frame(rest, &mut expanded)?;
    }
    Ok(expanded)
}

fn is_zstd(bytes: &[u8]) -> bool {
    let skippable = |start: &[u8]| start[0] & 0xf0 == ZSTD_SKIPPABLE[0] && start[1..] == ZSTD_SKIPPABLE[1..];
    bytes.first_chunk::<4>().is_some_and(|start| *start == ZSTD || skippable(start))
}

/// Expands the first frame of `bytes`; returns what comes after it.
fn expand_frame<'a>(mut bytes: &'a [u8], expanded: &mut Vec<u8>) -> Result<&'a [u8], Error> {
    const DAMAGED: Error = Error::Zstd("it is cut off or damaged");
    let window = MODULE_BYTES_MAX as u64;
    let mut decoder = match StreamingDecoder::new_with_max_window_size(&mut bytes, window) {
        Ok(decoder) => decoder,
        Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
            return bytes.get(length as usize..).ok_or(DAMAGED);
        }
        Err(FrameDecoderError::WindowSizeTooBig { .. }) => return Err(Error::TooLarge),
        Err(FrameDecoderError::DictNotProvided { .. }) => return Err(Error::Zstd("it needs a dictionary")),
        Err(_) => return Err(DAMAGED),
    };
    let left = MODULE_BYTES_MAX - expanded.len();
    let taken = (&mut decoder).take(left as u64 + 1).read_to_end(expanded).map_err(|_| DAMAGED)?;
    if taken > left {
        return Err(Error::TooLarge);
    }
    let decoder = decoder.into_frame_decoder();
    if !has_its_checksum(&decoder) {
        return Err(Error::Zstd("its checksum does not match"));
    }
    Ok(bytes)
}

/// A frame without a checksum has none to match.
fn has_its_checksum(decoder: &FrameDecoder) -> bool {
    decoder.get_checksum_from_data().is_none_or(|stated| decoder.get_calculated_checksum() == Some(stated))
}

/// Whether `wasm` is a whole WebAssembly module, as far as its sections tell.
pub fn complete(wasm: &[u8]) -> Result<(), Error> {
    let given = &wasm[..wasm.len().min(4)];
    match given {
        [] => return Err(Error::Empty),
        _ if *given != WASM[..given.len()] => return Err(Error::NotWasm(given.to_vec())),
        _ => {}
    }
    let incomplete = |error: wasmparser::BinaryReaderError| Error::Incomplete {
        message: error.message().to_owned(),
        offset: error.offset(),
        size: wasm.len(),
    };
    let mut validator = Validator::new();
    let mut metadata = false;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.map_err(incomplete)?;
        match &payload {
            Payload::Version { encoding: Encoding::Component, .. } => return Err(Error::Component),
            Payload::CustomSection(section) => metadata |= section.name() == METADATA_SECTION,
            _ => {}
        }
        // Looks into sections, and leaves the functions' bodies to the check.
        validator.payload(&payload).map_err(incomplete)?;
    }
    if metadata { Ok(()) } else { Err(Error::NoMetadata) }
}

/// At most [`MODULE_BYTES_MAX`] bytes; `None`: there are more.
pub fn bounded(file: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.take(MODULE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes).filter(|bytes| bytes.len() <= MODULE_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;
    use crate::wasm::embedded::KVSTORE;

    fn compressed(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    fn refused(bytes: impl Into<Vec<u8>>) -> String {
        module(bytes.into()).unwrap_err().to_string()
    }

    #[test]
    fn a_module_is_the_same_plain_and_compressed() {
        assert_eq!(module(KVSTORE.to_vec()).unwrap(), KVSTORE);
        assert_eq!(module(compressed(KVSTORE)).unwrap(), KVSTORE);
    }

    #[test]
    fn a_compressed_file_may_consist_of_several_frames() {
        let (head, tail) = KVSTORE.split_at(1000);
        let skippable = [&[0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let all = [&compressed(head)[..], &skippable, &compressed(tail)].concat();
        assert_eq!(module(all).unwrap(), KVSTORE);
        let cut = [&compressed(KVSTORE)[..], &skippable[..9]].concat();
        assert_eq!(refused(cut), "is not a complete zstd file: it is cut off or damaged");
    }

    /// Each prefix, and not a sample: one that parses would be proposed to the cluster.
    #[test]
    fn no_beginning_of_a_module_is_taken_for_one() {
        let wat = r#"(module (memory 1) (func (export "f") (result i32) i32.const 1) (data (i32.const 0) "data")
            (@custom "balsa.module" "metadata"))"#;
        let wasm = wat::parse_str(wat).unwrap();
        let packed = compressed(&wasm);
        assert!(complete(&wasm).is_ok());
        for cut in 0..wasm.len() {
            assert!(complete(&wasm[..cut]).is_err(), "{cut} bytes of {}", wasm.len());
        }
        for cut in 0..packed.len() {
            assert!(module(packed[..cut].to_vec()).is_err(), "{cut} compressed bytes of {}", packed.len());
        }
    }

    #[test]
    fn the_embedded_module_cut_anywhere_before_its_metadata_is_not_complete() {
        let at = KVSTORE.windows(METADATA_SECTION.len()).rposition(|bytes| bytes == METADATA_SECTION.as_bytes());
        let at = at.expect("it has metadata");
        for cut in (0..at).step_by(97).chain(at - 100..at) {
            assert!(complete(&KVSTORE[..cut]).is_err(), "{cut} of {} bytes", KVSTORE.len());
        }
    }

    #[test]
    fn a_flipped_byte_of_a_compressed_file_is_found() {
        let mut packed = compressed(KVSTORE);
        let middle = packed.len() / 2;
        packed[middle] ^= 0x10;
        assert!(refused(packed).starts_with("is not a complete zstd file: "));
    }

    #[test]
    fn a_small_file_cannot_take_all_memory() {
        let bomb = compressed(&vec![0; MODULE_BYTES_MAX + 1]);
        assert!(bomb.len() < 100_000);
        assert_eq!(refused(bomb), "has more than 33554432 bytes, which is the most that a module has");
        assert!(expand(compressed(&vec![0; MODULE_BYTES_MAX])).is_ok());
        assert!(matches!(expand(vec![0; MODULE_BYTES_MAX + 1]), Err(Error::TooLarge)));
    }

    #[test]
    fn what_is_no_module_is_called_by_its_name() {
        assert_eq!(refused(b""), "is empty");
        assert_eq!(
            refused(b"PK\x03\x04"),
            "is not a WebAssembly module: it begins with PK\\x03\\x04, not with \\0asm, and it is not compressed with zstd either"
        );
        let component = wat::parse_str("(component)").unwrap();
        assert_eq!(refused(component), "is a WebAssembly component; build a core module, for the target wasm32-wasip1");
    }
}
