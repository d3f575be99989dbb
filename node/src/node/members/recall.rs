//! What others remember of a node that starts.
//!
//! A volume that is put back to an earlier time is the one thing that Raft cannot survive by itself: its node has forgotten votes
//! that it gave and entries that it confirmed, and a majority that counts it can lose what was acknowledged. The disk itself does not
//! know that it is old. The others do: each keeps, of each other node, the last it heard that was durable there, and a leader also
//! what the node has acknowledged. So a node that starts asks before it votes, campaigns or acknowledges, and refuses to go on with
//! less than they know of.
//!
//! # When it goes on
//!
//! Once a majority of the voters that it knows of, itself counted, has answered, and every other one has answered too or has been
//! silent for [`SILENT`] since. Waiting for a majority costs nothing: without one there is nothing to take part in. After
//! [`GIVE_UP`] without a majority it goes on all the same: its membership may be so old that nobody is where it looks. Those who
//! were silent are asked on all the time: what they remember is better known late than never.
//!
//! # What that does not see
//!
//! A node tells the others every second: what it confirmed after that only the leader of that time knows. And what is remembered is on
//! disk a few seconds later ([`super::memory`]): if all nodes lose power at once, those seconds are forgotten. docs/consistency.md says
//! so.

use std::time::{Duration, Instant};

use tonic::Code;

use super::memory::Confirmed;
use super::{Node, OnDisk, Standing};
use crate::ids::NodeId;
use crate::proto::peer as pb;
use crate::raft::peers::Purpose;
use crate::raft::types::StoredMembership;

/// How long those beyond a majority may be silent.
const SILENT: Duration = Duration::from_secs(1);
/// How long a peer that says "I do not know you" keeps this node waiting for a leader's word on it.
const DISOWNED: Duration = Duration::from_secs(5);
/// How long there may be no majority.
const GIVE_UP: Duration = Duration::from_secs(30);
/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_millis(900);
/// Between two rounds of asking.
const ROUND: Duration = Duration::from_millis(100);
/// The same, once the node takes part.
const LATE_ROUND: Duration = Duration::from_secs(3);

/// Somebody to ask.
struct Asked {
    voter: bool,
    name: String,
    addr: String,
    answer: Option<pb::RecallResponse>,
}

impl Node {
    /// What this node remembers of another one.
    pub(in crate::node) fn recall_of(&self, id: NodeId) -> pb::RecallResponse {
        self.remember_matched();
        let remembered = self.inner.members.remembered.lock().of(id);
        pb::RecallResponse { confirmed: remembered.map(Into::into), stranger: self.is_stranger(id) }
    }

    /// At the start: asks what the others remember, and then takes part, or does not.
    pub(in crate::node) async fn recall(&self) {
        if self.inner.peers.cluster().is_none() {
            // It has no past.
            return self.take_part();
        }
        let membership = self.inner.raft.with_raft_state(|state| (**state.membership_state.effective()).clone()).await;
        // Raft has stopped: so has this node.
        let Ok(membership) = membership else { return };
        let (mut asked, votes) = self.whom_to_ask(&membership);
        let begun = Instant::now();
        let (mut enough, mut waits) = (None, false);
        loop {
            if self.has_stopped() {
                return;
            }
            self.ask_round(&mut asked).await;
            if let Some(why) = asked.iter().find_map(|one| one.rolled_back(&self.inner.members.at_start)) {
                return self.retire(Standing::RolledBack(why));
            }
            let disowned = asked.iter().any(|one| one.answer.as_ref().is_some_and(|answer| answer.stranger));
            let disowned = disowned && self.is_disowned().await;
            if self.retired().is_some() {
                return;
            }
            if is_majority(&asked, votes) {
                enough.get_or_insert_with(Instant::now);
            }
            let since = enough.map(|enough: Instant| enough.elapsed());
            let all = asked.iter().all(|one| one.answer.is_some());
            if since.is_some_and(|since| (all || since >= SILENT) && (!disowned || since >= DISOWNED)) {
                break;
            }
            if begun.elapsed() >= GIVE_UP {
                tracing::warn!("no majority says what it remembers of this node; it goes on without that");
                break;
            }
            if begun.elapsed() >= SILENT && !std::mem::replace(&mut waits, true) {
                let silent: Vec<_> = asked.iter().filter(|one| one.answer.is_none()).map(|one| &*one.name).collect();
                let silent = silent.join(", ");
                tracing::info!(silent, "asking the others what they remember of this node, before it takes part");
            }
            tokio::time::sleep(ROUND).await;
        }
        self.take_part();
        self.recall_late(asked).await;
    }

