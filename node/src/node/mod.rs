//! The node: everything wired together, and the front end's [`Backend`].
//!
//! [`run`] builds and drains, [`propose`] is the way of a command, [`read`] that of a query, [`duties`] is what happens without
//! anybody asking (genesis, ticks, exchange of digests, snapshots), [`members`] who takes part, [`leadership`] whether anybody leads,
//! [`status`] is what operators see.

mod admission;
mod backup;
mod compile;
mod duties;
mod gauges;
mod lag;
mod leadership;
mod listeners;
mod members;
mod modules;
mod propose;
mod queries;
mod read;
mod run;
mod status;
mod streams;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::type_config::alias::WatchReceiverOf;
use parking_lot::Mutex;
use tokio::sync::watch;

use self::admission::Admission;
use self::compile::Compiler;
use self::lag::Lag;
use self::leadership::Leadership;
use self::members::Members;
use self::modules::Changes;
use self::queries::Queries;
pub use self::run::{EXIT_RETIRED, Error, Stop, serve};
use self::status::PeerView;
use self::streams::Streams;
use crate::config::Config;
use crate::fatal::Fatal;
use crate::files::Wanted;
use crate::http::Meters;
use crate::ids::NodeId;
use crate::log_store::LogHandle;
use crate::proto::{admin, command, peer};
use crate::raft::bootstrap::Identity;
use crate::raft::clock::LogClock;
use crate::raft::peers::Peers;
use crate::raft::read_index::ReadGate;
use crate::raft::types::{Member, TypeConfig};
use crate::raft::{Host, Raft, apply::Applier};
use crate::service::{
    Backend, BackupStream, Catalog, Events, Execute, Executed, Place, Query, ServiceError, Streaming,
};
use crate::state_machine::{Reader, Receiver};
use crate::traces::{Parent, Traces};

/// A running node. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    raft: Raft,
    applier: Applier,
    log: LogHandle,
    peers: Peers,
    identity: Identity,
    server: WatchReceiverOf<TypeConfig, openraft::metrics::RaftServerMetrics<TypeConfig>>,
    reader: Reader,
    receiver: Receiver,
    queries: Queries,
    compiler: Compiler,
    /// Changes of modules that this node conducts.
    changes: Changes,
    /// What this node's files ask for.
    wanted: watch::Receiver<Arc<Wanted>>,
    streams: Streams,
    published: watch::Receiver<u64>,
    /// Who takes part, and whether this node does.
    members: Members,
    /// Confirms for this node's own queries that they may read, and waits until they can.
    reads: ReadGate,
    /// Confirms for followers that this node leads.
    leadership: ReadGate,
    clock: Mutex<LogClock>,
    /// Whether this machine's clock is off the majority's, as far as it was said.
    clock_off: AtomicBool,
    admission: Admission,
    leader_changes: AtomicU64,
    views: Mutex<BTreeMap<NodeId, PeerView>>,
    /// Peers that do not take this node for one of their own, and why.
    refusals: Mutex<BTreeMap<NodeId, String>>,
    /// How far apply is behind.
    lag: Mutex<Lag>,
    /// Whether somebody leads.
    led: Mutex<Leadership>,
    /// What is measured on the way of calls.
    meters: Meters,
    traces: Traces,
    /// Why this node serves nothing any more.
    fenced: Mutex<Option<String>>,
    /// Why no commands are accepted for the moment: digests differ and nobody knows who is right.
    undecided: Mutex<Option<String>>,
    /// One at a time.
    backups: Arc<tokio::sync::Semaphore>,
    /// Of modules that operators bring.
    pushes: Arc<tokio::sync::Semaphore>,
    recovered: AtomicBool,
    /// Somebody who may send clients was told that it is ready, at some time since it started.
    was_ready: AtomicBool,
    /// It is told to stop, and still serves.
    leaving: AtomicBool,
    /// It serves no more.
    draining: AtomicBool,
    fatal: Fatal,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("name", &self.identity.member().name).field("id", &self.peers.own()).finish()
    }
}

/// A client of another node's peer service.
type PeerClient = peer::peer_client::PeerClient<crate::raft::connection::Connection>;

