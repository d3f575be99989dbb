//! A client of a Balsa cluster: what the command line is built on.
//!
//! A [`Client`] knows some addresses and a timeout. It sends one call at a time to one node, and any node will do: a
//! follower forwards a command to the leader and serves a query itself. When a node does not answer, or says that it
//! cannot at present, the call goes to the next one, until the timeout is spent. What makes that safe:
//!
//! - **A command always carries an idempotency key** (a UUIDv7, made once per call), so that the cluster runs it once
//!   however often it arrives, and answers a retry with the first outcome. The key never changes between attempts.
//! - **Every failure is judged** (see `failure`): whether it is final, and whether the command may have run all the same.
//!   A call that gives up therefore says one of two things: [`Error::Unavailable`], surely nothing was done, or
//!   [`Error::OutcomeUnknown`], it may have been.
//!
//! Retries: the next address is tried at once; only when all of them have failed does the client pause, with a doubling,
//! jittered and capped delay. `grpc-retry-pushback-ms` of an overloaded node is obeyed. A NOT_LEADER with an address is
//! followed. A single attempt never takes all of the timeout, so that a node which hangs (a leader cut off from its
//! followers, a stopped process) costs a part of it only.
//!
//! Messages are bytes here. Who knows the schema encodes and decodes: `cli/kv` with generated code, `cli/call` with the
//! module's own descriptors (see [`reflection`]).

pub mod endpoint;
pub mod reflection;

mod backoff;
mod connection;
mod failure;
mod operators;
mod raw;
mod stream;
mod together;

#[cfg(test)]
pub(crate) mod fake;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;

pub use backoff::Backoff;
pub use connection::CONNECT_TIMEOUT;
pub use endpoint::{Endpoint, Endpoints};
pub use failure::{Code, Detail, Error, Refusal, Rejection};
pub use raw::RawCodec;
pub use stream::Stream;
pub use together::{Apart, hash_together};

use crate::proto::admin;
use connection::Connections;
use failure::{Failure, Verdict};

const STATUS: &str = "/balsa.admin.v1.Admin/Status";
const DEEP_CHECK: &str = "/balsa.admin.v1.Admin/DeepCheck";

/// What a client needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the cluster is.
    pub endpoints: Vec<Endpoint>,
    /// What one call may take, with all its attempts.
    pub timeout: Duration,
    /// How long a client tries while nothing at all has accepted a connection; at most `timeout`.
    pub first_contact: Duration,
    /// The pause after all addresses have failed.
    pub backoff: Backoff,
}

impl Options {
    /// The usual retries within `timeout`, the same whether or not anything listens.
    pub fn new(endpoints: Vec<Endpoint>, timeout: Duration) -> Self {
        Self { endpoints, timeout, first_contact: timeout, backoff: Backoff::default() }
    }
}

/// How fresh a query's answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Read {
    /// Sees all that was acknowledged before the query was sent.
    #[default]
    Linearizable,
    /// The state of the node that is asked, as it is, but not before this log index.
    Stale {
        /// 0: whatever it is.
        min_index: u64,
    },
}

/// One call, ready to be sent any number of times.
#[derive(Debug, Clone)]
pub struct Call {
    /// `/package.Service/Method`
    pub path: String,
    /// The encoded request message.
    pub request: Bytes,
    /// Command or query.
    pub kind: Kind,
}

/// Whether a call may change something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// It may; the cluster runs it once per key.
    Command {
        /// The idempotency key.
        key: String,
    },
    /// It may not.
    Query(Read),
}

impl Call {
    /// A command with a new idempotency key.
    pub fn command(path: &str, request: impl Into<Bytes>) -> Self {
        let key = uuid::Uuid::now_v7().to_string();
        Self { path: path.into(), request: request.into(), kind: Kind::Command { key } }
    }

    /// A query.
    pub fn query(path: &str, request: impl Into<Bytes>, read: Read) -> Self {
        Self { path: path.into(), request: request.into(), kind: Kind::Query(read) }
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The encoded response message.
    pub message: Bytes,
    /// Where in the log the command took effect, or the query read.
    pub index: Option<u64>,
    /// Whether this is the stored reply to an earlier attempt.
    pub replayed: bool,
    /// The name of the node that answered.
    pub node: Option<String>,
}

/// A client of one cluster. Cheap to clone; clones share connections and what was learned about which node answers.
#[derive(Debug, Clone)]
pub struct Client {
    options: Arc<Options>,
    connections: Arc<Connections>,
    deadline: Option<Instant>,
}

impl Client {
    /// A client that connects when it is first used. At least one endpoint is needed.
    pub fn new(options: Options) -> Self {
        assert!(!options.endpoints.is_empty(), "a client needs at least one endpoint");
        let connections = Arc::new(Connections::new(options.endpoints.clone()));
        Self { options: Arc::new(options), connections, deadline: None }
    }

