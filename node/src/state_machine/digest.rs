//! How replicas find out that they differ: a rolling digest of all that was applied, and a deep hash of all that is stored.
//!
//! **The rolling digest** after entry *i* is
//!
//! ```text
//! digest(before the first entry) = 32 zero bytes
//! digest(i) = BLAKE3( "balsa.digest.1"
//!                     digest(i-1)                                  32 bytes
//!                     u64le index  u64le term
//!                     u8 kind                                      0 blank, 1 command, 2 membership
//!                     u32le length, payload                        the Command as it stands in the log; a Membership encoded
//!                     for each write, in the order below:
//!                         u8 1  u32le length, key  u32le length, value     put
//!                         u8 2  u32le length, key                          delete
//!                     u8 0
//!                     u64le log time
//!                     u8 1 if the outcome is a stored one, else 0
//!                     u32le length, outcome )                      an encoded balsa.command.v1.Outcome; empty for no command
//! ```
//!
//! Writes are those of the whole state (a module's keys, sessions, registry, limits, membership), in full keys as in
//! `storage::keys`: first what is forgotten because log time moved on (sessions, uploads), then an expired session that is
//! replaced, then the net writes of the entry itself, each group in order of its keys. The progress row is not among them: it holds the digest, and all else in it
//! follows from what is folded. Field order within protobuf messages is ascending by number, as prost writes them.
//!
//! So equal digests mean equal entries, equal writes and equal replies since the beginning. What a chain cannot see is
//! corruption at rest: a bit that flips in a row that nobody writes any more.
//!
//! **The deep hash** sees that. It reads everything:
//!
//! ```text
//! state_hash = BLAKE3( "balsa.state.1"
//!                      for each row in order of keys: u32le length, key  u32le length, value
//!                      u64le rows  u64le bytes of all keys and values )
//! ```
//! It leaves nothing out: no row may differ between replicas at the same index.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use openraft::EntryPayload;
use prost::Message;

use crate::ids::Digest;
use crate::proto::raft as pb;
use crate::raft::types::Entry;
use crate::storage::{self, ReadView};

/// Digests kept in memory, so that a node can answer for an index that a slower one has just reached.
pub const RECENT_MAX: usize = 16 * 1024;

/// One step of the rolling digest, while its entry is being applied.
pub(super) struct Fold(blake3::Hasher);

impl Fold {
    pub(super) fn begin(previous: Digest, entry: &Entry) -> Self {
        let mut fold = Self(blake3::Hasher::new());
        fold.0.update(b"balsa.digest.1").update(&previous.0);
        fold.number(entry.log_id.index());
        fold.number(entry.log_id.committed_leader_id().term);
        match &entry.payload {
            EntryPayload::Blank => fold.payload(0, b""),
            EntryPayload::Normal(command) => fold.payload(1, &command.bytes),
            EntryPayload::Membership(membership) => fold.payload(2, &pb::Membership::from(membership).encode_to_vec()),
        }
        fold
    }

    pub(super) fn write(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.0.update(&[if value.is_some() { 1 } else { 2 }]);
        self.bytes(key);
        value.into_iter().for_each(|value| self.bytes(value));
    }

    pub(super) fn finish(mut self, time_ms: u64, replayed: bool, outcome: &[u8]) -> Digest {
        self.0.update(&[0]);
        self.number(time_ms);
        self.0.update(&[replayed.into()]);
        self.bytes(outcome);
        Digest(*self.0.finalize().as_bytes())
    }

    fn payload(&mut self, kind: u8, bytes: &[u8]) {
        self.0.update(&[kind]);
        self.bytes(bytes);
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&length(bytes)).update(bytes);
    }
}

/// The last [`RECENT_MAX`] digests of this node, ascending by index. After a restart or a snapshot it begins with one.
#[derive(Debug, Default)]
pub struct Recent(VecDeque<(u64, Digest)>);

impl Recent {
    /// The digest after entry `index`, if that is recent.
    pub fn at(&self, index: u64) -> Option<Digest> {
        let at = self.0.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        Some(self.0[at].1)
    }

    /// About `count` of them, evenly spread, always with the newest: enough to find an index that two nodes have in common.
    pub fn sample(&self, count: usize) -> Vec<(u64, Digest)> {
        let step = self.0.len().div_ceil(count.max(1)).max(1);
        let mut sample: Vec<_> = self.0.iter().rev().step_by(step).copied().collect();
        sample.reverse();
        sample
    }

