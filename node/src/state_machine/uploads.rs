//! Modules on their way: bytes that arrive in parts, through the log, before anybody may activate them.
//!
//! One entry of 32 MiB would hold up every command behind it, so a module travels in parts of [`MODULE_PART_BYTES_MAX`], with
//! commands between them. Parts are rows of their own; while more are missing, or nobody has activated the whole, a row
//! says how much is there and since when. The hash names the upload: whoever sends the same bytes again, another leader
//! for example, goes on where the last one stopped, and a part that is there already changes nothing.
//!
//! What nobody activates expires in log time, so an abandoned upload cannot fill the state. Until then all of them together have
//! a limit of bytes and of number: the rows are held in memory, and each entry asks them all whether they have expired.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use prost::Message;

use super::Fault;
use crate::command::Refusal;
use crate::ids::ModuleHash;
use crate::limits::{MODULE_BYTES_MAX, MODULE_PART_BYTES_MAX, UPLOAD_EXPIRES_MS, UPLOADS_BYTES_MAX, UPLOADS_MAX};
use crate::proto::command as pb;
use crate::storage::keys::{self, Key};
use crate::storage::{ReadView, Txn};

const PART: u64 = MODULE_PART_BYTES_MAX as u64;

/// The uploads that are under way. Few, so all are held in memory beside their rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Uploads {
    rows: BTreeMap<ModuleHash, pb::Uploaded>,
}

impl Uploads {
    /// Those in `view`.
    pub(super) fn load(view: &ReadView) -> Result<Self, Fault> {
        let (start, end) = keys::uploads();
        let rows = decode_rows::<pb::Uploaded>(view, &start, &end)?;
        let keyed = rows.into_iter().map(|row| Ok((hash_of(&row.hash)?, row)));
        Ok(Self { rows: keyed.collect::<Result<_, Fault>>()? })
    }