    /// The same client, whose calls all end by `deadline` (and each within the timeout, still).
    pub fn until(&self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self.clone() }
    }

    /// The same client, whose calls may take `timeout`.
    pub fn within(&self, timeout: Duration) -> Self {
        let options = Options { timeout, ..(*self.options).clone() };
        Self { options: Arc::new(options), ..self.clone() }
    }

    /// A client with the same options that talks to one node only, and waits for it: somebody knows that it exists.
    pub fn pinned(&self, endpoint: Endpoint) -> Self {
        let first_contact = self.options.timeout;
        let options = Options { endpoints: vec![endpoint], first_contact, ..(*self.options).clone() };
        Self { deadline: self.deadline, ..Self::new(options) }
    }

    /// The addresses this client was given.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.options.endpoints
    }

    /// Runs a command exactly once.
    pub async fn command(&self, path: &str, request: impl Into<Bytes>) -> Result<Reply, Error> {
        self.call(&Call::command(path, request)).await
    }

    /// Runs a query.
    pub async fn query(&self, path: &str, request: impl Into<Bytes>, read: Read) -> Result<Reply, Error> {
        self.call(&Call::query(path, request, read)).await
    }

    /// Runs a query that answers with a stream, and waits until it begins to.
    pub async fn query_stream(&self, path: &str, request: impl Into<Bytes>, read: Read) -> Result<Stream, Error> {
        Stream::open(self, &Call::query(path, request, read)).await
    }

    /// Runs `call`, with retries.
    pub async fn call(&self, call: &Call) -> Result<Reply, Error> {
        let key = match &call.kind {
            Kind::Command { key } => Some(key.as_str()),
            Kind::Query(_) => None,
        };
        self.unary(key, attempt_timeout, call).await
    }

    /// The cluster as the first node that answers sees it.
    pub async fn status(&self) -> Result<admin::StatusResponse, Error> {
        let call = Call::query(STATUS, admin::StatusRequest {}.encode_to_vec(), Read::default());
        decode(STATUS, self.call(&call).await?)
    }

    /// Has one node hash its state right after entry `index`, or the present one if that is 0. Slow, so a single attempt may take
    /// all of the timeout. See [`hash_together`] for several nodes.
    pub async fn deep_check(&self, index: u64) -> Result<admin::DeepCheckResponse, Error> {
        let call = Call::query(DEEP_CHECK, admin::DeepCheckRequest { index }.encode_to_vec(), Read::default());
        decode(DEEP_CHECK, self.unary(None, all, &call).await?)
    }

    /// One message there, one back.
    async fn unary(&self, key: Option<&str>, share: fn(Duration) -> Duration, call: &Call) -> Result<Reply, Error> {
        self.retry(key, share, |channel, timeout| raw::unary(channel, call, timeout)).await
    }

    /// Tries `operation` at one node after the other until it succeeds, fails for good, or time is up.
    ///
    /// `share` says how much of the whole timeout one attempt may take. `key` is the idempotency key of a command.
    // A closure that returns a future, not an async one: of that nobody can say yet that its future is `Send`, and then none of
    // the client's would be.
    async fn retry<T, Attempt>(
        &self,
        key: Option<&str>,
        share: fn(Duration) -> Duration,
        operation: impl Fn(Channel, Duration) -> Attempt,
    ) -> Result<T, Error>
    where
        Attempt: Future<Output = Result<T, Status>> + Send,
    {
        let begun = Instant::now();
        let mut attempts = Attempts::new(self, key, begun);
        loop {
            let timeout = attempts.left().min(share(self.options.timeout));
            let failure = match self.attempt(timeout, &operation).await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            tracing::debug!(node = %failure.at, error = %failure.text, "an attempt failed");
            let pause = attempts.judge(failure)?;
            if pause + attempts.least >= attempts.left() {
                return Err(attempts.give_up());
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// One attempt at the node that is next, within `timeout`.
    async fn attempt<T, Attempt>(
        &self,
        timeout: Duration,
        operation: &impl Fn(Channel, Duration) -> Attempt,
    ) -> Result<T, Failure>
    where
        Attempt: Future<Output = Result<T, Status>> + Send,
    {
        let (at, begun) = (self.connections.next(), Instant::now());
        let channel = match self.connections.connect(&at, timeout.min(CONNECT_TIMEOUT)).await {
            Ok(channel) => channel,
            Err(error) => return Err(Failure::not_connected(at, &error)),
        };
        // To connect has taken some of it.
        let left = timeout.saturating_sub(begun.elapsed());
        match tokio::time::timeout(left, operation(channel, left)).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(status)) if failure::is_timeout(&status) => Err(Failure::silent(at, timeout)),
            Ok(Err(status)) => Err(Failure::of(at, &status)),
            Err(_) => Err(Failure::silent(at, timeout)),
        }
    }
}

