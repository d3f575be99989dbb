//! Balsa: a replicated, durable, linearizable gRPC service whose logic is your WebAssembly module.
//!
//! A client's command goes one way: through the front door to the leader, into the log of a majority, and from there through
//! every node's state machine into a fresh instance of the module. The modules of this crate, in the order of that way:
//!
//! ```text
//! client ──gRPC──▶ api ──▶ node ──▶ raft ──▶ log_store (one fsync per group)
//!                                    │  └──▶ the other nodes: the same
//!                                    │ committed
//!                                    ▼
//!                              state_machine ──▶ wasm (fresh instance) ──▶ storage (overlay, then one commit per batch)
//!                                    │
//! client ◀──────── reply ────────────┘
//! ```
//!
//! | module | |
//! |---|---|
//! | [`cli`], [`client`] | the command line, and the client it is built on |
//! | [`config`] | file, environment and arguments to one validated configuration |
//! | [`files`] | what this node's files ask for, and every change of it |
//! | [`node`] | the wiring, the only place that sees all of it: start, commands, queries, duties, status, stop |
//! | [`service`], [`stream`] | the line between the front door and the node; messages on their way from one to the other |
//! | [`api`] | the front door: any module's methods as bytes, reflection, health, statuses |
//! | [`raft`] | openraft and its types, the peer protocol, read index, bootstrap, log time, exchange of digests |
//! | [`log_store`] | Raft's log in segments of our own: the durability promise |
//! | [`state_machine`] | what an entry does: apply, exactly once, active modules, digest, snapshot |
//! | [`wasm`] | runs modules: every knob of determinism; the only place that knows wasmtime |
//! | [`storage`] | the state's schema, transactions and file; the only place that knows redb |
//! | [`http`], [`measure`] | probes and metrics; what is counted and timed on the way |
//! | [`traces`] | spans of sampled calls, for a collector |
//! | [`guest_log`] | what modules say, into this node's log, but not too much of it |
//! | [`command`], [`limits`], [`ids`], [`proto`] | words that all of them share |
//! | [`meta`], [`fatal`] | who this data directory is; how a host fault ends a node |
//!
//! Calls go from left to right, answers come back as results or through channels. What stages share beyond that are plain types
//! (`raft::types`, `wasm::State`). `node` alone wires them.
//!
//! # Invariants
//!
//! - **Acknowledged means safe.** A command is answered after its entry is fsynced on a majority and applied.
//! - **The log decides.** What an entry does follows from the entries and the state alone: no clock, no randomness, no
//!   configuration, no order of a hash map. What could change a result is itself in the log; a node's files only propose.
//! - **A call ends in one of three ways.** A message, a status of the module and a trap are outcomes: the same on every node,
//!   digested, remembered for a retry. A refusal is the host's deterministic no. A host fault is never an answer: it stops
//!   the node.
//! - **All or nothing.** A command's writes, and what is remembered of it, land together or not at all.
//! - **The log first.** The state on disk is never ahead of the log on disk, and can be computed again from there.
//! - **Acknowledged data is never cut off silently.** Damage is an error that names its place.
//! - **A name is not an identity.** A node's id lives exactly as long as its log.
//! - **A limit on everything**, and nothing that a client or a module does makes a node panic.
//!
//! `docs/architecture.md` is the guided tour, with the reasons.

pub mod api;
pub mod cli;
pub mod client;
pub mod command;
pub mod config;
pub mod fatal;
pub mod files;
#[cfg(test)]
mod fuzz;
pub mod guest_log;
pub mod http;
pub mod ids;
pub mod limits;
pub mod log_store;
pub mod measure;
pub mod meta;
pub mod node;
pub mod proto;
pub mod raft;
pub mod service;
pub mod socket;
pub mod state_machine;
pub mod storage;
pub mod stream;
#[cfg(test)]
mod testing;
pub mod traces;
pub mod volume;
pub mod wasm;
