//! `balsa restore FILE`: an empty data directory becomes that of the first node of a new cluster, with a backup's state.
//!
//! It is the node's own code that reads it, as if it were a snapshot from a leader: every checksum, the length, the format and the state's
//! hash are verified, and the modules compiled, before anything takes its place. The other nodes join this one.

use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;

use super::backup::{Backup, stream_error};
use super::module::{engine, on_a_deep_stack};
use super::progress::Progress;
use super::{Console, Error, Exit, Format, serve};
use crate::raft::types::Member;
use crate::volume::restore::{Draft, Restored};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A file that `balsa backup` wrote; /dev/stdin for one that is piped
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    node: serve::Args,
}

pub(super) fn run(args: &Args, format: Format, console: &mut Console) -> Result<Exit, Error> {
    let node = args.node.configuration()?;
    let backup = Backup::open(&console.directory.join(&args.file))?;
    let (from, made_ms) = (backup.header.cluster_id.clone(), backup.header.made_ms);
    let dir = console.directory.join(&node.node.data_dir);
    let (member, name) = (node.this_member().into(), &node.node.name);
    let note = &mut |text: String| console.note(&text);
    let Restored { cluster_id, node_id, index } = on_a_deep_stack(|| restore(backup, &dir, member, note))?;
    match format {
        Format::Json => console.json(&json!({
            "data_dir": dir, "name": name, "index": index, "cluster_id": cluster_id.to_string(), "node_id": node_id.to_string(),
            "backup_of": from, "made_ms": made_ms,
        }))?,
        Format::Text => {
            console.line(format!("{}: the state after index {index}, for {name}", dir.display()))?;
            console.line(format!("cluster {cluster_id}, which is new (the backup is of cluster {from})"))?;
            console.line("Start this node. The others join it, each with an empty data directory.")?;
        }
    }
    Ok(Exit::Ok)
}

fn restore(
    backup: Backup,
    dir: &std::path::Path,
    member: Member,
    note: &mut (dyn FnMut(String) + Send),
) -> Result<Restored, Error> {
    let path = backup.path().to_owned();
    let mut draft = Draft::begin(dir, engine()?)?;
    // A pipe has no length.
    let length = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file).map(|file| file.len());
    let (mut bytes, mut progress) = (0, Progress::begin("read", length, Instant::now()));
    backup.read(&mut |piece| {
        draft.write(piece)?;
        bytes += piece.len() as u64;
        if let Some(line) = progress.at(bytes, Instant::now()) {
            note(line);
        }
        Ok(())
    })?;
    note("checking, and compiling its modules".into());
    draft.finish(member).map_err(|error| match error {
        crate::volume::Error::Snapshot(error) => Error::Backup(stream_error(&path)(error)),
        error => error.into(),
    })
}
