//! The files of a new project: those in `node/templates/module`, filled in, and the SDK beside them.

use std::path::Path;

use super::name::Name;
use super::{ProjectFile, lock, sdk};

macro_rules! template {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/templates/module/", $name))
    };
}

/// All of them.
pub(super) fn files(name: &Name) -> Vec<ProjectFile> {
    let proto = format!("proto/{}.proto", name.snake());
    let templates = [
        ("Cargo.toml", template!("Cargo.toml.in")),
        ("build.rs", template!("build.rs.in")),
        (proto.as_str(), template!("module.proto.in")),
        ("src/lib.rs", template!("lib.rs.in")),
        ("src/tests.rs", template!("tests.rs.in")),
        (".gitignore", template!("gitignore.in")),
        ("README.md", template!("README.md.in")),
    ];
    let own = templates.map(|(path, text)| (path.into(), fill(text, name)));
    let lock = ("Cargo.lock".into(), lock::file(name));
    own.into_iter().chain([lock]).chain(sdk::files(Path::new("balsa-sdk"))).collect()
}

fn fill(template: &str, name: &Name) -> String {
    let values = [
        ("name", name.to_string()),
        ("snake", name.snake()),
        ("package", name.package()),
        ("service", name.service()),
        ("edition", sdk::common("edition")),
        ("rust", sdk::common("rust-version")),
    ];
    values.into_iter().fold(template.to_owned(), |text, (key, value)| text.replace(&format!("{{{{{key}}}}}"), &value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_is_left_open() {
        for (path, text) in files(&"work-queue".parse().unwrap()) {
            let ours = !path.starts_with("balsa-sdk");
            assert!(!(ours && text.contains("{{")), "{}: {text}", path.display());
        }
    }
}
