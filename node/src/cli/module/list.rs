//! `balsa module list`: of each module what the files want, what is active, and what is under way.
//!
//! Three sources are put side by side: what each node's files ask for (it says so in its status), what serves, and the
//! history, which knows why something that is wanted is not active.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Exit, Format, activation};
use crate::cli::Session;
use crate::cli::status::short;
use crate::ids::hex;
use crate::proto::admin::{Change, ModuleStatus, NodeStatus, StatusResponse};
use crate::proto::command::Activation;
use crate::proto::command::activation::Outcome;

pub(super) async fn run(session: &mut Session<'_>) -> Result<Exit, crate::cli::Error> {
    let known = Known::ask(session).await?;
    for name in known.names() {
        let Some(module) = known.module(&name) else { continue };
        match session.format {
            Format::Json => session.console.json(&module.to_json())?,
            Format::Text => print(&module, session)?,
        }
    }
    Ok(Exit::Ok)
}

/// What the cluster says about its modules.
pub(super) struct Known {
    status: StatusResponse,
    history: Vec<Activation>,
}

/// What is known about one.
pub(super) struct Module<'a> {
    name: &'a str,
    /// What serves, as the node that is furthest says.
    pub(super) active: Option<&'a ModuleStatus>,
    /// What files want: by hash, the nodes. An empty hash is the module built into the binary.
    pub(super) wanted: BTreeMap<&'a [u8], Vec<&'a str>>,
    /// Nodes whose files are known.
    nodes: usize,
    change: Option<&'a Change>,
    last: Option<&'a Activation>,
    /// The last that is no refusal, which changes nothing.
    settled: Option<&'a Activation>,
}

impl Known {
    pub(super) async fn ask(session: &Session<'_>) -> Result<Self, crate::cli::Error> {
        let status = session.client.status().await?;
        let history = session.client.module_history("").await.map_err(super::error::of_operator)?;
        Ok(Self { status, history })
    }

    fn names(&self) -> BTreeSet<String> {
        let nodes = || self.status.nodes.iter();
        let active = nodes().flat_map(|node| node.modules.iter().map(|module| &module.name));
        let wanted = nodes().flat_map(|node| wishes(node).map(|(name, _)| name));
        let changing = self.status.changes.iter().map(|change| &change.name);
        let kept = self.history.iter().map(|row| &row.name);
        let all: BTreeSet<_> = active.chain(wanted).chain(changing).chain(kept).cloned().collect();
        all.into_iter().collect()
    }

    /// `None` if nothing of it is there: it was dropped, or never more than refused, and nobody wants it now.
    pub(super) fn module<'a>(&'a self, name: &'a str) -> Option<Module<'a>> {
        let nodes = || self.status.nodes.iter();
        let rows = || self.history.iter().rev().filter(|row| row.name == name);
        let active = nodes().flat_map(|node| &node.modules).filter(|module| module.name == name);
        let mut wanted: BTreeMap<&[u8], Vec<&str>> = BTreeMap::new();
        for node in nodes() {
            for (_, hash) in wishes(node).filter(|(wish, _)| *wish == name) {
                wanted.entry(hash).or_default().push(&node.name);
            }
        }
        let module = Module {
            name,
            active: active.max_by_key(|module| module.generation),
            wanted,
            nodes: nodes().filter(|node| node.wish.is_some()).count(),
            change: self.status.changes.iter().find(|change| change.name == name),
            last: rows().next(),
            settled: rows().find(|row| !activation::is_refused(row)),
        };
        let known = module.active.is_some() || !module.wanted.is_empty() || module.change.is_some();
        (known || module.is_kept()).then_some(module)
    }
}

/// Name and hash of what a node's files want.
fn wishes(node: &NodeStatus) -> impl Iterator<Item = (&String, &[u8])> {
    node.wish.iter().flat_map(|wish| &wish.modules).map(|module| (&module.name, &module.hash[..]))
}

impl Module<'_> {
    /// What serves, in words.
    pub(super) fn describe_active(&self) -> String {
        match self.active {
            Some(active) => {
                format!("{} {} serves since index {}", active.version, short(&active.hash), active.generation)
            }
            None if self.is_kept() => "does not serve; its state is kept".into(),
            None => "does not serve".into(),
        }
    }

    /// Whether there is state under its name, as the history tells.
    fn is_kept(&self) -> bool {
        self.settled.is_some_and(|row| !matches!(row.outcome, Some(Outcome::Dropped(_))))
    }

    fn describe_wanted(&self) -> String {
        if self.wanted.is_empty() {
            return "files want none of it".into();
        }
        let each = self.wanted.iter().map(|(hash, nodes)| {
            let what = match self.active {
                _ if hash.is_empty() => "the built-in one".to_owned(),
                Some(active) if active.hash == *hash => "the same".to_owned(),
                _ => short(hash),
            };
            match nodes.len() == self.nodes {
                true => format!("{what} on all nodes"),
                false => format!("{what} on {}", nodes.join(", ")),
            }
        });
        format!("files want {}", each.collect::<Vec<_>>().join("; "))
    }

    /// The last row, if it is a no to something that files still want.
    fn refusal(&self) -> Option<&Activation> {
        let wanted = |row: &&Activation| self.wanted.contains_key(&row.hash[..]);
        self.last.filter(|row| activation::is_refused(row)).filter(wanted)
    }

    fn to_json(&self) -> Value {
        let wanted = self
            .wanted
            .iter()
            .map(|(hash, nodes)| json!({ "hash": (!hash.is_empty()).then(|| hex(hash)), "nodes": nodes }));
        json!({
            "name": self.name,
            "active": self.active.map(|active| json!({
                "version": active.version,
                "hash": hex(&active.hash),
                "generation": active.generation,
                "size": active.size,
            })),
            "wanted": wanted.collect::<Vec<_>>(),
            "change": self.change.map(change_json),
            "last": self.last.map(activation::to_json),
        })
    }
}

/// A change under way.
pub(in crate::cli) fn change_json(change: &Change) -> Value {
    json!({
        "name": change.name,
        "hash": hex(&change.hash),
        "wanted_by": change.wanted_by,
        "stage": change.stage,
        "since_ms": change.since_ms,
    })
}

fn print(module: &Module<'_>, session: &mut Session<'_>) -> Result<(), crate::cli::Error> {
    let console = &mut session.console;
    console.line(format!("{}: {}; {}", module.name, module.describe_active(), module.describe_wanted()))?;
    if let Some(change) = module.change {
        let (what, by) = (short(&change.hash), &change.wanted_by);
        console.line(console.paint_careful(&format!("  under way: {what}, wanted by {by}: {}", change.stage)))?;
    } else if let Some(row) = module.refusal() {
        let what = format!("  refused at index {}: {}", row.index, activation::title(row));
        console.line(console.paint_bad(&what))?;
        for reason in activation::reasons(row) {
            console.line(format!("    {reason}"))?;
        }
    }
    Ok(())
}
