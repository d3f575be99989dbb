//! Connections to the other nodes.
//!
//! One HTTP/2 connection per peer and purpose, shared by everything that talks to it: openraft asks for a new client at every
//! vote, and heartbeats must not queue behind a snapshot. A connection that breaks, or leads to another node than the one that is
//! meant, is made anew on next use, and the peer's name is then resolved again. Every request says which cluster it belongs to, who
//! sends it and who is meant, because names and addresses get reused by other pods; the receiver refuses what is not for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::connection::Connection;
use super::types::Member;
use crate::ids::{ClusterId, NodeId};
use crate::measure::ReplicationMeter;
use crate::proto::peer::peer_client::PeerClient;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Log entries and votes.
    Replication,
    /// Heartbeats, and with them ReadIndex.
    Heartbeat,
    /// Snapshots.
    Snapshot,
    /// Clients' calls handed to the leader, and everything else.
    Forward,
}

/// An append message carries up to 4 MiB of entries, or one entry of any size: the largest has a whole module in it, as the first
/// activations had.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A connection that leads to the wrong node is kept for this long.
const FORGET_AFTER: Duration = Duration::from_secs(1);

const CLUSTER_KEY: &str = "balsa-cluster";
const FROM_KEY: &str = "balsa-from";
const TO_KEY: &str = "balsa-to";

/// The other nodes, as this one reaches them. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Peers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    own: NodeId,
    cluster: RwLock<Option<ClusterId>>,
    channels: Mutex<HashMap<(String, Purpose), Made>>,
    /// Where the members are, as of the last membership.
    places: Mutex<HashMap<NodeId, String>>,
    meter: ReplicationMeter,
}

/// A channel, and since when there is one.
#[derive(Debug)]
struct Made {
    channel: Channel,
    at: Instant,
}

/// An address that cannot be one.
#[derive(Debug, thiserror::Error)]
#[error("{addr:?} is not an address a peer can be reached at (host:port): {source}")]
pub struct BadAddress {
    addr: String,
    source: tonic::transport::Error,
}

impl Peers {
    /// For the node `own`, which belongs to `cluster` if it joined one already.
    pub fn new(own: NodeId, cluster: Option<ClusterId>) -> Self {
        let inner = Inner {
            own,
            cluster: RwLock::new(cluster),
            channels: Mutex::default(),
            places: Mutex::default(),
            meter: ReplicationMeter::default(),
        };
        Self(Arc::new(inner))
    }

    /// This node.
    pub fn own(&self) -> NodeId {
        self.0.own
    }

    /// What is measured of replication, in both directions.
    pub fn meter(&self) -> &ReplicationMeter {
        &self.0.meter
    }

    /// The cluster this node belongs to, once it does.
    pub fn cluster(&self) -> Option<ClusterId> {
        *self.0.cluster.read()
    }

    /// Notes the cluster this node now belongs to, as its directory has it.
    pub fn set_cluster(&self, id: ClusterId) {
        *self.0.cluster.write() = Some(id);
    }

