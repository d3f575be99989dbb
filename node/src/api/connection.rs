//! One HTTP/2 connection, from its first byte to its end.

use std::convert::Infallible;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// Answers the requests of one connection with `answer`, until it ends by itself, or, after `stopping`, when the calls that run on
/// it have ended: the other side is told to begin no more of them.
pub(crate) async fn serve<IO, Body, Answering>(
    io: IO,
    settings: http2::Builder<TokioExecutor>,
    answer: impl Fn(Request<Incoming>) -> Answering,
    stopping: CancellationToken,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Body: http_body::Body + Send + 'static,
    Body::Data: Send,
    Body::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Answering: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let mut connection = std::pin::pin!(settings.serve_connection(TokioIo::new(io), service_fn(answer)));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}
