//! The next step towards the members that are wanted, or why there is none: decisions alone, without network or clock.

use std::collections::BTreeSet;

use crate::ids::NodeId;

/// A member, as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) id: NodeId,
    pub(super) name: String,
    /// What its name says, if it is one of this cluster's names.
    pub(super) ordinal: Option<u32>,
    pub(super) voter: bool,
    /// An operator added it.
    pub(super) kept: bool,
    /// It was heard of lately: for one that is not, somebody else may come.
    pub(super) live: bool,
    /// It answers at this moment: on one that does not, no majority is built, however lately it was heard of.
    pub(super) answers: bool,
    /// Its log has all that the leader's had a moment ago.
    pub(super) caught_up: bool,
    /// The leader itself.
    pub(super) own: bool,
}

/// The cluster, as the leader sees it.
#[derive(Debug, Clone, Default)]
pub(super) struct Sight {
    pub(super) members: Vec<Seen>,
    /// How many nodes a majority of the voters' files want.
    pub(super) replicas: Option<u32>,
}

/// What the leader should do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Makes the learner a voter; voters of the same name, which do not answer, leave in the same change.
    Promote { learner: NodeId, instead_of: BTreeSet<NodeId> },
    /// Another should lead, since this one is to go.
    HandOver { to: NodeId },
    /// The voter leaves.
    RemoveVoter(NodeId),
    /// The learner leaves.
    RemoveLearner(NodeId),
}

impl Sight {
    /// The next step, and what is not done and why, in words.
    pub(super) fn next(&self) -> (Option<Step>, Vec<String>) {
        let mut waiting = Vec::new();
        let step = self.promotion(&mut waiting).or_else(|| self.clearance()).or_else(|| self.removal(&mut waiting));
        (step, waiting)
    }

    fn is_wanted(&self, member: &Seen) -> bool {
        member.ordinal.zip(self.replicas).is_some_and(|(ordinal, replicas)| ordinal < replicas)
    }

    fn voters(&self) -> impl Iterator<Item = &Seen> {
        self.members.iter().filter(|member| member.voter)
    }

    /// A learner that the files want, and that can vote.
    fn promotion(&self, waiting: &mut Vec<String>) -> Option<Step> {
        let learners = self.members.iter().filter(|member| !member.voter && !member.kept && self.is_wanted(member));
        for learner in learners {
            match self.promote(learner) {
                Ok(step) => return Some(step),
                Err(why) => {
                    waiting.push(format!("{} ({}) is a learner and no voter yet: {why}", learner.name, learner.id))
                }
            }
        }
        None
    }

    /// To make a learner a voter, or why not.
    pub(super) fn promote(&self, learner: &Seen) -> Result<Step, String> {
        if !learner.answers {
            return Err("it does not answer".into());
        }
        if !learner.caught_up {
            return Err("it has not caught up with the log".into());
        }
        let same: Vec<_> = self.voters().filter(|voter| voter.name == learner.name).collect();
        if let Some(other) = same.iter().find(|voter| voter.live) {
            return Err(format!(
                "another node of that name, {}, is a voter and answers; stop one of the two",
                other.id
            ));
        }
        let instead_of: BTreeSet<_> = same.iter().map(|voter| voter.id).collect();
        let after = self.voters().filter(|voter| !instead_of.contains(&voter.id)).chain([learner]);
        carried(after).map_err(|why| format!("as a voter it would leave the cluster without a majority: {why}"))?;
        Ok(Step::Promote { learner: learner.id, instead_of })
    }

    /// A learner that nobody waits for: there is a voter of its name, or a newer learner that answers.
    fn clearance(&self) -> Option<Step> {
        let stale = |learner: &&Seen| {
            let superseded = |other: &Seen| other.name == learner.name && other.id != learner.id && other.live;
            !learner.voter && !learner.live && self.members.iter().any(superseded)
        };
        self.members.iter().find(stale).map(|learner| Step::RemoveLearner(learner.id))
    }

