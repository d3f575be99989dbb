//! `balsa module`: what authors do with a module before a cluster sees it, and what operators do with it afterwards.
//!
//! | file | subcommand | |
//! |---|---|---|
//! | `inspect` | `inspect FILE` | what a file says about itself |
//! | `check` | `check FILE` | whether a node would take it |
//! | `new` | `new NAME` | a project to begin with |
//!
//! The check is the node's own code, on the node's own engine: what passes here passes there.

mod check;
mod error;
mod file;
mod inspect;
mod new;

use clap::Subcommand;

pub(super) use error::Error;

use super::{Console, Exit, Format};
use crate::wasm::{Engine, Options, THREAD_STACK_BYTES};

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
}

/// Carries out what needs no cluster.
pub(super) fn run(args: &Args, format: Format, console: &mut Console) -> Result<Exit, super::Error> {
    match &args.command {
        Command::New(args) => new::run(args, format, console),
        Command::Inspect(args) => inspect::run(args, format, console),
        Command::Check(args) => check::run(args, format, console),
    }
}

/// An engine as a node has it.
fn engine() -> Result<Engine, Error> {
    Ok(Engine::new(Options { query_slots: 1, ..Options::default() })?)
}

/// Runs `work` on a thread with the stack that modules need, which the main thread of a process may not have.
fn on_a_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("module".into()).stack_size(2 * THREAD_STACK_BYTES);
        let thread = builder.spawn_scoped(scope, work).expect("the system has a thread to give");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
