//! Every message as a snapshot, and what a configuration means.

use std::fs;

use insta::assert_snapshot;

use super::*;

/// Loads `text` from a directory of its own, as `serve` would, and returns what went wrong in words, without that directory.
fn complaint(text: &str) -> String {
    complaint_with(text, &Overrides::default(), &[])
}

fn complaint_with(text: impl AsRef<[u8]>, args: &Overrides, env: &[(&str, &str)]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let prefix = format!("{}/", directory.path().display());
    let path = directory.path().join("balsa.toml");
    fs::write(&path, text).unwrap();
    let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    let said = match Config::load(Some(&path), args, env) {
        Ok(loaded) => loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n") + "(accepted)",
        Err(errors) => errors.to_string(),
    };
    said.replace(&prefix, "")
}

/// The same, with other files beside it.
fn complaint_about(files: &[(&str, &[u8])], text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(directory.path().join(name), bytes).unwrap();
    }
    let path = directory.path().join("balsa.toml");
    fs::write(&path, text).unwrap();
    let said = match Config::load(Some(&path), &Overrides::default(), std::iter::empty()) {
        Ok(_) => "(accepted)".to_owned(),
        Err(errors) => errors.to_string(),
    };
    said.replace(&format!("{}/", directory.path().display()), "")
}

fn load(text: &str) -> Loaded {
    load_with(text, &Overrides::default(), &[]).unwrap_or_else(|errors| panic!("{errors}"))
}

fn load_with(text: &str, args: &Overrides, env: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("balsa.toml");
    fs::write(&path, text).unwrap();
    let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    Config::load(Some(&path), args, env)
}

/// The smallest binary that is complete: a custom section and nothing else.
const EMPTY_MODULE: &[u8] = b"\0asm\x01\0\0\0\0\x0d\x0cbalsa.module";

fn named(name: &str) -> Overrides {
    Overrides { name: Some(name.to_owned()), ..Overrides::default() }
}

fn on_host(name: &str) -> Overrides {
    Overrides { host_name: Some(name.to_owned()), ..Overrides::default() }
}

// --- What a configuration means ------------------------------------------------------------------------------------------

#[test]
fn no_file_at_all_is_a_cluster_of_one_on_this_host() {
    let loaded = Config::load(None, &on_host("laptop"), std::iter::empty()).unwrap();
    assert_eq!(loaded.config.node.name, "balsa-0");
    assert_eq!(loaded.config.node.client_addr.to_string(), "127.0.0.1:6000");
    assert_eq!(loaded.config.node.peer_addr.to_string(), "127.0.0.1:6001");
    assert_eq!(loaded.config.node.http_addr.to_string(), "127.0.0.1:6080");
    assert_eq!(loaded.config.node.data_dir, Path::new("balsa-data/balsa-0"));
    assert_eq!(loaded.config.limits, Replicated::default());
    assert_eq!(loaded.config.peers().count(), 0);
    assert!(loaded.warnings.is_empty());
}

#[test]
fn one_file_serves_three_nodes_on_one_host() {
    let loaded = load_with("[cluster]\nreplicas = 3", &named("balsa-2"), &[]).unwrap();
    let config = loaded.config;
    assert_eq!((config.node.ordinal, config.node.peer_addr.to_string()), (2, "127.0.0.1:6201".to_owned()));
    let peers: Vec<_> = config.peers().map(|member| (member.name.as_str(), member.peer_addr.as_str())).collect();
    assert_eq!(peers, [("balsa-0", "127.0.0.1:6001"), ("balsa-1", "127.0.0.1:6101")]);
    assert_eq!(config.this_member().client_addr, "127.0.0.1:6200");
    assert_eq!(config.member(3), None);
}

/// What `k8s/` ships: all listen on the same port, and are reached by names.
const KUBERNETES: &str = r#"
[node]
data_dir = "/var/lib/balsa"
client_addr = "0.0.0.0:6000"
peer_addr = "0.0.0.0:6001"
http_addr = "0.0.0.0:6080"
advertise_client_addr = "{name}.balsa-headless.default.svc.cluster.local.:6000"
advertise_peer_addr = "{name}.balsa-headless.default.svc.cluster.local.:6001"
[cluster]
replicas = 3
"#;

