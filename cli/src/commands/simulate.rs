//! `coppice simulate`: which seeds a node would keep under a memory budget, replayed from a trace in virtual time.

use anyhow::{Context, bail};
use comfy_table::{Table, presets::NOTHING};
use seedtree::reclaim::policies::{NAMES, named};
use seedtree::reclaim::simulate::{Node, Outcome, replay};
use seedtree::reclaim::trace::{Shape, read, synthetic, write};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coppice simulate trace.csv --budget 2g\n  \
    coppice simulate --functions 200 --hours 24 --budget 1g --policy benefit --policy lru\n  \
    coppice simulate --functions 200 --write made-up.csv\n\n\
    A trace is CSV with the first line time_s,function,duration_ms,memory_mib. Without one, a trace is made up with the skew of\n\
    production: 95 % of the requests go to a few functions, half of the functions are hardly ever asked for.")]
pub struct Args {
    /// The trace; without it one is made up
    trace: Option<PathBuf>,
    /// Memory for function seeds, such as 2g
    #[arg(long, default_value = "2g", value_name = "SIZE", value_parser = crate::size::parse)]
    budget: u64,
    /// Policies to compare; all without
    #[arg(long, value_name = "NAME", value_parser = NAMES)]
    policy: Vec<String>,
    /// Time to start an instance with the function's seed, ms
    #[arg(long, default_value_t = 5.0, value_name = "MS")]
    with_seed: f64,
    /// Time to start one without it, and to grow it, ms
    #[arg(long, default_value_t = 250.0, value_name = "MS")]
    without_seed: f64,
    /// Minutes without a request after which the policy keep-alive drops a seed
    #[arg(long, default_value_t = 10.0, value_name = "MINUTES")]
    idle: f64,
    /// Half-life of a function's rate of requests, minutes
    #[arg(long, default_value_t = 10.0, value_name = "MINUTES")]
    half_life: f64,
    /// Functions of a made-up trace
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    functions: u32,
    /// Length of a made-up trace
    #[arg(long, default_value_t = 6.0, value_name = "HOURS")]
    hours: f64,
    /// The same number makes up the same trace
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Write the made-up trace to this file and stop
    #[arg(long, value_name = "FILE", conflicts_with = "trace")]
    write: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Replays.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let trace = match &args.trace {
        Some(path) => {
            let file =
                File::open(path).with_context(|| format!("cannot open the trace {}", path.display()))?;
            read(BufReader::new(file)).with_context(|| path.display().to_string())?
        }
        None => {
            let seconds = number("--hours", args.hours, 0.01, 1_000.0)? * 3_600.0;
            let functions = usize::try_from(args.functions)?;
            synthetic(&Shape { functions, seconds, seed: args.seed })
        }
    };
    if let Some(path) = &args.write {
        let fail = || format!("cannot write {}", path.display());
        let mut out = BufWriter::new(File::create(path).with_context(fail)?);
        write(&mut out, &trace).and_then(|()| out.flush()).with_context(fail)?;
        return Ok(0);
    }
    if trace.is_empty() {
        bail!("the trace has no requests");
    }
    let node = Node {
        budget: args.budget,
        half_life: number("--half-life", args.half_life, 0.01, 100_000.0)? * 60.0,
        with_seed: nanoseconds("--with-seed", args.with_seed)?,
        without_seed: nanoseconds("--without-seed", args.without_seed)?,
        period: 60_000_000_000,
    };
    let idle = nanoseconds("--idle", args.idle * 60_000.0)?;
    let all: Vec<String> = NAMES.iter().map(|n| (*n).to_owned()).collect();
    let wanted = if args.policy.is_empty() { &all } else { &args.policy };
    let outcomes: Vec<Outcome> =
        wanted.iter().filter_map(|n| named(n, idle)).map(|p| replay(&trace, &node, p.as_ref())).collect();
    if args.json {
        say!("{}", serde_json::to_string(&outcomes)?);
        return Ok(0);
    }
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header([
        "policy",
        "requests",
        "without seed",
        "functions mostly so",
        "mean start ms",
        "grown",
        "dropped",
        "peak MiB",
        "mean MiB",
    ]);
    for o in &outcomes {
        #[allow(clippy::cast_precision_loss)] // shares and MiB for people
        let (share, mean) = (o.cold as f64 / o.requests as f64 * 100.0, o.mean_bytes / 1_048_576.0);
        table.add_row([
            o.policy.to_owned(),
            o.requests.to_string(),
            format!("{share:.2} %"),
            format!("{} of {}", o.mostly_cold, o.functions),
            format!("{:.2}", o.mean_start_ms),
            o.grown.to_string(),
            o.dropped.to_string(),
            (o.peak_bytes >> 20).to_string(),
            format!("{mean:.0}"),
        ]);
    }
    say!("{table}");
    Ok(0)
}

fn number(name: &str, value: f64, least: f64, most: f64) -> anyhow::Result<f64> {
    if !(least..=most).contains(&value) {
        bail!("{name} {value}: it must lie between {least} and {most}");
    }
    Ok(value)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within the bounds above
fn nanoseconds(name: &str, ms: f64) -> anyhow::Result<u64> {
    Ok((number(name, ms, 0.0, 1e10)? * 1e6) as u64)
}
