//! What `up` is going to run, with everything checked that can be checked before a process is started.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::Args;
use super::child::Launch;
use crate::cli::config::load_to_run;
use crate::client::Endpoint;
use crate::client::endpoint::{DEV_DIRECTORY, FILE_NAME, LOCAL_DIRECTORY, SOCKETS_FILE_NAME};
use crate::config::{self, ConfigErrors, Finding, Overrides, Recipe, Site};

/// Nodes of a new cluster.
const NODES: u64 = 3;
/// The first node's client port in a new cluster.
const PORT: u16 = 6000;
/// How long a node may take to hand over, drain and write its checkpoint.
const GRACE: Duration = Duration::from_secs(20);

/// What to try first.
const TRY_KVSTORE: [&str; 4] = ["put hello world", "get hello", "status", "call kvstore.v1.KvStore/List '{}'"];
/// The same where it is other modules that serve.
const TRY_MODULES: [&str; 3] = ["status", "module list", "call --list"];

/// Everything that is needed to run the cluster.
#[derive(Debug)]
pub(in crate::cli) struct Plan {
    /// The configuration file the nodes are given.
    pub config: PathBuf,
    /// The nodes.
    pub sites: Vec<Site>,
    /// To be shown.
    pub warnings: Vec<Finding>,
    /// Whether a node that dies is started again.
    pub restart: bool,
    /// How long a node may take to stop.
    pub grace: Duration,
    program: PathBuf,
    dir: PathBuf,
    /// Whether it serves the key/value store, as far as the file says.
    built_in: bool,
    /// Held until the plan is dropped.
    _lock: File,
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum Refusal {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// A file or directory.
    #[error("cannot use {}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another one holds the lock.
    #[error("`{}` runs in {} already{}; stop it first{}", program(dir), dir.display(), by(pid), elsewhere(dir))]
    Running {
        /// Which directory.
        dir: PathBuf,
        /// Its process, as far as known.
        pid: String,
    },
    /// `--nodes` and the file differ.
    #[error(
        "{} says {replicas} node(s), --nodes says {nodes}; leave --nodes out, or start another cluster with --dir",
        config.display()
    )]
    OtherSize {
        /// The file.
        config: PathBuf,
        /// What it says.
        replicas: usize,
        /// What the argument says.
        nodes: u64,
    },
    /// `--nodes` is fewer than those that are left could decide on.
    #[error(
        "{nodes} of {there} nodes are no majority, and it takes one to let the others go: say --nodes {least} first, and go on when `balsa member \
         list` shows no more; or say replicas = {nodes} in {} while the cluster runs",
        config.display()
    )]
    TooFew {
        /// The file.
        config: PathBuf,
        /// Nodes that have data.
        there: u64,
        /// Of those, a majority.
        least: u64,
        /// What the argument says.
        nodes: u64,
    },
    /// `--port` and the file differ.
    #[error(
        "{} says port {there}, --port says {port}; leave --port out{}",
        config.display(),
        edit(config)
    )]
    OtherPort {
        /// The file.
        config: PathBuf,
        /// What it says.
        there: u16,
        /// What the argument says.
        port: u16,
    },
    /// A configuration for several hosts.
    #[error(
        "{first} and {second} would both listen on {addr}; `balsa up` runs all nodes on this host, so give them ports of their own"
    )]
    NotOneHost {
        /// One node.
        first: String,
        /// The other.
        second: String,
        /// Where.
        addr: SocketAddr,
    },
    /// Somebody listens there.
    #[error("port {} is taken, and {node} needs it ({key}); stop what listens there, or start the cluster on other ports{}", addr.port(), hint(*new))]
    PortTaken {
        /// Where.
        addr: SocketAddr,
        /// Who needs it.
        node: String,
        /// For what.
        key: &'static str,
        /// Whether the ports come from a file that was just written.
        new: bool,
    },
    /// It cannot listen for another reason.
    #[error("{node} cannot listen on {addr} ({key}): {error}")]
    CannotListen {
        /// Where.
        addr: SocketAddr,
        /// Who.
        node: String,
        /// For what.
        key: &'static str,
        /// Why.
        error: io::Error,
    },
}

fn by(pid: &str) -> String {
    if pid.is_empty() { String::new() } else { format!(" (process {pid})") }
}

/// What runs nodes in `dir`.
fn program(dir: &Path) -> &'static str {
    if is_dev(dir) { "balsa dev" } else { "balsa up" }
}

