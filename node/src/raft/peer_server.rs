//! The HTTP/2 server under the peer service. tonic's own would bring a router and its dependencies for one service.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tonic::codegen::Service;

use super::Host;
use super::peer_service::PeerService;
use super::peers::MESSAGE_BYTES_MAX;
use crate::proto::peer::peer_server::PeerServer;

/// Of one stream's bytes, as many travel unacknowledged.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// The same over all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// A peer that says nothing for this long is asked for a sign of life, and cut off if none comes.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Pause after an `accept` that failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `service` to peers on `listener` until `shutdown`.
pub async fn serve<H: Host>(listener: TcpListener, service: PeerService<H>, shutdown: impl Future<Output = ()>) {
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
                    connections.spawn(connection(stream, service.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a peer's connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn connection<H: Host>(stream: TcpStream, service: PeerServer<PeerService<H>>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(move |request: http::Request<Incoming>| {
        let mut service = service.clone();
        async move {
            let response: Result<_, Infallible> = service.call(request).await;
            response
        }
    });
    let ended = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = ended {
        tracing::debug!(%error, "a peer's connection ended with an error");
    }
}
