//! Connections to the nodes, and which node is asked next.
//!
//! A connection is made before a call is sent, not by it: a failure to connect is then surely not a failure of a call that
//! may have run. It is kept until something about it fails, and then made anew: a channel that lost its peer is not
//! trusted to heal.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tonic::transport::{Channel, Error};

use super::Endpoint;
use crate::socket::Address;

/// What making a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);

/// A peer that is gone without a word (power, network, SIGSTOP) is noticed by an unanswered ping.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections by address, and the address that is next.
#[derive(Debug)]
pub(super) struct Connections {
    endpoints: Vec<Endpoint>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Position in `endpoints` of the one that is asked, as long as it answers.
    at: usize,
    /// Where the leader is, as somebody said: asked once, before the others.
    leader: Option<Endpoint>,
    channels: BTreeMap<Endpoint, Channel>,
    ever_connected: bool,
}

impl Connections {
    pub(super) fn new(endpoints: Vec<Endpoint>) -> Self {
        Self { endpoints, state: Mutex::default() }
    }

    /// Whom to ask now.
    pub(super) fn next(&self) -> Endpoint {
        let state = self.state.lock();
        state.leader.as_ref().unwrap_or(&self.endpoints[state.at]).clone()
    }

    /// `failed` could not serve: the next is the leader it named, else the next in the list.
    pub(super) fn advance(&self, failed: &Endpoint, leader: Option<&Endpoint>) {
        let mut state = self.state.lock();
        let hinted = state.leader.take();
        if hinted.is_none() && self.endpoints[state.at] == *failed {
            state.at = (state.at + 1) % self.endpoints.len();
        }
        state.leader = leader.filter(|leader| *leader != failed).cloned();
    }

    /// The connection to `endpoint`, made now if there is none.
    pub(super) async fn connect(&self, endpoint: &Endpoint, timeout: Duration) -> Result<Channel, Error> {
        if let Some(channel) = self.state.lock().channels.get(endpoint) {
            return Ok(channel.clone());
        }
        let channel = open(endpoint, timeout).await?;
        let mut state = self.state.lock();
        state.ever_connected = true;
        state.channels.insert(endpoint.clone(), channel.clone());
        Ok(channel)
    }

    /// Drops the connection to `endpoint`: the next use makes a new one.
    pub(super) fn forget(&self, endpoint: &Endpoint) {
        self.state.lock().channels.remove(endpoint);
    }

    /// Whether anything has ever accepted a connection.
    pub(super) fn ever_connected(&self) -> bool {
        self.state.lock().ever_connected
    }
}

async fn open(endpoint: &Endpoint, timeout: Duration) -> Result<Channel, Error> {
    // Its directory stays open until the connection is there.
    let address = match endpoint {
        Endpoint::Socket(path) => Address::of(path).ok(),
        Endpoint::Port { .. } => None,
    };
    let uri = address.as_ref().map_or_else(|| endpoint.uri(), |at| format!("unix:{}", at.path().display()));
    tonic::transport::Endpoint::from_shared(uri)?
        .connect_timeout(timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .user_agent(concat!("balsa/", env!("CARGO_PKG_VERSION")))?
        .connect()
        .await
}
