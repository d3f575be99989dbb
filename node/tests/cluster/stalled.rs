//! A state machine that is busy for long holds up what waits for it, and nothing else: Raft goes on beside it.

use std::time::{Duration, Instant};

use balsa::client::{Call, Client, Error};

use crate::harness::{Cluster, DEFAULT_TIMINGS, PATIENCE, Setup, calm, turn_alone};

/// Several times the longest election timeout.
const STALL: Duration = Duration::from_secs(10);

/// Keeps every node's apply thread busy with commands that spin until their fuel is spent, a fifth of a second each or more.
async fn spin(client: Client, until: Instant) -> u32 {
    let mut spun = 0;
    while Instant::now() < until {
        let call = Call::command("/hostile.v1.Hostile/Spin", Vec::new());
        match client.call(&call).await {
            Err(Error::Rejected(_)) => spun += 1,
            other => panic!("a command that spins was not stopped: {other:?}"),
        }
    }
    spun
}

#[tokio::test]
async fn ten_seconds_of_apply_cause_no_election() {
    let limits = "command_fuel = 1000000000";
    let raft = Some(DEFAULT_TIMINGS);
    let setup = Setup { hostile: true, raft, limits, ..Setup::default() };
    let cluster = Cluster::start_in(turn_alone().await, setup).await;
    calm("the term should stay", async || {
        let before = cluster.term().await;
        let (leader, until) = (cluster.leader().await, Instant::now() + STALL);
        let spinners: Vec<_> =
            (0..4).map(|_| tokio::spawn(spin(cluster.nodes[leader].client_within(PATIENCE), until))).collect();
        let mut spun = 0;
        for spinner in spinners {
            spun += spinner.await.unwrap();
        }
        assert!(spun > 0);
        (before, cluster.term().await)
    })
    .await;
    cluster.assert_same_state().await;
}
