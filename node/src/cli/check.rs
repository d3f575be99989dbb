//! `balsa check`: do all nodes hold the same, and is it what was written?
//!
//! It writes values under a prefix of its own, reads each back through every node of the cluster (whose addresses it learns
//! from `status`), and compares. Then it compares the nodes among themselves, at one log index: their rolling digests,
//! which cover every entry, write and reply so far, and with `--deep` a hash of everything that is stored.
//!
//! Where no module serves `kvstore.v1`, nothing is written: the nodes are compared as of what was committed when the check began.
//!
//! It goes on while nodes are killed and come back: every step is retried until `--timeout`, which is for the whole check.
//! What it cannot find out by then is not OK either.

mod compare;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use serde::Serialize;
use tokio::time::Instant;

use super::kv::{read, remove_all, write};
use super::{Error, Exit, Format, Session};
use crate::client::{self, Apart, Client, Endpoint, Read, hash_together};
use crate::ids::hex;
use crate::limits::VALUE_BYTES_MAX;
use crate::proto::admin::{DeepCheckResponse, NodeStatus};
use compare::{Comparison, Digests};

/// What it writes through.
const SERVICE: &str = "kvstore.v1.KvStore";
/// Pause between two looks at nodes that are not yet at the same index.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// For taking the values away again, whatever the check came to.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(3);

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// How many values to write
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    values: u32,
    /// How long a value is, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = value_bytes)]
    size: usize,
    /// What the keys begin with; they are deleted at the end
    #[arg(long, default_value = "balsa-check/")]
    prefix: String,
    /// Also have every node hash all it stores, and compare: slow where much is stored
    #[arg(long)]
    deep: bool,
}

fn value_bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if size <= VALUE_BYTES_MAX => Ok(size),
        _ => Err(format!("write a number from 0 to {VALUE_BYTES_MAX}")),
    }
}

/// What was found out, as JSON shows it.
#[derive(Debug, Default, Serialize)]
struct Report {
    ok: bool,
    values: u32,
    nodes: Vec<String>,
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_hash: Option<String>,
    differences: Vec<String>,
}

/// A node, and a client of it alone.
struct Node {
    name: String,
    client: Client,
}

pub(super) async fn run(args: &Check, session: &mut Session<'_>) -> Result<Exit, Error> {
    let deadline = Instant::now() + session.timeout;
    let plan = Plan::new(args);
    let client = session.client.until(deadline);
    let result = examine(args, &plan, &client, deadline, session).await;
    clean_up(&plan, session).await;
    let mut report = result?;
    report.ok = report.differences.is_empty();
    conclude(&report, session)?;
    Ok(if report.ok { Exit::Ok } else { Exit::No })
}

async fn examine(
    args: &Check,
    plan: &Plan,
    client: &Client,
    deadline: Instant,
    session: &mut Session<'_>,
) -> Result<Report, Error> {
    let mut report = Report::default();
    let written = match plan.write(client).await {
        Err(error) if error.is_unknown_method() => None,
        written => Some(written?),
    };
    let (nodes, committed) = nodes(client, deadline).await?;
    report.nodes = nodes.iter().map(|node| node.name.clone()).collect();
    report.index = written.unwrap_or(committed);
    if written.is_some() {
        report.values = args.values;
        read_back(args, plan, &nodes, &mut report, session).await?;
    } else {
        let index = report.index;
        say(session, || {
            format!("no module serves {SERVICE}, so nothing was written; nodes are compared from index {index} on")
        })?;
    }
    compare_digests(&nodes, deadline, &mut report, session).await?;
    if args.deep {
        compare_states(&nodes, deadline, &mut report, session).await?;
    }
    Ok(report)
}

/// Looks for what was written, through every node.
async fn read_back(
    args: &Check,
    plan: &Plan,
    nodes: &[Node],
    report: &mut Report,
    session: &mut Session<'_>,
) -> Result<(), Error> {
    say(session, || {
        format!("wrote {} values of {} bytes, the last at index {}", args.values, args.size, report.index)
    })?;
    for result in join_all(nodes.iter().map(|node| plan.read_back(node))).await {
        report.differences.extend(result?);
    }
    let names = report.nodes.join(", ");
    if report.differences.is_empty() {
        say(session, || format!("read them back through {names}: all as written"))?;
    }
    Ok(())
}

