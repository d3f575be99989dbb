//! `balsa module check FILE`: whether a node would take the module, by the node's own check.
//!
//! That is `Module::load`: imports, exports, descriptors, sizes, memory, what of WebAssembly it uses (which is what makes
//! it deterministic), compiling it, and starting it once. The first thing that is wrong is what is reported, with what
//! would mend it. Warnings are about modules that a node would take, and that their authors may not have meant.
//!
//! With something to compare with, a file or what the cluster serves under the same name, it also says what clients of that one
//! would notice: the same comparison that a leader makes before it activates a module.

use std::ops::ControlFlow;
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::json;

use super::file::ModuleFile;
use super::{Console, Error, Exit, Format};
use crate::cli::Session;
use crate::ids::ModuleHash;
use crate::state_machine::{CodeFinder, served_before};
use crate::wasm::{Engine, Inspection, Method, MethodKind, Module, Rejection, compat};

/// What a ConfigMap of Kubernetes holds, bytes.
const CONFIG_MAP_BYTES_MAX: usize = 1024 * 1024;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The module: a .wasm file, or a .wasm.zst
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Also say what clients of this older version would notice
    #[arg(long, value_name = "FILE", conflicts_with = "against_cluster")]
    against: Option<PathBuf>,
    /// Also say what clients of the version that the cluster serves would notice
    #[arg(long)]
    pub(super) against_cluster: bool,
}

/// What came of it.
struct Verdict {
    /// The module, or why it is refused.
    module: Result<Module, Rejection>,
    /// What clients of the other one would notice; `None`: there is no other one.
    differences: Option<Vec<String>>,
    /// It goes back to what clients have had.
    served_before: bool,
    warnings: Vec<String>,
}

/// What it is compared with.
enum Other {
    None,
    Is(Bytes),
    /// Nothing, as a leader compares nothing then.
    ServedBefore,
}

/// With what the cluster serves.
pub(super) async fn run_against_cluster(args: &Check, session: &mut Session<'_>) -> Result<Exit, super::super::Error> {
    let file = ModuleFile::read(&args.file, &session.console.directory)?;
    let other = match Inspection::of(&file.wasm) {
        Ok(inspection) => {
            let history = session.client.module_history(&inspection.name).await?;
            match served_before(&history, ModuleHash::of(&file.wasm)) {
                true => Other::ServedBefore,
                false => Other::Is(active(&inspection.name, session).await?),
            }
        }
        // The check will say what is wrong with it.
        Err(_) => Other::None,
    };
    finish(&file, &other, session.format, session.console)
}

/// The code of the module that the cluster has under `name`: a backup begins with it.
async fn active(name: &str, session: &Session<'_>) -> Result<Bytes, super::super::Error> {
    let (mut finder, mut failed) = (CodeFinder::new(name), None);
    let mut take = |chunk: Bytes| {
        finder.write(&chunk).unwrap_or_else(|error| {
            failed = Some(Error::Backup(error.to_string()));
            ControlFlow::Break(())
        })
    };
    session.client.backup(&mut take).await.map_err(super::error::of_operator)?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(finder.finish().ok_or_else(|| Error::NothingThere(name.into()))?),
    }
}

pub(super) fn run(args: &Check, format: Format, console: &mut Console) -> Result<Exit, super::super::Error> {
    let file = ModuleFile::read(&args.file, &console.directory)?;
    let other = match &args.against {
        Some(path) => Other::Is(ModuleFile::read(path, &console.directory)?.wasm.into()),
        None => Other::None,
    };
    finish(&file, &other, format, console)
}

fn finish(
    file: &ModuleFile,
    other: &Other,
    format: Format,
    console: &mut Console,
) -> Result<Exit, super::super::Error> {
    let verdict = super::on_a_deep_stack(|| verdict(file, other))?;
    match format {
        Format::Json => console.json(&to_json(&verdict, file))?,
        Format::Text => print(&verdict, file, console)?,
    }
    Ok(if verdict.is_good() { Exit::Ok } else { Exit::No })
}

fn verdict(file: &ModuleFile, other: &Other) -> Result<Verdict, Error> {
    let engine = super::engine()?;
    let module = match Module::load(&engine, &file.wasm) {
        Err(Rejection::Host(fault)) => return Err(fault.into()),
        loaded => loaded,
    };
    let differences = match (other, &module) {
        (Other::Is(old), Ok(module)) => Some(differences(&engine, old, module)?),
        _ => None,
    };
    let mut warnings = module.as_ref().map(warnings_about).unwrap_or_default();
    warnings.extend(file_warning(file));
    Ok(Verdict { module, differences, served_before: matches!(other, Other::ServedBefore), warnings })
}

