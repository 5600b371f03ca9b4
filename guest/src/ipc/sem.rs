//! System V semaphores (semget(2), semop(2)).

use super::{Object, Perm};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::task::{TaskState, Tid};
use crate::wait::WaitKey;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Semaphores of a set at most (SEMMSL).
pub const SEMMSL: u32 = 32_000;
/// Sets at most (SEMMNI).
pub const SEMMNI: usize = 32_000;
/// Semaphores of all sets. Linux allows 1,024,000,000; this bounds what a guest makes the host remember.
pub const SEMMNS: usize = 1 << 20;
/// Operations of one call at most (SEMOPM).
pub const SEMOPM: u64 = 500;
/// Largest value (SEMVMX).
pub const SEMVMX: i32 = 32_767;
/// SEM_UNDO.
pub const SEM_UNDO: u16 = 0x1000;

/// One semaphore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sem {
    /// Its value.
    pub value: u16,
    /// Process of the last operation.
    pub pid: u32,
}

/// What a sleeper waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sleeper {
    /// Which semaphore.
    pub index: u16,
    /// It waits for zero, not for an increase.
    pub zero: bool,
}

/// A set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)] // semctl(2)
pub struct Set {
    pub perm: Perm,
    pub sems: Vec<Sem>,
    pub otime: i64,
    pub ctime: i64,
    /// Its object number for waiters.
    pub object: u64,
    /// Who sleeps in semop(2) on it; entries of tasks that sleep no more are stale.
    pub sleepers: BTreeMap<Tid, Sleeper>,
}

impl Object for Set {
    fn perm(&self) -> &Perm {
        &self.perm
    }
    fn perm_mut(&mut self) -> &mut Perm {
        &mut self.perm
    }
}

/// Adjustments that all processes together may have. Linux has no such bound (SEMMNU is 1,024,000,000).
pub const MAX_UNDO: usize = 1 << 18;

/// Adjustments at the death of a process: by process and set, then by semaphore.
pub type Undo = BTreeMap<(u32, i32), BTreeMap<u16, i32>>;

/// One operation (`struct sembuf`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// Which semaphore.
    pub index: u16,
    /// What to add; 0 waits for zero.
    pub change: i16,
    /// IPC_NOWAIT, SEM_UNDO.
    pub flags: u16,
}

/// How a list of operations ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// All were done.
    All,
    /// None was: this one has to wait.
    Wait(Op),
}

impl Set {
    /// Does all operations or none. ERANGE.
    fn perform(&mut self, ops: &[Op], pid: u32, undo: &BTreeMap<u16, i32>) -> Result<Done, Errno> {
        let mut values: BTreeMap<u16, i32> = BTreeMap::new();
        let mut adjust: BTreeMap<u16, i32> = BTreeMap::new();
        for op in ops {
            let old = match values.get(&op.index) {
                Some(v) => *v,
                None => self.sems.get(usize::from(op.index)).map_or(0, |s| i32::from(s.value)),
            };
            let new = old + i32::from(op.change);
            if (op.change == 0 && old != 0) || new < 0 {
                return Ok(Done::Wait(*op));
            }
            if new > SEMVMX {
                return Err(Errno::ERANGE);
            }
            if op.flags & SEM_UNDO != 0 {
                let a = adjust.entry(op.index).or_insert(undo.get(&op.index).copied().unwrap_or(0));
                *a -= i32::from(op.change);
                if !(-SEMVMX - 1..=SEMVMX).contains(a) {
                    return Err(Errno::ERANGE);
                }
            }
            values.insert(op.index, new);
        }
        for (index, value) in values {
            if let Some(sem) = self.sems.get_mut(usize::from(index)) {
                *sem = Sem { value: u16::try_from(value).unwrap_or(0), pid };
            }
        }
        Ok(Done::All)
    }
}

impl Kernel {
    /// semget(2).
    pub fn sem_get(&mut self, tid: Tid, key: i32, count: i32, flags: u32) -> Result<u32, Errno> {
        let count = u32::try_from(count).ok().filter(|n| *n <= SEMMSL).ok_or(Errno::EINVAL)?;
        let who = self.creds_of(tid);
        if let Some(index) = self.ipc.sem.lookup(key, flags)? {
            let id = self.ipc.sem.id_at(index).ok_or(Errno::EINVAL)?;
            let set = self.ipc.sem.get(id.cast_signed())?;
            if crate::num::us(count.into()) > set.sems.len() {
                return Err(Errno::EINVAL);
            }
            set.perm.check(&who, flags)?;
            return Ok(id);
        }
        if count == 0 {
            return Err(Errno::EINVAL);
        }
        let count = crate::num::us(count.into());
        let all: usize = self.ipc.sem.iter().map(|(_, s)| s.sems.len()).sum();
        if all + count > SEMMNS {
            return Err(Errno::ENOSPC);
        }
        let (ctime, _) = self.now_pair();
        let (perm, object) = (Perm::new(key, flags, &who), self.new_object());
        let sems = vec![Sem::default(); count];
        self.ipc.sem.insert(Set { perm, sems, otime: 0, ctime, object, sleepers: BTreeMap::new() }, SEMMNI)
    }