fn say(session: &mut Session<'_>, text: impl FnOnce() -> String) -> Result<(), Error> {
    match session.format {
        Format::Text => session.console.line(text()).and_then(|()| session.console.flush()),
        Format::Json => Ok(()),
    }
}

fn conclude(report: &Report, session: &mut Session<'_>) -> Result<(), Error> {
    if session.format == Format::Json {
        return session.console.json(report);
    }
    for difference in &report.differences {
        let line = session.console.paint_bad(&format!("different: {difference}"));
        session.console.line(line)?;
    }
    let verdict = match report.ok {
        true => session.console.paint_good("OK"),
        false => session.console.paint_bad("NOT OK"),
    };
    session.console.line(verdict)
}

/// The keys and values of this run: different from those of any other run, and known without being remembered.
struct Plan {
    prefix: String,
    values: u32,
    size: usize,
    seed: blake3::Hash,
}

impl Plan {
    fn new(args: &Check) -> Self {
        let run = uuid::Uuid::now_v7();
        let prefix = format!("{}{run}/", args.prefix);
        Self { prefix, values: args.values, size: args.size, seed: blake3::hash(run.as_bytes()) }
    }

    fn key(&self, at: u32) -> Bytes {
        format!("{}{at:06}", self.prefix).into()
    }

    fn value(&self, at: u32) -> Bytes {
        let mut value = vec![0; self.size];
        let mut hasher = blake3::Hasher::new_keyed(self.seed.as_bytes());
        hasher.update(&at.to_le_bytes()).finalize_xof().fill(&mut value);
        value.into()
    }

    /// Writes all; the log index of the last.
    async fn write(&self, client: &Client) -> Result<u64, Error> {
        let mut index = 0;
        for at in 0..self.values {
            index = index.max(write(client, self.key(at), self.value(at)).await?);
        }
        Ok(index)
    }

    /// What `node` has that is not what was written.
    async fn read_back(&self, node: &Node) -> Result<Vec<String>, Error> {
        let mut differences = Vec::new();
        for at in 0..self.values {
            let found =
                read(&node.client, self.key(at), Read::Linearizable).await.map_err(|error| error.through(node))?;
            let problem = match found {
                Some(kv) if kv.value == self.value(at) => continue,
                Some(kv) => {
                    format!("has another value of {} bytes, digest {}", kv.value.len(), blake3::hash(&kv.value))
                }
                None => "does not have it".into(),
            };
            differences.push(format!(
                "{} was written, but {} {problem}",
                String::from_utf8_lossy(&self.key(at)),
                node.name
            ));
        }
        Ok(differences)
    }
}

/// Takes the values away again. That it may fail is no finding of the check, but worth a word.
async fn clean_up(plan: &Plan, session: &mut Session<'_>) {
    let client = session.client.until(Instant::now() + CLEANUP_TIMEOUT);
    if let Err(error) = remove_all(&client, plan.prefix.clone().into()).await
        && !error.is_unknown_method()
    {
        session.console.note(&format!("could not delete the keys under {} again: {error}", plan.prefix));
    }
}

/// All nodes of the cluster, once all of them are known by an address; and the last index of which one of them knows that it is committed.
async fn nodes(client: &Client, deadline: Instant) -> Result<(Vec<Node>, u64), Error> {
    loop {
        let status = client.status().await?;
        let parsed: Result<Vec<_>, _> =
            status.nodes.iter().map(|node| node.client_addr.parse::<Endpoint>().map(|at| (node, at))).collect();
        match parsed {
            Ok(known) if !known.is_empty() => {
                let node = |(node, at): (&NodeStatus, _)| Node { name: node.name.clone(), client: client.pinned(at) };
                let committed = status.nodes.iter().map(|node| node.committed_index).max().unwrap_or(0);
                return Ok((known.into_iter().map(node).collect(), committed));
            }
            _ if Instant::now() + POLL_INTERVAL < deadline => tokio::time::sleep(POLL_INTERVAL).await,
            _ => return Err(unavailable(client, "not every node has a known client address yet".into())),
        }
    }
}

fn unavailable(client: &Client, last: String) -> Error {
    let tried = client.endpoints().to_vec();
    client::Error::Unavailable { tried, connected: true, last }.into()
}

impl Error {
    /// No module of the cluster has the method.
    fn is_unknown_method(&self) -> bool {
        matches!(self, Self::Client(client::Error::Refused(refusal)) if refusal.code == client::Code::Unimplemented)
    }

