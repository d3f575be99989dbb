//! Commands as a shell runs them, from arguments to exit code, against fake nodes.

mod call;
mod module;
mod recover;
mod rehearsal;
mod store;

use std::io::{self, Cursor, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::CommandFactory;
use parking_lot::Mutex;
use tonic::{Code, Status};

use super::*;
use crate::client::fake::{AFTER, REPEATED, module_says, nobody, notes_files, refuse, refuse_for_long, reply};
use store::FakeCluster;

/// Standard output or error, kept.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A command line, about to be run.
struct Shell {
    arguments: Vec<OsString>,
    stdin: Vec<u8>,
    terminal: bool,
    colour: bool,
    directory: tempfile::TempDir,
}

/// What came of it.
struct Ran {
    exit: ExitCode,
    out: Vec<u8>,
    err: String,
}

impl Ran {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|error| panic!("{error}: {} {}", self.text(), self.err))
    }

    #[track_caller]
    fn exits(self, exit: Exit) -> Self {
        assert_eq!(self.exit, ExitCode::from(exit), "out: {}\nerr: {}", String::from_utf8_lossy(&self.out), self.err);
        self
    }
}

impl Shell {
    fn new(arguments: &[&str]) -> Self {
        let arguments = std::iter::once("balsa").chain(arguments.iter().copied()).map(OsString::from).collect();
        let directory = tempfile::tempdir().unwrap();
        Self { arguments, stdin: Vec::new(), terminal: false, colour: false, directory }
    }

    fn on(cluster: &FakeCluster, arguments: &[&str]) -> Self {
        let mut shell = Self::new(arguments);
        shell.arguments.extend(["--endpoints".into(), cluster.endpoints().into()]);
        shell
    }

    fn stdin(mut self, bytes: &[u8]) -> Self {
        self.stdin = bytes.into();
        self
    }

    fn terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    fn run(self) -> Ran {
        let (out, err) = (Kept::default(), Kept::default());
        let mut console = Console {
            stdin: Box::new(Cursor::new(self.stdin)),
            in_is_terminal: self.terminal,
            out: Box::new(out.clone()),
            err: Box::new(err.clone()),
            out_is_terminal: self.terminal,
            out_has_colour: self.colour,
            err_has_colour: self.colour,
            directory: self.directory.path().into(),
        };
        let exit = run(self.arguments, &mut console);
        let err = String::from_utf8(err.0.lock().clone()).unwrap();
        let out = out.0.lock().clone();
        Ran { exit, out, err }
    }
}

// --- Arguments ---

#[test]
fn the_arguments_of_all_commands_are_consistent() {
    Args::command().debug_assert();
}

#[test]
fn help_is_a_result_and_lists_the_exit_codes() {
    let ran = Shell::new(&["--help"]).run().exits(Exit::Ok);
    for code in 0..=5 {
        assert!(ran.text().contains(&format!("\n  {code}  ")), "{}", ran.text());
    }
    assert!(ran.err.is_empty());
}

#[test]
fn wrong_usage_is_exit_code_2_with_an_error_that_names_it() {
    for (arguments, expected) in [
        (&["put", "k"][..], "<VALUE>"),
        (&["get"], "<KEY>"),
        (&["statsu"], "'status'"),
        (&["get", "k", "--timeout", "soon"], "--timeout"),
        (&["get", "k", "--endpoints", "a:b"], "does not end in a port"),
        (&["put", "k", "v", "--if-absent", "--if-version", "1"], "cannot be used with"),
        (&["call"], "<METHOD>"),
        (&["bench", "--mix", "mixed:101"], "mixed:N"),
        (&["check", "--values", "0"], "--values"),
        (&["get", ""], "the key is empty"),
        (&["get", "xyz", "--hex"], "'xyz' is not hexadecimal"),
        (&["put", "k", "@absent"], "cannot read 'absent'"),
        (&["bench", "--value-size", "2000000"], "--value-size is 2000000"),
    ] {
        let ran = Shell::new(arguments).run().exits(Exit::Usage);
        assert!(ran.err.contains(expected), "{arguments:?}: {}", ran.err);
        assert!(ran.out.is_empty());
    }
}

