//! A cluster of processes in a temporary directory, which is taken down with it.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use balsa::client::{Client, Endpoint, Options, hash_together};
use balsa::proto::admin::{NodeStatus, StatusResponse};
use futures::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::volume::Volume;

/// How long anything may take before a test gives up. Nothing takes nearly as long on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(40);
/// Of these, one has to be calm.
const ROUNDS: u32 = 3;
/// Lines of each node's log that a failed test shows.
const LINES_SHOWN: usize = 60;
/// openraft has lines of kilobytes.
const LINE_BYTES_SHOWN: usize = 300;

/// Who has it may run nodes. Several clusters of one test may share it.
pub(crate) type Turn = Arc<Place>;

/// What it takes. Given up in this order, the lock last.
pub(crate) struct Place {
    _places: SemaphorePermit<'static>,
    _alone: Option<fs::File>,
}

/// Tests that run nodes at the same time. Most of the time each waits: for an election, or for a process to start.
const AT_ONCE: u32 = 2;
/// It is fair: who waits for all places is not passed by those who need one.
static PLACES: Semaphore = Semaphore::const_new(AT_ONCE as usize);

/// For a test that runs nodes without a [`Cluster`], or more than one.
pub(crate) async fn turn() -> Turn {
    let place = PLACES.acquire().await.expect("it is never closed");
    Arc::new(Place { _places: place, _alone: None })
}

/// For a test beside which none may run nodes: it measures, fills the machine, or would take another's work for a fault. Nor does a case
/// on Kubernetes (k8s/test/cases) go meanwhile. It is waited for first, so that other tests' clusters do not wait as well.
pub(crate) async fn turn_alone() -> Turn {
    let lock = tokio::task::spawn_blocking(|| {
        let lock = fs::File::create(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/alone.lock")).unwrap();
        lock.lock().unwrap();
        lock
    });
    let lock = Some(lock.await.unwrap());
    let places = PLACES.acquire_many(AT_ONCE).await.expect("it is never closed");
    Arc::new(Place { _places: places, _alone: lock })
}

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

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) data_dir: PathBuf,
    /// Where its files are, if it has its own.
    pub(crate) volume: Volume,
    config: PathBuf,
    log: PathBuf,
    endpoint: Endpoint,
    peer: Endpoint,
    http: SocketAddr,
    /// What libfaketime reads: how far the node's wall clock is off.
    clock: Option<PathBuf>,
    process: Option<Child>,
    frozen: bool,
    /// Another `balsa` than the one under test.
    pub(crate) program: Option<PathBuf>,
    /// What it finds in its environment.
    pub(crate) environment: Vec<(&'static str, String)>,
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
            let (_, first) = said.first()?;
            let agree = said.iter().all(|(_, one)| (one.term, one.leader_id) == (first.term, first.leader_id));
            let leader = said.iter().find(|(_, one)| one.id == first.leader_id && one.role == "leader");
            leader.filter(|_| agree).map(|(at, _)| *at)
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
        for node in self.nodes.iter_mut().filter(|node| node.process.is_some()) {
            node.signal(Signal::KILL);
        }
        if std::thread::panicking() {
            self.nodes.iter().for_each(Node::show_log);
        }
    }
}

