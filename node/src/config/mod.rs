//! Configuration: one `balsa.toml`, the same bytes for every node.
//!
//! ```text
//! schema (every key, once) ─┐
//! file, environment, args ──┴▶ settings ──▶ nodes (templates filled in) ──▶ checks ──▶ Config
//! ```
//!
//! A [`Recipe`] is what a configuration is made from, and the only way in ([`Config::load`] is short for it). It reports
//! everything that is wrong at once, each with its place and what would be right, or returns a [`Config`] that needs no further
//! validation: addresses are parsed, timeouts are ordered, ports differ. Loading writes nothing and starts nothing.
//!
//! The file is read again whenever it changes; [`crate::files`] does that, and says what becomes of a change. The modules' files
//! are a matter of their own: they come and go while a node runs, and a node that has a log runs what that says even if they
//! are missing. So [`Recipe::load`] refuses a module's file that cannot be taken, and [`Recipe::settings`] does not look at any.
//!
//! What differs between nodes follows from the node's ordinal through [`template`]s, so every node can work out every other's
//! addresses from the same file: [`Cluster::members`] is who founds the cluster.
//!
//! What can change the result of a command (`[limits]`, `[[module]]`) is only *proposed* here; see [`schema::Obeyed`].

pub mod nodes;
pub mod problem;
pub mod schema;
pub mod settings;
pub mod template;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use nodes::Site;
pub use problem::{ConfigErrors, Finding, Problem};
pub use settings::{Origin, Setting, Settings, Value};

use crate::files::binary;
use crate::limits::{Fuel, Replicated};
use problem::Findings;
use settings::Source;
use template::{Scope, Template};

/// The exit code of a process whose configuration is wrong.
pub const EXIT_CODE: u8 = 2;

/// A validated configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// This node.
    pub node: Node,
    /// Who takes part.
    pub cluster: Cluster,
    /// The modules' files, in the order of the file; none is the built-in key/value store.
    pub modules: Vec<ModuleFile>,
    /// The limits this node would propose.
    pub limits: Replicated,
    /// Elections and the log's length.
    pub raft: Raft,
    /// The state's database.
    pub storage: Storage,
    /// What is written to standard error.
    pub log: Log,
    /// Where traces go, if they go anywhere.
    pub otlp: Option<Otlp>,
}

/// `[node]`, for the node this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its number among the cluster's nodes, from 0.
    pub ordinal: u32,
    /// Its name.
    pub name: String,
    /// Its directory.
    pub data_dir: PathBuf,
    /// Where it listens for clients.
    pub client_addr: SocketAddr,
    /// Where it listens for its peers.
    pub peer_addr: SocketAddr,
    /// Where it listens for probes and metrics.
    pub http_addr: SocketAddr,
    /// Its operators' socket.
    pub socket: PathBuf,
    /// Threads that run queries.
    pub query_threads: usize,
    /// About how old a client's connection gets, if not any age.
    pub connection_age: Option<Duration>,
    /// How long clients are still served after SIGTERM.
    pub drain_wait: Duration,
}

/// `[cluster]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// The nodes that found it, by ordinal. A node beyond `replicas` is not among them.
    pub members: Vec<Member>,
    /// The nodes with higher ordinals than those, up to the most that there may be, as far as the templates have addresses for them.
    pub beyond: Vec<Member>,
    /// This node as the others know it.
    pub own: Member,
    /// The names that nodes may have, by ordinal, also beyond `members`.
    pub names: Vec<String>,
    /// How many nodes there should be, if the file says so: a file that does not takes none away.
    pub replicas: Option<u32>,
}

/// A node as the others know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its number among the cluster's nodes, from 0.
    pub ordinal: u32,
    /// Its name.
    pub name: String,
    /// How clients reach it, `host:port`.
    pub client_addr: String,
    /// How its peers reach it, `host:port`.
    pub peer_addr: String,
}

/// `[[module]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleFile {
    /// The name it was built with.
    pub name: String,
    /// The `.wasm` or `.wasm.zst` file. It may be missing: see [`Recipe::settings`].
    pub path: PathBuf,
    /// Whether it may replace a module that clients could tell it from.
    pub allow_breaking: bool,
    /// Its own, instead of that of `[limits]`.
    pub fuel: Fuel,
}

