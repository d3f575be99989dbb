//! The retry policy, against fake nodes on real ports.

use std::time::Duration;

use tonic::Status;
use tonic::metadata::MetadataValue;

use super::fake::{self, FakeNode, module_says, nobody, refuse, refuse_for_long, reply};
use super::*;

const PATH: &str = "/test.v1.Notes/Write";

fn short(endpoints: &[Endpoint]) -> Client {
    let client = fake::client(endpoints);
    client.within(Duration::from_secs(1))
}

#[tokio::test]
async fn a_reply_carries_its_index_and_the_node_that_gave_it() {
    let node = FakeNode::start(|asked| reply(asked.message.clone(), 7)).await;
    let got = node.client().command(PATH, "hello").await.unwrap();
    let expected = Reply { message: "hello".into(), index: Some(7), replayed: false, node: Some("fake-0".into()) };
    assert_eq!(got, expected);
    let asked = &node.asked()[0];
    assert_eq!(asked.path, PATH);
    let key: uuid::Uuid = asked.key().unwrap().parse().unwrap();
    assert_eq!(key.get_version_num(), 7);
}

#[tokio::test]
async fn a_dead_first_endpoint_is_skipped_and_not_asked_again() {
    let node = FakeNode::start(|_| reply("", 1)).await;
    let client = fake::client(&[nobody().await, node.endpoint()]);
    client.command(PATH, "").await.unwrap();
    client.command(PATH, "").await.unwrap();
    assert_eq!(client.connections.next(), node.endpoint());
}

#[tokio::test]
async fn a_retry_uses_the_same_idempotency_key() {
    let node = FakeNode::start(|asked| match asked.attempt {
        0 => Err(Status::unavailable("try again")),
        1 => Err(refuse(Code::Unknown, "OUTCOME_UNKNOWN", &[])),
        _ => reply("", 1),
    })
    .await;
    node.client().command(PATH, "").await.unwrap();
    let keys: Vec<_> = node.asked().iter().map(|asked| asked.key().unwrap().to_owned()).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0]));
}

#[tokio::test]
async fn two_commands_have_two_keys_and_a_query_has_none() {
    let node = FakeNode::start(|_| reply("", 1)).await;
    let client = node.client();
    client.command(PATH, "").await.unwrap();
    client.command(PATH, "").await.unwrap();
    client.query(PATH, "", Read::Stale { min_index: 9 }).await.unwrap();
    let asked = node.asked();
    assert_ne!(asked[0].key(), asked[1].key());
    assert_eq!(asked[2].key(), None);
    assert_eq!(asked[2].text("balsa-consistency"), Some("stale"));
    assert_eq!(asked[2].text("balsa-min-index"), Some("9"));
}

#[tokio::test]
async fn the_leader_that_a_node_names_is_asked_next_though_nobody_configured_it() {
    let leader = FakeNode::start(|_| reply("led", 1)).await;
    let at = leader.endpoint().to_string();
    let follower = FakeNode::start(move |_| Err(refuse(Code::Unavailable, "NOT_LEADER", &[("leader", &at)]))).await;
    let got = follower.client().command(PATH, "").await.unwrap();
    assert_eq!(&*got.message, b"led");
    assert_eq!((follower.asked().len(), leader.asked().len()), (1, 1));
}

#[tokio::test]
async fn a_leader_that_does_not_answer_any_more_is_given_up_for_the_others() {
    let gone = nobody().await.to_string();
    let node = FakeNode::start(move |asked| match asked.attempt {
        0 => Err(refuse(Code::Unavailable, "NOT_LEADER", &[("leader", &gone)])),
        _ => reply("", 1),
    })
    .await;
    node.client().command(PATH, "").await.unwrap();
    assert_eq!(node.asked().len(), 2);
}

#[tokio::test]
async fn a_connection_that_breaks_is_made_anew() {
    let node = FakeNode::start(|_| reply("", 1)).await;
    let client = node.client();
    client.command(PATH, "").await.unwrap();
    let address = node.address();
    drop(node);
    let again = FakeNode::start_at(address, |_| reply("again", 2)).await;
    assert_eq!(&*client.command(PATH, "").await.unwrap().message, b"again");
    assert_eq!(again.asked().len(), 1);
}

