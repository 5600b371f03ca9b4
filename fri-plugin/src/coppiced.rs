//! The program `coppiced`.

use crate::config::{self, Config};
use crate::daemon::Daemon;
use crate::daemon::error::chain;
use crate::{fri, gateway};
use clap::Parser;
use seedtree::node::NodeConfig;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// The node daemon of Coppice: keeps functions deployed, and serves each request from a fork of a seed.
#[derive(Debug, Parser)]
#[command(name = "coppiced", version, after_help = "Example: coppiced --config /etc/coppice/coppiced.toml")]
struct Args {
    /// Configuration (TOML) [default: /etc/coppice/coppiced.toml where there is one, else the defaults]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the daemon until it is told to stop. To be called first in `main`, on its thread, before any other thread is there.
pub fn main() -> ExitCode {
    seedtree::sandbox::run_if_asked();
    let args = Args::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("coppiced: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coppiced: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let config = match args.config {
        Some(path) => Config::load(&path)?,
        None if PathBuf::from(config::PATH).exists() => Config::load(config::PATH.as_ref())?,
        None => Config::default(),
    };
    let (mut stop, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let daemon = Daemon::start(NodeConfig::default(), &config.runtimes).await?;
    let gateway = gateway::start(&daemon, &config).await?;
    let served = fri::start::start(&daemon, &config)?;
    tokio::select! {
        _ = stop.recv() => {}
        _ = interrupt.recv() => {}
    }
    gateway.stop().await;
    daemon.node().drain().await;
    served.stop().await;
    Ok(())
}
