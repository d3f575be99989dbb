//! `balsa status`: the nodes of the cluster, side by side.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::{Console, Error, Exit, Format, Session};
use crate::ids::{NodeId, hex};
use crate::proto::admin::{Change, ModuleStatus, NodeStatus, StatusResponse};

const HEADER: [&str; 11] =
    ["NAME", "ID", "ROLE", "TERM", "LAST", "COMMITTED", "APPLIED", "LAG", "MODULE", "DIGEST", "ADDRESS"];
/// Columns of numbers.
const RIGHT: std::ops::RangeInclusive<usize> = 3..=7;
/// Hex digits that tell two hashes apart in a table.
const SHORT_BYTES: usize = 6;

pub(super) async fn run(session: &mut Session<'_>) -> Result<Exit, Error> {
    let status = session.client.status().await?;
    match session.format {
        Format::Json => session.console.json(&to_json(&status))?,
        Format::Text => print(&status, session.console)?,
    }
    Ok(Exit::Ok)
}

fn print(status: &StatusResponse, console: &mut Console) -> Result<(), Error> {
    let cluster = if status.cluster_id.is_empty() { "(not bootstrapped yet)" } else { &status.cluster_id };
    console.line(format!("cluster {cluster}, seen by {}", status.answered_by))?;
    console.line("")?;
    for (at, line) in table(status).lines().enumerate() {
        let node = at.checked_sub(1).and_then(|at| status.nodes.get(at));
        let line = line.trim_end();
        console.line(match node {
            Some(node) if is_bad(node) => console.paint_bad(line),
            Some(node) if node.role == "leader" => console.paint_good(line),
            _ => line.to_owned(),
        })?;
    }
    let changes: Vec<_> = status.changes.iter().map(describe).collect();
    let warnings = warnings(status);
    if !(changes.is_empty() && warnings.is_empty()) {
        console.line("")?;
    }
    for change in changes {
        console.line(change)?;
    }
    for warning in warnings {
        console.line(console.paint_careful(&format!("warning: {warning}")))?;
    }
    Ok(())
}

/// A change of a module that is under way.
fn describe(change: &Change) -> String {
    format!("module {} {}, wanted by {}: {}", change.name, short(&change.hash), change.wanted_by, change.stage)
}

/// What needs somebody's attention: the cluster's warnings, and what single nodes have to say beyond them.
fn warnings(status: &StatusResponse) -> Vec<String> {
    let mut warnings = status.warnings.clone();
    for node in &status.nodes {
        let name = &node.name;
        if !node.fenced.is_empty() {
            warnings.push(format!("{name} has fenced itself: {}", node.fenced));
        }
        let new = |text: &&String| !status.warnings.iter().any(|warning| warning.contains(text.as_str()));
        warnings.extend(node.problems.iter().filter(new).map(|problem| format!("{name}: {problem}")));
        let restart = node.restart_for.iter().filter(new);
        warnings.extend(restart.map(|key| format!("{name} obeys {key} only after a restart")));
    }
    warnings
}

fn is_bad(node: &NodeStatus) -> bool {
    !node.reachable || !node.fenced.is_empty()
}

fn table(status: &StatusResponse) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(HEADER);
    for node in &status.nodes {
        table.add_row(row(node));
    }
    for column in table.column_iter_mut().enumerate().filter(|(at, _)| RIGHT.contains(at)).map(|(_, column)| column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if at + 1 == HEADER.len() { 0 } else { 2 }));
    }
    table
}

/// What is not known is a dash: a node that was never reached has neither id nor indexes.
fn row(node: &NodeStatus) -> [String; 11] {
    let known = |text: String| if node.reachable { text } else { "-".into() };
    [
        node.name.clone(),
        if node.id == 0 { "-".into() } else { NodeId(node.id).to_string() },
        if node.reachable { node.role.clone() } else { "unreachable".into() },
        known(node.term.to_string()),
        known(node.last_index.to_string()),
        known(node.committed_index.to_string()),
        known(node.applied_index.to_string()),
        known(node.lag.to_string()),
        known(modules(&node.modules)),
        known(format!("{}@{}", short(&node.digest), node.digest_index)),
        node.client_addr.clone(),
    ]
}

fn modules(modules: &[ModuleStatus]) -> String {
    let each = modules.iter().map(|module| format!("{}@{} {}", module.name, module.version, short(&module.hash)));
    match each.collect::<Vec<_>>() {
        none if none.is_empty() => "-".into(),
        some => some.join(", "),
    }
}

/// The first digits of a hash.
pub(super) fn short(hash: &[u8]) -> String {
    hex(&hash[..hash.len().min(SHORT_BYTES)])
}

fn to_json(status: &StatusResponse) -> Value {
    json!({
        "cluster_id": status.cluster_id,
        "answered_by": status.answered_by,
        "nodes": status.nodes.iter().map(node_json).collect::<Vec<_>>(),
        "warnings": status.warnings,
        "changes": status.changes.iter().map(super::module::change_json).collect::<Vec<_>>(),
    })
}

fn node_json(node: &NodeStatus) -> Value {
    let id = |id: u64| (id != 0).then(|| NodeId(id).to_string());
    json!({
        "name": node.name,
        "id": id(node.id),
        "client_addr": node.client_addr,
        "peer_addr": node.peer_addr,
        "reachable": node.reachable,
        "role": node.role,
        "term": node.term,
        "leader_id": id(node.leader_id),
        "last_index": node.last_index,
        "committed_index": node.committed_index,
        "applied_index": node.applied_index,
        "lag": node.lag,
        "digest": hex(&node.digest),
        "digest_index": node.digest_index,
        "modules": node.modules.iter().map(module_json).collect::<Vec<_>>(),
        "version": node.version,
        "fenced": if node.fenced.is_empty() { None } else { Some(&node.fenced) },
        "time_ms": node.time_ms,
        "wish": node.wish.as_ref().map(|wish| hex(&wish.hash)),
        "problems": node.problems,
        "restart_for": node.restart_for,
        "replicas": node.wish.as_ref().map(|wish| wish.replicas).filter(|replicas| *replicas > 0),
    })
}

fn module_json(module: &ModuleStatus) -> Value {
    json!({
        "name": module.name,
        "version": module.version,
        "hash": hex(&module.hash),
        "generation": module.generation,
        "file_hash": if module.file_hash.is_empty() { None } else { Some(hex(&module.file_hash)) },
    })
}
