//! A backup becomes a data directory: that of the only voter of a new cluster, whose log begins behind the backup's last entry.
//!
//! All of it is made in `restore.tmp/` below the directory, checked and synced. Then its parts take their places, `node.meta` last: without
//! that no node starts here ([`crate::meta`]), so that a crash leaves nothing or everything. What an unfinished restore left is
//! cleared by the next one.
//!
//! State, index, log time, remembered idempotency keys and the rolling digest are the backup's. The membership is rewritten, and the vote
//! is this node's own in the term of the last entry, so that the terms of the new log go on growing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use openraft::storage::RaftLogStorage;

use super::{Error, io_error, term, vote, wait};
use crate::ids::{ClusterId, NodeId};
use crate::log_store::{self, LogStore};
use crate::meta::{self, RESTORING};
use crate::raft::types::{LogId, Member, Membership};
use crate::state_machine::{Options, SnapshotWriter, StateMachine};
use crate::wasm::Engine;

/// Memory for the database's pages.
const CACHE_BYTES: usize = 64 * 1024 * 1024;
/// What may be in an empty directory: the lock of this very process, and what file systems put there.
const HARMLESS: [&str; 2] = ["lock", "lost+found"];
/// What an unfinished restore may have put in its place.
const UNFINISHED: [&str; 3] = [RESTORING, "log", "state"];

/// A directory that is being made. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Draft {
    dir: PathBuf,
    draft: PathBuf,
    machine: StateMachine,
    writer: Option<SnapshotWriter>,
    _lock: File,
}

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// New.
    pub cluster_id: ClusterId,
    /// New.
    pub node_id: NodeId,
    /// The last entry in the state.
    pub index: u64,
}

impl Draft {
    /// Takes `dir`, which is empty or not there.
    pub fn begin(dir: &Path, engine: Engine) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        let lock = meta::lock(dir)?;
        clear(dir)?;
        let draft = dir.join(RESTORING);
        fs::create_dir(&draft).map_err(io_error("create", &draft))?;
        sync(dir)?;
        let machine = StateMachine::open(engine, Options { cache_bytes: CACHE_BYTES, ..Options::new(&draft) })?;
        let writer = Some(machine.receiver().begin()?);
        Ok(Self { dir: dir.into(), draft, machine, writer, _lock: lock })
    }

    /// Takes the next bytes of the backup's stream.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), crate::state_machine::SnapshotError> {
        self.writer.as_mut().expect("it is taken by finish, which consumes self").write(bytes)
    }

    /// Checks all of it, and makes the directory that of `member`.
    pub fn finish(mut self, member: Member) -> Result<Restored, Error> {
        let (cluster_id, node_id) = (ClusterId::random(), NodeId::random());
        let mut received = self.writer.take().expect("it is taken here only").finish()?;
        received.set_membership(&alone(node_id, member.clone()))?;
        self.machine.install(received)?;
        let last = self.machine.last_applied().expect("a snapshot is of a state to which something was applied");
        wait(begin_log(&self.draft.join("log"), last, node_id))??;
        meta::write(&self.draft, &member.name, node_id, Some(cluster_id))?;
        sync(&self.draft)?;
        self.take_place()?;
        Ok(Restored { cluster_id, node_id, index: last.index })
    }

    fn take_place(&self) -> Result<(), Error> {
        for name in ["log", "state"] {
            self.put(name)?;
        }
        sync(&self.dir)?;
        self.put(meta::FILE)?;
        sync(&self.dir)
    }

    fn put(&self, name: &str) -> Result<(), Error> {
        let target = self.dir.join(name);
        fs::rename(self.draft.join(name), &target).map_err(io_error("move in", &target))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Without `node.meta` in its place, what had taken its own goes too. What stays is cleared by the next restore, or by the node
        // that starts here.
        let is_node = self.dir.join(meta::FILE).exists();
        let _ = if is_node {
            fs::remove_dir_all(&self.draft).map_err(io_error("remove", &self.draft))
        } else {
            clear(&self.dir)
        };
    }
}

/// Refuses what is not empty, and clears what an unfinished restore has left.
fn clear(dir: &Path) -> Result<(), Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let name = entry.map_err(io_error("list", dir))?.file_name().to_string_lossy().into_owned();
        names.push(name);
    }
    names.retain(|name| !HARMLESS.contains(&name.as_str()));
    names.sort();
    let unfinished = names.iter().any(|name| name == RESTORING);
    let stranger = names.iter().find(|name| !(unfinished && UNFINISHED.contains(&name.as_str())));
    if let Some(found) = stranger {
        return Err(Error::NotEmpty { dir: dir.into(), found: found.clone() });
    }
    // What says that it is unfinished goes last.
    for name in UNFINISHED.iter().rev().filter(|name| names.iter().any(|there| there == *name)) {
        let path = dir.join(name);
        fs::remove_dir_all(&path).map_err(io_error("remove", &path))?;
    }
    Ok(())
}

/// The membership of one voter.
fn alone(node: NodeId, member: Member) -> Membership {
    let (voters, nodes) = ([node].into(), std::collections::BTreeMap::from([(node, member)]));
    Membership::new(vec![voters], nodes).expect("the only voter is among the nodes")
}

/// A log that goes on after `last`, in which nothing is.
async fn begin_log(dir: &Path, last: LogId, node: NodeId) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(io_error("create", dir))?;
    let mut log = LogStore::open(dir, log_store::Options::default())?;
    log.purge(last).await.map_err(Error::LogIo)?;
    // Records are written in order: with the vote, the purge is durable.
    log.save_vote(&vote(term(Some(last)), node)).await.map_err(Error::LogIo)
}

fn sync(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_that_fails_halfway_through_its_last_step_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let draft = Draft::begin(dir.path(), crate::testing::engine()).unwrap();
        fs::create_dir(draft.draft.join("log")).unwrap();
        draft.put("log").unwrap();
        fs::create_dir_all(dir.path().join("state/in the way")).unwrap();
        assert!(draft.put("state").is_err());
        drop(draft);
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["lock"]);
    }

    #[test]
    fn what_an_unfinished_restore_left_is_cleared_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("log")).unwrap();
        assert!(matches!(clear(dir.path()), Err(Error::NotEmpty { .. })), "a log of somebody's");
        fs::create_dir(dir.path().join(RESTORING)).unwrap();
        fs::write(dir.path().join(meta::FILE), "").unwrap();
        assert!(matches!(clear(dir.path()), Err(Error::NotEmpty { .. })), "it is finished");
        fs::remove_file(dir.path().join(meta::FILE)).unwrap();
        clear(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
