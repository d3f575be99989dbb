//! `balsa bench`: throughput and latency of puts and gets, in a closed loop.
//!
//! A fixed number of requests is in flight: each one that is answered is followed by the next. So the figures say what the
//! cluster does at that concurrency; they do not say what happens when requests arrive faster than they are served.
//!
//! The client is lean, since it shares the machine with what it measures: one thread, HTTP/2 frames without a gRPC library
//! in between (see [`wire`]), requests encoded before the clock starts. Nothing is retried: an error counts as an error, by
//! its code.
//!
//! With `--swap`, a module is swapped in the middle of it (see [`swap`]).

mod report;
mod swap;
mod wire;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use prost::Message;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

use super::kv::{Freshness, GET, PUT};
use super::{Exit, Session};
use crate::client::{Client, Endpoint, Read};
use crate::limits::VALUE_BYTES_MAX;
use crate::proto::kvstore::{GetRequest, PutRequest};
use report::Report;
use swap::{Gaps, Pushed, Swap};
use wire::{Connection, Template};

/// Encoded requests are kept in memory.
const REQUESTS_BYTES_MAX: u64 = 1 << 30;
/// A request that is not answered in this time counts as an error; latencies up to it are recorded.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a worker waits before it connects again after its connection broke.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Bench {
    /// What to send: put, get, or mixed:N for N percent of puts among gets
    #[arg(long, default_value = "put", value_name = "put|get|mixed:N")]
    mix: Mix,
    /// How long to measure
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How long to send before measuring
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    warmup: Duration,
    /// Connections, spread over the endpoints
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Requests in flight, over all connections
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    in_flight: u32,
    /// How long a value is, in bytes
    #[arg(long, default_value_t = 256, value_name = "BYTES")]
    value_size: usize,
    /// How many keys there are; they stay in the store, under "bench/"
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    keys: u32,
    /// Whether puts carry an idempotency key, as the other commands' do: it costs the cluster a row each
    #[arg(long, value_enum, default_value_t = Switch::Off, value_name = "on|off")]
    idempotency_keys: Switch,
    /// Send all to the leader, wherever the endpoints point
    #[arg(long)]
    leader: bool,
    /// Push this module at half of the time, and compare the longest gaps between answers before and after; it serves the same
    /// methods as the one that is active, which it replaces
    #[arg(long, value_name = "FILE")]
    swap: Option<PathBuf>,
    #[command(flatten)]
    freshness: Freshness,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Percent of puts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mix(u8);

impl std::str::FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("mixed:").map(str::parse)) {
            ("put", _) => Ok(Self(100)),
            ("get", _) => Ok(Self(0)),
            (_, Some(Ok(percent @ 0..=100))) => Ok(Self(percent)),
            _ => Err("write put, get, or mixed:N with N from 0 to 100".into()),
        }
    }
}

impl std::fmt::Display for Mix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            100 => f.write_str("put"),
            0 => f.write_str("get"),
            puts => write!(f, "{puts} % put, {} % get", 100 - puts),
        }
    }
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments ask for too much.
    #[error(
        "{keys} keys with values of {size} bytes take more than 1 GiB of this program's memory; use fewer --keys or a smaller --value-size"
    )]
    TooLarge {
        /// `--keys`
        keys: u32,
        /// `--value-size`
        size: usize,
    },
    /// A value that no store takes.
    #[error("--value-size is {0}, and the most that one value may have is {VALUE_BYTES_MAX} bytes")]
    Value(usize),
    /// No connection.
    #[error("cannot connect to {endpoint}: {error}")]
    Connect {
        /// Where.
        endpoint: Endpoint,
        /// Why.
        error: wire::Error,
    },
    /// Writing the keys that are to be read.
    #[error("cannot write the keys that gets read: {0}")]
    Prefill(String),
    /// `--leader`
    #[error("the cluster has no leader at present")]
    NoLeader,
    /// `--swap`
    #[error("the module was not swapped: {0}")]
    Swap(String),
    /// The push went on for longer than the benchmark.
    #[error("the swap was not over when the benchmark was; measure for longer than --duration {}", humantime::format_duration(*.0))]
    SlowSwap(Duration),
    /// Not one request succeeded.
    #[error("no request succeeded: {0}")]
    Nothing(String),
}

impl Error {
    /// What kind of failure it is.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::TooLarge { .. } | Self::Value(_) | Self::SlowSwap(_) => Exit::Usage,
            Self::Swap(_) => Exit::Rejected,
            _ => Exit::Unavailable,
        }
    }
}

