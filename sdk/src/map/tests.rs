//! Maps and items, on the in-memory host.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::prelude::*;
use prost::bytes::Bytes;

use crate::limits::{STORED_BYTES_MAX, STORED_KEY_BYTES_MAX};
use crate::testing::Host;
use crate::{Code, Context, Entries, Item, Map, Start, Status, Upgrade, Value, Versioned, View, page_limit};

type Pair = (String, u8);

const PAIRS: Map<Pair, u64> = Map::new("pairs");
const TEXTS: Map<String, String> = Map::new("texts");
const TOTAL: Item<u64> = Item::new("total");

fn host(keys: &[(&str, u8)]) -> Host {
    let mut host = Host::new();
    let insert = |ctx: &mut Context| {
        keys.iter().zip(1..).try_for_each(|((text, number), value)| PAIRS.insert(ctx, &(*text, *number), &value))
    };
    host.change(insert).unwrap();
    host
}

fn read<T>(host: &mut Host, query: impl FnOnce(&View) -> Result<T, Status>) -> T {
    host.read(query).unwrap()
}

/// The values that a query finds.
fn values(host: &mut Host, entries: impl FnOnce(&View) -> Entries<Pair, u64>) -> Vec<u64> {
    read(host, |ctx| entries(ctx).map(|entry| entry.map(|(_, value)| value)).collect())
}

fn key(text: &str, number: u8) -> Pair {
    (text.to_owned(), number)
}

#[test]
fn an_item_is_what_was_last_set() {
    let mut host = Host::new();
    assert_eq!(
        read(&mut host, |ctx| Ok((TOTAL.get(ctx)?, TOTAL.get_or_default(ctx)?, TOTAL.is_set(ctx)))),
        (None, 0, false)
    );
    host.change(|ctx| TOTAL.set(ctx, &0)).unwrap();
    assert_eq!(read(&mut host, |ctx| Ok((TOTAL.get(ctx)?, TOTAL.is_set(ctx)))), (Some(0), true));
    assert_eq!(host.change(|ctx| Ok((TOTAL.delete(ctx), TOTAL.delete(ctx)))), Ok((true, false)));
}

#[test]
fn an_entry_is_stored_under_the_documented_key() {
    let mut host = host(&[("ab", 7)]);
    host.change(|ctx| TOTAL.set(ctx, &1)).unwrap();
    assert_eq!(host.dump(), "pairs\\x01ab\\x00\\x07 = \\x08\\x01\ntotal\\x00 = \\x08\\x01\n");
    assert_eq!(PAIRS.stored_key(&("ab", 7)), b"pairs\x01ab\0\x07");
    assert_eq!(TOTAL.stored_key(), b"total\0");
}

#[test]
fn neighbours_with_similar_names_are_not_seen() {
    let mut host = Host::new();
    let names = [Map::<u8, u64>::new("a"), Map::new("aa"), Map::new("a.a"), Map::new("A")];
    let write = |ctx: &mut Context| {
        Item::<u64>::new("a").set(ctx, &9)?;
        names.iter().zip(0..).try_for_each(|(map, value)| map.insert(ctx, &0, &value))
    };
    host.change(write).unwrap();
    let found = |map: &Map<u8, u64>, ctx: &View| map.range(ctx, ..).collect::<Result<Vec<_>, _>>();
    for (map, value) in names.iter().zip(0..) {
        assert_eq!(read(&mut host, |ctx| found(map, ctx)), [(0, value)]);
    }
    host.change(|ctx| Ok(names[0].remove_range(ctx, ..))).unwrap();
    assert_eq!(host.state().len(), 4);
    assert_eq!(read(&mut host, |ctx| Ok((names[0].is_empty(ctx), names[1].is_empty(ctx)))), (true, false));
}

