//! Advisory file locks: fcntl(2) records of processes and of open file descriptions, and flock(2). One list per inode; a lock
//! is a range of bytes with an owner. Processes that would wait for each other in a ring are told so.

use super::InodeId;
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::task::{TaskState, Tid};
use crate::wait::WaitKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Records that may exist at once in a sandbox (ENOLCK beyond).
const MAX_RECORDS: usize = 65536;

/// Whose a lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// A process: F_SETLK.
    Process(u32),
    /// An open file description: F_OFD_SETLK.
    File(u64),
    /// An open file description: flock(2), which F_SETLK does not see.
    Flock(u64),
}

/// A locked range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Whose.
    pub owner: Owner,
    /// First byte.
    pub start: u64,
    /// Last byte; `u64::MAX` for the end of the file wherever it is.
    pub end: u64,
    /// F_WRLCK or LOCK_EX.
    pub exclusive: bool,
}

/// Locks of one inode.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct InodeLocks {
    /// Object number for who waits for one.
    object: u64,
    records: Vec<Record>,
}

/// All locks, and what processes wait for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Locks(BTreeMap<InodeId, InodeLocks>, BTreeMap<Tid, (InodeId, Record)>);

fn clash(a: &Record, b: &Record) -> bool {
    let flock = |o: Owner| matches!(o, Owner::Flock(_));
    a.owner != b.owner
        && flock(a.owner) == flock(b.owner)
        && (a.exclusive || b.exclusive)
        && a.start <= b.end
        && b.start <= a.end
}

/// Takes `start..=end` out of an owner's records.
fn cut(records: &mut Vec<Record>, owner: Owner, start: u64, end: u64) {
    let mut kept = Vec::with_capacity(records.len());
    for r in records.drain(..) {
        if r.owner != owner || r.end < start || end < r.start {
            kept.push(r);
            continue;
        }
        if let Some(before) = start.checked_sub(1).filter(|b| *b >= r.start) {
            kept.push(Record { end: before, ..r });
        }
        if let Some(after) = end.checked_add(1).filter(|a| *a <= r.end) {
            kept.push(Record { start: after, ..r });
        }
    }
    *records = kept;
}

impl Kernel {
    /// A lock of another owner that keeps this one from being taken.
    pub fn lock_conflict(&self, inode: InodeId, wanted: &Record) -> Option<Record> {
        let records = &self.objects.locks.0.get(&inode)?.records;
        // Of the first owner in the way, the first lock.
        let owner = records.iter().find(|r| clash(r, wanted))?.owner;
        records.iter().filter(|r| r.owner == owner && clash(r, wanted)).min_by_key(|r| r.start).copied()
    }

    /// The first lock of the same owner in a range (F_OFD_GETLK of F_UNLCK).
    pub fn lock_own(&self, inode: InodeId, wanted: &Record) -> Option<Record> {
        let records = &self.objects.locks.0.get(&inode)?.records;
        let own = records
            .iter()
            .filter(|r| r.owner == wanted.owner && r.start <= wanted.end && wanted.start <= r.end);
        own.min_by_key(|r| r.start).copied()
    }

    /// Takes a lock in place of what its owner had in the range. ENOLCK; `Err(EAGAIN)` on a conflict.
    pub fn lock_take(&mut self, inode: InodeId, wanted: Record) -> Result<(), Errno> {
        if self.lock_conflict(inode, &wanted).is_some() {
            return Err(Errno::EAGAIN);
        }
        let total: usize = self.objects.locks.0.values().map(|l| l.records.len()).sum();
        if total >= MAX_RECORDS {
            return Err(Errno::ENOLCK);
        }
        self.lock_list(inode);
        if let Some(list) = self.objects.locks.0.get_mut(&inode) {
            cut(&mut list.records, wanted.owner, wanted.start, wanted.end);
            // Neighbours of one kind become one record, so that locking byte by byte stays small.
            let mut merged = wanted;
            list.records.retain(|r| {
                let joins = r.owner == merged.owner
                    && r.exclusive == merged.exclusive
                    && (r.end.checked_add(1) == Some(merged.start)
                        || merged.end.checked_add(1) == Some(r.start));
                if joins {
                    (merged.start, merged.end) = (merged.start.min(r.start), merged.end.max(r.end));
                }
                !joins
            });
            list.records.push(merged);
        }
        // A write lock that became a read lock lets others in.
        self.lock_wake(inode);
        Ok(())
    }

