//! Balsa: a replicated, durable, linearizable gRPC service whose logic is your WebAssembly module.

pub mod api;
pub mod cli;
pub mod client;
pub mod command;
pub mod config;
pub mod fatal;
pub mod http;
pub mod ids;
pub mod limits;
pub mod log_store;
pub mod meta;
pub mod node;
pub mod proto;
pub mod raft;
pub mod service;
pub mod state_machine;
pub mod storage;
#[cfg(test)]
mod testing;
pub mod wasm;
