//! Whatever bytes come, as a module or as a request, the node goes on.
//!
//! Each target feeds something that nobody wrote on purpose to all that would get to see it, and asks for one thing only: it comes
//! back. A module may be refused, a call may trap, a request may be answered with any status; a panic or a fault of the host is a
//! bug.
//!
//! - [`modules`]: arbitrary bytes, real modules with bytes, sections or descriptors changed or cut short, and valid modules that
//!   call the host with anything ([`generate`]). What loads is run: every method, `balsa_init`, `balsa_migrate`, the comparison with another
//!   module, the routes and the reflection of the front door.
//! - [`requests`]: arbitrary and mutated messages to every method of real modules. Arbitrary calls at the front door are beside its
//!   other tests, in `api/tests/garbage.rs`.
//!
//! A normal run is a few seconds. `BALSA_FUZZ_CASES=100000 cargo test -p balsa --lib fuzz` makes a longer one of as many cases for
//! each target; a failure is shown in its smallest form.

mod generate;
mod modules;
mod requests;

use std::ops::ControlFlow;

use bytes::Bytes;
use proptest::prelude::*;

use crate::limits::Replicated;
use crate::testing::{Rows, engine, map};
use crate::wasm::{Call, Context, Finished, Method, Module, State, Transition};

/// Modules that are what they should be: the smallest one, the default one.
const TINY: &[u8] = include_bytes!("../../tests/fixtures/abi-1/tiny.wasm");
const KVSTORE: &[u8] = include_bytes!("../../tests/fixtures/abi-1/kvstore.wasm");
/// Little, so that a loop is no delay.
const FUEL: u64 = 200_000;

/// As many cases as `usual`, unless a longer run is asked for.
pub(crate) fn config(usual: u32) -> ProptestConfig {
    let asked = std::env::var("BALSA_FUZZ_CASES").ok().map(|text| text.parse().expect("BALSA_FUZZ_CASES is a number"));
    ProptestConfig { cases: asked.unwrap_or(usual), failure_persistence: None, ..ProptestConfig::default() }
}

fn load(wasm: &[u8]) -> Module {
    Module::load(&engine(), wasm).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs `method` with `input`.
fn run(module: &Module, method: &Method, input: Bytes) -> Finished {
    let memory_bytes = Replicated::default().memory_bytes;
    let call = Call { method, input, context: CONTEXT, fuel: FUEL, memory_bytes, deadline: None };
    let finished = match method.streaming {
        true => module.stream(call, state(), Box::new(|_| ControlFlow::Continue(()))),
        false => module.call(call, state()),
    };
    finished.expect("nothing a module does is a fault of the host")
}

/// Runs what a module does when it takes over.
fn take_over(module: &Module, from: Option<&str>) -> Finished {
    let from = from.map(str::to_owned);
    let memory_bytes = Replicated::default().memory_bytes;
    let transition = Transition { from, context: CONTEXT, fuel: FUEL, memory_bytes, writes_max: 10, bytes_max: 1_000 };
    module.transition(transition, state()).expect("nothing a module does is a fault of the host")
}

const CONTEXT: Context = Context { index: 7, time_ms: 1_700_000_000_123, random: [9; 32] };

/// What modules find in their state.
fn state() -> Box<dyn State> {
    let row = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
    map(Rows::from([row(b"a", b"1"), row(b"key", b"contents"), row(b"other", &[7; 3_000])]))
}

/// Changes of bytes: what a bit flip, a torn file or a person with an editor makes.
#[derive(Debug, Clone)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
    Cut(prop::sample::Index),
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let at = any::<prop::sample::Index>;
    let mutation = prop_oneof![
        8 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        2 => (at(), prop::collection::vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        2 => (at(), 1..16_usize).prop_map(|(at, count)| Mutation::Remove(at, count)),
        2 => (at(), 1..64_usize).prop_map(|(at, count)| Mutation::Repeat(at, count)),
        1 => at().prop_map(Mutation::Cut),
    ];
    prop::collection::vec(mutation, 1..5)
}

fn mutated(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        if bytes.is_empty() {
            return bytes;
        }
        let len = bytes.len();
        match mutation {
            Mutation::Set(at, byte) => bytes[at.index(len)] = *byte,
            Mutation::Insert(at, more) => drop(bytes.splice(at.index(len)..at.index(len), more.iter().copied())),
            Mutation::Remove(at, count) => drop(bytes.drain(at.index(len)..(at.index(len) + count).min(len))),
            Mutation::Repeat(at, count) => {
                let range = at.index(len)..(at.index(len) + count).min(len);
                let part = bytes[range.clone()].to_vec();
                bytes.splice(range.start..range.start, part);
            }
            Mutation::Cut(at) => bytes.truncate(at.index(len)),
        }
    }
    bytes
}
