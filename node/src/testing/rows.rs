//! State in memory, for modules that are tried without a database.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Bound;

use crate::wasm::{HostFault, ScanRange, State, Visit};

/// Keys and values of one module.
pub(crate) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A state of these rows.
pub(crate) fn map(rows: Rows) -> Box<dyn State> {
    Box::new(Map { rows, broken: false })
}

/// A state that fails like a disk.
pub(crate) fn broken() -> Box<dyn State> {
    Box::new(Map { rows: Rows::new(), broken: true })
}

/// What [`map`] was made of, and what was written since.
pub(crate) fn rows_of(state: Box<dyn State>) -> Rows {
    let state: Box<dyn Any> = state;
    state.downcast::<Map>().expect("what it was given").rows
}

struct Map {
    rows: Rows,
    broken: bool,
}

impl Map {
    fn check(&self) -> Result<(), HostFault> {
        if self.broken { Err(HostFault("the disk is gone".into())) } else { Ok(()) }
    }
}

impl State for Map {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, HostFault> {
        self.check()?;
        Ok(self.rows.get(key).cloned())
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), HostFault> {
        self.check()?;
        self.rows.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<bool, HostFault> {
        self.check()?;
        Ok(self.rows.remove(key).is_some())
    }

    fn scan(&mut self, range: &ScanRange, visit: Visit<'_>) -> Result<(), HostFault> {
        self.check()?;
        let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.rows.range::<[u8], _>((Bound::Included(range.start.as_slice()), end));
        let mut visit = |(key, value): (&Vec<u8>, &Vec<u8>)| visit(key, value).is_break();
        let _ = if range.reverse { rows.rev().any(&mut visit) } else { rows.into_iter().any(&mut visit) };
        Ok(())
    }
}

#[test]
fn rows_are_a_state() {
    let mut state = map(Rows::from([(b"key".to_vec(), b"value".to_vec()), (b"other".to_vec(), Vec::new())]));
    assert!(state.get(b"key").unwrap().is_some() && state.delete(b"key").unwrap() && !state.delete(b"key").unwrap());
    state.put(b"third", b"3").unwrap();
    assert_eq!(rows_of(state).into_keys().collect::<Vec<_>>(), [b"other".to_vec(), b"third".to_vec()]);
}
