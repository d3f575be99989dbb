//! Decides whether bytes are a module that can be served, and says what would make them one.
//!
//! Everything here depends on the bytes alone, so that every node comes to the same answer; the order of checks is fixed too,
//! since the first failure is the one that is reported. The CLI's `module check` runs the same code.

use std::collections::BTreeMap;

use prost_reflect::DescriptorPool;
use wasmparser::{
    ElementItems, Encoding, ExternalKind, FuncType, FuncValidatorAllocations, Parser, Payload, TypeRef, ValType,
    ValidPayload, Validator,
};

use super::engine::{FEATURES, TABLE_ELEMENTS_MAX};
use super::host::{self, Import};
use super::metadata::{ABI, Metadata, SECTION};
use super::module::Method;
use super::outcome::HostFault;
use super::services::{self, METHODS_MAX, Services};
use super::stack::{self, Frame};
use crate::limits::MODULE_BYTES_MAX;

/// Bytes of a page of linear memory.
pub(super) const PAGE_BYTES: u64 = 64 * 1024;
/// Imports of one module; there are about thirty functions to import.
const IMPORTS_MAX: usize = 1_000;
/// Globals of one module; compilers of C and Rust make a handful.
const GLOBALS_MAX: usize = 5_000;
/// Exports, elements of segments and globals, each of which may stand for a function: half as many again as a table has elements.
/// Each instance has all three kinds in memory that no fuel pays for, at most 32 bytes each: together less than the 1 MiB that
/// the pool allows it.
const REFERENCES_MAX: usize = 20_000;

