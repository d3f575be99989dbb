//! An author's project: what cargo says about it, its sources, and how it is built.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use tokio::time::sleep;

use crate::cli::up::Log;
use crate::files::binary;

/// What modules are built for.
const TARGET: &str = "wasm32-wasip1";
/// Between two looks at the sources. Also how long they must have been quiet: an editor may save several files.
pub(super) const LOOK: Duration = Duration::from_millis(200);

/// Where a module is made.
pub(super) struct Project {
    /// Absolute.
    pub(super) root: PathBuf,
    /// Of the package, and so of the module.
    pub(super) name: String,
    module: PathBuf,
    /// What the compiler read beside what is in `root`.
    dep_info: PathBuf,
    target: PathBuf,
}

/// When each source was last written, and how long it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sources(BTreeMap<PathBuf, (Option<SystemTime>, u64)>);

/// Why there is no project, or no module.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum Error {
    /// No cargo.
    #[error("cannot run cargo: {0}; `balsa dev` builds with Rust's tools, see https://rustup.rs")]
    NoCargo(std::io::Error),
    /// Not a project.
    #[error("{} is not the project of a module: {why}", .root.display())]
    NotAProject {
        /// Where.
        root: PathBuf,
        /// What cargo says, or what is missing.
        why: String,
    },
    /// What was built cannot be read.
    #[error("{}, which was just built, {why}", .path.display())]
    Module {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: binary::Error,
    },
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Project {
    /// The project in `directory`.
    pub(super) fn find(directory: &Path) -> Result<Self, Error> {
        let refuse = |why: String| Error::NotAProject { root: directory.into(), why };
        let root = directory.canonicalize().map_err(|error| refuse(error.to_string()))?;
        if !root.join("Cargo.toml").exists() {
            return Err(refuse("it has no Cargo.toml; `balsa module new NAME` writes one".into()));
        }
        let mut cargo = cargo(&root);
        let asked = cargo.args(["metadata", "--no-deps", "--format-version", "1"]).output().map_err(Error::NoCargo)?;
        if !asked.status.success() {
            return Err(refuse(String::from_utf8_lossy(&asked.stderr).trim().to_owned()));
        }
        let metadata: Metadata = serde_json::from_slice(&asked.stdout).map_err(|error| refuse(error.to_string()))?;
        let manifest = root.join("Cargo.toml");
        let package = metadata.packages.into_iter().find(|package| package.manifest_path == manifest);
        let package = package.ok_or_else(|| refuse("its Cargo.toml is of a workspace, not of a package".into()))?;
        let library = package.targets.iter().find(|target| target.kind.iter().any(|kind| kind == "cdylib"));
        let library = library.ok_or_else(|| {
            refuse("its package is no cdylib; add to Cargo.toml: [lib] crate-type = [\"cdylib\"]".into())
        })?;
        let built = metadata.target_directory.join(TARGET).join("release").join(library.name.replace('-', "_"));
        Ok(Self {
            root,
            name: package.name,
            module: built.with_extension("wasm"),
            dep_info: built.with_extension("d"),
            target: metadata.target_directory,
        })
    }

    /// Builds with what cargo says going straight to the terminal; whether it succeeded.
    pub(super) fn build_in_terminal(&self) -> Result<bool, Error> {
        let built = cargo(&self.root).args(build_arguments()).stdin(Stdio::null()).status();
        built.map(|status| status.success()).map_err(Error::NoCargo)
    }

    /// Builds with what cargo says going to `log`; whether it succeeded.
    pub(super) async fn build(&self, log: &Log) -> Result<bool, Error> {
        let mut cargo = tokio::process::Command::from(cargo(&self.root));
        cargo.args(build_arguments()).arg("--quiet");
        cargo.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = cargo.spawn().map_err(Error::NoCargo)?;
        let said = child.stderr.take().expect("it is piped");
        log.clone().copy(said).await;
        child.wait().await.map(|status| status.success()).map_err(Error::NoCargo)
    }

    /// The module of the last build.
    pub(super) fn read_module(&self) -> Result<Vec<u8>, Error> {
        let module = binary::read(&self.module).map_err(|why| Error::Module { path: self.module.clone(), why })?;
        Ok(module.to_vec())
    }

    /// The sources as they are now.
    pub(super) fn sources(&self) -> Sources {
        let mut files = BTreeMap::new();
        self.walk(&self.root, &mut files);
        let text = fs::read_to_string(&self.dep_info).unwrap_or_default();
        for path in dependencies(&text).filter(|path| !path.starts_with(&self.target)) {
            note(path, &mut files);
        }
        Sources(files)
    }

    /// Waits until the sources are others than `before`, and quiet; returns them.
    pub(super) async fn changed(&self, before: &Sources) -> Sources {
        let mut last = before.clone();
        loop {
            sleep(LOOK).await;
            let now = self.sources();
            if now != *before && now == last {
                return now;
            }
            last = now;
        }
    }

    /// Everything in the project but what begins with a dot, what cargo builds, and the lock that it keeps.
    fn walk(&self, directory: &Path, files: &mut BTreeMap<PathBuf, (Option<SystemTime>, u64)>) {
        let Ok(entries) = fs::read_dir(directory) else { return };
        for entry in entries.flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let ours = name.as_encoded_bytes().starts_with(b".") || name == OsStr::new("Cargo.lock");
            match entry.file_type() {
                _ if ours || path == self.target => {}
                Ok(kind) if kind.is_dir() => self.walk(&path, files),
                _ => note(path, files),
            }
        }
    }
}

