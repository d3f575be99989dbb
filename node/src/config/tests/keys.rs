//! Sections and keys that there are not, or not there.

use insta::assert_snapshot;

use super::*;

#[test]
fn an_unknown_section_names_the_nearest() {
    assert_snapshot!(complaint("[rafts]\n"), @r#"
    error: there is no section [rafts]
     --> balsa.toml:1:2
      |
    1 | [rafts]
      |  ^^^^^
      = help: did you mean [raft]?
    "#);
    assert_snapshot!(complaint("[modules]\n"), @r#"
    error: there is no section [modules]
     --> balsa.toml:1:2
      |
    1 | [modules]
      |  ^^^^^^^
      = help: did you mean [[module]]?
    "#);
    assert_snapshot!(complaint("[tls]\ncert = \"c\"\n"), @r#"
    error: there is no section [tls]
     --> balsa.toml:1:2
      |
    1 | [tls]
      |  ^^^
      = help: the sections are [node], [cluster], [[module]], [limits], [raft], [storage], [log], [otlp]
    "#);
}

#[test]
fn an_unknown_key_names_the_nearest() {
    assert_snapshot!(complaint("[raft]\nheartbeat_ms = 100\n"), @r#"
    error: unknown key `heartbeat_ms` in [raft]
     --> balsa.toml:2:1
      |
    2 | heartbeat_ms = 100
      | ^^^^^^^^^^^^
      = help: did you mean `heartbeat_interval_ms`?
    "#);
    assert_snapshot!(complaint("[node]\nreplicas = 3\n"), @r#"
    error: unknown key `replicas` in [node]
     --> balsa.toml:2:1
      |
    2 | replicas = 3
      | ^^^^^^^^
      = help: it belongs to [cluster]
    "#);
    assert_snapshot!(complaint("[log]\nzebra = 1\n"), @r#"
    error: unknown key `zebra` in [log]
     --> balsa.toml:2:1
      |
    2 | zebra = 1
      | ^^^^^
      = help: the keys of [log] are `format`, `level`
    "#);
}

#[test]
fn a_key_outside_of_a_section_is_told_where_it_belongs() {
    assert_snapshot!(complaint("data_dir = \"d\"\n"), @r#"
    error: `data_dir` stands outside of any section
     --> balsa.toml:1:1
      |
    1 | data_dir = "d"
      | ^^^^^^^^
      = help: it belongs below the line `[node]`
    "#);
    assert_snapshot!(complaint("zebra = 1\n"), @r#"
    error: `zebra` stands outside of any section
     --> balsa.toml:1:1
      |
    1 | zebra = 1
      | ^^^^^
      = help: every key belongs to a section: [node], [cluster], [[module]], [limits], [raft], [storage], [log], [otlp]
    "#);
}

#[test]
fn a_key_of_a_module_that_is_one_of_all_modules_too_belongs_to_these() {
    assert_snapshot!(complaint("[raft]\ncommand_fuel = 1000000\n"), @r#"
    error: unknown key `command_fuel` in [raft]
     --> balsa.toml:2:1
      |
    2 | command_fuel = 1000000
      | ^^^^^^^^^^^^
      = help: it belongs to [limits]
    "#);
    assert!(complaint("query_fuel = 1\n").contains("it belongs below the line `[limits]`"));
    let env = [("BALSA_RAFT__COMMAND_FUEL", "1000000")];
    assert!(complaint_with("", &Overrides::default(), &env).contains("did you mean BALSA_LIMITS__COMMAND_FUEL?"));
}

#[test]
fn keys_of_a_module_are_told_where_they_belong_with_two_brackets() {
    assert_snapshot!(complaint("path = \"a.wasm\"\n"), @r#"
    error: `path` stands outside of any section
     --> balsa.toml:1:1
      |
    1 | path = "a.wasm"
      | ^^^^
      = help: it belongs below the line `[[module]]`
    "#);
    assert_snapshot!(complaint("[node]\npath = \"a.wasm\"\n"), @r#"
    error: unknown key `path` in [node]
     --> balsa.toml:2:1
      |
    2 | path = "a.wasm"
      | ^^^^
      = help: it belongs to [[module]]
    "#);
    assert_snapshot!(complaint_about(&[("a.wasm", EMPTY_MODULE)], "[[module]]\nname = \"a\"\npath = \"a.wasm\"\nfile = \"a.wasm\"\n"), @r#"
    error: unknown key `file` in [[module]]
     --> balsa.toml:4:1
      |
    4 | file = "a.wasm"
      | ^^^^
      = help: the keys of [[module]] are `name`, `path`, `allow_breaking`, `command_fuel`, `query_fuel`
    "#);
}

#[test]
fn a_section_written_otherwise_is_told_how() {
    assert_snapshot!(complaint("[module]\nname = \"counter\"\n"), @r#"
    error: `module` is a list of sections, but here it is a table
     --> balsa.toml:1:2
      |
    1 | [module]
      |  ^^^^^^
      = help: write `[[module]]` on a line of its own, with two brackets, and its keys below
    "#);
    assert_snapshot!(complaint("node = 1\n"), @r#"
    error: `node` is a section, but here it is a whole number
     --> balsa.toml:1:1
      |
    1 | node = 1
      | ^^^^
      = help: write `[node]` on a line of its own, and its keys below
    "#);
    assert_snapshot!(complaint("module = [{ name = \"a\" }, 3]\n"), @r#"
    error: `module` is a list of sections, but here it is a list with something else in it
     --> balsa.toml:1:1
      |
    1 | module = [{ name = "a" }, 3]
      | ^^^^^^
      = help: write `[[module]]` on a line of its own, with two brackets, and its keys below
    "#);
    assert_snapshot!(complaint("[[raft]]\n"), @r#"
    error: `raft` is a section, but here it is a list
     --> balsa.toml:1:3
      |
    1 | [[raft]]
      |   ^^^^
      = help: write `[raft]` on a line of its own, and its keys below
    "#);
}