/// What clients of `old` would notice if `new` took its place; nothing where that cannot be told.
pub(in crate::cli) fn notices(old: &[u8], new: &[u8]) -> Vec<String> {
    let compare = || {
        let engine = super::engine()?;
        match Module::load(&engine, new) {
            Ok(new) => differences(&engine, old, &new),
            Err(_) => Ok(Vec::new()),
        }
    };
    super::on_a_deep_stack(compare).unwrap_or_default()
}

fn differences(engine: &Engine, old: &[u8], new: &Module) -> Result<Vec<String>, Error> {
    let old = Module::load(engine, old).map_err(|why| Error::Old { why: why.into() })?;
    Ok(compat::differences(&old, new).iter().map(ToString::to_string).collect())
}

impl Verdict {
    fn is_good(&self) -> bool {
        self.module.is_ok() && self.differences.as_ref().is_none_or(Vec::is_empty)
    }
}

/// What its author may not have meant.
pub(super) fn warnings_about(module: &Module) -> Vec<String> {
    let suspects = module.methods().iter().filter(|method| is_suspect(method));
    let warn = |method: &Method| {
        let path = method_name(method);
        let name = path.rsplit('/').next().unwrap_or(path);
        format!(
            "{path} is a command, so each call of it goes through the log; if it changes nothing, say so in its .proto: \
             rpc {name}(..) returns (..) {{ option idempotency_level = NO_SIDE_EFFECTS; }}"
        )
    };
    suspects.map(warn).collect()
}

/// `package.Service/Method`
fn method_name(method: &Method) -> &str {
    method.path.trim_start_matches('/')
}

fn is_suspect(method: &Method) -> bool {
    let name = method.path.rsplit('/').next().unwrap_or_default();
    method.kind == MethodKind::Command && sounds_like_a_query(name)
}

fn file_warning(file: &ModuleFile) -> Option<String> {
    let hint = if file.is_compressed() { "" } else { "; `zstd -19` makes a .wasm.zst, which is taken as well" };
    let bytes = file.file_bytes;
    (bytes > CONFIG_MAP_BYTES_MAX)
        .then(|| format!("the file has {bytes} bytes, and a ConfigMap holds no more than 1 MiB{hint}"))
}

/// `Get`, `GetTotal`, `ListAll`; not `Getaway`.
fn sounds_like_a_query(method: &str) -> bool {
    ["Get", "List"].iter().any(|verb| {
        method.strip_prefix(verb).is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_lowercase()))
    })
}

fn print(verdict: &Verdict, file: &ModuleFile, console: &mut Console) -> Result<(), super::super::Error> {
    match &verdict.module {
        Ok(module) => {
            let (count, size) = (module.methods().len(), file.wasm.len());
            let methods = if count == 1 { "1 method".into() } else { format!("{count} methods") };
            let (name, version, hash) = (module.name(), module.version(), module.hash().short());
            console
                .line(format!("{name} {version} {hash}: {methods}, {size} bytes; it starts, and a node takes it"))?;
        }
        Err(why) => console.line(console.paint_bad(&format!("{} is refused: {why}", file.path.display())))?,
    }
    match verdict.differences.as_deref() {
        None if verdict.served_before => {
            console.line("clients have had these very bytes before, so nobody compares what they would notice")?;
        }
        None => {}
        Some([]) => console.line("clients of the other version would notice nothing")?,
        Some(differences) => {
            console.line("clients of the other version would notice:")?;
            for difference in differences {
                console.line(console.paint_bad(&format!("- {difference}")))?;
            }
        }
    }
    for warning in &verdict.warnings {
        console.line(console.paint_careful(&format!("warning: {warning}")))?;
    }
    console.line(if verdict.is_good() { console.paint_good("OK") } else { console.paint_bad("NOT OK") })
}

fn to_json(verdict: &Verdict, file: &ModuleFile) -> serde_json::Value {
    let module = verdict.module.as_ref().ok();
    json!({
        "ok": verdict.is_good(),
        "problem": verdict.module.as_ref().err().map(ToString::to_string),
        "name": module.map(Module::name),
        "version": module.map(Module::version),
        "hash": module.map(|module| module.hash().to_string()),
        "size": file.wasm.len(),
        "differences": verdict.differences,
        "served_before": verdict.served_before,
        "warnings": verdict.warnings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_get_and_list_as_words_sound_like_queries() {
        for (name, sounds) in
            [("Get", true), ("GetTotal", true), ("List2", true), ("Getaway", false), ("Target", false)]
        {
            assert_eq!(sounds_like_a_query(name), sounds, "{name}");
        }
    }
}
