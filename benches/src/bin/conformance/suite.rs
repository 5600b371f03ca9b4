//! A suite: commands with names, and how to read what they print.

use crate::outcome::{Cases, Class, Ended};
use std::path::PathBuf;
use std::time::Duration;

/// One test: a command that runs in the suite's root.
#[derive(Clone, Debug)]
pub struct Item {
    /// Name; unique in the suite, fit for a file name.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
}

/// A suite.
pub struct Suite {
    /// Name: what known-NAME.txt and the results are called by.
    pub name: &'static str,
    /// Versions of what is tested with: native results are kept per version.
    pub version: String,
    /// The root that the commands run in; `None` is the host's own.
    pub root: Option<PathBuf>,
    /// Directory that the commands start in. /tmp is the test's own, on every side.
    pub workdir: &'static str,
    /// Environment besides PATH, HOME and LANG.
    pub environment: Vec<(&'static str, &'static str)>,
    /// The tests.
    pub items: Vec<Item>,
    /// What a test may take natively. Inside it may take ten times of what it took natively, and at least this.
    pub limit: Duration,
    /// Reads the outcome.
    pub classify: fn(&Ended) -> (Class, Cases),
}

impl Suite {
    /// Keeps the tests whose names contain one of `only` (all, when empty), and of those every `every`th.
    pub fn choose(&mut self, only: &[String], every: u32) {
        let mut number = 0;
        self.items.retain(|item| {
            let named = only.is_empty() || only.iter().any(|o| item.name.contains(o.as_str()));
            number += u32::from(named);
            named && (number - 1).is_multiple_of(every)
        });
    }
}

/// What a command prints, its first line; for versions.
pub fn first_line(program: &str, args: &[&str]) -> anyhow::Result<String> {
    use anyhow::Context;
    let output = std::process::Command::new(program).args(args).output();
    let output = output
        .with_context(|| format!("cannot start {program}: run `./setup conformance`, which installs it"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(str::to_owned).with_context(|| format!("{program} {args:?} prints nothing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_of_those_that_are_named() {
        let names = ["a1", "b1", "a2", "a3"];
        let items = names.map(|n| Item { name: n.into(), argv: Vec::new() }).to_vec();
        let mut suite = Suite {
            name: "x",
            version: String::new(),
            root: None,
            workdir: "/tmp",
            environment: Vec::new(),
            items,
            limit: Duration::from_secs(1),
            classify: |_| (Class::Pass, Cases::default()),
        };
        suite.choose(&["a".into()], 2);
        let left: Vec<&str> = suite.items.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(left, ["a1", "a3"]);
    }
}
