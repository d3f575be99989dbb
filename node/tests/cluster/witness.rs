//! Clients of an abacus that write all the time and keep every answer, to hold it against the history of the module.
//!
//! Each answer says at which index the command took effect and which version of the module ran it. So, once all is over, the
//! history says for every single one which version should have.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use balsa::client::{Call, Client, Endpoint, Error, Kind, Options, RawCodec, Read, Reply};
use balsa::proto::command::Activation;
use balsa::proto::command::activation::Outcome;
use futures::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};
use tokio::task::JoinHandle;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Status, transport};
use tower::Service;

use crate::abacus::{AddRequest, Reading, path, total};
use crate::harness::{Cluster, PATIENCE, until};
use crate::operator::{activated, history_of};

/// Of this many calls one is a query.
const QUERY_EVERY: u64 = 5;
/// A client's pause after each call: several clusters at a time are to have processors left.
const PACE: Duration = Duration::from_millis(10);

/// How the clients are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Temper {
    /// Retry until they know; every second one gives up early and takes "unavailable" and "outcome unknown" for answers.
    Persistent,
    /// One connection to one node each, and no second attempt: whatever fails, fails the test.
    Strict,
}

/// Clients at work.
pub(crate) struct Witnesses {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Testimony>>,
}

/// What the clients have in common.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicU64,
    /// Held by each client during a call; who has it to write holds up all of them.
    calling: Arc<RwLock<()>>,
}

/// What all clients were told.
#[derive(Debug, Default)]
pub(crate) struct Testimony {
    commands: Vec<Answer>,
    queries: Vec<Answer>,
    /// Adds whose outcome is not known yet, and what they add.
    open: Vec<(Call, u64)>,
    /// The longest that a client waited between two answers.
    gap: Duration,
}

/// One answer.
#[derive(Debug, Clone)]
struct Answer {
    index: u64,
    /// What it added.
    amount: u64,
    reading: Reading,
}

impl Witnesses {
    /// `count` clients of the package's abacus; `padding` makes their requests larger.
    pub(crate) async fn start(cluster: &Cluster, temper: Temper, count: usize, padding: usize) -> Self {
        Self::start_at(cluster.client().endpoints(), temper, count, padding).await
    }

    /// The same for the nodes at these addresses.
    pub(crate) async fn start_at(nodes: &[Endpoint], temper: Temper, count: usize, padding: usize) -> Self {
        let (shared, mut clients) = (Arc::new(Shared::default()), Vec::new());
        for number in 0..count {
            let way = match temper {
                Temper::Persistent => Way::retrying(nodes, number),
                Temper::Strict => Way::strict(&nodes[number % nodes.len()]).await,
            };
            clients.push(tokio::spawn(work(way, padding, Arc::clone(&shared))));
        }
        Self { shared, clients }
    }

    /// Returns once `count` more calls have been answered.
    pub(crate) async fn go_on(&self, count: u64) {
        let answered = || self.shared.answered.load(Ordering::Relaxed);
        let enough = answered() + count;
        let look = async || (answered() >= enough).then_some(());
        until("the clients' calls are answered", look).await;
    }

    /// Has the clients rest until what this returns is dropped; each ends the call that it is at.
    pub(crate) async fn rest(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.shared.calling).write_owned().await
    }

    /// Stops the clients; each ends the call that it is at.
    pub(crate) async fn stop(mut self) -> Testimony {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Testimony::default();
        for client in std::mem::take(&mut self.clients) {
            let one = client.await.unwrap();
            all.commands.extend(one.commands);
            all.queries.extend(one.queries);
            all.gap = all.gap.max(one.gap);
        }
        all
    }
}

impl Drop for Witnesses {
    /// A test that failed does not go on writing.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// A call without an answer.
enum Failure {
    /// It may have been run.
    Unknown,
    NotRun,
    /// Nothing that may happen.
    Other(String),
}

/// How a client's calls travel.
enum Way {
    Retrying(Client),
    Strict { channel: Channel, connections: Arc<AtomicU64> },
}

impl Way {
    fn retrying(nodes: &[Endpoint], number: usize) -> Self {
        let mut endpoints = nodes.to_vec();
        let first = number % endpoints.len();
        endpoints.rotate_left(first);
        let timeout = Duration::from_millis(if number.is_multiple_of(2) { 700 } else { 30_000 });
        Self::Retrying(Client::new(Options::new(endpoints, timeout)))
    }

    async fn strict(node: &Endpoint) -> Self {
        let connections = Arc::new(AtomicU64::new(0));
        let connect = Connect { address: node.to_string(), count: Arc::clone(&connections) };
        let endpoint = transport::Endpoint::from_shared(node.uri()).unwrap();
        let channel = endpoint.connect_with_connector(connect).await.unwrap();
        Self::Strict { channel, connections }
    }

    async fn call(&self, call: &Call) -> Result<Reply, Failure> {
        match self {
            Self::Retrying(client) => client.call(call).await.map_err(|error| match error {
                Error::OutcomeUnknown { .. } => Failure::Unknown,
                Error::Unavailable { .. } => Failure::NotRun,
                other => Failure::Other(other.to_string()),
            }),
            Self::Strict { channel, .. } => {
                once(channel.clone(), call).await.map_err(|status| Failure::Other(format!("{status:?}")))
            }
        }
    }

