//! A node whose majority is lost for good becomes the only voter of a new cluster, with all that is in its log.
//!
//! What is given up is what the lost ones had acknowledged and this node never got. What is in its log and was not known to be committed
//! is kept, and becomes committed. A membership of this node alone is appended to the log, in a term of its own, so that the rest is
//! Raft's usual way: the node elects itself, commits its log, and applies it.
//!
//! The new cluster id is durable before the log is changed. After a crash in between, the node belongs to a cluster in which nobody
//! answers; it cannot do harm, and recovering it again finishes the work. The other order could leave a node that leads the old
//! cluster by itself, beside the others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;

use super::{Error, term, vote, wait};
use crate::ids::{ClusterId, NodeId};
use crate::log_store::{self, LogStore};
use crate::meta::{self, Meta};
use crate::raft::codec::log_id;
use crate::raft::types::{Entry, LogId, Member, Membership, StoredMembership, TypeConfig, Vote};
use crate::state_machine::{Progress, load_membership};
use crate::storage::{Database, Fence, Files};

/// Memory for the database's pages: little is read.
const CACHE_BYTES: usize = 8 * 1024 * 1024;
/// Entries of the log that are looked at at a time.
const ENTRIES: u64 = 1024;

/// A stopped node, looked at.
#[derive(Debug)]
pub struct Survivor {
    meta: Meta,
    log: LogStore,
    vote: Option<Vote>,
    /// Which cluster it is of.
    pub cluster_id: ClusterId,
    /// The last entry of its log.
    pub last: LogId,
    /// The last one that it knows to be committed. The others may have committed more.
    pub committed: u64,
    /// Why it took no part in its cluster any more, if so: forgotten when it is recovered.
    pub retired: Option<String>,
    /// The members of its cluster, and whether they vote.
    pub members: Vec<(NodeId, Member, bool)>,
}

impl Survivor {
    /// Opens the data directory `dir` of the node called `name`, and changes nothing but the files that every start clears.
    pub fn open(dir: &Path, name: &str) -> Result<Self, Error> {
        if !meta::has_cluster(dir) {
            return Err(Error::NoCluster(dir.into()));
        }
        let meta = Meta::open(dir, name)?;
        let cluster_id = meta.cluster_id.ok_or_else(|| Error::NoCluster(PathBuf::from(dir)))?;
        if let Some(why) = Fence::new(Arc::new(Files), dir).reason()? {
            return Err(Error::Fenced(why));
        }
        let log = LogStore::open(&dir.join("log"), log_store::Options::default())?;
        let (applied, stored) = {
            let view = Database::open(Arc::new(Files), dir, CACHE_BYTES)?.view();
            (Progress::load(&view)?.last_applied, load_membership(&view)?)
        };
        let found = wait(Found::read(log, applied, stored))??;
        let Some(last) = found.last else { return Err(Error::NoCluster(dir.into())) };
        let voters: Vec<_> = found.membership.voter_ids().collect();
        let nodes = found.membership.nodes();
        let members = nodes.map(|(id, member)| (*id, member.clone(), voters.contains(id))).collect::<Vec<_>>();
        if !members.iter().any(|(id, ..)| *id == meta.node_id) {
            return Err(Error::NotAMember(meta.node_id));
        }
        if voters == [meta.node_id] {
            return Err(Error::AloneAlready);
        }
        let committed = found.committed.max(applied).map_or(0, |id| id.index);
        let retired = meta.standing.retired().map(str::to_owned);
        Ok(Self { meta, retired, log: found.log, vote: found.vote, cluster_id, last, committed, members })
    }

    /// Who it is.
    pub fn node_id(&self) -> NodeId {
        self.meta.node_id
    }

    /// Makes it the only voter of a new cluster, reached as `member` says.
    pub fn recover(mut self, member: Member) -> Result<ClusterId, Error> {
        let (node, cluster) = (self.meta.node_id, ClusterId::random());
        self.meta.move_to(cluster)?;
        let voted = self.vote.map_or(0, |vote| vote.leader_id.term);
        let own_term = voted.max(term(Some(self.last))) + 1;
        let nodes = BTreeMap::from([(node, member)]);
        let alone = Membership::new(vec![[node].into()], nodes).expect("the only voter is among the nodes");
        let entry = Entry::new(log_id(own_term, self.last.index + 1), EntryPayload::Membership(alone));
        wait(async {
            self.log.save_vote(&vote(own_term, node)).await?;
            let (sender, done) = TypeConfig::oneshot();
            self.log.append([entry], IOFlushed::signal(sender)).await?;
            done.await.unwrap_or_else(|_| Err(std::io::Error::other("the log has stopped")))
        })?
        .map_err(Error::LogIo)?;
        Ok(cluster)
    }
}

/// What is in the log.
struct Found {
    log: LogStore,
    vote: Option<Vote>,
    last: Option<LogId>,
    committed: Option<LogId>,
    /// The last one, committed or not: that is the one that counts in Raft.
    membership: Membership,
}

impl Found {
    async fn read(mut log: LogStore, applied: Option<LogId>, stored: StoredMembership) -> Result<Self, Error> {
        let io = Error::LogIo;
        let mut reader = log.get_log_reader().await;
        let vote = reader.read_vote().await.map_err(io)?;
        let last = log.get_log_state().await.map_err(io)?.last_log_id;
        let committed = log.read_committed().await.map_err(io)?;
        let mut membership = stored.membership().clone();
        let mut next = applied.map_or(0, |id| id.index + 1).max(log.handle().range().start);
        let end = last.map_or(0, |id| id.index + 1);
        while next < end {
            let entries = reader.try_get_log_entries(next..end.min(next + ENTRIES)).await.map_err(io)?;
            for entry in entries {
                if let EntryPayload::Membership(newer) = entry.payload {
                    membership = newer;
                }
            }
            next += ENTRIES;
        }
        Ok(Self { log, vote, last, committed, membership })
    }
}
