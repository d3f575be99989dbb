//! The states of several nodes, hashed after the same entry, while clients write.
//!
//! No node can show a state that it has left behind, and nodes do not hold still to be compared. So they are given an appointment:
//! an entry that none of them has come to yet, a little ahead of the one that is furthest. If one is past it when it is asked,
//! the next appointment is further ahead, by twice of what it was missed by; if no node comes to it for seconds (the writers have
//! stopped), the next is nearer. A node that is behind the others is asked again for the same entry, since the others keep it.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::{Client, Error};
use crate::proto::admin::DeepCheckResponse;

/// Why there is nothing to compare.
#[derive(Debug)]
pub enum Apart {
    /// One of the nodes could not be asked.
    Node {
        /// Its place among those that were to be asked.
        node: usize,
        /// Why.
        error: Error,
    },
    /// They did not meet in time.
    Never {
        /// Where each was last.
        indexes: Vec<u64>,
    },
}

/// Has each of `nodes` (a client of one node each) hash its state after one and the same entry, `since` or a later one. The
/// hashes come in the order of `nodes`.
pub async fn hash_together(nodes: &[Client], since: u64, deadline: Instant) -> Result<Vec<DeepCheckResponse>, Apart> {
    let nodes: Vec<_> = nodes.iter().map(|node| node.until(deadline)).collect();
    let mut meeting = Meeting { at: since.max(1), ahead: 0, newest: 0, found: vec![Found::Behind(0); nodes.len()] };
    loop {
        let furthest = meeting.newest;
        let asked = meeting.ask(&nodes).await;
        if let Some(hashes) = meeting.hashes() {
            return Ok(hashes);
        }
        match asked {
            // Time ran out while a node waited for the entry.
            Err(Apart::Node { node, .. }) if meeting.found[node].index() > 0 => return Err(meeting.never()),
            Ok(()) if Instant::now() >= deadline => return Err(meeting.never()),
            Err(apart) => return Err(apart),
            Ok(()) => meeting.move_on(furthest),
        }
    }
}

/// What came of the question to a node.
#[derive(Debug, Clone)]
enum Found {
    /// Its state after the entry.
    There(DeepCheckResponse),
    /// It is at this index, before the entry or past it.
    Behind(u64),
}

impl Found {
    fn index(&self) -> u64 {
        match self {
            Self::There(hash) => hash.index,
            Self::Behind(index) => *index,
        }
    }

    fn hash(&self) -> Option<&DeepCheckResponse> {
        match self {
            Self::There(hash) => Some(hash),
            Self::Behind(_) => None,
        }
    }
}

/// An entry, and what was found of it.
#[derive(Debug)]
struct Meeting {
    at: u64,
    /// How far ahead of the furthest node it was chosen.
    ahead: u64,
    /// The furthest index that any node told.
    newest: u64,
    found: Vec<Found>,
}

impl Meeting {
    /// Asks those who have not kept the appointment, until all have answered or one is past it: then nobody else has to read all
    /// it has for nothing.
    async fn ask(&mut self, nodes: &[Client]) -> Result<(), Apart> {
        let at = self.at;
        let missing = (0..nodes.len()).filter(|node| self.found[*node].hash().is_none());
        let ask = async |node: usize| (node, nodes[node].deep_check(at).await);
        let mut asked: FuturesUnordered<_> = missing.map(ask).collect();
        while let Some((node, answer)) = asked.next().await {
            let answer = answer.map_err(|error| Apart::Node { node, error })?;
            self.newest = self.newest.max(answer.index);
            let is_past = answer.index > at;
            self.found[node] = if answer.hash.is_empty() { Found::Behind(answer.index) } else { Found::There(answer) };
            if is_past {
                break;
            }
        }
        Ok(())
    }

    fn hashes(&self) -> Option<Vec<DeepCheckResponse>> {
        self.found.iter().map(|found| found.hash().cloned()).collect()
    }

    fn never(&self) -> Apart {
        Apart::Never { indexes: self.found.iter().map(Found::index).collect() }
    }

