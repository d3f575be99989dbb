//! Who belongs to the cluster, and how that changes without a person.
//!
//! ```text
//! a node without a past ─▶ [`join`]: finds the cluster, asks to be let in ─▶ the leader: [`admit`] ─▶ learner
//!                                                                                              │ caught up
//! the number of nodes that the files want ─┐                                                   ▼
//! who answers, and how far each is ────────┴─▶ [`decide`]: the next step, or why none ─▶ [`tend`] ─▶ voter; the old id leaves
//! an operator ─────────────────────────────▶ [`operate`]
//! ```
//!
//! A node's identity is its random id, which lives as long as its log; a name is what people and StatefulSets call it. So a lost
//! volume is a new node of an old name: it is let in as a learner, and when it has caught up, it becomes a voter in the same joint
//! change in which the old id leaves, and that only if the old one does not answer as itself.
//!
//! No change is remembered outside the log but for what is seen again in a second: a leader that dies in the middle leaves a membership,
//! and the next one goes on from there. All changes on one leader take turns.
//!
//! A node that starts with a past does not take part before it has asked what the others remember of it ([`recall`], [`memory`]): who
//! comes back with less than it had confirmed is refused, for good, and who was removed meanwhile learns it there, or from any peer
//! later.

mod admit;
mod decide;
mod join;
mod memory;
mod operate;
mod recall;
mod tend;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use tokio::sync::watch;

use self::memory::Confirmed;
pub(super) use self::memory::Memory;
use super::Node;
use crate::files;
use crate::ids::NodeId;
use crate::meta::Standing;
use crate::proto::{admin, peer};
use crate::raft::bootstrap::who_is_at;
use crate::raft::types::{LogId, Member, StoredMembership};

/// How long a candidate that was not let in is shown.
const CANDIDATE: Duration = Duration::from_secs(30);

/// What a node knows about membership beside its log.
#[derive(Debug)]
pub(super) struct Members {
    /// Who has it may change the membership. Only a leader does.
    turn: tokio::sync::Mutex<()>,
    /// Who asked the leader to be let in and was refused, and when.
    candidates: Mutex<BTreeMap<NodeId, (admin::Candidate, Instant)>>,
    /// Whom this leader let in last, and when.
    admitted: Mutex<Option<(NodeId, Instant)>>,
    /// What the leader would do, and why it does not.
    waiting: Mutex<Vec<String>>,
    /// Why this node is not a member yet.
    outside: Mutex<Option<String>>,
    /// What each other node has confirmed.
    remembered: Mutex<Memory>,
    /// Whether this node votes, and acknowledges entries.
    takes_part: AtomicBool,
    /// The vote's term and the last entry on the disk when this process began.
    at_start: OnDisk,
    /// Held while this node asks whether it was removed.
    disowned: Arc<tokio::sync::Mutex<()>>,
    /// Why this node ends for good.
    retired: watch::Sender<Option<String>>,
}

/// What a disk holds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OnDisk {
    pub(super) term: u64,
    pub(super) last: Option<LogId>,
}

impl Members {
    pub(super) fn new(at_start: OnDisk, remembered: Memory) -> Self {
        Self {
            turn: tokio::sync::Mutex::default(),
            candidates: Mutex::default(),
            admitted: Mutex::default(),
            waiting: Mutex::default(),
            outside: Mutex::default(),
            remembered: Mutex::new(remembered),
            takes_part: AtomicBool::new(false),
            at_start,
            disowned: Arc::default(),
            retired: watch::Sender::new(None),
        }
    }

    /// Why this node is not a member yet, if it is not.
    pub(super) fn outside(&self) -> Option<String> {
        self.outside.lock().clone()
    }

    /// What the leader waits for, for `status`.
    pub(super) fn waiting(&self) -> Vec<String> {
        self.waiting.lock().clone()
    }

    /// Who was refused lately.
    pub(super) fn candidates(&self) -> Vec<admin::Candidate> {
        let mut candidates = self.candidates.lock();
        candidates.retain(|_, (_, at)| at.elapsed() < CANDIDATE);
        candidates.values().map(|(candidate, _)| candidate.clone()).collect()
    }
}

