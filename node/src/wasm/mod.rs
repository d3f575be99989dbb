//! Runs modules: the only place that knows wasmtime.
//!
//! A [`Module`] is a WebAssembly binary that was checked, instrumented and compiled once; a call of one of its methods gets a
//! fresh instance, an input, a [`Context`] and a [`State`] to read and write, and [`Finished`] says what came of it.
//!
//! ```text
//! bytes ─▶ check ─▶ stack (instrument) ─▶ engine (compile) ─▶ start-up run ─▶ Module
//!                                                                               │ call
//!                            State ◀─ host/{state,input,context,log,wasi} ◀─ instance ─▶ outcome
//! ```
//!
//! # Words
//!
//! A call ends in one of three ways. The guest's own answer, a message or a status, is deterministic. So is a **trap**, and
//! only its class is replicated: its text and backtrace are this node's. A **host fault** is neither: the disk failed, memory
//! is short, our own stack ran over. It never becomes a reply, since other nodes may not have met it; it stops this node.
//!
//! # Invariants
//!
//! - The outcome of a command and the fuel it used depend on the module's bytes, the method, the input, the context, the
//!   limits and the state it read. Not on the CPU, the load of the machine, earlier calls, or how often a node was restarted.
//!   `engine.rs` holds every knob of wasmtime that matters to this, `stack.rs` bounds recursion where wasmtime's own bound
//!   depends on the machine, and `host/` charges fuel for what the host does on the guest's behalf, before it does it.
//! - Nothing survives a call. An instance is used once.
//! - A guest can't make the host panic, allocate without bound, or hold a thread for longer than its fuel lasts.
//!
//! # What is left out
//!
//! Rolling back: a call that traps leaves its writes in the `State` it was given, and its owner throws that overlay away.
//! Compiled code is kept in memory only. A query's deadline is looked at when the guest calls the host; between two host
//! calls only fuel bounds it, since the interruption wasmtime offers for that would slow every loop of every command too.
#![deny(clippy::iter_over_hash_type, clippy::disallowed_methods)]

mod call;
mod check;
pub mod compat;
pub mod embedded;
mod engine;
mod host;
mod inspection;
mod metadata;
mod module;
mod outcome;
mod services;
mod stack;
mod stream;
mod transition;

#[cfg(test)]
mod tests;

pub use call::{Call, Context, Finished, LogLine, ScanRange, State, Visit};
pub use check::Rejection;
pub use engine::{Engine, Options, THREAD_STACK_BYTES};
pub use inspection::{Described, Inspection};
pub(crate) use metadata::SECTION as METADATA_SECTION;
pub use module::{Method, MethodKind, Module};
pub use outcome::{Cut, HostFault};
pub use stream::Sink;
pub use transition::Transition;
