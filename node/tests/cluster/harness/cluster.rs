//! A cluster of processes in a temporary directory, which is taken down with it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use balsa::client::{Client, Endpoint, Options, hash_together};
use balsa::proto::admin::StatusResponse;
use futures::future::join_all;
use rustix::process::{Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;

use super::node::{Node, agreed_leader, one_says};
use super::ports::free_ports;
use super::programs::{Ran, balsa};
use super::turns::{Turn, turn};
use super::{PATIENCE, until};

/// What is special about a cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    /// How many nodes its file says.
    pub(crate) replicas: u16,
    /// How many more there are, to be started later.
    pub(crate) spare: u16,
    /// Runs the hostile module instead of the key/value store.
    pub(crate) hostile: bool,
    /// Lines for `[raft]`; those that set timings replace the usual ones.
    pub(crate) raft: Option<&'a str>,
    /// Lines for `[limits]`.
    pub(crate) limits: &'a str,
    /// Lines for `[otlp]`, which is left out else.
    pub(crate) otlp: Option<&'a str>,
    /// Each node has a wall clock that the test can set.
    pub(crate) clocks: bool,
    /// Modules' files. Each node has them, and its `balsa.toml`, in a directory of its own.
    pub(crate) modules: Option<&'a [File<'a>]>,
}

/// A `[[module]]` and its file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct File<'a> {
    /// The module's name; its file is `<name>.wasm`.
    pub(crate) name: &'a str,
    pub(crate) wasm: &'a [u8],
    pub(crate) allow_breaking: bool,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { replicas: 3, spare: 0, hostile: false, raft: None, limits: "", otlp: None, clocks: false, modules: None }
    }
}

/// For [`Setup::raft`]: what holds where nothing is said.
pub(crate) const DEFAULT_TIMINGS: &str = "# election_timeout_min_ms and the others are not set\n";
/// For [`Setup::raft`]: nobody stands for election before a minute has passed, so that one which comes sooner has another reason than a
/// leader that is late: it is gone, or has asked for it.
pub(crate) const SLOW_ELECTIONS: &str =
    "heartbeat_interval_ms = 500\nelection_timeout_min_ms = 60000\nelection_timeout_max_ms = 90000\n";
/// Elections are quick, so that tests are, and still slow enough for two busy cores.
const TIMINGS: &str = "heartbeat_interval_ms = 100\nelection_timeout_min_ms = 600\nelection_timeout_max_ms = 1200\n";

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    base: u16,
    dir: TempDir,
    founders: usize,
    turn: Turn,
}

impl Cluster {
    /// A cluster whose nodes do not run yet.
    pub(crate) async fn stopped(setup: Setup<'_>) -> Self {
        Self::stopped_in(turn().await, setup)
    }

    pub(crate) fn stopped_in(turn: Turn, setup: Setup<'_>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let count = setup.replicas + setup.spare;
        let base = free_ports(3 * count);
        let config = dir.path().join("balsa.toml");
        fs::write(&config, toml(dir.path(), base, setup)).unwrap();
        let nodes = (0..count).map(|ordinal| Node::new(dir.path(), &config, base, ordinal)).collect();
        let mut cluster = Self { nodes, base, dir, founders: setup.replicas.into(), turn };
        if setup.clocks {
            cluster.nodes.iter_mut().for_each(Node::give_clock);
        }
        if setup.modules.is_some() {
            cluster.nodes.iter_mut().for_each(|node| node.config = node.volume.path("balsa.toml"));
            cluster.give_all(setup);
        }
        cluster
    }

    /// Gives every node these files, each at once.
    pub(crate) fn give_all(&self, setup: Setup<'_>) {
        self.nodes.iter().for_each(|node| self.give(node, setup));
    }

    /// Gives a node these files, all at once.
    pub(crate) fn give(&self, node: &Node, setup: Setup<'_>) {
        let toml = self.toml(setup);
        let modules = setup.modules.unwrap_or_default();
        let modules = modules.iter().map(|module| (format!("{}.wasm", module.name), module.wasm)).collect::<Vec<_>>();
        let modules = modules.iter().map(|(name, wasm)| (name.as_str(), *wasm));
        let files: Vec<_> = std::iter::once(("balsa.toml", toml.as_bytes())).chain(modules).collect();
        node.volume.turn(&files);
    }

