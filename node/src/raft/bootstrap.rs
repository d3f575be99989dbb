//! How a cluster begins, once.
//!
//! Only ordinal 0 may begin one, and only when every other first member answers that it is *pristine*: no cluster, no vote, an
//! empty log. A node that does not answer is not pristine: it may be one that lost its network and has a log. Ordinal 0 makes a
//! cluster id and fsyncs it, asks each of the others to adopt it (each fsyncs before it answers), and only then initialises
//! Raft with all of them. A crash at any point is repeated from the start with the same id: adopting twice is the same as
//! once, and Raft refuses to be initialised twice.
//!
//! If ordinal 0 loses its volume later, it comes back pristine, finds that the others belong to a cluster, and waits to be let
//! in as a new member. It never begins a second cluster beside the first.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tonic::Request;

use super::Raft;
use super::peers::{Peers, Purpose};
use super::types::Member;
use crate::fatal::Fatal;
use crate::ids::{ClusterId, NodeId};
use crate::meta::Meta;
use crate::proto::peer as pb;

/// How long a peer has to say who it is. Bootstrap goes on asking for ever, so this only paces it.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Between two rounds of asking.
const ROUND: Duration = Duration::from_millis(300);

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
    /// From the configuration: the first members by ordinal, this node among them.
    pub members: Vec<Member>,
}

/// Why a round of bootstrap has not begun a cluster.
#[derive(Debug, thiserror::Error)]
enum NotYet {
    #[error("{name} at {addr} does not answer yet: {why}")]
    Unreachable { name: String, addr: String, why: String },
    #[error(
        "{name} at {addr} is not pristine (it belongs to {cluster}); a cluster is begun only by nodes without a past. If this node lost its volume, it has to be added to that cluster"
    )]
    NotPristine { name: String, addr: String, cluster: String },
    #[error("{addr} was expected to be {name} and says that it is {says}")]
    WrongName { name: String, addr: String, says: String },
    #[error(
        "{name} has another configuration (cluster {cluster:?} of {replicas}, here {own_cluster:?} of {own_replicas}); \
         the first members must agree on the cluster's name, its members' names and peer addresses, and [limits]"
    )]
    OtherConfiguration { name: String, cluster: String, replicas: u32, own_cluster: String, own_replicas: u32 },
    #[error("{name} did not join: {why}")]
    NotAdopted { name: String, why: String },
    #[error("Raft refuses: {0}")]
    Raft(String),
}

impl Identity {
    /// This node as a member.
    pub fn member(&self) -> &Member {
        &self.members[self.ordinal as usize]
    }

    fn replicas(&self) -> u32 {
        u32::try_from(self.members.len()).expect("a cluster is small")
    }

    /// Who this node is, for a node that begins a cluster.
    pub async fn identify(&self, raft: &Raft) -> pb::IdentifyResponse {
        let pristine = !raft.is_initialized().await.unwrap_or(true);
        let meta = self.meta.lock();
        pb::IdentifyResponse {
            name: self.member().name.clone(),
            id: meta.node_id.0,
            cluster_id: meta.cluster_id.map(|id| id.0.to_vec().into()).unwrap_or_default(),
            pristine: pristine && meta.cluster_id.is_none(),
            cluster_name: self.cluster_name.clone(),
            replicas: self.replicas(),
            peer_addr: self.member().peer_addr.clone(),
            client_addr: self.member().client_addr.clone(),
            founding_hash: self.founding_hash.to_vec().into(),
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
            Some(own) => return Err(format!("this node belongs to cluster {own}")),
            None if initialized => return Err("this node has a log or a vote, so it is not a new one".to_owned()),
            None => meta.adopt(id).map_err(|error| error.to_string())?,
        }
        peers.set_cluster(id);
        Ok(meta.node_id)
    }

    /// Begins the cluster, if it falls to this node and the cluster has not begun. Asks until it is done.
    pub async fn bootstrap(&self, raft: &Raft, peers: &Peers, fatal: &Fatal) {
        let mut said = String::new();
        while self.ordinal == 0 && !raft.is_initialized().await.unwrap_or(true) {
            match self.round(raft, peers, fatal).await {
                Ok(()) => return tracing::info!(replicas = self.replicas(), "a new cluster has begun"),
                Err(why) => {
                    let why = why.to_string();
                    if why != said {
                        tracing::info!("the cluster has not begun: {why}");
                        said = why;
                    }
                }
            }
            tokio::time::sleep(ROUND).await;
        }
    }

    async fn round(&self, raft: &Raft, peers: &Peers, fatal: &Fatal) -> Result<(), NotYet> {
        let own = self.meta.lock().cluster_id;
        for member in self.others() {
            let them = ask(peers, member).await?;
            self.expect_pristine(member, &them, own)?;
        }
        let cluster = own.unwrap_or_else(ClusterId::random);
        if let Err(error) = self.meta.lock().adopt(cluster) {
            fatal.raise(&error);
            return Err(NotYet::Raft(error.to_string()));
        }
        peers.set_cluster(cluster);
        let mut members = BTreeMap::from([(peers.own(), self.member().clone())]);
        for member in self.others() {
            members.insert(self.ask_to_adopt(peers, member, cluster).await?, member.clone());
        }
        raft.initialize(members).await.map_err(|error| NotYet::Raft(error.to_string()))
    }

    fn others(&self) -> impl Iterator<Item = &Member> {
        let own = self.ordinal as usize;
        self.members.iter().enumerate().filter(move |(at, _)| *at != own).map(|(_, member)| member)
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
        let ours_already = own.is_some_and(|own| own.0[..] == them.cluster_id[..]);
        if them.pristine || ours_already {
            return Ok(());
        }
        let cluster =
            ClusterId::try_from(&them.cluster_id[..]).map_or("no known cluster".to_owned(), |id| id.to_string());
        Err(NotYet::NotPristine { name, addr, cluster })
    }

    async fn ask_to_adopt(&self, peers: &Peers, member: &Member, cluster: ClusterId) -> Result<NodeId, NotYet> {
        let not_adopted = |why: String| NotYet::NotAdopted { name: member.name.clone(), why };
        let mut client =
            peers.client(&member.peer_addr, Purpose::Forward).map_err(|error| not_adopted(error.to_string()))?;
        let request = pb::AdoptRequest {
            cluster_id: cluster.0.to_vec().into(),
            founding_hash: self.founding_hash.to_vec().into(),
        };
        match tokio::time::timeout(ANSWER_WITHIN, client.adopt(Request::new(request))).await {
            Ok(Ok(response)) => Ok(NodeId(response.into_inner().id)),
            Ok(Err(status)) => Err(not_adopted(status.message().to_owned())),
            Err(_) => Err(not_adopted("no answer".to_owned())),
        }
    }
}

async fn ask(peers: &Peers, member: &Member) -> Result<pb::IdentifyResponse, NotYet> {
    let unreachable =
        |why: String| NotYet::Unreachable { name: member.name.clone(), addr: member.peer_addr.clone(), why };
    let mut client =
        peers.client(&member.peer_addr, Purpose::Forward).map_err(|error| unreachable(error.to_string()))?;
    match tokio::time::timeout(ANSWER_WITHIN, client.identify(Request::new(pb::IdentifyRequest {}))).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(unreachable(status.message().to_owned())),
        Err(_) => Err(unreachable("no answer".to_owned())),
    }
}
