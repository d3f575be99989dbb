//! Tests of the whole log; what one file does alone is tested in that file.

#![allow(clippy::unwrap_used)]

mod crash;
mod damage;
mod reading;
mod rig;
mod simulated;
mod thread;

use openraft::entry::RaftEntry;
use openraft::storage::IOFlushed;
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::OneshotReceiverOf;

use crate::command::Command;
use crate::ids::NodeId;
use crate::raft::codec::log_id;
use crate::raft::types::{Entry, TypeConfig, Vote};

/// An entry without content.
pub(super) fn blank(term: u64, index: u64) -> Entry {
    Entry::new(log_id(term, index), openraft::EntryPayload::Blank)
}

/// An entry with a command of `bytes` that tell it from others.
fn command(term: u64, index: u64, bytes: usize) -> Entry {
    let content: Vec<u8> = (0..bytes).map(|n| (n as u64 * 7 + index * 31 + term) as u8).collect();
    Entry::new(log_id(term, index), openraft::EntryPayload::Normal(Command::encoded(content)))
}

fn vote(term: u64) -> Vote {
    crate::proto::raft::Vote { term, node: NodeId(term * 10).0, committed: term.is_multiple_of(2) }.into()
}

/// A callback for an append, and where it arrives.
fn flushed() -> (IOFlushed<TypeConfig>, OneshotReceiverOf<TypeConfig, std::io::Result<()>>) {
    let (sender, done) = TypeConfig::oneshot();
    (IOFlushed::signal(sender), done)
}
