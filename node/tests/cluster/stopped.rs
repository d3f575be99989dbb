//! A node that is told to stop ends in its time and with code 0, whatever it is at.

use std::time::{Duration, Instant};

use crate::harness::{Cluster, Setup, until};

/// What docs/operations.md says, with the usual time for load balancers.
const END: Duration = Duration::from_secs(30);

/// So long that a node which waits for load balancers is told from one that does not: the longest that there is.
fn long_drain_wait() -> Vec<(&'static str, String)> {
    vec![("BALSA_NODE__DRAIN_WAIT_MS", "45000".into())]
}

#[tokio::test]
async fn a_node_that_has_never_been_ready_does_not_wait_for_load_balancers() {
    let setup = Setup { spare: 1, ..Setup::default() };
    let mut cluster = Cluster::stopped(setup).await;
    cluster.nodes.iter_mut().for_each(|node| node.environment = long_drain_wait());
    // The first of three, alone.
    cluster.nodes[0].start();
    ends_at_once(&mut cluster, 0).await;

    // One that asks to be let in, and is not wanted.
    cluster.nodes.iter_mut().for_each(|node| node.environment.clear());
    cluster.nodes[3].environment = long_drain_wait();
    cluster.start_all();
    cluster.ready().await;
    cluster.nodes[3].start();
    let waits =
        async || cluster.nodes[3].get("/readyz").await?.contains("not a member of its cluster yet").then_some(());
    until("it waits to be let in", waits).await;
    ends_at_once(&mut cluster, 3).await;
}

/// It serves, is not ready, is told to stop, and does.
async fn ends_at_once(cluster: &mut Cluster, at: usize) {
    let node = &mut cluster.nodes[at];
    until("it says that it is not ready", async || node.get("/readyz").await?.contains("503").then_some(())).await;
    let told = Instant::now();
    assert!(node.terminate().await.success());
    assert!(told.elapsed() < END, "{} took {:?} to end", node.name, told.elapsed());
    assert!(!node.log().contains("until load balancers have noticed"));
}

#[tokio::test]
async fn a_node_with_minutes_of_commands_to_apply_ends_without_them() {
    // Each as much as a command may be: sixty milliseconds on a quick machine.
    const SPINS: u64 = 4000;
    let limits = "command_fuel = 1000000000";
    let mut cluster = Cluster::start(Setup { replicas: 1, hostile: true, limits, ..Setup::default() }).await;
    // A connection carries a thousand calls.
    let clients: Vec<_> = (0..SPINS / 1000).map(|_| cluster.nodes[0].client()).collect();
    for client in clients.iter().cycle().take(SPINS as usize) {
        let client = client.clone();
        tokio::spawn(async move { client.command("/hostile.v1.Hostile/Spin", "").await });
    }
    until("most of them wait for their turn", async || {
        let pending = cluster.nodes[0].metric(r#"balsa_pending{queue="commands"}"#).await?;
        (pending > SPINS * 3 / 4).then_some(())
    })
    .await;
    let told = Instant::now();
    assert!(cluster.nodes[0].terminate().await.success());
    assert!(told.elapsed() < END, "it took {:?} to end", told.elapsed());
    assert!(cluster.nodes[0].log().contains("it is read from the log again at the next start"));
}
