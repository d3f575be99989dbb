//! What a node does without being asked.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use openraft::RaftMetrics;
use openraft::async_runtime::WatchReceiver;
use tokio::time::{MissedTickBehavior, interval};
use tonic::{Code, Status};

use super::{Leader, Node, PeerView, lag, leadership};
use crate::ids::{Digest, NodeId};
use crate::proto::command as pb;
use crate::proto::{admin, peer};
use crate::raft::clock::wall_clock_ms;
use crate::raft::exchange::{Digests, Verdict, first_difference, judge};
use crate::raft::peers::Purpose;
use crate::raft::types::{Member, TypeConfig};

/// How often nodes compare digests and clocks, and a leader without work moves log time.
const EXCHANGE: Duration = Duration::from_secs(1);
/// How long a peer has to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(900);
/// A member that has not been heard of for this long is lost, until it is heard of again.
const SILENCE: Duration = Duration::from_secs(3);
/// How often a leader looks whether the first module can be logged.
const GENESIS_POLL: Duration = Duration::from_millis(100);
/// How long a tick may take before it is tried again.
const TICK: Duration = Duration::from_secs(5);
/// How long one that is to lead has for it, at most.
const HAND_OVER: Duration = Duration::from_secs(2);
/// How long the state may take to become durable before the log is trimmed.
const SNAPSHOT: Duration = Duration::from_secs(60);

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

impl Node {
    /// Starts everything that runs until the node stops.
    pub(super) fn start_duties(&self) {
        let (node, gate) = (self.clone(), self.inner.reads.clone());
        tokio::spawn(gate.run(move || {
            let node = node.clone();
            async move { node.readable_round().await }
        }));
        let (node, gate) = (self.clone(), self.inner.leadership.clone());
        tokio::spawn(gate.run(move || {
            let node = node.clone();
            async move { node.leadership_round().await }
        }));
        let node = self.clone();
        tokio::spawn(async move { node.recover().await });
        let node = self.clone();
        tokio::spawn(async move { node.exchange_for_ever().await });
        let node = self.clone();
        tokio::spawn(async move { node.lead_for_ever().await });
        let node = self.clone();
        tokio::spawn(async move { node.follow_leaders().await });
        let node = self.clone();
        tokio::spawn(async move { node.watch_lag().await });
        let node = self.clone();
        tokio::spawn(async move { node.watch_leadership().await });
        let node = self.clone();
        tokio::spawn(async move { node.keep_house().await });
        let node = self.clone();
        tokio::spawn(async move { node.recall().await });
        let node = self.clone();
        tokio::spawn(async move { node.keep_memory().await });
        let node = self.clone();
        tokio::spawn(async move { node.enter().await });
        let node = self.clone();
        tokio::spawn(async move { node.tend_members().await });
    }

    /// After a restart the state is that of the last checkpoint. Nothing is served before it has caught up with everything
    /// this node may have answered in its former life.
    async fn recover(&self) {
        while let Err(error) = self.inner.raft.wait_for_recovery(None).await {
            tracing::warn!(%error, "waiting to catch up with the log");
            if self.inner.fatal.get().is_some() || self.inner.draining.load(Ordering::Relaxed) {
                return;
            }
        }
        let until = self.inner.raft.metrics().borrow_watched().last_applied.map_or(0, |id| id.index());
        let mut published = self.inner.published.clone();
        if published.wait_for(|at| *at >= until).await.is_ok() {
            self.inner.recovered.store(true, Ordering::Relaxed);
            tracing::info!(index = self.published(), "caught up with the log; serving");
        }
    }

    /// Says who leads, whenever that changes.
    async fn follow_leaders(&self) {
        let mut server = self.inner.server.clone();
        let mut known = None;
        while server.changed().await.is_ok() {
            let (leader, term) = {
                let metrics = server.borrow_watched();
                (metrics.current_leader, metrics.vote.leader_id.term)
            };
            if leader == known {
                continue;
            }
            known = leader;
            self.inner.led.lock().changes(Instant::now());
            self.inner.clock.lock().observe(self.inner.reader.view().progress().time_ms, Instant::now());
            self.inner.leader_changes.fetch_add(1, Ordering::Relaxed);
            match self.leader() {
                Leader::This => tracing::info!(term, "this node leads"),
                Leader::Other(_, member) => tracing::info!(term, leader = member.name, "following"),
                Leader::Unknown => tracing::info!(term, "no leader is known"),
            }
        }
    }

