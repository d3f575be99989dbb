//! Valid modules that do anything.
//!
//! A grammar of the text format's folded expressions, each of one type, so that all that comes of it validates: then it is the
//! instrumentation, the compiler and the host functions that are tried, and not the validator. Numbers are mostly those where
//! something ends: pages, memory, the address space, signs.
//!
//! The generator of the wasm tools, `wasm-smith`, knows more instructions. It would make cargo compile Cranelift another time for the
//! tests, since both use the crate `arbitrary` with other features; and it knows nothing of our imports.

use proptest::prelude::*;

/// A module of the test service, whose exports do something.
pub(super) fn module() -> impl Strategy<Value = String> {
    let bodies = (body(), body(), body(), any::<bool>());
    bodies.prop_map(|(call, init, migrate, starts)| {
        let start = if starts { r#"(func (export "_initialize") (global.set $g (i32.const 5)))"# } else { "" };
        format!(
            r#"(module {IMPORTS} {start}
            (func (export "balsa_call") (param $a i32) (param $b i32) (result i32) (local $x i32) {call})
            (func (export "balsa_init") (result i32) (local $a i32) (local $b i32) (local $x i32) {init})
            (func (export "balsa_migrate") (param $a i32) (result i32) (local $b i32) (local $x i32) {migrate}))"#
        )
    })
}

/// A module that does a little of all that there is: data, a table, a global, several results, loops, calls of the host.
pub(super) fn varied() -> String {
    format!(
        r#"(module {IMPORTS}
        (func $loops (param i32) (result i32 i64) (local i64)
            (block (br_if 0 (local.get 0)) (return (i32.const 1) (local.get 1))) (call $loops (i32.const 1)))
        (func (export "balsa_call") (param $method i32) (param $len i32) (result i32)
            (call $put (i32.const 16) (i32.const 3) (i32.const 16) (i32.const 3))
            (drop (call $get (i32.const 16) (i32.const 3) (i32.const 64) (i32.const 8)))
            (call $loops (local.get $len)) (drop) (drop)
            (call $output (i32.const 32) (i32.const 8)) (i32.const 0)))"#
    )
}

