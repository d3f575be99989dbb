//! The host's promises, with methods made up on the spot.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::*;
use crate::scan::Range;

/// A message for methods that need none.
type Nothing = ();

fn put(ctx: &mut Context, pair: (&str, &str)) -> Result<Nothing, Status> {
    ctx.put(pair.0.as_bytes(), pair.1.as_bytes());
    Ok(())
}

fn filled(keys: &[&str]) -> Host {
    let mut host = Host::new();
    for key in keys {
        host.command(put, (key, "v")).unwrap();
    }
    host
}

/// The keys that a query finds, page by page.
fn pages(host: &mut Host, range: Range) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    host.query(
        |ctx, range| {
            let keys =
                |page: crate::Page| page.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect();
            found.extend(ctx.pages(range).map(keys));
            Ok(())
        },
        range,
    )
    .unwrap();
    found
}

#[test]
fn each_command_has_its_own_index_and_randomness_and_time_stands_still() {
    let mut host = Host::new();
    host.set_now(Duration::from_millis(1_500));
    let mut seen = Vec::new();
    for _ in 0..2 {
        host.command(
            |ctx, ()| {
                seen.push((ctx.index(), ctx.now(), ctx.random().u64()));
                Ok(())
            },
            (),
        )
        .unwrap();
    }
    assert_eq!((seen[0].0, seen[1].0), (1, 2));
    assert_eq!((seen[0].1, seen[1].1), (Duration::from_millis(1_500), Duration::from_millis(1_500)));
    assert_ne!(seen[0].2, seen[1].2);
    host.advance(Duration::from_secs(1));
    assert_eq!(host.now(), Duration::from_millis(2_500));
}

#[test]
fn a_query_is_at_the_index_of_the_last_command() {
    let mut host = filled(&["a", "b"]);
    let mut seen = 0;
    let look = |ctx: &View, ()| {
        seen = ctx.index();
        Ok(())
    };
    host.query(look, ()).unwrap();
    assert_eq!((seen, host.index()), (2, 2));
}

#[test]
fn a_command_that_fails_leaves_no_trace_but_takes_its_index() {
    let mut host = filled(&["a", "b"]);
    let before = host.dump();
    let fails = |ctx: &mut Context, ()| -> Result<Nothing, Status> {
        ctx.put(b"a", b"changed");
        ctx.put(b"c", b"new");
        ctx.delete(b"c");
        ctx.delete(b"b");
        Err(Status::aborted("no"))
    };
    assert_eq!(host.command(fails, ()), Err(Status::aborted("no")));
    assert_eq!((host.dump(), host.index()), (before, 3));
}

#[test]
fn a_command_that_panics_leaves_no_trace_and_the_host_goes_on() {
    let mut host = filled(&["a"]);
    let panics = |ctx: &mut Context, ()| -> Result<Nothing, Status> {
        ctx.delete(b"a");
        panic!("on purpose")
    };
    assert!(catch_unwind(AssertUnwindSafe(|| host.command(panics, ()))).is_err());
    assert_eq!(host.dump(), "a = v\n");
    host.command(put, ("b", "v")).unwrap();
}

#[test]
fn init_and_migrate_are_commands_that_leave_all_or_nothing() {
    let mut host = Host::new();
    host.init(|ctx| {
        ctx.put(b"a", b"v1");
        Ok(())
    })
    .unwrap();
    let migrate = |ctx: &mut Context, from: Version| {
        ctx.put(b"a", b"v2");
        ctx.delete(b"b");
        if from < Version::new(1, 0, 0) { Err(Status::failed_precondition("too old")) } else { Ok(()) }
    };
    assert_eq!(host.migrate("0.9.0", migrate), Err(Status::failed_precondition("too old")));
    assert_eq!((host.dump().as_str(), host.index(), host.writes()), ("a = v1\n", 2, 2));
    host.migrate("1.0.0", migrate).unwrap();
    assert_eq!((host.dump().as_str(), host.index()), ("a = v2\n", 3));
}

