//! Every import: it works, it copes with what is missing, it refuses what is too large or not allowed, and no pointer is
//! wild enough to hurt.

use super::fixture::{DO, Rows, Try, body, context, function, load, with_items};
use crate::command::{Outcome, TrapClass};
use crate::limits::{
    RESULT_BYTES_MAX, SCAN_ITEMS_MAX, STORED_KEY_BYTES_MAX as KEY_BYTES_MAX, STORED_VALUE_BYTES_MAX as VALUE_BYTES_MAX,
};
use crate::wasm::host::{ABI, IMPORTS};

/// A number as the eight bytes of `$reply`.
fn reply(expression: &str) -> String {
    format!("(call $reply {expression})")
}

/// `key` at 16, `value` at 32.
const DATA: &str = r#"(data (i32.const 16) "key") (data (i32.const 32) "value")"#;

fn with_data(trial: Try, text: &str) -> crate::wasm::Finished {
    let module = load(&with_items(&format!("{DATA} {}", function(text))));
    trial.run(&module).expect("the host is well")
}

// --- input and output

#[test]
fn input_is_read_in_part_and_as_a_whole() {
    let copy = "(call $input_read (i32.const 100) (i32.const 1) (i32.const 3)) (call $output (i32.const 100) (i32.const 3)) (i32.const 0)";
    let finished = Try { input: b"abcde".to_vec(), ..Try::default() }.body(copy);
    assert_eq!(finished.output(), b"bcd");
}

#[test]
fn the_length_of_the_input_and_the_methods_index_are_given() {
    let both = reply("(i64.extend_i32_u (i32.add (i32.mul (local.get $method) (i32.const 100)) (local.get $len)))");
    assert_eq!(Try { input: vec![0; 42], ..Try::default() }.body(&both).number(), 42);
    assert_eq!(Try { input: vec![0; 42], ..Try::query() }.body(&both).number(), 142);
}

#[test]
fn input_beyond_its_end_is_a_bad_host_call() {
    let finished = Try { input: b"abc".to_vec(), ..Try::default() }
        .body("(call $input_read (i32.const 0) (i32.const 1) (i32.const 3)) (i32.const 0)");
    assert_eq!(finished.trap(), TrapClass::BadHostCall);
    assert!(
        finished.detail().starts_with("offset 1 and length 3 lie outside the input of 3 bytes"),
        "{}",
        finished.detail()
    );
}

#[test]
fn an_empty_output_is_an_output() {
    assert_eq!(body("(call $output (i32.const 0) (i32.const 0)) (i32.const 0)").output(), b"");
}

#[test]
fn success_without_output_is_a_bad_result() {
    assert_eq!(body("(i32.const 0)").trap(), TrapClass::BadResult);
}

#[test]
fn two_outputs_are_a_bad_result() {
    let once = "(call $output (i32.const 0) (i32.const 1))";
    assert_eq!(body(&format!("{once} {once} (i32.const 0)")).trap(), TrapClass::BadResult);
}

#[test]
fn an_output_may_be_as_large_as_the_limit_and_no_larger() {
    let output = |bytes: usize| {
        let grow = "(drop (memory.grow (i32.const 62)))";
        let fuel = 20_000_000;
        Try { fuel, ..Try::default() }
            .body(&format!("{grow} (call $output (i32.const 0) (i32.const {bytes})) (i32.const 0)"))
    };
    assert_eq!(output(RESULT_BYTES_MAX).output().len(), RESULT_BYTES_MAX);
    assert_eq!(output(RESULT_BYTES_MAX + 1).trap(), TrapClass::BadResult);
}

// --- status

#[test]
fn a_status_carries_code_message_and_details() {
    // google.rpc.Status { code: 5, message: "no" }
    let module = load(&with_items(&format!(
        r#"(data (i32.const 16) "\08\05\12\02no") {}"#,
        function("(call $output (i32.const 16) (i32.const 6)) (i32.const 5)")
    )));
    let finished = Try::default().run(&module).unwrap();
    let Outcome::Status(status) = finished.outcome else { panic!("{:?}", finished.outcome) };
    assert_eq!((status.code, status.message.as_str(), &status.details[..]), (5, "no", &b"\x08\x05\x12\x02no"[..]));
}