    /// Tries operations on a set, which exists. EFBIG, EACCES, ERANGE, ENOSPC.
    pub fn sem_try(&mut self, tid: Tid, id: i32, ops: &[Op]) -> Result<Done, Errno> {
        let who = self.creds_of(tid);
        let pid = self.task(tid).map_or(0, |t| t.pid);
        let (now, _) = self.now_pair();
        let set = self.ipc.sem.get_mut(id)?;
        set.sleepers.remove(&tid);
        if ops.iter().any(|o| usize::from(o.index) >= set.sems.len()) {
            return Err(Errno::EFBIG);
        }
        let alters = ops.iter().any(|o| o.change != 0);
        set.perm.check(&who, if alters { 0o222 } else { 0o444 })?;
        let empty = BTreeMap::new();
        let undo = self.ipc.undo.get(&(pid, id)).unwrap_or(&empty);
        let new: BTreeSet<u16> = ops
            .iter()
            .filter(|o| o.flags & SEM_UNDO != 0 && !undo.contains_key(&o.index))
            .map(|o| o.index)
            .collect();
        if !new.is_empty() && self.ipc.undo_entries.saturating_add(new.len()) > MAX_UNDO {
            return Err(Errno::ENOSPC);
        }
        let done = set.perform(ops, pid, undo)?;
        let object = set.object;
        match done {
            Done::Wait(op) => {
                set.sleepers.insert(tid, Sleeper { index: op.index, zero: op.change == 0 });
            }
            Done::All => {
                set.otime = now;
                if ops.iter().any(|o| o.flags & SEM_UNDO != 0) {
                    self.ipc.undo_entries = self.ipc.undo_entries.saturating_add(new.len());
                    let undo = self.ipc.undo.entry((pid, id)).or_default();
                    for op in ops.iter().filter(|o| o.flags & SEM_UNDO != 0) {
                        *undo.entry(op.index).or_default() -= i32::from(op.change);
                    }
                }
                if alters {
                    self.wake(WaitKey::Object(object));
                }
            }
        }
        Ok(done)
    }

    /// How many tasks wait for a semaphore to become zero, or to increase.
    pub fn sem_sleepers(&self, set: &Set, index: u16, zero: bool) -> u64 {
        let asleep = |tid: &Tid| {
            // Who was woken to look again still sleeps for whoever asks.
            self.task(*tid).is_some_and(|t| match &t.state {
                TaskState::Blocked(b) => b.on.contains(&WaitKey::Object(set.object)),
                _ => t.resume.is_some() && t.syscall.as_ref().is_some_and(|c| matches!(c.number, 65 | 220)),
            })
        };
        let hits = set.sleepers.iter().filter(|(t, s)| **s == Sleeper { index, zero } && asleep(t)).count();
        crate::num::u64_of(hits)
    }

    /// SETVAL and SETALL: new values from `first` on; what processes would undo there is forgotten. ERANGE.
    pub fn sem_set(&mut self, tid: Tid, id: i32, first: u16, values: &[u16]) -> Result<(), Errno> {
        if values.iter().any(|v| i32::from(*v) > SEMVMX) {
            return Err(Errno::ERANGE);
        }
        let pid = self.task(tid).map_or(0, |t| t.pid);
        let (now, _) = self.now_pair();
        let set = self.ipc.sem.get_mut(id)?;
        for (sem, value) in set.sems.iter_mut().skip(first.into()).zip(values) {
            *sem = Sem { value: *value, pid };
        }
        set.ctime = now;
        let object = set.object;
        let last = usize::from(first) + values.len();
        let mut gone = 0usize;
        for (_, undo) in self.ipc.undo.iter_mut().filter(|((_, set), _)| *set == id) {
            let before = undo.len();
            undo.retain(|i, _| *i < first || usize::from(*i) >= last);
            gone = gone.saturating_add(before.saturating_sub(undo.len()));
        }
        self.ipc.undo_entries = self.ipc.undo_entries.saturating_sub(gone);
        self.wake(WaitKey::Object(object));
        Ok(())
    }

