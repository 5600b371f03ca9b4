//! `./setup bench workloads`: each workload of tests/workloads on the host, in a sandbox and under runsc (systrap), in turn.
//!
//! `--runs N` (default 5), `--json FILE`, then names (all without). Medians; quote the ratios, absolute times move with the machine.
#![forbid(unsafe_code)]

use benches::{build, median, target};
use clap::Parser;
use comfy_table::{Cell, Table, presets::NOTHING};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

#[path = "../../tests/support/listed.rs"]
mod listed;

use listed::Workload;

#[derive(Parser)]
struct Args {
    /// Runs of each side
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Write the figures there
    #[arg(long)]
    json: Option<PathBuf>,
    /// Workloads; all without
    names: Vec<String>,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// The sides in the order of the columns.
const SIDES: [&str; 3] = ["native", "coppice", "runsc"];

/// What one run came to.
struct Run {
    seconds: f64,
    stdout: Vec<u8>,
    status: Option<i32>,
    stderr: String,
}

fn once(argv: &[String], dir: &Path) -> std::io::Result<Run> {
    let (program, args) = argv.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(args).current_dir(dir).stdin(Stdio::null()).env_clear();
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
    let start = Instant::now();
    let output = command.output()?;
    Ok(Run {
        seconds: start.elapsed().as_secs_f64(),
        stdout: output.stdout,
        status: output.status.code(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The host's memory as `--memory` takes it: programs that size themselves by it, Java above all, are to see the same on all sides.
fn memory() -> String {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:")).unwrap_or_default();
    let kib = line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(2 << 20);
    format!("{}m", kib >> 10)
}

/// All sides of one workload as JSON. `differs` names the sides that printed something else than the host in some run: their times are
/// of another piece of work.
fn measure(workload: &Workload, coppice: &str, dir: &Path, runs: usize) -> Result<Value, String> {
    let wrap = |words: &[&str]| -> Vec<String> {
        words.iter().map(|s| (*s).to_owned()).chain(workload.command.iter().cloned()).collect()
    };
    let sides = [
        wrap(&[]),
        wrap(&[coppice, "run", "--cpus", "2", "--memory", &memory(), "--json", "--"]),
        wrap(&["runsc", "--network=none", "-platform", "systrap", "do"]),
    ];
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    let mut stats = Value::Null;
    let mut wanted = None;
    let mut differs = BTreeSet::new();
    for _ in 0..runs {
        for (side, argv) in sides.iter().enumerate() {
            workload.prepare(dir)?;
            let Ok(run) = once(argv, dir) else { continue };
            let got = (run.stdout, run.status);
            let wanted = wanted.get_or_insert_with(|| got.clone());
            if got != *wanted {
                differs.insert(SIDES[side]);
            }
            if side == 1 {
                stats =
                    run.stderr.lines().last().and_then(|l| serde_json::from_str(l).ok()).unwrap_or_default();
            }
            if let Some(times) = times.get_mut(side) {
                times.push(run.seconds);
            }
        }
    }
    let [native, ours, runsc] = times.map(|t| if t.is_empty() { f64::NAN } else { median(&t) });
    let calls: u64 =
        (stats["syscalls"].as_object().into_iter().flatten()).filter_map(|(_, n)| n.as_u64()).sum();
    let refused: u64 =
        (stats["refused"].as_array().into_iter().flatten()).filter_map(|r| r["count"].as_u64()).sum();
    let exits = stats["exits"].as_u64().unwrap_or(0);
    #[allow(clippy::cast_precision_loss)]
    let per_second = exits as f64 / ours;
    Ok(json!({
        "name": workload.name, "native_s": native, "coppice_s": ours, "runsc_s": runsc, "coppice_to_native": ours / native,
        "coppice_to_runsc": ours / runsc, "differs": differs, "exits": exits, "exits_per_second": per_second, "faults": stats["faults"],
        "guest_page_faults": stats["guest_page_faults"], "calls": calls, "refused": refused, "refusals": stats["refused"],
    }))
}

fn row(table: &mut Table, figures: &Value) {
    let differs = |side: &str| figures["differs"].as_array().is_some_and(|d| d.iter().any(|s| s == side));
    let seconds = |side: &str| {
        let mark = if differs(side) { "*" } else { "" };
        figures[format!("{side}_s")].as_f64().map_or_else(|| "-".into(), |x| format!("{x:.3}{mark}"))
    };
    let ratio = |key: &str| figures[key].as_f64().map_or_else(|| "-".into(), |x| format!("{x:.2}"));
    let count = |key: &str| figures[key].as_f64().map_or_else(|| "-".into(), |x| format!("{x:.0}"));
    let cells = [
        figures["name"].as_str().unwrap_or_default().to_owned(),
        seconds("native"),
        seconds("coppice"),
        seconds("runsc"),
        ratio("coppice_to_native"),
        ratio("coppice_to_runsc"),
        count("exits"),
        count("exits_per_second"),
        count("faults"),
        count("calls"),
        count("refused"),
    ];
    table.add_row(cells.map(Cell::new));
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("workloads: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let coppice = build().map_err(|e| format!("the release build failed: {e}"))?;
    let scratch = target().join("tmp");
    std::fs::create_dir_all(&scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
    let all = listed::list(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests"), &scratch)?;
    if let Some(name) = args.names.iter().find(|name| !all.iter().any(|w| w.name == **name)) {
        return Err(format!("there is no workload `{name}`; tests/workloads/list.tsv lists them"));
    }
    let outer = tempfile::tempdir_in(&scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
    let dir = outer.path().join("dir");
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header([
        "workload",
        "native s",
        "coppice s",
        "runsc s",
        "/native",
        "/runsc",
        "exits",
        "exits/s",
        "faults",
        "calls",
        "refused",
    ]);
    let mut figures = Vec::new();
    for workload in all.iter().filter(|w| args.names.is_empty() || args.names.contains(&w.name)) {
        eprintln!("{}", workload.name);
        workload.install(&scratch)?;
        let measured = measure(workload, &coppice.to_string_lossy(), &dir, args.runs)?;
        row(&mut table, &measured);
        figures.push(measured);
    }
    println!("{table}");
    if figures.iter().any(|f| f["differs"].as_array().is_some_and(|d| !d.is_empty())) {
        println!("* printed something else than the host, so it may have done less");
    }
    if let Some(file) = &args.json {
        std::fs::write(file, format!("{}\n", Value::from(figures)))
            .map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(())
}
