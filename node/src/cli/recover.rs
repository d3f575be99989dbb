//! `balsa recover`: a stopped node becomes the only voter of a new cluster, when the majority of its own is lost for good.
//!
//! Something may be given up by that, and nobody can say how much: what the lost ones acknowledged and this one never got. So it says
//! what it knows, and asks.

use serde_json::json;

use super::{Console, Error, Exit, Format, serve};
use crate::volume::recover::Survivor;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    node: serve::Args,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(args: &Args, format: Format, console: &mut Console) -> Result<Exit, Error> {
    let config = args.node.configuration()?;
    let dir = console.directory.join(&config.node.data_dir);
    let name = &config.node.name;
    let survivor = Survivor::open(&dir, name)?;
    if format == Format::Text || !args.yes {
        explain(&survivor, name, console);
    }
    if !args.yes {
        if !console.in_is_terminal {
            return Err(Error::NobodyToAsk);
        }
        if console.ask(&format!("To go on, type the node's name, {name}:"))? != *name {
            console.note("nothing was changed");
            return Ok(Exit::No);
        }
    }
    let (old, last) = (survivor.cluster_id, survivor.last);
    let cluster_id = survivor.recover(config.this_member().into())?;
    match format {
        Format::Json => console.json(&json!({
            "name": name, "cluster_id": cluster_id.to_string(), "was": old.to_string(),
            "last_index": last.index, "last_term": last.committed_leader_id().term,
        }))?,
        Format::Text => {
            console.line(format!("{name} is the only voter of cluster {cluster_id}, which is new."))?;
            console.line("Start it. Others join it, each with an empty data directory.")?;
        }
    }
    Ok(Exit::Ok)
}

fn explain(survivor: &Survivor, name: &str, console: &mut Console) {
    let Survivor { cluster_id, last, committed, members, retired, .. } = survivor;
    let (last, term) = (last.index, last.committed_leader_id().term);
    console.note(&format!(
        "{name} (node {}) of cluster {cluster_id}, whose members are, as far as it knows:",
        survivor.node_id()
    ));
    for (id, member, votes) in members {
        let role = if *votes { "voter" } else { "learner" };
        let own = if *id == survivor.node_id() { ", this node" } else { "" };
        console.note(&format!("  {}  {id}  {role}, {}{own}", member.name, member.peer_addr));
    }
    console
        .note(&format!("Its log ends with index {last} of term {term}; it knows that index {committed} is committed."));
    if let Some(why) = retired {
        console.note(&format!(
            "\nIt has given up its place: this node {why}. Recovered, it starts all the same, with what it has."
        ));
    }
    let doubtful = last.saturating_sub(*committed);
    let kept = match doubtful {
        0 => String::new(),
        _ => format!(
            "\nKept: the {doubtful} entries after {committed}, of which it does not know whether they were committed. They will be, \
             and commands among them whose clients were told nothing take effect."
        ),
    };
    console.note(&format!(
        "\nThis makes it the only voter of a new cluster.\n\
         Given up: every entry after {last}. The others may have acknowledged such ones to clients, and nobody can say here how \
         many.{kept}\n\
         Never start the others with their data again: they are of the old cluster, which a majority of them would go on with, \
         beside this one. With empty data directories they join the new one.\n\
         If any of the others can be brought back, so that a majority is, do that instead. If several are left, recover the one \
         whose log ends in the highest term; of those that end in the same term, the one with the highest index."
    ));
}
