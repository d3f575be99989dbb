//! From a configuration to a serving node, and back to a closed data directory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use openraft::SnapshotPolicy;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::admission::Admission;
use super::compile::Compiler;
use super::leadership::Leadership;
use super::listeners::Listeners;
use super::members::{Members, Memory, OnDisk};
use super::modules::Changes;
use super::queries::Queries;
use super::streams::Streams;
use super::{Inner, Node};
use crate::api::{self, DRAIN, Operators};
use crate::config::{Config, Loaded};
use crate::fatal::Fatal;
use crate::files::{self, Wanted};
use crate::guest_log::GuestLog;
use crate::http::{self, Meters, Metrics, Readiness};
use crate::limits::PUSHES_MAX;
use crate::log_store::{self, LogStore};
use crate::meta::{self, Meta};
use crate::raft::Raft;
use crate::raft::apply::Applier;
use crate::raft::bootstrap::Identity;
use crate::raft::clock::LogClock;
use crate::raft::network::Network;
use crate::raft::peer_server;
use crate::raft::peer_service::PeerService;
use crate::raft::peers::Peers;
use crate::raft::read_index::ReadGate;
use crate::socket::{self, Socket};
use crate::state_machine::{self, Fault, StateMachine};
use crate::traces::Traces;
use crate::wasm::{self, Engine, HostFault};

