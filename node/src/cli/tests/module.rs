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
    for line in ["name     kvstore-wasm", "abi      1", "init     no", "\nkvstore.v1.KvStore\n", "imports\n  balsa_v1."] {
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
