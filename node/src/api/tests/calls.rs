//! Calls of a module's methods.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tonic::Code;

use super::fake::{Fake, GET, LATE, PUT, TEST, WAIT};
use super::{Server, said, said_of, soon, until};
use crate::command::{GuestStatus, Outcome, Refusal, TrapClass};
use crate::limits::{PUSHBACK_MS, REQUEST_BYTES_MAX, RESULT_BYTES_MAX};
use crate::service::{Consistency, Executed, ServiceError};
use crate::testing::spans::Spans;

async fn server() -> Server {
    Server::start(Fake::serving(&[&TEST])).await
}

/// The line of `/metrics` that says how often a method ended with a code.
fn counted(method: &str, code: &str, count: u64) -> String {
    let kind = if method == "Get" { "queries" } else { "commands" };
    format!(r#"balsa_{kind}_total{{module="test",method="test.v1.Test/{method}",code="{code}"}} {count}"#)
}

fn reason(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

#[tokio::test]
async fn commands_are_executed_and_queries_are_queried() {
    let server = server().await;
    let client = server.client().await;
    let put = client.call(PUT, &[("idempotency-key", "k-1"), ("balsa-consistency", "ignored")], b"one").await;
    assert_eq!(put.message(), b"one");
    let get = client.call(GET, &[("idempotency-key", ""), ("grpc-encoding", "identity")], b"two").await;
    assert_eq!(get.message(), b"two");
    let commands = server.fake.commands();
    assert_eq!((commands.len(), commands[0].method.as_str(), commands[0].key.as_deref()), (1, PUT, Some("k-1")));
    assert_eq!((&commands[0].request[..], commands[0].deadline), (&b"one"[..], None));
    let queries = server.fake.queries();
    assert_eq!((queries.len(), queries[0].method.as_str(), &queries[0].request[..]), (1, GET, &b"two"[..]));
    assert_eq!(queries[0].consistency, Consistency::Linearizable);
}

#[tokio::test]
async fn a_reply_says_where_and_when_it_took_effect() {
    let server = server().await;
    let outcome = Outcome::Ok(Bytes::new());
    server.fake.answer(Ok(Executed { index: 1234, outcome, replayed: true, trap_detail: None }));
    let client = server.client().await;
    let replayed = client.call(PUT, &[], b"").await;
    assert_eq!(replayed.message(), b"", "an empty message is a message");
    assert_eq!(replayed.header("balsa-index"), Some("1234"));
    assert_eq!(replayed.header("balsa-node"), Some("balsa-0"));
    assert_eq!(replayed.header("balsa-replayed"), Some("true"));
    assert_eq!(client.call(PUT, &[], b"").await.header("balsa-replayed"), None);
}

#[tokio::test]
async fn a_stale_read_carries_its_lowest_index() {
    let server = server().await;
    let stale = [("balsa-consistency", "stale"), ("balsa-min-index", "41"), ("grpc-timeout", "9S")];
    server.client().await.call(GET, &stale, b"").await.message();
    let query = &server.fake.queries()[0];
    assert_eq!(query.consistency, Consistency::Stale { min_index: 41 });
    let left = query.deadline.unwrap() - Instant::now();
    assert!(left < Duration::from_secs(9) && left > Duration::from_secs(2), "{left:?}");
}

#[tokio::test]
async fn every_outcome_and_error_reaches_the_client_in_trailers() {
    let server = server().await;
    let client = server.client().await;
    let guest = GuestStatus { code: 9, message: "not now: 100 %, ü".into(), details: Bytes::from_static(b"\x08\x09") };
    for (outcome, code, name) in [
        (Outcome::Status(guest), Code::FailedPrecondition, ""),
        (Outcome::Trap(TrapClass::Unreachable), Code::Internal, "TRAP"),
        (Outcome::Trap(TrapClass::OutOfFuel), Code::ResourceExhausted, "TRAP"),
        (Outcome::Refused(Refusal::KeyForgotten), Code::FailedPrecondition, "KEY_FORGOTTEN"),
        (Outcome::Ok(vec![0; RESULT_BYTES_MAX + 1].into()), Code::ResourceExhausted, "RESULT_TOO_LARGE"),
    ] {
        for path in [PUT, GET] {
            server.fake.outcome(outcome.clone());
            let answer = client.call(path, &[], b"").await;
            assert_eq!(answer.failure(), reason(code, name), "{outcome:?}");
            assert_eq!(answer.header("balsa-index"), Some("7"));
            assert_eq!(answer.header("balsa-node"), Some("balsa-0"));
        }
    }
    server.fake.answer(Err(ServiceError::OutcomeUnknown));
    let unknown = client.call(PUT, &[], b"").await;
    assert_eq!(unknown.failure(), reason(Code::Unknown, "OUTCOME_UNKNOWN"));
    assert_eq!(unknown.header("balsa-index"), None);
}

#[tokio::test]
async fn a_guests_status_and_a_traps_detail_arrive_as_they_were() {
    let server = server().await;
    let client = server.client().await;
    let details = Bytes::from_static(b"\x08\x05\x12\x09not found");
    server.fake.outcome(Outcome::Status(GuestStatus {
        code: 5,
        message: "kein Schlüssel".into(),
        details: details.clone(),
    }));
    let status = client.call(GET, &[], b"").await.status();
    assert_eq!((status.code(), status.message(), status.details()), (Code::NotFound, "kein Schlüssel", &details[..]));
    server.fake.outcome(Outcome::Trap(TrapClass::Unreachable));
    let status = client.call(PUT, &[], b"").await.status();
    let detail = status.metadata().get_bin("balsa-trap-detail-bin").unwrap().to_bytes().unwrap();
    assert_eq!(detail, "at lib.rs:1");
}

#[tokio::test]
async fn an_overloaded_node_says_when_to_come_back() {
    let server = server().await;
    server.fake.answer(Err(ServiceError::Overloaded("commands")));
    let answer = server.client().await.call(PUT, &[], b"").await;
    assert_eq!(answer.failure(), reason(Code::ResourceExhausted, "OVERLOADED"));
    assert_eq!(answer.header("grpc-retry-pushback-ms"), Some(PUSHBACK_MS.to_string().as_str()));
}

#[tokio::test]
async fn an_unknown_method_is_looked_up_once_more_before_it_is_unimplemented() {
    let server = server().await;
    let client = server.client().await;
    let answer = client.call("/test.v1.Test/Nothing", &[], b"").await;
    assert_eq!(answer.failure(), reason(Code::Unimplemented, "UNKNOWN_METHOD"));
    assert_eq!(answer.status().message(), "test.v1.Test has no method Nothing; it has: Put, Get");
    let answer = client.call("/late.v1.Test/Put", &[], b"").await;
    assert_eq!(answer.status().message(), "no active module serves /late.v1.Test/Put; services are: test.v1.Test");
    assert_eq!(server.fake.refreshes(), 2);

    server.fake.refresh_brings(Ok(&[&LATE, &TEST]));
    assert_eq!(client.call("/late.v1.Test/Put", &[], b"late").await.message(), b"late");
    assert_eq!(client.call("/late.v1.Test/Put", &[], b"again").await.message(), b"again");
    assert_eq!(server.fake.refreshes(), 3, "what is known is not looked up again");
}

#[tokio::test]
async fn a_node_that_cannot_find_out_does_not_say_unimplemented() {
    let server = server().await;
    let client = server.client().await;
    server.fake.refresh_brings(Err(ServiceError::NoLeader));
    let answer = client.call("/late.v1.Test/Put", &[], b"").await;
    assert_eq!(answer.failure(), reason(Code::Unavailable, "NO_LEADER"));
    server.fake.refresh_brings(Ok(&[]));
    let answer = client.call("/late.v1.Test/Put", &[], b"").await;
    assert_eq!(answer.failure(), reason(Code::Unavailable, "NO_MODULE"));
}

#[tokio::test]
async fn a_query_ends_with_its_deadline() {
    let server = server().await;
    let answer = server.client().await.call(GET, &[("grpc-timeout", "20m")], WAIT).await;
    assert_eq!(answer.failure(), reason(Code::DeadlineExceeded, "DEADLINE"));
}

#[tokio::test]
async fn a_command_outlives_its_deadline() {
    let server = server().await;
    let client = server.client().await;
    // On a busy machine a short deadline may pass before the command is proposed.
    for timeout in ["30m", "300m", "3S"] {
        let answer = client.call(PUT, &[("grpc-timeout", timeout)], WAIT).await;
        assert_eq!(answer.failure(), reason(Code::DeadlineExceeded, "DEADLINE"));
        if !server.fake.commands().is_empty() {
            break;
        }
    }
    server.fake.open();
    server.fake.until_finished(1).await;
}

#[tokio::test]
async fn a_deadline_that_has_passed_proposes_nothing() {
    let server = server().await;
    let answer = server.client().await.call(PUT, &[("grpc-timeout", "0n")], b"").await;
    assert_eq!(answer.failure(), reason(Code::DeadlineExceeded, "DEADLINE"));
    assert!(server.fake.commands().is_empty());
}

#[tokio::test]
async fn a_command_outlives_the_client_that_hangs_up() {
    let server = server().await;
    let client = server.client().await;
    let call = tokio::spawn(async move { client.call(PUT, &[], WAIT).await });
    server.fake.until_waiting(1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    // The connection is gone with its only client; another one still finds the server, and the command goes on.
    server.client().await.call(PUT, &[], b"").await.message();
    server.fake.open();
    server.fake.until_finished(1).await;
    server.until_counted(&counted("Put", "CANCELLED", 1)).await;
}

#[tokio::test]
async fn a_call_that_its_client_takes_back_is_counted() {
    let server = server().await;
    let client = server.client().await;
    for (at, (path, kind)) in (1..).zip([(PUT, "Put"), (GET, "Get")]) {
        let taken_back = client.clone();
        let call = tokio::spawn(async move { taken_back.call(path, &[], WAIT).await });
        server.fake.until_waiting(at).await;
        call.abort();
        server.until_counted(&counted(kind, "CANCELLED", 1)).await;
    }
    assert_eq!(client.call(GET, &[], b"on").await.message(), b"on", "the connection lives on");
}

#[tokio::test]
async fn each_call_is_a_span_whichever_way_it_ends() {
    let spans = Spans::default();
    let server = Server::with(Fake::serving(&[&TEST]), |options| options.traces = spans.traces()).await;
    let client = server.client().await;
    client.call(PUT, &[], b"").await.message();
    server.fake.outcome(Outcome::Trap(TrapClass::Unreachable));
    client.call(GET, &[], b"").await.failure();
    client.call(GET, &[("balsa-consistency", "eventual")], b"").await.failure();
    let call = tokio::spawn(async move { client.call(PUT, &[], WAIT).await });
    server.fake.until_waiting(1).await;
    call.abort();
    until(|| spans.ended().len() >= 4).await;
    let ended = [
        said_of(PUT, Code::Ok, Some(7)),
        said_of(GET, Code::Internal, Some(7)),
        said_of(GET, Code::InvalidArgument, None),
        said_of(PUT, Code::Cancelled, None),
    ];
    assert_eq!(said(&spans), ended);
}

#[tokio::test]
async fn many_calls_share_a_connection() {
    let server = server().await;
    let client = server.client().await;
    let calls = (0..2000u32).map(|number| {
        let client = client.clone();
        async move { (client.call(PUT, &[], &number.to_be_bytes()).await, number) }
    });
    for (answer, number) in soon(futures::future::join_all(calls)).await {
        assert_eq!(answer.message(), number.to_be_bytes());
    }
}

#[tokio::test]
async fn the_largest_request_and_result_pass() {
    let server = server().await;
    let client = server.client().await;
    let largest = vec![7; REQUEST_BYTES_MAX];
    assert_eq!(client.call(PUT, &[], &largest).await.message(), largest);
    server.fake.outcome(Outcome::Ok(vec![8; RESULT_BYTES_MAX].into()));
    assert_eq!(client.call(GET, &[], b"").await.message().len(), RESULT_BYTES_MAX);
}

#[tokio::test]
async fn a_running_call_ends_before_the_server_does() {
    let server = server().await;
    let client = server.client().await;
    let call = tokio::spawn(async move { client.call(PUT, &[], WAIT).await });
    server.fake.until_waiting(1).await;
    server.shutdown.cancel();
    server.fake.open();
    assert_eq!(soon(call).await.unwrap().message(), WAIT);
    soon(server.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_that_does_not_end_is_cut_off_when_draining_takes_too_long() {
    let fake = Fake::serving(&[&TEST]);
    let server = Server::with(fake, |options| options.drain = Duration::from_millis(10)).await;
    let client = server.client().await;
    let call = tokio::spawn(async move { client.send(GET, &[], super::framed(WAIT)).await });
    server.fake.until_waiting(1).await;
    server.shutdown.cancel();
    soon(server.task).await.unwrap().unwrap();
    assert!(soon(call).await.unwrap().is_err());
}

#[tokio::test]
async fn an_old_connection_takes_no_new_calls_and_those_on_it_end() {
    let fake = Fake::serving(&[&TEST]);
    let server = Server::with(fake, |options| options.connection_age = Some(Duration::from_secs(1))).await;
    let client = server.client().await;
    let long = tokio::spawn({
        let client = client.clone();
        async move { client.call(PUT, &[], WAIT).await }
    });
    server.fake.until_waiting(1).await;
    let refused = async { while client.send(GET, &[], super::framed(b"")).await.is_ok() {} };
    soon(refused).await;
    server.fake.open();
    assert_eq!(soon(long).await.unwrap().message(), WAIT);
    assert_eq!(server.client().await.call(GET, &[], b"again").await.message(), b"again");
}

#[tokio::test]
async fn a_client_whose_connections_grow_old_notices_nothing() {
    const AGE: Duration = Duration::from_millis(10);
    let fake = Fake::serving(&[&TEST]);
    let server = Server::with(fake, |options| options.connection_age = Some(AGE)).await;
    let endpoint = crate::client::Endpoint::new("127.0.0.1", server.addr.port());
    let client = crate::client::Client::new(crate::client::Options::new(vec![endpoint], super::PATIENCE));
    // One call after the other, so that there is always one that meets the end of its connection.
    let begun = Instant::now();
    while begun.elapsed() < 30 * AGE {
        let message = begun.elapsed().as_nanos().to_string();
        let reply = client.command(PUT, message.clone().into_bytes()).await.unwrap();
        assert_eq!(reply.message, message.as_bytes());
    }
}

#[tokio::test]
async fn calls_are_counted_by_their_code() {
    let server = server().await;
    let client = server.client().await;
    client.call(PUT, &[], b"").await;
    client.call(GET, &[("balsa-consistency", "eventual")], b"").await;
    let text = server.metrics.encode();
    let labels = |method| format!(r#"module="test",method="test.v1.Test/{method}""#);
    for line in [
        format!(r#"balsa_commands_total{{{},code="OK"}} 1"#, labels("Put")),
        format!(r#"balsa_queries_total{{{},code="INVALID_ARGUMENT"}} 1"#, labels("Get")),
        format!(r#"balsa_query_duration_seconds_count{{{}}} 1"#, labels("Get")),
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }
}