/// Why a node could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory.
    #[error(transparent)]
    Meta(#[from] meta::Error),
    /// The log in it.
    #[error("the log cannot be opened: {0}")]
    Log(#[from] log_store::Error),
    /// The state in it, or the engine.
    #[error("the state cannot be opened: {0}")]
    State(#[from] HostFault),
    /// An address.
    #[error(
        "cannot listen on {addr} for {what}: {source}; is another node running? `{key}` in [node] sets the address"
    )]
    Listen {
        /// Who would be served there.
        what: &'static str,
        /// Where.
        addr: SocketAddr,
        /// The key that says so.
        key: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The operators' socket.
    #[error("operators cannot be served: {0}; `socket` in [node] sets the path")]
    Socket(#[from] socket::Error),
    /// openraft refused its configuration or its storage.
    #[error("Raft cannot start: {0}")]
    Raft(String),
    /// The exporter of traces.
    #[error("traces cannot be sent: {0}; `endpoint` in [otlp] says where to")]
    Traces(String),
    /// This data has no place in its cluster any more.
    #[error("this node {0}")]
    Retired(String),
    /// A host fault while running.
    #[error("stopped by a host fault: {0}")]
    Fault(String),
}

/// The exit code of a process whose data has no place in its cluster any more: to start it again changes nothing.
pub const EXIT_RETIRED: u8 = 6;

/// How long the end may take, once nothing is served any more. With all that goes before it is less than the half minute of
/// docs/operations.md: 7 s for load balancers, 5 s each for calls and for what other nodes forwarded, 2 s for the last spans, and a few
/// for leadership. What is not done by then is of no use but for a quicker start.
const CLOSE: Duration = Duration::from_secs(6);

/// How a node is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// By a manager of processes, which goes on sending clients for a while.
    Soon,
    /// By somebody who waits for it.
    Now,
}

/// Runs a node until it is told to stop by `stops`, then lets it leave; told again, it does not wait for load balancers. `on_level` is
/// called when its file asks for another log level.
pub async fn serve(
    loaded: Loaded,
    on_level: impl FnMut(tracing::Level) + Send + 'static,
    mut stops: mpsc::Receiver<Stop>,
) -> Result<(), Error> {
    let config = loaded.config.clone();
    let listeners = Listeners::bind(&config.node)?;
    let fatal = Fatal::default();
    let wanted = files::watch(loaded, on_level);
    let at = config.node.socket.clone();
    let node = build(config, wanted, &fatal).await?;
    // The directory is this process's own by now.
    let socket = Socket::bind(&at)?;
    let servers = node.start_servers(listeners, socket)?;
    node.start_duties();
    tokio::select! {
        stop = stops.recv() => {
            // Whoever could tell it is gone, which is a stop too.
            node.leave(stop.unwrap_or(Stop::Now), &mut stops, servers).await;
            node.close().await
        }
        why = fatal.raised() => {
            servers.stop_all().await;
            node.inner.traces.stop().await;
            Err(Error::Fault(why))
        }
        why = node.retires() => {
            servers.stop_all().await;
            node.close().await?;
            Err(Error::Retired(why))
        }
    }
}

/// What is served, in two parts: clients go first.
struct Servers {
    stop_clients: watch::Sender<bool>,
    /// Until it was waited for.
    clients: Option<JoinHandle<()>>,
    stop_others: watch::Sender<bool>,
    /// Peers, operators and probes.
    others: JoinHandle<()>,
}

impl Servers {
    /// Takes no new connections of clients, tells those there are to go, and waits until their calls have ended, but not for ever.
    async fn stop_clients(&mut self) {
        // Nobody listens any more only if they have ended already.
        let _ = self.stop_clients.send(true);
        // The server itself cuts off what does not end.
        if let Some(clients) = self.clients.take() {
            let _ = tokio::time::timeout(2 * DRAIN, clients).await;
        }
    }

    async fn stop_all(mut self) {
        let _ = self.stop_others.send(true);
        self.stop_clients().await;
        let _ = tokio::time::timeout(2 * DRAIN, self.others).await;
    }
}

/// What lies in the data directory, opened.
struct Opened {
    meta: Meta,
    engine: Engine,
    log: LogStore,
    machine: StateMachine,
    /// The index as of which the state can be read.
    published: watch::Receiver<u64>,
    /// Why this node serves nothing any more, if it was fenced.
    fenced: Option<String>,
}

impl Opened {
    /// In this order: who has no place in the cluster any more opens nothing but its identity.
    fn open(config: &Config) -> Result<Self, Error> {
        let data_dir = &config.node.data_dir;
        let meta = Meta::open(data_dir, &config.node.name)?;
        if let Some(why) = meta.standing.retired() {
            return Err(Error::Retired(why.to_owned()));
        }
        tracing::info!(name = config.node.name, id = %meta.node_id, data_dir = %data_dir.display(), "starting");
        let log = LogStore::open(&data_dir.join("log"), log_store::Options::default())?;
        let engine = Engine::new(wasm::Options {
            query_slots: u32::try_from(config.node.query_threads).unwrap_or(u32::MAX),
            memory_bytes_max: crate::limits::MEMORY_BYTES_MAX,
        })?;
        let (publish, published) = watch::channel(0);
        let publish = Arc::new(publish);
        let on_publish = Arc::clone(&publish);
        let options = state_machine::Options {
            cache_bytes: config.storage.cache_bytes,
            on_publish: Arc::new(move |index| {
                on_publish.send_if_modified(|at| std::mem::replace(at, index) != index);
            }),
            guest_log: Arc::new(GuestLog::new(&config.node.name)),
            ..state_machine::Options::new(data_dir)
        };
        let machine = StateMachine::open(engine.clone(), options)?;
        let fenced = machine.fence().reason().map_err(Fault::from).map_err(HostFault::from)?;
        publish.send_replace(machine.reader().published_index());
        Ok(Self { meta, engine, log, machine, published, fenced })
    }

    /// What the others may find missing.
    fn on_disk(&self) -> OnDisk {
        let log = self.log.handle();
        OnDisk {
            term: log.vote().map_or(0, |vote| vote.leader_id.term),
            last: log.flushed().max(self.machine.last_applied()),
        }
    }
}

async fn build(config: Config, wanted: watch::Receiver<Arc<Wanted>>, fatal: &Fatal) -> Result<Node, Error> {
    let opened = Opened::open(&config)?;
    let at_start = opened.on_disk();
    let Opened { meta, engine, log: log_store, machine, published, fenced } = opened;
    let (log, reader, receiver) = (log_store.handle(), machine.reader(), machine.receiver());
    let clock = LogClock::new(reader.view().progress().time_ms, Instant::now());
    let traces = match &config.otlp {
        Some(otlp) => Traces::start(otlp, &config.node.name).map_err(Error::Traces)?,
        None => Traces::off(),
    };
    if traces.is_on() {
        log.metrics().flushes.keep();
    }
    let checkpoint_bytes = config.storage.checkpoint_bytes;
    let applier = Applier::start(machine, log.clone(), checkpoint_bytes, traces.clone(), fatal.clone());
    tokio::spawn({
        let (log, fatal) = (log.clone(), fatal.clone());
        async move { fatal.raise(format!("the log: {}", log.failed().await)) }
    });
    let peers = Peers::new(meta.node_id, meta.cluster_id);
    let memory = Memory::open(&config.node.data_dir, meta.cluster_id);
    let raft_config = Arc::new(raft_config(&config)?);
    let raft = Raft::new(meta.node_id, raft_config, Network::new(peers.clone()), log_store, applier.clone())
        .await
        .map_err(|error| Error::Raft(error.to_string()))?;
    if fenced.is_some() {
        raft.runtime_config().tick(false);
        raft.runtime_config().elect(false);
    }
    let meters = Meters {
        replication: peers.meter().clone(),
        apply: applier.meter().clone(),
        log_syncs: log.metrics().syncs.clone(),
        ..Meters::default()
    };
    let inner = Inner {
        server: raft.server_metrics(),
        queries: Queries::start(config.node.query_threads, fatal),
        compiler: Compiler::new(engine),
        changes: Changes::default(),
        wanted,
        streams: Streams::new(fatal),
        identity: identity(&config, meta),
        config,
        raft,
        applier,
        log,
        peers,
        reader,
        receiver,
        published,
        members: Members::new(at_start, memory),
        reads: ReadGate::default(),
        leadership: ReadGate::default(),
        clock: Mutex::new(clock),
        clock_off: AtomicBool::new(false),
        admission: Admission::default(),
        leader_changes: AtomicU64::new(0),
        views: Mutex::default(),
        refusals: Mutex::default(),
        lag: Mutex::default(),
        led: Mutex::new(Leadership::new(Instant::now())),
        meters,
        traces,
        fenced: Mutex::new(fenced),
        undecided: Mutex::default(),
        backups: Arc::new(tokio::sync::Semaphore::new(1)),
        pushes: Arc::new(tokio::sync::Semaphore::new(PUSHES_MAX)),
        recovered: AtomicBool::new(false),
        was_ready: AtomicBool::new(false),
        leaving: AtomicBool::new(false),
        draining: AtomicBool::new(false),
        fatal: fatal.clone(),
    };
    Ok(Node { inner: Arc::new(inner) })
}

fn identity(config: &Config, meta: Meta) -> Identity {
    Identity {
        meta: Mutex::new(meta),
        cluster_name: config.cluster.name.clone(),
        founding_hash: config.founding_hash(),
        ordinal: config.node.ordinal,
        own: (&config.cluster.own).into(),
        members: config.cluster.members.iter().map(Into::into).collect(),
        beyond: config.cluster.beyond.iter().map(Into::into).collect(),
    }
}

fn raft_config(config: &Config) -> Result<openraft::Config, Error> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let raft = openraft::Config {
        cluster_name: config.cluster.name.clone(),
        heartbeat_interval: ms(config.raft.heartbeat_interval),
        election_timeout_min: ms(config.raft.election_timeout_min),
        election_timeout_max: ms(config.raft.election_timeout_max),
        install_snapshot_timeout: 60_000,
        max_payload_entries: 1024,
        api_batch_linger_ms: 0,
        purge_batch_size: 1024,
        // Snapshots and purges go by the log's bytes (`duties.rs`): 10 000 entries are a tenth of a second at full load, or 10 GB.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: u64::MAX,
        // A range of the log each, read only when applied. The core waits when this is full, and a core that waits misses
        // heartbeats: so it holds more than a stalled apply can gather in many election timeouts.
        state_machine_channel_size: Some(1 << 20),
        enable_pre_vote: Some(true),
        // Not before the others have said what they remember of this node (`node/members/recall.rs`).
        enable_elect: false,
        // A node that comes back with less than it had confirmed refuses itself, as far as anybody knows. If nobody did, a leader
        // that finds out begins its log anew there, and does not stop over it.
        allow_log_reversion: Some(true),
        // A restarted leader that leads on in its old term may answer reads from before its restart.
        enable_leader_restore: Some(false),
        ..openraft::Config::default()
    };
    raft.validate().map_err(|error| Error::Raft(error.to_string()))
}

