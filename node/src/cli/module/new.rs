//! `balsa module new NAME`: a project that builds, passes its test, and needs nothing of Balsa's own tree.
//!
//! The SDK comes with it: this binary carries the sources, and the lock file names the versions of everything else that
//! this binary's own modules were built with. All of it is written beside its place and moved there, so that there is a
//! whole project or none; what exists already is never touched.

mod lock;
mod name;
mod project;
mod sdk;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Console, Exit, Format};
use name::Name;
pub(in crate::cli) use name::NameError;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct New {
    /// Of the module, and of its crate: lower-case letters, digits, - and _
    #[arg(value_name = "NAME")]
    name: String,
    /// Where to write it [default: the name, in this directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// A file of a project: its path in there, and what it holds.
type ProjectFile = (PathBuf, String);

pub(super) fn run(args: &New, format: Format, console: &mut Console) -> Result<Exit, super::super::Error> {
    let name: Name = args.name.parse().map_err(super::Error::Name)?;
    let shown = args.dir.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    let files = project::files(&name);
    place(&files, &console.directory.join(&shown), &shown)?;
    match format {
        Format::Json => console.json(&json!({ "name": args.name, "directory": shown, "files": files.len() }))?,
        Format::Text => welcome(&name, &shown, console)?,
    }
    Ok(Exit::Ok)
}

fn welcome(name: &Name, directory: &Path, console: &mut Console) -> Result<(), super::super::Error> {
    let built = format!("target/wasm32-wasip1/release/{}.wasm", name.snake());
    console.line(format!("{} has a module called {name}, and the SDK beside it. Next:\n", directory.display()))?;
    console.line(format!("  cd {}", directory.display()))?;
    console.line("  cargo test                                      # its logic, natively")?;
    console.line(format!("  cargo build --release --target wasm32-wasip1    # the module: {built}"))?;
    console.line("  balsa dev                                       # a node that runs it, and swaps it as you save")
}

/// Writes `files` to `target`, all or none.
fn place(files: &[ProjectFile], target: &Path, shown: &Path) -> Result<(), super::Error> {
    let refuse = |error| super::Error::Write { path: shown.into(), error };
    if !is_free(target).map_err(refuse)? {
        return Err(super::Error::Exists(shown.into()));
    }
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(refuse)?;
    let draft = parent.join(format!(".balsa-module-new-{}", std::process::id()));
    let placed = write_all(files, &draft).and_then(|()| fs::rename(&draft, target));
    placed.map_err(|error| {
        // It is in nobody's way, and there may be nothing.
        let _ = fs::remove_dir_all(&draft);
        refuse(error)
    })
}

/// Nothing is there, or an empty directory.
fn is_free(target: &Path) -> io::Result<bool> {
    match fs::read_dir(target) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        Err(error) => Err(error),
    }
}

fn write_all(files: &[ProjectFile], directory: &Path) -> io::Result<()> {
    for (path, text) in files {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().expect("it is below the directory"))?;
        fs::write(path, text)?;
    }
    Ok(())
}