#[test]
fn global_options_may_stand_before_and_after_the_subcommand() {
    let cluster = FakeCluster::of(1);
    let endpoints = cluster.endpoints();
    Shell::new(&["-o", "json", "--endpoints", &endpoints, "put", "k", "v"]).run().exits(Exit::Ok).json();
    Shell::new(&["get", "k", "-o", "json", "--endpoints", &endpoints, "--timeout", "1m"]).run().exits(Exit::Ok).json();
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = Shell::new(&["completions", shell]).run().exits(Exit::Ok);
        assert!(ran.text().contains("balsa"), "{shell}");
    }
}

// --- Keys and values ---

#[test]
fn a_value_comes_back_as_it_was_put() {
    let cluster = FakeCluster::of(1);
    let ran = Shell::on(&cluster, &["put", "k", "v"]).run().exits(Exit::Ok);
    assert_eq!(ran.text(), "stored version 1 at index 1\n");
    let ran = Shell::on(&cluster, &["get", "k"]).run().exits(Exit::Ok);
    assert_eq!(ran.text(), "v", "no newline where no person reads");
    let ran = Shell::on(&cluster, &["get", "k"]).terminal().run();
    assert_eq!(ran.text(), "v\n");
}

#[test]
fn an_absent_key_is_exit_code_1_and_no_output() {
    let cluster = FakeCluster::of(1);
    for command in ["get", "delete"] {
        let ran = Shell::on(&cluster, &[command, "k"]).run().exits(Exit::No);
        assert_eq!((ran.text(), &*ran.err), ("", "the key is absent\n"));
    }
    let ran = Shell::on(&cluster, &["get", "k", "-o", "json"]).run().exits(Exit::No);
    assert_eq!(ran.text(), "null\n");
}

#[test]
fn values_come_from_the_command_line_from_a_file_and_from_standard_input() {
    let cluster = FakeCluster::of(1);
    let binary = b"\x00\xff\x1b[31m\n";
    let stored = |shell: Shell| {
        shell.run().exits(Exit::Ok);
        Shell::on(&cluster, &["get", "k"]).run().out
    };
    assert_eq!(stored(Shell::on(&cluster, &["put", "k", "@data/blob"]).file("data/blob", binary)), binary);
    assert_eq!(stored(Shell::on(&cluster, &["put", "k", "-"]).stdin(binary)), binary);
    assert_eq!(stored(Shell::on(&cluster, &["put", "--hex", "6b", "00ff"])), b"\x00\xff");
    assert_eq!(stored(Shell::on(&cluster, &["put", "k", "@@home"])), b"@home");
    assert_eq!(stored(Shell::on(&cluster, &["put", "k", "-5"])), b"-5");
    assert_eq!(stored(Shell::on(&cluster, &["put", "k", ""])), b"");
}

#[test]
fn an_argument_that_is_not_utf8_is_a_key_as_any_other() {
    use std::os::unix::ffi::OsStringExt;
    let cluster = FakeCluster::of(1);
    let mut shell = Shell::on(&cluster, &["put"]);
    shell.arguments.extend([OsString::from_vec(b"\xff".into()), OsString::from_vec(b"\xfe".into())]);
    shell.run().exits(Exit::Ok);
    let ran = Shell::on(&cluster, &["get", "--hex", "ff"]).run().exits(Exit::Ok);
    assert_eq!(ran.text(), "fe");
}

#[test]
fn a_value_cannot_drive_the_terminal() {
    let cluster = FakeCluster::of(1);
    Shell::on(&cluster, &["put", "k", "-"]).stdin(b"\x1b[31mred").run().exits(Exit::Ok);
    assert_eq!(Shell::on(&cluster, &["get", "k"]).terminal().run().text(), "\\x1b[31mred\n");
    assert_eq!(Shell::on(&cluster, &["get", "k"]).run().out, b"\x1b[31mred");
    assert_eq!(Shell::on(&cluster, &["list"]).run().text(), "k\t\\x1b[31mred\n");
}

#[test]
fn a_value_above_its_limit_is_refused_before_it_is_sent() {
    let cluster = FakeCluster::of(1);
    let ran = Shell::on(&cluster, &["put", "k", "-"]).stdin(&vec![0; 1024 * 1024 + 1]).run().exits(Exit::Usage);
    assert!(ran.err.contains("longer than 1048576 bytes"), "{}", ran.err);
    assert!(cluster.asked().is_empty());
}

