//! What operators ask for: `balsa module push`, `retry`, `drop` and `history`, on whichever node they reach.
//!
//! All of it is decided on the leader. Another node brings the bytes into the log through it, part by part, asks it to
//! conduct the change, and passes on what it says.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use prost::Message;
use tokio::sync::mpsc;

use super::change::{Proposal, Undecided, Watcher};
use super::{ATTEMPT, Shown, parts};
use crate::command::{Outcome, Refusal};
use crate::ids::{ModuleHash, NodeId};
use crate::node::{Leader, Node, propose};
use crate::proto::admin::module_push_response::Event;
use crate::proto::command as pb;
use crate::proto::command::command::Kind;
use crate::proto::{admin, peer};
use crate::raft::peer_service::why_undecided;
use crate::raft::peers::Purpose;
use crate::raft::types::Member;
use crate::service::{Events, Executed, Place, ServiceError};

/// What a push has to say and its reader has not read yet.
const EVENTS: usize = 64;
/// How long an operator's request looks for a leader.
const LEADER: Duration = Duration::from_secs(10);

/// A change that somebody watches as it goes; it is called off when nobody does any more.
struct ForOperator {
    shown: Shown,
    events: mpsc::Sender<Result<admin::ModulePushResponse, ServiceError>>,
    without: Vec<String>,
}

impl Watcher for ForOperator {
    fn stage(&self, stage: String) {
        if self.shown.stage(&stage) {
            // A reader that is slow misses a stage, not the end.
            let _ = self.events.try_send(Ok(event(Event::Stage(stage))));
        }
    }

    fn still_wanted(&self) -> bool {
        !self.events.is_closed()
    }

    fn without(&self) -> Vec<String> {
        self.without.clone()
    }
}

impl Node {
    /// What became of `module`, or of all modules.
    pub(in crate::node) async fn history(&self, module: Option<&str>) -> Result<Vec<pb::Activation>, ServiceError> {
        self.serving()?;
        self.inner.reads.read_index().await?;
        let mut rows =
            self.inner.reader.view().history(module).map_err(|fault| ServiceError::NotReady(fault.to_string()))?;
        rows.sort_by_key(|row| row.index);
        Ok(rows)
    }

    /// A place for a module that an operator brings. Each is held in memory until it is decided, and that can take as long as
    /// somebody waits for it.
    pub(in crate::node) fn place(&self) -> Result<Place, ServiceError> {
        let place = self.inner.pushes.clone().try_acquire_owned();
        place.map_err(|_| ServiceError::Overloaded("too many modules are being pushed"))
    }

    /// Makes `wasm` a module; the stream says what is being done, and at last what came of it.
    pub(in crate::node) fn push(&self, push: admin::ModulePush, wasm: Bytes, place: Place) -> Events {
        let (events, receiver) = mpsc::channel(EVENTS);
        let node = self.clone();
        tokio::spawn(async move {
            let last = node.push_through(push, wasm, &events).await;
            drop(place);
            let _ = events.send(last.map(|row| event(Event::Done(row)))).await;
        });
        tokio_stream::wrappers::ReceiverStream::new(receiver).boxed()
    }

    async fn push_through(
        &self,
        push: admin::ModulePush,
        wasm: Bytes,
        events: &mpsc::Sender<Result<admin::ModulePushResponse, ServiceError>>,
    ) -> Result<pb::Activation, ServiceError> {
        let hash = ModuleHash::of(&wasm);
        let wanted_by = match push.pushed_by.is_empty() {
            true => format!("pushed through {}", self.inner.identity.member().name),
            false => format!("pushed by {}", push.pushed_by),
        };
        let request = peer::ChangeRequest {
            hash: hash.0.to_vec().into(),
            allow_breaking: push.allow_breaking,
            without: push.without,
            proposed_by: wanted_by,
        };
        loop {
            self.accepting()?;
            let done = match self.leader() {
                Leader::This => self.change_for_operator(request.clone(), hash, wasm.clone(), events.clone()).await,
                Leader::Other(..) => {
                    self.upload_through_leader(hash, &wasm, events).await?;
                    self.change_through_leader(request.clone(), events).await
                }
                Leader::Unknown => Err(ServiceError::NoLeader),
            };
            match done {
                // Nothing is lost by conducting it again: what was activated is found active.
                Err(ServiceError::NotLeader { .. } | ServiceError::NoLeader | ServiceError::OutcomeUnknown)
                    if !events.is_closed() =>
                {
                    let _ = events.try_send(Ok(event(Event::Stage("looking for the leader".into()))));
                    self.leader_news(Duration::from_millis(200)).await;
                }
                done => return done,
            }
        }
    }

