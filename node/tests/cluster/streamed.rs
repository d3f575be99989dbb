//! A query that answers with a stream: as large as fuel allows, as slow as its client, and in nobody's way.

use balsa::client::{Client, Code, Error, RawCodec, Read};
use bytes::Bytes;
use futures::future::join_all;
use prost::Message;
use tokio_stream::StreamExt;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::harness::{Cluster, Node, PATIENCE, Setup, until};
use crate::hostile::{ADD, STREAM, StreamRequest, number, total};

/// Streams that a node runs at once.
const STREAMS_MAX: usize = 8;
/// What a node may grow by while it passes on much more than that.
const GROWTH_BYTES: u64 = 64 * 1024 * 1024;

fn asked(count: u32, bytes: u32) -> Vec<u8> {
    StreamRequest { count, bytes, ending: 0 }.encode_to_vec()
}

/// All messages, as long as each has `bytes` bytes and a few of framing; how many there were.
async fn read(client: &Client, count: u32, bytes: u32) -> Result<usize, Error> {
    let mut stream = client.query_stream(STREAM, asked(count, bytes), Read::Linearizable).await?;
    assert!(stream.index().is_some());
    let mut messages = 0;
    while let Some(message) = stream.next().await? {
        assert!(message.len().abs_diff(bytes as usize) < 8);
        messages += 1;
    }
    Ok(messages)
}

/// A stream of `node` whose client has read its first message and reads no more: little of it fits the windows.
async fn unread(node: &Node) -> Result<Streaming<Bytes>, Status> {
    let endpoint = Endpoint::from_shared(node.uri()).unwrap();
    let small = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    let mut grpc: Grpc<Channel> = Grpc::new(small.connect().await.unwrap());
    grpc.ready().await.unwrap();
    let request = Request::new(Bytes::from(asked(50, 1_000_000)));
    let mut stream = grpc.server_streaming(request, STREAM.parse().unwrap(), RawCodec).await?.into_inner();
    stream.message().await?;
    Ok(stream)
}

#[tokio::test]
async fn streams_are_large_and_slow_and_in_nobodys_way() {
    let limits = "query_fuel = 2000000000";
    let cluster = Cluster::start(Setup { hostile: true, limits, ..Setup::default() }).await;
    let follower = &cluster.nodes[cluster.follower().await];
    let client = follower.client_within(2 * PATIENCE);
    client.command(ADD, number(42)).await.unwrap();

    // Small and many, then 100 MB with little of it in memory.
    assert_eq!(read(&client, 50_000, 10).await.unwrap(), 50_000);
    let before = follower.memory_bytes();
    assert_eq!(read(&client, 100, 1_000_000).await.unwrap(), 100);
    let grown = follower.memory_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES, "the node grew by {grown} bytes");

    // As many slow clients as there may be; everybody else is served.
    let slow = join_all((0..STREAMS_MAX).map(|_| unread(follower))).await;
    let mut slow: Vec<_> = slow.into_iter().map(Result::unwrap).collect();
    let refused = unread(follower).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert_eq!(total(&client, Read::Linearizable).await.unwrap(), 42);
    client.command(ADD, number(1)).await.unwrap();

    // One that goes on gets all, and a client that hangs up makes room for another.
    let rest = slow.pop().unwrap().collect::<Result<Vec<_>, _>>();
    let rest = tokio::time::timeout(2 * PATIENCE, rest).await.expect("the rest of a stream comes");
    assert_eq!(rest.unwrap().len(), 49);
    drop(slow.pop());
    let another = until("a stream is free", async || unread(follower).await.ok()).await;
    drop((slow, another));
    until("all streams are free", async || read(&client, 3, 10).await.ok()).await;
}

#[tokio::test]
async fn how_a_stream_ends_is_told_behind_its_messages() {
    let cluster = Cluster::start(Setup { hostile: true, ..Setup::default() }).await;
    let ended = async |ending: &str| {
        let request = format!(r#"{{"count":3,"bytes":2,"ending":"{ending}"}}"#);
        cluster.balsa(&["call", "hostile.v1.Hostile/Stream", &request]).await
    };
    let lines = "{\"payload\":\"c3M=\"}\n".repeat(3);
    assert_eq!(ended("WELL").await.ends(0), lines);
    assert_eq!(ended("FAIL").await.ends(5), lines);
    assert_eq!(ended("PANIC").await.ends(5), lines);
    assert_eq!(ended("NEVER").await.ends(5), lines);

    let client = cluster.nodes[0].client();
    let request = StreamRequest { count: 3, bytes: 2, ending: 2 }.encode_to_vec();
    let mut stream = client.query_stream(STREAM, request, Read::Linearizable).await.unwrap();
    let error = loop {
        match stream.next().await {
            Ok(message) => assert!(message.is_some(), "it does not end well"),
            Err(error) => break error,
        }
    };
    let Error::Rejected(rejection) = error else { panic!("{error:?}") };
    assert_eq!(rejection.reason.as_deref(), Some("TRAP"));
    assert!(rejection.trap_detail.unwrap().contains("hostile panics in mid-stream"));
}
