//! One trace follows a command over the nodes that have to do with it, as a collector sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message;
use rustix::process::{Resource, Rlimit};
use tonic::{Request, Response, Status};

use crate::harness::{Cluster, Node, SLOW_ELECTIONS, Setup, until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const OTHER_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
/// How long the library waits for a collector's answer.
const EXPORT: Duration = Duration::from_secs(10);
const CLIENT: &str = "00f067aa0ba902b7";

/// Spans, each with the node that sent it.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_node in request.into_inner().resource_spans {
            let resource = of_node.resource.expect("who sent it");
            assert_eq!(text(&resource.attributes, "service.name"), "balsa");
            let node = text(&resource.attributes, "service.instance.id");
            let spans = of_node.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().extend(spans.map(|span| (node.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Serves at an address of its own.
    async fn start() -> (Self, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (collector, address) = (Self::default(), listener.local_addr().unwrap());
        let service = TraceServiceServer::new(collector.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(service.clone());
                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
        (collector, format!("http://{address}"))
    }

    /// Those of one trace, each with the node that sent it.
    fn of(&self, trace: &str) -> Vec<(String, Span)> {
        self.0.lock().iter().filter(|(_, span)| hex(&span.trace_id) == trace).cloned().collect()
    }

    /// The same by node and name, once all that `wanted` asks for are there. None is there twice.
    async fn spans(&self, trace: &str, wanted: &BTreeSet<(&str, &str)>) -> BTreeMap<(String, String), Span> {
        until(&format!("the spans {wanted:?} are there"), async || {
            let spans = self.of(trace);
            let names = spans.iter().map(|(node, span)| (node.as_str(), span.name.as_str()));
            let found: BTreeSet<_> = names.collect();
            assert_eq!(found.len(), spans.len(), "one span of a name for each node: {spans:#?}");
            wanted
                .is_subset(&found)
                .then(|| spans.iter().map(|(node, span)| ((node.clone(), span.name.clone()), span.clone())).collect())
        })
        .await
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> &'a Value {
    let found =
        attributes.iter().find(|attribute| attribute.key == key).unwrap_or_else(|| panic!("{key} in {attributes:?}"));
    match &found.value {
        Some(AnyValue { value: Some(value) }) => value,
        other => panic!("{key} is {other:?}"),
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let Value::StringValue(text) = value(attributes, key) else { panic!("{key} is no text") };
    text.clone()
}

fn number(span: &Span, key: &str) -> i64 {
    let Value::IntValue(number) = value(&span.attributes, key) else { panic!("{key} is no number") };
    *number
}

#[derive(Clone, PartialEq, Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// Puts a key with a client that traces, and returns `balsa-index`.
async fn put(node: &Node, trace: &str, flags: &str) -> i64 {
    let message = Put { key: b"fruit".to_vec(), value: b"apple".to_vec() }.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    let stream = tokio::net::TcpStream::connect(node.address()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("{}/kvstore.v1.KvStore/Put", node.uri()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("traceparent", format!("00-{trace}-{CLIENT}-{flags}"))
        .body(Full::new(Bytes::from(framed)))
        .unwrap();
    let response = tokio::time::timeout(Duration::from_secs(20), sender.send_request(request)).await.unwrap().unwrap();
    let index = response.headers()["balsa-index"].to_str().unwrap().parse().unwrap();
    let trailers = response.into_body().collect().await.unwrap().trailers().cloned().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    index
}

const CALL: &str = "kvstore.v1.KvStore/Put";

#[tokio::test]
async fn a_command_through_a_follower_is_one_trace_of_all_nodes() {
    let (collector, endpoint) = Collector::start().await;
    let otlp = format!("endpoint = \"{endpoint}\"\nsample_ratio = 0\n");
    let setup = Setup { otlp: Some(&otlp), raft: Some(SLOW_ELECTIONS), ..Setup::default() };
    let mut cluster = Cluster::stopped(setup).await;
    // The state is as at the start until a node is told to stop: one that is killed applies everything once more.
    let never = || vec![("BALSA_STORAGE__CHECKPOINT_INTERVAL_MS", "3600000".to_owned())];
    cluster.nodes.iter_mut().for_each(|node| node.environment = never());
    cluster.start_all();
    cluster.ready().await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    put(&cluster.nodes[follower], OTHER_TRACE, "00").await;
    let index = put(&cluster.nodes[follower], TRACE, "01").await;

    let names: Vec<_> = cluster.nodes.iter().map(|node| node.name.clone()).collect();
    let (at_leader, at_follower) = (names[leader].as_str(), names[follower].as_str());
    let own = [(at_follower, CALL), (at_follower, "forward"), (at_leader, "propose"), (at_leader, "log flush")];
    let on_each = names.iter().flat_map(|node| [(node.as_str(), "apply"), (node.as_str(), "wasm")]);
    let wanted: BTreeSet<_> = own.into_iter().chain(on_each).collect();
    let spans = collector.spans(TRACE, &wanted).await;
    let span = |node: &str, name: &str| &spans[&(node.to_owned(), name.to_owned())];
    for (node, name) in spans.keys().map(|(node, name)| (node.as_str(), name.as_str())) {
        // An entry may be committed without a node, so that its own log has it only after that.
        assert!(wanted.contains(&(node, name)) || name == "log flush", "{node} has sent {name}");
        let parent = match name {
            CALL => CLIENT.to_owned(),
            "forward" => hex(&span(at_follower, CALL).span_id),
            "propose" => hex(&span(at_follower, "forward").span_id),
            "log flush" | "apply" => hex(&span(at_leader, "propose").span_id),
            _ => hex(&span(node, "apply").span_id),
        };
        assert_eq!(hex(&span(node, name).parent_span_id), parent, "where {name} of {node} belongs");
        assert!(span(node, name).start_time_unix_nano <= span(node, name).end_time_unix_nano, "{name}");
    }
    let propose = span(at_leader, "propose");
    let around = [("log flush", propose), ("apply", propose), ("wasm", span(at_leader, "apply"))];
    for (name, outer) in around {
        assert_within(span(at_leader, name), outer);
    }
    assert_within(span(at_follower, "forward"), span(at_follower, CALL));
    let indexes = [span(at_follower, CALL), propose].map(|span| number(span, "balsa.index"));
    assert_eq!((indexes, number(span(at_follower, CALL), "rpc.grpc.status_code")), ([index; 2], 0));
    assert!(names.iter().all(|node| number(span(node, "wasm"), "balsa.fuel") > 0));
    assert!(number(span(at_leader, "log flush"), "balsa.entries") > 0);

    // What a node applies once more, since it was killed, it does not send once more. What was sampled is sent before a node ends; what
    // its client did not want traced is not there then either.
    let sent = collector.of(TRACE).len();
    cluster.nodes[follower].kill().await;
    cluster.nodes[follower].start();
    cluster.ready().await;
    for node in &mut cluster.nodes {
        assert!(node.terminate().await.success());
    }
    assert_eq!(collector.of(TRACE).len(), sent);
    let traces: BTreeSet<_> = collector.0.lock().iter().map(|(_, span)| hex(&span.trace_id)).collect();
    assert_eq!(traces, BTreeSet::from([TRACE.to_owned()]));
}

/// Each moment is told by the wall clock on its own: a little play.
fn assert_within(inner: &Span, outer: &Span) {
    const PLAY: u64 = 1_000_000;
    let (name, around) = (&inner.name, &outer.name);
    assert!(inner.start_time_unix_nano + PLAY >= outer.start_time_unix_nano, "{name} begins before {around}");
    assert!(inner.end_time_unix_nano <= outer.end_time_unix_nano + PLAY, "{name} ends after {around}");
}

/// A disk that takes nothing beyond this place of a file: what is there already fits before it.
const FULL_AT: u64 = 1024 * 1024;

#[tokio::test]
async fn what_was_sampled_is_sent_also_when_a_host_fault_ends_the_node() {
    let (collector, endpoint) = Collector::start().await;
    let otlp = format!("endpoint = \"{endpoint}\"\nsample_ratio = 0\n");
    let mut cluster = Cluster::stopped(Setup { replicas: 1, otlp: Some(&otlp), ..Setup::default() }).await;
    // A write that does not fit is an error then, and not the end of the process by a signal.
    let program = cluster.dir().join("balsa-that-is-told");
    std::fs::write(&program, format!("#!/bin/sh\ntrap '' XFSZ\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_balsa")))
        .unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    cluster.nodes[0].program = Some(program);
    // Spans do not leave by themselves.
    cluster.nodes[0].environment = vec![("OTEL_BSP_SCHEDULE_DELAY", "3600000".into())];
    cluster.start_all();
    cluster.ready().await;
    put(&cluster.nodes[0], TRACE, "01").await;

    let full = Rlimit { current: Some(FULL_AT), maximum: Some(FULL_AT) };
    rustix::process::prlimit(Some(cluster.nodes[0].id()), Resource::Fsize, full).unwrap();
    let client = cluster.nodes[0].client_within(Duration::from_secs(2));
    let large = Put { key: b"large".to_vec(), value: vec![7; 500_000] }.encode_to_vec();
    let call = format!("/{CALL}");
    let written = stream::repeat(()).for_each(async |()| drop(client.command(&call, large.clone()).await));
    let ended = tokio::select! {
        ended = cluster.nodes[0].exited() => ended,
        () = written => unreachable!("nobody stops writing"),
    };
    assert_eq!(ended.code(), Some(1), "a host fault");
    let names: BTreeSet<_> = collector.of(TRACE).into_iter().map(|(_, span)| span.name).collect();
    assert_eq!(names, BTreeSet::from([CALL, "propose", "log flush", "apply", "wasm"].map(str::to_owned)));
}

#[tokio::test]
async fn a_collector_that_is_not_there_or_never_answers_holds_nothing_up() {
    // The kernel takes calls there, and nobody takes them from the kernel.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    for address in ["127.0.0.1:1".to_owned(), mute.local_addr().unwrap().to_string()] {
        let otlp = format!("endpoint = \"http://{address}\"\nsample_ratio = 1\n");
        let mut cluster = Cluster::stopped(Setup { replicas: 1, otlp: Some(&otlp), ..Setup::default() }).await;
        // Spans are sent all the time.
        cluster.nodes[0].environment = vec![("OTEL_BSP_SCHEDULE_DELAY", "10".into())];
        cluster.start_all();
        cluster.ready().await;
        let begun = Instant::now();
        for _ in 0..20 {
            put(&cluster.nodes[0], TRACE, "01").await;
        }
        assert!(begun.elapsed() < EXPORT, "calls wait for the collector: {:?}", begun.elapsed());
        let begun = Instant::now();
        assert!(cluster.nodes[0].terminate().await.success());
        assert!(begun.elapsed() < EXPORT, "the end waits for the collector: {:?}", begun.elapsed());
    }
}
