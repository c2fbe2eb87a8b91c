//! Compiles the client API with protox, so that no protoc is needed, and keeps the descriptor set for reflection.
use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/etcd");
    let files = ["etcdserverpb/rpc.proto", "v3lockpb/v3lock.proto", "v3electionpb/v3election.proto", "health/health.proto"];
    let set = protox::compile(files, ["proto/etcd"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("etcd.descriptors.bin"), set.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").build_client(true).compile_fds(set)?;
    Ok(())
}
