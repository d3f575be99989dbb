//! One change of a module, conducted by the leader.
//!
//! ```text
//! bytes ─▶ check ─▶ upload, in parts ─▶ every voter checks and compiles ─▶ Activate ─▶ recorded: activated or refused
//!            │                                  │ invalid
//!            └──────────── Refuse ◀─────────────┘
//! ```
//!
//! Everything before `Activate` can be repeated, by this leader or the next one: parts that are there already change nothing, a voter that
//! has compiled says yes at once. The check is made against one generation of the module; if another change comes first, the
//! log refuses what was made for the old one, and the check is made anew.
//!
//! A no of the check or of a voter is a fact about the module, and recorded. A voter that is silent, behind or short of
//! memory is no such fact: the change waits for it, says so in `status`, and an operator may go on without it if a
//! majority is ready.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::async_runtime::WatchReceiver;

use crate::command::{Outcome, Refusal};
use crate::ids::{ModuleHash, NodeId};
use crate::limits::REASON_BYTES_MAX;
use crate::node::modules::parts;
use crate::node::{Node, propose};
use crate::proto::command as pb;
use crate::proto::peer::PreflightRequest;
use crate::proto::peer::preflight_response::Verdict;
use crate::raft::peers::Purpose;
use crate::raft::types::Member;
use crate::service::ServiceError;
use crate::state_machine::{Fit, View, broken};
use crate::wasm::Module;

/// How long one proposal may take.
const PROPOSAL: Duration = Duration::from_secs(10);
/// How long a voter may take to compile. It goes on when the answer is given up, and the next time it is quick.
const PREFLIGHT: Duration = Duration::from_secs(60);
/// How long nobody looks whether the change is still wanted, while it waits for something.
const LOOK: Duration = Duration::from_millis(500);
/// Between two rounds of asking the voters that were not ready: doubled each time, from and to.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// What is to become a module, and how.
#[derive(Debug, Clone)]
pub(super) struct Proposal {
    /// The name that the files give it; `None`: its own.
    pub(super) name: Option<String>,
    pub(super) wasm: Bytes,
    pub(super) hash: ModuleHash,
    pub(super) allow_breaking: bool,
    /// Its own fuel, as the files say; a push leaves it as it was.
    pub(super) fuel: Option<pb::Fuel>,
    /// For the history, in words.
    pub(super) wanted_by: String,
    pub(super) source: pb::Source,
    /// The wish of the files that this answers; empty: none.
    pub(super) decides: Bytes,
}

/// Who watches a change, and may call it off.
pub(super) trait Watcher: Sync {
    /// What is being done, in words.
    fn stage(&self, stage: String);
    /// Whether it is still wanted.
    fn still_wanted(&self) -> bool;
    /// Nodes that need not be ready.
    fn without(&self) -> Vec<String>;
}

/// Why a change was not decided.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Undecided {
    /// Another leader, a full queue, a stop: it may be tried again.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The files have changed meanwhile.
    #[error("it is not wanted any more")]
    Superseded,
    /// This node, not the module.
    #[error("the leader cannot check it: {0}")]
    Here(String),
    /// It is no module, and does not even say which one it would be.
    #[error("{0}")]
    Invalid(String),
    /// The log said no, and recorded it at this index.
    #[error("refused at index {0}")]
    Recorded(u64),
    /// The log said no without recording it.
    #[error("{0}")]
    Refused(Refusal),
}

/// What came of asking the voters.
enum Round {
    /// All are ready that must be.
    Ready,
    /// It is the module's fault.
    Invalid(String),
    /// Somebody is to be asked again.
    Waiting,
}

/// What the change begins from, in one state.
struct Ground {
    name: String,
    generation: u64,
    /// Of the new module; empty: not known.
    version: String,
    /// That the module has had.
    fuel: Option<pb::Fuel>,
}

