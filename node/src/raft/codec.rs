//! openraft's types to and from our protobuf forms (`proto/raft.proto`), the same on disk and on the wire.

use std::collections::{BTreeMap, BTreeSet};

use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::vote::RaftLeaderId;

use super::types::{Entry, LogId, Member, Membership, StoredMembership, TypeConfig, Vote};
use crate::command::Command;
use crate::ids::NodeId;
use crate::proto::raft as pb;

/// Bytes that are not what a node of this cluster wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what}: {why}")]
pub struct Malformed {
    what: &'static str,
    why: String,
}

fn malformed(what: &'static str, why: impl ToString) -> Malformed {
    Malformed { what, why: why.to_string() }
}

type LeaderId = openraft::type_config::alias::LeaderIdOf<TypeConfig>;

/// The log id (term, index).
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

impl From<&LogId> for pb::LogId {
    fn from(id: &LogId) -> Self {
        Self { term: id.committed_leader_id().term, index: id.index() }
    }
}

impl From<pb::LogId> for LogId {
    fn from(id: pb::LogId) -> Self {
        log_id(id.term, id.index)
    }
}

impl From<&Vote> for pb::Vote {
    fn from(vote: &Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.voted_for.0, committed: vote.committed }
    }
}

impl From<pb::Vote> for Vote {
    fn from(vote: pb::Vote) -> Self {
        Self { leader_id: LeaderId::new(vote.term, NodeId(vote.node)), committed: vote.committed }
    }
}

impl From<&Member> for pb::Member {
    fn from(member: &Member) -> Self {
        Self {
            name: member.name.clone(),
            peer_addr: member.peer_addr.clone(),
            client_addr: member.client_addr.clone(),
            kept: member.kept,
        }
    }
}

impl From<pb::Member> for Member {
    fn from(member: pb::Member) -> Self {
        Self { name: member.name, peer_addr: member.peer_addr, client_addr: member.client_addr, kept: member.kept }
    }
}

impl From<&Membership> for pb::Membership {
    fn from(membership: &Membership) -> Self {
        let configs = membership.get_joint_config().iter();
        let nodes: BTreeMap<_, _> = membership.nodes().collect();
        Self {
            configs: configs
                .map(|voters| pb::membership::Config { voters: voters.iter().map(|id| id.0).collect() })
                .collect(),
            nodes: nodes
                .into_iter()
                .map(|(id, member)| pb::membership::Node { id: id.0, member: Some(member.into()) })
                .collect(),
        }
    }
}

impl TryFrom<pb::Membership> for Membership {
    type Error = Malformed;

    fn try_from(membership: pb::Membership) -> Result<Self, Malformed> {
        let configs: Vec<BTreeSet<NodeId>> =
            membership.configs.into_iter().map(|config| config.voters.into_iter().map(NodeId).collect()).collect();
        let nodes: BTreeMap<NodeId, Member> = membership
            .nodes
            .into_iter()
            .map(|node| (NodeId(node.id), node.member.unwrap_or_default().into()))
            .collect();
        if configs.is_empty() && nodes.is_empty() {
            return Ok(Self::default());
        }
        Self::new(configs, nodes).map_err(|error| malformed("membership", error))
    }
}

impl From<&StoredMembership> for pb::StoredMembership {
    fn from(stored: &StoredMembership) -> Self {
        Self { log_id: stored.log_id().as_ref().map(Into::into), membership: Some(stored.membership().into()) }
    }
}

impl TryFrom<pb::StoredMembership> for StoredMembership {
    type Error = Malformed;

    fn try_from(stored: pb::StoredMembership) -> Result<Self, Malformed> {
        let membership = stored.membership.unwrap_or_default().try_into()?;
        Ok(Self::new(stored.log_id.map(Into::into), membership))
    }
}

impl From<&Entry> for pb::Entry {
    fn from(entry: &Entry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(command) => Some(pb::entry::Payload::Command(command.bytes.clone())),
            EntryPayload::Membership(membership) => Some(pb::entry::Payload::Membership(membership.into())),
        };
        Self { term: entry.log_id.committed_leader_id().term, index: entry.log_id.index(), payload }
    }
}

/// The entry that `entry` encodes. (A function: openraft's generic `Entry` leaves no room for a `TryFrom` here.)
pub fn decode_entry(entry: pb::Entry) -> Result<Entry, Malformed> {
    let payload = match entry.payload {
        None => EntryPayload::Blank,
        Some(pb::entry::Payload::Command(bytes)) => EntryPayload::Normal(Command::encoded(bytes)),
        Some(pb::entry::Payload::Membership(membership)) => EntryPayload::Membership(membership.try_into()?),
    };
    Ok(Entry::new(log_id(entry.term, entry.index), payload))
}
