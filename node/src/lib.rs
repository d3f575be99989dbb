//! Balsa: a replicated, durable, linearizable gRPC service whose logic is your WebAssembly module.

pub mod command;
pub mod ids;
pub mod limits;
pub mod proto;
pub mod raft;
pub mod service;
pub mod state_machine;
pub mod storage;
#[cfg(test)]
mod testing;
pub mod wasm;
pub mod meta;
