//! The small HTTP/1.1 server for probes and Prometheus: `/livez`, `/readyz`, `/metrics`.
//!
//! It has its own port, so that it can be left inside the cluster's network, and shares the event loop with everything else
//! on purpose: `/livez` answers if and only if that loop turns.

mod metrics;

use std::convert::Infallible;
use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use self::metrics::{
    BuildLabels, CheckLabels, CodeLabel, CodeLabels, Meters, MethodLabels, Metrics, ModuleLabels, PeerLabels,
    QueueLabels, ROLES, RefusedLabels, RoleLabels, SourceLabels, StoreLabels,
};

/// Probes and one or two scrapers; more is a mistake or an attack.
const CONNECTIONS_MAX: usize = 256;
/// A client that is slower with its request, or idle for longer, is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection of this age ends behind the answer that it is at. A client that does not take its answer keeps a place which a probe may
/// need; nobody else notices, since scrapers connect again by themselves.
const AGE: Duration = Duration::from_secs(60);
/// Pause after an `accept` that failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const ENDPOINTS: &str = "There is nothing here; the endpoints are /livez, /readyz, /readyz?verbose and /metrics.\n";
const TEXT: &str = "text/plain; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What must be well for clients to be sent here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    /// In the order in which they are shown.
    pub checks: Vec<Check>,
}

/// One thing that is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// `leader_known`
    pub name: &'static str,
    /// Well, or why not.
    pub result: Result<(), String>,
    /// Whether clients are sent elsewhere while it is not well; else it is only shown.
    pub needed: bool,
}

impl Check {
    /// One without which no client should come.
    pub fn needed(name: &'static str, result: Result<(), String>) -> Self {
        Self { name, result, needed: true }
    }

    /// One that only an operator needs to know of.
    pub fn shown(name: &'static str, result: Result<(), String>) -> Self {
        Self { name, result, needed: false }
    }

    fn is_in_the_way(&self) -> bool {
        self.needed && self.result.is_err()
    }
}

impl Readiness {
    /// Whether all checks that are needed are well.
    pub fn is_ready(&self) -> bool {
        !self.checks.iter().any(Check::is_in_the_way)
    }

    /// In the manner of Kubernetes: `[+]log ok` or `[-]log failed: why` a line, `[!]log warns: why` if it is not in the way.
    fn describe(&self, verbose: bool) -> String {
        let mut text = String::new();
        for check in self.checks.iter().filter(|check| verbose || check.is_in_the_way()) {
            let name = check.name;
            let line = match &check.result {
                Ok(()) => writeln!(text, "[+]{name} ok"),
                Err(why) if check.needed => writeln!(text, "[-]{name} failed: {why}"),
                Err(why) => writeln!(text, "[!]{name} warns: {why}"),
            };
            line.expect("writing to a String cannot fail");
        }
        text.push_str(if self.is_ready() { "ok\n" } else { "not ready\n" });
        text
    }
}

/// Where the answers come from.
struct Source<R, G> {
    readiness: R,
    gauges: G,
    metrics: Arc<Metrics>,
    /// How old a connection gets; a quarter more if it is at an answer then.
    age: Duration,
}

