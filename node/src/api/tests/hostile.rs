//! Requests that are not as they should be.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use super::fake::{Fake, GET, PUT, TEST};
use super::{Server, framed, soon};
use crate::limits::REQUEST_BYTES_MAX;

async fn server() -> Server {
    Server::start(Fake::serving(&[&TEST])).await
}

#[tokio::test]
async fn a_request_above_the_limit_is_refused() {
    let server = server().await;
    let client = server.client().await;
    let answer = client.call(PUT, &[], &vec![7; REQUEST_BYTES_MAX + 1]).await;
    assert_eq!(answer.failure(), (Code::ResourceExhausted, "REQUEST_TOO_LARGE".into()));
    assert_eq!(client.call(PUT, &[], b"fine").await.message(), b"fine", "the connection goes on");
    assert_eq!(server.fake.commands().len(), 1);
}

#[tokio::test]
async fn bodies_that_are_not_one_message_are_refused() {
    let server = server().await;
    let client = server.client().await;
    let twice = [framed(b"a"), framed(b"b")].concat();
    for (body, code) in [
        (&b""[..], Code::Internal),
        (b"\0\0\0", Code::Internal),
        (b"\0\0\0\0\x09short", Code::Internal),
        (&twice, Code::Internal),
        (b"\x01\0\0\0\x01a", Code::Unimplemented),
        (b"\x17\0\0\0\x01a", Code::Internal),
    ] {
        let answer = client.send(PUT, &[], Bytes::copy_from_slice(body)).await.unwrap();
        assert_eq!(answer.failure(), (code, String::new()), "{body:?}");
    }
    assert!(server.fake.commands().is_empty());
}

#[tokio::test]
async fn a_compression_that_is_announced_is_refused_with_what_is_accepted() {
    let server = server().await;
    let answer = server.client().await.call(PUT, &[("grpc-encoding", "gzip")], b"").await;
    assert_eq!(answer.failure().0, Code::Unimplemented);
    assert_eq!(answer.header("grpc-accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn malformed_metadata_is_refused_by_its_name() {
    let server = server().await;
    let client = server.client().await;
    let long = "k".repeat(129);
    for (path, name, value, reason) in [
        (PUT, "idempotency-key", "", "KEY_INVALID"),
        (PUT, "idempotency-key", "two words", "KEY_INVALID"),
        (PUT, "idempotency-key", &long, "KEY_INVALID"),
        (PUT, "grpc-timeout", "soon", "INVALID_METADATA"),
        (GET, "balsa-min-index", "-1", "INVALID_METADATA"),
        (GET, "balsa-consistency", "eventual", "INVALID_METADATA"),
    ] {
        let answer = client.call(path, &[(name, value)], b"").await;
        assert_eq!(answer.failure(), (Code::InvalidArgument, reason.into()), "{name}: {value}");
        assert!(answer.status().message().contains(name));
    }
    assert!(server.fake.commands().is_empty() && server.fake.queries().is_empty());
}

#[tokio::test]
async fn what_is_not_grpc_is_answered_in_plain_http() {
    let server = server().await;
    let client = server.client().await;
    let at = "http://balsa/test.v1.Test/Put";
    let body = http_body_util::Full::default;
    for (request, code) in [
        (http::Request::get(at).body(body()).unwrap(), 405),
        (http::Request::post(at).body(body()).unwrap(), 415),
        (http::Request::post(at).header("content-type", "application/grpc-web").body(body()).unwrap(), 415),
    ] {
        assert_eq!(client.request(request).await.unwrap().status(), code);
    }
}

#[tokio::test]
async fn connections_above_the_limit_are_closed() {
    let fake = Fake::serving(&[&TEST]);
    let server = Server::with(fake, |options| options.connections_max = 1).await;
    let client = server.client().await;
    client.call(PUT, &[], b"").await.message();
    let mut second = TcpStream::connect(server.addr).await.unwrap();
    assert!(matches!(soon(second.read(&mut [0; 64])).await, Ok(0) | Err(_)));
    client.call(PUT, &[], b"").await.message();
}

#[tokio::test]
async fn random_bytes_on_a_connection_harm_nobody() {
    let server = server().await;
    let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    for _ in 0..64 {
        let noise = prop::collection::vec(any::<u8>(), 0..256).new_tree(&mut runner).unwrap().current();
        let mut wire = BytesMut::new();
        if noise.len() % 2 == 0 {
            wire.put_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        }
        wire.put_slice(&noise);
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(&wire).await.unwrap();
        stream.shutdown().await.unwrap();
        // A reset is as good an answer as an end.
        let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    }
    server.client().await.call(PUT, &[], b"").await.message();
}

#[tokio::test]
async fn random_bodies_are_echoed_or_refused() {
    let server = server().await;
    let client = server.client().await;
    let bodies = (prop::collection::vec(any::<u8>(), 0..48), 0u8..4);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    for _ in 0..256 {
        let (mut body, shape) = bodies.new_tree(&mut runner).unwrap().current();
        // Most random bytes fail at the first; let some come further.
        if shape > 0 && body.len() >= 5 {
            let length = (body.len() as u8 - 5).saturating_sub(shape - 1);
            body[..5].copy_from_slice(&[0, 0, 0, 0, length]);
        }
        let answer = soon(client.send(PUT, &[], body.clone().into())).await.unwrap();
        match answer.code() {
            Code::Ok => assert_eq!(answer.message(), &body[5..]),
            Code::Internal | Code::Unimplemented | Code::ResourceExhausted => drop(answer.failure()),
            code => panic!("{code:?} for {body:?}"),
        }
    }
}
