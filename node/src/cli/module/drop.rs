//! `balsa module drop NAME --yes`: the end of a module, and of all that it stored.
//!
//! Nothing brings that back but a backup. So without `--yes` it only says what would be lost, and whether it could be.

use serde_json::json;

use super::list::Known;
use super::{Exit, Format};
use crate::cli::Session;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Drop {
    /// The module
    #[arg(value_name = "NAME")]
    name: String,
    /// Yes, delete its state
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(args: &Drop, session: &mut Session<'_>) -> Result<Exit, crate::cli::Error> {
    if args.yes { drop(&args.name, session).await } else { tell(&args.name, session).await }
}

async fn drop(name: &str, session: &mut Session<'_>) -> Result<Exit, crate::cli::Error> {
    let client = session.client_within(super::SLOW);
    let rows = client.module_drop(name).await.map_err(super::error::of_operator)?;
    match session.format {
        Format::Json => session.console.json(&json!({ "dropped": name, "rows": rows }))?,
        Format::Text => session.console.line(format!("{name} is dropped: {rows} rows are deleted"))?,
    }
    Ok(Exit::Ok)
}

async fn tell(name: &str, session: &mut Session<'_>) -> Result<Exit, crate::cli::Error> {
    let known = Known::ask(session).await?;
    let Some(module) = known.module(name) else { return Err(super::Error::Unknown(name.into()).into()) };
    let would = match (module.wanted.is_empty(), &module.active) {
        (false, _) => "files want it, so it would be refused: take its [[module]] out of them first",
        (true, Some(_)) => "it would stop serving, and all of its state would be deleted on every node",
        (true, None) => "all of its state would be deleted on every node",
    };
    let now = module.describe_active();
    match session.format {
        Format::Json => session.console.json(&json!({ "name": name, "now": now, "would": would }))?,
        Format::Text => {
            session.console.line(format!("{name}: {now}"))?;
            session.console.line(format!("{would}; nothing was done"))?;
            if module.wanted.is_empty() {
                session
                    .console
                    .line(format!("to do it: balsa module drop {name} --yes (after `balsa backup FILE`)"))?;
            }
        }
    }
    Ok(Exit::No)
}
