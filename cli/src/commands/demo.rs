//! `coppice demo`: the main job in one command. Grows a three-level tree from the host's Python or Node.js, forks instances, and shows what
//! each cost, beside other ways to start the same handler, measured in the same run.

use crate::peers::{self, Peers};
use crate::report::{SeedLine, draw, percentile, table, us};
use crate::signals::Scratch;
use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use seedtree::proto::Measures;
use seedtree::runtime::{Function, Reply, Runtime};
use seedtree::tree::{Config, Served, Tree};
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::os::fd::AsFd;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  coppice demo\n  coppice demo --runtime node\n  coppice demo --runs 200 --json | tail -n 1"
)]
pub struct Args {
    /// How many instances to fork for each figure
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// Times that each peer is started
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    peer_runs: u32,
    /// Leave the peers out
    #[arg(long)]
    no_peers: bool,
    /// Do not prefill working sets (to see what prefill brings)
    #[arg(long)]
    no_prefill: bool,
    /// Language of the demo's function
    #[arg(long, default_value = "python", value_parser = ["python", "node"])]
    runtime: String,
    /// End with one line of JSON instead of the drawing and the table
    #[arg(long)]
    json: bool,
}

/// The demo's function, which is also a program for the peers.
const PYTHON: &str = r#"import json, sys

def handler(event, context):
    return {"greeting": "hello " + event["name"], "sum": sum(event["numbers"])}

if __name__ == "__main__":
    print(json.dumps(handler(json.loads(sys.argv[1]), None)))
"#;
/// The same for Node.js.
const NODE: &str = r#"exports.handler = async (event) => ({
  greeting: 'hello ' + event.name, sum: event.numbers.reduce((a, b) => a + b),
});

if (require.main === module) exports.handler(JSON.parse(process.argv[2])).then((answer) => console.log(JSON.stringify(answer)));
"#;
const EVENT: &str = r#"{"name": "world", "numbers": [1, 2, 3]}"#;

/// Progress: a spinner on a terminal, plain lines otherwise.
struct Progress(Option<ProgressBar>);

