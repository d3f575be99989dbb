//! The parts that behave, natively; the rest needs a host to misbehave against.

use balsa_sdk::testing::Host;

use super::*;
use crate::migrate::migrate;

#[test]
fn a_stream_has_as_many_messages_as_asked_for() {
    let request = StreamRequest { count: 3, bytes: 5, ending: Ending::Well.into() };
    let messages = Host::new().stream(Fixture::stream, request).unwrap();
    assert_eq!(messages, vec![Payload { payload: Bytes::from_static(b"sssss") }; 3]);
}

/// Leaves `order` for a migration, as a client would.
fn ordered(order: &str) -> Host {
    let mut host = Host::new();
    let request = PutRequest { key: Bytes::from_static(b"migrate"), value: order.to_owned().into() };
    host.command(Fixture::put, request).unwrap();
    host
}

#[test]
fn without_an_order_a_migration_notes_where_it_came_from() {
    let mut host = Host::new();
    host.change(|ctx| migrate(ctx, "1.2.3")).unwrap();
    assert_eq!(
        host.query(Fixture::get, GetRequest { key: Bytes::from_static(b"migrated") }).unwrap().value.unwrap(),
        "1.2.3"
    );
}

#[test]
fn a_migration_writes_as_many_rows_as_it_is_told() {
    for (order, rows) in [("writes 7", 7), ("bytes 1048577", 2), ("deletes 5", 0)] {
        let mut host = ordered(order);
        host.change(|ctx| migrate(ctx, "1")).unwrap();
        assert_eq!(host.dump().lines().filter(|line| line.starts_with("migrate/")).count(), rows, "{order}");
    }
}

#[test]
fn an_order_that_is_none_is_refused() {
    for order in ["dance", "writes many"] {
        let status = ordered(order).change(|ctx| migrate(ctx, "1")).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
}

#[test]
fn adds_are_counted() {
    let mut host = Host::new();
    host.command(Fixture::add, AddRequest { amount: 2 }).unwrap();
    assert_eq!(host.command(Fixture::add, AddRequest { amount: 3 }).unwrap().total, 5);
    assert_eq!(host.query(Fixture::total, Empty {}).unwrap().total, 5);
}

#[test]
fn a_status_after_writes_rolls_them_back() {
    let mut host = Host::new();
    host.command(Fixture::add, AddRequest { amount: 2 }).unwrap();
    let before = host.dump();
    let status = host.command(Fixture::put_then_fail, Empty {}).unwrap_err();
    assert_eq!((status.code(), status.details().len()), (Code::FailedPrecondition, 1));
    assert_eq!(host.dump(), before);
}

#[test]
fn a_panic_after_writes_rolls_them_back() {
    let mut host = Host::new();
    host.command(Fixture::add, AddRequest { amount: 2 }).unwrap();
    let before = host.dump();
    let call = std::panic::AssertUnwindSafe(|| host.command(Fixture::put_then_trap, Empty {}));
    assert!(std::panic::catch_unwind(call).is_err());
    assert_eq!(host.dump(), before);
}

#[test]
fn an_oversize_output_has_the_size_asked_for() {
    use balsa_sdk::prost::Message;
    for bytes in [3, 129, 130, 131, 4_000_000] {
        let response = Host::new().command(Fixture::oversize_output, OversizeOutputRequest { bytes }).unwrap();
        assert!(response.encoded_len().abs_diff(bytes as usize) <= 1, "{bytes}: {}", response.encoded_len());
    }
}

#[test]
fn every_status_code_can_be_asked_for() {
    for number in 1..=16 {
        let request = FailRequest { code: number, ..Default::default() };
        assert_eq!(Host::new().command(Fixture::fail, request).unwrap_err().code() as u32, number);
    }
}
