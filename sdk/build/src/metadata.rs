//! The custom section `balsa.module`: what tools and the host read of a module without running it.
//!
//! `sdk/module.proto` defines it for everybody; the types here are its Rust form, written by hand because a build script's
//! library cannot well have a build script that needs it.

use prost::Message;

use crate::table::{Method, Table};

/// The version of the binary interface, see `sdk/ABI.md`.
const ABI: u32 = 1;

/// `balsa.module.v1.Module`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Module {
    #[prost(uint32, tag = "1")]
    pub(crate) abi: u32,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) version: String,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) file_descriptor_set: Vec<u8>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) methods: Vec<MethodEntry>,
    #[prost(string, tag = "6")]
    pub(crate) sdk: String,
}

/// `balsa.module.v1.Method`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MethodEntry {
    #[prost(string, tag = "1")]
    pub(crate) path: String,
    /// `balsa.module.v1.Kind`; it can be read as a plain number.
    #[prost(int32, tag = "2")]
    pub(crate) kind: i32,
}

/// The bytes of the section.
pub(crate) fn section(table: &Table, name: &str, version: &str, file_descriptor_set: Vec<u8>) -> Vec<u8> {
    let entry = |method: &Method| MethodEntry { path: method.path.clone(), kind: method.kind as i32 };
    Module {
        abi: ABI,
        name: name.to_owned(),
        version: version.to_owned(),
        file_descriptor_set,
        methods: table.methods().map(entry).collect(),
        // SDK and build crate share the workspace's version.
        sdk: concat!("balsa-sdk ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
    .encode_to_vec()
}
