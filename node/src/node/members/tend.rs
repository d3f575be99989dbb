//! What a leader does about the members, twice a second: the next step of [`super::decide`], if there is one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;

use super::Node;
use super::decide::{Seen, Sight, Step};
use crate::ids::NodeId;
use crate::node::Leader;
use crate::raft::bootstrap::who_is_at;
use crate::raft::types::{Member, StoredMembership};

/// Between two looks. Who has all that the leader's log had at the look before has caught up: under load nobody ever has
/// all of it, and who is half a second behind is no burden to a majority.
const LOOK: Duration = Duration::from_millis(500);
/// How long those who answer may take to catch up with what the leader's log was at the look before.
const SETTLE: Duration = Duration::from_secs(1);
/// How long to wait for another to lead.
const HAND_OVER: Duration = Duration::from_secs(2);

impl Node {
    /// For as long as the node runs.
    pub(in crate::node) async fn tend_members(&self) {
        let (mut floor, mut said) = (u64::MAX, Vec::new());
        loop {
            tokio::time::sleep(LOOK).await;
            self.inner.peers.note_places(self.membership().nodes());
            let last = self.inner.raft.metrics().borrow_watched().last_log_index.unwrap_or(0);
            let floor = std::mem::replace(&mut floor, last);
            if !matches!(self.leader(), Leader::This) || self.accepting().is_err() {
                self.inner.members.waiting.lock().clear();
                continue;
            }
            self.remember_matched();
            let waiting = self.tend(floor).await;
            for why in waiting.iter().filter(|why| !said.contains(*why)) {
                tracing::info!("members: {why}");
            }
            (*self.inner.members.waiting.lock(), said) = (waiting.clone(), waiting);
        }
    }

    /// One look, and at most one change. Returns what is not done, and why.
    async fn tend(&self, floor: u64) -> Vec<String> {
        // An operator's change, or a node that is let in: the next look sees what came of it.
        let Ok(_turn) = self.inner.members.turn.try_lock() else { return self.inner.members.waiting() };
        let membership = self.membership();
        if !self.is_committed(&membership) {
            return Vec::new();
        }
        if membership.membership().get_joint_config().len() > 1 {
            return self.finish(&membership).await.err().into_iter().collect();
        }
        let (mut step, mut waiting) = self.sight(&membership, floor, None).next();
        if step.is_some() {
            // Not on the word of a few seconds ago: a voter that died since would take the majority with it.
            (step, waiting) = self.settled_sight(&membership, floor, SETTLE).await.next();
        }
        let done = match step {
            Some(step) => self.carry_out(step, &membership).await,
            None => self.mend_addresses(&membership).await,
        };
        waiting.extend(done.err());
        waiting
    }

    fn is_committed(&self, membership: &StoredMembership) -> bool {
        *self.inner.server.borrow_watched().committed_membership_config == *membership
    }

    /// Another leader died, or this one was interrupted, between the two halves of a change.
    async fn finish(&self, membership: &StoredMembership) -> Result<(), String> {
        tracing::info!(%membership, "finishing a change of the members that was begun");
        self.reshape(ChangeMembers::AddVoterIds(BTreeSet::new()), false, membership).await
    }

