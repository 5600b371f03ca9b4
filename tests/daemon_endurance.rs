//! A daemon under load for long: nothing grows, and no answer is lost or another's.
//!
//! 30 s at 24 clients by default; `COPPICE_ENDURANCE_MINUTES` says how long instead, 30 for the real thing. The throughput of
//! each sixth is printed, and the last beside the first. What the machine gives drifts by more than a daemon may lose: so the cost of native
//! forks is printed beside it, and at the end the daemon takes turns with one that was just started.

mod support;

use fri_plugin::proto;
use std::path::Path;
use std::time::Duration;
use support::daemon::{Coppiced, Options};
use support::left::{children, descriptors, eventually};
use support::load::{self, Load, Tally};
use support::machine::Control;

const CLIENTS: usize = 24;
/// Turns of each of two daemons at the end.
const TURNS: u32 = 5;
/// Memory that the daemon and each seed may still take after the warming up, KiB: tables that fill slowly.
const ALLOWANCE_KIB: u64 = 4 << 10;

fn duration() -> Duration {
    let minutes = std::env::var("COPPICE_ENDURANCE_MINUTES").ok();
    let minutes =
        minutes.map(|v| v.parse::<u64>().unwrap_or_else(|e| panic!("COPPICE_ENDURANCE_MINUTES={v}: {e}")));
    minutes.map_or(Duration::from_secs(30), |m| Duration::from_secs(60 * m))
}

/// Sandboxes of the daemon in quiet: the OS seed, two languages', three functions' and six spares.
const QUIET: usize = 1 + 2 + 3 + 6;

/// What must not grow.
#[derive(Debug, PartialEq, Eq)]
struct Level {
    descriptors: usize,
    threads: usize,
    processes: usize,
    mounts: usize,
    cgroups: usize,
    namespaces: usize,
    /// Of the seeds, together.
    seed_descriptors: usize,
    seed_mappings: usize,
}

fn count(path: impl AsRef<Path>) -> usize {
    std::fs::read_dir(path).map_or(0, Iterator::count)
}

fn lines(path: impl AsRef<Path>) -> usize {
    std::fs::read_to_string(path).map_or(0, |t| t.lines().count())
}

/// Control groups of ours: others' come and go.
fn cgroups(dir: &Path, depth: usize) -> usize {
    let below = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    dirs.map(|e| {
        let ours = e.file_name().to_string_lossy().starts_with("coppice");
        usize::from(ours) + if depth > 0 { cgroups(&e.path(), depth - 1) } else { 0 }
    })
    .sum()
}

/// Takes stock when nothing is at work any more: spares are ready, instances that have answered are reaped, and further seeds of hot
/// functions are gone, one every 30 s that a function has been idle.
fn level(daemon: &Coppiced) -> Level {
    let pid = daemon.pid();
    let settled = || children(pid).len() == QUIET && children(pid).iter().all(|(_, state)| *state != 'Z');
    let settle = |tries: u32| {
        let calm = (0..tries).any(|_| eventually(settled));
        assert!(calm, "{QUIET} sandboxes are expected, there are {:?}", children(pid));
    };
    settle(24);
    // Threads of tokio's for blocking work end when they have been idle for ten seconds.
    std::thread::sleep(Duration::from_secs(11));
    settle(1);
    let seeds: Vec<i32> = children(pid).into_iter().map(|(pid, _)| pid).collect();
    Level {
        descriptors: descriptors(pid),
        threads: count(format!("/proc/{pid}/task")),
        processes: seeds.len(),
        mounts: lines(format!("/proc/{pid}/mountinfo")),
        cgroups: cgroups(Path::new("/sys/fs/cgroup"), 4),
        namespaces: count("/run/netns"),
        seed_descriptors: seeds.iter().map(|p| descriptors(*p)).sum(),
        seed_mappings: seeds.iter().map(|p| lines(format!("/proc/{p}/maps"))).sum(),
    }
}

/// Resident memory of the daemon, and of its sandboxes together, KiB.
fn memory(daemon: &Coppiced) -> (u64, u64) {
    let rss = |pid: i32| seedtree::memory::usage(pid).map_or(0, |u| u.rss_kib);
    (rss(daemon.pid()), children(daemon.pid()).into_iter().map(|(pid, _)| rss(pid)).sum())
}

