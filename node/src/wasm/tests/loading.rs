//! What is loaded, what is refused, and the sentence it is refused with.

use prost::Message;
use prost_types::FileDescriptorSet;

use super::fixture::{
    ASK, DO, bare, engine, file, function, load, metadata, refusal, with_body, with_items, with_metadata, with_section,
    without_metadata,
};
use crate::ids::ModuleHash;
use crate::limits::MODULE_BYTES_MAX;
use crate::wasm::compat::differences;
use crate::wasm::metadata::{Kind, Metadata, MethodEntry};
use crate::wasm::{Engine, MethodKind, Module};

/// The least that can be served.
const MINIMAL: &str = r#"(memory (export "memory") 1) (func (export "balsa_abi_1"))
    (func (export "balsa_call") (param i32 i32) (result i32) (i32.const 5))"#;

fn refused(wasm: &[u8], sentence: &str) {
    assert_eq!(refusal(wasm).to_string(), sentence);
}

fn refused_metadata(change: impl FnOnce(&mut Metadata), sentence: &str) {
    let mut metadata = metadata();
    change(&mut metadata);
    refused(&with_metadata(MINIMAL, &metadata), sentence);
}

#[test]
fn a_module_says_what_it_is() {
    let wasm = bare(MINIMAL);
    let module = load(&wasm);
    assert_eq!((module.name(), module.version(), module.sdk()), ("fixture", "1.2.3", "by hand"));
    assert_eq!(module.hash(), ModuleHash::of(&wasm));
    assert_eq!(module.methods().len(), 2);
    assert_eq!(module.method(DO).map(|method| (method.kind, method.index)), Some((MethodKind::Command, 0)));
    assert_eq!(module.method(ASK).map(|method| (method.kind, method.index)), Some((MethodKind::Query, 1)));
    assert_eq!(module.method("/test.v1.Test/Other"), None);
    assert!(module.descriptors().get_message_by_name("test.v1.M").is_some());
    assert_eq!(module.file_descriptor_set(), metadata().file_descriptor_set);
}

#[test]
fn two_modules_are_compared_by_what_their_clients_see() {
    let old = load(&bare(MINIMAL));
    let mut fewer = metadata();
    fewer.methods.pop();
    let mut file = file();
    file.service[0].method.pop();
    with_files(vec![file])(&mut fewer);
    let new = load(&with_metadata(MINIMAL, &fewer));
    let said = |old, new| differences(old, new).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(said(&old, &new), ["test.v1.Test/Ask is removed"]);
    assert!(said(&new, &old).is_empty() && said(&old, &old).is_empty());
}

#[test]
fn the_same_bytes_are_compiled_once() {
    let wasm = with_body("(i32.const 9)");
    let (first, second) = (load(&wasm), load(&wasm));
    assert!(std::sync::Arc::ptr_eq(&first.compiled, &second.compiled));
}