    /// As leader: conducts an operator's change.
    async fn change_for_operator(
        &self,
        request: peer::ChangeRequest,
        hash: ModuleHash,
        wasm: Bytes,
        events: mpsc::Sender<Result<admin::ModulePushResponse, ServiceError>>,
    ) -> Result<pb::Activation, ServiceError> {
        let proposal = Proposal {
            name: None,
            hash,
            wasm,
            allow_breaking: request.allow_breaking,
            fuel: None,
            wanted_by: request.proposed_by,
            source: pb::Source::Push,
            decides: Bytes::new(),
        };
        let shown = Shown::new(self, "", proposal.hash, &proposal.wanted_by);
        let watcher = ForOperator { shown, events, without: request.without };
        let row = self.change(&proposal, &watcher).await.map_err(undecided)?;
        super::said(&row);
        Ok(row)
    }

    /// As leader, for another node: conducts the change of what was uploaded.
    pub(in crate::node) async fn change_uploaded(&self, request: peer::ChangeRequest) -> Result<Events, ServiceError> {
        self.accepting()?;
        if !self.is_leader() {
            return Err(ServiceError::NotLeader { leader: None });
        }
        let hash = ModuleHash::try_from(&request.hash[..])
            .map_err(|_| ServiceError::Module("a hash has 32 bytes".to_owned()))?;
        let place = self.place()?;
        let wasm = self.uploaded(hash).await?;
        let (events, receiver) = mpsc::channel(EVENTS);
        let node = self.clone();
        tokio::spawn(async move {
            let last = node.change_for_operator(request, hash, wasm, events.clone()).await;
            drop(place);
            let _ = events.send(last.map(|row| event(Event::Done(row)))).await;
        });
        Ok(tokio_stream::wrappers::ReceiverStream::new(receiver).boxed())
    }

    /// The bytes of an upload that was applied; they can be read a moment later.
    async fn uploaded(&self, hash: ModuleHash) -> Result<Bytes, ServiceError> {
        let mut published = self.inner.published.clone();
        let look = async {
            loop {
                published.mark_unchanged();
                let view = self.inner.reader.view();
                // They may be many.
                let read = tokio::task::spawn_blocking(move || view.wasm(hash)).await;
                let read = read.map_err(|_| ServiceError::ShuttingDown)?;
                if let Some(wasm) = read.map_err(|fault| ServiceError::NotReady(fault.to_string()))? {
                    return Ok(wasm);
                }
                published.changed().await.map_err(|_| ServiceError::ShuttingDown)?;
            }
        };
        let missing = || ServiceError::Module("the module's bytes were not uploaded, or have expired".to_owned());
        tokio::time::timeout(ATTEMPT, look).await.unwrap_or_else(|_| Err(missing()))
    }

    async fn upload_through_leader(
        &self,
        hash: ModuleHash,
        wasm: &Bytes,
        events: &mpsc::Sender<Result<admin::ModulePushResponse, ServiceError>>,
    ) -> Result<(), ServiceError> {
        for (stage, part) in parts(hash, wasm) {
            if events.is_closed() {
                return Err(ServiceError::NotLeader { leader: None });
            }
            let _ = events.try_send(Ok(event(Event::Stage(stage))));
            self.operate(Kind::Upload(part), &[]).await?;
        }
        Ok(())
    }

