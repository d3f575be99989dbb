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
    fs::write(directory.path().join("counter.wasm"), b"\0asm").unwrap();
    fs::write(&path, "[node]\ndata_dir = \"d/{name}\"\n[[module]]\nname = \"counter\"\npath = \"counter.wasm\"")
        .unwrap();
    let config = Config::load(Some(&path), &Overrides::default(), std::iter::empty()).unwrap().config;
    assert_eq!(config.node.data_dir, directory.path().join("d/balsa-0"));
    let module = config.module.unwrap();
    assert_eq!((module.name.as_str(), module.path), ("counter", directory.path().join("counter.wasm")));
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
    assert_ne!(hash(three, "balsa-0"), hash(&format!("{three}[limits]\nquery_fuel = 1000000"), "balsa-0"));
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
    assert_eq!(
        load(&text).config,
        Config { node: Node { data_dir: load(&text).config.node.data_dir, ..load("").config.node }, ..load("").config }
    );
}

// --- Every message ---------------------------------------------------------------------------------------------------------

#[test]
fn a_missing_file_is_named() {
    let errors =
        Config::load(Some(Path::new("/nowhere/balsa.toml")), &Overrides::default(), std::iter::empty()).unwrap_err();
    assert_snapshot!(errors, @"");
}

#[test]
fn a_directory_is_no_file() {
    let errors = Config::load(Some(Path::new("/")), &Overrides::default(), std::iter::empty()).unwrap_err();
    assert_snapshot!(errors, @"");
}

#[test]
fn a_file_that_is_not_text_is_refused() {
    assert_snapshot!(complaint_with(b"[node]\n\xff\xfe", &Overrides::default(), &[]), @"");
}

#[test]
fn toml_that_cannot_be_read_is_shown() {
    assert_snapshot!(complaint("[node\ndata_dir = \"d\"\n"), @"");
    assert_snapshot!(complaint("[raft]\nheartbeat_interval_ms = \n"), @"");
    assert_snapshot!(complaint("[node]\ndata_dir = unquoted\n"), @"");
    assert_snapshot!(complaint("[node]\ndata_dir = \"never closed\n"), @"");
}

#[test]
fn a_key_that_is_set_twice_names_the_first_line() {
    assert_snapshot!(complaint("[log]\nlevel = \"info\"\n\nlevel = \"warn\"\n"), @"");
    assert_snapshot!(complaint("[log]\n[raft]\n[log]\n"), @"");
}

#[test]
fn an_unknown_section_names_the_nearest() {
    assert_snapshot!(complaint("[rafts]\n"), @"");
    assert_snapshot!(complaint("[modules]\n"), @"");
    assert_snapshot!(complaint("[tls]\ncert = \"c\"\n"), @"");
}

#[test]
fn an_unknown_key_names_the_nearest() {
    assert_snapshot!(complaint("[raft]\nheartbeat_ms = 100\n"), @"");
    assert_snapshot!(complaint("[node]\nreplicas = 3\n"), @"");
    assert_snapshot!(complaint("[log]\nzebra = 1\n"), @"");
}

#[test]
fn a_key_outside_of_a_section_is_told_where_it_belongs() {
    assert_snapshot!(complaint("data_dir = \"d\"\n"), @"");
    assert_snapshot!(complaint("zebra = 1\n"), @"");
}

#[test]
fn a_section_written_otherwise_is_told_how() {
    assert_snapshot!(complaint("[module]\nname = \"counter\"\n"), @"");
    assert_snapshot!(complaint("node = 1\n"), @"");
    assert_snapshot!(complaint("[[raft]]\n"), @"");
}

#[test]
fn a_wrong_type_says_what_is_expected_and_what_is_there() {
    assert_snapshot!(complaint("[raft]\nheartbeat_interval_ms = \"250\"\n"), @"");
    assert_snapshot!(complaint("[node]\nclient_addr = 6000\n"), @"");
    assert_snapshot!(complaint("[cluster]\nreplicas = 3.0\n"), @"");
    assert_snapshot!(complaint("[storage]\ncache_bytes = \"64 MB\"\n"), @"");
    assert_snapshot!(complaint("[log]\nlevel = true\n"), @"");
}

#[test]
fn a_number_out_of_range_names_the_range() {
    assert_snapshot!(complaint("[raft]\nheartbeat_interval_ms = 0\n"), @"");
    assert_snapshot!(complaint("[cluster]\nreplicas = -3\n"), @"");
    assert_snapshot!(complaint("[limits]\nmemory_bytes = \"1 GiB\"\n"), @"");
}

#[test]
fn a_word_that_is_no_choice_names_the_choices() {
    assert_snapshot!(complaint("[log]\nlevel = \"warning\"\n"), @"");
    assert_snapshot!(complaint("[log]\nformat = \"xml\"\n"), @"");
}

#[test]
fn a_bad_name_or_an_empty_path_is_refused() {
    assert_snapshot!(complaint("[cluster]\nname = \"my cluster\"\n"), @"");
    assert_snapshot!(complaint("[node]\ndata_dir = \"\"\n"), @"");
    assert_snapshot!(complaint("[cluster]\nnode_name = \"node {ordinal}\"\n"), @"");
}

#[test]
fn a_bad_template_marks_the_part_to_blame() {
    assert_snapshot!(complaint("[node]\npeer_addr = \"127.0.0.1:{6001 + 10 * ordnal}\"\n"), @"");
    assert_snapshot!(complaint("[node]\ndata_dir = \"data/{name\"\n"), @"");
    assert_snapshot!(complaint("[cluster]\nnode_name = \"{name}-{ordinal}\"\n"), @"");
}

