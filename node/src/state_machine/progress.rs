//! How far the state has come: the one row that every batch rewrites.
//!
//! It is committed in the same transaction as the writes it describes, so that state and `last_applied` cannot disagree.

use prost::Message;

use super::Fault;
use crate::ids::Digest;
use crate::proto::raft as pb;
use crate::raft::types::LogId;
use crate::storage::ReadView;
use crate::storage::keys::Key;

/// What applying entries has added up to. A function of the log alone, like everything in the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The last entry whose writes are in the state.
    pub last_applied: Option<LogId>,
    /// Log time: the greatest stamp of any entry so far, milliseconds since 1970.
    pub time_ms: u64,
    /// The rolling digest after `last_applied`.
    pub digest: Digest,
    /// Idempotency keys from before this log time are refused. It never goes back, not even when the window is widened:
    /// rows from before it may be gone.
    pub forgotten_before_ms: u64,
    /// Rows in the idempotency table.
    pub session_rows: u64,
    /// Bytes of those rows.
    pub session_bytes: u64,
}

/// As it stands in the state.
#[derive(Clone, PartialEq, Message)]
struct Row {
    #[prost(message, optional, tag = "1")]
    last_applied: Option<pb::LogId>,
    #[prost(uint64, tag = "2")]
    time_ms: u64,
    #[prost(bytes = "vec", tag = "3")]
    digest: Vec<u8>,
    #[prost(uint64, tag = "4")]
    forgotten_before_ms: u64,
    #[prost(uint64, tag = "5")]
    session_rows: u64,
    #[prost(uint64, tag = "6")]
    session_bytes: u64,
}

impl Progress {
    /// Index of the last applied entry; 0 if there is none (entry 0 only ever holds the first membership).
    pub fn index(&self) -> u64 {
        self.last_applied.map_or(0, |id| id.index())
    }

    /// The row in `view`; that of an empty state if there is none.
    pub fn load(view: &ReadView) -> Result<Self, Fault> {
        let Some(bytes) = view.get(&Key::Progress.encode())? else { return Ok(Self::default()) };
        let row = Row::decode(&bytes[..]).map_err(|error| Fault::corrupt(format!("progress row: {error}")))?;
        let digest = Digest::try_from(&row.digest[..]).map_err(|_| Fault::corrupt("progress row: digest"))?;
        Ok(Self {
            last_applied: row.last_applied.map(Into::into),
            time_ms: row.time_ms,
            digest,
            forgotten_before_ms: row.forgotten_before_ms,
            session_rows: row.session_rows,
            session_bytes: row.session_bytes,
        })
    }

    /// The value for [`Key::Progress`].
    pub(super) fn encode(&self) -> Vec<u8> {
        let row = Row {
            last_applied: self.last_applied.as_ref().map(Into::into),
            time_ms: self.time_ms,
            digest: self.digest.0.to_vec(),
            forgotten_before_ms: self.forgotten_before_ms,
            session_rows: self.session_rows,
            session_bytes: self.session_bytes,
        };
        row.encode_to_vec()
    }
}