    async fn change_through_leader(
        &self,
        request: peer::ChangeRequest,
        events: &mpsc::Sender<Result<admin::ModulePushResponse, ServiceError>>,
    ) -> Result<pb::Activation, ServiceError> {
        let Leader::Other(id, member) = self.leader() else {
            return Err(ServiceError::NotLeader { leader: None });
        };
        let peers = &self.inner.peers;
        let why = |status: tonic::Status| why_undecided(&status);
        let mut client = peers
            .client(&member.peer_addr, Purpose::Forward)
            .map_err(|error| ServiceError::NotReady(error.to_string()))?;
        let mut stream = client.change(peers.addressed(id, request)).await.map_err(why)?.into_inner();
        loop {
            let said = tokio::select! {
                said = stream.message() => said.map_err(why)?,
                // The leader calls it off when this stream is dropped. It may have nothing to say for long.
                () = events.closed() => None,
            };
            let Some(said) = said else { return Err(ServiceError::NotLeader { leader: None }) };
            if let Some(Event::Done(row)) = said.event {
                return Ok(row);
            }
            // As in `ForOperator`, a slow reader misses a stage.
            let _ = events.try_send(Ok(said));
        }
    }

    /// Tries again what was refused or waits: of this name, or (empty) of all. Their names.
    pub(in crate::node) async fn retry(&self, name: &str, without: &[String]) -> Result<Vec<String>, ServiceError> {
        self.serving()?;
        self.inner.reads.read_index().await?;
        let view = self.inner.reader.view();
        let decided = view.decisions().map_err(|fault| ServiceError::NotReady(fault.to_string()))?;
        let refused = decided.iter().filter(|(_, decided)| decided.refused).map(|(name, _)| name.clone());
        let waiting = self.agreed_wish().map(|wish| wish.modules).unwrap_or_default().into_iter();
        let waiting = waiting.filter(|module| decided.get(&module.name).is_none_or(|last| last.wish != module.wish));
        let mut names: BTreeSet<_> = refused.chain(waiting.map(|module| module.name)).collect();
        names.retain(|candidate| name.is_empty() || candidate == name);
        for name in &names {
            self.operate(Kind::Retry(pb::Retry { name: name.clone() }), without).await?;
        }
        Ok(names.into_iter().collect())
    }

    /// Stops a module that no files want and deletes its state; how many rows that were.
    pub(in crate::node) async fn drop_module(&self, name: &str) -> Result<u64, ServiceError> {
        self.serving()?;
        self.inner.reads.read_index().await?;
        let view = self.inner.reader.view();
        let Some(row) = view.registry().row(name) else {
            let names: Vec<_> = view.registry().rows().map(|row| row.name.as_str()).collect();
            return Err(ServiceError::Module(format!("no module is called {name:?}; there are: {}", names.join(", "))));
        };
        let decided = view.decisions().map_err(|fault| ServiceError::NotReady(fault.to_string()))?;
        if decided.get(name).is_some_and(|last| !last.wish.is_empty()) {
            return Err(ServiceError::Module(format!(
                "the files of the cluster want module {name}: take its [[module]] out of balsa.toml first (the built-in module \
                 serves as long as there is no [[module]] at all)"
            )));
        }
        let by = format!("an operator, through {}", self.inner.identity.member().name);
        if row.serving() == pb::Serving::Serving {
            let stop = pb::Deactivate {
                name: name.to_owned(),
                expected_generation: row.generation,
                proposed_by: by.clone(),
                source: pb::Source::Push.into(),
                ..pb::Deactivate::default()
            };
            self.operate(Kind::Deactivate(stop), &[]).await?;
        }
        let mut rows = 0;
        loop {
            let drop = pb::Drop { name: name.to_owned(), proposed_by: by.clone() };
            let dropped = match self.outcome(Kind::Drop(drop), &[]).await? {
                // An attempt whose answer was lost has dropped the last rows.
                Outcome::Refused(Refusal::UnknownModule) => return Ok(rows),
                outcome => pb::Dropped::decode(done(outcome)?).unwrap_or_default(),
            };
            rows += dropped.rows;
            if !dropped.more {
                return Ok(rows);
            }
        }
    }

