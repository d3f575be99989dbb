//! The nodes' stored bytes can be compared while clients write all the time: nobody has to stop for a check.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use balsa::client::Client;
use balsa::proto::kvstore::PutRequest;
use prost::Message;

use crate::harness::{Cluster, Setup, until};
use crate::load::pause;

const WRITERS: u64 = 8;

/// Puts, one after the other, until told to stop.
async fn write(number: u64, client: Client, written: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    for turn in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let value = turn.to_string().into_bytes().into();
        let put = PutRequest { key: format!("busy/{number}/{}", turn % 100).into(), value, ..PutRequest::default() };
        client.command("/kvstore.v1.KvStore/Put", put.encode_to_vec()).await.unwrap();
        written.fetch_add(1, Ordering::Relaxed);
        pause().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_are_compared_while_clients_write_all_the_time() {
    let cluster = Cluster::start(Setup::default()).await;
    let (written, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let client = |number: u64| cluster.nodes[usize::try_from(number).unwrap() % 3].client();
    let writers: Vec<_> =
        (0..WRITERS).map(|number| tokio::spawn(write(number, client(number), written.clone(), stop.clone()))).collect();
    until("the clients are at work", async || (written.load(Ordering::Relaxed) > 200).then_some(())).await;
    for _ in 0..3 {
        let before = written.load(Ordering::Relaxed);
        let checked = cluster.balsa(&["check", "--deep", "--timeout", "100s"]).await.ends(0);
        assert!(checked.contains("stored state at index "), "{checked}");
        assert!(written.load(Ordering::Relaxed) > before, "the writers did not stop for it");
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    cluster.assert_same_state().await;
}