#[test]
#[should_panic(expected = "too_large: a key of 0 bytes")]
fn an_empty_key_panics() {
    let _ = Host::new().command(put, ("", "v"));
}

#[test]
#[should_panic(expected = "bad_result: a response of 4128769 bytes")]
fn a_response_above_its_limit_panics() {
    // The field's key and its length take five bytes.
    let answer = |_: &View, ()| Ok("r".repeat(RESULT_BYTES_MAX - 4));
    let _ = Host::new().query(answer, ());
}

#[test]
#[should_panic(expected = "bad_result: a message of 4128769 bytes")]
fn a_message_of_a_stream_above_its_limit_panics() {
    let stream = |_: &View, (), out: &mut Sender<String>| {
        out.send("m".repeat(RESULT_BYTES_MAX - 5));
        out.send("m".repeat(RESULT_BYTES_MAX - 4));
        Ok(())
    };
    let _ = Host::new().stream(stream, ());
}

#[test]
fn get_head_reads_no_more_than_asked_for() {
    let mut host = Host::new();
    host.command(put, ("key", "value")).unwrap();
    let heads = |ctx: &View, ()| {
        assert_eq!(ctx.get_head(b"key", 3).as_deref(), Some(&b"val"[..]));
        assert_eq!(ctx.get_head(b"key", 9).as_deref(), Some(&b"value"[..]));
        assert_eq!(ctx.get_head(b"other", 3), None);
        Ok(())
    };
    host.query(heads, ()).unwrap();
}

#[test]
fn pages_cover_a_range_once_in_both_directions() {
    let mut host = filled(&["a", "b", "b\0", "c", "d"]);
    // A page of one item each: 5 bytes, and 8 for its lengths.
    let small = |range: Range| range.page_bytes(14);
    assert_eq!(pages(&mut host, small(Range::all())), [["a"], ["b"], ["b\0"], ["c"], ["d"]]);
    assert_eq!(pages(&mut host, small(Range::all().reverse())), [["d"], ["c"], ["b\0"], ["b"], ["a"]]);
    assert_eq!(pages(&mut host, Range::between("b", "d")), [["b", "b\0", "c"]]);
    assert_eq!(pages(&mut host, Range::prefix("b").reverse()), [["b\0", "b"]]);
    assert_eq!(pages(&mut host, Range::from("c")), [["c", "d"]]);
    assert!(pages(&mut host, Range::between("d", "a")).is_empty());
}

#[test]
fn a_limit_counts_over_all_pages() {
    let mut host = filled(&["a", "b", "c", "d"]);
    assert_eq!(pages(&mut host, Range::all().limit(3).page_bytes(29)), [vec!["a", "b"], vec!["c"]]);
    assert!(pages(&mut host, Range::all().limit(0)).is_empty());
}

#[test]
fn a_loop_over_pages_may_write_what_it_reads() {
    let mut host = filled(&["a", "b", "c"]);
    let delete_all = |ctx: &mut Context, ()| {
        for page in ctx.pages(Range::all().keys_only().page_bytes(14)) {
            for (key, value) in &page {
                assert!(value.is_empty());
                ctx.delete(key);
            }
        }
        Ok(())
    };
    host.command(delete_all, ()).unwrap();
    assert_eq!(host.dump(), "");
}

#[test]
fn log_lines_are_kept_for_the_test() {
    let mut host = Host::new();
    let logs = |_: &mut Context, number: u32| {
        crate::info!("plain");
        crate::warn!("number {number}");
        Ok(())
    };
    host.command(logs, 7).unwrap();
    assert_eq!(host.take_logs(), [(Level::Info, "plain".to_owned()), (Level::Warn, "number 7".to_owned())]);
    assert!(host.take_logs().is_empty());
}

#[test]
fn the_dump_escapes_what_is_not_text() {
    let mut host = Host::new();
    host.state_mut().insert(b"k\0".to_vec(), vec![0xff, b'1']);
    assert_eq!(host.dump(), "k\\x00 = \\xff1\n");
}
