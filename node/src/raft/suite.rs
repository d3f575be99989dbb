//! openraft's conformance suite for storage, run on what a node has: our log, and our state machine behind its apply thread.
//!
//! Three things stand between the suite and ours, and all are here rather than there. The suite leaves gaps in what it applies,
//! and our state machine refuses gaps on purpose: they are filled with blank entries. It applies what is not in its log,
//! while a checkpoint of ours waits for the log: so the state machine has a log of its own, which holds what it is given. And
//! it purges a log over a state to which nothing was applied, and wants a snapshot of that; ours refuses, since such a node has
//! lost its state, and here the answer is a snapshot without content.
//!
//! openraft asks for the applied state when a node starts. Here, too, it is asked of what would be found then: of a copy of the
//! files, so that each question of the suite is also one about what is durable.

#![allow(clippy::unwrap_used)]

use std::io;
use std::path::Path;

use futures::{Stream, StreamExt, TryStreamExt, stream};
use openraft::OptionalSend;
use openraft::RaftSnapshotBuilder;
use openraft::StorageError;
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftLogStorageExt, RaftStateMachine, Snapshot, SnapshotMeta};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::alias::SnapshotMetaOf;

use super::apply::Applier;
use super::snapshot::SnapshotData;
use super::types::{Entry, LogId, StoredMembership, TypeConfig};
use crate::fatal::Fatal;
use crate::ids::NodeId;
use crate::log_store::{LogStore, Options};
use crate::state_machine::{self, Receiver, StateMachine};
use crate::traces::Traces;

/// The suite makes its own node ids.
impl From<u64> for NodeId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

/// The state machine as the suite sees it.
struct Filled {
    applier: Applier,
    receiver: Receiver,
    log: LogStore,
    /// The last entry it was given.
    last: Option<LogId>,
    dir: tempfile::TempDir,
}

fn open_state(dir: &Path) -> StateMachine {
    StateMachine::open(crate::testing::engine(), state_machine::Options::new(dir)).unwrap()
}

/// Nothing is cached, so that the log is read from segments.
fn open_log(dir: &Path) -> LogStore {
    LogStore::open(dir, Options { segment_bytes: 16 * 1024, cache_bytes: 0, ..Options::default() }).unwrap()
}

impl Filled {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = open_log(&dir.path().join("log"));
        let state = open_state(dir.path());
        let receiver = state.receiver();
        let applier = Applier::start(state, log.handle(), u64::MAX, Traces::off(), Fatal::default());
        Self { applier, receiver, log, last: None, dir }
    }

    /// The state as a start would find it.
    fn reopened(&self) -> StateMachine {
        let copy = tempfile::tempdir().unwrap();
        std::fs::create_dir(copy.path().join("state")).unwrap();
        for file in std::fs::read_dir(self.dir.path().join("state")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.path().join("state").join(file.file_name())).unwrap();
        }
        open_state(copy.path())
    }

    /// Blank entries between the last one and `next`, of the term of `next`.
    fn gap(&self, next: LogId) -> impl Iterator<Item = Entry> + use<> {
        let first = self.last.map_or(next.index, |last| last.index + 1);
        (first..next.index).map(move |index| Entry::new_blank(LogId::new(next.leader_id, index)))
    }

    /// A snapshot as a peer gets it: read in chunks, written into a file of its own, checked.
    fn sent(&self, snapshot: SnapshotData) -> SnapshotData {
        let SnapshotData::Outgoing { snapshot, .. } = snapshot else { panic!("the suite has none but ours") };
        let (mut reader, mut writer) = (snapshot.reader(), self.receiver.begin().unwrap());
        while let Some(chunk) = reader.next_chunk().unwrap() {
            writer.write(&chunk).unwrap();
        }
        SnapshotData::Incoming(Box::new(writer.finish().unwrap()))
    }
}

/// Of a state to which nothing was applied there is no snapshot.
type Data = Option<SnapshotData>;
type SnapshotOf = openraft::type_config::alias::SnapshotOf<TypeConfig, Data>;

/// Builds a snapshot of what the state machine then has.
struct Builder(Applier);

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Data;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf> {
        let nothing = Snapshot { meta: SnapshotMeta::default(), snapshot: None };
        Ok(current(&mut self.0).await?.unwrap_or(nothing))
    }
}

async fn current(applier: &mut Applier) -> io::Result<Option<SnapshotOf>> {
    let current = applier.get_current_snapshot().await?;
    Ok(current.map(|current| Snapshot { meta: current.meta, snapshot: Some(current.snapshot) }))
}

impl RaftStateMachine<TypeConfig> for Filled {
    type SnapshotData = Data;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        self.applier.checkpoint().await?;
        let found = self.reopened();
        Ok((found.last_applied(), found.membership().clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let given: Vec<EntryResponder<TypeConfig>> = entries.try_collect().await?;
        for (entry, responder) in given {
            let filled: Vec<Entry> = self.gap(entry.log_id).chain([entry]).collect();
            self.last = filled.last().map(|entry| entry.log_id);
            self.log.blocking_append(filled.clone()).await.unwrap();
            let (last, gap) = filled.split_last().unwrap();
            let gap = gap.iter().map(|blank| Ok((blank.clone(), None)));
            self.applier.apply(stream::iter(gap.chain([Ok((last.clone(), responder))])).boxed()).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder(self.applier.get_snapshot_builder().await)
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<TypeConfig>, snapshot: Data) -> io::Result<()> {
        self.last = meta.last_log_id;
        let received = self.sent(snapshot.unwrap());
        self.applier.install_snapshot(meta, received).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf>> {
        current(&mut self.applier).await
    }
}

/// A fresh log and a fresh state in directories that go with them.
struct Fresh;

impl StoreBuilder<TypeConfig, LogStore, Filled, tempfile::TempDir> for Fresh {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Filled), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let log = open_log(dir.path());
        Ok((dir, log, Filled::open()))
    }
}

#[test]
fn the_log_and_the_state_machine_pass_openraft_s_suite() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Suite::test_all(Fresh)).unwrap();
}
