//! `coppice invoke`: one request through a fresh seed tree.

use anyhow::{Context, bail};
use seedtree::runtime::{Function, MAX_PAYLOAD, Reply, Runtime};
use seedtree::tree::{Config, Tree, TreeError};
use serde_json::{Value, json};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coppice invoke app.py:handler --event '{\"name\": \"world\"}'\n  \
    coppice invoke app.mjs:handler --event @event.json\n  \
    coppice invoke --runtime provided ./bootstrap\n  echo '{}' | coppice invoke app.py:handler --event -\n\n\
    The answer is printed on stdout as JSON; what the handler prints goes to stderr. The status is 0 when the handler\n\
    returned, 1 when it failed (its error is on stderr), 125 for an error of coppice's own.")]
pub struct Args {
    /// The handler: FILE:FUNCTION, called as FUNCTION(event, context); FILE ends in .py, .js, .mjs or .cjs. With --runtime provided, a program
    /// that speaks the AWS Lambda Runtime API, or a directory with one named bootstrap
    handler: String,
    /// The event: JSON text, @FILE, or - for stdin
    #[arg(long, default_value = "{}", value_name = "JSON|@FILE|-")]
    event: String,
    /// Runtime, where the file's name does not tell
    #[arg(long, value_name = "NAME", value_parser = Runtime::ALL.map(Runtime::name))]
    runtime: Option<String>,
    /// What a provided program finds in _HANDLER
    #[arg(long = "handler", value_name = "TEXT", default_value = "function.handler")]
    handler_name: String,
    /// Time for one request, seconds
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    timeout: f64,
    /// Memory limit of the function, such as 256m
    #[arg(long, default_value = "512m", value_name = "SIZE", value_parser = crate::size::parse)]
    memory: u64,
    /// vCPUs that an instance may use at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    cpus: u16,
    /// Environment variable of the function
    #[arg(long = "env", short = 'e', value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Root directory of the guest; the handler's file must lie below it at the same path
    #[arg(long, value_name = "DIR", default_value = "/")]
    rootfs: PathBuf,
    /// Run the handler once with this event in the seed before the request is served
    #[arg(long, value_name = "JSON")]
    warm: Option<String>,
    /// How many times to send the event, each to an instance of its own
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Spares to keep ready
    #[arg(long, default_value_t = 0, value_name = "N")]
    spares: usize,
    /// Print one line of JSON with the answer and the phases
    #[arg(long)]
    json: bool,
}

/// Serves the request.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let runtime = args.runtime.as_deref().and_then(Runtime::named);
    let mut function = match runtime {
        Some(Runtime::Provided) => Function::provided(Path::new(&args.handler), &args.handler_name)?,
        _ => Function::parse_as(&args.handler, runtime)?,
    };
    if !(0.001..=900.0).contains(&args.timeout) {
        bail!("--timeout {}: it must lie between 0.001 and 900 seconds", args.timeout);
    }
    function.timeout_ms = std::time::Duration::from_secs_f64(args.timeout).as_millis().try_into()?;
    function.memory = args.memory;
    function.cpus = usize::from(args.cpus);
    let event = read_event(&args.event)?;
    seedtree::tree::check_event(&event)?;
    if let Some(warm) = &args.warm {
        seedtree::tree::check_event(warm.as_bytes()).context("--warm")?;
    }
    let env = super::environment(&args.env)?;
    let config = Config {
        exe: std::env::current_exe()?,
        rootfs: args.rootfs.clone(),
        log: std::io::stderr().as_fd().try_clone_to_owned()?,
        env,
        prefill: args.repeat > 1 || args.spares > 0,
    };
    let mut tree = Tree::plant(config)?;
    tree.grow_language(function.runtime)?;
    match tree.grow_function(&function, args.warm.as_deref().map(str::as_bytes)) {
        Err(TreeError::Import(error)) => {
            return function_error(&error, args.json, None);
        }
        Err(error) => return failed(error, args.json),
        Ok(()) => {}
    }
    if args.repeat > 1 || args.spares > 0 {
        match tree.train(&event) {
            Err(error) if error.function_failure().is_none() => return Err(error.into()),
            // The requests themselves will say what is wrong with the function.
            _ => {}
        }
    }
    let mut status = 0;
    for _ in 0..args.repeat {
        tree.fill_spares(args.spares, false)?;
        let served = match tree.invoke(&function, &event) {
            Ok(served) => served,
            Err(error) => {
                status = failed(error, args.json)?;
                continue;
            }
        };
        let phases = json!({
            "total_us": served.total / 1000, "clone_us": served.phases.clone / 1000, "vm_us": served.phases.vm / 1000,
            "prefill_us": served.phases.prefill / 1000, "run_us": served.phases.run / 1000,
            "level": served.level, "spare": served.spare,
        });
        match served.reply {
            Reply::Result(result) => {
                if args.json {
                    let result: Value = serde_json::from_slice(&result).context("the answer is not JSON")?;
                    say!("{}", json!({"ok": true, "result": result, "phases": phases}));
                } else {
                    say!("{}", String::from_utf8_lossy(&result));
                }
            }
            Reply::Error(error) => status = function_error(&error, args.json, Some(phases))?,
            Reply::Imported | Reply::Malformed => bail!("the runtime answered out of protocol"),
        }
    }
    Ok(status)
}

/// Reports a function that exited, crashed or overran a limit (status 1); any other error is passed on.
fn failed(error: TreeError, as_json: bool) -> anyhow::Result<u8> {
    let Some(failure) = error.function_failure() else { return Err(error.into()) };
    let value =
        json!({"errorType": failure.error_type(), "errorMessage": failure.to_string(), "stackTrace": []});
    function_error(value.to_string().as_bytes(), as_json, None)
}

/// Prints the function's own error; its status is 1.
fn function_error(error: &[u8], as_json: bool, phases: Option<Value>) -> anyhow::Result<u8> {
    if as_json {
        say!("{}", json!({"ok": false, "error": crate::failure::parsed(error), "phases": phases}));
    } else {
        crate::failure::trace(error);
    }
    Ok(1)
}

/// Reads the event, and no more of it than the limit and a byte.
pub(super) fn read_event(arg: &str) -> anyhow::Result<Vec<u8>> {
    let limit = MAX_PAYLOAD as u64 + 1;
    let mut event = Vec::new();
    if arg == "-" {
        std::io::stdin()
            .lock()
            .take(limit)
            .read_to_end(&mut event)
            .context("cannot read the event from stdin")?;
    } else if let Some(file) = arg.strip_prefix('@') {
        let open = std::fs::File::open(file).with_context(|| format!("cannot read the event file {file}"))?;
        let length = open.metadata().map(|m| m.len()).unwrap_or(0);
        if length > MAX_PAYLOAD as u64 {
            return Err(
                seedtree::tree::EventError::TooLong(usize::try_from(length).unwrap_or(usize::MAX)).into()
            );
        }
        open.take(limit)
            .read_to_end(&mut event)
            .with_context(|| format!("cannot read the event file {file}"))?;
    } else {
        event = arg.as_bytes().to_vec();
    }
    Ok(event)
}
