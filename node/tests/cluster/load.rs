//! Several clients that write all the time, or read, and count what they were told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use balsa::client::{Call, Client, Endpoint, Error, Options, Read};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use prost::Message;
use tokio::task::JoinHandle;

use crate::harness::{Cluster, PATIENCE, until};
use crate::hostile::{
    ADD, GET, GetRequest, GetResponse, PUT, PutRequest, STREAM, StreamRequest, TOTAL, number, total, total_in,
};

/// Of this many commands of a client one is a Put, of a key of its own.
const PUT_EVERY: u64 = 8;
/// Messages of a stream: so many that it takes a while.
const STREAMED: u32 = 5_000;
/// A client's pause after each call, where a full load is not what the test is about.
const PACE: Duration = Duration::from_millis(10);

/// What a client does after each call, so that two tests at a time have processors left. It waits for nothing.
pub(crate) async fn pause() {
    tokio::time::sleep(PACE).await;
}

/// Clients at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Tally>>,
}

/// What the clients were told, all together.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// The sum of the Adds that were acknowledged.
    pub(crate) added: u64,
    /// Adds whose outcome is not known yet, and what they add.
    open: Vec<(Call, u64)>,
    /// Calls that were surely not applied, as the client said.
    pub(crate) refused: u64,
    /// Calls of which the client could not say what became of them.
    pub(crate) unknown: u64,
    /// What the commands took that were acknowledged.
    pub(crate) commands: Took,
    /// What the readers' queries took.
    pub(crate) queries: Took,
    /// What their streams took, from the first attempt to the end of the last.
    pub(crate) streams: Took,
    /// Streams that a node ended because it stopped, and that were begun once more.
    pub(crate) begun_again: u64,
    /// Keys of acknowledged Puts, which are their values too.
    pub(crate) puts: Vec<Bytes>,
}

/// Calls of one kind.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Took {
    pub(crate) calls: u64,
    pub(crate) longest: Duration,
}

impl Took {
    fn note(&mut self, begun: Instant) {
        self.join(Self { calls: 1, longest: begun.elapsed() });
    }

    fn join(&mut self, other: Self) {
        self.calls += other.calls;
        self.longest = self.longest.max(other.longest);
    }
}

impl Load {
    /// `count` clients, each at first with another node. Every second one is impatient: it gives up within an election and takes
    /// "unavailable" and "outcome unknown" for answers; the others retry until they know.
    pub(crate) fn start(cluster: &Cluster, count: usize, value_bytes: usize) -> Self {
        Self::start_at(cluster.client().endpoints(), "load", count, value_bytes)
    }

    /// The same, and all of them retry until they know.
    pub(crate) fn patient(cluster: &Cluster, count: usize, value_bytes: usize) -> Self {
        Self::with(cluster.client().endpoints(), "load", count, value_bytes, PACE, |_| Duration::from_secs(30))
    }

    /// As [`Load::start`], and as much as the machine can do.
    pub(crate) fn full(cluster: &Cluster, count: usize, value_bytes: usize) -> Self {
        Self::with(cluster.client().endpoints(), "load", count, value_bytes, Duration::ZERO, some_are_impatient)
    }

    /// As [`Load::start`] for the nodes at these addresses; the keys of Puts begin with `prefix`.
    pub(crate) fn start_at(endpoints: &[Endpoint], prefix: &str, count: usize, value_bytes: usize) -> Self {
        Self::with(endpoints, prefix, count, value_bytes, PACE, some_are_impatient)
    }

    fn with(
        endpoints: &[Endpoint],
        prefix: &str,
        count: usize,
        value_bytes: usize,
        pace: Duration,
        patience: impl Fn(usize) -> Duration,
    ) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = (0..count).map(|number| {
            let mut endpoints = endpoints.to_vec();
            let first = number % endpoints.len();
            endpoints.rotate_left(first);
            let client = Client::new(Options::new(endpoints, patience(number)));
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            tokio::spawn(work(format!("{prefix}/{number}"), client, value_bytes, pace, stop, acknowledged))
        });
        let clients = clients.collect();
        Self { stop, acknowledged, clients }
    }

    /// With two readers at each node: one asks for the total, the other for a stream. They retry until they have it.
    pub(crate) fn with_readers(mut self, cluster: &Cluster) -> Self {
        let endpoints = cluster.client().endpoints().to_vec();
        for first in 0..endpoints.len() {
            let mut endpoints = endpoints.clone();
            endpoints.rotate_left(first);
            let client = || Client::new(Options::new(endpoints.clone(), Duration::from_secs(30)));
            self.clients.push(tokio::spawn(ask(client(), Arc::clone(&self.stop))));
            self.clients.push(tokio::spawn(listen(client(), Arc::clone(&self.stop))));
        }
        self
    }

    /// Commands acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Returns once `count` more commands have been acknowledged.
    pub(crate) async fn goes_on(&self, count: u64) {
        let enough = self.acknowledged() + count;
        until("the clients' commands are acknowledged", async || (self.acknowledged() >= enough).then_some(())).await;
    }

    /// Returns once commands have been acknowledged for that long.
    pub(crate) async fn goes_on_for(&self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.goes_on(1).await;
        }
    }

    /// Stops the clients; each ends the command that it is at.
    pub(crate) async fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for client in std::mem::take(&mut self.clients) {
            all.join(client.await.unwrap());
        }
        all
    }
}

impl Drop for Load {
    /// A test that failed does not go on writing.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn some_are_impatient(number: usize) -> Duration {
    Duration::from_millis(if number.is_multiple_of(2) { 700 } else { 30_000 })
}

