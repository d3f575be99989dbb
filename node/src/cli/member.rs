//! `balsa member`: who belongs to the cluster, and what operators change about it.
//!
//! Most of it happens by itself: nodes that the files want are let in, those beyond `replicas` leave, a lost volume is replaced. What
//! is here is for the rest, and every refusal says what would be right.

use std::time::Duration;

use clap::Subcommand;
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::{Error, Exit, Format, Session, module};
use crate::ids::NodeId;
use crate::proto::admin::{ClusterMember, MemberChange, MembersResponse, member_change::Kind};

/// A change may wait for an election, and for another one that is under way.
const PATIENCE: Duration = Duration::from_secs(30);

const HEADER: [&str; 6] = ["NAME", "ID", "MEMBER", "STATE", "PEERS", "CLIENTS"];

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the members, and who asks to be one
    List,
    /// Let in a node beyond `replicas`, as a learner: it gets everything and has no vote
    Add {
        /// The node; it has to run already, and waits to be added
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Remove a member; its data is kept, and is no member's any more
    Remove {
        /// The member, or its id
        #[arg(value_name = "NAME")]
        name: String,
        /// Also if the files want it
        #[arg(long)]
        yes: bool,
    },
    /// Make a learner a voter
    Promote {
        /// The learner, or its id
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Have another voter lead
    TransferLeader {
        /// Which [default: the one whose log is furthest]
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
}

pub(super) async fn run(args: &Args, session: &mut Session<'_>) -> Result<Exit, Error> {
    let (kind, name, yes) = match &args.command {
        Command::List => return list(session).await,
        Command::Add { name } => (Kind::Add, name.as_str(), false),
        Command::Remove { name, yes } => (Kind::Remove, name.as_str(), *yes),
        Command::Promote { name } => (Kind::Promote, name.as_str(), false),
        Command::TransferLeader { name } => (Kind::TransferLeader, name.as_deref().unwrap_or_default(), false),
    };
    let change = MemberChange { kind: kind.into(), name: name.to_owned(), yes, ..MemberChange::default() };
    session.as_operator().await?;
    let client = session.client_within(PATIENCE);
    let done = client.change_member(&change).await.map_err(module::of_operator)?;
    match session.format {
        Format::Json => session.console.json(&json!({ "done": done }))?,
        Format::Text => session.console.line(done)?,
    }
    Ok(Exit::Ok)
}

async fn list(session: &mut Session<'_>) -> Result<Exit, Error> {
    let members = session.client.members().await?;
    match session.format {
        Format::Json => session.console.json(&to_json(&members))?,
        Format::Text => print(&members, session)?,
    }
    Ok(Exit::Ok)
}

fn print(known: &MembersResponse, session: &mut Session<'_>) -> Result<(), Error> {
    let console = &mut session.console;
    let wanted = match known.replicas {
        0 => "the files of no majority say how many nodes there should be".to_owned(),
        replicas => format!("the files want {replicas}"),
    };
    let voters = known.members.iter().filter(|member| member.voter).count();
    let learners = match known.members.len() - voters {
        0 => String::new(),
        count => format!(", {count} learner{}", if count == 1 { "" } else { "s" }),
    };
    let plural = if voters == 1 { "" } else { "s" };
    console.line(format!("{voters} voter{plural}{learners}; {wanted} (seen by {})", known.answered_by))?;
    console.line("")?;
    for (at, line) in table(known).lines().enumerate() {
        let member = at.checked_sub(1).and_then(|at| known.members.get(at));
        let line = line.trim_end();
        console.line(match member {
            Some(member) if !member.reachable => console.paint_bad(line),
            Some(member) if member.leader => console.paint_good(line),
            _ => line.to_owned(),
        })?;
    }
    let refused = known.candidates.iter().map(|one| {
        format!("{} ({}) at {} asks to be let in: {}", one.name, NodeId(one.id), one.peer_addr, one.refused)
    });
    let notes: Vec<_> = known.waiting.iter().cloned().chain(refused).collect();
    if !notes.is_empty() {
        console.line("")?;
    }
    for note in notes {
        console.line(console.paint_careful(&format!("warning: {note}")))?;
    }
    Ok(())
}

fn table(known: &MembersResponse) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(HEADER);
    for member in &known.members {
        table.add_row(row(member));
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if at + 1 == HEADER.len() { 0 } else { 2 }));
    }
    table
}

fn row(member: &ClusterMember) -> [String; 6] {
    let kind = match (member.voter, member.kept) {
        (true, false) => "voter",
        (true, true) => "voter (added)",
        (false, false) => "learner",
        (false, true) => "learner (added)",
    };
    let state = match (member.leader, member.reachable) {
        (_, false) => "unreachable",
        (true, true) => "leads",
        (false, true) => "well",
    };
    [
        member.name.clone(),
        NodeId(member.id).to_string(),
        kind.into(),
        state.into(),
        member.peer_addr.clone(),
        member.client_addr.clone(),
    ]
}

fn to_json(known: &MembersResponse) -> Value {
    let member = |member: &ClusterMember| {
        json!({
            "name": member.name,
            "id": NodeId(member.id).to_string(),
            "voter": member.voter,
            "leader": member.leader,
            "reachable": member.reachable,
            "added_by_operator": member.kept,
            "peer_addr": member.peer_addr,
            "client_addr": member.client_addr,
        })
    };
    let candidates = known.candidates.iter().map(|one| {
        let id = NodeId(one.id).to_string();
        json!({ "name": one.name, "id": id, "peer_addr": one.peer_addr, "refused": one.refused })
    });
    json!({
        "members": known.members.iter().map(member).collect::<Vec<_>>(),
        "replicas": (known.replicas > 0).then_some(known.replicas),
        "candidates": candidates.collect::<Vec<_>>(),
        "waiting": known.waiting,
        "answered_by": known.answered_by,
    })
}
