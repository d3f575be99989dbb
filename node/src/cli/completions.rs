//! `balsa completions SHELL`

use clap::CommandFactory;

use super::{Args, Console, Error, Exit};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "For bash, now and in this shell only:  source <(balsa completions bash)")]
pub(super) struct Completions {
    /// Which shell
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &Completions, console: &mut Console) -> Result<Exit, Error> {
    // Into memory first: the generator panics where a pipe is closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "balsa", &mut script);
    console.out.write_all(&script)?;
    Ok(Exit::Ok)
}
