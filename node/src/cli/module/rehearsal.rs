//! What would happen if a module took its place in the state of a backup: done for real, on a copy.
//!
//! The backup becomes a state database in a temporary directory, as it would on a node that receives it as a snapshot, with
//! every checksum verified and its modules compiled. Then the same questions are asked that a leader asks, and
//! `balsa_init` or `balsa_migrate` runs as `apply` would run it, in an overlay that nobody commits. The directory goes with
//! the rehearsal.

use std::path::Path;
use std::time::{Duration, Instant};

use super::Error;
use crate::cli::backup::{Backup, BackupHeader, stream_error};
use crate::command::Outcome;
use crate::ids::ModuleHash;
use crate::limits::Replicated;
use crate::proto::command as pb;
use crate::state_machine::{Fit, Options, SnapshotError, StateMachine, View, broken};
use crate::storage::Txn;
use crate::storage::keys::{self, Key};
use crate::wasm::{Context, Engine, Finished, LogLine, Module, Transition};

/// Memory for the database's pages.
const CACHE_BYTES: usize = 64 * 1024 * 1024;
/// Rows that are shown of all that changed.
const EXAMPLES_MAX: usize = 5;

/// A state that was opened to be tried on.
pub(super) struct Stage {
    pub(super) header: BackupHeader,
    engine: Engine,
    machine: StateMachine,
}

/// What would happen.
pub(super) struct Rehearsal {
    pub(super) module: Module,
    /// What it would replace, or go on from.
    pub(super) before: Option<pb::ActiveModule>,
    /// Why it would be refused before anything runs.
    pub(super) objection: Option<String>,
    /// `None` if nothing runs: it is refused before, exports nothing for this, or is the code that is there.
    pub(super) transition: Option<Ran>,
    pub(super) index: u64,
    pub(super) limits: Replicated,
}

/// What `balsa_init` or `balsa_migrate` did.
pub(super) struct Ran {
    /// `init` or `migrate`.
    pub(super) what: &'static str,
    pub(super) outcome: Outcome,
    pub(super) trap_detail: Option<String>,
    pub(super) fuel: u64,
    pub(super) took: Duration,
    pub(super) writes: u64,
    pub(super) written_bytes: u64,
    pub(super) rows: Rows,
    pub(super) logs: Vec<LogLine>,
}

/// What its writes amount to.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) added: u64,
    pub(super) changed: u64,
    pub(super) deleted: u64,
    /// Written as they were.
    pub(super) same: u64,
    pub(super) examples: Vec<Example>,
}

/// One row, before and after; the key is the module's own.
pub(super) struct Example {
    pub(super) key: Vec<u8>,
    pub(super) before: Option<Vec<u8>>,
    pub(super) after: Option<Vec<u8>>,
}

impl Stage {
    /// Opens `backup` in `directory`, which must be empty.
    pub(super) fn open(path: &Path, directory: &Path, engine: Engine) -> Result<Self, Error> {
        let backup = Backup::open(path)?;
        let header = backup.header.clone();
        let options = Options { cache_bytes: CACHE_BYTES, ..Options::new(directory) };
        let mut machine = StateMachine::open(engine.clone(), options)?;
        let fault = |error: SnapshotError| Error::from(stream_error(path)(error));
        let mut writer = machine.receiver().begin().map_err(fault)?;
        backup.read(&mut |piece| writer.write(piece))?;
        machine.install(writer.finish().map_err(fault)?)?;
        Ok(Self { header, engine, machine })
    }

    /// Has `module` take its place, and says what came of it.
    pub(super) fn rehearse(&self, module: Module, allow_breaking: bool) -> Result<Rehearsal, Error> {
        let view = self.machine.reader().view();
        let before = view.registry().row(module.name()).cloned();
        let objection = self.objection(&view, &module, allow_breaking)?;
        let same = before.as_ref().is_some_and(|row| row.hash == module.hash().0[..]);
        let has_something = if before.is_some() { module.has_migrate() } else { module.has_init() };
        let transition = match objection.is_none() && !same && has_something {
            true => Some(run(&view, &module, before.as_ref())?),
            false => None,
        };
        Ok(Rehearsal { module, before, objection, transition, index: view.index(), limits: *view.limits() })
    }

