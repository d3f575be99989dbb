//! `balsa_init` and `balsa_migrate`: what they see, how they end, and that what they may write is bounded.

use super::fixture::{Rows, context, function, load, map, with_items};
use crate::command::{Outcome, TrapClass};
use crate::limits::Replicated;
use crate::wasm::{Finished, Module, Transition};

const DATA: &str = r#"(data (i32.const 16) "key") (data (i32.const 32) "value")"#;
const CALL: &str = "(i32.const 5)";
const PUT: &str = "(call $put (i32.const 16) (i32.const 3) (i32.const 32) (i32.const 5))";
const DELETE: &str = "(drop (call $delete (i32.const 16) (i32.const 3)))";
/// As many puts as the input, a version, has bytes.
const PUT_FOR_EACH_BYTE: &str = "(loop $again (call $put (i32.const 16) (i32.const 3) (i32.const 32) (i32.const 5)) \
     (br_if $again (local.tee $len (i32.sub (local.get $len) (i32.const 1))))) (i32.const 0)";

fn init(body: &str) -> Module {
    module(&format!(r#"(func (export "balsa_init") (result i32) {body})"#))
}

fn migrate(body: &str) -> Module {
    module(&format!(r#"(func (export "balsa_migrate") (param $len i32) (result i32) {body})"#))
}

fn module(items: &str) -> Module {
    load(&with_items(&format!("{DATA} {items} {}", function(CALL))))
}

fn from(version: Option<&str>) -> Transition {
    let Replicated { migrate_fuel: fuel, memory_bytes, migrate_writes: writes_max, migrate_bytes: bytes_max, .. } =
        Replicated::default();
    Transition { from: version.map(Into::into), context: context(), fuel, memory_bytes, writes_max, bytes_max }
}

fn run(module: &Module, transition: Transition) -> Finished {
    module.transition(transition, map(Rows::new())).expect("the host is well")
}

fn succeeds(finished: &Finished) {
    assert_eq!(finished.outcome, Outcome::Ok(Default::default()), "{:?}", finished.trap_detail);
}

#[test]
fn a_module_without_them_has_nothing_to_do() {
    let module = module("");
    assert!(!module.has_init() && !module.has_migrate());
    for version in [None, Some("1.0.0")] {
        let finished = run(&module, Transition { fuel: 0, ..from(version) });
        succeeds(&finished);
        assert_eq!((finished.fuel_used, finished.writes, finished.written_bytes), (0, 0, 0));
    }
}

#[test]
fn each_runs_for_its_own_occasion_only() {
    let (init, migrate) = (init(&format!("{PUT} (i32.const 0)")), migrate(&format!("{PUT} (i32.const 0)")));
    assert!(init.has_init() && !init.has_migrate() && migrate.has_migrate() && !migrate.has_init());
    for (module, version, writes) in
        [(&init, None, 1), (&init, Some("1"), 0), (&migrate, Some("1"), 1), (&migrate, None, 0)]
    {
        let finished = run(module, from(version));
        succeeds(&finished);
        assert_eq!((finished.writes, finished.rows().len()), (writes, usize::try_from(writes).unwrap()));
    }
}

#[test]
fn a_migration_reads_the_old_version_and_the_old_state() {
    let module = migrate(
        "(call $input_read (i32.const 64) (i32.const 0) (local.get $len)) \
         (drop (call $get (i32.const 16) (i32.const 3) (i32.const 128) (i32.const 64))) \
         (call $put (i32.const 64) (local.get $len) (i32.const 128) (i32.const 3)) (i32.const 0)",
    );
    let state = Rows::from([(b"key".to_vec(), b"old".to_vec())]);
    let finished = module.transition(from(Some("1.2.3-rc.4")), map(state.clone())).unwrap();
    succeeds(&finished);
    let mut expected = state;
    expected.insert(b"1.2.3-rc.4".to_vec(), b"old".to_vec());
    assert_eq!(finished.rows(), expected);
}

#[test]
fn it_logs_and_sees_its_context_like_a_command() {
    let module = init(
        "(call $log (i32.const 2) (i32.const 16) (i32.const 3)) (drop (call $context (i32.const 64) (i32.const 48))) \
         (call $put (i32.const 16) (i32.const 3) (i32.const 64) (i32.const 8)) (i32.const 0)",
    );
    let finished = run(&module, from(None));
    assert_eq!((finished.logs[0].level, finished.logs[0].text.as_str()), (2, "key"));
    assert_eq!(finished.rows()[&b"key"[..]], context().index.to_le_bytes());
}

#[test]
fn its_output_is_not_needed_and_not_passed_on() {
    succeeds(&run(&init("(call $reply (i64.const 7))"), from(None)));
}

#[test]
fn it_refuses_with_a_status() {
    let status = |finished: &Finished| match &finished.outcome {
        Outcome::Status(status) => (status.code, status.message.clone()),
        other => panic!("{other:?}"),
    };
    let bare = run(&migrate("(i32.const 9)"), from(Some("1")));
    assert_eq!(status(&bare), (9, String::new()));
    // Code 9, message "no".
    let told = migrate(
        r#"(i64.store (i32.const 0) (i64.const 0x6f6e02120908)) (call $output (i32.const 0) (i32.const 6)) (i32.const 9)"#,
    );
    assert_eq!(status(&run(&told, from(Some("1")))), (9, "no".into()));
}

#[test]
fn what_is_neither_success_nor_a_status_is_a_bad_result_by_its_own_name() {
    let finished = run(&migrate("(i32.const 17)"), from(Some("1")));
    assert_eq!(finished.trap(), TrapClass::BadResult);
    assert_eq!(finished.detail(), "balsa_migrate returned 17, which is neither 0 nor a gRPC code (1..=16)");
    let finished = run(&init("(i32.const -1)"), from(None));
    assert!(finished.detail().starts_with("balsa_init returned 4294967295"), "{}", finished.detail());
}

#[test]
fn a_panic_in_it_brings_its_message_and_where() {
    let module = migrate("(call $panic (i32.const 16) (i32.const 3)) unreachable");
    let finished = run(&module, from(Some("1")));
    assert_eq!(finished.trap(), TrapClass::Unreachable);
    assert!(finished.detail().starts_with("key\n"), "{}", finished.detail());
}

#[test]
fn it_has_a_fuel_of_its_own() {
    let finished =
        run(&migrate("(loop $again (br $again)) (i32.const 0)"), Transition { fuel: 5_000, ..from(Some("1")) });
    assert_eq!((finished.trap(), finished.fuel_used), (TrapClass::OutOfFuel, 5_000));
}

#[test]
fn as_many_writes_as_it_may_and_one_more_is_a_trap() {
    let module = migrate(PUT_FOR_EACH_BYTE);
    let writes_max = 3;
    let just = run(&module, Transition { writes_max, ..from(Some("123")) });
    succeeds(&just);
    assert_eq!((just.writes, just.written_bytes), (3, 24));
    let more = run(&module, Transition { writes_max, ..from(Some("1234")) });
    assert_eq!((more.trap(), more.writes), (TrapClass::WriteLimit, 3));
    assert_eq!(
        more.detail().lines().next().unwrap(),
        "more than 3 puts and deletes; change the rest when it is next read, by a version in each value"
    );
}

#[test]
fn as_many_bytes_as_it_may_and_one_more_is_a_trap() {
    let module = migrate(PUT_FOR_EACH_BYTE);
    succeeds(&run(&module, Transition { bytes_max: 24, ..from(Some("123")) }));
    let more = run(&module, Transition { bytes_max: 23, ..from(Some("123")) });
    assert_eq!((more.trap(), more.writes, more.written_bytes), (TrapClass::WriteLimit, 2, 16));
}

#[test]
fn the_write_that_is_too_much_is_not_made() {
    let finished = run(&init(&format!("{PUT} (i32.const 0)")), Transition { writes_max: 0, ..from(None) });
    assert_eq!((finished.trap(), finished.writes), (TrapClass::WriteLimit, 0));
    assert_eq!(finished.rows(), Rows::new());
}

#[test]
fn deleting_is_a_write_of_the_key() {
    let module = migrate(&format!("{DELETE} {DELETE} (i32.const 0)"));
    let finished = run(&module, Transition { writes_max: 2, bytes_max: 6, ..from(Some("1")) });
    succeeds(&finished);
    assert_eq!((finished.writes, finished.written_bytes), (2, 6));
    assert_eq!(run(&module, Transition { writes_max: 1, ..from(Some("1")) }).trap(), TrapClass::WriteLimit);
}

#[test]
fn a_command_may_write_without_such_a_limit_and_says_how_much_it_wrote() {
    let module =
        load(&with_items(&format!("{DATA} {}", function(&format!("{PUT} {DELETE} (call $reply (i64.const 1))")))));
    let finished = super::fixture::Try::default().run(&module).unwrap();
    assert_eq!((finished.writes, finished.written_bytes), (2, 11));
}

#[test]
fn the_same_transition_ends_the_same_every_time() {
    let module = migrate(PUT_FOR_EACH_BYTE);
    let one = || {
        let finished = run(&module, Transition { bytes_max: 20, ..from(Some("123")) });
        (finished.outcome.clone(), finished.fuel_used, finished.writes, finished.trap_detail.clone())
    };
    assert_eq!(one(), one());
}

#[test]
fn a_module_knows_its_size() {
    let wasm = with_items(&format!("{DATA} {}", function(CALL)));
    assert_eq!(load(&wasm).size(), wasm.len());
}
