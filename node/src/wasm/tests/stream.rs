//! Queries that answer with a stream.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use prost_types::FileDescriptorSet;

use super::fixture::{Rows, context, file, function, load, map, metadata, method, refusal, with_metadata};
use crate::command::{Outcome, TrapClass};
use crate::wasm::metadata::{Kind, Metadata, MethodEntry};
use crate::wasm::{Call, Cut, Finished, Module};

const WATCH: &str = "/test.v1.Test/Watch";
/// Outputs each byte of the data "abcdefgh", as far as the input is long, as a message.
const LETTERS: &str = "(local $i i32) (loop $again \
    (call $output (i32.add (i32.const 16) (local.get $i)) (i32.const 1)) \
    (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $again (i32.lt_u (local.get $i) (local.get $len))))";

/// A service whose `Watch` streams as told; its kind is as the table and the option say.
pub(super) fn described(client: bool, server: bool, reads_only: bool) -> Metadata {
    let mut file = file();
    let mut watch = method("Watch", reads_only);
    (watch.client_streaming, watch.server_streaming) = (Some(client), Some(server));
    file.service[0].method.push(watch);
    let kind = if reads_only { Kind::Query } else { Kind::Command };
    let mut metadata = metadata();
    metadata.file_descriptor_set = FileDescriptorSet { file: vec![file] }.encode_to_vec();
    metadata.methods.push(MethodEntry { path: WATCH.into(), kind: kind.into() });
    metadata
}

fn wasm(body: &str, metadata: &Metadata) -> Vec<u8> {
    let imports = r#"(import "balsa_v1" "output" (func $output (param i32 i32)))
        (import "balsa_v1" "put" (func $put (param i32 i32 i32 i32)))"#;
    let rest = r#"(memory (export "memory") 2) (func (export "balsa_abi_1")) (data (i32.const 16) "abcdefgh")"#;
    with_metadata(&format!("{imports} {rest} {}", function(body)), metadata)
}

fn module(body: &str) -> Module {
    load(&wasm(body, &described(false, true, true)))
}

/// Runs `body` with an input of `len` bytes; what it sent, and how it ended. The sink wants `wanted` messages.
fn stream(body: &str, len: usize, wanted: usize) -> (Vec<Bytes>, Finished) {
    run(&module(body), len, wanted, None)
}

fn run(module: &Module, len: usize, wanted: usize, deadline: Option<Instant>) -> (Vec<Bytes>, Finished) {
    let (fuel, memory_bytes) = (10_000_000, 4 * 1024 * 1024);
    let method = module.method(WATCH).expect("the fixture has it");
    assert!(method.streaming);
    let call = Call { method, input: vec![0; len].into(), context: context(), fuel, memory_bytes, deadline };
    let sent = Arc::new(Mutex::new(Vec::new()));
    let taken = sent.clone();
    let sink = move |message| {
        if taken.lock().len() == wanted {
            return ControlFlow::Break(());
        }
        taken.lock().push(message);
        ControlFlow::Continue(())
    };
    let finished = module.stream(call, map(Rows::new()), Box::new(sink)).expect("the host is well");
    let sent = sent.lock().clone();
    (sent, finished)
}

fn ended_well(finished: &Finished) {
    assert_eq!((&finished.outcome, finished.cut), (&Outcome::Ok(Bytes::new()), None), "{:?}", finished.trap_detail);
}

#[test]
fn messages_come_in_order_and_the_last_one_too() {
    let (sent, finished) = stream(&format!("{LETTERS} (i32.const 0)"), 3, usize::MAX);
    ended_well(&finished);
    assert_eq!(sent, ["a", "b", "c"]);
}

#[test]
fn a_stream_may_be_empty_and_so_may_its_messages() {
    let (sent, finished) = stream("(i32.const 0)", 0, usize::MAX);
    ended_well(&finished);
    assert_eq!(sent, [""; 0]);
    let (sent, finished) = stream("(call $output (i32.const 0) (i32.const 0)) (i32.const 0)", 0, usize::MAX);
    ended_well(&finished);
    assert_eq!(sent, [""]);
}

