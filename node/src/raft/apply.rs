//! openraft's state machine, as far as openraft is concerned: a mouth that feeds the apply thread.
//!
//! openraft's worker awaits `apply`, and its core waits for its worker. So nothing is executed here: entries go into a short
//! queue, and the thread that owns the real [`StateMachine`] executes them, answers their proposers and publishes
//! the new state. openraft may therefore think an entry applied that is still in the queue; whoever needs the truth (reads,
//! readiness, status) asks for the *published* index instead.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use futures::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use tokio::sync::{mpsc, oneshot};

use super::snapshot::SnapshotData;
use super::types::{Entry, LogId, StoredMembership, TypeConfig, trace_of};
use crate::command::{Reply, Timing};
use crate::fatal::Fatal;
use crate::log_store::LogHandle;
use crate::measure::{ApplyMeter, Stopwatch};
use crate::state_machine::{Fault, StateMachine};
use crate::traces::Traces;
use crate::wasm::HostFault;

/// Batches on their way to the apply thread. Two would do: one being executed, one ready.
const QUEUE: usize = 4;
/// Entries of one batch, which is one state transaction.
const BATCH_ENTRIES_MAX: usize = 1024;
/// Bytes of one batch, about.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

type Responder = Option<ApplyResponder<TypeConfig>>;
type SnapshotMeta = SnapshotMetaOf<TypeConfig>;
type Snapshot = SnapshotOf<TypeConfig, SnapshotData>;

enum Job {
    Apply(Vec<Entry>, Vec<Responder>),
    Checkpoint(oneshot::Sender<()>),
    Snapshot(oneshot::Sender<Option<Snapshot>>),
    Install(SnapshotMeta, SnapshotData, oneshot::Sender<()>),
    Fence(String, oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

/// What openraft and the node hold of the apply thread. Clones are the same one.
#[derive(Clone)]
pub struct Applier {
    jobs: mpsc::Sender<Job>,
    /// As of the last checkpoint, which is where a restart begins.
    at_start: Arc<(Option<LogId>, StoredMembership)>,
    meter: ApplyMeter,
}

impl std::fmt::Debug for Applier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Applier").field("at_start", &self.at_start.0).finish_non_exhaustive()
    }
}

/// The apply thread is gone, after a fault it has raised itself.
fn gone() -> io::Error {
    io::Error::other("the apply thread has stopped")
}

impl Applier {
    /// Starts the thread that owns `state_machine`.
    pub fn start(
        state_machine: StateMachine,
        log: LogHandle,
        checkpoint_bytes: u64,
        traces: Traces,
        fatal: Fatal,
    ) -> Self {
        let at_start = Arc::new((state_machine.last_applied(), state_machine.membership().clone()));
        let (jobs, queue) = mpsc::channel(QUEUE);
        let meter = ApplyMeter::default();
        let thread = ApplyThread { state_machine, log, checkpoint_bytes, traces, meter: meter.clone() };
        thread::Builder::new()
            .name("apply".into())
            .stack_size(16 * 1024 * 1024)
            .spawn(move || {
                if let Err(fault) = thread.run(queue) {
                    fatal.raise(fault);
                }
            })
            .expect("the system has a thread to give at start");
        Self { jobs, at_start, meter }
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> io::Result<T> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(job(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }

    /// What is measured of applying.
    pub fn meter(&self) -> &ApplyMeter {
        &self.meter
    }

    /// Makes the state durable as it is.
    pub async fn checkpoint(&self) -> io::Result<()> {
        self.ask(Job::Checkpoint).await
    }

    /// Notes durably that this node's state is not the cluster's.
    pub async fn fence(&self, reason: String) -> io::Result<()> {
        self.ask(|done| Job::Fence(reason, done)).await
    }

    /// Makes the state durable and ends the thread.
    pub async fn stop(&self) -> io::Result<()> {
        self.ask(Job::Stop).await
    }

    async fn snapshot(&self) -> io::Result<Option<Snapshot>> {
        self.ask(Job::Snapshot).await
    }
}

impl RaftStateMachine<TypeConfig> for Applier {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((*self.at_start).clone())
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let (mut batch, mut responders, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            bytes += payload_bytes(&entry);
            batch.push(entry);
            responders.push(responder);
            if batch.len() >= BATCH_ENTRIES_MAX || bytes >= BATCH_BYTES_MAX {
                let job = Job::Apply(std::mem::take(&mut batch), std::mem::take(&mut responders));
                self.jobs.send(job).await.map_err(|_| gone())?;
                bytes = 0;
            }
        }
        if !batch.is_empty() {
            self.jobs.send(Job::Apply(batch, responders)).await.map_err(|_| gone())?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let meta = meta.clone();
        self.ask(|done| Job::Install(meta, snapshot, done)).await
    }

    /// The state itself is the snapshot. It is made durable first: openraft may purge the log up to what this returns.
    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.snapshot().await
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Applier {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let snapshot = self.snapshot().await?;
        snapshot.ok_or_else(|| io::Error::other("a snapshot was asked for before anything was applied"))
    }
}

fn payload_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(command) => command.bytes.len(),
        _ => 64,
    }
}