    /// One node did not do its part: says which, whether or not it ever listened.
    fn through(self, node: &Node) -> Self {
        match self {
            Self::Client(client::Error::Unavailable { last, .. }) => {
                unavailable(&node.client, format!("{} did not answer in time: {last}", node.name))
            }
            other => other,
        }
    }
}

/// Compares rolling digests at the newest index that all nodes have in common, at or after the last write.
async fn compare_digests(
    nodes: &[Node],
    deadline: Instant,
    report: &mut Report,
    session: &mut Session<'_>,
) -> Result<(), Error> {
    let mut digests = Digests::new(nodes.len());
    loop {
        for (at, status) in join_all(nodes.iter().map(own_status)).await.into_iter().enumerate() {
            if let Ok(Some(status)) = status {
                digests.learn(at, &status);
            }
        }
        match digests.compare(report.index) {
            Comparison::Same { index, digest } => {
                say(session, || format!("digest at index {index} is {} on every node", super::status::short(&digest)))?;
                report.digest = Some(hex(&digest));
                return Ok(());
            }
            Comparison::Different { index } => {
                let each = digests.at(index).map(|(node, digest)| format!("{} has {}", nodes[node].name, hex(digest)));
                report.differences.push(format!("digests at index {index}: {}", each.collect::<Vec<_>>().join(", ")));
                return Ok(());
            }
            Comparison::Unknown if Instant::now() + POLL_INTERVAL < deadline => {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            Comparison::Unknown => {
                let each = nodes.iter().zip(digests.newest()).map(|(node, index)| match index {
                    Some(index) => format!("{} at {index}", node.name),
                    None => format!("{} not at all", node.name),
                });
                let each = each.collect::<Vec<_>>().join(", ");
                let since = report.index;
                report.differences.push(format!("no index from {since} on where all nodes could be compared: {each}"));
                return Ok(());
            }
        }
    }
}

/// What a node says about itself.
async fn own_status(node: &Node) -> Result<Option<NodeStatus>, client::Error> {
    // One look must not take long: another follows soon, and the node may be about to come back.
    let look = node.client.until(Instant::now() + Duration::from_secs(1));
    let status = look.status().await?;
    let by = status.answered_by;
    Ok(status.nodes.into_iter().find(|node| node.name == by))
}

/// Compares hashes of all that is stored, taken by all nodes after the same entry.
async fn compare_states(
    nodes: &[Node],
    deadline: Instant,
    report: &mut Report,
    session: &mut Session<'_>,
) -> Result<(), Error> {
    let clients: Vec<_> = nodes.iter().map(|node| node.client.clone()).collect();
    match hash_together(&clients, report.index, deadline).await {
        Ok(hashes) => compare_hashes(nodes, &hashes, report, session),
        Err(Apart::Node { node, error }) => Err(Error::from(error).through(&nodes[node])),
        Err(Apart::Never { indexes }) => {
            let each = nodes.iter().zip(indexes).map(|(node, index)| format!("{} at {index}", node.name));
            let last = each.collect::<Vec<_>>().join(", ");
            report.differences.push(format!("states were never hashed at one index (last {last})"));
            Ok(())
        }
    }
}

fn compare_hashes(
    nodes: &[Node],
    hashes: &[DeepCheckResponse],
    report: &mut Report,
    session: &mut Session<'_>,
) -> Result<(), Error> {
    let mut by_hash: BTreeMap<&[u8], Vec<&str>> = BTreeMap::new();
    for (node, answer) in nodes.iter().zip(hashes) {
        by_hash.entry(&answer.hash).or_default().push(&node.name);
    }
    let Some(first) = hashes.first() else { return Ok(()) };
    if by_hash.len() > 1 {
        let each = by_hash.iter().map(|(hash, names)| format!("{} on {}", hex(hash), names.join(" and ")));
        let each = each.collect::<Vec<_>>().join(", ");
        report.differences.push(format!("the stored state at index {}: hash {each}", first.index));
        return Ok(());
    }
    report.state_hash = Some(hex(&first.hash));
    let (index, keys, bytes) = (first.index, first.keys, first.bytes);
    let short = super::status::short(&first.hash);
    say(session, || {
        format!("stored state at index {index} has hash {short} on every node ({keys} keys, {bytes} bytes)")
    })
}
