//! What the files of one node ask for, in the form in which nodes compare it.
//!
//! Two nodes ask for the same if their wishes have the same hash, whatever their paths, their compression and the order of their
//! sections. The module that is built into the binary has no hash and no size in a wish: nodes of different releases, with
//! different modules inside, ask for the same all the same, and upgrading the binary never swaps code by itself.

use std::collections::BTreeMap;

use crate::limits::{Fuel, Replicated};
use crate::proto::{admin, command};
use crate::wasm::embedded;

/// The part of a module's wish that is not hashed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModuleFields {
    pub(super) name: String,
    /// Of the uncompressed wasm; empty: the embedded module.
    pub(super) hash: Vec<u8>,
    /// Of the uncompressed wasm, bytes.
    pub(super) size: u64,
    pub(super) allow_breaking: bool,
    pub(super) fuel: Fuel,
}

/// Hashes fields, each with its length, so that no two lists of fields look alike.
struct Fields(blake3::Hasher);

impl Fields {
    fn new(domain: &'static str) -> Self {
        Self(blake3::Hasher::new_derive_key(domain))
    }

    fn add(mut self, field: &[u8]) -> Self {
        self.0.update(&(field.len() as u64).to_le_bytes());
        self.0.update(field);
        self
    }

    fn hash(self) -> bytes::Bytes {
        self.0.finalize().as_bytes().to_vec().into()
    }
}

/// What is asked for if no module is configured.
pub(super) fn embedded_module() -> ModuleFields {
    ModuleFields {
        name: embedded::NAME.into(),
        hash: Vec::new(),
        size: 0,
        allow_breaking: false,
        fuel: Fuel::default(),
    }
}

/// The hash of a wish: of each module's fields, ascending by name, and of the limits.
pub(super) fn wish(modules: Vec<ModuleFields>, limits: Replicated) -> admin::Wish {
    let mut modules: Vec<_> = modules.into_iter().map(module_wish).collect();
    modules.sort_by(|a, b| a.name.cmp(&b.name));
    let fields = Fields::new("balsa files: wish 1");
    let fields = modules.iter().fold(fields, |fields, module| fields.add(&module.wish));
    let fields = limits.in_order().iter().fold(fields, |fields, limit| fields.add(&limit.to_le_bytes()));
    let limits = Some(command::Limits::from(limits));
    admin::Wish { boot: 0, sequence: 0, hash: fields.hash(), modules, limits, replicas: 0 }
}

fn module_wish(module: ModuleFields) -> admin::ModuleWish {
    let ModuleFields { name, hash, size, allow_breaking, fuel } = module;
    let own = command::Fuel::from(fuel);
    let fields = Fields::new("balsa files: wish about a module 1").add(name.as_bytes()).add(&hash);
    let wish = fields.add(&size.to_le_bytes()).add(&[u8::from(allow_breaking)]);
    let wish = wish.add(&own.command.to_le_bytes()).add(&own.query.to_le_bytes()).hash();
    let fuel = (fuel != Fuel::default()).then_some(own);
    admin::ModuleWish { name, hash: hash.into(), size, allow_breaking, wish, fuel }
}

/// The wish that more than half of `voters` have, if there is one. Each voter's wish is given at most once; a node that does not
/// know yet what its files ask for has a wish without a hash, which counts for nothing.
pub fn agreed<'a>(wishes: impl Iterator<Item = &'a admin::Wish>, voters: usize) -> Option<&'a admin::Wish> {
    let mut votes: BTreeMap<&[u8], (usize, &admin::Wish)> = BTreeMap::new();
    for wish in wishes.filter(|wish| !wish.hash.is_empty()) {
        votes.entry(&wish.hash).or_insert((0, wish)).0 += 1;
    }
    votes.into_values().find(|(count, _)| *count > voters / 2).map(|(_, wish)| wish)
}

