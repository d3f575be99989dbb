//! What a node remembers of the others: the last that it heard was on their disks for good.
//!
//! It is what tells a volume that was put back to an earlier time from one that was only away ([`super::recall`]). So that it outlives
//! a start of all nodes at once, it is written down every few seconds (the file `remembered`). That may be late, and it may be lost:
//! then something is not noticed, and nothing else is wrong. So a file that cannot be read is said to be so, and begun anew.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Node, OnDisk};
use crate::ids::{ClusterId, NodeId};
use crate::meta;
use crate::proto::peer as pb;
use crate::raft::codec::log_id;
use crate::raft::types::LogId;

/// How often what is new is written.
const WRITE: Duration = Duration::from_secs(5);
const FILE: &str = "remembered";
const VERSION: u32 = 1;

/// What is remembered of each other node, and where it is written.
#[derive(Debug)]
pub(in crate::node) struct Memory {
    dir: PathBuf,
    known: BTreeMap<NodeId, Confirmed>,
    written: BTreeMap<NodeId, Confirmed>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    /// Whose nodes they are: `balsa recover` takes a node into a cluster of its own.
    cluster_id: String,
    #[serde(default)]
    node: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    id: String,
    term: u64,
    /// Term and index.
    settled: Option<(u64, u64)>,
    /// The leader's term; term and index.
    acked: Option<(u64, u64, u64)>,
}

impl Memory {
    /// What the data directory `dir` of a node of `cluster` remembers.
    pub(in crate::node) fn open(dir: &Path, cluster: Option<ClusterId>) -> Self {
        let known = cluster.map_or_else(BTreeMap::new, |cluster| match read(dir, cluster) {
            Ok(known) => known,
            Err(why) => {
                tracing::warn!(
                    "what this node remembered of the others is forgotten: {}: {why}",
                    dir.join(FILE).display()
                );
                BTreeMap::new()
            }
        });
        Self { dir: dir.into(), written: known.clone(), known }
    }

    /// What is remembered of that node.
    pub(super) fn of(&self, id: NodeId) -> Option<Confirmed> {
        self.known.get(&id).copied()
    }

    /// Takes in more of a node.
    pub(super) fn add(&mut self, id: NodeId, more: &Confirmed) {
        self.known.entry(id).or_default().add(more);
    }

    /// What is to be written, if anything is new. Of nodes that are none of `members` nothing is kept.
    fn news(&mut self, cluster: ClusterId, members: &[NodeId]) -> Option<String> {
        self.known.retain(|id, _| members.contains(id));
        if self.known == self.written {
            return None;
        }
        self.written.clone_from(&self.known);
        let line = |(id, known): (&NodeId, &Confirmed)| Line {
            id: id.to_string(),
            term: known.term,
            settled: known.settled.map(|id| (id.committed_leader_id().term, id.index)),
            acked: known.acked.map(|(term, id)| (term, id.committed_leader_id().term, id.index)),
        };
        let node = self.known.iter().map(line).collect();
        let written = Written { version: VERSION, cluster_id: cluster.to_string(), node };
        Some(toml::to_string(&written).expect("tables of numbers and strings are TOML"))
    }
}

/// A file that is not there, or of another cluster, is as good as an empty one.
fn read(dir: &Path, cluster: ClusterId) -> Result<BTreeMap<NodeId, Confirmed>, String> {
    let text = match fs::read_to_string(dir.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.to_string()),
    };
    let written: Written = toml::from_str(&text).map_err(|error| error.message().to_owned())?;
    if written.version != VERSION {
        return Err(format!("its version is {}, this balsa knows version {VERSION}", written.version));
    }
    if written.cluster_id != cluster.to_string() {
        return Ok(BTreeMap::new());
    }
    let one = |line: Line| {
        let id = line.id.parse().map_err(|_| format!("{:?} is no node id", line.id))?;
        let settled = line.settled.map(|(term, index)| log_id(term, index));
        let acked = line.acked.map(|(leader, term, index)| (leader, log_id(term, index)));
        Ok((id, Confirmed { term: line.term, settled, acked }))
    };
    written.node.into_iter().map(one).collect()
}

impl Node {
    /// For as long as the node runs.
    pub(in crate::node) async fn keep_memory(&self) {
        loop {
            tokio::time::sleep(WRITE).await;
            self.write_memory().await;
        }
    }

    /// Writes what is new, durably.
    pub(in crate::node) async fn write_memory(&self) {
        let Some(cluster) = self.inner.peers.cluster() else { return };
        let members: Vec<_> = self.other_members().into_iter().map(|(id, _)| id).collect();
        let (dir, news) = {
            let mut memory = self.inner.members.remembered.lock();
            (memory.dir.clone(), memory.news(cluster, &members))
        };
        let Some(news) = news else { return };
        let written = tokio::task::spawn_blocking(move || meta::write_durably(&dir, FILE, news.as_bytes())).await;
        if let Ok(Err(error)) = written {
            self.inner.fatal.raise(error);
        }
    }
}

/// What a node has on its disk for good, as far as somebody else knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Confirmed {
    /// Its vote is of this term or a later one.
    term: u64,
    /// Committed and flushed: never truncated.
    settled: Option<LogId>,
    /// Acknowledged to the leader of this term. A leader of a later term may have had it truncated.
    acked: Option<(u64, LogId)>,
}

impl Confirmed {
    pub(super) fn acked(term: u64, last: LogId) -> Self {
        Self { term, settled: None, acked: Some((term, last)) }
    }

