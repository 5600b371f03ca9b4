//! Many forks: nothing grows. 10,000 forks one after another and 60 s of 24 at a time; `COPPICE_ENDURANCE=short` makes it 1,000 and
//! 15 s, for work on something else.

mod support;

use serde_json::json;
use std::time::{Duration, Instant};
use support::left::{children, descriptors, eventually};
use support::tree::{Grown, grow, result};

const SOURCE: &str = "import hashlib, os\ncount = 0\ndef handler(e, c):\n global count\n count += 1\n \
                      return [e, hashlib.sha256(str(e).encode()).hexdigest()[:8], count, os.urandom(8).hex()]\n";

fn full() -> bool {
    !std::env::var("COPPICE_ENDURANCE").is_ok_and(|v| v == "short")
}

/// What must not grow.
#[derive(Debug)]
struct Level {
    own_descriptors: usize,
    seed_descriptors: Vec<usize>,
    children: usize,
    seed_rss_kib: Vec<u64>,
    seed_mappings: Vec<usize>,
}

fn measure(g: &mut Grown) -> Level {
    g.tree.settle();
    let pids: Vec<i32> = g.tree.seeds().iter().map(|s| s.process.pid).collect();
    let me = i32::try_from(std::process::id()).unwrap();
    assert!(
        eventually(|| children(me).iter().all(|(_, state)| *state != 'Z')),
        "dead children stay: {:?}",
        children(me)
    );
    Level {
        own_descriptors: descriptors(me),
        seed_descriptors: pids.iter().map(|p| descriptors(*p)).collect(),
        children: children(me).len(),
        seed_rss_kib: pids.iter().map(|p| seedtree::memory::usage(*p).unwrap().rss_kib).collect(),
        seed_mappings: pids
            .iter()
            .map(|p| std::fs::read_to_string(format!("/proc/{p}/maps")).unwrap().lines().count())
            .collect(),
    }
}

fn no_growth(before: &Level, after: &Level) {
    assert_eq!(before.children, after.children, "processes: {before:?} {after:?}");
    assert_eq!(
        before.own_descriptors, after.own_descriptors,
        "descriptors of the tree's process: {before:?} {after:?}"
    );
    assert_eq!(
        before.seed_descriptors, after.seed_descriptors,
        "descriptors of the seeds: {before:?} {after:?}"
    );
    assert_eq!(before.seed_mappings, after.seed_mappings, "mappings of the seeds: {before:?} {after:?}");
    for (b, a) in before.seed_rss_kib.iter().zip(&after.seed_rss_kib) {
        // A few pages may come in that were never touched before: code, mostly.
        assert!(*a <= b + 256, "a seed grew from {b} to {a} KiB: {before:?} {after:?}");
    }
}

fn check(i: usize, value: &serde_json::Value, seen: &mut std::collections::HashSet<String>) {
    assert_eq!((&value[0], &value[2]), (&json!(i), &json!(1)), "request {i} got {value}");
    assert!(value[1].as_str().is_some_and(|h| h.len() == 8), "{value}");
    assert!(seen.insert(value[3].to_string()), "request {i}: {} was seen before", value[3]);
}

// One test: the two halves would disturb each other's counts of children.
#[test]
fn thousands_of_forks_leave_descriptors_processes_and_memory_as_they_were() {
    let mut g = grow("endurance", SOURCE);
    let mut seen = std::collections::HashSet::new();
    g.tree.train(b"0").unwrap();
    g.ask_many(100, 24, |i| i.to_string(), |i, v| check(i, &v, &mut seen));
    let before = measure(&mut g);

    let count = if full() { 10_000 } else { 1_000 };
    for i in 0..count {
        let value = g.ask(&i.to_string());
        check(i, &value, &mut seen);
    }
    let between = measure(&mut g);
    no_growth(&before, &between);

    let end = Instant::now() + Duration::from_secs(if full() { 60 } else { 15 });
    let (mut flying, mut next, mut served) = (std::collections::VecDeque::new(), 0, 0);
    while Instant::now() < end || !flying.is_empty() {
        while Instant::now() < end && flying.len() < 24 {
            flying.push_back((next, g.tree.start(&g.function, next.to_string().as_bytes(), false).unwrap()));
            next += 1;
        }
        if let Some((i, pending)) = flying.pop_front() {
            let answer = g.tree.finish(pending).unwrap_or_else(|e| panic!("request {i}: {e:?}"));
            assert_eq!(answer.level, 2);
            check(i, &result(&answer), &mut seen);
            served += 1;
        }
    }
    assert!(served >= 24, "only {served} requests in all that time");
    no_growth(&before, &measure(&mut g));

    for _ in 0..count / 10 {
        g.tree.fill_spares(2, false).unwrap();
        let value = g.ask("5");
        check(5, &value, &mut seen);
    }
    // Two spares that nobody used go with the tree.
    let me = i32::try_from(std::process::id()).unwrap();
    drop(g);
    assert!(eventually(|| children(me).is_empty()), "{:?} are left", children(me));
}
