//! `coppice seed`: the seed tree.

use super::function::Common;
use crate::node::{refused, show};
use fri_plugin::fri::client::{Client, ClientError};
use fri_plugin::proto;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// What to do with seeds.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Draw the tree, with the memory of each seed
    #[command(after_help = "Example: coppice seed tree")]
    Tree(Common),
    /// List the seeds
    #[command(after_help = "Example: coppice seed ls")]
    Ls(Common),
    /// Show one seed
    #[command(after_help = "Example: coppice seed show python")]
    Show {
        /// os, the name of a runtime, or of a function
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Drop a seed; its parent serves until it is asked for again
    #[command(after_help = "Example: coppice seed rm hello")]
    Rm {
        /// The name of a runtime, or of a function
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Make a function ready for requests: its seed, its working set, its spares
    #[command(after_help = "Example: coppice seed prewarm hello")]
    Prewarm {
        /// The function
        function: String,
        #[command(flatten)]
        common: Common,
    },
}

/// Does it.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    match &args.command {
        Command::Tree(common) => common.socket.run(common.json, async |client| {
            let seeds = seeds(&client).await?;
            if common.json {
                say!("{}", serde_json::to_string(&seeds)?);
            } else {
                say!("{}", show::tree(&seeds).trim_end());
            }
            Ok(0)
        }),
        Command::Ls(common) => common.socket.run(common.json, async |client| {
            print(&seeds(&client).await?, common.json)?;
            Ok(0)
        }),
        Command::Show { name, common } => common.socket.run(common.json, async |client| {
            let found: Vec<_> = seeds(&client).await?.into_iter().filter(|s| s.name == *name).collect();
            if found.is_empty() {
                let message = format!("there is no seed {name}: `coppice seed ls` lists them");
                let error = proto::Error { code: "Seed.NotFound".to_owned(), message, ..Default::default() };
                return Err(ClientError::Refused(error).into());
            }
            print(&found, common.json)?;
            Ok(0)
        }),
        Command::Rm { name, common } => common.socket.run(common.json, async |client| {
            let request = proto::DeleteSeedRequest { name: name.clone() };
            client.seeds().delete(request).await.map_err(refused)?;
            if common.json {
                say!("{}", serde_json::json!({"ok": true, "removed": name}));
            } else {
                say!("the seed {name} is dropped");
            }
            Ok(0)
        }),
        Command::Prewarm { function, common } => common.socket.run(common.json, async |client| {
            let request = proto::PrewarmRequest { function: function.clone() };
            let seed = client.seeds().prewarm(request).await.map_err(refused)?.into_inner();
            if common.json {
                say!("{}", serde_json::to_string(&seed)?);
            } else {
                say!("{function} is ready: its seed is process {}", seed.pid);
            }
            Ok(0)
        }),
    }
}

async fn seeds(client: &Client) -> anyhow::Result<Vec<proto::Seed>> {
    let request = proto::ListSeedsRequest { memory: true };
    Ok(client.seeds().list(request).await.map_err(refused)?.into_inner().seeds)
}

fn print(seeds: &[proto::Seed], as_json: bool) -> anyhow::Result<()> {
    if as_json {
        say!("{}", serde_json::to_string(seeds)?);
    } else {
        say!("{}", show::seeds(seeds));
    }
    Ok(())
}