#[test]
fn nodes_with_hosts_of_their_own_may_share_ports() {
    let config = load_with(KUBERNETES, &on_host("balsa-1"), &[]).unwrap().config;
    assert_eq!(config.node.ordinal, 1);
    assert_eq!(config.node.peer_addr.to_string(), "0.0.0.0:6001");
    assert_eq!(config.member(2).unwrap().peer_addr, "balsa-2.balsa-headless.default.svc.cluster.local.:6001");
    assert_eq!(config.node.data_dir, Path::new("/var/lib/balsa"));
}

#[test]
fn the_environment_is_above_the_file_and_the_arguments_are_above_both() {
    let file = "[node]\ndata_dir = \"from-file\"\n[log]\nlevel = \"warn\"";
    let env =
        [("BALSA_NODE__DATA_DIR", "from-env"), ("BALSA_LOG__LEVEL", "debug"), ("BALSA_STORAGE__CACHE_BYTES", "64 MiB")];
    let config = load_with(file, &Overrides::default(), &env).unwrap().config;
    assert_eq!(config.node.data_dir, Path::new("from-env"));
    assert_eq!(config.log.level, tracing::Level::DEBUG);
    assert_eq!(config.storage.cache_bytes, 64 << 20);
    let args = Overrides { data_dir: Some("from-arg".into()), ..Overrides::default() };
    assert_eq!(load_with(file, &args, &env).unwrap().config.node.data_dir, Path::new("from-arg"));
}

#[test]
fn the_variables_of_kubernetes_and_of_the_command_line_are_no_settings() {
    let env = [
        ("BALSA_PORT", "tcp://10.0.0.1:6000"),
        ("BALSA_PORT_6000_TCP_ADDR", "10.0.0.1"),
        ("BALSA__X_SERVICE_HOST", "10.0.0.1"),
        ("BALSA_SERVICE_PORT_CLIENT__X", "6000"),
        ("BALSA_ENDPOINTS", "127.0.0.1:6000"),
        ("BALSAMIC__VINEGAR", "yes"),
    ];
    assert!(load_with("", &Overrides::default(), &env).is_ok());
}

#[test]
fn a_relative_path_in_the_file_starts_from_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("balsa.toml");
    fs::write(directory.path().join("counter.wasm"), EMPTY_MODULE).unwrap();
    fs::write(&path, "[node]\ndata_dir = \"d/{name}\"\n[[module]]\nname = \"counter\"\npath = \"counter.wasm\"")
        .unwrap();
    let config = Config::load(Some(&path), &Overrides::default(), std::iter::empty()).unwrap().config;
    assert_eq!(config.node.data_dir, directory.path().join("d/balsa-0"));
    let [module] = &config.modules[..] else { panic!("{:?}", config.modules) };
    assert_eq!((module.name.as_str(), &module.path), ("counter", &directory.path().join("counter.wasm")));
}

#[test]
fn every_setting_knows_where_it_came_from() {
    let loaded = load_with("[log]\nlevel = \"warn\"", &named("balsa-0"), &[("BALSA_LOG__FORMAT", "json")]).unwrap();
    let origin = |path| loaded.settings.get(path).origin.clone();
    assert!(matches!(origin("log.level"), Origin::File(_)));
    assert_eq!(origin("log.format"), Origin::Environment("BALSA_LOG__FORMAT".to_owned()));
    assert_eq!(origin("node.name"), Origin::Argument("--name"));
    assert_eq!(origin("node.data_dir"), Origin::Default);
}

