//! A read sees every write that was acknowledged before it began, on any node, while leaders die.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use balsa::client::{Client, Error, RawCodec, Read};
use bytes::Bytes;
use prost::Message;
use tonic::client::Grpc;
use tonic::{Request, Status};

use crate::harness::{Cluster, Node, PATIENCE, Setup, until};
use crate::hostile::{ADD, Number, TOTAL, number, total, total_in};
use crate::load::pause;
use crate::operator::connect;

/// The greatest total that was acknowledged, and when to stop.
#[derive(Default)]
struct Shared {
    acknowledged: AtomicU64,
    reads: AtomicU64,
    stop: AtomicBool,
}

/// A test that failed does not go on.
struct StopAtEnd(Arc<Shared>);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

async fn write(client: Client, shared: Arc<Shared>) {
    while !shared.stop.load(Ordering::SeqCst) {
        // One of an unknown outcome may still happen; what counts is what was acknowledged.
        if let Ok(reply) = client.command(ADD, number(1)).await {
            shared.acknowledged.fetch_max(total_in(&reply), Ordering::SeqCst);
        }
        pause().await;
    }
}

async fn read(client: Client, shared: Arc<Shared>) {
    let mut last = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        let floor = shared.acknowledged.load(Ordering::SeqCst).max(last);
        match total(&client, Read::Linearizable).await {
            Ok(seen) => {
                assert!(seen >= floor, "a read saw {seen}, and {floor} was known before it began");
                last = seen;
                shared.reads.fetch_add(1, Ordering::SeqCst);
            }
            Err(Error::Unavailable { .. }) => {}
            Err(other) => panic!("a read ended in {other}"),
        }
        pause().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_is_older_than_a_write_acknowledged_before_it_while_leaders_die() {
    let mut cluster = Cluster::start(Setup { hostile: true, ..Setup::default() }).await;
    let shared = Arc::new(Shared::default());
    let stop = StopAtEnd(Arc::clone(&shared));
    let writers = [cluster.client(), cluster.client()];
    let writers = writers.map(|client| (client, Arc::clone(&shared)));
    let mut tasks: Vec<_> = writers.map(|(client, shared)| tokio::spawn(write(client, shared))).into();
    let one_node = cluster.nodes.iter().map(|node| node.client_within(Duration::from_secs(1)));
    let readers: Vec<_> = one_node.chain([cluster.client()]).collect();
    let readers = readers.into_iter().map(|client| (client, Arc::clone(&shared)));
    tasks.extend(readers.map(|(client, shared)| tokio::spawn(read(client, shared))));
    for round in 0..4 {
        let (writes, reads) = (shared.acknowledged.load(Ordering::SeqCst), shared.reads.load(Ordering::SeqCst));
        until("clients write and read", async || {
            let went_on = shared.acknowledged.load(Ordering::SeqCst) > writes + 50
                && shared.reads.load(Ordering::SeqCst) > reads + 100;
            (went_on || tasks.iter().any(|task| task.is_finished())).then_some(())
        })
        .await;
        let leader = cluster.leader().await;
        // A leader that dies, and one that does not know that it was replaced when it wakes up.
        if round % 2 == 0 {
            cluster.nodes[leader].kill().await;
            cluster.leader().await;
            cluster.nodes[leader].start();
        } else {
            cluster.nodes[leader].freeze();
            cluster.leader().await;
            cluster.nodes[leader].thaw();
        }
        cluster.ready().await;
    }
    drop(stop);
    for task in tasks {
        task.await.unwrap();
    }
    cluster.assert_same_state().await;
}

/// One attempt, without the client library's retries.
async fn total_once(node: &Node) -> Result<u64, Status> {
    let mut grpc = Grpc::new(connect(node.uri()).await?);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = Request::new(Bytes::new());
    request.set_timeout(PATIENCE);
    let reply = grpc.unary(request, TOTAL.parse().unwrap(), RawCodec).await?.into_inner();
    Ok(Number::decode(reply).unwrap().number)
}

/// A command that spins until its fuel is spent.
async fn spin(client: Client) {
    let ended = client.command("/hostile.v1.Hostile/Spin", Vec::new()).await;
    assert!(matches!(ended, Err(Error::Rejected(_))), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_waits_for_what_is_applied_slowly_for_as_long_as_its_client_does() {
    let limits = "command_fuel = 1000000000";
    let cluster = Cluster::start(Setup { hostile: true, replicas: 1, limits, ..Setup::default() }).await;
    let node = &cluster.nodes[0];
    let client = node.client_within(2 * PATIENCE);
    client.command(ADD, number(42)).await.unwrap();
    let mut one = Duration::MAX;
    for _ in 0..3 {
        let begun = Instant::now();
        spin(client.clone()).await;
        one = one.min(begun.elapsed());
    }
    // So many that the node is behind for much longer than the two seconds in which it tries at once to catch up.
    let count = Duration::from_secs(8).div_duration_f64(one).ceil().min(200.0) as u64;
    let spins: Vec<_> = (0..count).map(|_| tokio::spawn(spin(client.clone()))).collect();
    until("the node is far behind", async || {
        let status = node.own_status().await?;
        (status.committed_index >= status.applied_index + count * 3 / 4).then_some(())
    })
    .await;
    assert_eq!(total_once(node).await.unwrap(), 42);
    for spin in spins {
        spin.await.unwrap();
    }
}

#[tokio::test]
async fn a_stale_read_with_an_index_sees_the_write_of_that_index() {
    let mut cluster = Cluster::start(Setup { hostile: true, ..Setup::default() }).await;
    let client = cluster.client();
    for expected in 1..=20 {
        let index = client.command(ADD, number(1)).await.unwrap().index.unwrap();
        for node in &cluster.nodes {
            let read = Read::Stale { min_index: index };
            let reply = node.client().query(TOTAL, Vec::new(), read).await.unwrap();
            assert_eq!(total_in(&reply), expected);
            assert!(reply.index.unwrap() >= index);
            assert_eq!(reply.node.as_ref(), Some(&node.name));
        }
    }
    // Alone, a node still shows what it has, but promises nothing about what it has not.
    cluster.nodes[0].kill().await;
    cluster.nodes[1].kill().await;
    assert_eq!(total(&cluster.nodes[2].client(), Read::Stale { min_index: 0 }).await.unwrap(), 20);
    let alone = cluster.nodes[2].client_within(Duration::from_secs(2));
    let future = total(&alone, Read::Stale { min_index: 1_000_000 }).await;
    assert!(matches!(future, Err(Error::Unavailable { .. })), "{future:?}");
    let linearizable = total(&alone, Read::Linearizable).await;
    assert!(matches!(linearizable, Err(Error::Unavailable { .. })), "{linearizable:?}");
}
