//! Queries that answer with a stream, as clients see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use super::fake::{Fake, STREAM, TEST, WATCH};
use super::{Client, Options, PATIENCE, Server, framed, reason_of, said, said_of, soon, until};
use crate::command::{GuestStatus, Outcome, TrapClass};
use crate::limits::STREAM_BYTES_MAX;
use crate::service::{Consistency, Executed, ServiceError};
use crate::stream::{Sender, Undelivered};
use crate::testing::spans::Spans;

/// What a client's windows let travel to it unread.
const WINDOW_BYTES: u32 = 256 * 1024;
/// What may lie on the way of a stream besides: in its queue, in hyper's buffer, in those of the sockets.
const UNDERWAY_BYTES: usize = STREAM_BYTES_MAX + WINDOW_BYTES as usize + 16 * 1024 * 1024;

fn in_time() -> Instant {
    Instant::now() + PATIENCE
}

fn ended(outcome: Outcome) -> Executed {
    Executed { index: 7, outcome, replayed: false, trap_detail: Some("at lib.rs:1".into()) }
}

fn well() -> Executed {
    ended(Outcome::Ok(Bytes::new()))
}

async fn server() -> Server {
    Server::start(Fake::serving(&[&*TEST, &*STREAM])).await
}

/// Asks for a stream, on a connection with small windows.
async fn watch(server: &Server, metadata: &[(&'static str, &str)]) -> Reading {
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let mut settings = http2::Builder::new(TokioExecutor::new());
    settings.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    let (requests, connection) = settings.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::post(format!("http://balsa{WATCH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in metadata {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(framed(b"request"))).unwrap();
    let client = Client { requests };
    Reading(Box::pin(async move { client.request(request).await.unwrap() }))
}

/// A response that nobody has waited for yet.
struct Reading(std::pin::Pin<Box<dyn Future<Output = Response<Incoming>> + Send>>);

impl Reading {
    async fn begin(self) -> (HeaderMap, Stream) {
        let (head, body) = soon(self.0).await.into_parts();
        (head.headers, Stream { body, held: BytesMut::new(), trailers: HeaderMap::new() })
    }

    /// The same of a stream whose first message is `one`, and who sends the others.
    async fn begin_with_one(self, server: &Server) -> (HeaderMap, Stream, Arc<Sender>) {
        let ((head, stream), sender) = tokio::join!(self.begin(), async {
            let sender = server.fake.next_stream().await;
            sender.send("one".into(), in_time()).unwrap();
            sender
        });
        (head, stream, sender)
    }
}

/// Messages taken out of a body as they come.
struct Stream {
    body: Incoming,
    held: BytesMut,
    trailers: HeaderMap,
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(length) = self.held.get(1..5) {
                let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
                if self.held.len() >= 5 + length {
                    self.held.advance(5);
                    return Some(self.held.split_to(length).freeze());
                }
            }
            match soon(self.body.frame()).await?.unwrap().into_data() {
                Ok(data) => self.held.extend_from_slice(&data),
                Err(frame) => self.trailers = frame.into_trailers().unwrap(),
            }
        }
    }

    async fn rest(&mut self) -> Vec<Bytes> {
        let mut messages = Vec::new();
        while let Some(message) = self.next().await {
            messages.push(message);
        }
        messages
    }

    fn status(&self) -> Status {
        Status::from_header_map(&self.trailers).expect("the stream has ended with a status")
    }
}

#[tokio::test]
async fn messages_come_as_they_are_made_and_then_the_status() {
    let server = server().await;
    let reading = watch(&server, &[]).await;
    let (head, mut stream, sender) = reading.begin_with_one(&server).await;
    assert_eq!((&head["balsa-index"], &head["balsa-node"]), (&"7".parse().unwrap(), &"balsa-0".parse().unwrap()));
    assert_eq!(stream.next().await.unwrap(), "one");
    sender.send("".into(), in_time()).unwrap();
    assert_eq!(stream.next().await.unwrap(), "");
    sender.send("three".into(), in_time()).unwrap();
    sender.end(Ok(well()));
    assert_eq!(stream.rest().await, ["three"]);
    assert_eq!(stream.status().code(), Code::Ok);
    let text = server.metrics.encode();
    let labels = r#"module="stream",method="stream.v1.Test/Watch",code="OK""#;
    assert!(text.contains(&format!("balsa_queries_total{{{labels}}} 1")), "{text}");
}

#[tokio::test]
async fn a_stream_without_messages_is_a_success() {
    let server = server().await;
    let reading = watch(&server, &[]).await;
    let ((head, mut stream), ()) = tokio::join!(reading.begin(), async {
        server.fake.next_stream().await.end(Ok(well()));
    });
    assert_eq!(head["balsa-index"], "7");
    assert_eq!((stream.rest().await.len(), stream.status().code()), (0, Code::Ok));
}

#[tokio::test]
async fn a_failure_before_the_first_message_is_told_like_any_other() {
    let server = server().await;
    let told = async |headers: HeaderMap| {
        let status = Status::from_header_map(&headers).expect("trailers only");
        (status.code(), reason_of(&status).map(|reason| reason.0).unwrap_or_default())
    };
    server.fake.answer(Err(ServiceError::NoLeader));
    let (head, mut stream) = watch(&server, &[]).await.begin().await;
    assert!(stream.rest().await.is_empty());
    assert_eq!(told(head).await, (Code::Unavailable, "NO_LEADER".into()));
    for (end, code, reason) in [
        (Err(ServiceError::Deadline), Code::DeadlineExceeded, "DEADLINE"),
        (Ok(ended(Outcome::Trap(TrapClass::OutOfFuel))), Code::ResourceExhausted, "TRAP"),
    ] {
        let reading = watch(&server, &[]).await;
        let ((head, _), ()) = tokio::join!(reading.begin(), async {
            server.fake.next_stream().await.end(end);
        });
        assert_eq!(told(head).await, (code, reason.into()));
    }
}

#[tokio::test]
async fn a_failure_in_mid_stream_comes_behind_the_messages() {
    let server = server().await;
    let details = Bytes::from_static(b"\x08\x05\x12\x02no");
    let guest = Outcome::Status(GuestStatus { code: 5, message: "no".into(), details: details.clone() });
    for (end, code) in [(guest, Code::NotFound), (Outcome::Trap(TrapClass::Unreachable), Code::Internal)] {
        let reading = watch(&server, &[]).await;
        let ((_, mut stream), ()) = tokio::join!(reading.begin(), async {
            let sender = server.fake.next_stream().await;
            sender.send("one".into(), in_time()).unwrap();
            sender.send("two".into(), in_time()).unwrap();
            sender.end(Ok(ended(end)));
        });
        assert_eq!(stream.rest().await, ["one", "two"]);
        let status = stream.status();
        assert_eq!(status.code(), code);
        match code {
            Code::NotFound => assert_eq!((status.message(), status.details()), ("no", &details[..])),
            _ => {
                let (reason, facts) = reason_of(&status).unwrap();
                assert_eq!((reason.as_str(), facts["trap"].as_str()), ("TRAP", "unreachable"));
                let detail = status.metadata().get_bin("balsa-trap-detail-bin").unwrap().to_bytes().unwrap();
                assert_eq!(detail, "at lib.rs:1");
            }
        }
    }
}

#[tokio::test]
async fn the_query_says_what_the_client_asked_for() {
    let server = server().await;
    let metadata = [("balsa-consistency", "stale"), ("balsa-min-index", "5"), ("grpc-timeout", "20S")];
    let reading = watch(&server, &metadata).await;
    let (_, ()) = tokio::join!(reading.begin(), async {
        server.fake.next_stream().await.end(Ok(well()));
    });
    let query = server.fake.queries().pop().unwrap();
    assert_eq!((query.method.as_str(), &query.request[..]), (WATCH, &b"request"[..]));
    assert_eq!(query.consistency, Consistency::Stale { min_index: 5 });
    assert!(query.deadline.is_some_and(|deadline| deadline > Instant::now()));
}

/// Sends messages until there is no more room for a while.
fn fill(sender: &Sender, message: &Bytes) -> usize {
    let sends = (0..).map(|_| sender.send(message.clone(), Instant::now() + Duration::from_millis(300)));
    sends.take_while(Result::is_ok).count()
}

#[tokio::test]
async fn a_slow_client_stops_the_query_and_gets_everything_when_it_goes_on() {
    let server = server().await;
    let reading = watch(&server, &[]).await;
    let message = Bytes::from(vec![b'm'; 100_000]);
    let ((_, mut stream), (sender, sent)) = tokio::join!(reading.begin(), async {
        let (sender, message) = (server.fake.next_stream().await, message.clone());
        tokio::task::spawn_blocking(move || (sender.clone(), fill(&sender, &message))).await.unwrap()
    });
    assert!(sent * message.len() < UNDERWAY_BYTES, "{sent} messages were taken");
    sender.end(Ok(well()));
    let taken = stream.rest().await;
    assert_eq!((taken.len(), stream.status().code()), (sent, Code::Ok));
    assert!(taken.iter().all(|taken| *taken == message));
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_query() {
    let server = server().await;
    let reading = watch(&server, &[]).await;
    let (_, stream, sender) = reading.begin_with_one(&server).await;
    let message = Bytes::from(vec![b'm'; STREAM_BYTES_MAX]);
    let waiting = thread::spawn(move || while sender.send(message.clone(), in_time()) != Err(Undelivered::Gone) {});
    drop(stream);
    let labels = r#"module="stream",method="stream.v1.Test/Watch",code="CANCELLED""#;
    soon(tokio::task::spawn_blocking(|| waiting.join().unwrap())).await.unwrap();
    server.until_counted(&format!("balsa_queries_total{{{labels}}} 1")).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_before_the_first_message_ends_the_query() {
    let server = server().await;
    let reading = watch(&server, &[]).await;
    let request = tokio::spawn(reading.begin());
    let sender = server.fake.next_stream().await;
    request.abort();
    let gone = move || while sender.send("one".into(), in_time()) != Err(Undelivered::Gone) {};
    soon(tokio::task::spawn_blocking(gone)).await.unwrap();
}

#[tokio::test]
async fn a_stream_is_one_span_until_its_end() {
    let spans = Spans::default();
    let traced = |options: &mut Options| options.traces = spans.traces();
    let server = Server::with(Fake::serving(&[&STREAM]), traced).await;
    let ends = [Some(Ok(well())), Some(Err(ServiceError::Deadline)), None];
    for (before, end) in ends.into_iter().enumerate() {
        let reading = watch(&server, &[]).await;
        let (_, stream, sender) = reading.begin_with_one(&server).await;
        assert_eq!(spans.ended().len(), before, "it goes on");
        match end {
            Some(end) => sender.end(end),
            None => drop(stream),
        }
        until(|| spans.ended().len() > before).await;
    }
    server.fake.answer(Err(ServiceError::NoLeader));
    watch(&server, &[]).await.begin().await;
    until(|| spans.ended().len() == 4).await;
    let ended = [Code::Ok, Code::DeadlineExceeded, Code::Cancelled].map(|code| said_of(WATCH, code, Some(7)));
    assert_eq!(said(&spans), [&ended[..], &[said_of(WATCH, Code::Unavailable, None)]].concat());
}

#[tokio::test]
async fn a_hundred_megabytes_pass_with_little_of_them_on_the_way() {
    const MESSAGES: usize = 100;
    let server = server().await;
    let reading = watch(&server, &[]).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let ((_, mut stream), ()) = tokio::join!(reading.begin(), async {
        let sender = server.fake.next_stream().await;
        thread::spawn(move || {
            for number in 0..MESSAGES {
                count.fetch_add(1, Ordering::SeqCst);
                sender.send(vec![number as u8; 1024 * 1024].into(), in_time()).unwrap();
            }
            sender.end(Ok(well()));
        });
    });
    for taken in 0..MESSAGES {
        let message = stream.next().await.unwrap();
        assert!(message.len() == 1024 * 1024 && message.iter().all(|byte| *byte == taken as u8));
        let underway = (sent.load(Ordering::SeqCst) - taken) * message.len();
        assert!(underway < UNDERWAY_BYTES, "{underway} bytes at message {taken}");
    }
    assert!(stream.next().await.is_none());
    assert_eq!(stream.status().code(), Code::Ok);
}

#[tokio::test]
async fn many_small_messages_share_frames() {
    const MESSAGES: usize = 20_000;
    let server = server().await;
    let reading = watch(&server, &[]).await;
    let ((_, mut stream), ()) = tokio::join!(reading.begin(), async {
        let sender = server.fake.next_stream().await;
        thread::spawn(move || {
            for number in 0..MESSAGES {
                sender.send(number.to_string().into(), in_time()).unwrap();
            }
            sender.end(Ok(well()));
        });
    });
    let messages = stream.rest().await;
    assert_eq!(messages.len(), MESSAGES);
    assert!(messages.iter().enumerate().all(|(number, message)| *message == number.to_string()));
}

#[tokio::test]
async fn a_stream_ends_when_the_node_stops_and_says_that_another_one_may_be_asked() {
    let server = server().await;
    let reading = watch(&server, &[]).await;
    let (_, mut stream, sender) = reading.begin_with_one(&server).await;
    assert_eq!(stream.next().await.unwrap(), "one");
    let silent = watch(&server, &[]).await;
    let silent = tokio::spawn(silent.begin());
    let waiting = server.fake.next_stream().await;
    server.shutdown.cancel();
    assert!(stream.rest().await.is_empty());
    let (reason, facts) = reason_of(&stream.status()).unwrap();
    assert_eq!((reason.as_str(), facts["retry"].as_str()), ("SHUTTING_DOWN", "safe"));
    let (head, _) = soon(silent).await.unwrap();
    assert_eq!(reason_of(&Status::from_header_map(&head).unwrap()).unwrap().0, "SHUTTING_DOWN");
    drop((sender, waiting));
    soon(server.task).await.unwrap().unwrap();
}
