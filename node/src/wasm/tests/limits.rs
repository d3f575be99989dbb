//! Fuel, memory, recursion, time: what stops a guest, and that it stops at the same point every time.

use std::any::Any;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::fixture::{Try, body, engine, function, load, with_items};
use crate::command::{Outcome, TrapClass};
use crate::wasm::engine::NATIVE_STACK_BYTES_MAX;
use crate::wasm::{Call, HostFault, ScanRange, State};

const SPIN: &str = "(loop $again (br $again)) (i32.const 0)";
const PAGE: u64 = 64 * 1024;

#[test]
fn a_loop_without_end_runs_out_of_fuel() {
    let finished = Try { fuel: 100_000, ..Try::default() }.body(SPIN);
    assert_eq!((finished.trap(), finished.fuel_used), (TrapClass::OutOfFuel, 100_000));
}

#[test]
fn fuel_that_just_suffices_suffices_and_one_unit_less_does_not() {
    let text = "(drop (call $get (i32.const 16) (i32.const 3) (i32.const 64) (i32.const 8))) (call $output (i32.const 0) (i32.const 100)) (i32.const 0)";
    let needed = body(text).fuel_used;
    assert_eq!(Try { fuel: needed, ..Try::default() }.body(text).fuel_used, needed);
    // The last instructions of a function are not checked against the limit, so the edge is at the last host call.
    let short = Try { fuel: needed - 20, ..Try::default() }.body(text);
    assert_eq!((short.trap(), short.fuel_used), (TrapClass::OutOfFuel, needed - 20));
}

#[test]
fn no_fuel_at_all_is_out_of_fuel() {
    assert_eq!(Try { fuel: 0, ..Try::default() }.body("(i32.const 5)").trap(), TrapClass::OutOfFuel);
}

#[test]
fn bulk_instructions_cost_what_they_move() {
    let fill = |bytes: u32| {
        body(&format!("(memory.fill (i32.const 0) (i32.const 0) (i32.const {bytes})) (i32.const 5)")).fuel_used
    };
    assert_eq!(fill(100_000) - fill(0), 100_000);
}

#[test]
fn memory_grows_up_to_the_limit_and_then_says_minus_one() {
    let grow = |pages: u64| {
        let text = format!("(call $reply (i64.extend_i32_s (memory.grow (i32.const {pages}))))");
        Try { memory_bytes: 10 * PAGE, ..Try::default() }.body(&text).number()
    };
    assert_eq!(grow(8), 2);
    assert_eq!(grow(9), -1);
}

#[test]
fn a_guest_that_gives_up_after_a_denied_growth_is_out_of_memory() {
    let finished = body("(drop (memory.grow (i32.const 1000))) unreachable");
    assert_eq!(finished.trap(), TrapClass::OutOfMemory);
    assert_eq!(body("(drop (memory.grow (i32.const 1))) unreachable").trap(), TrapClass::Unreachable);
}

#[test]
fn a_declared_maximum_is_a_limit_too() {
    let prelude = r#"(memory (export "memory") 1 2) (func (export "balsa_abi_1"))"#;
    let text = format!("{prelude} {}", function("(drop (memory.grow (i32.const 2))) unreachable"));
    let finished = Try::default().run(&load(&super::fixture::bare(&text))).unwrap();
    assert_eq!(finished.trap(), TrapClass::OutOfMemory);
}

#[test]
fn a_module_that_starts_above_the_limit_is_out_of_memory() {
    let finished = Try { memory_bytes: PAGE, ..Try::default() }.body("(i32.const 5)");
    assert_eq!(finished.trap(), TrapClass::OutOfMemory);
}

#[test]
fn a_limit_above_what_slots_have_is_a_host_fault() {
    let module = load(&with_items(&function("(i32.const 5)")));
    let fault = Try { memory_bytes: 1 << 40, ..Try::default() }.run(&module).expect_err("no slot is that large");
    let HostFault(text) = fault;
    assert_eq!(text, "a call may use 1099511627776 bytes of memory, but slots have only 16777216");
}

#[test]
fn memory_of_an_earlier_call_is_not_seen() {
    let module = load(&with_items(&function(
        "(i64.store (i32.const 70000) (i64.add (i64.load (i32.const 70000)) (i64.const 1))) (call $reply (i64.load (i32.const 70000)))",
    )));
    for _ in 0..20 {
        assert_eq!(Try::default().run(&module).unwrap().number(), 1);
    }
}

#[test]
fn tables_grow_up_to_their_limit() {
    let grow = |by: u32| {
        let table = "(table $t 1 funcref)";
        let text =
            function(&format!("(call $reply (i64.extend_i32_s (table.grow $t (ref.null func) (i32.const {by}))))"));
        Try::default().run(&load(&with_items(&format!("{table} {text}")))).unwrap().number()
    };
    assert_eq!(grow(9_999), 1);
    assert_eq!(grow(10_000), -1);
}

/// Recurses without end and writes down how deep it got, through a growing trail in memory that the state then keeps.
const DIVE: &str = r#"
    (func $dive (param $depth i32) (result i32)
        (i32.store (i32.const 64) (local.get $depth))
        (call $put (i32.const 16) (i32.const 1) (i32.const 64) (i32.const 4))
        (i32.add (i32.const 1) (call $dive (i32.add (local.get $depth) (i32.const 1)))))
