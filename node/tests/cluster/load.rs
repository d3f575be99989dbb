//! Several clients that write all the time, and count what they were told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use balsa::client::{Client, Endpoint, Error, Options, Read};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use prost::Message;
use tokio::task::JoinHandle;

use crate::harness::{Cluster, until};
use crate::hostile::{ADD, GET, GetRequest, GetResponse, PUT, PutRequest, number, total};

/// Of this many commands of a client one is a Put, of a key of its own.
const PUT_EVERY: u64 = 8;

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
    /// The sum of the Adds that may or may not have been applied.
    pub(crate) perhaps: u64,
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
        Self::with(cluster.client().endpoints(), "load", count, value_bytes, |_| Duration::from_secs(30))
    }

    /// As [`Load::start`] for the nodes at these addresses; the keys of Puts begin with `prefix`.
    pub(crate) fn start_at(endpoints: &[Endpoint], prefix: &str, count: usize, value_bytes: usize) -> Self {
        Self::with(endpoints, prefix, count, value_bytes, |number| {
            Duration::from_millis(if number % 2 == 0 { 700 } else { 30_000 })
        })
    }

    fn with(
        endpoints: &[Endpoint],
        prefix: &str,
        count: usize,
        value_bytes: usize,
        patience: impl Fn(usize) -> Duration,
    ) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = (0..count).map(|number| {
            let mut endpoints = endpoints.to_vec();
            let first = number % endpoints.len();
            endpoints.rotate_left(first);
            let client = Client::new(Options::new(endpoints, patience(number)));
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            tokio::spawn(work(format!("{prefix}/{number}"), client, value_bytes, stop, acknowledged))
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

async fn work(
    prefix: String,
    client: Client,
    value_bytes: usize,
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
            }
            Err(Error::OutcomeUnknown { .. }) => tally.unknown += 1,
            Err(Error::Unavailable { .. }) => tally.refused += 1,
            Err(other) => panic!("a client was told {other}"),
        }
    }
    tally
}

async fn add(client: &Client, tally: &mut Tally, amount: u64) -> Result<(), Error> {
    match client.command(ADD, number(amount)).await {
        Ok(_) => tally.added += amount,
        Err(error) => {
            if matches!(error, Error::OutcomeUnknown { .. }) {
                tally.perhaps += amount;
            }
            return Err(error);
        }
    }
    Ok(())
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
        self.perhaps += other.perhaps;
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

    /// The same for these nodes.
    pub(crate) async fn assert_kept_by(&self, clients: &[Client], value_bytes: usize) {
        let total = total(&clients[0], Read::Linearizable).await.unwrap();
        let (least, most) = (self.added, self.added + self.perhaps);
        assert!((least..=most).contains(&total), "{total} is not in {least}..={most}; {} calls refused", self.refused);
        let reads = self.puts.iter().zip(clients.iter().cycle()).map(async |(key, client)| {
            let request = GetRequest { key: key.clone() }.encode_to_vec();
            let reply = client.query(GET, request, Read::Linearizable).await.unwrap();
            let found = GetResponse::decode(reply.message).unwrap().value;
            assert_eq!(found.as_ref(), Some(&value(key, value_bytes)), "{key:?} was acknowledged");
        });
        stream::iter(reads).buffer_unordered(16).collect::<()>().await;
    }
}
