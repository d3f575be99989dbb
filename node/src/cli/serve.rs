//! `balsa serve`: a placeholder until its part is merged.

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub(super) fn run(_args: Args) -> std::process::ExitCode {
    super::Exit::Usage.into()
}