impl Node {
    fn new(dir: &Path, config: &Path, base: u16, ordinal: u16) -> Self {
        let name = format!("balsa-{ordinal}");
        let first = base + 3 * ordinal;
        Self {
            data_dir: dir.join("data").join(&name),
            volume: Volume::new(dir.join("files").join(&name)),
            config: config.to_owned(),
            log: dir.join(format!("{name}.log")),
            endpoint: Endpoint::new("127.0.0.1", first),
            peer: Endpoint::new("127.0.0.1", first + 1),
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, first + 2)),
            clock: None,
            process: None,
            frozen: false,
            program: None,
            environment: Vec::new(),
            name,
        }
    }

    /// Starts the process; what it says is added to its log.
    pub(crate) fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let log = fs::File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = match &self.program {
            Some(other) => program_at(other),
            None => program(),
        };
        // No load balancer has to notice.
        command.env("BALSA_NODE__DRAIN_WAIT_MS", "0");
        perish_with_us(&mut command);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.args(["serve", "--name", &self.name, "--config"]).arg(&self.config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        if let Some(clock) = &self.clock {
            command.env("LD_PRELOAD", fake_clock()).env("FAKETIME_TIMESTAMP_FILE", clock);
            command
                .env("FAKETIME_CACHE_DURATION", "1")
                .env("NO_FAKE_STAT", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        self.process = Some(command.spawn().unwrap());
    }

    /// The same, with a file of its own from now on.
    pub(crate) fn start_with(&mut self, toml: &str) {
        self.config = self.log.with_extension("toml");
        fs::write(&self.config, toml).unwrap();
        self.start();
    }

    fn give_clock(&mut self) {
        self.clock = Some(self.log.with_extension("clock"));
        self.set_clock("+0");
    }

    /// Sets the node's wall clock so far ahead (`+10y`); it shows within a second.
    pub(crate) fn set_clock(&self, offset: &str) {
        let clock = self.clock.as_ref().expect("the cluster was set up with clocks");
        let draft = clock.with_extension("new");
        fs::write(&draft, offset).unwrap();
        fs::rename(draft, clock).unwrap();
    }

    /// Its volume is gone.
    pub(crate) fn lose_volume(&self) {
        assert!(self.process.is_none(), "{} runs", self.name);
        fs::remove_dir_all(&self.data_dir).unwrap();
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.exited().await;
    }

    /// Asks it to stop, and returns how it ended.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.exited().await
    }

    /// How the process ended, when it does.
    pub(crate) async fn exited(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("it runs");
        self.frozen = false;
        let ended = tokio::time::timeout(PATIENCE, process.wait()).await;
        ended.unwrap_or_else(|_| panic!("{} does not end", self.name)).unwrap()
    }

    /// Stops the process where it stands, with its connections open.
    pub(crate) fn freeze(&mut self) {
        self.signal(Signal::STOP);
        self.frozen = true;
    }

    /// Lets it go on.
    pub(crate) fn thaw(&mut self) {
        self.signal(Signal::CONT);
        self.frozen = false;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).unwrap();
    }

    /// Of its process.
    pub(crate) fn id(&self) -> Pid {
        let id = self.process.as_ref().and_then(Child::id).expect("it runs");
        Pid::from_raw(id.try_into().unwrap()).unwrap()
    }

    pub(crate) fn runs(&self) -> bool {
        self.process.is_some()
    }

    fn answers(&self) -> bool {
        self.process.is_some() && !self.frozen
    }

    /// A client of this node alone.
    pub(crate) fn client(&self) -> Client {
        self.client_within(PATIENCE / 2)
    }

    /// A client of this node alone, whose calls take no longer than this.
    pub(crate) fn client_within(&self, timeout: Duration) -> Client {
        Client::new(Options::new(vec![self.endpoint.clone()], timeout))
    }

    /// `http://host:port` for clients.
    pub(crate) fn uri(&self) -> String {
        self.endpoint.uri()
    }

    /// `host:port` for peers, and for operators.
    pub(crate) fn peer_address(&self) -> String {
        self.peer.to_string()
    }

    /// Its operators' socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.data_dir.join("balsa.sock")
    }

    /// The configuration it is started with.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// `host:port` for clients.
    pub(crate) fn address(&self) -> String {
        self.endpoint.to_string()
    }

    /// `host:port` of its HTTP port.
    pub(crate) fn http_address(&self) -> String {
        self.http.to_string()
    }

    /// The cluster as this node sees it, if it answers soon. It asks its peers, and waits for those that do not move.
    pub(crate) async fn status(&self) -> Option<StatusResponse> {
        self.client_within(Duration::from_secs(8)).status().await.ok()
    }

    /// What this node says about itself.
    pub(crate) async fn own_status(&self) -> Option<NodeStatus> {
        let status = self.status().await?;
        status.nodes.into_iter().find(|node| node.name == self.name)
    }

    /// The same, once it answers.
    pub(crate) async fn tells_own_status(&self) -> NodeStatus {
        until(&format!("{} says how it is", self.name), async || self.own_status().await).await
    }

    /// What it counts the members to be, and how they are, once it answers.
    pub(crate) async fn tells_status(&self) -> StatusResponse {
        until(&format!("{} says how the cluster is", self.name), async || self.status().await).await
    }

    /// Whether the node wants clients to come.
    pub(crate) async fn is_ready(&self) -> bool {
        self.get("/readyz").await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// What its HTTP port answers, if it does soon.
    pub(crate) async fn get(&self, path: &str) -> Option<String> {
        get(self.http, path).await
    }

    /// The same, once it does.
    pub(crate) async fn tells(&self, path: &str) -> String {
        until(&format!("{} answers at {path}", self.name), async || self.get(path).await).await
    }

    /// The most memory that its process ever held.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let pid = self.process.as_ref().and_then(Child::id).expect("it runs");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says so");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// A number of its `/metrics`.
    pub(crate) async fn metric(&self, name: &str) -> Option<u64> {
        let metrics = self.get("/metrics").await?;
        metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// How long the process has been on a processor.
    pub(crate) fn cpu_time(&self) -> Duration {
        let id = self.process.as_ref().and_then(Child::id).expect("it runs");
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        // proc(5): after the name, which ends in a parenthesis, 12th and 13th are hundredths of seconds as user and as system.
        let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(10 * ticks)
    }

    /// What it has logged, over all its lives.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns once a line of its log, from `from` on, contains `text`.
    pub(crate) async fn says(&self, from: usize, text: &str) {
        one_says(&[(self, from)], text).await;
    }

    /// How often it has said that it gives up the log up to one above `index`.
    pub(crate) fn trims_above(&self, index: u64) -> usize {
        let log = self.log();
        let trims = log.lines().filter_map(|line| line.split_once("trimming the log upto=")?.1.split(' ').next());
        trims.filter(|upto| upto.parse::<u64>().unwrap() > index).count()
    }

    fn show_log(&self) {
        show_end(&self.name, &self.log());
    }
}

/// The place of the first of these nodes whose log has a line with `text`, from the offset on. It looks often: whoever waits wants to be
/// there when it happens.
async fn one_says(nodes: &[(&Node, usize)], text: &str) -> usize {
    let mut ears: Vec<_> = nodes.iter().map(|(node, from)| Ear { log: &node.log, at: *from as u64 }).collect();
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(at) = ears.iter_mut().position(|ear| ear.lines().contains(text)) {
            return at;
        }
        let names: Vec<_> = nodes.iter().map(|(node, _)| node.name.as_str()).collect();
        assert!(Instant::now() < deadline, "{} does not say {text:?}", names.join(" or "));
        tokio::time::sleep(POLL / 20).await;
    }
}

