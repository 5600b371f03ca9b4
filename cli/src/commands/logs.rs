//! `coppice logs`, and `coppice function logs`: what functions print.

use super::function::Common;
use crate::node::{refused, show};
use fri_plugin::proto;

/// Arguments of `coppice logs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coppice logs -f\n  coppice logs --tail 100 hello")]
pub struct Args {
    /// Of this function only
    function: Option<String>,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `coppice function logs`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  coppice function logs hello\n  coppice function logs hello --tail 1000 -f"
)]
pub struct Function {
    /// The function
    name: String,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    common: Common,
}

/// Which lines.
#[derive(Debug, clap::Args)]
struct Which {
    /// Go on with new lines until interrupted
    #[arg(long, short)]
    follow: bool,
    /// Lines of the past
    #[arg(long, short = 'n', value_name = "LINES", default_value_t = 100)]
    tail: u32,
}

/// Shows the lines of all functions, or of one.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    lines(args.function.as_deref().unwrap_or_default(), &args.which, &args.common)
}

/// Shows the lines of a function.
pub fn of_function(args: &Function) -> anyhow::Result<u8> {
    lines(&args.name, &args.which, &args.common)
}

fn lines(function: &str, which: &Which, common: &Common) -> anyhow::Result<u8> {
    let request =
        proto::LogsRequest { function: function.to_owned(), tail: which.tail, follow: which.follow };
    common.socket.run(common.json, async |client| {
        let mut lines = client.functions().logs(request).await.map_err(refused)?.into_inner();
        while let Some(line) = lines.message().await.map_err(refused)? {
            show::log_line(&line, common.json, function.is_empty())?;
        }
        Ok(0)
    })
}
