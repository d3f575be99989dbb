//! `docs/configuration.md`: the table is generated, and the examples are loaded.

use std::fs;

use super::*;
use crate::testing;

/// The table of `docs/configuration.md` is generated: `BALSA_UPDATE_DOCS=1 cargo test -p balsa reference` writes it.
#[test]
fn the_reference_is_current() {
    testing::assert_generated("configuration.md", "node/src/config/schema.rs", &schema::reference());
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
