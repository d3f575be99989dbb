//! What a module's bytes say about it, read without compiling or running anything.
//!
//! For people: `balsa module inspect`, and whoever wonders why a module is refused. So nothing is judged here beyond what is
//! needed to read: an import that the host does not have is listed like any other, and it is `check` that refuses it.

use prost_reflect::DescriptorPool;
use wasmparser::{Encoding, Parser, Payload};

use super::check::{self, PAGE_BYTES, Rejection};
use super::engine::FEATURES;
use super::metadata::SECTION;
use super::module::{Method, MethodKind};
use super::services;
use crate::ids::ModuleHash;

/// A module, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Of the bytes as they are.
    pub hash: ModuleHash,
    /// Bytes of all of it.
    pub size: usize,
    /// Bytes of its functions.
    pub code_bytes: usize,
    /// The calling convention it speaks.
    pub abi: u32,
    /// From its Cargo.toml, or what its author put in that place.
    pub name: String,
    /// The same.
    pub version: String,
    /// What built it; may be empty.
    pub sdk: String,
    /// What it serves, in the order of its method table.
    pub methods: Vec<Described>,
    /// `namespace.name`, in the order in which it has them.
    pub imports: Vec<String>,
    /// Linear memory that it starts with, bytes.
    pub memory_bytes: u64,
    /// Whether it exports `balsa_init`.
    pub has_init: bool,
    /// Whether it exports `balsa_migrate`.
    pub has_migrate: bool,
}

/// A method and its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Full name of its service: `kvstore.v1.KvStore`.
    pub service: String,
    /// `Put`
    pub name: String,
    /// Command or query.
    pub kind: MethodKind,
    /// Whether it answers with any number of messages.
    pub streaming: bool,
    /// Full name of the request message.
    pub request: String,
    /// Full name of the response message.
    pub response: String,
}

impl Inspection {
    /// Reads `wasm`. What makes it unreadable is the same as what makes it refused.
    pub fn of(wasm: &[u8]) -> Result<Self, Rejection> {
        check::form(wasm)?;
        let sections = Sections::read(wasm)?;
        let served = services::check(&sections.metadata)?;
        // None is left out: each method of the table was found in the descriptors.
        let methods = served.methods.iter().filter_map(|method| Described::of(method, &served.descriptors)).collect();
        let metadata = served.metadata;
        Ok(Self {
            hash: ModuleHash::of(wasm),
            size: wasm.len(),
            code_bytes: sections.code_bytes,
            abi: metadata.abi,
            name: metadata.name,
            version: metadata.version,
            sdk: metadata.sdk,
            methods,
            imports: sections.imports,
            memory_bytes: sections.memory_pages.saturating_mul(PAGE_BYTES),
            has_init: sections.exports.contains(&"balsa_init"),
            has_migrate: sections.exports.contains(&"balsa_migrate"),
        })
    }
}

impl Described {
    fn of(method: &Method, descriptors: &DescriptorPool) -> Option<Self> {
        let described = method.described(descriptors)?;
        Some(Self {
            service: described.parent_service().full_name().into(),
            name: described.name().into(),
            kind: method.kind,
            streaming: method.streaming,
            request: described.input().full_name().into(),
            response: described.output().full_name().into(),
        })
    }

    /// Full gRPC path.
    pub fn path(&self) -> String {
        format!("/{}/{}", self.service, self.name)
    }
}

/// The sections that tell something.
#[derive(Default)]
struct Sections<'a> {
    imports: Vec<String>,
    exports: Vec<&'a str>,
    metadata: Vec<&'a [u8]>,
    memory_pages: u64,
    code_bytes: usize,
}

impl<'a> Sections<'a> {
    fn read(wasm: &'a [u8]) -> Result<Self, Rejection> {
        let mut sections = Self::default();
        let mut parser = Parser::new(0);
        parser.set_features(FEATURES);
        for payload in parser.parse_all(wasm) {
            sections.note(payload?)?;
        }
        Ok(sections)
    }

    fn note(&mut self, payload: Payload<'a>) -> Result<(), Rejection> {
        match payload {
            Payload::Version { encoding: Encoding::Component, .. } => return Err(Rejection::Component),
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import?;
                    self.imports.push(format!("{}.{}", import.module, import.name));
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    self.exports.push(export?.name);
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories {
                    self.memory_pages = self.memory_pages.saturating_add(memory?.initial);
                }
            }
            Payload::CodeSectionStart { size, .. } => self.code_bytes = size as usize,
            Payload::CustomSection(custom) if custom.name() == SECTION => self.metadata.push(custom.data()),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::embedded;
    use super::*;

    #[test]
    fn the_embedded_module_says_what_it_is_without_being_run() {
        let inspection = Inspection::of(embedded::KVSTORE).unwrap();
        assert_eq!((inspection.name.as_str(), inspection.abi), (embedded::NAME, 1));
        assert_eq!(inspection.size, embedded::KVSTORE.len());
        assert!(inspection.code_bytes > 0 && inspection.code_bytes < inspection.size);
        let put = &inspection.methods[0];
        assert_eq!((put.path().as_str(), put.kind), ("/kvstore.v1.KvStore/Put", MethodKind::Command));
        assert_eq!(put.request, "kvstore.v1.PutRequest");
        assert!(inspection.imports.contains(&"balsa_v1.put".to_owned()), "{:?}", inspection.imports);
    }

    #[test]
    fn what_is_not_a_module_is_refused_in_the_words_of_the_check() {
        assert_eq!(Inspection::of(b"hello"), Err(Rejection::NotWasm));
        assert_eq!(Inspection::of(b"\0asm\x01\0\0\0"), Err(Rejection::NoMetadata));
    }

    #[test]
    fn an_import_that_the_host_does_not_have_is_listed() {
        let wasm = wat::parse_str(r#"(module (import "env" "socket" (func)))"#).unwrap();
        assert_eq!(Sections::read(&wasm).unwrap().imports, ["env.socket"]);
    }
}