struct ApplyThread {
    state_machine: StateMachine,
    log: LogHandle,
    /// Changed state that is made durable without being asked. More makes a restart replay more of the log, less makes more
    /// fsyncs.
    checkpoint_bytes: u64,
    traces: Traces,
    meter: ApplyMeter,
}

impl ApplyThread {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) -> Result<(), HostFault> {
        let mut next = None;
        while let Some(job) = next.take().or_else(|| queue.blocking_recv()) {
            match job {
                Job::Apply(entries, responders) => next = self.apply(entries, responders, &mut queue)?,
                Job::Checkpoint(done) => {
                    self.checkpoint()?;
                    let _ = done.send(());
                }
                Job::Snapshot(done) => {
                    let _ = done.send(self.snapshot()?);
                }
                Job::Install(meta, snapshot, done) => {
                    self.install(&meta, snapshot)?;
                    let _ = done.send(());
                }
                Job::Fence(reason, done) => {
                    self.state_machine.fence().set(&reason).map_err(Fault::from)?;
                    let _ = done.send(());
                }
                Job::Stop(done) => {
                    self.checkpoint()?;
                    drop(self.state_machine);
                    let _ = done.send(());
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Applies a batch and whatever has queued up behind it, as one state transaction. Returns the job that ended it.
    fn apply(
        &mut self,
        mut entries: Vec<Entry>,
        mut responders: Vec<Responder>,
        queue: &mut mpsc::Receiver<Job>,
    ) -> Result<Option<Job>, HostFault> {
        let mut next = None;
        while entries.len() < BATCH_ENTRIES_MAX {
            match queue.try_recv() {
                Ok(Job::Apply(more, answers)) => {
                    entries.extend(more);
                    responders.extend(answers);
                }
                Ok(other) => {
                    next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        let batch = Stopwatch::start();
        let (mut entry, mut traced) = (batch, Vec::new());
        self.state_machine.apply(&entries, &mut |at, reply| {
            let timing = Timing { applied: Some(entry.lap()), ..reply.timing };
            match responders[at].take() {
                Some(responder) => responder.send(Reply { timing, ..reply }),
                // Its proposer is another node's, where nobody is told what this one does.
                None => traced.extend(trace_of(&entries[at]).map(|parent| (parent, at, timing))),
            }
        })?;
        self.meter.batch.took(batch.stop().elapsed());
        for (parent, at, timing) in traced {
            let flush = self.log.metrics().flushes.of(entries[at].log_id.index());
            self.traces.applied(parent, flush, timing);
        }
        self.meter.dirty_bytes.store(self.state_machine.dirty_bytes(), Ordering::Relaxed);
        if self.state_machine.dirty_bytes() >= self.checkpoint_bytes {
            self.checkpoint()?;
        }
        Ok(next)
    }

    /// Never ahead of the durable log: after a crash the log must reach at least as far as the state.
    fn checkpoint(&mut self) -> Result<(), HostFault> {
        let (log, watch, dirty) = (&self.log, Stopwatch::start(), self.state_machine.dirty_bytes());
        self.state_machine.checkpoint(&mut |log_id| {
            log.wait_flushed_blocking(log_id).map_err(|error| HostFault(error.to_string()))
        })?;
        if dirty > 0 {
            self.meter.checkpoint.took(watch.stop().elapsed());
        }
        self.meter.dirty_bytes.store(self.state_machine.dirty_bytes(), Ordering::Relaxed);
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Option<Snapshot>, HostFault> {
        self.checkpoint()?;
        Ok(self.state_machine.snapshot().map(|snapshot| Snapshot {
            meta: SnapshotMeta {
                last_log_id: Some(snapshot.last_applied()),
                last_membership: snapshot.membership().clone(),
            },
            snapshot: SnapshotData::Outgoing { pin: self.log.pin(snapshot.last_applied().index() + 1), snapshot },
        }))
    }

    fn install(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> Result<(), HostFault> {
        match snapshot {
            SnapshotData::Incoming(received) => self.state_machine.install(*received),
            // openraft hands this node's own snapshot back at start; the state it would restore is the one we have.
            SnapshotData::Outgoing { .. } => {
                tracing::debug!(%meta, "the state is its own snapshot");
                Ok(())
            }
        }
    }
}
