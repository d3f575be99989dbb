//! `balsa dev`: a node that follows an author's saves.
//!
//! One node runs, as `balsa up` runs it, in a directory of its own inside the project. The project is built with cargo, the module
//! is put where the node's configuration says it is, and the node does the rest, by the same way as in a cluster: it sees
//! that its file has changed, checks the module, has it migrate the state, and swaps. Then the next save is waited for. A build
//! that fails changes nothing: what served goes on.
//!
//! ```text
//! .balsa-dev/
//!   balsa.toml     written by the first `dev`, then yours to edit
//!   module.wasm    the last build; replaced at once, by a rename
//!   balsa-0/       the node's data: it stays from one `dev` to the next, unless --fresh
//! ```

mod project;
mod swap;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::up::{self, Log};
use crate::client::endpoint::DEV_DIRECTORY;
use crate::client::{Client, Endpoint, Options};
use crate::config;
use project::{Project, Sources};
use swap::Placed;

/// The first port, if none is given.
const PORT: u16 = 6000;
/// For one call to the node.
const CALL: Duration = Duration::from_secs(5);

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The module's project
    #[arg(long, value_name = "DIR", default_value = ".")]
    path: PathBuf,
    /// The node's port for clients; the others follow [default: 6000]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1024..=64_000))]
    port: Option<u16>,
    /// Begin with an empty state; the configuration stays
    #[arg(long)]
    fresh: bool,
}

/// Why nothing runs.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The project.
    #[error(transparent)]
    Project(#[from] project::Error),
    /// Another one runs.
    #[error(transparent)]
    Up(#[from] up::Refusal),
    /// A file or directory of ours.
    #[error("cannot {what} {}: {error}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

pub(super) fn run(args: &Args) -> ExitCode {
    match prepare(args) {
        Ok(dev) => dev.run(),
        Err(error) => {
            anstream::eprintln!("error: {error}");
            ExitCode::from(config::EXIT_CODE)
        }
    }
}

/// A project that was built, and the node's directory with the module in it.
struct Dev {
    project: Project,
    directory: PathBuf,
    placed: Placed,
    /// As they were before the build.
    built: Sources,
    /// The configuration is one that was just written.
    new: bool,
    /// What `--port` said.
    port: Option<u16>,
}

fn prepare(args: &Args) -> Result<Dev, Error> {
    let project = Project::find(&args.path)?;
    let directory = project.root.join(DEV_DIRECTORY);
    // Whose node runs in there keeps its module and its data.
    let _lock = up::lock(&directory)?;
    if args.fresh {
        forget(&directory).map_err(io_error("remove the data in", &directory))?;
    }
    let (wasm, built) = first_build(&project)?;
    let placed = swap::place(&directory, wasm).map_err(io_error("write to", &directory))?;
    let toml = directory.join("balsa.toml");
    let new = !toml.exists();
    if new {
        let text = configuration(&project.name, args.port.unwrap_or(PORT));
        fs::write(&toml, text).map_err(io_error("write", &toml))?;
    }
    Ok(Dev { project, directory, placed, built, new, port: args.port })
}

/// Removes the node's data. The configuration stays: it is the author's.
fn forget(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Builds until it succeeds: there is nothing to serve before.
fn first_build(project: &Project) -> Result<(Vec<u8>, Sources), Error> {
    loop {
        let sources = project.sources();
        if project.build_in_terminal()? {
            return Ok((project.read_module()?, sources));
        }
        anstream::eprintln!("waiting until something is saved in {}", project.root.display());
        while project.sources() == sources {
            std::thread::sleep(project::LOOK);
        }
    }
}

impl Dev {
    fn run(self) -> ExitCode {
        let args = up::Args {
            nodes: None,
            dir: self.directory.clone(),
            config: None,
            port: self.port,
            no_restart: false,
            check: false,
            once: false,
        };
        let plan = match up::prepare(&args) {
            Ok(plan) => plan,
            Err(code) => {
                // The next attempt may ask for other ports.
                if self.new {
                    let _ = fs::remove_file(self.directory.join("balsa.toml"));
                }
                return code;
            }
        };
        let endpoint = plan.first_client();
        let welcome = welcome(&self, &endpoint.to_string());
        up::run_plan(plan, &args, welcome, Some(Box::new(move |log| Box::pin(self.follow(endpoint, log)))))
    }

    /// Save, build, swap; for ever.
    async fn follow(mut self, endpoint: Endpoint, log: Log) {
        let client = Client::new(Options::new(vec![endpoint], CALL));
        swap::report(&client, &self.project.name, &self.placed, None, &log).await;
        loop {
            self.built = self.project.changed(&self.built).await;
            log.say("building");
            match self.project.build(&log).await {
                Ok(true) => {}
                Ok(false) => {
                    log.say("it does not build; the module that serves stays");
                    continue;
                }
                Err(error) => {
                    log.say(&error.to_string());
                    continue;
                }
            }
            if let Err(error) = self.swap(&client, &log).await {
                log.say(&error.to_string());
            }
        }
    }

    async fn swap(&mut self, client: &Client, log: &Log) -> Result<(), Error> {
        let wasm = self.project.read_module()?;
        if wasm == self.placed.wasm {
            log.say("built; the module is the same as before");
            return Ok(());
        }
        let placed = swap::place(&self.directory, wasm).map_err(io_error("write to", &self.directory))?;
        let before = std::mem::replace(&mut self.placed, placed);
        swap::report(client, &self.project.name, &self.placed, Some(&before), log).await;
        Ok(())
    }
}

/// The configuration of a new node.
fn configuration(name: &str, port: u16) -> String {
    let (peer, http) = (port + 1, port + 80);
    format!(
        r#"# The node of `balsa dev`; it is yours to edit.

[cluster]
replicas = 1

[node]
client_addr = "127.0.0.1:{port}"
peer_addr = "127.0.0.1:{peer}"
http_addr = "127.0.0.1:{http}"

[[module]]
name = "{name}"
path = "module.wasm"
# A .proto changes while it is being made. Where there are clients, leave this out: what they would notice is then refused.
allow_breaking = true
"#
    )
}

fn welcome(dev: &Dev, address: &str) -> String {
    let calls: String = swap::methods(&dev.placed.wasm).iter().map(|call| format!("  balsa call {call}\n")).collect();
    format!(
        "\n{} is served at {address}, and built and swapped on each save in {}.\n\
         \nTry, in another terminal, in that directory:\n{calls}\n\
         Ctrl-C stops it; `balsa dev` goes on with the same data.\n",
        dev.project.name,
        dev.project.root.display()
    )
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::Io { what, path, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_start_forgets_the_data_and_keeps_the_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("balsa.toml"), "").unwrap();
        fs::create_dir_all(path("balsa-0/log")).unwrap();
        fs::write(path("balsa-0/state.redb"), "").unwrap();
        forget(directory.path()).unwrap();
        assert!(path("balsa.toml").exists() && !path("balsa-0").exists());
    }
}