    /// Remembers what a task is about to wait for. EDEADLK when the process that has it waits, by way of others perhaps, for this one's.
    pub fn lock_wait(&mut self, tid: Tid, inode: InodeId, wanted: Record) -> Result<(), Errno> {
        let Owner::Process(me) = wanted.owner else { return Ok(()) };
        let tasks = &self.tasks;
        self.objects.locks.1.retain(|t, _| {
            tasks.get(t).is_some_and(|t| matches!(&t.state, TaskState::Blocked(_)) && t.syscall.is_some())
        });
        let mut seen: Vec<u32> = Vec::new();
        let mut todo = vec![(inode, wanted)];
        while let Some((inode, wanted)) = todo.pop() {
            let Some(list) = self.objects.locks.0.get(&inode) else { continue };
            for r in list.records.iter().filter(|r| clash(r, &wanted)) {
                let Owner::Process(pid) = r.owner else { continue };
                if pid == me {
                    return Err(Errno::EDEADLK);
                }
                if seen.contains(&pid) {
                    continue;
                }
                seen.push(pid);
                let waits = self.objects.locks.1.values();
                todo.extend(waits.filter(|(_, w)| w.owner == Owner::Process(pid)).copied());
            }
        }
        self.objects.locks.1.insert(tid, (inode, wanted));
        Ok(())
    }

    /// Gives up what an owner holds in a range.
    pub fn lock_drop(&mut self, inode: InodeId, owner: Owner, start: u64, end: u64) {
        let Some(list) = self.objects.locks.0.get_mut(&inode) else { return };
        cut(&mut list.records, owner, start, end);
        self.lock_wake(inode);
    }

    /// What to sleep on until a lock may be free.
    pub fn lock_key(&mut self, inode: InodeId) -> WaitKey {
        WaitKey::Object(self.lock_list(inode))
    }

    fn lock_list(&mut self, inode: InodeId) -> u64 {
        if let Some(list) = self.objects.locks.0.get(&inode) {
            return list.object;
        }
        let object = self.new_object();
        self.objects.locks.0.insert(inode, InodeLocks { object, records: Vec::new() });
        object
    }

    fn lock_wake(&mut self, inode: InodeId) {
        let Some(list) = self.objects.locks.0.get(&inode) else { return };
        let object = list.object;
        if list.records.is_empty() {
            self.objects.locks.0.remove(&inode);
        }
        self.wake(WaitKey::Object(object));
    }

    /// A process closed a descriptor of an inode: its fcntl(2) locks there end.
    pub fn lock_process_closed(&mut self, pid: u32, inode: InodeId) {
        self.lock_drop(inode, Owner::Process(pid), 0, u64::MAX);
    }

    /// A process ended.
    pub fn lock_process_ended(&mut self, pid: u32) {
        let inodes: Vec<InodeId> = self.objects.locks.0.keys().copied().collect();
        for inode in inodes {
            self.lock_drop(inode, Owner::Process(pid), 0, u64::MAX);
        }
    }

    /// An open file description is gone.
    pub fn lock_file_closed(&mut self, inode: InodeId, file: u64) {
        for owner in [Owner::File(file), Owner::Flock(file)] {
            self.lock_drop(inode, owner, 0, u64::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unlocking_the_middle_leaves_both_ends() {
        let owner = Owner::Process(1);
        let mut records = vec![Record { owner, start: 0, end: u64::MAX, exclusive: true }];
        cut(&mut records, owner, 10, 19);
        let ranges: Vec<_> = records.iter().map(|r| (r.start, r.end)).collect();
        assert_eq!(ranges, [(0, 9), (20, u64::MAX)]);
        let other = Record { owner: Owner::Process(2), start: 9, end: 9, exclusive: false };
        assert!(clash(&records[0], &other));
        assert!(!clash(&records[0], &Record { start: 10, end: 19, ..other }));
    }
}
