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

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use self::change::{Proposal, Undecided, Watcher};
use self::wishes::Open;
use super::Node;
use crate::files;
use crate::ids::{ModuleHash, NodeId, hex};
use crate::limits::{MODULE_BYTES_MAX, MODULE_PART_BYTES_MAX};
use crate::proto::command as pb;
use crate::proto::{admin, peer};
use crate::raft::clock::wall_clock_ms;
use crate::raft::peers::Purpose;
use crate::state_machine::{View, clamp};
use crate::wasm::embedded;

/// How long one question to another node, or one entry of an operator, may take before it is tried again.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Changes that this node conducts, for `status`.
#[derive(Debug, Default)]
pub(super) struct Changes {
    running: Mutex<BTreeMap<u64, admin::Change>>,
    /// Names whose files' wish has a task.
    files: Mutex<BTreeSet<String>>,
    /// By name, what an operator said about a wish.
    excused: Mutex<BTreeMap<String, Excuse>>,
    next: AtomicU64,
}

/// This wish need not wait for these nodes. The next one of that name must.
#[derive(Debug)]
struct Excuse {
    wish: Bytes,
    nodes: Vec<String>,
}

impl Changes {
    /// As `status` shows them.
    pub(super) fn shown(&self) -> Vec<admin::Change> {
        self.running.lock().values().cloned().collect()
    }

    fn excuse(&self, wish: &admin::ModuleWish, nodes: &[String]) {
        self.excused.lock().insert(wish.name.clone(), Excuse { wish: wish.wish.clone(), nodes: nodes.to_vec() });
    }

    fn excused(&self, wish: &admin::ModuleWish) -> Vec<String> {
        let excused = self.excused.lock();
        let excuse = excused.get(&wish.name).filter(|excuse| excuse.wish == wish.wish);
        excuse.map(|excuse| excuse.nodes.clone()).unwrap_or_default()
    }

    /// The wish is answered, or nobody's any more.
    fn forget_excuse(&self, wish: &admin::ModuleWish) {
        self.excused.lock().retain(|_, excuse| excuse.wish != wish.wish);
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
        self.node.inner.changes.excused(&self.wish)
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
        let limits = wish.limits.map(|limits| clamp(limits.into()).into());
        let wish = admin::Wish { limits, ..wish };
        if self.open(&wish, &self.inner.reader.view()).is_empty() {
            return;
        }
        // The leader before this one may have answered, in an entry that is not applied here yet.
        if let Err(error) = self.inner.reads.read_index().await {
            return tracing::debug!(%error, "what the log has answered is not known here; it will be looked at again");
        }
        let view = self.inner.reader.view();
        for open in self.open(&wish, &view) {
            let done = match open {
                Open::Limits(limits) => self.set_limits(limits).await,
                Open::Stop(name) => self.stop_module(&name, &view).await,
                Open::Activate(module) => {
                    self.start_change(module);
                    Ok(())
                }
            };
            if let Err(error) = done {
                // What follows may need it: a module that begins under the old limits, or beside one that still has its service,
                // would be refused, and stay so.
                return tracing::debug!(%error, "what the files want was not logged; it will be tried again");
            }
        }
    }

    /// What the files want and the log has not answered, as far as `view` goes.
    fn open(&self, wish: &admin::Wish, view: &View) -> Vec<Open> {
        match view.decisions() {
            Ok(decided) => wishes::open(wish, &decided, view.limits()),
            Err(fault) => {
                self.inner.fatal.raise(fault);
                Vec::new()
            }
        }
    }

    async fn set_limits(&self, limits: crate::limits::Replicated) -> Result<(), Undecided> {
        let set = pb::SetLimits { limits: Some(limits.into()) };
        let index = self.log_change(pb::command::Kind::SetLimits(set)).await?;
        tracing::info!(index, ?limits, "these limits are in force");
        Ok(())
    }

    async fn stop_module(&self, name: &str, view: &View) -> Result<(), Undecided> {
        let stop = pb::Deactivate {
            name: name.to_owned(),
            expected_generation: view.registry().row(name).map_or(0, |row| row.generation),
            proposed_by: self.who_wants(|wish| !wish.modules.iter().any(|module| module.name == name)),
            source: pb::Source::Files.into(),
            ..pb::Deactivate::default()
        };
        let index = self.log_change(pb::command::Kind::Deactivate(stop)).await?;
        tracing::info!(module = name, index, "stopped: the files do not list it any more; its state is kept");
        Ok(())
    }

    /// Begins what the files want, unless it was begun.
    fn start_change(&self, wish: admin::ModuleWish) {
        // The task of an older wish finds out by itself that it is not wanted any more.
        if self.inner.changes.files.lock().insert(wish.name.clone()) {
            let node = self.clone();
            tokio::spawn(async move { node.answer_wish(wish).await });
        }
    }

