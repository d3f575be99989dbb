//! Requests that nobody wrote on purpose: each gets an answer, and the next one is served.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::runtime::Runtime;

use super::fake::{Fake, GET, PUT, TEST};
use super::{Client, Server, framed, soon};
use crate::fuzz::config;

/// What a client sends.
#[derive(Debug, Clone)]
struct Sent {
    path: String,
    metadata: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let names = ["grpc-timeout", "grpc-encoding", "idempotency-key", "balsa-consistency", "balsa-min-index", "x-other"];
    let known = ["1S", "0n", "99999999H", "identity", "gzip", "stale", "linearizable", "7", "-1", "", "018f", "a b"];
    let value = prop_oneof![
        2 => prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => "[ -~]{0,200}",
    ];
    let path = prop_oneof![
        4 => prop::sample::select(vec![PUT, GET]).prop_map(str::to_owned),
        1 => "/[a-zA-Z0-9._]{0,40}(/[a-zA-Z0-9._]{0,600})?",
        1 => "/(grpc|balsa)[a-z.1]{0,20}/[A-Z][a-z]{0,9}",
        2 => prop::sample::select(vec![
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "/balsa.admin.v1.Admin/Status",
            "/balsa.admin.v1.Admin/DeepCheck",
        ])
        .prop_map(str::to_owned),
    ];
    let message = prop::collection::vec(any::<u8>(), 0..64);
    let body = prop_oneof![message.clone(), message.prop_map(|message| framed(&message).to_vec())];
    (path, prop::collection::vec((prop::sample::select(names.to_vec()), value), 0..4), body)
        .prop_map(|(path, metadata, body)| Sent { path, metadata, body })
}

/// Whether there was an answer with a status.
async fn answered(client: &Client, sent: &Sent) -> bool {
    let metadata: Vec<_> = sent.metadata.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = soon(client.send(&sent.path, &metadata, sent.body.clone().into())).await;
    answer.is_ok_and(|answer| {
        let status = |headers: &http::HeaderMap| headers.contains_key("grpc-status");
        status(&answer.head) || status(&answer.trailers)
    })
}

#[test]
fn whatever_is_sent_is_answered() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(Server::start(Fake::serving(&[&*TEST])));
    let client = runtime.block_on(server.client());
    let outcome = TestRunner::new(config(256)).run(&sent(), |sent| {
        prop_assert!(runtime.block_on(answered(&client, &sent)));
        let next = runtime.block_on(client.call(GET, &[], b"still here"));
        prop_assert_eq!(next.message(), b"still here");
        Ok(())
    });
    outcome.unwrap();
}