/// Hears what is added to a log.
struct Ear<'a> {
    log: &'a Path,
    at: u64,
}

impl Ear<'_> {
    /// The whole lines since the last look.
    fn lines(&mut self) -> String {
        let mut new = Vec::new();
        if let Ok(mut log) = fs::File::open(self.log) {
            log.seek(SeekFrom::Start(self.at)).unwrap();
            log.read_to_end(&mut new).unwrap();
        }
        new.truncate(new.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
        self.at += new.len() as u64;
        String::from_utf8_lossy(&new).into_owned()
    }
}

/// Shows the end of a node's log.
pub(crate) fn show_end(name: &str, log: &str) {
    let lines: Vec<_> = log.lines().collect();
    eprintln!("--- the end of {name}'s log");
    let shown = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
    shown.iter().for_each(|line| eprintln!("{}", line.get(..LINE_BYTES_SHOWN).unwrap_or(line)));
}

/// What an HTTP port answers.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let answer = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: balsa\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    tokio::time::timeout(Duration::from_secs(2), answer).await.ok()?.ok()
}

/// A program that ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Its output, after checking that it ended with `code`.
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:#?}");
        self.out
    }

    /// Its output as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        let out = self.ends(0);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }
}

/// Runs `balsa` in `dir`.
pub(crate) async fn balsa(dir: &Path, arguments: &[&str]) -> Ran {
    let mut command = program();
    command.args(arguments).current_dir(dir).stdin(Stdio::null());
    run(command).await
}