#[test]
fn a_put_can_print_what_was_there_before() {
    let cluster = FakeCluster::of(1);
    Shell::on(&cluster, &["put", "k", "one"]).run().exits(Exit::Ok);
    assert_eq!(Shell::on(&cluster, &["put", "k", "two", "--prev"]).run().exits(Exit::Ok).text(), "one");
    assert_eq!(Shell::on(&cluster, &["delete", "k", "--prev"]).run().exits(Exit::Ok).text(), "two");
}

#[test]
fn a_condition_that_does_not_hold_is_exit_code_1() {
    let cluster = FakeCluster::of(1);
    let put = |arguments: &[&str]| Shell::on(&cluster, &[&["put", "k", "v"], arguments].concat()).run();
    let ran = put(&["--if-present"]).exits(Exit::No);
    assert_eq!(ran.err, "not stored: the key is absent\n");
    put(&["--if-absent"]).exits(Exit::Ok);
    let ran = put(&["--if-absent"]).exits(Exit::No);
    assert_eq!(ran.err, "not stored: the key has version 1, of index 1\n");
    put(&["--if-value", "other"]).exits(Exit::No);
    put(&["--if-value", "v"]).exits(Exit::Ok);
    put(&["--if-version", "1"]).exits(Exit::No);
    put(&["--if-version", "2"]).exits(Exit::Ok);
    put(&["--if-index", "3"]).exits(Exit::Ok);
}