    /// The `balsa.toml` of that setup for this cluster.
    pub(crate) fn toml(&self, setup: Setup<'_>) -> String {
        toml(self.dir(), self.base, setup)
    }

    /// Gives every node this file in one step.
    pub(crate) fn put_all(&self, name: &str, bytes: &[u8]) {
        self.nodes.iter().for_each(|node| node.volume.put(name, bytes));
    }

    /// A cluster that serves.
    pub(crate) async fn start(setup: Setup<'_>) -> Self {
        Self::start_in(turn().await, setup).await
    }

    /// The same, in a turn that the test has already.
    pub(crate) async fn start_in(turn: Turn, setup: Setup<'_>) -> Self {
        let mut cluster = Self::stopped_in(turn, setup);
        cluster.start_all();
        cluster.ready().await;
        cluster
    }

    /// Writes another configuration for all nodes, those that run included.
    pub(crate) fn configure(&self, setup: Setup<'_>) {
        let draft = self.dir().join("balsa.toml.new");
        fs::write(&draft, self.toml(setup)).unwrap();
        fs::rename(draft, self.dir().join("balsa.toml")).unwrap();
    }

    /// Another process under the name of the node at `at`, with a configuration of its own.
    pub(crate) fn twin(&self, at: usize, toml: &str) -> Node {
        let config = self.dir().join("twin.toml");
        fs::write(&config, toml).unwrap();
        let ordinal = u16::try_from(at).unwrap();
        // Where `2 n² + n` is, of the ports that are to spare.
        let first = self.base + 2 * ordinal * ordinal + ordinal;
        Node {
            data_dir: self.dir().join("twin").join(&self.nodes[at].name),
            config,
            log: self.dir().join("twin.log"),
            endpoint: Endpoint::new("127.0.0.1", first),
            peer: Endpoint::new("127.0.0.1", first + 1),
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, first + 2)),
            ..Node::new(self.dir(), Path::new(""), self.base, ordinal)
        }
    }

    /// Starts every node of the first that does not run; not those to spare.
    pub(crate) fn start_all(&mut self) {
        self.nodes.iter_mut().take(self.founders).filter(|node| node.process.is_none()).for_each(Node::start);
    }

    /// Takes the cluster down, and has its turn for the next one.
    pub(crate) fn into_turn(self) -> Turn {
        self.turn.clone()
    }

    /// Where the nodes were started, and what they leave there.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns once every running node says that it can serve.
    pub(crate) async fn ready(&self) {
        for node in self.running() {
            until(&format!("{} is ready", node.name), async || node.is_ready().await.then_some(())).await;
        }
    }

    /// Those that can answer.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.process.is_some() && !node.frozen)
    }

    /// A client of all nodes.
    pub(crate) fn client(&self) -> Client {
        Client::new(Options::new(self.nodes.iter().map(|node| node.endpoint.clone()).collect(), PATIENCE / 2))
    }

    /// For `--endpoints`.
    pub(crate) fn endpoints(&self) -> String {
        self.nodes.iter().map(|node| node.endpoint.to_string()).collect::<Vec<_>>().join(",")
    }

    /// The place of the node that leads, once the running nodes agree who does.
    pub(crate) async fn leader(&self) -> usize {
        until("the running nodes agree on a leader", async || {
            let running = self.nodes.iter().enumerate().filter(|(_, node)| node.answers());
            let asked = running.map(async |(at, node)| Some((at, node.own_status().await?)));
            let said: Vec<_> = join_all(asked).await.into_iter().collect::<Option<_>>()?;
            agreed_leader(&said)
        })
        .await
    }

    /// Has the node at `at` lead.
    pub(crate) async fn lead(&self, at: usize) {
        let name = &self.nodes[at].name;
        until(&format!("{name} leads"), async || {
            self.balsa(&["member", "transfer-leader", name]).await;
            (self.leader().await == at).then_some(())
        })
        .await;
    }

    /// The place of a node that does not lead.
    pub(crate) async fn follower(&self) -> usize {
        let leader = self.leader().await;
        (0..self.nodes.len()).find(|at| *at != leader && self.nodes[*at].answers()).expect("two nodes run")
    }

    /// How much each node has logged, for [`Cluster::one_says`].
    pub(crate) fn said(&self) -> Vec<usize> {
        self.nodes.iter().map(|node| node.log().len()).collect()
    }

    /// The place of the node that is the first to say `text`, after what all had said: of what a leader says, since who leads now may not be
    /// who leads then.
    pub(crate) async fn one_says(&self, said: &[usize], text: &str) -> usize {
        let nodes: Vec<_> = self.nodes.iter().zip(said.iter().copied()).collect();
        one_says(&nodes, text).await
    }

    /// The term that the running nodes agree on.
    pub(crate) async fn term(&self) -> u64 {
        self.nodes[self.leader().await].tells_own_status().await.term
    }

    /// The cluster as the first running node sees it.
    pub(crate) async fn status(&self) -> StatusResponse {
        let node = self.running().next().expect("a node runs");
        until("a node shows its status", async || node.status().await).await
    }

    /// All running nodes hold the same bytes, and got there by the same history.
    pub(crate) async fn assert_same_state(&self) {
        let clients: Vec<_> = self.running().map(Node::client).collect();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let states = hash_together(&clients, 0, deadline).await.expect("all nodes come to one entry");
        let index = states[0].index;
        for state in &states[1..] {
            assert_eq!(state.hash, states[0].hash, "the stored bytes differ at index {index}");
            assert_eq!(state.digest, states[0].digest, "the histories differ at index {index}");
        }
    }

    /// Runs `balsa` with these arguments against all nodes.
    pub(crate) async fn balsa(&self, arguments: &[&str]) -> Ran {
        let endpoints = self.endpoints();
        balsa(self.dir(), &[&["--endpoints", &endpoints], arguments].concat()).await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let ids: Vec<_> = self.nodes.iter().filter(|node| node.runs()).map(Node::id).collect();
        for id in &ids {
            let _ = kill_process(*id, Signal::KILL);
        }
        // The directory and the turn go when nobody writes there any more. Whoever collects ended processes still finds them.
        for id in ids {
            let _ = waitid(WaitId::Pid(id), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        }
        if std::thread::panicking() {
            self.nodes.iter().for_each(Node::show_log);
        }
    }
}

