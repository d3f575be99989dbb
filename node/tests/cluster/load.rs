//! Several clients that write all the time, and count what they were told.

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
use crate::hostile::{ADD, GET, GetRequest, GetResponse, PUT, PutRequest, TOTAL, number, total_in};

/// Of this many commands of a client one is a Put, of a key of its own.
const PUT_EVERY: u64 = 8;
/// A client's pause after each command, where a full load is not what the test is about: two tests at a time are to have processors left.
const PACE: Duration = Duration::from_millis(10);

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
    /// The longest that a call took that was acknowledged.
    pub(crate) longest: Duration,
    /// Keys of acknowledged Puts, which are their values too.
    pub(crate) puts: Vec<Bytes>,
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
                tally.longest = tally.longest.max(begun.elapsed());
                settle(&client, &mut tally).await;
            }
            Err(Error::OutcomeUnknown { .. }) => tally.unknown += 1,
            Err(Error::Unavailable { .. }) => tally.refused += 1,
            Err(other) => panic!("a client was told {other}"),
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
        self.longest = self.longest.max(other.longest);
        self.puts.extend(other.puts);
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