impl Progress {
    fn new() -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress(None);
        }
        let bar = ProgressBar::new_spinner();
        bar.set_style(
            ProgressStyle::with_template("{spinner} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        bar.enable_steady_tick(std::time::Duration::from_millis(100));
        Progress(Some(bar))
    }

    fn step(&self, message: &str) {
        match &self.0 {
            Some(bar) => bar.set_message(message.to_owned()),
            None => tell!("demo: {message}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Everything that was measured.
struct Figures {
    runs: u32,
    ok: u32,
    cold: Vec<Served>,
    spare: Vec<Served>,
    seeds: Vec<SeedLine>,
    floor_ns: Option<u64>,
    peers: Peers,
}

/// Grows, forks, measures, prints.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let scratch = Scratch::new("coppice-demo-")?;
    let runtime = Runtime::named(&args.runtime).context("no such runtime")?;
    let (name, source) = match runtime {
        Runtime::Node => ("demo_handler.js", NODE),
        _ => ("demo_handler.py", PYTHON),
    };
    let file = scratch.path.join(name);
    std::fs::write(&file, source).context("cannot write the demo's handler")?;
    let expected = json!({"greeting": "hello world", "sum": 6});

    let progress = Progress::new();
    let function = Function::parse(&format!("{}:handler", file.display()))?;
    let config = Config {
        exe: std::env::current_exe()?,
        rootfs: "/".into(),
        log: std::io::stderr().as_fd().try_clone_to_owned()?,
        env: Vec::new(),
        prefill: !args.no_prefill,
    };
    progress.step("booting the guest OS (level 0)");
    let mut tree = Tree::plant(config)?;
    progress.step(&format!("starting {} (level 1)", runtime.name()));
    tree.grow_language(runtime)?;
    progress.step("importing the handler (level 2)");
    tree.grow_function(&function, Some(EVENT.as_bytes()))?;
    progress.step("recording the working set");
    tree.train(EVENT.as_bytes())?;

    let (mut cold, mut spare, mut ok) = (Vec::new(), Vec::new(), 0);
    for i in 0..args.runs {
        if i % 10 == 0 {
            progress.step(&format!("forking instance {i} of {}", args.runs));
        }
        let served = one(&mut tree, &function)?;
        ok += u32::from(right(&served, &expected));
        cold.push(served);
    }
    for i in 0..args.runs {
        if i % 10 == 0 {
            progress.step(&format!("using spare {i} of {}", args.runs));
        }
        tree.settle();
        tree.fill_spares(1, true)?;
        let served = one(&mut tree, &function)?;
        if !right(&served, &expected) || !served.spare {
            bail!("a spare gave a wrong answer");
        }
        spare.push(served);
    }
    tree.settle();
    let seeds = seed_lines(&tree);
    progress.step("measuring the floor");
    let load = vmm::floor::Load {
        resident_pages: seeds.last().map_or(0, |s| s.private_kib + s.shared_kib) / 4,
        exits: median(&cold, |m| m.syscalls.values().sum()),
        touches: median(&cold, |m| m.faults),
        writes: median(&cold, |m| m.private_kib) / 4,
    };
    let floor_ns = vmm::floor::measure(load, (args.runs as usize).clamp(5, 200)).ok();
    let peers = if args.no_peers {
        Peers::default()
    } else {
        let runs = args.peer_runs as usize;
        peers::measure(&scratch.path, (runtime, &file), EVENT, &expected, runs, &scratch.peer, |name| {
            progress.step(&format!("starting a peer: {name}"));
        })
    };
    drop(progress);
    let figures = Figures { runs: args.runs, ok, cold, spare, seeds, floor_ns, peers };
    if args.json {
        say!("{}", figures.json());
    } else {
        figures.print()?;
    }
    Ok(u8::from(figures.ok != figures.runs))
}

fn one(tree: &mut Tree, function: &Function) -> anyhow::Result<Served> {
    let pending = tree.start(function, EVENT.as_bytes(), true)?;
    Ok(tree.finish(pending)?)
}

fn right(served: &Served, expected: &Value) -> bool {
    matches!(&served.reply, Reply::Result(bytes) if serde_json::from_slice::<Value>(bytes).is_ok_and(|v| v == *expected))
}

fn seed_lines(tree: &Tree) -> Vec<SeedLine> {
    let seeds = tree.seeds();
    let mut lines = Vec::new();
    for (i, seed) in seeds.iter().enumerate() {
        let usage = seedtree::memory::usage(seed.process.pid).unwrap_or_default();
        let parent = i.checked_sub(1).and_then(|p| seeds.get(p));
        let shared_with_parent_percent = parent
            .and_then(|p| seedtree::memory::shared_frames(seed.process.pid, p.process.pid))
            .map(|(same, resident)| same * 100 / resident.max(1));
        lines.push(SeedLine {
            level: seed.level,
            name: seed.name.clone(),
            private_kib: usage.private_kib,
            shared_kib: usage.shared_kib,
            shared_with_parent_percent,
        });
    }
    lines
}

fn median(served: &[Served], f: impl Fn(&Measures) -> u64) -> u64 {
    percentile(&served.iter().filter_map(|s| s.measures.as_ref()).map(f).collect::<Vec<_>>(), 50)
}

impl Figures {
    fn phases(&self) -> [(&'static str, Vec<u64>); 4] {
        let of = |f: fn(&Served) -> u64| self.cold.iter().map(f).collect::<Vec<_>>();
        [
            ("clone", of(|s| s.phases.clone)),
            ("vm", of(|s| s.phases.vm)),
            ("prefill", of(|s| s.phases.prefill)),
            ("run", of(|s| s.phases.run)),
        ]
    }

    fn totals(served: &[Served]) -> Vec<u64> {
        served.iter().map(|s| s.total).collect()
    }

    fn json(&self) -> Value {
        let phases: serde_json::Map<String, Value> =
            self.phases().into_iter().map(|(name, samples)| (name.to_owned(), us(&samples))).collect();
        json!({
            "runs": self.runs, "ok": self.ok,
            "total_us": us(&Self::totals(&self.cold)), "spare_total_us": us(&Self::totals(&self.spare)),
            "floor_us": self.floor_ns.map(|ns| ns / 1000), "phases_us": phases,
            "exits": {"p50": median(&self.cold, |m| m.exits)}, "faults": {"p50": median(&self.cold, |m| m.faults)},
            "private_kib": {"p50": median(&self.cold, |m| m.private_kib)},
            "seeds": self.seeds, "peers": self.peers.json(),
        })
    }

    fn print(&self) -> anyhow::Result<()> {
        say!("{}", draw(&self.seeds, &format!("{} instances, {} right answers", self.runs, self.ok)));
        let ms = |ns: u64| format!("{:.3}", ns as f64 / 1e6);
        let row = |name: &str, samples: &[u64]| {
            vec![name.to_owned(), ms(percentile(samples, 50)), ms(percentile(samples, 99))]
        };
        let mut rows: Vec<Vec<String>> = self.phases().iter().map(|(name, s)| row(name, s)).collect();
        rows.push(row("total, request to answer", &Self::totals(&self.cold)));
        rows.push(row("total with a spare", &Self::totals(&self.spare)));
        say!("{}\n", table(&["phase (ms)", "p50", "p99"], &rows));
        let count = |name: &str, f: fn(&Measures) -> u64| {
            vec![name.to_owned(), median(&self.cold, f).to_string(), median(&self.spare, f).to_string()]
        };
        let rows = [
            count("VM exits", |m| m.exits),
            count("faults taken by KVM", |m| m.faults),
            count("private memory, KiB", |m| m.private_kib),
        ];
        say!("{}\n", table(&["per instance (median)", "fork", "spare"], &rows));
        let total = percentile(&Self::totals(&self.cold), 50);
        let with_spare = percentile(&Self::totals(&self.spare), 50);
        let compare = |name: &str, us: Option<u64>| match us {
            Some(us) => vec![
                name.to_owned(),
                ms(us * 1000),
                format!("{:.2}", us as f64 * 1000.0 / total.max(1) as f64),
                format!("{:.2}", us as f64 * 1000.0 / with_spare.max(1) as f64),
            ],
            None => vec![name.to_owned(), "not here".into(), String::new(), String::new()],
        };
        let rows = [
            compare("floor (bare fork, VM, exits, touches)", self.floor_ns.map(|ns| ns / 1000)),
            compare(&format!("native {}, cold", self.peers.runtime), self.peers.native_us),
            compare("runsc do (systrap)", self.peers.runsc_us),
            compare("runc run", self.peers.runc_us),
        ];
        say!("{}", table(&["beside it, same run", "ms", "/ fork", "/ spare"], &rows));
        Ok(())
    }
}
