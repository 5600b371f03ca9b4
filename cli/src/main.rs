//! The `coppice` command: one file per subcommand under [`commands`].
#![forbid(unsafe_code)]
// These panic where the stream is full or closed: `say!` and `tell!` do not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use clap::Parser;
use std::process::ExitCode;

/// Prints a line on stdout; where that fails (a full disk, a reader that is gone) the command ends with an error, not a panic.
macro_rules! say {
    ($($argument:tt)*) => {{
        let written = crate::output::line(&mut std::io::stdout(), format_args!($($argument)*));
        anyhow::Context::context(written, "cannot write to standard output")?
    }};
}

/// Prints a line on stderr. Nobody can be told when that fails, and it is no reason to fail.
macro_rules! tell {
    ($($argument:tt)*) => {{
        let _ = crate::output::line(&mut std::io::stderr(), format_args!($($argument)*));
    }};
}

mod commands;
mod failure;
mod limits;
mod mounts;
mod node;
mod output;
mod peers;
mod report;
mod signals;
mod size;
mod summary;
mod terminal;

/// Exit status for an error of coppice's own, as env(1) and docker(1) use it.
const EXIT_OWN_ERROR: u8 = 125;

/// Cold starts without the wait: functions forked from paused KVM sandboxes.
#[derive(Debug, Parser)]
#[command(name = "coppice", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: commands::Command,
}

/// Prints help, the version, or what is wrong with the arguments.
fn explain(answer: &clap::Error) -> ExitCode {
    let printed = answer.print();
    if let (Err(error), 0) = (printed, answer.exit_code()) {
        tell!("coppice: cannot write to standard output: {error}");
        return ExitCode::from(EXIT_OWN_ERROR);
    }
    ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(EXIT_OWN_ERROR))
}

fn main() -> ExitCode {
    // A sandbox process is this same binary in another role.
    seedtree::sandbox::run_if_asked();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => return explain(&answer),
    };
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("COPPICE_LOG").unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        // Such an error would be printed where printing has just failed.
        .log_internal_errors(false)
        .init();
    match cli.command.run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let mut line = error.to_string();
            for cause in error.chain().skip(1) {
                let cause = cause.to_string();
                if !line.contains(&cause) {
                    line.push_str(": ");
                    line.push_str(&cause);
                }
            }
            tell!("coppice: {line}");
            ExitCode::from(EXIT_OWN_ERROR)
        }
    }
}