/// `[raft]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raft {
    /// How often a leader shows that it is there.
    pub heartbeat_interval: Duration,
    /// Above the heartbeat interval.
    pub election_timeout_min: Duration,
    /// Above the minimum.
    pub election_timeout_max: Duration,
    /// Log growth after which a snapshot is due.
    pub snapshot_log_bytes: u64,
    /// Log kept behind a snapshot.
    pub keep_log_bytes: u64,
}

/// `[storage]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage {
    /// The database's cache.
    pub cache_bytes: usize,
    /// Changed bytes after which the state is made durable.
    pub checkpoint_bytes: u64,
    /// Time after which changed state is made durable.
    pub checkpoint_interval: Duration,
}

/// `[log]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// How a line is written.
    pub format: LogFormat,
    /// The least important lines that are written.
    pub level: tracing::Level,
}

/// `[otlp]`, if there is a collector.
#[derive(Debug, Clone, PartialEq)]
pub struct Otlp {
    /// `http://host:port`.
    pub endpoint: String,
    /// Of the calls whose clients do not say whether they are traced.
    pub sample_ratio: f64,
}

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// What the command line says, and what the host does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--name`.
    pub name: Option<String>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// The host's name, which says which node this is if nothing else does; see [`host_name`]. `None`: then it is the first
    /// node, which stands for all when a file is only looked at.
    pub host_name: Option<String>,
}

/// A configuration and what else is worth knowing about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// To be shown at start.
    pub warnings: Vec<Finding>,
    /// Where each value came from.
    pub settings: Settings,
    /// Where every node listens, as far as the file says: what `balsa up` and `balsa config show` need.
    pub sites: Vec<Site>,
    /// What it was made from.
    pub recipe: Recipe,
}

/// What a configuration is made from: kept, it can be made again when the file has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipe {
    /// The file. `None`: everything is at its default or set by what follows.
    pub path: Option<PathBuf>,
    /// Above the environment.
    pub args: Overrides,
    /// Above the file.
    pub env: Vec<(String, String)>,
}

/// Whether the modules' files must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ModuleFiles {
    Required,
    NotLookedAt,
}

impl Recipe {
    /// Reads and validates, the modules' files included.
    pub fn load(&self) -> Result<Loaded, ConfigErrors> {
        self.make(self.source()?, ModuleFiles::Required)
    }

    /// Reads and validates all but the modules' files, which may be missing or broken.
    pub fn settings(&self) -> Result<Loaded, ConfigErrors> {
        self.make(self.source()?, ModuleFiles::NotLookedAt)
    }

    /// The same, of these `bytes` of the file.
    pub fn settings_of(&self, bytes: Vec<u8>) -> Result<Loaded, ConfigErrors> {
        let path = self.path.as_deref().unwrap_or(Path::new(""));
        self.make(Some(Source::of(path, bytes)?), ModuleFiles::NotLookedAt)
    }

    fn source(&self) -> Result<Option<Source>, ConfigErrors> {
        self.path.as_deref().map(Source::read).transpose()
    }

    fn make(&self, source: Option<Source>, files: ModuleFiles) -> Result<Loaded, ConfigErrors> {
        let mut findings = Findings::default();
        let mut settings = Settings::defaults(source);
        settings.read_file(&mut findings);
        settings.read_environment(self.env.iter().cloned(), &mut findings);
        read_arguments(&mut settings, &self.args, &mut findings);
        check_timings(&settings, &mut findings);
        check_replicas(&settings, &mut findings);
        let modules = modules(&settings, files, &mut findings);
        let own = nodes::own_name(&settings, self.args.host_name.as_deref()).map(str::to_owned);
        let directories = settings.template("node.data_dir", &mut findings);
        let sites = nodes::sites(&settings, own.as_deref(), directories.as_ref(), &mut findings);
        let ordinal = sites
            .as_ref()
            .and_then(|sites| nodes::identify(&settings, sites, self.args.host_name.as_deref(), &mut findings));
        if let (Some(sites), Some(directories)) = (&sites, &directories) {
            nodes::check_directories(sites, directories, &settings, &mut findings);
        }
        let warnings = findings.finish()?;
        let sites = sites.expect("nodes without an error are complete");
        let here = &sites[ordinal.expect("an identity without an error is known") as usize];
        let directory = directories.expect("a template without an error is known");
        let config = build(&settings, &sites, here, &directory, modules);
        Ok(Loaded { config, warnings, settings, sites, recipe: self.clone() })
    }
}

/// This host's name.
pub fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

