//! What the node offers to its front end: the line between the gRPC surface (`api`) and everything behind it.
//!
//! A trait, since there are two of it: the node, and the fake that the tests of `api` talk to.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::command::{Outcome, Refusal, TrapClass};
use crate::proto::{admin, command};
use crate::stream::Messages;
use crate::traces::Parent;
use crate::wasm::{HostFault, Method, Module};

/// A client's command.
#[derive(Debug, Clone)]
pub struct Execute {
    /// Full gRPC path.
    pub method: String,
    /// The encoded request message.
    pub request: Bytes,
    /// Idempotency key, if the client sent one.
    pub key: Option<String>,
    /// When the client stops waiting. A command that was proposed is not cancelled by it.
    pub deadline: Option<Instant>,
    /// If it is traced: under what.
    pub trace: Option<Parent>,
}

/// How a command or a query ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// For a command the log index where it took effect, for a query the index it read at.
    pub index: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// Whether this is the stored outcome of an earlier attempt with the same key.
    pub replayed: bool,
    /// Text of a trap, for the author.
    pub trap_detail: Option<String>,
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Sees every command that was answered before the query arrived.
    Linearizable,
    /// This node's state as it is, but not before `min_index` (0: whatever it is).
    Stale {
        /// From the `balsa-index` of an earlier reply: read your writes.
        min_index: u64,
    },
}

/// A client's query.
#[derive(Debug, Clone)]
pub struct Query {
    /// Full gRPC path.
    pub method: String,
    /// The encoded request message.
    pub request: Bytes,
    /// How fresh.
    pub consistency: Consistency,
    /// When the client stops waiting.
    pub deadline: Option<Instant>,
}

/// A query that answers with a stream, and has begun to.
#[derive(Debug)]
pub struct Streaming {
    /// The index it reads at.
    pub index: u64,
    /// Its messages, and how it ends.
    pub messages: Messages,
}

/// Why a call has no outcome. Unless it says otherwise, the command was surely not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// This node cannot propose and was asked not to forward (or was forwarded to by mistake).
    #[error("this node is not the leader{}", .leader.as_ref().map(|at| format!("; the leader's client address is {at}")).unwrap_or_default())]
    NotLeader {
        /// The leader's client address, if known.
        leader: Option<String>,
    },
    /// No leader is known, or it does not answer.
    #[error("no leader is known at present; an election may be under way")]
    NoLeader,
    /// The node does not serve yet.
    #[error("the node is not ready: {0}")]
    NotReady(String),
    /// The genesis entry is not applied yet.
    #[error("no module is active yet")]
    NoModule,
    /// A queue is full.
    #[error("overloaded: {0}")]
    Overloaded(&'static str),
    /// The command was proposed, and whether it was applied is not known: retry with the same idempotency key.
    #[error("the command was proposed but its outcome is not known; retry it with the same idempotency-key")]
    OutcomeUnknown,
    /// No active module serves the method.
    #[error("no active module serves this method")]
    UnknownMethod,
    /// The deadline passed. For a command: it may still be applied.
    #[error("the deadline passed before the outcome was known")]
    Deadline,
    /// The client of a stream did not read on.
    #[error("the client took nothing of the stream for too long")]
    SlowClient,
    /// The node's state differs from the majority's.
    #[error("this node has fenced itself: {0}")]
    Fenced(String),
    /// The node is stopping.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// What an operator asked for about a module cannot be done.
    #[error("{0}")]
    Module(String),
    /// The idempotency key cannot be one.
    #[error("the idempotency-key is not valid: {0}")]
    KeyInvalid(String),
}

/// What is served at this moment: the active modules, in order of their names.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Ascending by name.
    pub modules: Vec<Active>,
}

/// An active module.
#[derive(Debug, Clone)]
pub struct Active {
    /// Its code and descriptors.
    pub module: Module,
    /// The log index of its activation.
    pub generation: u64,
}

impl Catalog {
    /// Who serves `path`.
    pub fn method(&self, path: &str) -> Option<(&Active, &Method)> {
        self.modules.iter().find_map(|active| Some((active, active.module.method(path)?)))
    }
}

/// A snapshot's stream (`state_machine/snapshot.rs`), in pieces of about 1 MiB. It ends early after a fault.
pub type BackupStream = BoxStream<'static, Result<Bytes, HostFault>>;

/// What a change of a module has to say as it goes; the last one says what came of it.
pub type Events = BoxStream<'static, Result<admin::ModulePushResponse, ServiceError>>;

/// One of [`crate::limits::PUSHES_MAX`]; free again when it is dropped.
pub type Place = tokio::sync::OwnedSemaphorePermit;

/// Why a module was refused, in words: those of the log, where it has some.
pub fn why_refused(refused: &command::Refused) -> String {
    let trap = TrapClass::from_number(refused.trap).map(|class| format!("its init or migrate failed: {class}"));
    let status = refused.status.as_ref().map(|status| format!("its init or migrate refused: {}", status.message));
    let refusal = Refusal::from_number(refused.refusal).map(|refusal| refusal.to_string());
    let words = Some(refused.reason.clone()).filter(|reason| !reason.is_empty());
    words.or(trap).or(status).or(refusal).unwrap_or_else(|| "a newer version of balsa knows why".to_owned())
}

/// The node, as its front end sees it.
pub trait Backend: Clone + Send + Sync + 'static {
    /// Runs a command through the log, forwarding it to the leader where this node is not.
    fn execute(&self, command: Execute) -> impl Future<Output = Result<Executed, ServiceError>> + Send;
    /// Runs a query on this node.
    fn query(&self, query: Query) -> impl Future<Output = Result<Executed, ServiceError>> + Send;
    /// Runs a query that answers with a stream on this node. Dropping the stream stops the query.
    fn query_stream(&self, query: Query) -> impl Future<Output = Result<Streaming, ServiceError>> + Send;
    /// What is served. Cheap.
    fn catalog(&self) -> Arc<Catalog>;
    /// Waits until this node has caught up with the leader's commit, so that `catalog` is current.
    fn refresh(&self) -> impl Future<Output = Result<(), ServiceError>> + Send;
    /// The cluster as this node sees it.
    fn status(&self) -> impl Future<Output = admin::StatusResponse> + Send;
    /// Hashes this node's state after entry `index`, or the present one if that is 0; without a hash if it is not there, and will not
    /// be soon.
    fn deep_check(&self, index: u64) -> impl Future<Output = Result<admin::DeepCheckResponse, ServiceError>> + Send;
    /// The whole state at one index, with all that was answered before.
    fn backup(&self) -> impl Future<Output = Result<BackupStream, ServiceError>> + Send;
    /// What became of `module`, or of all modules, oldest first.
    fn module_history(
        &self,
        module: Option<String>,
    ) -> impl Future<Output = Result<Vec<command::Activation>, ServiceError>> + Send;
    /// A place for a module that is about to be pushed, if one is free.
    fn push_place(&self) -> Result<Place, ServiceError>;
    /// Makes `wasm` a module.
    fn module_push(&self, push: admin::ModulePush, wasm: Bytes, place: Place) -> Events;
    /// Tries again what the files want and was refused or waits; the names.
    fn module_retry(
        &self,
        request: admin::ModuleRetryRequest,
    ) -> impl Future<Output = Result<Vec<String>, ServiceError>> + Send;
    /// Deletes the state of a module that no files want; how many rows that were.
    fn module_drop(&self, module: String) -> impl Future<Output = Result<u64, ServiceError>> + Send;
    /// Whether clients should be sent here.
    fn ready(&self) -> bool;
    /// `balsa-0`
    fn node_name(&self) -> &str;
}