const IMPORTS: &str = r#"
    (import "balsa_v1" "input_read" (func $input_read (param i32 i32 i32)))
    (import "balsa_v1" "output" (func $output (param i32 i32)))
    (import "balsa_v1" "get" (func $get (param i32 i32 i32 i32) (result i64)))
    (import "balsa_v1" "result_read" (func $result_read (param i32 i32 i32)))
    (import "balsa_v1" "put" (func $put (param i32 i32 i32 i32)))
    (import "balsa_v1" "delete" (func $delete (param i32 i32) (result i32)))
    (import "balsa_v1" "scan" (func $scan (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i64)))
    (import "balsa_v1" "context" (func $context (param i32 i32) (result i32)))
    (import "balsa_v1" "log" (func $log (param i32 i32 i32)))
    (import "balsa_v1" "panic" (func $panic (param i32 i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
    (memory (export "memory") 2)
    (table 4 funcref)
    (elem (i32.const 0) $again $leaf)
    (type $unary (func (param i32) (result i32)))
    (global $g (mut i32) (i32.const 1))
    (data (i32.const 16) "key") (data (i32.const 32) "contents")
    (func $leaf (param $a i32) (result i32) (i32.add (local.get $a) (global.get $g)))
    (func $again (param $a i32) (result i32)
        (if (result i32) (local.get $a)
            (then (i32.add (call $again (i32.sub (local.get $a) (i32.const 1))) (i32.const 1))) (else (i32.const 0))))
    (func (export "balsa_abi_1"))"#;

/// Statements, and what is returned: mostly something that means something.
fn body() -> impl Strategy<Value = String> {
    let code = prop_oneof![6 => Just("(i32.const 0)".to_owned()), 2 => Just("(i32.const 9)".to_owned()), 2 => number()];
    (prop::collection::vec(statement(), 0..6), code).prop_map(|(statements, code)| statements.join(" ") + &code)
}

fn constant() -> impl Strategy<Value = String> {
    let edges =
        [0_i64, 1, -1, 3, 8, 16, 32, 48, 64, 4096, 65_535, 65_536, 131_072, 1 << 20, i64::from(i32::MAX), 1 << 31];
    let number = prop_oneof![8 => prop::sample::select(edges.to_vec()), 1 => any::<i32>().prop_map(i64::from)];
    number.prop_map(|number| format!("(i32.const {})", number as i32))
}

/// An expression of type i32.
fn number() -> impl Strategy<Value = String> {
    let variables = ["(local.get $a)", "(local.get $b)", "(local.get $x)", "(global.get $g)", "(memory.size)"];
    let leaf = prop_oneof![4 => constant(), 1 => prop::sample::select(variables.to_vec()).prop_map(str::to_owned)];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            2 => (binary(), inner.clone(), inner.clone()).prop_map(|(op, a, b)| format!("(i32.{op} {a} {b})")),
            1 => (prop::sample::select(vec!["i32.load", "i32.load8_u", "memory.grow", "i32.eqz", "i32.clz"]), inner.clone())
                .prop_map(|(op, a)| format!("({op} {a})")),
            2 => (two(), inner.clone(), inner.clone()).prop_map(|(to, a, b)| format!("(call ${to} {a} {b})")),
            1 => (prop::sample::select(vec!["again", "leaf"]), inner.clone()).prop_map(|(to, a)| format!("(call ${to} {a})")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, at)| format!("(call_indirect (type $unary) {a} {at})")),
            1 => prop::collection::vec(inner.clone(), 3)
                .prop_map(|of| format!("(if (result i32) {} (then {}) (else {}))", of[0], of[1], of[2])),
            1 => prop::collection::vec(inner.clone(), 4).prop_map(|of| format!("(call $fd_write {})", of.join(" "))),
            1 => prop::collection::vec(inner.clone(), 4)
                .prop_map(|of| format!("(i32.wrap_i64 (call $get {}))", of.join(" "))),
            1 => prop::collection::vec(inner, 9).prop_map(|of| format!("(i32.wrap_i64 (call $scan {}))", of.join(" "))),
        ]
    })
}

fn binary() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["add", "sub", "mul", "div_u", "div_s", "rem_s", "and", "xor", "shl", "lt_u", "eq"])
}

/// Imports of two numbers that answer with one.
fn two() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["delete", "context", "random_get", "environ_sizes_get"])
}

/// Something without a value.
fn statement() -> impl Strategy<Value = String> {
    let calls = vec![
        ("input_read", 3),
        ("output", 2),
        ("result_read", 3),
        ("put", 4),
        ("log", 3),
        ("panic", 2),
        ("proc_exit", 1),
    ];
    let call = prop::sample::select(calls)
        .prop_flat_map(|(to, count)| prop::collection::vec(number(), count).prop_map(move |of| (to, of)))
        .prop_map(|(to, of)| format!("(call ${to} {})", of.join(" ")));
    let set = (prop::sample::select(vec!["local.set $x", "global.set $g"]), number());
    let bulk = (prop::sample::select(vec!["fill", "copy"]), prop::collection::vec(number(), 3));
    let leaf = prop_oneof![
        6 => call,
        1 => number().prop_map(|a| format!("(drop {a})")),
        1 => set.prop_map(|(to, a)| format!("({to} {a})")),
        1 => (number(), number()).prop_map(|(to, a)| format!("(i32.store {to} {a})")),
        1 => bulk.prop_map(|(op, of)| format!("(memory.{op} {})", of.join(" "))),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        let some = prop::collection::vec(inner.clone(), 1..3);
        prop_oneof![
            2 => (number(), some.clone()).prop_map(|(a, some)| format!("(if {a} (then {}))", some.join(" "))),
            1 => (some.clone(), number()).prop_map(|(some, a)| format!("(block (br_if 0 {a}) {})", some.join(" "))),
            1 => (some, number()).prop_map(|(some, a)| format!("(loop {} (br_if 0 {a}))", some.join(" "))),
        ]
    })
}