impl Node {
    /// Serves clients, peers, operators and probes until told to stop.
    fn start_servers(&self, listeners: Listeners, socket: Socket) -> Result<Servers, Error> {
        let Listeners { client, peer, http } = listeners;
        let (stop_clients, client_stop) = watch::channel(false);
        let (stop_others, stop) = watch::channel(false);
        let metrics = Arc::new(Metrics::with(&self.inner.meters));
        let options = api::Options {
            traces: self.inner.traces.clone(),
            connection_age: self.inner.config.node.connection_age,
            ..api::Options::new(Arc::clone(&metrics))
        };
        let clients = api::serve(client.listen()?, self.clone(), options, stopped(client_stop));
        let clients = tokio::spawn(async move {
            let _ = clients.await;
        });
        let (asked, measured) = (self.clone(), self.clone());
        let readiness = move || asked.tell_readiness();
        let gauges = move |metrics: &Metrics| measured.set_gauges(metrics);
        let probes = tokio::spawn(http::serve(http, readiness, gauges, metrics, stopped(stop.clone())));
        let operators = Operators::new(self.clone());
        let at_socket = tokio::spawn({
            let (operators, stop) = (operators.clone(), stop.clone());
            async move { api::serve_socket(&socket.listener, operators, stopped(stop)).await }
        });
        let fenced = self.fenced().is_some();
        let service = PeerService::new(self.inner.raft.clone(), self.inner.peers.clone(), self.clone());
        let peers = tokio::spawn(async move {
            // A fenced node has nothing to say to its peers.
            if !fenced {
                peer_server::serve(peer, service, operators, stopped(stop)).await;
            }
        });
        let others = tokio::spawn(async move {
            let _ = tokio::join!(probes, at_socket, peers);
        });
        Ok(Servers { stop_clients, clients: Some(clients), stop_others, others })
    }