    /// Takes in a part. One that is there already is fine, one that leaves a gap is not. With the last one, all of them must be
    /// what the hash says.
    pub(super) fn take(
        &mut self,
        txn: &mut Txn,
        part: &pb::Upload,
        time_ms: u64,
    ) -> Result<Result<(), Refusal>, Fault> {
        let Ok(hash) = ModuleHash::try_from(&part.hash[..]) else { return Ok(Err(Refusal::UploadOutOfPlace)) };
        let known = match self.known(hash, part) {
            Ok(known) => known,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if part.offset < known.received {
            return Ok(Ok(()));
        }
        let received = known.received + part.data.len() as u64;
        txn.put(Key::Wasm { hash, part: number(part.offset) }.encode(), part.data.to_vec());
        self.note(txn, hash, pb::Uploaded { received, time_ms, ..known });
        if received < part.size || assemble(hash, part.size, |key| txn.get(key))?.is_some() {
            return Ok(Ok(()));
        }
        // Left there, wrong bytes would keep the right ones out.
        delete_parts(txn, hash, part.size);
        self.settle(txn, hash);
        Ok(Err(Refusal::UploadOutOfPlace))
    }

    /// What there is of the upload that `part` belongs to, if it has a place there.
    fn known(&self, hash: ModuleHash, part: &pb::Upload) -> Result<pb::Uploaded, Refusal> {
        let begun = self.rows.get(&hash).cloned();
        let (size, received) = begun.as_ref().map_or((part.size, 0), |row| (row.size, row.received));
        if !fits(part, size) || part.offset > received {
            return Err(Refusal::UploadOutOfPlace);
        }
        let full = || self.rows.len() >= UPLOADS_MAX || self.bytes() + part.size > UPLOADS_BYTES_MAX;
        match begun {
            Some(row) => Ok(row),
            None if full() => Err(Refusal::UploadsFull),
            None => Ok(pb::Uploaded { hash: part.hash.clone(), size, ..pb::Uploaded::default() }),
        }
    }

    fn note(&mut self, txn: &mut Txn, hash: ModuleHash, row: pb::Uploaded) {
        txn.put(Key::Upload(hash).encode(), row.encode_to_vec());
        self.rows.insert(hash, row);
    }

    /// The size of `hash`, if all of it is there.
    pub(super) fn whole(&self, hash: ModuleHash) -> Option<u64> {
        self.rows.get(&hash).filter(|row| row.received == row.size).map(|row| row.size)
    }

    /// The parts of `hash` belong to an active module from here on.
    pub(super) fn settle(&mut self, txn: &mut Txn, hash: ModuleHash) {
        if self.rows.remove(&hash).is_some() {
            txn.delete(Key::Upload(hash).encode());
        }
    }

    /// Forgets what nobody has activated in time.
    pub(super) fn expire(&mut self, txn: &mut Txn, time_ms: u64) {
        let late = |row: &pb::Uploaded| row.time_ms.saturating_add(UPLOAD_EXPIRES_MS) < time_ms;
        let expired: Vec<_> =
            self.rows.iter().filter(|(_, row)| late(row)).map(|(hash, row)| (*hash, row.received)).collect();
        for (hash, received) in expired {
            delete_parts(txn, hash, received);
            self.settle(txn, hash);
        }
    }

    fn bytes(&self) -> u64 {
        self.rows.values().map(|row| row.size).sum()
    }
}

/// Whether `part` is a part of something of `size` bytes at all: whole parts, in their places.
fn fits(part: &pb::Upload, size: u64) -> bool {
    let expected = size.saturating_sub(part.offset).min(PART);
    part.size == size
        && (1..=MODULE_BYTES_MAX as u64).contains(&size)
        && part.offset.is_multiple_of(PART)
        && expected > 0
        && part.data.len() as u64 == expected
}

fn number(offset: u64) -> u32 {
    u32::try_from(offset / PART).expect("a module has far fewer parts")
}

/// Writes a whole module as parts: one that came inside its activation.
pub(super) fn put_parts(txn: &mut Txn, hash: ModuleHash, wasm: &[u8]) {
    for (part, data) in (0..).zip(wasm.chunks(MODULE_PART_BYTES_MAX)) {
        txn.put(Key::Wasm { hash, part }.encode(), data.to_vec());
    }
}

/// Deletes the parts of something of `size` bytes.
pub(super) fn delete_parts(txn: &mut Txn, hash: ModuleHash, size: u64) {
    for part in 0..number(size.div_ceil(PART) * PART) {
        txn.delete(Key::Wasm { hash, part }.encode());
    }
}

/// All bytes of `hash`, of which there are `size`; `get` reads a row. `None` if they are not what their hash says: parts are
/// missing, or whoever uploaded them was wrong about the hash.
pub(super) fn assemble<E>(
    hash: ModuleHash,
    size: u64,
    get: impl Fn(&[u8]) -> Result<Option<Vec<u8>>, E>,
) -> Result<Option<Bytes>, E> {
    let mut wasm = Vec::with_capacity(usize::try_from(size).unwrap_or(0).min(MODULE_BYTES_MAX));
    for part in 0..number(size.div_ceil(PART) * PART) {
        match get(&Key::Wasm { hash, part }.encode())? {
            Some(data) => wasm.extend_from_slice(&data),
            None => return Ok(None),
        }
    }
    Ok((ModuleHash::of(&wasm) == hash).then(|| wasm.into()))
}

/// The size of `hash` if it was uploaded whole and is not activated yet, as of `view`.
pub(super) fn whole_size(view: &ReadView, hash: ModuleHash) -> Result<Option<u64>, Fault> {
    let Some(bytes) = view.get(&Key::Upload(hash).encode())? else { return Ok(None) };
    let row = pb::Uploaded::decode(&bytes[..]).map_err(|error| Fault::corrupt(format!("upload row: {error}")))?;
    Ok((row.received == row.size).then_some(row.size))
}

/// The hash in a row.
pub(super) fn hash_of(bytes: &[u8]) -> Result<ModuleHash, Fault> {
    ModuleHash::try_from(bytes).map_err(|_| Fault::corrupt("a module's hash has not 32 bytes"))
}

/// All rows from `start` up to `end`.
pub(super) fn decode_rows<T: Message + Default>(view: &ReadView, start: &[u8], end: &[u8]) -> Result<Vec<T>, Fault> {
    let mut rows = Vec::new();
    view.each(start, |key, value| {
        if key >= end {
            return ControlFlow::Break(());
        }
        rows.push(T::decode(value).map_err(|error| Fault::corrupt(format!("a row about modules: {error}"))));
        ControlFlow::Continue(())
    })?;
    rows.into_iter().collect()
}