impl Node {
    /// Conducts one change to its end: a row of the history, of an activation or a refusal.
    pub(super) async fn change(&self, proposal: &Proposal, watcher: &dyn Watcher) -> Result<pb::Activation, Undecided> {
        loop {
            match self.change_once(proposal, watcher).await {
                // Another change came first, or the upload has expired: once more, from what is there now.
                Err(Undecided::Refused(Refusal::GenerationMismatch | Refusal::NotUploaded)) => {}
                Err(Undecided::Refused(Refusal::UploadsFull)) => {
                    watcher.stage("waiting until other uploads are activated or have expired".into());
                    self.pause(BACKOFF.1, watcher).await?;
                }
                done => return done,
            }
            self.go_on(watcher)?;
        }
    }

    /// Waits, unless there is no reason to go on, or a new one to go on at once: an operator has excused somebody.
    async fn pause(&self, time: Duration, watcher: &dyn Watcher) -> Result<(), Undecided> {
        let (until, without) = (Instant::now() + time, watcher.without());
        while Instant::now() < until && watcher.without() == without {
            tokio::time::sleep(LOOK.min(time)).await;
            self.go_on(watcher)?;
        }
        Ok(())
    }

    async fn change_once(&self, proposal: &Proposal, watcher: &dyn Watcher) -> Result<pb::Activation, Undecided> {
        watcher.stage("checking".into());
        let view = self.inner.reader.view();
        let ground = Ground::of(proposal, &view);
        let module = match self.inner.compiler.load(proposal.wasm.clone()).await {
            Ok(module) => module,
            Err(why) if why.is_of_this_node() => return Err(Undecided::Here(why.to_string())),
            Err(why) => {
                let ground = ground.ok_or_else(|| Undecided::Invalid(why.to_string()))?;
                return self.refuse(proposal, &ground, why.to_string()).await;
            }
        };
        let ground = ground.unwrap_or_else(|| Ground::named(module.name(), &view)).with(&module);
        if let Some(objection) = self.objection(proposal, &ground.name, &module, &view).await? {
            return self.refuse(proposal, &ground, objection).await;
        }
        let serves = view.registry().get(&ground.name).is_some_and(|active| active.module.hash() == proposal.hash);
        if !serves {
            let uploaded = self.upload(proposal, watcher).await?;
            if let Some(no) = self.preflight(proposal, uploaded, watcher).await? {
                return self.refuse(proposal, &ground, no).await;
            }
        }
        watcher.stage("activating".into());
        self.activate(proposal, &ground).await
    }

    /// What speaks against it, in words: its name, what other modules serve, what clients would notice, the state.
    async fn objection(
        &self,
        proposal: &Proposal,
        name: &str,
        module: &Module,
        view: &View,
    ) -> Result<Option<String>, Undecided> {
        let fit =
            view.fit(name, module, proposal.allow_breaking).map_err(|fault| Undecided::Here(fault.to_string()))?;
        let row = match fit {
            Fit::Fits => return Ok(None),
            Fit::Objection(why) => return Ok(Some(why)),
            Fit::Unlike(row) => row,
        };
        let old = match view.registry().get(name) {
            Some(active) => active.module.clone(),
            None => self.stopped(&row).await?,
        };
        Ok(broken(name, &old, module))
    }

    /// The code of a module that does not serve, to compare with.
    async fn stopped(&self, row: &pb::ActiveModule) -> Result<Module, Undecided> {
        let here = |why: String| Undecided::Here(why);
        let hash = ModuleHash::try_from(&row.hash[..]).map_err(|_| here("the registry is damaged".into()))?;
        let stored = self.inner.compiler.load_stored(hash, &self.inner.reader).await;
        let stored = stored.map_err(|why| here(why.to_string()))?;
        stored.ok_or_else(|| here(format!("the code of {} {} is missing", row.name, row.version)))
    }

    /// Brings the bytes into the log; the index at which all are there. What is there already is not sent again.
    async fn upload(&self, proposal: &Proposal, watcher: &dyn Watcher) -> Result<u64, Undecided> {
        let view = self.inner.reader.view();
        if view.has_wasm(proposal.hash).map_err(|fault| Undecided::Here(fault.to_string()))? {
            return Ok(view.index());
        }
        let mut index = 0;
        for (stage, part) in parts(proposal.hash, &proposal.wasm) {
            watcher.stage(stage);
            index = self.log_change(pb::command::Kind::Upload(part)).await?;
            self.go_on(watcher)?;
        }
        Ok(index)
    }