impl Node {
    /// Whether this node votes and acknowledges: not before it has asked its peers what they remember of it.
    pub(super) fn takes_part(&self) -> bool {
        self.inner.members.takes_part.load(Ordering::Relaxed)
    }

    fn take_part(&self) {
        self.inner.members.takes_part.store(true, Ordering::Relaxed);
        self.allow_elections();
    }

    /// Leading is for nodes that take part, whose clock is right, and that are not fenced.
    pub(super) fn may_lead(&self) -> bool {
        let clock_off = self.inner.clock_off.load(Ordering::Relaxed);
        self.takes_part() && !clock_off && self.fenced().is_none() && self.retired().is_none()
    }

    /// Elections are for those, and not for one that leaves, unless nobody else votes.
    pub(super) fn allow_elections(&self) {
        let leaves = self.staying().is_err() && self.voters().len() > 1;
        self.inner.raft.runtime_config().elect(self.may_lead() && !leaves);
    }

    /// Why this node ends for good, if it does.
    pub(super) fn retired(&self) -> Option<String> {
        self.inner.members.retired.borrow().clone()
    }

    /// A peer does not know this node: finds out, once at a time, whether it was removed.
    pub(super) fn note_disowned(&self) {
        let Ok(asking) = self.inner.members.disowned.clone().try_lock_owned() else { return };
        let node = self.clone();
        tokio::spawn(async move {
            node.is_disowned().await;
            drop(asking);
        });
    }

    /// Waits for that.
    pub(super) async fn retires(&self) -> String {
        let mut retired = self.inner.members.retired.subscribe();
        let why = retired.wait_for(Option::is_some).await.expect("the sender is in `self`");
        why.clone().expect("it was waited for")
    }

    /// This data has no place in the cluster any more: notes so durably and ends the node.
    fn retire(&self, standing: Standing) {
        let Some(why) = standing.retired().map(str::to_owned) else { return };
        self.inner.members.takes_part.store(false, Ordering::Relaxed);
        self.inner.raft.runtime_config().elect(false);
        if let Err(error) = self.inner.identity.meta.lock().stand(standing) {
            return self.inner.fatal.raise(error);
        }
        self.inner.members.retired.send_replace(Some(why));
    }

    /// The membership in the log, committed or not.
    fn membership(&self) -> Arc<StoredMembership> {
        self.inner.server.borrow_watched().membership_config.clone()
    }

    /// The same, if it is committed and no joint one.
    fn settled_membership(&self) -> Option<Arc<StoredMembership>> {
        let metrics = self.inner.server.borrow_watched();
        let settled = metrics.membership_config == metrics.committed_membership_config;
        let uniform = metrics.membership_config.membership().get_joint_config().len() == 1;
        (settled && uniform).then(|| metrics.membership_config.clone())
    }

    /// Whether a committed membership has this node.
    fn is_committed_member(&self) -> bool {
        let metrics = self.inner.server.borrow_watched();
        metrics.committed_membership_config.get_node(&self.inner.peers.own()).is_some()
    }

    /// Whether this node knows a membership, and neither the last nor the last committed one has `id`.
    pub(super) fn is_stranger(&self, id: NodeId) -> bool {
        let metrics = self.inner.server.borrow_watched();
        let committed = &metrics.committed_membership_config;
        let known = committed.nodes().next().is_some();
        known && committed.get_node(&id).is_none() && metrics.membership_config.get_node(&id).is_none()
    }

    /// How many nodes a majority of the voters' files want.
    pub(super) fn wanted_replicas(&self) -> Option<u32> {
        let (wishes, voters) = self.wishes();
        files::agreed_replicas(wishes.values(), voters)
    }

    /// The ordinal that a name says.
    fn ordinal_of(&self, name: &str) -> Option<u32> {
        let names = &self.inner.config.cluster.names;
        names.iter().position(|known| known == name).and_then(|at| u32::try_from(at).ok())
    }

