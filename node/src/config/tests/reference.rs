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
