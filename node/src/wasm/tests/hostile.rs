//! `modules/hostile`, compiled by a real compiler, against the host: each way to misbehave ends as its class of trap, and
//! where it must, leaves the same mark every time.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prost::Message;
use prost_reflect::DynamicMessage;

use super::fixture::{Rows, context, load, map};
use crate::command::{Outcome, TrapClass};
use crate::limits::Replicated;
use crate::testing::hostile_wasm;
use crate::wasm::{Call, Finished, Module, Transition};

/// Method, request as JSON, and how it ends.
const CASES: &[(&str, &str, &str)] = &[
    ("Echo", r#"{"payload": "YWJj"}"#, "ok"),
    ("Add", r#"{"amount": 3}"#, "ok"),
    ("Spin", "{}", "out_of_fuel"),
    ("SpinQuery", "{}", "out_of_fuel"),
    ("Recurse", "{}", "stack_overflow"),
    ("Recurse", r#"{"depth": 500}"#, "ok"),
    ("Allocate", "{}", "out_of_memory"),
    ("Allocate", r#"{"bytes": 1000000}"#, "ok"),
    ("Grow", r#"{"pages": 1000}"#, "ok"),
    ("Trap", "{}", "unreachable"),
    ("PutThenTrap", "{}", "unreachable"),
    ("PutThenFail", "{}", "status 9"),
    ("Fail", r#"{"code": 5, "message": "no"}"#, "status 5"),
    ("WriteInQuery", "{}", "write_in_query"),
    ("DeleteInQuery", "{}", "write_in_query"),
    ("Garbage", r#"{"code": 99, "output": 3}"#, "bad_result"),
    ("Garbage", r#"{"code": -1}"#, "bad_result"),
    ("GarbageOutput", "{}", "ok"),
    ("OversizeOutput", r#"{"bytes": 5000000}"#, "bad_result"),
    ("OversizeOutput", r#"{"bytes": 1000000}"#, "ok"),
    ("NoOutput", "{}", "bad_result"),
    ("TwoOutputs", "{}", "bad_result"),
    ("BigKey", r#"{"bytes": 0}"#, "too_large"),
    ("BigKey", r#"{"bytes": 65600}"#, "ok"),
    ("BigKey", r#"{"bytes": 65601}"#, "too_large"),
    ("BigValue", r#"{"bytes": 1048640}"#, "ok"),
    ("BigValue", r#"{"bytes": 1048641}"#, "too_large"),
    ("BigDelete", r#"{"bytes": 65601}"#, "too_large"),
    ("Exit", "{}", "exit"),
    ("OutOfBounds", "{}", "out_of_bounds"),
    ("DivideByZero", "{}", "arithmetic"),
    ("Look", "{}", "ok"),
    ("LookQuery", "{}", "ok"),
    ("Float", "{}", "ok"),
    ("Log", r#"{"lines": 100, "bytes": 5000}"#, "ok"),
    ("PutMany", r#"{"count": 1000, "valueBytes": 100}"#, "ok"),
    ("Scan", "{}", "ok"),
];
/// What the state tells a migration to do, and how it ends; the limits are the default ones, but for less fuel.
const MIGRATIONS: &[(&str, &str)] = &[
    ("", "ok"),
    ("spin", "out_of_fuel"),
    ("trap", "unreachable"),
    ("writes 1000", "ok"),
    ("writes 1001", "write_limit"),
    ("deletes 1000", "ok"),
    ("deletes 1001", "write_limit"),
    ("bytes 4000000", "ok"),
    ("bytes 4194304", "write_limit"),
    ("answer 0", "ok"),
    ("answer 16", "status 16"),
    ("answer 17", "bad_result"),
    ("answer -1", "bad_result"),
    ("refuse", "status 9"),
];
/// What a stream is asked for, how many messages come, and how it ends.
const STREAMS: &[(&str, usize, &str)] = &[
    ("{}", 0, "ok"),
    (r#"{"count": 3, "bytes": 5}"#, 3, "ok"),
    (r#"{"count": 1000, "bytes": 10000}"#, 1000, "ok"),
    (r#"{"ending": "FAIL"}"#, 0, "status 9"),
    (r#"{"count": 3, "bytes": 5, "ending": "FAIL"}"#, 3, "status 9"),
    (r#"{"count": 3, "ending": "PANIC"}"#, 3, "unreachable"),
    (r#"{"count": 3, "ending": "NEVER"}"#, 3, "out_of_fuel"),
    (r#"{"count": 3, "ending": "WRITE"}"#, 3, "write_in_query"),
];
/// Values of the enum `Wild`.
const WILD: std::ops::RangeInclusive<u32> = 0..=22;

fn stream(module: &Module, json: &str) -> (usize, Finished) {
    let call = request(module, "Stream", json);
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let sink = move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        ControlFlow::Continue(())
    };
    let finished = module.stream(call, map(Rows::new()), Box::new(sink)).unwrap();
    (sent.load(Ordering::Relaxed), finished)
}

fn call(module: &Module, name: &str, json: &str) -> Finished {
    let rows = Rows::from([(b"trace".to_vec(), vec![1; 2000])]);
    module.call(request(module, name, json), map(rows)).unwrap()
}

fn request<'a>(module: &'a Module, name: &str, json: &str) -> Call<'a> {
    let method = module.method(&format!("/hostile.v1.Hostile/{name}")).expect("hostile has it");
    let input = method.described(module.descriptors()).unwrap().input();
    let request = DynamicMessage::deserialize(input, &mut serde_json::Deserializer::from_str(json)).unwrap();
    let memory_bytes = 16 * 1024 * 1024;
    let input = request.encode_to_vec().into();
    Call { method, input, context: context(), fuel: 50_000_000, memory_bytes, deadline: None }
}

fn migrate(module: &Module, order: &str) -> Finished {
    let transition = Transition {
        from: Some("0.9.0".into()),
        context: context(),
        fuel: 100_000_000,
        memory_bytes: Replicated::default().memory_bytes,
        writes_max: 1_000,
        bytes_max: 4 * 1024 * 1024,
    };
    let order = Some(order).filter(|order| !order.is_empty());
    let rows = order.map(|order| (b"migrate".to_vec(), order.as_bytes().to_vec()));
    module.transition(transition, map(rows.into_iter().collect())).unwrap()
}

fn ending(finished: &Finished) -> String {
    match &finished.outcome {
        Outcome::Ok(_) => "ok".into(),
        Outcome::Status(status) => format!("status {}", status.code),
        Outcome::Trap(class) => class.name().into(),
        Outcome::Refused(refusal) => refusal.to_string(),
    }
}

fn hostile() -> Module {
    load(&hostile_wasm())
}

#[test]
fn each_way_to_misbehave_in_a_migration_ends_as_it_should_every_time() {
    let module = hostile();
    assert!(module.has_migrate() && !module.has_init());
    for (order, expected) in MIGRATIONS {
        let (first, second) = (migrate(&module, order), migrate(&module, order));
        assert_eq!(ending(&first), *expected, "{order}: {:?}", first.trap_detail);
        let figures = |finished: &Finished| (finished.fuel_used, finished.writes, finished.written_bytes);
        assert_eq!((&first.outcome, figures(&first)), (&second.outcome, figures(&second)), "{order}");
        assert!(first.writes <= 1_000 && first.written_bytes <= 4 * 1024 * 1024, "{order}: {first:?}");
        assert_eq!(first.rows(), second.rows(), "{order}");
    }
    assert_eq!(migrate(&module, "").rows()[&b"migrated"[..]], b"0.9.0");
}

#[test]
fn each_stream_ends_as_it_should_every_time() {
    let module = hostile();
    for (json, messages, expected) in STREAMS {
        let ((sent, first), (again, second)) = (stream(&module, json), stream(&module, json));
        assert_eq!((sent, ending(&first).as_str()), (*messages, *expected), "{json}: {:?}", first.trap_detail);
        assert_eq!((sent, &first.outcome, first.fuel_used), (again, &second.outcome, second.fuel_used), "{json}");
    }
}

#[test]
fn each_way_to_misbehave_ends_as_it_should_every_time() {
    let module = hostile();
    for (name, json, expected) in CASES {
        let (first, second) = (call(&module, name, json), call(&module, name, json));
        assert_eq!(ending(&first), *expected, "{name} {json}: {:?}", first.trap_detail);
        assert_eq!((&first.outcome, first.fuel_used), (&second.outcome, second.fuel_used), "{name} {json}");
        assert_eq!(first.rows(), second.rows(), "{name} {json}");
    }
    for wild in WILD {
        let finished = call(&module, "WildPointer", &format!(r#"{{"wild": {wild}}}"#));
        assert_eq!(finished.trap(), TrapClass::BadHostCall, "wild pointer {wild}: {:?}", finished.trap_detail);
    }
}
