//! Files that cannot be read or are no TOML, wrong variables and arguments, and how much of it all is shown.

use insta::assert_snapshot;

use super::*;

#[test]
fn a_missing_file_is_named() {
    let errors =
        Config::load(Some(Path::new("/nowhere/balsa.toml")), &Overrides::default(), std::iter::empty()).unwrap_err();
    assert_snapshot!(errors, @"error: there is no file /nowhere/balsa.toml");
}

#[test]
fn a_directory_is_no_file() {
    let errors = Config::load(Some(Path::new("/")), &Overrides::default(), std::iter::empty()).unwrap_err();
    assert_snapshot!(errors, @"error: / cannot be read: Is a directory (os error 21)");
}

#[test]
fn a_file_that_is_not_text_is_refused() {
    assert_snapshot!(complaint_with(b"[node]\n\xff\xfe", &Overrides::default(), &[]), @r#"
    error: the file is not UTF-8 text: this byte, 0xff, cannot be read
     --> balsa.toml:2:1
      |
    2 | ��
      | ^
    "#);
}

#[test]
fn toml_that_cannot_be_read_is_shown() {
    assert_snapshot!(complaint("[node\ndata_dir = \"d\"\n"), @r#"
    error: this is not TOML: unclosed table, expected `]`
     --> balsa.toml:1:6
      |
    1 | [node
      |      ^
    "#);
    assert_snapshot!(complaint("[raft]\nheartbeat_interval_ms = \n"), @r#"
    error: this is not TOML: the value is missing
     --> balsa.toml:2:25
      |
    2 | heartbeat_interval_ms =
      |                         ^
    "#);
    assert_snapshot!(complaint("[node]\ndata_dir = unquoted\n"), @r#"
    error: this is not TOML: `unquoted` is no value; text stands in quotes
     --> balsa.toml:2:12
      |
    2 | data_dir = unquoted
      |            ^^^^^^^^
    "#);
    assert_snapshot!(complaint("[node]\ndata_dir = \"never closed\n"), @r#"
    error: this is not TOML: invalid basic string, expected `"`
     --> balsa.toml:2:25
      |
    2 | data_dir = "never closed
      |                         ^
    "#);
}

#[test]
fn a_key_that_is_set_twice_names_the_first_line() {
    assert_snapshot!(complaint("[log]\nlevel = \"info\"\n\nlevel = \"warn\"\n"), @r#"
    error: `level` is set twice
     --> balsa.toml:4:1
      |
    4 | level = "warn"
      | ^^^^^
      = help: it is first set in line 2; keep one
    "#);
    assert_snapshot!(complaint("[log]\n[raft]\n[log]\n"), @r#"
    error: `[log]` is set twice
     --> balsa.toml:3:2
      |
    3 | [log]
      |  ^^^
      = help: it is first set in line 1; keep one
    "#);
}

#[test]
fn the_first_of_two_is_found_however_it_is_written() {
    let said = |text: &str| {
        let said = complaint(text);
        let places = said.lines().filter(|line| line.contains("--> ") || line.contains("= help: "));
        places.map(|line| line.trim().to_owned()).collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!(said("[log]\nlevel = \"info\"\n[raft]\n[log]\nlevel = \"warn\"\n"), @r#"
    --> balsa.toml:4:2
    = help: it is first set in line 1; keep one
    --> balsa.toml:5:1
    = help: it is first set in line 2; keep one
    "#);
    assert_snapshot!(said("[node]\n\"data_dir\" = \"x\"\n# data_dir = 1\ndata_dir = \"y\"\n"), @r#"
    --> balsa.toml:4:1
    = help: it is first set in line 2; keep one
    "#);
    assert_snapshot!(said("log.level = \"info\"\nlog.format = \"text\"\nlog . level = \"info\"\n"), @r#"
    --> balsa.toml:3:7
    = help: it is first set in line 1; keep one
    "#);
    assert_snapshot!(said("log = { level = \"info\", level = \"warn\" }\n"), @r#"
    --> balsa.toml:1:25
    = help: it is first set in line 1; keep one
    "#);
    assert_snapshot!(said("[[module]]\nname = \"a\"\nname = \"b\"\npath = \"a.wasm\"\n"), @r#"
    --> balsa.toml:3:1
    = help: it is first set in line 2; keep one
    --> balsa.toml:4:8
    = help: a relative path starts from the directory of the configuration file
    "#);
}

#[test]
fn a_wrong_variable_or_argument_is_shown_like_a_line_of_a_file() {
    let env = |name, value| complaint_with("", &Overrides::default(), &[(name, value)]);
    assert_snapshot!(env("BALSA_RAFT__HEARTBEAT_MS", "100"), @r#"
    error: there is no setting for the environment variable BALSA_RAFT__HEARTBEAT_MS
    --> environment variable BALSA_RAFT__HEARTBEAT_MS
     |
     | BALSA_RAFT__HEARTBEAT_MS=100
     | ^^^^^^^^^^^^^^^^^^^^^^^^
     = help: did you mean BALSA_RAFT__HEARTBEAT_INTERVAL_MS?
    "#);
    assert_snapshot!(env("BALSA_TLS__CERT", "c"), @r#"
    error: there is no setting for the environment variable BALSA_TLS__CERT
    --> environment variable BALSA_TLS__CERT
     |
     | BALSA_TLS__CERT=c
     | ^^^^^^^^^^^^^^^
     = help: settings are BALSA_<SECTION>__<KEY>, such as BALSA_NODE__DATA_DIR; see `balsa config show`
    "#);
    assert_snapshot!(env("BALSA_MODULE__PATH", "a.wasm"), @r#"
    error: there is no setting for the environment variable BALSA_MODULE__PATH
    --> environment variable BALSA_MODULE__PATH
     |
     | BALSA_MODULE__PATH=a.wasm
     | ^^^^^^^^^^^^^^^^^^
     = help: a module is set in the file only
    "#);
    assert_snapshot!(env("BALSA_RAFT__HEARTBEAT_INTERVAL_MS", "fast"), @r#"
    error: `heartbeat_interval_ms` is a whole number of milliseconds, but here it is "fast"
    --> environment variable BALSA_RAFT__HEARTBEAT_INTERVAL_MS
     |
     | BALSA_RAFT__HEARTBEAT_INTERVAL_MS=fast
     |                                   ^^^^
     = help: for example heartbeat_interval_ms = 125
    "#);
    assert_snapshot!(env("BALSA_NODE__CLIENT_ADDR", "127.0.0.1:{ordnal}"), @r#"
    error: `client_addr` is not a template: there is no variable `ordnal`
    --> environment variable BALSA_NODE__CLIENT_ADDR
     |
     | BALSA_NODE__CLIENT_ADDR=127.0.0.1:{ordnal}
     |                                   ^^^^^^^^
     = help: between braces stands `ordinal`, `name`, `cluster`, or a sum such as `6000 + 100 * ordinal`
    "#);
    assert_snapshot!(complaint_with("", &named("bad name"), &[]), @r#"
    error: `name` cannot be "bad name": a name has 1 to 63 letters, digits, `-`, `_` and `.`
    --> argument --name
     |
     | --name bad name
     |        ^^^^^^^^
    "#);
}

/// What a script made of a value that it did not have is told, and not taken for a setting that is left out: that could be another
/// data directory.
#[test]
fn an_empty_variable_of_a_setting_is_an_error() {
    for key in schema::KEYS.iter().filter(|key| !key.is_repeated()) {
        let name = format!("BALSA_{}__{}", key.section(), key.name()).to_uppercase();
        let said = complaint_with("", &Overrides::default(), &[(&name, "")]);
        assert!(said.contains("error: ") && said.contains(&name), "{name}: {said}");
    }
}

#[test]
fn all_errors_are_reported_at_once_and_in_order() {
    assert_snapshot!(
        complaint("[node]\ndata_dri = \"d\"\n[cluster]\nreplicas = 2\n[raft]\nheartbeat_interval_ms = true\n[tls]\n"),
        @r#"
        error: unknown key `data_dri` in [node]
         --> balsa.toml:2:1
          |
        2 | data_dri = "d"
          | ^^^^^^^^
          = help: did you mean `data_dir`?

        warning: 2 replicas stand no more losses than 1, and each write waits for one more
         --> balsa.toml:4:12
          |
        4 | replicas = 2
          |            ^
          = help: use 1 or 3

        error: `heartbeat_interval_ms` is a whole number of milliseconds, but here it is true or false
         --> balsa.toml:6:25
          |
        6 | heartbeat_interval_ms = true
          |                         ^^^^
          = help: for example heartbeat_interval_ms = 125

        error: there is no section [tls]
         --> balsa.toml:7:2
          |
        7 | [tls]
          |  ^^^
          = help: the sections are [node], [cluster], [[module]], [limits], [raft], [storage], [log], [otlp]
        "#
    );
}

#[test]
fn what_follows_from_a_broken_line_is_not_reported_as_well() {
    assert_snapshot!(complaint("[raft]\nheartbeat_interval_ms = 5000 000\nelection_timeout_min_ms = 500\n"), @r#"
    error: this is not TOML: `5000 000` is no value; text stands in quotes
     --> balsa.toml:2:25
      |
    2 | heartbeat_interval_ms = 5000 000
      |                         ^^^^^^^^
    "#);
}

#[test]
fn garbage_ends_after_a_page() {
    let said = complaint(&"= =\n".repeat(1000));
    assert!(said.ends_with("... and 980 more\n") && said.lines().count() < 150, "{said}");
}

#[test]
fn a_long_line_is_cut_around_its_error() {
    let line = format!("[log]\nzebra = 1 # {}\n", "long ".repeat(200));
    assert!(complaint(&line).lines().all(|line| line.chars().count() < 200));
    let line =
        format!("log = {{ level = \"info\", {}, zebra = 1 }}\n", "format = \"text\"".replace('x', &"x".repeat(300)));
    assert!(complaint(&line).contains("zebra = 1"));
}
