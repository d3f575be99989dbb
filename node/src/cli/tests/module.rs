//! `balsa module`, as a shell runs it.

use prost::Message;

use super::*;
use crate::client::fake::{stream, stream_without_end};
use crate::proto::admin::module_push_request::Part;
use crate::proto::admin::module_push_response::Event;
use crate::proto::admin::{Change, ModulePushRequest, ModulePushResponse, ModuleRetryRequest, ModuleWish, Wish};
use crate::proto::command::activation::Outcome;
use crate::proto::command::{Activated, Activation, Refused, Source};
use crate::testing::project::mirror;
use crate::wasm::embedded::KVSTORE;

/// A shell with a file beside it.
fn shell(arguments: &[&str], name: &str, content: &[u8]) -> Shell {
    Shell::new(arguments).file(name, content)
}

fn wasm(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[test]
fn an_inspection_lists_what_the_module_says() {
    let ran = shell(&["module", "inspect", "kv.wasm"], "kv.wasm", KVSTORE).run().exits(Exit::Ok);
    let text = ran.text();
    for line in ["name     kvstore-wasm", "abi      1", "init     no", "\nkvstore.v1.KvStore\n", "imports\n  balsa_v1."]
    {
        assert!(text.contains(line), "{line:?} is not in:\n{text}");
    }
    assert!(text.contains("  command  Put          (kvstore.v1.PutRequest) -> kvstore.v1.PutResponse\n"), "{text}");
    assert!(text.contains("  query    Get          (kvstore.v1.GetRequest) -> kvstore.v1.GetResponse\n"), "{text}");

    let ran = shell(&["module", "inspect", "kv.wasm", "-o", "json"], "kv.wasm", KVSTORE).run().exits(Exit::Ok);
    let json = ran.json();
    assert_eq!((&json["size"], &json["name"]), (&KVSTORE.len().into(), &"kvstore-wasm".into()));
    assert_eq!(json["methods"][0]["method"], "kvstore.v1.KvStore/Put");
    assert_eq!(json["methods"][0]["kind"], "command");
}

#[test]
fn a_file_that_is_no_module_is_told_what_it_is() {
    let ran = shell(&["module", "inspect", "x.wasm"], "x.wasm", b"\x7fELF").run().exits(Exit::No);
    let expected = "error: x.wasm is not a module that can be read: this is not a WebAssembly binary";
    assert!(ran.err.starts_with(expected), "{}", ran.err);
    let ran = Shell::new(&["module", "check", "absent.wasm"]).run().exits(Exit::Usage);
    assert!(ran.err.starts_with("error: cannot read absent.wasm: No such file"), "{}", ran.err);
    let large = vec![0; crate::limits::MODULE_BYTES_MAX + 1];
    let ran = shell(&["module", "push", "x.wasm"], "x.wasm", &large).run().exits(Exit::No);
    assert_eq!(ran.err, "error: x.wasm has more than 33554432 bytes, which is the most that a module has\n");
}

#[test]
fn a_module_that_a_node_takes_passes_the_check() {
    let ran = shell(&["module", "check", "kv.wasm"], "kv.wasm", KVSTORE).run().exits(Exit::Ok);
    assert!(ran.text().starts_with("kvstore-wasm 0.1.0 "), "{}", ran.text());
    assert!(ran.text().ends_with("; it starts, and a node takes it\nOK\n"), "{}", ran.text());
    let ran = shell(&["module", "check", "kv.wasm", "-o", "json"], "kv.wasm", KVSTORE).run().exits(Exit::Ok);
    assert_eq!((&ran.json()["ok"], &ran.json()["problem"]), (&true.into(), &serde_json::Value::Null));
}

#[test]
fn a_module_that_a_node_refuses_is_told_what_would_mend_it() {
    let sockets = wasm(r#"(module (import "env" "socket" (func)))"#);
    let ran = shell(&["module", "check", "s.wasm"], "s.wasm", &sockets).run().exits(Exit::No);
    insta::assert_snapshot!(ran.text(), @"
    s.wasm is refused: the module imports `env.socket`, which the host does not offer; it may import from `balsa_v1` and a part of `wasi_snapshot_preview1` (see sdk/ABI.md): remove what needs it (files, sockets, threads, sleeping)
    NOT OK
    ");
    let ran = shell(&["module", "check", "s.wasm", "-o", "json"], "s.wasm", &sockets).run().exits(Exit::No);
    assert_eq!(ran.json()["ok"], false);
    assert!(ran.json()["problem"].as_str().unwrap().contains("`env.socket`"));
}

// --- A new project ---

/// `balsa module new NAME` in a directory that stays.
fn new_project(name: &str, directory: &std::path::Path) -> Ran {
    let target = directory.join(name).display().to_string();
    Shell::new(&["module", "new", name, "--dir", &target]).run()
}

/// A directory below this repository's target directory.
fn target(name: &str) -> std::path::PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(3).expect("<target>/debug/deps/test").join(name)
}

/// cargo in `project`, with a target directory that all runs of this test share, from what the registry's cache has.
fn cargo(project: &std::path::Path, arguments: &[&str]) {
    let target = target("module-new");
    let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments).args(["--offline", "--quiet"]).current_dir(project).env("CARGO_TARGET_DIR", target);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_PKG_")) {
        cargo.env_remove(name);
    }
    let ran = cargo.output().unwrap();
    assert!(ran.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// Name and version of each package of a lock file.
fn versions(lock: &str) -> Vec<String> {
    lock.split("[[package]]").skip(1).map(|package| package.lines().skip(1).take(2).collect()).collect()
}

#[test]
fn a_new_project_builds_passes_its_tests_and_is_taken_by_a_node() {
    let directory = tempfile::tempdir().unwrap();
    let ran = new_project("status-board", directory.path()).exits(Exit::Ok);
    assert!(ran.text().contains("target/wasm32-wasip1/release/status_board.wasm"), "{}", ran.text());
    let project = target("module-new-projects/status-board");
    mirror(&directory.path().join("status-board"), &project);
    let lock = std::fs::read_to_string(project.join("Cargo.lock")).unwrap();

    cargo(&project, &["test"]);
    cargo(&project, &["build", "--release", "--target", "wasm32-wasip1"]);
    let used = std::fs::read_to_string(project.join("Cargo.lock")).unwrap();
    let chosen_anew: Vec<_> = versions(&used).into_iter().filter(|id| !versions(&lock).contains(id)).collect();
    assert_eq!(chosen_anew, <[String; 0]>::default(), "every version is the one that was written");

    let wasm = std::fs::read(target("module-new/wasm32-wasip1/release/status_board.wasm")).unwrap();
    let ran = shell(&["module", "check", "built.wasm", "-o", "json"], "built.wasm", &wasm).run().exits(Exit::Ok);
    assert_eq!((&ran.json()["name"], &ran.json()["version"]), (&"status-board".into(), &"0.1.0".into()));
    assert_eq!(ran.json()["warnings"], serde_json::json!([]));
    assert!(wasm.len() < 100_000, "a small module has {} bytes", wasm.len());
}

#[test]
fn a_new_project_never_overwrites_anything() {
    let directory = tempfile::tempdir().unwrap();
    let project = directory.path().join("board");
    std::fs::create_dir(&project).unwrap();
    new_project("board", directory.path()).exits(Exit::Ok);
    assert!(project.join("balsa-sdk/build/src/lib.rs").exists());
    std::fs::write(project.join("src/lib.rs"), "mine").unwrap();
    let ran = new_project("board", directory.path()).exits(Exit::Usage);
    assert!(ran.err.ends_with(
        "exists already, and nothing in it is overwritten; choose another name, or another place with --dir\n"
    ));
    assert_eq!(std::fs::read_to_string(project.join("src/lib.rs")).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn a_name_that_cannot_be_one_is_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let ran = new_project("My-Module", directory.path()).exits(Exit::Usage);
    assert!(ran.err.ends_with(", such as my-module\n"), "{}", ran.err);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

// --- Operators ---

fn row(name: &str, version: &str, index: u64, outcome: Outcome) -> Activation {
    Activation {
        name: name.into(),
        version: version.into(),
        index,
        time_ms: 1_700_000_000_000 + index * 1000,
        hash: vec![index as u8; 32].into(),
        source: Source::Push.into(),
        proposed_by: "pushed by ann@laptop".into(),
        outcome: Some(outcome),
    }
}

fn activated() -> Activation {
    let outcome =
        Activated { from_version: "0.1.0".into(), from_hash: vec![1; 32].into(), fuel: 1234, writes: 5, bytes: 60 };
    row("kvstore", "0.2.0", 0xab, Outcome::Activated(outcome))
}

fn refused() -> Activation {
    let reason = "method kvstore.v1.KvStore/Put was removed\nfield 2 of kvstore.v1.KeyValue changed its type";
    row("kvstore", "0.3.0", 0xbc, Outcome::Refused(Refused { reason: reason.into(), ..Default::default() }))
}

fn events(stages: &[&str], done: Option<Activation>) -> Vec<ModulePushResponse> {
    let stages = stages.iter().map(|stage| Event::Stage((*stage).into()));
    let event = |event| ModulePushResponse { event: Some(event) };
    stages.chain(done.map(Event::Done)).map(event).collect()
}

fn pushing(end: impl Fn() -> crate::client::fake::Answer + Send + 'static) -> FakeCluster {
    let cluster = FakeCluster::of(1);
    cluster.change(|cluster| cluster.pushed = Some(Box::new(end)));
    cluster
}

fn push(cluster: &FakeCluster, content: &[u8], arguments: &[&str]) -> Ran {
    Shell::on(cluster, &[&["module", "push", "m.wasm"], arguments].concat()).file("m.wasm", content).run()
}

#[test]
fn a_push_sends_the_file_and_says_what_was_done_and_what_came_of_it() {
    let cluster = pushing(|| stream(events(&["checking", "uploading"], Some(activated()))));
    let content = vec![7; 2_500_000];
    let ran = push(&cluster, &content, &["--without", "balsa-2", "--allow-breaking"]).exits(Exit::Ok);
    assert_eq!(ran.err, "checking\nuploading\n");
    insta::assert_snapshot!(ran.text(), @"kvstore 0.2.0 abababababab: activated in place of 0.1.0 010101010101; migrate wrote 5 rows (60 bytes) with 1234 fuel, at index 171");

    let asked = cluster.asked().into_iter().find(|asked| asked.path.ends_with("/ModulePush")).unwrap();
    let part = |message| ModulePushRequest::decode(message).unwrap().part.unwrap();
    let Part::Header(header) = part(asked.message) else { panic!("the header comes first") };
    assert!(header.allow_breaking && header.without == ["balsa-2"] && header.pushed_by.contains('@'), "{header:?}");
    let data = asked.more.into_iter().map(|message| match part(message) {
        Part::Data(data) => data,
        Part::Header(_) => panic!("there is one header"),
    });
    let data: Vec<_> = data.collect();
    assert!(data.iter().all(|piece| piece.len() <= 1024 * 1024));
    assert_eq!(data.concat(), content);
}

#[test]
fn a_push_that_is_refused_is_exit_code_5_with_the_reasons() {
    let cluster = pushing(|| stream(events(&["checking"], Some(refused()))));
    let ran = push(&cluster, b"x", &[]).exits(Exit::Rejected);
    insta::assert_snapshot!(ran.text(), @"
    kvstore 0.3.0 bcbcbcbcbcbc: refused, at index 188
      method kvstore.v1.KvStore/Put was removed
      field 2 of kvstore.v1.KeyValue changed its type
    ");
    let ran = push(&cluster, b"x", &["-o", "json"]).exits(Exit::Rejected);
    assert_eq!((&ran.json()["outcome"], &ran.json()["source"]), (&"refused".into(), &"push".into()));

    let cluster = pushing(|| Err(Status::invalid_argument("it is no module")));
    let ran = push(&cluster, b"x", &[]).exits(Exit::Rejected);
    assert_eq!(ran.err, "error: refused: it is no module\n");
}

#[test]
fn a_push_that_is_not_decided_in_time_is_exit_code_3_and_says_what_it_waited_for() {
    let cluster = pushing(|| stream_without_end(events(&["waiting for balsa-2"], None)));
    let ran = push(&cluster, b"x", &["--timeout", "2s"]).exits(Exit::Unavailable);
    assert!(ran.err.contains("not decided in time"), "{}", ran.err);
    assert!(ran.err.contains("\"waiting for balsa-2\", and may still finish: see `balsa module list`"), "{}", ran.err);
}

#[test]
fn the_history_is_a_line_for_each_change_with_the_reasons_below() {
    let cluster = FakeCluster::of(1);
    let first = Activation {
        source: Source::Genesis.into(),
        proposed_by: String::new(),
        ..row("kvstore", "0.1.0", 1, Outcome::Activated(Activated::default()))
    };
    cluster.change(|cluster| {
        cluster.history = vec![first, activated(), refused(), row("old", "1.0.0", 200, Outcome::Dropped(true))]
    });
    let ran = Shell::on(&cluster, &["module", "history"]).run().exits(Exit::Ok);
    insta::assert_snapshot!(ran.text(), @"
      1  2023-11-14T22:13:21Z  kvstore 0.1.0 010101010101  activated  (genesis)
    171  2023-11-14T22:16:11Z  kvstore 0.2.0 abababababab  activated in place of 0.1.0 010101010101; migrate wrote 5 rows (60 bytes) with 1234 fuel  (pushed by ann@laptop)
    188  2023-11-14T22:16:28Z  kvstore 0.3.0 bcbcbcbcbcbc  refused  (pushed by ann@laptop)
         method kvstore.v1.KvStore/Put was removed
         field 2 of kvstore.v1.KeyValue changed its type
    200  2023-11-14T22:16:40Z  old 1.0.0 c8c8c8c8c8c8      dropped; its state is deleted  (pushed by ann@laptop)
    ");
    let ran = Shell::on(&cluster, &["module", "history", "old", "-o", "json"]).run().exits(Exit::Ok);
    assert_eq!((&ran.json()["name"], &ran.json()["outcome"]), (&"old".into(), &"dropped".into()));
    let ran = Shell::on(&cluster, &["module", "history", "never"]).run().exits(Exit::No);
    assert_eq!(ran.err, "no module called never was ever wanted\n");
}

fn wish(modules: &[(&str, &[u8])]) -> Wish {
    let wish = |(name, hash): &(&str, &[u8])| ModuleWish {
        name: (*name).into(),
        hash: hash.to_vec().into(),
        ..Default::default()
    };
    Wish { hash: vec![5; 32].into(), modules: modules.iter().map(wish).collect(), ..Default::default() }
}

#[test]
fn a_list_puts_what_is_wanted_beside_what_is_active_and_what_is_under_way() {
    let cluster = FakeCluster::of(3);
    cluster.change(|cluster| {
        let same = wish(&[("counter", &[9; 32]), ("kvstore", &[0xab; 32])]);
        cluster.wishes = vec![same.clone(), same, wish(&[("kvstore", &[0xbc; 32])])];
        cluster.history = vec![
            refused(),
            row("old", "1.0.0", 200, Outcome::Stopped(true)),
            row("gone", "1.0.0", 201, Outcome::Dropped(true)),
        ];
        cluster.changes = vec![Change {
            name: "counter".into(),
            hash: vec![9; 32].into(),
            wanted_by: "files".into(),
            stage: "waiting for balsa-2".into(),
            since_ms: 1,
        }];
    });
    let ran = Shell::on(&cluster, &["module", "list"]).run().exits(Exit::Ok);
    insta::assert_snapshot!(ran.text(), @"
    counter: does not serve; files want 090909090909 on balsa-0, balsa-1
      under way: 090909090909, wanted by files: waiting for balsa-2
    kvstore: 0.1.0 abababababab serves since index 0; files want the same on balsa-0, balsa-1; bcbcbcbcbcbc on balsa-2
      refused at index 188: kvstore 0.3.0 bcbcbcbcbcbc
        method kvstore.v1.KvStore/Put was removed
        field 2 of kvstore.v1.KeyValue changed its type
    old: does not serve; its state is kept; files want none of it
    ");
    let ran = Shell::on(&cluster, &["module", "status", "-o", "json"]).run().exits(Exit::Ok);
    let first: serde_json::Value = serde_json::from_str(ran.text().lines().next().unwrap()).unwrap();
    assert_eq!((&first["name"], &first["change"]["stage"]), (&"counter".into(), &"waiting for balsa-2".into()));

    let ran = Shell::on(&cluster, &["status"]).run().exits(Exit::Ok);
    assert!(
        ran.text().contains("\n\nmodule counter 090909090909, wanted by files: waiting for balsa-2\n"),
        "{}",
        ran.text()
    );

    let ran = Shell::on(&cluster, &["module", "retry", "--without", "balsa-2"]).run().exits(Exit::Ok);
    assert!(ran.text().starts_with("tried again: counter;"), "{}", ran.text());
    let asked = cluster.asked().into_iter().rfind(|asked| asked.path.ends_with("/ModuleRetry")).unwrap();
    assert_eq!(ModuleRetryRequest::decode(asked.message).unwrap().without, ["balsa-2"]);
    Shell::on(&cluster, &["module", "retry", "kvstore"]).run().exits(Exit::No);
}

#[test]
fn what_was_refused_long_ago_is_not_listed_and_hides_no_state_that_is_kept() {
    let cluster = FakeCluster::of(1);
    let no = || Outcome::Refused(Refused { reason: "no".into(), ..Default::default() });
    cluster.change(|cluster| {
        cluster.history = vec![
            row("never", "1.0.0", 3, no()),
            row("old", "1.0.0", 4, Outcome::Stopped(true)),
            row("old", "2.0.0", 5, no()),
            row("gone", "1.0.0", 6, Outcome::Dropped(true)),
            row("gone", "1.0.0", 7, no()),
        ];
    });
    let ran = Shell::on(&cluster, &["module", "list"]).run().exits(Exit::Ok);
    insta::assert_snapshot!(ran.text(), @"
    kvstore: 0.1.0 abababababab serves since index 0; files want none of it
    old: does not serve; its state is kept; files want none of it
    ");
    for name in ["never", "gone"] {
        let ran = Shell::on(&cluster, &["module", "drop", name]).run().exits(Exit::No);
        assert!(ran.err.starts_with(&format!("error: no module called {name} is there")), "{}", ran.err);
    }
}

#[test]
fn what_files_want_is_not_offered_to_be_dropped() {
    let cluster = FakeCluster::of(1);
    cluster.change(|cluster| cluster.wishes = vec![wish(&[("kvstore", &[0xab; 32])])]);
    let ran = Shell::on(&cluster, &["module", "drop", "kvstore"]).run().exits(Exit::No);
    insta::assert_snapshot!(ran.text(), @"
    kvstore: 0.1.0 abababababab serves since index 0
    files want it, so it would be refused: take its [[module]] out of them first; nothing was done
    ");
    let ran = Shell::on(&cluster, &["module", "drop", "kvstore", "-o", "json"]).run().exits(Exit::No);
    assert_eq!(ran.json()["now"], "0.1.0 abababababab serves since index 0");
}

#[test]
fn nothing_is_dropped_without_a_yes() {
    let cluster = FakeCluster::of(1);
    cluster.change(|cluster| cluster.history = vec![row("old", "1.0.0", 200, Outcome::Stopped(true))]);
    let ran = Shell::on(&cluster, &["module", "drop", "old"]).run().exits(Exit::No);
    insta::assert_snapshot!(ran.text(), @"
    old: does not serve; its state is kept
    all of its state would be deleted on every node; nothing was done
    to do it: balsa module drop old --yes (after `balsa backup FILE`)
    ");
    assert!(cluster.asked().iter().all(|asked| !asked.path.ends_with("/ModuleDrop")));
    let ran = Shell::on(&cluster, &["module", "drop", "old", "--yes"]).run().exits(Exit::Ok);
    assert_eq!(ran.text(), "old is dropped: 7 rows are deleted\n");
    let ran = Shell::on(&cluster, &["module", "drop", "kvstore", "--yes"]).run().exits(Exit::Rejected);
    assert_eq!(ran.err, "error: refused: kvstore serves\n");
    let ran = Shell::on(&cluster, &["module", "drop", "never"]).run().exits(Exit::No);
    assert!(ran.err.starts_with("error: no module called never"), "{}", ran.err);
}

#[test]
fn status_says_what_is_wrong_with_a_nodes_files() {
    let cluster = FakeCluster::of(1);
    cluster.change(|cluster| {
        cluster.problems = vec!["balsa.toml: line 3: unknown key".into()];
        cluster.restart_for = vec!["node.queries: 2 -> 4".into(), "cluster.replicas: 3 -> 5".into()];
    });
    let ran = Shell::on(&cluster, &["status"]).run().exits(Exit::Ok);
    let expected = "\n\nwarning: balsa-0: balsa.toml: line 3: unknown key\n\
                    warning: balsa-0 obeys node.queries: 2 -> 4 only after a restart\n\
                    warning: balsa-0 obeys cluster.replicas: 3 -> 5 only after a restart\n";
    assert!(ran.text().ends_with(expected), "{}", ran.text());
    let ran = Shell::on(&cluster, &["status", "-o", "json"]).run().exits(Exit::Ok);
    assert_eq!(ran.json()["nodes"][0]["restart_for"][1], "cluster.replicas: 3 -> 5");
    // What a node says to all is not said twice.
    cluster.change(|cluster| {
        cluster.warnings = vec![
            "balsa-0: balsa.toml: line 3: unknown key".into(),
            "balsa-0 obeys node.queries: 2 -> 4 only after a restart".into(),
        ];
    });
    let ran = Shell::on(&cluster, &["status"]).run().exits(Exit::Ok);
    assert_eq!(ran.text().matches("warning: ").count(), 3, "{}", ran.text());
}

#[test]
fn operators_commands_go_to_the_socket_or_the_port_for_peers_that_is_given() {
    let cluster = pushing(|| stream(events(&[], Some(activated()))));
    let push =
        |arguments: &[&str]| Shell::new(&[&["module", "push", "m.wasm"], arguments].concat()).file("m.wasm", b"x");
    push(&["--peers", &cluster.endpoints()]).run().exits(Exit::Ok);
    assert!(cluster.asked().iter().all(|asked| asked.path.ends_with("Operator/ModulePush")), "nobody asked for peers");

    let ran = push(&["--socket", "no.sock", "--timeout", "100ms"]).run().exits(Exit::Unavailable);
    assert!(ran.err.contains("no.sock: No such file or directory"), "{}", ran.err);
    assert!(ran.err.contains("check the socket or the addresses"), "{}", ran.err);
    push(&["--socket", "no.sock", "--peers", "a:1"]).run().exits(Exit::Usage);
}

#[test]
fn operators_commands_find_the_local_cluster_by_its_sockets() {
    let cluster = pushing(|| stream(events(&[], Some(activated()))));
    let push =
        |arguments: &[&str]| Shell::new(&[&["module", "push", "m.wasm"], arguments].concat()).file("m.wasm", b"x");
    let sockets = cluster.endpoints().replace(',', "\n");
    push(&[]).file(".balsa/sockets", sockets.as_bytes()).run().exits(Exit::Ok);
    // Clients find one there, and operators do not.
    let nobody = push(&["--timeout", "100ms"]);
    let ran = nobody.file(".balsa/endpoints", sockets.as_bytes()).run().exits(Exit::Unavailable);
    assert!(ran.err.contains("balsa.sock (the socket of the node that would run here): "), "{}", ran.err);
    assert!(ran.err.contains("is served to operators only: start a local cluster with `balsa up`"), "{}", ran.err);
}

#[test]
fn an_operators_command_at_the_ports_of_clients_goes_on_to_those_for_peers() {
    let cluster = pushing(|| stream(events(&[], Some(activated()))));
    push(&cluster, b"x", &[]).exits(Exit::Ok);
    let paths: Vec<_> = cluster.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(paths, ["/balsa.admin.v1.Admin/Status", "/balsa.admin.v1.Operator/ModulePush"]);
}
