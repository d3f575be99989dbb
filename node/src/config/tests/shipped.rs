//! The files that the images and the manifests ship.

use std::fs;

use super::*;

/// What the images and the manifests ship is loaded as nodes load it, with the variables that the manifests set.
#[test]
fn the_shipped_configurations_are_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let load = |file: &str, env: &[(String, String)]| {
        let recipe = Recipe { path: Some(root.join(file)), args: named("balsa-1"), env: env.to_vec() };
        let loaded = recipe.load().unwrap_or_else(|errors| panic!("{errors}"));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        loaded.config
    };
    let peer_of = |config: &Config| config.peers().last().unwrap().peer_addr.to_string();
    assert_eq!(peer_of(&load("docker/balsa.toml", &[])), "balsa-2:6001");

    let mut env = variables(&root.join("k8s/base/statefulset.yaml"));
    assert_eq!(env.len(), 2, "{env:?}");
    let config = load("k8s/base/balsa.toml", &env);
    assert_eq!(peer_of(&config), "balsa-2.balsa-headless.somewhere.svc.cluster.local.:6001");
    env.extend(variables(&root.join("k8s/overlays/production/statefulset.yaml")));
    assert_eq!(load("k8s/base/balsa.toml", &env).storage.cache_bytes, 2 << 30);
}

/// The variables for balsa in a manifest, as a pod of the namespace `somewhere` gets them.
fn variables(manifest: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(manifest).unwrap();
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let pairs = lines.windows(2).filter_map(|pair| {
        let name = pair[0].strip_prefix("- name: ").filter(|name| name.starts_with("BALSA_"))?;
        let value = pair[1].strip_prefix("value: ").expect("a value follows its name");
        Some((name.to_owned(), value.trim_matches('"').replace("$(POD_NAMESPACE)", "somewhere")))
    });
    pairs.collect()
}
