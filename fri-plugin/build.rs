//! Compiles the protocol: messages, and the gRPC client and servers.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["coppice/fri/v1/fri.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    println!("cargo::rerun-if-changed=proto");
    Ok(())
}