/// Why a module is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Larger than what travels in the log.
    #[error(
        "the module is {bytes} bytes; at most {MODULE_BYTES_MAX} are taken: build with opt-level \"s\", LTO and without debug information"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not a wasm binary at all.
    #[error(
        "this is not a WebAssembly binary (it does not begin with \\0asm): give the .wasm file that `cargo build --target wasm32-wasip1` made"
    )]
    NotWasm,
    /// A component.
    #[error("this is a WebAssembly component; Balsa takes core modules: build a cdylib for the target wasm32-wasip1")]
    Component,
    /// Not valid, or it uses a feature that is switched off.
    #[error(
        "the module is not valid, or uses a feature of WebAssembly that is switched off: {0}; build for wasm32-wasip1 without extra target features"
    )]
    Invalid(String),
    /// An import that the host does not have.
    #[error(
        "the module imports `{module}.{name}`, which the host does not offer; it may import from `balsa_v1` and a part of `wasi_snapshot_preview1` (see sdk/ABI.md): remove what needs it (files, sockets, threads, sleeping)"
    )]
    UnknownImport {
        /// Its namespace.
        module: String,
        /// Its name.
        name: String,
    },
    /// An import with another signature than the host's.
    #[error(
        "the module imports `{module}.{name}` as {found}, but it is {expected}: build it with the balsa-sdk of this ABI"
    )]
    ImportType {
        /// Its namespace.
        module: String,
        /// Its name.
        name: String,
        /// As the module has it.
        found: String,
        /// As the host has it.
        expected: String,
    },
    /// An export that it must have.
    #[error("the module does not export {expected} `{name}`: declare its services with balsa_sdk::export!")]
    MissingExport {
        /// Its name.
        name: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// An export of the wrong type.
    #[error(
        "the module's export `{name}` is {found}, but it must be {expected}: declare services with balsa_sdk::export!"
    )]
    ExportType {
        /// Its name.
        name: String,
        /// What it is.
        found: String,
        /// What it must be.
        expected: String,
    },
    /// A program, not a library.
    #[error(
        "the module exports `_start`, so it is a program that runs once; build a library: crate-type = [\"cdylib\"]"
    )]
    Program,
    /// An export whose name the host uses.
    #[error("the module exports `{0}`, a name that the host needs for itself: rename it")]
    ReservedExport(String),
    /// More than one memory or table, or one that starts too large.
    #[error("the module {what}; at most {max}: {mend}")]
    Resources {
        /// What it asks for.
        what: String,
        /// What there is.
        max: String,
        /// What to do.
        mend: &'static str,
    },
    /// No metadata.
    #[error(
        "the module has no custom section `balsa.module`, so its services are not known: generate it with balsa-build and balsa_sdk::export!, and do not strip custom sections"
    )]
    NoMetadata,
    /// More than one metadata section.
    #[error(
        "the module has {0} custom sections `balsa.module`, but exactly one is expected: export all services in one balsa_sdk::export!"
    )]
    SeveralMetadata(usize),
    /// The metadata section does not decode.
    #[error("the custom section `balsa.module` is not a balsa.module.v1.Module ({0}): build it with balsa-build")]
    Metadata(String),
    /// Another calling convention.
    #[error("the module speaks ABI {found}, this host speaks ABI {ABI}: build it with the balsa-sdk of this release")]
    Abi {
        /// What it states.
        found: u32,
    },
    /// A name or version that tables and paths can't hold.
    #[error(
        "the module's {what} is {value:?}, but it must be 1 to 64 letters, digits or `-_.+`: it comes from its Cargo.toml"
    )]
    Name {
        /// Name or version.
        what: &'static str,
        /// As it is.
        value: String,
    },
    /// Descriptors that do not decode or do not fit together.
    #[error(
        "the module's descriptors are not a complete FileDescriptorSet ({0}): include all imported files, as balsa-build does"
    )]
    Descriptors(String),
    /// A package that the node serves itself.
    #[error("`{file}` is in package `{package}`; `grpc` and `balsa` are served by the node itself: rename the package")]
    ReservedPackage {
        /// The proto file.
        file: String,
        /// Its package.
        package: String,
    },
    /// A method whose request is a stream.
    #[error(
        "`{0}` takes a stream of requests, which is not served: make its request a single message (the response of a query may be a stream)"
    )]
    ClientStreaming(String),
    /// A command whose response is a stream.
    #[error(
        "`{0}` is a command and answers with a stream; only a query may: make its response a single message, or give it `option idempotency_level = NO_SIDE_EFFECTS`"
    )]
    StreamingCommand(String),
    /// Nothing to serve, or too much.
    #[error(
        "the module has {0} methods, but 1 to {METHODS_MAX} are expected: declare a service in a .proto file and export it"
    )]
    Methods(usize),
    /// The method table and the descriptors disagree.
    #[error("{path}: {why}: build the module and its descriptors together, with balsa-build")]
    MethodTable {
        /// The method.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It traps before any call.
    #[error(
        "the module cannot start: {why}; constructors and `_initialize` must do without input and state, and be quick"
    )]
    Start {
        /// The trap.
        why: String,
    },
    /// It is valid, but this compiler does not manage.
    #[error("the module does not compile: {0}")]
    Compile(String),
    /// This node failed; it says nothing about the module.
    #[error("this node could not check the module: {0}")]
    Host(#[from] HostFault),
}

impl Rejection {
    /// Whether another node, or this one later, may well take the module.
    pub fn is_of_this_node(&self) -> bool {
        matches!(self, Self::Host(_))
    }

    pub(super) fn compile(error: &wasmtime::Error) -> Self {
        Self::Compile(format!("{error:#}"))
    }

    pub(super) fn instrument(error: wasm_encoder::reencode::Error) -> Self {
        Self::Compile(format!("it cannot be instrumented: {error}"))
    }
}