    /// Of the members that the files do not want, the one with the highest ordinal goes first.
    fn removal(&self, waiting: &mut Vec<String>) -> Option<Step> {
        let replicas = self.replicas?;
        let beyond = |member: &&Seen| !member.kept && member.ordinal.is_some_and(|ordinal| ordinal >= replicas);
        let last = self.members.iter().filter(beyond).max_by_key(|member| (member.ordinal, member.id))?;
        match self.remove(last) {
            Ok(step) => Some(step),
            Err(why) => {
                waiting.push(format!(
                    "{} is beyond the {replicas} nodes that the files want, and stays: {why}",
                    last.name
                ));
                None
            }
        }
    }

    /// To remove a member, or why that is not safe.
    pub(super) fn remove(&self, member: &Seen) -> Result<Step, String> {
        if !member.voter {
            return Ok(Step::RemoveLearner(member.id));
        }
        let rest = || self.voters().filter(|voter| voter.id != member.id);
        if rest().next().is_none() {
            return Err("it is the last voter, and without it there is no cluster".into());
        }
        carried(rest()).map_err(|why| format!("the others could not go on without it: {why}"))?;
        if !member.own {
            return Ok(Step::RemoveVoter(member.id));
        }
        let able = rest().filter(|voter| voter.answers && voter.caught_up);
        let next = able.max_by_key(|voter| (self.is_wanted(voter), std::cmp::Reverse(voter.ordinal)));
        let next = next.ok_or("it leads, and nobody else has caught up to lead instead")?;
        Ok(Step::HandOver { to: next.id })
    }
}

