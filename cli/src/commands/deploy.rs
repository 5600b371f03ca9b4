//! `coppice deploy`: a function, or a new version of one.

use super::environment;
use crate::node::upload::{Archive, Shown, follow, messages};
use crate::node::{Socket, refused};
use anyhow::{Context, bail};
use fri_plugin::proto;
use fri_plugin::proto::archive::Kind;
use std::path::PathBuf;
use std::sync::PoisonError;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  coppice deploy ./hello --name hello --runtime python3.12 --handler app.handler\n  \
    coppice deploy function.zip --name api --runtime nodejs20.x --handler index.handler --memory 512m --spares 4\n  \
    coppice deploy ./tool --name tool --runtime provided.al2023 --layer ./deps --env MODE=fast\n\n\
    Code and layers are laid out as on AWS Lambda: the code becomes /var/task, the layers /opt. When the new version does not start, its\n\
    own error is shown, the status is 1, and the version before goes on serving."
)]
pub struct Args {
    /// Directory or zip file with the function's code
    code: PathBuf,
    /// Name of the function: letters, digits, - and _
    #[arg(long)]
    name: String,
    /// python, node or provided; AWS Lambda's names, such as python3.12 or provided.al2023, are understood
    #[arg(long, value_name = "NAME")]
    runtime: String,
    /// What to call, as FILE.FUNCTION; of provided what the program finds in _HANDLER
    #[arg(long, value_name = "FILE.FUNCTION", default_value = "", hide_default_value = true)]
    handler: String,
    /// Memory limit of an instance, such as 256m [default: the node's]
    #[arg(long, value_name = "SIZE", value_parser = crate::size::parse)]
    memory: Option<u64>,
    /// vCPUs of an instance [default: the node's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cpus: Option<u32>,
    /// Time for one request, seconds [default: the node's]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
    /// Environment variable of the function
    #[arg(long = "env", short = 'e', value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Instances to fork ahead of need, once the working set is known (see --warm) [default: the node's]
    #[arg(long, value_name = "N")]
    spares: Option<u32>,
    /// Requests served at once [default: the node's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    /// Requests that may wait for their turn [default: the node's]
    #[arg(long, value_name = "N")]
    queue: Option<u32>,
    /// Instances kept after an answer, to serve again; 0: each request has a fresh one
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_alive: u32,
    /// Directory or zip file of a layer; the later ones over the earlier
    #[arg(long = "layer", value_name = "DIR|ZIP")]
    layers: Vec<PathBuf>,
    /// An event to run once in the seed, so that requests find warm code
    #[arg(long, value_name = "JSON")]
    warm: Option<String>,
    /// For people
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    #[command(flatten)]
    socket: Socket,
    /// Print the function as JSON
    #[arg(long)]
    json: bool,
}

/// Deploys.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    if args.handler.is_empty() && !args.runtime.starts_with("provided") {
        bail!("--handler is missing: write FILE.FUNCTION, such as app.handler");
    }
    if let Some(warm) = &args.warm {
        seedtree::tree::check_event(warm.as_bytes()).context("--warm")?;
    }
    let spec = proto::FunctionSpec {
        name: args.name.clone(),
        runtime: args.runtime.clone(),
        handler: args.handler.clone(),
        memory_bytes: args.memory.unwrap_or(0),
        cpus: args.cpus.unwrap_or(0),
        timeout_ms: args.timeout.map(super::milliseconds).transpose()?.unwrap_or(0),
        env: environment(&args.env)?.into_iter().collect(),
        spares: args.spares,
        concurrency: args.concurrency.unwrap_or(0),
        queue: args.queue,
        keep_alive: args.keep_alive,
        warm_event: args.warm.clone().unwrap_or_default().into(),
        description: args.description.clone(),
    };
    args.socket.run(args.json, async |client| {
        let mut archives = vec![Archive::open(Kind::Code, &args.code)?];
        for layer in &args.layers {
            archives.push(Archive::open(Kind::Layer, layer)?);
        }
        let shown = Shown::new(args.json);
        let (messages, failure) = messages(spec, archives, shown.clone());
        let events = client.functions().deploy(futures::stream::iter(messages)).await.map_err(refused)?;
        let deployed = follow(events.into_inner(), &shown).await;
        // Half an archive is refused too, but for a reason that is not the real one.
        if let Some(error) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error).context("cannot read what is to be deployed");
        }
        let function = deployed?;
        if args.json {
            say!("{}", serde_json::to_string(&function)?);
        } else {
            say!("{} version {} is deployed: {}", args.name, function.version, function.state);
        }
        Ok(0)
    })
}
