//! `balsa module check FILE`: whether a node would take the module, by the node's own check.
//!
//! That is `Module::load`: imports, exports, descriptors, sizes, memory, what of WebAssembly it uses (which is what makes
//! it deterministic), compiling it, and starting it once. The first thing that is wrong is what is reported, with what
//! would mend it. Warnings are about modules that a node would take, and that their authors may not have meant.

use std::path::PathBuf;

use serde_json::json;

use super::file::ModuleFile;
use super::{Console, Exit, Format};
use crate::wasm::{Inspection, MethodKind, Module, Rejection};

/// What a ConfigMap of Kubernetes holds, bytes.
const CONFIG_MAP_BYTES_MAX: usize = 1024 * 1024;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The module: a .wasm file, or a .wasm.zst
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// What came of it.
struct Verdict {
    /// The module, or why it is refused.
    module: Result<Module, Rejection>,
    warnings: Vec<String>,
}

pub(super) fn run(args: &Check, format: Format, console: &mut Console) -> Result<Exit, super::super::Error> {
    let file = ModuleFile::read(&args.file, &console.directory)?;
    let verdict = verdict(&file)?;
    match format {
        Format::Json => console.json(&to_json(&verdict))?,
        Format::Text => print(&verdict, &file, console)?,
    }
    Ok(if verdict.is_good() { Exit::Ok } else { Exit::No })
}

fn verdict(file: &ModuleFile) -> Result<Verdict, super::Error> {
    let engine = super::engine()?;
    let module = match super::on_a_deep_stack(|| Module::load(&engine, &file.wasm)) {
        Err(Rejection::Host(fault)) => return Err(fault.into()),
        loaded => loaded,
    };
    Ok(Verdict { warnings: warnings(file), module })
}

impl Verdict {
    fn is_good(&self) -> bool {
        self.module.is_ok()
    }
}

fn warnings(file: &ModuleFile) -> Vec<String> {
    let inspection = Inspection::of(&file.wasm);
    let methods = inspection.map(|inspection| inspection.methods).unwrap_or_default();
    let mut warnings: Vec<_> = methods
        .iter()
        .filter(|method| method.kind == MethodKind::Command && sounds_like_a_query(&method.name))
        .map(|method| {
            format!(
                "{}/{} is a command, so each call of it goes through the log; if it changes nothing, say so in its \
                 .proto: rpc {}(..) returns (..) {{ option idempotency_level = NO_SIDE_EFFECTS; }}",
                method.service, method.name, method.name
            )
        })
        .collect();
    if file.file_bytes > CONFIG_MAP_BYTES_MAX {
        let hint = if file.is_compressed() { "" } else { "; `zstd -19` makes a .wasm.zst, which is taken as well" };
        warnings
            .push(format!("the file has {} bytes, and a ConfigMap holds no more than 1 MiB{hint}", file.file_bytes));
    }
    warnings
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
    for warning in &verdict.warnings {
        console.line(console.paint_careful(&format!("warning: {warning}")))?;
    }
    console.line(if verdict.is_good() { console.paint_good("OK") } else { console.paint_bad("NOT OK") })
}

fn to_json(verdict: &Verdict) -> serde_json::Value {
    let module = verdict.module.as_ref().ok();
    json!({
        "ok": verdict.is_good(),
        "problem": verdict.module.as_ref().err().map(ToString::to_string),
        "name": module.map(Module::name),
        "version": module.map(Module::version),
        "hash": module.map(|module| module.hash().to_string()),
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
