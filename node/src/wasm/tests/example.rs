//! The module that comes with the binary, as far as the host sees it; and what a call of it costs in time.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::fixture::{DO, Rows, context, load, map, with_body};
use crate::command::Outcome;
use crate::wasm::{Call, Finished, MethodKind, Module, embedded};

const PUT: &str = "/kvstore.v1.KvStore/Put";
const GET: &str = "/kvstore.v1.KvStore/Get";

fn kvstore() -> Module {
    load(embedded::KVSTORE)
}

/// A message of bytes fields numbered from 1, as protobuf encodes it.
fn message(fields: &[&[u8]]) -> Bytes {
    let mut bytes = Vec::new();
    for (number, field) in (1..).zip(fields) {
        prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut bytes);
        prost::encoding::encode_varint(field.len() as u64, &mut bytes);
        bytes.extend_from_slice(field);
    }
    bytes.into()
}

fn call(module: &Module, path: &str, input: Bytes, rows: Rows) -> Finished {
    let method = module.method(path).unwrap();
    let call =
        Call { method, input, context: context(), fuel: 50_000_000, memory_bytes: 16 * 1024 * 1024, deadline: None };
    module.call(call, map(rows)).unwrap()
}

#[test]
fn the_embedded_module_puts_and_gets() {
    let module = kvstore();
    assert_eq!((module.name(), module.method(PUT).unwrap().kind), ("kvstore-wasm", MethodKind::Command));
    let put = call(&module, PUT, message(&[b"key", b"the value"]), Rows::new());
    assert!(matches!(put.outcome, Outcome::Ok(_)), "{put:?}");
    let get = call(&module, GET, message(&[b"key"]), put.rows());
    assert!(get.output().windows(9).any(|window| window == b"the value"), "{get:?}");
}

/// `cargo test -p balsa --lib -- --ignored --nocapture microseconds`
#[test]
#[ignore = "a measurement, not a test"]
fn microseconds_per_call() {
    let nothing = load(&with_body("(i32.const 5)"));
    measure("nothing", &nothing, DO, &Bytes::new());
    let kvstore = kvstore();
    measure("put of 256 bytes", &kvstore, PUT, &message(&[b"key", &[7; 256]]));
    measure("get of 256 bytes", &kvstore, GET, &message(&[b"key"]));
}

/// The best of several rounds: what the machine can do when nobody else uses it.
fn measure(what: &str, module: &Module, path: &str, input: &Bytes) {
    const CALLS: u32 = 100;
    let mut rows = Rows::new();
    if module.method(PUT).is_some() {
        rows = call(module, PUT, message(&[b"key", &[7; 256]]), rows).rows();
    }
    let (mut best, mut fuel) = (Duration::MAX, 0);
    for _ in 0..500 {
        let begin = Instant::now();
        for _ in 0..CALLS {
            let finished = call(module, path, input.clone(), rows);
            fuel = finished.fuel_used;
            rows = finished.rows();
        }
        best = best.min(begin.elapsed() / CALLS);
    }
    println!("{what}: {best:?}, {fuel} fuel");
}
