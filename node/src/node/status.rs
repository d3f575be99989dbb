//! What operators see: of this node, and through it of the others.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::oneshot;

use super::Node;
use crate::command::{Refusal, TrapClass};
use crate::http::{Check, Readiness};
use crate::ids::Digest;
use crate::proto::{admin, command, peer};
use crate::raft::clock::wall_clock_ms;
use crate::service::{ServiceError, why_refused};
use crate::state_machine::{Kept, View};

/// Digests that a status carries: enough that two nodes under load find a common index.
const DIGESTS_SAID: usize = 64;
/// How long a node waits for the entry after which its state is asked for. An idle leader logs one a
/// second, and a follower may be behind by some.
const APPOINTMENT: Duration = Duration::from_secs(5);
/// After this long, what a peer said is history.
const FRESH: Duration = Duration::from_secs(5);

/// What a peer last said.
#[derive(Debug, Clone)]
pub(super) struct PeerView {
    pub(super) status: admin::NodeStatus,
    pub(super) at: Instant,
    /// Its wall clock then.
    pub(super) clock_ms: u64,
}

impl PeerView {
    pub(super) fn is_fresh(&self) -> bool {
        self.at.elapsed() < FRESH
    }

    /// Its wall clock now. This machine's own has no part in it: it may have been set since.
    pub(super) fn clock_at(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.at).as_millis();
        self.clock_ms.saturating_add(u64::try_from(since).unwrap_or(0))
    }

    /// Whether the same process said this after it had said `other`.
    pub(super) fn is_after(&self, other: &Self) -> bool {
        let (Some(this), Some(other)) = (&self.status.wish, &other.status.wish) else { return false };
        this.boot == other.boot && this.sequence > other.sequence
    }
}

impl Node {
    /// The cluster, asked anew.
    pub(super) async fn cluster_status(&self) -> admin::StatusResponse {
        self.exchange_round().await;
        let own = self.own_status();
        let leader_last = own.last_index;
        let mut nodes = vec![own];
        nodes.extend(self.other_members().into_iter().map(|(id, member)| {
            let view = self.inner.views.lock().get(&id).cloned();
            let known = view
                .map(|view| admin::NodeStatus { reachable: view.at.elapsed() < Duration::from_secs(2), ..view.status });
            admin::NodeStatus {
                name: member.name,
                id: id.0,
                client_addr: member.client_addr,
                peer_addr: member.peer_addr,
                ..known.unwrap_or_default()
            }
        }));
        let last = nodes.iter().filter(|node| node.role == "leader").map(|node| node.last_index).max();
        for node in &mut nodes {
            node.lag = last.unwrap_or(leader_last).saturating_sub(node.applied_index);
        }
        nodes.sort_by(|left, right| left.name.cmp(&right.name));
        admin::StatusResponse {
            cluster_id: self.inner.peers.cluster().map(|id| id.to_string()).unwrap_or_default(),
            answered_by: self.inner.identity.member().name.clone(),
            warnings: self.warnings(&nodes),
            changes: nodes.iter().flat_map(|node| node.changes.clone()).collect(),
            nodes,
        }
    }

    fn warnings(&self, nodes: &[admin::NodeStatus]) -> Vec<String> {
        let undecided = self.inner.undecided.lock().clone();
        let not_led = self.is_led().err();
        let nodes_say = nodes.iter().flat_map(warnings_of);
        let refused = self.refused_wishes();
        undecided
            .into_iter()
            .chain(not_led)
            .chain(refused.iter().map(refused_in_words))
            .chain(nodes_say)
            .chain(self.odd_wishes(nodes))
            .collect()
    }

    /// Rows of the history that answered the files' present wishes with a no.
    pub(super) fn refused_wishes(&self) -> Vec<command::Activation> {
        let view = self.inner.reader.view();
        let refused = view.decisions().unwrap_or_default().into_iter().filter(|(_, decided)| decided.refused);
        let row = |(name, decided): (String, command::Decided)| {
            let history = view.history(Some(&name)).ok()?;
            history.into_iter().find(|row| row.index == decided.index)
        };
        refused.filter_map(row).collect()
    }

    /// Nodes whose files want something else than a majority's, or all of them if there is no majority.
    fn odd_wishes(&self, nodes: &[admin::NodeStatus]) -> Vec<String> {
        let (wishes, voters) = self.wishes();
        let agreed = crate::files::agreed(wishes.values(), voters);
        let odd = nodes.iter().filter(|node| node.reachable && node.fenced.is_empty());
        let odd = odd.filter_map(|node| Some((node, node.wish.as_ref()?)));
        odd.filter(|(_, wish)| agreed.is_none_or(|agreed| agreed.hash != wish.hash))
            .map(|(node, _)| match agreed {
                Some(_) => {
                    format!("{}'s files ask for something else than a majority's; they are not obeyed", node.name)
                }
                None => {
                    format!("{}'s files are not obeyed: no majority of the {voters} voters has the same", node.name)
                }
            })
            .collect()
    }

