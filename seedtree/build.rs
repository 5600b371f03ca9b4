//! Builds what the Node.js runtime needs in machine code: a library of a page, embedded like the runtime's script.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest/runtimes/node/fork.c");
    println!("cargo::rerun-if-changed={}", source.display());
    println!("cargo::rerun-if-env-changed=CC");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("fork.node");
    // The C compiler is there: rustc links with it.
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let status = Command::new(&compiler)
        .args(["-Os", "-fPIC", "-shared", "-nostdlib", "-fvisibility=hidden", "-fno-stack-protector"])
        .args(["-fno-asynchronous-unwind-tables", "-Wl,--build-id=none,-z,noseparate-code,-s", "-o"])
        .args([&out, &source])
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => {
            println!("cargo::error={compiler} cannot compile guest/runtimes/node/fork.c: {status}");
        }
        Err(error) => {
            println!(
                "cargo::error=cannot run {compiler}, which must be a C compiler (set CC to one): {error}"
            );
        }
    }
}
