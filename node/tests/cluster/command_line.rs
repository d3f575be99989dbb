//! Three processes, driven through the command line as a person would.

use std::time::Duration;

use crate::harness::{Cluster, SLOW_ELECTIONS, Setup, balsa, program, run, until};

#[tokio::test]
async fn three_processes_serve_the_command_line_and_keep_their_data() {
    let mut cluster = Cluster::start(Setup::default()).await;
    puts_and_gets(&cluster).await;
    calls_by_reflection(&cluster).await;
    shows_its_nodes(&cluster).await;
    says_how_a_node_is(&cluster).await;
    let checked = cluster.balsa(&["check", "--deep", "--timeout", "100s"]).await.ends(0);
    assert!(checked.ends_with("OK\n"), "{checked}");

    // All at once, and without a goodbye: what was acknowledged is on disk.
    for node in &mut cluster.nodes {
        node.kill().await;
    }
    cluster.start_all();
    cluster.ready().await;
    assert_eq!(cluster.balsa(&["get", "fruit"]).await.ends(0), "pear");
    assert_eq!(cluster.balsa(&["get", "empty"]).await.ends(0), "");
    cluster.balsa(&["get", "gone"]).await.ends(1);

    // One after the other, with a goodbye.
    for at in 0..3 {
        assert_eq!(cluster.nodes[at].terminate().await.code(), Some(0));
        cluster.nodes[at].start();
        cluster.ready().await;
    }
    assert_eq!(cluster.balsa(&["list"]).await.ends(0), "empty\t\nfruit\tpear\n");
    cluster.balsa(&["check", "--deep", "--timeout", "100s"]).await.ends(0);
}

async fn puts_and_gets(cluster: &Cluster) {
    let stored = cluster.balsa(&["put", "fruit", "apple"]).await.ends(0);
    assert!(stored.starts_with("stored version 1 at index "), "{stored}");
    assert_eq!(cluster.balsa(&["put", "fruit", "pear", "--prev"]).await.ends(0), "apple");
    cluster.balsa(&["put", "fruit", "plum", "--if-absent"]).await.ends(1);
    cluster.balsa(&["put", "empty", ""]).await.ends(0);
    let json = cluster.balsa(&["-o", "json", "get", "fruit"]).await.json();
    assert_eq!((&json["value"]["utf8"], &json["version"]), (&"pear".into(), &2.into()));

    cluster.balsa(&["get", "gone"]).await.ends(1);
    cluster.balsa(&["put", "gone", "soon"]).await.ends(0);
    assert_eq!(cluster.balsa(&["list"]).await.ends(0), "empty\t\nfruit\tpear\ngone\tsoon\n");
    assert_eq!(cluster.balsa(&["list", "g"]).await.ends(0), "gone\tsoon\n");
    cluster.balsa(&["delete", "gone"]).await.ends(0);
    cluster.balsa(&["delete", "gone"]).await.ends(1);
}

async fn calls_by_reflection(cluster: &Cluster) {
    let get = ["call", "KvStore/Get", r#"{"key":"ZnJ1aXQ="}"#];
    assert_eq!(cluster.balsa(&get).await.json()["kv"]["value"], "cGVhcg==");
    let listed = cluster.balsa(&["call", "--list"]).await.ends(0);
    assert!(listed.contains("query   kvstore.v1.KvStore/Get"), "{listed}");
    assert!(listed.contains("command kvstore.v1.KvStore/Put"), "{listed}");
    // The module refuses an empty key; a method that does not exist is wrong usage.
    let rejected = cluster.balsa(&["call", "kvstore.v1.KvStore/Put", "{}"]).await;
    assert!(rejected.err.contains("INVALID_ARGUMENT"), "{rejected:?}");
    rejected.ends(5);
    cluster.balsa(&["call", "kvstore.v1.KvStore/Pat", "{}"]).await.ends(2);
    cluster.balsa(&["put", "only a key"]).await.ends(2);
}

async fn shows_its_nodes(cluster: &Cluster) {
    let status = until("one leads, and all are within reach", async || {
        let status = cluster.balsa(&["-o", "json", "status"]).await.json();
        let nodes = status["nodes"].as_array().unwrap();
        let leaders = nodes.iter().filter(|node| node["role"] == "leader").count();
        (leaders == 1 && nodes.iter().all(|node| node["reachable"] == true)).then_some(status)
    })
    .await;
    let nodes = status["nodes"].as_array().unwrap();
    let names: Vec<_> = nodes.iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["balsa-0", "balsa-1", "balsa-2"]);
    assert!(nodes.iter().all(|node| node["fenced"].is_null()), "{status}");
    assert!(nodes.iter().all(|node| node["modules"][0]["name"] == "kvstore-wasm"), "{status}");
    let table = cluster.balsa(&["status"]).await.ends(0);
    assert_eq!(table.lines().filter(|line| line.starts_with("balsa-")).count(), 3, "{table}");
}

async fn says_how_a_node_is(cluster: &Cluster) {
    let http = cluster.nodes[1].http_address();
    let checks = until("it is ready", async || {
        let checks = cluster.balsa(&["health", "--http", &http]).await;
        (checks.code == 0).then_some(checks.out)
    })
    .await;
    assert!(checks.contains("[+]voter ok\n") && checks.ends_with("ok\n"), "{checks}");
    let json = cluster.balsa(&["-o", "json", "health", "--live", "--http", &http]).await.json();
    assert_eq!(json, serde_json::json!({ "well": true, "text": "ok\n" }));
}

