//! What a request may ask for. `proto/kvstore.proto` tells the users.

use balsa_sdk::Status;
use balsa_sdk::limits::RESULT_BYTES_MAX;

/// A client's key.
pub(crate) const KEY_BYTES_MAX: usize = 64 * 1024;
/// A client's value.
pub(crate) const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// A response, as long as it is being put together: the rest is room for a page token, which holds a key, and for framing.
pub(crate) const RESPONSE_BYTES_MAX: usize = RESULT_BYTES_MAX - 2 * KEY_BYTES_MAX;
/// Keys of one page of a list.
pub(crate) const LIST_ITEMS_MAX: usize = 10_000;
/// Keys that one call deletes: some ten milliseconds in which nothing else is applied.
pub(crate) const DELETE_ITEMS_MAX: usize = 10_000;
/// Keys that one call counts: far below what the fuel of a query allows.
pub(crate) const COUNT_ITEMS_MAX: usize = 100_000;
/// Comparisons, and operations of each branch, of a transaction. etcd's default, so that its users need not think again.
pub(crate) const TXN_OPERATIONS_MAX: usize = 128;

/// Refuses a value that is too long.
pub(crate) fn check_value(value: &[u8]) -> Result<(), Status> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(Status::invalid_argument("value is longer than 1 MiB"));
    }
    Ok(())
}

/// Said when responses do not fit together.
pub(crate) fn response_too_large() -> Status {
    Status::resource_exhausted("the response would be larger than 4 MiB - 64 KiB, which is what a client takes")
}
