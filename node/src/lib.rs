//! Balsa: a replicated, durable, linearizable gRPC service whose logic is your WebAssembly module.

pub mod command;
pub mod config;
pub mod ids;
pub mod limits;
pub mod proto;
pub mod raft;
pub mod service;
pub mod wasm;
