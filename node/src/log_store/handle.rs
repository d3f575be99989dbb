//! The rest of the node's hold on the log: what is durable, how large it is, what must stay, and whether it failed.
//!
//! Raft owns the [`LogStore`](super::LogStore); everybody else has one of these.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::watch;

use super::error::Error;
use super::metrics::Metrics;
use super::reader::LogReader;
use super::shared::{Shared, Status};
use crate::raft::types::{LogId, Vote};

/// Watches the log and keeps parts of it. Clones are cheap.
#[derive(Debug, Clone)]
pub struct LogHandle {
    shared: Arc<Shared>,
}

/// How large the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Segment files in use.
    pub segments: u64,
    /// Bytes of records in them.
    pub bytes: u64,
}

impl LogHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Follows what is durable, and tells when the log fails.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// The last log id that is durable.
    pub fn flushed(&self) -> Option<LogId> {
        self.shared.view.lock().flushed
    }

    /// The vote that is durable.
    pub fn vote(&self) -> Option<Vote> {
        self.shared.view.lock().state.vote
    }

    /// Waits until `id` is durable. Only for ids that were appended, or purged by a snapshot: others never come.
    pub async fn wait_flushed(&self, id: LogId) -> Result<(), Error> {
        let mut status = self.status();
        let over = |status: &Status| status.flushed >= Some(id) || status.fault.is_some() || status.closed;
        let status = status.wait_for(over).await.map_err(|_| Error::Closed)?;
        match &status.fault {
            _ if status.flushed >= Some(id) => Ok(()),
            Some(fault) => Err(Error::Poisoned(fault.clone())),
            None => Err(Error::Closed),
        }
    }

    /// The same for a thread of its own.
    pub fn wait_flushed_blocking(&self, id: LogId) -> Result<(), Error> {
        self.shared.wait_flushed(id)
    }

    /// Waits until the log fails.
    pub async fn failed(&self) -> Arc<Error> {
        let mut status = self.status();
        let failed = status.wait_for(|status| status.fault.is_some()).await;
        let fault = failed.ok().and_then(|status| status.fault.clone());
        fault.expect("the sender is in `self`, and what was waited for is there")
    }

    /// Indexes in the log; where it is empty, the next one is the end.
    pub fn range(&self) -> Range<u64> {
        self.shared.view.lock().range()
    }

    /// How large the log is on disk.
    pub fn size(&self) -> Size {
        let (segments, bytes) = self.shared.view.lock().index.size();
        Size { segments, bytes }
    }

    /// About how many bytes of log there are from `index` on: since the last snapshot, say.
    pub fn bytes_from(&self, index: u64) -> u64 {
        self.shared.view.lock().index.bytes_from(index)
    }

    /// The greatest index from which on there are at least about `bytes` of log: what is before it may be purged by one
    /// who wants to keep that much. None if the log is smaller.
    pub fn index_keeping(&self, bytes: u64) -> Option<u64> {
        self.shared.view.lock().index.index_with(bytes)
    }

    /// Keeps entries from `index` on, whatever Raft purges, as long as the pin lives. For the state machine's last
    /// durable checkpoint, and for a snapshot that is being sent.
    pub fn pin(&self, index: u64) -> Pin {
        self.shared.pin(index);
        Pin { shared: self.shared.clone(), index }
    }

    /// Counters.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// A reader.
    pub fn reader(&self) -> LogReader {
        LogReader::new(self.shared.clone())
    }
}

/// Keeps entries from an index on. Raft may believe that they were purged: this store then tells of a smaller purge
/// after a restart, which is harmless, and makes up for it when the pin moves or goes.
#[derive(Debug)]
pub struct Pin {
    shared: Arc<Shared>,
    index: u64,
}

impl Pin {
    /// The first index that is kept.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Keeps entries from `index` on instead.
    pub fn advance(&mut self, index: u64) {
        self.shared.pin(index);
        self.shared.unpin(std::mem::replace(&mut self.index, index));
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.shared.unpin(self.index);
    }
}