    /// IPC_RMID: sleepers get EIDRM. EINVAL, EPERM.
    pub fn sem_remove(&mut self, tid: Tid, id: i32) -> Result<(), Errno> {
        let who = self.creds_of(tid);
        self.ipc.sem.get(id)?.perm.check_owner(&who)?;
        let set = self.ipc.sem.remove(id)?;
        self.ipc.undo.retain(|(_, s), _| *s != id);
        self.ipc.undo_entries = self.ipc.undo.values().map(BTreeMap::len).sum();
        self.wake(WaitKey::Object(set.object));
        Ok(())
    }

    /// Undoes what a process that ended has done with SEM_UNDO.
    pub(crate) fn sem_process_ended(&mut self, pid: u32) {
        let keys: Vec<(u32, i32)> =
            self.ipc.undo.range((pid, i32::MIN)..=(pid, i32::MAX)).map(|(k, _)| *k).collect();
        let (now, _) = self.now_pair();
        for key in keys {
            let Some(undo) = self.ipc.undo.remove(&key) else { continue };
            self.ipc.undo_entries = self.ipc.undo_entries.saturating_sub(undo.len());
            let Ok(set) = self.ipc.sem.get_mut(key.1) else { continue };
            for (index, change) in undo {
                if let Some(sem) = set.sems.get_mut(usize::from(index)) {
                    let value = (i32::from(sem.value) + change).clamp(0, SEMVMX);
                    *sem = Sem { value: u16::try_from(value).unwrap_or(0), pid };
                }
            }
            set.otime = now;
            let object = set.object;
            self.wake(WaitKey::Object(object));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: &[u16]) -> Set {
        let sems = values.iter().map(|v| Sem { value: *v, pid: 0 }).collect();
        Set { perm: Perm::default(), sems, otime: 0, ctime: 0, object: 0, sleepers: BTreeMap::new() }
    }

    #[test]
    fn operations_are_done_all_or_none() {
        let mut s = set(&[1, 0]);
        let op = |index, change| Op { index, change, flags: 0 };
        let none = BTreeMap::new();
        assert_eq!(s.perform(&[op(0, -1), op(1, -1)], 9, &none), Ok(Done::Wait(op(1, -1))));
        assert_eq!(s.sems[0].value, 1);
        assert_eq!(s.perform(&[op(1, 2), op(0, -1), op(1, -1), op(0, 0)], 9, &none), Ok(Done::All));
        assert_eq!((s.sems[0].value, s.sems[1].value, s.sems[0].pid), (0, 1, 9));
        assert_eq!(s.perform(&[op(1, 32767)], 9, &none), Err(Errno::ERANGE));
        let undo = Op { index: 1, change: 5, flags: SEM_UNDO };
        assert_eq!(s.perform(&[undo], 9, &[(1, -32765)].into()), Err(Errno::ERANGE));
    }

    /// Adjustments are the host's memory: a process that leaves one at each of very many semaphores meets an error.
    #[test]
    fn adjustments_have_a_limit_and_go_with_their_set() {
        use crate::kernel::{Kernel, Limits};
        use crate::platform::fake::FakePlatform;
        let mut k = Kernel::new(std::sync::Arc::new(FakePlatform::new(64 << 20)), Limits::default()).unwrap();
        let files = k.fd_table_new();
        crate::exec::test_task(&mut k, 1, 0, files, 0);
        let undo = |index| Op { index, change: 1, flags: SEM_UNDO };
        let all: Vec<Op> = (0..32_000).map(undo).collect();
        let ids: Vec<i32> = (0..9).map(|_| k.sem_get(1, 0, 32_000, 0o600).unwrap().cast_signed()).collect();
        for id in &ids[..8] {
            assert_eq!(k.sem_try(1, *id, &all), Ok(Done::All));
        }
        assert_eq!(k.ipc.undo_entries, 256_000);
        assert_eq!(k.sem_try(1, ids[8], &all), Err(Errno::ENOSPC));
        assert_eq!(k.sem_try(1, ids[0], &all[..500]), Ok(Done::All), "what is there already grows no more");
        k.sem_set(1, ids[0], 0, &[0; 100]).unwrap();
        assert_eq!(k.ipc.undo_entries, 255_900);
        k.sem_remove(1, ids[0]).unwrap();
        assert_eq!(k.sem_try(1, ids[8], &all), Ok(Done::All));
        k.sem_process_ended(1);
        assert_eq!(k.ipc.undo_entries, 0);
    }
}
