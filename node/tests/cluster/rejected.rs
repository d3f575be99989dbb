//! What a module may do wrong, and what clients may ask too much of, is answered with its status on every node, and leaves
//! no trace in any.

use std::time::Duration;

use balsa::client::{Call, Client, Code, Error, RawCodec, Read, Rejection};
use bytes::Bytes;
use prost::Message;
use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::harness::{Cluster, SLOW_ELECTIONS, Setup};
use crate::hostile::{ADD, GET, GetRequest, GetResponse, PUT, PutRequest, number, total};

/// Commands that end badly: method, the number in the request, the code. A name stands for its whole story in
/// `hostile.proto`.
const COMMANDS: [(&str, u64, Code); 19] = [
    ("Spin", 0, Code::ResourceExhausted),
    ("Recurse", 0, Code::Internal),
    ("Allocate", 0, Code::ResourceExhausted),
    ("Allocate", 1 << 40, Code::ResourceExhausted),
    ("Trap", 0, Code::Internal),
    ("PutThenTrap", 0, Code::Internal),
    ("PutThenFail", 0, Code::FailedPrecondition),
    ("Garbage", 99, Code::Internal),
    ("Garbage", u64::MAX, Code::Internal),
    ("OversizeOutput", 5 << 20, Code::Internal),
    ("NoOutput", 0, Code::Internal),
    ("TwoOutputs", 0, Code::Internal),
    ("BigKey", 0, Code::Internal),
    ("BigKey", 70_000, Code::Internal),
    ("BigValue", 2 << 20, Code::Internal),
    ("Exit", 0, Code::Internal),
    ("OutOfBounds", 0, Code::Internal),
    ("DivideByZero", 0, Code::Internal),
    ("Fail", 5, Code::NotFound),
];
const QUERIES: [(&str, Code); 3] =
    [("SpinQuery", Code::ResourceExhausted), ("WriteInQuery", Code::Internal), ("DeleteInQuery", Code::Internal)];
/// `hostile.v1.Wild`: those above are WASI's, which may answer with an errno instead.
const WILD_POINTERS: std::ops::RangeInclusive<u64> = 0..=19;

fn path(method: &str) -> String {
    format!("/hostile.v1.Hostile/{method}")
}

async fn rejection(client: &Client, call: Call) -> Rejection {
    match client.call(&call).await {
        Err(Error::Rejected(rejection)) => *rejection,
        other => panic!("{} was not rejected: {other:?}", call.path),
    }
}

async fn trace(client: &Client) -> Option<Bytes> {
    let request = GetRequest { key: "trace".into() }.encode_to_vec();
    let reply = client.query(GET, request, Read::Linearizable).await.unwrap();
    GetResponse::decode(reply.message).unwrap().value
}

#[tokio::test]
async fn every_misbehaviour_is_answered_with_its_status_and_leaves_no_trace() {
    let cluster = Cluster::start(Setup { hostile: true, ..Setup::default() }).await;
    let clients: Vec<_> = cluster.nodes.iter().map(|node| node.client()).collect();
    clients[0].command(ADD, number(42)).await.unwrap();
    let wild = WILD_POINTERS.map(|pointer| ("WildPointer", pointer, Code::Internal));
    for (at, (method, argument, code)) in COMMANDS.into_iter().chain(wild).enumerate() {
        let client = &clients[at % 3];
        let call = Call::command(&path(method), number(argument));
        let first = rejection(client, call.clone()).await;
        assert_eq!(first.code, code, "{method} {argument}: {first:?}");
        assert!(first.index.is_some());
        // It is an outcome like any other: a retry gets the same, through another node.
        let again = rejection(&clients[(at + 1) % 3], call).await;
        assert_eq!((again.code, again.index), (first.code, first.index), "{method} {argument}");
        assert_eq!(trace(client).await, None, "{method} {argument}");
    }
    for (method, code) in QUERIES {
        for client in &clients {
            let answer = rejection(client, Call::query(&path(method), Vec::new(), Read::Linearizable)).await;
            assert_eq!(answer.code, code, "{method}: {answer:?}");
        }
    }
    let trap = rejection(&clients[0], Call::command(&path("Trap"), Vec::new())).await;
    assert!(trap.trap_detail.unwrap_or_default().contains("hostile panics on purpose"));
    let fail = rejection(&clients[1], Call::command(&path("PutThenFail"), Vec::new())).await;
    assert_eq!((&*fail.message, fail.details[0].type_name()), ("hostile fails on purpose", "hostile.v1.Payload"));
    assert_eq!(total(&clients[2], Read::Linearizable).await.unwrap(), 42);
    assert_eq!(trace(&clients[2]).await, None);
    cluster.assert_same_state().await;
}

/// One attempt, without the client library's retries.
async fn put_once(uri: String, key: String, bytes: usize) -> Result<(), Status> {
    let channel = Channel::from_shared(uri).unwrap().connect().await.unwrap();
    let mut request = Request::new(PutRequest { key: key.into(), value: vec![7; bytes].into() }.encode_to_vec().into());
    request.set_timeout(Duration::from_secs(30));
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    grpc.unary(request, PUT.parse().unwrap(), RawCodec).await.map(|_| ())
}

#[tokio::test]
async fn overload_is_refused_with_a_hint_and_the_cluster_goes_on_afterwards() {
    // A leader that hears of nobody for an election timeout takes no more writes at all; this one is to take too many.
    let setup = Setup { hostile: true, raft: Some(SLOW_ELECTIONS), ..Setup::default() };
    let mut cluster = Cluster::start(setup).await;
    let leader = cluster.leader().await;
    for at in (0..3).filter(|at| *at != leader) {
        cluster.nodes[at].freeze();
    }
    // Nothing is committed now, so each of these takes its place and keeps it; there is place for 64 MiB.
    let uri = cluster.nodes[leader].uri();
    let mut puts: JoinSet<_> = (0..90).map(|number| put_once(uri.clone(), format!("much/{number}"), 1 << 20)).collect();
    let mut refused = 0;
    while refused <= 10 {
        let put = puts.join_next().await.unwrap_or_else(|| panic!("{refused} of 90 MiB were refused"));
        let status = put.unwrap().expect_err("there is no majority");
        if status.code() == Code::ResourceExhausted {
            assert!(status.metadata().get("grpc-retry-pushback-ms").is_some(), "{status:?}");
            refused += 1;
        }
    }
    for at in (0..3).filter(|at| *at != leader) {
        cluster.nodes[at].thaw();
    }
    cluster.ready().await;
    cluster.client().command(ADD, number(1)).await.unwrap();
    cluster.assert_same_state().await;
}

#[tokio::test]
async fn a_request_above_the_limit_is_refused_and_one_at_the_limit_is_served() {
    let cluster = Cluster::start(Setup { hostile: true, ..Setup::default() }).await;
    for node in &cluster.nodes {
        put_once(node.uri(), "large".into(), 1 << 20).await.unwrap();
        let status = put_once(node.uri(), "larger".into(), 2 << 20).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    }
    cluster.assert_same_state().await;
}
