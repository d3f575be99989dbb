//! Files that change, vanish or are broken, under nodes that run and under nodes that start.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use balsa::client::Read;
use balsa::proto::admin::NodeStatus;
use rustix::process::{Pid, Signal, kill_process};
use uuid::Uuid;

use crate::harness::{Cluster, PATIENCE, Setup, perish_with_us, program, until};
use crate::hostile;

/// A cluster that does not run yet, whose `[[module]]` is a file of its own.
async fn with_a_file() -> (Cluster, PathBuf) {
    let cluster = Cluster::stopped(Setup { hostile: true, ..Setup::default() }).await;
    let file = cluster.dir().join("hostile.wasm");
    fs::copy(hostile::wasm(), &file).unwrap();
    edit(&cluster, |toml| toml.replace(&format!("{:?}", hostile::wasm()), "\"hostile.wasm\""));
    (cluster, file)
}

fn edit(cluster: &Cluster, change: impl FnOnce(String) -> String) {
    let path = cluster.dir().join("balsa.toml");
    let changed = change(fs::read_to_string(&path).unwrap());
    let draft = cluster.dir().join("balsa.toml.new");
    fs::write(&draft, changed).unwrap();
    fs::rename(&draft, &path).unwrap();
}

/// Until each node says this of itself.
async fn all_say(cluster: &Cluster, what: &str, is_so: impl Fn(&NodeStatus) -> bool) {
    for node in &cluster.nodes {
        until(&format!("{} {what}", node.name), async || node.own_status().await.filter(&is_so)).await;
    }
}

#[tokio::test]
async fn a_first_start_without_the_modules_file_is_refused_before_anything_is_written() {
    let (mut cluster, file) = with_a_file().await;
    fs::remove_file(&file).unwrap();
    let node = &mut cluster.nodes[0];
    node.start();
    assert_eq!(node.exited().await.code(), Some(2));
    assert!(node.log().contains("there is no module file"), "{}", node.log());
    assert!(!node.data_dir.exists());
    fs::write(&file, &fs::read(hostile::wasm()).unwrap()[..5000]).unwrap();
    node.start();
    assert_eq!(node.exited().await.code(), Some(2));
    assert!(node.log().contains("is not a complete WebAssembly module"), "{}", node.log());
}

#[tokio::test]
async fn nodes_that_start_without_the_file_run_what_the_log_says() {
    let (mut cluster, file) = with_a_file().await;
    cluster.start_all();
    cluster.ready().await;
    cluster.client().call(&hostile::add(&Uuid::now_v7().to_string(), 5)).await.unwrap();
    for node in &mut cluster.nodes {
        assert!(node.terminate().await.success());
    }
    fs::remove_file(&file).unwrap();
    cluster.start_all();
    cluster.ready().await;
    assert_eq!(hostile::total(&cluster.client(), Read::Linearizable).await.unwrap(), 5);
    all_say(&cluster, "says what is missing", |status| {
        let hostile = status.modules.iter().any(|module| module.name == "hostile");
        hostile && status.problems.iter().any(|problem| problem.contains("hostile.wasm does not exist"))
    })
    .await;
    fs::copy(hostile::wasm(), &file).unwrap();
    all_say(&cluster, "has no problem any more", |status| status.problems.is_empty()).await;
    cluster.assert_same_state().await;
}

#[tokio::test]
async fn an_edited_file_is_obeyed_as_far_as_it_can_be_and_the_rest_is_named() {
    let cluster = Cluster::start(Setup::default()).await;
    edit(&cluster, |toml| format!("{toml}\n[log]\nlevel = \"debug\"\nformat = \"json\"\n"));
    all_say(&cluster, "names the format", |status| status.restart_for == ["log.format: \"text\" -> \"json\""]).await;
    for node in &cluster.nodes {
        until("there are DEBUG lines", async || node.log().contains("DEBUG").then_some(())).await;
    }
    edit(&cluster, |toml| toml.replace("level = \"debug\"", "level = \"loud\""));
    all_say(&cluster, "says where the error is", |status| {
        status.problems.iter().any(|problem| problem.contains(":") && problem.contains("`level` cannot be \"loud\""))
    })
    .await;
    edit(&cluster, |toml| toml.replace("level = \"loud\"\nformat = \"json\"\n", ""));
    all_say(&cluster, "is content", |status| status.problems.is_empty() && status.restart_for.is_empty()).await;
}

#[tokio::test]
async fn what_is_edited_under_balsa_up_reaches_its_nodes() {
    let cluster = Cluster::stopped(Setup::default()).await;
    let mut command = program();
    command.args(["up", "--config", "balsa.toml", "--dir", "up"]).current_dir(cluster.dir());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    perish_with_us(&mut command);
    let mut up = command.spawn().unwrap();
    all_say(&cluster, "runs the built-in module", |status| status.modules.len() == 1).await;
    fs::copy(hostile::wasm(), cluster.dir().join("hostile.wasm")).unwrap();
    edit(&cluster, |toml| format!("{toml}\n[[module]]\nname = \"hostile\"\npath = \"hostile.wasm\"\n"));
    all_say(&cluster, "runs the module of the file", |status| {
        status.modules.iter().any(|module| module.name == "hostile")
    })
    .await;
    kill_process(Pid::from_raw(up.id().unwrap().try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
    let ended = tokio::time::timeout(PATIENCE, up.wait()).await.expect("`balsa up` ends when it is told to");
    assert!(ended.unwrap().success());
}