    /// The cluster at this moment, as this leader sees it after it has asked everybody; those who answer have `patience` to catch up with
    /// the log as far as `floor`. Who is fenced will not.
    pub(super) async fn settled_sight(&self, membership: &StoredMembership, floor: u64, patience: Duration) -> Sight {
        let asked = Instant::now();
        // To confirm that it leads, it asks every node's Raft, however long it is until the next heartbeat.
        let _ = futures::join!(self.exchange_round(), self.lead_surely());
        loop {
            let sight = self.sight(membership, floor, Some(asked));
            let waits_for = |member: &Seen| {
                let views = self.inner.views.lock();
                let talks = views.get(&member.id).is_some_and(|view| view.at >= asked && view.status.fenced.is_empty());
                talks && !(member.answers && member.caught_up)
            };
            if asked.elapsed() >= patience || !sight.members.iter().any(waits_for) {
                return sight;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The cluster as this leader sees it. `floor`: who has the log up to here has caught up. `asked`: whose Raft has not answered to
    /// anything since then does not answer.
    fn sight(&self, membership: &StoredMembership, floor: u64, asked: Option<Instant>) -> Sight {
        let (own, matched, heard) = (self.inner.peers.own(), self.matched(), self.heard());
        let voters: BTreeSet<_> = membership.voter_ids().collect();
        let views = self.inner.views.lock();
        let seen = |(id, member): (&NodeId, &Member)| {
            let view = views.get(id);
            let answers = |view: &crate::node::PeerView| {
                let takes_part = asked.is_none_or(|asked| heard.get(id).is_some_and(|age| *age <= asked.elapsed()));
                view.is_fresh() && view.status.fenced.is_empty() && takes_part
            };
            let index = matched.get(id).copied().flatten().map_or(0, |id| id.index());
            Seen {
                id: *id,
                name: member.name.clone(),
                ordinal: self.ordinal_of(&member.name),
                voter: voters.contains(id),
                kept: member.kept,
                live: *id == own || view.is_some_and(crate::node::PeerView::is_fresh),
                answers: *id == own || view.is_some_and(answers),
                caught_up: *id == own || index >= floor,
                own: *id == own,
            }
        };
        let mut members: Vec<_> = membership.nodes().map(seen).collect();
        drop(views);
        // By what people call them: in the order of their ids, which are random, they would be named in another order on each cluster.
        members.sort_by(|left, right| (left.ordinal, &left.name, left.id).cmp(&(right.ordinal, &right.name, right.id)));
        Sight { members, replicas: self.wanted_replicas() }
    }

    /// As leader, in its turn.
    pub(super) async fn carry_out(&self, step: Step, membership: &StoredMembership) -> Result<(), String> {
        self.lead_surely().await?;
        let name = |id: &NodeId| membership.get_node(id).map_or_else(|| id.to_string(), |member| member.name.clone());
        let voters: BTreeSet<_> = membership.voter_ids().collect();
        match step {
            Step::Promote { learner, instead_of } => {
                for old in &instead_of {
                    let Some(member) = membership.get_node(old) else { continue };
                    if self.answers_as_itself(*old, member).await {
                        return Err(format!("{} answers as {old} again, so {learner} stays a learner", member.name));
                    }
                }
                let target: BTreeSet<_> = voters.difference(&instead_of).copied().chain([learner]).collect();
                tracing::info!(name = name(&learner), id = %learner, "becomes a voter");
                self.reshape(ChangeMembers::ReplaceAllVoters(target), false, membership).await?;
                let left: Vec<_> = instead_of.iter().map(ToString::to_string).collect();
                tracing::info!(name = name(&learner), id = %learner, instead_of = left.join(", "), "a voter now");
            }
            Step::RemoveVoter(id) => {
                self.reshape(ChangeMembers::RemoveVoters(BTreeSet::from([id])), false, membership).await?;
                tracing::info!(name = name(&id), %id, "removed; it was a voter");
            }
            Step::RemoveLearner(id) => {
                self.reshape(ChangeMembers::RemoveNodes(BTreeSet::from([id])), true, membership).await?;
                tracing::info!(name = name(&id), %id, "removed; it was a learner");
            }
            Step::HandOver { to } => {
                self.hand_over_to(to).await?;
                tracing::info!(to = name(&to), "another leads now, since this node is to leave");
            }
        }
        Ok(())
    }

    /// Has this voter lead.
    pub(in crate::node) async fn hand_over_to(&self, to: NodeId) -> Result<(), String> {
        self.inner.raft.trigger().transfer_leader(to).await.map_err(|error| error.to_string())?;
        let until = Instant::now() + HAND_OVER;
        while matches!(self.leader(), Leader::This) {
            if Instant::now() >= until {
                return Err(format!("{to} was asked to lead, and does not"));
            }
            self.leader_news(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Members that say they are reached elsewhere, and answer there as themselves, have their new addresses noted.
    async fn mend_addresses(&self, membership: &StoredMembership) -> Result<(), String> {
        let mut wrong = Vec::new();
        for (id, member) in membership.nodes() {
            let Some(now) = self.says_it_moved(*id, member) else { continue };
            if *id != self.inner.peers.own() {
                let them = who_is_at(&self.inner.peers, &now.peer_addr).await;
                if !them.is_ok_and(|them| them.id == id.0) {
                    let (name, addr) = (&now.name, &now.peer_addr);
                    wrong.push(format!("{name} says that it is reached at {addr}, and does not answer there"));
                    continue;
                }
            }
            // The next look sees to the next one.
            self.note_move(*id, member, now, membership).await?;
            break;
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// The member with the addresses that it says it has, if those are not the ones in the membership.
    fn says_it_moved(&self, id: NodeId, member: &Member) -> Option<Member> {
        let (peer_addr, client_addr) = if id == self.inner.peers.own() {
            let own = self.inner.identity.member();
            (own.peer_addr.clone(), own.client_addr.clone())
        } else {
            let views = self.inner.views.lock();
            let status = views.get(&id).filter(|view| view.is_fresh()).map(|view| &view.status)?;
            (status.peer_addr.clone(), status.client_addr.clone())
        };
        let now = Member { peer_addr, client_addr, ..member.clone() };
        (now != *member && !now.peer_addr.is_empty()).then_some(now)
    }

    async fn note_move(
        &self,
        id: NodeId,
        before: &Member,
        now: Member,
        membership: &StoredMembership,
    ) -> Result<(), String> {
        self.lead_surely().await?;
        self.reshape(ChangeMembers::SetNodes(BTreeMap::from([(id, now.clone())])), true, membership).await?;
        tracing::info!(
            name = now.name,
            was = before.peer_addr,
            now = now.peer_addr,
            "a member's addresses have changed"
        );
        Ok(())
    }
}
