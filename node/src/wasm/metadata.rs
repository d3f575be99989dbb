//! What a module says about itself: the custom section [`SECTION`].
//!
//! It is read without running anything, by the node, by the CLI and by whoever lists modules. `sdk/ABI.md` documents it for
//! those who write it.

/// Name of the custom section. A module has exactly one.
pub(crate) const SECTION: &str = "balsa.module";
/// The ABI this host speaks, as the section states it.
pub(super) const ABI: u32 = 1;

/// `balsa.module.v1.Module`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Metadata {
    /// Version of the calling convention.
    #[prost(uint32, tag = "1")]
    pub(super) abi: u32,
    /// The module's name, from its Cargo.toml.
    #[prost(string, tag = "2")]
    pub(super) name: String,
    /// The module's version, from its Cargo.toml.
    #[prost(string, tag = "3")]
    pub(super) version: String,
    /// An encoded `google.protobuf.FileDescriptorSet`, dependencies included.
    #[prost(bytes = "vec", tag = "4")]
    pub(super) file_descriptor_set: Vec<u8>,
    /// The method table: `balsa_call` gets a position in it.
    #[prost(message, repeated, tag = "5")]
    pub(super) methods: Vec<MethodEntry>,
    /// What built the module; for people.
    #[prost(string, tag = "6")]
    pub(super) sdk: String,
}

/// `balsa.module.v1.Method`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MethodEntry {
    /// Full gRPC path: `/package.Service/Method`.
    #[prost(string, tag = "1")]
    pub(super) path: String,
    /// Command or query.
    #[prost(enumeration = "Kind", tag = "2")]
    pub(super) kind: i32,
}

/// `balsa.module.v1.Kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Kind {
    /// Not a kind.
    Unspecified = 0,
    /// Goes through the log.
    Command = 1,
    /// Reads on one node.
    Query = 2,
}
