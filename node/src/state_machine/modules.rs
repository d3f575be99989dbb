//! The replicated registry: which module serves which method, from which log index on.
//!
//! A row says that a module is active, its generation is the log index of its activation, and its wasm lies beside it; all
//! three are in the state, so a snapshot brings everything a new node needs. Compiled code is this node's own and is
//! made anew at start.
//!
//! A module's name is the name it was activated under; that is its key space. A service belongs to one module: a second one that
//! claims a service already served is refused.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use prost::Message;

use super::Fault;
use crate::ids::ModuleHash;
use crate::limits::METHOD_BYTES_MAX;
use crate::proto::command as pb;
use crate::service::{Active, Catalog};
use crate::storage::ReadView;
use crate::storage::keys::{self, Key, MODULE_NAME_BYTES_MAX};
use crate::wasm::{Engine, LogLine, Method, Module};

/// A module that serves.
#[derive(Debug, Clone)]
pub struct ActiveModule {
    /// The log index of its activation.
    pub generation: u64,
    /// Its code.
    pub module: Module,
}

/// All modules that serve, by name.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    active: BTreeMap<String, ActiveModule>,
}

impl Registry {
    /// The registry in `view`, compiled; what `known` has compiled already is taken from there.
    pub(super) fn load(engine: &Engine, view: &ReadView, known: &Self) -> Result<Self, Fault> {
        let mut active = BTreeMap::new();
        for row in rows(view)? {
            let hash =
                ModuleHash::try_from(&row.hash[..]).map_err(|_| Fault::corrupt(format!("module {}", row.name)))?;
            let module = match known.compiled(hash) {
                Some(module) => module.clone(),
                None => compile(engine, view, &row.name, hash)?,
            };
            active.insert(row.name, ActiveModule { generation: row.generation, module });
        }
        Ok(Self { active })
    }

    /// Who serves `path`: the name, the module and the method.
    pub fn resolve(&self, path: &str) -> Option<(&str, &ActiveModule, &Method)> {
        self.active.iter().find_map(|(name, active)| Some((name.as_str(), active, active.module.method(path)?)))
    }

    /// The module called `name`.
    pub fn get(&self, name: &str) -> Option<&ActiveModule> {
        self.active.get(name)
    }

    /// All of them, ascending by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ActiveModule)> {
        self.active.iter().map(|(name, active)| (name.as_str(), active))
    }

    /// Whether none is active: the genesis entry is not applied yet.
    pub fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// As the front end wants it.
    pub(super) fn catalog(&self) -> Catalog {
        let modules = self.active.values();
        Catalog { modules: modules.map(|a| Active { module: a.module.clone(), generation: a.generation }).collect() }
    }

    /// This registry with `module` active as `name` since `generation`.
    pub(super) fn with(&self, name: &str, module: Module, generation: u64) -> Self {
        let mut active = self.active.clone();
        active.insert(name.to_owned(), ActiveModule { generation, module });
        Self { active }
    }

    /// Why `module` cannot be active as `name` beside the others, in words; `None` if it can.
    pub(super) fn objection(&self, name: &str, module: &Module) -> Option<String> {
        if name.is_empty() || name.len() > MODULE_NAME_BYTES_MAX {
            return Some(format!("a module's name has 1 to {MODULE_NAME_BYTES_MAX} bytes"));
        }
        if let Some(method) = module.methods().iter().find(|method| method.path.len() > METHOD_BYTES_MAX) {
            return Some(format!("the path of method {} is longer than {METHOD_BYTES_MAX} bytes", method.path));
        }
        let others = || self.active.iter().filter(|(other, _)| *other != name);
        module.methods().iter().map(|method| service(&method.path)).find_map(|wanted| {
            let serves = |active: &ActiveModule| active.module.methods().iter().any(|m| service(&m.path) == wanted);
            let (other, _) = others().find(|(_, active)| serves(active))?;
            Some(format!("service {wanted} is already served by module {other}"))
        })
    }

    fn compiled(&self, hash: ModuleHash) -> Option<&Module> {
        self.active.values().map(|active| &active.module).find(|module| module.hash() == hash)
    }
}

/// The value for [`Key::Module`].
pub(super) fn encode_row(name: &str, module: &Module, generation: u64) -> Vec<u8> {
    let row = pb::ActiveModule {
        name: name.to_owned(),
        generation,
        hash: module.hash().0.to_vec().into(),
        version: module.version().to_owned(),
        ..pb::ActiveModule::default()
    };
    row.encode_to_vec()
}

/// Hands what a module logged to this node's log. Replicas each log it; so does a replay after a restart.
pub(super) fn log(name: &str, method: &str, lines: &[LogLine]) {
    for LogLine { level, text } in lines {
        match level {
            1 => tracing::error!(target: "balsa::module", module = name, method, "{text}"),
            2 => tracing::warn!(target: "balsa::module", module = name, method, "{text}"),
            3 => tracing::info!(target: "balsa::module", module = name, method, "{text}"),
            4 => tracing::debug!(target: "balsa::module", module = name, method, "{text}"),
            _ => tracing::trace!(target: "balsa::module", module = name, method, "{text}"),
        }
    }
}

fn rows(view: &ReadView) -> Result<Vec<pb::ActiveModule>, Fault> {
    let (start, end) = keys::modules();
    let mut rows = Vec::new();
    view.each(&start, |key, value| {
        if key >= end.as_slice() {
            return ControlFlow::Break(());
        }
        rows.push(pb::ActiveModule::decode(value).map_err(|error| Fault::corrupt(format!("module row: {error}"))));
        ControlFlow::Continue(())
    })?;
    rows.into_iter().collect()
}

fn compile(engine: &Engine, view: &ReadView, name: &str, hash: ModuleHash) -> Result<Module, Fault> {
    let wasm = view.get(&Key::Wasm(name).encode())?;
    let wasm = wasm.ok_or_else(|| Fault::corrupt(format!("module {name} has no code")))?;
    if ModuleHash::of(&wasm) != hash {
        return Err(Fault::corrupt(format!("the code of module {name} is not what was activated")));
    }
    Module::load(engine, &wasm).map_err(|why| Fault::Module { name: name.to_owned(), why })
}

/// `/kvstore.v1.KvStore/Put` belongs to `kvstore.v1.KvStore`.
fn service(path: &str) -> &str {
    let path = path.trim_start_matches('/');
    path.split_once('/').map_or(path, |(service, _)| service)
}
