//! How nodes find out that their states differ, and which of them is wrong.
//!
//! Every second each node tells each other what its rolling digest was at some recent indexes. Equal digests at an index mean
//! equal history up to it: the same entries, writes and replies. A node that sees a *majority of the voters* agree on another
//! digest than its own, at one index, fences itself: it notes so durably, gives up and serves nothing until its volume is
//! emptied. Where digests differ and no side has a majority, nobody knows who is right, and every node refuses commands until
//! it is known. This file is the judgement alone, without network or clock.

use std::collections::BTreeMap;

use crate::ids::{Digest, NodeId};

/// Digests of one node at some indexes.
pub type Digests = BTreeMap<u64, Digest>;

/// What the comparison says about this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing differs, as far as it can be compared.
    Agrees,
    /// This node is with the majority; these are not.
    OthersDiffer(Vec<NodeId>),
    /// Digests differ at this index and no side has a majority.
    Undecided(u64),
    /// A majority agrees on another digest than this node's.
    Fence {
        /// The lowest compared index at which it does.
        index: u64,
        /// This node's.
        own: Digest,
        /// The majority's.
        majority: Digest,
        /// Somebody of the majority, to ask for more.
        witness: NodeId,
    },
}

/// Compares `own` with what the other voters said. `voters` counts them all, this node included if it `votes`: a learner is judged,
/// and judges nobody.
pub fn judge(own: &Digests, votes: bool, others: &BTreeMap<NodeId, Digests>, voters: usize) -> Verdict {
    let quorum = voters / 2 + 1;
    let mut verdict = Verdict::Agrees;
    for (index, digest) in own {
        let said: Vec<(NodeId, Digest)> =
            others.iter().filter_map(|(id, theirs)| Some((*id, *theirs.get(index)?))).collect();
        let differing: Vec<NodeId> = said.iter().filter(|(_, said)| said != digest).map(|(id, _)| *id).collect();
        if differing.is_empty() {
            continue;
        }
        let agreeing = usize::from(votes) + said.len() - differing.len();
        if let Some((witness, majority)) = other_majority(&said, *digest, quorum) {
            return Verdict::Fence { index: *index, own: *digest, majority, witness };
        }
        if agreeing >= quorum {
            verdict = Verdict::OthersDiffer(differing);
        } else if votes && verdict == Verdict::Agrees {
            verdict = Verdict::Undecided(*index);
        }
    }
    verdict
}

fn other_majority(said: &[(NodeId, Digest)], own: Digest, quorum: usize) -> Option<(NodeId, Digest)> {
    said.iter()
        .filter(|(_, digest)| *digest != own)
        .find(|(_, digest)| said.iter().filter(|(_, other)| other == digest).count() >= quorum)
        .copied()
}

/// The first index at which two nodes differ, of those that both remember.
pub fn first_difference(own: &Digests, theirs: &Digests) -> Option<u64> {
    own.iter().find(|(index, digest)| theirs.get(index).is_some_and(|their| their != *digest)).map(|(index, _)| *index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(all: &[(u64, u8)]) -> Digests {
        all.iter().map(|(index, byte)| (*index, Digest([*byte; 32]))).collect()
    }

    fn others(all: &[(u64, &[(u64, u8)])]) -> BTreeMap<NodeId, Digests> {
        all.iter().map(|(id, said)| (NodeId(*id), digests(said))).collect()
    }

    #[test]
    fn the_one_that_differs_from_a_majority_fences_itself() {
        let said = others(&[(2, &[(9, 1), (10, 1)]), (3, &[(10, 1)])]);
        let verdict = judge(&digests(&[(9, 1), (10, 2)]), true, &said, 3);
        assert!(matches!(verdict, Verdict::Fence { index: 10, .. }), "{verdict:?}");
    }

    #[test]
    fn the_majority_names_the_one_that_differs() {
        let said = others(&[(2, &[(10, 1)]), (3, &[(10, 2)])]);
        assert_eq!(judge(&digests(&[(10, 1)]), true, &said, 3), Verdict::OthersDiffer(vec![NodeId(3)]));
    }

    #[test]
    fn one_against_one_is_undecided() {
        let said = others(&[(2, &[(10, 2)])]);
        assert_eq!(judge(&digests(&[(10, 1)]), true, &said, 3), Verdict::Undecided(10));
        assert_eq!(judge(&digests(&[(10, 1)]), true, &said, 2), Verdict::Undecided(10));
    }

    #[test]
    fn a_learner_s_digest_does_not_count_and_it_can_be_fenced() {
        let split = others(&[(1, &[(10, 1)]), (2, &[(10, 2)])]);
        assert_eq!(judge(&digests(&[(10, 1)]), false, &split, 3), Verdict::Agrees, "the voters will find out");
        let said = others(&[(1, &[(10, 1)]), (2, &[(10, 1)])]);
        assert!(matches!(judge(&digests(&[(10, 2)]), false, &said, 3), Verdict::Fence { .. }));
    }

    #[test]
    fn three_different_ones_are_undecided() {
        let said = others(&[(2, &[(10, 2)]), (3, &[(10, 3)])]);
        assert_eq!(judge(&digests(&[(10, 1)]), true, &said, 3), Verdict::Undecided(10));
    }

    #[test]
    fn indexes_that_are_not_shared_say_nothing() {
        let said = others(&[(2, &[(11, 2)]), (3, &[(12, 3)])]);
        assert_eq!(judge(&digests(&[(10, 1)]), true, &said, 3), Verdict::Agrees);
    }

    #[test]
    fn the_first_difference_is_named() {
        let (own, theirs) = (digests(&[(1, 1), (2, 1), (3, 5), (4, 6)]), digests(&[(2, 1), (3, 1), (4, 1)]));
        assert_eq!(first_difference(&own, &theirs), Some(3));
    }
}