    /// This node alone.
    pub(super) fn own_status(&self) -> admin::NodeStatus {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let member = self.inner.identity.member();
        let progress = *self.inner.reader.view().progress();
        let wanted = self.inner.wanted.borrow().clone();
        admin::NodeStatus {
            name: member.name.clone(),
            id: self.inner.peers.own().0,
            client_addr: member.client_addr.clone(),
            peer_addr: member.peer_addr.clone(),
            reachable: true,
            role: self.role(&metrics.state).into(),
            term: metrics.current_term,
            leader_id: metrics.current_leader.map_or(0, |id| id.0),
            last_index: metrics.last_log_index.unwrap_or(0),
            committed_index: metrics.cluster_committed.map_or(0, |id| id.index()),
            applied_index: self.published(),
            digest: progress.digest.0.to_vec().into(),
            digest_index: progress.index(),
            modules: self.module_status(),
            lag: 0,
            version: env!("CARGO_PKG_VERSION").into(),
            fenced: self.fenced().unwrap_or_default(),
            time_ms: progress.time_ms,
            recent: said(self.inner.reader.recent_digests(DIGESTS_SAID)),
            wish: wanted.is_known().then(|| wanted.wish.clone()),
            problems: wanted.problems.clone(),
            restart_for: wanted.restart_for.clone(),
            changes: if metrics.state == ServerState::Leader { self.inner.changes.shown() } else { Vec::new() },
            waiting: self.inner.members.waiting(),
            candidates: self.inner.members.candidates(),
            cannot_lead: self.staying().is_err() || !self.may_lead(),
        }
    }

    fn role(&self, state: &ServerState) -> &'static str {
        if self.fenced().is_some() {
            return "fenced";
        }
        match state {
            ServerState::Leader => "leader",
            ServerState::Follower => "follower",
            ServerState::Candidate => "candidate",
            ServerState::Learner if self.inner.members.outside().is_some() => "joining",
            ServerState::Learner if self.inner.peers.cluster().is_none() => "starting",
            ServerState::Learner => "learner",
            _ => "stopped",
        }
    }

    fn module_status(&self) -> Vec<admin::ModuleStatus> {
        let view = self.inner.reader.view();
        let wanted = self.inner.wanted.borrow().clone();
        let wished =
            |name: &str| wanted.wish.modules.iter().find(|wish| wish.name == name).map(|wish| wish.hash.clone());
        let of = |(name, active): (&str, &crate::state_machine::ActiveModule)| admin::ModuleStatus {
            name: name.into(),
            version: active.module.version().into(),
            hash: active.module.hash().0.to_vec().into(),
            generation: active.generation,
            file_hash: wished(name).unwrap_or_default(),
            size: active.module.size() as u64,
        };
        view.registry().iter().map(of).collect()
    }

    pub(super) fn own_exchange(&self) -> peer::ExchangeResponse {
        peer::ExchangeResponse {
            status: Some(self.own_status()),
            clock_ms: wall_clock_ms(),
            confirmed: Some(self.own_confirmed()),
            stranger: false,
        }
    }

    pub(super) fn recent_digests(&self) -> Vec<admin::IndexDigest> {
        said(self.inner.reader.recent_digests(usize::MAX))
    }

    /// Hashes the state after entry `index`, or the present one if that is 0, on a query thread: it reads everything.
    pub(super) async fn hash_state(&self, index: u64) -> Result<admin::DeepCheckResponse, ServiceError> {
        let view = match index {
            0 => self.inner.reader.view(),
            _ => match self.state_after(index).await {
                Ok(view) => view,
                Err(at) => return Ok(admin::DeepCheckResponse { index: at, ..Default::default() }),
            },
        };
        let hashed = self.inner.queries.run(None, move || Ok((view.state_hash()?, *view.progress())));
        let (hash, progress) = hashed.await?;
        Ok(admin::DeepCheckResponse {
            index: progress.index(),
            hash: hash.hash.to_vec().into(),
            digest: progress.digest.0.to_vec().into(),
            keys: hash.keys,
            bytes: hash.bytes,
        })
    }

    /// The state right after entry `index`; or where this node is, if it was past that already or does not come to it soon.
    async fn state_after(&self, index: u64) -> Result<Arc<View>, u64> {
        let (keep, kept) = oneshot::channel();
        let appointment = self.inner.reader.appoint(index, move |what| {
            // Who asked may have gone.
            let _ = keep.send(what);
        });
        let kept = tokio::time::timeout(APPOINTMENT, kept).await;
        drop(appointment);
        match kept {
            Ok(Ok(Kept::There(view))) => Ok(view),
            Ok(Ok(Kept::Missed(at))) => Err(at),
            Ok(Err(_)) | Err(_) => Err(self.published()),
        }
    }

    /// Whether clients should be sent here, check by check.
    pub(super) fn readiness(&self) -> Readiness {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let own = self.inner.peers.own();
        let caught_up = self.inner.lag.lock().check(self.published(), Instant::now());
        let undecided = self.inner.undecided.lock().clone();
        let check = |fine: bool, otherwise: &str| if fine { Ok(()) } else { Err(otherwise.to_owned()) };
        let is_voter = metrics.committed_membership_config.voter_ids().any(|id| id == own);
        let no_voter = match self.inner.members.outside() {
            Some(why) => format!("this node is not a member of its cluster yet: {why}"),
            None => "this node is not a voter of a cluster yet".to_owned(),
        };
        let recovered = self.inner.recovered.load(Ordering::Relaxed);
        let clock_off = self.inner.clock_off.load(Ordering::Relaxed);
        // An operator reads them from top to bottom: what is first explains what follows.
        let checks = vec![
            Check::needed("not_draining", check(self.staying().is_ok(), "the node is stopping")),
            Check::needed("not_fenced", self.fenced().map_or(Ok(()), Err)),
            Check::needed("states_agree", undecided.map_or(Ok(()), Err)),
            Check::needed("recovered", check(recovered, "it is catching up with the log after its start")),
            Check::needed("voter", check(is_voter, &no_voter)),
            Check::needed("leader_known", self.is_led()),
            Check::needed("module_active", check(self.has_begun(), "no module is active yet")),
            Check::needed("caught_up", caught_up),
            // Its answers are right all the same, since log time is the majority's: no reason to send clients elsewhere.
            Check::shown(
                "clock",
                check(!clock_off, "this machine's clock is more than 5 s off the majority's; it does not lead"),
            ),
        ];
        Readiness { checks }
    }
}

