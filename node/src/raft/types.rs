//! openraft's type parameters, chosen once.

use crate::command::{Command, Reply};
use crate::ids::NodeId;

/// Where a member is reached, and what people call it. Its identity is its [`NodeId`], not this.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    /// `balsa-0`
    pub name: String,
    /// `host:port` for nodes.
    pub peer_addr: String,
    /// `host:port` for clients.
    pub client_addr: String,
}

openraft::declare_raft_types!(
    /// Standard Raft: one leader a term, so that a log id is (term, index).
    pub TypeConfig:
        D = Command,
        R = Reply,
        NodeId = NodeId,
        Node = Member,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, NodeId>,
);

/// (term, index).
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// A vote, given or granted by a quorum.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// A log entry.
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// Who belongs to the cluster.
pub type Membership = openraft::Membership<NodeId, Member>;
/// A membership and the entry that set it.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
