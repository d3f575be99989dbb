//! Exactly once: what was applied under an idempotency key, remembered for a while.
//!
//! A row leads from (module, method, key) to the hash of the request, the log index and the outcome. A retry finds it and gets
//! the first outcome, with nothing run. Every outcome of a command that ran is remembered: an answer, a guest's error, a
//! trap. A refusal is not; nothing happened.
//!
//! **UUIDv7 keys** carry the time of their making, and that is what makes the promise whole. A key older than
//! `forgotten_before` (log time minus the window, and never going back) is refused without a look: its row may be gone, so
//! whether it ran is not known any more. Only rows that are older than that are ever deleted; so no key that is still accepted
//! can have lost its row, and no command runs twice. A key from the future is kept until its own time plus the window.
//! Such keys are 36 characters, hyphenated, version 7, variant RFC 9562, upper or lower case.
//!
//! **Opaque keys**, any other text, have no time in them. Their rows live for the window, counted from when they ran; a retry
//! after that runs again. This is the weaker promise: it holds only for a client that gives up within the window.
//!
//! **Caps.** The table is bounded in rows and bytes. A cap refuses *new* keys; it never deletes a row inside the
//! window. An outcome of up to [`SMALL_REPLY_BYTES`] always finds room, since that much is asked for before the command runs; a
//! larger one is remembered only if it fits, else the command is undone and refused.
//!
//! **Eviction** is paid by instalments: each entry deletes a bounded number of rows that are past the window, so that none pays
//! for all. How many are left over is never visible: whether a key is forgotten is decided by its time, not by its row.

use std::ops::ControlFlow;

use prost::Message;

use super::{Fault, Progress};
use crate::command::Refusal;
use crate::limits::{Replicated, SMALL_REPLY_BYTES};
use crate::proto::command as pb;
use crate::storage::keys::{self, Key};
use crate::storage::{Error, ReadView, Txn};

/// Rows deleted by an entry. More than one, so that the table shrinks at full load, where every entry may add one.
pub(super) const EVICTED_PER_ENTRY: usize = 4;
/// Rows deleted by a tick: the cluster is idle.
pub(super) const EVICTED_PER_TICK: usize = 1024;

/// What a row needs beside key, method, module and outcome: hash, numbers, framing. Rounded up.
const ROW_OVERHEAD_BYTES: u64 = 128;

/// What this node knows about the table without reading it. Only saves work: it never changes a result.
///
/// Without it every eviction would begin at the front of its range, and so walk once more over all that this batch has deleted.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// No row under a UUIDv7 has a key below this.
    timed_from: Vec<u8>,
    /// No row in the order of time of opaque keys has a key below this.
    opaque_from: Vec<u8>,
}

/// A command that carries an idempotency key, resolved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) module: &'a str,
    pub(super) method: &'a str,
    pub(super) key: &'a str,
    pub(super) request: &'a [u8],
}

/// What the table says about an attempt.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It was not seen before: run it, then remember it here.
    New(Slot),
    /// It ran; this came of it.
    Replay(pb::Session),
    /// It must not run.
    Refused(Refusal),
}

/// A place for a row.
#[derive(Debug)]
pub(super) struct Slot {
    key: Vec<u8>,
    /// Milliseconds, for a UUIDv7.
    minted_ms: Option<u64>,
    request_hash: [u8; 32],
}

/// When the oldest row in `view` was made, by its key's time or by log time.
pub(super) fn oldest_ms(view: &ReadView) -> Result<Option<u64>, Fault> {
    let first = |(start, end): (Vec<u8>, Vec<u8>), time_of: fn(&[u8]) -> Option<u64>| {
        let row = view.range(&start, Some(&end))?.next().transpose().map_err(Error::from)?;
        Ok::<_, Fault>(row.and_then(|(key, _)| time_of(key.value())))
    };
    let timed = first(keys::timed_sessions_before(u64::MAX), |key| match Key::decode(key)? {
        Key::TimedSession { id, .. } => Some(minted_ms(&id)),
        _ => None,
    })?;
    let opaque = first(keys::opaque_times_before(u64::MAX), |key| match Key::decode(key)? {
        Key::OpaqueTime { time_ms, .. } => Some(time_ms),
        _ => None,
    })?;
    Ok(timed.into_iter().chain(opaque).min())
}

/// Moves `forgotten_before` on to log time minus the window.
pub(super) fn advance(progress: &mut Progress, limits: &Replicated) {
    let before = progress.time_ms.saturating_sub(limits.idempotency_window_ms);
    progress.forgotten_before_ms = progress.forgotten_before_ms.max(before);
}

