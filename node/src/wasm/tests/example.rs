//! The module that comes with the binary, as far as the host sees it; and what a call of it costs in time.

use std::time::Instant;

use bytes::Bytes;

use super::fixture::{Rows, context, engine, map};
use crate::command::Outcome;
use crate::wasm::{Call, Finished, MethodKind, Module, embedded};

const PUT: &str = "/kvstore.v1.KvStore/Put";
const GET: &str = "/kvstore.v1.KvStore/Get";

fn kvstore() -> Module {
    let bytes = std::fs::read(std::env::var("KV").unwrap_or_default()).unwrap_or(embedded::KVSTORE.to_vec());
    Module::load(engine(), &bytes).unwrap_or_else(|error| panic!("{error}"))
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

/// `cargo test -p balsa --lib --release -- --ignored --nocapture microseconds`
#[test]
#[ignore = "a measurement, not a test"]
fn microseconds_per_call() {
    let module = kvstore();
    for (path, input) in [(PUT, message(&[b"key", &[7; 256]])), (GET, message(&[b"key"]))] {
        let mut rows = call(&module, PUT, message(&[b"key", &[7; 256]]), Rows::new()).rows();
        let fuel = call(&module, path, input.clone(), rows.clone()).fuel_used;
        let mut best = f64::MAX;
        for _ in 0..10 {
            let begin = Instant::now();
            for _ in 0..2_000 {
                rows = call(&module, path, input.clone(), rows).rows();
            }
            best = best.min(begin.elapsed().as_secs_f64() / 2_000.0 * 1e6);
        }
        println!("{path}: {best:.2} us, {fuel} fuel");
    }
}
