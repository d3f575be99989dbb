//! What `kvstore.proto` promises, on the SDK's in-memory host.

use balsa_sdk::testing::Host;
use balsa_sdk::{Bytes, Code, Status};

use crate::compare::Target;
use crate::operation::Operation as Kind;
use crate::operation_response::Response;
use crate::put_request::Condition;
use crate::*;

/// A host and the requests that tests make most.
#[derive(Default)]
struct Store(Host);

impl Store {
    fn put(&mut self, key: &str, value: &str) -> PutResponse {
        self.0.command(Kv::put, put(key, value)).unwrap()
    }

    fn put_all(&mut self, keys: &[&str], value: &str) {
        for key in keys {
            self.put(key, value);
        }
    }

    fn put_if(&mut self, key: &str, value: &str, condition: Condition) -> PutResponse {
        let request = PutRequest { condition: Some(condition), prev_kv: true, ..put(key, value) };
        self.0.command(Kv::put, request).unwrap()
    }

    fn get(&mut self, key: &str) -> Option<KeyValue> {
        self.0.query(Kv::get, GetRequest { key: bytes(key) }).unwrap().kv
    }

    fn value(&mut self, key: &str) -> Option<String> {
        self.get(key).map(|kv| text(&kv.value))
    }

    fn list(&mut self, request: ListRequest) -> ListResponse {
        self.0.query(Kv::list, request).unwrap()
    }

    fn keys(&mut self, request: ListRequest) -> Vec<String> {
        self.list(request).kvs.iter().map(|kv| text(&kv.key)).collect()
    }

    fn txn(&mut self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.0.command(Kv::txn, request)
    }

    /// `key-0000` and so on.
    fn fill(&mut self, count: usize) {
        for number in 0..count {
            self.put(&format!("key-{number:05}"), "v");
        }
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..Default::default() }
}

fn compare(key: &str, operator: Operator, target: Target) -> Compare {
    Compare { key: bytes(key), operator: operator.into(), target: Some(target) }
}

fn operation(kind: Kind) -> Operation {
    Operation { operation: Some(kind) }
}

fn delete_range(prefix: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { prefix: bytes(prefix), ..Default::default() }
}

fn prefix(prefix: &str) -> ListRequest {
    ListRequest { prefix: bytes(prefix), ..Default::default() }
}

// --- Put and Get

#[test]
fn the_first_put_creates_version_1_at_its_own_index() {
    let mut store = Store::default();
    store.0.set_index(41);
    let response = store.put("a", "1");
    assert_eq!(response, PutResponse { succeeded: true, version: 1, create_index: 42, mod_index: 42, prev_kv: None });
    let kv = KeyValue { key: bytes("a"), value: bytes("1"), version: 1, create_index: 42, mod_index: 42 };
    assert_eq!(store.get("a"), Some(kv));
}

#[test]
fn a_second_put_counts_the_version_and_keeps_the_creation() {
    let mut store = Store::default();
    store.put("a", "1");
    store.put("b", "1");
    let response = store.put("a", "2");
    assert_eq!((response.version, response.create_index, response.mod_index), (2, 1, 3));
    assert_eq!(store.value("a").as_deref(), Some("2"));
}

#[test]
fn prev_kv_is_what_was_there_before() {
    let mut store = Store::default();
    let ask = |value| PutRequest { prev_kv: true, ..put("a", value) };
    assert_eq!(store.0.command(Kv::put, ask("1")).unwrap().prev_kv, None);
    let prev = store.0.command(Kv::put, ask("2")).unwrap().prev_kv.unwrap();
    assert_eq!((text(&prev.key), text(&prev.value), prev.version), ("a".into(), "1".into(), 1));
}

#[test]
fn a_key_that_does_not_exist_is_not_an_error() {
    assert_eq!(Store::default().get("a"), None);
}

#[test]
fn empty_values_exist() {
    let mut store = Store::default();
    store.put("a", "");
    assert_eq!(store.value("a").as_deref(), Some(""));
}

#[test]
fn a_key_starts_over_after_a_delete() {
    let mut store = Store::default();
    store.put("a", "1");
    store.put("a", "2");
    store.0.command(Kv::delete, DeleteRequest { key: bytes("a"), prev_kv: false }).unwrap();
    let response = store.put("a", "3");
    assert_eq!((response.version, response.create_index), (1, 4));
}

#[test]
fn a_row_is_a_layout_byte_three_varints_and_the_value() {
    let mut store = Store::default();
    store.0.set_index(299);
    store.put("a", "1");
    store.put("a", "2");
    assert_eq!(store.0.dump(), "ka = \\x01\\x02\\xac\\x02\\x012\n");
}