    /// Follows how long it takes until what was committed is applied here.
    async fn watch_lag(&self) {
        let mut looks = every(lag::LOOK);
        loop {
            looks.tick().await;
            let committed = {
                let metrics = self.inner.raft.metrics();
                let metrics = metrics.borrow_watched();
                metrics.current_leader.and(metrics.cluster_committed).map(|id| id.index())
            };
            self.inner.lag.lock().look(committed, self.published(), Instant::now());
        }
    }

    /// Asks again and again whether a majority stands behind the leader.
    async fn watch_leadership(&self) {
        let mut asks = every(leadership::ASK);
        loop {
            asks.tick().await;
            if self.confirm_leader().await.is_ok() {
                self.inner.led.lock().confirm(Instant::now());
            }
        }
    }

    /// What only a leader does: what the files want, and time that passes without commands.
    async fn lead_for_ever(&self) {
        let mut last_applied = 0;
        loop {
            let begun = self.has_begun();
            tokio::time::sleep(if begun { EXCHANGE } else { GENESIS_POLL }).await;
            let applied = self.published();
            let idle = std::mem::replace(&mut last_applied, applied) == applied;
            if !self.is_leader() || self.accepting().is_err() {
                continue;
            }
            if !begun && !self.knows_the_time() {
                tracing::info!("the first entry waits for a majority's clocks");
                continue;
            }
            self.follow_files().await;
            if begun
                && idle
                && let Some(index) = self.tick().await
            {
                last_applied = index;
            }
        }
    }

    /// Whether log time may begin: alone, or with a majority's clocks.
    fn knows_the_time(&self) -> bool {
        self.voters().len() <= 1 || self.inner.clock.lock().has_median()
    }

    /// Lets log time pass; the index of the entry.
    async fn tick(&self) -> Option<u64> {
        match self.propose(pb::command::Kind::Tick(pb::Tick {}), 0, Instant::now() + TICK).await {
            Ok(reply) => Some(reply.index),
            Err(error) => {
                tracing::debug!(%error, "a tick was not logged; it will be tried again");
                None
            }
        }
    }

    async fn exchange_for_ever(&self) {
        let mut ticks = every(EXCHANGE);
        let (started, mut silent) = (Instant::now(), BTreeSet::new());
        loop {
            ticks.tick().await;
            self.exchange_round().await;
            self.remember_matched();
            self.note_silence(started, &mut silent);
            self.judge_digests().await;
            self.judge_clock().await;
        }
    }

    /// Tells every other member this node's status and takes in theirs.
    pub(super) async fn exchange_round(&self) {
        let (others, own) = (self.other_members(), self.own_exchange());
        futures::future::join_all(others.iter().map(|(id, member)| self.exchange_with(*id, member, &own))).await;
    }

    /// Says once that a member does not answer any more, and once that it does again. Whatever needs it finds out by itself, many
    /// times a second, and has nothing to add.
    fn note_silence(&self, started: Instant, silent: &mut BTreeSet<NodeId>) {
        let members = self.other_members();
        silent.retain(|id| members.iter().any(|(member, _)| member == id));
        for (id, member) in members {
            let heard = self.inner.views.lock().get(&id).map_or(started, |view| view.at);
            let (name, addr) = (&member.name, &member.peer_addr);
            if heard.elapsed() < SILENCE {
                if silent.remove(&id) {
                    tracing::info!(peer = name, addr, "the peer answers again");
                }
            } else if silent.insert(id) {
                tracing::warn!(peer = name, addr, "the peer does not answer");
            }
        }
    }

    async fn exchange_with(&self, id: NodeId, member: &Member, own: &peer::ExchangeResponse) {
        let peers = &self.inner.peers;
        let Ok(mut client) = peers.client(&member.peer_addr, Purpose::Forward) else { return };
        let request =
            peer::ExchangeRequest { status: own.status.clone(), clock_ms: own.clock_ms, confirmed: own.confirmed };
        let sent = Instant::now();
        let call = client.exchange(peers.addressed(id, request));
        match tokio::time::timeout(ANSWER_WITHIN, call).await {
            Ok(Ok(response)) => {
                let response = response.into_inner();
                self.inner.refusals.lock().remove(&id);
                self.remember(id, response.confirmed);
                if response.stranger {
                    self.note_disowned();
                }
                if let Some(status) = response.status {
                    self.note_view(id, status, response.clock_ms, sent.elapsed());
                }
            }
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => self.note_refusal(id, member, &status),
            _ => {}
        }
    }

    /// Says once that a peer does not take this node for one of its own. A restart does not change that.
    fn note_refusal(&self, id: NodeId, member: &Member, status: &Status) {
        let why = status.message().to_owned();
        if self.inner.refusals.lock().insert(id, why.clone()).as_ref() != Some(&why) {
            tracing::warn!(peer = member.name, addr = member.peer_addr, "the peer refuses this node: {why}");
        }
    }

