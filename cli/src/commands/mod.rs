//! The subcommands. Each file defines its arguments, with their help, and runs them.

mod check;
mod demo;
mod invoke;
mod run;
mod simulate;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check that this host can run sandboxes, and say what it lacks
    Check(check::Args),
    /// Run a program in a sandbox over this host's root directory (read-only below an in-memory layer)
    Run(run::Args),
    /// Call a handler once, in an instance forked from a seed with the handler loaded
    Invoke(invoke::Args),
    /// Grow a seed tree, fork instances from it, and show what it costs beside other ways to start a function
    Demo(demo::Args),
    /// Replay a trace of requests, and show what each reclaim policy would keep under a memory budget
    Simulate(simulate::Args),
}

impl Command {
    /// Runs it; the result is the exit status.
    pub fn run(self) -> anyhow::Result<u8> {
        if !matches!(self, Command::Check(_) | Command::Simulate(_)) {
            crate::limits::open_files()?;
        }
        match self {
            Command::Check(args) => check::run(&args),
            Command::Run(args) => run::run(args),
            Command::Invoke(args) => invoke::run(&args),
            Command::Demo(args) => demo::run(&args),
            Command::Simulate(args) => simulate::run(&args),
        }
    }
}
