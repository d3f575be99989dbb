//! `balsa up`: a whole cluster in one terminal, for development and for a first look.
//!
//! Each node is a process of its own, `balsa serve`, so that a node can be killed like a real one. `up` only looks after
//! them: it merges what they say ([`log`]), waits until all are ready ([`ready`]), starts one again that dies ([`child`]),
//! and stops them all when it is told to. Everything the cluster has is in one directory:
//!
//! ```text
//! .balsa/
//!   balsa.toml     written by the first `up`, then yours to edit (unless --config names another)
//!   balsa-0/ ...   each node's data; a second `up` goes on with it
//!   endpoints      where clients reach the nodes, one host:port a line, while the cluster runs: how the CLI finds it
//!   sockets        where operators reach them, one unix:/path a line: each is in its node's data
//!   lock           held while `up` runs
//! ```
//!
//! Whatever can be known beforehand is checked before the first node starts: the configuration, whether another `up` runs
//! here, whether the ports are free.

mod child;
mod log;
mod plan;
mod ready;

use std::path::PathBuf;
use std::pin::Pin;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use child::die_with_parent;
use child::{Ended, Supervisor};
pub(super) use log::Log;
pub(super) use plan::{Plan, Refusal, lock};

use crate::config::{self, Site};

/// Between "still waiting" lines.
const PATIENCE: Duration = Duration::from_secs(10);

/// Arguments.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How many nodes the cluster has; another number than before adds or removes members [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=9))]
    pub(super) nodes: Option<u64>,
    /// The cluster's directory: `--dir`, which all clients understand as well.
    #[arg(skip)]
    pub(super) dir: PathBuf,
    /// Use this configuration instead of the directory's own
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The first node's client port in a new cluster; the others follow [default: 6000]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1024..=64_000))]
    pub(super) port: Option<u16>,
    /// Leave a node that died dead
    #[arg(long)]
    pub(super) no_restart: bool,
    /// Run `balsa check` against the cluster once it is ready
    #[arg(long)]
    pub(super) check: bool,
    /// Stop after that check, with its exit code
    #[arg(long, requires = "check")]
    pub(super) once: bool,
}

/// What else runs in this terminal once the nodes are ready, for as long as they do; it gets the log that all share.
pub(super) type Beside = Box<dyn FnOnce(Log) -> Pin<Box<dyn Future<Output = ()>>>>;

pub(super) fn run(args: Args) -> ExitCode {
    let plan = match prepare(&args) {
        Ok(plan) => plan,
        Err(code) => return code,
    };
    let welcome = plan.welcome();
    run_plan(plan, &args, welcome, None)
}

/// The plan, or the exit code after saying why there is none.
pub(super) fn prepare(args: &Args) -> Result<Plan, ExitCode> {
    match Plan::make(args) {
        Ok(plan) => {
            super::config::warn(&plan.warnings);
            Ok(plan)
        }
        Err(Refusal::Config(errors)) => Err(super::config::refuse(&errors)),
        Err(refusal) => {
            anstream::eprintln!("error: {refusal}");
            Err(ExitCode::from(config::EXIT_CODE))
        }
    }
}

/// Runs the cluster; says `welcome` when it is ready.
pub(super) fn run_plan(plan: Plan, args: &Args, welcome: String, beside: Option<Beside>) -> ExitCode {
    die_with_parent();
    // One thread, this one: a child is told to die with the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime of one thread needs only an event queue");
    let code = runtime.block_on(Cluster::new(plan, args, welcome, beside).run());
    ExitCode::from(code)
}

/// A running cluster.
struct Cluster {
    plan: Plan,
    log: Log,
    check: bool,
    once: bool,
    welcome: String,
    beside: Option<Beside>,
    stop: watch::Sender<bool>,
    nodes: JoinSet<Ended>,
}

