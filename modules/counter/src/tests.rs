//! What `counter.proto` promises, on the SDK's in-memory host.

use balsa_sdk::Code;
use balsa_sdk::testing::Host;

use super::*;

fn add(host: &mut Host, name: &str, amount: i64) -> Result<i64, Status> {
    host.command(Counters::add, AddRequest { name: name.into(), amount }).map(|response| response.value)
}

fn get(host: &mut Host, name: &str) -> i64 {
    host.query(Counters::get, GetRequest { name: name.into() }).unwrap().value
}

fn list(host: &mut Host, prefix: &str, after: &str, limit: u32) -> (Vec<(String, i64)>, bool) {
    let request = ListRequest { prefix: prefix.into(), after: after.into(), limit };
    let response = host.query(Counters::list, request).unwrap();
    (response.counters.into_iter().map(|counter| (counter.name, counter.value)).collect(), response.more)
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
    for name in ["eu-1", "eu-2", "eu-3", "us-1"] {
        add(&mut host, name, 1).unwrap();
    }
    let (first, more) = list(&mut host, "eu-", "", 2);
    assert_eq!((first, more), (vec![("eu-1".into(), 1), ("eu-2".into(), 1)], true));
    let (second, more) = list(&mut host, "eu-", "eu-2", 2);
    assert_eq!((second, more), (vec![("eu-3".into(), 1)], false));
    assert_eq!(list(&mut host, "", "", 0).0.len(), 4);
}

#[test]
fn a_list_refuses_what_no_name_can_begin_with() {
    let long = "n".repeat(257);
    for (prefix, after) in [(long.clone(), String::new()), (String::new(), long)] {
        let refused = Host::new().query(Counters::list, ListRequest { prefix, after, limit: 0 }).unwrap_err();
        assert_eq!(refused.message(), "a name of 257 bytes: at most 256 are allowed");
    }
}

#[test]
fn a_list_of_the_longest_names_has_1000_of_them() {
    let mut host = Host::new();
    for number in 0..1001 {
        add(&mut host, &format!("{number:0256}"), i64::MIN).unwrap();
    }
    let (counters, more) = list(&mut host, "", "", u32::MAX);
    assert_eq!((counters.len(), more), (1000, true));
}
