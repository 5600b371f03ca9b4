//! Compiles the protocol: messages, and the gRPC client and servers.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["coppice/fri/v1/fri.proto"], ["proto"])?;
    let mut build = tonic_prost_build::configure().bytes(".");
    // What the command prints as JSON.
    let printed = [
        "Function",
        "FunctionSpec",
        "FunctionCounts",
        "Seed",
        "Memory",
        "Instance",
        "StatusResponse",
        "Pool",
        "LogLine",
        "InvokeEnd",
        "Phases",
    ];
    for message in printed {
        build = build.type_attribute(message, "#[derive(serde::Serialize)]");
    }
    let text = "#[serde(serialize_with = \"text\")]";
    build.field_attribute("FunctionSpec.warm_event", text).compile_fds(files)?;
    println!("cargo::rerun-if-changed=proto");
    Ok(())
}