pub(super) async fn run(args: &Bench, session: &mut Session<'_>) -> Result<Exit, super::Error> {
    check(args)?;
    let endpoints = if args.leader { vec![leader(session).await?] } else { session.endpoints.list.clone() };
    let requests = Rc::new(Requests::new(args));
    let directory = &session.console.directory;
    let file = args.swap.as_ref().map(|path| swap::read(path, directory)).transpose()?;
    let pushing = match file {
        Some(file) => {
            session.as_operator().await?;
            Some((session.client_within(args.duration), file))
        }
        None => None,
    };
    let local = LocalSet::new();
    let report = local.run_until(measure(args, &endpoints, requests, pushing)).await?;
    report.print(session)?;
    Ok(Exit::Ok)
}

fn check(args: &Bench) -> Result<(), Error> {
    if args.value_size > VALUE_BYTES_MAX {
        return Err(Error::Value(args.value_size));
    }
    let bytes = u64::from(args.keys) * (args.value_size as u64 + 128);
    if bytes > REQUESTS_BYTES_MAX {
        return Err(Error::TooLarge { keys: args.keys, size: args.value_size });
    }
    Ok(())
}

async fn leader(session: &Session<'_>) -> Result<Endpoint, super::Error> {
    let status = session.client.status().await?;
    let leader = status.nodes.iter().find(|node| node.reachable && node.role == "leader");
    let endpoint = leader.and_then(|node| node.client_addr.parse().ok());
    Ok(endpoint.ok_or(Error::NoLeader)?)
}

/// All requests, encoded as gRPC frames.
struct Requests {
    put: Vec<Bytes>,
    get: Vec<Bytes>,
    mix: Mix,
    idempotency_keys: Switch,
}

impl Requests {
    fn new(args: &Bench) -> Self {
        let value = Bytes::from(noise(args.value_size));
        let key = |at: u32| Bytes::from(format!("bench/{at:08}"));
        let put = |at| PutRequest { key: key(at), value: value.clone(), ..PutRequest::default() };
        let get = |at| GetRequest { key: key(at) };
        Self {
            put: (0..args.keys).map(|at| wire::frame(&put(at).encode_to_vec())).collect(),
            get: (0..args.keys).map(|at| wire::frame(&get(at).encode_to_vec())).collect(),
            mix: args.mix,
            idempotency_keys: args.idempotency_keys,
        }
    }
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// A quick generator of numbers that look random (SplitMix64): choosing a key is no part of what is measured.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let wide = u128::from(z ^ (z >> 31)) * bound as u128;
        usize::try_from(wide >> 64).expect("less than the bound, which is a usize")
    }
}

/// Latencies of one kind of request.
struct Latencies(Histogram<u64>);

impl Latencies {
    fn new() -> Self {
        let most = u64::try_from(REQUEST_TIMEOUT.as_nanos()).expect("10 s are few nanoseconds");
        Self(Histogram::new_with_max(2 * most, 3).expect("3 digits up to 20 s are within the crate's bounds"))
    }

    fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// What all workers write to.
struct Recorder {
    puts: Latencies,
    gets: Latencies,
    errors: BTreeMap<String, u64>,
}

/// What one worker needs.
#[derive(Clone)]
struct Worker {
    requests: Rc<Requests>,
    connection: Rc<Connection>,
    recorder: Rc<RefCell<Recorder>>,
    gaps: Rc<Mutex<Gaps>>,
    put: Template,
    get: Template,
    /// The window that counts.
    from: Instant,
    until: Instant,
}

async fn measure(
    args: &Bench,
    endpoints: &[Endpoint],
    requests: Rc<Requests>,
    pushing: Option<(Client, Bytes)>,
) -> Result<Report, Error> {
    let connections = connect(args, endpoints).await?;
    if args.mix.0 < 100 {
        prefill(&connections, &requests).await?;
    }
    let from = Instant::now() + args.warmup;
    let until = from + args.duration;
    let half = pushing.is_some().then(|| from + args.duration / 2);
    let recorder = Recorder { puts: Latencies::new(), gets: Latencies::new(), errors: BTreeMap::new() };
    let (recorder, gaps) = (Rc::new(RefCell::new(recorder)), Rc::new(Mutex::new(Gaps::default())));
    let mut workers = JoinSet::new();
    for at in 0..args.in_flight {
        let connection = Rc::clone(&connections[at as usize % connections.len()]);
        let put = connection.template(PUT, Read::Linearizable);
        let get = connection.template(GET, args.freshness.read());
        let (requests, recorder, gaps) = (Rc::clone(&requests), Rc::clone(&recorder), Rc::clone(&gaps));
        let worker = Worker { requests, connection, recorder, gaps, put, get, from, until };
        workers.spawn_local(worker.run(Dice(u64::from(at) << 32)));
    }
    let pushed = match half.zip(pushing) {
        Some((half, (client, file))) => Some(push_at(half, until, &client, &file, &gaps).await?),
        None => None,
    };
    while workers.join_next().await.is_some() {}
    let recorder = recorder.borrow();
    let swap = pushed.map(|pushed| Swap::new(&pushed, &gaps.lock()));
    let report = Report::new(args, endpoints, &recorder, swap);
    if report.succeeded() == 0 { Err(Error::Nothing(report.errors())) } else { Ok(report) }
}

/// Swaps the module beside the workers.
async fn push_at(
    half: Instant,
    until: Instant,
    client: &Client,
    file: &Bytes,
    gaps: &Mutex<Gaps>,
) -> Result<Pushed, Error> {
    tokio::time::sleep_until(half).await;
    let pushed = tokio::time::timeout_at(until, swap::push(client, file, gaps)).await;
    pushed.unwrap_or(Err(Error::SlowSwap((until - half) * 2)))
}

async fn connect(args: &Bench, endpoints: &[Endpoint]) -> Result<Vec<Rc<Connection>>, Error> {
    // More connections than requests in flight would idle.
    let count = args.connections.min(args.in_flight) as usize;
    let mut connections = Vec::with_capacity(count);
    for endpoint in endpoints.iter().cycle().take(count) {
        let connection = Connection::open(endpoint).await;
        connections.push(Rc::new(connection.map_err(|error| Error::Connect { endpoint: endpoint.clone(), error })?));
    }
    Ok(connections)
}

/// Puts every key once, some at a time.
async fn prefill(connections: &[Rc<Connection>], requests: &Rc<Requests>) -> Result<(), Error> {
    const AT_A_TIME: usize = 64;
    let mut writers = JoinSet::new();
    for first in 0..AT_A_TIME {
        let connection = Rc::clone(&connections[first % connections.len()]);
        let requests = Rc::clone(requests);
        writers.spawn_local(async move {
            let put = connection.template(PUT, Read::Linearizable);
            for frame in requests.put.iter().skip(first).step_by(AT_A_TIME) {
                connection.call(&put, None, frame.clone(), REQUEST_TIMEOUT).await?;
            }
            Ok::<(), wire::Error>(())
        });
    }
    while let Some(done) = writers.join_next().await {
        let done = done.expect("a writer does not panic and is not cancelled");
        done.map_err(|error| Error::Prefill(error.to_string()))?;
    }
    Ok(())
}

impl Worker {
    /// One request after the other until time is up.
    async fn run(self, mut dice: Dice) {
        while Instant::now() < self.until {
            let is_put = dice.below(100) < usize::from(self.requests.mix.0);
            let begun = Instant::now();
            let result = self.send(is_put, &mut dice).await;
            self.record(is_put, begun, Instant::now(), &result);
            if matches!(result, Err(wire::Error::Broken(_))) && self.connection.reopen().await.is_err() {
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
        }
    }

    async fn send(&self, is_put: bool, dice: &mut Dice) -> Result<(), wire::Error> {
        let requests = &*self.requests;
        let (template, frames) = if is_put { (&self.put, &requests.put) } else { (&self.get, &requests.get) };
        let key = (is_put && requests.idempotency_keys == Switch::On).then(|| uuid::Uuid::now_v7().to_string());
        let frame = frames[dice.below(frames.len())].clone();
        self.connection.call(template, key, frame, REQUEST_TIMEOUT).await
    }

    fn record(&self, is_put: bool, begun: Instant, ended: Instant, result: &Result<(), wire::Error>) {
        if ended < self.from || ended > self.until {
            return;
        }
        if result.is_ok() {
            self.gaps.lock().answered(ended);
        }
        let mut recorder = self.recorder.borrow_mut();
        match result {
            Ok(()) if is_put => recorder.puts.record(ended - begun),
            Ok(()) => recorder.gets.record(ended - begun),
            Err(error) => *recorder.errors.entry(error.code().to_owned()).or_default() += 1,
        }
    }
}
