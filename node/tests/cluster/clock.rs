//! A node's wall clock is ten years ahead. Log time stays that of the majority, whoever leads, and such a node leads for no longer
//! than it takes to see it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use balsa::client::{Call, Error, Kind, Reply};
use balsa::proto::kvstore::PutRequest;
use prost::Message;
use uuid::Uuid;

use crate::harness::{Cluster, Node, Setup, calm, until};

const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Log time may be this far from this machine's clock: far below the window of an hour, not to speak of ten years.
const NEAR: Duration = Duration::from_secs(30);
/// However slow this machine is, no key of a test is forgotten.
const WINDOW: &str = "idempotency_window_ms = 3600000";

pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn put(key: &str, idempotency_key: String) -> Call {
    let put = PutRequest { key: key.to_owned().into(), value: "v".into(), ..PutRequest::default() };
    let mut call = Call::command("/kvstore.v1.KvStore/Put", put.encode_to_vec());
    call.kind = Kind::Command { key: idempotency_key };
    call
}

/// A UUIDv7 that a client with such a clock makes.
pub(crate) fn key_at(time: Duration) -> String {
    uuid::Builder::from_unix_timestamp_millis(time.as_millis().try_into().unwrap(), &rand::random())
        .into_uuid()
        .to_string()
}

/// Log time is the majority's, on every node: as the status shows it, and in what depends on it.
async fn assert_time_stands(cluster: &Cluster, early: &(Call, Reply)) {
    for node in cluster.running() {
        let time = until("it answers", async || node.own_status().await).await.time_ms;
        let off = Duration::from_millis(time).abs_diff(now());
        assert!(off < NEAR, "log time is {off:?} off on {}", node.name);
        // Neither is the window skipped, nor are keys of this time too old.
        let again = node.client().call(&early.0).await.unwrap();
        assert!(again.replayed && again.index == early.1.index, "{again:?}");
        node.client().call(&put("fresh", Uuid::now_v7().to_string())).await.unwrap();
        let ahead = node.client().call(&put("ahead", key_at(now() + TEN_YEARS))).await;
        let Err(Error::Refused(refusal)) = ahead else { panic!("a key of another decade was taken: {ahead:?}") };
        assert_eq!(refusal.reason.as_deref(), Some("KEY_INVALID"));
    }
}

/// Returns once a node other than `odd` leads.
async fn another_leads(cluster: &Cluster, odd: usize) {
    until("a node with a right clock leads", async || (cluster.leader().await != odd).then_some(())).await;
}

fn times_led(node: &Node) -> u64 {
    node.log().matches("this node leads").count() as u64
}

#[tokio::test]
async fn a_leader_whose_clock_is_set_ten_years_ahead_moves_no_time_and_hands_over() {
    let setup = Setup { clocks: true, limits: WINDOW, ..Setup::default() };
    let mut cluster = Cluster::start(setup).await;
    let call = put("early", Uuid::now_v7().to_string());
    let early = (call.clone(), cluster.client().call(&call).await.unwrap());
    let odd = cluster.leader().await;
    cluster.nodes[odd].set_clock("+10y");
    // It goes on stamping entries until it has seen it.
    until("another node leads", async || {
        cluster.client().call(&put("meanwhile", Uuid::now_v7().to_string())).await.unwrap();
        (cluster.leader().await != odd).then_some(())
    })
    .await;
    cluster.nodes[odd].says(0, "clock is more than 5 s off").await;
    assert_time_stands(&cluster, &early).await;

    // With the other dead, the one that is left is elected, though there are two; and nobody hands leadership to a wrong clock.
    calm("it should not lead again", async || {
        let before = times_led(&cluster.nodes[odd]);
        for dies in [true, false] {
            let leader = cluster.leader().await;
            if dies {
                cluster.nodes[leader].kill().await;
            } else {
                assert!(cluster.nodes[leader].terminate().await.success());
            }
            another_leads(&cluster, odd).await;
            assert_time_stands(&cluster, &early).await;
            cluster.start_all();
            cluster.ready().await;
        }
        (before, times_led(&cluster.nodes[odd]))
    })
    .await;
    let checked = cluster.balsa(&["check", "--deep", "--timeout", "100s"]).await.ends(0);
    assert!(checked.ends_with("OK\n"), "{checked}");

    let said = cluster.nodes[odd].log().len();
    cluster.nodes[odd].set_clock("+0");
    cluster.nodes[odd].says(said, "agrees with the majority's again").await;
}

#[tokio::test]
async fn a_cluster_whose_first_node_is_ten_years_ahead_begins_in_the_present() {
    let mut cluster = Cluster::stopped(Setup { clocks: true, limits: WINDOW, ..Setup::default() }).await;
    cluster.nodes[0].set_clock("+10y");
    cluster.start_all();
    cluster.ready().await;
    another_leads(&cluster, 0).await;
    let call = put("early", Uuid::now_v7().to_string());
    let early = (call.clone(), cluster.client().call(&call).await.unwrap());
    assert_time_stands(&cluster, &early).await;
    cluster.balsa(&["check", "--timeout", "100s"]).await.ends(0);
}