impl Config {
    /// [`Recipe::load`], of a recipe of these.
    pub fn load(
        path: Option<&Path>,
        args: &Overrides,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigErrors> {
        Recipe { path: path.map(Path::to_owned), args: args.clone(), env: env.collect() }.load()
    }

    /// The node with that ordinal, if it is one of the founders.
    pub fn member(&self, ordinal: u32) -> Option<&Member> {
        self.cluster.members.get(ordinal as usize)
    }

    /// This node, as the others know it.
    pub fn this_member(&self) -> &Member {
        &self.cluster.own
    }

    /// The others.
    pub fn peers(&self) -> impl Iterator<Item = &Member> {
        self.cluster.members.iter().filter(|member| member.ordinal != self.node.ordinal)
    }

    /// A hash of what the founders of a cluster must agree on before they found it: its name, who they are, and the limits
    /// they would propose. Addresses for clients and timings may differ.
    pub fn founding_hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        field(b"balsa founding 2");
        field(self.cluster.name.as_bytes());
        for member in &self.cluster.members {
            field(member.name.as_bytes());
            field(member.peer_addr.as_bytes());
        }
        for limit in self.limits.in_order() {
            field(&limit.to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

/// The process's environment, for [`Config::load`]. What is no text keeps a mark (U+FFFD) that names and addresses refuse.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
}

fn read_arguments(settings: &mut Settings, args: &Overrides, findings: &mut Findings) {
    if let Some(name) = &args.name {
        settings.read_argument("node.name", "--name", name, findings);
    }
    if let Some(directory) = &args.data_dir {
        settings.read_argument("node.data_dir", "--data-dir", &directory.to_string_lossy(), findings);
    }
}

fn check_timings(settings: &Settings, findings: &mut Findings) {
    let below = [
        (
            "raft.heartbeat_interval_ms",
            "raft.election_timeout_min_ms",
            "a follower must hear several heartbeats before it stands for election; four times the interval is a good start",
        ),
        (
            "raft.election_timeout_min_ms",
            "raft.election_timeout_max_ms",
            "each follower waits for a random time between the two, so that they do not all stand at once; twice the minimum is \
             a good start",
        ),
    ];
    for (low, high, why) in below {
        let (Some(low_value), Some(high_value)) = (settings.number(low), settings.number(high)) else { continue };
        if low_value >= high_value {
            let [low_key, high_key] = [low, high].map(|path| settings.get(path).key);
            let problem = Problem::NotBelow {
                low: low_key.name(),
                low_value: low_key.kind.number(low_value),
                high: high_key.name(),
                high_value: high_key.kind.number(high_value),
                why,
            };
            findings.push(problem, settings.blame(&[high, low]));
        }
    }
}

fn check_replicas(settings: &Settings, findings: &mut Findings) {
    if let Some(replicas) = settings.number("cluster.replicas").filter(|replicas| replicas.is_multiple_of(2)) {
        findings.push(Problem::EvenReplicas { replicas }, settings.blame(&["cluster.replicas"]));
    }
}

/// All `[[module]]`s that have a name and a path.
fn modules(settings: &Settings, files: ModuleFiles, findings: &mut Findings) -> Vec<ModuleFile> {
    let mut read: Vec<(&[Setting], ModuleFile)> = Vec::new();
    for section in settings.modules() {
        let Some(module) = module(settings, section) else { continue };
        let same = |is_same: fn(&ModuleFile, &ModuleFile) -> bool| read.iter().find(|(_, m)| is_same(m, &module));
        for (path, twin) in
            [("module.name", same(|a, b| a.name == b.name)), ("module.path", same(|a, b| a.path == b.path))]
        {
            let Some((first, _)) = twin else { continue };
            let [first, second] = [first, &section].map(|section| setting(section, path));
            let value = second.value.as_ref().map(ToString::to_string).unwrap_or_default();
            let first = settings.place(first).map(|place| place.origin);
            findings.push(Problem::ModuleTwice { key: second.key.name(), value, first }, settings.place(second));
        }
        if files == ModuleFiles::Required
            && let Err(problem) = check_module_file(&module.path)
        {
            findings.push(problem, settings.place(setting(section, "module.path")));
        }
        read.push((section, module));
    }
    read.into_iter().map(|(_, module)| module).collect()
}

fn module(settings: &Settings, section: &[Setting]) -> Option<ModuleFile> {
    let text = |path| match &setting(section, path).value {
        Some(Value::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    let number = |path| match setting(section, path).value {
        Some(Value::Number(number)) => Some(number),
        _ => None,
    };
    Some(ModuleFile {
        name: text("module.name")?.to_owned(),
        path: settings.resolve(setting(section, "module.path"), text("module.path")?),
        allow_breaking: setting(section, "module.allow_breaking").value == Some(Value::Switch(true)),
        fuel: Fuel { command: number("module.command_fuel"), query: number("module.query_fuel") },
    })
}

fn setting<'a>(section: &'a [Setting], path: &str) -> &'a Setting {
    section.iter().find(|setting| setting.key.path == path).expect("every key of a section has a slot")
}

fn check_module_file(path: &Path) -> Result<(), Problem> {
    let path = path.to_owned();
    match binary::read(&path) {
        Ok(_) => Ok(()),
        Err(binary::Error::Missing) => Err(Problem::ModuleMissing { path }),
        Err(error) => Err(Problem::ModuleBroken { path, reason: error.to_string() }),
    }
}

/// Everything was checked: what is missing here is a mistake of this file.
fn build(settings: &Settings, sites: &[Site], here: &Site, data_dir: &Template, modules: Vec<ModuleFile>) -> Config {
    let number = |path: &str| settings.number(path).expect("a number without an error has a value");
    let millis = |path: &str| Duration::from_millis(number(path));
    let text = |path: &str| settings.text(path).expect("text without an error has a value");
    let scope = Scope { ordinal: here.ordinal, name: Some(&here.name), cluster: text("cluster.name") };
    let data_dir = data_dir.evaluate(scope).unwrap_or_else(|_| text("node.data_dir").to_owned());
    Config {
        node: Node {
            ordinal: here.ordinal,
            name: here.name.clone(),
            data_dir: settings.resolve(settings.get("node.data_dir"), &data_dir),
            client_addr: here.client_addr,
            peer_addr: here.peer_addr,
            http_addr: here.http_addr,
            socket: here.socket.clone(),
            query_threads: number("node.query_threads") as usize,
            connection_age: Some(millis("node.max_connection_age_ms")).filter(|age| !age.is_zero()),
            drain_wait: millis("node.drain_wait_ms"),
        },
        cluster: Cluster {
            name: text("cluster.name").to_owned(),
            members: sites.iter().take(number("cluster.replicas") as usize).map(|site| site.member.clone()).collect(),
            beyond: nodes::beyond(settings, sites),
            own: here.member.clone(),
            names: nodes::all_names(settings),
            replicas: settings.is_set("cluster.replicas").then(|| number("cluster.replicas") as u32),
        },
        modules,
        limits: Replicated {
            command_fuel: number("limits.command_fuel"),
            query_fuel: number("limits.query_fuel"),
            memory_bytes: number("limits.memory_bytes"),
            idempotency_window_ms: number("limits.idempotency_window_ms"),
            idempotency_keys: number("limits.idempotency_keys"),
            idempotency_bytes: number("limits.idempotency_bytes"),
            migrate_fuel: number("limits.migrate_fuel"),
            migrate_writes: number("limits.migrate_writes"),
            migrate_bytes: number("limits.migrate_bytes"),
        },
        raft: Raft {
            heartbeat_interval: millis("raft.heartbeat_interval_ms"),
            election_timeout_min: millis("raft.election_timeout_min_ms"),
            election_timeout_max: millis("raft.election_timeout_max_ms"),
            snapshot_log_bytes: number("raft.snapshot_log_bytes"),
            keep_log_bytes: number("raft.keep_log_bytes"),
        },
        storage: Storage {
            cache_bytes: number("storage.cache_bytes") as usize,
            checkpoint_bytes: number("storage.checkpoint_bytes"),
            checkpoint_interval: millis("storage.checkpoint_interval_ms"),
        },
        log: Log { format: log_format(text("log.format")), level: log_level(text("log.level")) },
        otlp: settings.text("otlp.endpoint").map(|endpoint| Otlp {
            endpoint: endpoint.to_owned(),
            sample_ratio: text("otlp.sample_ratio").parse().expect("a fraction without an error is a number"),
        }),
    }
}

fn log_format(word: &str) -> LogFormat {
    if word == "json" { LogFormat::Json } else { LogFormat::Text }
}

fn log_level(word: &str) -> tracing::Level {
    word.parse().expect("the schema's words are tracing's levels")
}

#[cfg(test)]
mod tests;
