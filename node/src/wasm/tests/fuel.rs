//! The golden file of fuel: what fixtures cost, to the unit.
//!
//! A line that changes is a change of what entries in existing logs do: it needs a new `APPLY_VERSION`, whether it came from
//! here, from wasmtime or from the instrumentation. `BALSA_BLESS=1 cargo test` writes the file anew.

use std::fmt::Write;
use std::path::Path;

use super::fixture::{Try, function, load, with_items};

const GOLDEN: &str = include_str!("../golden/fuel.txt");
const DATA: &str = r#"(data (i32.const 16) "key") (data (i32.const 32) "value")"#;

/// Name and body of what is measured.
const FIXTURES: &[(&str, &str)] = &[
    ("nothing", "(i32.const 5)"),
    (
        "a loop of 1000",
        "(local $i i32) (loop $again (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000)))) (i32.const 5)",
    ),
    (
        "100 counted calls",
        "(local $i i32) (loop $again (call $counted) (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100)))) (i32.const 5)",
    ),
    (
        "divisions",
        "(drop (i32.div_u (i32.const 9) (i32.const 3))) (drop (i64.rem_s (i64.const 9) (i64.const 3))) (drop (f64.sqrt (f64.const 9))) (i32.const 5)",
    ),
    (
        "1000 bytes filled and copied",
        "(memory.fill (i32.const 0) (i32.const 1) (i32.const 1000)) (memory.copy (i32.const 2000) (i32.const 0) (i32.const 1000)) (i32.const 5)",
    ),
    ("4 pages grown", "(drop (memory.grow (i32.const 4))) (i32.const 5)"),
    ("input_read", "(call $input_read (i32.const 64) (i32.const 0) (local.get $len)) (i32.const 5)"),
    ("output", "(call $reply (i64.const 1))"),
    (
        "get of what is there",
        "(drop (call $get (i32.const 16) (i32.const 3) (i32.const 64) (i32.const 64))) (i32.const 5)",
    ),
    (
        "get of what is absent",
        "(drop (call $get (i32.const 32) (i32.const 3) (i32.const 64) (i32.const 64))) (i32.const 5)",
    ),
    (
        "get and result_read",
        "(drop (call $get (i32.const 16) (i32.const 3) (i32.const 64) (i32.const 0))) (call $result_read (i32.const 64) (i32.const 0) (i32.const 8)) (i32.const 5)",
    ),
    ("put", "(call $put (i32.const 16) (i32.const 3) (i32.const 32) (i32.const 5)) (i32.const 5)"),
    ("delete", "(drop (call $delete (i32.const 16) (i32.const 3))) (i32.const 5)"),
    (
        "scan of three",
        "(drop (call $scan (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 10) (i32.const 1000) (i32.const 64) (i32.const 1000))) (i32.const 5)",
    ),
    (
        "scan of two of three keys",
        "(drop (call $scan (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 6) (i32.const 2) (i32.const 1000) (i32.const 64) (i32.const 1000))) (i32.const 5)",
    ),
    ("context", "(drop (call $context (i32.const 64) (i32.const 48))) (i32.const 5)"),
    ("log", "(call $log (i32.const 3) (i32.const 32) (i32.const 5)) (i32.const 5)"),
    ("panic", "(call $panic (i32.const 32) (i32.const 5)) (i32.const 5)"),
    ("clock_time_get", "(drop (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 64))) (i32.const 5)"),
    ("random_get", "(drop (call $random_get (i32.const 64) (i32.const 8))) (i32.const 5)"),
    (
        "fd_write",
        "(i32.store (i32.const 64) (i32.const 32)) (i32.store (i32.const 68) (i32.const 5)) (drop (call $fd_write (i32.const 2) (i32.const 64) (i32.const 1) (i32.const 80))) (i32.const 5)",
    ),
    ("a trap", "(call $counted) unreachable"),
    ("recursion without end", "(call $dive)"),
];

#[test]
fn fixtures_cost_what_they_always_cost() {
    let measured = FIXTURES.iter().fold(String::new(), |mut text, (name, body)| {
        let (fuel, how) = measure(body);
        writeln!(text, "{fuel:>8}  {name} ({how})").unwrap();
        text
    });
    if std::env::var_os("BALSA_BLESS").is_some() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/wasm/golden/fuel.txt");
        std::fs::write(golden, &measured).unwrap();
    } else {
        assert_eq!(measured, GOLDEN);
    }
}

fn measure(body: &str) -> (u64, String) {
    let items =
        "(func $counted (call $leaf)) (func $leaf) (func $dive (result i32) (i32.add (call $dive) (i32.const 1)))";
    let module = load(&with_items(&format!("{DATA} {items} {}", function(body))));
    let rows: &[(&[u8], &[u8])] = &[(b"key", b"contents"), (b"other", b""), (b"third", b"3")];
    let finished = Try { input: b"input".to_vec(), ..Try::default().rows(rows) }.run(&module).unwrap();
    let how = match finished.outcome {
        crate::command::Outcome::Trap(class) => class.name(),
        crate::command::Outcome::Ok(_) => "ok",
        _ => "status",
    };
    (finished.fuel_used, how.into())
}
