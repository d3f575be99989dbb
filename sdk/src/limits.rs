//! The host's limits. Crossing one of them stops the call with a trap, so a module that takes sizes from its clients checks
//! them first and answers with a [`Status`](crate::Status).

/// A state key as it is stored: 64 KiB of a client's key, and room for what a module puts before it. Keys are not empty.
pub const STORED_KEY_BYTES_MAX: usize = 64 * 1024 + 64;
/// A state value as it is stored: 1 MiB of a client's value, and room for what a module stores with it.
pub const STORED_BYTES_MAX: usize = 1024 * 1024 + 64;
/// An encoded response. gRPC clients refuse messages above 4 MiB unless told otherwise, and framing needs some of it.
pub const RESULT_BYTES_MAX: usize = 4 * 1024 * 1024 - 64 * 1024;
/// An encoded [`Status`](crate::Status), details included. The SDK shortens what is longer.
pub const STATUS_BYTES_MAX: usize = 4 * 1024;
/// Items of one page of a scan.
pub const SCAN_ITEMS_MAX: usize = 10_000;
/// Bytes of one page of a scan, unless its only item is longer.
pub const SCAN_BYTES_MAX: usize = RESULT_BYTES_MAX;
/// A log line; the host cuts what is longer.
pub const LOG_BYTES_MAX: usize = 4 * 1024;
