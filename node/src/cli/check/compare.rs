//! Rolling digests of several nodes, and whether they agree.
//!
//! A node's digest after entry *i* covers all entries up to *i*, so one index at which all nodes have the same digest says
//! that they agreed until then. Nodes are asked one after the other while entries go on being applied, so each tells some
//! recent ones beside the newest, and all that was told is kept.

use std::collections::BTreeMap;

use crate::proto::admin::NodeStatus;

/// What each node has told so far: digests by index.
#[derive(Debug)]
pub(super) struct Digests {
    nodes: Vec<BTreeMap<u64, Vec<u8>>>,
}

/// What follows from it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// All nodes agree at `index`.
    Same { index: u64, digest: Vec<u8> },
    /// Two nodes differ at `index`, the first one where that is seen.
    Different { index: u64 },
    /// There is no index yet at which all nodes can be compared.
    Unknown,
}

impl Digests {
    pub(super) fn new(nodes: usize) -> Self {
        Self { nodes: vec![BTreeMap::new(); nodes] }
    }

    /// Keeps what `node` says about itself.
    pub(super) fn learn(&mut self, node: usize, status: &NodeStatus) {
        let known = &mut self.nodes[node];
        known.extend(status.recent.iter().map(|recent| (recent.index, recent.digest.to_vec())));
        if !status.digest.is_empty() {
            known.insert(status.digest_index, status.digest.to_vec());
        }
    }

    /// A difference anywhere counts; agreement counts from index `since` on, and at all nodes.
    pub(super) fn compare(&self, since: u64) -> Comparison {
        let mut indexes: Vec<u64> = self.nodes.iter().flat_map(|node| node.keys().copied()).collect();
        indexes.sort_unstable();
        indexes.dedup();
        let differs = |index: &u64| {
            let mut digests = self.at(*index).map(|(_, digest)| digest);
            let first = digests.next();
            digests.any(|digest| Some(digest) != first)
        };
        if let Some(index) = indexes.iter().copied().find(differs) {
            return Comparison::Different { index };
        }
        let common = |index: &u64| *index >= since && self.at(*index).count() == self.nodes.len();
        let Some(index) = indexes.into_iter().rev().find(common) else { return Comparison::Unknown };
        let digest = self.at(index).next().map(|(_, digest)| digest.to_vec()).unwrap_or_default();
        Comparison::Same { index, digest }
    }

    /// The digests at `index`, of the nodes that told one.
    pub(super) fn at(&self, index: u64) -> impl Iterator<Item = (usize, &[u8])> {
        let each = self.nodes.iter().enumerate();
        each.filter_map(move |(node, known)| Some((node, known.get(&index)?.as_slice())))
    }

    /// The newest index each node told.
    pub(super) fn newest(&self) -> impl Iterator<Item = Option<u64>> {
        self.nodes.iter().map(|known| known.keys().next_back().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::admin::IndexDigest;

    fn status(newest: (u64, &'static str), recent: &[(u64, &'static str)]) -> NodeStatus {
        let recent = recent.iter().map(|(index, digest)| IndexDigest { index: *index, digest: (*digest).into() });
        NodeStatus { digest_index: newest.0, digest: newest.1.into(), recent: recent.collect(), ..Default::default() }
    }

    #[test]
    fn nodes_agree_at_the_newest_index_they_have_in_common() {
        let mut digests = Digests::new(2);
        digests.learn(0, &status((9, "i"), &[(7, "g"), (8, "h")]));
        assert_eq!(digests.compare(1), Comparison::Unknown);
        digests.learn(1, &status((8, "h"), &[(7, "g")]));
        assert_eq!(digests.compare(1), Comparison::Same { index: 8, digest: b"h".into() });
        assert_eq!(digests.compare(9), Comparison::Unknown, "not before the last write");
        digests.learn(1, &status((9, "i"), &[]));
        assert_eq!(digests.compare(9), Comparison::Same { index: 9, digest: b"i".into() });
    }

    #[test]
    fn the_first_index_where_two_nodes_differ_is_named_even_if_a_third_is_silent() {
        let mut digests = Digests::new(3);
        digests.learn(0, &status((9, "i"), &[(7, "g"), (8, "h")]));
        digests.learn(2, &status((9, "x"), &[(7, "g"), (8, "y")]));
        assert_eq!(digests.compare(1), Comparison::Different { index: 8 });
        assert_eq!(digests.at(8).count(), 2);
    }
}
