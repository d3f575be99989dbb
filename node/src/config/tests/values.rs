//! Values of the wrong type, out of range, or at odds with each other.

use insta::assert_snapshot;

use super::*;

#[test]
fn a_wrong_type_says_what_is_expected_and_what_is_there() {
    assert_snapshot!(complaint("[raft]\nheartbeat_interval_ms = \"250\"\n"), @r#"
    error: `heartbeat_interval_ms` is a whole number of milliseconds, but here it is text
     --> balsa.toml:2:25
      |
    2 | heartbeat_interval_ms = "250"
      |                         ^^^^^
      = help: for example heartbeat_interval_ms = 125
    "#);
    assert_snapshot!(complaint("[node]\nclient_addr = 6000\n"), @r#"
    error: `client_addr` is text in quotes, but here it is a whole number
     --> balsa.toml:2:15
      |
    2 | client_addr = 6000
      |               ^^^^
      = help: for example client_addr = "127.0.0.1:{6000 + 100 * ordinal}"
    "#);
    assert_snapshot!(complaint("[cluster]\nreplicas = 3.0\n"), @r#"
    error: `replicas` is a whole number, but here it is a number with a fraction
     --> balsa.toml:2:12
      |
    2 | replicas = 3.0
      |            ^^^
      = help: for example replicas = 1
    "#);
    assert_snapshot!(complaint("[storage]\ncache_bytes = \"64 MB\"\n"), @r#"
    error: `cache_bytes` is a whole number of bytes, or text such as "64 MiB", but here it is "64 MB"
     --> balsa.toml:2:15
      |
    2 | cache_bytes = "64 MB"
      |               ^^^^^^^
      = help: for example cache_bytes = 268435456
    "#);
    assert_snapshot!(complaint("[log]\nlevel = true\n"), @r#"
    error: `level` is text in quotes, but here it is true or false
     --> balsa.toml:2:9
      |
    2 | level = true
      |         ^^^^
      = help: for example level = "info"
    "#);
    assert!(complaint("[[module]]\ncommand_fuel = \"all\"\n").contains("= help: for example command_fuel = 100000\n"));
}

#[test]
fn a_number_out_of_range_names_the_range() {
    assert_snapshot!(complaint("[raft]\nheartbeat_interval_ms = 0\n"), @r#"
    error: `heartbeat_interval_ms` is 0 ms, which is out of range
     --> balsa.toml:2:25
      |
    2 | heartbeat_interval_ms = 0
      |                         ^
      = help: it can be 10 ms to 60000 ms
    "#);
    assert_snapshot!(complaint("[cluster]\nreplicas = -3\n"), @r#"
    error: `replicas` is -3, which is out of range
     --> balsa.toml:2:12
      |
    2 | replicas = -3
      |            ^^
      = help: it can be 1 to 9
    "#);
    assert_snapshot!(complaint("[limits]\nmemory_bytes = \"1 GiB\"\n"), @r#"
    error: `memory_bytes` is 1 GiB, which is out of range
     --> balsa.toml:2:16
      |
    2 | memory_bytes = "1 GiB"
      |                ^^^^^^^
      = help: it can be 1 MiB to 256 MiB
    "#);
}

#[test]
fn a_word_that_is_no_choice_names_the_choices() {
    assert_snapshot!(complaint("[log]\nlevel = \"warning\"\n"), @r#"
    error: `level` cannot be "warning"
     --> balsa.toml:2:9
      |
    2 | level = "warning"
      |         ^^^^^^^^^
      = help: did you mean "warn"?
    "#);
    assert_snapshot!(complaint("[log]\nformat = \"xml\"\n"), @r#"
    error: `format` cannot be "xml"
     --> balsa.toml:2:10
      |
    2 | format = "xml"
      |          ^^^^^
      = help: it can be "text", "json"
    "#);
}

#[test]
fn a_bad_name_or_an_empty_path_is_refused() {
    assert_snapshot!(complaint("[cluster]\nname = \"my cluster\"\n"), @r#"
    error: `name` cannot be "my cluster": a name has 1 to 63 letters, digits, `-`, `_` and `.`
     --> balsa.toml:2:8
      |
    2 | name = "my cluster"
      |        ^^^^^^^^^^^^
    "#);
    assert_snapshot!(complaint("[cluster]\nname = \"a\\u0000b\"\n"), @r#"
    error: `name` cannot be "a\0b": a name has 1 to 63 letters, digits, `-`, `_` and `.`
     --> balsa.toml:2:8
      |
    2 | name = "a\u0000b"
      |        ^^^^^^^^^^
    "#);
    assert_snapshot!(complaint("[node]\ndata_dir = \"\"\n"), @r#"
    error: `data_dir` must not be empty
     --> balsa.toml:2:12
      |
    2 | data_dir = ""
      |            ^^
    "#);
    assert_snapshot!(complaint("[cluster]\nnode_name = \"node {ordinal}\"\n"), @r#"
    error: `node_name` cannot be "node 0": a name has 1 to 63 letters, digits, `-`, `_` and `.`
     --> balsa.toml:2:13
      |
    2 | node_name = "node {ordinal}"
      |             ^^^^^^^^^^^^^^^^
    "#);
}

#[test]
fn a_bad_template_marks_the_part_to_blame() {
    assert_snapshot!(complaint("[node]\npeer_addr = \"127.0.0.1:{6001 + 10 * ordnal}\"\n"), @r#"
    error: `peer_addr` is not a template: there is no variable `ordnal`
     --> balsa.toml:2:24
      |
    2 | peer_addr = "127.0.0.1:{6001 + 10 * ordnal}"
      |                        ^^^^^^^^^^^^^^^^^^^^
      = help: between braces stands `ordinal`, `name`, `cluster`, or a sum such as `6000 + 100 * ordinal`
    "#);
    assert_snapshot!(complaint("[node]\ndata_dir = \"data/{name\"\n"), @r#"
    error: `data_dir` is not a template: this `{` is never closed
     --> balsa.toml:2:18
      |
    2 | data_dir = "data/{name"
      |                  ^
      = help: between braces stands `ordinal`, `name`, `cluster`, or a sum such as `6000 + 100 * ordinal`
    "#);
    assert_snapshot!(complaint("[cluster]\nnode_name = \"{name}-{ordinal}\"\n"), @r#"
    error: `node_name` is not a template: `name` cannot be used to make the name itself
     --> balsa.toml:2:13
      |
    2 | node_name = "{name}-{ordinal}"
      |             ^^^^^^^^^^^^^^^^^^
      = help: between braces stands `ordinal`, `name`, `cluster`, or a sum such as `6000 + 100 * ordinal`
    "#);
}

#[test]
fn timings_that_cannot_work_name_the_inequality() {
    assert_snapshot!(complaint("[raft]\nheartbeat_interval_ms = 1000\n"), @r#"
    error: `heartbeat_interval_ms` must be below `election_timeout_min_ms`, but 1000 ms >= 500 ms
     --> balsa.toml:2:25
      |
    2 | heartbeat_interval_ms = 1000
      |                         ^^^^
      = help: a follower must hear several heartbeats before it stands for election; four times the interval is a good start
    "#);
    assert_snapshot!(complaint("[raft]\nelection_timeout_min_ms = 3000\n"), @r#"
    error: `election_timeout_min_ms` must be below `election_timeout_max_ms`, but 3000 ms >= 1000 ms
     --> balsa.toml:2:27
      |
    2 | election_timeout_min_ms = 3000
      |                           ^^^^
      = help: each follower waits for a random time between the two, so that they do not all stand at once; twice the minimum is a good start
    "#);
}

#[test]
fn a_fraction_is_a_number_from_0_to_1() {
    let ratio = |text: &str| {
        let text = format!("[otlp]\nendpoint = \"http://otel-collector:4317\"\nsample_ratio = {text}");
        load(&text).config.otlp.unwrap().sample_ratio
    };
    assert_eq!([ratio("0"), ratio("1"), ratio("0.25"), ratio("1e-3")], [0.0, 1.0, 0.25, 0.001]);
    assert!(load("[otlp]\nsample_ratio = 0.5").config.otlp.is_none(), "there is nowhere to send a trace");
    assert_snapshot!(complaint("[otlp]\nsample_ratio = 2"), @r"
    error: `sample_ratio` is 2, which is not from 0 to 1
     --> balsa.toml:2:16
      |
    2 | sample_ratio = 2
      |                ^
      = help: 0 is none, 0.01 one in a hundred, 1 all
    ");
    assert_snapshot!(complaint("[otlp]\nsample_ratio = \"half\""), @r#"
    error: `sample_ratio` is a number from 0 to 1, but here it is text
     --> balsa.toml:2:16
      |
    2 | sample_ratio = "half"
      |                ^^^^^^
      = help: for example sample_ratio = 0.01
    "#);
}

#[test]
fn a_collector_is_reached_by_http_at_a_port() {
    for url in
        ["http://collector", "https://collector:4317", "collector:4317", "http://collector:4317/v1/traces", "grpc"]
    {
        let shown = complaint(&format!("[otlp]\nendpoint = \"{url}\""));
        assert!(shown.contains("such as \"http://otel-collector:4317\""), "{shown}");
    }
}