#[tokio::test]
async fn a_command_that_was_never_sent_is_unavailable() {
    let nobody = nobody().await;
    let error = short(std::slice::from_ref(&nobody)).command(PATH, "").await.unwrap_err();
    let Error::Unavailable { tried, connected: false, last } = error else { panic!("{error}") };
    assert_eq!(tried, [nobody]);
    assert!(last.contains("refused"), "{last}");
}

#[tokio::test]
async fn a_command_that_was_surely_not_run_is_unavailable() {
    let node = FakeNode::start(|asked| match asked.attempt {
        0 => Err(refuse(Code::Unavailable, "NOT_READY", &[])),
        _ => Err(refuse_for_long(Code::Unavailable, "NO_LEADER")),
    })
    .await;
    let error = node.client().command(PATH, "").await.unwrap_err();
    let Error::Unavailable { connected: true, last, .. } = error else { panic!("{error}") };
    assert!(last.ends_with("fake NO_LEADER (NO_LEADER)"), "{last}");
    assert_eq!(node.asked().len(), 2);
}

#[tokio::test]
async fn no_attempt_is_begun_that_has_hardly_time_for_an_answer() {
    let pushback = |milliseconds: i64| {
        let mut status = refuse(Code::Unavailable, "NO_LEADER", &[]);
        status.metadata_mut().insert("grpc-retry-pushback-ms", MetadataValue::from(milliseconds));
        status
    };
    // After this pause, 100 ms would be left of ten seconds.
    let node = FakeNode::start_sometimes_silent(move |asked| (asked.attempt == 0).then(|| Err(pushback(9_900)))).await;
    let error = node.client().command(PATH, "").await.unwrap_err();
    let Error::Unavailable { last, .. } = error else { panic!("{error}") };
    assert!(last.ends_with("fake NO_LEADER (NO_LEADER)"), "{last}");
    assert_eq!(node.asked().len(), 1);
}

#[test]
fn a_call_with_little_time_may_try_several_nodes() {
    let milliseconds = |whole| attempt_min(Duration::from_millis(whole)).as_millis();
    assert_eq!([30_000, 1_000, 100, 0].map(milliseconds), [200, 200, 25, 0]);
}

#[tokio::test]
async fn a_command_that_may_have_run_has_an_unknown_outcome() {
    for reason in ["OUTCOME_UNKNOWN", "DEADLINE"] {
        let node = FakeNode::start(move |asked| match asked.attempt {
            0 => Err(refuse(Code::Unknown, reason, &[])),
            _ => Err(refuse_for_long(Code::Unavailable, "NO_LEADER")),
        })
        .await;
        let error = node.client().command(PATH, "").await.unwrap_err();
        let Error::OutcomeUnknown { key, .. } = error else { panic!("{error}") };
        assert_eq!(node.asked()[0].key(), Some(&*key));
    }
}

#[tokio::test]
async fn a_command_once_sent_to_a_silent_node_stays_unknown_whatever_others_say() {
    let silent = FakeNode::start_sometimes_silent(|_| None).await;
    let lost = FakeNode::start(|_| Err(refuse(Code::Unavailable, "NO_LEADER", &[]))).await;
    let both = [silent.endpoint(), lost.endpoint()];
    let client = fake::client(&both).within(Duration::from_secs(3));
    let error = client.command(PATH, "").await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    assert!(!lost.asked().is_empty());
}

#[tokio::test]
async fn a_query_never_has_an_unknown_outcome() {
    let node = FakeNode::start(|_| Err(refuse_for_long(Code::DeadlineExceeded, "DEADLINE"))).await;
    let error = node.client().query(PATH, "", Read::default()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { connected: true, .. }), "{error}");
}

#[tokio::test]
async fn a_forgotten_key_is_an_unknown_outcome_only_after_an_attempt_that_may_have_run() {
    let forgotten = || Err(refuse(Code::FailedPrecondition, "KEY_FORGOTTEN", &[]));
    let node = FakeNode::start(move |_| forgotten()).await;
    let error = node.client().command(PATH, "").await.unwrap_err();
    assert!(matches!(&error, Error::Refused(_)), "{error}");
    assert!(error.to_string().ends_with("is this machine's clock behind?"), "{error}");

    let node = FakeNode::start(move |asked| match asked.attempt {
        0 => Err(Status::unavailable("gone")),
        _ => forgotten(),
    })
    .await;
    let error = node.client().command(PATH, "").await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
}

