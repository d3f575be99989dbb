//! The command line: `balsa serve` and `balsa up` run nodes, everything else is a client of them.
//!
//! One file per family of subcommands. Each has its arguments (clap) and a function that carries them out and says how it
//! ended: an [`Exit`], or an [`Error`] that knows its exit code and its one sentence. Nothing below here touches the
//! process: arguments, standard streams, the terminal and the working directory come in through [`Console`], so that the
//! tests run commands in their own process, against a fake node.

pub mod config;
pub mod output;
pub mod serve;
pub mod up;

mod backup;
mod bench;
mod call;
mod check;
mod completions;
mod dev;
mod error;
mod health;
mod kv;
mod member;
mod module;
mod operators;
mod progress;
mod recover;
mod restore;
mod status;
mod value;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use error::{Error, Exit};
pub use output::{Console, Format};

use crate::client::endpoint::LOCAL_DIRECTORY;
use crate::client::{Client, Endpoint, Endpoints, Options};

const ABOUT: &str = "A replicated, durable, linearizable gRPC service whose logic is your WebAssembly module";

const EXIT_CODES: &str = "\
Exit codes:
  0  ok
  1  no: the key is absent, a condition did not hold, a check found something wrong, or nothing was done
  2  wrong usage or configuration
  3  unavailable: no node served the call in time, and it was surely not run; or a push was not decided in time
  4  outcome unknown: the command was sent, and may or may not have been run
  5  rejected: by the module, which ran and answered with an error, or of a module that was pushed and refused, or of a change \
of the members that is not safe
  6  only of `serve`: this node's data has no place in its cluster any more; to start it again changes nothing

Endpoints, if none are given: those of the local cluster in --dir; without it, of the one in .balsa or .balsa-dev, looked \
for from here upward; else 127.0.0.1:6000.

What changes the cluster, and backup, is served to operators only: on a Unix socket of each node, and on its port for peers. \
If neither --socket nor --peers is given: at the ports for peers that the nodes at --endpoints name, if they are given; else \
at the sockets of the local cluster; else at the socket of the node that runs here, by the configuration in BALSA_CONFIG and the \
environment, as for `serve`.";

/// How long a call may take unless `--timeout` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The same while nothing has accepted a connection at all: a person who forgot to start a cluster should not wait.
const FIRST_CONTACT: Duration = Duration::from_secs(2);

/// `balsa`
#[derive(Debug, Parser)]
#[command(name = "balsa", version, about = ABOUT, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Args {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Understood by every subcommand that is a client.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Nodes of the cluster, as host:port; any one will do, and several are tried in turn
    #[arg(long, global = true, env = "BALSA_ENDPOINTS", value_delimiter = ',', value_name = "HOST:PORT,...")]
    endpoints: Vec<Endpoint>,
    /// The directory of a local cluster: where `up` keeps it, and where everything else looks for it [default: .balsa]
    #[arg(long = "dir", global = true, env = "BALSA_DIR", value_name = "DIR")]
    local_dir: Option<PathBuf>,
    /// For what changes the cluster (module push, retry and drop, member, backup): a node's Unix socket
    #[arg(long, global = true, env = "BALSA_SOCKET", value_name = "PATH", conflicts_with = "peers")]
    socket: Option<PathBuf>,
    /// For the same: nodes' ports for peers, where no socket can be reached
    #[arg(long, global = true, env = "BALSA_PEERS", value_delimiter = ',', value_name = "HOST:PORT,...")]
    peers: Vec<Endpoint>,
    /// How long a call may take with all its retries, such as 500ms or 1m [default: 10s; 2s while nothing listens]
    #[arg(long, global = true, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// For people (text), or for programs (json, in which bytes are base64)
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    Serve(serve::Args),
    /// Run a local cluster in this terminal
    Up(up::Args),
    /// Run a node that builds a module's project and swaps it on each save
    Dev(dev::Args),
    /// Inspect, check, push and follow modules
    Module(module::Args),
    /// Check or show a configuration file
    Config(config::Args),
    /// Show the nodes of the cluster
    Status,
    /// Say whether one node is ready, for probes from inside its container
    Health(health::Health),
    /// Show and change who belongs to the cluster, and who leads it
    Member(member::Args),
    /// Store a value
    Put(kv::Put),
    /// Print a value; exit code 1 if the key is absent
    Get(kv::Get),
    /// Delete a key; exit code 1 if it is absent
    Delete(kv::Delete),
    /// Print keys and values, all of them or those with a prefix
    List(kv::List),
    /// Call any method of any module, with JSON
    Call(call::Call),
    /// Write values, read them back through every node, and compare the nodes' state
    Check(check::Check),
    /// Write the whole state of the cluster to a file
    Backup(backup::Args),
    /// Make an empty data directory that of a new cluster's first node, with the state of a backup
    Restore(restore::Args),
    /// Make a stopped node the only voter of a new cluster, when the majority of its own is lost for good
    Recover(recover::Args),
    /// Measure throughput and latency
    Bench(bench::Bench),
    /// Print a script that completes this program's arguments in a shell
    Completions(completions::Completions),
}

/// The whole program: arguments, streams and exit code of this process.
pub fn main() -> std::process::ExitCode {
    run(std::env::args_os(), &mut Console::of_process())
}

