//! A short part of what `./setup conformance` runs: quick modules of CPython's tests and a second each of some stressors.
//!
//! `./setup test` installs both suites. Each test must pass natively too: one that does not says nothing about the sandbox.

mod support;

use std::process::Command;
use std::time::Duration;

use support::{Outcome, coppice, finish, fresh_dir, survived, two_at_a_time};

/// A busy machine of two cores needs some seconds for each.
const LIMIT: Duration = Duration::from_secs(120);

const MODULES: [&str; 14] = [
    "test_mmap",
    "test_epoll",
    "test_select",
    "test_tempfile",
    "test_shutil",
    "test_fileio",
    "test_httplib",
    "test_ctypes",
    "test_urllib2_localnet",
    "test_popen",
    "test_gc",
    "test_mailbox",
    "test_threadsignals",
    "test_resource",
];

const STRESSORS: [&str; 12] = [
    "brk",
    "clone",
    "dentry",
    "eventfd",
    "fork",
    "futex",
    "kill",
    "mmap",
    "mprotect",
    "pipe",
    "sigsuspend",
    "timerfd",
];

/// Runs the same command on the host and in a sandbox; what went wrong.
fn compare(argv: &[&str], passed: impl Fn(&Outcome) -> bool) -> Option<String> {
    let scratch = fresh_dir("suites");
    let name = argv.join(" ");
    let (program, args) = argv.split_first().unwrap();
    let mut native = Command::new(program);
    native.args(args).current_dir(scratch.path()).env("TMPDIR", scratch.path());
    let native = finish(&mut native, b"", LIMIT);
    if !passed(&native) {
        let text = native.text();
        return Some(format!("{name} on the host (`./setup test` installs it): {text}{}", native.stderr));
    }
    let mut command = coppice();
    command.args(["run", "--cpus", "2", "--workdir", "/tmp", "--"]).args(argv);
    let inside = finish(&mut command, b"", LIMIT);
    survived(&inside, &name);
    (!passed(&inside))
        .then(|| format!("{name}: status {}\n{}{}", inside.status, inside.text(), inside.stderr))
}

/// Runs all of them, two at a time; none may fail inside.
fn all(commands: &[Vec<&str>], passed: impl Fn(&Outcome) -> bool + Sync) {
    let failures = std::sync::Mutex::new(Vec::new());
    two_at_a_time(commands, |argv| {
        let failure = compare(argv, &passed);
        failures.lock().unwrap().extend(failure);
    });
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} of {} fail:\n{}",
        failures.len(),
        commands.len(),
        failures.join("\n---\n")
    );
}

#[test]
fn modules_of_cpythons_regression_tests_pass() {
    let commands = MODULES.map(|module| vec!["/usr/bin/python3", "-m", "test", "-v", module]).to_vec();
    // A module that is skipped ends with 0 as well.
    all(&commands, |o| o.status == 0 && !o.timed_out && !o.text().contains("1 test skipped"));
}

#[test]
fn stressors_verify() {
    let commands: Vec<Vec<String>> = STRESSORS
        .iter()
        .map(|s| {
            ["stress-ng", "--verify", "--timeout", "1s", &format!("--{s}"), "1"].map(str::to_owned).to_vec()
        })
        .collect();
    let commands: Vec<Vec<&str>> = commands.iter().map(|c| c.iter().map(String::as_str).collect()).collect();
    let skipped = |o: &Outcome| o.stderr.contains("skip") || o.text().contains("skip");
    all(&commands, |o| o.status == 0 && !o.timed_out && !skipped(o));
}