"#;

fn depth_reached(items: &str) -> u32 {
    let module = load(&with_items(&format!("{items} {}", function("(call $dive (i32.const 1))"))));
    let finished = Try { fuel: u64::from(u32::MAX), ..Try::default() }.run(&module).unwrap();
    assert_eq!(finished.trap(), TrapClass::StackOverflow);
    let rows = finished.rows();
    u32::from_le_bytes(rows[&vec![0]][..].try_into().unwrap())
}

#[test]
fn recursion_ends_at_the_same_depth_every_time() {
    // Pinned: the depth belongs to the apply version, as fuel does.
    for _ in 0..3 {
        assert_eq!(depth_reached(DIVE), 2_183);
    }
}

#[test]
fn recursion_ends_at_the_same_depth_on_a_thread_with_another_stack() {
    let here = depth_reached(DIVE);
    let there = std::thread::Builder::new().stack_size(crate::wasm::THREAD_STACK_BYTES).spawn(|| depth_reached(DIVE));
    assert_eq!(here, there.unwrap().join().unwrap());
}

#[test]
fn recursion_through_a_table_is_counted_too() {
    let items = DIVE
        .replace("(call $dive (i32.add", "(call_indirect (param i32) (result i32) (i32.add")
        .replace("(i32.const 1)))))", "(i32.const 1)) (i32.const 0))))");
    let table = "(table 1 funcref) (elem (i32.const 0) $dive)";
    assert!(depth_reached(&format!("{table} {items}")) > 1_000);
}

#[test]
fn large_frames_overflow_sooner() {
    let locals =
        "(local i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64)";
    let large = DIVE.replace("(result i32)\n        (i32.store", &format!("(result i32) {locals}\n (i32.store"));
    assert!(depth_reached(&large) < depth_reached(DIVE));
}

/// Notes how far down the native stack its callers have got.
#[derive(Default)]
struct Plumb {
    top: usize,
    bottom: usize,
}

impl State for Plumb {
    fn get(&mut self, _key: &[u8]) -> Result<Option<Vec<u8>>, HostFault> {
        Ok(None)
    }

    fn put(&mut self, _key: &[u8], _value: &[u8]) -> Result<(), HostFault> {
        let local = 0_u8;
        let here = std::ptr::from_ref(std::hint::black_box(&local)) as usize;
        self.top = self.top.max(here);
        self.bottom = if self.bottom == 0 { here } else { self.bottom.min(here) };
        Ok(())
    }

    fn delete(&mut self, _key: &[u8]) -> Result<bool, HostFault> {
        Ok(false)
    }

    fn scan(&mut self, _: &ScanRange, _: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<(), HostFault> {
        Ok(())
    }
}

fn native_bytes_at_overflow(items: &str) -> usize {
    let module = load(&with_items(&format!("{items} {}", function("(call $dive (i32.const 1))"))));
    let call = Call {
        method: module.method(super::fixture::DO).unwrap(),
        input: Default::default(),
        context: super::fixture::context(),
        fuel: u64::from(u32::MAX),
        memory_bytes: 4 * 1024 * 1024,
        deadline: None,
    };
    let finished = module.call(call, Box::<Plumb>::default()).unwrap();
    assert_eq!(finished.trap(), TrapClass::StackOverflow);
    let state: Box<dyn Any> = finished.state;
    let plumb = state.downcast::<Plumb>().unwrap();
    plumb.top - plumb.bottom
}

#[test]
fn the_counter_trips_far_above_the_end_of_the_native_stack() {
    // Thousands of values that are computed before the call and again after it: a compiler keeps them all meanwhile.
    let uses: String = (0..3_000)
        .map(|at| {
            format!("(i64.store (i32.const {}) (i64.mul (local.get $x) (i64.const {})))", 4096 + 8 * at, 2 * at + 3)
        })
        .collect();
    let kept = DIVE
        .replace("(call $put", &format!("(local.set $x (i64.extend_i32_u (local.get $depth))) {uses} (call $put"))
        .replace("(result i32)\n", "(result i32) (local $x i64)\n")
        .replace("(i32.add (i32.const 1) (call $dive", "(drop (call $dive")
        .replace("(i32.const 1)))))", &format!("(i32.const 1)))) {uses} (i32.const 0))"));
    for items in [DIVE, &kept] {
        let native = native_bytes_at_overflow(items);
        println!("{native} bytes of native stack at overflow");
        assert!(native < NATIVE_STACK_BYTES_MAX / 2, "{native} bytes");
    }
}

#[test]
fn returns_branches_and_results_of_every_shape_give_back_what_they_took() {
    let items = r#"
        (func $none (param $x i32) (call $nothing) (if (local.get $x) (then (return))) (call $nothing))
        (func $one (param $x i32) (result i32) (call $nothing)
            (if (local.get $x) (then (return (i32.const 1)))) (br 0 (i32.const 2)))
        (func $two (param $x i32) (result i32 i64) (call $nothing)
            (if (local.get $x) (then (return (i32.const 1) (i64.const 1))))
            (block (br 1 (i32.const 2) (i64.const 2))) (unreachable))
        (func $pair (result i32 i64) (call $nothing) (i32.const 0) (i64.const 0) (return))
        (func $table (param $x i32) (call $nothing) (block (block (br_table 0 1 2 (local.get $x))) (return)) )
        (func $nothing (call $none2)) (func $none2 (call $sink)) (func $sink (drop (call $sched_yield)))
    "#;
    let text = "(local $i i32)
        (loop $again
            (call $none (i32.and (local.get $i) (i32.const 1)))
            (drop (call $one (i32.and (local.get $i) (i32.const 1))))
            (call $two (i32.and (local.get $i) (i32.const 1))) drop drop
            (call $pair) drop drop
            (call $table (i32.and (local.get $i) (i32.const 3)))
            (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 20000))))
        (call $reply (i64.const 1))";
    let module = load(&with_items(&format!("{items} {}", function(text))));
    assert_eq!(Try { fuel: 1 << 40, ..Try::default() }.run(&module).unwrap().number(), 1);
}

