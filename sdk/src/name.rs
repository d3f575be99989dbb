//! Names of items and maps, and where in the state each of them is.
//!
//! An [`Item`](crate::Item) is stored under its name with a byte 0 behind it, an entry of a [`Map`](crate::Map) under the
//! map's name with a byte 1 behind it and then the entry's [key](crate::Key). No name contains either byte, so neither a name
//! that another one begins with nor an item and a map of one name ever meet. A module that also has keys of its own making
//! keeps them apart by a first byte that is in no name: a `/`, say.

use crate::scan::Range;
use crate::status::Status;

/// Behind the name of an item.
const ITEM: u8 = 0;
/// Behind the name of a map.
const MAP: u8 = 1;

/// With the byte behind it, half of the room that the host has beside a client's key of 64 KiB.
const NAME_BYTES_MAX: usize = 31;

/// Stops the compiler, if the name is that of a constant, where it is not one.
pub(crate) const fn check(name: &str) {
    let bytes = name.as_bytes();
    assert!(!bytes.is_empty() && bytes.len() <= NAME_BYTES_MAX, "an item's or map's name has 1 to 31 bytes");
    let mut i = 0;
    while i < bytes.len() {
        assert!(
            bytes[i].is_ascii_alphanumeric() || matches!(bytes[i], b'_' | b'-' | b'.'),
            "an item's or map's name is made of ASCII letters, digits, `_`, `-` and `.`"
        );
        i += 1;
    }
}

/// The key of an item.
pub(crate) fn item_key(name: &str) -> Vec<u8> {
    named(name, ITEM, 0)
}

/// What the keys of a map begin with, with room for most keys.
pub(crate) fn map_prefix(name: &str) -> Vec<u8> {
    named(name, MAP, 64)
}

/// All keys of a map.
pub(crate) fn map_range(name: &str) -> Range {
    Range::between(named(name, MAP, 0), named(name, MAP + 1, 0))
}

fn named(name: &str, end: u8, room: usize) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 1 + room);
    key.extend_from_slice(name.as_bytes());
    key.push(end);
    key
}

/// A status that says where it happened: in which item, or in which map and at which key (as it is stored, escaped).
#[cold]
#[inline(never)]
pub(crate) fn located(status: Status, stored_key: &[u8]) -> Status {
    let end = stored_key.iter().position(|byte| *byte <= MAP).unwrap_or(stored_key.len());
    let name = stored_key[..end].escape_ascii();
    let place = match stored_key.get(end) {
        Some(&MAP) => format!("map `{name}`, key `{}`", stored_key[end + 1..].escape_ascii()),
        _ => format!("item `{name}`"),
    };
    status.at(&place)
}
