//! Generated from `node/proto/` and `kvstore-wasm/proto/`; the comments there are the documentation.
#![allow(missing_docs, missing_debug_implementations, unreachable_pub, clippy::all)]

mod generated {
    include!(concat!(env!("OUT_DIR"), "/protos.rs"));
}

pub use generated::balsa::{admin::v1 as admin, command::v1 as command, peer::v1 as peer, raft::v1 as raft};

/// `kvstore.v1`, the default module's messages, for the command line's short forms. A node never looks into them.
pub mod kvstore {
    include!(concat!(env!("OUT_DIR"), "/kvstore.v1.rs"));
}
