//! `coppice node`: the node as a whole.

use super::function::Common;
use crate::node::{refused, show};
use crate::report::table;
use fri_plugin::proto;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// What to do with the node.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show how the node does: its state, what it holds, what is made ahead of time
    #[command(after_help = "Example: coppice node status")]
    Status(Common),
    /// Take no more requests, and wait until those at work are answered
    #[command(after_help = "Example: coppice node drain --timeout 30")]
    Drain {
        /// Time for the requests at work, seconds; what is left then is ended [default: the node's]
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<f64>,
        #[command(flatten)]
        common: Common,
    },
}

/// Does it.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    match &args.command {
        Command::Status(common) => common.socket.run(common.json, async |client| {
            let mut node = client.node();
            let request = proto::StatusRequest { memory: true };
            let status = node.status(request).await.map_err(refused)?.into_inner();
            let pools = node.pools(proto::PoolsRequest {}).await.map_err(refused)?.into_inner().pools;
            if common.json {
                say!("{}", serde_json::json!({"status": status, "pools": pools}));
                return Ok(0);
            }
            say!("{}", show::status(&status));
            if !pools.is_empty() {
                let row = |p: &proto::Pool| {
                    vec![p.name.clone(), p.ready.to_string(), p.wanted.to_string(), p.making.to_string()]
                };
                let rows: Vec<_> = pools.iter().map(row).collect();
                say!("{}", table(&["pool", "ready", "wanted", "making"], &rows));
            }
            Ok(0)
        }),
        Command::Drain { timeout, common } => common.socket.run(common.json, async |client| {
            let timeout_ms = timeout.map(super::milliseconds).transpose()?.unwrap_or(0);
            let request = proto::DrainRequest { timeout_ms };
            let drained = client.node().drain(request).await.map_err(refused)?.into_inner();
            if common.json {
                say!("{}", serde_json::json!({"ok": true, "given_up": drained.given_up}));
            } else {
                say!("the node is drained; requests that were given up: {}", drained.given_up);
            }
            Ok(0)
        }),
    }
}
