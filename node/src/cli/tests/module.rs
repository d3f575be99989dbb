//! `balsa module`, as a shell runs it.

use super::*;
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

/// cargo in `project`, with a target directory that all runs of this test share, from what the registry's cache has.
fn cargo(project: &std::path::Path, arguments: &[&str]) {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).expect("<target>/debug/deps/test").join("module-new");
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
    let project = directory.path().join("status-board");
    let lock = std::fs::read_to_string(project.join("Cargo.lock")).unwrap();

    cargo(&project, &["test"]);
    cargo(&project, &["build", "--release", "--target", "wasm32-wasip1"]);
    let used = std::fs::read_to_string(project.join("Cargo.lock")).unwrap();
    let chosen_anew: Vec<_> = versions(&used).into_iter().filter(|id| !versions(&lock).contains(id)).collect();
    assert_eq!(chosen_anew, <[String; 0]>::default(), "every version is the one that was written");

    let test = std::env::current_exe().unwrap();
    let built = test.ancestors().nth(3).unwrap().join("module-new/wasm32-wasip1/release/status_board.wasm");
    let wasm = std::fs::read(built).unwrap();
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
