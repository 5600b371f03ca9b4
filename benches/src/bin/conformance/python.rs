//! CPython's regression tests: Debian's python3 with its testsuite package, module by module.

use crate::outcome::{Cases, Class, Ended};
use crate::suite::{Item, Suite, first_line};
use anyhow::{Context, bail};
use std::process::Command;
use std::time::Duration;

const PYTHON: &str = "/usr/bin/python3";

/// Every module that `python3 -m test` would run, without its optional resources (network, gui, ...).
pub fn suite() -> anyhow::Result<Suite> {
    let version = first_line(PYTHON, &["-c", "import sys; print(sys.version)"])?;
    let output =
        Command::new(PYTHON).args(["-m", "test", "--list-tests"]).output().context("cannot start python3")?;
    let modules = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() || modules.lines().count() < 100 {
        bail!(
            "python3 -m test lists no modules: install Debian's libpython3-testsuite of this Python ({version})"
        );
    }
    let items = modules.lines().map(|module| Item {
        name: module.to_owned(),
        argv: [PYTHON, "-m", "test", "-v", module].map(str::to_owned).to_vec(),
    });
    Ok(Suite {
        name: "cpython",
        version: format!("python {version}"),
        root: None,
        workdir: "/tmp",
        environment: Vec::new(),
        items: items.collect(),
        limit: Duration::from_secs(300),
        classify,
    })
}

/// regrtest ends with 0 for a skipped module too, and says so; unittest prints how many cases it ran and skipped.
fn classify(ended: &Ended) -> (Class, Cases) {
    let mut cases = Cases::default();
    for line in ended.text.lines() {
        let ran =
            line.strip_prefix("Ran ").and_then(|l| l.split(' ').next()).and_then(|n| n.parse::<u64>().ok());
        cases.ran += ran.unwrap_or(0);
        let result = line.starts_with("OK (") || line.starts_with("FAILED (");
        let skipped = line.split("skipped=").nth(1).filter(|_| result);
        let skipped = skipped.and_then(|l| l.split([',', ')']).next()).and_then(|n| n.parse::<u64>().ok());
        cases.skipped += skipped.unwrap_or(0);
    }
    let skipped = ended.text.lines().any(|l| l.starts_with("1 test skipped") || l.contains("NO TESTS RAN"));
    let class = match ended.status {
        _ if ended.timed_out => Class::Timeout,
        0 | 4 if skipped => Class::Skip,
        0 => Class::Pass,
        _ => Class::Fail,
    };
    (class, cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_counted_and_a_skipped_module_is_no_pass() {
        let text =
            "Ran 35 tests in 0.316s\n\nOK (skipped=3, expected failures=1)\nRan 2 tests in 1s\n".to_owned();
        let mut ended = Ended { status: 0, timed_out: false, text };
        assert_eq!(classify(&ended), (Class::Pass, Cases { ran: 37, skipped: 3 }));
        ended.text = "== Tests result: SUCCESS ==\n\n1 test skipped:\n    test_gdb\n".into();
        assert_eq!(classify(&ended).0, Class::Skip);
        ended.status = 2;
        assert_eq!(classify(&ended).0, Class::Fail);
        ended.timed_out = true;
        assert_eq!(classify(&ended).0, Class::Timeout);
    }
}
