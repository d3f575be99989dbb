//! `balsa module inspect FILE`: what a module says about itself. Nothing of it is compiled or run.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::file::ModuleFile;
use super::{Console, Error, Exit, Format};
use crate::wasm::{Described, Inspection, MethodKind};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Inspect {
    /// The module: a .wasm file, or a .wasm.zst
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn run(args: &Inspect, format: Format, console: &mut Console) -> Result<Exit, super::super::Error> {
    let file = ModuleFile::read(&args.file, &console.directory)?;
    let inspection =
        Inspection::of(&file.wasm).map_err(|why| Error::NotAModule { path: file.path.clone(), why: why.into() })?;
    match format {
        Format::Json => console.json(&to_json(&inspection, &file))?,
        Format::Text => print(&inspection, &file, console)?,
    }
    Ok(Exit::Ok)
}

fn print(module: &Inspection, file: &ModuleFile, console: &mut Console) -> Result<(), super::super::Error> {
    let compressed = if file.is_compressed() { format!(", {} in the file", file.file_bytes) } else { String::new() };
    let has = |has| if has { "yes" } else { "no" };
    for (name, value) in [
        ("name", module.name.clone()),
        ("version", module.version.clone()),
        ("abi", module.abi.to_string()),
        ("sdk", if module.sdk.is_empty() { "-".into() } else { module.sdk.clone() }),
        ("hash", module.hash.to_string()),
        ("size", format!("{} bytes, of which {} are code{compressed}", module.size, module.code_bytes)),
        ("memory", format!("{} KiB to start with", module.memory_bytes / 1024)),
        ("init", has(module.has_init).into()),
        ("migrate", has(module.has_migrate).into()),
    ] {
        console.line(format!("{name:<9}{value}"))?;
    }
    let width = module.methods.iter().map(|method| method.name.len()).max().unwrap_or(0);
    let mut service = "";
    for method in &module.methods {
        if method.service != service {
            service = &method.service;
            console.line(format!("\n{service}"))?;
        }
        console.line(format!("  {:<8} {:<width$}  {}", kind(method), method.name, signature(method)))?;
    }
    console.line("\nimports")?;
    for import in &module.imports {
        console.line(format!("  {import}"))?;
    }
    Ok(())
}

/// Command or query, in one word.
pub(super) fn kind(method: &Described) -> &'static str {
    match method.kind {
        MethodKind::Command => "command",
        MethodKind::Query => "query",
    }
}

fn signature(method: &Described) -> String {
    let stream = if method.streaming { "stream " } else { "" };
    format!("({}) -> {stream}{}", method.request, method.response)
}

fn to_json(module: &Inspection, file: &ModuleFile) -> Value {
    let methods = module.methods.iter().map(|method| {
        json!({
            "method": format!("{}/{}", method.service, method.name),
            "kind": kind(method),
            "streaming": method.streaming,
            "request": method.request,
            "response": method.response,
        })
    });
    json!({
        "name": module.name,
        "version": module.version,
        "abi": module.abi,
        "sdk": module.sdk,
        "hash": module.hash.to_string(),
        "size": module.size,
        "file_size": file.file_bytes,
        "code_size": module.code_bytes,
        "memory": module.memory_bytes,
        "init": module.has_init,
        "migrate": module.has_migrate,
        "methods": methods.collect::<Vec<_>>(),
        "imports": module.imports,
    })
}
