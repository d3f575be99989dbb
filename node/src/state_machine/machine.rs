//! The state machine as its thread holds it: opened, published, checkpointed, replaced by a snapshot.
//!
//! The life of a batch: [`StateMachine::apply`] writes into an overlay, answers each entry, commits the overlay with the progress
//! row in one transaction, and publishes the view of that commit. Nothing of it is durable yet; [`StateMachine::checkpoint`]
//! makes it so, after the Raft log is. A crash in between loses only what the log still has.
//!
//! When to checkpoint is the caller's choice: by `dirty_bytes`, by time, before a snapshot, and at the end. Dropping the
//! state machine makes nothing durable, so that stopping in a hurry is the same as a crash.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use openraft::entry::RaftEntry as _;
use parking_lot::Mutex;
use prost::Message;

use super::appointments::Appointments;
use super::digest::Recent;
use super::query::Shared;
use super::sessions::Sessions;
use super::uploads::Uploads;
use super::{Fault, Progress, Reader, Received, Receiver, Registry, Snapshot, View, settings};
use crate::guest_log::GuestLog;
use crate::ids::Digest;
use crate::limits::Replicated;
use crate::proto::raft as pb;
use crate::raft::types::{Entry, LogId, StoredMembership};
use crate::storage::keys::Key;
use crate::storage::{Database, Disk, Fence, Files, ReadView, Txn};
use crate::wasm::{Engine, HostFault};

/// Where the state lies and who wants to know about it.
#[derive(Clone)]
pub struct Options {
    /// Holds `state/`, `tmp/` and `fenced`.
    pub data_dir: PathBuf,
    /// Memory for redb's page cache.
    pub cache_bytes: usize,
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// Called on the state machine's thread with each published index.
    pub on_publish: Arc<dyn Fn(u64) + Send + Sync>,
    /// Gets what modules say.
    pub guest_log: Arc<GuestLog>,
}

/// The replicated state machine. One thread owns it.
pub struct StateMachine {
    pub(super) engine: Engine,
    pub(super) database: Database,
    pub(super) state: Loaded,
    /// Digests of the batch that is being applied.
    pub(super) digests: Vec<(u64, Digest)>,
    pub(super) shared: Arc<Shared>,
    fence: Fence,
    durable: Option<LogId>,
    /// A change was begun and has not ended well: what is in memory is not what is committed.
    changing: bool,
}

/// The state, as far as it is held in memory: what every entry needs, and the writes of the batch.
pub(super) struct Loaded {
    pub(super) txn: Txn,
    pub(super) progress: Progress,
    pub(super) membership: StoredMembership,
    pub(super) limits: Replicated,
    pub(super) registry: Arc<Registry>,
    pub(super) sessions: Sessions,
    pub(super) uploads: Uploads,
    pub(super) guest_log: Arc<GuestLog>,
}

impl Options {
    /// The real file system, 256 MiB of cache, nobody told.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            cache_bytes: 256 * 1024 * 1024,
            disk: Arc::new(Files),
            on_publish: Arc::new(|_| ()),
            guest_log: Arc::default(),
        }
    }
}

impl StateMachine {
    /// Opens the state at its last checkpoint and compiles the modules in it.
    pub fn open(engine: Engine, options: Options) -> Result<Self, HostFault> {
        let fence = Fence::new(options.disk.clone(), &options.data_dir);
        let database = Database::open(options.disk, &options.data_dir, options.cache_bytes)?;
        let state = Loaded::load(&engine, database.view(), &Registry::default(), options.guest_log)?;
        let shared = Shared {
            view: ArcSwap::from_pointee(state.view(database.view(), None)),
            index: AtomicU64::new(state.progress.index()),
            recent: Mutex::new(Recent::default()),
            on_publish: options.on_publish,
            appointments: Appointments::default(),
        };
        let durable = state.progress.last_applied;
        shared.restart(&state.progress);
        let shared = Arc::new(shared);
        Ok(Self { engine, database, state, digests: Vec::new(), shared, fence, durable, changing: false })
    }

    /// Access to what is published, for other threads.
    pub fn reader(&self) -> Reader {
        Reader { shared: self.shared.clone() }
    }

    /// The last applied entry.
    pub fn last_applied(&self) -> Option<LogId> {
        self.state.progress.last_applied
    }

    /// The last applied entry of the last durable checkpoint: where a restart would begin. The log may be purged up to it.
    pub fn durable_applied(&self) -> Option<LogId> {
        self.durable
    }

    /// Bytes written since then.
    pub fn dirty_bytes(&self) -> u64 {
        self.database.dirty_bytes()
    }

    /// The last applied membership.
    pub fn membership(&self) -> &StoredMembership {
        &self.state.membership
    }

    /// How far the state has come.
    pub fn progress(&self) -> &Progress {
        &self.state.progress
    }

