//! `balsa backup FILE`: the whole state of the cluster at one index, into a file.
//!
//! One node reads it out while it goes on serving; all that was acknowledged before is in it. Every checksum of the stream is
//! verified on the way, so what is reported at the end is about the file. `balsa module try` rehearses on such a file.

mod file;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::progress::Progress;
use super::{Exit, Format, Session};
use crate::ids::hex;
pub(super) use file::{Backup, BackupHeader, Error, stream_error};
use file::{Draft, Written};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to write it; an older backup there is replaced once the new one is whole
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) async fn run(args: &Args, session: &mut Session<'_>) -> Result<Exit, super::Error> {
    session.as_operator().await?;
    let cluster_id = session.client.status().await?.cluster_id;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let made = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let made_ms = u64::try_from(made.as_millis()).unwrap_or(u64::MAX);
    let mut draft =
        Draft::begin(&session.console.directory.join(&args.file), &BackupHeader { cluster_id, made_ms, version })?;
    receive(&mut draft, session).await?;
    report(&draft.finish()?, args, session)
}

async fn receive(draft: &mut Draft, session: &mut Session<'_>) -> Result<(), super::Error> {
    let client = session.client.clone();
    let (mut failed, mut progress) = (None, Progress::begin("written", None, Instant::now()));
    let mut take = |chunk: bytes::Bytes| {
        if let Err(error) = draft.write(&chunk) {
            failed = Some(error);
            return ControlFlow::Break(());
        }
        if let Some(line) = progress.at(draft.bytes(), Instant::now()) {
            session.console.note(&line);
        }
        ControlFlow::Continue(())
    };
    client.backup(&mut take).await?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn report(written: &Written, args: &Args, session: &mut Session<'_>) -> Result<Exit, super::Error> {
    let Written { contents, hash, bytes } = written;
    let (index, rows, state) = (contents.index(), contents.state.keys, hex(&contents.state.hash));
    match session.format {
        Format::Json => session.console.json(&json!({
            "file": args.file, "index": index, "rows": rows, "bytes": bytes, "state_hash": state,
            "digest": hex(&contents.digest().0), "blake3": hash.to_hex().as_str(),
        }))?,
        Format::Text => {
            let file = args.file.display();
            session.console.line(format!("{file}: the state after index {index}, {rows} rows, {bytes} bytes"))?;
            session.console.line(format!("state hash  {state}"))?;
            session.console.line(format!("BLAKE3      {}", hash.to_hex()))?;
        }
    }
    Ok(Exit::Ok)
}
