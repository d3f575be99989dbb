//! The way in and the way out, as the leader sees them: who may join, and who does not belong any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use openraft::ChangeMembers;
use openraft::raft::Precondition;

use super::{Node, Standing};
use crate::ids::NodeId;
use crate::node::Leader;
use crate::proto::{admin, peer as pb};
use crate::raft::bootstrap::who_is_at;
use crate::raft::peers::Purpose;
use crate::raft::types::{Member, StoredMembership};

/// How long the leader has to answer a node that passes a question on.
const ANSWER_WITHIN: Duration = Duration::from_secs(6);
/// How long a change may take to be committed before it is left to the next look.
const CHANGE: Duration = Duration::from_secs(5);

/// How long a node that was just let in may take to be heard of: what nodes tell each other every second begins only then.
const JUST_ADMITTED: Duration = Duration::from_secs(5);

/// Why a node was not let in.
#[derive(Debug)]
pub(super) enum NotAdded {
    /// It is not to be.
    Refused(String),
    /// Not now, or it is not known yet what came of it.
    Busy(String),
}

impl NotAdded {
    fn why(self) -> String {
        match self {
            Self::Refused(why) | Self::Busy(why) => why,
        }
    }
}

/// Who asked first gets in first.
const BUSY: &str = "the members are being changed just now; one at a time";

impl Node {
    /// Lets a node in, if this one leads; else passes the question on.
    pub(in crate::node) async fn answer_join(&self, request: pb::JoinRequest) -> pb::JoinResponse {
        use pb::join_response::Answer;
        let answer = match self.leader() {
            Leader::This => match self.admit(&request).await {
                Ok(()) => {
                    self.inner.members.candidates.lock().remove(&NodeId(request.id));
                    Answer::Admitted(true)
                }
                Err(why) => {
                    self.note_candidate(&request, &why);
                    Answer::Refused(why)
                }
            },
            Leader::Other(id, member) if !request.passed_on => {
                let request = pb::JoinRequest { passed_on: true, ..request };
                match self.pass_on(id, &member, request).await {
                    Ok(response) => return response,
                    Err(why) => Answer::Elsewhere(format!("{}, which leads, does not answer: {why}", member.name)),
                }
            }
            _ => Answer::Elsewhere("the cluster has no leader that is known".into()),
        };
        pb::JoinResponse { answer: Some(answer) }
    }

    async fn pass_on(&self, id: NodeId, member: &Member, request: pb::JoinRequest) -> Result<pb::JoinResponse, String> {
        let peers = &self.inner.peers;
        let mut client = peers.client(&member.peer_addr, Purpose::Forward).map_err(|error| error.to_string())?;
        let call = client.join(peers.addressed(id, request));
        match tokio::time::timeout(ANSWER_WITHIN, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(status.message().to_owned()),
            Err(_) => Err("no answer".into()),
        }
    }

    fn note_candidate(&self, request: &pb::JoinRequest, why: &str) {
        let candidate = admin::Candidate {
            name: request.name.clone(),
            id: request.id,
            peer_addr: request.peer_addr.clone(),
            refused: why.to_owned(),
        };
        let before = self.inner.members.candidates.lock().insert(NodeId(request.id), (candidate, Instant::now()));
        if before.is_none_or(|(before, _)| before.refused != why) {
            tracing::info!(name = request.name, id = %NodeId(request.id), addr = request.peer_addr, why, "a node is not let in");
        }
    }

    /// As leader: makes the node a learner, or says why not.
    async fn admit(&self, request: &pb::JoinRequest) -> Result<(), String> {
        let (id, name) = (NodeId(request.id), &request.name);
        let _turn = self.inner.members.turn.try_lock().map_err(|_| BUSY.to_owned())?;
        if self.membership().get_node(&id).is_some() {
            return Ok(());
        }
        let Some(replicas) = self.wanted_replicas() else {
            return Err(
                "no majority of the voters' files says how many nodes there should be (`replicas` in [cluster])".into(),
            );
        };
        if self.ordinal_of(name).is_none_or(|ordinal| ordinal >= replicas) {
            return Err(format!(
                "a majority of the voters' files wants {replicas} nodes, and {name} is none of them; raise `replicas` in \
                 [cluster], or let it in by hand with `balsa member add {name}`"
            ));
        }
        let member = Member {
            name: name.clone(),
            peer_addr: request.peer_addr.clone(),
            client_addr: request.client_addr.clone(),
            kept: false,
        };
        self.add_learner(id, member).await.map_err(NotAdded::why)
    }