    /// Whether the node of that id answers as itself at this address, or was heard of a moment ago.
    async fn answers_as_itself(&self, id: NodeId, member: &Member) -> bool {
        let is_fresh = || self.inner.views.lock().get(&id).is_some_and(super::PeerView::is_fresh);
        is_fresh() || who_is_at(&self.inner.peers, &member.peer_addr).await.is_ok_and(|them| them.id == id.0)
    }

    /// As leader: how far each other node's log is known to be its own.
    pub(super) fn matched(&self) -> BTreeMap<NodeId, Option<LogId>> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leads = metrics.state == ServerState::Leader;
        metrics.replication.clone().filter(|_| leads).unwrap_or_default()
    }

    /// As leader: how long ago each other node's Raft was asked what it last answered. That a process talks is another thing: one
    /// that is fenced does, and one that has not been told yet whether it may take part.
    fn heard(&self) -> BTreeMap<NodeId, Duration> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let heard = metrics.heartbeat.iter().flatten();
        heard.filter_map(|(id, at)| Some((*id, openraft::Instant::elapsed(&**at.as_ref()?)))).collect()
    }

    /// Who belongs to the cluster, as this node knows it.
    pub(super) fn member_list(&self) -> admin::MembersResponse {
        let (own, leader) = (self.inner.peers.own(), self.inner.server.borrow_watched().current_leader);
        let membership = self.membership();
        let voters: Vec<_> = membership.voter_ids().collect();
        let views = self.inner.views.lock();
        let one = |(id, member): (&NodeId, &Member)| admin::ClusterMember {
            name: member.name.clone(),
            id: id.0,
            voter: voters.contains(id),
            leader: leader == Some(*id),
            reachable: *id == own || views.get(id).is_some_and(super::PeerView::is_fresh),
            kept: member.kept,
            peer_addr: member.peer_addr.clone(),
            client_addr: member.client_addr.clone(),
        };
        let mut members: Vec<_> = membership.nodes().map(one).collect();
        // Of what a leader keeps to itself, the others have what it told them with its status.
        let led = leader.filter(|id| *id != own).and_then(|id| views.get(&id).map(|view| view.status.clone()));
        drop(views);
        members.sort_by(|left, right| (&left.name, left.id).cmp(&(&right.name, right.id)));
        let (candidates, waiting) = match led {
            Some(status) => (status.candidates, status.waiting),
            None => (self.inner.members.candidates(), self.inner.members.waiting()),
        };
        admin::MembersResponse {
            members,
            replicas: self.wanted_replicas().unwrap_or(0),
            candidates,
            waiting,
            answered_by: self.inner.identity.member().name.clone(),
        }
    }

    /// What this node will never be without.
    pub(super) fn own_confirmed(&self) -> peer::Confirmed {
        let committed = self.inner.raft.metrics().borrow_watched().local_committed;
        let flushed = self.inner.log.flushed();
        peer::Confirmed {
            term: self.inner.log.vote().map_or(0, |vote| vote.leader_id.term),
            settled: committed.min(flushed).as_ref().map(Into::into),
            ..peer::Confirmed::default()
        }
    }

    /// Keeps what another node has confirmed.
    pub(super) fn remember(&self, id: NodeId, confirmed: Option<peer::Confirmed>) {
        let Some(confirmed) = confirmed else { return };
        self.inner.members.remembered.lock().add(id, &confirmed.into());
    }

    /// As leader: keeps how far the others have followed.
    pub(super) fn remember_matched(&self) {
        // Both out of one look: what was acknowledged in one term must not be taken for the next one's.
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let Some(matched) = metrics.replication.filter(|_| metrics.state == ServerState::Leader) else { return };
        let mut remembered = self.inner.members.remembered.lock();
        for (id, log_id) in matched {
            let Some(log_id) = log_id else { continue };
            remembered.add(id, &Confirmed::acked(metrics.vote.leader_id.term, log_id));
        }
    }
}
