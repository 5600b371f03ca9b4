//! Deployed functions, across restarts of the daemon and the machine.
//!
//! The store is in memory, and a file follows it: a change is on the disk before it is in memory, so readers never wait for the disk and
//! never fail. A change that cannot be written is undone; what of it may have reached the disk is overwritten by the next change.
//! Every call that changes something blocks: call it from a blocking thread.

mod disk;
mod error;
#[cfg(test)]
mod faults;
mod record;
#[cfg(test)]
mod tests;

use crate::code::Digest;
use disk::Disk;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

pub use error::{Damage, StoreError};
pub use record::{New, Spec, State, Version};

use record::Record;

/// Name of the file in a state directory.
pub const FILE: &str = "functions.redb";

/// A copy of it is made for each change.
type Records = BTreeMap<String, Arc<Record>>;

/// A function as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// The version that serves.
    pub current: Version,
    /// Those that have served, and it; by number.
    pub versions: Vec<Version>,
}

/// What is referred to, and must not be collected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// Code of functions and layers.
    pub code: BTreeSet<Digest>,
    /// Layers of functions, each list as it is laid over one another.
    pub layers: BTreeSet<Vec<Digest>>,
}

#[derive(Debug)]
struct Writer {
    /// `None` after a failure, until the next change.
    disk: Option<Disk>,
    /// Functions whose records on the disk may be others than in memory.
    unsure: BTreeSet<String>,
    serial: u64,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Most functions.
    count: usize,
    /// Versions of a function that are kept.
    versions: usize,
    records: RwLock<Arc<Records>>,
    writer: Mutex<Writer>,
}

impl Store {
    /// Opens the store of a state directory, or makes one. Versions that were not switched to in a previous life are forgotten.
    /// `count` is the most functions that are taken, `versions` how many of each are kept.
    pub fn open(state: &Path, count: usize, versions: usize) -> Result<Store, StoreError> {
        let path = state.join(FILE);
        let (disk, mut records) = Disk::open(&path)?;
        let serial = records.values().flat_map(|r| r.versions.values()).map(|v| v.serial).max().unwrap_or(0);
        let mut unsure = BTreeSet::new();
        records.retain(|name, record| {
            let pending = record.pending();
            if !pending.is_empty() {
                record.forget(&pending);
                unsure.insert(name.clone());
            }
            !record.history.is_empty()
        });
        let records: Records = records.into_iter().map(|(name, record)| (name, Arc::new(record))).collect();
        let writer = Mutex::new(Writer { disk: Some(disk), unsure, serial });
        Ok(Store { path, count, versions, records: RwLock::new(Arc::new(records)), writer })
    }

    fn records(&self) -> Arc<Records> {
        self.records.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes one function's record, on the disk and then in memory; a function without versions goes.
    fn change<T>(
        &self,
        name: &str,
        step: impl FnOnce(&mut Record, &mut u64) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut records = Records::clone(&self.records());
        let record = Arc::make_mut(records.entry(name.to_owned()).or_default());
        let result = step(record, &mut writer.serial)?;
        records.retain(|_, record| !record.versions.is_empty());
        let writer = &mut *writer;
        if writer.disk.is_none() {
            writer.disk = Some(Disk::open(&self.path)?.0);
        }
        writer.unsure.insert(name.to_owned());
        let written = writer.disk.as_ref().map_or(Ok(()), |disk| {
            disk.write(writer.unsure.iter().map(|name| (name.as_str(), records.get(name).map(Arc::as_ref))))
        });
        if let Err(error) = written {
            // Whether it is on the disk is not known; the database has to be opened again after a failure.
            writer.disk = None;
            return Err(error);
        }
        writer.unsure.clear();
        *self.records.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(records);
        Ok(result)
    }

    /// Adds a version that does not serve yet. The name is one that [`crate::name::check`] takes.
    pub fn put_version(&self, name: &str, new: New) -> Result<Version, StoreError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let created = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.change(name, |record, serial| {
            let there = self.records().len();
            if record.versions.is_empty() && there >= self.count {
                return Err(StoreError::TooMany(there));
            }
            *serial += 1;
            Ok(record.put(name, new, *serial, created))
        })
    }

    /// Makes a version the one that serves: one that was just put, or one that has served before. The oldest beyond those that are kept
    /// are forgotten.
    pub fn switch(&self, to: &Version) -> Result<(), StoreError> {
        self.change(&to.name, |record, _| record.switch(to, self.versions))
    }

    /// Forgets a version that was put and cannot serve. Nothing where it is gone already.
    pub fn discard(&self, version: &Version) -> Result<(), StoreError> {
        let found = |record: &Record| {
            record
                .versions
                .get(&version.number)
                .is_some_and(|v| v.serial == version.serial && v.state == State::Pending)
        };
        if !self.records().get(&version.name).is_some_and(|record| found(record)) {
            return Ok(());
        }
        self.change(&version.name, |record, _| {
            if found(record) {
                record.forget(&[version.number]);
            }
            Ok(())
        })
    }

    /// The version that [`Store::rollback`] would go back to, so that its seed can be grown before.
    pub fn before(&self, name: &str, number: Option<u64>) -> Result<Version, StoreError> {
        let records = self.records();
        let record = records.get(name).ok_or_else(|| StoreError::NoSuchFunction(name.to_owned()))?;
        record.before(name, number).cloned()
    }

    /// Goes back to a version that has served: the one before, or the one of that number.
    pub fn rollback(&self, name: &str, number: Option<u64>) -> Result<Version, StoreError> {
        let version = self.before(name, number)?;
        self.switch(&version)?;
        Ok(Version { state: State::Serving, ..version })
    }

    /// Forgets a function with all of its versions, also those that are being deployed.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.change(name, |record, _| {
            if record.history.is_empty() {
                return Err(StoreError::NoSuchFunction(name.to_owned()));
            }
            *record = Record::default();
            Ok(())
        })
    }

    /// A function.
    pub fn get(&self, name: &str) -> Result<Function, StoreError> {
        let found = self.records().get(name).and_then(|record| listed(record));
        found.ok_or_else(|| StoreError::NoSuchFunction(name.to_owned()))
    }

    /// All functions, by name.
    pub fn list(&self) -> Vec<Function> {
        self.records().values().filter_map(|record| listed(record)).collect()
    }

    /// What the store refers to, versions that are being deployed included.
    pub fn in_use(&self) -> InUse {
        let records = self.records();
        let mut in_use = InUse::default();
        for version in records.values().flat_map(|r| r.versions.values()) {
            in_use.code.insert(version.new.code);
            in_use.code.extend(&version.new.layers);
            if !version.new.layers.is_empty() {
                in_use.layers.insert(version.new.layers.clone());
            }
        }
        in_use
    }
}

fn listed(record: &Record) -> Option<Function> {
    let versions = record.versions.values().filter(|v| v.state != State::Pending).cloned().collect();
    Some(Function { current: record.current()?.clone(), versions })
}
