//! Every message as a snapshot, and what a configuration means.

mod keys;
mod meaning;
mod modules;
mod nodes;
mod reference;
mod shipped;
mod sources;
mod values;

use std::fs;

use super::*;

/// Loads `text` from a directory of its own, as `serve` would, and returns what went wrong in words, without that directory.
fn complaint(text: &str) -> String {
    complaint_with(text, &Overrides::default(), &[])
}

fn complaint_with(text: impl AsRef<[u8]>, args: &Overrides, env: &[(&str, &str)]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let prefix = format!("{}/", directory.path().display());
    let path = directory.path().join("balsa.toml");
    fs::write(&path, text).unwrap();
    let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    let said = match Config::load(Some(&path), args, env) {
        Ok(loaded) => loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n") + "(accepted)",
        Err(errors) => errors.to_string(),
    };
    said.replace(&prefix, "")
}

/// The same, with other files beside it.
fn complaint_about(files: &[(&str, &[u8])], text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(directory.path().join(name), bytes).unwrap();
    }
    let path = directory.path().join("balsa.toml");
    fs::write(&path, text).unwrap();
    let said = match Config::load(Some(&path), &Overrides::default(), std::iter::empty()) {
        Ok(_) => "(accepted)".to_owned(),
        Err(errors) => errors.to_string(),
    };
    said.replace(&format!("{}/", directory.path().display()), "")
}

fn load(text: &str) -> Loaded {
    load_with(text, &Overrides::default(), &[]).unwrap_or_else(|errors| panic!("{errors}"))
}

fn load_with(text: &str, args: &Overrides, env: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("balsa.toml");
    fs::write(&path, text).unwrap();
    let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    Config::load(Some(&path), args, env)
}

/// The smallest binary that is complete: a custom section and nothing else.
const EMPTY_MODULE: &[u8] = b"\0asm\x01\0\0\0\0\x0d\x0cbalsa.module";

/// What `k8s/` ships: all listen on the same port, and are reached by names.
const KUBERNETES: &str = r#"
[node]
data_dir = "/var/lib/balsa"
client_addr = "0.0.0.0:6000"
peer_addr = "0.0.0.0:6001"
http_addr = "0.0.0.0:6080"
advertise_client_addr = "{name}.balsa-headless.default.svc.cluster.local.:6000"
advertise_peer_addr = "{name}.balsa-headless.default.svc.cluster.local.:6001"
[cluster]
replicas = 3
"#;

fn named(name: &str) -> Overrides {
    Overrides { name: Some(name.to_owned()), ..Overrides::default() }
}

fn on_host(name: &str) -> Overrides {
    Overrides { host_name: Some(name.to_owned()), ..Overrides::default() }
}