fn said(digests: Vec<(u64, Digest)>) -> Vec<admin::IndexDigest> {
    digests.into_iter().map(|(index, digest)| admin::IndexDigest { index, digest: digest.0.to_vec().into() }).collect()
}

fn refused_in_words(row: &command::Activation) -> String {
    let why = refused(row).map(why_refused).unwrap_or_default();
    let (name, version, hash, index) = (&row.name, &row.version, short(&row.hash), row.index);
    format!(
        "module {name}: the files want {version} {hash}, which was refused at index {index}; what was active stays: {why}"
    )
}

fn refused(row: &command::Activation) -> Option<&command::Refused> {
    match &row.outcome {
        Some(command::activation::Outcome::Refused(refused)) => Some(refused),
        _ => None,
    }
}

/// In one word, for a metric.
pub(super) fn refused_by(row: &command::Activation) -> &'static str {
    let Some(refused) = refused(row) else { return "unknown" };
    match (TrapClass::from_number(refused.trap), Refusal::from_number(refused.refusal)) {
        (Some(class), _) => class.name(),
        (None, Some(Refusal::ServiceTaken)) => "service_taken",
        (None, Some(Refusal::MigrationFailed)) => "migrate",
        (None, Some(_)) => "log",
        (None, None) => "check",
    }
}

fn warnings_of(node: &admin::NodeStatus) -> Vec<String> {
    let waiting = node.waiting.iter().cloned();
    let refused = node.candidates.iter().map(|one| {
        let (name, id) = (&one.name, crate::ids::NodeId(one.id));
        format!("{name} ({id}) at {} asks to be let in: {}", one.peer_addr, one.refused)
    });
    let silent = (!node.reachable).then(|| format!("{} does not answer", node.name));
    let problems = node.problems.iter().map(|problem| format!("{}: {problem}", node.name));
    let restart = node.restart_for.iter().map(|key| format!("{} obeys {key} only after a restart", node.name));
    silent.into_iter().chain(problems).chain(restart).chain(waiting).chain(refused).collect()
}

pub(super) fn short(hash: &[u8]) -> String {
    crate::ids::hex(&hash[..hash.len().min(6)])
}
