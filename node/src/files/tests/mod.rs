//! The watcher on a simulated disk, where time is a number, and on a real one.

mod decisions;
mod directory;
mod interleavings;
mod simulated;

use crate::config::{Loaded, Overrides, Recipe};

/// A complete module that differs from those of other numbers. Like a real one it ends with its metadata, so that no beginning
/// of it is complete.
pub(super) fn wasm(number: u32) -> Vec<u8> {
    let wat = format!(
        r#"(module (func (export "f") (result i32) i32.const {number}) (@custom "balsa.module" "number {number}"))"#
    );
    wat::parse_str(wat).unwrap()
}

/// What `serve` would load from `toml`, if it stood at `path`.
pub(super) fn loaded(path: &str, toml: &str) -> Loaded {
    let recipe = Recipe { path: Some(path.into()), args: Overrides::default(), env: Vec::new() };
    recipe.settings_of(toml.into()).unwrap_or_else(|errors| panic!("{errors}"))
}