#[test]
fn a_row_of_an_unknown_layout_is_data_loss() {
    let mut store = Store::default();
    store.0.state_mut().insert(b"ka".to_vec(), b"\x09what".to_vec());
    let status = store.0.query(Kv::get, GetRequest { key: bytes("a") }).unwrap_err();
    assert_eq!(status.code(), Code::DataLoss);
}

// --- Conditions

#[test]
fn if_absent_puts_once() {
    let mut store = Store::default();
    assert!(store.put_if("a", "1", Condition::IfAbsent(true)).succeeded);
    let second = store.put_if("a", "2", Condition::IfAbsent(true));
    assert_eq!((second.succeeded, second.version, second.mod_index), (false, 1, 1));
    assert_eq!(text(&second.prev_kv.unwrap().value), "1", "what is in the way");
    assert_eq!(store.value("a").as_deref(), Some("1"));
}

#[test]
fn if_absent_false_replaces_only() {
    let mut store = Store::default();
    assert!(!store.put_if("a", "1", Condition::IfAbsent(false)).succeeded);
    assert_eq!(store.get("a"), None);
    store.put("a", "1");
    assert!(store.put_if("a", "2", Condition::IfAbsent(false)).succeeded);
}

#[test]
fn if_value_compares_the_whole_value() {
    let mut store = Store::default();
    assert!(!store.put_if("a", "x", Condition::IfValue(bytes(""))).succeeded, "absent is not empty");
    store.put("a", "12");
    assert!(!store.put_if("a", "x", Condition::IfValue(bytes("1"))).succeeded);
    assert!(store.put_if("a", "x", Condition::IfValue(bytes("12"))).succeeded);
}

#[test]
fn if_version_0_means_absent() {
    let mut store = Store::default();
    assert!(!store.put_if("a", "1", Condition::IfVersion(1)).succeeded);
    assert!(store.put_if("a", "1", Condition::IfVersion(0)).succeeded);
    assert!(!store.put_if("a", "2", Condition::IfVersion(0)).succeeded);
    assert!(store.put_if("a", "2", Condition::IfVersion(1)).succeeded);
}

#[test]
fn if_mod_index_does_not_come_back_after_a_delete() {
    let mut store = Store::default();
    let first = store.put("a", "1").mod_index;
    store.0.command(Kv::delete, DeleteRequest { key: bytes("a"), prev_kv: false }).unwrap();
    store.put("a", "1");
    assert!(!store.put_if("a", "2", Condition::IfModIndex(first)).succeeded);
    assert!(store.put_if("a", "2", Condition::IfModIndex(3)).succeeded);
}

// --- Delete

#[test]
fn delete_says_whether_and_what() {
    let mut store = Store::default();
    store.put("a", "1");
    let request = DeleteRequest { key: bytes("a"), prev_kv: true };
    let response = store.0.command(Kv::delete, request.clone()).unwrap();
    assert_eq!((response.deleted, text(&response.prev_kv.unwrap().value)), (true, "1".into()));
    assert_eq!(store.0.command(Kv::delete, request).unwrap(), DeleteResponse::default());
}

#[test]
fn delete_range_takes_a_prefix_and_nothing_beside_it() {
    let mut store = Store::default();
    store.put_all(&["a", "b/1", "b/2", "b0", "c"], "v");
    let response = store.0.command(Kv::delete_range, delete_range("b/")).unwrap();
    assert_eq!(response, DeleteRangeResponse { deleted: 2, more: false });
    assert_eq!(store.keys(prefix("")), ["a", "b0", "c"]);
}

#[test]
fn delete_range_of_everything_must_be_meant() {
    let mut store = Store::default();
    store.put("a", "1");
    let status = store.0.command(Kv::delete_range, delete_range("")).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let all = DeleteRangeRequest { all: true, ..Default::default() };
    assert_eq!(store.0.command(Kv::delete_range, all).unwrap().deleted, 1);
}

#[test]
fn delete_range_does_10_000_in_one_step_and_says_that_there_are_more() {
    let mut store = Store::default();
    store.fill(10_003);
    let first = store.0.command(Kv::delete_range, delete_range("key-")).unwrap();
    assert_eq!(first, DeleteRangeResponse { deleted: 10_000, more: true });
    let second = store.0.command(Kv::delete_range, delete_range("key-")).unwrap();
    assert_eq!(second, DeleteRangeResponse { deleted: 3, more: false });
}

// --- List and Count