    /// Has an entry about modules logged, wherever the leader is, and done.
    async fn operate(&self, kind: Kind, without: &[String]) -> Result<(), ServiceError> {
        done(self.outcome(kind, without).await?).map(drop)
    }

    /// The same; what came of it.
    async fn outcome(&self, kind: Kind, without: &[String]) -> Result<Outcome, ServiceError> {
        let until = Instant::now() + LEADER;
        loop {
            let attempt = match self.leader() {
                Leader::This => self.operate_here(kind.clone(), without).await,
                Leader::Other(id, member) => {
                    let command = pb::Command { kind: Some(kind.clone()), ..pb::Command::default() };
                    let request =
                        peer::ProposeRequest { command: command.encode_to_vec().into(), without: without.to_vec() };
                    self.forward_proposal(id, &member, request).await
                }
                Leader::Unknown => Err(ServiceError::NoLeader),
            };
            match attempt {
                Ok(executed) => return Ok(executed.outcome),
                // All of these entries may be logged twice.
                Err(_) if Instant::now() < until => self.leader_news(Duration::from_millis(100)).await,
                Err(error) => return Err(error),
            }
        }
    }

    async fn forward_proposal(
        &self,
        id: NodeId,
        member: &Member,
        request: peer::ProposeRequest,
    ) -> Result<Executed, ServiceError> {
        let peers = &self.inner.peers;
        let mut client = peers
            .client(&member.peer_addr, Purpose::Forward)
            .map_err(|error| ServiceError::NotReady(error.to_string()))?;
        let call = client.propose(peers.addressed(id, request));
        match tokio::time::timeout(ATTEMPT, call).await {
            Ok(Ok(response)) => propose::answered(response.into_inner()),
            _ => Err(ServiceError::OutcomeUnknown),
        }
    }

    /// As leader: logs an entry that an operator may ask for.
    pub(in crate::node) async fn operate_for_peer(
        &self,
        request: peer::ProposeRequest,
    ) -> Result<Executed, ServiceError> {
        let kind = pb::Command::decode(request.command).ok().and_then(|command| command.kind);
        match kind {
            Some(kind @ (Kind::Upload(_) | Kind::Deactivate(_) | Kind::Drop(_) | Kind::Retry(_))) => {
                self.operate_here(kind, &request.without).await
            }
            _ => Err(ServiceError::Module("only uploads, stops, drops and retries are taken here".to_owned())),
        }
    }

    async fn operate_here(&self, kind: Kind, without: &[String]) -> Result<Executed, ServiceError> {
        self.accepting()?;
        if let Kind::Retry(retry) = &kind
            && let Some(wish) = self.agreed_wish()
            && let Some(wish) = wish.modules.iter().find(|module| module.name == retry.name)
        {
            self.inner.changes.excuse(wish, without);
        }
        let bytes = if let Kind::Upload(part) = &kind { part.data.len() } else { 0 };
        let reply = self.propose(kind, bytes, Instant::now() + ATTEMPT).await?;
        let index = reply.index;
        let done = propose::executed(reply)?;
        let _ = self.wait_published(index, Instant::now() + ATTEMPT).await;
        Ok(done)
    }
}

/// The bytes of an outcome that is one.
fn done(outcome: Outcome) -> Result<Bytes, ServiceError> {
    match outcome {
        Outcome::Ok(bytes) => Ok(bytes),
        Outcome::Refused(Refusal::UploadsFull) => {
            Err(ServiceError::Overloaded("too many bytes of other modules are on their way"))
        }
        Outcome::Refused(refusal) => Err(ServiceError::Module(refusal.to_string())),
        Outcome::Status(_) | Outcome::Trap(_) => Err(ServiceError::OutcomeUnknown),
    }
}

fn event(event: Event) -> admin::ModulePushResponse {
    admin::ModulePushResponse { event: Some(event) }
}

fn undecided(why: Undecided) -> ServiceError {
    match why {
        Undecided::Service(error) => error,
        Undecided::Here(why) => ServiceError::NotReady(why),
        other => ServiceError::Module(other.to_string()),
    }
}
