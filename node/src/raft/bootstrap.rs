//! How a cluster begins, once.
//!
//! Only ordinal 0 may begin one, and only when every other first member answers that it is *pristine*: no vote, an empty log, and it
//! was never a member. A node that does not answer is not pristine: it may be one that lost its network and has a log. Ordinal 0 makes
//! a cluster id and fsyncs it, asks each of the others to adopt it (each fsyncs before it answers), and only then initialises
//! Raft with all of them. A crash at any point is repeated from the start with the same id: adopting twice is the same as
//! once, and Raft refuses to be initialised twice.
//!
//! If ordinal 0 loses its volume before that, the next one makes another id, and the others adopt that instead: as long as one of them
//! has neither a vote nor an entry it has promised nothing to anybody. A first one that was not lost, only away, finds that they are of
//! another cluster now, and needs every one of them to begin its own.
//!
//! Everybody else joins, and so does ordinal 0 if it loses its volume later: it comes back pristine and finds that the others
//! belong to a cluster. So before it begins one it looks for one ([`Identity::find_cluster`]), and not only among those that its
//! configuration counts: a file that says `replicas = 1`, or nothing, names nobody else to be asked, and there may be nodes all the
//! same. A node that joins takes the cluster's id from those that answer, and notes before anything else that it joins: from then on
//! it never begins one. How it is let in is [`crate::node`]'s, in `members`.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use tonic::Request;

use super::Raft;
use super::peers::{Peers, Purpose};
use super::types::Member;
use crate::ids::{ClusterId, NodeId};
use crate::meta::{self, Meta, Standing};
use crate::proto::peer as pb;

/// How long a peer has to say who it is. Bootstrap goes on asking for ever, so this only paces it.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What a node knows of itself and of its cluster's first members.
#[derive(Debug)]
pub struct Identity {
    /// The data directory's own.
    pub meta: Mutex<Meta>,
    /// From the configuration: the cluster's name.
    pub cluster_name: String,
    /// From the configuration: what the founders must agree on.
    pub founding_hash: [u8; 32],
    /// From the configuration: this node's ordinal.
    pub ordinal: u32,
    /// From the configuration: this node.
    pub own: Member,
    /// From the configuration: the first members by ordinal. A node beyond `replicas` is not among them.
    pub members: Vec<Member>,
    /// From the configuration: nodes with higher ordinals, which may have been let in when there were more.
    pub beyond: Vec<Member>,
}

/// A cluster that has begun, and those of its members that answered.
#[derive(Debug)]
pub struct Found {
    /// Which.
    pub cluster: ClusterId,
    /// Id and peer address.
    pub members: Vec<(NodeId, String)>,
}

/// Why this node belongs to no cluster yet.
#[derive(Debug, thiserror::Error)]
pub enum NotYet {
    /// A first member.
    #[error("{name} at {addr} does not answer yet: {why}")]
    Unreachable { name: String, addr: String, why: String },
    /// One has a past, so that there is or was a cluster.
    #[error(
        "{name} at {addr} is not pristine (it belongs to {cluster}); a cluster is begun only by nodes without a past"
    )]
    NotPristine { name: String, addr: String, cluster: String },
    /// Another node lives at an address.
    #[error("{addr} was expected to be {name} and says that it is {says}")]
    WrongName { name: String, addr: String, says: String },
    /// The founders do not agree.
    #[error(
        "{name} has another configuration (cluster {cluster:?} of {replicas}, here {own_cluster:?} of {own_replicas}); \
         the first members must agree on the cluster's name, its members' names and peer addresses, and [limits]"
    )]
    OtherConfiguration { name: String, cluster: String, replicas: u32, own_cluster: String, own_replicas: u32 },
    /// A first member refused.
    #[error("{name} did not join: {why}")]
    NotAdopted { name: String, why: String },
    /// openraft did.
    #[error("Raft refuses: {0}")]
    Raft(String),
    /// Nobody is there to join, and to begin a cluster is not this node's business.
    #[error("none of {asked} belongs to a cluster that has begun, as far as they answer")]
    NoCluster { asked: String },
    /// The peers do not belong together.
    #[error("{first} and {second} belong to different clusters; empty the data directory of the one that is wrong")]
    TwoClusters { first: String, second: String },
    /// This directory's cluster is not theirs.
    #[error(
        "this data directory belongs to cluster {own}, and {name} to {theirs}; to join that one, empty the directory"
    )]
    AnotherCluster { own: ClusterId, name: String, theirs: ClusterId },
    /// The data directory.
    #[error(transparent)]
    Meta(#[from] meta::Error),
}

