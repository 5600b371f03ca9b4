//! `cargo bench`: the demo's table with the floor, and whole commands beside runsc and native, all in one run.
//!
//! Arguments after `--`: the number of requests (default 200). Absolute times move with the machine: quote the ratios.
#![forbid(unsafe_code)]

use benches::{Pair, build, pair};
use serde_json::Value;
use std::process::Command;

// In a function: at the top level its speed depends on where the module's dictionary happens to lie.
const LOOP: &str = "import time\ndef f():\n t=time.perf_counter()\n x=0\n for i in range(20000000): x+=i&7\n \
                    return time.perf_counter()-t\nprint(f())";
const SHA: &str = "import time,hashlib\nb=b'x'*(256<<20)\nt=time.perf_counter()\nhashlib.sha256(b).digest()\nprint(time.perf_counter()-t)";
const HANDLER: &str = "import json\ndef handler(e, c): return {'sum': sum(e['numbers'])}\n\
                       print(json.dumps(handler({'numbers': [1, 2, 3]}, None)))";

fn main() {
    let runs = std::env::args().skip(1).find_map(|a| a.parse::<u32>().ok()).unwrap_or(200).to_string();
    let Ok(coppice) = build() else {
        eprintln!("evaluation: the release build failed");
        std::process::exit(1);
    };
    let coppice = coppice.to_string_lossy();
    let Some(figures) = demo(&coppice, "python", &runs) else {
        eprintln!("evaluation: coppice demo failed; run `coppice check`");
        std::process::exit(1);
    };
    println!("{figures}");
    let us = |pointer: &str| figures.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let (total, spare, floor) = (us("/total_us/p50"), us("/spare_total_us/p50"), us("/floor_us"));
    let (native, runsc, runc) = (us("/peers/native_python_us"), us("/peers/runsc_us"), us("/peers/runc_us"));
    line("fork / floor", total / floor, "at most 1.5");
    line("fork / runsc", total / runsc, "at most 0.1");
    line("fork / runc", total / runc, "");
    line("fork / native cold python3", total / native, "at most 0.6");
    line("spare / runsc", spare / runsc, "at most 0.033");
    line("faults per instance", us("/faults/p50"), "at most 300");
    line("private KiB per instance", us("/private_kib/p50"), "at most 3072");
    let percent = figures.pointer("/seeds/2/shared_with_parent_percent").and_then(Value::as_f64);
    line("L2 pages shared with L1, %", percent.unwrap_or(f64::NAN), "at least 70");

    match demo(&coppice, "node", &runs) {
        Some(figures) => {
            println!("{figures}");
            let us = |pointer: &str| figures.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
            let (total, native) = (us("/total_us/p50"), us("/peers/native_node_us"));
            line("node: fork / floor", total / us("/floor_us"), "");
            line("node: fork / runsc", total / us("/peers/runsc_us"), "at most 0.1");
            line("node: fork / native cold node", total / native, "");
            line("node: spare / native cold node", us("/spare_total_us/p50") / native, "");
            line("node: faults per instance", us("/faults/p50"), "");
            line("node: private KiB per instance", us("/private_kib/p50"), "");
        }
        None => println!("node: not measured (no /usr/bin/node here?)"),
    }

    let runsc = ["runsc", "--network=none", "-platform", "systrap", "do"];
    let run = [&*coppice, "run", "--"];
    let wall = |seconds: f64, _: &str| Some(seconds);
    let ours = |argv: &[&str]| -> Vec<String> { run.iter().chain(argv).map(|s| (*s).to_owned()).collect() };
    let theirs =
        |argv: &[&str]| -> Vec<String> { runsc.iter().chain(argv).map(|s| (*s).to_owned()).collect() };
    let versus = |a: Vec<String>,
                  b: Vec<String>,
                  n: usize,
                  figure: &dyn Fn(f64, &str) -> Option<f64>|
     -> Option<Pair> {
        let (a, b): (Vec<&str>, Vec<&str>) =
            (a.iter().map(|s| &**s).collect(), b.iter().map(|s| &**s).collect());
        pair(&a, &b, n, figure)
    };
    let python = "/usr/bin/python3";
    report(
        "run true / runsc do true",
        versus(ours(&["/bin/true"]), theirs(&["/bin/true"]), 11, &wall),
        "at most 0.2",
    );
    let handler = [python, "-c", HANDLER];
    report(
        "run python3 / runsc do python3",
        versus(ours(&handler), theirs(&handler), 11, &wall),
        "at most 1",
    );
    let printed = |_: f64, out: &str| out.trim().parse().ok();
    for (name, code) in
        [("python loop, native / guest speed", LOOP), ("sha256 of 256 MiB, native / guest speed", SHA)]
    {
        let argv = [python, "-c", code];
        let native: Vec<String> = argv.iter().map(|s| (*s).to_owned()).collect();
        report(name, versus(native, ours(&argv), 11, &printed), "at least 0.97");
    }
}

/// The figures of `coppice demo` for one runtime.
fn demo(coppice: &str, runtime: &str, runs: &str) -> Option<Value> {
    let args = ["demo", "--runtime", runtime, "--json", "--runs", runs, "--peer-runs", "11"];
    let output = Command::new(coppice).args(args).output().ok()?;
    serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last()?).ok()
}

fn line(name: &str, value: f64, goal: &str) {
    println!("{name:<42} {value:>12.3}   {goal}");
}

fn report(name: &str, pair: Option<Pair>, goal: &str) {
    match pair {
        Some(p) => println!("{name:<42} {:>12.3}   {goal} ({:.4} s / {:.4} s)", p.ratio, p.a, p.b),
        None => println!("{name:<42} {:>12}   {goal}", "failed"),
    }
}