#[test]
fn list_narrows_by_prefix_start_and_end_together() {
    let mut store = Store::default();
    store.put_all(&["a", "b1", "b2", "b3", "c"], "v");
    assert_eq!(store.keys(prefix("")), ["a", "b1", "b2", "b3", "c"]);
    assert_eq!(store.keys(prefix("b")), ["b1", "b2", "b3"]);
    let from_b2 = ListRequest { start: bytes("b2"), ..prefix("") };
    assert_eq!(store.keys(from_b2.clone()), ["b2", "b3", "c"]);
    assert_eq!(store.keys(ListRequest { prefix: bytes("b"), ..from_b2.clone() }), ["b2", "b3"]);
    assert_eq!(store.keys(ListRequest { end: bytes("b3"), ..from_b2 }), ["b2"]);
    assert_eq!(store.keys(ListRequest { end: bytes("b2"), reverse: true, ..prefix("b") }), ["b1"]);
}

#[test]
fn an_inside_out_range_is_empty() {
    let mut store = Store::default();
    store.put("b", "v");
    assert!(store.keys(ListRequest { start: bytes("c"), end: bytes("a"), ..Default::default() }).is_empty());
    assert!(store.keys(ListRequest { prefix: bytes("b"), end: bytes("a"), ..Default::default() }).is_empty());
}

