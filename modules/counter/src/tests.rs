//! What `counter.proto` promises, on the SDK's in-memory host.

use balsa_sdk::testing::Host;
use balsa_sdk::{Bytes, Code};

use super::*;

fn add(host: &mut Host, name: &str, amount: i64) -> Result<i64, Status> {
    host.command(Counters::add, AddRequest { name: name.into(), amount }).map(|response| response.value)
}

fn get(host: &mut Host, name: &str) -> i64 {
    host.query(Counters::get, GetRequest { name: name.into() }).unwrap().value
}

fn list(host: &mut Host, prefix: &str, limit: u32, page_token: Bytes) -> (Vec<(String, i64)>, Bytes) {
    let response = host.query(Counters::list, ListRequest { prefix: prefix.into(), limit, page_token }).unwrap();
    (response.counters.into_iter().map(|counter| (counter.name, counter.value)).collect(), response.next_page_token)
}

#[test]
fn a_counter_begins_at_0_and_adds_up() {
    let mut host = Host::new();
    assert_eq!(get(&mut host, "visits"), 0);
    assert_eq!(add(&mut host, "visits", 5).unwrap(), 5);
    assert_eq!(add(&mut host, "visits", -7).unwrap(), -2);
    assert_eq!((get(&mut host, "visits"), get(&mut host, "errors")), (-2, 0));
}

#[test]
fn a_removed_counter_is_0_again_and_off_the_list() {
    let mut host = Host::new();
    add(&mut host, "visits", 5).unwrap();
    let removed = host.command(Counters::remove, RemoveRequest { name: "visits".into() }).unwrap();
    assert_eq!((removed.value, get(&mut host, "visits")), (5, 0));
    assert!(host.state().is_empty());
}

#[test]
fn a_sum_that_does_not_fit_changes_nothing() {
    let mut host = Host::new();
    add(&mut host, "visits", i64::MAX).unwrap();
    let refused = add(&mut host, "visits", 1).unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    assert_eq!(refused.message(), "9223372036854775807 + 1 does not fit 64 bits");
    assert_eq!(get(&mut host, "visits"), i64::MAX);
}

#[test]
fn a_name_has_1_to_256_bytes() {
    let mut host = Host::new();
    assert_eq!(add(&mut host, "", 1).unwrap_err().message(), "the name is empty");
    assert_eq!(add(&mut host, &"n".repeat(257), 1).unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(add(&mut host, &"n".repeat(256), 1).unwrap(), 1);
}

#[test]
fn a_list_goes_on_where_the_page_before_ended() {
    let mut host = Host::new();
    for name in ["us-1", "eu-2", "eu-3", "eu-1"] {
        add(&mut host, name, 1).unwrap();
    }
    let (first, token) = list(&mut host, "eu-", 2, Bytes::new());
    assert_eq!(first, [("eu-1".into(), 1), ("eu-2".into(), 1)]);
    let (second, token) = list(&mut host, "eu-", 2, token);
    assert_eq!((second, token), (vec![("eu-3".into(), 1)], Bytes::new()));
}

#[test]
fn a_page_token_of_another_list_is_refused() {
    let mut host = Host::new();
    for token in [vec![b'a'; 3], vec![b'p'; 100_000]] {
        let request = ListRequest { prefix: "p".into(), limit: 0, page_token: token.into() };
        assert_eq!(host.query(Counters::list, request).unwrap_err().code(), Code::InvalidArgument);
    }
}

#[test]
fn a_list_of_the_longest_names_has_1000_of_them() {
    let mut host = Host::new();
    for number in 0..1001 {
        // Characters that take two bytes as they are stored.
        add(&mut host, &format!("{number:\u{1}>256}"), i64::MIN).unwrap();
    }
    let (counters, token) = list(&mut host, "", u32::MAX, Bytes::new());
    assert_eq!(counters.len(), 1000);
    assert_eq!(list(&mut host, "", 0, token).0.len(), 1);
}

#[test]
fn the_stored_keys_are_what_the_twin_in_c_expects() {
    let mut host = Host::new();
    add(&mut host, "a\0b", 300).unwrap();
    assert_eq!(host.dump(), "values\\x01a\\x01\\x01b\\x00 = \\x08\\xac\\x02\n");
}
