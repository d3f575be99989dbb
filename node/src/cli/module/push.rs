//! `balsa module push FILE`: makes a module active, without files.
//!
//! The file goes to one node as it is; the leader checks it, brings it into the log, has every voter compile it, and
//! activates it. What is being done is shown while it is, and at the end what came of it. A push stays in force until the
//! files of the cluster change.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::file;
use super::{Exit, Format, activation};
use crate::cli::Session;
use crate::client::{self, Client};
use crate::config;
use crate::proto::admin::ModulePush;
use crate::proto::command::Activation;

/// How long a push may take unless `--timeout` says otherwise: voters may have to compile 32 MiB.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Push {
    /// The module: a .wasm file, or a .wasm.zst
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Activate it even if clients of the active version would notice
    #[arg(long)]
    allow_breaking: bool,
    /// Do not wait for this node to be ready; a majority must be
    #[arg(long, value_name = "NODE")]
    without: Vec<String>,
}

pub(super) async fn run(args: &Push, session: &mut Session<'_>) -> Result<Exit, crate::cli::Error> {
    let file: Bytes = file::read(&args.file, &session.console.directory)?.into();
    let header =
        ModulePush { allow_breaking: args.allow_breaking, without: args.without.clone(), pushed_by: pushed_by() };
    let client = session.client_within(TIMEOUT);
    let pushed = push(&client, &header, &file, session).await?;
    report(&pushed, session)
}

/// `user@host`, as far as known: for the history, not for trust.
fn pushed_by() -> String {
    let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    format!("{}@{}", user.unwrap_or_else(|| "somebody".into()), config::host_name().unwrap_or_else(|| "unknown".into()))
}

async fn push(
    client: &Client,
    header: &ModulePush,
    file: &Bytes,
    session: &mut Session<'_>,
) -> Result<Activation, crate::cli::Error> {
    let last = Mutex::new(String::new());
    let console = Mutex::new(&mut *session.console);
    let on_stage = |stage: &str| {
        console.lock().note(stage);
        stage.clone_into(&mut last.lock());
    };
    let pushed = client.module_push(header, file, &on_stage).await;
    let stage = last.into_inner();
    pushed.map_err(|error| match error {
        client::Error::Unavailable { last, .. } if !stage.is_empty() => super::Error::Undecided { stage, last }.into(),
        error => super::error::of_operator(error),
    })
}

fn report(pushed: &Activation, session: &mut Session<'_>) -> Result<Exit, crate::cli::Error> {
    let refused = activation::is_refused(pushed);
    match session.format {
        Format::Json => session.console.json(&activation::to_json(pushed))?,
        Format::Text => {
            let (title, outcome) = (activation::title(pushed), activation::outcome(pushed));
            let line = format!("{title}: {outcome}, at index {}", pushed.index);
            let console = &mut session.console;
            console.line(if refused { console.paint_bad(&line) } else { console.paint_good(&line) })?;
            for reason in activation::reasons(pushed) {
                console.line(format!("  {reason}"))?;
            }
        }
    }
    Ok(if refused { Exit::Rejected } else { Exit::Ok })
}
