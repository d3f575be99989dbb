//! What a command sees and writes, in three layers.
//!
//! ```text
//! command   writes of the command that is running        dropped if it fails, merged down if it succeeds
//! batch     writes of the batch so far                   committed in one redb transaction at its end
//! view      the last commit                              never changes
//! ```
//!
//! A higher layer hides what lies below; a tombstone (`None`) hides it as absent. redb's own savepoints cannot be taken inside an
//! open write transaction, and one redb transaction per command would cost ten times as much; a `BTreeMap` costs
//! almost nothing, since a command touches few keys.
//!
//! A scan merges the layers in key order, forward or backward, and so sees the writes of its own command.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::iter::Peekable;
use std::ops::ControlFlow;

use super::keys;
use super::{Error, ReadView};
use crate::wasm::{HostFault, ScanRange, State};

/// Writes that lie over something: key to value, or to `None` where the key was deleted.
pub type Overlay = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Gets each key and value of a scan, until it says stop.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// The three layers.
#[derive(Debug)]
pub struct Txn {
    view: ReadView,
    batch: Overlay,
    command: Overlay,
}

impl Txn {
    /// Nothing written yet over `view`.
    pub fn new(view: ReadView) -> Self {
        Self { view, batch: Overlay::new(), command: Overlay::new() }
    }

    /// The value under `key`, as the running command sees it.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self.command.get(key).or_else(|| self.batch.get(key)) {
            Some(value) => Ok(value.clone()),
            None => self.view.get(key),
        }
    }

    /// Writes for the running command.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.command.insert(key, Some(value));
    }

    /// Deletes for the running command.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.command.insert(key, None);
    }

    /// Calls `visit` for each key from `start` up to `end` (not included; `None`: to the last), descending if `reverse`.
    pub fn scan(&self, start: &[u8], end: Option<&[u8]>, reverse: bool, visit: &mut Visit<'_>) -> Result<(), Error> {
        if end.is_some_and(|end| end <= start) {
            return Ok(());
        }
        let base = self.view.range(start, end)?;
        let (batch, command) = (range(&self.batch, start, end), range(&self.command, start, end));
        match reverse {
            false => merge(base, batch, command, |a, b| a < b, visit),
            true => merge(base.rev(), batch.rev(), command.rev(), |a, b| a > b, visit),
        }
    }

    /// Forgets the running command's writes.
    pub fn roll_back(&mut self) {
        self.command.clear();
    }

    /// Merges the running command's writes into the batch, showing each to `seen`, in order of their keys.
    pub fn merge(&mut self, mut seen: impl FnMut(&[u8], Option<&[u8]>)) {
        while let Some((key, value)) = self.command.pop_first() {
            seen(&key, value.as_deref());
            self.batch.insert(key, value);
        }
    }

    /// All writes of the batch; the command's must have been merged or rolled back.
    pub fn batch(&self) -> &Overlay {
        debug_assert!(self.command.is_empty(), "a command is still running");
        &self.batch
    }

    /// Lends this transaction to the module called `name`, leaving nothing behind.
    pub fn lend(&mut self, name: &str) -> Box<ModuleState> {
        let lent = Self {
            view: self.view.clone(),
            batch: std::mem::take(&mut self.batch),
            command: std::mem::take(&mut self.command),
        };
        Box::new(ModuleState { txn: lent, prefix: keys::state_prefix(name) })
    }

    /// Takes back what [`Txn::lend`] lent.
    pub fn take_back(&mut self, state: Box<dyn State>) {
        let state: Box<dyn std::any::Any> = state;
        let state = state.downcast::<ModuleState>().expect("a call hands back the state it was given");
        *self = state.txn;
    }
}

/// A transaction as one module sees it: only its own keys, under the names that it gave them. Owned, so that a wasm instance can
/// hold it without a lifetime.
#[derive(Debug)]
pub struct ModuleState {
    txn: Txn,
    prefix: Vec<u8>,
}