#[test]
fn a_bad_address_says_why() {
    let listen = |value: &str| complaint(&format!("[node]\nclient_addr = \"{value}\"\n"));
    assert_snapshot!(listen("localhost:6000"), @"");
    assert_snapshot!(listen("127.0.0.1"), @"");
    assert_snapshot!(listen("::1:6000"), @"");
    assert_snapshot!(listen("127.0.0.1:{65500 + 100}"), @"");
    let reach = |value: &str| complaint(&format!("[node]\nadvertise_peer_addr = \"{value}\"\n"));
    assert_snapshot!(reach("http://{name}:6001"), @"");
    assert_snapshot!(reach("0.0.0.0:6001"), @"");
    assert_snapshot!(reach("a b:6001"), @"");
    assert_snapshot!(reach(":6001"), @"");
}

#[test]
fn listening_everywhere_needs_an_advertised_address() {
    assert_snapshot!(complaint("[node]\npeer_addr = \"0.0.0.0:6001\"\n"), @"");
}

#[test]
fn a_port_used_twice_names_both_uses() {
    assert_snapshot!(complaint("[node]\npeer_addr = \"127.0.0.1:6000\"\n"), @"");
    assert_snapshot!(complaint("[cluster]\nreplicas = 3\n[node]\nclient_addr = \"127.0.0.1:6000\"\n"), @"");
    assert_snapshot!(complaint("[cluster]\nreplicas = 3\n[node]\npeer_addr = \"127.0.0.1:{6100 + ordinal}\"\n"), @"");
    assert_snapshot!(complaint("[cluster]\nreplicas = 3\n[node]\nadvertise_peer_addr = \"same:{6001 + ordinal}\"\nhttp_addr = \"0.0.0.0:6080\"\n"), @"");
}

#[test]
fn an_advertised_address_of_two_nodes_is_refused() {
    assert_snapshot!(complaint("[cluster]\nreplicas = 3\n[node]\nadvertise_client_addr = \"balsa:6000\"\n"), @"");
}

#[test]
fn nodes_of_one_name_are_refused() {
    assert_snapshot!(complaint("[cluster]\nreplicas = 3\nnode_name = \"balsa\"\n"), @"");
}

#[test]
fn a_name_that_is_none_of_the_nodes_is_refused() {
    let three = "[cluster]\nreplicas = 3\n";
    assert_snapshot!(complaint_with(three, &named("balsa-3"), &[]), @"");
    assert_snapshot!(complaint_with(three, &on_host("laptop"), &[]), @"");
    assert_snapshot!(complaint_with("", &on_host("balsa-1"), &[]), @"");
}

#[test]
fn timings_that_cannot_work_name_the_inequality() {
    assert_snapshot!(complaint("[raft]\nheartbeat_interval_ms = 1000\n"), @"");
    assert_snapshot!(complaint("[raft]\nelection_timeout_min_ms = 3000\n"), @"");
}

#[test]
fn an_even_number_of_replicas_is_a_warning() {
    assert_snapshot!(complaint("[cluster]\nreplicas = 4\n"), @"");
}

#[test]
fn a_module_must_be_one_and_be_there() {
    assert_snapshot!(complaint("[[module]]\nname = \"counter\"\npath = \"counter.wasm\"\n"), @"");
    assert_snapshot!(complaint("[[module]]\nname = \"counter\"\n"), @"");
    assert_snapshot!(complaint("[[module]]\nname = \"a\"\npath = \"balsa.toml\"\n\n[[module]]\nname = \"b\"\npath = \"balsa.toml\"\n"), @"");
    assert_snapshot!(complaint("[[module]]\nname = \"a\"\npath = \".\"\n"), @"");
}

#[test]
fn a_module_that_is_too_large_is_refused_before_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("balsa.toml");
    fs::write(&path, "[[module]]\nname = \"a\"\npath = \"a.wasm\"\n").unwrap();
    fs::File::create(directory.path().join("a.wasm")).unwrap().set_len(MODULE_BYTES_MAX as u64 + 1).unwrap();
    let errors = Config::load(Some(&path), &Overrides::default(), std::iter::empty()).unwrap_err().to_string();
    assert_snapshot!(errors.replace(&format!("{}/", directory.path().display()), ""), @"");
}

#[test]
fn a_wrong_variable_or_argument_is_shown_like_a_line_of_a_file() {
    let env = |name, value| complaint_with("", &Overrides::default(), &[(name, value)]);
    assert_snapshot!(env("BALSA_RAFT__HEARTBEAT_MS", "100"), @"");
    assert_snapshot!(env("BALSA_TLS__CERT", "c"), @"");
    assert_snapshot!(env("BALSA_MODULE__PATH", "a.wasm"), @"");
    assert_snapshot!(env("BALSA_RAFT__HEARTBEAT_INTERVAL_MS", "fast"), @"");
    assert_snapshot!(env("BALSA_NODE__CLIENT_ADDR", "127.0.0.1:{ordnal}"), @"");
    assert_snapshot!(complaint_with("", &named("bad name"), &[]), @"");
}

#[test]
fn all_errors_are_reported_at_once_and_in_order() {
    assert_snapshot!(
        complaint("[node]\ndata_dri = \"d\"\n[cluster]\nreplicas = 2\n[raft]\nheartbeat_interval_ms = true\n[tls]\n"),
        @""
    );
}

#[test]
fn what_follows_from_a_broken_line_is_not_reported_as_well() {
    assert_snapshot!(complaint("[raft]\nheartbeat_interval_ms = 5000 000\nelection_timeout_min_ms = 500\n"), @"");
}

#[test]
fn garbage_ends_after_a_page() {
    let said = complaint(&"= =\n".repeat(1000));
    assert!(said.ends_with("... and 980 more\n"), "{said}");
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
        load(example);
    }
}