    /// Takes in where the members are.
    pub fn note_places<'a>(&self, members: impl Iterator<Item = (&'a NodeId, &'a Member)>) {
        *self.0.places.lock() = members.map(|(id, member)| (*id, member.peer_addr.clone())).collect();
    }

    /// Where that member is, as far as it was noted.
    pub fn place_of(&self, id: NodeId) -> Option<String> {
        self.0.places.lock().get(&id).cloned()
    }

    /// A client for the node at `addr`.
    pub fn client(&self, addr: &str, purpose: Purpose) -> Result<PeerClient<Connection>, BadAddress> {
        let mut channels = self.0.channels.lock();
        let channel = match channels.get(&(addr.to_owned(), purpose)) {
            Some(made) => made.channel.clone(),
            None => {
                let channel = connect_lazily(addr)?;
                channels.insert((addr.to_owned(), purpose), Made { channel: channel.clone(), at: Instant::now() });
                channel
            }
        };
        Ok(PeerClient::new(Connection { channel, addr: addr.to_owned(), peers: self.clone() })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// Gives up the connections to `addr`, so that the next use makes new ones and asks DNS again; but none that is new, since a
    /// node that is no more what it was may be asked many times a second, and its name may be in caches for a while.
    pub fn forget(&self, addr: &str) {
        let mut channels = self.0.channels.lock();
        channels.retain(|(known, _), made| known != addr || made.at.elapsed() < FORGET_AFTER);
    }

    /// `message` for the node `to`.
    pub fn addressed<T>(&self, to: NodeId, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert(FROM_KEY, ascii(self.0.own));
        metadata.insert(TO_KEY, ascii(to));
        if let Some(cluster) = self.cluster() {
            metadata.insert(CLUSTER_KEY, ascii(cluster));
        }
        request
    }

    /// Who sent a request with this metadata, if it is from this cluster and for this node.
    pub fn admit(&self, metadata: &MetadataMap) -> Result<NodeId, Box<Status>> {
        let from = self.admit_cluster(metadata)?;
        let to = text(metadata, TO_KEY);
        if to != self.0.own.to_string() {
            return Err(refuse(format!("this is node {}, not {to:?}", self.0.own)));
        }
        Ok(from)
    }

    /// The same for a question that any node of the cluster may answer, whoever was expected here.
    pub fn admit_cluster(&self, metadata: &MetadataMap) -> Result<NodeId, Box<Status>> {
        let Some(cluster) = self.cluster() else {
            return Err(refuse("this node belongs to no cluster yet".into()));
        };
        let theirs = text(metadata, CLUSTER_KEY);
        if theirs != cluster.to_string() {
            return Err(refuse(format!("this node belongs to cluster {cluster}, not to {theirs:?}")));
        }
        let from = text(metadata, FROM_KEY).parse();
        from.map_err(|_| refuse("the request does not say which node sent it".into()))
    }

    /// Whether a request with this metadata is for this node, of whatever cluster: a cluster's first question comes from outside.
    pub fn admit_founder(&self, metadata: &MetadataMap) -> Result<(), Box<Status>> {
        match text(metadata, TO_KEY) {
            // One that begins a cluster in a version from before it said whom it means.
            "" => Ok(()),
            to if to == self.0.own.to_string() => Ok(()),
            to => Err(refuse(format!("this is node {}, not {to:?}", self.0.own))),
        }
    }

    /// `message` for whoever of the cluster is at an address.
    pub fn addressed_to_any<T>(&self, message: T) -> Request<T> {
        self.addressed(NodeId(0), message)
    }
}

fn text<'a>(metadata: &'a MetadataMap, key: &str) -> &'a str {
    metadata.get(key).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn refuse(why: String) -> Box<Status> {
    Box::new(Status::failed_precondition(why))
}

fn ascii(value: impl std::fmt::Display) -> MetadataValue<Ascii> {
    value.to_string().parse().expect("hex digits are ASCII")
}

/// Connects on first use. A deleted pod's address swallows packets without a reset: hence a short connect timeout, and
/// keep-alive pings also while idle.
fn connect_lazily(addr: &str) -> Result<Channel, BadAddress> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))
        .map_err(|source| BadAddress { addr: addr.to_owned(), source })?
        .connect_timeout(Duration::from_millis(1500))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(3))
        .keep_alive_timeout(Duration::from_secs(3))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(8 * 1024 * 1024)
        .initial_connection_window_size(16 * 1024 * 1024);
    Ok(endpoint.connect_lazy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(receiver: &Peers, request: &Request<()>) -> String {
        receiver.admit(request.metadata()).unwrap_err().message().to_owned()
    }

    #[test]
    fn a_request_reaches_only_whom_it_is_for() {
        let cluster = ClusterId([7; 16]);
        let (alice, bob) = (Peers::new(NodeId(1), Some(cluster)), Peers::new(NodeId(2), Some(cluster)));
        let request = alice.addressed(NodeId(2), ());
        assert_eq!(bob.admit(request.metadata()).unwrap(), NodeId(1));
        let stale = alice.addressed(NodeId(9), ());
        assert_eq!(refusal(&bob, &stale), r#"this is node 0000000000000002, not "0000000000000009""#);
        assert!(bob.admit_founder(request.metadata()).is_ok());
        assert!(bob.admit_founder(stale.metadata()).is_err());
    }

    #[test]
    fn another_cluster_is_refused() {
        let (alice, bob) = (Peers::new(NodeId(1), Some(ClusterId([7; 16]))), Peers::new(NodeId(2), None));
        let request = alice.addressed(NodeId(2), ());
        assert_eq!(refusal(&bob, &request), "this node belongs to no cluster yet");
        bob.set_cluster(ClusterId([8; 16]));
        assert!(refusal(&bob, &request).starts_with("this node belongs to cluster 0808"));
    }
}