#[test]
fn pages_join_without_gap_or_overlap_in_both_directions() {
    let mut store = Store::default();
    store.put_all(&["a", "a\0", "b", "c", "d"], "v");
    for reverse in [false, true] {
        let mut request = ListRequest { limit: 2, reverse, ..Default::default() };
        let mut seen = Vec::new();
        loop {
            let page = store.list(request.clone());
            seen.extend(page.kvs.iter().map(|kv| text(&kv.key)));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        if reverse {
            seen.reverse();
        }
        assert_eq!(seen, ["a", "a\0", "b", "c", "d"]);
    }
}

#[test]
fn the_last_page_has_no_token_even_if_it_is_full() {
    let mut store = Store::default();
    store.put_all(&["a", "b"], "v");
    assert!(store.list(ListRequest { limit: 2, ..Default::default() }).next_page_token.is_empty());
}

#[test]
fn a_token_of_another_range_or_direction_is_refused() {
    let mut store = Store::default();
    store.put_all(&["a1", "a2", "b1"], "v");
    let page_token = store.list(ListRequest { limit: 1, ..prefix("a") }).next_page_token;
    for other in [prefix("b"), ListRequest { reverse: true, ..prefix("a") }] {
        let request = ListRequest { page_token: page_token.clone(), ..other };
        assert_eq!(store.0.query(Kv::list, request).unwrap_err().code(), Code::InvalidArgument);
    }
}

#[test]
fn keys_only_sets_the_key_alone() {
    let mut store = Store::default();
    store.put("a", "1");
    let page = store.list(ListRequest { keys_only: true, ..Default::default() });
    assert_eq!(page.kvs, [KeyValue { key: bytes("a"), ..Default::default() }]);
}

#[test]
fn a_page_has_10_000_keys_at_most() {
    let mut store = Store::default();
    store.fill(10_001);
    let page = store.list(ListRequest { limit: 20_000, ..Default::default() });
    assert_eq!(page.kvs.len(), 10_000);
    let rest = store.list(ListRequest { page_token: page.next_page_token, ..Default::default() });
    assert_eq!(rest.kvs.len(), 1);
}

#[test]
fn a_page_ends_before_it_is_larger_than_a_client_takes() {
    let mut store = Store::default();
    let large = "x".repeat(1024 * 1024);
    store.put_all(&["a", "b", "c", "d", "e"], &large);
    let first = store.list(ListRequest::default());
    assert_eq!(first.kvs.len(), 3, "3 MiB and no room for a fourth");
    let second = store.list(ListRequest { page_token: first.next_page_token, ..Default::default() });
    assert_eq!(second.kvs.len(), 2);
    assert!(second.next_page_token.is_empty());
}

#[test]
fn count_goes_on_where_it_stopped() {
    let mut store = Store::default();
    store.fill(300);
    store.put("other", "v");
    let request = CountRequest { prefix: bytes("key-"), ..Default::default() };
    let response = store.0.query(Kv::count, request).unwrap();
    assert_eq!(response, CountResponse { count: 300, ..Default::default() });

    let rows = (0..100_001).map(|number| (format!("kmany-{number:06}").into_bytes(), b"\x01\x01\x01\0".to_vec()));
    store.0.state_mut().extend(rows);
    let mut request = CountRequest { prefix: bytes("many-"), ..Default::default() };
    let first = store.0.query(Kv::count, request.clone()).unwrap();
    assert_eq!(first.count, 100_000);
    request.page_token = first.next_page_token;
    assert_eq!(store.0.query(Kv::count, request).unwrap(), CountResponse { count: 1, ..Default::default() });
}

// --- Txn

#[test]
fn a_transaction_without_comparisons_does_its_success_branch_in_order() {
    let mut store = Store::default();
    let success = vec![
        operation(Kind::Put(put("a", "1"))),
        operation(Kind::Get(GetRequest { key: bytes("a") })),
        operation(Kind::Delete(DeleteRequest { key: bytes("a"), prev_kv: false })),
        operation(Kind::List(ListRequest::default())),
    ];
    let response = store.txn(TxnRequest { success, ..Default::default() }).unwrap();
    assert!(response.succeeded);
    let responses: Vec<_> = response.responses.into_iter().map(|response| response.response.unwrap()).collect();
    let [Response::Put(put), Response::Get(get), Response::Delete(delete), Response::List(list)] = &responses[..]
    else {
        panic!("{responses:?}");
    };
    assert_eq!((put.version, get.kv.as_ref().unwrap().mod_index, delete.deleted), (1, 1, true));
    assert!(list.kvs.is_empty());
}

#[test]
fn one_comparison_that_does_not_hold_chooses_failure() {
    let mut store = Store::default();
    store.put("a", "1");
    let compare = vec![
        compare("a", Operator::Equal, Target::Value(bytes("1"))),
        compare("a", Operator::Greater, Target::Version(1)),
    ];
    let success = vec![operation(Kind::Put(put("a", "success")))];
    let failure = vec![operation(Kind::Put(put("a", "failure")))];
    let response = store.txn(TxnRequest { compare, success, failure }).unwrap();
    assert!(!response.succeeded);
    assert_eq!(store.value("a").as_deref(), Some("failure"));
}

#[test]
fn comparisons_put_the_key_on_the_left() {
    let mut store = Store::default();
    store.put_all(&["a", "a", "a"], "3");
    let mut holds = |operator, target| {
        let compare = vec![compare("a", operator, target)];
        store.txn(TxnRequest { compare, ..Default::default() }).unwrap().succeeded
    };
    assert!(holds(Operator::Greater, Target::Version(2)));
    assert!(holds(Operator::Less, Target::CreateIndex(2)));
    assert!(holds(Operator::NotEqual, Target::ModIndex(1)));
    assert!(holds(Operator::Greater, Target::Value(bytes("29"))));
    assert!(!holds(Operator::Less, Target::Value(bytes("3"))));
}

#[test]
fn a_key_that_does_not_exist_has_version_0_and_no_value() {
    let mut store = Store::default();
    let mut holds = |operator, target| {
        let compare = vec![compare("a", operator, target)];
        store.txn(TxnRequest { compare, ..Default::default() }).unwrap().succeeded
    };
    assert!(holds(Operator::Equal, Target::Version(0)));
    assert!(holds(Operator::Equal, Target::ModIndex(0)));
    assert!(!holds(Operator::Equal, Target::Value(Bytes::new())));
    assert!(!holds(Operator::NotEqual, Target::Value(bytes("x"))), "as in etcd");
}

#[test]
fn an_operation_that_is_wrong_undoes_those_before_it() {
    let mut store = Store::default();
    let success = vec![operation(Kind::Put(put("a", "1"))), operation(Kind::Put(put("", "1")))];
    let status = store.txn(TxnRequest { success, ..Default::default() }).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(store.0.dump(), "");
}

#[test]
fn parts_left_out_are_refused() {
    let mut store = Store::default();
    let no_target =
        TxnRequest { compare: vec![Compare { key: bytes("a"), ..Default::default() }], ..Default::default() };
    let no_operation = TxnRequest { success: vec![Operation::default()], ..Default::default() };
    let no_operator = Compare { operator: 9, ..compare("a", Operator::Equal, Target::Version(0)) };
    let no_operator = TxnRequest { compare: vec![no_operator], ..Default::default() };
    for request in [no_target, no_operation, no_operator] {
        assert_eq!(store.txn(request).unwrap_err().code(), Code::InvalidArgument);
    }
}

#[test]
fn more_than_128_operations_are_refused() {
    let mut store = Store::default();
    let success = vec![operation(Kind::Put(put("a", "1"))); 128];
    let mut request = TxnRequest { success, ..Default::default() };
    assert_eq!(store.txn(request.clone()).unwrap().responses.len(), 128);
    assert_eq!(store.get("a").unwrap().version, 128);
    request.success.push(operation(Kind::Put(put("a", "1"))));
    assert_eq!(store.txn(request).unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn responses_that_do_not_fit_together_are_refused_as_a_whole() {
    let mut store = Store::default();
    store.put("a", &"x".repeat(1024 * 1024));
    let get = operation(Kind::Get(GetRequest { key: bytes("a") }));
    let success = vec![operation(Kind::Put(put("b", "1"))), get.clone(), get.clone(), get.clone(), get];
    let status = store.txn(TxnRequest { success, ..Default::default() }).unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(store.get("b"), None);
}

#[test]
fn a_list_in_a_transaction_takes_the_room_that_is_left() {
    let mut store = Store::default();
    let large = "x".repeat(1024 * 1024);
    store.put_all(&["a", "b", "c", "d"], &large);
    let get = Kind::Get(GetRequest { key: bytes("a") });
    let success = vec![operation(get), operation(Kind::List(ListRequest::default()))];
    let response = store.txn(TxnRequest { success, ..Default::default() }).unwrap();
    let Some(Response::List(list)) = &response.responses[1].response else { panic!("{response:?}") };
    assert_eq!(list.kvs.len(), 2);
    assert!(!list.next_page_token.is_empty());
}

#[test]
fn a_transaction_deletes_ranges_wholly_or_not_at_all() {
    let mut store = Store::default();
    store.fill(10_001);
    let all = TxnRequest { success: vec![operation(Kind::DeleteRange(delete_range("key-")))], ..Default::default() };
    assert_eq!(store.txn(all.clone()).unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(store.0.state().len(), 10_001);
    store.0.command(Kv::delete, DeleteRequest { key: bytes("key-00000"), prev_kv: false }).unwrap();
    let response = store.txn(all).unwrap();
    let expected = DeleteRangeResponse { deleted: 10_000, more: false };
    assert_eq!(response.responses[0].response, Some(Response::DeleteRange(expected)));
}

// --- Limits

#[test]
fn keys_have_1_byte_to_64_kib() {
    let mut store = Store::default();
    let longest = "k".repeat(64 * 1024);
    store.put(&longest, "v");
    assert_eq!(store.value(&longest).as_deref(), Some("v"));
    for key in ["", &format!("{longest}k")] {
        let status = store.0.command(Kv::put, put(key, "v")).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(store.0.query(Kv::get, GetRequest { key: bytes(key) }).unwrap_err().code(), Code::InvalidArgument);
    }
}

#[test]
fn bounds_of_ranges_are_no_longer_than_keys() {
    let mut store = Store::default();
    let longest = "k".repeat(64 * 1024);
    store.put(&longest, "v");
    assert_eq!(store.keys(ListRequest { start: bytes(&longest), ..prefix(&longest) }), std::slice::from_ref(&longest));
    let request = ListRequest { end: bytes(&(longest + "k")), ..Default::default() };
    assert_eq!(store.0.query(Kv::list, request).unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn values_have_up_to_1_mib() {
    let mut store = Store::default();
    let longest = "v".repeat(1024 * 1024);
    store.put("a", &longest);
    assert_eq!(store.value("a"), Some(longest.clone()));
    let status = store.0.command(Kv::put, put("a", &format!("{longest}v"))).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[test]
fn the_longest_keys_are_listed_with_a_token_that_fits() {
    let mut store = Store::default();
    for number in 0..80 {
        store.put(&format!("{number:02}{}", "k".repeat(64 * 1024 - 2)), "v");
    }
    let first = store.list(ListRequest { keys_only: true, ..Default::default() });
    let rest = store.list(ListRequest { keys_only: true, page_token: first.next_page_token, ..Default::default() });
    assert_eq!(first.kvs.len() + rest.kvs.len(), 80);
}

#[test]
fn a_request_that_does_not_decode_is_an_invalid_argument() {
    let mut host = Host::new();
    let status = host.call::<KvStoreServer<Kv>>("/kvstore.v1.KvStore/Put", b"\x0a\x7f").unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("does not decode"), "{status}");
}

#[test]
fn reads_are_queries_and_writes_are_commands() {
    use balsa_sdk::{Kind, Service};
    let queries = KvStoreServer::<Kv>::METHODS.iter().filter(|method| method.kind == Kind::Query);
    let queries: Vec<_> = queries.map(|method| method.path).collect();
    assert_eq!(queries, ["Get", "List", "Count"].map(|name| format!("/kvstore.v1.KvStore/{name}")));
}
