//! The way in, as the node goes it that is outside.
//!
//! A node that was never a member looks for a cluster for as long as it takes, at first often and then every few seconds, and says each
//! new reason once. What it finds it notes before it asks ([`crate::meta::Standing::Joining`]), so that a crash in between changes
//! nothing. To be let in is the leader's business ([`super::admit`]); that this node was, it learns from its own log.

use std::time::Duration;

use super::Node;
use crate::ids::NodeId;
use crate::meta::Standing;
use crate::proto::peer as pb;
use crate::raft::bootstrap::{Found, NotYet};
use crate::raft::peers::Purpose;

/// Between two attempts, at first.
const PAUSE_MIN: Duration = Duration::from_millis(300);
/// At most: a person who has set right what was wrong should see it soon.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// How long the leader has to answer; it asks others meanwhile.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

impl Node {
    /// Until this node is a member: begins a cluster or joins one.
    pub(in crate::node) async fn enter(&self) {
        let (mut said, mut pause) = (String::new(), PAUSE_MIN);
        loop {
            if self.is_committed_member() || self.inner.identity.meta.lock().standing == Standing::Member {
                return self.note_membership();
            }
            if self.retired().is_some() || self.fenced().is_some() {
                return;
            }
            if self.membership().get_node(&self.inner.peers.own()).is_some() {
                *self.inner.members.outside.lock() = None;
            } else if self.takes_part()
                && let Err(why) = self.try_to_enter().await
            {
                pause = if why == said { (pause * 2).min(PAUSE_MAX) } else { PAUSE_MIN };
                if why != said {
                    tracing::info!("not a member of a cluster yet: {why}");
                    said.clone_from(&why);
                }
            }
            self.leader_news(pause).await;
            // News come in bursts.
            tokio::time::sleep(PAUSE_MIN).await;
        }
    }

    fn note_membership(&self) {
        *self.inner.members.outside.lock() = None;
        if let Err(error) = self.inner.identity.meta.lock().stand(Standing::Member) {
            self.inner.fatal.raise(error);
        }
    }

    async fn try_to_enter(&self) -> Result<(), String> {
        let inner = &self.inner;
        // Whoever may begin a cluster joins one, if there is one.
        let found = match inner.identity.find_cluster(&inner.peers).await {
            Ok(found) => found,
            Err(NotYet::NoCluster { .. }) if inner.identity.may_found() => {
                let founded = inner.identity.found(&inner.raft, &inner.peers).await;
                return founded.map(|()| self.say_founded()).map_err(|why| self.unless_fatal(why));
            }
            Err(why) => return Err(self.unless_fatal(why)),
        };
        inner.identity.join(found.cluster, &inner.peers).map_err(|why| self.unless_fatal(why))?;
        let outcome = self.ask_to_join(&found).await;
        *inner.members.outside.lock() = outcome.as_ref().err().cloned();
        outcome
    }

    fn say_founded(&self) {
        tracing::info!(replicas = self.inner.identity.members.len(), "a new cluster has begun");
    }

    fn unless_fatal(&self, why: NotYet) -> String {
        if let NotYet::Meta(error) = &why {
            self.inner.fatal.raise(error);
        }
        why.to_string()
    }

    async fn ask_to_join(&self, found: &Found) -> Result<(), String> {
        let mut last = String::new();
        for (id, addr) in &found.members {
            match self.ask_one(*id, addr).await {
                Ok(pb::JoinResponse { answer: Some(pb::join_response::Answer::Admitted(_)) }) => return Ok(()),
                Ok(pb::JoinResponse { answer: Some(pb::join_response::Answer::Refused(why)) }) => return Err(why),
                Ok(pb::JoinResponse { answer: Some(pb::join_response::Answer::Elsewhere(why)) }) => last = why,
                Ok(_) => last = format!("the node at {addr} answered nothing that this version understands"),
                Err(why) => last = format!("{addr}: {why}"),
            }
        }
        Err(last)
    }

    async fn ask_one(&self, id: NodeId, addr: &str) -> Result<pb::JoinResponse, String> {
        let (peers, own) = (&self.inner.peers, self.inner.identity.member());
        let mut client = peers.client(addr, Purpose::Forward).map_err(|error| error.to_string())?;
        let request = pb::JoinRequest {
            name: own.name.clone(),
            id: peers.own().0,
            peer_addr: own.peer_addr.clone(),
            client_addr: own.client_addr.clone(),
            passed_on: false,
        };
        match tokio::time::timeout(ANSWER_WITHIN, client.join(peers.addressed(id, request))).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(status.message().to_owned()),
            Err(_) => Err("no answer".to_owned()),
        }
    }
}
