//! `[[module]]`, and the files that it names.

use std::fs;

use insta::assert_snapshot;

use super::*;

#[test]
fn a_module_has_a_name_and_a_file_that_is_there() {
    assert_snapshot!(complaint("[[module]]\nname = \"counter\"\npath = \"counter.wasm\"\n"), @r#"
    error: there is no module file counter.wasm
     --> balsa.toml:3:8
      |
    3 | path = "counter.wasm"
      |        ^^^^^^^^^^^^^^
      = help: a relative path starts from the directory of the configuration file
    "#);
    assert_snapshot!(complaint("[[module]]\nname = \"counter\"\n"), @r#"
    error: this module has no `path`
     --> balsa.toml:1:1
      |
    1 | [[module]]
      | ^^^^^^^^^^
      = help: a module has both, such as name = "counter" and path = "counter.wasm"
    "#);
    assert_snapshot!(complaint("[[module]]\nname = \"a\"\npath = \".\"\n"), @r#"
    error: the module file . cannot be read: it is not a file
     --> balsa.toml:3:8
      |
    3 | path = "."
      |        ^^^
    "#);
    assert_snapshot!(complaint("[[module]]\nname = \"a\"\npath = \"a.wasm\"\nallow_breaking = \"yes\"\n"), @r#"
    error: there is no module file a.wasm
     --> balsa.toml:3:8
      |
    3 | path = "a.wasm"
      |        ^^^^^^^^
      = help: a relative path starts from the directory of the configuration file

    error: `allow_breaking` is true or false, without quotes, but here it is text
     --> balsa.toml:4:18
      |
    4 | allow_breaking = "yes"
      |                  ^^^^^
      = help: for example allow_breaking = false
    "#);
}

#[test]
fn modules_have_names_and_files_of_their_own() {
    let one = "[[module]]\nname = \"a\"\npath = \"a.wasm\"\n";
    assert_snapshot!(complaint_about(&[("a.wasm", EMPTY_MODULE), ("b.wasm", EMPTY_MODULE)], &format!("{one}[[module]]\nname = \"a\"\npath = \"b.wasm\"\n")), @r#"
    error: two modules have the name "a"
     --> balsa.toml:5:8
      |
    5 | name = "a"
      |        ^^^
      = help: the first of them stands at balsa.toml:2:8; each module has a name of its own
    "#);
    assert_snapshot!(complaint_about(&[("a.wasm", EMPTY_MODULE)], &format!("{one}[[module]]\nname = \"b\"\npath = \"./a.wasm\"\n")), @r#"
    error: two modules have the path "./a.wasm"
     --> balsa.toml:6:8
      |
    6 | path = "./a.wasm"
      |        ^^^^^^^^^^
      = help: the first of them stands at balsa.toml:3:8; each module has a path of its own
    "#);
}

#[test]
fn several_modules_are_read_in_the_order_of_the_file() {
    let text = "[[module]]\nname = \"b\"\npath = \"b.wasm\"\n[[module]]\nname = \"a\"\npath = \"a.wasm.zst\"\nallow_breaking = true\n";
    let recipe = Recipe { path: Some("/etc/balsa/balsa.toml".into()), ..Recipe::default() };
    let modules = recipe.settings_of(text.into()).unwrap().config.modules;
    let module = |name: &str, path: &str, allow_breaking| ModuleFile {
        name: name.into(),
        path: Path::new("/etc/balsa").join(path),
        allow_breaking,
        fuel: Fuel::default(),
    };
    assert_eq!(modules, [module("b", "b.wasm", false), module("a", "a.wasm.zst", true)]);
}

#[test]
fn a_file_that_is_no_complete_module_is_refused() {
    let text = "[[module]]\nname = \"a\"\npath = \"a.wasm\"\n";
    let broken = |bytes: &[u8]| complaint_about(&[("a.wasm", bytes)], text);
    assert_snapshot!(broken(b""), @r#"
    error: the module file a.wasm is empty
     --> balsa.toml:3:8
      |
    3 | path = "a.wasm"
      |        ^^^^^^^^
    "#);
    assert_snapshot!(broken(b"#!/bin/sh"), @r#"
    error: the module file a.wasm is not a WebAssembly module: it begins with #!/b, not with \0asm, and it is not compressed with zstd either
     --> balsa.toml:3:8
      |
    3 | path = "a.wasm"
      |        ^^^^^^^^
    "#);
    assert_snapshot!(broken(b"\0asm\x01\0\0\0\x01\x05"), @r#"
    error: the module file a.wasm is not a complete WebAssembly module: unexpected end-of-file (at byte 10 of 10)
     --> balsa.toml:3:8
      |
    3 | path = "a.wasm"
      |        ^^^^^^^^
    "#);
    assert_snapshot!(broken(b"\x28\xb5\x2f\xfd\x00"), @r#"
    error: the module file a.wasm is not a complete zstd file: it is cut off or damaged
     --> balsa.toml:3:8
      |
    3 | path = "a.wasm"
      |        ^^^^^^^^
    "#);
}

#[test]
fn a_module_that_is_too_large_is_not_read_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("balsa.toml");
    fs::write(&path, "[[module]]\nname = \"a\"\npath = \"a.wasm\"\n").unwrap();
    fs::File::create(directory.path().join("a.wasm")).unwrap().set_len(1 << 40).unwrap();
    let errors = Config::load(Some(&path), &Overrides::default(), std::iter::empty()).unwrap_err().to_string();
    assert_snapshot!(errors.replace(&format!("{}/", directory.path().display()), ""), @r#"
    error: the module file a.wasm has more than 33554432 bytes, which is the most that a module has
     --> balsa.toml:3:8
      |
    3 | path = "a.wasm"
      |        ^^^^^^^^
    "#);
}
