//! The SDK's sources, as `build.rs` put them into this binary, and their manifests without the workspace they came from.

use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, TableLike};

use super::ProjectFile;

include!(concat!(env!("OUT_DIR"), "/sdk_sources.rs"));

/// What a manifest has only for those who work on the SDK itself.
const OURS_ALONE: [&str; 2] = ["lints", "dev-dependencies"];

/// All files of the SDK, below `directory`.
pub(super) fn files(directory: &Path) -> Vec<ProjectFile> {
    let text = |name: &str, text: &str| if is_manifest(name) { stand_alone(text) } else { text.to_owned() };
    let sources = SOURCES.iter().map(|(name, content)| (directory.join(name), text(name, content)));
    sources.chain([(directory.join("LICENSE"), LICENSE.to_owned())]).collect()
}

/// The manifests of the SDK's crates, as they are written.
pub(super) fn manifests() -> impl Iterator<Item = DocumentMut> {
    SOURCES.iter().filter(|(name, _)| is_manifest(name)).map(|(_, text)| parse(&stand_alone(text)))
}

/// What all packages of the workspace have in common: `edition`, `rust-version`.
pub(super) fn common(key: &str) -> String {
    let workspace = parse(WORKSPACE);
    workspace["workspace"]["package"][key].as_str().expect("the workspace's manifest has it").to_owned()
}

fn is_manifest(name: &str) -> bool {
    PathBuf::from(name).file_name().is_some_and(|name| name == "Cargo.toml")
}

fn parse(manifest: &str) -> DocumentMut {
    manifest.parse().expect("cargo has read it to build this binary")
}

/// `manifest` with the workspace's values in place of `workspace = true`.
fn stand_alone(manifest: &str) -> String {
    let (mut manifest, workspace) = (parse(manifest), parse(WORKSPACE));
    for key in OURS_ALONE {
        manifest.remove(key);
    }
    let package = manifest["package"].as_table_mut().expect("a package's manifest");
    for (key, value) in package.iter_mut() {
        if is_inherited(value) {
            *value = workspace["workspace"]["package"][key.get()].clone();
        }
    }
    manifest.to_string()
}

fn is_inherited(item: &Item) -> bool {
    item.as_table_like().and_then(|table: &dyn TableLike| table.get("workspace")).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifests_need_no_workspace_and_no_crates_for_tests() {
        let all: Vec<_> = manifests().map(|manifest| manifest.to_string()).collect();
        assert_eq!(all.len(), 2, "of balsa-sdk and balsa-build");
        for manifest in all {
            assert!(!manifest.contains("workspace") && !manifest.contains("dev-dependencies"), "{manifest}");
            assert!(manifest.contains(&format!("version = \"{}\"", env!("CARGO_PKG_VERSION"))), "{manifest}");
        }
    }
}