#[test]
fn founders_agree_on_members_and_limits_and_not_on_timings() {
    let hash = |text: &str, name: &str| load_with(text, &named(name), &[]).unwrap().config.founding_hash();
    let three = "[cluster]\nreplicas = 3\n";
    assert_eq!(hash(three, "balsa-0"), hash(three, "balsa-2"));
    assert_eq!(hash(three, "balsa-0"), hash(&format!("{three}[log]\nlevel = \"debug\""), "balsa-0"));
    assert_ne!(hash(three, "balsa-0"), hash("[cluster]\nreplicas = 5", "balsa-0"));
    for key in schema::keys_of("limits") {
        let (least, _) = key.kind.range().expect("a limit is a number");
        let changed = format!("{three}[limits]\n{} = {least}", key.name());
        assert_ne!(hash(three, "balsa-0"), hash(&changed, "balsa-0"), "{}", key.path);
    }
}

#[test]
fn a_whole_file_is_accepted() {
    let text: String = schema::SECTIONS
        .iter()
        .filter(|section| !section.repeated)
        .map(|section| {
            let lines: String = schema::keys_of(section.name)
                .map(|key| match key.default {
                    schema::Default::Number(number) => format!("{} = {number}\n", key.name()),
                    schema::Default::Text(text) => format!("{} = \"{text}\"\n", key.name()),
                    _ => String::new(),
                })
                .collect();
            format!("[{}]\n{lines}", section.name)
        })
        .collect();
    let (mut written, bare) = (load(&text).config, load("").config);
    written.node.data_dir.clone_from(&bare.node.data_dir);
    assert_eq!(written, bare);
}

