//! The program `coppiced`.

use crate::config::{self, Config};
use crate::daemon::Daemon;
use crate::daemon::error::chain;
use crate::daemon::start::Sandboxes;
use crate::life::{Life, systemd};
use crate::trace::LogForm;
use crate::{fri, gateway};
use clap::{Parser, Subcommand};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// What ending takes besides the requests at work.
const ENDING: Duration = Duration::from_secs(10);
/// Time for calls of the interface that are under way when no request is at work any more.
const CALLS: Duration = Duration::from_secs(2);

/// The node daemon of Coppice: keeps functions deployed, and serves each request from a fork of a seed.
///
/// Stays in the foreground, and logs to stderr: as much as COPPICE_LOG says, such as `info` or `seedtree=debug`. SIGTERM and SIGINT end it when the requests at work are answered; a second one, at once.
#[derive(Debug, Parser)]
#[command(name = "coppiced", version, after_help = "Example: coppiced --config /etc/coppice/coppiced.toml")]
struct Args {
    /// Configuration (TOML) [default: /etc/coppice/coppiced.toml where there is one, else the defaults]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Form of the daemon's own log
    #[arg(long, value_name = "FORM", value_enum, default_value_t, global = true)]
    log: LogForm,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows and checks configurations
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Prints every key with its default and what is allowed
    #[command(after_help = "Example: coppiced config default > /etc/coppice/coppiced.toml")]
    Default,
    /// Says whether a configuration is accepted
    #[command(after_help = "Example: coppiced --config coppiced.toml config check")]
    Check,
}

/// Runs the daemon until it is told to stop. To be called first in `main`, on its thread, before any other thread is there.
pub fn main() -> ExitCode {
    seedtree::sandbox::run_if_asked();
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coppiced: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Box<dyn Error>> {
    match args.command {
        Some(Command::Config { command: ConfigCommand::Default }) => {
            print!("{}", config::DEFAULT);
            return Ok(());
        }
        Some(Command::Config { command: ConfigCommand::Check }) => {
            let config = load(args.config)?;
            if let Some(advice) = config.superseded() {
                eprintln!("coppiced: {advice}");
            }
            println!("accepted");
            return Ok(());
        }
        None => {}
    }
    let config = load(args.config)?;
    crate::trace::log_to_stderr(args.log);
    if let Some(advice) = config.superseded() {
        tracing::warn!("{advice}");
    }
    // Dropped after the runtime, and so after every sandbox: until then nobody else gets the directories.
    let life = Life::begin(&config.state, &config.run)?;
    life.reconcile();
    warn_of_shared_files(&config);
    let config = Config { state: life.state().to_owned(), run: life.run().to_owned(), ..config };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(config, Sandboxes { mark: life.mark(), ..Sandboxes::default() }))
}

fn load(path: Option<PathBuf>) -> Result<Config, config::ConfigError> {
    let config = match path {
        Some(path) => Config::load(&path)?,
        None if PathBuf::from(config::PATH).exists() => Config::load(config::PATH.as_ref())?,
        None => Config::default(),
    };
    config.check_host()?;
    Ok(config)
}

/// Functions are not strangers to the host's files where its root directory is theirs too.
fn warn_of_shared_files(config: &Config) {
    use std::os::unix::fs::MetadataExt;
    let node = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    if !config.public_only {
        tracing::warn!(rootfs = %config.rootfs.display(), "functions can read all files in rootfs that this daemon can: public_only is off");
    } else if node(&config.rootfs) == node("/".as_ref()) {
        tracing::warn!(
            "functions can read the host's files that everybody may: rootfs is /, see rootfs and hidden in the configuration"
        );
    }
}

async fn serve(config: Config, sandboxes: Sandboxes) -> Result<(), Box<dyn Error>> {
    let mut stop = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut stopped = async || {
        tokio::select! {
            _ = stop.0.recv() => {}
            _ = stop.1.recv() => {}
        }
    };
    systemd::status("booting the OS seed");
    let daemon = Daemon::start(config, sandboxes).await?;
    let pulse = daemon.node().pulse();
    let _watchdog = systemd::watchdog(move || {
        let pulse = pulse.clone();
        async move { pulse.answers().await }
    });
    let gateway = gateway::start(&daemon, daemon.config()).await?;
    let served = fri::start::start(&daemon, daemon.config())?;
    tokio::select! {
        grown = daemon.grow_languages(|step| told(&step)) => grown?,
        () = stopped() => {
            finish(served).await;
            return Ok(());
        }
    }
    systemd::ready("serving requests");
    tracing::info!("ready");
    let _budget = daemon.keep_within_budget();
    let functions = tokio::spawn({
        let daemon = daemon.clone();
        async move { daemon.grow_functions(|step| told(&step)).await }
    });
    stopped().await;
    tracing::info!("going down: waiting for the requests at work");
    systemd::stopping(Duration::from_millis(daemon.config().drain_timeout_ms).saturating_add(ENDING));
    functions.abort();
    tokio::select! {
        given_up = go_down(daemon, gateway, served) => {
            if given_up > 0 {
                tracing::warn!(given_up, "requests were given up");
            }
        }
        () = stopped() => tracing::warn!("told twice: going down at once"),
    }
    Ok(())
}

/// A step of the daemon's work, for the log and the service manager.
fn told(step: &str) {
    tracing::info!("{step}");
    systemd::status(step);
}

/// Ends in order; how many requests were given up.
async fn go_down(daemon: Daemon, gateway: gateway::Running, served: fri::start::Served) -> usize {
    let logs = daemon.logs().clone();
    let given_up = tokio::join!(daemon.drain(None), gateway.stop()).0;
    finish(served).await;
    logs.flush().await;
    given_up
}

/// Ends the interface. A deploy may wait for a client, or for an import, without end: it does not keep the daemon.
async fn finish(served: fri::start::Served) {
    if tokio::time::timeout(CALLS, served.stop()).await.is_err() {
        tracing::warn!("calls of the interface are given up");
    }
}