#[tokio::test]
async fn the_module_s_own_no_is_final_even_when_it_is_unavailable() {
    for code in [Code::Unavailable, Code::NotFound, Code::Aborted, Code::DeadlineExceeded] {
        let node = FakeNode::start(move |_| Err(module_says(code, "not today", 12))).await;
        let error = node.client().command(PATH, "").await.unwrap_err();
        let Error::Rejected(rejection) = error else { panic!("{error}") };
        assert_eq!((rejection.code, &*rejection.message, rejection.index), (code, "not today", Some(12)));
        assert_eq!(node.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_trap_comes_with_its_detail() {
    let node = FakeNode::start(|_| {
        let mut status = refuse(Code::Internal, "TRAP", &[]);
        let detail = MetadataValue::from_bytes("panicked at src/lib.rs:7: oh".as_bytes());
        status.metadata_mut().insert_bin("balsa-trap-detail-bin", detail);
        Err(status)
    })
    .await;
    let Error::Rejected(rejection) = node.client().command(PATH, "").await.unwrap_err() else { panic!() };
    assert_eq!(rejection.reason.as_deref(), Some("TRAP"));
    assert_eq!(rejection.trap_detail.as_deref(), Some("panicked at src/lib.rs:7: oh"));
    assert!(rejection.details.is_empty());
}

#[tokio::test]
async fn a_call_that_is_wrong_in_itself_is_not_retried() {
    for (code, reason) in [(Code::Unimplemented, "UNKNOWN_METHOD"), (Code::InvalidArgument, "KEY_REUSED")] {
        let node = FakeNode::start(move |_| Err(refuse(code, reason, &[]))).await;
        let error = node.client().command(PATH, "").await.unwrap_err();
        assert!(matches!(&error, Error::Refused(refusal) if refusal.reason.as_deref() == Some(reason)), "{error}");
        assert_eq!(node.asked().len(), 1);
    }
}

#[tokio::test]
async fn an_overloaded_node_says_when_to_come_back() {
    let overloaded = |milliseconds: i64| {
        let mut status = refuse(Code::ResourceExhausted, "OVERLOADED", &[]);
        status.metadata_mut().insert("grpc-retry-pushback-ms", MetadataValue::from(milliseconds));
        status
    };
    let node = FakeNode::start(move |asked| match asked.attempt {
        0 => Err(overloaded(60)),
        _ => reply("", 1),
    })
    .await;
    let begun = Instant::now();
    node.client().command(PATH, "").await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(60));

    let node = FakeNode::start(move |_| Err(overloaded(-1))).await;
    let error = node.client().command(PATH, "").await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error}");

    let node = FakeNode::start(|_| Err(refuse_for_long(Code::ResourceExhausted, "OVERLOADED"))).await;
    let error = node.client().command(PATH, "").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn while_nothing_listens_the_first_contact_time_counts() {
    let client = short(&[nobody().await]);
    let options = Options {
        timeout: Duration::from_secs(3600),
        first_contact: Duration::from_millis(100),
        ..(*client.options).clone()
    };
    let error = Client::new(options).command(PATH, "").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { connected: false, .. }), "{error}");
}

#[tokio::test]
async fn a_client_with_a_deadline_ends_by_it() {
    let node = FakeNode::start(|_| Err(refuse(Code::Unavailable, "NO_LEADER", &[]))).await;
    let begun = Instant::now();
    let client = node.client().until(begun + Duration::from_millis(50));
    client.command(PATH, "").await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// Never run: it compiles if a client's futures may go from thread to thread, as those of a multi-threaded runtime do.
#[allow(dead_code)]
fn futures_of_a_client_are_send(
    client: &Client,
    call: &Call,
    retry: &admin::ModuleRetryRequest,
    push: &admin::ModulePush,
) {
    fn is_send(_: impl Send) {}
    is_send(client.call(call));
    is_send(client.command(PATH, Vec::new()));
    is_send(client.query(PATH, Vec::new(), Read::Linearizable));
    is_send(client.query_stream(PATH, Vec::new(), Read::Linearizable));
    is_send(client.status());
    is_send(client.deep_check(0));
    is_send(hash_together(&[], 0, Instant::now()));
    is_send(client.services());
    is_send(client.describe(&[]));
    is_send(client.module_history(""));
    is_send(client.module_retry(retry));
    is_send(client.module_drop(""));
    is_send(client.module_push(push, &Bytes::new(), &|_| ()));
    is_send(client.backup(&mut |_| std::ops::ControlFlow::Continue(())));
}