/// Serves probes and metrics on `listener` until `shutdown`. `readiness` is asked by each `/readyz`; `gauges` is called before
/// each `/metrics`, to set what is cheaper to look at than to follow.
pub async fn serve<R, G>(
    listener: TcpListener,
    readiness: R,
    gauges: G,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()>
where
    R: Fn() -> Readiness + Send + Sync + 'static,
    G: Fn(&Metrics) + Send + Sync + 'static,
{
    let source = Source { readiness, gauges, metrics, age: AGE };
    accept(listener, Arc::new(source), shutdown).await
}

async fn accept<R, G>(
    listener: TcpListener,
    source: Arc<Source<R, G>>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()>
where
    R: Fn() -> Readiness + Send + Sync + 'static,
    G: Fn(&Metrics) + Send + Sync + 'static,
{
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Those that have ended count no more, though nobody has looked at them yet.
                    while connections.try_join_next().is_some() {}
                    if connections.len() < CONNECTIONS_MAX {
                        connections.spawn(connection(stream, Arc::clone(&source)));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection to the HTTP port could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn connection<R, G>(stream: TcpStream, source: Arc<Source<R, G>>)
where
    R: Fn() -> Readiness + Send + Sync + 'static,
    G: Fn(&Metrics) + Send + Sync + 'static,
{
    let age = source.age;
    let service = service_fn(move |request| {
        let response = source.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut settings = http1::Builder::new();
    settings.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(16 * 1024);
    let mut connection = std::pin::pin!(settings.serve_connection(TokioIo::new(stream), service));
    let mut ended = timeout(age, connection.as_mut()).await;
    if ended.is_err() {
        connection.as_mut().graceful_shutdown();
        ended = timeout(age / 4, connection).await;
    }
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the HTTP port ended with an error"),
        Err(_) => tracing::debug!("a connection to the HTTP port is cut off; its client does not take its answer"),
    }
}

impl<R: Fn() -> Readiness, G: Fn(&Metrics)> Source<R, G> {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Only GET is answered here.\n".into(), TEXT);
            response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n".into(), TEXT),
            "/readyz" => self.ready(request.uri().query()),
            "/metrics" => self.scrape(),
            _ => text(StatusCode::NOT_FOUND, ENDPOINTS.into(), TEXT),
        }
    }

    fn ready(&self, query: Option<&str>) -> Response<Full<Bytes>> {
        let verbose = query.into_iter().flat_map(|query| query.split('&')).any(|name| name.starts_with("verbose"));
        let readiness = (self.readiness)();
        let code = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        text(code, readiness.describe(verbose), TEXT)
    }

    fn scrape(&self) -> Response<Full<Bytes>> {
        (self.gauges)(&self.metrics);
        text(StatusCode::OK, self.metrics.encode(), OPENMETRICS)
    }
}

fn text(code: StatusCode, text: String, content_type: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = code;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Server {
        addr: std::net::SocketAddr,
        well: Arc<AtomicBool>,
    }

    async fn server() -> Server {
        server_of_age(AGE).await
    }

    async fn server_of_age(age: Duration) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let well = Arc::new(AtomicBool::new(true));
        let readiness = {
            let well = Arc::clone(&well);
            move || {
                let state = if well.load(Ordering::Relaxed) { Ok(()) } else { Err("replays its log".to_owned()) };
                let clock = Check::shown("clock", Err("it is slow".to_owned()));
                Readiness { checks: vec![Check::needed("log", Ok(())), Check::needed("state", state), clock] }
            }
        };
        let gauges = |metrics: &Metrics| _ = metrics.raft_term.set(7);
        let source = Source { readiness, gauges, metrics: Arc::new(Metrics::new()), age };
        tokio::spawn(accept(listener, Arc::new(source), std::future::pending()));
        Server { addr, well }
    }

    impl Server {
        /// Status code and body of one request.
        async fn ask(&self, method: &str, path: &str) -> (u16, String) {
            let mut stream = TcpStream::connect(self.addr).await.unwrap();
            let request = format!("{method} {path} HTTP/1.1\r\nhost: balsa\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut response = String::new();
            stream.read_to_string(&mut response).await.unwrap();
            let (head, body) = response.split_once("\r\n\r\n").unwrap();
            (head[9..12].parse().unwrap(), body.to_owned())
        }
    }

    #[tokio::test]
    async fn a_live_node_says_so() {
        assert_eq!(server().await.ask("GET", "/livez").await, (200, "ok\n".into()));
    }

    #[tokio::test]
    async fn readiness_follows_the_checks_and_names_the_one_that_fails() {
        let (server, clock) = (server().await, "[!]clock warns: it is slow\n");
        assert_eq!(server.ask("GET", "/readyz").await, (200, "ok\n".into()));
        assert_eq!(server.ask("GET", "/readyz?verbose").await, (200, format!("[+]log ok\n[+]state ok\n{clock}ok\n")));
        server.well.store(false, Ordering::Relaxed);
        let failed = "[-]state failed: replays its log\n";
        assert_eq!(server.ask("GET", "/readyz").await, (503, format!("{failed}not ready\n")));
        assert_eq!(server.ask("GET", "/readyz?verbose").await, (503, format!("[+]log ok\n{failed}{clock}not ready\n")));
    }

    #[tokio::test]
    async fn a_scrape_sets_the_gauges_first() {
        let (code, body) = server().await.ask("GET", "/metrics").await;
        assert_eq!(code, 200);
        assert!(body.contains("\nbalsa_raft_term 7\n"), "{body}");
        assert!(body.ends_with("# EOF\n"));
    }

    #[tokio::test]
    async fn clients_that_do_not_read_do_not_keep_probes_out() {
        let server = server_of_age(Duration::from_millis(200)).await;
        let crowd: Vec<_> = (0..CONNECTIONS_MAX).map(|_| TcpStream::connect(server.addr)).collect();
        let crowd = futures::future::try_join_all(crowd).await.unwrap();
        let without_end = crowd.into_iter().map(async |mut stream| {
            // Until the answers that nobody takes fill all buffers, and then for as long as the server waits.
            while stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: balsa\r\n\r\n").await.is_ok() {}
        });
        let cut_off = timeout(Duration::from_secs(60), futures::future::join_all(without_end)).await;
        assert!(cut_off.is_ok(), "a client that does not read has its place still");
        assert_eq!(server.ask("GET", "/livez").await, (200, "ok\n".into()));
    }

    #[tokio::test]
    async fn a_connection_that_is_old_ends_between_two_answers() {
        let server = server_of_age(Duration::from_millis(200)).await;
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: balsa\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
    }

    #[tokio::test]
    async fn other_paths_are_told_what_there_is() {
        let server = server().await;
        assert_eq!(server.ask("GET", "/").await, (404, ENDPOINTS.into()));
        assert_eq!(server.ask("HEAD", "/livez").await, (200, String::new()));
        assert_eq!(server.ask("POST", "/livez").await.0, 405);
    }
}
