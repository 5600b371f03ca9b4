//! `coppice function`: what is deployed.

use super::logs;
use crate::node::upload::{Shown, follow};
use crate::node::{Socket, each, refused, show};
use fri_plugin::proto;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// What to do with functions.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the deployed functions
    #[command(after_help = "Example: coppice function ls")]
    Ls {
        #[command(flatten)]
        common: Common,
    },
    /// Show one function: what was deployed, its versions, and how it does
    #[command(after_help = "Example: coppice function show hello")]
    Show {
        /// The function
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Take a function out of service, with all of its versions; requests at work are finished
    #[command(after_help = "Example: coppice function rm hello")]
    Rm {
        /// The functions
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Show what instances of a function have printed
    Logs(logs::Function),
    /// Go back to an earlier version
    #[command(
        after_help = "Examples:\n  coppice function rollback hello\n  coppice function rollback hello --to 3"
    )]
    Rollback {
        /// The function
        name: String,
        /// Which version [default: the one before the present one]
        #[arg(long, value_name = "VERSION", default_value_t = 0, hide_default_value = true)]
        to: u64,
        #[command(flatten)]
        common: Common,
    },
}

/// What every command has.
#[derive(Debug, clap::Args)]
pub struct Common {
    #[command(flatten)]
    pub socket: Socket,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Does it.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    match &args.command {
        Command::Ls { common } => common.socket.run(common.json, async |client| {
            let request = proto::ListFunctionsRequest {};
            let functions = client.functions().list(request).await.map_err(refused)?.into_inner().functions;
            if common.json {
                say!("{}", serde_json::to_string(&functions)?);
            } else {
                say!("{}", show::functions(&functions));
            }
            Ok(0)
        }),
        Command::Show { name, common } => common.socket.run(common.json, async |client| {
            let request = proto::GetFunctionRequest { name: name.clone() };
            let function = client.functions().get(request).await.map_err(refused)?.into_inner();
            if common.json {
                say!("{}", serde_json::to_string(&function)?);
            } else {
                say!("{}", describe(&function));
            }
            Ok(0)
        }),
        Command::Rm { names, common } => common.socket.run(common.json, async |client| {
            let remove = async |name| client.functions().remove(proto::RemoveFunctionRequest { name }).await;
            each(names, common.json, "removed", remove).await
        }),
        Command::Logs(args) => logs::of_function(args),
        Command::Rollback { name, to, common } => common.socket.run(common.json, async |client| {
            let request = proto::RollbackRequest { name: name.clone(), version: *to };
            let events = client.functions().rollback(request).await.map_err(refused)?;
            let function = follow(events.into_inner(), &Shown::new(common.json)).await?;
            if common.json {
                say!("{}", serde_json::to_string(&function)?);
            } else {
                say!("{name} serves its version {}: {}", function.version, function.state);
            }
            Ok(0)
        }),
    }
}

fn describe(function: &proto::Function) -> String {
    let (spec, counts) = (function.spec.clone().unwrap_or_default(), function.counts.unwrap_or_default());
    let mut lines = vec![
        ("name", spec.name),
        ("version", function.version.to_string()),
        ("versions", function.versions.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")),
        ("state", function.state.clone()),
        ("reason", function.reason.clone()),
        ("description", spec.description),
        ("runtime", spec.runtime),
        ("handler", spec.handler),
        ("memory", show::bytes(spec.memory_bytes)),
        ("cpus", spec.cpus.to_string()),
        ("timeout", format!("{} ms", spec.timeout_ms)),
        ("concurrency", spec.concurrency.to_string()),
        ("queue", spec.queue.map(|n| n.to_string()).unwrap_or_default()),
        ("keep alive", spec.keep_alive.to_string()),
        ("spares", format!("{} of {} ready", counts.spares, spec.spares.unwrap_or_default())),
        ("code", function.code_sha256.clone()),
        ("layers", function.layer_sha256.join(", ")),
        ("requests", format!("{}, {} running, {} waiting", counts.requests, counts.running, counts.waiting)),
        ("errors", counts.errors.to_string()),
        ("refused", counts.refused.to_string()),
        ("memory used", show::bytes(counts.pss_bytes)),
    ];
    let mut names: Vec<_> = spec.env.into_iter().collect();
    names.sort();
    lines.extend(names.into_iter().map(|(name, value)| ("env", format!("{name}={value}"))));
    lines.retain(|(_, value)| !value.is_empty());
    lines.iter().map(|(name, value)| format!("{name:<12} {value}")).collect::<Vec<_>>().join("\n")
}