impl Identity {
    /// This node as a member.
    pub fn member(&self) -> &Member {
        &self.own
    }

    /// Whether it falls to this node to begin a cluster, if there is none.
    pub fn may_found(&self) -> bool {
        self.ordinal == 0 && self.meta.lock().standing == Standing::New
    }

    fn replicas(&self) -> u32 {
        u32::try_from(self.members.len()).expect("a cluster is small")
    }

    /// Who this node is, for a node that begins a cluster.
    pub async fn identify(&self, raft: &Raft) -> pb::IdentifyResponse {
        let pristine = !raft.is_initialized().await.unwrap_or(true);
        let metrics = raft.server_metrics();
        let committed = metrics.borrow_watched().committed_membership_config.clone();
        let meta = self.meta.lock();
        pb::IdentifyResponse {
            name: self.member().name.clone(),
            id: meta.node_id.0,
            cluster_id: meta.cluster_id.map(|id| id.0.to_vec().into()).unwrap_or_default(),
            pristine: pristine && meta.standing == Standing::New,
            cluster_name: self.cluster_name.clone(),
            replicas: self.replicas(),
            peer_addr: self.member().peer_addr.clone(),
            client_addr: self.member().client_addr.clone(),
            founding_hash: self.founding_hash.to_vec().into(),
            member: committed.get_node(&meta.node_id).is_some(),
        }
    }

    /// Joins the cluster that another node begins, durably, or says why not.
    pub async fn adopt(&self, request: pb::AdoptRequest, raft: &Raft, peers: &Peers) -> Result<NodeId, String> {
        let id = ClusterId::try_from(&request.cluster_id[..]).map_err(|_| "a cluster id has 16 bytes".to_owned())?;
        if request.founding_hash[..] != self.founding_hash {
            return Err("its configuration is another".to_owned());
        }
        let initialized = raft.is_initialized().await.map_err(|error| error.to_string())?;
        let mut meta = self.meta.lock();
        match meta.cluster_id {
            Some(own) if own == id => {}
            Some(own) if initialized || meta.standing != Standing::New => {
                return Err(format!("this node belongs to cluster {own}"));
            }
            None if initialized => return Err("this node has a log or a vote, so it is not a new one".to_owned()),
            _ => meta.adopt(id).map_err(|error| error.to_string())?,
        }
        peers.set_cluster(id);
        Ok(meta.node_id)
    }

    /// Begins the cluster, if all its first members agree and none has a past.
    pub async fn found(&self, raft: &Raft, peers: &Peers) -> Result<(), NotYet> {
        let own = self.meta.lock().cluster_id;
        let mut founders = Vec::new();
        for member in self.others() {
            let them = ask(peers, member).await?;
            self.expect_pristine(member, &them, own)?;
            founders.push((NodeId(them.id), member));
        }
        let cluster = own.unwrap_or_else(ClusterId::random);
        self.meta.lock().adopt(cluster)?;
        peers.set_cluster(cluster);
        let mut members = BTreeMap::from([(peers.own(), self.member().clone())]);
        for (id, member) in founders {
            members.insert(self.ask_to_adopt(peers, id, member, cluster).await?, member.clone());
        }
        raft.initialize(members).await.map_err(|error| NotYet::Raft(error.to_string()))
    }

