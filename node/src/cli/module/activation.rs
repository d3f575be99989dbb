//! A row of the history of modules, in words and in JSON: what was wanted, by whom, and what came of it.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::cli::status::short;
use crate::ids::hex;
use crate::proto::command::activation::Outcome;
use crate::proto::command::{Activated, Activation, Source};
use crate::service::why_refused;

/// `counter 0.2.0 8f1d5a0c2b3e`, as far as known.
pub(super) fn title(activation: &Activation) -> String {
    let parts = [activation.name.clone(), activation.version.clone(), short(&activation.hash)];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// What came of it, in one line.
pub(super) fn outcome(activation: &Activation) -> String {
    match &activation.outcome {
        Some(Outcome::Activated(activated)) => describe_activated(activated),
        Some(Outcome::Refused(_)) => "refused".into(),
        Some(Outcome::Stopped(_)) => "stopped; its state is kept".into(),
        Some(Outcome::Dropped(_)) => "dropped; its state is deleted".into(),
        None => "of a kind that this balsa does not know".into(),
    }
}

fn describe_activated(activated: &Activated) -> String {
    let Activated { from_version, from_hash, fuel, writes, bytes } = activated;
    let place = match from_version.as_str() {
        "" => "activated".to_owned(),
        from => format!("activated in place of {from} {}", short(from_hash)),
    };
    let what = if from_version.is_empty() { "init" } else { "migrate" };
    match fuel {
        0 => place,
        _ => format!("{place}; {what} wrote {writes} rows ({bytes} bytes) with {fuel} fuel"),
    }
}

/// Why it was refused, a line each; empty if it was not.
pub(in crate::cli) fn reasons(activation: &Activation) -> Vec<String> {
    let Some(Outcome::Refused(refused)) = &activation.outcome else { return Vec::new() };
    let text = why_refused(refused);
    text.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Whether it is a no.
pub(in crate::cli) fn is_refused(activation: &Activation) -> bool {
    matches!(activation.outcome, Some(Outcome::Refused(_)))
}

/// Who wanted it, in the words of the log.
pub(super) fn wanted_by(activation: &Activation) -> String {
    let source = match activation.source() {
        Source::Unspecified => "",
        Source::Genesis => "genesis",
        Source::Files => "files",
        Source::Push => "push",
    };
    if activation.proposed_by.is_empty() { source.into() } else { activation.proposed_by.clone() }
}

/// Log time, as people write it.
pub(super) fn time(time_ms: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(time_ms));
    time.map_or_else(|| "-".into(), |time| humantime::format_rfc3339_seconds(time).to_string())
}

/// Everything.
pub(super) fn to_json(activation: &Activation) -> Value {
    let hash = |hash: &[u8]| (!hash.is_empty()).then(|| hex(hash));
    let mut json = json!({
        "name": activation.name,
        "version": activation.version,
        "hash": hash(&activation.hash),
        "index": activation.index,
        "time_ms": activation.time_ms,
        "source": activation.source().as_str_name().trim_start_matches("SOURCE_").to_lowercase(),
        "wanted_by": activation.proposed_by,
    });
    let outcome = match &activation.outcome {
        Some(Outcome::Activated(activated)) => json!({
            "outcome": "activated",
            "from_version": Some(&activated.from_version).filter(|version| !version.is_empty()),
            "from_hash": hash(&activated.from_hash),
            "fuel": activated.fuel,
            "writes": activated.writes,
            "bytes": activated.bytes,
        }),
        Some(Outcome::Refused(refused)) => {
            json!({ "outcome": "refused", "reason": why_refused(refused), "fuel": refused.fuel })
        }
        Some(Outcome::Stopped(_)) => json!({ "outcome": "stopped" }),
        Some(Outcome::Dropped(_)) => json!({ "outcome": "dropped" }),
        None => json!({ "outcome": null }),
    };
    let (Value::Object(fields), Value::Object(mut more)) = (&mut json, outcome) else {
        unreachable!("made as objects")
    };
    fields.append(&mut more);
    json
}
