//! Anything as a module.

use proptest::prelude::*;
use prost::Message;
use wasm_encoder::{CustomSection, Section};
use wasmparser::{Parser, Payload};

use super::{KVSTORE, Mutation, TINY, config, load, mutated, mutations, run, take_over};
use crate::api;
use crate::testing::engine;
use crate::wasm::{Module, compat};

const SECTION: &str = "balsa.module";

/// Loads `wasm`, and does with what loads all that a node would do. Whether it loaded.
fn survive(wasm: &[u8]) -> bool {
    let Ok(module) = Module::load(&engine(), wasm) else { return false };
    for method in module.methods().iter().take(4) {
        run(&module, method, b"\x0a\x01a".as_slice().into());
    }
    take_over(&module, None);
    take_over(&module, Some("1.0.0"));
    describe(&module);
    true
}

/// What becomes of descriptors: compared, listed, served by reflection.
fn describe(module: &Module) {
    for other in [load(KVSTORE), load(TINY), module.clone()] {
        let said = compat::differences(module, &other).into_iter().chain(compat::differences(&other, module));
        said.for_each(|difference| assert!(!difference.to_string().is_empty()));
    }
    assert!(compat::differences(module, module).is_empty());
    assert!(api::prepared(module) > 0);
}

/// A module's own bytes, and what its metadata section holds.
fn parts(wasm: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut metadata = Vec::new();
    let mut rest = b"\0asm\x01\0\0\0".to_vec();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.expect("a real module") {
            Payload::CustomSection(custom) if custom.name() == SECTION => metadata = custom.data().to_vec(),
            other => {
                if let Some((id, range)) = other.as_section() {
                    wasm_encoder::RawSection { id, data: &wasm[range] }.append_to(&mut rest);
                }
            }
        }
    }
    (rest, metadata)
}

fn assembled(rest: &[u8], metadata: &[u8]) -> Vec<u8> {
    let mut wasm = rest.to_vec();
    CustomSection { name: SECTION.into(), data: metadata.into() }.append_to(&mut wasm);
    wasm
}

/// Of the section `balsa.module`, what is mutated apart.
#[derive(Clone, PartialEq, Message)]
struct Described {
    #[prost(uint32, tag = "1")]
    abi: u32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    version: String,
    #[prost(bytes = "vec", tag = "4")]
    file_descriptor_set: Vec<u8>,
    #[prost(message, repeated, tag = "5")]
    methods: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(int32, tag = "2")]
    kind: i32,
}

/// `wasm` with its metadata decoded, its descriptors changed, and encoded again: so the change is not lost in a length that is wrong.
fn redescribed(wasm: &[u8], mutations: &[Mutation]) -> Vec<u8> {
    let (rest, metadata) = parts(wasm);
    let mut described = Described::decode(&metadata[..]).expect("a real module");
    described.file_descriptor_set = mutated(described.file_descriptor_set, mutations);
    assembled(&rest, &described.encode_to_vec())
}

#[test]
fn what_is_not_changed_is_a_module() {
    for wasm in [TINY, KVSTORE] {
        let (rest, metadata) = parts(wasm);
        assert!(survive(&assembled(&rest, &metadata)) && survive(&redescribed(wasm, &[])));
    }
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..1024)) {
        survive(&bytes);
        survive(&[b"\0asm\x01\0\0\0", &bytes[..]].concat());
        survive(&assembled(&parts(TINY).0, &bytes));
    }

    #[test]
    fn a_real_module_with_bytes_changed(mutations in mutations()) {
        survive(&mutated(TINY.to_vec(), &mutations));
        survive(&mutated(KVSTORE.to_vec(), &mutations));
    }

    #[test]
    fn a_real_module_with_its_descriptors_changed(mutations in mutations()) {
        survive(&redescribed(TINY, &mutations));
        survive(&redescribed(KVSTORE, &mutations));
    }

    #[test]
    fn a_real_module_with_another_method_table(
        methods in prop::collection::vec(("[a-zA-Z./]{0,24}", any::<i32>()), 0..4),
        (name, version) in (".{0,70}", ".{0,70}"),
    ) {
        let (rest, metadata) = parts(TINY);
        let mut described = Described::decode(&metadata[..]).expect("a real module");
        described.methods.extend(methods.into_iter().map(|(path, kind)| Entry { path, kind }));
        survive(&assembled(&rest, &described.encode_to_vec()));
        survive(&assembled(&rest, &Described { name, version, ..described }.encode_to_vec()));
    }

    #[test]
    fn a_valid_module_that_does_anything(text in super::generate::module()) {
        let wasm = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let (_, metadata) = parts(TINY);
        prop_assert!(survive(&assembled(&wasm, &metadata)), "it is valid:\n{}", text);
    }
}