#[test]
fn other_traps_have_their_classes() {
    let cases = [
        ("(drop (i32.load (i32.const -1))) (i32.const 0)", TrapClass::OutOfBounds),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0))) (i32.const 0)", TrapClass::Arithmetic),
        ("(drop (i32.div_s (i32.const 0x80000000) (i32.const -1))) (i32.const 0)", TrapClass::Arithmetic),
        ("(drop (i32.trunc_f32_s (f32.const nan))) (i32.const 0)", TrapClass::Arithmetic),
        ("unreachable", TrapClass::Unreachable),
    ];
    for (text, class) in cases {
        assert_eq!(body(text).trap(), class, "{text}");
    }
    let table = "(table 2 funcref) (elem (i32.const 0) $reply)";
    for (at, class) in [(0, TrapClass::BadCall), (1, TrapClass::BadCall), (2, TrapClass::OutOfBounds)] {
        let text = function(&format!("(call_indirect (i32.const {at})) (i32.const 0)"));
        assert_eq!(Try::default().run(&load(&with_items(&format!("{table} {text}")))).unwrap().trap(), class);
    }
}

#[test]
fn not_a_numbers_have_one_bit_pattern() {
    let text = "(call $reply (i64.reinterpret_f64 (f64.div (f64.const 0) (f64.mul (f64.const 0) (f64.reinterpret_i64 (i64.const 0xfff8000000000123))))))";
    assert_eq!(body(text).number(), 0x7ff8_0000_0000_0000);
}

#[test]
fn a_query_past_its_deadline_stops_at_its_next_host_call() {
    let text = "(loop $again (drop (call $sched_yield)) (br $again)) (i32.const 0)";
    let deadline = Some(Instant::now() + Duration::from_millis(5));
    let finished = Try { fuel: 1 << 40, deadline, ..Try::query() }.body(text);
    let Outcome::Status(status) = finished.outcome else { panic!("{:?}", finished.outcome) };
    assert_eq!((status.code, status.message.as_str()), (4, "the deadline of the query has passed"));
}

#[test]
fn a_command_has_no_deadline() {
    let deadline = Some(Instant::now());
    let finished = Try { deadline, ..Try::default() }.body("(drop (call $sched_yield)) (call $reply (i64.const 1))");
    assert_eq!(finished.number(), 1);
}

#[test]
fn queries_wait_for_a_slot_and_commands_do_not_wait_for_queries() {
    let module = load(&with_items(&function("(call $reply (i64.const 1))")));
    let slots: Vec<_> = (0..4).map(|_| engine().shared.queries.take(None).unwrap()).collect();
    assert_eq!(Try::default().run(&module).unwrap().number(), 1);
    let deadline = Some(Instant::now() + Duration::from_millis(5));
    let late = Try { deadline, ..Try::query() }.run(&module).unwrap();
    assert!(matches!(late.outcome, Outcome::Status(status) if status.code == 4));
    drop(slots);
    assert_eq!(Try::query().run(&module).unwrap().number(), 1);
}

#[test]
fn constructors_run_once_before_the_call_and_share_its_fuel() {
    let items = r#"(global $runs (mut i64) (i64.const 0))
        (func $up (global.set $runs (i64.add (global.get $runs) (i64.const 1))))
        (start $up) (func (export "_initialize") (call $up))"#;
    let module = load(&with_items(&format!("{items} {}", function("(call $reply (global.get $runs))"))));
    assert_eq!(Try::default().run(&module).unwrap().number(), 2);
    assert!(Try { fuel: 10, ..Try::default() }.run(&module).unwrap().trap() == TrapClass::OutOfFuel);
}

#[test]
fn the_host_answers_in_a_start_section() {
    let items = r#"(func $up (drop (call $context (i32.const 64) (i32.const 8)))) (start $up)"#;
    let module = load(&with_items(&format!("{items} {}", function("(call $reply (i64.load (i32.const 64)))"))));
    assert_eq!(Try::default().run(&module).unwrap().number(), 7);
}
