//! Compiles the peer protocol with protox, so that no protoc is needed, and keeps its descriptors for reflection.
use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../proto/rusd");
    let descriptors = protox::compile(["rusd/peer.proto"], ["../proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("peer_descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .extern_path(".rusd.command", "::rusd_storage::command")
        .extern_path(".rusd.state", "::rusd_storage::command::state")
        .compile_fds(descriptors)?;
    Ok(())
}
