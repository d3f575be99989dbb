//! Balsa: a replicated, durable, linearizable gRPC service whose logic is your WebAssembly module.

pub mod cli;
pub mod client;
pub mod api;
pub mod command;
pub mod http;
pub mod ids;
pub mod limits;
pub mod proto;
pub mod raft;
pub mod service;
pub mod wasm;
