//! What a run found: counts by side, regressions with the ends of their logs, tables and JSON.

use crate::outcome::{Class, Record};
use crate::runner::log_path;
use crate::suite::Suite;
use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Lines of a failed test's log that are shown.
const TAIL: usize = 12;

/// The results of a suite on all sides.
pub struct Report {
    suite: &'static str,
    version: String,
    sides: Vec<Counts>,
    regressions: Vec<Regression>,
    /// Known differences that did not show.
    gone: Vec<String>,
    /// Tests that pass inside, but skip more cases there than natively: (name, natively, inside).
    skips: Vec<(String, u64, u64)>,
}

/// How many tests ended how on a side.
struct Counts {
    side: String,
    ran: usize,
    pass: usize,
    fail: usize,
    skip: usize,
    timeout: usize,
    flaky: Vec<String>,
    seconds: f64,
}

/// A test that passes natively and does not pass inside.
struct Regression {
    record: Record,
    known: Option<String>,
    tail: String,
}

/// The known differences of a suite: test -> reason.
fn known(file: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", file.display())),
    };
    let mut known = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.split_once('\t') {
            Some((name, reason)) if !reason.trim().is_empty() => {
                known.insert(name.to_owned(), reason.to_owned());
            }
            _ => bail!("{}: `{line}` is not a test and a reason with a tab between", file.display()),
        }
    }
    Ok(known)
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(TAIL);
    lines.get(from..).unwrap_or_default().join("\n")
}

impl Report {
    /// Compares the sides; the first is the native one, the second is ours.
    pub fn new(suite: &Suite, sides: Vec<(String, Vec<Record>)>, folder: &Path) -> anyhow::Result<Report> {
        let list = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance");
        let mut known = known(&list.join(format!("known-{}.txt", suite.name)))?;
        let (mut regressions, mut skips, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        let native: BTreeMap<&str, &Record> =
            sides.first().map(|(_, r)| r.iter().map(|r| (r.item.as_str(), r)).collect()).unwrap_or_default();
        for record in sides.get(1).map(|(_, r)| r.as_slice()).unwrap_or_default() {
            let reason = known.remove(&record.item);
            if record.class != Class::Pass {
                let tail = tail(&log_path(folder, suite.name, &record.side, &record.item));
                regressions.push(Regression { record: record.clone(), known: reason, tail });
                continue;
            }
            if reason.is_some() && !record.flaky {
                gone.push(record.item.clone());
            }
            let natively = native.get(record.item.as_str()).map_or(0, |n| n.cases.skipped);
            if record.cases.skipped > natively {
                skips.push((record.item.clone(), natively, record.cases.skipped));
            }
        }
        let sides = sides.iter().map(|(side, records)| Counts::new(side, records)).collect();
        Ok(Report { suite: suite.name, version: suite.version.clone(), sides, regressions, gone, skips })
    }

    /// Whether every regression has a reason.
    pub fn holds(&self) -> bool {
        self.regressions.iter().all(|r| r.known.is_some())
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = format!("\n{}: {}\n", self.suite, self.version);
        for r in &self.regressions {
            let word = if r.known.is_some() { "known" } else { "REGRESSION" };
            let _ = writeln!(
                out,
                "{word} {} ({:?}, status {}, {:.1} s)",
                r.record.item, r.record.class, r.record.status, r.record.seconds
            );
            let shown = r.known.as_deref().unwrap_or(&r.tail);
            for line in shown.lines() {
                let _ = writeln!(out, "    {line}");
            }
        }
        for (name, natively, inside) in &self.skips {
            let _ = writeln!(out, "{name} passes, but skips {inside} cases inside and {natively} natively");
        }
        for name in &self.gone {
            let _ = writeln!(out, "known-{}.txt lists {name}, but it passes: remove the entry", self.suite);
        }
        for side in self.sides.iter().filter(|s| !s.flaky.is_empty()) {
            let _ =
                writeln!(out, "flaky on {} (failed, then passed alone): {}", side.side, side.flaky.join(" "));
        }
        out
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let sides: Vec<Value> = self.sides.iter().map(Counts::json).collect();
        let regressions = self.regressions.iter().map(|r| {
            json!({"test": r.record.item, "class": r.record.class, "status": r.record.status,
                   "seconds": r.record.seconds, "known": r.known, "tail": r.tail})
        });
        let skips = self.skips.iter().map(|(n, a, b)| json!({"test": n, "native": a, "inside": b}));
        json!({"suite": self.suite, "version": self.version, "sides": sides,
               "regressions": regressions.collect::<Vec<_>>(), "more_skipped": skips.collect::<Vec<_>>(), "known_but_passing": self.gone})
    }
}

impl Counts {
    fn new(side: &str, records: &[Record]) -> Counts {
        let count = |class| records.iter().filter(|r| r.class == class).count();
        Counts {
            side: side.to_owned(),
            ran: records.len(),
            pass: count(Class::Pass),
            fail: count(Class::Fail),
            skip: count(Class::Skip),
            timeout: count(Class::Timeout),
            flaky: records.iter().filter(|r| r.flaky).map(|r| r.item.clone()).collect(),
            seconds: records.iter().map(|r| r.seconds).sum(),
        }
    }

    /// Share of the tests that passed, percent; two decimals, cut off rather than rounded up.
    fn percent(&self) -> f64 {
        let share = f64::from(u32::try_from(self.pass).unwrap_or(0))
            / f64::from(u32::try_from(self.ran).unwrap_or(0));
        if self.ran == 0 { 0.0 } else { (share * 10_000.0).floor() / 100.0 }
    }

    fn json(&self) -> Value {
        json!({"side": self.side, "ran": self.ran, "pass": self.pass, "fail": self.fail, "skip": self.skip,
               "timeout": self.timeout, "flaky": self.flaky, "percent": self.percent(), "seconds": self.seconds})
    }
}

/// One table of all suites. The native row says how many tests there are; the others ran those that passed natively.
pub fn summary(reports: &[Report]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table
        .set_header(["suite", "side", "ran", "pass", "fail", "timeout", "skip", "flaky", "pass %", "test s"]);
    for report in reports {
        for side in &report.sides {
            let numbers = [side.ran, side.pass, side.fail, side.timeout, side.skip, side.flaky.len()];
            let mut row = vec![report.suite.to_owned(), side.side.clone()];
            row.extend(numbers.map(|n| n.to_string()));
            row.extend([format!("{:.2}", side.percent()), format!("{:.0}", side.seconds)]);
            table.add_row(row);
        }
    }
    for i in 2..10 {
        if let Some(column) = table.column_mut(i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if reports.is_empty() { String::new() } else { format!("\n{table}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_difference_needs_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("known");
        assert!(known(&file).unwrap().is_empty());
        std::fs::write(&file, "# why\n\ntest_a\tno reason to have it\n").unwrap();
        assert_eq!(known(&file).unwrap().get("test_a").map(String::as_str), Some("no reason to have it"));
        std::fs::write(&file, "test_a\t\n").unwrap();
        assert!(known(&file).is_err());
    }

    #[test]
    fn a_share_is_never_rounded_up_to_all() {
        let record = |class| Record {
            side: "coppice".into(),
            item: String::new(),
            key: String::new(),
            class,
            status: 0,
            seconds: 0.0,
            cases: crate::outcome::Cases::default(),
            flaky: false,
            retried: false,
        };
        let mut records = vec![record(Class::Pass); 99_999];
        records.push(record(Class::Skip));
        assert!((Counts::new("coppice", &records).percent() - 99.99).abs() < 1e-9);
        assert!(Counts::new("coppice", &[]).percent() == 0.0);
    }
}
