//! A cluster of containers in a network of its own, which is removed with it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use balsa::client::{Client, Endpoint, Options, Read};
use balsa::proto::admin::{ClusterMember, NodeStatus, StatusResponse};
use futures::future::join_all;
use tempfile::TempDir;
use tokio::process::Command;

use super::engine::{Engine, clear_away};
use crate::harness::{PATIENCE, Ran, agreed_leader, get, run, show_end, until};
use crate::hostile;
use crate::load::{Load, Tally};
use crate::volume::Volume;

/// Where a node's volume is mounted.
const DATA: &str = "/var/lib/balsa";
const CLIENT_PORT: u16 = 6000;
const HTTP_PORT: u16 = 6080;
/// The shipped configuration.
const TOML: &str = include_str!("../../../../docker/balsa.toml");
/// Clients of a case.
const WRITERS: usize = 6;
const VALUE_BYTES: usize = 200;

/// Three nodes, at first.
pub(super) struct Fleet {
    pub(super) nodes: Vec<Node>,
    /// The directory that every node has its files from.
    files: Volume,
    replicas: usize,
    modules: Vec<(String, Vec<u8>)>,
    /// All that clients of all cases were told.
    told: Tally,
    cases: u32,
    run: String,
    network: String,
    /// The first three numbers of all addresses.
    subnet: [u8; 3],
    /// Which was given last.
    host: u8,
    engine: Engine,
    dir: TempDir,
}

/// A container and its volume.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// In the network, and to itself.
    pub(super) name: String,
    /// To docker.
    pub(super) container: String,
    pub(super) volume: String,
    pub(super) address: Ipv4Addr,
    /// It runs, and can be reached.
    answers: bool,
}

impl Fleet {
    /// Three nodes that serve, with the built-in module and the hostile one.
    pub(super) async fn start(engine: Engine) -> Self {
        let hostile = fs::read(hostile::wasm()).unwrap();
        Self::start_with(engine, &[("hostile", &hostile)]).await
    }

    /// The same with these modules beside the built-in one.
    pub(super) async fn start_with(engine: Engine, modules: &[(&str, &[u8])]) -> Self {
        let mut fleet = Self::empty(engine, modules).await;
        fleet.add(3).await;
        fleet.ready().await;
        // A node is ready with the first of its modules.
        let all = fleet.modules.len();
        until("all nodes serve all modules", async || {
            fleet.status().await.nodes.iter().all(|node| node.modules.len() == all).then_some(())
        })
        .await;
        fleet
    }

    /// A network without nodes.
    pub(super) async fn empty(engine: Engine, modules: &[(&str, &[u8])]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The nodes' user is none of this machine.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let run = format!("balsa-test-{:08x}", rand::random::<u32>());
        let builtin = ("kvstore-wasm", balsa::wasm::embedded::KVSTORE);
        let modules = [builtin].iter().chain(modules).map(|(name, wasm)| ((*name).to_owned(), wasm.to_vec())).collect();
        let subnet = make_network(&engine, &run).await;
        let mut fleet = Self {
            nodes: Vec::new(),
            files: Volume::new(dir.path().join("files")),
            replicas: 3,
            modules,
            told: Tally::default(),
            cases: 0,
            network: run.clone(),
            run,
            subnet,
            // Docker has the first for the bridge.
            host: 1,
            engine,
            dir,
        };
        fleet.turn_files();
        fleet
    }

    /// Starts `count` more nodes with empty volumes.
    pub(super) async fn add(&mut self, count: usize) {
        for _ in 0..count {
            let name = format!("balsa-{}", self.nodes.len());
            let node = self.make(&name).await;
            self.nodes.push(node);
        }
    }

    /// A new container of that name, with a new volume.
    pub(super) async fn make(&mut self, name: &str) -> Node {
        let mut node = self.node(name);
        self.create(&node).await;
        node.start().await;
        node
    }

    /// Names and an address for a new container.
    fn node(&mut self, name: &str) -> Node {
        let address = self.next_address();
        let container = format!("{}-{name}-{}", self.run, self.host);
        let volume = format!("{container}-data");
        Node { name: name.into(), container, volume, address, answers: false }
    }

