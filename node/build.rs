//! Generates the gRPC code of our own services, and embeds the default module and the SDK's sources.
//!
//! The module is `$BALSA_KVSTORE_WASM` if that is set (the Makefile, Docker and CI build it once and say where it is). Else it
//! is built here, by a cargo of its own: in its own target directory, since the outer cargo holds the lock of this one, and
//! without the outer cargo's environment, which is about the host and would leak into the guest. The same sources give the
//! same bytes wherever the checkout lies, as far as paths are concerned: they are remapped.

use std::error::Error;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use protox::prost::Message;

const TARGET: &str = "wasm32-wasip1";
/// Variables of the outer cargo and rustup that the inner one needs: where things are and how to reach a registry.
const KEPT: [&str; 3] = ["CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"];
const KEPT_PREFIXES: [&str; 4] = ["CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"];
const SCRUBBED_PREFIXES: [&str; 4] = ["CARGO", "RUST", "MAKEFLAGS", "MFLAGS"];

fn main() -> Result<(), Box<dyn Error>> {
    pack_relocations();
    generate_grpc()?;
    embed_sdk()?;
    embed_kvstore()
}

/// The addresses that a static binary corrects when it starts are a list of a megabyte, of which this leaves some 30 KB. C's
/// start-up code knows that form since glibc 2.36, and a static binary has it in itself, so it does not matter where it runs.
fn pack_relocations() {
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if features.split(',').any(|feature| feature == "crt-static") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

fn generate_grpc() -> Result<(), Box<dyn Error>> {
    let protos = ["raft", "command", "admin", "peer"].map(|name| format!("proto/{name}.proto"));
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(&protos, ["proto"])?;
    // Reflection serves the operators' API beside the modules'.
    let admin = protox::compile(["proto/admin.proto"], ["proto"])?;
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("admin.bin"), admin.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").include_file("protos.rs").compile_fds(descriptors)?;
    kvstore_messages()
}

/// The messages of the default module, for the command line's short forms (`balsa put`). Messages only: calls are bytes.
fn kvstore_messages() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=../kvstore-wasm/proto");
    let descriptors = protox::compile(["kvstore.proto"], ["../kvstore-wasm/proto"])?;
    Ok(tonic_prost_build::configure().build_client(false).build_server(false).bytes(".").compile_fds(descriptors)?)
}

/// The SDK's sources, for `balsa module new`: what it writes is built without this checkout. What the workspace adds to them
/// (versions, the lock file) goes along.
fn embed_sdk() -> Result<(), Box<dyn Error>> {
    let root = root()?;
    let mut files = Vec::new();
    collect(&root.join("sdk"), &mut files)?;
    files.sort();
    let mut code = String::from("pub(super) const SOURCES: &[(&str, &str)] = &[\n");
    for file in &files {
        let name = file.strip_prefix(root.join("sdk"))?.to_str().ok_or("the SDK's files have names in UTF-8")?;
        code.push_str(&format!("    ({name:?}, include_str!({file:?})),\n"));
    }
    code.push_str("];\n");
    for (name, file) in [("WORKSPACE", "Cargo.toml"), ("LOCK", "Cargo.lock"), ("LICENSE", "LICENSE")] {
        code.push_str(&format!("pub(super) const {name}: &str = include_str!({:?});\n", root.join(file)));
    }
    println!("cargo::rerun-if-changed={}", root.join("sdk").display());
    Ok(fs::write(PathBuf::from(env::var("OUT_DIR")?).join("sdk_sources.rs"), code)?)
}

/// All files below `dir`, as far as they are sources.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        match path.is_dir() {
            // `fixture` is a module for the SDK's own tests.
            _ if hidden || path.ends_with("target") || path.ends_with("fixture") => {}
            true => collect(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}

/// The checkout.
fn root() -> Result<PathBuf, Box<dyn Error>> {
    Ok(Path::new(&env::var("CARGO_MANIFEST_DIR")?).parent().ok_or("node/ is in a workspace")?.to_owned())
}

fn embed_kvstore() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=BALSA_KVSTORE_WASM");
    println!("cargo::rerun-if-env-changed=BALSA_WASM_TARGET_DIR");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let wasm = match env::var_os("BALSA_KVSTORE_WASM") {
        Some(wasm) => wasm.into(),
        None if has_target()? => build_kvstore(&out)?,
        None => {
            println!(
                "cargo::error=the default module needs Rust's {TARGET} target, which is not installed: run `make setup`"
            );
            return Ok(());
        }
    };
    println!("cargo::rerun-if-changed={}", wasm.display());
    fs::copy(&wasm, out.join("kvstore.wasm")).map_err(|error| format!("cannot read {}: {error}", wasm.display()))?;
    Ok(())
}

/// Whether the target's standard library is there. rustc names its directory either way.
fn has_target() -> Result<bool, Box<dyn Error>> {
    let rustc = env::var_os("RUSTC").ok_or("cargo sets RUSTC")?;
    let printed = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output()?;
    Ok(Path::new(String::from_utf8(printed.stdout)?.trim()).is_dir())
}

fn build_kvstore(out: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let root = root()?;
    for input in ["kvstore-wasm", "sdk", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    let target_dir = target_dir(out)?;
    let mut cargo = Command::new(env::var_os("CARGO").ok_or("cargo sets CARGO")?);
    scrub(&mut cargo);
    cargo
        .current_dir(&root)
        .env("CARGO_ENCODED_RUSTFLAGS", remapped(&root))
        .args([
            "build",
            "--locked",
            "--profile",
            "wasm",
            "--package",
            "kvstore-wasm",
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(&target_dir)
        .stdin(Stdio::null());
    let built = cargo.output()?;
    if !built.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&built.stderr));
        return Err("the default module (kvstore-wasm) does not build".into());
    }
    Ok(target_dir.join(TARGET).join("wasm").join("kvstore_wasm.wasm"))
}

/// `wasm` in the outer target directory, found from `<target>/<profile>/build/<package>/out`, so that tests share it.
fn target_dir(out: &Path) -> Result<PathBuf, Box<dyn Error>> {
    match env::var_os("BALSA_WASM_TARGET_DIR") {
        Some(dir) => Ok(dir.into()),
        None => Ok(out.ancestors().nth(4).ok_or("OUT_DIR lies in a target directory")?.join("wasm")),
    }
}

fn scrub(cargo: &mut Command) {
    let starts_with = |name: &OsStr, prefixes: &[&str]| {
        prefixes.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
    };
    for (name, _) in env::vars_os() {
        let kept = KEPT.iter().any(|kept| name == *kept) || starts_with(&name, &KEPT_PREFIXES);
        if starts_with(&name, &SCRUBBED_PREFIXES) && !kept {
            cargo.env_remove(name);
        }
    }
}

/// Flags, apart by unit separators, that take this machine's paths out of panic messages.
fn remapped(root: &Path) -> String {
    let mut flags = vec![format!("--remap-path-prefix={}=/balsa", root.display())];
    let in_home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    if let Some(cargo_home) = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(in_home) {
        flags.push(format!("--remap-path-prefix={}=/cargo", cargo_home.display()));
    }
    flags.join("\x1f")
}
