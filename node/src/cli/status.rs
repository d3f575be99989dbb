//! `balsa status`: the nodes of the cluster, side by side.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::{Console, Error, Exit, Format, Session};
use crate::ids::{NodeId, hex};
use crate::proto::admin::{ModuleStatus, NodeStatus, StatusResponse};

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
    let fenced = status.nodes.iter().filter(|node| !node.fenced.is_empty());
    let fenced: Vec<_> = fenced.map(|node| format!("{} has fenced itself: {}", node.name, node.fenced)).collect();
    if !(status.warnings.is_empty() && fenced.is_empty()) {
        console.line("")?;
    }
    for warning in status.warnings.iter().chain(&fenced) {
        console.line(console.paint_careful(&format!("warning: {warning}")))?;
    }
    Ok(())
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