async fn work(
    prefix: String,
    client: Client,
    value_bytes: usize,
    pace: Duration,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
) -> Tally {
    let mut tally = Tally::default();
    for turn in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let begun = Instant::now();
        let told = match turn % PUT_EVERY {
            0 => put(&client, &mut tally, format!("{prefix}/{turn}").into(), value_bytes).await,
            _ => add(&client, &mut tally, 1 + turn % 7).await,
        };
        match told {
            Ok(()) => {
                acknowledged.fetch_add(1, Ordering::Relaxed);
                tally.commands.note(begun);
                settle(&client, &mut tally).await;
            }
            Err(error) => tally.failed(&error),
        }
        tokio::time::sleep(pace).await;
    }
    let deadline = Instant::now() + PATIENCE;
    while !tally.open.is_empty() {
        assert!(Instant::now() < deadline, "the outcome of an Add does not become known");
        settle(&client, &mut tally).await;
    }
    tally
}

/// Asks for the total, which never goes back.
async fn ask(client: Client, stop: Arc<AtomicBool>) -> Tally {
    let (mut tally, mut last) = (Tally::default(), 0);
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        match total(&client, Read::Linearizable).await {
            Ok(now) => {
                assert!(now >= last, "a total of {now} was read after one of {last}");
                last = now;
                tally.queries.note(begun);
            }
            Err(error) => tally.failed(&error),
        }
        pause().await;
    }
    tally
}

/// Asks for streams, and once more for one that ends since its node stops, as docs/errors.md tells clients to.
async fn listen(client: Client, stop: Arc<AtomicBool>) -> Tally {
    let (mut tally, mut begun) = (Tally::default(), Instant::now());
    while !stop.load(Ordering::Relaxed) {
        match whole_stream(&client).await {
            Ok(()) => tally.streams.note(begun),
            Err(Error::Interrupted(why)) if why.contains("SHUTTING_DOWN") => {
                tally.begun_again += 1;
                continue;
            }
            Err(error) => tally.failed(&error),
        }
        pause().await;
        begun = Instant::now();
    }
    tally
}

async fn whole_stream(client: &Client) -> Result<(), Error> {
    let request = StreamRequest { count: STREAMED, bytes: 100, ending: 0 }.encode_to_vec();
    let mut stream = client.query_stream(STREAM, request, Read::Linearizable).await?;
    let mut messages = 0;
    while stream.next().await?.is_some() {
        messages += 1;
    }
    assert_eq!(messages, STREAMED, "it ended well, and too early");
    Ok(())
}

async fn add(client: &Client, tally: &mut Tally, amount: u64) -> Result<(), Error> {
    let call = Call::command(ADD, number(amount));
    match client.call(&call).await {
        Ok(_) => tally.added += amount,
        Err(error) => {
            if matches!(error, Error::OutcomeUnknown { .. }) {
                tally.open.push((call, amount));
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Sends the Adds whose outcome is not known once more, each under the key that it had: then they have been applied once.
async fn settle(client: &Client, tally: &mut Tally) {
    while let Some((call, amount)) = tally.open.pop() {
        match client.call(&call).await {
            Ok(_) => tally.added += amount,
            Err(Error::OutcomeUnknown { .. } | Error::Unavailable { .. }) => return tally.open.push((call, amount)),
            Err(other) => panic!("a client that asked again was told {other}"),
        }
    }
}

async fn put(client: &Client, tally: &mut Tally, key: Bytes, value_bytes: usize) -> Result<(), Error> {
    let request = PutRequest { key: key.clone(), value: value(&key, value_bytes) };
    client.command(PUT, request.encode_to_vec()).await?;
    tally.puts.push(key);
    Ok(())
}

/// The key, again and again.
fn value(key: &Bytes, bytes: usize) -> Bytes {
    key.iter().copied().cycle().take(bytes).collect()
}

impl Tally {
    /// Adds what other clients were told.
    pub(crate) fn join(&mut self, other: Self) {
        self.added += other.added;
        self.open.extend(other.open);
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.commands.join(other.commands);
        self.queries.join(other.queries);
        self.streams.join(other.streams);
        self.begun_again += other.begun_again;
        self.puts.extend(other.puts);
    }

    /// A call came to nothing.
    fn failed(&mut self, error: &Error) {
        match error {
            Error::OutcomeUnknown { .. } => self.unknown += 1,
            Error::Unavailable { .. } => self.refused += 1,
            other => panic!("a client was told {other}"),
        }
    }

    /// No acknowledged write is lost, and none was applied twice.
    pub(crate) async fn assert_kept(&self, cluster: &Cluster, value_bytes: usize) {
        let clients: Vec<_> = cluster.running().map(|node| node.client()).collect();
        self.assert_kept_by(&clients, value_bytes).await;
    }

    /// The same for these nodes, each of which shows all of it.
    pub(crate) async fn assert_kept_by(&self, clients: &[Client], value_bytes: usize) {
        for client in clients {
            let total = client.query(TOTAL, Vec::new(), Read::Linearizable).await.unwrap();
            assert_eq!(total_in(&total), self.added, "the sum of what was added; {} calls refused", self.refused);
            // From here on the node need not ask who leads.
            let read = Read::Stale { min_index: total.index.unwrap() };
            let reads = self.puts.iter().map(async |key| {
                let request = GetRequest { key: key.clone() }.encode_to_vec();
                let reply = client.query(GET, request, read).await.unwrap();
                let found = GetResponse::decode(reply.message).unwrap().value;
                assert_eq!(found.as_ref(), Some(&value(key, value_bytes)), "{key:?} was acknowledged");
            });
            stream::iter(reads).buffer_unordered(16).collect::<()>().await;
        }
    }
}
