//! Entries in, outcomes out.
//!
//! Every entry moves three things: the state, the rolling digest, and `last_applied`. In this order:
//!
//! 1. its index must be the next one;
//! 2. log time moves on to its stamp, never back;
//! 3. sessions that are past the window are deleted, a few, and uploads that nobody activated in time;
//! 4. the entry is carried out in an overlay of its own, which is merged if it succeeded and dropped if not;
//! 5. the digest folds the entry, all writes and the outcome;
//! 6. whoever waits for it gets the reply. Its entry is durable in the log of a majority and every replica computes the
//!    same, so it need not wait for the batch's commit; readers do, they wait for the published index.

use bytes::Bytes;
use openraft::EntryPayload;
use prost::Message;

use super::digest::Fold;
use super::sessions::{self, Attempt, Slot, Verdict};
use super::{ActiveModule, Fault, StateMachine, settings};
use crate::command::{APPLY_VERSION, Command, Outcome, Ran, Refusal, Reply, Timing};
use crate::guest_log;
use crate::proto::command as pb;
use crate::proto::raft;
use crate::raft::types::{Entry, Membership, StoredMembership};
use crate::storage::keys::Key;
use crate::wasm::{Call, Context, HostFault, Method, MethodKind};

/// What one entry came to.
#[derive(Default)]
pub(super) struct Applied {
    /// Encoded; empty for an entry that is no command.
    outcome: Bytes,
    /// If it is the stored outcome of an earlier entry: of which.
    replayed_from: Option<u64>,
    trap_detail: Option<String>,
    /// When the module ran, and its fuel. For people.
    ran: Option<Ran>,
}

impl StateMachine {
    /// Applies a batch. `reply` gets each entry's position and reply, as soon as it is known; then the batch is committed
    /// and published, and before that at each entry after which somebody has an [appointment](super::Appointment). An error is this
    /// host's and final: the node must stop.
    pub fn apply(&mut self, entries: &[Entry], reply: &mut dyn FnMut(usize, Reply)) -> Result<(), HostFault> {
        if entries.is_empty() {
            return Ok(());
        }
        self.begin_change()?;
        for (position, entry) in entries.iter().enumerate() {
            reply(position, self.apply_entry(entry)?);
            let is_last = position + 1 == entries.len();
            if is_last || self.shared.appointments.is_awaited(entry.log_id.index()) {
                self.commit()?;
            }
        }
        self.end_change();
        Ok(())
    }

    fn apply_entry(&mut self, entry: &Entry) -> Result<Reply, Fault> {
        self.expect_next(entry)?;
        let index = entry.log_id.index();
        let mut fold = Fold::begin(self.state.progress.digest, entry);
        let applied = match &entry.payload {
            EntryPayload::Blank => Applied::default(),
            EntryPayload::Membership(membership) => self.apply_membership(entry, membership),
            EntryPayload::Normal(command) => self.apply_command(index, command, &mut fold)?,
        };
        self.merge(&mut fold);
        let progress = &mut self.state.progress;
        progress.digest = fold.finish(progress.time_ms, applied.replayed_from.is_some(), &applied.outcome);
        progress.last_applied = Some(entry.log_id);
        self.digests.push((index, progress.digest));
        Ok(Reply {
            index: applied.replayed_from.unwrap_or(index),
            outcome: applied.outcome,
            replayed: applied.replayed_from.is_some(),
            trap_detail: applied.trap_detail,
            timing: Timing { applied: None, ran: applied.ran },
        })
    }

    fn apply_membership(&mut self, entry: &Entry, membership: &Membership) -> Applied {
        let stored = StoredMembership::new(Some(entry.log_id), membership.clone());
        self.state.txn.put(Key::Membership.encode(), raft::StoredMembership::from(&stored).encode_to_vec());
        self.state.membership = stored;
        Applied::default()
    }

    fn apply_command(&mut self, index: u64, command: &Command, fold: &mut Fold) -> Result<Applied, Fault> {
        use pb::command::Kind;
        let malformed = |why: &dyn std::fmt::Display| Fault::MalformedEntry { index, why: why.to_string() };
        let command = command.decode().map_err(|error| malformed(&error))?;
        if command.apply_version != APPLY_VERSION {
            return Err(Fault::UnknownVersion { index, version: command.apply_version });
        }
        let kind = command.kind.ok_or(Fault::UnknownKind { index })?;
        self.advance_time(command.time_ms, &kind, fold)?;
        match kind {
            Kind::Call(call) => {
                let random = command.random.as_ref().try_into();
                let random = random.map_err(|_| malformed(&"a call needs 32 random bytes"))?;
                self.apply_call(index, &call, random, fold)
            }
            Kind::Activate(activate) => {
                let random = command.random.as_ref().try_into();
                let random = random.map_err(|_| malformed(&"an activation needs 32 random bytes"))?;
                let context = Context { index, time_ms: self.state.progress.time_ms, random };
                self.apply_activate(&activate, context)
            }
            Kind::Upload(part) => self.apply_upload(&part),
            Kind::Refuse(refuse) => self.apply_refuse(index, refuse),
            Kind::Deactivate(stop) => self.apply_deactivate(index, &stop),
            Kind::Drop(drop) => self.apply_drop(index, &drop),
            Kind::Retry(retry) => self.apply_retry(&retry),
            Kind::Tick(pb::Tick {}) => Ok(Applied::ok()),
            Kind::SetLimits(set) => Ok(self.apply_limits(set.limits.unwrap_or_default())),
        }
    }