    /// Keeps what a peer said, and how its clock compares.
    pub(super) fn note_view(&self, from: NodeId, status: admin::NodeStatus, clock_ms: u64, round_trip: Duration) {
        // Read half of the round trip ago, as far as one can tell.
        let clock_ms = clock_ms.saturating_add(u64::try_from(round_trip.as_millis() / 2).unwrap_or(0));
        let view = PeerView { status, at: Instant::now(), clock_ms };
        let mut views = self.inner.views.lock();
        // A request and a reply may overtake each other; what its files wanted before is not news.
        if views.get(&from).is_none_or(|known| !known.is_after(&view)) {
            views.insert(from, view);
        }
    }

    /// Compares clocks. A node whose own is off does not campaign, and if it leads, another should.
    async fn judge_clock(&self) {
        let (voters, now) = (self.voters(), Instant::now());
        let others: Vec<u64> = {
            let views = self.inner.views.lock();
            let fresh = voters.iter().filter_map(|id| views.get(id)).filter(|view| view.is_fresh());
            fresh.map(|view| view.clock_at(now)).collect()
        };
        let off = {
            let mut clock = self.inner.clock.lock();
            clock.observe(self.inner.reader.view().progress().time_ms, now);
            clock.set_clocks(wall_clock_ms(), &others, voters.len(), now);
            clock.is_off()
        };
        let was_off = self.inner.clock_off.swap(off, Ordering::Relaxed);
        self.allow_elections();
        match (off, was_off) {
            (true, false) => {
                tracing::warn!("this machine's clock is more than 5 s off the majority's; this node does not lead")
            }
            (false, true) => tracing::info!("this machine's clock agrees with the majority's again"),
            _ => {}
        }
        if off {
            self.give_up_leadership().await;
        }
    }

    async fn judge_digests(&self) {
        if self.fenced().is_some() {
            return;
        }
        let voters = self.voters();
        let others = {
            let views = self.inner.views.lock();
            let fresh = views.iter().filter(|(id, view)| view.is_fresh() && voters.contains(id));
            fresh.map(|(id, view)| (*id, digests(&view.status.recent))).collect()
        };
        let votes = voters.contains(&self.inner.peers.own());
        let verdict = judge(&self.digests_at(&others), votes, &others, voters.len());
        let undecided = match &verdict {
            Verdict::Undecided(index) => Some(format!(
                "the nodes' states differ at index {index} and none has a majority; no commands are accepted"
            )),
            _ => None,
        };
        if let Some(why) = &undecided {
            tracing::error!("{why}");
        }
        *self.inner.undecided.lock() = undecided;
        match verdict {
            Verdict::OthersDiffer(ids) => tracing::error!(?ids, "these nodes' states differ from the majority's"),
            Verdict::Fence { index, own, majority, witness } => self.fence(index, own, majority, witness).await,
            Verdict::Agrees | Verdict::Undecided(_) => {}
        }
    }

    /// This node's digests at the indexes that the others named.
    fn digests_at(&self, others: &std::collections::BTreeMap<NodeId, Digests>) -> Digests {
        let named = others.values().flat_map(|digests| digests.keys());
        named.filter_map(|index| Some((*index, self.inner.reader.digest_at(*index)?))).collect()
    }

    /// This node's state is not the cluster's: notes it durably and serves nothing any more.
    async fn fence(&self, index: u64, own: Digest, majority: Digest, witness: NodeId) {
        let first = self.ask_first_difference(witness).await.unwrap_or(index);
        let reason = format!(
            "its state differs from the majority's: first seen at index {first} (at {index} its digest is {}, the majority's {}); \
             it serves nothing any more, and its volume is lost: once it is emptied, the node joins anew (docs/operations.md, A lost node)",
            own.short(),
            majority.short()
        );
        tracing::error!("this node fences itself: {reason}");
        *self.inner.fenced.lock() = Some(reason.clone());
        if let Err(error) = self.inner.applier.fence(reason).await {
            self.inner.fatal.raise(error);
        }
        self.give_up_leadership().await;
        if let Err(error) = self.inner.raft.shutdown().await {
            self.inner.fatal.raise(error);
        }
    }

    async fn ask_first_difference(&self, witness: NodeId) -> Option<u64> {
        let (_, member) = self.other_members().into_iter().find(|(id, _)| *id == witness)?;
        let peers = &self.inner.peers;
        let mut client = peers.client(&member.peer_addr, Purpose::Forward).ok()?;
        let call = client.digests(peers.addressed(witness, peer::DigestsRequest {}));
        let response = tokio::time::timeout(ANSWER_WITHIN, call).await.ok()?.ok()?.into_inner();
        first_difference(&digests(&self.recent_digests()), &digests(&response.digests))
    }