    /// The mount of the files.
    fn files_mount(&self) -> String {
        format!("{}:/etc/balsa:ro", self.files.path("").display())
    }

    /// Makes the node's volume and container, as docker/compose.yaml would.
    async fn create(&self, node: &Node) {
        let Self { engine, network, run, .. } = self;
        let Node { name, container, volume, .. } = node;
        let labels = ["--label", &engine.label, "--label", run];
        docker(&[&["volume", "create"], &labels[..], &[volume]].concat()).await;
        let data = format!("{volume}:{DATA}");
        let files = self.files_mount();
        let address = node.address.to_string();
        let identity = ["--name", container, "--hostname", name, "--stop-timeout", "60"];
        let reached = ["--network", network, "--network-alias", name, "--ip", &address];
        let rights = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"];
        let mounts = ["--volume", &data, "--volume", &files];
        docker(&[&["create"], &labels[..], &identity, &reached, &rights, &mounts, &[&engine.image]].concat()).await;
    }

    /// Removes a node's container and volume, and gives its name to a new one.
    pub(super) async fn renew(&mut self, at: usize) {
        self.nodes[at].delete().await;
        let name = self.nodes[at].name.clone();
        self.nodes[at] = self.make(&name).await;
    }

    /// Removes the last node for good.
    pub(super) async fn delete_last(&mut self) {
        self.nodes.pop().expect("there is one").delete().await;
    }

    /// Has a client write a backup, and returns where it is.
    pub(super) async fn back_up(&self) -> PathBuf {
        let place = self.dir.path().join("backup");
        fs::create_dir(&place).unwrap();
        // For the container's user.
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
        let mount = format!("{}:/backup", place.display());
        self.balsa_with(&["--volume", &mount], &["backup", "/backup/state"]).await.ends(0);
        place
    }

    /// Removes all nodes and volumes, restores the backup to the first of new ones, and starts all.
    pub(super) async fn begin_again_with(&mut self, backup: &Path) {
        for node in std::mem::take(&mut self.nodes) {
            node.delete().await;
        }
        let mut first = self.node("balsa-0");
        self.create(&first).await;
        let data = format!("{}:{DATA}", first.volume);
        let (files, backup) = (self.files_mount(), format!("{}:/backup:ro", backup.display()));
        let mounts = ["--hostname", "balsa-0", "--volume", &data, "--volume", &files, "--volume", &backup];
        self.balsa_with(&mounts, &["restore", "/backup/state", "--config", "/etc/balsa/balsa.toml"]).await.ends(0);
        first.start().await;
        self.nodes.push(first);
        self.add(2).await;
        self.voters(&["balsa-0", "balsa-1", "balsa-2"]).await;
        self.ready().await;
    }

    /// What is on a node's volume just now: the node is stopped for it.
    pub(super) async fn copy_of_volume(&mut self, at: usize) -> PathBuf {
        assert_eq!(self.stop(at).await, 0);
        let copy = self.dir.path().join("volume.tar");
        let container = &self.nodes[at].container;
        shell(&format!("docker cp '{container}:{DATA}/data' - > '{}'", copy.display())).await;
        self.restart(at).await;
        self.ready().await;
        copy
    }

    /// Starts a container that was killed with that on its volume instead.
    pub(super) async fn put_back(&mut self, at: usize, copy: &Path) {
        let Node { name, container, address, .. } = self.nodes[at].clone();
        self.nodes[at].delete().await;
        let volume = format!("{container}-data-of-before");
        let mut node = Node { name, container, volume, address, answers: false };
        self.create(&node).await;
        shell(&format!("docker cp - '{}:{DATA}' < '{}'", node.container, copy.display())).await;
        node.start().await;
        self.nodes[at] = node;
    }