/// Runs `balsa` with `arguments` (the first is the program's name) on `console`.
pub fn run(arguments: impl IntoIterator<Item = OsString>, console: &mut Console) -> std::process::ExitCode {
    let args = match parse(arguments) {
        Ok(args) => args,
        Err(error) => return console.usage(&error).into(),
    };
    let Args { global, command } = args;
    let format = global.output;
    match command {
        Command::Serve(args) => serve::run(&args),
        Command::Restore(args) => finish(restore::run(&args, format, console), format, console).into(),
        Command::Recover(args) => finish(recover::run(&args, format, console), format, console).into(),
        Command::Up(args) => {
            let dir = global.local_dir.clone().unwrap_or_else(|| LOCAL_DIRECTORY.into());
            up::run(up::Args { dir, ..args })
        }
        Command::Dev(args) => dev::run(&args),
        Command::Config(args) => config::run(args, format),
        Command::Module(args) if args.is_local() => {
            finish(module::run_local(&args, format, console), format, console).into()
        }
        Command::Health(args) => finish(run_health(&args, &global, console), format, console).into(),
        Command::Completions(args) => finish(completions::run(&args, console), format, console).into(),
        command => finish(run_client(command, &global, console), format, console).into(),
    }
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Args, clap::Error> {
    let mut command = without_empty_variables(Args::command());
    let mut matches = command.try_get_matches_from_mut(arguments)?;
    Args::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// An empty variable is as good as none: it is what scripts, compose files and manifests make of a value that they do not have.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        if value.is_some_and(|value| value.is_empty()) { arg.env(Resettable::Reset) } else { arg }
    });
    command.mut_subcommands(without_empty_variables)
}

/// Says what went wrong, if anything did.
fn finish(result: Result<Exit, Error>, format: Format, console: &mut Console) -> Exit {
    match result.and_then(|exit| console.flush().map(|()| exit)) {
        Ok(exit) => exit,
        // `balsa list | head` ends well.
        Err(Error::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => {
            error.report(format, console);
            error.exit()
        }
    }
}

/// One node is asked, so there is no cluster to be found first.
fn run_health(args: &health::Health, global: &Global, console: &mut Console) -> Result<Exit, Error> {
    block_on(health::run(args, global.timeout, global.output, console))
}

fn run_client(command: Command, global: &Global, console: &mut Console) -> Result<Exit, Error> {
    let mut session = Session::new(global, console)?;
    block_on(run_in(command, &mut session)).map_err(|error| error.at(session.endpoints))
}

fn block_on(work: impl Future<Output = Result<Exit, Error>>) -> Result<Exit, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    let result = runtime.block_on(work);
    // A lookup of a host name may still sit in a thread; nobody waits for it.
    runtime.shutdown_background();
    result
}

async fn run_in(command: Command, session: &mut Session<'_>) -> Result<Exit, Error> {
    match command {
        Command::Status => status::run(session).await,
        Command::Put(args) => kv::put(&args, session).await,
        Command::Get(args) => kv::get(&args, session).await,
        Command::Delete(args) => kv::delete(&args, session).await,
        Command::List(args) => kv::list(&args, session).await,
        Command::Call(args) => call::run(&args, session).await,
        Command::Check(args) => check::run(&args, session).await,
        Command::Backup(args) => backup::run(&args, session).await,
        Command::Bench(args) => bench::run(&args, session).await,
        Command::Module(args) => module::run(&args, session).await,
        Command::Member(args) => member::run(&args, session).await,
        Command::Serve(_)
        | Command::Up(_)
        | Command::Dev(_)
        | Command::Config(_)
        | Command::Restore(_)
        | Command::Recover(_)
        | Command::Health(_)
        | Command::Completions(_) => unreachable!("these are not clients"),
    }
}

/// What a subcommand works with.
struct Session<'a> {
    global: Global,
    client: Client,
    endpoints: Endpoints,
    timeout: Duration,
    /// What `--timeout` said.
    given_timeout: Option<Duration>,
    format: Format,
    console: &'a mut Console,
}

impl<'a> Session<'a> {
    fn new(global: &Global, console: &'a mut Console) -> Result<Self, Error> {
        let endpoints = Endpoints::find(&global.endpoints, global.local_dir.as_deref(), &console.directory)?;
        let timeout = global.timeout.unwrap_or(TIMEOUT);
        let client = client(&endpoints, global);
        let (given_timeout, format, global) = (global.timeout, global.output, global.clone());
        Ok(Self { global, client, endpoints, timeout, given_timeout, format, console })
    }

    /// From now on, calls go to where operators are served.
    async fn as_operator(&mut self) -> Result<(), Error> {
        let endpoints = operators::find(&self.global, &self.client, &self.console.directory).await?;
        self.client = client(&endpoints, &self.global);
        self.endpoints = endpoints;
        Ok(())
    }

    /// A client for what takes longer than most: it has `usual` where `--timeout` says nothing.
    fn client_within(&self, usual: Duration) -> Client {
        self.client.within(self.given_timeout.unwrap_or(usual))
    }
}

fn client(endpoints: &Endpoints, global: &Global) -> Client {
    let first_contact = global.timeout.unwrap_or(FIRST_CONTACT);
    let options = Options::new(endpoints.list.clone(), global.timeout.unwrap_or(TIMEOUT));
    Client::new(Options { first_contact, ..options })
}

#[cfg(test)]
mod tests;
