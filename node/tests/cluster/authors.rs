//! What authors and operators do with modules, on real processes: from a new project to a swap, and from a backup to a push.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::harness::{Cluster, Ran, Setup, balsa, free_ports, perish_with_us, program, reserve, turn, until_within};
use crate::project::mirror;

/// What cargo builds for these tests is kept from run to run.
fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("module-new")
}

/// `balsa module new NAME` at a place that is the same in each run.
async fn new_project(name: &str) -> PathBuf {
    let new = tempfile::tempdir().unwrap();
    balsa(new.path(), &["module", "new", name]).await.ends(0);
    let project = target_dir().with_file_name("module-new-projects").join(name);
    mirror(&new.path().join(name), &project);
    project
}

/// What that may take.
const BUILD: Duration = Duration::from_secs(15 * 60);

/// Builds `project` with what is in the registry's cache. Takes a minute the first time.
async fn build(project: &Path) {
    let mut cargo = tokio::process::Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--release", "--offline", "--lib", "--target", "wasm32-wasip1"]);
    cargo.current_dir(project).env("CARGO_TARGET_DIR", target_dir()).kill_on_drop(true);
    let output = tokio::time::timeout(BUILD, cargo.output()).await.expect("cargo ends").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `balsa dev`, which ends when it is dropped.
struct Dev {
    project: PathBuf,
    log: PathBuf,
    _process: tokio::process::Child,
}

impl Dev {
    fn start(project: &Path) -> Self {
        let log = project.with_extension("log");
        let mut dev = program();
        // Its HTTP port is 80 above the first, and the first of other ports that tests take.
        let port = std::iter::repeat_with(|| free_ports(2)).take(100).find(|port| reserve(port + 80)).unwrap();
        dev.args(["dev", "--port", &port.to_string()]).current_dir(project).stdin(Stdio::null());
        dev.env("CARGO_TARGET_DIR", target_dir()).env("CARGO_NET_OFFLINE", "true");
        dev.stdout(Stdio::null()).stderr(File::create(&log).unwrap()).kill_on_drop(true);
        perish_with_us(&mut dev);
        Self { project: project.into(), log, _process: dev.spawn().unwrap() }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it has said `what` so many times.
    async fn says(&self, what: &str, times: usize) {
        // Cargo builds meanwhile.
        until_within(BUILD, &format!("`balsa dev` has said {what:?} {times} times"), async || {
            (self.log().matches(what).count() >= times).then_some(())
        })
        .await;
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.project.join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    async fn call(&self, method: &str, message: &str) -> Ran {
        balsa(&self.project, &["call", method, message]).await
    }
}

#[tokio::test]
async fn a_project_is_swapped_on_each_save_and_a_broken_one_changes_nothing() {
    let _turn = turn().await;
    let project = new_project("basket").await;
    build(&project).await;

    let dev = Dev::start(&project);
    dev.says(" serves, ", 1).await;
    assert_eq!(dev.call("Add", r#"{"name":"apples","amount":2}"#).await.json()["total"], "2");

    let second = balsa(&project, &["dev", "--fresh"]).await;
    assert!(second.err.contains("`balsa dev` runs in "), "the state of the one that runs is not deleted: {second:?}");
    second.ends(2);

    dev.edit("src/lib.rs", "Ok(AddResponse { total })", "Ok(AddResponse { total: total * 100 })");
    dev.says(" serves, ", 2).await;
    assert_eq!(dev.call("Add", r#"{"name":"apples","amount":3}"#).await.json()["total"], "500", "the state stays");

    dev.edit("src/lib.rs", "total * 100", "total *");
    dev.says("it does not build; the module that serves stays", 1).await;
    assert_eq!(dev.call("Get", r#"{"name":"apples"}"#).await.json()["total"], "5");

    // Only with the last of these edits is there anything that builds.
    dev.edit("proto/basket.proto", "rpc Get(", "rpc Peek(");
    dev.edit("src/lib.rs", "fn get(", "fn peek(");
    dev.edit("src/lib.rs", "total *", "total");
    dev.says("clients of the module before would notice: ", 1).await;
    dev.says(" serves, ", 3).await;
    assert_eq!(dev.call("Peek", r#"{"name":"apples"}"#).await.json()["total"], "5");
}

/// The built-in module with other bytes, and so another hash.
fn another_kvstore() -> Vec<u8> {
    let mut wasm = balsa::wasm::embedded::KVSTORE.to_vec();
    // A custom section of one byte, its name's length.
    wasm.extend([0, 5, 4, b's', b'a', b'l', b't']);
    wasm
}

#[tokio::test]
async fn a_module_is_tried_on_a_backup_pushed_to_the_cluster_and_remembered() {
    let cluster = Cluster::start(Setup::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (file, backup) = (path("kv.wasm"), path("backup"));
    fs::write(&file, another_kvstore()).unwrap();
    cluster.balsa(&["put", "fruit", "apple"]).await.ends(0);

    let written = cluster.balsa(&["-o", "json", "backup", &backup]).await.json();
    assert!(written["rows"].as_u64().unwrap() > 5, "{written}");
    cluster.balsa(&["put", "fruit", "plum"]).await.ends(0);
    let tried = cluster.balsa(&["-o", "json", "module", "try", &file, "--on", &backup]).await.json();
    assert_eq!((&tried["ok"], &tried["index"]), (&true.into(), &written["index"]), "{tried}");
    cluster.balsa(&["module", "check", &file, "--against-cluster"]).await.ends(0);

    let pushed = cluster.balsa(&["module", "push", &file]).await;
    assert!(pushed.err.contains("checking"), "{pushed:?}");
    let said = pushed.ends(0);
    assert!(said.contains("activated in place of"), "{said}");
    assert_eq!(cluster.balsa(&["get", "fruit"]).await.ends(0), "plum", "the state stays");
    let history = cluster.balsa(&["module", "history"]).await.ends(0);
    assert_eq!(history.lines().count(), 2, "{history}");
    assert!(history.lines().last().unwrap().contains("(pushed by "), "{history}");
    let listed = cluster.balsa(&["module", "list"]).await.ends(0);
    assert!(listed.starts_with("kvstore-wasm: ") && listed.contains("the built-in one on all nodes"), "{listed}");

    fs::write(&file, b"\0asm\x01\0\0\0").unwrap();
    let refused = cluster.balsa(&["module", "push", &file]).await;
    assert!(refused.err.contains("refused: "), "{refused:?}");
    refused.ends(5);
    cluster.balsa(&["module", "drop", "kvstore-wasm"]).await.ends(1);
    let kept = cluster.balsa(&["module", "drop", "kvstore-wasm", "--yes"]).await;
    assert!(kept.err.starts_with("error: refused: "), "{kept:?}");
    kept.ends(5);
}
