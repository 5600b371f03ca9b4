//! The program `coppiced`.

use crate::daemon::Daemon;
use crate::daemon::error::chain;
use clap::Parser;
use seedtree::node::NodeConfig;
use seedtree::runtime::Runtime;
use std::process::ExitCode;

/// The node daemon of Coppice: keeps functions deployed, and serves each request from a fork of a seed.
#[derive(Debug, Parser)]
#[command(name = "coppiced", version, after_help = "Example: coppiced --config /etc/coppice/coppiced.toml")]
struct Args {}

/// Runs the daemon until it is told to stop. To be called first in `main`, on its thread, before any other thread is there.
pub fn main() -> ExitCode {
    seedtree::sandbox::run_if_asked();
    Args::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("coppiced: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coppiced: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let config = NodeConfig::default();
    let daemon = Daemon::start(config, &[Runtime::Python, Runtime::Node]).await?;
    tokio::signal::ctrl_c().await?;
    daemon.node().drain().await;
    Ok(())
}
