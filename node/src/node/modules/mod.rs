//! The life of a module on the nodes: who wants what, and what the leader does about it.
//!
//! ```text
//! files of each node ─▶ wish ─▶ exchanged every second ─▶ the same on a majority of voters?
//!                                                                │ yes, and not answered yet ([`wishes`])
//!                                                                ▼
//! an operator's push ───────────────────────────────────▶ a change, conducted by the leader ([`change`])
//!                                                                │ asks every voter ([`preflight`])
//!                                                                ▼
//!                                             Activate or Refuse in the log, and in the history
//! ```
//!
//! Nothing of this is remembered outside the log: a new leader sees the same wishes and the same answers, and goes on. So a
//! change may be conducted twice, by two leaders; the log takes one of them.

mod change;
mod operators;
mod preflight;
mod wishes;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

use self::change::{Proposal, Undecided, Watcher};
use self::wishes::Open;
use super::Node;
use super::duties::PROPOSAL;
use crate::files;
use crate::ids::{ModuleHash, hex};
use crate::limits::{MODULE_BYTES_MAX, MODULE_PART_BYTES_MAX};
use crate::proto::command as pb;
use crate::proto::{admin, peer};
use crate::raft::clock::wall_clock_ms;
use crate::raft::peers::Purpose;
use crate::state_machine::clamp;
use crate::wasm::embedded;

/// Changes that this node conducts, for `status`.
#[derive(Debug, Default)]
pub(super) struct Changes {
    running: Mutex<BTreeMap<u64, admin::Change>>,
    /// Files' wishes that have a task, by name.
    files: Mutex<BTreeMap<String, Bytes>>,
    /// Nodes that a change of this name need not wait for; an operator said so.
    excused: Mutex<BTreeMap<String, Vec<String>>>,
    next: AtomicU64,
}

impl Changes {
    /// As `status` shows them.
    pub(super) fn shown(&self) -> Vec<admin::Change> {
        self.running.lock().values().cloned().collect()
    }

    fn excuse(&self, name: &str, nodes: &[String]) {
        self.excused.lock().insert(name.to_owned(), nodes.to_vec());
    }

    fn excused(&self, name: &str) -> Vec<String> {
        self.excused.lock().get(name).cloned().unwrap_or_default()
    }
}

/// A change that is shown in `status` for as long as this lives.
struct Shown {
    node: Node,
    number: u64,
}

impl Shown {
    fn new(node: &Node, name: &str, hash: ModuleHash, wanted_by: &str) -> Self {
        let changes = &node.inner.changes;
        let number = changes.next.fetch_add(1, Ordering::Relaxed);
        let change = admin::Change {
            name: name.to_owned(),
            hash: hash.0.to_vec().into(),
            wanted_by: wanted_by.to_owned(),
            stage: "beginning".to_owned(),
            since_ms: wall_clock_ms(),
        };
        changes.running.lock().insert(number, change);
        Self { node: node.clone(), number }
    }

    /// Whether it was not shown before.
    fn stage(&self, stage: &str) -> bool {
        let mut running = self.node.inner.changes.running.lock();
        let Some(change) = running.get_mut(&self.number) else { return false };
        let new = change.stage != stage;
        change.stage = stage.to_owned();
        new
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.node.inner.changes.running.lock().remove(&self.number);
    }
}

/// A change that the files want, for as long as they do.
struct ForFiles {
    node: Node,
    shown: Shown,
    wish: admin::ModuleWish,
}

impl Watcher for ForFiles {
    fn stage(&self, stage: String) {
        if self.shown.stage(&stage) {
            tracing::info!(module = self.wish.name, "{stage}");
        }
    }

    fn still_wanted(&self) -> bool {
        self.node.agreed_wish().is_some_and(|wish| wish.modules.contains(&self.wish))
    }

    fn without(&self) -> Vec<String> {
        self.node.inner.changes.excused(&self.wish.name)
    }
}

impl Drop for ForFiles {
    fn drop(&mut self) {
        self.node.inner.changes.files.lock().remove(&self.wish.name);
    }
}

