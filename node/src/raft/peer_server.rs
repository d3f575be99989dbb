//! The HTTP/2 server under the peer service, and beside it the operators' services. tonic's own would bring a router and its
//! dependencies for these.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tonic::codegen::Service;

use super::Host;
use super::peer_service::PeerService;
use super::peers::MESSAGE_BYTES_MAX;
use crate::api::{Operators, ReplyBody, connection};
use crate::proto::peer::peer_server::{PeerServer, SERVICE_NAME};
use crate::service::Backend;

/// Of one stream's bytes, as many travel unacknowledged.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// The same over all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// A peer that says nothing for this long is asked for a sign of life, and cut off if none comes.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Pause after an `accept` that failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `service` to peers, and `operators` to operators, on `listener` until `shutdown`. Then all connections are closed, whatever
/// runs on them: a peer asks somebody else, and Raft does not wait for farewells.
pub async fn serve<H: Host + Backend>(
    listener: TcpListener,
    service: PeerService<H>,
    operators: Operators<H>,
    shutdown: impl Future<Output = ()>,
) {
    let service = PeerServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(peer(stream, service.clone(), operators.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a peer's connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn peer<H: Host + Backend>(stream: TcpStream, service: PeerServer<PeerService<H>>, operators: Operators<H>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let answer = move |request: http::Request<Incoming>| {
        let (mut service, operators) = (service.clone(), operators.clone());
        async move {
            let path = request.uri().path();
            let is_peers = path.strip_prefix('/').and_then(|path| path.strip_prefix(SERVICE_NAME));
            if is_peers.is_none_or(|method| !method.starts_with('/')) {
                return Ok::<_, Infallible>(operators.answer(request).await);
            }
            service.call(request).await.map(|response| response.map(ReplyBody::Tonic))
        }
    };
    let mut settings = http2::Builder::new(TokioExecutor::new());
    settings
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .auto_date_header(false);
    connection::serve(stream, settings, answer, connection::Lifetime::default()).await;
}
