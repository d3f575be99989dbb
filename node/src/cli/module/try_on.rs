//! `balsa module try FILE --on BACKUP`: the whole of a swap, rehearsed on real data.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::check;
use super::file::ModuleFile;
use super::rehearsal::{Example, Ran, Rehearsal, Stage};
use super::{Console, Error, Exit, Format, activation};
use crate::cli::output::{JsonBytes, escape};
use crate::cli::status::short;
use crate::client::Code;
use crate::command::{Outcome, code_name};
use crate::ids::hex;
use crate::wasm::{Module, Rejection};

/// Characters of a value that are shown.
const VALUE_SHOWN: usize = 60;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Try {
    /// The module: a .wasm file, or a .wasm.zst
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The state to try it on, from `balsa backup`; it is only read
    #[arg(long, value_name = "BACKUP")]
    on: PathBuf,
    /// Go on even if clients of the active version would notice
    #[arg(long)]
    allow_breaking: bool,
}

pub(super) fn run(args: &Try, format: Format, console: &mut Console) -> Result<Exit, super::super::Error> {
    let file = ModuleFile::read(&args.file, &console.directory)?;
    let backup = console.directory.join(&args.on);
    let (stage, rehearsal) = super::on_a_deep_stack(|| rehearse(args, &file, &backup))?;
    match format {
        Format::Json => console.json(&to_json(&rehearsal, &stage))?,
        Format::Text => print(&rehearsal, &stage, console)?,
    }
    Ok(if rehearsal.is_good() { Exit::Ok } else { Exit::No })
}

fn rehearse(args: &Try, file: &ModuleFile, backup: &std::path::Path) -> Result<(Stage, Rehearsal), Error> {
    let engine = super::engine()?;
    let module = Module::load(&engine, &file.wasm).map_err(|why| match why {
        Rejection::Host(fault) => fault.into(),
        why => Error::NotTaken { path: file.path.clone(), why: why.into() },
    })?;
    let directory = tempfile::tempdir().map_err(|error| Error::Write { path: std::env::temp_dir(), error })?;
    let stage = Stage::open(backup, directory.path(), engine)?;
    let rehearsal = stage.rehearse(module, args.allow_breaking)?;
    // The files may go already: what is open stays readable.
    Ok((stage, rehearsal))
}

fn print(rehearsal: &Rehearsal, stage: &Stage, console: &mut Console) -> Result<(), super::super::Error> {
    let header = &stage.header;
    let made = activation::time(header.made_ms);
    console.line(format!("backup of cluster {}, made {made}, after index {}", header.cluster_id, rehearsal.index))?;
    let module = &rehearsal.module;
    let place = match &rehearsal.before {
        Some(row) => format!("in place of {} {}", row.version, short(&row.hash)),
        None => "a new module".into(),
    };
    console.line(format!("{} {} {}, {place}", module.name(), module.version(), module.hash().short()))?;
    match (&rehearsal.objection, &rehearsal.transition) {
        (Some(objection), _) => console.line(console.paint_bad(&format!("it would be refused: {objection}")))?,
        (None, Some(ran)) => print_ran(ran, rehearsal, console)?,
        (None, None) => console.line("nothing speaks against it, and no code would run on the state")?,
    }
    for warning in check::warnings_about(module) {
        console.line(console.paint_careful(&format!("warning: {warning}")))?;
    }
    console.line(if rehearsal.is_good() { console.paint_good("OK") } else { console.paint_bad("NOT OK") })
}