    /// Chooses the next entry. `furthest` is where the furthest node was before this one was asked for.
    fn move_on(&mut self, furthest: u64) {
        let missed_by = self.newest.saturating_sub(self.at);
        if missed_by > 0 {
            // At first by one: where only a tick a second is logged, that is the quickest.
            self.ahead = if self.ahead == 0 { 1 } else { 2 * self.ahead.max(missed_by) };
        } else if self.found.iter().all(|found| found.hash().is_none()) {
            self.ahead = ((self.newest - furthest) / 2).max(1);
        } else {
            return;
        }
        self.at = self.newest + self.ahead;
        self.found.iter_mut().for_each(|found| *found = Found::Behind(found.index()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use prost::Message;

    use super::*;
    use crate::client::fake::{Answer, Asked, FakeNode, reply};
    use crate::proto::admin::DeepCheckRequest;

    /// A node at `index`, which has `pace` more entries whenever it is asked, and comes to an appointment no further than `reach`
    /// ahead.
    fn node(index: Arc<AtomicU64>, pace: u64, reach: u64) -> impl Fn(&Asked) -> Answer {
        move |asked| {
            let wanted = DeepCheckRequest::decode(&*asked.message).unwrap().index;
            let now = index.fetch_add(pace, Ordering::SeqCst) + pace;
            let (index, hash) = match wanted {
                wanted if wanted < now => (now, String::new()),
                wanted if wanted > now + reach => (index.fetch_add(reach, Ordering::SeqCst) + reach, String::new()),
                wanted => {
                    index.fetch_max(wanted, Ordering::SeqCst);
                    (wanted, format!("state {wanted}"))
                }
            };
            reply(DeepCheckResponse { index, hash: hash.into(), ..Default::default() }.encode_to_vec(), index)
        }
    }

    async fn meet(nodes: &[FakeNode], since: u64, patience: Duration) -> Result<Vec<u64>, Apart> {
        let clients: Vec<_> = nodes.iter().map(FakeNode::client).collect();
        let hashes = hash_together(&clients, since, Instant::now() + patience).await?;
        Ok(hashes.iter().map(|hash| hash.index).collect())
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn nodes_at_rest_are_compared_where_they_are() {
        let nodes = [
            FakeNode::start(node(Arc::new(7.into()), 0, 9)).await,
            FakeNode::start(node(Arc::new(3.into()), 0, 9)).await,
        ];
        assert_eq!(meet(&nodes, 7, LONG).await.unwrap(), [7, 7]);
        assert!(nodes.iter().all(|node| node.asked().len() == 1));
    }

    #[tokio::test]
    async fn nodes_that_are_written_to_meet_at_an_entry_to_come() {
        let nodes = [
            FakeNode::start(node(Arc::new(100.into()), 50, 5000)).await,
            FakeNode::start(node(Arc::new(90.into()), 50, 5000)).await,
        ];
        let met = meet(&nodes, 100, LONG).await.unwrap();
        assert!(met[0] == met[1] && met[0] > 150, "{met:?}");
        assert!(nodes.iter().all(|node| node.asked().len() < 8), "it does not take long");
    }

    #[tokio::test]
    async fn one_that_is_behind_is_asked_again_for_the_entry_that_the_others_have() {
        let slow = FakeNode::start(node(Arc::new(2.into()), 9, 1)).await;
        let nodes = [FakeNode::start(node(Arc::new(40.into()), 0, 9)).await, slow];
        assert_eq!(meet(&nodes, 42, LONG).await.unwrap(), [42, 42]);
        assert_eq!((nodes[0].asked().len(), nodes[1].asked().len()), (1, 4));
    }

    #[tokio::test]
    async fn an_entry_that_nobody_comes_to_is_given_up_for_a_nearer_one() {
        let nodes = [FakeNode::start(node(Arc::new(5.into()), 0, 2)).await];
        assert_eq!(meet(&nodes, 1000, LONG).await.unwrap(), [10]);
    }

    #[tokio::test]
    async fn nodes_that_do_not_meet_in_time_are_told_with_their_places() {
        let nodes = [
            FakeNode::start(node(Arc::new(9.into()), 0, 9)).await,
            FakeNode::start(node(Arc::new(4.into()), 0, 0)).await,
        ];
        let apart = meet(&nodes, 9, Duration::from_secs(2)).await.unwrap_err();
        assert!(matches!(&apart, Apart::Never { indexes } if indexes == &[9, 4]), "{apart:?}");
    }
}