impl From<wasmparser::Error> for Rejection {
    fn from(error: wasmparser::Error) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// What a check found out.
pub(super) struct Checked {
    pub(super) metadata: Metadata,
    pub(super) methods: Vec<Method>,
    pub(super) descriptors: DescriptorPool,
    /// The module's own functions, in order.
    pub(super) frames: Vec<Frame>,
}

/// Refuses what is too large to be looked at.
pub(super) fn size(wasm: &[u8]) -> Result<(), Rejection> {
    if wasm.len() > MODULE_BYTES_MAX { Err(Rejection::TooLarge { bytes: wasm.len() }) } else { Ok(()) }
}

/// Refuses what need not be read.
pub(super) fn form(wasm: &[u8]) -> Result<(), Rejection> {
    size(wasm)?;
    if wasm.starts_with(b"\0asm") { Ok(()) } else { Err(Rejection::NotWasm) }
}

/// Everything that can be known of a module without compiling it.
pub(super) fn check(wasm: &[u8], memory_bytes_max: u64) -> Result<Checked, Rejection> {
    form(wasm)?;
    let outline = Outline::read(wasm)?;
    outline.check_imports()?;
    outline.check_exports()?;
    outline.check_resources(memory_bytes_max)?;
    let Services { metadata, methods, descriptors } = services::check(&outline.metadata)?;
    Ok(Checked { metadata, methods, descriptors, frames: outline.frames })
}

/// A valid module, as far as the checks look into it.
#[derive(Default)]
struct Outline<'a> {
    types: Vec<FuncType>,
    imports: Vec<wasmparser::Import<'a>>,
    /// Type of every function, imported ones first.
    functions: Vec<u32>,
    exports: BTreeMap<&'a str, wasmparser::Export<'a>>,
    memories: Vec<wasmparser::MemoryType>,
    tables: Vec<wasmparser::TableType>,
    globals: usize,
    /// Functions that tables, passive segments, globals and other modules may refer to, each as often as it is named.
    references: usize,
    metadata: Vec<&'a [u8]>,
    frames: Vec<Frame>,
}

impl<'a> Outline<'a> {
    fn read(wasm: &'a [u8]) -> Result<Self, Rejection> {
        let mut outline = Self::default();
        let mut validator = Validator::new_with_features(FEATURES);
        let mut allocations = FuncValidatorAllocations::default();
        let mut parser = Parser::new(0);
        parser.set_features(FEATURES);
        for payload in parser.parse_all(wasm) {
            let payload = payload?;
            if let Payload::Version { encoding: Encoding::Component, .. } = payload {
                return Err(Rejection::Component);
            }
            if let ValidPayload::Func(function, body) = validator.payload(&payload)? {
                let mut function = function.into_validator(allocations);
                outline.frames.push(Frame::measure(&mut function, &body)?);
                allocations = function.into_allocations();
            }
            outline.note(payload)?;
        }
        Ok(outline)
    }