fn print_ran(ran: &Ran, rehearsal: &Rehearsal, console: &mut Console) -> Result<(), super::super::Error> {
    let (what, limits) = (ran.what, &rehearsal.limits);
    match failure(ran) {
        None => console.line(format!("{what}: ok"))?,
        Some(why) => console.line(console.paint_bad(&format!("{what} fails, so it would be refused: {why}")))?,
    }
    for line in ran.trap_detail.iter().flat_map(|text| text.lines()) {
        console.line(format!("  {line}"))?;
    }
    let of = |used: u64, limit: u64| format!("{used} of {limit} ({:.1} %)", 100.0 * used as f64 / limit.max(1) as f64);
    console.line(format!("  writes  {}", of(ran.writes, limits.migrate_writes)))?;
    console.line(format!("  bytes   {}", of(ran.written_bytes, limits.migrate_bytes)))?;
    console.line(format!("  fuel    {}", of(ran.fuel, limits.migrate_fuel)))?;
    let rate = ran.ms_per_million_fuel().map(|ms| format!(", {ms:.2} ms for a million fuel")).unwrap_or_default();
    console.line(format!("  time    {:.1} ms here{rate}; commands wait for as long", ran.took.as_secs_f64() * 1e3))?;
    for line in &ran.logs {
        console.line(format!("  log     {}", escape(line.text.as_bytes())))?;
    }
    let rows = &ran.rows;
    console.line(format!("rows: {} added, {} changed, {} deleted", rows.added, rows.changed, rows.deleted))?;
    for example in &rows.examples {
        console.line(format!("  {}", describe(example)))?;
    }
    let more = (rows.added + rows.changed + rows.deleted).saturating_sub(rows.examples.len() as u64);
    if more > 0 {
        console.line(format!("  and {more} more"))?;
    }
    Ok(())
}

/// Why it failed, if it did.
fn failure(ran: &Ran) -> Option<String> {
    match &ran.outcome {
        Outcome::Ok(_) => None,
        Outcome::Status(status) => {
            let code = i32::try_from(status.code).map_or(Code::Unknown, Code::from_i32);
            Some(format!("{}: {}", code_name(code), status.message))
        }
        Outcome::Trap(class) => Some(class.to_string()),
        Outcome::Refused(refusal) => Some(refusal.to_string()),
    }
}

fn describe(example: &Example) -> String {
    let key = escape(&example.key);
    match (&example.before, &example.after) {
        (None, Some(after)) => format!("+ {key} = {}", shown(after)),
        (Some(before), Some(after)) => format!("~ {key} = {} (was {})", shown(after), shown(before)),
        (_, None) => format!("- {key}"),
    }
}

fn shown(value: &[u8]) -> String {
    let text = escape(value);
    match text.char_indices().nth(VALUE_SHOWN) {
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], value.len()),
        None => text,
    }
}

fn to_json(rehearsal: &Rehearsal, stage: &Stage) -> Value {
    let module = &rehearsal.module;
    json!({
        "ok": rehearsal.is_good(),
        "cluster_id": stage.header.cluster_id,
        "made_ms": stage.header.made_ms,
        "index": rehearsal.index,
        "name": module.name(),
        "version": module.version(),
        "hash": module.hash().to_string(),
        "from_version": rehearsal.before.as_ref().map(|row| &row.version),
        "from_hash": rehearsal.before.as_ref().map(|row| hex(&row.hash)),
        "objection": rehearsal.objection,
        "transition": rehearsal.transition.as_ref().map(ran_json),
        "limits": {
            "fuel": rehearsal.limits.migrate_fuel,
            "writes": rehearsal.limits.migrate_writes,
            "bytes": rehearsal.limits.migrate_bytes,
        },
        "warnings": check::warnings_about(module),
    })
}

fn ran_json(ran: &Ran) -> Value {
    let bytes = |bytes: &Vec<u8>| JsonBytes::from(&bytes[..]);
    let examples = ran.rows.examples.iter().map(|example| {
        json!({
            "key": bytes(&example.key),
            "before": example.before.as_ref().map(bytes),
            "after": example.after.as_ref().map(bytes),
        })
    });
    json!({
        "what": ran.what,
        "failure": failure(ran),
        "trap_detail": ran.trap_detail,
        "fuel": ran.fuel,
        "ms": ran.took.as_secs_f64() * 1e3,
        "ms_per_million_fuel": ran.ms_per_million_fuel(),
        "writes": ran.writes,
        "bytes": ran.written_bytes,
        "rows": { "added": ran.rows.added, "changed": ran.rows.changed, "deleted": ran.rows.deleted, "same": ran.rows.same },
        "examples": examples.collect::<Vec<_>>(),
        "logs": ran.logs.iter().map(|line| &line.text).collect::<Vec<_>>(),
    })
}
