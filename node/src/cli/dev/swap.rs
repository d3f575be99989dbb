//! Putting a module where the node looks for it, and saying what the node made of it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::cli::module::{activation, check};
use crate::cli::up::Log;
use crate::client::{self, Client};
use crate::ids::ModuleHash;
use crate::proto::admin::StatusResponse;
use crate::wasm::Inspection;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(150);
/// How long is waited for a decision before the next save is looked at.
const PATIENCE: Duration = Duration::from_secs(60);

/// A module that lies where the node looks.
pub(super) struct Placed {
    pub(super) wasm: Vec<u8>,
    hash: ModuleHash,
    at: Instant,
}

/// Replaces the module in `directory`, at once.
pub(super) fn place(directory: &Path, wasm: Vec<u8>) -> io::Result<Placed> {
    let draft = directory.join("module.wasm.new");
    fs::write(&draft, &wasm)?;
    fs::rename(&draft, directory.join("module.wasm"))?;
    Ok(Placed { hash: ModuleHash::of(&wasm), wasm, at: Instant::now() })
}

/// What can be called: `Service/Method '{}'`.
pub(super) fn methods(wasm: &[u8]) -> Vec<String> {
    let inspection = Inspection::of(wasm);
    let methods = inspection.map(|inspection| inspection.methods).unwrap_or_default();
    methods.iter().map(|method| format!("{}/{} '{{}}'", method.service, method.name)).collect()
}

/// Says what becomes of `placed`, and what clients of the one before would notice.
pub(super) async fn report(client: &Client, name: &str, placed: &Placed, before: Option<&Placed>, log: &Log) {
    let notices = before.map(|before| check::notices(&before.wasm, &placed.wasm)).unwrap_or_default();
    for difference in notices {
        log.say(&format!("clients of the module before would notice: {difference}"));
    }
    match decided(client, name, placed, log).await {
        Ok(Some(Decision::Serves(version))) => {
            let (hash, took) = (placed.hash.short(), placed.at.elapsed().as_secs_f32());
            log.say(&format!("{name} {version} {hash} serves, {took:.1} s after it was built"));
        }
        Ok(Some(Decision::Refused(reasons))) => {
            log.say(&format!("{name} {} is refused; the module that served goes on", placed.hash.short()));
            reasons.iter().for_each(|reason| log.say(&format!("  {reason}")));
        }
        Ok(None) => log.say("not decided yet; see `balsa module list`"),
        Err(error) => log.say(&format!("cannot ask the node: {error}")),
    }
}

enum Decision {
    /// With this version.
    Serves(String),
    /// For these reasons.
    Refused(Vec<String>),
}

async fn decided(client: &Client, name: &str, placed: &Placed, log: &Log) -> Result<Option<Decision>, client::Error> {
    let mut told = String::new();
    while placed.at.elapsed() < PATIENCE {
        let status = client.status().await?;
        if let Some(version) = serving(&status, name, placed.hash) {
            return Ok(Some(Decision::Serves(version)));
        }
        let stage = status.changes.iter().find(|change| change.name == name).map(|change| change.stage.clone());
        if let Some(stage) = stage.filter(|stage| *stage != told) {
            log.say(&stage);
            told = stage;
        } else if let Some(reasons) = refused(client, name, placed.hash).await? {
            return Ok(Some(Decision::Refused(reasons)));
        }
        sleep(PAUSE).await;
    }
    Ok(None)
}

fn serving(status: &StatusResponse, name: &str, hash: ModuleHash) -> Option<String> {
    let mut modules = status.nodes.iter().flat_map(|node| &node.modules);
    let serves = modules.find(|module| module.name == name && module.hash == hash.0[..])?;
    Some(serves.version.clone())
}

/// The last word about the module, if it is a no to these bytes.
async fn refused(client: &Client, name: &str, hash: ModuleHash) -> Result<Option<Vec<String>>, client::Error> {
    let history = client.module_history(name).await?;
    let last = history.last().filter(|row| activation::is_refused(row) && row.hash == hash.0[..]);
    Ok(last.map(activation::reasons))
}
