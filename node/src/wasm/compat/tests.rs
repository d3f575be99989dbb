//! Pairs of `.proto` files and what is said of them.

use std::path::Path;

use proptest::prelude::*;
use prost_reflect::DescriptorPool;
use prost_types::method_options::IdempotencyLevel;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::{Served, Surface, compare};
use crate::wasm::module::MethodKind;

/// One file in memory, and Google's own.
struct Source(String);

impl FileResolver for Source {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match name {
            "test.proto" => File::from_source(name, &self.0),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

fn pool(source: &str) -> DescriptorPool {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Source(source.to_owned()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file(Path::new("test.proto")).unwrap_or_else(|e| panic!("{e:?}\n{source}"));
    DescriptorPool::decode(&compiler.encode_file_descriptor_set()[..]).unwrap()
}

fn surface(source: &str) -> Surface {
    let pool = pool(source);
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let served = methods.map(|described| {
        let options = described.method_descriptor_proto().options.clone().unwrap_or_default();
        let query = options.idempotency_level() == IdempotencyLevel::NoSideEffects;
        Served { kind: if query { MethodKind::Query } else { MethodKind::Command }, described }
    });
    Surface::new(served)
}

fn said(old: &str, new: &str) -> Vec<String> {
    compare(&surface(old), &surface(new)).iter().map(ToString::to_string).collect()
}

/// What is said of two whole files of package `t`.
#[track_caller]
fn files(old: &str, new: &str, expected: &[&str]) {
    let file = |items: &str| format!("syntax = \"proto3\"; package t; {items}");
    assert_eq!(said(&file(old), &file(new)), expected, "{old} -> {new}");
}

/// What is said of a message `M` that the command `S/Do` takes, with other types beside it.
#[track_caller]
fn messages(old: &str, new: &str, expected: &[&str]) {
    let service = "service S { rpc Do(M) returns (Nothing); } message Nothing {}";
    let expected: Vec<_> = expected.iter().map(|sentence| format!("t.S/Do: {sentence}")).collect();
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    files(&format!("{service} {old}"), &format!("{service} {new}"), &expected);
}

/// The same of the fields of `M`.
#[track_caller]
fn fields(old: &str, new: &str, expected: &[&str]) {
    messages(&format!("message M {{ {old} }}"), &format!("message M {{ {new} }}"), expected);
}

#[test]
fn a_service_or_a_method_that_is_gone() {
    let both =
        "message M {} service S { rpc A(M) returns (M); rpc B(M) returns (M); } service T { rpc C(M) returns (M); }";
    files(both, both, &[]);
    files(
        both,
        "message M {} service S { rpc A(M) returns (M); } service T { rpc C(M) returns (M); }",
        &["t.S/B is removed"],
    );
    files(both, "message M {} service T { rpc C(M) returns (M); }", &["t.S is removed"]);
    files("message M {} service T { rpc C(M) returns (M); }", both, &[]);
}

#[test]
fn a_command_that_became_a_query_and_back() {
    let command = "message M {} service S { rpc A(M) returns (M); }";
    let query = "message M {} service S { rpc A(M) returns (M) { option idempotency_level = NO_SIDE_EFFECTS; } }";
    files(command, query, &["t.S/A was a command and is a query"]);
    files(query, command, &["t.S/A was a query and is a command"]);
    // Both run as commands.
    let idempotent = "message M {} service S { rpc A(M) returns (M) { option idempotency_level = IDEMPOTENT; } }";
    files(command, idempotent, &[]);
}

#[test]
fn one_message_that_became_a_stream_and_back() {
    let one = "message M {} service S { rpc A(M) returns (M) { option idempotency_level = NO_SIDE_EFFECTS; } }";
    let many = "message M {} service S { rpc A(M) returns (stream M) { option idempotency_level = NO_SIDE_EFFECTS; } }";
    files(one, many, &["t.S/A answered with one message and answers with a stream"]);
    files(many, one, &["t.S/A answered with a stream and answers with one message"]);
}

#[test]
fn another_request_or_response() {
    let old = "message M {} message N {} service S { rpc A(M) returns (N); }";
    files(
        old,
        "message M {} message N {} service S { rpc A(N) returns (N); }",
        &["t.S/A: its request was t.M and is t.N"],
    );
    files(
        old,
        "message M {} message N {} service S { rpc A(M) returns (M); }",
        &["t.S/A: its response was t.N and is t.M"],
    );
}

#[test]
fn another_type_of_a_field() {
    fields("int64 amount = 3;", "string amount = 3;", &["field 3 `amount` of t.M was int64 and is string"]);
    fields("int32 a = 1;", "int64 a = 1;", &["field 1 `a` of t.M was int32 and is int64"]);
    fields("bytes a = 1;", "string a = 1;", &["field 1 `a` of t.M was bytes and is string"]);
    let types = "message X {} message Y {} enum E { Z = 0; }";
    let of = |ty: &str| format!("message M {{ {ty} a = 1; }} {types}");
    messages(&of("X"), &of("Y"), &["field 1 `a` of t.M was t.X and is t.Y"]);
    messages(&of("E"), &of("int32"), &["field 1 `a` of t.M was enum t.E and is int32"]);
}

#[test]
fn another_number_or_name_of_a_field() {
    fields("int64 a = 3;", "int64 a = 5;", &["field `a` of t.M had number 3 and has 5"]);
    fields("int64 a = 3;", "int64 sum = 3;", &["field 3 of t.M was called `a` and is called `sum`"]);
    fields("int64 a = 3;", "int64 a = 3 [json_name = \"sum\"];", &["field 3 `a` of t.M was `a` in JSON and is `sum`"]);
    fields("int64 a_b = 3;", "int64 a_b = 3 [json_name = \"aB\"];", &[]);
    // Two that changed places.
    fields(
        "int64 a = 1; int64 b = 2;",
        "int64 b = 1; int64 a = 2;",
        &["field 1 of t.M was called `a` and is called `b`", "field 2 of t.M was called `b` and is called `a`"],
    );
}

#[test]
fn a_field_that_is_gone() {
    let removed = &["field 3 `a` of t.M is removed and not reserved"];
    fields("int64 a = 3;", "", removed);
    fields("int64 a = 3;", "reserved 3;", removed);
    fields("int64 a = 3;", "reserved \"a\";", removed);
    fields("int64 a = 3;", "reserved 2 to 4; reserved \"a\";", &[]);
    fields("reserved 3; reserved \"a\";", "int64 b = 3;", &["field 3 `b` of t.M takes a number that was reserved"]);
    fields("reserved 3; reserved \"a\";", "int64 a = 4;", &["field 4 `a` of t.M takes a name that was reserved"]);
}

#[test]
fn how_often_a_field_is_there() {
    fields("string a = 1;", "repeated string a = 1;", &["field 1 `a` of t.M was string and is repeated string"]);
    fields("repeated M a = 1;", "M a = 1;", &["field 1 `a` of t.M was repeated t.M and is t.M"]);
    fields("optional int64 a = 1;", "int64 a = 1;", &["field 1 `a` of t.M was optional int64 and is int64"]);
    fields("int64 a = 1;", "optional int64 a = 1;", &[]);
    fields("M a = 1;", "optional M a = 1;", &[]);
}

#[test]
fn packed_or_not_is_the_same_to_every_decoder() {
    fields("repeated int64 a = 1;", "repeated int64 a = 1 [packed = false];", &[]);
}

#[test]
fn maps() {
    let of = |ty: &str| format!("message M {{ {ty} a = 1; }} message X {{ int64 b = 1; }} message Y {{}}");
    messages(&of("map<string, X>"), &of("map<string, X>"), &[]);
    messages(
        &of("map<string, X>"),
        &of("map<int64, X>"),
        &["field 1 `a` of t.M was map<string, t.X> and is map<int64, t.X>"],
    );
    messages(
        &of("map<string, X>"),
        &of("map<string, Y>"),
        &["field 1 `a` of t.M was map<string, t.X> and is map<string, t.Y>"],
    );
    messages(
        &of("map<string, X>"),
        &of("repeated X"),
        &["field 1 `a` of t.M was map<string, t.X> and is repeated t.X"],
    );
    let inside = of("map<string, X>").replace("int64 b", "bool b");
    messages(&of("map<string, X>"), &inside, &["field 1 `b` of t.X was int64 and is bool"]);
}

#[test]
fn fields_that_move_between_oneofs() {
    let free = "int64 a = 1; int64 b = 2;";
    let one = "oneof k { int64 a = 1; int64 b = 2; }";
    fields(
        free,
        one,
        &[
            "field 1 `a` of t.M was in no oneof and is in oneof `k`",
            "field 2 `b` of t.M was in no oneof and is in oneof `k`",
        ],
    );
    fields(one, "oneof k { int64 a = 1; } int64 b = 2;", &["field 2 `b` of t.M was in oneof `k` and is in no oneof"]);
    fields(
        one,
        "oneof k { int64 a = 1; } oneof l { int64 b = 2; }",
        &["field 2 `b` of t.M was in oneof `k` and is in oneof `l`"],
    );
    fields(one, "oneof renamed { int64 b = 2; int64 a = 1; }", &[]);
    fields(one, "oneof k { int64 a = 1; int64 b = 2; string more = 3; }", &[]);
    fields(
        "optional int64 a = 1;",
        "oneof k { int64 a = 1; }",
        &["field 1 `a` of t.M was in no oneof and is in oneof `k`"],
    );
}

#[test]
fn values_of_enums() {
    let of = |values: &str| format!("message M {{ E e = 1; }} enum E {{ {values} }}");
    let check = |old: &str, new: &str, expected: &[&str]| messages(&of(old), &of(new), expected);
    check("A = 0; B = 1;", "A = 0; B = 1; C = 2;", &[]);
    check("A = 0; B = 1;", "A = 0;", &["value 1 `B` of t.E is removed and not reserved"]);
    check("A = 0; B = 1;", "A = 0; reserved 1; reserved \"B\";", &[]);
    check("A = 0; B = 1;", "A = 0; B = 2;", &["value `B` of t.E had number 1 and has 2"]);
    check("A = 0; B = 1;", "A = 0; C = 1;", &["value 1 of t.E was called `B` and is called `C`"]);
    check("A = 0; B = 1;", "option allow_alias = true; A = 0; B = 1; C = 1;", &[]);
    check("A = 0; reserved 1;", "A = 0; C = 1;", &["value 1 `C` of t.E takes a number that was reserved"]);
    check("A = 0; reserved \"B\";", "A = 0; B = 1;", &["value 1 `B` of t.E takes a name that was reserved"]);
}

#[test]
fn types_that_are_reached_through_others_once_each() {
    let of = |ty: &str| {
        format!(
            "service S {{ rpc B(M) returns (N); rpc A(N) returns (M); }} \
             message M {{ N n = 1; M again = 2; }} message N {{ repeated M m = 1; Deep d = 2; }} \
             message Deep {{ message Inner {{ {ty} a = 1; }} Inner inner = 1; map<string, E> es = 2; }} \
             enum E {{ Z = 0; }} message Apart {{ {ty} a = 1; }}"
        )
    };
    files(&of("int64"), &of("bool"), &["t.S/A: field 1 `a` of t.Deep.Inner was int64 and is bool"]);
    let fewer = of("int64").replace("Z = 0;", "Y = 0;");
    files(&of("int64"), &fewer, &["t.S/A: value 0 of t.E was called `Z` and is called `Y`"]);
}

#[test]
fn all_that_changed_is_said_in_order() {
    let old = "service S { rpc B(M) returns (M); rpc A(M) returns (M); } message M { int64 a = 2; int64 b = 1; E e = 3; } enum E { Z = 0; Y = 1; }";
    let new = "service S { rpc A(M) returns (M) { option idempotency_level = NO_SIDE_EFFECTS; } } message M { bool x = 1; E e = 3; } enum E { Z = 0; }";
    let expected = [
        "t.S/A was a command and is a query",
        "t.S/B is removed",
        "t.S/A: field 1 `b` of t.M was int64 and is bool",
        "t.S/A: field 1 of t.M was called `b` and is called `x`",
        "t.S/A: field 2 `a` of t.M is removed and not reserved",
        "t.S/A: value 1 `Y` of t.E is removed and not reserved",
    ];
    files(old, new, &expected);
}

#[test]
fn what_only_proto2_has() {
    let check = |old: &str, new: &str, expected: &[&str]| {
        let file = |fields: &str| {
            format!("syntax = \"proto2\"; package t; service S {{ rpc A(M) returns (M); }} message M {{ {fields} }}")
        };
        assert_eq!(said(&file(old), &file(new)), expected, "{old} -> {new}");
    };
    check(
        "optional int64 a = 1;",
        "required int64 a = 1;",
        &["t.S/A: field 1 `a` of t.M was optional int64 and is required int64"],
    );
    check("", "required int64 a = 1;", &["t.S/A: field 1 `a` of t.M is new and required"]);
    check("", "optional int64 a = 1;", &[]);
    check(
        "optional int64 a = 1 [default = 5];",
        "optional int64 a = 1 [default = 6];",
        &["t.S/A: field 1 `a` of t.M had the default 5 and has 6"],
    );
    check(
        "optional int64 a = 1;",
        "optional int64 a = 1 [default = 6];",
        &["t.S/A: field 1 `a` of t.M had the default of its type and has 6"],
    );
    check(
        "optional group G = 1 { optional int64 a = 1; }",
        "optional group G = 1 { optional bool a = 1; }",
        &["t.S/A: field 1 `a` of t.M.G was optional int64 and is optional bool"],
    );
}

#[test]
fn types_of_others_are_compared_like_ones_own() {
    let of = |ty: &str| {
        format!(
            "import \"google/protobuf/{ty}.proto\"; service S {{ rpc A(M) returns (M); }} message M {{ google.protobuf.{} t = 1; }}",
            if ty == "timestamp" { "Timestamp" } else { "Duration" }
        )
    };
    let file = |items: &str| format!("syntax = \"proto3\"; package t; {items}");
    assert_eq!(
        said(&file(&of("timestamp")), &file(&of("duration"))),
        ["t.S/A: field 1 `t` of t.M was google.protobuf.Timestamp and is google.protobuf.Duration"]
    );
}

#[test]
fn a_long_chain_of_types_is_walked_without_a_deep_stack() {
    let chain = |last: &str| {
        let links: String = (0..3_000).map(|n| format!("message C{n} {{ C{} next = 1; }} ", n + 1)).collect();
        format!("service S {{ rpc A(C0) returns (C0); }} {links} message C3000 {{ {last} a = 1; }}")
    };
    files(&chain("int64"), &chain("bool"), &["t.S/A: field 1 `a` of t.C3000 was int64 and is bool"]);
}

/// A schema of a few messages that refer to one another, with `extra` fields more in each.
fn schema(messages: &[Vec<u8>], extra: bool) -> String {
    const TYPES: [&str; 8] =
        ["int64", "string", "optional bool", "repeated bytes", "E", "map<string, int64>", "double", "sint32"];
    let count = messages.len();
    let ty = |choice: u8| match usize::from(choice) {
        known if known < TYPES.len() => TYPES[known].to_owned(),
        other if other % 2 == 0 => format!("M{}", other % count),
        other => format!("map<int32, M{}>", other % count),
    };
    let field = |number: usize, choice: u8| format!("{} f{number} = {number};", ty(choice));
    let message = |(at, fields): (usize, &Vec<u8>)| {
        let mut text: String = fields.iter().zip(1..).map(|(choice, number)| field(number, *choice)).collect();
        if extra {
            text.push_str(&format!(
                "string later = 100; repeated M{at} laters = 101; oneof k {{ int64 x = 102; E y = 103; }}"
            ));
        }
        format!("message M{at} {{ {text} }} ")
    };
    let messages: String = messages.iter().enumerate().map(message).collect();
    let later = if extra { "LATER = 7;" } else { "" };
    let more = if extra { "rpc C(M0) returns (M0);" } else { "" };
    format!(
        "syntax = \"proto3\"; package t; enum E {{ ZERO = 0; ONE = 1; {later} }} {messages} \
         service S {{ rpc A(M0) returns (M{}); {more} }}",
        count - 1
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_schema_is_compatible_with_itself_and_with_more(
        messages in prop::collection::vec(prop::collection::vec(0_u8..16, 0..6), 1..5),
    ) {
        let (plain, more) = (schema(&messages, false), schema(&messages, true));
        prop_assert_eq!(said(&plain, &plain), Vec::<String>::new());
        prop_assert_eq!(said(&plain, &more), Vec::<String>::new());
    }

    #[test]
    fn taking_back_what_was_added_is_always_noticed(
        messages in prop::collection::vec(prop::collection::vec(0_u8..16, 0..6), 1..5),
    ) {
        let (plain, more) = (schema(&messages, false), schema(&messages, true));
        prop_assert!(!said(&more, &plain).is_empty());
    }
}