    fn assert_never_broken(&self) {
        if let Self::Strict { connections, .. } = self {
            assert_eq!(connections.load(Ordering::Relaxed), 1, "the connection broke and was made anew");
        }
    }
}

/// Counts the connections that it makes.
struct Connect {
    address: String,
    count: Arc<AtomicU64>,
}

impl Service<Uri> for Connect {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, std::io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        self.count.fetch_add(1, Ordering::Relaxed);
        let address = self.address.clone();
        Box::pin(async move { TcpStream::connect(address).await.map(TokioIo::new) })
    }
}

/// One attempt; the index is of the initial metadata.
async fn once(channel: Channel, call: &Call) -> Result<Reply, Status> {
    let mut request = Request::new(call.request.clone());
    request.set_timeout(Duration::from_secs(30));
    if let Kind::Command { key } = &call.kind {
        request.metadata_mut().insert("idempotency-key", key.parse().unwrap());
    }
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let response = grpc.unary(request, call.path.parse().unwrap(), RawCodec).await?;
    let index = response.metadata().get("balsa-index").map(|index| index.to_str().unwrap().parse().unwrap());
    Ok(Reply { index, replayed: false, node: None, message: response.into_inner() })
}

async fn work(way: Way, padding: usize, shared: Arc<Shared>) -> Testimony {
    let stops = || shared.stop.load(Ordering::Relaxed);
    let (mut told, mut last) = (Testimony::default(), Instant::now());
    for turn in 1.. {
        if stops() {
            break;
        }
        let calling = shared.calling.read().await;
        let query = turn % QUERY_EVERY == 0;
        let amount = if query { 0 } else { 1 + turn % 7 };
        let call = call(query, amount, padding);
        match way.call(&call).await {
            Ok(reply) => {
                if query { &mut told.queries } else { &mut told.commands }.push(Answer::of(&reply, amount));
                shared.answered.fetch_add(1, Ordering::Relaxed);
                told.settle(&way).await;
            }
            Err(Failure::Unknown) => told.open.push((call, amount)),
            Err(Failure::NotRun) => {}
            // The cluster is taken down.
            Err(Failure::Other(_)) if stops() => break,
            Err(Failure::Other(what)) => panic!("a client was told {what}"),
        }
        told.gap = told.gap.max(last.elapsed());
        last = Instant::now();
        drop(calling);
        tokio::time::sleep(PACE).await;
    }
    let deadline = Instant::now() + PATIENCE;
    while !told.open.is_empty() {
        assert!(Instant::now() < deadline, "the outcome of an Add does not become known");
        told.settle(&way).await;
    }
    way.assert_never_broken();
    told
}

fn call(query: bool, amount: u64, padding: usize) -> Call {
    let request = AddRequest { amount, padding: vec![b'.'; padding] }.encode_to_vec();
    match query {
        true => Call::query(&path("abacus", "Total"), Vec::new(), Read::Linearizable),
        false => Call::command(&path("abacus", "Add"), request),
    }
}

impl Answer {
    fn of(reply: &Reply, amount: u64) -> Self {
        Self { index: reply.index.unwrap(), amount, reading: Reading::of(reply) }
    }
}

impl Testimony {
    /// Sends the Adds whose outcome is not known once more, each under the key that it had: then they have been applied once, and the
    /// answers are those of that time.
    async fn settle(&mut self, way: &Way) {
        while let Some((call, amount)) = self.open.pop() {
            match way.call(&call).await {
                Ok(reply) => self.commands.push(Answer::of(&reply, amount)),
                Err(Failure::Unknown | Failure::NotRun) => return self.open.push((call, amount)),
                Err(Failure::Other(what)) => panic!("a client that asked again was told {what}"),
            }
        }
    }

    /// No acknowledged command is lost or doubled, every call was answered by the version of its index, and migrations have taken
    /// effect as often as the history says.
    pub(crate) async fn assert_kept(self, cluster: &Cluster) {
        self.assert_kept_since(history_of(cluster, "abacus").await, &cluster.client()).await;
    }

    /// The same, with what has become of the abacus as somebody else told it.
    pub(crate) async fn assert_kept_since(mut self, history: Vec<Activation>, client: &Client) {
        for answer in self.commands.iter().chain(&self.queries) {
            assert_eq!(answer.reading.version, version_at(&history, answer.index), "{answer:?} {history:#?}");
        }
        self.commands.sort_by_key(|answer| answer.index);
        for pair in self.commands.windows(2) {
            assert!(pair[0].index < pair[1].index, "two commands took effect at one index: {pair:?}");
            let least = pair[0].reading.added() + pair[1].amount;
            assert!(pair[1].reading.added() >= least, "a command left no trace: {pair:?}");
        }
        let total = total(client, "abacus").await.unwrap();
        let added: u64 = self.commands.iter().map(|answer| answer.amount).sum();
        assert_eq!(total.added(), added, "the sum of what was added: {total:?}");
        assert_eq!(total.inits(), 1, "{total:?}");
        assert_eq!(total.migrations(), migrations(&history), "{total:?} {history:#?}");
        let (commands, queries, gap) = (self.commands.len(), self.queries.len(), self.gap);
        println!("{commands} commands and {queries} queries were answered; the longest that one waited was {gap:?}");
    }
}

/// The version that was active when the entry at `index` was applied, or in the state as of `index`.
fn version_at(history: &[Activation], index: u64) -> &str {
    let activations = history.iter().filter(|row| matches!(row.outcome, Some(Outcome::Activated(_))));
    activations.filter(|row| row.index <= index).last().map_or("", |row| &row.version)
}

fn migrations(history: &[Activation]) -> u64 {
    let activations = history.iter().filter(|row| matches!(row.outcome, Some(Outcome::Activated(_))));
    activations.skip(1).filter(|row| activated(row).writes > 0).count() as u64
}
