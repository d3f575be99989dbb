//! The life of a module, as far as the log decides it: uploaded, activated, refused, stopped, dropped.
//!
//! ```text
//!            Upload*            Activate                 Deactivate            Drop*
//!  nothing ─────────▶ uploaded ──────────▶ serving ◀───────────────▶ stopped ────────▶ nothing
//!                                │  ▲         Activate                (state kept)
//!                                ▼  └─ Activate (replaces it, `balsa_migrate` first)
//!                             refused (recorded; the old one serves on)
//! ```
//!
//! A change happens at one index, on every replica, or on none. It names the generation that it was made for, so that a leader
//! who did not see another's change undoes nothing. `balsa_init` or `balsa_migrate` of the new module runs first, in the same
//! overlay that commands run in: it succeeds as a whole, or leaves nothing behind and the old module serves on. What it may
//! spend and write is bounded by replicated limits.
//!
//! The leader has checked and every voter has compiled the module long before (`node/modules/change`), so there is compiled code
//! here and its bytes are not even read; a node that was away compiles it now, and applies nothing until then.
//!
//! Every decision is a row of the history. Its words are the log's or the guest's, never this binary's, since other replicas
//! may run another release.

use std::ops::ControlFlow;

use prost::Message;

use super::apply::Applied;
use super::uploads::{self, hash_of};
use super::{Fault, Registry, StateMachine, history};
use crate::command::{GuestStatus, Outcome, Refusal};
use crate::guest_log;
use crate::ids::ModuleHash;
use crate::limits::{DROP_BYTES_MAX, DROP_ROWS_MAX};
use crate::proto::command as pb;
use crate::proto::command::activation::Outcome as Event;
use crate::storage::keys::{self, Key};
use crate::wasm::{Context, Module, Rejection, Transition};

impl StateMachine {
    /// Takes in a part of a module. Bytes that are there already, because a module has them, need not come again.
    pub(super) fn apply_upload(&mut self, part: &pb::Upload) -> Result<Applied, Fault> {
        let state = &mut self.state;
        if ModuleHash::try_from(&part.hash[..]).is_ok_and(|hash| state.registry.size_of(hash).is_some()) {
            return Ok(Applied::ok());
        }
        let taken = state.uploads.take(&mut state.txn, part, state.progress.time_ms)?;
        Ok(taken.map_or_else(|refusal| Applied::refused(refusal, None), |()| Applied::ok()))
    }

    /// Makes a module the one called so. The same code again changes nothing, whichever generation was expected.
    pub(super) fn apply_activate(&mut self, activate: &pb::Activate, context: Context) -> Result<Applied, Fault> {
        let name = activate.name.as_str();
        let row = self.state.registry.row(name).cloned();
        let hash = match activate.wasm.is_empty() {
            false => ModuleHash::of(&activate.wasm),
            true => match ModuleHash::try_from(&activate.hash[..]) {
                Ok(hash) => hash,
                Err(_) => return Ok(Applied::refused(Refusal::NotUploaded, None)),
            },
        };
        let is_this = |row: &pb::ActiveModule| {
            row.hash == hash.0[..] && row.serving() == pb::Serving::Serving && row.fuel == activate.fuel
        };
        if row.as_ref().is_some_and(is_this) {
            history::decide(&mut self.state.txn, name, &activate.decides, context.index, false);
            return Ok(Applied::ok());
        }
        if activate.expected_generation != row.as_ref().map_or(0, |row| row.generation) {
            return Ok(Applied::refused(Refusal::GenerationMismatch, None));
        }
        if row.as_ref().is_some_and(|row| row.serving() == pb::Serving::Dropping) {
            return Ok(Applied::refused(Refusal::ModuleDropping, None));
        }
        let Some(size) = self.size_of(activate, hash) else {
            return Ok(Applied::refused(Refusal::NotUploaded, None));
        };
        let change = Change { activate, row, hash, size, context };
        match self.load(&change)? {
            Ok(module) => self.replace(&change, module),
            // Other nodes may well have taken it: no reason to refuse, every reason to stop.
            Err(why) if why.is_of_this_node() => Err(Fault::Module { name: name.to_owned(), why }),
            Err(why) => self.refuse(&change, "", Refusal::InvalidModule, Some(why.to_string())),
        }
    }

