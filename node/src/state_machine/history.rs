//! What became of modules: the history, for people, and the wishes that were answered, for the leader.
//!
//! Both are rows of the state. Of the history only so much is kept, for each module and in all. A leader compares what the files want with the last wish that was answered, and does nothing
//! while they are the same; so neither a restart nor another leader tries again what was refused, or undoes what an
//! operator has pushed since.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use prost::Message;

use super::Fault;
use super::uploads::decode_rows;
use crate::limits::{HISTORY_ROWS_ALL_MAX, HISTORY_ROWS_MAX};
use crate::proto::command as pb;
use crate::storage::keys::{self, Key, MODULE_NAME_BYTES_MAX};
use crate::storage::{ReadView, Txn};

/// Writes a row of the history. The oldest one goes, of the module or of all, when there are too many.
pub(super) fn record(txn: &mut Txn, activation: &pb::Activation) -> Result<(), Fault> {
    let (mut own, mut all) = (Vec::new(), Vec::new());
    let (start, end) = keys::history(None);
    txn.scan(&start, Some(&end), false, &mut |key, _| {
        if let Some(Key::History { module, index }) = Key::decode(key) {
            if module == activation.name {
                own.push((index, key.to_vec()));
            }
            all.push((index, key.to_vec()));
        }
        ControlFlow::Continue(())
    })?;
    let oldest = match (own.len() >= HISTORY_ROWS_MAX, all.len() >= HISTORY_ROWS_ALL_MAX) {
        (true, _) => own.into_iter().min(),
        (false, true) => all.into_iter().min(),
        (false, false) => None,
    };
    if let Some((_, key)) = oldest {
        txn.delete(key);
    }
    let key = Key::History { module: &activation.name, index: activation.index };
    txn.put(key.encode(), activation.encode_to_vec());
    Ok(())
}

/// Notes which wish about `name` was answered, if it was one.
pub(super) fn decide(txn: &mut Txn, name: &str, wish: &bytes::Bytes, index: u64, refused: bool) {
    if !wish.is_empty() && is_name(name) {
        let decided = pb::Decided { wish: wish.clone(), index, refused };
        txn.put(Key::Decided(name).encode(), decided.encode_to_vec());
    }
}

/// Notes that the files do not want `name`.
pub(super) fn decide_absent(txn: &mut Txn, name: &str, index: u64) {
    let decided = pb::Decided { wish: bytes::Bytes::new(), index, refused: false };
    txn.put(Key::Decided(name).encode(), decided.encode_to_vec());
}

/// Forgets that the last wish about `name` was refused, so that it is tried again.
pub(super) fn reconsider(txn: &mut Txn, name: &str) -> Result<(), Fault> {
    if !is_name(name) {
        return Ok(());
    }
    let key = Key::Decided(name).encode();
    let Some(bytes) = txn.get(&key)? else { return Ok(()) };
    if decode(&bytes)?.refused {
        txn.delete(key);
    }
    Ok(())
}

/// Whether a row can be kept under this name.
pub(super) fn is_name(name: &str) -> bool {
    (1..=MODULE_NAME_BYTES_MAX).contains(&name.len())
}

/// The history of `module`, or of one module after the other; each in order of time.
pub(super) fn activations(view: &ReadView, module: Option<&str>) -> Result<Vec<pb::Activation>, Fault> {
    if module.is_some_and(|name| !is_name(name)) {
        return Ok(Vec::new());
    }
    let (start, end) = keys::history(module);
    decode_rows(view, &start, &end)
}

/// The last wish that was answered, by name.
pub(super) fn decisions(view: &ReadView) -> Result<BTreeMap<String, pb::Decided>, Fault> {
    let (start, end) = keys::decided();
    let mut rows = Vec::new();
    view.each(&start, |key, value| {
        if key >= end.as_slice() {
            return ControlFlow::Break(());
        }
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })?;
    let named = rows.into_iter().map(|(key, value)| match Key::decode(&key) {
        Some(Key::Decided(name)) => Ok((name.to_owned(), decode(&value)?)),
        _ => Err(Fault::corrupt("a decision without a name")),
    });
    named.collect()
}

fn decode(bytes: &[u8]) -> Result<pb::Decided, Fault> {
    pb::Decided::decode(bytes).map_err(|error| Fault::corrupt(format!("a decision: {error}")))
}