#[test]
fn json_has_base64_and_the_text_if_there_is_one() {
    let cluster = FakeCluster::of(1);
    let put = Shell::on(&cluster, &["put", "k", "-", "-o", "json"]).stdin(b"\xff").run().exits(Exit::Ok);
    insta::assert_snapshot!(put.text(), @r#"{"create_index":1,"index":1,"mod_index":1,"previous":null,"replayed":false,"succeeded":true,"version":1}"#);
    let get = Shell::on(&cluster, &["get", "k", "-o", "json"]).run().exits(Exit::Ok);
    insta::assert_snapshot!(get.text(), @r#"{"key":{"base64":"aw==","utf8":"k"},"value":{"base64":"/w=="},"version":1,"create_index":1,"mod_index":1}"#);
    let list = Shell::on(&cluster, &["list", "-o", "json", "--keys-only"]).run().exits(Exit::Ok);
    insta::assert_snapshot!(list.text(), @r#"{"key":{"base64":"aw==","utf8":"k"}}"#);
    let delete = Shell::on(&cluster, &["delete", "k", "-o", "json"]).run().exits(Exit::Ok);
    insta::assert_snapshot!(delete.text(), @r#"{"deleted":true,"index":2,"previous":null,"replayed":false}"#);
}

#[test]
fn a_list_has_all_pages_and_one_line_for_a_key() {
    let cluster = FakeCluster::of(1);
    for key in ["a", "b/1", "b/2", "b/3", "b/4", "b/5", "c"] {
        Shell::on(&cluster, &["put", key, "x\ty\n"]).run().exits(Exit::Ok);
    }
    let list = |arguments: &[&str]| Shell::on(&cluster, &[&["list"], arguments].concat()).run().exits(Exit::Ok);
    assert_eq!(list(&["b/", "--keys-only"]).text(), "b/1\nb/2\nb/3\nb/4\nb/5\n");
    assert_eq!(list(&["b/", "--keys-only", "--limit", "3"]).text(), "b/1\nb/2\nb/3\n");
    assert_eq!(list(&["--limit", "1"]).text(), "a\tx\\ty\\n\n");
    assert_eq!(list(&["--limit", "1", "--hex"]).text(), "61\t7809790a\n");
    assert_eq!(list(&["--keys-only"]).text().lines().count(), 7);
    assert_eq!(list(&["--limit", "0"]).text(), "");
    assert_eq!(list(&["nothing"]).text(), "");
}

#[test]
fn stale_reads_say_so() {
    let cluster = FakeCluster::of(1);
    Shell::on(&cluster, &["get", "k", "--stale"]).run();
    Shell::on(&cluster, &["get", "k"]).run();
    let consistencies: Vec<_> =
        cluster.asked().iter().map(|asked| asked.text("balsa-consistency").map(str::to_owned)).collect();
    assert_eq!(consistencies, [Some("stale".to_owned()), None]);
}

// --- Failures ---

#[test]
fn nothing_that_listens_is_exit_code_3_and_names_what_was_tried() {
    let runtime = store::runtime();
    let nobody = runtime.block_on(nobody()).to_string();
    let both = format!("{nobody},http://{nobody}");
    let ran = Shell::new(&["get", "k", "--endpoints", &both, "--timeout", "200ms"]).run().exits(Exit::Unavailable);
    let expected = format!("error: nothing answers at {nobody}, {nobody}: ");
    assert!(ran.err.starts_with(&expected), "{}", ran.err);
    assert!(ran.err.contains("`balsa up`"), "{}", ran.err);

    let shell = Shell::new(&["get", "k", "--timeout", "200ms"]).file(".balsa/endpoints", nobody.as_bytes());
    let ran = shell.run().exits(Exit::Unavailable);
    assert!(ran.err.contains(".balsa/endpoints): "), "{}", ran.err);
    assert!(ran.err.contains("start it again with `balsa up`"), "{}", ran.err);
    let shell = Shell::new(&["get", "k", "--timeout", "200ms"]).file(".balsa-dev/endpoints", nobody.as_bytes());
    let ran = shell.run().exits(Exit::Unavailable);
    assert!(ran.err.contains("start it again with `balsa dev`"), "{}", ran.err);
}

#[test]
fn the_local_cluster_is_found_by_its_file() {
    let cluster = FakeCluster::of(2);
    let file = cluster.endpoints().replace(',', "\n");
    Shell::new(&["put", "k", "v"]).file(".balsa/endpoints", file.as_bytes()).run().exits(Exit::Ok);
}

#[test]
fn the_local_cluster_is_found_in_the_directory_that_is_named() {
    let cluster = FakeCluster::of(2);
    let file = cluster.endpoints().replace(',', "\n");
    let arguments = ["put", "k", "v", "--dir", "here/there"];
    Shell::new(&arguments).file("here/there/endpoints", file.as_bytes()).run().exits(Exit::Ok);
    let ran = Shell::new(&arguments).file(".balsa/endpoints", file.as_bytes()).run().exits(Exit::Unavailable);
    assert!(ran.err.contains("start it with `balsa up --dir here/there`"), "{}", ran.err);
}

#[test]
fn a_cluster_that_does_not_serve_is_exit_code_3_and_says_why() {
    let cluster = FakeCluster::saying(|_| Err(refuse_for_long(Code::Unavailable, "NO_LEADER")));
    let ran = Shell::on(&cluster, &["put", "k", "v"]).run().exits(Exit::Unavailable);
    assert!(ran.err.contains("fake NO_LEADER (NO_LEADER)"), "{}", ran.err);
}

#[test]
fn an_unknown_outcome_is_exit_code_4_and_tells_the_key() {
    let cluster = FakeCluster::saying(|_| Err(refuse_for_long(Code::Unknown, "OUTCOME_UNKNOWN")));
    let arguments = ["put", "k", "v"];
    let ran = Shell::on(&cluster, &arguments).run().exits(Exit::OutcomeUnknown);
    let key = cluster.asked()[0].key().unwrap().to_owned();
    assert!(ran.err.contains(&key), "{}", ran.err);
    let ran = Shell::on(&cluster, &[&arguments[..], &["-o", "json"]].concat()).run().exits(Exit::OutcomeUnknown);
    let json: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!(json["error"]["exit"], 4);
    assert!(json["error"]["idempotency_key"].is_string());
}

#[test]
fn what_the_module_rejects_is_exit_code_5_with_all_that_it_said() {
    let cluster = FakeCluster::saying(|_| Err(module_says(Code::InvalidArgument, "no such luck", 9)));
    let ran = Shell::on(&cluster, &["put", "k", "v"]).run().exits(Exit::Rejected);
    assert_eq!(ran.err, "error: rejected by the module: INVALID_ARGUMENT: no such luck\n");

    let cluster = FakeCluster::saying(|_| {
        let mut status = refuse(Code::Internal, "TRAP", &[]);
        let detail = tonic::metadata::MetadataValue::from_bytes(b"panicked at src/lib.rs:7:\noh");
        status.metadata_mut().insert_bin("balsa-trap-detail-bin", detail);
        Err(status)
    });
    let ran = Shell::on(&cluster, &["put", "k", "v"]).run().exits(Exit::Rejected);
    assert!(ran.err.ends_with("\n  trap: panicked at src/lib.rs:7:\n  trap: oh\n"), "{}", ran.err);
    let ran = Shell::on(&cluster, &["put", "k", "v", "-o", "json"]).run().exits(Exit::Rejected);
    insta::assert_snapshot!(ran.err, @r#"{"error":{"code":"INTERNAL","details":[],"exit":5,"index":null,"message":"rejected by the module: INTERNAL: fake TRAP","module_message":"fake TRAP","reason":"TRAP","replayed":false,"trap_detail":"panicked at src/lib.rs:7:\noh"}}"#);
}

#[test]
fn another_module_than_the_key_value_store_is_told_by_its_missing_method() {
    let cluster = FakeCluster::saying(|_| Err(refuse(Code::Unimplemented, "UNKNOWN_METHOD", &[])));
    let ran = Shell::on(&cluster, &["get", "k"]).run().exits(Exit::Usage);
    assert_eq!(ran.err, "error: refused: fake UNKNOWN_METHOD (UNKNOWN_METHOD)\n");
}

#[test]
fn colours_are_for_terminals_only() {
    let mut shell = Shell::new(&["get", ""]);
    shell.colour = true;
    assert!(shell.run().err.starts_with("\u{1b}[1m\u{1b}[31merror:\u{1b}[0m "));
    assert!(Shell::new(&["get", ""]).run().err.starts_with("error: "));
}

// --- Status ---

#[test]
fn status_is_a_table_with_warnings_below() {
    let cluster = FakeCluster::of(3);
    cluster.change(|cluster| {
        cluster.unreachable.push(2);
        cluster.warnings.push("balsa-1 has another balsa.toml".into());
    });
    let ran = Shell::on(&cluster, &["status"]).run().exits(Exit::Ok);
    let text = cluster.without_ports(ran.text());
    insta::assert_snapshot!(text, @"
    cluster c0ffee, seen by balsa-0

    NAME     ID                ROLE         TERM  LAST  COMMITTED  APPLIED  LAG  MODULE                      DIGEST          ADDRESS
    balsa-0  0000000000000001  leader          2     0          0        0    0  kvstore@0.1.0 abababababab  d0d0d0d0d0d0@0  127.0.0.1:60000
    balsa-1  0000000000000002  follower        2     0          0        0    0  kvstore@0.1.0 abababababab  d0d0d0d0d0d0@0  127.0.0.1:60001
    balsa-2  -                 unreachable     -     -          -        -    -  -                           -               127.0.0.1:60002

    warning: balsa-1 has another balsa.toml
    ");
}

#[test]
fn status_in_json_has_everything() {
    let cluster = FakeCluster::of(1);
    let ran = Shell::on(&cluster, &["status", "-o", "json"]).run().exits(Exit::Ok);
    let json = ran.json();
    assert_eq!(json["answered_by"], "balsa-0");
    assert_eq!(json["nodes"][0]["role"], "leader");
    assert_eq!(json["nodes"][0]["id"], "0000000000000001");
    assert_eq!(json["nodes"][0]["modules"][0]["name"], "kvstore");
    assert_eq!(json["nodes"][0]["fenced"], serde_json::Value::Null);
}

// --- Check ---

#[test]
fn a_check_of_nodes_that_agree_is_ok_and_leaves_nothing_behind() {
    let cluster = FakeCluster::of(3);
    let ran = Shell::on(&cluster, &["check", "--values", "3", "--deep"]).run().exits(Exit::Ok);
    insta::assert_snapshot!(ran.text(), @"
    wrote 3 values of 64 bytes, the last at index 3
    read them back through balsa-0, balsa-1, balsa-2: all as written
    digest at index 3 is d0d0d0d0d0d0 on every node
    stored state at index 3 has hash d0d0d0d0d0d0 on every node (3 keys, 9 bytes)
    OK
    ");
    assert_eq!(Shell::on(&cluster, &["list"]).run().text(), "");
    let ran = Shell::on(&cluster, &["check", "-o", "json"]).run().exits(Exit::Ok);
    assert_eq!((&ran.json()["ok"], &ran.json()["values"]), (&true.into(), &20.into()));
}

#[test]
fn a_node_that_answers_other_values_is_named() {
    let cluster = FakeCluster::of(3);
    cluster.change(|cluster| cluster.lying = Some(1));
    let ran = Shell::on(&cluster, &["check", "--values", "2"]).run().exits(Exit::No);
    assert!(ran.text().contains("000000 was written, but balsa-1 has another value of 4 bytes"), "{}", ran.text());
    assert!(ran.text().ends_with("\nNOT OK\n"), "{}", ran.text());
}

#[test]
fn a_node_with_another_digest_is_named_with_the_index() {
    let cluster = FakeCluster::of(3);
    cluster.change(|cluster| cluster.diverged = Some(2));
    let ran = Shell::on(&cluster, &["check", "--values", "1", "-o", "json", "--deep"]).run().exits(Exit::No);
    let differences = ran.json()["differences"].as_array().unwrap().clone();
    assert_eq!(differences.len(), 2, "{differences:?}");
    assert!(differences[0].as_str().unwrap().starts_with("digests at index 1: balsa-0 has "), "{differences:?}");
    assert!(differences[1].as_str().unwrap().contains(" on balsa-0 and balsa-1"), "{differences:?}");
}

#[test]
fn where_no_module_is_a_store_a_check_compares_the_nodes_all_the_same() {
    let mut cluster = FakeCluster::of(3);
    Shell::on(&cluster, &["put", "k", "v"]).run().exits(Exit::Ok);
    cluster.change(|cluster| cluster.no_store = true);
    let ran = Shell::on(&cluster, &["check", "--deep"]).run().exits(Exit::Ok);
    let lines = "no module serves kvstore.v1.KvStore, so nothing was written; nodes are compared from index 1 on\ndigest at index 1 is ";
    assert!(ran.text().starts_with(lines) && ran.text().ends_with("\nOK\n"), "{}", ran.text());
    assert!(
        ran.text().contains("\nstored state at index 1 has hash ") && ran.err.is_empty(),
        "{}{}",
        ran.text(),
        ran.err
    );
    cluster.change(|cluster| cluster.diverged = Some(1));
    let ran = Shell::on(&cluster, &["check", "-o", "json"]).run().exits(Exit::No);
    assert_eq!((&ran.json()["ok"], &ran.json()["values"]), (&false.into(), &0.into()));
    cluster.stop(2);
    Shell::on(&cluster, &["check", "--timeout", "2s"]).run().exits(Exit::No);
}

#[test]
fn a_check_that_cannot_reach_a_node_is_unavailable_and_says_which() {
    let mut cluster = FakeCluster::of(3);
    cluster.stop(1);
    let ran = Shell::on(&cluster, &["check", "--timeout", "3s"]).run().exits(Exit::Unavailable);
    assert!(ran.err.contains("balsa-1 did not answer in time"), "{}", ran.err);
}

// --- Bench ---

#[test]
fn a_benchmark_says_what_was_measured_and_how_it_went() {
    let cluster = FakeCluster::of(1);
    let arguments = ["bench", "--duration", "500ms", "--warmup", "10ms", "--in-flight", "4", "--keys", "10"];
    let ran = Shell::on(&cluster, &[&arguments[..], &["--mix", "mixed:50", "-o", "json"]].concat()).run();
    let json = ran.exits(Exit::Ok).json();
    assert_eq!(json["setup"]["in_flight"], 4);
    assert_eq!(json["setup"]["idempotency_keys"], false);
    assert!(json["put"]["requests"].as_u64().unwrap() > 0);
    assert!(json["get"]["p99_ms"].as_f64().unwrap() > 0.0);
    assert!(json["errors"].as_object().unwrap().is_empty());
    assert!(cluster.asked().iter().all(|asked| asked.key().is_none()));

    let ran = Shell::on(&cluster, &[&arguments[..], &["--idempotency-keys", "on"]].concat()).run().exits(Exit::Ok);
    assert!(ran.text().contains("idempotency keys on"), "{}", ran.text());
    let mut keys: Vec<_> = cluster.asked().iter().filter_map(|asked| asked.key().map(str::to_owned)).collect();
    let sent = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert!(sent > 0 && keys.len() == sent, "every put has a key of its own");
}

#[test]
fn a_benchmark_counts_errors_by_code_and_fails_if_there_is_nothing_else() {
    let cluster = FakeCluster::saying(|_| Err(Status::resource_exhausted("full")));
    let arguments = ["bench", "--duration", "50ms", "--warmup", "1ms", "--in-flight", "2"];
    let ran = Shell::on(&cluster, &arguments).run().exits(Exit::Unavailable);
    assert!(ran.err.starts_with("error: no request succeeded: RESOURCE_EXHAUSTED "), "{}", ran.err);
}