fn toml(dir: &Path, base: u16, setup: Setup<'_>) -> String {
    let address = |place: u16| format!("\"127.0.0.1:{{{} + 3 * ordinal}}\"", base + place);
    let (client, peer, http) = (address(0), address(1), address(2));
    let raft = setup.raft.unwrap_or_default();
    let timings = if raft.contains("election_timeout_min_ms") { "" } else { TIMINGS };
    let module = |file: &File<'_>| {
        let File { name, allow_breaking, .. } = file;
        format!("[[module]]\nname = {name:?}\npath = \"{name}.wasm\"\nallow_breaking = {allow_breaking}\n")
    };
    let modules: String = match setup.hostile {
        true => format!("[[module]]\nname = \"hostile\"\npath = {:?}\n", crate::hostile::wasm()),
        false => setup.modules.unwrap_or_default().iter().map(module).collect(),
    };
    let otlp = setup.otlp.map(|lines| format!("[otlp]\n{lines}\n")).unwrap_or_default();
    format!(
        "[cluster]\nreplicas = {}\n\n[node]\ndata_dir = \"{}/data/{{name}}\"\nclient_addr = {client}\npeer_addr = {peer}\n\
         http_addr = {http}\n\n[raft]\n{timings}{raft}\n[limits]\n{}\n{otlp}{modules}",
        setup.replicas,
        dir.display(),
        setup.limits
    )
}