#[tokio::test]
async fn a_minority_says_that_it_is_unavailable() {
    let mut cluster = Cluster::start(Setup::default()).await;
    cluster.balsa(&["put", "fruit", "apple"]).await.ends(0);
    let third = cluster.nodes[2].address();
    until("the third node has it, too", async || {
        let get = balsa(cluster.dir(), &["--endpoints", &third, "get", "fruit", "--stale"]).await;
        (get.out == "apple").then_some(())
    })
    .await;
    cluster.nodes[0].kill().await;
    cluster.nodes[1].kill().await;
    let get = cluster.balsa(&["--timeout", "3s", "get", "fruit"]).await;
    assert!(get.err.starts_with("error: "), "{get:?}");
    get.ends(3);
    assert_eq!(cluster.balsa(&["get", "fruit", "--stale"]).await.ends(0), "apple");
    // The command may have been logged by a leader that does not know yet that it is alone.
    let put = cluster.balsa(&["--timeout", "3s", "put", "fruit", "pear"]).await;
    assert!(matches!(put.code, 3 | 4), "{put:?}");

    cluster.nodes[2].kill().await;
    cluster.balsa(&["--timeout", "1s", "get", "fruit", "--stale"]).await.ends(3);
}

#[tokio::test]
async fn a_founder_that_is_alone_is_alive_and_not_ready() {
    let mut cluster = Cluster::stopped(Setup::default()).await;
    let http = cluster.nodes[0].http_address();
    let probe = ["health", "--http", &http];
    cluster.balsa(&probe).await.ends(3);
    cluster.nodes[0].start();
    // It listens in a moment; from then on it is alive.
    let begun = std::time::Instant::now();
    let health = loop {
        let health = cluster.balsa(&probe).await;
        if health.code != 3 {
            break health;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{health:?}");
    };
    assert!(health.out.contains("[-]voter failed"), "{health:?}");
    health.ends(1);
    assert_eq!(cluster.balsa(&[&probe[..], &["--live"]].concat()).await.ends(0), "ok\n");
}

#[tokio::test]
async fn an_empty_variable_is_as_good_as_none() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(".balsa")).unwrap();
    // Nobody listens there.
    std::fs::write(dir.path().join(".balsa/endpoints"), "127.0.0.1:1\n").unwrap();
    std::fs::write(dir.path().join(".balsa/sockets"), "unix:/nowhere/balsa.sock\n").unwrap();
    let balsa = async |arguments: &[&str]| {
        let mut command = program();
        command.args(arguments).args(["--timeout", "100ms"]).current_dir(dir.path());
        for name in ["BALSA_ENDPOINTS", "BALSA_DIR", "BALSA_SOCKET", "BALSA_PEERS", "BALSA_CONFIG"] {
            command.env(name, "");
        }
        run(command).await
    };
    let ran = balsa(&["get", "fruit"]).await;
    assert!(ran.code == 3 && ran.err.contains("127.0.0.1:1 (from "), "{ran:?}");
    let ran = balsa(&["module", "retry"]).await;
    assert!(ran.code == 3 && ran.err.contains("unix:/nowhere/balsa.sock (from "), "{ran:?}");
    std::fs::remove_dir_all(dir.path().join(".balsa")).unwrap();
    let ran = balsa(&["module", "retry"]).await;
    assert!(ran.code == 3 && ran.err.contains("(the socket of the node that would run here)"), "{ran:?}");
    let ran = balsa(&["restore", "absent", "--name", "balsa-0"]).await;
    assert!(ran.code == 2 && ran.err.contains("absent: No such file"), "{ran:?}");
}

#[tokio::test]
async fn an_error_in_the_configuration_ends_with_code_2_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("balsa.toml");
    std::fs::write(&file, "[node]\ndata_dir = \"data\"\nclient_adr = \"127.0.0.1:6000\"\n").unwrap();
    let ran = balsa(dir.path(), &["serve", "--config", "balsa.toml"]).await;
    assert!(ran.err.contains("client_adr") && ran.err.contains("client_addr"), "{ran:?}");
    assert!(ran.err.contains("3"), "it names the line: {ran:?}");
    ran.ends(2);
    assert!(!dir.path().join("data").exists());
    balsa(dir.path(), &["config", "check", "balsa.toml"]).await.ends(2);
}

#[tokio::test]
async fn sigterm_hands_leadership_over_and_ends_with_code_0() {
    // So slow to elect that a new leader within seconds can only have been asked to stand.
    let mut cluster = Cluster::start(Setup { raft: Some(SLOW_ELECTIONS), ..Setup::default() }).await;
    cluster.balsa(&["put", "fruit", "apple"]).await.ends(0);
    let leader = cluster.leader().await;
    let begun = std::time::Instant::now();
    assert_eq!(cluster.nodes[leader].terminate().await.code(), Some(0));
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    cluster.balsa(&["put", "fruit", "pear"]).await.ends(0);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(cluster.nodes[leader].log().contains("handing leadership over"));
}