/// Who leads, as far as this node knows.
enum Leader {
    This,
    Other(NodeId, Member),
    Unknown,
}

impl Node {
    fn leader(&self) -> Leader {
        let metrics = self.inner.server.borrow_watched();
        match metrics.current_leader {
            None => Leader::Unknown,
            Some(id) if id == self.inner.peers.own() => Leader::This,
            Some(id) => match metrics.membership_config.get_node(&id) {
                Some(member) => Leader::Other(id, member.clone()),
                None => Leader::Unknown,
            },
        }
    }

    fn is_leader(&self) -> bool {
        matches!(self.leader(), Leader::This)
    }

    /// Whether this node has led for as long.
    fn leads_for(&self, time: Duration) -> bool {
        self.is_leader() && self.inner.led.lock().lasts(Instant::now()) >= time
    }

    /// Whether a leader is known, and a majority stands behind it; if not, why not.
    fn is_led(&self) -> Result<(), String> {
        let leader = match self.leader() {
            Leader::This => Some(self.inner.identity.member().name.clone()),
            Leader::Other(_, member) => Some(member.name),
            Leader::Unknown => None,
        };
        self.inner.led.lock().check(leader.as_deref(), Instant::now())
    }

    /// Waits until something changes about who leads, but not longer than `at_most`.
    async fn leader_news(&self, at_most: Duration) {
        let mut server = self.inner.server.clone();
        let _ = tokio::time::timeout(at_most, server.changed()).await;
    }

    /// Whether calls are served at all.
    fn serving(&self) -> Result<(), ServiceError> {
        if let Some(why) = self.fenced() {
            return Err(ServiceError::Fenced(why));
        }
        if self.inner.draining.load(Ordering::Relaxed) {
            return Err(ServiceError::ShuttingDown);
        }
        if let Some(why) = self.inner.members.outside() {
            return Err(ServiceError::NotReady(format!("it is not a member of its cluster yet: {why}")));
        }
        if !self.inner.recovered.load(Ordering::Relaxed) {
            return Err(ServiceError::NotReady("it is catching up with the log after its start".into()));
        }
        Ok(())
    }

    /// Whether new clients should come.
    fn staying(&self) -> Result<(), ServiceError> {
        if self.inner.leaving.load(Ordering::Relaxed) { Err(ServiceError::ShuttingDown) } else { Ok(()) }
    }

    /// Whether commands are accepted.
    fn accepting(&self) -> Result<(), ServiceError> {
        self.serving()?;
        match &*self.inner.undecided.lock() {
            Some(why) => Err(ServiceError::NotReady(why.clone())),
            None => Ok(()),
        }
    }

    /// Why this node serves nothing any more, if it does not.
    fn fenced(&self) -> Option<String> {
        self.inner.fenced.lock().clone()
    }

    /// Whether the cluster has had a module.
    fn has_begun(&self) -> bool {
        self.inner.reader.view().registry().rows().next().is_some()
    }

    /// Waits until the state as of `index` can be read here.
    async fn wait_published(&self, index: u64, deadline: Instant) -> Result<(), ServiceError> {
        let mut published = self.inner.published.clone();
        match tokio::time::timeout_at(deadline.into(), published.wait_for(|at| *at >= index)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ServiceError::ShuttingDown),
            Err(_) => Err(ServiceError::NotReady(format!(
                "it has applied the log up to {}, and {index} is asked for",
                self.published()
            ))),
        }
    }

    fn published(&self) -> u64 {
        *self.inner.published.borrow()
    }
}

impl Backend for Node {
    async fn execute(&self, command: Execute) -> Result<Executed, ServiceError> {
        self.accepting()?;
        if !self.has_begun() {
            return Err(ServiceError::NoModule);
        }
        self.check_key(command.key.as_deref())?;
        self.run_command(command).await
    }

    async fn query(&self, query: Query) -> Result<Executed, ServiceError> {
        self.serving()?;
        self.run_query(query).await
    }

    async fn query_stream(&self, query: Query) -> Result<Streaming, ServiceError> {
        self.serving()?;
        self.run_stream(query).await
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.inner.reader.catalog()
    }

    async fn refresh(&self) -> Result<(), ServiceError> {
        self.serving()?;
        self.inner.reads.read_index().await.map(|_| ())
    }