    /// The other members, and the nodes that the configuration names; and whether this node votes.
    fn whom_to_ask(&self, membership: &StoredMembership) -> (Vec<Asked>, bool) {
        let own = self.inner.peers.own();
        let voters: Vec<_> = membership.voter_ids().collect();
        let others = membership.nodes().filter(|(id, _)| **id != own);
        let mut asked: Vec<_> =
            others.map(|(id, member)| Asked::new(voters.contains(id), &member.name, &member.peer_addr)).collect();
        // One that has joined in a founding, and has no log yet, goes by its configuration.
        let founds = voters.is_empty();
        for member in self.inner.identity.others() {
            if !asked.iter().any(|known| known.addr == member.peer_addr) {
                asked.push(Asked::new(founds, &member.name, &member.peer_addr));
            }
        }
        (asked, founds || voters.contains(&own))
    }

    /// Goes on asking those who were silent.
    async fn recall_late(&self, mut asked: Vec<Asked>) {
        asked.retain(|one| one.answer.is_none());
        while !asked.is_empty() && !self.has_stopped() && self.retired().is_none() {
            tokio::time::sleep(LATE_ROUND).await;
            self.ask_round(&mut asked).await;
            // By what it has now: it does not miss what it has confirmed since its start.
            let disk = self.on_disk();
            if let Some(why) = asked.iter().find_map(|one| one.rolled_back(&disk)) {
                return self.retire(Standing::RolledBack(why));
            }
            asked.retain(|one| one.answer.is_none());
        }
    }

    /// What this node's disk holds now.
    fn on_disk(&self) -> OnDisk {
        let applied = self.inner.reader.view().progress().last_applied;
        let term = self.inner.log.vote().map_or(0, |vote| vote.leader_id.term);
        OnDisk { term, last: self.inner.log.flushed().max(applied) }
    }

    fn has_stopped(&self) -> bool {
        self.inner.fatal.get().is_some() || self.inner.draining.load(std::sync::atomic::Ordering::Relaxed)
    }

    async fn ask_round(&self, asked: &mut [Asked]) {
        let silent = asked.iter_mut().filter(|one| one.answer.is_none());
        futures::future::join_all(silent.map(async |one| one.answer = self.ask_to_recall(&one.addr).await)).await;
    }

    async fn ask_to_recall(&self, addr: &str) -> Option<pb::RecallResponse> {
        let peers = &self.inner.peers;
        let mut client = peers.client(addr, Purpose::Forward).ok()?;
        let call = client.recall(peers.addressed_to_any(pb::RecallRequest { id: peers.own().0 }));
        match tokio::time::timeout(ANSWER_WITHIN, call).await.ok()? {
            Ok(answer) => Some(answer.into_inner()),
            // A balsa from before this question remembers nothing. It is an answer, or an upgrade would wait for it.
            Err(status) if status.code() == Code::Unimplemented => Some(pb::RecallResponse::default()),
            Err(_) => None,
        }
    }
}

/// Whether a majority of the voters has answered, this node counted if it `votes`.
fn is_majority(asked: &[Asked], votes: bool) -> bool {
    let voters = asked.iter().filter(|one| one.voter);
    let answered = voters.clone().filter(|one| one.answer.is_some()).count() + usize::from(votes);
    answered > (voters.count() + usize::from(votes)) / 2
}

impl Asked {
    fn new(voter: bool, name: &str, addr: &str) -> Self {
        Self { voter, name: name.to_owned(), addr: addr.to_owned(), answer: None }
    }

    /// Why who has only this on its disk was put back to an earlier time, if it was: in words that follow "this node".
    fn rolled_back(&self, disk: &OnDisk) -> Option<String> {
        let confirmed = Confirmed::from(self.answer.as_ref()?.confirmed?);
        let missing = confirmed.missing_on(disk)?;
        Some(format!(
            "has less on its volume than it had confirmed: {missing}, as {} knows; the volume was put back to an earlier time. \
             A node that forgets could lose what clients were promised, so this one takes no part any more: empty its data \
             directory and start it, and it joins anew",
            self.name
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `v` is a voter that has answered, `-` one that has not, `o` an answer of somebody who does not vote.
    fn majority(asked: &str, votes: bool) -> bool {
        let one = |kind| Asked {
            answer: (kind != '-').then(pb::RecallResponse::default),
            ..Asked::new(kind != 'o', "balsa-1", "127.0.0.1:1")
        };
        is_majority(&asked.chars().map(one).collect::<Vec<_>>(), votes)
    }

    #[test]
    fn a_majority_is_one_of_the_voters_with_this_node_among_them() {
        assert!(majority("v-", true) && majority("vv--", true) && majority("", true));
        assert!(!majority("--", true) && !majority("v---", true) && !majority("v-", false));
        assert!(!majority("--oo", true), "who has no vote is asked, and makes no majority");
        assert!(majority("vv-", false), "a learner asks the voters");
    }
}
