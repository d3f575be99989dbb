//! `balsa config`: a placeholder until its part is merged.

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub(super) fn run(_args: Args, _format: super::Format) -> std::process::ExitCode {
    super::Exit::Usage.into()
}