    /// As leader, in its turn: makes the node a learner, after it and its namesakes were asked who they are.
    pub(super) async fn add_learner(&self, id: NodeId, member: Member) -> Result<(), NotAdded> {
        use NotAdded::{Busy, Refused};
        self.lead_surely().await.map_err(Busy)?;
        let membership = self.settled_membership().ok_or(Busy(BUSY.into()))?;
        let (name, addr) = (&member.name, &member.peer_addr);
        let them = who_is_at(&self.inner.peers, addr).await;
        let them = them.map_err(|why| Refused(format!("{name} does not answer the leader at {addr}: {why}")))?;
        if (them.id, &them.name) != (id.0, name) {
            let (says, found) = (&them.name, NodeId(them.id));
            return Err(Refused(format!("at {addr}, where {name} ({id}) says that it is, {says} ({found}) answers")));
        }
        if self.inner.peers.cluster().is_none_or(|own| own.0[..] != them.cluster_id[..]) {
            return Err(Busy(format!("{name} has not found this cluster yet")));
        }
        let stale = self.stale_namesakes(&membership, id, name).await.map_err(Refused)?;
        self.one_at_a_time(&membership, name).map_err(Busy)?;
        let changes = ChangeMembers::Batch(vec![
            ChangeMembers::RemoveNodes(stale),
            ChangeMembers::AddNodes(BTreeMap::from([(id, member.clone())])),
        ]);
        self.reshape(changes, true, &membership).await.map_err(Busy)?;
        *self.inner.members.admitted.lock() = Some((id, Instant::now()));
        tracing::info!(name, %id, addr, "let in as a learner");
        Ok(())
    }

    /// Learners of the same name that do not answer. That another node of that name does is a refusal.
    async fn stale_namesakes(
        &self,
        membership: &StoredMembership,
        id: NodeId,
        name: &str,
    ) -> Result<BTreeSet<NodeId>, String> {
        let voters: Vec<_> = membership.voter_ids().collect();
        let mut stale = BTreeSet::new();
        for (old, namesake) in membership.nodes().filter(|(old, namesake)| **old != id && namesake.name == name) {
            if *old == self.inner.peers.own() || self.answers_as_itself(*old, namesake).await {
                return Err(format!(
                    "two live nodes of one name: {name} is a member as {old} and answers as that, or did a few seconds ago; \
                     this one is {id}. If the other is gone for good, it is let in soon; else give it another name, or stop it"
                ));
            }
            if !voters.contains(old) {
                stale.insert(*old);
            }
        }
        Ok(stale)
    }

    /// Another learner that is on its way holds up the next; one that does not answer holds up nobody, once it had the time to.
    fn one_at_a_time(&self, membership: &StoredMembership, name: &str) -> Result<(), String> {
        let voters: Vec<_> = membership.voter_ids().collect();
        let admitted = self.inner.members.admitted.lock().filter(|(_, at)| at.elapsed() < JUST_ADMITTED);
        let views = self.inner.views.lock();
        let heard = |id: &NodeId| views.get(id).is_some_and(crate::node::PeerView::is_fresh);
        let live = |id: &NodeId| heard(id) || admitted.is_some_and(|(new, _)| new == *id);
        let on_its_way =
            |(id, member): &(&NodeId, &Member)| !voters.contains(id) && !member.kept && member.name != name && live(id);
        match membership.nodes().find(on_its_way) {
            Some((_, other)) => Err(format!("{} is on its way to be a voter; one at a time", other.name)),
            None => Ok(()),
        }
    }

    /// Whether a majority follows this node.
    pub(super) async fn lead_surely(&self) -> Result<(), String> {
        if !matches!(self.leader(), Leader::This) {
            return Err("this node does not lead any more".into());
        }
        self.accepting().map_err(|error| error.to_string())?;
        let confirmed = tokio::time::timeout(CHANGE, self.inner.leadership.read_index()).await;
        match confirmed {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no majority confirms that this node leads".into()),
        }
    }