#[test]
fn a_status_needs_no_output() {
    let Outcome::Status(status) = body("(i32.const 16)").outcome else { panic!("not a status") };
    assert_eq!((status.code, status.message.as_str(), status.details.len()), (16, "", 0));
}

#[test]
fn garbage_in_place_of_a_status_is_a_bad_result() {
    let garbage = "(i32.store (i32.const 0) (i32.const -1)) (call $output (i32.const 0) (i32.const 4)) (i32.const 5)";
    assert_eq!(body(garbage).trap(), TrapClass::BadResult);
}

#[test]
fn a_status_with_another_code_inside_is_a_bad_result() {
    let other =
        "(i32.store16 (i32.const 0) (i32.const 0x0508)) (call $output (i32.const 0) (i32.const 2)) (i32.const 6)";
    let finished = body(other);
    assert_eq!(finished.trap(), TrapClass::BadResult);
    assert_eq!(finished.detail(), "balsa_call returned code 6, but its google.rpc.Status has code 5");
}

#[test]
fn a_status_above_four_kibibytes_is_a_bad_result() {
    assert_eq!(body("(call $output (i32.const 0) (i32.const 4097)) (i32.const 5)").trap(), TrapClass::BadResult);
}

#[test]
fn codes_beyond_grpcs_are_a_bad_result() {
    for code in [17, -1, i32::MIN, i32::MAX] {
        assert_eq!(body(&format!("(i32.const {code})")).trap(), TrapClass::BadResult, "{code}");
    }
}

// --- get

const GET: &str = "(call $get (i32.const 16) (i32.const 3) (i32.const 64) (i32.const 8))";

#[test]
fn get_copies_a_value_that_fits() {
    let both = format!("(drop {GET}) (call $output (i32.const 64) (i32.const 5)) (i32.const 0)");
    assert_eq!(with_data(Try::default().rows(&[(b"key", b"hello")]), &both).output(), b"hello");
}

#[test]
fn get_says_minus_one_for_what_is_absent() {
    assert_eq!(with_data(Try::default(), &reply(GET)).number(), -1);
}

#[test]
fn get_of_an_impossible_key_is_absent() {
    let too_long = KEY_BYTES_MAX + 1;
    for len in [0, too_long] {
        let get = format!("(call $get (i32.const 0) (i32.const {len}) (i32.const 0) (i32.const 0))");
        assert_eq!(with_data(Try::default(), &reply(&get)).number(), -1);
    }
}

#[test]
fn a_value_that_does_not_fit_is_kept_for_result_read() {
    let rows: &[(&[u8], &[u8])] = &[(b"key", b"0123456789")];
    assert_eq!(with_data(Try::default().rows(rows), &reply(GET)).number(), 10);
    let untouched = format!("(drop {GET}) (call $output (i32.const 64) (i32.const 8)) (i32.const 0)");
    assert_eq!(with_data(Try::default().rows(rows), &untouched).output(), [0; 8]);
    let rest = "(call $result_read (i32.const 64) (i32.const 2) (i32.const 8)) (call $output (i32.const 64) (i32.const 8)) (i32.const 0)";
    assert_eq!(with_data(Try::query().rows(rows), &format!("(drop {GET}) {rest}")).output(), b"23456789");
}

#[test]
fn result_read_beyond_the_result_is_a_bad_host_call() {
    let read = "(call $result_read (i32.const 64) (i32.const 0) (i32.const 1)) (i32.const 0)";
    assert_eq!(body(read).trap(), TrapClass::BadHostCall);
    let finished = with_data(
        Try::default().rows(&[(b"key", b"0123456789")]),
        &format!("(drop {GET}) (call $result_read (i32.const 64) (i32.const 10) (i32.const 1)) (i32.const 0)"),
    );
    assert_eq!(finished.trap(), TrapClass::BadHostCall);
}

// --- put and delete

const PUT: &str = "(call $put (i32.const 16) (i32.const 3) (i32.const 32) (i32.const 5))";

#[test]
fn put_is_seen_by_get_and_kept() {
    let finished = with_data(Try::default(), &format!("{PUT} {}", reply(GET)));
    assert_eq!(finished.number(), 5);
    assert_eq!(finished.rows(), Rows::from([(b"key".to_vec(), b"value".to_vec())]));
}

