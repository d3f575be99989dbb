//! Programs that run to their end, and how each is started.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::PATIENCE;

/// A program that ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Its output, after checking that it ended with `code`.
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:#?}");
        self.out
    }

    /// Its output as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        let out = self.ends(0);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }
}

/// Runs `balsa` in `dir`.
pub(crate) async fn balsa(dir: &Path, arguments: &[&str]) -> Ran {
    let mut command = program();
    command.args(arguments).current_dir(dir).stdin(Stdio::null());
    run(command).await
}

/// Runs a program to its end.
pub(crate) async fn run(mut command: Command) -> Ran {
    command.kill_on_drop(true);
    let output = tokio::time::timeout(2 * PATIENCE, command.output()).await.expect("it ends").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// The program under test, without what this process's environment says about clusters.
pub(crate) fn program() -> Command {
    program_at(Path::new(env!("CARGO_BIN_EXE_balsa")))
}

pub(super) fn program_at(path: &Path) -> Command {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"BALSA_")) {
        command.env_remove(name);
    }
    command
}

/// Has a node, or `balsa up`, end with this process even if that is killed: as a node ends with `balsa up`. Nodes that nobody ends would be
/// in the way of the next run.
pub(crate) fn perish_with_us(command: &mut Command) {
    command.env("BALSA_UP_PID", std::process::id().to_string());
}
