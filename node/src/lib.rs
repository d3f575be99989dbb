//! Balsa: a replicated, durable, linearizable gRPC service whose logic is your WebAssembly module.

pub mod command;
pub mod ids;
pub mod limits;
pub mod log_store;
pub mod proto;
pub mod raft;
pub mod service;
pub mod wasm;
