//! A backup that is taken while writes go on, through a follower, becomes the first node of a new cluster.

use std::fs;
use std::path::Path;

use balsa::client::Read;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Cluster, Ran, Setup, balsa, program, run, turn};
use crate::hostile::{add, total, total_in};
use crate::load::Load;
use crate::operator::history_of;

const VALUE_BYTES: usize = 4096;
/// What is in a data directory that was restored, and has not run yet.
const WHOLE: [&str; 3] = ["log", "node.meta", "state"];

/// What `balsa restore` says to a backup for the node of `into`.
async fn restore(into: &Cluster, file: &Path) -> Ran {
    let (file, config) = (file.display().to_string(), into.nodes[0].config().display().to_string());
    balsa(into.dir(), &["-o", "json", "restore", &file, "--config", &config, "--name", "balsa-0"]).await
}

/// An address that passes on what is said to `node` and what it says, until it has said so many bytes on one connection.
async fn dies_after(node: String, bytes: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (mut from_client, mut to_client) = client.into_split();
            let (from_node, mut to_node) = TcpStream::connect(&node).await.unwrap().into_split();
            tokio::spawn(async move {
                let mut few = from_node.take(bytes);
                tokio::select! {
                    _ = tokio::io::copy(&mut from_client, &mut to_node) => {}
                    _ = tokio::io::copy(&mut few, &mut to_client) => {}
                }
            });
        }
    });
    address
}

/// What is in the directory, but for the lock.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).map(|entries| entries.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>());
    let mut names: Vec<_> = entries.unwrap_or_default().into_iter().map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name != "lock");
    names.sort();
    names
}

async fn what_is_not_a_whole_backup_leaves_nothing_behind(new: &Cluster, file: &Path) {
    let data = &new.nodes[0].data_dir;
    let bytes = fs::read(file).unwrap();
    let bad = new.dir().join("bad.backup");
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    for (bytes, why) in [
        (&bytes[..bytes.len() - 1], "is damaged"),
        (&flipped, "is damaged"),
        (&[&bytes[..], b"x"].concat(), "is damaged"),
        (&bytes[1..], "is not a backup that this balsa can read"),
    ] {
        fs::write(&bad, bytes).unwrap();
        let ran = restore(new, &bad).await;
        assert!(ran.code == 2 && ran.err.contains(why), "{ran:?}");
        assert!(names(data).is_empty(), "{:?}", names(data));
    }
}

/// As in a pod.
async fn a_backup_comes_from_a_pipe(new: &Cluster, file: &Path) {
    let data = &new.nodes[0].data_dir;
    fs::remove_dir_all(data).unwrap();
    let config = new.nodes[0].config().display().to_string();
    let mut command = program();
    command.args(["restore", "/dev/stdin", "--name", "balsa-0", "--config", &config]).current_dir(new.dir());
    command.stdin(fs::File::open(file).unwrap());
    assert!(run(command).await.ends(0).contains("for balsa-0"));
    assert_eq!(names(data), WHOLE);
}

/// It is no node, and can be begun again.
async fn a_restore_is_killed_before_its_end(new: &mut Cluster) {
    let data = new.nodes[0].data_dir.clone();
    fs::create_dir(data.join("restore.tmp")).unwrap();
    fs::rename(data.join("node.meta"), data.join("restore.tmp/node.meta")).unwrap();
    new.nodes[0].start();
    assert_eq!(new.nodes[0].exited().await.code(), Some(1));
    assert!(new.nodes[0].log().contains("was not finished; run `balsa restore` once more"), "{}", new.nodes[0].log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_node_serves_what_was_backed_up_and_goes_on_from_there() {
    let turn = turn().await;
    let mut old = Cluster::start_in(turn.clone(), Setup { hostile: true, ..Setup::default() }).await;
    let key = add("sent-again", 7);
    let first = old.client().call(&key).await.unwrap();
    let load = Load::patient(&old, 4, VALUE_BYTES);
    load.goes_on(200).await;
    let file = old.dir().join("state.backup");
    let asked = old.follower().await;
    let follower = &old.nodes[asked];
    let (socket, path) = (follower.socket().display().to_string(), file.display().to_string());

    // A node that dies in the middle of it: an error, and no file.
    let dying = dies_after(follower.peer_address(), 20_000).await;
    let cut = balsa(old.dir(), &["backup", &path, "--peers", &dying]).await;
    assert!(cut.code == 3 && cut.err.contains("the node stopped sending in the middle"), "{cut:?}");
    assert!(!names(old.dir()).iter().any(|name| name.contains("backup")), "{:?}", names(old.dir()));

    // Through a node that has been away, and is behind: all that was acknowledged before is in it all the same.
    old.nodes[asked].freeze();
    load.goes_on(200).await;
    let before = total(&old.client(), Read::Linearizable).await.unwrap();
    old.nodes[asked].thaw();
    let backup = balsa(old.dir(), &["-o", "json", "backup", &path, "--socket", &socket]).await.json();
    load.goes_on(50).await;
    let tally = load.stop().await;
    assert_eq!((tally.refused, tally.unknown), (0, 0));
    let history = history_of(&old, "hostile").await;
    let old_cluster = old.status().await.cluster_id;
    for node in &mut old.nodes {
        node.kill().await;
    }

    let mut new = Cluster::stopped_in(turn, Setup { hostile: true, replicas: 1, ..Setup::default() });
    let data = new.nodes[0].data_dir.clone();
    what_is_not_a_whole_backup_leaves_nothing_behind(&new, &file).await;
    let restored = restore(&new, &file).await.json();
    assert_eq!(restored["index"], backup["index"]);
    assert_eq!(restored["backup_of"], old_cluster.as_str());
    assert_ne!(restored["cluster_id"], old_cluster.as_str());
    assert_eq!(names(&data), WHOLE);
    let again = restore(&new, &file).await;
    assert!(again.code == 2 && again.err.contains("is not empty: there is log in it"), "{again:?}");
    a_backup_comes_from_a_pipe(&new, &file).await;
    a_restore_is_killed_before_its_end(&mut new).await;
    let restored = restore(&new, &file).await.json();
    assert_eq!(names(&data), WHOLE);

    new.start_all();
    new.ready().await;
    let status = new.status().await;
    assert_eq!((status.cluster_id.as_str(), status.nodes.len()), (restored["cluster_id"].as_str().unwrap(), 1));
    let replayed = new.client().call(&key).await.unwrap();
    assert!(
        replayed.replayed && replayed.index == first.index && total_in(&replayed) == total_in(&first),
        "{replayed:?}"
    );
    let there = total(&new.client(), Read::Linearizable).await.unwrap();
    assert!(
        (before..=7 + tally.added).contains(&there) && before > 7,
        "{there} is not in {before}..={}",
        7 + tally.added
    );
    assert_eq!(history_of(&new, "hostile").await, history);
    let next = new.client().call(&add("a-new-one", 1)).await.unwrap();
    assert!(next.index > backup["index"].as_u64(), "{next:?}");
    assert_eq!(total(&new.client(), Read::Linearizable).await.unwrap(), there + 1);

    // It is a volume as any other: killed, it comes back.
    new.nodes[0].kill().await;
    new.start_all();
    new.ready().await;
    assert_eq!(total(&new.client(), Read::Linearizable).await.unwrap(), there + 1);
}