    async fn status(&self) -> admin::StatusResponse {
        self.cluster_status().await
    }

    async fn deep_check(&self, index: u64) -> Result<admin::DeepCheckResponse, ServiceError> {
        self.hash_state(index).await
    }

    async fn backup(&self) -> Result<BackupStream, ServiceError> {
        self.stream_state().await
    }

    async fn module_history(&self, module: Option<String>) -> Result<Vec<command::Activation>, ServiceError> {
        self.history(module.as_deref()).await
    }

    fn push_place(&self) -> Result<Place, ServiceError> {
        self.place()
    }

    fn module_push(&self, push: admin::ModulePush, wasm: Bytes, place: Place) -> Events {
        self.push(push, wasm, place)
    }

    async fn module_retry(&self, request: admin::ModuleRetryRequest) -> Result<Vec<String>, ServiceError> {
        self.retry(&request.name, &request.without).await
    }

    async fn module_drop(&self, module: String) -> Result<u64, ServiceError> {
        self.drop_module(&module).await
    }

    async fn members(&self) -> admin::MembersResponse {
        self.exchange_round().await;
        self.member_list()
    }

    async fn change_member(&self, change: admin::MemberChange) -> Result<String, ServiceError> {
        Node::change_member(self, change).await
    }

    fn ready(&self) -> bool {
        self.tell_readiness().is_ready()
    }

    fn node_name(&self) -> &str {
        &self.inner.identity.member().name
    }
}

impl Host for Node {
    fn receiver(&self) -> &Receiver {
        &self.inner.receiver
    }

    async fn confirm_leadership(&self) -> Result<u64, ServiceError> {
        if !self.is_leader() {
            return Err(ServiceError::NotLeader { leader: None });
        }
        self.inner.leadership.read_index().await
    }

    async fn execute_as_leader(
        &self,
        request: peer::ExecuteRequest,
        trace: Option<Parent>,
    ) -> Result<Executed, ServiceError> {
        self.accepting()?;
        let key = Some(request.key).filter(|key| !key.is_empty());
        let command = Execute { method: request.method, request: request.request, key, deadline: None, trace };
        self.propose_call(&command, Instant::now() + propose::PATIENCE).await
    }

    async fn operate_as_leader(&self, request: peer::ProposeRequest) -> Result<Executed, ServiceError> {
        self.operate_for_peer(request).await
    }

    async fn change_as_leader(&self, request: peer::ChangeRequest) -> Result<Events, ServiceError> {
        self.change_uploaded(request).await
    }

    async fn preflight(&self, request: peer::PreflightRequest) -> peer::PreflightResponse {
        self.preflight_here(request).await
    }

    fn fetch(&self, request: peer::FetchRequest) -> peer::FetchResponse {
        self.fetch_here(&request)
    }

    fn exchange(&self, from: NodeId, request: peer::ExchangeRequest) -> peer::ExchangeResponse {
        if let Some(status) = request.status {
            self.note_view(from, status, request.clock_ms, Duration::ZERO);
        }
        self.remember(from, request.confirmed);
        peer::ExchangeResponse { stranger: self.is_stranger(from), ..self.own_exchange() }
    }

    fn digests(&self) -> peer::DigestsResponse {
        peer::DigestsResponse { digests: self.recent_digests() }
    }

    async fn identify(&self) -> peer::IdentifyResponse {
        self.inner.identity.identify(&self.inner.raft).await
    }

    fn takes_part(&self) -> bool {
        Node::takes_part(self)
    }

    async fn join(&self, request: peer::JoinRequest) -> peer::JoinResponse {
        self.answer_join(request).await
    }

    fn recall(&self, id: NodeId) -> peer::RecallResponse {
        self.recall_of(id)
    }

    async fn standing(&self, request: peer::StandingRequest) -> peer::StandingResponse {
        self.answer_standing(request).await
    }

    async fn members(&self, request: admin::MemberChange) -> peer::MembersResponse {
        self.change_member_for_peer(request).await
    }

    async fn adopt(&self, request: peer::AdoptRequest) -> Result<NodeId, String> {
        self.inner.identity.adopt(request, &self.inner.raft, &self.inner.peers).await
    }
}