    /// Asks every voter to check and compile it, and again those that are not ready. `Some` is a no that is the module's fault.
    async fn preflight(
        &self,
        proposal: &Proposal,
        index: u64,
        watcher: &dyn Watcher,
    ) -> Result<Option<String>, Undecided> {
        let mut ready = BTreeSet::new();
        let mut pause = BACKOFF.0;
        loop {
            let request = PreflightRequest { hash: proposal.hash.0.to_vec().into(), index };
            match self.preflight_round(&request, &mut ready, watcher).await? {
                Round::Ready => return Ok(None),
                Round::Invalid(why) => return Ok(Some(why)),
                Round::Waiting => {}
            }
            self.pause(pause, watcher).await?;
            pause = (pause * 2).min(BACKOFF.1);
            // Whoever comes back late needs the bytes too, and an upload does not wait for ever.
            if !self.inner.reader.view().has_wasm(proposal.hash).map_err(|fault| Undecided::Here(fault.to_string()))? {
                return Err(Undecided::Refused(Refusal::NotUploaded));
            }
        }
    }

    /// Asks those that have not said yes, until all have answered or nobody need wait for the others.
    async fn preflight_round(
        &self,
        request: &PreflightRequest,
        ready: &mut BTreeSet<NodeId>,
        watcher: &dyn Watcher,
    ) -> Result<Round, Undecided> {
        let voters = self.voter_members();
        let majority = voters.len() / 2 + 1;
        ready.retain(|id| voters.iter().any(|(voter, _)| voter == id));
        let open: Vec<_> = voters.into_iter().filter(|(id, _)| !ready.contains(id)).collect();
        let mut waiting: BTreeMap<_, _> =
            open.iter().map(|(_, member)| (member.name.clone(), "it checks and compiles".to_owned())).collect();
        let mut asked: FuturesUnordered<_> =
            open.into_iter().map(|(id, member)| self.preflight_of(id, member, request.clone())).collect();
        // Nothing serves that could be disturbed: a cluster may begin with a majority.
        let beginning = self.inner.reader.catalog().modules.is_empty();
        loop {
            let without = watcher.without();
            let excused = |name: &String| beginning || without.contains(name);
            if waiting.is_empty() || (ready.len() >= majority && waiting.keys().all(excused)) {
                return Ok(Round::Ready);
            }
            watcher.stage(waits_for(&waiting));
            self.go_on(watcher)?;
            match tokio::time::timeout(LOOK, asked.next()).await {
                Err(_) => {}
                Ok(None) => return Ok(Round::Waiting),
                Ok(Some((id, name, Verdict::Ok(_)))) => {
                    ready.insert(id);
                    waiting.remove(&name);
                }
                Ok(Some((_, name, Verdict::Invalid(why)))) => return Ok(Round::Invalid(format!("{name} says: {why}"))),
                Ok(Some((_, name, Verdict::CannotHere(why)))) => drop(waiting.insert(name, why)),
            }
        }
    }

    async fn preflight_of(&self, id: NodeId, member: Member, request: PreflightRequest) -> (NodeId, String, Verdict) {
        let answer = async {
            if id == self.inner.peers.own() {
                return self.preflight_here(request).await.verdict;
            }
            let peers = &self.inner.peers;
            let mut client = peers.client(&member.peer_addr, Purpose::Forward).ok()?;
            client.preflight(peers.addressed(id, request)).await.ok()?.into_inner().verdict
        };
        let silent = || Verdict::CannotHere("it does not answer".into());
        let verdict = tokio::time::timeout(PREFLIGHT, answer).await.ok().flatten().unwrap_or_else(silent);
        (id, member.name, verdict)
    }

    async fn activate(&self, proposal: &Proposal, ground: &Ground) -> Result<pb::Activation, Undecided> {
        let activate = pb::Activate {
            name: ground.name.clone(),
            expected_generation: ground.generation,
            wasm: Bytes::new(),
            proposed_by: proposal.wanted_by.clone(),
            hash: proposal.hash.0.to_vec().into(),
            source: proposal.source.into(),
            decides: proposal.decides.clone(),
            fuel: if proposal.source == pb::Source::Push { ground.fuel } else { proposal.fuel },
        };
        let index = match self.log_change(pb::command::Kind::Activate(activate)).await {
            Ok(index) => index,
            // Recorded in the history, at its index.
            Err(Undecided::Recorded(index)) => index,
            Err(error) => return Err(error),
        };
        self.recorded(&ground.name, index)
    }