/// Runs a program to its end.
pub(crate) async fn run(mut command: Command) -> Ran {
    command.kill_on_drop(true);
    let output = tokio::time::timeout(2 * PATIENCE, command.output()).await.expect("it ends").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// The program under test, without what this process's environment says about clusters.
pub(crate) fn program() -> Command {
    program_at(Path::new(env!("CARGO_BIN_EXE_balsa")))
}

fn program_at(path: &Path) -> Command {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"BALSA_")) {
        command.env_remove(name);
    }
    command
}

/// Has a node, or `balsa up`, end with this process even if that is killed: as a node ends with `balsa up`. Nodes that nobody ends would be
/// in the way of the next run.
pub(crate) fn perish_with_us(command: &mut Command) {
    command.env("BALSA_UP_PID", std::process::id().to_string());
}

/// The library that comes between a process and the clock.
fn fake_clock() -> PathBuf {
    let library = "faketime/libfaketime.so.1";
    let places = [format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH), "/usr/lib64".into(), "/usr/lib".into()];
    let found = places.into_iter().chain(["/usr/local/lib".into()]).map(|place| Path::new(&place).join(library));
    found.into_iter().find(|path| path.exists()).expect(
        "libfaketime is not installed, so no test can set a node's clock; `make setup-test` installs it (Debian's package libfaketime)",
    )
}

/// Looks until there is something to see.
pub(crate) async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look).await
}

/// The same, for something that may take longer.
pub(crate) async fn until_within<T>(patience: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Looks for a while at what must not change. That something never happens can be shown only so far.
pub(crate) async fn stays(what: &str, duration: Duration, mut look: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        assert!(look().await, "{what}, and no more");
        tokio::time::sleep(POLL).await;
    }
}

/// Has `round` tell a number before and after it that must not grow: the term, since nobody is to stand for election. A machine
/// that stands still for a second or two makes somebody do so; what is wrong with the nodes makes them do so each time.
pub(crate) async fn calm(what: &str, mut round: impl AsyncFnMut() -> (u64, u64)) {
    let mut told = Vec::new();
    for _ in 0..ROUNDS {
        let (before, after) = round().await;
        if before == after {
            return;
        }
        told.push((before, after));
    }
    panic!("{what}; before and after each round it was {told:?}");
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

/// The first of so many ports that nobody has, outside of the range from which the system takes ports for connections: a node's
/// port must still be free when the node comes back.
pub(crate) fn free_ports(count: u16) -> u16 {
    assert!(count <= PORTS);
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let tries = std::iter::repeat_with(|| 10_000 + rand::random::<u16>() % 1_000 * PORTS);
    let mut free = tries.take(1000).filter(|base| (*base..base + count).all(is_free));
    free.find(|base| reserve(*base)).expect("some ports are free")
}

/// So many follow on one another.
const PORTS: u16 = 20;

/// Whether these ports, from `base` on, are nobody else's until this process ends: neither a cluster's that is about to start or has a node
/// down, nor those of other tests on this machine. Whoever takes ports here has the UDP port of the first, which nobody needs.
pub(crate) fn reserve(base: u16) -> bool {
    static TAKEN: parking_lot::Mutex<Vec<UdpSocket>> = parking_lot::Mutex::new(Vec::new());
    UdpSocket::bind((Ipv4Addr::LOCALHOST, base)).is_ok_and(|socket| {
        TAKEN.lock().push(socket);
        true
    })
}