    /// Makes everything applied so far durable.
    ///
    /// `wait_log_flushed` is called first and must return only when the Raft log is durable up to that entry: a state that
    /// is ahead of its log after a crash cannot be started from.
    pub fn checkpoint(
        &mut self,
        wait_log_flushed: &mut dyn FnMut(LogId) -> Result<(), HostFault>,
    ) -> Result<(), HostFault> {
        self.begin_change()?;
        self.end_change();
        let Some(applied) = self.last_applied() else { return Ok(()) };
        if self.durable == Some(applied) {
            return Ok(());
        }
        wait_log_flushed(applied)?;
        self.database.checkpoint()?;
        self.durable = Some(applied);
        Ok(())
    }

    /// The state as it is published, to be sent; `None` if nothing was applied yet. For a snapshot that authorises purging the
    /// log, make a checkpoint first.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.reader().snapshot()
    }

    /// What receives snapshots, on any thread.
    pub fn receiver(&self) -> Receiver {
        Receiver::new(self.engine.clone(), self.database.receiver())
    }

    /// Replaces the whole state by a received snapshot, durably. After a crash it is the old state or the new one. A snapshot
    /// that is behind this state is refused.
    pub fn install(&mut self, received: Received) -> Result<(), HostFault> {
        let applied = self.last_applied();
        if received.last_applied() < applied {
            return Err(Fault::OldSnapshot { snapshot: received.last_applied(), applied }.into());
        }
        self.begin_change()?;
        let (incoming, registry) = received.into_parts();
        self.database.install(incoming)?;
        let guest_log = self.state.guest_log.clone();
        self.state = Loaded::load(&self.engine, self.database.view(), &registry, guest_log)?;
        self.durable = self.state.progress.last_applied;
        self.digests.clear();
        self.shared.restart(&self.state.progress);
        self.publish();
        self.end_change();
        Ok(())
    }

    /// Why this node fenced itself, if it did.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// After a fault nothing more is applied or made durable: the node must stop, and begin again from its last checkpoint.
    pub(super) fn begin_change(&mut self) -> Result<(), Fault> {
        match std::mem::replace(&mut self.changing, true) {
            false => Ok(()),
            true => Err(Fault::Stopped),
        }
    }

    pub(super) fn end_change(&mut self) {
        self.changing = false;
    }

    /// A short read of the log must never pass for the whole of it.
    pub(super) fn expect_next(&self, entry: &Entry) -> Result<(), Fault> {
        let (last, got) = (self.last_applied(), entry.log_id());
        let next = last.is_none_or(|last| got.index() == last.index() + 1 && got > last);
        if next { Ok(()) } else { Err(Fault::Gap { last, got }) }
    }

    /// Commits the batch, in one transaction with the progress that it made, and shows it to readers.
    pub(super) fn commit(&mut self) -> Result<(), Fault> {
        let state = &mut self.state;
        state.txn.put(Key::Progress.encode(), state.progress.encode());
        state.txn.merge(|_, _| ());
        self.database.commit(state.txn.batch())?;
        state.txn = Txn::new(self.database.view());
        self.publish();
        Ok(())
    }

    fn publish(&mut self) {
        let before = self.shared.view.load_full();
        let view = Arc::new(self.state.view(self.database.view(), Some(&before)));
        self.shared.view.store(view.clone());
        self.shared.recent.lock().extend(self.digests.drain(..));
        let index = self.state.progress.index();
        // After the view, so that whoever sees this index also sees the view.
        self.shared.index.store(index, Ordering::Release);
        (self.shared.on_publish)(index);
        self.shared.appointments.keep(&view);
    }
}

impl Loaded {
    fn load(engine: &Engine, view: ReadView, known: &Registry, guest_log: Arc<GuestLog>) -> Result<Self, Fault> {
        Ok(Self {
            progress: Progress::load(&view)?,
            membership: load_membership(&view)?,
            limits: settings::load(&view)?,
            registry: Arc::new(Registry::load(engine, &view, known)?),
            sessions: Sessions::default(),
            uploads: Uploads::load(&view)?,
            guest_log,
            txn: Txn::new(view),
        })
    }

    /// What is published about `state`, which must be the commit of this. The catalog is made anew only if it changed.
    fn view(&self, state: ReadView, before: Option<&View>) -> View {
        let catalog = match before {
            Some(before) if Arc::ptr_eq(&before.registry, &self.registry) => before.catalog.clone(),
            _ => Arc::new(self.registry.catalog()),
        };
        View {
            state,
            progress: self.progress,
            membership: self.membership.clone(),
            limits: self.limits,
            registry: self.registry.clone(),
            catalog,
            guest_log: self.guest_log.clone(),
        }
    }
}

impl Shared {
    fn restart(&self, progress: &Progress) {
        if progress.last_applied.is_some() {
            self.recent.lock().restart(progress.index(), progress.digest);
        }
    }
}

/// The membership in `view`.
pub fn load_membership(view: &ReadView) -> Result<StoredMembership, Fault> {
    let Some(bytes) = view.get(&Key::Membership.encode())? else { return Ok(StoredMembership::default()) };
    let row =
        pb::StoredMembership::decode(&bytes[..]).map_err(|error| Fault::corrupt(format!("membership: {error}")))?;
    row.try_into().map_err(Fault::corrupt)
}

impl fmt::Debug for StateMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateMachine").field("progress", &self.state.progress).finish_non_exhaustive()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}
