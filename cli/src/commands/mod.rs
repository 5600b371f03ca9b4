//! The subcommands. Each file defines its arguments, with their help, and runs them.

use anyhow::{Context, bail};

mod call;
mod check;
mod demo;
mod deploy;
mod function;
mod instance;
mod invoke;
mod logs;
mod node;
mod run;
mod seed;
mod simulate;
mod top;

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
    /// Deploy a function on this node, or a new version of one (needs coppiced)
    Deploy(deploy::Args),
    /// Send a request to a deployed function (needs coppiced)
    Call(call::Args),
    /// List, show, remove and roll back deployed functions (needs coppiced)
    Function(function::Args),
    /// Show and change the seed tree of this node (needs coppiced)
    Seed(seed::Args),
    /// List and end instances (needs coppiced)
    Instance(instance::Args),
    /// Show what functions print (needs coppiced)
    Logs(logs::Args),
    /// Show how this node does, and drain it (needs coppiced)
    Node(node::Args),
    /// Watch the functions of this node, live (needs coppiced)
    Top(top::Args),
}

impl Command {
    /// Runs it; the result is the exit status.
    pub fn run(self) -> anyhow::Result<u8> {
        if matches!(self, Command::Run(_) | Command::Invoke(_) | Command::Demo(_)) {
            crate::limits::open_files()?;
        }
        match self {
            Command::Check(args) => check::run(&args),
            Command::Run(args) => run::run(args),
            Command::Invoke(args) => invoke::run(&args),
            Command::Demo(args) => demo::run(&args),
            Command::Simulate(args) => simulate::run(&args),
            Command::Deploy(args) => deploy::run(&args),
            Command::Call(args) => call::run(&args),
            Command::Function(args) => function::run(&args),
            Command::Seed(args) => seed::run(&args),
            Command::Instance(args) => instance::run(&args),
            Command::Logs(args) => logs::run(&args),
            Command::Node(args) => node::run(&args),
            Command::Top(args) => top::run(&args),
        }
    }
}

/// NAME=VALUE from the command line.
fn environment(items: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let pair = |item: &String| {
        let (name, value) =
            item.split_once('=').with_context(|| format!("--env {item}: write NAME=VALUE"))?;
        if name.is_empty() {
            bail!("--env {item}: the name is empty");
        }
        Ok((name.to_owned(), value.to_owned()))
    };
    items.iter().map(pair).collect()
}

/// A time from the command line, seconds, as ms.
fn milliseconds(seconds: f64) -> anyhow::Result<u64> {
    if !(0.001..=86_400.0).contains(&seconds) {
        bail!("{seconds} seconds: it must lie between 0.001 and 86400");
    }
    Ok(std::time::Duration::from_secs_f64(seconds).as_millis().try_into()?)
}
