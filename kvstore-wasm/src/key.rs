//! Which state key holds a client's key: the client's bytes behind one byte that says what it is.
//!
//! Today clients' keys are all there is. The byte leaves room beside them, in order and without a clash, for what later
//! versions of the module keep (leases, say): giving it to rows that exist would mean to write them all again.

use balsa_sdk::Status;

use crate::limits::KEY_BYTES_MAX;

/// In front of every client's key.
const CLIENT: u8 = b'k';

/// The state key for a client's key; refuses one that is empty or too long.
pub(crate) fn stored(key: &[u8]) -> Result<Vec<u8>, Status> {
    if key.is_empty() {
        return Err(Status::invalid_argument("key is empty"));
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(Status::invalid_argument("key is longer than 64 KiB"));
    }
    Ok(tagged(key))
}

/// The state key for a bound of a range, which may be empty.
pub(crate) fn bound(key: &[u8]) -> Result<Vec<u8>, Status> {
    if key.len() > KEY_BYTES_MAX {
        return Err(Status::invalid_argument("prefix, start, end or page_token is longer than a key can be"));
    }
    Ok(tagged(key))
}

fn tagged(key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(key.len() + 1);
    stored.push(CLIENT);
    stored.extend_from_slice(key);
    stored
}

/// The client's key that a state key holds.
pub(crate) fn client(stored: &[u8]) -> &[u8] {
    &stored[1..]
}
