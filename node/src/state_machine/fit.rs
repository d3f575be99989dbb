//! Whether a module may take its place in a state: what the leader asks before it brings one into the log, and what
//! `balsa module try` asks of a backup.
//!
//! It is advice, not law: `apply` itself refuses only what would break the registry. So it may look at all that is known,
//! compare descriptors, and change from release to release.

use super::{Registry, View};
use crate::ids::ModuleHash;
use crate::proto::command as pb;
use crate::wasm::{HostFault, Module, compat};

/// What speaks against a module, as far as this state tells.
#[derive(Debug)]
pub enum Fit {
    /// Nothing.
    Fits,
    /// This, in words.
    Objection(String),
    /// Whatever clients of this one would notice: see [`broken`].
    Unlike(pb::ActiveModule),
}

impl View {
    /// What speaks against `module` as the one called `name`: its name, what other modules serve, the state.
    pub fn fit(&self, name: &str, module: &Module, allow_breaking: bool) -> Result<Fit, HostFault> {
        if let Some(misfit) = self.misfit(name, module) {
            return Ok(Fit::Objection(misfit));
        }
        let Some(row) = self.registry().row(name) else { return Ok(Fit::Fits) };
        if allow_breaking || row.hash == module.hash().0[..] {
            return Ok(Fit::Fits);
        }
        if row.migrated && !module.has_migrate() {
            return Ok(Fit::Objection(format!(
                "{name} {} migrated its state when it was activated, and {} has no migrate: it may not understand that \
                 state; give it a migrate, or allow_breaking = true",
                row.version,
                module.version()
            )));
        }
        let again = served_before(&self.history(Some(name))?, module.hash());
        Ok(if again { Fit::Fits } else { Fit::Unlike(row.clone()) })
    }

    fn misfit(&self, name: &str, module: &Module) -> Option<String> {
        if module.name() != name {
            return Some(format!(
                "the file holds a module called {:?}, and [[module]] calls it {name:?}; the names must be the same",
                module.name()
            ));
        }
        Registry::misnamed(name, module).or_else(|| self.registry().taken(name, module))
    }
}

/// Whether clients have had these very bytes before, by the history of the module that they are to be: going back breaks no promise that was
/// not broken already.
pub fn served_before(history: &[pb::Activation], hash: ModuleHash) -> bool {
    let activated = |row: &&pb::Activation| matches!(row.outcome, Some(pb::activation::Outcome::Activated(_)));
    history.iter().filter(activated).any(|row| row.hash == hash.0[..])
}

/// What clients of `old` would notice, in words; `None`: nothing.
pub fn broken(name: &str, old: &Module, new: &Module) -> Option<String> {
    let differences = compat::differences(old, new);
    if differences.is_empty() {
        return None;
    }
    let list: Vec<_> = differences.iter().map(|difference| format!("\n- {difference}")).collect();
    Some(format!(
        "{name} {} would break clients of {}:{}\nkeep what they use, or set allow_breaking = true",
        new.version(),
        old.version(),
        list.concat()
    ))
}