    fn note(&mut self, payload: Payload<'a>) -> Result<(), Rejection> {
        match payload {
            Payload::TypeSection(types) => {
                self.types = types.into_iter_err_on_gc_types().collect::<wasmparser::Result<_>>()?;
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import?;
                    if let TypeRef::Func(ty) = import.ty {
                        self.functions.push(ty);
                    }
                    self.imports.push(import);
                }
            }
            Payload::FunctionSection(functions) => {
                for ty in functions {
                    self.functions.push(ty?);
                }
            }
            Payload::TableSection(tables) => {
                for table in tables {
                    self.tables.push(table?.ty);
                }
            }
            Payload::MemorySection(memories) => {
                self.memories = memories.into_iter().collect::<wasmparser::Result<_>>()?;
            }
            Payload::GlobalSection(globals) => {
                self.globals = globals.count() as usize;
                self.references += self.globals;
            }
            Payload::ExportSection(exports) => {
                self.references += exports.count() as usize;
                for export in exports {
                    let export = export?;
                    self.exports.insert(export.name, export);
                }
            }
            Payload::ElementSection(segments) => {
                for segment in segments {
                    self.references += match segment?.items {
                        ElementItems::Functions(items) => items.count() as usize,
                        ElementItems::Expressions(_, items) => items.count() as usize,
                    };
                }
            }
            Payload::CustomSection(custom) if custom.name() == SECTION => self.metadata.push(custom.data()),
            _ => {}
        }
        Ok(())
    }

    fn check_imports(&self) -> Result<(), Rejection> {
        for import in &self.imports {
            let Some(known) = host::import(import.module, import.name) else {
                return Err(Rejection::UnknownImport { module: import.module.into(), name: import.name.into() });
            };
            let found = match import.ty {
                TypeRef::Func(ty) => self.signature(ty),
                _ => "something other than a function".into(),
            };
            let expected = signature(known);
            if found != expected {
                let (module, name) = (import.module.into(), import.name.into());
                return Err(Rejection::ImportType { module, name, found, expected });
            }
        }
        Ok(())
    }

    fn check_exports(&self) -> Result<(), Rejection> {
        if self.exports.contains_key("_start") {
            return Err(Rejection::Program);
        }
        if self.exports.contains_key(stack::EXPORT) {
            return Err(Rejection::ReservedExport(stack::EXPORT.into()));
        }
        if !self.exports.get("memory").is_some_and(|export| export.kind == ExternalKind::Memory) {
            return Err(Rejection::MissingExport { name: "memory", expected: "a memory" });
        }
        use ValType::I32;
        self.check_function("balsa_abi_1", &[], &[], true)?;
        self.check_function("balsa_call", &[I32, I32], &[I32], true)?;
        self.check_function("balsa_migrate", &[I32], &[I32], false)?;
        self.check_function("balsa_init", &[], &[I32], false)?;
        self.check_function("_initialize", &[], &[], false)
    }

    fn check_function(
        &self,
        name: &'static str,
        params: &[ValType],
        results: &[ValType],
        required: bool,
    ) -> Result<(), Rejection> {
        let Some(export) = self.exports.get(name) else {
            return if required { Err(Rejection::MissingExport { name, expected: "a function" }) } else { Ok(()) };
        };
        let expected = render(params, results);
        let found = match export.kind {
            ExternalKind::Func => self.signature(self.functions[export.index as usize]),
            _ => "not a function".into(),
        };
        if found == expected { Ok(()) } else { Err(Rejection::ExportType { name: name.into(), found, expected }) }
    }

    fn signature(&self, ty: u32) -> String {
        let ty = &self.types[ty as usize];
        render(ty.params(), ty.results())
    }

    fn check_resources(&self, memory_bytes_max: u64) -> Result<(), Rejection> {
        let refuse = |what: String, max: String, mend| Err(Rejection::Resources { what, max, mend });
        if self.tables.len() > 1 {
            return refuse(format!("has {} tables", self.tables.len()), "one is served".into(), "use one table");
        }
        for table in &self.tables {
            if table.initial > TABLE_ELEMENTS_MAX as u64 {
                let what = format!("has a table of {} elements", table.initial);
                return refuse(what, format!("{TABLE_ELEMENTS_MAX} are served"), "use fewer function pointers");
            }
        }
        for memory in &self.memories {
            let bytes = memory.initial.saturating_mul(PAGE_BYTES);
            if bytes > memory_bytes_max {
                let what = format!("starts with {bytes} bytes of memory");
                return refuse(what, format!("{memory_bytes_max} are served"), "make its static data smaller");
            }
        }
        for (what, count, max, mend) in [
            ("imports", self.imports.len(), IMPORTS_MAX, "import each function once"),
            ("globals", self.globals, GLOBALS_MAX, "keep what varies in memory"),
            ("exports and references to functions", self.references, REFERENCES_MAX, "use fewer function pointers"),
        ] {
            if count > max {
                return refuse(format!("has {count} {what}"), format!("{max} are served"), mend);
            }
        }
        Ok(())
    }
}

fn signature(import: &Import) -> String {
    render(import.params, import.results)
}

/// A function type as the text format writes it: `(i32, i32) -> (i64)`.
fn render(params: &[ValType], results: &[ValType]) -> String {
    let list = |types: &[ValType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("({}) -> ({})", list(params), list(results))
}
