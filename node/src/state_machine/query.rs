//! Reading beside the writer.
//!
//! After each batch the state machine publishes a [`View`]: one read transaction together with the index, log time, limits and
//! modules of exactly that state. A query takes all of them from one view, so that an activation can never pair new
//! code with old data. Views are shared and immutable; queries never wait for apply, nor apply for queries.
//!
//! Waiting for an index is the caller's business: `Options::on_publish` is told each published index. A published state is
//! that of some batch, and where batches end differs from node to node; who wants the state after one entry makes an
//! [appointment](super::Appointment), and the batch ends there.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;

use super::appointments::{Appointment, Appointments, Kept};
use super::digest::{Recent, StateHash};
use super::{ActiveModule, Fault, Progress, Registry, Snapshot, history, sessions, uploads};
use crate::guest_log::{self, GuestLog};
use crate::ids::{Digest, ModuleHash};
use crate::limits::Replicated;
use crate::proto::command as pb;
use crate::raft::types::StoredMembership;
use crate::service::{Catalog, Executed};
use crate::storage::{ModuleState, ReadView, Txn};
use crate::wasm::{Call, Context, Cut, Finished, HostFault, Method, MethodKind, Sink};

/// The state right after one batch, unchanged by later ones. It pins the file's pages that it reads: hold it for one query or
/// one snapshot, not longer.
pub struct View {
    pub(super) state: ReadView,
    pub(super) progress: Progress,
    pub(super) membership: StoredMembership,
    pub(super) limits: Replicated,
    pub(super) registry: Arc<Registry>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) guest_log: Arc<GuestLog>,
}

/// Access to the published state, from any thread.
#[derive(Clone)]
pub struct Reader {
    pub(super) shared: Arc<Shared>,
}

/// What the state machine's thread publishes.
pub(super) struct Shared {
    pub(super) view: ArcSwap<View>,
    pub(super) index: AtomicU64,
    pub(super) recent: Mutex<Recent>,
    pub(super) on_publish: Arc<dyn Fn(u64) + Send + Sync>,
    pub(super) appointments: Appointments,
}

