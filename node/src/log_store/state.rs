//! What the records so far add up to, but for the entries themselves.
//!
//! The log thread keeps one, in the order of the disk, to begin each new segment with; opening a log computes the same
//! one by replay. That both go through [`State::apply`] is what makes them equal.

use super::error::Damage;
use super::record::{FORMAT, Header, Record};
use crate::raft::types::{LogId, Vote};

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct State {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    pub(super) committed: Option<LogId>,
    /// The last entry; what was purged if there is none.
    pub(super) last: Option<LogId>,
}

/// The index after `id`.
pub(super) fn next(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}

impl State {
    /// Takes the next record into account.
    pub(super) fn apply(&mut self, record: &Record) -> Result<(), Damage> {
        match record {
            // Placed by position, not by order: see `begin` and `header`.
            Record::Header(_) => return Err(Damage::Misplaced),
            Record::Entry(id) => {
                if self.last.is_some() && id.index != next(self.last) {
                    return Err(Damage::NotContiguous { expected: next(self.last), found: id.index });
                }
                self.last = Some(*id);
            }
            Record::Vote(vote) => self.vote = Some(*vote),
            Record::Truncate(after) => {
                if next(*after) < next(self.last) {
                    self.last = (*after).max(self.purged);
                }
            }
            Record::Purge(upto) => {
                self.purged = self.purged.max(Some(*upto));
                if upto.index >= next(self.last) {
                    self.last = Some(*upto);
                }
            }
            Record::Committed(id) => self.committed = Some(*id),
            Record::Seal => {}
        }
        Ok(())
    }

    /// The header of a segment that begins in this state.
    pub(super) fn header(&self, file_bytes: u64, previous_end: u64) -> Record {
        Record::Header(Box::new(Header {
            format: FORMAT,
            file_bytes,
            previous_end,
            vote: self.vote.as_ref().map(Into::into),
            purged: self.purged.as_ref().map(Into::into),
            committed: self.committed.as_ref().map(Into::into),
            last: self.last.as_ref().map(Into::into),
        }))
    }

    /// The state in which the segment of `header` begins.
    pub(super) fn begin(header: &Header) -> Self {
        Self {
            vote: header.vote.map(Into::into),
            purged: header.purged.map(Into::into),
            committed: header.committed.map(Into::into),
            last: header.last.map(Into::into),
        }
    }
}
