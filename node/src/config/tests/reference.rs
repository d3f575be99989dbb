//! `docs/configuration.md`: the table is generated, and the examples are loaded.

use std::fs;

use super::*;

/// The table of `docs/configuration.md` is generated: `BALSA_UPDATE_DOCS=1 cargo test -p balsa reference` writes it.
#[test]
fn the_reference_is_current() {
    const BEGIN: &str = "<!-- generated from node/src/config/schema.rs: begin -->\n";
    const END: &str = "<!-- generated: end -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the document has the begin mark");
    let (_, after) = rest.split_once(END).expect("the document has the end mark");
    let current = format!("{before}{BEGIN}\n{}{END}{after}", schema::reference());
    if std::env::var_os("BALSA_UPDATE_DOCS").is_some() {
        fs::write(&path, &current).unwrap();
    }
    assert!(
        text == current || std::env::var_os("BALSA_UPDATE_DOCS").is_some(),
        "run with BALSA_UPDATE_DOCS=1 to renew it"
    );
}

/// The examples of the document are loaded, so that they stay true.
#[test]
fn the_examples_of_the_reference_are_accepted() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md")).unwrap();
    let examples: Vec<_> = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 3);
    for example in examples {
        let recipe = Recipe { path: Some("balsa.toml".into()), ..Recipe::default() };
        recipe.settings_of(example.into()).unwrap_or_else(|errors| panic!("{errors}"));
    }
}

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
