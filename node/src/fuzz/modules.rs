//! Anything as a module.

use std::sync::LazyLock;

use proptest::prelude::*;
use prost::Message;
use wasm_encoder::Section;
use wasmparser::{Parser, Payload};

use super::{KVSTORE, Mutation, TINY, config, generate, load, mutated, mutations, run, take_over};
use crate::api;
use crate::testing::{MethodRow, ModuleSection, append_section, engine};
use crate::wasm::{METADATA_SECTION, Module, compat};

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
    static OTHERS: LazyLock<[Module; 2]> = LazyLock::new(|| [load(KVSTORE), load(TINY)]);
    for other in OTHERS.iter().chain([module]) {
        let said = compat::differences(module, other).into_iter().chain(compat::differences(other, module));
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
            Payload::CustomSection(custom) if custom.name() == METADATA_SECTION => metadata = custom.data().to_vec(),
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
    append_section(&mut wasm, METADATA_SECTION, metadata);
    wasm
}

/// `wasm` with its metadata decoded, its descriptors changed, and encoded again: so the change is not lost in a length that is wrong.
fn redescribed(wasm: &[u8], mutations: &[Mutation]) -> Vec<u8> {
    let (rest, metadata) = parts(wasm);
    let mut described = ModuleSection::decode(&metadata[..]).expect("a real module");
    described.file_descriptor_set = mutated(described.file_descriptor_set, mutations);
    assembled(&rest, &described.encode_to_vec())
}

fn with_tinys_metadata(text: &str) -> Vec<u8> {
    let wasm = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assembled(&wasm, &parts(TINY).1)
}

/// Small, and with some of everything.
fn varied() -> Vec<u8> {
    with_tinys_metadata(&generate::varied())
}

#[test]
fn what_is_not_changed_is_a_module() {
    assert!(survive(&varied()));
    for wasm in [TINY, KVSTORE] {
        let (rest, metadata) = parts(wasm);
        assert!(survive(&assembled(&rest, &metadata)) && survive(&redescribed(wasm, &[])));
    }
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..1024)) {
        survive(&bytes);
        survive(&[b"\0asm\x01\0\0\0", &bytes[..]].concat());
        survive(&assembled(&parts(TINY).0, &bytes));
    }

    #[test]
    fn a_small_module_with_bytes_changed(mutations in mutations()) {
        survive(&mutated(varied(), &mutations));
    }

    #[test]
    fn a_small_module_that_ends_early(at in any::<prop::sample::Index>()) {
        let wasm = varied();
        survive(&wasm[..at.index(wasm.len())]);
    }
}

proptest! {
    #![proptest_config(config(64))]

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
        methods in prop::collection::vec(("[a-zA-Z./]{0,24}", any::<u32>()), 0..4),
        (name, version) in (".{0,70}", ".{0,70}"),
    ) {
        let (rest, metadata) = parts(TINY);
        let mut described = ModuleSection::decode(&metadata[..]).expect("a real module");
        described.methods.extend(methods.into_iter().map(|(path, kind)| MethodRow { path, kind }));
        survive(&assembled(&rest, &described.encode_to_vec()));
        survive(&assembled(&rest, &ModuleSection { name, version, ..described }.encode_to_vec()));
    }

    #[test]
    fn a_valid_module_that_does_anything(text in generate::module()) {
        prop_assert!(survive(&with_tinys_metadata(&text)), "it is valid:\n{}", text);
    }
}