fn elsewhere(dir: &Path) -> &'static str {
    if is_dev(dir) { "" } else { ", or give this one a directory of its own with --dir" }
}

fn edit(config: &Path) -> &'static str {
    match config.parent().is_some_and(is_dev) {
        true => ", or edit the file",
        false => ", edit the file, or start another cluster with --dir",
    }
}

/// Whether it is a project's: `balsa dev` has no `--dir`.
fn is_dev(dir: &Path) -> bool {
    dir.ends_with(DEV_DIRECTORY)
}

fn hint(new: bool) -> &'static str {
    if new { ", such as --port 7000" } else { " by editing the configuration" }
}

impl Plan {
    /// Checks everything, and only then writes anything.
    pub(super) fn make(args: &Args) -> Result<Self, Refusal> {
        let own = args.dir.join("balsa.toml");
        let config = args.config.clone().unwrap_or_else(|| own.clone());
        let new = args.config.is_none() && !own.exists();
        // A wrong file is refused before a directory is made for it.
        let before = if new { Vec::new() } else { load(&config, &args.dir)?.sites };
        let lock = lock(&args.dir)?;
        if new {
            let text = default_config(args.nodes.unwrap_or(NODES), args.port.unwrap_or(PORT));
            fs::write(&own, text).map_err(|error| Refusal::Io { path: own.clone(), error })?;
        }
        let resized = match args.config {
            None if !new => {
                check_steps(&own, args, &before)?;
                resize(&own, args)?
            }
            _ => None,
        };
        let checked = load(&config, &args.dir).map_err(Refusal::from).and_then(|loaded| {
            check_arguments(args, &config, &loaded)?;
            check_one_host(&loaded.sites)?;
            check_ports(&loaded.sites, new)?;
            Ok(loaded)
        });
        // The next attempt may ask for other ports or another number.
        let loaded = checked.inspect_err(|_| {
            if new {
                let _ = fs::remove_file(&own);
            }
            if let Some(before) = &resized {
                let _ = fs::write(&own, before);
            }
        })?;
        if resized.is_some() {
            set_aside(&args.dir, &loaded.sites[before.len().min(loaded.sites.len())..])?;
        }
        let program = std::env::current_exe().map_err(|error| Refusal::Io { path: "balsa".into(), error })?;
        let (sites, warnings, built_in) = (loaded.sites, loaded.warnings, loaded.config.modules.is_empty());
        let plan = Self {
            config,
            sites,
            warnings,
            restart: !args.no_restart,
            grace: GRACE,
            program,
            dir: args.dir.clone(),
            built_in,
            _lock: lock,
        };
        plan.remove_endpoints();
        Ok(plan)
    }

    /// How to start one of the nodes.
    pub(super) fn launch(&self, site: &Site) -> Launch {
        let data_dir = self.dir.join(&site.name);
        let args: [OsString; 7] = [
            "serve".into(),
            "--config".into(),
            self.config.clone().into(),
            "--name".into(),
            site.name.clone().into(),
            "--data-dir".into(),
            data_dir.into(),
        ];
        Launch { program: self.program.clone(), args: args.into() }
    }

    /// Where clients reach the first node.
    pub(in crate::cli) fn first_client(&self) -> Endpoint {
        let addr = self.sites.first().map(|site| local(site.client_addr));
        let addr = addr.expect("a cluster has a node");
        Endpoint::new(&addr.ip().to_string(), addr.port())
    }

    /// The file that says where the cluster is.
    pub(super) fn endpoints_path(&self) -> PathBuf {
        self.dir.join(FILE_NAME)
    }

    /// Says where the cluster is, to clients and to operators, each at once or not at all.
    pub(super) fn write_endpoints(&self) -> io::Result<()> {
        let sockets = self.sites.iter().map(|site| std::path::absolute(&site.socket).map(Endpoint::Socket));
        let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
        let sockets: String = sockets.iter().map(|socket| format!("{socket}\n")).collect();
        self.write(SOCKETS_FILE_NAME, &sockets)?;
        let lines: String = self.sites.iter().map(|site| format!("{}\n", local(site.client_addr))).collect();
        self.write(FILE_NAME, &lines)
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let draft = self.dir.join(format!("{name}.new"));
        fs::write(&draft, text)?;
        fs::rename(&draft, self.dir.join(name))
    }

    /// No cluster is here any more.
    pub(super) fn remove_endpoints(&self) {
        // They are usually not there.
        for name in [FILE_NAME, SOCKETS_FILE_NAME] {
            let _ = fs::remove_file(self.dir.join(name));
        }
    }