/// How many nodes more than half of `voters` want there to be. It is no part of the hash: who may take part, and what runs, are two
/// questions, and an older balsa knows only the second.
pub fn agreed_replicas<'a>(wishes: impl Iterator<Item = &'a admin::Wish>, voters: usize) -> Option<u32> {
    let mut votes: BTreeMap<u32, usize> = BTreeMap::new();
    for wish in wishes.filter(|wish| wish.replicas > 0) {
        *votes.entry(wish.replicas).or_insert(0) += 1;
    }
    votes.into_iter().find(|(_, count)| *count > voters / 2).map(|(replicas, _)| replicas)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str) -> ModuleFields {
        ModuleFields { name: name.into(), hash: vec![7; 32], size: 100, allow_breaking: false, fuel: Fuel::default() }
    }

    fn hash(modules: &[ModuleFields]) -> bytes::Bytes {
        wish(modules.to_vec(), Replicated::default()).hash
    }

    #[test]
    fn every_field_of_a_module_makes_another_wish() {
        let one = module("a");
        let others = [
            module("b"),
            ModuleFields { hash: vec![8; 32], ..one.clone() },
            ModuleFields { size: 101, ..one.clone() },
            ModuleFields { allow_breaking: true, ..one.clone() },
            ModuleFields { fuel: Fuel { command: Some(1), query: None }, ..one.clone() },
            ModuleFields { fuel: Fuel { command: None, query: Some(1) }, ..one.clone() },
            embedded_module(),
        ];
        let all: Vec<_> = others.into_iter().chain([one]).collect();
        let hashes: std::collections::BTreeSet<_> =
            all.iter().map(|module| hash(std::slice::from_ref(module))).collect();
        assert_eq!(hashes.len(), all.len());
        let own: std::collections::BTreeSet<_> = all.into_iter().map(|module| module_wish(module).wish).collect();
        assert_eq!(own.len(), hashes.len());
    }

    #[test]
    fn every_limit_makes_another_wish() {
        let base = Replicated::default().in_order();
        let of = |n: [u64; 9]| Replicated {
            command_fuel: n[0],
            query_fuel: n[1],
            memory_bytes: n[2],
            idempotency_window_ms: n[3],
            idempotency_keys: n[4],
            idempotency_bytes: n[5],
            migrate_fuel: n[6],
            migrate_writes: n[7],
            migrate_bytes: n[8],
        };
        let mut hashes = std::collections::BTreeSet::from([wish(Vec::new(), Replicated::default()).hash]);
        for at in 0..base.len() {
            let mut changed = base;
            changed[at] += 1;
            assert!(hashes.insert(wish(Vec::new(), of(changed)).hash), "limit {at} is not part of the wish");
        }
    }

    #[test]
    fn the_order_of_the_sections_does_not_matter_and_their_number_does() {
        assert_eq!(hash(&[module("a"), module("b")]), hash(&[module("b"), module("a")]));
        assert_ne!(hash(&[module("a"), module("b")]), hash(&[module("a")]));
        assert_ne!(hash(&[]), hash(&[module("a")]));
    }

    #[test]
    fn a_number_of_nodes_needs_a_majority_that_says_one() {
        let says = |replicas| admin::Wish { replicas, ..admin::Wish::default() };
        let agreed = |said: &[u32], voters| {
            let wishes: Vec<_> = said.iter().map(|replicas| says(*replicas)).collect();
            agreed_replicas(wishes.iter(), voters)
        };
        assert_eq!(agreed(&[3, 5, 5], 3), Some(5));
        assert_eq!(agreed(&[5, 5], 4), None, "half is no majority");
        assert_eq!(agreed(&[0, 0, 3], 3), None, "a file that does not say it takes nobody away");
    }

    #[test]
    fn a_majority_of_the_voters_decides_and_not_of_those_who_answered() {
        let [a, b] = [wish(vec![module("a")], Replicated::default()), wish(vec![module("b")], Replicated::default())];
        let unknown = admin::Wish::default();
        let decided = |wishes: &[&admin::Wish], voters| agreed(wishes.iter().copied(), voters).map(|w| w.hash.clone());
        assert_eq!(decided(&[&a, &a, &b], 3), Some(a.hash.clone()));
        assert_eq!(decided(&[&a, &a], 3), Some(a.hash.clone()));
        assert_eq!(decided(&[&a, &a, &b, &b], 4), None, "two against two");
        assert_eq!(decided(&[&a, &a], 4), None, "half is no majority");
        assert_eq!(decided(&[&a], 1), Some(a.hash.clone()));
        assert_eq!(decided(&[&unknown, &unknown, &a], 3), None, "not to know is not to agree");
        assert_eq!(decided(&[], 3), None);
    }
}
