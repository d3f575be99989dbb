//! Generates the gRPC code of our own services, and embeds the default module.

use std::path::PathBuf;

use protox::prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = ["raft", "command", "admin", "peer"].map(|name| format!("proto/{name}.proto"));
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(&protos, ["proto"])?;
    // Reflection serves the operators' API beside the modules'.
    let admin = protox::compile(["proto/admin.proto"], ["proto"])?;
    std::fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("admin.bin"), admin.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").include_file("protos.rs").compile_fds(descriptors)?;
    kvstore_messages()
}

/// The messages of the default module, for the command line's short forms (`balsa put`). Messages only: calls are bytes.
fn kvstore_messages() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../kvstore-wasm/proto");
    let descriptors = protox::compile(["kvstore.proto"], ["../kvstore-wasm/proto"])?;
    tonic_prost_build::configure().build_client(false).build_server(false).bytes(".").compile_fds(descriptors)?;
    Ok(())
}
