//! stress-ng: every stressor of the classes that exercise the kernel's interface, verified, one second each.

use crate::outcome::{Cases, Class, Ended};
use crate::suite::{Item, Suite, first_line};
use anyhow::{Context, bail};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

const CLASSES: [&str; 7] = ["cpu", "vm", "filesystem", "pipe", "signal", "scheduler", "interrupt"];

/// stress-ng before 0.16 has no signal class; these would be in it.
const SIGNALS: [&str; 19] = [
    "alarm",
    "bad-altstack",
    "fpunch",
    "itimer",
    "kill",
    "sigabrt",
    "sigchld",
    "sigfd",
    "sigfpe",
    "sigio",
    "signal",
    "signest",
    "sigpending",
    "sigpipe",
    "sigq",
    "sigrt",
    "sigsegv",
    "sigsuspend",
    "sigtrap",
];

/// Natively these take processors offline, start the host's watchdog or fill its swap.
const HOST_SUFFERS: [&str; 4] = ["cpu-online", "watchdog", "swap", "softlockup"];

/// The stressors of those classes.
pub fn suite() -> anyhow::Result<Suite> {
    let version = first_line("stress-ng", &["--version"])?;
    let mut names: BTreeSet<String> = BTreeSet::new();
    for class in CLASSES {
        let output = Command::new("stress-ng").args(["--class", &format!("{class}?")]).output();
        let output = output.context("cannot start stress-ng")?;
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        names.extend(members(&text));
    }
    if names.is_empty() {
        bail!("stress-ng --class cpu? lists no stressors: is its output different in {version}?");
    }
    let all = first_lines("stress-ng", &["--stressors"])?;
    names
        .extend(SIGNALS.iter().filter(|s| all.split_whitespace().any(|a| a == **s)).map(|s| (*s).to_owned()));
    let items = names.into_iter().filter(|n| !HOST_SUFFERS.contains(&n.as_str())).map(|name| {
        let fixed = ["stress-ng", "--verify", "--timeout", "1s"].map(str::to_owned);
        let argv = fixed.into_iter().chain([format!("--{name}"), "1".to_owned()]).collect();
        Item { name, argv }
    });
    Ok(Suite {
        name: "stress-ng",
        version,
        root: None,
        workdir: "/tmp",
        environment: Vec::new(),
        items: items.collect(),
        limit: Duration::from_secs(60),
        classify,
    })
}

fn first_lines(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let output =
        Command::new(program).args(args).output().with_context(|| format!("cannot start {program}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads `class 'vm' stressors: bigheap brk ...`.
fn members(text: &str) -> Vec<String> {
    let list = text.lines().find_map(|l| l.strip_prefix("class '")?.split_once("stressors:"));
    list.map(|(_, names)| names.split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
}

/// Statuses: 0 good, 2 failed, 3 no resources, 4 not implemented here; a stressor that cannot run may also say so and end with 0.
fn classify(ended: &Ended) -> (Class, Cases) {
    let says = |what: &str| ended.text.contains(what);
    let skipped = says("will be skipped") || says("skipping stressor") || says("skipping the stressor");
    let class = match ended.status {
        _ if ended.timed_out => Class::Timeout,
        0 | 4 if skipped || ended.status == 4 => Class::Skip,
        0 if says("stress-ng: fail:") => Class::Fail,
        0 => Class::Pass,
        3 => Class::Skip,
        _ => Class::Fail,
    };
    (class, Cases::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_a_class_is_read_and_an_unknown_class_is_empty() {
        assert_eq!(members("class 'pipe' stressors: fifo pipe tee\n"), ["fifo", "pipe", "tee"]);
        assert!(members("Unknown class: 'signal', available classes:  cpu vm\n").is_empty());
    }

    #[test]
    fn a_stressor_that_cannot_run_is_no_pass() {
        let ended = |status, text: &str| Ended { status, timed_out: false, text: text.into() };
        let class = |e: &Ended| classify(e).0;
        assert_eq!(class(&ended(0, "stress-ng: info: [3] successful run completed in 1.00s")), Class::Pass);
        assert_eq!(
            class(&ended(0, "exec stressor must not run as root, skipping the stressor")),
            Class::Skip
        );
        assert_eq!(class(&ended(3, "aborted early, out of system resources")), Class::Skip);
        assert_eq!(class(&ended(2, "stress-ng: fail: [2] tee failed")), Class::Fail);
    }
}
