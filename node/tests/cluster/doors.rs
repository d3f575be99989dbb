//! Which door serves whom: clients their port, peers theirs, operators the port for peers and the node's socket.

use std::os::unix::fs::PermissionsExt;

use balsa::client::RawCodec;
use balsa::proto::admin::BackupRequest;
use balsa::proto::admin::operator_client::OperatorClient;
use bytes::Bytes;
use http::uri::PathAndQuery;
use tonic::Code;
use tonic::client::Grpc;

use crate::harness::{Cluster, Setup, program, run, until};
use crate::operator::connect;

/// What the server at `uri` says to an empty message for `path`.
async fn answer(uri: String, path: &'static str) -> (Code, String) {
    let mut grpc = Grpc::new(connect(uri).await.unwrap());
    grpc.ready().await.unwrap();
    match grpc.unary(tonic::Request::new(Bytes::new()), PathAndQuery::from_static(path), RawCodec).await {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => (status.code(), status.message().to_owned()),
    }
}

const LIST: &str = "/kvstore.v1.KvStore/List";
const STATUS: &str = "/balsa.admin.v1.Admin/Status";
const RETRY: &str = "/balsa.admin.v1.Operator/ModuleRetry";
const IDENTIFY: &str = "/balsa.peer.v1.Peer/Identify";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_door_serves_what_it_is_for_and_nothing_else() {
    let cluster = Cluster::start(Setup { replicas: 1, ..Setup::default() }).await;
    let node = &cluster.nodes[0];
    let clients = || node.uri();
    let peers = || format!("http://{}", node.peer_address());
    let socket = || format!("unix:{}", node.socket().display());

    assert_eq!(answer(clients(), LIST).await.0, Code::Ok);
    assert_eq!(answer(clients(), STATUS).await.0, Code::Ok);
    let (code, why) = answer(clients(), RETRY).await;
    assert!(code == Code::PermissionDenied && why.contains("on its port for peers"), "{why}");
    let (code, why) = answer(clients(), IDENTIFY).await;
    assert!(code == Code::Unimplemented && why.contains("/balsa.peer.v1.Peer/Identify"), "{why}");

    for door in [peers(), socket()] {
        assert_eq!(answer(door.clone(), STATUS).await.0, Code::Ok, "{door}");
        assert_eq!(answer(door.clone(), RETRY).await.0, Code::Ok, "{door}");
        let (code, why) = answer(door.clone(), LIST).await;
        assert!(code == Code::Unimplemented && why.contains("clients are served on client_addr"), "{door}: {why}");
    }
    assert_eq!(answer(peers(), IDENTIFY).await.0, Code::Ok);
    assert_eq!(answer(socket(), IDENTIFY).await.0, Code::Unimplemented);
}

/// Names and addresses get reused by other nodes: only who is of this cluster and means this node is answered. Exceptions are the
/// questions by which a cluster begins, and those of a node that does not know whom it will find.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_among_nodes_says_which_cluster_it_is_of_and_whom_it_means() {
    let cluster = Cluster::start(Setup { replicas: 1, ..Setup::default() }).await;
    let ours = cluster.status().await.cluster_id;
    let own = cluster.nodes[0].tells_own_status().await.id;
    let methods = include_str!("../../proto/peer.proto").lines().filter_map(|line| line.trim().strip_prefix("rpc "));
    let methods: Vec<_> = methods.filter_map(|line| line.split('(').next()).collect();
    assert!(methods.len() > 15, "{methods:?}");
    let mut grpc = Grpc::new(connect(format!("http://{}", cluster.nodes[0].peer_address())).await.unwrap());
    let mut ask = async |method: &str, cluster: &str, to: u64| {
        let mut request = tonic::Request::new(Bytes::new());
        for (key, value) in
            [("balsa-cluster", cluster), ("balsa-from", &format!("{:016x}", 7)), ("balsa-to", &format!("{to:016x}"))]
        {
            request.metadata_mut().insert(key, value.parse().unwrap());
        }
        grpc.ready().await.unwrap();
        let path = format!("/balsa.peer.v1.Peer/{method}").parse().unwrap();
        match grpc.unary(request, path, RawCodec).await {
            Err(status) if status.code() == Code::FailedPrecondition => status.message().to_owned(),
            other => format!("answered: {:?}", other.map(|_| ())),
        }
    };
    for method in methods {
        let (foreign, misled) = (ask(method, &"ab".repeat(16), own).await, ask(method, &ours, own ^ 1).await);
        let (any_cluster, anybody) = match method {
            "Identify" => (true, true),
            "Adopt" => (true, false),
            "Recall" | "Standing" => (false, true),
            _ => (false, false),
        };
        let refusal = "this node belongs to cluster ";
        assert!(foreign.starts_with(refusal) != any_cluster, "{method} from another cluster: {foreign}");
        assert!(misled.starts_with("this is node ") != anybody, "{method} for another node: {misled}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_find_the_socket_of_the_node_that_runs_where_they_are() {
    let mut cluster = Cluster::start(Setup::default()).await;
    let mode = std::fs::metadata(cluster.nodes[1].socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // As by `kubectl exec`: the environment of the pod says what `serve` was told.
    let retry = async |cluster: &Cluster| {
        let mut command = program();
        command.args(["module", "retry"]).current_dir(cluster.dir());
        command.env("BALSA_CONFIG", cluster.nodes[1].config()).env("BALSA_NODE__NAME", "balsa-1");
        run(command).await
    };
    assert!(retry(&cluster).await.ends(1).contains("nothing was refused or waits"));
    let (peer, socket) = (cluster.nodes[2].peer_address(), cluster.nodes[0].socket().display().to_string());
    for door in [["--peers", &peer], ["--socket", &socket]] {
        let ran = crate::harness::balsa(cluster.dir(), &[&["module", "retry"], &door[..]].concat()).await;
        ran.ends(1);
    }

    // What a killed node leaves is in nobody's way; one that stops takes its socket away.
    cluster.nodes[1].kill().await;
    assert!(cluster.nodes[1].socket().exists());
    let ran = retry(&cluster).await;
    assert!(ran.code == 3 && ran.err.contains("balsa.sock (the socket of the node that would run here)"), "{ran:?}");
    cluster.nodes[1].start();
    cluster.ready().await;
    retry(&cluster).await.ends(1);
    assert!(cluster.nodes[1].terminate().await.success());
    assert!(!cluster.nodes[1].socket().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_makes_one_backup_at_a_time() {
    let cluster = Cluster::start(Setup { replicas: 1, ..Setup::default() }).await;
    // More than what lies on the way of a stream that nobody reads.
    std::fs::write(cluster.dir().join("value"), vec![b'v'; 1_000_000]).unwrap();
    for number in 0..12 {
        cluster.balsa(&["put", &format!("key-{number}"), "@value"]).await.ends(0);
    }
    let socket = format!("unix:{}", cluster.nodes[0].socket().display());
    let backup = async || {
        let mut operator = OperatorClient::new(connect(socket.clone()).await?);
        Ok::<_, tonic::Status>(operator.backup(BackupRequest {}).await?.into_inner())
    };
    let first = backup().await.unwrap();
    let refused = backup().await.unwrap_err();
    assert!(refused.code() == Code::ResourceExhausted && refused.message().contains("another backup"), "{refused:?}");
    drop(first);
    let mut second = until("the first is given up", async || backup().await.ok()).await;
    let mut bytes = 0;
    while let Some(chunk) = second.message().await.unwrap() {
        bytes += chunk.data.len();
    }
    assert!(bytes > 12_000_000, "{bytes}");
}
