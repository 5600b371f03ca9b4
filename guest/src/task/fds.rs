//! A descriptor table as data.

use super::Fd;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A descriptor table, shared by tasks cloned with CLONE_FILES.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FdTable {
    /// Open descriptors by number.
    pub fds: BTreeMap<u32, Fd>,
    /// The stretches of numbers in use, first to first free after it, so that a table of a million is not walked for the next free one.
    runs: BTreeMap<u32, u32>,
    /// Tasks that share it.
    pub refs: u32,
}

impl FdTable {
    /// A table of these descriptors, with one user.
    pub fn of(fds: impl IntoIterator<Item = (u32, Fd)>) -> Self {
        let mut table = FdTable { refs: 1, ..FdTable::default() };
        for (fd, entry) in fds {
            table.put(fd, entry);
        }
        table
    }

    /// The lowest free number at `from` or above.
    pub fn lowest_free(&self, from: u32) -> u32 {
        self.runs.range(..=from).next_back().map_or(from, |(_, end)| from.max(*end))
    }

    /// Puts a descriptor into the table; what was there before.
    pub fn put(&mut self, fd: u32, entry: Fd) -> Option<Fd> {
        let old = self.fds.insert(fd, entry);
        if old.is_none() {
            let mut end = fd.saturating_add(1);
            if let Some(after) = self.runs.remove(&end) {
                end = after;
            }
            match self.runs.range_mut(..fd).next_back().filter(|(_, e)| **e == fd) {
                Some((_, e)) => *e = end,
                None => {
                    self.runs.insert(fd, end);
                }
            }
        }
        old
    }

    /// Takes a descriptor out.
    pub fn take(&mut self, fd: u32) -> Option<Fd> {
        let old = self.fds.remove(&fd)?;
        if let Some((start, end)) = self.runs.range(..=fd).next_back().map(|(s, e)| (*s, *e)) {
            self.runs.remove(&start);
            if start < fd {
                self.runs.insert(start, fd);
            }
            if fd.saturating_add(1) < end {
                self.runs.insert(fd.saturating_add(1), end);
            }
        }
        Some(old)
    }
}
