//! Results on disk: a line of JSON for each, appended as it comes, so that an interrupted run loses nothing.

use crate::outcome::{Class, Record};
use anyhow::Context;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

/// The results of one suite.
pub struct Store {
    file: File,
    /// The newest result of each (side, test).
    newest: BTreeMap<(String, String), Record>,
}

impl Store {
    /// Reads what earlier runs left in `folder`, or starts anew.
    pub fn open(folder: &Path, suite: &str, fresh: bool) -> anyhow::Result<Store> {
        let path = folder.join(format!("{suite}.jsonl"));
        let text = if fresh { String::new() } else { std::fs::read_to_string(&path).unwrap_or_default() };
        // A line that was cut off by a crash is no result.
        let records = text.lines().filter_map(|line| serde_json::from_str::<Record>(line).ok());
        let newest: BTreeMap<_, _> = records.map(|r| ((r.side.clone(), r.item.clone()), r)).collect();
        let file = OpenOptions::new().create(true).append(!fresh).write(true).truncate(fresh).open(&path);
        let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
        if !text.is_empty() && !text.ends_with('\n') {
            writeln!(file)?;
        }
        Ok(Store { file, newest })
    }

    /// The result of a test, unless it is stale; with `passes`, a pass of another build counts too.
    pub fn get(&self, side: &str, item: &str, key: &str, passes: bool) -> Option<&Record> {
        let record = self.newest.get(&(side.to_owned(), item.to_owned()))?;
        let fits = if passes { record.class == Class::Pass } else { record.key == key };
        fits.then_some(record)
    }

    /// Keeps a result.
    pub fn put(&mut self, record: Record) -> anyhow::Result<()> {
        writeln!(self.file, "{}", serde_json::to_string(&record)?).context("cannot keep a result")?;
        self.newest.insert((record.side.clone(), record.item.clone()), record);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Cases;

    #[test]
    fn results_survive_and_stale_ones_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let record = |class| Record {
            side: "coppice".into(),
            item: "a".into(),
            key: "1".into(),
            class,
            status: 0,
            seconds: 1.0,
            cases: Cases::default(),
            flaky: false,
            retried: false,
        };
        Store::open(folder.path(), "s", false).unwrap().put(record(Class::Fail)).unwrap();
        std::fs::OpenOptions::new()
            .append(true)
            .open(folder.path().join("s.jsonl"))
            .unwrap()
            .write_all(b"{\"si")
            .unwrap();
        let mut store = Store::open(folder.path(), "s", false).unwrap();
        assert_eq!(store.get("coppice", "a", "1", false).unwrap().class, Class::Fail);
        assert!(
            store.get("coppice", "a", "2", false).is_none() && store.get("coppice", "a", "1", true).is_none()
        );
        store.put(record(Class::Pass)).unwrap();
        let store = Store::open(folder.path(), "s", false).unwrap();
        assert_eq!(store.get("coppice", "a", "2", true).unwrap().class, Class::Pass);
        assert!(Store::open(folder.path(), "s", true).unwrap().get("coppice", "a", "1", false).is_none());
    }
}