    fn next_address(&mut self) -> Ipv4Addr {
        self.host += 1;
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, self.host)
    }

    // --- Files -----------------------------------------------------------------------------------------------------------

    /// Gives all nodes a module's file, the way that the kubelet does.
    pub(super) fn swap(&mut self, name: &str, wasm: &[u8]) {
        self.modules.iter_mut().find(|(module, _)| module == name).expect("a module of this name").1 = wasm.to_vec();
        self.turn_files();
    }

    /// Changes `replicas` in every node's configuration.
    pub(super) fn want_replicas(&mut self, replicas: usize) {
        self.replicas = replicas;
        self.turn_files();
    }

    fn turn_files(&mut self) {
        let toml = self.toml();
        let files: Vec<_> = self.modules.iter().map(|(name, wasm)| (format!("{name}.wasm"), &wasm[..])).collect();
        let files = files.iter().map(|(name, wasm)| (name.as_str(), *wasm));
        self.files.turn(&[("balsa.toml", toml.as_bytes())].into_iter().chain(files).collect::<Vec<_>>());
    }

    fn toml(&self) -> String {
        let modules =
            self.modules.iter().map(|(name, _)| format!("[[module]]\nname = {name:?}\npath = \"{name}.wasm\"\n"));
        let replicas = "replicas = 3";
        assert!(TOML.contains(replicas), "docker/balsa.toml is for three nodes");
        // Nobody here finds nodes by their readiness, so none has to wait until that is noticed.
        let toml = TOML.replace("[node]\n", "[node]\ndrain_wait_ms = 200\n");
        format!("{}\n{}", toml.replace(replicas, &format!("replicas = {}", self.replicas)), modules.collect::<String>())
    }

    // --- What happens to containers --------------------------------------------------------------------------------------

    /// `kill -9`.
    pub(super) async fn kill(&mut self, at: usize) {
        docker(&["kill", &self.nodes[at].container]).await;
        self.nodes[at].answers = false;
    }

    /// Stops it in order, and returns how it ended.
    pub(super) async fn stop(&mut self, at: usize) -> i32 {
        let container = &self.nodes[at].container;
        docker(&["stop", "--time", "60", container]).await;
        let code = docker(&["inspect", "--format", "{{.State.ExitCode}}", container]).await;
        self.nodes[at].answers = false;
        code.parse().unwrap()
    }

    /// Starts a container that has ended, with the address that it has.
    pub(super) async fn restart(&mut self, at: usize) {
        self.nodes[at].start().await;
    }

    /// Returns once the container has ended by itself, with its exit code.
    pub(super) async fn ended(&mut self, at: usize) -> i32 {
        self.nodes[at].ended().await
    }

    pub(super) async fn pause(&mut self, at: usize) {
        docker(&["pause", &self.nodes[at].container]).await;
        self.nodes[at].answers = false;
    }

    pub(super) async fn unpause(&mut self, at: usize) {
        docker(&["unpause", &self.nodes[at].container]).await;
        self.nodes[at].answers = true;
    }

    /// Takes the container, running or not, off the network.
    pub(super) async fn disconnect(&mut self, at: usize) {
        docker(&["network", "disconnect", &self.network, &self.nodes[at].container]).await;
        self.nodes[at].answers = false;
    }

    /// Connects the container again, with an address that nobody had.
    pub(super) async fn connect(&mut self, at: usize) {
        let address = self.next_address();
        self.connect_as(at, address).await;
        self.nodes[at].answers = true;
    }

    /// Connects the container again, with this address.
    pub(super) async fn connect_as(&mut self, at: usize, address: Ipv4Addr) {
        let Node { name, container, .. } = &self.nodes[at];
        let ip = address.to_string();
        docker(&["network", "connect", "--ip", &ip, "--alias", name, &self.network, container]).await;
        self.nodes[at].address = address;
    }

    // --- Looking at it ---------------------------------------------------------------------------------------------------

    /// Returns once every node that can be reached says that it can serve.
    pub(super) async fn ready(&self) {
        for node in self.nodes.iter().filter(|node| node.answers) {
            until(&format!("{} is ready", node.name), async || node.is_ready().await.then_some(())).await;
        }
    }

    /// Returns once Docker calls the node healthy, which asks it by the image's own health check.
    pub(super) async fn healthy(&self, at: usize) {
        let Node { name, container, .. } = &self.nodes[at];
        until(&format!("{name} is healthy"), async || {
            (docker(&["inspect", "--format", "{{.State.Health.Status}}", container]).await == "healthy").then_some(())
        })
        .await;
    }

    /// For clients: those that can be reached.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        self.nodes.iter().filter(|node| node.answers).map(Node::endpoint).collect()
    }

    /// A client of all nodes.
    pub(super) fn client(&self) -> Client {
        Client::new(Options::new(self.endpoints(), PATIENCE / 2))
    }

    /// The cluster as one node sees it.
    pub(super) async fn status(&self) -> StatusResponse {
        until("a node shows its status", async || self.client().status().await.ok()).await
    }

    /// The place of the node that leads, once those that can be reached agree who does.
    pub(super) async fn leader(&self) -> usize {
        until("the nodes agree on a leader", async || {
            let asked = self.nodes.iter().enumerate().filter(|(_, node)| node.answers);
            let asked = asked.map(async |(at, node)| Some((at, node.own_status().await?)));
            let said: Vec<_> = join_all(asked).await.into_iter().collect::<Option<_>>()?;
            agreed_leader(&said)
        })
        .await
    }

    /// The ids of the members, once they have these names and all of them vote.
    pub(super) async fn voters(&self, names: &[&str]) -> Vec<u64> {
        until(&format!("the members are {names:?}, all of them voters"), async || {
            let members = self.client().members().await.ok()?.members;
            let is =
                |(member, name): (&ClusterMember, &&str)| member.name == **name && member.voter && member.reachable;
            let all = members.len() == names.len() && members.iter().zip(names).all(is);
            all.then(|| members.iter().map(|member| member.id).collect())
        })
        .await
    }

    /// The place of a node that does not lead.
    pub(super) async fn follower(&self) -> usize {
        (self.leader().await + 1) % self.nodes.len()
    }

    // --- Cases -----------------------------------------------------------------------------------------------------------

    /// One thing that happens while clients write; then the cluster is whole again, and nothing acknowledged is lost.
    pub(super) async fn case(&mut self, title: &str, body: impl AsyncFnOnce(&mut Self, &Load)) {
        let begun = Instant::now();
        println!("--- {title}");
        let load = self.load();
        load.goes_on(50).await;
        body(self, &load).await;
        self.ready().await;
        load.goes_on(50).await;
        let count = load.acknowledged();
        self.told.join(load.stop().await);
        let over = begun.elapsed();
        self.told.assert_kept_by(&self.clients(), VALUE_BYTES).await;
        self.check().await;
        let compared = begun.elapsed() - over;
        println!(
            "    {count} writes acknowledged in {over:.1?}; all of them read, and the nodes compared, in {compared:.1?}"
        );
    }

    /// Clients that write, with keys of their own.
    pub(super) fn load(&mut self) -> Load {
        self.cases += 1;
        Load::start_at(&self.endpoints(), &format!("case-{}", self.cases), WRITERS, VALUE_BYTES)
    }

    /// The sum of all that was added.
    pub(super) async fn total(&self) -> u64 {
        hostile::total(&self.client(), Read::Linearizable).await.unwrap()
    }

    /// The nodes have begun again with a backup that was made while clients wrote, when `least` had been added already: that is there, and
    /// nothing that nobody wrote. From now on, what is there is what was told.
    pub(super) async fn has_at_least(&mut self, least: u64, across: &Tally) {
        let (total, most) = (self.total().await, self.told.added + across.added);
        assert!((least..=most).contains(&total), "{total} is not in {least}..={most}");
        self.told.added = total;
    }

    /// One client of each node that can be reached.
    fn clients(&self) -> Vec<Client> {
        self.endpoints().into_iter().map(|endpoint| Client::new(Options::new(vec![endpoint], PATIENCE / 2))).collect()
    }

    /// `balsa check --deep`, in a container of its own that knows the nodes' names.
    pub(super) async fn check(&self) {
        let ran = self.balsa(&["--timeout", "60s", "check", "--deep"]).await;
        let out = ran.ends(0);
        let names: Vec<_> = self.nodes.iter().filter(|node| node.answers).map(|node| node.name.as_str()).collect();
        assert!(out.contains(&format!("read them back through {}: all as written", names.join(", "))), "{out}");
    }

    /// Runs `balsa` with these arguments in a container of its own, with the nodes' names as endpoints.
    async fn balsa(&self, arguments: &[&str]) -> Ran {
        self.balsa_with(&[], arguments).await
    }

    /// The same with options of `docker run`.
    async fn balsa_with(&self, options: &[&str], arguments: &[&str]) -> Ran {
        let names: Vec<_> = self.nodes.iter().map(|node| format!("{}:{CLIENT_PORT}", node.name)).collect();
        let endpoints = format!("BALSA_ENDPOINTS={}", names.join(","));
        let endpoints: &[&str] = if names.is_empty() { &[] } else { &["--env", &endpoints] };
        let Self { engine, network, run, .. } = self;
        let container = ["run", "--rm", "--network", network, "--label", &engine.label, "--label", run];
        try_docker(&[&container, endpoints, options, &[&engine.image], arguments].concat()).await
    }

    /// All containers of this cluster, by name.
    fn containers(&self) -> Vec<String> {
        let list = format!("docker ps --all --filter label={} --format '{{{{.Names}}}}'", self.run);
        let output = std::process::Command::new("sh").args(["-c", &list]).output();
        output
            .map(|output| String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
            .unwrap_or_default()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for container in self.containers() {
                let log = std::process::Command::new("docker").args(["logs", &container]).output();
                let log = log.map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).unwrap_or_default();
                show_end(&container, &log);
            }
        }
        // What is left over is removed by the next run.
        drop(std::process::Command::new("sh").args(["-c", &clear_away(&self.run)]).output());
    }
}

