//! A command runs once per idempotency key, whatever happens to the cluster between its attempts.

use std::time::Duration;

use balsa::client::{Client, Error, RawCodec, Read, Reply};
use tonic::Request;
use tonic::client::Grpc;
use uuid::Uuid;

use crate::clock::{key_at, now};
use crate::harness::{Cluster, Node, SLOW_ELECTIONS, Setup, until};
use crate::hostile::{ADD, add, number, total, total_in};
use crate::operator::connect;

fn refusal(result: Result<Reply, Error>) -> String {
    match result {
        Err(Error::Refused(refusal)) => refusal.reason.unwrap_or_default(),
        other => panic!("it was not refused: {other:?}"),
    }
}

/// A UUIDv7 that was made so long ago.
fn old_key(age: Duration) -> String {
    key_at(now() - age)
}

async fn assert_total(client: &Client, expected: u64) {
    assert_eq!(total(client, Read::Linearizable).await.unwrap(), expected);
}

/// Sends the same Add again, and gets the first answer.
async fn assert_replayed(client: &Client, key: &str, amount: u64, first: &Reply) {
    let again = client.call(&add(key, amount)).await.unwrap();
    assert!(again.replayed, "{again:?}");
    assert_eq!((again.index, &again.message), (first.index, &first.message));
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_also_from_a_new_leader_and_after_a_restart() {
    let mut cluster = Cluster::start(Setup { hostile: true, ..Setup::default() }).await;
    let client = cluster.client();
    for key in [Uuid::now_v7().to_string(), "an-opaque-key".into()] {
        let before = total(&client, Read::Linearizable).await.unwrap();
        let first = client.call(&add(&key, 5)).await.unwrap();
        assert!(!first.replayed);
        assert_eq!(total_in(&first), before + 5);
        for node in &cluster.nodes {
            assert_replayed(&node.client(), &key, 5, &first).await;
        }
        assert_eq!(refusal(client.call(&add(&key, 6)).await), "KEY_REUSED");

        let leader = cluster.leader().await;
        cluster.nodes[leader].kill().await;
        assert_replayed(&client, &key, 5, &first).await;
        assert_eq!(refusal(client.call(&add(&key, 6)).await), "KEY_REUSED");

        for at in (0..3).filter(|at| *at != leader) {
            cluster.nodes[at].kill().await;
        }
        cluster.start_all();
        cluster.ready().await;
        assert_replayed(&client, &key, 5, &first).await;
        assert_eq!(refusal(client.call(&add(&key, 6)).await), "KEY_REUSED");
        assert_total(&client, before + 5).await;
    }
    cluster.assert_same_state().await;
}

#[tokio::test]
async fn a_key_older_than_the_window_is_refused_and_not_run() {
    let cluster =
        Cluster::start(Setup { hostile: true, limits: "idempotency_window_ms = 10000", ..Setup::default() }).await;
    let client = cluster.client();
    assert_eq!(refusal(client.call(&add(&old_key(Duration::from_secs(600)), 1)).await), "KEY_FORGOTTEN");
    assert_total(&client, 0).await;
    // Nor one that would be remembered for long.
    assert_eq!(refusal(client.call(&add(&key_at(now() + Duration::from_secs(900)), 1)).await), "KEY_INVALID");
    assert_total(&client, 0).await;

    // A key that was remembered: from some moment on it is refused, and in between it is never run again.
    let key = Uuid::now_v7().to_string();
    client.call(&add(&key, 7)).await.unwrap();
    until("the key is forgotten", async || match client.call(&add(&key, 7)).await {
        Ok(reply) => {
            assert!(reply.replayed);
            None
        }
        refused => {
            assert_eq!(refusal(refused), "KEY_FORGOTTEN");
            Some(())
        }
    })
    .await;
    assert_total(&client, 7).await;
    cluster.assert_same_state().await;
}

/// As a client does that knows nothing of keys.
async fn add_one_without_a_key(node: &Node) {
    let mut grpc = Grpc::new(connect(node.uri()).await.unwrap());
    grpc.ready().await.unwrap();
    grpc.unary(Request::new(number(1).into()), ADD.parse().unwrap(), RawCodec).await.unwrap();
}

#[tokio::test]
async fn a_command_without_a_key_is_remembered_only_if_a_follower_forwards_it() {
    let cluster = Cluster::start(Setup { hostile: true, raft: Some(SLOW_ELECTIONS), ..Setup::default() }).await;
    let (leader, follower) = (&cluster.nodes[cluster.leader().await], &cluster.nodes[cluster.follower().await]);
    add_one_without_a_key(leader).await;
    assert_total(&leader.client(), 1).await;
    let remembered = async || until("it says how many keys", async || leader.metric("balsa_sessions").await).await;
    assert_eq!(remembered().await, 0);
    add_one_without_a_key(follower).await;
    assert_total(&leader.client(), 2).await;
    until("the follower's key is remembered", async || (remembered().await == 1).then_some(())).await;
}

#[tokio::test]
async fn a_command_that_a_dying_leader_logged_alone_is_applied_once_when_it_is_retried() {
    // Slow enough that the leader still takes a write after the others have fallen silent.
    let slow = "heartbeat_interval_ms = 250\nelection_timeout_min_ms = 5000\nelection_timeout_max_ms = 6000\n";
    let mut cluster = Cluster::start(Setup { hostile: true, raft: Some(slow), ..Setup::default() }).await;
    let leader = cluster.leader().await;
    let followers: Vec<_> = (0..3).filter(|at| *at != leader).collect();
    let key = Uuid::now_v7().to_string();
    let alone = cluster.nodes[leader].client_within(Duration::from_millis(500));
    until("its connection is made", async || total(&alone, Read::Linearizable).await.ok()).await;
    for at in &followers {
        cluster.nodes[*at].freeze();
    }
    // One attempt is in the leader's log and nowhere else; the other waits at a node that does not move.
    until("the leader has logged it", async || match alone.call(&add(&key, 3)).await {
        Err(Error::OutcomeUnknown { .. }) => Some(()),
        Err(Error::Unavailable { .. }) => None,
        other => panic!("one node of three answered {other:?}"),
    })
    .await;
    let (waiting, call) = (cluster.nodes[followers[0]].client(), add(&key, 3));
    let waiting = tokio::spawn(async move { waiting.call(&call).await });
    cluster.nodes[leader].kill().await;
    for at in &followers {
        cluster.nodes[*at].thaw();
    }
    let first = waiting.await.unwrap().unwrap();
    assert_eq!(total_in(&first), 3);

    cluster.start_all();
    cluster.ready().await;
    for node in &cluster.nodes {
        assert_replayed(&node.client(), &key, 3, &first).await;
    }
    assert_total(&cluster.client(), 3).await;
    cluster.assert_same_state().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_in_flight_across_a_leader_change_are_applied_once() {
    let mut cluster = Cluster::start(Setup { hostile: true, ..Setup::default() }).await;
    let mut sent = 0;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        let keys: Vec<_> = (0..40).map(|_| Uuid::now_v7().to_string()).collect();
        let through_each = cluster.nodes.iter().map(|node| node.client());
        let clients: Vec<_> = through_each.chain([cluster.client()]).collect();
        let calls: Vec<_> = keys
            .iter()
            .flat_map(|key| clients.iter().map(|client| (client.clone(), add(key, 1))))
            .map(|(client, call)| tokio::spawn(async move { client.call(&call).await }))
            .collect();
        cluster.nodes[leader].kill().await;
        cluster.start_all();
        sent += keys.len() as u64;
        let mut answers = Vec::new();
        for call in calls {
            answers.push(call.await.unwrap());
        }
        // All answers to one key are the same; and the client of all nodes has always got one.
        for answers in answers.chunks(clients.len()) {
            let first = answers.last().unwrap().as_ref().unwrap();
            for answer in answers.iter().flatten() {
                assert_eq!((answer.index, &answer.message), (first.index, &first.message));
            }
        }
        cluster.ready().await;
        assert_total(&cluster.client(), sent).await;
    }
    cluster.assert_same_state().await;
}