#[test]
fn entries_are_got_replaced_taken_and_removed() {
    let mut host = host(&[("a", 1)]);
    let steps = |ctx: &mut Context| {
        assert_eq!((PAIRS.get(ctx, &("a", 1))?, PAIRS.get(ctx, &("a", 2))?), (Some(1), None));
        assert!(PAIRS.contains(ctx, &("a", 1)) && !PAIRS.contains(ctx, &("", 1)));
        PAIRS.insert(ctx, &key("a", 1), &5)?;
        assert_eq!(PAIRS.get_or_default(ctx, &("a", 1))?, 5);
        assert_eq!((PAIRS.take(ctx, &("a", 1))?, PAIRS.take(ctx, &("a", 1))?), (Some(5), None));
        PAIRS.insert(ctx, &("b", 1), &6)?;
        assert_eq!((PAIRS.remove(ctx, &("b", 1)), PAIRS.remove(ctx, &("b", 1))), (true, false));
        Ok(())
    };
    host.change(steps).unwrap();
    assert!(host.state().is_empty());
}

#[test]
fn first_last_prefixes_and_limits() {
    let mut host = host(&[("a", 1), ("a", 2), ("ab", 0), ("b", 9)]);
    let ends = read(&mut host, |ctx| Ok((PAIRS.first(ctx)?, PAIRS.last(ctx)?)));
    assert_eq!(ends, (Some((key("a", 1), 1)), Some((key("b", 9), 4))));
    assert_eq!(values(&mut host, |ctx| PAIRS.prefix(ctx, &("a",))), [1, 2]);
    assert_eq!(values(&mut host, |ctx| PAIRS.prefix(ctx, &(Start("a"),))), [1, 2, 3]);
    assert_eq!(values(&mut host, |ctx| PAIRS.prefix(ctx, &("a",)).reverse().limit(1)), [2]);
    assert_eq!(values(&mut host, |ctx| PAIRS.prefix(ctx, &("",))), []);
    let keys = read(&mut host, |ctx| PAIRS.range(ctx, key("a", 2)..).keys().collect::<Result<Vec<_>, _>>());
    assert_eq!(keys, [key("a", 2), key("ab", 0), key("b", 9)]);
    let empty = read(&mut Host::new(), |ctx| Ok((PAIRS.first(ctx)?, PAIRS.last(ctx)?)));
    assert_eq!(empty, (None, None));
}

#[test]
fn texts_are_found_by_how_they_start() {
    let mut host = Host::new();
    let names = ["user/1", "user/2", "users", "user"];
    host.change(|ctx| names.iter().try_for_each(|name| TEXTS.insert(ctx, *name, &name.to_uppercase()))).unwrap();
    let found = |ctx: &View| TEXTS.prefix(ctx, &Start("user/")).keys().collect::<Result<Vec<_>, _>>();
    assert_eq!(read(&mut host, found), ["user/1", "user/2"]);
}

#[test]
fn pages_join_in_both_directions_and_their_tokens_are_checked() {
    let mut host = host(&[("a", 1), ("a", 2), ("a", 3), ("b", 1)]);
    for (reverse, expected) in [(false, [vec![1, 2], vec![3]]), (true, [vec![3, 2], vec![1]])] {
        let mut token = Bytes::new();
        let mut pages = Vec::new();
        for _ in 0..2 {
            let of_a = |ctx: &View| {
                let entries = PAIRS.prefix(ctx, &("a",));
                if reverse { entries.reverse() } else { entries }.page(ctx, 2, &token)
            };
            let page = read(&mut host, of_a);
            pages.push(page.entries.into_iter().map(|(_, value)| value).collect::<Vec<_>>());
            token = page.next;
        }
        assert_eq!(pages, expected);
        assert!(token.is_empty());
    }
    let foreign = host.read(|ctx| PAIRS.prefix(ctx, &("a",)).page(ctx, 2, b"b\0\x01")).unwrap_err();
    assert_eq!(foreign, Status::invalid_argument("the page token is not of this range"));
}