    /// What to say when the cluster is ready.
    pub(super) fn welcome(&self) -> String {
        let name = std::env::args().next().unwrap_or_else(|| "balsa".to_owned());
        let width = self.sites.iter().map(|site| site.name.len()).max().unwrap_or(0);
        let nodes: String = self.sites.iter().map(|site| endpoints(site, width)).collect();
        let first = self.sites.first().map(|site| local(site.client_addr).to_string()).unwrap_or_default();
        let find = if self.is_found() { String::new() } else { self.export() };
        let count = self.sites.len();
        let plural = if count == 1 { "" } else { "s" };
        let tries = if self.built_in { &TRY_KVSTORE[..] } else { &TRY_MODULES };
        let tries: String = tries.iter().map(|arguments| format!("  {name} {arguments}\n")).collect();
        format!(
            "\n\
             The cluster of {count} node{plural} is ready. Its data is in {dir}.\n\
             \n{nodes}\n\
             Try, in another terminal:\n{find}\
             {tries}\
             \x20 grpcurl -plaintext {first} list\n\
             \n\
             Ctrl-C stops it; `{name} up{same}` goes on with the same data.\n",
            dir = self.dir.display(),
            same = self.same(),
        )
    }

    /// What it takes to start this one again.
    fn same(&self) -> String {
        let dir = (!self.is_found()).then(|| format!(" --dir {}", self.dir.display()));
        let config =
            (self.config != self.dir.join("balsa.toml")).then(|| format!(" --config {}", self.config.display()));
        dir.into_iter().chain(config).collect()
    }

    /// Whether the CLI finds the cluster by itself from here.
    fn is_found(&self) -> bool {
        self.dir == Path::new(LOCAL_DIRECTORY)
    }

    fn export(&self) -> String {
        let dir = std::path::absolute(&self.dir).unwrap_or_else(|_| self.dir.clone());
        format!("  export BALSA_DIR={}\n", dir.display())
    }
}

fn endpoints(site: &Site, width: usize) -> String {
    format!(
        "  {:width$}  clients {}  http://{}/readyz?verbose\n",
        site.name,
        local(site.client_addr),
        local(site.http_addr)
    )
}

/// An address that can be connected to: a node that listens everywhere is reached on this host.
pub(super) fn local(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, addr.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, addr.port()).into(),
        _ => addr,
    }
}

fn load(config: &Path, dir: &Path) -> Result<config::Loaded, ConfigErrors> {
    // What each node will be given; a template, as in the file.
    let args = Overrides { data_dir: Some(dir.join("{name}")), ..Overrides::default() };
    let recipe = Recipe { path: Some(config.to_owned()), args, env: config::environment().collect() };
    load_to_run(&recipe, |loaded| loaded.sites.iter().map(|site| dir.join(&site.name)).collect())
}

/// Takes the directory for this process, and makes it if need be.
pub(in crate::cli) fn lock(dir: &Path) -> Result<File, Refusal> {
    let refuse = |path: &Path| {
        let path = path.to_owned();
        move |error| Refusal::Io { path, error }
    };
    fs::create_dir_all(dir).map_err(refuse(dir))?;
    let path = dir.join("lock");
    let mut options = File::options();
    let mut file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(refuse(&path))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        // Without it the sentence is shorter.
        let _ = file.read_to_string(&mut pid);
        return Err(Refusal::Running { dir: dir.to_owned(), pid: pid.trim().to_owned() });
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(refuse(&path))?;
    Ok(file)
}

fn check_arguments(args: &Args, config: &Path, loaded: &config::Loaded) -> Result<(), Refusal> {
    let config = config.to_owned();
    let replicas = loaded.sites.len();
    if let Some(nodes) = args.nodes.filter(|nodes| *nodes != replicas as u64) {
        return Err(Refusal::OtherSize { config, replicas, nodes });
    }
    let there = loaded.sites.first().map_or(0, |site| site.client_addr.port());
    match args.port.filter(|port| *port != there) {
        Some(port) => Err(Refusal::OtherPort { config, there, port }),
        None => Ok(()),
    }
}

/// Only those that are wanted are started, and nothing can be decided by fewer than a majority of those that there are.
fn check_steps(own: &Path, args: &Args, before: &[Site]) -> Result<(), Refusal> {
    let there = before.iter().filter(|site| args.dir.join(&site.name).exists()).count() as u64;
    let least = there / 2 + 1;
    match args.nodes.filter(|nodes| *nodes < least && there > 0) {
        Some(nodes) => Err(Refusal::TooFew { config: own.to_owned(), there, least, nodes }),
        None => Ok(()),
    }
}