impl Node {
    /// What a majority of voters wants by their files.
    fn agreed_wish(&self) -> Option<admin::Wish> {
        let (wishes, voters) = self.wishes();
        files::agreed(wishes.values(), voters).cloned()
    }

    /// What the voters' files want, by node's name, as far as it was heard of lately; and how many voters there are.
    pub(super) fn wishes(&self) -> (BTreeMap<String, admin::Wish>, usize) {
        let (voters, own) = (self.voters(), self.inner.peers.own());
        let views = self.inner.views.lock();
        let heard = views.iter().filter(|(id, view)| view.is_fresh() && voters.contains(id));
        let mut wishes: BTreeMap<_, _> =
            heard.filter_map(|(_, view)| Some((view.status.name.clone(), view.status.wish.clone()?))).collect();
        if voters.contains(&own) {
            wishes.insert(self.inner.identity.member().name.clone(), self.inner.wanted.borrow().wish.clone());
        }
        (wishes, voters.len())
    }

    /// As leader: sees to it that what the files want is answered.
    pub(super) async fn follow_files(&self) {
        let Some(wish) = self.agreed_wish() else { return };
        let view = self.inner.reader.view();
        let decided = match view.decisions() {
            Ok(decided) => decided,
            Err(fault) => return self.inner.fatal.raise(fault),
        };
        let limits = wish.limits.map(|limits| clamp(limits.into()).into());
        for open in wishes::open(&admin::Wish { limits, ..wish }, &decided, view.limits()) {
            match open {
                Open::Limits(limits) => self.set_limits(limits).await,
                Open::Stop(name) => self.stop_module(&name, &view).await,
                Open::Activate(module) => self.start_change(module),
            }
        }
    }

    async fn set_limits(&self, limits: crate::limits::Replicated) {
        let set = pb::SetLimits { limits: Some(limits.into()) };
        if let Some(index) = self.propose_quietly(pb::command::Kind::SetLimits(set), "new limits").await {
            tracing::info!(index, ?limits, "these limits are in force");
            let _ = self.wait_published(index, Instant::now() + PROPOSAL).await;
        }
    }

    async fn stop_module(&self, name: &str, view: &crate::state_machine::View) {
        let stop = pb::Deactivate {
            name: name.to_owned(),
            expected_generation: view.registry().row(name).map_or(0, |row| row.generation),
            proposed_by: self.who_wants(|wish| !wish.modules.iter().any(|module| module.name == name)),
            source: pb::Source::Files.into(),
            ..pb::Deactivate::default()
        };
        match self.log_change(pb::command::Kind::Deactivate(stop), 0).await {
            Ok(index) => {
                tracing::info!(module = name, index, "stopped: the files do not list it any more; its state is kept");
                let _ = self.wait_published(index, Instant::now() + PROPOSAL).await;
            }
            Err(error) => tracing::debug!(module = name, %error, "was not stopped; it will be tried again"),
        }
    }

    /// Begins what the files want, unless it was begun.
    fn start_change(&self, wish: admin::ModuleWish) {
        let begun = self.inner.changes.files.lock().insert(wish.name.clone(), wish.wish.clone());
        if begun.is_some() {
            // The task of an older wish finds out by itself that it is not wanted any more.
            return;
        }
        let node = self.clone();
        tokio::spawn(async move { node.answer_wish(wish).await });
    }

