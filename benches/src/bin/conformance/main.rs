//! `./setup conformance`: the test suites of CPython, stress-ng and Node.js, each test against its own native result.
//!
//! A test runs natively first, in the same root and without outside network; those that pass there run in a sandbox. What differs is a
//! regression, and fails the command unless tests/conformance/known-SUITE.txt gives a reason. Results stay in target/conformance, so that
//! a run that was interrupted goes on where it was. Nothing here knows how a suite or a sandbox works inside: `suites` names commands and
//! reads what they print, `side` says how a command is started natively, in a sandbox and under a peer.
#![forbid(unsafe_code)]

mod node;
mod outcome;
mod packages;
mod python;
mod report;
mod runner;
mod side;
mod store;
mod stress;
mod suite;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use outcome::{Class, Record};
use runner::Runner;
use side::Side;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use store::Store;
use suite::Suite;

/// Run the test suites of CPython, stress-ng and Node.js in sandboxes, each test against its own native result.
#[derive(Parser)]
#[command(name = "conformance", max_term_width = 100)]
struct Args {
    /// Suites to run.
    #[arg(value_enum, default_values_t = [Which::All])]
    suites: Vec<Which>,
    /// Run the same tests under this peer too.
    #[arg(long, value_enum)]
    peer: Vec<Peer>,
    /// Only tests whose names contain this; may be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only every Nth test of a suite, for an estimate.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
    /// Tests that run at once; the default is one for each two processors, at least one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    jobs: Option<u32>,
    /// Forget the results of earlier runs.
    #[arg(long, conflicts_with = "failed")]
    fresh: bool,
    /// Keep passes of earlier builds; run again only what did not pass.
    #[arg(long)]
    failed: bool,
    /// Stop starting tests after this many minutes; the next run goes on from there.
    #[arg(long, value_name = "MINUTES")]
    budget: Option<u64>,
    /// Write everything as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    All,
    /// The programs of tests/conformance, on the host and inside, line by line.
    Programs,
    /// CPython's regression tests (Debian's libpython3-testsuite).
    Cpython,
    /// stress-ng --verify: cpu, vm, filesystem, pipe, signal, scheduler, interrupt.
    Stress,
    /// Node.js' test/parallel (from Debian's source package) with Debian's node.
    Node,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// gVisor's runsc on its systrap platform.
    Runsc,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs what was asked for; whether nothing regressed.
fn run(args: &Args) -> anyhow::Result<bool> {
    let folder = benches::target().join("conformance");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let coppice = benches::build().context("the release build failed")?;
    let wanted = |which| args.suites.contains(&Which::All) || args.suites.contains(&which);
    let runner = Runner::new(&folder, args.jobs, args.budget)?;
    let mut good = true;
    if wanted(Which::Programs) && args.only.is_empty() {
        good &= programs()?;
    }
    let mut reports = Vec::new();
    for which in [Which::Stress, Which::Cpython, Which::Node] {
        if !wanted(which) || runner.stopped() {
            continue;
        }
        let mut suite = match which {
            Which::Cpython => python::suite()?,
            Which::Stress => stress::suite()?,
            _ => node::suite(&folder)?,
        };
        suite.choose(&args.only, args.every);
        if suite.items.is_empty() {
            // A suite of nothing would pass.
            if args.only.is_empty() {
                bail!("the {} suite has no tests here", suite.name);
            }
            continue;
        }
        let report = one(&suite, args, &runner, &folder, &coppice)?;
        print!("{}", report.text());
        good &= report.holds();
        reports.push(report);
    }
    print!("{}", report::summary(&reports));
    if let Some(file) = &args.json {
        let all: Vec<_> = reports.iter().map(report::Report::json).collect();
        std::fs::write(file, format!("{:#}\n", serde_json::json!({ "suites": all })))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    if runner.stopped() {
        eprintln!("conformance: stopped before the end; the same command goes on from here");
        return Ok(false);
    }
    Ok(good)
}

/// One suite on every side.
fn one(
    suite: &Suite,
    args: &Args,
    runner: &Runner,
    folder: &Path,
    coppice: &Path,
) -> anyhow::Result<report::Report> {
    let mut store = Store::open(folder, suite.name, args.fresh)?;
    let native_key = format!("{} {}", suite.version, side::kernel());
    let items: Vec<_> = suite.items.iter().collect();
    let native = runner.side(suite, &Side::Native, &items, &native_key, &mut store, false)?;
    let passing: Vec<_> = (suite.items.iter())
        .filter(|i| native.iter().any(|r| r.item == i.name && r.class == Class::Pass))
        .collect();
    let mut sides: Vec<(String, Vec<Record>)> = vec![("native".into(), native.clone())];
    let inside = Side::Coppice { binary: coppice.to_owned() };
    let peers = args.peer.iter().map(|Peer::Runsc| Side::runsc());
    for side in std::iter::once(Ok(inside)).chain(peers) {
        let side = side?;
        let key = format!("{native_key} {}", side.version());
        let runner = runner.after(&native);
        let mut records = runner.side(suite, &side, &passing, &key, &mut store, args.failed)?;
        runner.again(suite, &side, &passing, &key, &mut store, &mut records)?;
        sides.push((side.name().to_owned(), records));
    }
    report::Report::new(suite, sides, folder)
}

/// The programs of tests/conformance have a runner of their own.
fn programs() -> anyhow::Result<bool> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["test", "--release", "--locked", "-p", "coppice", "--test", "conformance"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .context("cannot start cargo")?;
    Ok(status.success())
}