    /// Has the members changed, if they are still the ones that the decision was made for.
    pub(super) async fn reshape(
        &self,
        changes: ChangeMembers<NodeId, Member>,
        retain: bool,
        decided_for: &StoredMembership,
    ) -> Result<(), String> {
        let (raft, at) = (self.inner.raft.clone(), *decided_for.log_id());
        // In a task of its own: a change that was begun goes on, whoever waits for it.
        let change = tokio::spawn(async move {
            let same = [Precondition::LastMembershipLogId { last_membership_log_id: at }];
            raft.change_membership_if(changes, retain, same).await
        });
        match tokio::time::timeout(CHANGE, change).await {
            Ok(Ok(Ok(_))) => Ok(()),
            Ok(Ok(Err(error))) => Err(format!("the members were not changed: {error}")),
            Ok(Err(stopped)) => Err(stopped.to_string()),
            Err(_) => Err("the change of the members is not committed yet".into()),
        }
    }

    /// Whether a node belongs to the cluster. A no is only a leader's that a majority follows.
    pub(in crate::node) async fn answer_standing(&self, request: pb::StandingRequest) -> pb::StandingResponse {
        use pb::standing_response::Answer;
        let id = NodeId(request.id);
        let answer = match self.leader() {
            Leader::This => match self.lead_surely().await {
                Err(why) => Answer::Unknown(why),
                // Read after the majority has confirmed: whoever leads later knows at least this.
                Ok(()) => match self.settled_membership() {
                    Some(membership) => match membership.get_node(&id) {
                        Some(_) => Answer::Member(true),
                        None => Answer::Removed(self.in_whose_place(&membership)),
                    },
                    None if self.is_stranger(id) => Answer::Unknown(BUSY.into()),
                    None => Answer::Member(true),
                },
            },
            Leader::Other(_, member) if !request.passed_on => {
                let request = pb::StandingRequest { passed_on: true, ..request };
                match self.ask_standing(&member.peer_addr, request).await {
                    Some(response) => return response,
                    None => Answer::Unknown(format!("{}, which leads, does not answer", member.name)),
                }
            }
            _ => Answer::Unknown("the cluster has no leader that is known".into()),
        };
        pb::StandingResponse { answer: Some(answer) }
    }

    fn in_whose_place(&self, membership: &StoredMembership) -> String {
        let index = membership.log_id().map_or(0, |id| id.index());
        let names: BTreeSet<_> = membership.nodes().map(|(_, member)| member.name.as_str()).collect();
        let names: Vec<_> = names.into_iter().collect();
        let own = &self.inner.identity.member().name;
        format!("{own} leads the cluster, and since index {index} its members are {}", names.join(", "))
    }

    async fn ask_standing(&self, addr: &str, request: pb::StandingRequest) -> Option<pb::StandingResponse> {
        let peers = &self.inner.peers;
        let mut client = peers.client(addr, Purpose::Forward).ok()?;
        let call = client.standing(peers.addressed_to_any(request));
        Some(tokio::time::timeout(ANSWER_WITHIN, call).await.ok()?.ok()?.into_inner())
    }

    /// Somebody does not know this node: asks a leader, and retires if a majority stands behind its no. Whether it is still in doubt.
    pub(in crate::node) async fn is_disowned(&self) -> bool {
        // One that was never a member asks to be let in instead.
        if self.inner.identity.meta.lock().standing != Standing::Member && !self.is_committed_member() {
            return false;
        }
        let own = self.inner.peers.own();
        let members = self.other_members().into_iter().map(|(_, member)| member.peer_addr);
        let configured = self.inner.identity.others().map(|member| member.peer_addr.clone());
        let places: BTreeSet<_> = members.chain(configured).collect();
        for addr in places {
            use pb::standing_response::Answer;
            let request = pb::StandingRequest { id: own.0, passed_on: false };
            match self.ask_standing(&addr, request).await.and_then(|response| response.answer) {
                Some(Answer::Member(_)) => return false,
                Some(Answer::Removed(why)) => {
                    self.retire(Standing::Removed(removed(own, &why)));
                    return true;
                }
                _ => {}
            }
        }
        true
    }
}

fn removed(own: NodeId, why: &str) -> String {
    format!(
        "was removed from its cluster: {why}; {own} is none of them any more and never will be. Its data is kept; to let a node \
         of this name in again, empty its data directory and start it"
    )
}
