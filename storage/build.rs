//! Compiles the log's and the state ring's messages with protox, so that no protoc is needed.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::path::Path::new("../proto");
    println!("cargo:rerun-if-changed=../proto/rusd");
    let command = protox::compile(["rusd/command.proto"], [root])?;
    prost_build::Config::new().bytes(["."]).compile_fds(command)?;
    let state = protox::compile(["rusd/state.proto"], [root])?;
    prost_build::Config::new().bytes(["."]).extern_path(".rusd.command", "crate::command").compile_fds(state)?;
    Ok(())
}
