//! The front door: the gRPC server that clients talk to.
//!
//! A connection is HTTP/2 (hyper), a request on it is one of three things:
//!
//! 1. a **method of an active module**, which is the hot path. [`routes`] finds it in the current catalog, [`frame`] takes
//!    the one message out of the body, [`metadata`] reads what else the client asked for, and the bytes go to the
//!    [`Backend`] as they came: no message is decoded here;
//! 2. one of **our own services** ([`health`], [`reflection`], [`admin`]), which are ordinary tonic services;
//! 3. something that this node **does not know (yet)**: the catalog is brought up to date once, before the client is told
//!    UNIMPLEMENTED, because clients never retry that.
//!
//! Operators come in by the back door ([`operators`]): what changes the cluster is served on the port for peers and on a Unix
//! socket, and not here.
//!
//! What comes back is a message, a [`stream`] of them, or a [`status`], where every failure gets its code, reason and details. However a
//! method's call ends, [`watch`] counts, times and traces it once.
//!
//! Three rules hold everywhere here. A command that was handed to the backend is never cancelled ([`detach`]): neither by a
//! deadline nor by a client that hangs up. Everything a client can make us hold has a limit. And nothing a client sends can
//! make us panic.

mod admin;
mod call;
pub(crate) mod connection;
mod detach;
mod frame;
mod health;
mod metadata;
mod operator;
mod operators;
mod reflection;
mod routes;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod watch;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use self::call::Front;
use self::connection::Lifetime;
pub(crate) use self::frame::ReplyBody;
pub use self::operators::{Operators, serve_socket};
#[cfg(test)]
pub(crate) use self::routes::prepared;
pub use self::status::{DOMAIN, Reason, Retry};
use crate::http::Metrics;
use crate::service::Backend;
use crate::traces::Traces;

/// A client opens as many calls at once on one connection; the next ones wait on its side.
const STREAMS_MAX: u32 = 1024;
/// Of one request's bytes, as many travel unacknowledged: a request of the largest size needs one round trip more.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// The same over all requests of a connection, so that a slow reader of many large ones holds no more than this.
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// All headers of one request. Ours are small; most of it is for what proxies and tracing add.
const HEADERS_BYTES_MAX: u32 = 16 * 1024;
/// A connection over which nothing came is asked for a sign of life as often, and closed if none comes.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How long a new connection may wait with its first byte.
const FIRST_BYTE: Duration = Duration::from_secs(10);
/// Pause after an `accept` that failed for want of resources (file descriptors, usually).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// At a shutdown, how long running calls may go on.
pub const DRAIN: Duration = Duration::from_secs(5);

/// What the server is told beside its backend.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which requests are traced.
    pub traces: Traces,
    /// Where requests are counted.
    pub metrics: Arc<Metrics>,
    /// Connections at one time; more are closed at once.
    pub connections_max: usize,
    /// About how old a connection gets; any age, if `None`.
    pub connection_age: Option<Duration>,
    /// After the shutdown signal, how long running calls may go on.
    pub drain: Duration,
}

impl Options {
    /// The usual ones.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { traces: Traces::off(), metrics, connections_max: 4096, connection_age: None, drain: DRAIN }
    }
}

/// Serves clients on `listener` until `shutdown`, then lets running calls end.
pub async fn serve<B: Backend>(
    listener: TcpListener,
    backend: B,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let lifetime = Lifetime { age: options.connection_age, ..Lifetime::default() };
    let stopping = lifetime.stopping.clone();
    let front = Arc::new(Front::new(backend, &options, stopping.clone()));
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < options.connections_max => {
                    connections.spawn(client(stream, Arc::clone(&front), lifetime.clone()));
                }
                Ok((_, peer)) => tracing::warn!(%peer, "connection refused: there are {} already", connections.len()),
                Err(error) => pause_after(&error).await,
            },
        }
    }
    drop(listener);
    stopping.cancel();
    drain(connections, options.drain).await;
    Ok(())
}

/// Errors of `accept` are those of one connection, or pass when others are closed; none ends the server.
async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn drain(mut connections: JoinSet<()>, patience: Duration) {
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(patience, all).await.is_err() {
        tracing::warn!("{} connections are cut off after {patience:?} of draining", connections.len());
    }
}

async fn client<B: Backend>(stream: TcpStream, front: Arc<Front<B>>, lifetime: Lifetime) {
    // Nagle's algorithm would hold back a reply for the acknowledgement of the one before.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let first_byte = tokio::time::timeout(FIRST_BYTE, stream.readable());
    tokio::select! {
        readable = first_byte => if !matches!(readable, Ok(Ok(()))) { return },
        () = lifetime.stopping.cancelled() => return,
    }
    let answer = move |request| {
        let front = Arc::clone(&front);
        async move { Ok::<_, Infallible>(front.answer(request).await) }
    };
    connection::serve(stream, http2_settings(), answer, lifetime).await;
}

fn http2_settings() -> http2::Builder<TokioExecutor> {
    let mut settings = http2::Builder::new(TokioExecutor::new());
    settings
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        // Our clients do not read it, and it would be formatted and sent with every reply.
        .auto_date_header(false);
    settings
}
