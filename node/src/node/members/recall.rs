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
//! [`GIVE_UP`] without a majority it goes on all the same: its membership may be so old that nobody is where it looks.
//!
//! # What that does not see
//!
//! What is remembered is in memory: if all nodes start anew at once, nobody knows. And a node tells the others every second: what it
//! confirmed after that only the leader of that time knows. docs/consistency.md says so.

use std::time::{Duration, Instant};

use tonic::Code;

use super::{Node, OnDisk, Standing};
use crate::ids::NodeId;
use crate::proto::peer as pb;
use crate::raft::peers::Purpose;
use crate::raft::types::LogId;

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

/// What a node has on its disk for good, as far as somebody else knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Confirmed {
    /// Its vote is of this term or a later one.
    term: u64,
    /// Committed and flushed: never truncated.
    settled: Option<LogId>,
    /// Acknowledged to the leader of this term. A leader of a later term may have had it truncated.
    acked: Option<(u64, LogId)>,
}

impl Confirmed {
    pub(super) fn acked(term: u64, last: LogId) -> Self {
        Self { term, settled: None, acked: Some((term, last)) }
    }

    /// Takes in more; nothing is ever less.
    pub(super) fn add(&mut self, more: &Self) {
        self.term = self.term.max(more.term);
        self.settled = self.settled.max(more.settled);
        self.acked = self.acked.max(more.acked);
    }

    /// What of it this disk lacks, in words, if anything.
    fn missing_on(&self, disk: &OnDisk) -> Option<String> {
        let ends = disk.last.map_or("is empty".to_owned(), |last| format!("ends at {}", place(&last)));
        if disk.term < self.term {
            let (then, now) = (self.term, disk.term);
            return Some(format!("its vote is of term {now}, its log {ends}, and it had voted in term {then}"));
        }
        // In a later term entries may rightly have gone.
        let acked = self.acked.filter(|(term, _)| *term == disk.term).map(|(_, last)| last);
        let confirmed = self.settled.max(acked)?;
        (disk.last < Some(confirmed)).then(|| format!("its log {ends}, and it had confirmed {}", place(&confirmed)))
    }
}

fn place(id: &LogId) -> String {
    format!("index {} of term {}", id.index(), id.committed_leader_id().term)
}

impl From<pb::Confirmed> for Confirmed {
    fn from(said: pb::Confirmed) -> Self {
        let acked = said.acked.map(|last| (said.acked_term, last.into()));
        Self { term: said.term, settled: said.settled.map(Into::into), acked }
    }
}