    async fn answer_wish(&self, wish: admin::ModuleWish) {
        let wanted_by = self.who_wants(|other| other.modules.contains(&wish));
        let own = || ModuleHash::of(embedded::KVSTORE);
        let hash = ModuleHash::try_from(&wish.hash[..]).unwrap_or_else(|_| own());
        let shown = Shown::new(self, &wish.name, hash, &wanted_by);
        let watcher = ForFiles { node: self.clone(), shown, wish: wish.clone() };
        let Some(wasm) = self.wished_bytes(&wish, hash).await else {
            return tracing::warn!(module = wish.name, "no node gives the module's file; it will be asked for again");
        };
        let first = self.inner.reader.view().registry().rows().next().is_none();
        let proposal = Proposal {
            name: Some(wish.name.clone()),
            wasm,
            hash,
            allow_breaking: wish.allow_breaking,
            fuel: wish.fuel,
            wanted_by,
            source: if first { pb::Source::Genesis } else { pb::Source::Files },
            decides: wish.wish.clone(),
        };
        let decided = self.change(&proposal, &watcher).await;
        if matches!(decided, Ok(_) | Err(Undecided::Superseded)) {
            // What an operator excused was this wish, not the next one.
            self.inner.changes.excused.lock().remove(&wish.name);
        }
        match decided {
            Ok(row) => said(&row),
            Err(Undecided::Superseded) => tracing::info!(module = wish.name, "the files want something else by now"),
            Err(error) => tracing::info!(module = wish.name, %error, "not decided; it will be tried again"),
        }
    }

    /// The bytes that the files want: this node's own, or another's.
    async fn wished_bytes(&self, wish: &admin::ModuleWish, hash: ModuleHash) -> Option<Bytes> {
        if wish.hash.is_empty() {
            return Some(Bytes::from_static(embedded::KVSTORE));
        }
        if let Some(wasm) = self.inner.wanted.borrow().bytes(hash) {
            return Some(wasm);
        }
        for (id, member) in self.other_members() {
            let peers = &self.inner.peers;
            let Ok(client) = peers.client(&member.peer_addr, Purpose::Forward) else { continue };
            if let Some(wasm) = self.fetch(client, id, hash).await {
                return Some(wasm);
            }
        }
        None
    }

    async fn fetch(&self, mut client: super::PeerClient, id: crate::ids::NodeId, hash: ModuleHash) -> Option<Bytes> {
        let mut wasm = Vec::new();
        loop {
            let request = peer::FetchRequest { hash: hash.0.to_vec().into(), offset: wasm.len() as u64 };
            let call = client.fetch(self.inner.peers.addressed(id, request));
            let part = tokio::time::timeout(PROPOSAL, call).await.ok()?.ok()?.into_inner();
            wasm.extend_from_slice(&part.data);
            if wasm.len() as u64 >= part.size || part.data.is_empty() || wasm.len() > MODULE_BYTES_MAX {
                return (ModuleHash::of(&wasm) == hash).then(|| wasm.into());
            }
        }
    }

    /// A part of this node's file with that hash.
    pub(super) fn fetch_here(&self, request: &peer::FetchRequest) -> peer::FetchResponse {
        let hash = ModuleHash::try_from(&request.hash[..]).ok();
        let Some(wasm) = hash.and_then(|hash| self.inner.wanted.borrow().bytes(hash)) else {
            return peer::FetchResponse::default();
        };
        let from = usize::try_from(request.offset).unwrap_or(usize::MAX).min(wasm.len());
        let to = (from + MODULE_PART_BYTES_MAX).min(wasm.len());
        peer::FetchResponse { size: wasm.len() as u64, data: wasm.slice(from..to) }
    }

    /// Those voters whose files say so, in words for the history.
    fn who_wants(&self, says: impl Fn(&admin::Wish) -> bool) -> String {
        let (wishes, voters) = self.wishes();
        let names: Vec<_> = wishes.iter().filter(|(_, wish)| says(wish)).map(|(name, _)| name.as_str()).collect();
        format!("files of {} ({} of {voters} voters)", names.join(", "), names.len())
    }
}

/// What became of a wish, in this node's log.
fn said(row: &pb::Activation) {
    let (module, version, index) = (&row.name, &row.version, row.index);
    let hash = hex(&row.hash[..row.hash.len().min(6)]);
    match &row.outcome {
        Some(pb::activation::Outcome::Activated(done)) => {
            tracing::info!(module, version, hash, index, from = done.from_version, fuel = done.fuel, "activated");
        }
        Some(pb::activation::Outcome::Refused(refused)) => {
            let why = crate::service::why_refused(refused);
            tracing::error!(module, version, hash, index, "refused; what was active stays: {why}");
        }
        _ => {}
    }
}
