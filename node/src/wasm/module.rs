//! A module that can be called.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prost_reflect::{DescriptorPool, MethodDescriptor};
use wasmtime::{InstancePre, ModuleExport};

use super::call::CallState;
use super::check::{self, Rejection};
use super::engine::Engine;
use super::metadata::Metadata;
use super::outcome::HostFault;
use super::stack;
use crate::ids::ModuleHash;
use crate::measure::RunMeter;

/// A checked, instrumented and compiled module. Cheap to clone.
#[derive(Clone)]
pub struct Module {
    pub(super) engine: Engine,
    pub(super) compiled: Arc<Compiled>,
}

/// How a method runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodKind {
    /// Through the log, on every replica, and may write.
    Command,
    /// On one replica, against a snapshot, and may not.
    Query,
}

/// A method that a module serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// Full gRPC path: `/package.Service/Method`.
    pub path: String,
    /// Command or query.
    pub kind: MethodKind,
    /// Whether its answer is a stream of messages; queries only.
    pub streaming: bool,
    /// Position in the module's method table: what `balsa_call` gets.
    pub index: u32,
}

/// What loading makes of a module's bytes.
pub(super) struct Compiled {
    pub(super) hash: ModuleHash,
    /// Bytes of wasm, as the author built it.
    pub(super) size: usize,
    pub(super) metadata: Metadata,
    pub(super) methods: Vec<Method>,
    /// Of each method.
    pub(super) meters: Vec<Arc<RunMeter>>,
    pub(super) paths: BTreeMap<String, usize>,
    pub(super) descriptors: DescriptorPool,
    pub(super) instance: InstancePre<CallState>,
    pub(super) exports: Exports,
}

/// Exports, found once so that a call need not look names up.
pub(super) struct Exports {
    pub(super) memory: ModuleExport,
    pub(super) call: ModuleExport,
    pub(super) initialize: Option<ModuleExport>,
    pub(super) init: Option<ModuleExport>,
    pub(super) migrate: Option<ModuleExport>,
    pub(super) stack: ModuleExport,
}

impl Module {
    /// Checks `wasm`, compiles it, and starts it once on an empty state.
    ///
    /// Takes some tens of milliseconds for each 100 KB of code; the same bytes again, on the same engine, take none.
    pub fn load(engine: &Engine, wasm: &[u8]) -> Result<Self, Rejection> {
        check::size(wasm)?;
        let hash = ModuleHash::of(wasm);
        if let Some(module) = Self::compiled(engine, hash) {
            return Ok(module);
        }
        let module = Self { engine: engine.clone(), compiled: Arc::new(Compiled::new(engine, hash, wasm)?) };
        module.start_up()?;
        engine.keep(module.compiled.clone());
        Ok(module)
    }

    /// The module with this hash, if it was loaded on this engine lately.
    pub fn compiled(engine: &Engine, hash: ModuleHash) -> Option<Self> {
        Some(Self { compiled: engine.compiled(hash)?, engine: engine.clone() })
    }

    /// The hash of the bytes it was loaded from: as the author built them, before any instrumentation.
    pub fn hash(&self) -> ModuleHash {
        self.compiled.hash
    }

    /// How many bytes those are.
    pub fn size(&self) -> usize {
        self.compiled.size
    }

    /// Whether it prepares the state of a name that is new.
    pub fn has_init(&self) -> bool {
        self.compiled.exports.init.is_some()
    }

    /// Whether it has something to do with the state of a module whose place it takes.
    pub fn has_migrate(&self) -> bool {
        self.compiled.exports.migrate.is_some()
    }

    /// Its name, as it gives it.
    pub fn name(&self) -> &str {
        &self.compiled.metadata.name
    }

    /// Its version, as it gives it.
    pub fn version(&self) -> &str {
        &self.compiled.metadata.version
    }

    /// What built it, for people; may be empty.
    pub fn sdk(&self) -> &str {
        &self.compiled.metadata.sdk
    }

    /// What it serves, in the order of its method table.
    pub fn methods(&self) -> &[Method] {
        &self.compiled.methods
    }

    /// The method at a full gRPC path.
    pub fn method(&self, path: &str) -> Option<&Method> {
        self.compiled.paths.get(path).map(|at| &self.compiled.methods[*at])
    }

    /// What was measured of `method`, which is one of its own.
    pub fn meter(&self, method: &Method) -> &Arc<RunMeter> {
        &self.compiled.meters[method.index as usize]
    }

    /// Its protobuf types and services.
    pub fn descriptors(&self) -> &DescriptorPool {
        &self.compiled.descriptors
    }

    /// The same, as the encoded `google.protobuf.FileDescriptorSet` that it carries.
    pub fn file_descriptor_set(&self) -> &[u8] {
        &self.compiled.metadata.file_descriptor_set
    }
}

impl Compiled {
    fn new(engine: &Engine, hash: ModuleHash, wasm: &[u8]) -> Result<Self, Rejection> {
        let checked = check::check(wasm, engine.shared.memory_bytes_max)?;
        let instrumented = stack::instrument(wasm, &checked.frames).map_err(Rejection::instrument)?;
        let module = compile(&engine.shared.wasmtime, &instrumented)?;
        // The imports were compared with the host's already.
        let instance = engine.shared.linker.instantiate_pre(&module).map_err(|error| cannot_load(&error))?;
        let (meters, name) = (&engine.shared.meters, &checked.metadata.name);
        let meters = checked.methods.iter().map(|method| meters.of(name, &method.path)).collect();
        let paths = checked.methods.iter().enumerate().map(|(at, method)| (method.path.clone(), at)).collect();
        Ok(Self {
            hash,
            size: wasm.len(),
            metadata: checked.metadata,
            methods: checked.methods,
            meters,
            paths,
            descriptors: checked.descriptors,
            exports: Exports::of(&module),
            instance,
        })
    }
}

/// Compiles `wasm` and puts the code where it can run.
///
/// The first can be the module's fault, and then is so on every node; the second is this node's alone, since [`check`] has made
/// sure that an instance fits the pool. wasmtime does both in one step and its error does not say which of them failed, so the
/// first is tried once more by itself.
fn compile(engine: &wasmtime::Engine, wasm: &[u8]) -> Result<wasmtime::Module, Rejection> {
    wasmtime::Module::from_binary(engine, wasm).map_err(|error| match engine.precompile_module(wasm) {
        Ok(_) => cannot_load(&error),
        Err(error) if error.is::<wasmtime::OutOfMemory>() => cannot_load(&error),
        Err(error) => Rejection::compile(&error),
    })
}

fn cannot_load(error: &wasmtime::Error) -> Rejection {
    HostFault(format!("compiled code cannot be loaded: {error:#}")).into()
}

impl Method {
    /// What `descriptors`, its module's, say of it.
    pub fn described(&self, descriptors: &DescriptorPool) -> Option<MethodDescriptor> {
        let (service, name) = self.path.strip_prefix('/')?.split_once('/')?;
        descriptors.get_service_by_name(service)?.methods().find(|method| method.name() == name)
    }
}

impl Exports {
    fn of(module: &wasmtime::Module) -> Self {
        let export = |name| module.get_export_index(name).expect("checked, or added by `stack`");
        Self {
            memory: export("memory"),
            call: export("balsa_call"),
            initialize: module.get_export_index("_initialize"),
            init: module.get_export_index("balsa_init"),
            migrate: module.get_export_index("balsa_migrate"),
            stack: export(stack::EXPORT),
        }
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Module({} {} {})", self.name(), self.version(), self.hash().short())
    }
}