    /// How many bytes are to be activated: in the entry, uploaded, or some module's already, if it was stopped for example.
    fn size_of(&self, activate: &pb::Activate, hash: ModuleHash) -> Option<u64> {
        match activate.wasm.is_empty() {
            false => Some(activate.wasm.len() as u64),
            true => self.state.uploads.whole(hash).or_else(|| self.state.registry.size_of(hash)),
        }
    }

    fn load(&self, change: &Change<'_>) -> Result<Result<Module, Rejection>, Fault> {
        let Change { activate, hash, size, .. } = *change;
        if let Some(module) = Module::compiled(&self.engine, hash) {
            return Ok(Ok(module));
        }
        if !activate.wasm.is_empty() {
            return Ok(Module::load(&self.engine, &activate.wasm));
        }
        let wasm = uploads::assemble(hash, size, |key| self.state.txn.get(key))?;
        let damaged = || Fault::corrupt(format!("the code that was uploaded for {} is not there", activate.name));
        Ok(Module::load(&self.engine, &wasm.ok_or_else(damaged)?))
    }

    /// Puts `module` in its place, if nothing speaks against it.
    fn replace(&mut self, change: &Change<'_>, module: Module) -> Result<Applied, Fault> {
        let name = change.activate.name.as_str();
        if let Some(objection) = Registry::misnamed(name, &module) {
            return self.refuse(change, module.version(), Refusal::InvalidModule, Some(objection));
        }
        if let Some(objection) = self.state.registry.taken(name, &module) {
            return self.refuse(change, module.version(), Refusal::ServiceTaken, Some(objection));
        }
        let migrated = self.migrate(change, &module)?;
        if !matches!(migrated.outcome, Outcome::Ok(_)) {
            self.state.txn.roll_back();
            return self.migration_failed(change, module.version(), migrated);
        }
        self.settle(change);
        let row = pb::ActiveModule {
            name: name.to_owned(),
            generation: change.context.index,
            hash: change.hash.0.to_vec().into(),
            version: module.version().to_owned(),
            size: change.size,
            serving: pb::Serving::Serving.into(),
            // What `balsa_init` writes, no other version was there to understand.
            migrated: change.row.is_some() && migrated.writes > 0,
            fuel: change.activate.fuel,
        };
        self.activated(change, &row, &migrated)?;
        let state = &mut self.state;
        state.txn.put(Key::Module(name).encode(), row.encode_to_vec());
        state.registry = state.registry.with(row, module).into();
        Ok(Applied::ok())
    }

    /// Runs what the new module has to do to the state first. Its writes are left in the command's overlay.
    fn migrate(&mut self, change: &Change<'_>, module: &Module) -> Result<Migrated, Fault> {
        // The same code goes on where it was stopped: it has nothing to migrate.
        if change.row.as_ref().is_some_and(|row| row.hash == change.hash.0[..]) {
            return Ok(Migrated::default());
        }
        let limits = &self.state.limits;
        let transition = Transition {
            from: change.row.as_ref().map(|row| row.version.clone()),
            context: change.context,
            fuel: limits.migrate_fuel,
            memory_bytes: limits.memory_bytes,
            writes_max: limits.migrate_writes,
            bytes_max: limits.migrate_bytes,
        };
        let name = &change.activate.name;
        let method = if transition.from.is_some() { "migrate" } else { "init" };
        let finished = module.transition(transition, self.state.txn.lend(name))?;
        let call = guest_log::Call { module: name, method, index: change.context.index };
        self.state.guest_log.finished(call, &finished);
        self.state.txn.take_back(finished.state);
        Ok(Migrated {
            outcome: finished.outcome,
            fuel: finished.fuel_used,
            writes: finished.writes,
            bytes: finished.written_bytes,
            trap_detail: finished.trap_detail,
        })
    }

    /// The new code's parts stay; the old code's go.
    fn settle(&mut self, change: &Change<'_>) {
        let state = &mut self.state;
        let old = change.row.as_ref().filter(|row| row.hash != change.hash.0[..]);
        if let Some((old, row)) = old.and_then(|row| Some((ModuleHash::try_from(&row.hash[..]).ok()?, row))) {
            let shared = state.registry.rows().any(|other| other.name != row.name && other.hash == row.hash);
            if !shared {
                uploads::delete_parts(&mut state.txn, old, row.size);
            }
        }
        // None, if it was uploaded.
        uploads::put_parts(&mut state.txn, change.hash, &change.activate.wasm);
        state.uploads.settle(&mut state.txn, change.hash);
    }

