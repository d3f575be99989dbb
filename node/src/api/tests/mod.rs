//! The front door as clients see it: real TCP, a real gRPC channel, and a backend that is a fake.

mod calls;
mod fake;
mod garbage;
mod hostile;
mod rate;
mod services;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_sdk::trace::SpanData;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use self::fake::Fake;
use super::status::reason_of;
use super::{Operators, Options, serve, serve_socket};
use crate::http::Metrics;
use crate::service::Backend;
use crate::testing::spans::{Spans, attribute};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server with a fake backend.
struct Server {
    addr: std::net::SocketAddr,
    fake: Fake,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start(fake: Fake) -> Self {
        Self::with(fake, |_| {}).await
    }

    async fn with(fake: Fake, change: impl FnOnce(&mut Options)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new());
        // As each scrape does.
        metrics.serve(&fake.catalog());
        let mut options = Options::new(Arc::clone(&metrics));
        change(&mut options);
        let shutdown = CancellationToken::new();
        let signal = shutdown.clone().cancelled_owned();
        let task = tokio::spawn(serve(listener, fake.clone(), options, signal));
        Self { addr, fake, metrics, shutdown, task }
    }

    async fn client(&self) -> Client {
        let stream = TcpStream::connect(self.addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let settings = http2::Builder::new(TokioExecutor::new());
        let (requests, connection) = settings.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Client { requests }
    }

    /// For generated clients.
    async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.addr)).unwrap().connect().await.unwrap()
    }

    /// Returns once `/metrics` has this line.
    async fn until_counted(&self, line: &str) {
        let counted = || self.metrics.encode().lines().any(|found| found == line);
        until(counted).await;
    }
}

/// The operators' socket of a fake backend.
struct BackDoor {
    fake: Fake,
    path: std::path::PathBuf,
    _directory: tempfile::TempDir,
    _shutdown: tokio_util::sync::DropGuard,
}

impl BackDoor {
    fn open(fake: Fake) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("balsa.sock");
        let socket = crate::socket::Socket::bind(&path).unwrap();
        let (operators, shutdown) = (Operators::new(fake.clone()), CancellationToken::new());
        let signal = shutdown.clone().cancelled_owned();
        tokio::spawn(async move { serve_socket(&socket.listener, operators, signal).await });
        Self { fake, path, _directory: directory, _shutdown: shutdown.drop_guard() }
    }

    async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("unix:{}", self.path.display())).unwrap().connect().await.unwrap()
    }
}

/// A client that sees everything: headers, trailers and raw bodies. Not tonic's, which ends a call by itself when its
/// `grpc-timeout` has passed.
#[derive(Clone)]
struct Client {
    requests: http2::SendRequest<Full<Bytes>>,
}

/// A call's answer, taken apart.
#[derive(Debug)]
struct Answer {
    head: HeaderMap,
    trailers: HeaderMap,
    /// Frames and all.
    body: Bytes,
}

impl Client {
    /// A unary call with one message.
    async fn call(&self, path: &str, metadata: &[(&'static str, &str)], message: &[u8]) -> Answer {
        self.send(path, metadata, framed(message)).await.unwrap()
    }

    /// A call with any body.
    async fn send(&self, path: &str, metadata: &[(&'static str, &str)], body: Bytes) -> hyper::Result<Answer> {
        let mut request = Request::post(format!("http://balsa{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in metadata {
            request = request.header(*name, *value);
        }
        Answer::read(self.request(request.body(Full::new(body)).unwrap()).await?).await
    }

    async fn request(&self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        let mut requests = self.requests.clone();
        requests.ready().await?;
        requests.send_request(request).await
    }
}

impl Answer {
    async fn read(response: Response<Incoming>) -> hyper::Result<Self> {
        let (head, body) = response.into_parts();
        assert_eq!(head.status, 200);
        assert_eq!(head.headers["content-type"], "application/grpc");
        let body = body.collect().await?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        Ok(Self { head: head.headers, trailers, body: body.to_bytes() })
    }

    /// The message of a success.
    #[track_caller]
    fn message(&self) -> &[u8] {
        assert_eq!(self.code(), Code::Ok, "{self:?}");
        assert_eq!(u32::from_be_bytes(self.body[1..5].try_into().unwrap()) as usize, self.body.len() - 5);
        &self.body[5..]
    }

    /// Of the trailers, or of a trailers-only response.
    fn status(&self) -> Status {
        let of = |headers| Status::from_header_map(headers);
        of(&self.trailers).or_else(|| of(&self.head)).expect("a status")
    }

    fn code(&self) -> Code {
        self.status().code()
    }

    /// Code and reason of a failure, which must be trailers-only.
    #[track_caller]
    fn failure(&self) -> (Code, String) {
        assert!(self.body.is_empty() && self.trailers.is_empty(), "{self:?}");
        let status = self.status();
        (status.code(), reason_of(&status).map(|reason| reason.0).unwrap_or_default())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.get(name).map(|value| value.to_str().unwrap())
    }
}

fn framed(message: &[u8]) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(message.len() as u32);
    body.put_slice(message);
    body.freeze()
}

/// Returns once `condition` is true.
async fn until(mut condition: impl FnMut() -> bool) {
    soon(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// What a span says of its call: name, gRPC code, log index.
type Said = (String, Option<String>, Option<String>);

/// What all that have ended say.
fn said(spans: &Spans) -> Vec<Said> {
    let said = |span: &SpanData| {
        (span.name.to_string(), attribute(span, "rpc.grpc.status_code"), attribute(span, "balsa.index"))
    };
    spans.ended().iter().map(said).collect()
}

/// What one must say.
fn said_of(path: &str, code: Code, index: Option<u64>) -> Said {
    let number = |number: u64| number.to_string();
    (path.trim_start_matches('/').to_owned(), Some(number(code as u64)), index.map(number))
}

/// Waits for `work`, but not for ever.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("this should not take so long")
}