    /// Takes in more; nothing is ever less.
    pub(super) fn add(&mut self, more: &Self) {
        self.term = self.term.max(more.term);
        self.settled = self.settled.max(more.settled);
        self.acked = self.acked.max(more.acked);
    }

    /// What of it this disk lacks, in words, if anything.
    pub(super) fn missing_on(&self, disk: &OnDisk) -> Option<String> {
        let ends = disk.last.map_or("is empty".to_owned(), |last| format!("ends at {}", place(&last)));
        if disk.term < self.term {
            let (then, now) = (self.term, disk.term);
            return Some(format!("its vote is of term {now}, its log {ends}, and it had voted in term {then}"));
        }
        // In a later term entries may rightly have gone.
        let acked = self.acked.filter(|(term, _)| *term == disk.term).map(|(_, last)| last);
        let confirmed = self.settled.max(acked)?;
        (disk.last < Some(confirmed)).then(|| format!("its log {ends}, and it had confirmed {}", place(&confirmed)))
    }
}

fn place(id: &LogId) -> String {
    format!("index {} of term {}", id.index(), id.committed_leader_id().term)
}

impl From<pb::Confirmed> for Confirmed {
    fn from(said: pb::Confirmed) -> Self {
        let acked = said.acked.map(|last| (said.acked_term, last.into()));
        Self { term: said.term, settled: said.settled.map(Into::into), acked }
    }
}

impl From<Confirmed> for pb::Confirmed {
    fn from(known: Confirmed) -> Self {
        Self {
            term: known.term,
            settled: known.settled.as_ref().map(Into::into),
            acked_term: known.acked.map_or(0, |(term, _)| term),
            acked: known.acked.as_ref().map(|(_, last)| last.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(term: u64, last: (u64, u64)) -> OnDisk {
        OnDisk { term, last: Some(log_id(last.0, last.1)) }
    }

    fn settled(term: u64, last: (u64, u64)) -> Confirmed {
        Confirmed { term, settled: Some(log_id(last.0, last.1)), acked: None }
    }

    #[test]
    fn a_disk_that_has_all_that_is_known_is_fine() {
        let known = settled(3, (3, 70));
        assert_eq!(known.missing_on(&disk(3, (3, 70))), None);
        assert_eq!(known.missing_on(&disk(4, (3, 71))), None);
        assert_eq!(Confirmed::default().missing_on(&OnDisk::default()), None);
    }

    #[test]
    fn a_forgotten_vote_and_a_forgotten_entry_are_named_with_both_log_ids() {
        let vote = settled(3, (2, 70)).missing_on(&disk(2, (2, 80))).unwrap();
        assert!(vote.contains("its vote is of term 2") && vote.contains("voted in term 3"), "{vote}");
        let entry = settled(3, (3, 70)).missing_on(&disk(3, (3, 69))).unwrap();
        assert_eq!(entry, "its log ends at index 69 of term 3, and it had confirmed index 70 of term 3");
        let empty = settled(0, (1, 1)).missing_on(&OnDisk::default()).unwrap();
        assert!(empty.starts_with("its log is empty"), "{empty}");
    }

    #[test]
    fn what_a_later_leader_had_truncated_is_not_missed() {
        let acked = Confirmed::acked(3, log_id(3, 90));
        assert!(acked.missing_on(&disk(3, (3, 80))).is_some());
        assert_eq!(acked.missing_on(&disk(4, (3, 80))), None);
    }

    #[test]
    fn nothing_that_was_known_is_forgotten() {
        let mut known = settled(5, (4, 40));
        known.add(&Confirmed::acked(4, log_id(4, 50)));
        known.add(&settled(3, (3, 30)));
        let kept = Confirmed { term: 5, settled: Some(log_id(4, 40)), acked: Some((4, log_id(4, 50))) };
        assert_eq!(known, kept);
        assert_eq!(Confirmed::from(pb::Confirmed::from(known)), known);
    }

    #[test]
    fn what_is_written_is_read_back_by_a_node_of_the_same_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let (cluster, other) = (ClusterId([7; 16]), ClusterId([8; 16]));
        let mut memory = Memory::open(dir.path(), Some(cluster));
        memory.add(NodeId(1), &settled(5, (4, 40)));
        memory.add(NodeId(1), &Confirmed::acked(5, log_id(4, 50)));
        memory.add(NodeId(2), &Confirmed { term: 3, ..Confirmed::default() });
        memory.add(NodeId(9), &settled(1, (1, 1)));
        let text = memory.news(cluster, &[NodeId(1), NodeId(2)]).unwrap();
        assert_eq!(memory.news(cluster, &[NodeId(1), NodeId(2)]), None, "nothing is new");
        fs::write(dir.path().join(FILE), &text).unwrap();
        let again = Memory::open(dir.path(), Some(cluster));
        assert_eq!(again.known, memory.known);
        assert_eq!(again.of(NodeId(9)), None, "it is no member any more");
        assert!(Memory::open(dir.path(), Some(other)).known.is_empty());
        assert!(Memory::open(dir.path(), None).known.is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterId([7; 16]);
        for text in ["", "version = 2\ncluster_id = \"\"\n", "\u{0}\u{0}", "version = 1\ncluster_id = 7\n"] {
            fs::write(dir.path().join(FILE), text).unwrap();
            assert!(read(dir.path(), cluster).is_err(), "{text:?}");
            assert!(Memory::open(dir.path(), Some(cluster)).known.is_empty());
        }
    }
}
