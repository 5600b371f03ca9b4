//! What is stored of a function, and what may become of it. Plain data: nothing here knows of a disk.

use super::StoreError;
use crate::code::Digest;
use seedtree::node::function::FunctionSpec;
use seedtree::runtime::Runtime;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// What was asked for at a deploy, without the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Runtime.
    pub runtime: Runtime,
    /// As AWS Lambda has it: FILE.FUNCTION.
    pub handler: String,
    /// Memory limit, bytes.
    pub memory: u64,
    /// vCPUs.
    pub cpus: usize,
    /// Time for one request, ms.
    pub timeout_ms: u64,
    /// Environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Instances that are forked ahead of need.
    #[serde(default)]
    pub spares: usize,
    /// Requests at once.
    pub concurrency: usize,
    /// Requests that may wait for their turn.
    #[serde(default)]
    pub queue: usize,
    /// Instances that are kept after an answer.
    #[serde(default)]
    pub keep_alive: usize,
    /// An event to run once in the seed, JSON text.
    #[serde(default)]
    pub warm: Option<String>,
    /// What it is for, for people.
    #[serde(default)]
    pub description: String,
}

impl Spec {
    /// As a node wants it, with the directories of its code and of its layers.
    pub fn of_node(&self, name: &str, version: u64, code: PathBuf, layers: Option<PathBuf>) -> FunctionSpec {
        FunctionSpec {
            name: name.to_owned(),
            version,
            runtime: self.runtime,
            handler: self.handler.clone(),
            code,
            layers,
            memory: self.memory,
            cpus: self.cpus,
            timeout_ms: self.timeout_ms,
            env: self.env.iter().map(|(n, v)| (n.clone(), v.clone())).collect(),
            spares: self.spares,
            concurrency: self.concurrency,
            queue: self.queue,
            keep_alive: self.keep_alive,
            warm: self.warm.clone().map(String::into_bytes),
        }
    }
}

/// A deploy, before it has a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct New {
    /// What was asked for.
    pub spec: Spec,
    /// Its code.
    pub code: Digest,
    /// Size of its code unpacked, bytes.
    #[serde(default)]
    pub code_bytes: u64,
    /// Its layers, in the order in which they are laid over one another.
    #[serde(default)]
    pub layers: Vec<Digest>,
}

/// Where a version stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Deployed, and not yet switched to. It is forgotten when the daemon ends before that.
    Pending,
    /// The one that serves.
    Serving,
    /// It has served, and may again.
    Previous,
}

/// One version of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The function's name.
    pub name: String,
    /// 1, 2, 3 ... of this function; a number is not used again while the function is there.
    pub number: u64,
    /// Tells it from a version of the same name and number of a function that was removed.
    pub serial: u64,
    /// When it was deployed, ms since 1970.
    pub created_ms: u64,
    /// Where it stands.
    pub state: State,
    /// What was deployed.
    #[serde(flatten)]
    pub new: New,
}

/// A function as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Record {
    /// The number given last.
    pub last: u64,
    /// Numbers that served, the one that serves last. A rollback takes the last away.
    pub history: Vec<u64>,
    /// By number.
    pub versions: BTreeMap<u64, Version>,
}

impl Record {
    /// The version that serves.
    pub fn current(&self) -> Option<&Version> {
        self.versions.get(self.history.last()?)
    }

    /// The one that is meant: by number, and otherwise the one that served before.
    pub fn before(&self, name: &str, number: Option<u64>) -> Result<&Version, StoreError> {
        let current = self.current().ok_or_else(|| StoreError::NoSuchFunction(name.to_owned()))?;
        let none = || StoreError::NoPrevious { name: name.to_owned(), number: current.number };
        let number = match number {
            Some(number) => number,
            None => *self.history.iter().rev().nth(1).ok_or_else(none)?,
        };
        let found = self.versions.get(&number).filter(|v| v.state != State::Pending);
        found.ok_or_else(|| StoreError::NoSuchVersion {
            name: name.to_owned(),
            number,
            there: self.versions.values().filter(|v| v.state != State::Pending).map(|v| v.number).collect(),
        })
    }

    /// Adds a version that does not serve yet.
    pub(super) fn put(&mut self, name: &str, new: New, serial: u64, created_ms: u64) -> Version {
        self.last += 1;
        let number = self.last;
        let version =
            Version { name: name.to_owned(), number, serial, created_ms, state: State::Pending, new };
        self.versions.insert(number, version.clone());
        version
    }

    /// Makes a version the one that serves, and forgets the oldest beyond `keep`.
    pub(super) fn switch(&mut self, to: &Version, keep: usize) -> Result<(), StoreError> {
        let gone = || StoreError::Gone { name: to.name.clone(), number: to.number };
        let state = self.versions.get(&to.number).filter(|v| v.serial == to.serial).ok_or_else(gone)?.state;
        let newer = self.versions.values().filter(|v| v.state != State::Pending).map(|v| v.number).max();
        if let Some(by) = newer.filter(|by| state == State::Pending && *by > to.number) {
            return Err(StoreError::Superseded { name: to.name.clone(), number: to.number, by });
        }
        // To one that served, the way back is taken: what came after it is not returned to by a later rollback.
        match self.history.iter().position(|n| *n == to.number) {
            Some(at) => self.history.truncate(at + 1),
            None => self.history.push(to.number),
        }
        for version in self.versions.values_mut() {
            version.state = match version.state {
                _ if version.number == to.number => State::Serving,
                State::Serving => State::Previous,
                state => state,
            };
        }
        // Those that were rolled away go first, then those that served longest ago.
        let previous = self.versions.values().filter(|v| v.state == State::Previous).map(|v| v.number);
        let mut previous: Vec<u64> = previous.collect();
        previous.sort_by_key(|number| (self.history.iter().position(|n| n == number), *number));
        previous.truncate((previous.len() + 1).saturating_sub(keep.max(1)));
        self.forget(&previous);
        Ok(())
    }

    /// Forgets versions.
    pub(super) fn forget(&mut self, numbers: &[u64]) {
        self.versions.retain(|n, _| !numbers.contains(n));
        self.history.retain(|n| !numbers.contains(n));
    }

    /// Versions that were not switched to.
    pub(super) fn pending(&self) -> Vec<u64> {
        self.versions.values().filter(|v| v.state == State::Pending).map(|v| v.number).collect()
    }

    /// Whether it agrees with itself, as what this module makes does.
    pub(super) fn is_sound(&self, name: &str) -> bool {
        let serving: Vec<u64> =
            self.versions.values().filter(|v| v.state == State::Serving).map(|v| v.number).collect();
        let distinct: BTreeSet<&u64> = self.history.iter().collect();
        crate::name::check(name).is_ok()
            && serving == self.history.last().copied().into_iter().collect::<Vec<_>>()
            && distinct.len() == self.history.len()
            && self.history.iter().all(|n| self.versions.contains_key(n))
            && self.versions.iter().all(|(n, v)| v.number == *n && v.name == name && *n <= self.last)
    }
}
