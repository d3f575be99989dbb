//! `balsa module`: what authors do with a module before a cluster sees it, and what operators do with it afterwards.
//!
//! | file | subcommand | |
//! |---|---|---|
//! | `inspect` | `inspect FILE` | what a file says about itself |
//! | `check` | `check FILE` | whether a node would take it |
//! | `try_on`, `rehearsal` | `try FILE --on BACKUP` | what would happen to a real state |
//! | `new` | `new NAME` | a project to begin with |
//! | `push` | `push FILE` | makes a module active, without files |
//! | `list`, `history` | `list`, `history` | what is wanted, what is active, what became of it |
//! | `retry` | `retry` | once more what was refused or waits |
//! | `drop` | `drop NAME` | deletes a module and its state |
//!
//! `activation` has the words for a row of the history, which several of them show.
//!
//! The check is the node's own code, on the node's own engine: what passes here passes there.

pub(super) mod activation;
pub(super) mod check;
mod drop;
mod error;
pub(super) mod file;
mod history;
mod inspect;
mod list;
mod new;
mod push;
mod rehearsal;
mod retry;
mod try_on;

use std::time::Duration;

use clap::Subcommand;

pub(super) use error::{Error, of_operator};
pub(super) use list::change_json;

use super::{Console, Exit, Format, Session};
use crate::wasm::{Engine, Options, THREAD_STACK_BYTES};

/// How long what reads or writes a whole state may take, unless `--timeout` says otherwise.
const SLOW: Duration = Duration::from_secs(600);

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a project for a new module, ready to build and to test
    New(new::New),
    /// Print what a module says about itself: name, version, methods, imports
    Inspect(inspect::Inspect),
    /// Check a module as a node does before it takes it; exit code 1 if it would be refused
    Check(check::Check),
    /// Rehearse a swap on a backup: what clients and the state would notice; exit code 1 if it would be refused
    Try(try_on::Try),
    /// Make a module active; exit code 5 if it is refused, 3 if that is not decided in time
    Push(push::Push),
    /// Show what the files want, what is active, and what is under way
    #[command(visible_alias = "status")]
    List,
    /// Show what became of each module that was ever wanted
    History(history::History),
    /// Try again what was refused, or waits for a node
    Retry(retry::Retry),
    /// Delete a module and all of its state
    Drop(drop::Drop),
}

impl Args {
    /// Whether it needs no cluster.
    pub(super) fn is_local(&self) -> bool {
        match &self.command {
            Command::New(_) | Command::Inspect(_) | Command::Try(_) => true,
            Command::Check(args) => !args.against_cluster,
            _ => false,
        }
    }

    /// Whether it changes the cluster, or takes all that it holds.
    fn is_for_operators(&self) -> bool {
        match &self.command {
            Command::Push(_) | Command::Retry(_) | Command::Drop(_) => true,
            Command::Check(args) => args.against_cluster,
            _ => false,
        }
    }
}

/// Carries out what asks a cluster.
pub(super) async fn run(args: &Args, session: &mut Session<'_>) -> Result<Exit, super::Error> {
    if args.is_for_operators() {
        session.as_operator().await?;
    }
    match &args.command {
        Command::Push(args) => push::run(args, session).await,
        Command::List => list::run(session).await,
        Command::History(args) => history::run(args, session).await,
        Command::Retry(args) => retry::run(args, session).await,
        Command::Drop(args) => drop::run(args, session).await,
        Command::Check(args) if args.against_cluster => check::run_against_cluster(args, session).await,
        Command::New(_) | Command::Inspect(_) | Command::Check(_) | Command::Try(_) => {
            run_local(args, session.format, session.console)
        }
    }
}

/// Carries out what needs no cluster.
pub(super) fn run_local(args: &Args, format: Format, console: &mut Console) -> Result<Exit, super::Error> {
    match &args.command {
        Command::Push(_) | Command::List | Command::History(_) | Command::Retry(_) | Command::Drop(_) => {
            unreachable!("these ask a cluster")
        }
        Command::New(args) => new::run(args, format, console),
        Command::Inspect(args) => inspect::run(args, format, console),
        Command::Check(args) => check::run(args, format, console),
        Command::Try(args) => try_on::run(args, format, console),
    }
}

/// An engine as a node has it.
pub(super) fn engine() -> Result<Engine, Error> {
    Ok(Engine::new(Options { query_slots: 1, ..Options::default() })?)
}

/// Runs `work` on a thread with the stack that modules need, which the main thread of a process may not have.
pub(super) fn on_a_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("module".into()).stack_size(2 * THREAD_STACK_BYTES);
        let thread = builder.spawn_scoped(scope, work).expect("the system has a thread to give");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
