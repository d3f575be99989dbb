//! Bytes that nobody wrote on purpose never panic.

use proptest::prelude::*;

use super::fixture::{Try, engine, function, with_items, with_section, without_metadata};
use crate::wasm::Module;

/// Loads, and if that works, calls: whatever comes of it, it comes back.
fn survive(wasm: &[u8]) {
    if let Ok(module) = Module::load(engine(), wasm) {
        let Some(method) = module.methods().first() else { return };
        if method.path == super::fixture::DO {
            let _ = Try { fuel: 100_000, input: b"input".to_vec(), ..Try::default() }.run(&module);
        }
    }
}

fn valid() -> Vec<u8> {
    with_items(&format!(
        r#"(data (i32.const 16) "key") (table 2 funcref) (elem (i32.const 0) $reply $reply)
        (global $g (mut i32) (i32.const 1))
        (func $loops (param i32) (result i32 i64) (local i64)
            (block (br_if 0 (local.get 0)) (return (i32.const 1) (local.get 1))) (call $loops (i32.const 1)))
        {}"#,
        function(
            "(call $put (i32.const 16) (i32.const 3) (i32.const 16) (i32.const 3)) \
             (drop (call $get (i32.const 16) (i32.const 3) (i32.const 64) (i32.const 8))) \
             (call $loops (local.get $len)) (drop) (drop) (call $reply (i64.const 1))"
        )
    ))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        survive(&bytes);
        survive(&[b"\0asm\x01\0\0\0", &bytes[..]].concat());
    }

    #[test]
    fn mutated_modules_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut wasm = valid();
        for (at, byte) in changes {
            let at = at.index(wasm.len());
            wasm[at] = byte;
        }
        survive(&wasm);
    }

    #[test]
    fn truncated_modules_never_panic(at in any::<prop::sample::Index>()) {
        let wasm = valid();
        survive(&wasm[..at.index(wasm.len())]);
    }

    #[test]
    fn arbitrary_metadata_never_panics(data in prop::collection::vec(any::<u8>(), 0..256)) {
        let minimal = r#"(memory (export "memory") 1) (func (export "balsa_abi_1"))
            (func (export "balsa_call") (param i32 i32) (result i32) (i32.const 5))"#;
        survive(&with_section(without_metadata(minimal), &data));
    }
}