#[test]
fn put_in_a_query_is_refused() {
    let finished = with_data(Try::query(), &format!("{PUT} {}", reply(GET)));
    assert_eq!(finished.trap(), TrapClass::WriteInQuery);
    assert!(finished.detail().starts_with("put: a query can't write; make the method a command"));
    assert!(finished.rows().is_empty());
}

#[test]
fn put_takes_the_largest_key_and_value_and_nothing_larger() {
    let put = |key: usize, value: usize| {
        Try::default().body(&format!("(drop (memory.grow (i32.const 20))) (call $put (i32.const 0) (i32.const {key}) (i32.const 0) (i32.const {value})) {}", reply("(i64.const 1)")))
    };
    assert_eq!(put(KEY_BYTES_MAX, VALUE_BYTES_MAX).number(), 1);
    assert_eq!(put(KEY_BYTES_MAX + 1, 0).trap(), TrapClass::TooLarge);
    assert_eq!(put(0, 0).trap(), TrapClass::TooLarge);
    assert_eq!(put(1, VALUE_BYTES_MAX + 1).trap(), TrapClass::TooLarge);
}

const DELETE: &str = "(call $delete (i32.const 16) (i32.const 3))";

#[test]
fn delete_says_whether_the_key_was_there() {
    let delete = reply(&format!("(i64.extend_i32_u {DELETE})"));
    let finished = with_data(Try::default().rows(&[(b"key", b"")]), &delete);
    assert_eq!(finished.number(), 1);
    assert!(finished.rows().is_empty());
    assert_eq!(with_data(Try::default(), &delete).number(), 0);
}

#[test]
fn delete_in_a_query_is_refused() {
    let finished =
        with_data(Try::query().rows(&[(b"key", b"")]), &format!("(drop {DELETE}) {}", reply("(i64.const 0)")));
    assert_eq!(finished.trap(), TrapClass::WriteInQuery);
    assert_eq!(finished.rows().len(), 1);
}

#[test]
fn delete_of_an_impossible_key_is_too_large() {
    for len in [0, KEY_BYTES_MAX + 1] {
        let delete = format!("(drop (call $delete (i32.const 0) (i32.const {len}))) (i32.const 5)");
        assert_eq!(body(&delete).trap(), TrapClass::TooLarge);
    }
}

// --- scan

/// Scans with these arguments and outputs the page.
fn scan(start: (u32, u32), end: (u32, u32), flags: u32, limit: u32, budget: u32) -> String {
    let ((start, start_len), (end, end_len)) = (start, end);
    format!(
        "(call $output (i32.const 4096) (i32.wrap_i64 (call $scan (i32.const {start}) (i32.const {start_len}) (i32.const {end}) (i32.const {end_len}) (i32.const {flags}) (i32.const {limit}) (i32.const {budget}) (i32.const 4096) (i32.const 65536)))) (i32.const 0)"
    )
}

/// A page as text: `a=1 b=2 more`.
fn page(bytes: &[u8]) -> String {
    let count = u32::from_le_bytes(bytes[..4].try_into().unwrap());
    let mut at = 5;
    let mut part = || {
        let len = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        at += 4 + len;
        String::from_utf8(bytes[at - len..at].to_vec()).unwrap()
    };
    let mut words: Vec<String> = (0..count).map(|_| format!("{}={}", part(), part())).collect();
    assert_eq!(at, bytes.len());
    if bytes[4] == 1 {
        words.push("more".into());
    }
    words.join(" ")
}

fn letters() -> Try {
    Try::query().rows(&[(b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"d", b"4")])
}

