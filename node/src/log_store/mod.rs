//! Raft's log on disk: append-only segments of our own.
//!
//! The log is what a node promises with its acknowledgements: an entry, and a vote, once acknowledged, is there after
//! any crash, or the node refuses to start. Nothing else in this program is the authority for anything; the state
//! database can be computed again from the log (and a snapshot).
//!
//! # How it works
//!
//! [`LogStore`] is Raft's: it encodes entries, once, puts them into the cache that every [`LogReader`] reads, and
//! queues the bytes. One thread (`writer`) takes all that is queued, writes it in one piece, calls `fdatasync` once,
//! and then tells all who waited. Votes, truncations, purges and entries are records of one stream, so the order of the
//! calls is the order on disk. A vote or a truncation is durable before its call returns, an append before its
//! `IOFlushed` is completed, a purge some time later, and before any file goes. What is committed rides along with
//! whatever is written next.
//!
//! Any error of writing or syncing ends it: after a failed `fdatasync` nobody knows what the disk has, so there is no
//! second try; everything that waits or comes later gets an error, and [`LogHandle::failed`] tells the node to stop.
//!
//! # On disk
//!
//! ```text
//! log/lock                 held by the process that has the log open
//!     log.meta             "balsa log 1 SALT begun CHECKSUM\n": format, salt of all checksums
//!     0000000007.log       segments, numbered without gaps; the last but one may be the one that is written,
//!     0000000008.log       since the next one is prepared ahead
//!     spare-0000000005     a purged segment that will be used again
//!     new.tmp              a file that is being filled with zeros
//! ```
//! A segment is a file of fixed size (64 MiB), longer only for the sake of a single record that does not fit. It is
//! written full of zeros, or recycled with its old content, before it is used: then `fdatasync` has no metadata to
//! write. It holds records, each beginning at a multiple of 8; their form is described in `record.rs`. The kinds:
//!
//! | kind | payload | meaning |
//! |---|---|---|
//! | 1 Header | format, file size, end of the segment before, vote, purged, committed, last log id | first in each segment, and only there; what older segments would tell, so that they can go |
//! | 2 Entry | `raft.Entry` | follows the last one: index + 1 |
//! | 3 Vote | `raft.Vote` | the vote from here on |
//! | 4 Truncate | optional log id | entries after it are gone (none: all) |
//! | 5 Purge | log id | entries up to it are not needed; if it is beyond the last one, the log continues after it |
//! | 6 Committed | log id | committed as far as this at some time before; a hint that may be old |
//! | 7 Seal | | only there for its `synced`, see below |
//!
//! The records end where no valid one follows. What is behind the end is zeros, or of another segment by its number, or
//! what a crash left of a group that nobody was told of. Which of these, or whether it is damage, is decided by the
//! watermark `synced` in every record, as `recover.rs` describes: **acknowledged data is never cut off silently**;
//! damage is an error that names file and offset.
//!
//! # What it relies on
//!
//! `fdatasync` and `fsync` of a directory tell the truth. A write that is interrupted leaves each sector of 512 bytes
//! old or new. A directory operation that was synced stays.
//!
//! # What it leaves out
//!
//! Memory for queued entries is not bounded here: admission bounds what is proposed, and Raft what a leader sends.
//! There is no compression and no encryption. Two kinds of loss cannot be seen from here, since nothing that is left
//! tells of them: damage to the very last group when the power fails before its seal, and the last segment being deleted
//! when the next one was not prepared yet. Peers, who know how far this node had confirmed, can see both.

mod cache;
mod error;
mod files;
mod handle;
mod index;
mod metrics;
mod queue;
mod reader;
mod record;
mod recover;
mod segment;
mod shared;
mod spares;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use tokio::sync::oneshot;

pub use self::error::{Damage, Error};
use self::files::{Disk, Files};
pub use self::handle::{LogHandle, Pin, Size};
pub use self::metrics::Metrics;
use self::queue::{Batch, Waiter, poisoned};
pub use self::reader::LogReader;
use self::record::Record;
use self::recover::Recovered;
use self::segment::Segment;
pub use self::shared::Status;
use self::shared::{Shared, View};
use self::spares::{Spares, Workshop};
use self::writer::Writer;
use crate::raft::types::{Entry, LogId, TypeConfig, Vote};

/// How a log is kept. None of this is remembered on disk: it may differ at each start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Size of new segment files. Large enough that making one is rare, small enough that purging gives space back.
    pub segment_bytes: u64,
    /// Purged files kept for use again. Purges come in bursts, a few segments at a time.
    pub spares_max: usize,
    /// Bytes of recent entries kept in memory.
    pub cache_bytes: usize,
    /// About how many bytes of entries one message to a follower carries, unless a single entry has more.
    pub read_bytes_max: usize,
    /// How many entries.
    pub read_entries_max: u64,
    /// How long the log is idle before the last group gets its seal. Less costs a write per group under light load,
    /// more lengthens the time in which damage to the last group would pass for a torn write.
    pub seal_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            spares_max: 4,
            cache_bytes: 64 * 1024 * 1024,
            read_bytes_max: 4 * 1024 * 1024,
            read_entries_max: 4096,
            seal_after: Duration::from_millis(1),
        }
    }
}