    fn activated(&mut self, change: &Change<'_>, row: &pb::ActiveModule, migrated: &Migrated) -> Result<(), Fault> {
        let old = change.row.clone().unwrap_or_default();
        let event = Event::Activated(pb::Activated {
            from_version: old.version,
            from_hash: old.hash,
            fuel: migrated.fuel,
            writes: migrated.writes,
            bytes: migrated.bytes,
        });
        let (activate, txn) = (change.activate, &mut self.state.txn);
        // What an operator made active may be what a refused wish was waiting for.
        history::reconsider(txn, &row.name)?;
        history::decide(txn, &row.name, &activate.decides, change.context.index, false);
        history::record(txn, &change.record(&row.version, event))
    }

    fn migration_failed(&mut self, change: &Change<'_>, version: &str, failed: Migrated) -> Result<Applied, Fault> {
        let refused =
            pb::Refused { refusal: Refusal::MigrationFailed as u32, fuel: failed.fuel, ..pb::Refused::default() };
        let refused = match failed.outcome {
            Outcome::Trap(class) => pb::Refused { trap: class as u32, ..refused },
            Outcome::Status(GuestStatus { code, message, details }) => {
                pb::Refused { status: Some(pb::Status { code, message, details }), ..refused }
            }
            Outcome::Ok(_) | Outcome::Refused(_) => refused,
        };
        self.note_refused(change, version, refused)?;
        Ok(Applied::refused(Refusal::MigrationFailed, failed.trap_detail))
    }

    /// The log's own no: recorded, and told to the proposer with this node's words.
    fn refuse(
        &mut self,
        change: &Change<'_>,
        version: &str,
        refusal: Refusal,
        words: Option<String>,
    ) -> Result<Applied, Fault> {
        self.note_refused(change, version, pb::Refused { refusal: refusal as u32, ..pb::Refused::default() })?;
        Ok(Applied::refused(refusal, words))
    }

    fn note_refused(&mut self, change: &Change<'_>, version: &str, refused: pb::Refused) -> Result<(), Fault> {
        let (activate, txn) = (change.activate, &mut self.state.txn);
        if !history::is_name(&activate.name) {
            return Ok(());
        }
        history::decide(txn, &activate.name, &activate.decides, change.context.index, true);
        history::record(txn, &change.record(version, Event::Refused(refused)))
    }

    /// Records somebody else's no: the leader's check said it, or a voter's.
    pub(super) fn apply_refuse(&mut self, index: u64, refuse: pb::Refuse) -> Result<Applied, Fault> {
        let generation = self.state.registry.row(&refuse.name).map_or(0, |row| row.generation);
        if !history::is_name(&refuse.name) {
            return Ok(Applied::refused(Refusal::UnknownModule, None));
        }
        if refuse.expected_generation != generation {
            return Ok(Applied::refused(Refusal::GenerationMismatch, None));
        }
        let txn = &mut self.state.txn;
        history::decide(txn, &refuse.name, &refuse.decides, index, true);
        let recorded = pb::Activation {
            name: refuse.name,
            index,
            time_ms: self.state.progress.time_ms,
            hash: refuse.hash,
            version: refuse.version,
            source: refuse.source,
            proposed_by: refuse.proposed_by,
            outcome: Some(Event::Refused(pb::Refused { reason: refuse.reason, ..pb::Refused::default() })),
        };
        history::record(txn, &recorded)?;
        Ok(Applied::ok())
    }

    /// Stops serving a module. Its row, code and state stay.
    pub(super) fn apply_deactivate(&mut self, index: u64, stop: &pb::Deactivate) -> Result<Applied, Fault> {
        let row = self.state.registry.row(&stop.name).cloned();
        let Some(row) = row.filter(|row| row.serving() == pb::Serving::Serving) else {
            self.unwanted(stop, index);
            return Ok(Applied::ok());
        };
        if stop.expected_generation != row.generation {
            return Ok(Applied::refused(Refusal::GenerationMismatch, None));
        }
        self.unwanted(stop, index);
        let recorded = pb::Activation {
            name: row.name.clone(),
            index,
            time_ms: self.state.progress.time_ms,
            hash: row.hash.clone(),
            version: row.version.clone(),
            source: stop.source,
            proposed_by: stop.proposed_by.clone(),
            outcome: Some(Event::Stopped(true)),
        };
        history::record(&mut self.state.txn, &recorded)?;
        self.retire(pb::ActiveModule { serving: pb::Serving::Stopped.into(), ..row });
        Ok(Applied::ok())
    }