/// A daemon with three functions whose working sets are recorded, and in which all that fills once is full.
fn warm_daemon() -> Coppiced {
    let daemon = Coppiced::start(Options { runtimes: vec!["python", "node"], ..Options::default() });
    let spec = |name: &str, runtime: &str, spares: u32| proto::FunctionSpec {
        name: name.into(),
        runtime: runtime.into(),
        handler: "app.handler".into(),
        memory_bytes: 256 << 20,
        timeout_ms: 60_000,
        spares: Some(spares),
        ..Default::default()
    };
    daemon.deploy(spec("fork", "python", 0), &[("app.py", load::PYTHON)]).unwrap();
    daemon.deploy(spec("spare", "python", 4), &[("app.py", load::PYTHON)]).unwrap();
    daemon.deploy(spec("js", "node", 2), &[("app.mjs", load::NODE)]).unwrap();
    right_answers(&daemon, Duration::from_secs(8));
    daemon
}

/// Loads a daemon for so long; nothing may be refused, lost or wrong.
fn right_answers(daemon: &Coppiced, time: Duration) -> Tally {
    let names = ["fork", "fork", "spare", "js"].map(str::to_owned);
    let load = Load::start(daemon.gateway(), &names, CLIENTS, false);
    std::thread::sleep(time);
    let tally = load.stop();
    assert_eq!(tally.wrong, Vec::<String>::new());
    assert!(tally.lost.is_empty(), "{:?}", tally.lost);
    assert!(tally.refused.is_empty(), "{:?}", tally.refused);
    tally
}

/// Answers a second of each daemon when they take turns under load, so that what else happens on the machine meets both.
fn in_turns(daemons: [&Coppiced; 2], turn: Duration) -> [f64; 2] {
    let mut rates = [0.0; 2];
    for _ in 0..TURNS {
        for (daemon, rate) in daemons.iter().zip(&mut rates) {
            *rate += right_answers(daemon, turn).rate(Duration::ZERO, turn) / f64::from(TURNS);
        }
    }
    rates
}

#[test]
fn nothing_grows_and_nothing_is_lost() {
    let mut daemon = warm_daemon();
    let before = level(&daemon);
    let memory_before = memory(&daemon);
    let time = duration();
    let sixth = time / 6;
    let control = Control::start((time / 180).max(Duration::from_secs(1)));
    let tally = right_answers(&daemon, time);
    let native = control.stop(6);
    let rates: Vec<f64> = (0..6).map(|n| tally.rate(sixth * n, sixth * (n + 1))).collect();
    eprintln!(
        "{time:?} at {CLIENTS} clients: {}; answers a second in each sixth {rates:.1?}, last to first {:.3}",
        tally.summary(),
        rates[5] / rates[0]
    );
    let forks: Vec<f64> = rates.iter().zip(&native).map(|(rate, ms)| rate * ms / 1000.0).collect();
    eprintln!(
        "a native fork took {native:.2?} ms of processor time; answers in the time of one {forks:.3?}, last to first {:.3}",
        forks[5] / forks[0]
    );
    for name in ["fork", "spare", "js"] {
        let [p50, p99] = [0.5, 0.99].map(|q| tally.quantile(q, Some(name)));
        eprintln!("{name}: p50 {p50:.2?}, p99 {p99:.2?}");
    }
    let after = level(&daemon);
    let memory_after = memory(&daemon);
    eprintln!("before {before:?} {memory_before:?}\nafter  {after:?} {memory_after:?}");
    assert_eq!(before, after);
    assert!(
        memory_after.0 <= memory_before.0 + ALLOWANCE_KIB,
        "the daemon grew: {memory_before:?} {memory_after:?}"
    );
    let seeds = ALLOWANCE_KIB * u64::try_from(QUIET).unwrap();
    assert!(memory_after.1 <= memory_before.1 + seeds, "the seeds grew: {memory_before:?} {memory_after:?}");
    let mut fresh = warm_daemon();
    let [aged, new] = in_turns([&daemon, &fresh], sixth / TURNS);
    eprintln!(
        "in {TURNS} turns with one just started: {aged:.1} and {new:.1} answers a second, aged to new {:.3}",
        aged / new
    );
    for daemon in [&mut daemon, &mut fresh] {
        assert!(daemon.stop().success(), "{}", daemon.log());
    }
}