impl ModuleState {
    fn full(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix, key].concat()
    }
}

impl State for ModuleState {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, HostFault> {
        Ok(self.txn.get(&self.full(key))?)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), HostFault> {
        self.txn.put(self.full(key), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<bool, HostFault> {
        let key = self.full(key);
        let existed = self.txn.get(&key)?.is_some();
        self.txn.delete(key);
        Ok(existed)
    }

    fn scan(
        &mut self,
        range: &ScanRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), HostFault> {
        let start = self.full(&range.start);
        let end = match &range.end {
            Some(end) => Some(self.full(end)),
            None => keys::after_prefix(&self.prefix),
        };
        let own = self.prefix.len();
        Ok(self.txn.scan(&start, end.as_deref(), range.reverse, &mut |key, value| visit(&key[own..], value))?)
    }
}

fn range<'a>(
    overlay: &'a Overlay,
    start: &'a [u8],
    end: Option<&'a [u8]>,
) -> btree_map::Range<'a, Vec<u8>, Option<Vec<u8>>> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    overlay.range::<[u8], _>((Included(start), end.map_or(Unbounded, Excluded)))
}

/// Visits the union of three ordered sources in order (`before` says which); the same key in a later source hides it in an
/// earlier one.
fn merge<'a, B, O>(
    base: B,
    batch: O,
    command: O,
    before: impl Fn(&[u8], &[u8]) -> bool,
    visit: &mut Visit<'_>,
) -> Result<(), Error>
where
    B: Iterator<Item = Row>,
    O: Iterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)>,
{
    let (mut base, mut batch, mut command) = (base, batch.peekable(), command.peekable());
    let mut row = base.next().transpose()?;
    loop {
        let over = first(&mut batch, &mut command, &before);
        let flow = match (&row, over) {
            (None, None) => return Ok(()),
            (Some((key, value)), over) if over.is_none_or(|(above, _)| before(key.value(), above)) => {
                let flow = visit(key.value(), value.value());
                row = base.next().transpose()?;
                flow
            }
            (below, Some((key, value))) => {
                if below.as_ref().is_some_and(|(below, _)| below.value() == key) {
                    row = base.next().transpose()?;
                }
                skip(&mut batch, key);
                skip(&mut command, key);
                value.map_or(ControlFlow::Continue(()), |value| visit(key, value))
            }
            (Some(_), None) => unreachable!("a row with nothing over it is visited above"),
        };
        if flow.is_break() {
            return Ok(());
        }
    }
}

type Row =
    Result<(redb::AccessGuard<'static, &'static [u8]>, redb::AccessGuard<'static, &'static [u8]>), redb::StorageError>;

/// The next key of the two overlays, with the value of the upper one that has it.
fn first<'a>(
    batch: &mut Peekable<impl Iterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)>>,
    command: &mut Peekable<impl Iterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)>>,
    before: impl Fn(&[u8], &[u8]) -> bool,
) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let (lower, upper) = (batch.peek().copied(), command.peek().copied());
    let (key, value) = match (lower, upper) {
        (Some(lower), Some(upper)) if before(lower.0, upper.0) => lower,
        (lower, upper) => upper.or(lower)?,
    };
    Some((key, value.as_deref()))
}