fn scanned(flags: u32, limit: u32, budget: u32) -> String {
    let text = format!(r#"(data (i32.const 16) "bd") {}"#, function(&scan((16, 1), (17, 1), flags, limit, budget)));
    page(letters().run(&load(&with_items(&text))).unwrap().output())
}

#[test]
fn scan_gives_the_range_without_its_end() {
    assert_eq!(scanned(0, 10, 1000), "b=2 c=3");
}

#[test]
fn scan_in_reverse_gives_the_same_range_backwards() {
    assert_eq!(scanned(1, 10, 1000), "c=3 b=2");
}

#[test]
fn scan_of_keys_leaves_values_empty() {
    assert_eq!(scanned(2, 10, 1000), "b= c=");
}

#[test]
fn scan_without_an_end_goes_to_the_last_key() {
    assert_eq!(scanned(4, 10, 1000), "b=2 c=3 d=4");
}

#[test]
fn scan_stops_at_the_limit_and_says_that_there_is_more() {
    assert_eq!(scanned(0, 1, 1000), "b=2 more");
    assert_eq!(scanned(0, 2, 1000), "b=2 c=3");
}

#[test]
fn scan_with_limit_zero_only_says_whether_there_is_anything() {
    assert_eq!(scanned(0, 0, 1000), "more");
}

#[test]
fn scan_stops_at_the_budget_but_gives_one_item_at_least() {
    assert_eq!(scanned(0, 10, 5 + 10 + 10), "b=2 c=3");
    assert_eq!(scanned(0, 10, 5 + 10 + 9), "b=2 more");
    assert_eq!(scanned(0, 1, 0), "b=2 more");
}

#[test]
fn scan_of_an_empty_or_inverted_range_is_empty() {
    assert_eq!(page(letters().body(&scan((16, 0), (16, 0), 0, 10, 1000)).output()), "");
    let inverted = format!(r#"(data (i32.const 16) "db") {}"#, function(&scan((16, 1), (17, 1), 0, 10, 1000)));
    assert_eq!(page(letters().run(&load(&with_items(&inverted))).unwrap().output()), "");
}

#[test]
fn a_bound_of_a_scan_may_be_longer_than_a_key_can_be() {
    let longer = KEY_BYTES_MAX as u32 + 2;
    // What is behind the letter is zeros.
    let from = |start, end, flags| {
        let text = format!(r#"(data (i32.const 16) "b") {}"#, function(&scan(start, end, flags, 10, 1000)));
        page(letters().run(&load(&with_items(&text))).unwrap().output())
    };
    assert_eq!(from((16, longer), (0, 0), 4), "c=3 d=4");
    assert_eq!(from((0, 0), (16, longer), 0), "a=1 b=2");
}

#[test]
fn scan_sees_writes_of_the_same_call() {
    let finished = with_data(Try::default(), &format!("{PUT} {}", scan((16, 0), (16, 0), 4, 10, 1000)));
    assert_eq!(page(finished.output()), "key=value");
}

#[test]
fn a_page_that_does_not_fit_is_kept_for_result_read() {
    let text = "(local $bytes i32)
        (local.set $bytes (i32.wrap_i64 (call $scan (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 10) (i32.const 1000) (i32.const 0) (i32.const 0))))
        (call $result_read (i32.const 64) (i32.const 0) (local.get $bytes))
        (call $output (i32.const 64) (local.get $bytes)) (i32.const 0)";
    assert_eq!(page(letters().body(text).output()), "a=1 b=2 c=3 d=4");
}

#[test]
fn a_page_has_ten_thousand_items_at_most() {
    let rows = (0..SCAN_ITEMS_MAX as u32 + 5).map(|at| (at.to_be_bytes().to_vec(), Vec::new())).collect();
    let text = "(drop (memory.grow (i32.const 20))) (call $output (i32.const 4096) (i32.wrap_i64 (call $scan (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const -1) (i32.const -1) (i32.const 4096) (i32.const 1000000)))) (i32.const 0)";
    let finished = Try { rows, ..Try::query() }.body(text);
    assert_eq!(finished.output()[..5], [0x10, 0x27, 0, 0, 1]);
}

#[test]
fn scan_with_unknown_flags_is_a_bad_host_call() {
    assert_eq!(body(&scan((0, 0), (0, 0), 8, 1, 1)).trap(), TrapClass::BadHostCall);
}

#[test]
fn scan_charges_for_rows_and_stops_when_the_fuel_is_gone() {
    let rows = (0..1000_u32).map(|at| (at.to_be_bytes().to_vec(), Vec::new())).collect();
    let finished = Try { rows, fuel: 50_000, ..Try::query() }.body(&scan((0, 0), (0, 0), 4, 1000, 100_000));
    assert_eq!((finished.trap(), finished.fuel_used), (TrapClass::OutOfFuel, 50_000));
}

// --- context, clock, randomness

#[test]
fn context_gives_index_time_and_randomness() {
    let finished = body(
        "(drop (call $context (i32.const 64) (i32.const 48))) (call $output (i32.const 64) (i32.const 48)) (i32.const 0)",
    );
    let output = finished.output();
    assert_eq!(output[..8], context().index.to_le_bytes());
    assert_eq!(output[8..16], context().time_ms.to_le_bytes());
    assert_eq!(output[16..], context().random);
}

#[test]
fn context_is_cut_to_what_the_guest_has_room_for() {
    let text = format!(
        "(local $size i32) (local.set $size (call $context (i32.const 64) (i32.const 8))) {}",
        reply(
            "(i64.add (i64.load (i32.const 64)) (i64.add (i64.load (i32.const 72)) (i64.extend_i32_u (local.get $size))))"
        )
    );
    assert_eq!(body(&text).number(), 7 + 48);
}

#[test]
fn clocks_show_log_time_and_never_move() {
    for clock in 0..4 {
        let text = format!(
            "(drop (call $clock_time_get (i32.const {clock}) (i64.const 0) (i32.const 64))) {}",
            reply("(i64.load (i32.const 64))")
        );
        assert_eq!(body(&text).number(), 1_700_000_000_123_000_000);
    }
    assert_eq!(
        body(&reply("(i64.extend_i32_u (call $clock_time_get (i32.const 4) (i64.const 0) (i32.const 64)))")).number(),
        28
    );
}

#[test]
fn clock_resolution_is_a_millisecond() {
    assert_eq!(
        body(&format!(
            "(drop (call $clock_res_get (i32.const 0) (i32.const 64))) {}",
            reply("(i64.load (i32.const 64))")
        ))
        .number(),
        1_000_000
    );
}

#[test]
fn randomness_is_a_stream_that_repeats_with_the_entry() {
    let text = "(drop (call $random_get (i32.const 64) (i32.const 8))) (drop (call $random_get (i32.const 72) (i32.const 8))) (call $output (i32.const 64) (i32.const 16)) (i32.const 0)";
    let first = body(text);
    let output = first.output();
    assert_ne!(output[..8], output[8..]);
    assert_eq!(output, body(text).output());
    // Pinned: a replica with another version of blake3 or of this code must give the same.
    assert_eq!(crate::ids::hex(output), "1b7bd164b27ad626ea928b285e7cbdb9");
}

// --- log, panic, WASI

#[test]
fn log_lines_are_kept_with_their_level() {
    let finished = with_data(
        Try::default(),
        &format!("(call $log (i32.const 2) (i32.const 16) (i32.const 3)) {}", reply("(i64.const 0)")),
    );
    let lines: Vec<_> = finished.logs.iter().map(|line| (line.level, line.text.as_str())).collect();
    assert_eq!(lines, [(2, "key")]);
}

#[test]
fn log_lines_are_cut_and_counted() {
    let text = format!(
        "(local $i i32) (memory.fill (i32.const 0) (i32.const 97) (i32.const 5000)) (loop $again (call $log (i32.const 3) (i32.const 0) (i32.const 5000)) (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100)))) {}",
        reply("(i64.const 0)")
    );
    let finished = body(&text);
    assert_eq!(finished.logs.len(), 64);
    assert!(finished.logs.iter().all(|line| line.text.len() == 4096));
}

#[test]
fn log_lines_that_are_not_utf8_are_shown_as_far_as_possible() {
    let finished = body(&format!(
        "(i32.store8 (i32.const 0) (i32.const 255)) (call $log (i32.const 1) (i32.const 0) (i32.const 1)) {}",
        reply("(i64.const 0)")
    ));
    assert_eq!(finished.logs[0].text, "\u{fffd}");
}

#[test]
fn log_levels_beyond_trace_are_a_bad_host_call() {
    for level in [0, 6, -1] {
        assert_eq!(
            body(&format!("(call $log (i32.const {level}) (i32.const 0) (i32.const 0)) (i32.const 0)")).trap(),
            TrapClass::BadHostCall
        );
    }
}

#[test]
fn a_panic_is_told_to_the_author() {
    let finished = with_data(Try::default(), "(call $panic (i32.const 16) (i32.const 3)) unreachable");
    assert_eq!(finished.trap(), TrapClass::Unreachable);
    assert!(
        finished.detail().starts_with("key\nwasm trap: wasm `unreachable` instruction executed\n"),
        "{}",
        finished.detail()
    );
    assert!(finished.detail().contains("<wasm function"), "{}", finished.detail());
}

#[test]
fn standard_output_and_error_become_log_lines() {
    let data =
        r#"(data (i32.const 16) "one\ntwo") (data (i32.const 64) "\10\00\00\00\05\00\00\00\15\00\00\00\02\00\00\00")"#;
    let text = function(&format!(
        "(drop (call $fd_write (i32.const 1) (i32.const 64) (i32.const 2) (i32.const 80))) (drop (call $fd_write (i32.const 2) (i32.const 64) (i32.const 1) (i32.const 84))) {}",
        reply("(i64.load32_u (i32.const 80))")
    ));
    let finished = Try::default().run(&load(&with_items(&format!("{data} {text}")))).unwrap();
    assert_eq!(finished.number(), 7);
    let lines: Vec<_> = finished.logs.iter().map(|line| (line.level, line.text.as_str())).collect();
    assert_eq!(lines, [(3, "one"), (2, "one"), (3, "two"), (2, "t")]);
}

#[test]
fn other_descriptors_are_bad() {
    let calls = [
        ("(call $fd_write (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))", 8),
        ("(call $fd_write (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 0))", 8),
        ("(call $fd_read (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))", 8),
        ("(call $fd_close (i32.const 3))", 8),
        ("(call $fd_close (i32.const 2))", 0),
        ("(call $fd_seek (i32.const 3) (i64.const 0) (i32.const 0) (i32.const 0))", 8),
        ("(call $fd_seek (i32.const 1) (i64.const 0) (i32.const 0) (i32.const 0))", 70),
        ("(call $fd_fdstat_get (i32.const 3) (i32.const 0))", 8),
        ("(call $fd_fdstat_get (i32.const 1) (i32.const 64))", 0),
        ("(call $sched_yield)", 0),
    ];
    for (call, errno) in calls {
        assert_eq!(body(&reply(&format!("(i64.extend_i32_u {call})"))).number(), errno, "{call}");
    }
}

#[test]
fn environment_and_arguments_are_empty() {
    for which in ["environ", "args"] {
        let text = format!(
            "(i64.store (i32.const 64) (i64.const -1)) (drop (call ${which}_sizes_get (i32.const 64) (i32.const 68))) (drop (call ${which}_get (i32.const 0) (i32.const 0))) {}",
            reply("(i64.load (i32.const 64))")
        );
        assert_eq!(body(&text).number(), 0);
    }
}

#[test]
fn exit_is_a_trap_of_its_own() {
    let finished = body("(call $proc_exit (i32.const 3)) (i32.const 0)");
    assert_eq!(finished.trap(), TrapClass::Exit);
    assert!(finished.detail().starts_with("the module called proc_exit(3)"));
}

// --- pointers

/// Every place where an import takes a pointer, with the pointer left open.
const POINTERS: &[(&str, &str)] = &[
    ("input_read", "(call $input_read (i32.const {}) (i32.const 0) (i32.const 1))"),
    ("output", "(call $output (i32.const {}) (i32.const 1))"),
    ("get", "(drop (call $get (i32.const {}) (i32.const 1) (i32.const 0) (i32.const 0)))"),
    ("get", "(drop (call $get (i32.const 16) (i32.const 1) (i32.const {}) (i32.const 1)))"),
    (
        "result_read",
        "(drop (call $get (i32.const 16) (i32.const 3) (i32.const 0) (i32.const 0))) (call $result_read (i32.const {}) (i32.const 0) (i32.const 1))",
    ),
    ("put", "(call $put (i32.const {}) (i32.const 1) (i32.const 0) (i32.const 0))"),
    ("put", "(call $put (i32.const 16) (i32.const 1) (i32.const {}) (i32.const 1))"),
    ("delete", "(drop (call $delete (i32.const {}) (i32.const 1)))"),
    (
        "scan",
        "(drop (call $scan (i32.const {}) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 1) (i32.const 1) (i32.const 0) (i32.const 0)))",
    ),
    (
        "scan",
        "(drop (call $scan (i32.const 0) (i32.const 0) (i32.const {}) (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 1) (i32.const 0) (i32.const 0)))",
    ),
    (
        "scan",
        "(drop (call $scan (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 1) (i32.const 1) (i32.const {}) (i32.const 1)))",
    ),
    ("context", "(drop (call $context (i32.const {}) (i32.const 1)))"),
    ("log", "(call $log (i32.const 1) (i32.const {}) (i32.const 1))"),
    ("panic", "(call $panic (i32.const {}) (i32.const 1))"),
    ("random_get", "(drop (call $random_get (i32.const {}) (i32.const 1)))"),
    ("clock_time_get", "(drop (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const {})))"),
    ("clock_res_get", "(drop (call $clock_res_get (i32.const 0) (i32.const {})))"),
    ("fd_write", "(drop (call $fd_write (i32.const 1) (i32.const {}) (i32.const 1) (i32.const 0)))"),
    ("fd_write", "(drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 0) (i32.const {})))"),
    (
        "fd_write",
        "(i32.store (i32.const 64) (i32.const {})) (i32.store (i32.const 68) (i32.const 1)) (drop (call $fd_write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 0)))",
    ),
    ("fd_fdstat_get", "(drop (call $fd_fdstat_get (i32.const 1) (i32.const {})))"),
    ("environ_sizes_get", "(drop (call $environ_sizes_get (i32.const {}) (i32.const 0)))"),
    ("environ_sizes_get", "(drop (call $environ_sizes_get (i32.const 0) (i32.const {})))"),
    ("args_sizes_get", "(drop (call $args_sizes_get (i32.const {}) (i32.const 0)))"),
];

/// Memory is two pages: the last byte, the first beyond, and the last one that can be named.
const EDGE: u32 = 2 * 65_536;

#[test]
fn wild_pointers_are_bad_host_calls_everywhere() {
    for (name, call) in POINTERS {
        for pointer in [EDGE, u32::MAX] {
            let call = call.replace("{}", &pointer.to_string());
            let trial = Try { input: b"x".to_vec(), ..Try::default().rows(&[(b"key", b"value")]) };
            let finished = with_data(trial, &format!("{call} {}", reply("(i64.const 0)")));
            assert_eq!(finished.trap(), TrapClass::BadHostCall, "{name} with {pointer}");
        }
    }
}

#[test]
fn wild_lengths_are_bad_host_calls_or_cost_more_than_there_is() {
    let calls = [
        "(call $input_read (i32.const 0) (i32.const -1) (i32.const -1))",
        "(call $put (i32.const 16) (i32.const -1) (i32.const 0) (i32.const 0))",
        "(call $put (i32.const 16) (i32.const 1) (i32.const 1) (i32.const -1))",
        "(drop (call $get (i32.const 16) (i32.const 1) (i32.const 16) (i32.const -1)))",
        "(call $log (i32.const 1) (i32.const 16) (i32.const -1))",
        "(drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 0)))",
        "(drop (call $random_get (i32.const 16) (i32.const -1)))",
    ];
    for call in calls {
        for fuel in [1_000_000, u64::from(u32::MAX) * 100] {
            let finished = Try { fuel, ..Try::default() }.body(&format!("{call} {}", reply("(i64.const 0)")));
            let expected = [TrapClass::BadHostCall, TrapClass::OutOfFuel];
            assert!(expected.contains(&finished.trap()), "{call}: {:?}", finished.outcome);
        }
    }
}

#[test]
fn every_import_of_the_abi_that_takes_a_pointer_is_among_those_tried() {
    for import in IMPORTS.iter().filter(|import| import.module == ABI) {
        assert!(POINTERS.iter().any(|(name, _)| *name == import.name), "{}", import.name);
    }
}

#[test]
fn a_failing_state_is_a_host_fault_and_not_an_outcome() {
    let scan = scan((0, 0), (0, 0), 4, 1, 1);
    for call in
        [format!("(drop {GET})"), PUT.into(), format!("(drop {DELETE})"), format!("(drop (block (result i32) {scan}))")]
    {
        let module = load(&with_items(&format!("{DATA} {}", function(&format!("{call} (i32.const 0)")))));
        let fault = Try { broken: true, method: DO, ..Try::default() }.run(&module).expect_err("the disk is gone");
        assert_eq!(fault.to_string(), "the disk is gone");
    }
}