/// Why a query has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The genesis entry is not applied yet.
    #[error("no module is active yet")]
    NoModule,
    /// No active module serves the method at this view's index.
    #[error("no active module serves this method")]
    UnknownMethod,
    /// The method is a command.
    #[error("this method is a command; a command is not a query")]
    NotAQuery,
    /// The method answers with a stream and was asked for one message, or the other way.
    #[error("this method answers in another way than it was asked")]
    OtherAnswer,
    /// It was not brought to its end.
    #[error(transparent)]
    Cut(#[from] Cut),
    /// The host failed.
    #[error(transparent)]
    Fault(#[from] HostFault),
}

impl View {
    /// Runs a query in this state. Its `random` is the digest at this index: unpredictable before the entry, and no secret.
    pub fn query(&self, method: &str, request: Bytes, deadline: Option<Instant>) -> Result<Executed, QueryError> {
        let (name, active, method) = self.resolve(method, false)?;
        let finished = active.module.call(self.call(active, method, request, deadline), self.lend(name))?;
        self.executed(name, method, finished)
    }

    /// Runs a query that answers with a stream; `sink` gets its messages, and the outcome has none. All of them are of this one state.
    pub fn query_stream(
        &self,
        method: &str,
        request: Bytes,
        deadline: Option<Instant>,
        sink: Sink,
    ) -> Result<Executed, QueryError> {
        let (name, active, method) = self.resolve(method, true)?;
        let finished = active.module.stream(self.call(active, method, request, deadline), self.lend(name), sink)?;
        self.executed(name, method, finished)
    }

    fn resolve(&self, path: &str, streaming: bool) -> Result<(&str, &ActiveModule, &Method), QueryError> {
        if self.registry.is_empty() {
            return Err(QueryError::NoModule);
        }
        let (name, active, method) = self.registry.resolve(path).ok_or(QueryError::UnknownMethod)?;
        match method {
            Method { kind: MethodKind::Command, .. } => Err(QueryError::NotAQuery),
            Method { streaming: is, .. } if *is != streaming => Err(QueryError::OtherAnswer),
            _ => Ok((name, active, method)),
        }
    }

    fn call<'a>(
        &self,
        active: &ActiveModule,
        method: &'a Method,
        request: Bytes,
        deadline: Option<Instant>,
    ) -> Call<'a> {
        let Progress { time_ms, digest, .. } = self.progress;
        Call {
            method,
            input: request,
            context: Context { index: self.index(), time_ms, random: digest.0 },
            fuel: active.query_fuel(&self.limits),
            memory_bytes: self.limits.memory_bytes,
            deadline,
        }
    }

    fn lend(&self, name: &str) -> Box<ModuleState> {
        Txn::new(self.state.clone()).lend(name)
    }

    fn executed(&self, name: &str, method: &Method, finished: Finished) -> Result<Executed, QueryError> {
        let call = guest_log::Call { module: name, method: &method.path, index: self.index() };
        self.guest_log.finished(call, &finished);
        match finished.cut {
            Some(cut) => Err(cut.into()),
            None => {
                let Finished { outcome, trap_detail, .. } = finished;
                Ok(Executed { index: self.index(), outcome, replayed: false, trap_detail })
            }
        }
    }

    /// Hashes everything in this state. Takes as long as reading it.
    pub fn state_hash(&self) -> Result<StateHash, HostFault> {
        Ok(StateHash::of(&self.state)?)
    }

    /// When the oldest remembered outcome was made, milliseconds of log time.
    pub fn oldest_session_ms(&self) -> Result<Option<u64>, HostFault> {
        Ok(sessions::oldest_ms(&self.state)?)
    }

    /// Index of the last applied entry.
    pub fn index(&self) -> u64 {
        self.progress.index()
    }

    /// How far this state has come.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The last applied membership.
    pub fn membership(&self) -> &StoredMembership {
        &self.membership
    }

    /// The replicated limits in force.
    pub fn limits(&self) -> &Replicated {
        &self.limits
    }

    /// The modules that serve, by name.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What became of `module`, or of one module after the other; each in order of time.
    pub fn history(&self, module: Option<&str>) -> Result<Vec<pb::Activation>, HostFault> {
        Ok(history::activations(&self.state, module)?)
    }

    /// The last wish of the files that was answered, by name of the module.
    pub fn decisions(&self) -> Result<BTreeMap<String, pb::Decided>, HostFault> {
        Ok(history::decisions(&self.state)?)
    }

    /// Whether the bytes of the module with this hash are here: uploaded whole and waiting for an activation, or with a row.
    pub fn has_wasm(&self, hash: ModuleHash) -> Result<bool, HostFault> {
        Ok(self.wasm_size(hash)?.is_some())
    }

    fn wasm_size(&self, hash: ModuleHash) -> Result<Option<u64>, Fault> {
        Ok(uploads::whole_size(&self.state, hash)?.or_else(|| self.registry.size_of(hash)))
    }

    /// Those bytes.
    pub fn wasm(&self, hash: ModuleHash) -> Result<Option<Bytes>, HostFault> {
        match self.wasm_size(hash)? {
            Some(size) => Ok(uploads::assemble(hash, size, |key| self.state.get(key)).map_err(Fault::from)?),
            None => Ok(None),
        }
    }

    /// The raw rows.
    pub fn state(&self) -> &ReadView {
        &self.state
    }
}

impl Reader {
    /// The newest published state.
    pub fn view(&self) -> Arc<View> {
        self.shared.view.load_full()
    }

    /// Index of the newest published state. A view taken afterwards is at this index or later.
    pub fn published_index(&self) -> u64 {
        self.shared.index.load(Ordering::Acquire)
    }

    /// Has `then` called with the state right after entry `index` (above 0), on the state machine's thread, once it is published; or
    /// at once with what became of it, if it is.
    pub fn appoint(&self, index: u64, then: impl FnOnce(Kept) + Send + 'static) -> Appointment {
        let appointment = Appointments::make(&self.shared, index, Box::new(then));
        // Published before it was made, and perhaps nothing comes after it.
        self.shared.appointments.keep(&self.view());
        appointment
    }

    /// What is served.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.shared.view.load().catalog.clone()
    }

    /// Runs a query in the newest published state.
    pub fn query(&self, method: &str, request: Bytes, deadline: Option<Instant>) -> Result<Executed, QueryError> {
        self.view().query(method, request, deadline)
    }

    /// The digest after entry `index`, if that is among the last few thousand.
    pub fn digest_at(&self, index: u64) -> Option<Digest> {
        self.shared.recent.lock().at(index)
    }

    /// About `count` recent digests, ascending by index, with the newest.
    pub fn recent_digests(&self, count: usize) -> Vec<(u64, Digest)> {
        self.shared.recent.lock().sample(count)
    }

    /// The newest published state, to be sent as a snapshot; `None` if nothing was applied yet.
    pub fn snapshot(&self) -> Option<Snapshot> {
        Snapshot::of(self.view())
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("progress", &self.progress).finish_non_exhaustive()
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("view", &self.shared.view.load()).finish()
    }
}
