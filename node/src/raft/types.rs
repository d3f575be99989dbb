//! openraft's type parameters, chosen once.

use openraft::impls::{BoxedErrorSource, InlineBatch, OneshotResponder, Vote as RaftVote, leader_id_std};
use openraft::type_config::alias;

use crate::command::{Command, Reply};
use crate::config;
use crate::ids::NodeId;
use crate::traces::Parent;

/// Where a member is reached, and what people call it. Its identity is its [`NodeId`], not this.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    /// `balsa-0`
    pub name: String,
    /// `host:port` for nodes.
    pub peer_addr: String,
    /// `host:port` for clients.
    pub client_addr: String,
    /// An operator added it, beyond what the files want: they do not remove it.
    pub kept: bool,
}

/// What a file says about a node.
impl From<&config::Member> for Member {
    fn from(from: &config::Member) -> Self {
        Self {
            name: from.name.clone(),
            peer_addr: from.peer_addr.clone(),
            client_addr: from.client_addr.clone(),
            kept: false,
        }
    }
}

/// Standard Raft: one leader a term, so that a log id is (term, index). Written out, since `declare_raft_types!` has no room
/// for a responder of our choice; ours has one channel, where openraft's default also has one for the commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Command;
    type R = Reply;
    type NodeId = NodeId;
    type Node = Member;
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, NodeId>;
    type Vote = RaftVote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Command, NodeId, Member>;
    type Entry = openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = openraft_rt_tokio::TokioRuntime;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

/// (term, index).
pub type LogId = alias::LogIdOf<TypeConfig>;
/// A vote, given or granted by a quorum.
pub type Vote = alias::VoteOf<TypeConfig>;
/// A log entry.
pub type Entry = alias::EntryOf<TypeConfig>;
/// Who belongs to the cluster.
pub type Membership = openraft::Membership<NodeId, Member>;
/// A membership and the entry that set it.
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;

/// If an entry is traced: under what.
pub fn trace_of(entry: &Entry) -> Option<&Parent> {
    match &entry.payload {
        openraft::EntryPayload::Normal(command) => command.trace.as_deref(),
        _ => None,
    }
}
