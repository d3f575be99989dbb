//! One trace follows a command over the nodes that have to do with it, as a collector sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
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
use tonic::{Request, Response, Status};

use crate::harness::{Cluster, Node, SLOW_ELECTIONS, Setup, until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const OTHER_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
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

    /// Those of one trace, by name, once they are all there.
    async fn spans(&self, trace: &str, names: &[&str]) -> BTreeMap<String, (String, Span)> {
        until(&format!("the spans {names:?} are there"), async || {
            let spans = self.0.lock();
            let of_trace = spans.iter().filter(|(_, span)| hex(&span.trace_id) == trace);
            let by_name: BTreeMap<_, _> =
                of_trace.map(|(node, span)| (span.name.clone(), (node.clone(), span.clone()))).collect();
            names.iter().all(|name| by_name.contains_key(*name)).then_some(by_name)
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

#[tokio::test]
async fn a_command_through_a_follower_is_one_trace_of_two_nodes() {
    let (collector, endpoint) = Collector::start().await;
    let otlp = format!("endpoint = \"{endpoint}\"\nsample_ratio = 0\n");
    let setup = Setup { otlp: Some(&otlp), raft: Some(SLOW_ELECTIONS), ..Setup::default() };
    let mut cluster = Cluster::start(setup).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    put(&cluster.nodes[follower], OTHER_TRACE, "00").await;
    let index = put(&cluster.nodes[follower], TRACE, "01").await;

    let call = "kvstore.v1.KvStore/Put";
    let names = [call, "forward", "propose", "log flush", "apply", "wasm"];
    let spans = collector.spans(TRACE, &names).await;
    assert_eq!(spans.keys().map(String::as_str).collect::<BTreeSet<_>>(), names.into(), "and no others");
    for (name, parent) in
        [("forward", call), ("propose", "forward"), ("log flush", "propose"), ("apply", "propose"), ("wasm", "apply")]
    {
        assert_eq!(hex(&spans[name].1.parent_span_id), hex(&spans[parent].1.span_id), "{name} belongs under {parent}");
    }
    assert_eq!(hex(&spans[call].1.parent_span_id), CLIENT, "the client's span is above all");
    for (name, (node, span)) in &spans {
        let at = if [call, "forward"].contains(&name.as_str()) { follower } else { leader };
        assert_eq!(*node, cluster.nodes[at].name, "{name}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{name}");
    }
    for (name, around) in [("log flush", "propose"), ("apply", "propose"), ("wasm", "apply"), ("forward", call)] {
        // Each moment is told by the wall clock on its own: a little play.
        let (inner, outer) = (&spans[name].1, &spans[around].1);
        let play = 1_000_000;
        assert!(inner.start_time_unix_nano + play >= outer.start_time_unix_nano, "{name} begins before {around}");
        assert!(inner.end_time_unix_nano <= outer.end_time_unix_nano + play, "{name} ends after {around}");
    }
    assert_eq!((number(&spans[call].1, "balsa.index"), number(&spans["propose"].1, "balsa.index")), (index, index));
    assert_eq!(number(&spans[call].1, "rpc.grpc.status_code"), 0);
    assert!(number(&spans["wasm"].1, "balsa.fuel") > 0 && number(&spans["log flush"].1, "balsa.entries") > 0);

    // What was sampled is sent before a node ends; what its client did not want traced is not there then either.
    for at in [follower, leader] {
        assert!(cluster.nodes[at].terminate().await.success());
    }
    let traces: BTreeSet<_> = collector.0.lock().iter().map(|(_, span)| hex(&span.trace_id)).collect();
    assert_eq!(traces, BTreeSet::from([TRACE.to_owned()]));
}

#[tokio::test]
async fn a_collector_that_is_not_there_holds_nothing_up() {
    let otlp = "endpoint = \"http://127.0.0.1:1\"\nsample_ratio = 1\n";
    let mut cluster = Cluster::start(Setup { replicas: 1, otlp: Some(otlp), ..Setup::default() }).await;
    for _ in 0..20 {
        cluster.balsa(&["put", "fruit", "apple"]).await.ends(0);
    }
    assert!(cluster.nodes[0].terminate().await.success());
}