#[test]
fn a_client_that_does_not_say_how_many_gets_as_many_as_there_are_to_have() {
    let limits = [0, 1, 999, 1000, 1001, u32::MAX].map(|asked| page_limit(asked, 1000));
    assert_eq!(limits, [1000, 1, 999, 1000, 1000, 1000]);
}

#[test]
fn what_does_not_decode_is_named() {
    let mut host = host(&[("a", 1)]);
    host.state_mut().insert(b"pairs\x01b\0\x02".to_vec(), b"\xff".to_vec());
    host.state_mut().insert(b"pairs\x01c\0".to_vec(), vec![]);
    host.state_mut().insert(b"total\0".to_vec(), b"\x08".to_vec());
    let value = host.read(|ctx| PAIRS.get(ctx, &("b", 2))).unwrap_err();
    assert_eq!(value.code(), Code::DataLoss);
    assert!(
        value.message().starts_with("map `pairs`, key `b\\x00\\x02`: the stored value does not decode: "),
        "{value}"
    );
    let entries = read(&mut host, |ctx| Ok(PAIRS.range(ctx, ..).collect::<Vec<_>>()));
    assert_eq!((entries.len(), &entries[0], &entries[1]), (3, &Ok((key("a", 1), 1)), &Err(value)));
    let key = entries[2].clone().unwrap_err();
    assert_eq!(key.to_string(), "DataLoss: map `pairs`, key `c\\x00`: the stored key is not one of the map's type");
    let item = host.read(|ctx| TOTAL.get(ctx)).unwrap_err();
    assert!(item.message().starts_with("item `total`: the stored value does not decode: "), "{item}");
}

#[test]
fn what_is_too_long_is_a_status_and_bounds_are_not() {
    let mut host = host(&[("a", 1)]);
    let long = "x".repeat(STORED_KEY_BYTES_MAX);
    let error = host.change(|ctx| TEXTS.insert(ctx, &long, &String::new())).unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().ends_with("a key of 65607 bytes; 65600 are stored"), "{error}");
    let error = host.change(|ctx| TEXTS.insert(ctx, "a", &"x".repeat(STORED_BYTES_MAX))).unwrap_err();
    assert!(error.message().starts_with("map `texts`, key `a\\x00`: a value of "), "{error}");
    assert_eq!(host.change(|ctx| Ok(TEXTS.remove(ctx, &long))), Ok(false));
    let bounds = (Bound::Excluded((String::new(), 0)), Bound::Included((long, 0)));
    assert_eq!(values(&mut host, |ctx| PAIRS.range(ctx, bounds)), [1]);
}

#[test]
fn a_loop_may_delete_what_it_reads() {
    let mut host = host(&[("a", 1), ("a", 2), ("b", 1)]);
    let empty = |ctx: &mut Context| {
        for key in PAIRS.range(ctx, ..).page_bytes(1).keys() {
            PAIRS.remove(ctx, &key?);
        }
        Ok(())
    };
    host.change(empty).unwrap();
    assert!(host.state().is_empty());
}

/// Doubled since version 0.
#[derive(Clone, PartialEq, prost::Message)]
struct Size {
    #[prost(uint64, tag = "1")]
    bytes: u64,
}

impl Upgrade for Size {
    const VERSION: u32 = 1;

    fn upgrade(_: u32, stored: Bytes) -> Result<Self, Status> {
        Self::from_stored(stored).map(|old| Self { bytes: old.bytes * 2 })
    }
}