impl Sessions {
    /// Deletes up to `max` rows of each kind that are past the window.
    pub(super) fn evict(&mut self, txn: &mut Txn, progress: &mut Progress, max: usize) -> Result<(), Fault> {
        let expired =
            take_range(txn, &mut self.timed_from, keys::timed_sessions_before(progress.forgotten_before_ms), max)?;
        for (key, value) in expired {
            forget(progress, row_bytes(&key, value.len(), None));
            txn.delete(key);
        }
        let expired =
            take_range(txn, &mut self.opaque_from, keys::opaque_times_before(progress.forgotten_before_ms), max)?;
        for (_, key) in expired {
            let row = txn.get(&key)?.ok_or_else(|| Fault::corrupt("an opaque session's time without the session"))?;
            forget_opaque(txn, progress, &decode(&row)?, &key, row.len());
        }
        Ok(())
    }

    /// Whether `attempt` is to run.
    pub(super) fn check(
        &self,
        txn: &mut Txn,
        progress: &mut Progress,
        limits: &Replicated,
        attempt: &Attempt<'_>,
    ) -> Result<Verdict, Fault> {
        let slot = Slot::of(attempt);
        if slot.minted_ms.is_some_and(|minted| minted < progress.forgotten_before_ms) {
            return Ok(Verdict::Refused(Refusal::KeyForgotten));
        }
        if let Some(bytes) = txn.get(&slot.key)? {
            let row = decode(&bytes)?;
            if slot.minted_ms.is_some() || row.time_ms >= progress.forgotten_before_ms {
                return Ok(match row.request_hash == slot.request_hash[..] {
                    true => Verdict::Replay(row),
                    false => Verdict::Refused(Refusal::KeyReused),
                });
            }
            forget_opaque(txn, progress, &row, &slot.key, bytes.len());
        }
        let reserved = slot.key.len() as u64 + SMALL_REPLY_BYTES as u64 + ROW_OVERHEAD_BYTES;
        let full = progress.session_rows >= limits.idempotency_keys
            || progress.session_bytes.saturating_add(reserved) > limits.idempotency_bytes;
        Ok(if full { Verdict::Refused(Refusal::KeysFull) } else { Verdict::New(slot) })
    }

    /// Remembers that the command of `slot` ran at `index` and came to `outcome`. `false`, and nothing written, if there is no
    /// room for it: the command must then be undone.
    pub(super) fn remember(
        &mut self,
        txn: &mut Txn,
        progress: &mut Progress,
        limits: &Replicated,
        slot: Slot,
        index: u64,
        outcome: pb::Outcome,
    ) -> bool {
        let small = outcome.encoded_len() <= SMALL_REPLY_BYTES;
        let time_ms = progress.time_ms;
        let request_hash = slot.request_hash.to_vec().into();
        let value = pb::Session { request_hash, index, time_ms, outcome: Some(outcome) }.encode_to_vec();
        let time_key = slot.minted_ms.is_none().then(|| Key::OpaqueTime { time_ms, index }.encode());
        let bytes = row_bytes(&slot.key, value.len(), time_key.as_deref());
        if !small && progress.session_bytes.saturating_add(bytes) > limits.idempotency_bytes {
            return false;
        }
        match time_key {
            None => lower(&mut self.timed_from, &slot.key),
            Some(time_key) => {
                lower(&mut self.opaque_from, &time_key);
                txn.put(time_key, slot.key.clone());
            }
        }
        txn.put(slot.key, value);
        progress.session_rows += 1;
        progress.session_bytes += bytes;
        true
    }
}

impl Slot {
    fn of(attempt: &Attempt<'_>) -> Self {
        let Attempt { module, method, key, request } = *attempt;
        let request_hash = *blake3::hash(request).as_bytes();
        match uuid_v7(key) {
            Some(id) => {
                let key = Key::TimedSession { id, module, method }.encode();
                Self { key, minted_ms: Some(minted_ms(&id)), request_hash }
            }
            None => {
                let key = Key::OpaqueSession { module, method, key: key.as_bytes() }.encode();
                Self { key, minted_ms: None, request_hash }
            }
        }
    }
}

/// A key and its value.
type Row = (Vec<u8>, Vec<u8>);

