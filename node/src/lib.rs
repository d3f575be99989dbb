//! Balsa: a replicated, durable, linearizable gRPC service whose logic is your WebAssembly module.

pub mod api;
pub mod client;
pub mod command;
pub mod fatal;
pub mod http;
pub mod ids;
pub mod limits;
pub mod meta;
pub mod proto;
pub mod raft;
pub mod service;
pub mod wasm;