#[test]
fn a_failure_in_mid_stream_ends_it_with_the_last_output_as_its_status() {
    // Code 9, message "no", behind two letters.
    let status =
        "(i64.store (i32.const 0) (i64.const 0x6f6e02120908)) (call $output (i32.const 0) (i32.const 6)) (i32.const 9)";
    let (sent, finished) = stream(&format!("{LETTERS} {status}"), 2, usize::MAX);
    assert_eq!(sent, ["a", "b"]);
    match finished.outcome {
        Outcome::Status(status) => assert_eq!((status.code, status.message.as_str()), (9, "no")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_code_that_means_nothing_is_a_trap() {
    let (_, finished) = stream("(i32.const 17)", 0, usize::MAX);
    assert_eq!(finished.trap(), TrapClass::BadResult);
    // The last output is looked at as a status, and is none.
    let (sent, finished) = stream(&format!("{LETTERS} (i32.const 9)"), 2, usize::MAX);
    assert_eq!((sent, finished.trap()), (vec!["a".into()], TrapClass::BadResult));
}

#[test]
fn what_was_made_before_a_trap_is_sent() {
    let (sent, finished) = stream(&format!("{LETTERS} unreachable"), 2, usize::MAX);
    assert_eq!((sent, finished.trap()), (vec!["a".into(), "b".into()], TrapClass::Unreachable));
}

#[test]
fn a_stream_that_nobody_wants_any_more_is_stopped() {
    for wanted in 0..3 {
        let (sent, finished) = stream(&format!("{LETTERS} (loop $for_ever (br $for_ever)) (i32.const 0)"), 8, wanted);
        assert_eq!((sent.len(), finished.cut), (wanted, Some(Cut::Unwanted)));
        assert!(matches!(&finished.outcome, Outcome::Status(status) if status.code == 1));
        assert!(finished.fuel_used < 10_000, "{finished:?}");
    }
    // Even if it is the last message that is not wanted.
    let (_, finished) = stream(&format!("{LETTERS} (i32.const 0)"), 2, 1);
    assert_eq!(finished.cut, Some(Cut::Unwanted));
}

#[test]
fn a_stream_ends_at_its_deadline() {
    let module = module(&format!("{LETTERS} (i32.const 0)"));
    let (sent, finished) = run(&module, 8, usize::MAX, Some(Instant::now()));
    assert_eq!((sent.len(), finished.cut), (0, Some(Cut::Deadline)));
    let (sent, finished) = run(&module, 8, usize::MAX, Some(Instant::now() + Duration::from_secs(600)));
    assert_eq!((sent.len(), finished.cut), (8, None));
}

#[test]
fn all_messages_share_the_fuel() {
    let (sent, finished) = stream(
        "(loop $again (call $output (i32.const 0) (i32.const 100000)) (br $again)) (i32.const 0)",
        0,
        usize::MAX,
    );
    assert_eq!((sent.len(), finished.trap(), finished.fuel_used), (99, TrapClass::OutOfFuel, 10_000_000));
}

#[test]
fn a_message_has_the_limit_of_a_result() {
    let (sent, finished) = stream("(call $output (i32.const 0) (i32.const 5000000)) (i32.const 0)", 0, usize::MAX);
    assert_eq!((sent.len(), finished.trap()), (0, TrapClass::BadResult));
}

#[test]
fn a_stream_cannot_write() {
    let (_, finished) =
        stream("(call $put (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1)) (i32.const 0)", 0, usize::MAX);
    assert_eq!(finished.trap(), TrapClass::WriteInQuery);
}

#[test]
fn what_streams_in_another_way_is_refused_by_name() {
    let refused = |client, server, reads_only| {
        refusal(&wasm("(i32.const 0)", &described(client, server, reads_only))).to_string()
    };
    let requests = "`/test.v1.Test/Watch` takes a stream of requests, which is not served: make its request a single message (the response of a query may be a stream)";
    assert_eq!(refused(true, false, true), requests);
    assert_eq!(refused(true, true, true), requests);
    assert_eq!(refused(true, false, false), requests);
    assert_eq!(
        refused(false, true, false),
        "`/test.v1.Test/Watch` is a command and answers with a stream; only a query may: make its response a single message, or give it `option idempotency_level = NO_SIDE_EFFECTS`"
    );
}

#[test]
fn unary_methods_beside_it_are_as_ever() {
    let module =
        module("(call $output (i32.const 16) (i32.const 1)) (call $output (i32.const 16) (i32.const 1)) (i32.const 0)");
    assert!(!module.method(super::fixture::ASK).unwrap().streaming);
    let finished = super::fixture::Try::query().run(&module).unwrap();
    assert_eq!(finished.trap(), TrapClass::BadResult);
}
