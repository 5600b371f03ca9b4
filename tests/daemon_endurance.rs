//! A daemon under load for long: nothing grows, and no answer is lost or another's.
//!
//! 30 s at 24 clients by default; `COPPICE_ENDURANCE_MINUTES` says how long instead, 30 for the real thing. The throughput of
//! each sixth is printed, and the last beside the first.

mod support;

use fri_plugin::proto;
use std::path::Path;
use std::time::{Duration, Instant};
use support::daemon::{Coppiced, Options};
use support::left::{children, descriptors, eventually};
use support::load::{self, Load};

const CLIENTS: usize = 24;
/// Memory that the daemon and each seed may still take after the warming up, KiB: tables that fill slowly.
const ALLOWANCE_KIB: u64 = 4 << 10;

fn duration() -> Duration {
    let minutes = std::env::var("COPPICE_ENDURANCE_MINUTES").ok();
    let minutes =
        minutes.map(|v| v.parse::<u64>().unwrap_or_else(|e| panic!("COPPICE_ENDURANCE_MINUTES={v}: {e}")));
    minutes.map_or(Duration::from_secs(30), |m| Duration::from_secs(60 * m))
}

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

/// Takes stock when nothing is at work any more: `spares` are ready, and instances that have answered are reaped.
fn level(daemon: &Coppiced, sandboxes: usize) -> Level {
    let pid = daemon.pid();
    let settled = || children(pid).len() == sandboxes && children(pid).iter().all(|(_, state)| *state != 'Z');
    assert!(eventually(settled), "{sandboxes} sandboxes are expected, there are {:?}", children(pid));
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

#[test]
fn nothing_grows_and_nothing_is_lost() {
    let mut daemon = Coppiced::start(Options { runtimes: vec!["python", "node"], ..Options::default() });
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
    let names = ["fork", "fork", "spare", "js"].map(str::to_owned);
    // Warm: working sets are recorded, replicas grown, tables filled. Then as many sandboxes stay as are there in quiet.
    let mut warm = Load::start(daemon.gateway(), &names, CLIENTS, false);
    std::thread::sleep(Duration::from_secs(8));
    let mut tally = warm.stop();
    assert_eq!(tally.wrong, Vec::<String>::new());
    let quiet = |daemon: &Coppiced| {
        let mut last = (0, Instant::now());
        // Replicas of hot functions go when they have been idle for a while; what is there for five seconds stays.
        while last.1.elapsed() < Duration::from_secs(5) {
            let now = children(daemon.pid()).len();
            if now != last.0 {
                last = (now, Instant::now());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        last.0
    };
    let sandboxes = quiet(&daemon);
    let before = level(&daemon, sandboxes);
    let memory_before = memory(&daemon);
    let time = duration();
    warm = Load::start(daemon.gateway(), &names, CLIENTS, false);
    std::thread::sleep(time);
    tally = warm.stop();
    let sixth = time / 6;
    // All of them: a decay goes on, what the machine does otherwise comes and goes.
    let rates: Vec<f64> = (0..6).map(|n| tally.rate(sixth * n, sixth * (n + 1))).collect();
    eprintln!(
        "{time:?} at {CLIENTS} clients: {}; answers a second in each sixth {rates:.1?}, last to first {:.3}",
        tally.summary(),
        rates[5] / rates[0]
    );
    assert_eq!(tally.wrong, Vec::<String>::new());
    assert!(tally.lost.is_empty(), "{:?}", tally.lost);
    assert!(tally.refused.is_empty(), "{:?}", tally.refused);
    let after = level(&daemon, quiet(&daemon).min(sandboxes));
    let memory_after = memory(&daemon);
    eprintln!("before {before:?} {memory_before:?}\nafter  {after:?} {memory_after:?}");
    assert_eq!(before, after);
    assert!(
        memory_after.0 <= memory_before.0 + ALLOWANCE_KIB,
        "the daemon grew: {memory_before:?} {memory_after:?}"
    );
    let seeds = ALLOWANCE_KIB * u64::try_from(sandboxes).unwrap();
    assert!(memory_after.1 <= memory_before.1 + seeds, "the seeds grew: {memory_before:?} {memory_after:?}");
    assert!(daemon.stop().success(), "{}", daemon.log());
}
