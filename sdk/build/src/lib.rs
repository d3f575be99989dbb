//! Turns the `.proto` files of a module into Rust, from the module's `build.rs`:
//!
//! ```no_run
//! fn main() -> Result<(), balsa_build::Error> {
//!     balsa_build::compile(&["proto/kvstore.proto"], &["proto"])
//! }
//! ```
//!
//! No `protoc` is needed. What comes out, in `OUT_DIR`:
//! - `<package>.rs`, for `balsa_sdk::include_proto!`: the messages, and for each service `S` a trait `S` with one function
//!   per method and a type `SServer<T>` that dispatches to a `T: S`. A method with `option idempotency_level =
//!   NO_SIDE_EFFECTS;` is a query, and may return a stream; any other one is a command;
//! - `balsa.services.rs` and `balsa.module.bin`, for `balsa_sdk::export!`: the services that must be listed, and the
//!   metadata section that tells the host the module's name, version, descriptors and method table.
//!
//! The method table lists the methods of all services of the given files, in the order in which the files define them; a
//! file comes after the files that it imports. Services of files that are only imported are not served. The one
//! `Table` made here decides the numbers of both the dispatcher and the metadata.
//!
//! For wasm targets the linker is asked for a guest stack of 64 KiB: a fresh instance for each command must zero what the
//! last one touched, and Rust's default of 1 MiB costs more time than a put.

#![deny(missing_docs)]

mod error;
mod generator;
mod metadata;
mod table;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::{env, fs};

use protox::Compiler;

pub use error::Error;
use table::Table;

/// Bytes of the guest's stack in linear memory. Deep recursion meets the host's own limit first.
const STACK_BYTES: u32 = 64 * 1024;

/// Compiles `protos`, which may import from each other and from `includes`, for the crate whose build script calls it.
pub fn compile(protos: &[impl AsRef<Path>], includes: &[impl AsRef<Path>]) -> Result<(), Error> {
    let crate_name = variable("CARGO_PKG_NAME")?;
    let crate_version = variable("CARGO_PKG_VERSION")?;
    let watched = generate(protos, includes, &crate_name, &crate_version, Path::new(&variable("OUT_DIR")?))?;
    for path in watched {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    if variable("CARGO_CFG_TARGET_ARCH")? == "wasm32" {
        println!("cargo:rustc-link-arg-cdylib=-zstack-size={STACK_BYTES}");
    }
    Ok(())
}

/// All of [`compile`] but what it says to cargo. Returns the files it read.
fn generate(
    protos: &[impl AsRef<Path>],
    includes: &[impl AsRef<Path>],
    crate_name: &str,
    crate_version: &str,
    out_dir: &Path,
) -> Result<Vec<PathBuf>, Error> {
    let mut compiler = Compiler::new(includes)?;
    compiler.include_imports(true).include_source_info(true).open_files(protos)?;
    let descriptors = compiler.file_descriptor_set();
    let served = compiler.files().filter(|file| !file.is_import()).map(|file| file.name().to_owned()).collect();
    let table = Table::new(&descriptors, &served)?;

    // Comments are for the Rust code; the section, which travels in the log, goes without them.
    let section = metadata::section(&table, crate_name, crate_version, {
        compiler.include_source_info(false);
        compiler.encode_file_descriptor_set()
    });
    write(&out_dir.join("balsa.module.bin"), &section)?;
    write(&out_dir.join("balsa.services.rs"), table.listing().as_bytes())?;
    prost_build::Config::new()
        .out_dir(out_dir)
        .prost_path("::balsa_sdk::prost")
        .bytes(["."])
        .enable_type_names()
        .service_generator(Box::new(generator::Generator::new(table)))
        .compile_fds(descriptors)
        .map_err(Error::Generate)?;
    Ok(compiler.files().filter_map(|file| file.path().map(Path::to_owned)).collect())
}

fn variable(name: &'static str) -> Result<String, Error> {
    env::var(name).map_err(|_| Error::NotABuildScript(name))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(|source| Error::Write { path: path.to_owned(), source })
}