    /// Records a no.
    async fn refuse(
        &self,
        proposal: &Proposal,
        ground: &Ground,
        mut reason: String,
    ) -> Result<pb::Activation, Undecided> {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        let refuse = pb::Refuse {
            name: ground.name.clone(),
            expected_generation: ground.generation,
            hash: proposal.hash.0.to_vec().into(),
            version: ground.version.clone(),
            reason,
            proposed_by: proposal.wanted_by.clone(),
            source: proposal.source.into(),
            decides: proposal.decides.clone(),
        };
        let index = self.log_change(pb::command::Kind::Refuse(refuse)).await?;
        self.recorded(&ground.name, index)
    }

    /// The row of the history that was written at `index`, or the last one, if the entry changed nothing.
    fn recorded(&self, name: &str, index: u64) -> Result<pb::Activation, Undecided> {
        let history =
            self.inner.reader.view().history(Some(name)).map_err(|fault| Undecided::Here(fault.to_string()))?;
        let at = history.iter().rposition(|row| row.index <= index);
        at.map(|at| history[at].clone()).ok_or_else(|| Undecided::Here("the history has no row of it".into()))
    }

    /// Proposes an entry about modules; the index at which it took effect, and whose state can be read here. That of a refusal
    /// can be, too: what comes next begins from what spoke against this.
    pub(super) async fn log_change(&self, kind: pb::command::Kind) -> Result<u64, Undecided> {
        let bytes = if let pb::command::Kind::Upload(part) = &kind { part.data.len() } else { 0 };
        let reply = self.propose(kind, bytes, Instant::now() + PROPOSAL).await?;
        self.wait_published(reply.index, Instant::now() + PROPOSAL).await?;
        match propose::decode(reply.outcome)? {
            Outcome::Ok(_) => Ok(reply.index),
            Outcome::Refused(Refusal::InvalidModule | Refusal::ServiceTaken | Refusal::MigrationFailed) => {
                if let Some(detail) = reply.trap_detail {
                    tracing::warn!(index = reply.index, "a module was refused: {detail}");
                }
                Err(Undecided::Recorded(reply.index))
            }
            Outcome::Refused(refusal) => Err(Undecided::Refused(refusal)),
            Outcome::Status(_) | Outcome::Trap(_) => unreachable!("only calls end so"),
        }
    }

    /// Whether there is still a reason to go on.
    fn go_on(&self, watcher: &dyn Watcher) -> Result<(), Undecided> {
        self.accepting()?;
        if !self.is_leader() {
            return Err(ServiceError::NotLeader { leader: None }.into());
        }
        if watcher.still_wanted() { Ok(()) } else { Err(Undecided::Superseded) }
    }

    /// Everybody who votes, with their addresses, this node included.
    fn voter_members(&self) -> Vec<(NodeId, Member)> {
        let metrics = self.inner.server.borrow_watched();
        let membership = &metrics.membership_config;
        let voters = membership.voter_ids().filter_map(|id| Some((id, membership.get_node(&id)?.clone())));
        voters.collect()
    }
}

impl Ground {
    /// For a proposal that says its name.
    fn of(proposal: &Proposal, view: &View) -> Option<Self> {
        proposal.name.as_deref().map(|name| Self::named(name, view))
    }

    fn named(name: &str, view: &View) -> Self {
        let row = view.registry().row(name).cloned().unwrap_or_default();
        Self { name: name.to_owned(), generation: row.generation, version: String::new(), fuel: row.fuel }
    }

    fn with(self, module: &Module) -> Self {
        Self { version: module.version().to_owned(), ..self }
    }
}

fn waits_for(nodes: &BTreeMap<String, String>) -> String {
    let shown: Vec<_> = nodes.iter().map(|(name, why)| format!("{name} ({why})")).collect();
    format!("waiting for {}", shown.join(", "))
}