    /// The checks, for those who send clients by them.
    pub(super) fn tell_readiness(&self) -> Readiness {
        let readiness = self.readiness();
        self.inner.was_ready.fetch_or(readiness.is_ready(), Ordering::Relaxed);
        readiness
    }

    /// Unready at once, leadership handed over; clients are served until they have noticed, then told to go; what is under way ends.
    async fn leave(&self, told: Stop, stops: &mut mpsc::Receiver<Stop>, mut servers: Servers) {
        tracing::info!("stopping: not ready any more, leadership handed over");
        // Clients may come to a node that is ready though nobody has asked.
        self.tell_readiness();
        self.inner.leaving.store(true, Ordering::Relaxed);
        self.allow_elections();
        self.give_up_leadership().await;
        // Nobody was sent to a node that has never been ready, and nobody has to notice that it goes.
        let is_known = self.inner.was_ready.load(Ordering::Relaxed);
        let wait = self.inner.config.node.drain_wait;
        if told == Stop::Soon && is_known && !wait.is_zero() {
            tracing::info!("serving on for {wait:?}, until load balancers have noticed");
            let _ = tokio::time::timeout(wait, stops.recv()).await;
        }
        tracing::info!("no new calls");
        servers.stop_clients().await;
        // It may have been elected once more.
        self.give_up_leadership().await;
        self.inner.draining.store(true, Ordering::Relaxed);
        let until = Instant::now() + DRAIN;
        while self.inner.admission.pending() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        servers.stop_all().await;
    }

    /// Stops Raft and makes the state durable, so that the next start has nothing to replay; but not at any price.
    async fn close(&self) -> Result<(), Error> {
        let closed = tokio::time::timeout(CLOSE, self.make_durable()).await;
        self.inner.traces.stop().await;
        match closed {
            Ok(closed) => closed?,
            Err(_) => tracing::warn!(
                "what is left to apply takes more than {CLOSE:?}: it is read from the log again at the next start"
            ),
        }
        tracing::info!("stopped");
        Ok(())
    }

    async fn make_durable(&self) -> Result<(), Error> {
        self.write_memory().await;
        self.inner.raft.shutdown().await.map_err(|error| Error::Raft(error.to_string()))?;
        self.inner.applier.stop().await.map_err(|error| Error::Fault(error.to_string()))
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}
