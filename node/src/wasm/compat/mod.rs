//! What a client of one module would notice if another took its place.
//!
//! A module is swapped under clients that were built with its descriptors and are not asked. [`differences`] compares what they
//! rely on: services and methods, how a method runs (a query that became a command would go through the log, a stream is read
//! otherwise than a message), and all messages that a request or a response can hold. Nothing to report means that every client of
//! the old module goes on with the new one.
//!
//! # What counts
//!
//! Messages are compared as they are on the wire *and* in JSON, since both kinds of client exist. So a field keeps its number, its
//! name, its JSON name and its type; whether it repeats, whether it is in a oneof with others, whether its absence can be told from
//! its default; and so does the value of an enum. A field or a value may go if its number and its name are `reserved` from then
//! on, since then nothing else can be read in its place; what was reserved must not come back as something else.
//!
//! Not a difference: whatever is new (unless it is `required`, which old clients can't know), the order of things, comments, options,
//! files, a proto3 field that learns `optional`, the name of a oneof, and whether numbers are packed, since every decoder
//! reads both. Extensions and what an `Any` holds are not looked at.
//!
//! # How
//!
//! Types are walked breadth first from the methods in order of their paths, each type once, so that what is said of it names the
//! first method that reaches it, and recursion ends. The lists come in the same order every time: nothing depends on which node
//! compares.

mod difference;
#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::MethodDescriptor;

pub use self::difference::{Change, Difference};
use self::types::Types;
use super::module::{MethodKind, Module};

/// What a client of `old` would notice if `new` took its place, in a fixed order; empty: nothing.
pub fn differences(old: &Module, new: &Module) -> Vec<Difference> {
    compare(&Surface::of(old), &Surface::of(new))
}

/// What clients see of a module, by path without the slash before it: `ledger.v1.Ledger/Transfer`.
pub(super) struct Surface(BTreeMap<String, Served>);

/// A method and how it runs.
#[derive(Debug, Clone)]
pub(super) struct Served {
    pub(super) kind: MethodKind,
    pub(super) described: MethodDescriptor,
}

impl Surface {
    fn of(module: &Module) -> Self {
        let served = module.methods().iter().filter_map(|method| {
            Some(Served { kind: method.kind, described: method.described(module.descriptors())? })
        });
        Self::new(served)
    }

    pub(super) fn new(served: impl Iterator<Item = Served>) -> Self {
        Self(served.map(|served| (served.path(), served)).collect())
    }

    fn services(&self) -> BTreeSet<String> {
        self.0.values().map(Served::service).collect()
    }
}

impl Served {
    fn service(&self) -> String {
        self.described.parent_service().full_name().to_owned()
    }

    fn path(&self) -> String {
        format!("{}/{}", self.service(), self.described.name())
    }
}

pub(super) fn compare(old: &Surface, new: &Surface) -> Vec<Difference> {
    let services = new.services();
    let mut removed = BTreeSet::new();
    let mut found = Vec::new();
    let mut types = Types::default();
    for (path, before) in &old.0 {
        let service = before.service();
        match new.0.get(path) {
            Some(after) => compare_method(path, before, after, &mut types, &mut found),
            None if services.contains(&service) => found.push(Change::Removed.at(path)),
            // Once, however many methods it had.
            None if removed.insert(service.clone()) => found.push(Change::Removed.at(&service)),
            None => {}
        }
    }
    types.compare(&mut found);
    found
}

/// The method itself; its types are noted for later.
fn compare_method(path: &str, before: &Served, after: &Served, types: &mut Types, found: &mut Vec<Difference>) {
    if before.kind != after.kind {
        found.push(Change::Kind { was: before.kind, is: after.kind }.at(path));
    }
    let streams = |served: &Served| served.described.is_server_streaming();
    if streams(before) != streams(after) {
        found.push(Change::Streaming { is: streams(after) }.at(path));
    }
    let messages = |served: &Served| [("request", served.described.input()), ("response", served.described.output())];
    for ((what, was), (_, is)) in messages(before).into_iter().zip(messages(after)) {
        if was.full_name() == is.full_name() {
            types.reach_message(path, was, is);
        } else {
            let (was, is) = (was.full_name().to_owned(), is.full_name().to_owned());
            found.push(Change::Message { what, was, is }.at(path));
        }
    }
}
