//! The replicated registry: which module serves which method, from which log index on.
//!
//! A row says that a module is active, its generation is the log index of its activation, and its wasm lies beside it, in
//! parts; all of it is in the state, so a snapshot brings everything a new node needs. Compiled code is this node's own and is
//! made anew at start. A module that was stopped keeps its row, its code and its state, and serves nothing.
//!
//! A module's name is the name it was activated under; that is its key space. A service belongs to one module: a second one that
//! claims a service already served is refused. What becomes of a module in time is told in [`super::life`].

use std::collections::BTreeMap;

use super::uploads::{self, decode_rows, hash_of};
use super::{Fault, settings};
use crate::ids::ModuleHash;
use crate::limits::{Fuel, METHOD_BYTES_MAX, Replicated};
use crate::proto::command as pb;
use crate::service::{Active, Catalog};
use crate::storage::ReadView;
use crate::storage::keys::{self, MODULE_NAME_BYTES_MAX};
use crate::wasm::{Engine, Method, Module};

/// A module that serves.
#[derive(Debug, Clone)]
pub struct ActiveModule {
    /// The log index of its activation.
    pub generation: u64,
    /// Its code.
    pub module: Module,
    /// Its own fuel, instead of the limits'.
    pub fuel: Fuel,
}

/// All modules that have state here, by name.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    /// Of those that serve and of those that do not.
    rows: BTreeMap<String, pb::ActiveModule>,
    /// Those that serve.
    active: BTreeMap<String, ActiveModule>,
}

impl ActiveModule {
    fn of(row: &pb::ActiveModule, module: Module) -> Self {
        Self { generation: row.generation, module, fuel: row.fuel.unwrap_or_default().into() }
    }

    /// Fuel of one command.
    pub fn command_fuel(&self, limits: &Replicated) -> u64 {
        self.fuel.command.map_or(limits.command_fuel, settings::clamp_command_fuel)
    }

    /// Fuel of one query.
    pub fn query_fuel(&self, limits: &Replicated) -> u64 {
        self.fuel.query.map_or(limits.query_fuel, settings::clamp_query_fuel)
    }
}

impl Registry {
    /// The registry in `view`, compiled; what `known` has compiled already is taken from there.
    pub(super) fn load(engine: &Engine, view: &ReadView, known: &Self) -> Result<Self, Fault> {
        let (start, end) = keys::modules();
        let mut registry = Self::default();
        for row in decode_rows::<pb::ActiveModule>(view, &start, &end)? {
            let hash = hash_of(&row.hash)?;
            if row.serving() == pb::Serving::Serving {
                let module = match known.compiled(hash) {
                    Some(module) => module.clone(),
                    None => compile(engine, view, &row, hash)?,
                };
                registry.active.insert(row.name.clone(), ActiveModule::of(&row, module));
            }
            registry.rows.insert(row.name.clone(), row);
        }
        Ok(registry)
    }

    /// Who serves `path`: the name, the module and the method.
    pub fn resolve(&self, path: &str) -> Option<(&str, &ActiveModule, &Method)> {
        self.active.iter().find_map(|(name, active)| Some((name.as_str(), active, active.module.method(path)?)))
    }

    /// The module called `name`, if it serves.
    pub fn get(&self, name: &str) -> Option<&ActiveModule> {
        self.active.get(name)
    }

    /// All that serve, ascending by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ActiveModule)> {
        self.active.iter().map(|(name, active)| (name.as_str(), active))
    }

    /// The row of the module called `name`, whether it serves or not.
    pub fn row(&self, name: &str) -> Option<&pb::ActiveModule> {
        self.rows.get(name)
    }

    /// All rows, ascending by name.
    pub fn rows(&self) -> impl Iterator<Item = &pb::ActiveModule> {
        self.rows.values()
    }

    /// The size of the code with this hash, if a module has it, whether it serves or not.
    pub(super) fn size_of(&self, hash: ModuleHash) -> Option<u64> {
        self.rows.values().find(|row| row.hash == hash.0[..]).map(|row| row.size)
    }

    /// Whether none is active: the genesis entry is not applied yet, or all were stopped.
    pub fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// As the front end wants it.
    pub(super) fn catalog(&self) -> Catalog {
        let modules = self.active.values();
        Catalog { modules: modules.map(|a| Active { module: a.module.clone(), generation: a.generation }).collect() }
    }

    /// This registry with `module` serving as `row` says.
    pub(super) fn with(&self, row: pb::ActiveModule, module: Module) -> Self {
        let mut next = self.clone();
        next.active.insert(row.name.clone(), ActiveModule::of(&row, module));
        next.rows.insert(row.name.clone(), row);
        next
    }

    /// This registry with a module that does not serve (any more), as `row` says.
    pub(super) fn without(&self, row: pb::ActiveModule) -> Self {
        let mut next = self.clone();
        next.active.remove(&row.name);
        next.rows.insert(row.name.clone(), row);
        next
    }

    /// This registry without a trace of `name`.
    pub(super) fn forgotten(&self, name: &str) -> Self {
        let mut next = self.clone();
        next.active.remove(name);
        next.rows.remove(name);
        next
    }

    /// Why `module` cannot be called `name`, in words; `None` if it can.
    pub fn misnamed(name: &str, module: &Module) -> Option<String> {
        if name.is_empty() || name.len() > MODULE_NAME_BYTES_MAX {
            return Some(format!("a module's name has 1 to {MODULE_NAME_BYTES_MAX} bytes"));
        }
        let long = module.methods().iter().find(|method| method.path.len() > METHOD_BYTES_MAX)?;
        Some(format!("the path of method {} is longer than {METHOD_BYTES_MAX} bytes", long.path))
    }

    /// A service of `module` that another module than `name` serves, in words; `None` if there is none.
    pub fn taken(&self, name: &str, module: &Module) -> Option<String> {
        let others = || self.active.iter().filter(|(other, _)| *other != name);
        module.methods().iter().map(|method| service(&method.path)).find_map(|wanted| {
            let serves = |active: &ActiveModule| active.module.methods().iter().any(|m| service(&m.path) == wanted);
            let (other, _) = others().find(|(_, active)| serves(active))?;
            Some(format!("service {wanted} is claimed by module {name} and served by module {other} already"))
        })
    }

    fn compiled(&self, hash: ModuleHash) -> Option<&Module> {
        self.active.values().map(|active| &active.module).find(|module| module.hash() == hash)
    }
}

fn compile(engine: &Engine, view: &ReadView, row: &pb::ActiveModule, hash: ModuleHash) -> Result<Module, Fault> {
    let wasm = uploads::assemble(hash, row.size, |key| view.get(key))?;
    let wasm =
        wasm.ok_or_else(|| Fault::corrupt(format!("the code of module {} is not what was activated", row.name)))?;
    Module::load(engine, &wasm).map_err(|why| Fault::Module { name: row.name.clone(), why })
}

/// `/kvstore.v1.KvStore/Put` belongs to `kvstore.v1.KvStore`.
fn service(path: &str) -> &str {
    let path = path.trim_start_matches('/');
    path.split_once('/').map_or(path, |(service, _)| service)
}
