//! A snapshot's stream, taken apart and verified as it comes: what a receiver, a backup and a rehearsal have in common.
//!
//! Every checksum is looked at, rows come in order, and the trailer at the end agrees with all that came before. What is done
//! with the rows is the caller's business; nothing here touches a disk.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

use super::{FORMAT, FRAME_BYTES_MAX, FRAME_HEAD, FRAME_TAIL, Header, SnapshotError, Trailer};
use crate::ids::Digest;
use crate::state_machine::digest::{StateHash, StateHasher};
use crate::storage::Overlay;

/// Gets the rows of one frame, in order of their keys.
type TakeRows<'a> = &'a mut dyn FnMut(&Overlay) -> Result<(), SnapshotError>;

/// Takes a stream apart.
pub struct SnapshotDecoder {
    header: Option<Header>,
    hasher: StateHasher,
    last_key: Option<Vec<u8>>,
    trailer: Option<Trailer>,
    /// What has come of the next frame.
    buffer: BytesMut,
}

/// What a whole stream held.
#[derive(Debug, Clone)]
pub struct Contents {
    pub(super) header: Header,
    /// Rows, their bytes, and their hash.
    pub state: StateHash,
}

impl Contents {
    /// Index of the last entry in it.
    pub fn index(&self) -> u64 {
        self.header.last_applied.as_ref().map_or(0, |id| id.index)
    }

    /// The rolling digest there.
    pub fn digest(&self) -> Digest {
        Digest::try_from(&self.header.digest[..]).unwrap_or_default()
    }
}

impl Default for SnapshotDecoder {
    fn default() -> Self {
        Self { header: None, hasher: StateHasher::new(), last_key: None, trailer: None, buffer: BytesMut::new() }
    }
}

impl SnapshotDecoder {
    /// Takes the next bytes of the stream, cut anyhow.
    pub fn write(&mut self, bytes: &[u8], rows: TakeRows<'_>) -> Result<(), SnapshotError> {
        self.buffer.extend_from_slice(bytes);
        while let Some((kind, payload)) = self.next_frame()? {
            self.take(kind, &payload, rows)?;
        }
        Ok(())
    }

    /// Ends the stream: whether all of it came.
    pub fn finish(self) -> Result<Contents, SnapshotError> {
        let (Some(header), Some(trailer), true) = (self.header, self.trailer, self.buffer.is_empty()) else {
            return Err(SnapshotError::Damaged("it ends too early"));
        };
        let state = self.hasher.finish();
        if (state.keys, state.bytes, &state.hash[..]) != (trailer.rows, trailer.bytes, &trailer.state_hash) {
            return Err(SnapshotError::Damaged("its rows are not those that were sent"));
        }
        Ok(Contents { header, state })
    }

    /// Takes a whole frame off the buffer, if there is one, with its checksum checked.
    fn next_frame(&mut self) -> Result<Option<(u8, Bytes)>, SnapshotError> {
        let Some(len) = self.buffer.first_chunk().map(|len| u32::from_le_bytes(*len) as usize) else { return Ok(None) };
        if len > FRAME_BYTES_MAX {
            return Err(SnapshotError::Damaged("a frame is too long"));
        }
        if self.buffer.len() < FRAME_HEAD + len + FRAME_TAIL {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(FRAME_HEAD + len + FRAME_TAIL).freeze();
        let crc = u32::from_le_bytes(*frame.last_chunk().expect("a frame is longer than its checksum"));
        if crc32c::crc32c(&frame[FRAME_HEAD - 1..FRAME_HEAD + len]) != crc {
            return Err(SnapshotError::Damaged("a checksum is wrong"));
        }
        let kind = frame[FRAME_HEAD - 1];
        frame.advance(FRAME_HEAD);
        frame.truncate(len);
        Ok(Some((kind, frame)))
    }

    fn take(&mut self, kind: u8, payload: &[u8], rows: TakeRows<'_>) -> Result<(), SnapshotError> {
        match (kind, &self.header, &self.trailer) {
            (b'H', None, None) => self.take_header(payload),
            (b'R', Some(_), None) => rows(&self.rows(payload)?),
            (b'T', Some(_), None) => {
                let trailer = Trailer::decode(payload).map_err(|_| SnapshotError::Damaged("its trailer"))?;
                self.trailer = Some(trailer);
                Ok(())
            }
            _ => Err(SnapshotError::Damaged("its frames are out of order")),
        }
    }

    fn take_header(&mut self, payload: &[u8]) -> Result<(), SnapshotError> {
        let header = Header::decode(payload).map_err(|_| SnapshotError::Damaged("its header"))?;
        if header.format != FORMAT {
            return Err(SnapshotError::Format(header.format));
        }
        self.header = Some(header);
        Ok(())
    }

    fn rows(&mut self, mut payload: &[u8]) -> Result<Overlay, SnapshotError> {
        let mut rows = Overlay::new();
        while !payload.is_empty() {
            let (key, value) = take_bytes(&mut payload)
                .and_then(|key| Some((key, take_bytes(&mut payload)?)))
                .ok_or(SnapshotError::Damaged("a row is cut short"))?;
            if self.last_key.as_deref().is_some_and(|last| last >= key) {
                return Err(SnapshotError::Damaged("its rows are out of order"));
            }
            self.hasher.row(key, value);
            self.last_key = Some(key.to_vec());
            rows.insert(key.to_vec(), Some(value.to_vec()));
        }
        Ok(rows)
    }
}

fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = from.split_first_chunk()?;
    let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *from = rest;
    Some(bytes)
}

impl std::fmt::Debug for SnapshotDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotDecoder").field("header", &self.header).finish_non_exhaustive()
    }
}
