//! `coppice instance`: what is forked from the seeds.

use super::function::Common;
use crate::node::{each, refused, show};
use fri_plugin::proto;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// What to do with instances.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List instances: at work, spare, kept, and those that clients own
    #[command(after_help = "Examples:\n  coppice instance ls\n  coppice instance ls hello")]
    Ls {
        /// Of this function only
        function: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// End instances, whatever they do; a request of theirs gets an error
    #[command(after_help = "Example: coppice instance kill 4711-12")]
    Kill {
        /// As `coppice instance ls` lists them
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
}

/// Does it.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    match &args.command {
        Command::Ls { function, common } => common.socket.run(common.json, async |client| {
            let request = proto::ListInstancesRequest { function: function.clone().unwrap_or_default() };
            let instances = client.instances().list(request).await.map_err(refused)?.into_inner().instances;
            // A removed function may have instances that finish their requests.
            if let (Some(name), true) = (function, instances.is_empty()) {
                let request = proto::GetFunctionRequest { name: name.clone() };
                client.functions().get(request).await.map_err(refused)?;
            }
            if common.json {
                say!("{}", serde_json::to_string(&instances)?);
            } else {
                say!("{}", show::instances(&instances));
            }
            Ok(0)
        }),
        Command::Kill { ids, common } => common.socket.run(common.json, async |client| {
            let end = async |id| client.instances().destroy(proto::DestroyRequest { id }).await;
            each(ids, common.json, "ended", end).await
        }),
    }
}
