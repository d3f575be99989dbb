//! `balsa module retry`: once more what the files want and was refused, or waits for a node.

use serde_json::json;

use super::{Exit, Format};
use crate::cli::Session;
use crate::proto::admin::ModuleRetryRequest;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Retry {
    /// Only this module
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Do not wait for this node to be ready; a majority must be
    #[arg(long, value_name = "NODE")]
    without: Vec<String>,
}

pub(super) async fn run(args: &Retry, session: &mut Session<'_>) -> Result<Exit, crate::cli::Error> {
    let request = ModuleRetryRequest { name: args.name.clone().unwrap_or_default(), without: args.without.clone() };
    let retried = session.client.module_retry(&request).await.map_err(super::error::of_operator)?;
    match session.format {
        Format::Json => session.console.json(&json!({ "retried": retried }))?,
        Format::Text if retried.is_empty() => session.console.line("nothing was refused or waits")?,
        Format::Text => {
            session
                .console
                .line(format!("tried again: {}; `balsa module list` shows how it goes", retried.join(", ")))?;
        }
    }
    Ok(if retried.is_empty() { Exit::No } else { Exit::Ok })
}