/// Segments below this are all header; those above 4 GiB have offsets that a record cannot tell.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 1024..=2 * 1024 * 1024 * 1024;

/// Raft's end of the log. Dropping it writes and syncs what is queued.
#[derive(Debug)]
pub struct LogStore {
    shared: Arc<Shared>,
    /// Where `append` encodes, reused.
    staged: Batch,
    /// The entries of one append with their bytes, reused.
    entries: Vec<(Entry, usize)>,
    /// The log thread.
    writer: Option<JoinHandle<()>>,
}

impl LogStore {
    /// Opens the log in `dir` or begins one. Blocks: reads and checks all of it.
    pub fn open(dir: &Path, options: Options) -> Result<Self, Error> {
        let io = |source| Error::Io { action: "start a thread for", file: dir.to_owned(), source };
        let files = Arc::new(Disk::open(dir)?);
        let (mut store, writer) =
            Self::assemble(files, options, |workshop, prepared| Spares::spawn(workshop, prepared).map_err(io))?;
        let thread = std::thread::Builder::new().name("log".to_owned());
        store.writer = Some(thread.spawn(move || writer.run()).map_err(io)?);
        Ok(store)
    }

    /// The store, and the writer that someone must run. `spares` says where files are prepared.
    fn assemble(
        files: Arc<dyn Files>,
        options: Options,
        spares: impl FnOnce(Workshop, Option<Segment>) -> Result<Spares, Error>,
    ) -> Result<(Self, Writer), Error> {
        let segment_bytes = options.segment_bytes.clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end());
        let options = Options { segment_bytes, ..options };
        let Recovered { salt, state, index, tail, prepared, spares: names } = recover::open(files.as_ref(), &options)?;
        let shared = Arc::new(Shared::new(options, salt, View::opened(state.clone(), index)));
        let spares = spares(Workshop::new(files, shared.clone(), names), prepared)?;
        let writer = Writer::new(shared.clone(), spares, tail, state);
        Ok((Self { shared, staged: Batch::default(), entries: Vec::new(), writer: None }, writer))
    }

    /// For the rest of the node.
    pub fn handle(&self) -> LogHandle {
        LogHandle::new(self.shared.clone())
    }

    /// Encodes entries and makes them readable; they are not queued yet.
    fn stage(&mut self, entries: impl IntoIterator<Item = Entry>) -> Result<(), Error> {
        self.shared.check()?;
        for entry in entries {
            let bytes = record::push_entry(&mut self.staged.bytes, &entry);
            if bytes > record::PAYLOAD_BYTES_MAX {
                return Err(Error::TooLarge { bytes });
            }
            self.staged.records.push(Record::Entry(entry.log_id));
            self.entries.push((entry, bytes));
        }
        self.shared.view.lock().append(&mut self.entries)
    }

    /// Queues what is staged, with someone who waits for it.
    fn queue(&mut self, waiter: Waiter) -> Result<(), Error> {
        self.staged.waiters.push(waiter);
        let queued = self.shared.queue.push(&mut self.staged);
        if queued.is_err() {
            self.unstage();
        }
        queued
    }

    /// Forgets what is staged; who waits for it gets an error.
    fn unstage(&mut self) {
        self.staged = Batch::default();
        self.entries.clear();
    }

    /// Writes `record` and waits until it is durable.
    async fn write(&mut self, record: Record) -> Result<(), Error> {
        self.shared.check()?;
        let (sender, done) = oneshot::channel();
        self.staged.push(record);
        self.queue(Waiter::Call(sender))?;
        match done.await {
            Ok(result) => result.map_err(Error::Poisoned),
            Err(_) => Err(Error::Closed),
        }
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        self.shared.queue.close();
        // A thread that panicked has told everybody who waited, and there is nothing to add.
        let _ = self.writer.take().map(JoinHandle::join);
        self.shared.closed();
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let view = self.shared.view.lock();
        Ok(LogState { last_purged_log_id: view.state.purged, last_log_id: view.state.last })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader::new(self.shared.clone())
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        Ok(self.write(Record::Vote(*vote)).await?)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.shared.check()?;
        self.shared.view.lock().state.committed = committed;
        self.shared.queue.set_committed(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.view.lock().state.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        if let Err(error) = self.stage(entries) {
            self.unstage();
            let error = Arc::new(error);
            callback.io_completed(Err(poisoned(error.clone())));
            return Err(poisoned(error));
        }
        Ok(self.queue(Waiter::Append(callback))?)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.shared.check()?;
        let truncated = self.shared.view.lock().truncate(last_log_id);
        if truncated {
            self.write(Record::Truncate(last_log_id)).await?;
        }
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.shared.check()?;
        Ok(self.shared.purge(log_id)?)
    }
}
