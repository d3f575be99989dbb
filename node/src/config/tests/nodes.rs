//! Names, addresses, ports and directories of the nodes.

use insta::assert_snapshot;

use super::*;

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
    assert_snapshot!(complaint_with(three, &named("other-3"), &[]), @r#"
    error: "other-3" is not one of the cluster's nodes, balsa-0, balsa-1, balsa-2
    --> argument --name
     |
     | --name other-3
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
}

#[test]
fn a_node_beyond_the_replicas_is_no_founder_and_knows_its_place() {
    let three = "[cluster]\nreplicas = 3\n";
    let loaded = load_with(three, &named("balsa-4"), &[]).unwrap();
    let config = loaded.config;
    assert_eq!((config.node.ordinal, config.node.client_addr.port()), (4, 6400));
    assert_eq!(config.cluster.members.len(), 3);
    assert_eq!(config.this_member().peer_addr, "127.0.0.1:6401");
    assert_eq!(config.founding_hash(), load_with(three, &named("balsa-0"), &[]).unwrap().config.founding_hash());
    // Nor does a pod with a higher ordinal found a cluster of one.
    assert_eq!(load_with("", &on_host("balsa-1"), &[]).unwrap().config.node.ordinal, 1);
    assert_eq!(load_with("", &on_host("laptop"), &[]).unwrap().config.node.ordinal, 0);
}

#[test]
fn a_file_that_names_no_number_asks_for_none() {
    assert_eq!(load_with("", &named("balsa-0"), &[]).unwrap().config.cluster.replicas, None);
    assert_eq!(
        load_with("[cluster]\nreplicas = 1\n", &named("balsa-0"), &[]).unwrap().config.cluster.replicas,
        Some(1)
    );
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
