//! Generates the gRPC code of our own services, and embeds the default module.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = ["raft", "command", "admin", "peer"].map(|name| format!("proto/{name}.proto"));
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(&protos, ["proto"])?;
    tonic_prost_build::configure().bytes(".").include_file("protos.rs").compile_fds(descriptors)?;
    Ok(())
}