    /// Moves log time, and forgets what is past the window then.
    fn advance_time(&mut self, stamp_ms: u64, kind: &pb::command::Kind, fold: &mut Fold) -> Result<(), Fault> {
        let state = &mut self.state;
        state.progress.time_ms = state.progress.time_ms.max(stamp_ms);
        sessions::advance(&mut state.progress, &state.limits);
        let rows_max = match kind {
            pb::command::Kind::Tick(_) => sessions::EVICTED_PER_TICK,
            _ => sessions::EVICTED_PER_ENTRY,
        };
        state.sessions.evict(&mut state.txn, &mut state.progress, rows_max)?;
        state.uploads.expire(&mut state.txn, state.progress.time_ms);
        self.merge(fold);
        Ok(())
    }

    fn apply_call(&mut self, index: u64, call: &pb::Call, random: [u8; 32], fold: &mut Fold) -> Result<Applied, Fault> {
        let registry = self.state.registry.clone();
        let Some((name, active, method)) = registry.resolve(&call.method) else {
            return Ok(Applied::refused(Refusal::UnknownMethod, None));
        };
        if method.kind != MethodKind::Command {
            return Ok(Applied::refused(Refusal::NotACommand, None));
        }
        let slot = match self.check_key(name, call)? {
            None => None,
            Some(Verdict::New(slot)) => Some(slot),
            Some(Verdict::Replay(row)) => return Ok(Applied::replay(row)),
            Some(Verdict::Refused(refusal)) => return Ok(Applied::refused(refusal, None)),
        };
        // An expired session that is replaced was deleted; that stands, whatever becomes of the call.
        self.merge(fold);
        let context = Context { index, time_ms: self.state.progress.time_ms, random };
        let (outcome, trap_detail, ran) = self.run(name, active, method, call, context)?;
        Ok(Applied { ran: Some(ran), ..self.remember(slot, index, outcome, trap_detail) })
    }

    fn check_key(&mut self, module: &str, call: &pb::Call) -> Result<Option<Verdict>, Fault> {
        if call.key.is_empty() {
            return Ok(None);
        }
        let attempt = Attempt { module, method: &call.method, key: &call.key, request: &call.request };
        let state = &mut self.state;
        state.sessions.check(&mut state.txn, &mut state.progress, &state.limits, &attempt).map(Some)
    }

    /// Runs the module. Its writes are left in the command's overlay if it answered, and gone if not.
    fn run(
        &mut self,
        name: &str,
        active: &ActiveModule,
        method: &Method,
        call: &pb::Call,
        context: Context,
    ) -> Result<(Outcome, Option<String>, Ran), Fault> {
        let call = Call {
            method,
            input: call.request.clone(),
            context,
            fuel: active.command_fuel(&self.state.limits),
            memory_bytes: self.state.limits.memory_bytes,
            deadline: None,
        };
        let finished = active.module.call(call, self.state.txn.lend(name))?;
        let call = guest_log::Call { module: name, method: &method.path, index: context.index };
        self.state.guest_log.finished(call, &finished);
        self.state.txn.take_back(finished.state);
        if !matches!(finished.outcome, Outcome::Ok(_)) {
            self.state.txn.roll_back();
        }
        Ok((finished.outcome, finished.trap_detail, (finished.took, finished.fuel_used)))
    }

    /// Remembers the outcome for a retry, where the client gave a key; undoes the command if there is no room for it.
    fn remember(&mut self, slot: Option<Slot>, index: u64, outcome: Outcome, trap_detail: Option<String>) -> Applied {
        let outcome = pb::Outcome::from(&outcome);
        let applied = Applied { outcome: outcome.encode_to_vec().into(), trap_detail, ..Applied::default() };
        let Some(slot) = slot else { return applied };
        let state = &mut self.state;
        match state.sessions.remember(&mut state.txn, &mut state.progress, &state.limits, slot, index, outcome) {
            true => applied,
            false => {
                state.txn.roll_back();
                Applied::refused(Refusal::ReplyTooLarge, None)
            }
        }
    }

    fn apply_limits(&mut self, limits: pb::Limits) -> Applied {
        self.state.limits = settings::clamp(limits.into());
        self.state.txn.put(Key::Limits.encode(), settings::encode(self.state.limits));
        Applied::ok()
    }

    /// Merges the command's writes into the batch and the digest.
    fn merge(&mut self, fold: &mut Fold) {
        self.state.txn.merge(|key, value| fold.write(key, value));
    }
}

impl Applied {
    /// A command that came to `outcome`.
    pub(super) fn with(outcome: &Outcome) -> Self {
        Self { outcome: pb::Outcome::from(outcome).encode_to_vec().into(), ..Self::default() }
    }

    pub(super) fn ok() -> Self {
        Self::with(&Outcome::Ok(Bytes::new()))
    }

    pub(super) fn refused(refusal: Refusal, detail: Option<String>) -> Self {
        Self { trap_detail: detail, ..Self::with(&Outcome::Refused(refusal)) }
    }

    fn replay(row: pb::Session) -> Self {
        let outcome = row.outcome.unwrap_or_default();
        Self { outcome: outcome.encode_to_vec().into(), replayed_from: Some(row.index), ..Self::default() }
    }
}