    /// The newest.
    pub fn last(&self) -> Option<(u64, Digest)> {
        self.0.back().copied()
    }

    pub(super) fn extend(&mut self, digests: impl IntoIterator<Item = (u64, Digest)>) {
        self.0.extend(digests);
        let surplus = self.0.len().saturating_sub(RECENT_MAX);
        self.0.drain(..surplus);
    }

    pub(super) fn restart(&mut self, index: u64, digest: Digest) {
        self.0.clear();
        self.0.push_back((index, digest));
    }
}

/// The hash of a whole state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateHash {
    /// Of every key and value.
    pub hash: [u8; 32],
    /// Rows hashed.
    pub keys: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

impl StateHash {
    /// Hashes everything in `view`. Takes as long as reading it.
    pub fn of(view: &ReadView) -> Result<Self, storage::Error> {
        let mut hasher = StateHasher::new();
        view.each(b"", |key, value| {
            hasher.row(key, value);
            ControlFlow::Continue(())
        })?;
        Ok(hasher.finish())
    }
}

/// Computes a [`StateHash`] row by row, in order of keys.
pub(super) struct StateHasher {
    hasher: blake3::Hasher,
    keys: u64,
    bytes: u64,
}

impl StateHasher {
    pub(super) fn new() -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"balsa.state.1");
        Self { hasher, keys: 0, bytes: 0 }
    }

    pub(super) fn row(&mut self, key: &[u8], value: &[u8]) {
        self.hasher.update(&length(key)).update(key).update(&length(value)).update(value);
        self.keys += 1;
        self.bytes += (key.len() + value.len()) as u64;
    }

    pub(super) fn finish(mut self) -> StateHash {
        self.hasher.update(&self.keys.to_le_bytes()).update(&self.bytes.to_le_bytes());
        StateHash { hash: *self.hasher.finalize().as_bytes(), keys: self.keys, bytes: self.bytes }
    }
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("limits keep every key, value and entry far below 4 GiB").to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::raft::codec::log_id;
    use openraft::entry::RaftEntry;

    fn entry(index: u64, bytes: &'static [u8]) -> Entry {
        Entry::new(log_id(3, index), EntryPayload::Normal(Command::encoded(bytes)))
    }

    /// The formula, written down a second time by hand. A change of it is a change of every cluster's digests.
    #[test]
    fn the_formula_is_the_one_in_the_essay() {
        let mut fold = Fold::begin(Digest([7; 32]), &entry(9, b"cmd"));
        fold.write(b"k", Some(b"vv"));
        fold.write(b"gone", None);
        let mut bytes = b"balsa.digest.1".to_vec();
        bytes.extend([7; 32]);
        bytes.extend([9, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(b"\x01\x03\0\0\0cmd");
        bytes.extend(b"\x01\x01\0\0\0k\x02\0\0\0vv\x02\x04\0\0\0gone\0");
        bytes.extend([5, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(b"\x01\x03\0\0\0out");
        assert_eq!(fold.finish(5, true, b"out").0, *blake3::hash(&bytes).as_bytes());
    }

    #[test]
    fn a_write_cannot_be_mistaken_for_two() {
        let fold = |writes: &[(&[u8], Option<&[u8]>)]| {
            let mut fold = Fold::begin(Digest::default(), &entry(1, b""));
            writes.iter().for_each(|(key, value)| fold.write(key, *value));
            fold.finish(0, false, b"")
        };
        assert_ne!(fold(&[(b"a", Some(b"")), (b"b", None)]), fold(&[(b"a", Some(b"\x02\x01\0\0\0b"))]));
        assert_ne!(fold(&[(b"a", None)]), fold(&[(b"a", Some(b""))]));
    }

    #[test]
    fn recent_digests_are_bounded_and_found_by_index() {
        let mut recent = Recent::default();
        recent.extend((0..20_000).map(|index| (index, Digest([index as u8; 32]))));
        assert_eq!(recent.at(19_999), Some(Digest([19_999u64 as u8; 32])));
        assert_eq!(recent.at(20_000 - RECENT_MAX as u64 - 1), None);
        assert_eq!(recent.sample(16).len(), 16);
        assert_eq!(recent.sample(16).last(), Some(&recent.last().unwrap()));
    }
}
