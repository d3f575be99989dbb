//! A node of a cluster: a process, its files, and the ways to talk to it.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use balsa::client::{Client, Endpoint, Options};
use balsa::proto::admin::{NodeStatus, StatusResponse};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;

use super::programs::{perish_with_us, program, program_at};
use super::waiting::until_at_once;
use super::{PATIENCE, until};
use crate::volume::Volume;

/// Lines of each node's log that a failed test shows.
const LINES_SHOWN: usize = 60;
/// openraft has lines of kilobytes.
const LINE_BYTES_SHOWN: usize = 300;

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) data_dir: PathBuf,
    /// Where its files are, if it has its own.
    pub(crate) volume: Volume,
    pub(super) config: PathBuf,
    pub(super) log: PathBuf,
    pub(super) endpoint: Endpoint,
    pub(super) peer: Endpoint,
    pub(super) http: SocketAddr,
    /// What libfaketime reads: how far the node's wall clock is off.
    pub(super) clock: Option<PathBuf>,
    pub(super) process: Option<Child>,
    pub(super) frozen: bool,
    /// Another `balsa` than the one under test.
    pub(crate) program: Option<PathBuf>,
    /// What it finds in its environment.
    pub(crate) environment: Vec<(&'static str, String)>,
}

impl Node {
    pub(super) fn new(dir: &Path, config: &Path, base: u16, ordinal: u16) -> Self {
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

    pub(super) fn give_clock(&mut self) {
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

    pub(super) fn answers(&self) -> bool {
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

    pub(super) fn show_log(&self) {
        show_end(&self.name, &self.log());
    }
}

/// The place of the first of these nodes whose log has a line with `text`, from the offset on.
pub(super) async fn one_says(nodes: &[(&Node, usize)], text: &str) -> usize {
    let mut ears: Vec<_> = nodes.iter().map(|(node, from)| Ear { log: &node.log, at: *from as u64 }).collect();
    let names: Vec<_> = nodes.iter().map(|(node, _)| node.name.as_str()).collect();
    let what = format!("{} says {text:?}", names.join(" or "));
    until_at_once(&what, async || ears.iter_mut().position(|ear| ear.lines().contains(text))).await
}

/// The place of the node that leads, if these agree who does.
pub(crate) fn agreed_leader(said: &[(usize, NodeStatus)]) -> Option<usize> {
    let (_, first) = said.first()?;
    let agree = said.iter().all(|(_, one)| (one.term, one.leader_id) == (first.term, first.leader_id));
    let leader = said.iter().find(|(_, one)| one.id == first.leader_id && one.role == "leader");
    leader.filter(|_| agree).map(|(at, _)| *at)
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

/// The library that comes between a process and the clock.
fn fake_clock() -> PathBuf {
    let library = "faketime/libfaketime.so.1";
    let places = [format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH), "/usr/lib64".into(), "/usr/lib".into()];
    let found = places.into_iter().chain(["/usr/local/lib".into()]).map(|place| Path::new(&place).join(library));
    found.into_iter().find(|path| path.exists()).expect(
        "libfaketime is not installed, so no test can set a node's clock; `make setup-test` installs it (Debian's package libfaketime)",
    )
}
