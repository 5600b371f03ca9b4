//! `coppice call`: one request to a deployed function.

use super::invoke::read_event;
use crate::node::{EXIT_REFUSED, Socket, refused};
use crate::output;
use anyhow::Context as _;
use fri_plugin::fri::CHUNK;
use fri_plugin::fri::client::ClientError;
use fri_plugin::proto;
use fri_plugin::proto::invoke_request::Part;
use fri_plugin::proto::invoke_response::Part as Answer;
use serde_json::{Value, json};
use std::io::Write;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coppice call hello --event '{\"name\": \"world\"}'\n  \
    coppice call hello --event @event.json --json\n  echo '{}' | coppice call hello --event -\n  \
    coppice call --stream hello\n\n\
    The answer is printed on stdout as JSON, with --stream as it is; what the function prints goes to stderr as it comes. The status is 0 when the function\n\
    returned, 1 when it failed (its error is on stderr) or the daemon refused, 125 for an error of coppice's own.")]
pub struct Args {
    /// The function
    function: String,
    /// The event: JSON text, @FILE, or - for stdin
    #[arg(long, default_value = "{}", value_name = "JSON|@FILE|-")]
    event: String,
    /// Less time than the function's own limit, seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
    /// Identity of the request, for the function's context and logs [default: a random one]
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    request_id: String,
    /// Print parts of the answer as the function makes them
    #[arg(long, conflicts_with = "json")]
    stream: bool,
    #[command(flatten)]
    socket: Socket,
    /// Print one line of JSON with the answer, the instance and the phases
    #[arg(long)]
    json: bool,
}

/// Calls.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let event = read_event(&args.event)?;
    let head = proto::InvokeHead {
        function: args.function.clone(),
        request_id: args.request_id.clone(),
        timeout_ms: args.timeout.map(super::milliseconds).transpose()?.unwrap_or(0),
        logs: true,
        stream: args.stream,
        ..Default::default()
    };
    let chunks: Vec<Part> = event.chunks(CHUNK).map(|c| Part::Chunk(c.to_vec().into())).collect();
    let parts = std::iter::once(Part::Head(head)).chain(chunks);
    let messages: Vec<_> = parts.map(|part| proto::InvokeRequest { part: Some(part) }).collect();
    args.socket.run(args.json, async |client| {
        let answers = client.instances().invoke(futures::stream::iter(messages)).await.map_err(refused)?;
        let mut answers = answers.into_inner();
        let mut answer = Vec::new();
        while let Some(message) = answers.message().await.map_err(refused)? {
            match message.part {
                Some(Answer::Log(log)) => _ = output::bytes(&mut std::io::stderr(), &log),
                Some(Answer::Chunk(chunk)) if args.stream => print(&chunk)?,
                Some(Answer::Chunk(bytes) | Answer::Error(bytes)) => answer.extend_from_slice(&bytes),
                Some(Answer::End(end)) if args.stream && end.function_error.is_empty() => return Ok(0),
                Some(Answer::End(end)) => return finished(args.json, &end, &answer),
                None => {}
            }
        }
        Err(ClientError::Protocol.into())
    })
}

/// A part of an answer, at once.
fn print(part: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    output::bytes(&mut out, part).and_then(|()| out.flush()).context("cannot write to standard output")
}

fn finished(as_json: bool, end: &proto::InvokeEnd, bytes: &[u8]) -> anyhow::Result<u8> {
    let ok = end.function_error.is_empty();
    if as_json {
        let value: Value = if ok { serde_json::from_slice(bytes)? } else { crate::failure::parsed(bytes) };
        let key = if ok { "result" } else { "error" };
        say!("{}", json!({"ok": ok, key: value, "end": end}));
    } else if ok {
        say!("{}", String::from_utf8_lossy(bytes));
    } else {
        crate::failure::trace(bytes);
    }
    Ok(if ok { 0 } else { EXIT_REFUSED })
}