// --- Every message ---------------------------------------------------------------------------------------------------------

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
      = help: the sections are [node], [cluster], [[module]], [limits], [raft], [storage], [log]
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
      = help: every key belongs to a section: [node], [cluster], [[module]], [limits], [raft], [storage], [log]
    "#);
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
fn a_bad_address_says_why() {
    let listen = |value: &str| complaint(&format!("[node]\nclient_addr = \"{value}\"\n"));
    assert_snapshot!(listen("localhost:6000"), @r#"
    error: `client_addr` gives "localhost:6000" for balsa-0: `localhost` is a name, and a node can only listen on an IP address
     --> balsa.toml:2:15
      |
    2 | client_addr = "localhost:6000"
      |               ^^^^^^^^^^^^^^^^
      = help: for example "127.0.0.1:{6000 + 100 * ordinal}"
    "#);
    assert_snapshot!(listen("127.0.0.1"), @r#"
    error: `client_addr` gives "127.0.0.1" for balsa-0: the port is missing
     --> balsa.toml:2:15
      |
    2 | client_addr = "127.0.0.1"
      |               ^^^^^^^^^^^
      = help: for example "127.0.0.1:{6000 + 100 * ordinal}"
    "#);
    assert_snapshot!(listen("::1:6000"), @r#"
    error: `client_addr` gives "::1:6000" for balsa-0: an IPv6 address stands in brackets, as in [::1]:6000
     --> balsa.toml:2:15
      |
    2 | client_addr = "::1:6000"
      |               ^^^^^^^^^^
      = help: for example "127.0.0.1:{6000 + 100 * ordinal}"
    "#);
    assert_snapshot!(listen("127.0.0.1:{65500 + 100}"), @r#"
    error: `client_addr` gives "127.0.0.1:65600" for balsa-0: the port must be a number from 1 to 65535
     --> balsa.toml:2:15
      |
    2 | client_addr = "127.0.0.1:{65500 + 100}"
      |               ^^^^^^^^^^^^^^^^^^^^^^^^^
      = help: for example "127.0.0.1:{6000 + 100 * ordinal}"
    "#);
    let reach = |value: &str| complaint(&format!("[node]\nadvertise_peer_addr = \"{value}\"\n"));
    assert_snapshot!(reach("http://{name}:6001"), @r#"
    error: `advertise_peer_addr` gives "http://balsa-0:6001" for balsa-0: leave out `http://`: it is only host and port
     --> balsa.toml:2:23
      |
    2 | advertise_peer_addr = "http://{name}:6001"
      |                       ^^^^^^^^^^^^^^^^^^^^
      = help: for example "{name}.balsa-headless:6001"
    "#);
    assert_snapshot!(reach("0.0.0.0:6001"), @r#"
    error: `advertise_peer_addr` gives "0.0.0.0:6001" for balsa-0: 0.0.0.0 is every address of a host, and nobody can connect to that
     --> balsa.toml:2:23
      |
    2 | advertise_peer_addr = "0.0.0.0:6001"
      |                       ^^^^^^^^^^^^^^
      = help: for example "{name}.balsa-headless:6001"
    "#);
    assert_snapshot!(reach("a b:6001"), @r#"
    error: `advertise_peer_addr` gives "a b:6001" for balsa-0: `a b` is not a host
     --> balsa.toml:2:23
      |
    2 | advertise_peer_addr = "a b:6001"
      |                       ^^^^^^^^^^
      = help: for example "{name}.balsa-headless:6001"
    "#);
    assert_snapshot!(reach(":6001"), @r#"
    error: `advertise_peer_addr` gives ":6001" for balsa-0: the host is missing
     --> balsa.toml:2:23
      |
    2 | advertise_peer_addr = ":6001"
      |                       ^^^^^^^
      = help: for example "{name}.balsa-headless:6001"
    "#);
}

#[test]
fn listening_everywhere_needs_an_advertised_address() {
    assert_snapshot!(complaint("[node]\npeer_addr = \"0.0.0.0:6001\"\n"), @r#"
    error: `peer_addr` listens on every address of its host, so others cannot tell from it how to reach a node
     --> balsa.toml:2:13
      |
    2 | peer_addr = "0.0.0.0:6001"
      |             ^^^^^^^^^^^^^^
      = help: say how a node is reached: advertise_peer_addr = "HOST:6001", where HOST may use {name} or {ordinal}, such as "{name}.balsa-headless:6001"
    "#);
}

#[test]
fn a_port_used_twice_names_both_uses() {
    assert_snapshot!(complaint("[node]\npeer_addr = \"127.0.0.1:6000\"\n"), @r#"
    error: port 6000 is used twice: client_addr of balsa-0 is 127.0.0.1:6000 and peer_addr of balsa-0 is 127.0.0.1:6000
     --> balsa.toml:2:13
      |
    2 | peer_addr = "127.0.0.1:6000"
      |             ^^^^^^^^^^^^^^^^
      = help: give each of the node's three listeners a port of its own
    "#);
    assert_snapshot!(complaint("[cluster]\nreplicas = 3\n[node]\nclient_addr = \"127.0.0.1:6000\"\n"), @r#"
    error: port 6000 is used twice: client_addr of balsa-0 is 127.0.0.1:6000 and client_addr of balsa-1 is 127.0.0.1:6000
     --> balsa.toml:4:15
      |
    4 | client_addr = "127.0.0.1:6000"
      |               ^^^^^^^^^^^^^^^^
      = help: nodes of one host need ports of their own, such as "127.0.0.1:{6000 + 100 * ordinal}"; if each node has a host of its own, say so with advertise_peer_addr
    "#);
    assert_snapshot!(complaint("[cluster]\nreplicas = 3\n[node]\npeer_addr = \"127.0.0.1:{6100 + ordinal}\"\n"), @r#"
    error: port 6100 is used twice: peer_addr of balsa-0 is 127.0.0.1:6100 and client_addr of balsa-1 is 127.0.0.1:6100
     --> balsa.toml:4:13
      |
    4 | peer_addr = "127.0.0.1:{6100 + ordinal}"
      |             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = help: nodes of one host need ports of their own, such as "127.0.0.1:{6100 + 100 * ordinal}"; if each node has a host of its own, say so with advertise_peer_addr
    "#);
    assert_snapshot!(complaint("[cluster]\nreplicas = 3\n[node]\nadvertise_peer_addr = \"same:{6001 + ordinal}\"\nhttp_addr = \"0.0.0.0:6080\"\n"), @r#"
    error: port 6080 is used twice: http_addr of balsa-0 is 0.0.0.0:6080 and http_addr of balsa-1 is 0.0.0.0:6080
     --> balsa.toml:5:13
      |
    5 | http_addr = "0.0.0.0:6080"
      |             ^^^^^^^^^^^^^^
      = help: nodes of one host need ports of their own, such as "127.0.0.1:{6080 + 100 * ordinal}"; if each node has a host of its own, say so with advertise_peer_addr
    "#);
}

#[test]
fn an_advertised_address_of_two_nodes_is_refused() {
    assert_snapshot!(complaint("[cluster]\nreplicas = 3\n[node]\nadvertise_client_addr = \"balsa:6000\"\n"), @r#"
    error: `advertise_client_addr` gives balsa:6000 for both balsa-0 and balsa-1
     --> balsa.toml:4:25
      |
    4 | advertise_client_addr = "balsa:6000"
      |                         ^^^^^^^^^^^^
      = help: use {name} or {ordinal} in it, so that each node has an address of its own
    "#);
}

#[test]
fn nodes_of_one_name_are_refused() {
    assert_snapshot!(complaint("[cluster]\nreplicas = 3\nnode_name = \"balsa\"\n"), @r#"
    error: all 3 nodes would have the name "balsa"
     --> balsa.toml:3:13
      |
    3 | node_name = "balsa"
      |             ^^^^^^^
      = help: use {ordinal} in `node_name`, such as "{cluster}-{ordinal}"
    "#);
}

#[test]
fn a_name_that_is_none_of_the_nodes_is_refused() {
    let three = "[cluster]\nreplicas = 3\n";
    assert_snapshot!(complaint_with(three, &named("balsa-3"), &[]), @r#"
    error: "balsa-3" is not one of the cluster's nodes, balsa-0, balsa-1, balsa-2
    --> argument --name
     |
     | --name balsa-3
     |        ^^^^^^^
     = help: nodes are named by `node_name` and counted by `replicas` in [cluster]
    "#);
    assert_snapshot!(complaint_with(three, &on_host("laptop"), &[]), @r#"
    error: "laptop" is not one of the cluster's nodes, balsa-0, balsa-1, balsa-2
     --> balsa.toml:2:12
      |
    2 | replicas = 3
      |            ^
      = help: that is the host's name; say which node this is with `serve --name`, or change `node_name` or `replicas` in [cluster]
    "#);
    assert_snapshot!(complaint_with("", &on_host("balsa-1"), &[]), @r#"
    error: "balsa-1" is not one of the cluster's nodes, balsa-0
     = help: that is the host's name; say which node this is with `serve --name`, or change `node_name` or `replicas` in [cluster]
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
fn an_even_number_of_replicas_is_a_warning() {
    assert_snapshot!(complaint("[cluster]\nreplicas = 4\n"), @r#"
    warning: 4 replicas stand no more losses than 3, and each write waits for one more
     --> balsa.toml:2:12
      |
    2 | replicas = 4
      |            ^
      = help: use 3 or 5
    (accepted)
    "#);
}

#[test]
fn one_directory_for_several_nodes_of_a_host_is_a_warning() {
    let text = "[node]\ndata_dir = \"data\"\n[cluster]\nreplicas = 3\n";
    assert_snapshot!(complaint_with(text, &named("balsa-0"), &[]), @r#"
    warning: balsa-0 and balsa-1 are on one host, and `data_dir` gives both of them "data"
     --> balsa.toml:2:12
      |
    2 | data_dir = "data"
      |            ^^^^^^
      = help: only the first that starts will get it; use {name} in it, such as "balsa-data/{name}", or give each node its own with `serve --data-dir`
    (accepted)
    "#);
    let own = Overrides { data_dir: Some("mine".into()), ..named("balsa-0") };
    assert_eq!(complaint_with(text, &own, &[]), "(accepted)");
    assert!(load_with(KUBERNETES, &on_host("balsa-1"), &[]).unwrap().warnings.is_empty(), "their hosts are their own");
}

#[test]
fn a_module_has_a_name_and_a_file_that_is_there() {
    assert_snapshot!(complaint("[[module]]\nname = \"counter\"\npath = \"counter.wasm\"\n"), @r#"
    error: there is no module file counter.wasm
     --> balsa.toml:3:8
      |
    3 | path = "counter.wasm"
      |        ^^^^^^^^^^^^^^
      = help: a relative path starts from the directory of the configuration file
    "#);
    assert_snapshot!(complaint("[[module]]\nname = \"counter\"\n"), @r#"
    error: this module has no `path`
     --> balsa.toml:1:1
      |
    1 | [[module]]
      | ^^^^^^^^^^
      = help: a module has both, such as name = "counter" and path = "counter.wasm"
    "#);
    assert_snapshot!(complaint("[[module]]\nname = \"a\"\npath = \".\"\n"), @r#"
    error: the module file . cannot be read: it is not a file
     --> balsa.toml:3:8
      |
    3 | path = "."
      |        ^^^
    "#);
    assert_snapshot!(complaint("[[module]]\nname = \"a\"\npath = \"a.wasm\"\nallow_breaking = \"yes\"\n"), @r#"
    error: there is no module file a.wasm
     --> balsa.toml:3:8
      |
    3 | path = "a.wasm"
      |        ^^^^^^^^
      = help: a relative path starts from the directory of the configuration file

    error: `allow_breaking` is true or false, without quotes, but here it is text
     --> balsa.toml:4:18
      |
    4 | allow_breaking = "yes"
      |                  ^^^^^
      = help: for example allow_breaking = false
    "#);
}

#[test]
fn modules_have_names_and_files_of_their_own() {
    let one = "[[module]]\nname = \"a\"\npath = \"a.wasm\"\n";
    assert_snapshot!(complaint_about(&[("a.wasm", EMPTY_MODULE), ("b.wasm", EMPTY_MODULE)], &format!("{one}[[module]]\nname = \"a\"\npath = \"b.wasm\"\n")), @r#"
    error: two modules have the name "a"
     --> balsa.toml:5:8
      |
    5 | name = "a"
      |        ^^^
      = help: the first of them stands at balsa.toml:2:8; each module has a name of its own
    "#);
    assert_snapshot!(complaint_about(&[("a.wasm", EMPTY_MODULE)], &format!("{one}[[module]]\nname = \"b\"\npath = \"./a.wasm\"\n")), @r#"
    error: two modules have the path "./a.wasm"
     --> balsa.toml:6:8
      |
    6 | path = "./a.wasm"
      |        ^^^^^^^^^^
      = help: the first of them stands at balsa.toml:3:8; each module has a path of its own
    "#);
}

#[test]
fn several_modules_are_read_in_the_order_of_the_file() {
    let text = "[[module]]\nname = \"b\"\npath = \"b.wasm\"\n[[module]]\nname = \"a\"\npath = \"a.wasm.zst\"\nallow_breaking = true\n";
    let recipe = Recipe { path: Some("/etc/balsa/balsa.toml".into()), ..Recipe::default() };
    let modules = recipe.settings_of(text.into()).unwrap().config.modules;
    let module = |name: &str, path: &str, allow_breaking| ModuleFile {
        name: name.into(),
        path: Path::new("/etc/balsa").join(path),
        allow_breaking,
        fuel: Fuel::default(),
    };
    assert_eq!(modules, [module("b", "b.wasm", false), module("a", "a.wasm.zst", true)]);
}

#[test]
fn a_file_that_is_no_complete_module_is_refused() {
    let text = "[[module]]\nname = \"a\"\npath = \"a.wasm\"\n";
    let broken = |bytes: &[u8]| complaint_about(&[("a.wasm", bytes)], text);
    assert_snapshot!(broken(b""), @r#"
    error: the module file a.wasm is empty
     --> balsa.toml:3:8
      |
    3 | path = "a.wasm"
      |        ^^^^^^^^
    "#);
    assert_snapshot!(broken(b"#!/bin/sh"), @r#"
    error: the module file a.wasm is not a WebAssembly module: it begins with #!/b, not with \0asm, and it is not compressed with zstd either
     --> balsa.toml:3:8
      |
    3 | path = "a.wasm"
      |        ^^^^^^^^
    "#);
    assert_snapshot!(broken(b"\0asm\x01\0\0\0\x01\x05"), @r#"
    error: the module file a.wasm is not a complete WebAssembly module: unexpected end-of-file (at byte 10 of 10)
     --> balsa.toml:3:8
      |
    3 | path = "a.wasm"
      |        ^^^^^^^^
    "#);
    assert_snapshot!(broken(b"\x28\xb5\x2f\xfd\x00"), @r#"
    error: the module file a.wasm is not a complete zstd file: it is cut off or damaged
     --> balsa.toml:3:8
      |
    3 | path = "a.wasm"
      |        ^^^^^^^^
    "#);
}

#[test]
fn a_module_that_is_too_large_is_not_read_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("balsa.toml");
    fs::write(&path, "[[module]]\nname = \"a\"\npath = \"a.wasm\"\n").unwrap();
    fs::File::create(directory.path().join("a.wasm")).unwrap().set_len(1 << 40).unwrap();
    let errors = Config::load(Some(&path), &Overrides::default(), std::iter::empty()).unwrap_err().to_string();
    assert_snapshot!(errors.replace(&format!("{}/", directory.path().display()), ""), @r#"
    error: the module file a.wasm has more than 33554432 bytes, which is the most that a module has
     --> balsa.toml:3:8
      |
    3 | path = "a.wasm"
      |        ^^^^^^^^
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
          = help: the sections are [node], [cluster], [[module]], [limits], [raft], [storage], [log]
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

/// The table of `docs/configuration.md` is generated: `BALSA_UPDATE_DOCS=1 cargo test -p balsa reference` writes it.
#[test]
fn the_reference_is_current() {
    const BEGIN: &str = "<!-- generated from node/src/config/schema.rs: begin -->\n";
    const END: &str = "<!-- generated: end -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the document has the begin mark");
    let (_, after) = rest.split_once(END).expect("the document has the end mark");
    let current = format!("{before}{BEGIN}\n{}{END}{after}", schema::reference());
    if std::env::var_os("BALSA_UPDATE_DOCS").is_some() {
        fs::write(&path, &current).unwrap();
    }
    assert!(
        text == current || std::env::var_os("BALSA_UPDATE_DOCS").is_some(),
        "run with BALSA_UPDATE_DOCS=1 to renew it"
    );
}

/// The examples of the document are loaded, so that they stay true.
#[test]
fn the_examples_of_the_reference_are_accepted() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md")).unwrap();
    let examples: Vec<_> = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 3);
    for example in examples {
        let recipe = Recipe { path: Some("balsa.toml".into()), ..Recipe::default() };
        recipe.settings_of(example.into()).unwrap_or_else(|errors| panic!("{errors}"));
    }
}

/// What the images and the manifests ship is loaded as nodes load it, with the variables that the manifests set.
#[test]
fn the_shipped_configurations_are_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let load = |file: &str, env: &[(String, String)]| {
        let recipe = Recipe { path: Some(root.join(file)), args: named("balsa-1"), env: env.to_vec() };
        let loaded = recipe.load().unwrap_or_else(|errors| panic!("{errors}"));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        loaded.config
    };
    let peer_of = |config: &Config| config.peers().last().unwrap().peer_addr.to_string();
    assert_eq!(peer_of(&load("docker/balsa.toml", &[])), "balsa-2:6001");

    let mut env = variables(&root.join("k8s/base/statefulset.yaml"));
    assert_eq!(env.len(), 2, "{env:?}");
    let config = load("k8s/base/balsa.toml", &env);
    assert_eq!(peer_of(&config), "balsa-2.balsa-headless.somewhere.svc.cluster.local.:6001");
    env.extend(variables(&root.join("k8s/overlays/production/statefulset.yaml")));
    assert_eq!(load("k8s/base/balsa.toml", &env).storage.cache_bytes, 2 << 30);
}

/// The variables for balsa in a manifest, as a pod of the namespace `somewhere` gets them.
fn variables(manifest: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(manifest).unwrap();
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let pairs = lines.windows(2).filter_map(|pair| {
        let name = pair[0].strip_prefix("- name: ").filter(|name| name.starts_with("BALSA_"))?;
        let value = pair[1].strip_prefix("value: ").expect("a value follows its name");
        Some((name.to_owned(), value.trim_matches('"').replace("$(POD_NAMESPACE)", "somewhere")))
    });
    pairs.collect()
}
