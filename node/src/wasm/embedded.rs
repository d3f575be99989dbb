//! The module that comes with the binary.

/// `kvstore-wasm`, as `build.rs` built it: what a cluster serves when its first leader was given no other module.
pub const KVSTORE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kvstore.wasm"));

/// The name it carries.
pub const NAME: &str = "kvstore-wasm";
