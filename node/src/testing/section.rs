//! What a module says about itself, as whoever builds one writes it: by this crate's tests, and by those in `tests/cluster`, which
//! include this file.

use prost::Message;
use wasm_encoder::{CustomSection, Section};

/// The custom section `balsa.module`; `sdk/ABI.md` documents it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ModuleSection {
    #[prost(uint32, tag = "1")]
    pub(crate) abi: u32,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) version: String,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) file_descriptor_set: Vec<u8>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) methods: Vec<MethodRow>,
}

/// A method of its table.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MethodRow {
    #[prost(string, tag = "1")]
    pub(crate) path: String,
    #[prost(uint32, tag = "2")]
    pub(crate) kind: u32,
}

/// Values of [`MethodRow::kind`].
pub(crate) const COMMAND: u32 = 1;
pub(crate) const QUERY: u32 = 2;

impl ModuleSection {
    /// Puts it at the end of a module.
    pub(crate) fn append_to(&self, wasm: &mut Vec<u8>) {
        append_section(wasm, "balsa.module", &self.encode_to_vec());
    }
}

/// Puts a custom section at the end of a module.
pub(crate) fn append_section(wasm: &mut Vec<u8>, name: &str, data: &[u8]) {
    CustomSection { name: name.into(), data: data.into() }.append_to(wasm);
}