    /// Looks for a cluster of this name that has begun, among all nodes that there may be by the configuration.
    pub async fn find_cluster(&self, peers: &Peers) -> Result<Found, NotYet> {
        let places = self.others().chain(self.beyond.iter().filter(|member| member.name != self.own.name));
        let asked = futures::future::join_all(places.map(async |member| (member, ask(peers, member).await))).await;
        let mut found: Option<(Found, &str)> = None;
        for (member, them) in &asked {
            let Ok(them) = them else { continue };
            let Ok(cluster) = ClusterId::try_from(&them.cluster_id[..]) else { continue };
            if !them.member || them.cluster_name != self.cluster_name || them.name != member.name {
                continue;
            }
            let place = (NodeId(them.id), member.peer_addr.clone());
            match &mut found {
                None => found = Some((Found { cluster, members: vec![place] }, &member.name)),
                Some((known, _)) if known.cluster == cluster => known.members.push(place),
                Some((_, first)) => {
                    return Err(NotYet::TwoClusters { first: (*first).to_owned(), second: member.name.clone() });
                }
            }
        }
        let Some((found, name)) = found else {
            let asked: Vec<_> =
                self.others().map(|member| format!("{} at {}", member.name, member.peer_addr)).collect();
            return Err(NotYet::NoCluster { asked: asked.join(", ") });
        };
        match self.meta.lock().cluster_id {
            Some(own) if own != found.cluster => {
                Err(NotYet::AnotherCluster { own, name: name.to_owned(), theirs: found.cluster })
            }
            _ => Ok(found),
        }
    }

    /// Notes, durably, that this node is to be let into `cluster`.
    pub fn join(&self, cluster: ClusterId, peers: &Peers) -> Result<(), NotYet> {
        let mut meta = self.meta.lock();
        if meta.cluster_id.is_none() {
            // In this order: whoever has another's cluster id, and no note that it joins, could begin that cluster again.
            meta.stand(Standing::Joining)?;
            meta.adopt(cluster)?;
        }
        peers.set_cluster(cluster);
        Ok(())
    }

    /// The first members but this node.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.name != self.own.name)
    }

    fn expect_pristine(
        &self,
        member: &Member,
        them: &pb::IdentifyResponse,
        own: Option<ClusterId>,
    ) -> Result<(), NotYet> {
        let (name, addr) = (member.name.clone(), member.peer_addr.clone());
        if them.name != member.name {
            return Err(NotYet::WrongName { name, addr, says: them.name.clone() });
        }
        if them.founding_hash[..] != self.founding_hash {
            return Err(NotYet::OtherConfiguration {
                name,
                cluster: them.cluster_name.clone(),
                replicas: them.replicas,
                own_cluster: self.cluster_name.clone(),
                own_replicas: self.replicas(),
            });
        }
        // One that is a member already belongs to a cluster that has begun, though it be the one that this node adopted.
        let ours_already = own.is_some_and(|own| own.0[..] == them.cluster_id[..]);
        if !them.member && (them.pristine || ours_already) {
            return Ok(());
        }
        let cluster =
            ClusterId::try_from(&them.cluster_id[..]).map_or("no known cluster".to_owned(), |id| id.to_string());
        Err(NotYet::NotPristine { name, addr, cluster })
    }

    async fn ask_to_adopt(
        &self,
        peers: &Peers,
        id: NodeId,
        member: &Member,
        cluster: ClusterId,
    ) -> Result<NodeId, NotYet> {
        let not_adopted = |why: String| NotYet::NotAdopted { name: member.name.clone(), why };
        let mut client =
            peers.client(&member.peer_addr, Purpose::Forward).map_err(|error| not_adopted(error.to_string()))?;
        let request = pb::AdoptRequest {
            cluster_id: cluster.0.to_vec().into(),
            founding_hash: self.founding_hash.to_vec().into(),
        };
        match tokio::time::timeout(ANSWER_WITHIN, client.adopt(peers.addressed(id, request))).await {
            Ok(Ok(response)) => Ok(NodeId(response.into_inner().id)),
            Ok(Err(status)) => Err(not_adopted(status.message().to_owned())),
            Err(_) => Err(not_adopted("no answer".to_owned())),
        }
    }
}

async fn ask(peers: &Peers, member: &Member) -> Result<pb::IdentifyResponse, NotYet> {
    let unreachable = |why| NotYet::Unreachable { name: member.name.clone(), addr: member.peer_addr.clone(), why };
    who_is_at(peers, &member.peer_addr).await.map_err(unreachable)
}

/// Asks who lives at an address, or says why that is not known.
pub async fn who_is_at(peers: &Peers, addr: &str) -> Result<pb::IdentifyResponse, String> {
    let mut client = peers.client(addr, Purpose::Forward).map_err(|error| error.to_string())?;
    match tokio::time::timeout(ANSWER_WITHIN, client.identify(Request::new(pb::IdentifyRequest {}))).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err("no answer".to_owned()),
    }
}
