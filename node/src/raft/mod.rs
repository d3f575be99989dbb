//! Consensus: openraft, its types, and how nodes talk to each other.
//!
//! Reading order: [`types`] (openraft's parameters), [`codec`] (our protobuf forms), [`apply`] (the way from a committed
//! entry to the state machine), [`network`], [`peers`] and [`connection`] (the way out), [`peer_service`] (the way in),
//! [`read_index`] (when a query may read), [`clock`] (log time), [`bootstrap`] (how a cluster begins), [`exchange`] (how nodes find out that their
//! states differ).

pub mod apply;
pub mod bootstrap;
pub mod clock;
pub mod codec;
pub mod connection;
pub mod exchange;
pub mod network;
pub mod peer_server;
pub mod peer_service;
pub mod peers;
pub mod read_index;
pub mod snapshot;
#[cfg(test)]
mod suite;
pub mod types;

use std::future::Future;

use crate::ids::NodeId;
use crate::proto::peer as pb;
use crate::service::{Events, Executed, ServiceError};
use crate::state_machine::Receiver;
use crate::traces::Parent;

/// openraft with our types.
pub type Raft = openraft::Raft<types::TypeConfig, apply::Applier>;

/// What the peer service needs of the node around it. The node implements it; so the peer service does not know the node.
pub trait Host: Send + Sync + 'static {
    /// What receives snapshots.
    fn receiver(&self) -> &Receiver;
    /// Confirms with a majority that this node leads; the index to read at.
    fn confirm_leadership(&self) -> impl Future<Output = Result<u64, ServiceError>> + Send;
    /// Runs a command that another node forwarded, if this node leads.
    fn execute_as_leader(
        &self,
        request: pb::ExecuteRequest,
        trace: Option<Parent>,
    ) -> impl Future<Output = Result<Executed, ServiceError>> + Send;
    /// Logs an entry about modules that another node's operator asks for, if this node leads.
    fn operate_as_leader(
        &self,
        request: pb::ProposeRequest,
    ) -> impl Future<Output = Result<Executed, ServiceError>> + Send;
    /// Conducts the change of an uploaded module, if this node leads.
    fn change_as_leader(&self, request: pb::ChangeRequest)
    -> impl Future<Output = Result<Events, ServiceError>> + Send;
    /// Checks and compiles an uploaded module.
    fn preflight(&self, request: pb::PreflightRequest) -> impl Future<Output = pb::PreflightResponse> + Send;
    /// A part of a module that this node's files hold.
    fn fetch(&self, request: pb::FetchRequest) -> pb::FetchResponse;
    /// Takes in a peer's status and gives this node's.
    fn exchange(&self, from: NodeId, request: pb::ExchangeRequest) -> pb::ExchangeResponse;
    /// All recent digests.
    fn digests(&self) -> pb::DigestsResponse;
    /// Who this node is.
    fn identify(&self) -> impl Future<Output = pb::IdentifyResponse> + Send;
    /// Whether this node votes and acknowledges entries already.
    fn takes_part(&self) -> bool;
    /// Lets a node join, if this node leads; else passes the question on.
    fn join(&self, request: pb::JoinRequest) -> impl Future<Output = pb::JoinResponse> + Send;
    /// What this node remembers of another.
    fn recall(&self, id: NodeId) -> pb::RecallResponse;
    /// Whether a node belongs to the cluster.
    fn standing(&self, request: pb::StandingRequest) -> impl Future<Output = pb::StandingResponse> + Send;
    /// Changes the members for another node's operator, if this node leads.
    fn members(&self, request: crate::proto::admin::MemberChange) -> impl Future<Output = pb::MembersResponse> + Send;
    /// Joins a cluster that is being bootstrapped, or says why not.
    fn adopt(&self, request: pb::AdoptRequest) -> impl Future<Output = Result<NodeId, String>> + Send;
}

impl From<&Executed> for pb::Executed {
    fn from(executed: &Executed) -> Self {
        use prost::Message;
        Self {
            index: executed.index,
            outcome: crate::proto::command::Outcome::from(&executed.outcome).encode_to_vec().into(),
            replayed: executed.replayed,
            trap_detail: executed.trap_detail.clone().unwrap_or_default(),
        }
    }
}

impl From<&ServiceError> for pb::Failure {
    fn from(error: &ServiceError) -> Self {
        use pb::failure::Kind;
        let kind = match error {
            ServiceError::NotLeader { .. } | ServiceError::NoLeader => Kind::NotLeader,
            ServiceError::Overloaded(_) => Kind::Overloaded,
            ServiceError::OutcomeUnknown | ServiceError::Deadline => Kind::OutcomeUnknown,
            _ => Kind::NotReady,
        };
        Self { kind: kind as i32, text: error.to_string() }
    }
}

impl From<pb::Failure> for ServiceError {
    fn from(failure: pb::Failure) -> Self {
        use pb::failure::Kind;
        match failure.kind() {
            Kind::NotLeader => Self::NotLeader { leader: None },
            Kind::NotReady => Self::NotReady(failure.text),
            Kind::Overloaded => Self::Overloaded("the leader's queue of commands is full"),
            Kind::Unspecified | Kind::OutcomeUnknown => Self::OutcomeUnknown,
        }
    }
}
