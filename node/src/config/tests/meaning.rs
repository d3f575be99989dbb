//! What a configuration means.

use std::fs;
use std::path::Path;

use super::*;

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
                    schema::Default::Text(text) if key.kind == schema::Kind::Fraction => {
                        format!("{} = {text}\n", key.name())
                    }
                    schema::Default::Text(text) => format!("{} = \"{text}\"\n", key.name()),
                    _ => String::new(),
                })
                .collect();
            format!("[{}]\n{lines}", section.name)
        })
        .collect();
    let (mut written, bare) = (load(&text).config, load("").config);
    written.node.data_dir.clone_from(&bare.node.data_dir);
    written.node.socket.clone_from(&bare.node.socket);
    assert_eq!(written, bare);
}

#[test]
fn the_operators_socket_is_in_the_data_directory_unless_it_is_put_elsewhere() {
    let found = load("[cluster]\nreplicas = 3\n[node]\ndata_dir = \"/data/{name}\"\n");
    assert_eq!(found.config.node.socket, Path::new("/data/balsa-0/balsa.sock"));
    assert_eq!(found.sites[2].socket, Path::new("/data/balsa-2/balsa.sock"));
    let found = load("[node]\nsocket = \"/run/{name}.sock\"\n");
    assert_eq!(found.config.node.socket, Path::new("/run/balsa-0.sock"));
    let both = complaint("[cluster]\nreplicas = 3\n[node]\nsocket = \"/run/balsa.sock\"\n");
    assert!(both.contains("balsa-0 and balsa-1 are on one host, and `socket` gives both of them"), "{both}");
}