    /// The files do not want it: that wish is answered too.
    fn unwanted(&mut self, stop: &pb::Deactivate, index: u64) {
        if stop.source() == pb::Source::Files && history::is_name(&stop.name) {
            history::decide_absent(&mut self.state.txn, &stop.name, index);
        }
    }

    fn retire(&mut self, row: pb::ActiveModule) {
        let state = &mut self.state;
        state.txn.put(Key::Module(&row.name).encode(), row.encode_to_vec());
        state.registry = state.registry.without(row).into();
    }

    /// Deletes rows of a module that does not serve; with the last one, the module is forgotten.
    pub(super) fn apply_drop(&mut self, index: u64, drop: &pb::Drop) -> Result<Applied, Fault> {
        let Some(row) = self.state.registry.row(&drop.name).cloned() else {
            return Ok(Applied::refused(Refusal::UnknownModule, None));
        };
        if row.serving() == pb::Serving::Serving {
            return Ok(Applied::refused(Refusal::ModuleServes, None));
        }
        let (doomed, more) = self.first_rows(&keys::state_prefix(&row.name))?;
        let rows = doomed.len() as u64;
        doomed.into_iter().for_each(|key| self.state.txn.delete(key));
        match more {
            true => self.retire(pb::ActiveModule { serving: pb::Serving::Dropping.into(), ..row }),
            false => self.forget(index, row, &drop.proposed_by)?,
        }
        let dropped = pb::Dropped { rows, more };
        Ok(Applied::with(&Outcome::Ok(dropped.encode_to_vec().into())))
    }

    /// As many keys as one entry may delete, and whether that may not be all.
    fn first_rows(&self, prefix: &[u8]) -> Result<(Vec<Vec<u8>>, bool), Fault> {
        let (mut found, mut bytes, mut more) = (Vec::new(), 0, false);
        self.state.txn.scan(prefix, keys::after_prefix(prefix).as_deref(), false, &mut |key, value| {
            found.push(key.to_vec());
            bytes += key.len() + value.len();
            more = found.len() >= DROP_ROWS_MAX || bytes >= DROP_BYTES_MAX;
            if more { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok((found, more))
    }

    fn forget(&mut self, index: u64, row: pb::ActiveModule, proposed_by: &str) -> Result<(), Fault> {
        let state = &mut self.state;
        let hash = hash_of(&row.hash)?;
        if !state.registry.rows().any(|other| other.name != row.name && other.hash == row.hash) {
            uploads::delete_parts(&mut state.txn, hash, row.size);
        }
        state.txn.delete(Key::Module(&row.name).encode());
        state.txn.delete(Key::Decided(&row.name).encode());
        state.registry = state.registry.forgotten(&row.name).into();
        let time_ms = state.progress.time_ms;
        let recorded = pb::Activation {
            name: row.name,
            index,
            time_ms,
            hash: row.hash,
            version: row.version,
            source: pb::Source::Push.into(),
            proposed_by: proposed_by.to_owned(),
            outcome: Some(Event::Dropped(true)),
        };
        history::record(&mut self.state.txn, &recorded)
    }

    /// Forgets that a wish was refused.
    pub(super) fn apply_retry(&mut self, retry: &pb::Retry) -> Result<Applied, Fault> {
        history::reconsider(&mut self.state.txn, &retry.name)?;
        Ok(Applied::ok())
    }
}

/// What `balsa_init` or `balsa_migrate` came to.
struct Migrated {
    outcome: Outcome,
    fuel: u64,
    writes: u64,
    bytes: u64,
    trap_detail: Option<String>,
}

impl Default for Migrated {
    fn default() -> Self {
        Self { outcome: Outcome::Ok(bytes::Bytes::new()), fuel: 0, writes: 0, bytes: 0, trap_detail: None }
    }
}

/// An activation on its way.
struct Change<'a> {
    activate: &'a pb::Activate,
    /// What has the name now.
    row: Option<pb::ActiveModule>,
    hash: ModuleHash,
    size: u64,
    context: Context,
}

impl Change<'_> {
    fn record(&self, version: &str, outcome: Event) -> pb::Activation {
        pb::Activation {
            name: self.activate.name.clone(),
            index: self.context.index,
            time_ms: self.context.time_ms,
            hash: self.hash.0.to_vec().into(),
            version: version.to_owned(),
            source: self.activate.source,
            proposed_by: self.activate.proposed_by.clone(),
            outcome: Some(outcome),
        }
    }
}