/// Another attempt is not begun with less time than this: too little for an answer of a busy node, it could only put silence in the place of
/// the reason that is known already, and turn a call that was surely not run into one that nobody knows about. A call that
/// has little time as a whole may still try several nodes.
fn attempt_min(whole: Duration) -> Duration {
    (whole / 4).min(Duration::from_millis(200))
}

/// A quarter of the whole, so that a node which hangs leaves time for the others, but not less than a second: no call of a
/// module takes that long (fuel bounds it), so a node that needs longer is in trouble.
fn attempt_timeout(whole: Duration) -> Duration {
    (whole / 4).clamp(Duration::from_secs(1), Duration::from_secs(5))
}

/// All of it: for what takes long. A connection that breaks is noticed by itself.
fn all(whole: Duration) -> Duration {
    whole
}

fn decode<M: Message + Default>(path: &str, reply: Reply) -> Result<M, Error> {
    M::decode(reply.message).map_err(|source| Error::Undecodable { path: path.into(), source })
}

/// What the attempts of one call have taught so far.
struct Attempts<'a> {
    client: &'a Client,
    key: Option<&'a str>,
    begun: Instant,
    deadline: Instant,
    /// What has to be left for another attempt.
    least: Duration,
    may_have_run: bool,
    /// Failures since the last pause: a pause is due when every address had its turn.
    in_round: usize,
    rounds: u32,
    last: Option<Failure>,
}

impl<'a> Attempts<'a> {
    fn new(client: &'a Client, key: Option<&'a str>, begun: Instant) -> Self {
        let whole = begun + client.options.timeout;
        let deadline = client.deadline.map_or(whole, |until| until.min(whole));
        let least = attempt_min(deadline.saturating_duration_since(begun));
        Self { client, key, begun, deadline, least, may_have_run: false, in_round: 0, rounds: 0, last: None }
    }

    /// What is left of the timeout; less of it counts as long as nothing has ever answered.
    fn left(&self) -> Duration {
        let mut deadline = self.deadline;
        if !self.client.connections.ever_connected() {
            deadline = deadline.min(self.begun + self.client.options.first_contact);
        }
        deadline.saturating_duration_since(Instant::now())
    }

    /// Takes note of a failure; how long to pause before the next attempt, or the error that ends the call.
    fn judge(&mut self, failure: Failure) -> Result<Duration, Error> {
        let connections = &self.client.connections;
        if failure.broken {
            connections.forget(&failure.at);
        }
        self.in_round += 1;
        let pause = match &failure.verdict {
            Verdict::Rejected(rejection) => return Err(Error::Rejected(rejection.clone())),
            Verdict::Refused(refusal) => return Err(self.refused(refusal)),
            Verdict::Retry { may_have_run, pushback, leader } => {
                self.may_have_run |= may_have_run;
                connections.advance(&failure.at, leader.as_ref());
                pushback.unwrap_or_else(|| self.pause())
            }
        };
        self.last = Some(failure);
        Ok(pause)
    }

    /// None, until every address had its turn.
    fn pause(&mut self) -> Duration {
        if self.in_round < self.client.options.endpoints.len() {
            return Duration::ZERO;
        }
        self.in_round = 0;
        self.rounds += 1;
        self.client.options.backoff.delay(self.rounds)
    }

    /// A key that is too old to be remembered says nothing about what an earlier attempt with it did.
    fn refused(&self, refusal: &Refusal) -> Error {
        match (self.key, refusal.reason.as_deref()) {
            (Some(key), Some("KEY_FORGOTTEN")) if self.may_have_run => {
                Error::OutcomeUnknown { key: key.into(), last: refusal.message.clone() }
            }
            _ => Error::Refused(Box::new(refusal.clone())),
        }
    }

    fn give_up(self) -> Error {
        let last = self.last.map_or_else(|| "there was no time to try".to_owned(), |failure| failure.text);
        match self.key {
            Some(key) if self.may_have_run => Error::OutcomeUnknown { key: key.into(), last },
            _ => Error::Unavailable {
                tried: self.client.options.endpoints.clone(),
                connected: self.client.connections.ever_connected(),
                last,
            },
        }
    }
}

#[cfg(test)]
mod tests;