/// Has the directory's own file say `--nodes`, if it says something else; returns what was in it. The nodes do the rest: members
/// are added or removed, one after the other, once the cluster runs.
fn resize(own: &Path, args: &Args) -> Result<Option<String>, Refusal> {
    let refuse = |error| Refusal::Io { path: own.to_owned(), error };
    let Some(nodes) = args.nodes.and_then(|nodes| i64::try_from(nodes).ok()) else { return Ok(None) };
    let before = fs::read_to_string(own).map_err(refuse)?;
    let mut file: toml_edit::DocumentMut =
        before.parse().map_err(|error| refuse(io::Error::new(ErrorKind::InvalidData, error)))?;
    let Some(cluster) = file.get_mut("cluster").and_then(toml_edit::Item::as_table_like_mut) else { return Ok(None) };
    // A number that is not in the file is not this command's to put there.
    let Some(replicas) = cluster.get_mut("replicas").and_then(toml_edit::Item::as_value_mut) else { return Ok(None) };
    if replicas.as_integer() == Some(nodes) {
        return Ok(None);
    }
    let decor = replicas.decor().clone();
    *replicas = nodes.into();
    *replicas.decor_mut() = decor;
    let draft = own.with_extension("toml.new");
    fs::write(&draft, file.to_string()).and_then(|()| fs::rename(&draft, own)).map_err(refuse)?;
    Ok(Some(before))
}

/// Nodes that were not wanted until now begin anew: what is left of a removed member is no member's any more. It is kept beside.
fn set_aside(dir: &Path, sites: &[Site]) -> Result<(), Refusal> {
    for site in sites {
        let data = dir.join(&site.name);
        if !data.exists() {
            continue;
        }
        let free = (1..).map(|n| dir.join(format!("{}.old-{n}", site.name))).find(|place| !place.exists());
        let place = free.expect("numbers do not end");
        fs::rename(&data, &place).map_err(|error| Refusal::Io { path: data.clone(), error })?;
    }
    Ok(())
}

/// A file for several hosts is right by itself, and still cannot run on one.
fn check_one_host(sites: &[Site]) -> Result<(), Refusal> {
    let all: Vec<_> = sites.iter().flat_map(|site| listeners(site).map(move |(_, addr)| (site, addr))).collect();
    for (at, (second, addr)) in all.iter().enumerate() {
        let clash = all[..at].iter().find(|(_, other)| collide(*other, *addr));
        if let Some((first, _)) = clash {
            return Err(Refusal::NotOneHost { first: first.name.clone(), second: second.name.clone(), addr: *addr });
        }
    }
    Ok(())
}

fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

fn listeners(site: &Site) -> [(&'static str, SocketAddr); 3] {
    [("client_addr", site.client_addr), ("peer_addr", site.peer_addr), ("http_addr", site.http_addr)]
}

/// Listens everywhere for a moment. Somebody may still be quicker; then the node says so itself.
fn check_ports(sites: &[Site], new: bool) -> Result<(), Refusal> {
    for site in sites {
        for (key, addr) in listeners(site) {
            let node = site.name.clone();
            match TcpListener::bind(addr) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::AddrInUse => {
                    return Err(Refusal::PortTaken { addr, node, key, new });
                }
                Err(error) => return Err(Refusal::CannotListen { addr, node, key, error }),
            }
        }
    }
    Ok(())
}

/// The configuration of a new cluster.
fn default_config(nodes: u64, port: u16) -> String {
    let (client, peer, http) = (port, port + 1, port + 80);
    format!(
        r#"# A cluster on this host, written by `balsa up`; it is yours to edit.
# `balsa config show FILE` prints all settings with their defaults.

[cluster]
replicas = {nodes}

# One file for all nodes: what differs between them follows from the ordinal, 0 for the first.
[node]
client_addr = "127.0.0.1:{{{client} + 100 * ordinal}}"
peer_addr = "127.0.0.1:{{{peer} + 100 * ordinal}}"
http_addr = "127.0.0.1:{{{http} + 100 * ordinal}}"

# Your own module instead of the built-in key/value store:
# [[module]]
# name = "counter"
# path = "counter.wasm"

# [log]
# level = "debug"
"#
    )
}
