//! Node.js' own tests: test/parallel of Debian's source package with Debian's node, in a root of their own.

use crate::outcome::{Cases, Class, Ended};
use crate::packages;
use crate::suite::{Item, Suite};
use anyhow::{Context, bail};
use std::path::Path;
use std::time::Duration;

const NODE: &str = "/usr/bin/node";

/// Every file of test/parallel that is a test.
pub fn suite(folder: &Path) -> anyhow::Result<Suite> {
    let root = packages::node_root(folder)?;
    let tests = root.join("test/parallel");
    let mut items = Vec::new();
    for entry in std::fs::read_dir(&tests).with_context(|| format!("cannot read {}", tests.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("test-") || !(name.ends_with(".js") || name.ends_with(".mjs")) {
            continue;
        }
        let source = std::fs::read(tests.join(&name)).with_context(|| format!("cannot read {name}"))?;
        let mut argv = vec![NODE.to_owned()];
        argv.extend(flags(&String::from_utf8_lossy(&source)));
        argv.push(format!("/test/parallel/{name}"));
        items.push(Item { name, argv });
    }
    if items.is_empty() {
        bail!("{} holds no tests", tests.display());
    }
    items.sort_by(|a, b| a.name.cmp(&b.name));
    let version =
        std::fs::read_to_string(root.join("version")).context("the root of node's tests has no version")?;
    Ok(Suite {
        name: "node",
        version: version.trim().to_owned(),
        root: Some(root),
        workdir: "/test",
        environment: vec![("NODE_TEST_DIR", "/tmp")],
        items,
        limit: Duration::from_secs(60),
        classify,
    })
}

/// A test asks for options of node in a comment `// Flags: --a --b` among its first lines.
fn flags(source: &str) -> Vec<String> {
    let lines = source.lines().filter_map(|line| line.strip_prefix("// Flags:"));
    lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

/// A test that cannot run prints a line of TAP and ends with 0.
fn classify(ended: &Ended) -> (Class, Cases) {
    let class = match ended.status {
        _ if ended.timed_out => Class::Timeout,
        0 if ended.text.lines().any(|l| l.starts_with("1..0 # Skipped")) => Class::Skip,
        0 => Class::Pass,
        _ => Class::Fail,
    };
    (class, Cases::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_from_the_comment() {
        let source = "'use strict';\n// Flags: --expose-internals --no-warnings\nrequire('../common');\n";
        assert_eq!(flags(source), ["--expose-internals", "--no-warnings"]);
        let ended = Ended { status: 0, timed_out: false, text: "1..0 # Skipped: no crypto\n".into() };
        assert_eq!(classify(&ended).0, Class::Skip);
    }
}