fn skip<'a>(layer: &mut Peekable<impl Iterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)>>, key: &[u8]) {
    layer.next_if(|(next, _)| next.as_slice() == key);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::Database;
    use super::super::sim_disk::SimDisk;
    use super::*;

    /// Few keys, so that layers meet; some are prefixes of others.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        vec(prop_oneof![Just(0), Just(b'a'), Just(b'b'), Just(255)], 0..4)
    }

    fn layer() -> impl Strategy<Value = Overlay> {
        proptest::collection::btree_map(key(), proptest::option::of(vec(any::<u8>(), 0..3)), 0..12)
    }

    fn database(rows: &Overlay) -> Database {
        let mut database = Database::open(Arc::new(SimDisk::default()), "d".as_ref(), 1024 * 1024).unwrap();
        database.commit(rows).unwrap();
        database
    }

    fn model(layers: &[&Overlay]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let merged: Overlay = layers.iter().flat_map(|layer| (*layer).clone()).collect();
        merged.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }

    fn scanned(txn: &Txn, start: &[u8], end: Option<&[u8]>, reverse: bool, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        txn.scan(start, end, reverse, &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            if rows.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .unwrap();
        rows
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn layers_read_like_one_map(
            base in layer(), batch in layer(), command in layer(),
            start in key(), end in proptest::option::of(key()), reverse: bool, limit in 1usize..6, probe in key(),
        ) {
            let database = database(&base);
            let txn = Txn { view: database.view(), batch: batch.clone(), command: command.clone() };
            let model = model(&[&base, &batch, &command]);
            prop_assert_eq!(txn.get(&probe).unwrap(), model.get(&probe).cloned());

            let inside = |key: &Vec<u8>| *key >= start && end.as_ref().is_none_or(|end| key < end);
            let mut expected: Vec<_> = model.into_iter().filter(|(key, _)| inside(key)).collect();
            if reverse {
                expected.reverse();
            }
            expected.truncate(limit);
            prop_assert_eq!(scanned(&txn, &start, end.as_deref(), reverse, limit), expected);
        }

        #[test]
        fn merging_and_committing_changes_nothing_that_is_read(base in layer(), batch in layer(), command in layer()) {
            let mut database = database(&base);
            let mut txn = Txn { view: database.view(), batch, command };
            let before = scanned(&txn, b"", None, false, usize::MAX);
            let mut seen = Vec::new();
            txn.merge(|key, _| seen.push(key.to_vec()));
            prop_assert!(seen.is_sorted());
            prop_assert_eq!(&scanned(&txn, b"", None, false, usize::MAX), &before);
            database.commit(txn.batch()).unwrap();
            prop_assert_eq!(&scanned(&Txn::new(database.view()), b"", None, false, usize::MAX), &before);
        }

        #[test]
        fn a_rolled_back_command_was_never_there(base in layer(), batch in layer(), command in layer()) {
            let database = database(&base);
            let expected = model(&[&base, &batch]);
            let mut txn = Txn { view: database.view(), batch, command };
            txn.roll_back();
            let rows: BTreeMap<_, _> = scanned(&txn, b"", None, false, usize::MAX).into_iter().collect();
            prop_assert_eq!(rows, expected);
        }

        #[test]
        fn a_module_sees_its_own_keys_only(a in layer(), b in layer(), reverse: bool) {
            let database = database(&Overlay::new());
            let mut txn = Txn::new(database.view());
            for (name, rows) in [("m", &a), ("mm", &b)] {
                let mut state = txn.lend(name);
                for (key, value) in rows {
                    match value {
                        Some(value) => state.put(key, value).unwrap(),
                        None => assert!(!state.delete(key).unwrap()),
                    }
                }
                txn.take_back(state);
            }
            let mut state = txn.lend("m");
            let mut rows = Vec::new();
            let range = ScanRange { start: Vec::new(), end: None, reverse };
            state.scan(&range, &mut |key, value| {
                rows.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            }).unwrap();
            let mut expected: Vec<_> = model(&[&a]).into_iter().collect();
            if reverse {
                expected.reverse();
            }
            prop_assert_eq!(rows, expected);
        }
    }

    #[test]
    fn a_delete_says_whether_there_was_something() {
        let database =
            database(&Overlay::from([(keys::Key::State { module: "m", key: b"old" }.encode(), Some(vec![1]))]));
        let mut txn = Txn::new(database.view());
        let mut state = txn.lend("m");
        state.put(b"new", b"2").unwrap();
        for key in [&b"old"[..], b"new"] {
            assert!(state.delete(key).unwrap());
            assert!(!state.delete(key).unwrap());
            assert_eq!(state.get(key).unwrap(), None);
        }
    }
}