    async fn answer_wish(&self, wish: admin::ModuleWish) {
        let wanted_by = self.who_wants(|other| other.modules.contains(&wish));
        let own = || ModuleHash::of(embedded::KVSTORE);
        let hash = ModuleHash::try_from(&wish.hash[..]).unwrap_or_else(|_| own());
        let shown = Shown::new(self, &wish.name, hash, &wanted_by);
        let watcher = ForFiles { node: self.clone(), shown, wish: wish.clone() };
        let Some(wasm) = self.wished_bytes(&watcher, hash).await else {
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
        // As long as this node leads, it keeps an excuse for the next attempt; another leader has to be told again.
        if matches!(decided, Ok(_) | Err(Undecided::Superseded)) || !self.is_leader() {
            self.inner.changes.forget_excuse(&wish);
        }
        match decided {
            Ok(row) => said(&row),
            Err(Undecided::Superseded) => tracing::info!(module = wish.name, "the files want something else by now"),
            Err(error) => tracing::info!(module = wish.name, %error, "not decided; it will be tried again"),
        }
    }

    /// The bytes that the files want: this node's own, or another's.
    async fn wished_bytes(&self, watcher: &ForFiles, hash: ModuleHash) -> Option<Bytes> {
        if watcher.wish.hash.is_empty() {
            return Some(Bytes::from_static(embedded::KVSTORE));
        }
        if let Some(wasm) = self.inner.wanted.borrow().bytes(hash) {
            return Some(wasm);
        }
        for (id, member) in self.other_members() {
            let peers = &self.inner.peers;
            let Ok(client) = peers.client(&member.peer_addr, Purpose::Forward) else { continue };
            if let Some(wasm) = self.fetch(client, id, hash, watcher).await {
                return Some(wasm);
            }
        }
        None
    }

    async fn fetch(
        &self,
        mut client: super::PeerClient,
        id: NodeId,
        hash: ModuleHash,
        watcher: &ForFiles,
    ) -> Option<Bytes> {
        let mut wasm = Vec::new();
        while watcher.still_wanted() {
            let request = peer::FetchRequest { hash: hash.0.to_vec().into(), offset: wasm.len() as u64 };
            let call = client.fetch(self.inner.peers.addressed(id, request));
            let part = tokio::time::timeout(ATTEMPT, call).await.ok()?.ok()?.into_inner();
            wasm.extend_from_slice(&part.data);
            if wasm.len() as u64 >= part.size || part.data.is_empty() || wasm.len() > MODULE_BYTES_MAX {
                return (ModuleHash::of(&wasm) == hash).then(|| wasm.into());
            }
        }
        None
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

/// A module as the log takes it, part by part, each with what to say meanwhile.
fn parts(hash: ModuleHash, wasm: &Bytes) -> impl Iterator<Item = (String, pb::Upload)> {
    let size = wasm.len();
    (0..size).step_by(MODULE_PART_BYTES_MAX).map(move |offset| {
        let data = wasm.slice(offset..size.min(offset + MODULE_PART_BYTES_MAX));
        let part = pb::Upload { hash: hash.0.to_vec().into(), size: size as u64, offset: offset as u64, data };
        (format!("uploading: {offset} of {size} bytes"), part)
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(name: &str, wish: &'static str) -> admin::ModuleWish {
        admin::ModuleWish { name: name.into(), wish: wish.as_bytes().into(), ..admin::ModuleWish::default() }
    }

    #[test]
    fn what_an_operator_excuses_is_one_wish() {
        let changes = Changes::default();
        let (old, new, other) = (wish("ledger", "v1"), wish("ledger", "v2"), wish("lock", "v1 of another"));
        let nodes = ["balsa-2".to_owned()];
        changes.excuse(&old, &nodes);
        changes.excuse(&other, &nodes);
        assert_eq!((changes.excused(&old), changes.excused(&new)), (nodes.to_vec(), Vec::new()));
        // The task of the old wish ends when the new one is excused already.
        changes.excuse(&new, &nodes);
        changes.forget_excuse(&old);
        assert_eq!((changes.excused(&old), changes.excused(&new)), (Vec::new(), nodes.to_vec()));
        changes.forget_excuse(&new);
        assert_eq!((changes.excused(&new), changes.excused(&other)), (Vec::new(), nodes.to_vec()));
    }

    #[test]
    fn the_parts_of_a_module_are_all_of_it() {
        for size in [1, MODULE_PART_BYTES_MAX - 1, MODULE_PART_BYTES_MAX, MODULE_PART_BYTES_MAX + 1] {
            let wasm = Bytes::from(vec![7; size]);
            let parts: Vec<_> = parts(ModuleHash::of(&wasm), &wasm).map(|(_, part)| part).collect();
            assert_eq!(parts.len(), size.div_ceil(MODULE_PART_BYTES_MAX));
            let mut whole = Vec::new();
            for part in parts {
                assert_eq!((part.offset, part.size), (whole.len() as u64, size as u64));
                whole.extend_from_slice(&part.data);
            }
            assert_eq!(whole, wasm);
        }
    }
}