fn note(path: PathBuf, files: &mut BTreeMap<PathBuf, (Option<SystemTime>, u64)>) {
    let metadata = fs::metadata(&path);
    let state = metadata.map_or((None, 0), |metadata| (metadata.modified().ok(), metadata.len()));
    files.insert(path, state);
}

/// The files that a `.d` file of cargo's names: `target: source source`, with a backslash before a space in a name.
fn dependencies(text: &str) -> impl Iterator<Item = PathBuf> {
    let sources = text.lines().filter_map(|line| line.split_once(": ")).map(|(_, sources)| sources);
    sources.flat_map(|sources| {
        let kept = sources.replace("\\ ", "\0");
        kept.split(' ').map(|name| PathBuf::from(name.replace('\0', " "))).collect::<Vec<_>>()
    })
}

fn cargo(root: &Path) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root);
    cargo
}

fn build_arguments() -> [&'static str; 5] {
    ["build", "--release", "--lib", "--target", TARGET]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(root: &Path) -> Project {
        Project {
            root: root.into(),
            name: "m".into(),
            module: root.join("target/m.wasm"),
            dep_info: root.join("target/m.d"),
            target: root.join("target"),
        }
    }

    #[test]
    fn only_what_a_person_writes_counts_as_a_source() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for file in ["src/lib.rs", "proto/m.proto", "Cargo.lock", "target/x", ".git/HEAD", ".balsa-dev/module.wasm"] {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), "").unwrap();
        }
        let dep_info = format!("m.wasm: {}/src/lib.rs /elsewhere/with\\ space.rs\n", root.display());
        fs::write(root.join("target/m.d"), dep_info).unwrap();
        let sources = project(root).sources().0;
        let names: Vec<_> = sources.keys().map(|path| path.strip_prefix(root).unwrap_or(path)).collect();
        assert_eq!(names, ["/elsewhere/with space.rs", "proto/m.proto", "src/lib.rs"].map(Path::new));
    }

    #[tokio::test]
    async fn a_save_is_seen_once_it_is_quiet() {
        let directory = tempfile::tempdir().unwrap();
        let project = project(directory.path());
        let before = project.sources();
        fs::write(directory.path().join("lib.rs"), "fn main() {}").unwrap();
        let changed = tokio::time::timeout(Duration::from_secs(20), project.changed(&before)).await.unwrap();
        assert_eq!(changed, project.sources());
    }

    #[test]
    fn a_directory_that_is_no_project_says_what_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let refused = Project::find(directory.path()).err().unwrap().to_string();
        assert!(refused.ends_with("it has no Cargo.toml; `balsa module new NAME` writes one"), "{refused}");
    }
}