#[test]
fn every_import_on_the_list_is_offered() {
    for import in crate::wasm::host::IMPORTS {
        let types = |types: &[wasmparser::ValType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let (module, name) = (import.module, import.name);
        let (params, results) = (types(import.params), types(import.results));
        load(&bare(&format!(r#"(import "{module}" "{name}" (func (param {params}) (result {results}))) {MINIMAL}"#)));
    }
}

#[test]
fn what_is_not_wasm_is_refused() {
    refused(
        b"(module)",
        "this is not a WebAssembly binary (it does not begin with \\0asm): give the .wasm file that `cargo build --target wasm32-wasip1` made",
    );
    refused(
        b"\0asm\x0d\0\x01\0",
        "this is a WebAssembly component; Balsa takes core modules: build a cdylib for the target wasm32-wasip1",
    );
    refused(
        &vec![0; MODULE_BYTES_MAX + 1],
        "the module is 33554433 bytes; at most 33554432 are taken: build with opt-level \"s\", LTO and without debug information",
    );
}

#[test]
fn features_that_are_off_are_refused() {
    let extras = [
        "(func $tail (return_call $tail))",
        "(memory 1 1 shared)",
        "(memory i64 1)",
        "(memory 1)",
        "(tag)",
        "(func (result externref) (ref.null extern))",
        "(func (param v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 0)))",
    ];
    for extra in extras {
        let error = refusal(&bare(&format!("{MINIMAL} {extra}"))).to_string();
        assert!(
            error.starts_with("the module is not valid, or uses a feature of WebAssembly that is switched off: "),
            "{error}"
        );
    }
}

#[test]
fn an_import_that_is_not_offered_is_refused_by_name() {
    refused(
        &bare(&format!(
            r#"(import "wasi_snapshot_preview1" "path_open" (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32))) {MINIMAL}"#
        )),
        "the module imports `wasi_snapshot_preview1.path_open`, which the host does not offer; it may import from `balsa_v1` and a part of `wasi_snapshot_preview1` (see sdk/ABI.md): remove what needs it (files, sockets, threads, sleeping)",
    );
}

#[test]
fn an_import_of_another_type_is_refused() {
    refused(
        &bare(&format!(r#"(import "balsa_v1" "get" (func (param i32 i32) (result i32))) {MINIMAL}"#)),
        "the module imports `balsa_v1.get` as (i32, i32) -> (i32), but it is (i32, i32, i32, i32) -> (i64): build it with the balsa-sdk of this ABI",
    );
    refused(
        &bare(&format!(r#"(import "balsa_v1" "get" (global i32)) {MINIMAL}"#)),
        "the module imports `balsa_v1.get` as something other than a function, but it is (i32, i32, i32, i32) -> (i64): build it with the balsa-sdk of this ABI",
    );
}

#[test]
fn exports_that_are_missing_or_wrong_are_refused() {
    let cases = [
        (
            r#"(func (export "balsa_abi_1")) (func (export "balsa_call") (param i32 i32) (result i32) (i32.const 5))"#,
            "the module does not export a memory `memory`: declare its services with balsa_sdk::export!",
        ),
        (
            r#"(memory (export "memory") 1) (func (export "balsa_call") (param i32 i32) (result i32) (i32.const 5))"#,
            "the module does not export a function `balsa_abi_1`: declare its services with balsa_sdk::export!",
        ),
        (
            r#"(memory (export "memory") 1) (func (export "balsa_abi_1"))"#,
            "the module does not export a function `balsa_call`: declare its services with balsa_sdk::export!",
        ),
        (
            r#"(memory (export "memory") 1) (func (export "balsa_abi_1")) (func (export "balsa_call") (param i64) (result i32) (i32.const 5))"#,
            "the module's export `balsa_call` is (i64) -> (i32), but it must be (i32, i32) -> (i32): declare services with balsa_sdk::export!",
        ),
    ];
    for (items, sentence) in cases {
        refused(&bare(items), sentence);
    }
    refused(
        &bare(&format!(r#"{MINIMAL} (global (export "balsa_migrate") i32 (i32.const 0))"#)),
        "the module's export `balsa_migrate` is not a function, but it must be (i32) -> (i32): declare services with balsa_sdk::export!",
    );
}

#[test]
fn a_program_is_refused() {
    refused(
        &bare(&format!(r#"{MINIMAL} (func (export "_start"))"#)),
        "the module exports `_start`, so it is a program that runs once; build a library: crate-type = [\"cdylib\"]",
    );
}

#[test]
fn an_export_that_the_host_needs_is_refused() {
    refused(
        &bare(&format!(r#"{MINIMAL} (global (export "balsa:stack") i32 (i32.const 0))"#)),
        "the module exports `balsa:stack`, a name that the host needs for itself: rename it",
    );
}

#[test]
fn memory_and_tables_that_start_too_large_are_refused() {
    refused(
        &bare(&MINIMAL.replace("\"memory\") 1", "\"memory\") 257")),
        "the module starts with 16842752 bytes of memory; at most 16777216 are served: make its static data smaller",
    );
    refused(
        &bare(&format!("{MINIMAL} (table 10001 funcref)")),
        "the module has a table of 10001 elements; at most 10000 are served: use fewer function pointers",
    );
    refused(
        &bare(&format!("{MINIMAL} (table 1 funcref) (table 1 funcref)")),
        "the module has 2 tables; at most one is served: use one table",
    );
}

#[test]
fn what_each_instance_would_have_in_memory_is_bounded() {
    let imports = |count| r#"(import "balsa_v1" "panic" (func (param i32 i32)))"#.repeat(count);
    let globals = |count| "(global i32 (i32.const 0))".repeat(count);
    let functions = |count| "(func) ".repeat(count);
    let elements = |count| {
        let all: String = (0..count).map(|at| format!(" {}", at + 1_000)).collect();
        format!("(elem func{all})")
    };
    let exports = MINIMAL.matches("export").count();
    // As much as there may be of all, so that the pool has room for it.
    let all = [imports(1_000), MINIMAL.to_owned(), globals(5_000), functions(15_000), elements(15_000 - exports)];
    load(&bare(&all.concat()));
    let one_more = |items: String, what: &str, mend: &str| {
        refused(&bare(&items), &format!("the module has {what} are served: {mend}"));
    };
    one_more(imports(1_001) + MINIMAL, "1001 imports; at most 1000", "import each function once");
    one_more(globals(5_001) + MINIMAL, "5001 globals; at most 5000", "keep what varies in memory");
    one_more(
        [&imports(1_000), MINIMAL, &functions(20_000), &elements(20_001 - exports)].concat(),
        "20001 exports and references to functions; at most 20000",
        "use fewer function pointers",
    );
}

#[test]
fn code_that_can_not_be_loaded_here_is_not_the_modules_fault() {
    let poor = Engine::that_cannot_load();
    let load = |wasm: &[u8]| Module::load(&poor, wasm).unwrap_err();
    let why = load(&bare(MINIMAL));
    assert!(why.is_of_this_node(), "{why}");
    assert_eq!(why.to_string(), "this node could not check the module: compiled code cannot be loaded: no memory");
    // What is wrong with a module is found there as everywhere.
    assert!(!load(b"not wasm").is_of_this_node());
    assert!(!load(&bare(&MINIMAL.replace("balsa_call", "other"))).is_of_this_node());
}

#[test]
fn exactly_one_metadata_section_is_expected() {
    refused(
        &without_metadata(MINIMAL),
        "the module has no custom section `balsa.module`, so its services are not known: generate it with balsa-build and balsa_sdk::export!, and do not strip custom sections",
    );
    refused(
        &with_section(bare(MINIMAL), &metadata().encode_to_vec()),
        "the module has 2 custom sections `balsa.module`, but exactly one is expected: export all services in one balsa_sdk::export!",
    );
    let error = refusal(&with_section(without_metadata(MINIMAL), b"\xff\xff\xff")).to_string();
    assert!(error.starts_with("the custom section `balsa.module` is not a balsa.module.v1.Module ("), "{error}");
}

#[test]
fn metadata_that_makes_no_sense_is_refused() {
    refused_metadata(
        |metadata| metadata.abi = 2,
        "the module speaks ABI 2, this host speaks ABI 1: build it with the balsa-sdk of this release",
    );
    refused_metadata(
        |metadata| metadata.name = "a b".into(),
        "the module's name is \"a b\", but it must be 1 to 64 letters, digits or `-_.+`: it comes from its Cargo.toml",
    );
    refused_metadata(
        |metadata| metadata.version.clear(),
        "the module's version is \"\", but it must be 1 to 64 letters, digits or `-_.+`: it comes from its Cargo.toml",
    );
    refused_metadata(
        |metadata| metadata.methods.clear(),
        "the module has 0 methods, but 1 to 1000 are expected: declare a service in a .proto file and export it",
    );
}

fn with_files(files: Vec<prost_types::FileDescriptorProto>) -> impl FnOnce(&mut Metadata) {
    move |metadata| metadata.file_descriptor_set = FileDescriptorSet { file: files }.encode_to_vec()
}

#[test]
fn descriptors_that_are_not_complete_are_refused() {
    let mut file = file();
    file.dependency.push("other.proto".into());
    refused_metadata(
        with_files(vec![file]),
        "the module's descriptors are not a complete FileDescriptorSet (imported file 'other.proto' has not been added): include all imported files, as balsa-build does",
    );
}

#[test]
fn descriptors_that_no_compiler_of_proto2_or_proto3_writes_are_refused() {
    let mut editions = file();
    editions.syntax = Some("editions".into());
    refused_metadata(
        with_files(vec![editions]),
        "the module's descriptors are not a complete FileDescriptorSet (`test.proto` has syntax \"editions\"; proto2 and proto3 are read): include all imported files, as balsa-build does",
    );
    let mut dangling = file();
    dangling.message_type[0]
        .field
        .push(prost_types::FieldDescriptorProto { oneof_index: Some(3), ..Default::default() });
    refused_metadata(
        with_files(vec![dangling]),
        "the module's descriptors are not a complete FileDescriptorSet (`test.proto` is not what a protobuf compiler writes): include all imported files, as balsa-build does",
    );
}

#[test]
fn packages_of_the_node_are_refused() {
    for package in ["grpc.health.v1", "balsa", "balsa.admin.v1"] {
        let mut file = file();
        file.package = Some(package.into());
        for method in &mut file.service[0].method {
            method.input_type = Some(format!(".{package}.M"));
            method.output_type = method.input_type.clone();
        }
        refused_metadata(
            with_files(vec![file]),
            &format!(
                "`test.proto` is in package `{package}`; `grpc` and `balsa` are served by the node itself: rename the package"
            ),
        );
    }
}

#[test]
fn the_method_table_and_the_descriptors_must_agree() {
    let end = ": build the module and its descriptors together, with balsa-build";
    let other = MethodEntry { path: "/test.v1.Test/Other".into(), kind: Kind::Command.into() };
    refused_metadata(
        |metadata| metadata.methods.push(other),
        &format!("/test.v1.Test/Other: the method table has it, but the descriptors do not{end}"),
    );
    refused_metadata(
        |metadata| metadata.methods.truncate(1),
        &format!("/test.v1.Test/Ask: the descriptors have it, but the method table does not{end}"),
    );
    refused_metadata(
        |metadata| metadata.methods.push(metadata.methods[0].clone()),
        &format!("/test.v1.Test/Do: the method table has it twice{end}"),
    );
    refused_metadata(
        |metadata| metadata.methods[1].kind = Kind::Command.into(),
        &format!(
            "/test.v1.Test/Ask: the method table has a command, but its idempotency_level is NO_SIDE_EFFECTS{end}"
        ),
    );
    refused_metadata(
        |metadata| metadata.methods[0].kind = Kind::Query.into(),
        &format!(
            "/test.v1.Test/Do: the method table has a query, but its idempotency_level is not NO_SIDE_EFFECTS{end}"
        ),
    );
    refused_metadata(
        |metadata| metadata.methods[0].kind = 9,
        &format!("/test.v1.Test/Do: the method table does not say whether it is a command or a query{end}"),
    );
}

#[test]
fn a_service_that_a_dependency_brought_along_is_not_served() {
    let mut metadata = metadata();
    let mut dependency = file();
    dependency.name = Some("dependency.proto".into());
    dependency.package = Some("other.v1".into());
    for method in &mut dependency.service[0].method {
        method.input_type = Some(".other.v1.M".into());
        method.output_type = Some(".other.v1.M".into());
    }
    with_files(vec![dependency, file()])(&mut metadata);
    let module = Module::load(engine(), &with_metadata(MINIMAL, &metadata)).unwrap();
    assert_eq!(module.methods().len(), 2);
}

#[test]
fn a_module_that_can_not_start_is_refused() {
    let end = "; constructors and `_initialize` must do without input and state, and be quick";
    let cases = [
        ("(func $up unreachable) (start $up)", "wasm trap: wasm `unreachable` instruction executed"),
        ("(func $up (loop $again (br $again))) (start $up)", "wasm trap: all fuel consumed by WebAssembly"),
        (
            r#"(func (export "_initialize") (call $put (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0)))"#,
            "input, output and state are there during balsa_call only, not in constructors",
        ),
        (r#"(data (i32.const -1) "x")"#, "wasm trap: out of bounds memory access"),
    ];
    for (items, why) in cases {
        let wasm = with_items(&format!("{items} {}", function("(i32.const 5)")));
        refused(&wasm, &format!("the module cannot start: {why}{end}"));
    }
}

#[test]
fn a_rejection_is_of_the_module_and_not_of_this_node() {
    assert!(!refusal(b"").is_of_this_node());
}
