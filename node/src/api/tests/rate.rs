//! What a call costs at the front door: our own framing beside tonic's unary server, over the same HTTP/2.
//!
//! A measurement, not a test. The figure to compare is the server thread's CPU time a call, since the calls a second depend
//! on what else the machine does: `cargo test --release -p balsa --lib echo_rate -- --ignored --nocapture`

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Response, Status};

use super::super::{Options, http2_settings, serve};
use super::fake::{Fake, GET, PUT, TEST};
use super::framed;
use crate::http::Metrics;

const TIME: Duration = Duration::from_secs(3);
const MESSAGE_BYTES: usize = 256;

/// Bytes in, bytes out, as tonic would have it.
#[derive(Default, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

#[derive(Clone)]
struct Unary;

impl tonic::server::UnaryService<Bytes> for Unary {
    type Response = Bytes;
    type Future = std::future::Ready<Result<Response<Bytes>, Status>>;
    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let mut response = Response::new(request.into_inner());
        response.metadata_mut().insert("balsa-node", tonic::metadata::MetadataValue::from_static("balsa-0"));
        response.metadata_mut().insert("balsa-index", 123_456.into());
        std::future::ready(Ok(response))
    }
}

async fn tonics(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let service = service_fn(|request: http::Request<Incoming>| async move {
            Ok::<_, Infallible>(tonic::server::Grpc::new(Raw).unary(Unary, request).await)
        });
        tokio::spawn(http2_settings().serve_connection(TokioIo::new(stream), service));
    }
}

/// Nanoseconds that this thread has been on a CPU.
fn cpu_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs a server on a thread of its own; returns where it is, and what it used so far.
fn server(tonic: bool) -> (SocketAddr, Arc<AtomicU64>) {
    let backend = Fake::echoing(&[&TEST]);
    let (send, addr) = std::sync::mpsc::channel();
    let used = Arc::new(AtomicU64::new(0));
    let shown = Arc::clone(&used);
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            send.send(listener.local_addr().unwrap()).unwrap();
            tokio::spawn(async move {
                let mut ticks = tokio::time::interval(Duration::from_millis(10));
                loop {
                    ticks.tick().await;
                    used.store(cpu_time(), Ordering::Relaxed);
                }
            });
            match tonic {
                true => tonics(listener).await,
                false => {
                    let options = Options::new(Arc::new(Metrics::new()));
                    serve(listener, backend, options, std::future::pending()).await.unwrap();
                }
            }
        });
    });
    (addr.recv().unwrap(), shown)
}

/// Calls a second and the server's nanoseconds a call.
fn measure(addr: SocketAddr, used: &AtomicU64, path: &'static str, flight: usize) -> (f64, u64) {
    let (calls, before, started) = (Arc::new(AtomicU64::new(0)), used.load(Ordering::Relaxed), Instant::now());
    runtime().block_on(async {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (requests, connection) =
            http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let body = framed(&[7; MESSAGE_BYTES]);
        let workers: Vec<_> = (0..flight)
            .map(|_| tokio::spawn(work(requests.clone(), path, body.clone(), Arc::clone(&calls), started)))
            .collect();
        futures::future::join_all(workers).await;
    });
    let calls = calls.load(Ordering::Relaxed);
    let per_second = calls as f64 / started.elapsed().as_secs_f64();
    (per_second, (used.load(Ordering::Relaxed) - before) / calls)
}

async fn work(
    mut requests: http2::SendRequest<Full<Bytes>>,
    path: &'static str,
    body: Bytes,
    calls: Arc<AtomicU64>,
    started: Instant,
) {
    while started.elapsed() < TIME {
        let request = http::Request::post(format!("http://balsa{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "rate/1.0")
            .header("idempotency-key", "0197a0c2-5b1e-7abc-8def-001122334455")
            .body(Full::new(body.clone()))
            .unwrap();
        let response = requests.send_request(request).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), MESSAGE_BYTES + 5);
        calls.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "a measurement; see the module's documentation"]
fn echo_rate() {
    let (ours, tonics) = (server(false), server(true));
    for flight in [1, 16, 64, 256] {
        for (name, (addr, used), path) in [("command", &ours, PUT), ("query", &ours, GET), ("tonic", &tonics, PUT)] {
            let (per_second, nanoseconds) = measure(*addr, used, path, flight);
            println!("{flight:4} in flight, {name:8} {per_second:8.0}/s, server {nanoseconds:6} ns a call");
        }
    }
}