impl Node {
    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint::new(&self.address.to_string(), CLIENT_PORT)
    }

    pub(super) async fn start(&mut self) {
        docker(&["start", &self.container]).await;
        self.answers = true;
    }

    /// Returns once it has ended by itself, with its exit code.
    pub(super) async fn ended(&mut self) -> i32 {
        let code = docker(&["wait", &self.container]).await;
        self.answers = false;
        code.parse().unwrap()
    }

    /// Removes the container and its volume.
    pub(super) async fn delete(&self) {
        docker(&["rm", "--force", &self.container]).await;
        docker(&["volume", "rm", &self.volume]).await;
    }

    /// What it has logged, over all its lives.
    pub(super) async fn log(&self) -> String {
        try_docker(&["logs", &self.container]).await.err
    }

    /// Whether the node wants clients to come.
    pub(super) async fn is_ready(&self) -> bool {
        let http = SocketAddr::from((self.address, HTTP_PORT));
        get(http, "/readyz").await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// What this node says about itself.
    pub(super) async fn own_status(&self) -> Option<NodeStatus> {
        let client = Client::new(Options::new(vec![self.endpoint()], PATIENCE / 6));
        let status = client.status().await.ok()?;
        status.nodes.into_iter().find(|node| node.name == self.name)
    }
}

/// Runs the `docker` command, which must end well, and returns what it prints.
pub(super) async fn docker(arguments: &[&str]) -> String {
    try_docker(arguments).await.ends(0).trim().to_owned()
}

/// The same, however it ends.
pub(super) async fn try_docker(arguments: &[&str]) -> Ran {
    let mut command = Command::new("docker");
    command.args(arguments).stdin(std::process::Stdio::null());
    run(command).await
}

async fn shell(script: &str) {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    run(command).await.ends(0);
}

/// A network without a way out, with addresses that this machine does not use yet.
async fn make_network(engine: &Engine, name: &str) -> [u8; 3] {
    for _ in 0..50 {
        let subnet = [10, 200 + rand::random::<u8>() % 50, rand::random()];
        let [a, b, c] = subnet;
        let range = format!("{a}.{b}.{c}.0/24");
        let labels = ["--label", &engine.label, "--label", name];
        let ran =
            try_docker(&[&["network", "create", "--internal", "--subnet", &range], &labels[..], &[name]].concat())
                .await;
        if ran.code == 0 {
            return subnet;
        }
        assert!(ran.err.contains("overlap"), "{ran:?}");
    }
    panic!("no addresses are free for a network");
}