#[test]
fn old_values_are_rewritten_a_part_at_a_time() {
    const OLD: Map<u8, Size> = Map::new("sizes");
    const NEW: Map<u8, Versioned<Size>> = Map::new("sizes");
    let mut host = Host::new();
    host.change(|ctx| (1..=5).try_for_each(|n| OLD.insert(ctx, &n, &Size { bytes: n.into() }))).unwrap();
    host.change(|ctx| NEW.insert(ctx, &2, &Size { bytes: 20 }.into())).unwrap();
    let expected = [2, 20, 6, 8, 10];
    let sizes = |ctx: &View| NEW.range(ctx, ..).map(|entry| entry.map(|(_, size)| size.bytes)).collect();
    let found: Vec<_> = read(&mut host, sizes);
    assert_eq!(found, expected);

    let (mut token, mut rewritten) = (Bytes::new(), Vec::new());
    for _ in 0..3 {
        let done = host.change(|ctx| NEW.upgrade(ctx, 2, &token)).unwrap();
        rewritten.push(done.rewritten);
        token = done.next;
    }
    assert_eq!((rewritten, token.is_empty()), (vec![1, 2, 1], true));
    assert_eq!(read::<Vec<_>>(&mut host, sizes), expected);
    let plain = |ctx: &View| OLD.range(ctx, ..).map(|entry| entry.map(|(_, size)| size.bytes)).collect();
    assert_eq!(read::<Vec<_>>(&mut host, plain), expected, "nothing is left to do when they are read");
}

#[test]
#[should_panic(expected = "before the first entry is read")]
fn turning_round_half_way_is_a_mistake() {
    let turn = |ctx: &View| {
        let mut entries = PAIRS.range(ctx, ..);
        entries.next();
        entries.reverse().next().transpose()
    };
    let _ = host(&[("a", 1)]).read(turn);
}

#[test]
#[should_panic(expected = "ASCII letters")]
fn a_name_with_a_slash_is_refused() {
    let _ = Item::<u64>::new("a/b");
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!['\0', '\u{1}', 'a', 'ÿ']), 0..3)
        .prop_map(|chars| chars.into_iter().collect())
}

fn bound() -> impl Strategy<Value = Bound<Pair>> {
    prop_oneof![
        Just(Bound::Unbounded),
        (text(), 0_u8..3).prop_map(Bound::Included),
        (text(), 0_u8..3).prop_map(Bound::Excluded)
    ]
}

/// `BTreeMap` panics where there is nothing to give.
fn is_empty(start: &Bound<Pair>, end: &Bound<Pair>) -> bool {
    match (start, end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => start >= end,
    }
}

proptest! {
    #[test]
    fn a_map_is_what_an_ordered_map_in_memory_is(
        entries in prop::collection::btree_map((text(), 0_u8..3), any::<u64>(), 0..12),
        start in bound(),
        end in bound(),
        page_bytes in 1_usize..64,
    ) {
        let mut host = Host::new();
        host.change(|ctx| entries.iter().try_for_each(|(key, value)| PAIRS.insert(ctx, key, value))).unwrap();
        let expected: Vec<_> = if is_empty(&start, &end) {
            Vec::new()
        } else {
            entries.range((start.clone(), end.clone())).map(|(key, value)| (key.clone(), *value)).collect()
        };
        let bounds = (start, end);
        let found = |ctx: &View| PAIRS.range(ctx, bounds.clone()).page_bytes(page_bytes).collect::<Result<Vec<_>, _>>();
        prop_assert_eq!(&read(&mut host, found), &expected);
        let found = |ctx: &View| PAIRS.range(ctx, bounds.clone()).reverse().limit(2).collect::<Result<Vec<_>, _>>();
        prop_assert_eq!(read(&mut host, found), expected.iter().rev().take(2).cloned().collect::<Vec<_>>());
        let removed = host.change(|ctx| Ok(PAIRS.remove_range(ctx, bounds.clone()))).unwrap();
        prop_assert_eq!(removed, expected.len() as u64);
        let left: BTreeMap<_, _> = read(&mut host, |ctx| PAIRS.range(ctx, ..).collect());
        prop_assert!(left.iter().all(|(key, _)| expected.iter().all(|(removed, _)| removed != key)));
        prop_assert_eq!(left.len() + expected.len(), entries.len());
    }
}
