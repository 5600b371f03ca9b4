//! `coppice simulate`: the same outcome from a made-up trace and from its file, budgets kept, and what is wrong with a trace said.

mod support;

use serde_json::Value;
use support::{LIMIT, Outcome, coppice, finish, fresh_dir};

fn simulate(args: &[&str]) -> Outcome {
    let outcome = finish(coppice().arg("simulate").args(args), b"", LIMIT);
    assert!(!outcome.timed_out && !outcome.by_signal, "{args:?}: {}", outcome.stderr);
    outcome
}

fn json(outcome: &Outcome) -> Value {
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    serde_json::from_slice(&outcome.stdout).unwrap()
}

#[test]
fn a_written_trace_comes_to_the_same_and_the_budget_is_kept() {
    let dir = fresh_dir("simulate");
    let file = dir.path().join("trace.csv");
    let path = file.to_str().unwrap();
    let made = ["--functions", "80", "--hours", "3"];
    assert_eq!(simulate(&[&made[..], &["--write", path]].concat()).status, 0);
    let budget = ["--budget", "300m", "--json"];
    let direct = json(&simulate(&[&made[..], &budget].concat()));
    let read = json(&simulate(&[&[path][..], &budget].concat()));
    let names: Vec<&str> = direct.as_array().unwrap().iter().map(|o| o["policy"].as_str().unwrap()).collect();
    assert_eq!(names, ["benefit", "lru", "keep-alive"]);
    for (a, b) in direct.as_array().unwrap().iter().zip(read.as_array().unwrap()) {
        assert_eq!(a["requests"], b["requests"]);
        assert!(a["peak_bytes"].as_u64().unwrap() <= 300 << 20, "{a}");
        assert!(a["dropped"].as_u64().unwrap() > 0, "{a}");
    }
    let one = simulate(&[path, "--policy", "lru"]);
    assert!(one.text().contains("lru") && !one.text().contains("benefit"), "{}", one.text());
}

#[test]
fn what_is_wrong_is_said() {
    let dir = fresh_dir("simulate");
    let file = dir.path().join("bad.csv");
    std::fs::write(&file, "time_s,function,duration_ms,memory_mib\n1,f,x,3\n").unwrap();
    for (args, text) in [
        (vec![file.to_str().unwrap()], "line 2 of the trace"),
        (vec!["/nowhere.csv"], "cannot open the trace /nowhere.csv"),
        (vec!["--hours", "0"], "--hours 0"),
        (vec!["--budget", "1k"], "too small"),
        (vec!["--policy", "none"], "invalid value"),
    ] {
        let outcome = simulate(&args);
        assert!(outcome.status != 0 && outcome.stderr.contains(text), "{args:?}: {}", outcome.stderr);
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    }
}