impl Cluster {
    fn new(plan: Plan, args: &Args, welcome: String, beside: Option<Beside>) -> Self {
        let own = if beside.is_some() { "dev" } else { "up" };
        let log = Log::to_stderr(plan.sites.iter().map(|site| site.name.as_str()), own);
        let (check, once) = (args.check, args.once);
        let (stop, nodes) = (watch::Sender::new(false), JoinSet::new());
        Self { plan, log, check, once, welcome, beside, stop, nodes }
    }

    /// Runs until it is told to stop or no node is left; returns the exit code.
    async fn run(mut self) -> u8 {
        let mut signals = Signals::new();
        self.start();
        let code = tokio::select! {
            code = self.live() => code,
            () = signals.next() => 0,
        };
        self.plan.remove_endpoints();
        self.stop.send_replace(true);
        tokio::select! {
            () = self.stopped() => {}
            () = signals.next() => {
                self.log.say("told twice: killing what is left");
                self.nodes.shutdown().await;
            }
        }
        code
    }

    fn start(&mut self) {
        let count = self.plan.sites.len();
        let plural = if count == 1 { "" } else { "s" };
        self.log.say(&format!("starting {count} node{plural} with {}", self.plan.config.display()));
        for (at, site) in self.plan.sites.iter().enumerate() {
            let supervisor = Supervisor {
                launch: self.plan.launch(site),
                restart: self.plan.restart,
                grace: self.plan.grace,
                log: self.log.of_node(at),
            };
            self.nodes.spawn(supervisor.run(self.stop.subscribe()));
        }
    }

    /// Until the nodes are ready, then until they end.
    async fn live(&mut self) -> u8 {
        let log = self.log.clone();
        let sites = self.plan.sites.clone();
        let ready = async move { ready::all(&sites, PATIENCE, &log).await };
        tokio::select! {
            code = none_left(&mut self.nodes, &self.log) => return code,
            () = ready => {}
        }
        if let Err(error) = self.plan.write_endpoints() {
            self.log.say(&format!("cannot write {}: {error}", self.plan.endpoints_path().display()));
        }
        let verdict = if self.check { Some(check(&self.plan.sites, &self.log).await) } else { None };
        if let Some(code) = verdict.filter(|_| self.once) {
            return code;
        }
        anstream::println!("{}", self.welcome);
        let beside: Pin<Box<dyn Future<Output = ()>>> = match self.beside.take() {
            Some(beside) => beside(self.log.clone()),
            None => Box::pin(std::future::pending()),
        };
        tokio::select! {
            code = none_left(&mut self.nodes, &self.log) => code,
            () = beside => 1,
        }
    }

    async fn stopped(&mut self) {
        if !self.nodes.is_empty() {
            self.log.say("stopping; once more to kill");
        }
        while self.nodes.join_next().await.is_some() {}
    }
}

/// Until no node runs and none will be started again. A node that refuses its configuration takes all with it: it would do so
/// for ever.
async fn none_left(nodes: &mut JoinSet<Ended>, log: &Log) -> u8 {
    while let Some(ended) = nodes.join_next().await {
        if matches!(ended, Ok(Ended::Refused)) {
            return config::EXIT_CODE;
        }
    }
    log.say("no node is left");
    1
}

/// Runs `balsa check` against the cluster; returns its exit code.
async fn check(sites: &[Site], log: &Log) -> u8 {
    let endpoints: Vec<_> = sites.iter().map(|site| plan::local(site.client_addr).to_string()).collect();
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            log.say(&format!("cannot run `balsa check`: {error}"));
            return 1;
        }
    };
    log.say("checking: write, read back through every node, compare");
    let mut command = Command::new(program);
    command.arg("check").env("BALSA_ENDPOINTS", endpoints.join(",")).stdin(Stdio::null()).kill_on_drop(true);
    match command.status().await {
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
        Err(error) => {
            log.say(&format!("cannot run `balsa check`: {error}"));
            1
        }
    }
}

/// What tells a process to stop.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> Self {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        Self(kinds.map(|kind| signal(kind).expect("these signals can be caught")))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests;