    fn objection(&self, view: &View, module: &Module, allow_breaking: bool) -> Result<Option<String>, Error> {
        let row = match view.fit(module.name(), module, allow_breaking)? {
            Fit::Fits => return Ok(None),
            Fit::Objection(why) => return Ok(Some(why)),
            Fit::Unlike(row) => row,
        };
        let damaged = || Error::Backup(format!("the code of {} {} is not in it", row.name, row.version));
        let hash = ModuleHash::try_from(&row.hash[..]).map_err(|_| damaged())?;
        let wasm = view.wasm(hash)?.ok_or_else(damaged)?;
        let old = Module::load(&self.engine, &wasm).map_err(|_| damaged())?;
        Ok(broken(module.name(), &old, module))
    }
}

/// As `apply` does it, at the index after the backup's.
fn run(view: &View, module: &Module, before: Option<&pb::ActiveModule>) -> Result<Ran, Error> {
    let (progress, limits) = (view.progress(), view.limits());
    let transition = Transition {
        from: before.map(|row| row.version.clone()),
        context: Context { index: view.index() + 1, time_ms: progress.time_ms, random: progress.digest.0 },
        fuel: limits.migrate_fuel,
        memory_bytes: limits.memory_bytes,
        writes_max: limits.migrate_writes,
        bytes_max: limits.migrate_bytes,
    };
    let mut txn = Txn::new(view.state().clone());
    let state = txn.lend(module.name());
    let begun = Instant::now();
    let finished = module.transition(transition, state)?;
    let took = begun.elapsed();
    let Finished { outcome, fuel_used, trap_detail, logs, writes, written_bytes, state, .. } = finished;
    txn.take_back(state);
    let what = if before.is_some() { "migrate" } else { "init" };
    let rows = if matches!(outcome, Outcome::Ok(_)) { rows(view, txn, module.name())? } else { Rows::default() };
    Ok(Ran { what, outcome, trap_detail, fuel: fuel_used, took, writes, written_bytes, rows, logs })
}

/// Compares what was written with what was there.
fn rows(view: &View, mut txn: Txn, name: &str) -> Result<Rows, Error> {
    let mut written = Vec::new();
    txn.merge(|key, value| written.push((key.to_vec(), value.map(<[u8]>::to_vec))));
    let prefix = keys::state_prefix(name).len();
    let mut rows = Rows::default();
    for (key, after) in written {
        debug_assert!(matches!(Key::decode(&key), Some(Key::State { .. })), "a module writes nothing else");
        let before = view.state().get(&key).map_err(|error| Error::Backup(error.to_string()))?;
        match (&before, &after) {
            (before, after) if before == after => rows.same += 1,
            (None, _) => rows.added += 1,
            (Some(_), Some(_)) => rows.changed += 1,
            (Some(_), None) => rows.deleted += 1,
        }
        if before != after && rows.examples.len() < EXAMPLES_MAX {
            rows.examples.push(Example { key: key[prefix..].to_vec(), before, after });
        }
    }
    Ok(rows)
}

impl Rehearsal {
    /// Whether it would be activated.
    pub(super) fn is_good(&self) -> bool {
        let failed = |ran: &Ran| !matches!(ran.outcome, Outcome::Ok(_));
        self.objection.is_none() && !self.transition.as_ref().is_some_and(failed)
    }
}

impl Ran {
    /// Milliseconds of one million fuel, on this machine; `None` if it used less than that, when the figure would say more about
    /// the start than about the fuel.
    pub(super) fn ms_per_million_fuel(&self) -> Option<f64> {
        (self.fuel >= 1_000_000).then(|| self.took.as_secs_f64() * 1e3 / (self.fuel as f64 / 1e6))
    }
}