impl From<Confirmed> for pb::Confirmed {
    fn from(known: Confirmed) -> Self {
        Self {
            term: known.term,
            settled: known.settled.as_ref().map(Into::into),
            acked_term: known.acked.map_or(0, |(term, _)| term),
            acked: known.acked.as_ref().map(|(_, last)| last.into()),
        }
    }
}

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
        let remembered = self.inner.members.remembered.lock().get(&id).copied();
        pb::RecallResponse { confirmed: remembered.map(Into::into), stranger: self.is_stranger(id) }
    }

    /// At the start: asks what the others remember, and then takes part, or does not.
    pub(in crate::node) async fn recall(&self) {
        if self.inner.peers.cluster().is_none() {
            // It has no past.
            return self.take_part();
        }
        let own = self.inner.peers.own();
        let membership = self.inner.raft.with_raft_state(|state| (**state.membership_state.effective()).clone()).await;
        // Raft has stopped: so has this node.
        let Ok(membership) = membership else { return };
        let voters: Vec<_> = membership.voter_ids().collect();
        let mut asked: Vec<_> = membership
            .nodes()
            .filter(|(id, _)| **id != own)
            .map(|(id, member)| (voters.contains(id), member))
            .map(|(voter, member)| Asked {
                voter,
                name: member.name.clone(),
                addr: member.peer_addr.clone(),
                answer: None,
            })
            .collect();
        for member in self.inner.identity.others() {
            if !asked.iter().any(|known| known.addr == member.peer_addr) {
                let (name, addr) = (member.name.clone(), member.peer_addr.clone());
                asked.push(Asked { voter: false, name, addr, answer: None });
            }
        }
        let begun = Instant::now();
        let (mut enough, mut waits) = (None, false);
        while !self.has_stopped() {
            self.ask_round(&mut asked).await;
            if let Some(why) = self.rolled_back(&asked) {
                return self.retire(Standing::RolledBack(why));
            }
            let disowned = asked.iter().any(|one| one.answer.as_ref().is_some_and(|answer| answer.stranger));
            let disowned = disowned && self.is_disowned().await;
            if self.retired().is_some() {
                return;
            }
            let answered = asked.iter().filter(|one| one.voter && one.answer.is_some()).count();
            let own_vote = usize::from(voters.contains(&own));
            if voters.is_empty() || answered + own_vote > voters.len() / 2 {
                enough.get_or_insert_with(Instant::now);
            }
            let since = enough.map(|enough: Instant| enough.elapsed());
            let all = asked.iter().all(|one| one.answer.is_some());
            if since.is_some_and(|since| (all || since >= SILENT) && (!disowned || since >= DISOWNED)) {
                return self.take_part();
            }
            if begun.elapsed() >= GIVE_UP {
                tracing::warn!("no majority says what it remembers of this node; it goes on without that");
                return self.take_part();
            }
            if begun.elapsed() >= SILENT && !std::mem::replace(&mut waits, true) {
                let silent: Vec<_> =
                    asked.iter().filter(|one| one.answer.is_none()).map(|one| one.name.as_str()).collect();
                tracing::info!(
                    silent = silent.join(", "),
                    "asking the others what they remember of this node, before it takes part"
                );
            }
            tokio::time::sleep(ROUND).await;
        }
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

    /// In words that follow "this node".
    fn rolled_back(&self, asked: &[Asked]) -> Option<String> {
        asked.iter().find_map(|one| {
            let confirmed = Confirmed::from(one.answer.as_ref()?.confirmed?);
            let missing = confirmed.missing_on(&self.inner.members.at_start)?;
            Some(format!(
                "has less on its volume than it had confirmed: {missing}, as {} knows; the volume was put back to an earlier time. \
                 A node that forgets could lose what clients were promised, so this one takes no part any more: empty its data \
                 directory and start it, and it joins anew",
                one.name
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::codec::log_id;

    fn disk(term: u64, last: (u64, u64)) -> OnDisk {
        OnDisk { term, last: Some(log_id(last.0, last.1)) }
    }

    fn settled(term: u64, last: (u64, u64)) -> Confirmed {
        Confirmed { term, settled: Some(log_id(last.0, last.1)), acked: None }
    }

    #[test]
    fn a_disk_that_has_all_that_is_known_is_fine() {
        let known = settled(3, (3, 70));
        assert_eq!(known.missing_on(&disk(3, (3, 70))), None);
        assert_eq!(known.missing_on(&disk(4, (3, 71))), None);
        assert_eq!(Confirmed::default().missing_on(&OnDisk::default()), None);
    }

    #[test]
    fn a_forgotten_vote_and_a_forgotten_entry_are_named_with_both_log_ids() {
        let vote = settled(3, (2, 70)).missing_on(&disk(2, (2, 80))).unwrap();
        assert!(vote.contains("its vote is of term 2") && vote.contains("voted in term 3"), "{vote}");
        let entry = settled(3, (3, 70)).missing_on(&disk(3, (3, 69))).unwrap();
        assert_eq!(entry, "its log ends at index 69 of term 3, and it had confirmed index 70 of term 3");
        let empty = settled(0, (1, 1)).missing_on(&OnDisk::default()).unwrap();
        assert!(empty.starts_with("its log is empty"), "{empty}");
    }

    #[test]
    fn what_a_later_leader_had_truncated_is_not_missed() {
        let acked = Confirmed::acked(3, log_id(3, 90));
        assert!(acked.missing_on(&disk(3, (3, 80))).is_some());
        assert_eq!(acked.missing_on(&disk(4, (3, 80))), None);
    }

    #[test]
    fn nothing_that_was_known_is_forgotten() {
        let mut known = settled(5, (4, 40));
        known.add(&Confirmed::acked(4, log_id(4, 50)));
        known.add(&settled(3, (3, 30)));
        let kept = Confirmed { term: 5, settled: Some(log_id(4, 40)), acked: Some((4, log_id(4, 50))) };
        assert_eq!(known, kept);
        assert_eq!(Confirmed::from(pb::Confirmed::from(known)), known);
    }
}
