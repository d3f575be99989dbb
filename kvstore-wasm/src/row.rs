//! What is stored under a key: version, indexes and value.
//!
//! A byte that says the layout (1), then three varints (version, index of creation, and how much later the last put was),
//! then the value. A key that was put once costs six bytes more than its value at index one million. A later layout can
//! take another first byte, and rows can change to it as they are put.

use balsa_sdk::prost::encoding::{decode_varint, encode_varint};
use balsa_sdk::{Bytes, Context, Status, View};

use crate::KeyValue;

/// The first byte.
const LAYOUT: u8 = 1;
/// The longest header: the first byte and three varints of ten bytes.
const HEADER_BYTES_MAX: usize = 31;

/// All about a key but its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u64,
    pub(crate) create_index: u64,
    pub(crate) mod_index: u64,
}

impl Header {
    /// What a key that does not exist has.
    pub(crate) const ABSENT: Self = Self { version: 0, create_index: 0, mod_index: 0 };

    /// Of the key's next put, at `index`.
    pub(crate) fn next(self, index: u64) -> Self {
        let create_index = if self.version == 0 { index } else { self.create_index };
        Self { version: self.version + 1, create_index, mod_index: index }
    }

    /// Reads it off the front of `bytes`.
    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let (&layout, rest) = bytes.split_first()?;
        *bytes = rest;
        if layout != LAYOUT {
            return None;
        }
        let version = decode_varint(bytes).ok()?;
        let create_index = decode_varint(bytes).ok()?;
        let mod_index = create_index.checked_add(decode_varint(bytes).ok()?)?;
        Some(Self { version, create_index, mod_index })
    }

    fn encode(self, row: &mut Vec<u8>) {
        row.push(LAYOUT);
        encode_varint(self.version, row);
        encode_varint(self.create_index, row);
        encode_varint(self.mod_index - self.create_index, row);
    }
}

/// Reads the header under a state key without its value; [`Header::ABSENT`] if there is none.
pub(crate) fn header(ctx: &View, key: &[u8]) -> Result<Header, Status> {
    match ctx.get_head(key, HEADER_BYTES_MAX) {
        Some(row) => Header::decode(&mut row.as_slice()).ok_or_else(broken),
        None => Ok(Header::ABSENT),
    }
}

/// Reads header and value under a state key.
pub(crate) fn get(ctx: &View, key: &[u8]) -> Result<Option<(Header, Bytes)>, Status> {
    let Some(row) = ctx.get(key) else { return Ok(None) };
    let (header, value) = decode(&row)?;
    Ok(Some((header, row.slice_ref(value))))
}

/// Stores a row under a state key.
pub(crate) fn put(ctx: &mut Context, key: &[u8], header: Header, value: &[u8]) {
    let mut row = Vec::with_capacity(HEADER_BYTES_MAX + value.len());
    header.encode(&mut row);
    row.extend_from_slice(value);
    ctx.put(key, &row);
}

/// Takes a row apart.
pub(crate) fn decode(row: &[u8]) -> Result<(Header, &[u8]), Status> {
    let mut rest = row;
    let header = Header::decode(&mut rest).ok_or_else(broken)?;
    Ok((header, rest))
}

/// A row as clients see it.
pub(crate) fn key_value(key: Bytes, header: Header, value: Bytes) -> KeyValue {
    let Header { version, create_index, mod_index } = header;
    KeyValue { key, value, version, create_index, mod_index }
}

/// Only this module writes rows, so this is a newer version's, or a mistake.
#[cold]
fn broken() -> Status {
    Status::data_loss("a stored row has a layout that this version of the module does not know")
}
