//! `balsa serve`: run a node until it is told to stop.
//!
//! The configuration is checked before anything is opened or written. A module's file that is missing or broken is refused only if
//! it is needed: a node that belongs to a cluster runs what that cluster's log says, whatever has become of its files, and says what
//! is wrong with them for as long as it is.

use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use super::config::{load_to_run, refuse, warn};
use crate::config::{self, ConfigErrors, LogFormat, Overrides, Recipe};
use crate::node::{self, Stop};

/// Arguments.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The configuration, the same file for every node; without it, the defaults and the environment
    #[arg(long, env = CONFIG, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which of the cluster's nodes this is, such as balsa-1 [default: the host's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where the node keeps its log and state
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// The variable that names the configuration of the node that runs here.
const CONFIG: &str = "BALSA_CONFIG";

impl Args {
    /// Those of a node that is told nothing by arguments.
    pub(super) fn of_environment() -> Self {
        let config = std::env::var_os(CONFIG).filter(|path| !path.is_empty());
        Self { config: config.map(Into::into), name: None, data_dir: None }
    }

    /// The configuration of the node that would run, whatever its modules' files are.
    pub(super) fn configuration(&self) -> Result<config::Config, super::Error> {
        let loaded = self.recipe().settings();
        let wrong = |errors: ConfigErrors| super::Error::Configuration(errors.to_string().trim_end().into());
        loaded.map(|loaded| loaded.config).map_err(wrong)
    }

    /// What the node's configuration is made from.
    fn recipe(&self) -> Recipe {
        let host_name = config::host_name();
        let overrides = Overrides { name: self.name.clone(), data_dir: self.data_dir.clone(), host_name };
        Recipe { path: self.config.clone(), args: overrides, env: config::environment().collect() }
    }
}

pub(super) fn run(args: &Args) -> ExitCode {
    super::up::die_with_parent();
    let recipe = args.recipe();
    let loaded = match load_to_run(&recipe, |loaded| vec![loaded.config.node.data_dir.clone()]) {
        Ok(loaded) => loaded,
        Err(errors) => return refuse(&errors),
    };
    warn(&loaded.warnings);
    let level = start_log(&loaded.config.log);
    // One thread for the network and Raft: with a second, work stealing costs more than it brings (docs/performance.md).
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the system gives a new process a few file descriptors");
    let set_level = move |wanted| {
        if let Err(error) = level.reload(quiet(wanted)) {
            tracing::warn!(%error, "the log level cannot be changed");
        }
    };
    let ended = runtime.block_on(async { node::serve(loaded, set_level, stops()).await });
    // A thread that still applies, a write that the disk does not take: what has not ended in its time is not waited for. It ends with the
    // process, as by a crash, which loses nothing either.
    std::mem::forget(runtime);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            match error {
                node::Error::Retired(_) => ExitCode::from(node::EXIT_RETIRED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Everything goes to standard error; what a program reads comes from other subcommands. The level can be changed by what this
/// returns.
fn start_log(log: &config::Log) -> reload::Handle<Targets, Registry> {
    let (filter, level) = reload::Layer::new(quiet(log.level));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let registry = tracing_subscriber::registry().with(filter);
    match log.format {
        LogFormat::Text => registry.with(lines.with_target(false)).init(),
        LogFormat::Json => registry.with(lines.json()).init(),
    }
    level
}

/// Parts of openraft that warn at each attempt to reach a peer which is gone, several times a second and for as long as it is. Of
/// that, the node itself has one line when a peer is lost and one when it is back (`node/duties.rs`).
const OPENRAFT_ON_PEERS: [&str; 4] = [
    "openraft::core::heartbeat",
    "openraft::core::raft_core",
    "openraft::engine::handler::replication_handler",
    "openraft::replication",
];

/// openraft tells its engine's every step at INFO; who wants that asks for `debug`.
fn quiet(level: tracing::Level) -> Targets {
    let at_most = |most: tracing::Level| if level > tracing::Level::INFO { level } else { most.min(level) };
    let on_peers = OPENRAFT_ON_PEERS.map(|part| (part, at_most(tracing::Level::ERROR)));
    Targets::new().with_default(level).with_target("openraft", at_most(tracing::Level::WARN)).with_targets(on_peers)
}

/// What the process is told by signals.
fn stops() -> mpsc::Receiver<Stop> {
    let (told, stops) = mpsc::channel(1);
    let mut terminate = signal(SignalKind::terminate()).expect("a process may handle its signals");
    let mut interrupt = signal(SignalKind::interrupt()).expect("a process may handle its signals");
    tokio::spawn(async move {
        loop {
            let (name, stop) = tokio::select! {
                _ = terminate.recv() => ("SIGTERM", Stop::Soon),
                _ = interrupt.recv() => ("SIGINT", Stop::Now),
            };
            tracing::info!("{name} received");
            // A third one says nothing new.
            let _ = told.try_send(stop);
        }
    });
    stops
}