/// Whether those of these voters who answer and have caught up are a majority of them; in words, if not.
fn carried<'a>(voters: impl Iterator<Item = &'a Seen>) -> Result<(), String> {
    let voters: Vec<_> = voters.collect();
    let lacking: Vec<_> = voters.iter().filter(|voter| !(voter.answers && voter.caught_up)).collect();
    let able = voters.len() - lacking.len();
    if able > voters.len() / 2 {
        return Ok(());
    }
    let why = |voter: &&&Seen| {
        format!("{} {}", voter.name, if voter.answers { "has not caught up" } else { "does not answer" })
    };
    let lacking: Vec<_> = lacking.iter().map(why).collect();
    Err(format!("of {} voters {able} would be able, which is no majority; {}", voters.len(), lacking.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `v2` is a live voter with ordinal 2; a `-` behind it is gone, a `~` only just, a `<` lags; `l` is a learner, `k` one that an operator
    /// added; `V` leads. The id is ten times the ordinal, and one more with each prime.
    fn sight(replicas: u32, members: &str) -> Sight {
        let one = |word: &str| {
            let kind = word.as_bytes()[0];
            let ordinal: u32 = word[1..2].parse().unwrap();
            let primes = word.matches('\'').count() as u64;
            Seen {
                id: NodeId(u64::from(ordinal) * 10 + primes),
                name: format!("balsa-{ordinal}"),
                ordinal: Some(ordinal),
                voter: matches!(kind, b'v' | b'V'),
                kept: kind == b'k',
                live: !word.contains('-'),
                answers: !word.contains(['-', '~']),
                caught_up: !word.contains('<') && !word.contains('-'),
                own: kind == b'V',
            }
        };
        Sight { members: members.split(' ').map(one).collect(), replicas: Some(replicas) }
    }

    fn step(replicas: u32, members: &str) -> Option<Step> {
        sight(replicas, members).next().0
    }

    fn promote(learner: u64, instead_of: &[u64]) -> Option<Step> {
        Some(Step::Promote { learner: NodeId(learner), instead_of: instead_of.iter().copied().map(NodeId).collect() })
    }

    fn waits(replicas: u32, members: &str) -> String {
        let (step, waiting) = sight(replicas, members).next();
        assert_eq!(step, None);
        waiting.join("\n")
    }

    #[test]
    fn with_the_members_that_are_wanted_nothing_is_done() {
        assert_eq!(sight(3, "V0 v1 v2").next(), (None, Vec::new()));
        assert_eq!(sight(3, "V0 v1 v2-").next(), (None, Vec::new()), "nobody is removed because a pod stops");
    }

    #[test]
    fn a_lost_volume_is_replaced_by_the_new_node_of_its_name() {
        assert_eq!(step(3, "V0 v1 v2- l2'"), promote(21, &[20]));
        assert_eq!(step(3, "v0- V1 v2 l0'"), promote(1, &[0]));
    }

    #[test]
    fn a_learner_waits_until_it_has_caught_up_and_for_ever_beside_a_live_namesake() {
        assert!(waits(3, "V0 v1 v2- l2'<").contains("has not caught up with the log"));
        assert!(waits(3, "V0 v1 v2~ l2'").contains("is a voter and answers"), "it was heard of a moment ago");
        let two = waits(3, "V0 v1 v2 l2'");
        assert!(two.contains("another node of that name, 0000000000000014, is a voter and answers; stop one"), "{two}");
    }

    #[test]
    fn new_ordinals_are_promoted_one_by_one() {
        assert_eq!(step(5, "V0 v1 v2 l3 l4"), promote(30, &[]));
        assert_eq!(step(5, "V0 v1 v2 v3 l4"), promote(40, &[]));
        assert_eq!(step(3, "V0 v1 v2 k3"), None, "an operator's learner stays one");
    }

    #[test]
    fn a_voter_more_must_not_cost_the_majority() {
        // Three of four would be needed.
        assert_eq!(step(5, "V0 v1 v2- l3"), promote(30, &[]));
        assert!(waits(5, "V0 v1< v2- l3").contains("of 4 voters 2 would be able, which is no majority"));
    }

    #[test]
    fn a_learner_that_was_lost_again_makes_room_for_its_successor() {
        assert_eq!(step(3, "V0 v1 v2- l2'- l2''<"), Some(Step::RemoveLearner(NodeId(21))));
        assert_eq!(step(3, "V0 v1 v2 l2'-"), Some(Step::RemoveLearner(NodeId(21))), "its voter answers");
        assert_eq!(step(3, "V0 v1 v2- l2'-"), None, "it may come back");
    }

    #[test]
    fn the_highest_ordinal_goes_first_and_a_leader_hands_over_before() {
        assert_eq!(step(3, "V0 v1 v2 v3 v4"), Some(Step::RemoveVoter(NodeId(40))));
        assert_eq!(step(3, "V0 v1 v2 v3"), Some(Step::RemoveVoter(NodeId(30))));
        assert_eq!(step(3, "v0 v1 v2 v3 V4"), Some(Step::HandOver { to: NodeId(0) }));
        assert_eq!(step(1, "v0< v1 V2"), None, "nobody that stays could lead");
        assert_eq!(step(3, "V0 v1 v2 l3"), Some(Step::RemoveLearner(NodeId(30))));
        assert_eq!(step(3, "V0 v1 v2 k3"), None, "an operator's");
    }

    #[test]
    fn what_would_cost_the_majority_is_not_removed() {
        let why = waits(3, "V0 v1- v2- v3 v4");
        assert!(why.contains("balsa-4 is beyond the 3 nodes that the files want, and stays"), "{why}");
        assert!(
            why.contains("of 4 voters 2 would be able, which is no majority; balsa-1 does not answer, balsa-2"),
            "{why}"
        );
        assert_eq!(step(3, "V0 v1 v2- v3 v4"), Some(Step::RemoveVoter(NodeId(40))));
        assert_eq!(step(3, "V0 v1~ v2~ v3 v4"), None, "who was there a moment ago carries nothing");
        let sight = sight(1, "V0");
        assert!(sight.remove(&sight.members[0]).unwrap_err().contains("the last voter"));
    }

    #[test]
    fn files_that_say_no_number_move_nobody() {
        let silent = |members| Sight { replicas: None, ..sight(1, members) };
        assert_eq!(silent("V0 v1 v2").next(), (None, Vec::new()));
        assert_eq!(silent("V0 v1 v2- l2'").next().0, None);
    }
}