    /// Hands leadership to another voter, if this node has it: to the best one, and to the next best if that one does not take it.
    pub(super) async fn give_up_leadership(&self) {
        // That is how long one that is asked goes on getting its log in order.
        let takes = self.inner.config.raft.election_timeout_min.min(HAND_OVER);
        let mut asked = BTreeSet::new();
        while self.is_leader() {
            let since = Instant::now();
            self.exchange_round().await;
            let Some(to) = self.best_successor(&asked, since) else { return };
            asked.insert(to);
            tracing::info!(%to, "handing leadership over");
            if self.inner.raft.trigger().transfer_leader(to).await.is_err() {
                return;
            }
            let until = Instant::now() + takes;
            while self.is_leader() && Instant::now() < until {
                self.leader_news(Duration::from_millis(50)).await;
            }
        }
    }

    /// The voter to lead instead of this node, if this one leads: of those who were heard of since then, who can and were not asked
    /// already, the one whose log is furthest.
    pub(super) fn best_successor(&self, but: &BTreeSet<NodeId>, since: Instant) -> Option<NodeId> {
        let (voters, matched, now) = (self.voters(), self.matched(), Instant::now());
        let (views, clock) = (self.inner.views.lock(), self.inner.clock.lock());
        let others = views.iter().filter(|(id, _)| voters.contains(id) && !but.contains(id));
        let able = others.filter(|(_, view)| {
            view.at >= since && !view.status.cannot_lead && clock.agrees_with(view.clock_at(now), now)
        });
        able.map(|(id, _)| *id).max_by_key(|id| matched.get(id).copied().flatten())
    }

    /// Snapshots by the log's size, checkpoints by time.
    async fn keep_house(&self) {
        let mut seconds = every(Duration::from_secs(1));
        let (mut checkpointed, mut trimmed) = (Instant::now(), 0);
        loop {
            seconds.tick().await;
            if checkpointed.elapsed() >= self.inner.config.storage.checkpoint_interval {
                checkpointed = Instant::now();
                if self.inner.applier.checkpoint().await.is_err() {
                    return;
                }
            }
            trimmed = self.trim_log(trimmed).await.unwrap_or(trimmed);
        }
    }

    /// Once the log has grown enough since it was trimmed at the index `trimmed`, the state is made durable, and the log behind
    /// it is dropped but for what a follower that was away for a while needs. Returns where it was trimmed now.
    ///
    /// What counts is entries, not files: a file is given back only when no entry in it is needed.
    async fn trim_log(&self, trimmed: u64) -> Option<u64> {
        let (log, raft) = (&self.inner.log, &self.inner.raft);
        let keep = self.inner.config.raft.keep_log_bytes;
        let bytes = log.bytes_from(log.range().start.max(trimmed));
        if bytes < self.inner.config.raft.snapshot_log_bytes + keep {
            return None;
        }
        let upto = log.index_keeping(keep)?.min(self.published());
        raft.trigger().snapshot().await.ok()?;
        // Raft drops nothing that is not in a snapshot, and does not wait for one.
        let is_covered = |raft: &RaftMetrics<TypeConfig>| raft.snapshot.is_some_and(|last| last.index() >= upto);
        if let Err(error) = raft.wait(Some(SNAPSHOT)).metrics(is_covered, "the snapshot to trim the log with").await {
            tracing::warn!(%error, "the log stays as long as it is");
            return None;
        }
        tracing::info!(upto, bytes, "trimming the log");
        if let Err(error) = raft.trigger().purge_log(upto).await {
            tracing::warn!(%error, "cannot trim the log");
        }
        Some(upto)
    }

    /// The other members.
    pub(super) fn other_members(&self) -> Vec<(NodeId, Member)> {
        let own = self.inner.peers.own();
        let metrics = self.inner.server.borrow_watched();
        let nodes = metrics.membership_config.nodes();
        nodes.filter(|(id, _)| **id != own).map(|(id, member)| (*id, member.clone())).collect()
    }

    /// Everybody who votes, this node included if it does.
    pub(super) fn voters(&self) -> Vec<NodeId> {
        self.inner.server.borrow_watched().membership_config.voter_ids().collect()
    }
}

fn digests(said: &[admin::IndexDigest]) -> Digests {
    said.iter().filter_map(|one| Some((one.index, Digest::try_from(&one.digest[..]).ok()?))).collect()
}
