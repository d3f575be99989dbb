//! `balsa module history`: what became of each module that was ever wanted.

use super::{Exit, Format, activation};
use crate::cli::Session;
use crate::proto::command::Activation;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct History {
    /// Of this module only
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

pub(super) async fn run(args: &History, session: &mut Session<'_>) -> Result<Exit, crate::cli::Error> {
    let name = args.name.as_deref().unwrap_or_default();
    let history = session.client.module_history(name).await.map_err(super::error::of_operator)?;
    for row in &history {
        match session.format {
            Format::Json => session.console.json(&activation::to_json(row))?,
            Format::Text => print(row, &history, session)?,
        }
    }
    if history.is_empty() {
        let of = args.name.as_ref().map(|name| format!(" called {name}")).unwrap_or_default();
        session.console.note(&format!("no module{of} was ever wanted"));
        return Ok(Exit::No);
    }
    Ok(Exit::Ok)
}

fn print(row: &Activation, all: &[Activation], session: &mut Session<'_>) -> Result<(), crate::cli::Error> {
    let width = |text: fn(&Activation) -> String| all.iter().map(|row| text(row).len()).max().unwrap_or(0);
    let (index, title) = (width(|row| row.index.to_string()), width(activation::title));
    let by = activation::wanted_by(row);
    let by = if by.is_empty() { by } else { format!("  ({by})") };
    let outcome = activation::outcome(row);
    let console = &mut session.console;
    let outcome = if activation::is_refused(row) { console.paint_bad(&outcome) } else { outcome };
    let (at, what) = (activation::time(row.time_ms), activation::title(row));
    console.line(format!("{:>index$}  {at}  {what:<title$}  {outcome}{by}", row.index))?;
    for reason in activation::reasons(row) {
        console.line(format!("{:index$}  {reason}", ""))?;
    }
    Ok(())
}