/// Up to `max` rows of the range, which is known to be empty below `from`; moves `from` on to where the next will be.
fn take_range(txn: &Txn, from: &mut Vec<u8>, (start, end): (Vec<u8>, Vec<u8>), max: usize) -> Result<Vec<Row>, Fault> {
    let mut rows = Vec::new();
    if *from >= end {
        return Ok(rows);
    }
    let mut next = end.clone();
    txn.scan(start.as_slice().max(from.as_slice()), Some(&end), false, &mut |key, value| {
        if rows.len() == max {
            next = key.to_vec();
            return ControlFlow::Break(());
        }
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })?;
    *from = next;
    Ok(rows)
}

fn lower(from: &mut Vec<u8>, key: &[u8]) {
    if key < from.as_slice() {
        *from = key.to_vec();
    }
}

fn forget_opaque(txn: &mut Txn, progress: &mut Progress, row: &pb::Session, key: &[u8], value_bytes: usize) {
    let time_key = Key::OpaqueTime { time_ms: row.time_ms, index: row.index }.encode();
    forget(progress, row_bytes(key, value_bytes, Some(&time_key)));
    txn.delete(time_key);
    txn.delete(key.to_vec());
}

fn forget(progress: &mut Progress, bytes: u64) {
    progress.session_rows -= 1;
    progress.session_bytes -= bytes;
}

/// What a row costs: its key and value, and for an opaque one also its entry in the order of time, which holds the key again.
fn row_bytes(key: &[u8], value_bytes: usize, time_key: Option<&[u8]>) -> u64 {
    let time_row = time_key.map_or(0, |time_key| time_key.len() + key.len());
    (key.len() + value_bytes + time_row) as u64
}

fn decode(bytes: &[u8]) -> Result<pb::Session, Fault> {
    pb::Session::decode(bytes).map_err(|error| Fault::corrupt(format!("session row: {error}")))
}

/// The 16 bytes of a UUIDv7. Our own parser: what counts as one must not change with a library.
pub(super) fn uuid_v7(text: &str) -> Option<[u8; 16]> {
    let text = text.as_bytes();
    let is_hyphen = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    if text.len() != 36 || (0..36).any(|at| is_hyphen(at) != (text[at] == b'-')) {
        return None;
    }
    let mut digits = text.iter().filter(|byte| **byte != b'-').map(|byte| char::from(*byte).to_digit(16));
    let mut id = [0; 16];
    for byte in &mut id {
        *byte = (digits.next()?? << 4 | digits.next()??) as u8;
    }
    let (version, variant) = (id[6] >> 4, id[8] >> 6);
    (version == 7 && variant == 0b10).then_some(id)
}

/// When a UUIDv7 was made: its first 48 bits.
pub(super) fn minted_ms(id: &[u8; 16]) -> u64 {
    id[..6].iter().fold(0, |time, byte| time << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Our parser agrees with the `uuid` crate about hyphenated UUIDs.
        #[test]
        fn a_uuid_v7_is_recognised(bytes: [u8; 16]) {
            let id = uuid::Uuid::from_bytes(bytes);
            let is_v7 = id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122;
            let expected = is_v7.then_some(bytes);
            prop_assert_eq!(uuid_v7(&id.hyphenated().to_string()), expected);
            prop_assert_eq!(uuid_v7(&id.hyphenated().to_string().to_uppercase()), expected);
        }

        #[test]
        fn any_v7_is_recognised_with_its_time(millis in 0u64..1 << 48, random: [u8; 10]) {
            let id = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
            let parsed = uuid_v7(&id.to_string()).unwrap();
            prop_assert_eq!(minted_ms(&parsed), millis);
        }

        /// All that a client can send is a key of one kind or the other.
        #[test]
        fn other_text_is_opaque(text in "\\PC{0,40}") {
            prop_assert_eq!(uuid_v7(&text), None);
        }
    }

    #[test]
    fn other_forms_of_a_uuid_are_opaque() {
        for text in [
            "0192f0c17a8b7cdeaf00112233445566",
            "{0192f0c1-7a8b-7cde-af00-112233445566}",
            "urn:uuid:0192f0c1-7a8b-7cde-af00-112233445566",
            "0192f0c1-7a8b-4cde-af00-112233445566",
            "0192f0c1-7a8b-7cde-cf00-112233445566",
            "0192f0c1-7a8b-7cde-af00-11223344556g",
        ] {
            assert_eq!(uuid_v7(text), None, "{text}");
        }
        assert!(uuid_v7("0192f0c1-7a8b-7cde-af00-112233445566").is_some());
    }
}
