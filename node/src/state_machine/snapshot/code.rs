//! One module's code, out of the beginning of a snapshot's stream.
//!
//! Rows come in order of their keys, and modules come before everything that is large: so whoever only wants a module need not
//! read the rest.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use prost::Message;

use super::{SnapshotDecoder, SnapshotError};
use crate::ids::ModuleHash;
use crate::proto::command as pb;
use crate::state_machine::uploads;
use crate::storage::keys::Key;

/// Looks for the module of one name.
#[derive(Debug)]
pub struct CodeFinder {
    name: String,
    decoder: SnapshotDecoder,
    row: Option<pb::ActiveModule>,
    parts: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl CodeFinder {
    /// Of the module called `name`.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), decoder: SnapshotDecoder::default(), row: None, parts: BTreeMap::new() }
    }

    /// Takes the next bytes of the stream; breaks when it has seen enough.
    pub fn write(&mut self, bytes: &[u8]) -> Result<ControlFlow<()>, SnapshotError> {
        let (name, row, parts) = (&self.name, &mut self.row, &mut self.parts);
        let mut flow = ControlFlow::Continue(());
        self.decoder.write(bytes, &mut |rows| {
            for (key, value) in rows {
                let value = value.as_deref().unwrap_or_default();
                match Key::decode(key) {
                    Some(Key::Module(of)) if of == name => {
                        let decoded = pb::ActiveModule::decode(value);
                        *row = Some(decoded.map_err(|_| SnapshotError::Damaged("a module's row"))?);
                    }
                    Some(Key::Wasm { hash, .. }) if row.as_ref().is_some_and(|row| row.hash == hash.0[..]) => {
                        parts.insert(key.clone(), value.to_vec());
                    }
                    Some(Key::Progress | Key::Membership | Key::Limits | Key::Module(_) | Key::Wasm { .. }) => {}
                    _ => flow = ControlFlow::Break(()),
                }
            }
            Ok(())
        })?;
        Ok(flow)
    }

    /// Its code; `None` if there is no such module.
    pub fn finish(self) -> Option<Bytes> {
        let row = self.row?;
        let hash = ModuleHash::try_from(&row.hash[..]).ok()?;
        let get = |key: &[u8]| Ok::<_, std::convert::Infallible>(self.parts.get(key).cloned());
        uploads::assemble(hash, row.size, get).unwrap_or_else(|never| match never {})
    }
}
