//! Locks of the PI kind (futex(2), "Priority-inheritance futexes"): the word holds the owner, and an unlock gives the lock to the oldest
//! sleeper. Priorities are not inherited: the scheduler has none.

use super::{FutexKey, Futexes, OWNER_DIED, Role, TID_MASK, WAITERS, Waiter};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::platform::Va;
use crate::task::Tid;
use crate::wait::Cause;

/// How an attempt at a lock ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The task has it.
    Taken,
    /// This task has it; the word says that others wait.
    Held(Tid),
}

impl Futexes {
    /// Puts a task to sleep on a lock that `owner` has.
    pub fn enqueue_lock(&mut self, key: FutexKey, tid: Tid, va: Va, owner: Tid) {
        self.enqueue_all(&[key], tid, u32::MAX, Role::Lock(va));
        self.owners.insert(key, owner);
    }

    fn first_for_lock(&self, key: FutexKey) -> Option<(Tid, Va, bool)> {
        let queue = self.queues.get(&key)?;
        let w = queue.front()?;
        match w.role {
            Role::Lock(va) => Some((w.tid, va, queue.len() > 1)),
            _ => None,
        }
    }

    fn pop(&mut self, key: FutexKey) -> Option<Waiter> {
        let w = self.queues.get_mut(&key)?.pop_front()?;
        self.drop_empty(key);
        Some(w)
    }
}

impl Kernel {
    /// Takes a free lock for a task at its own address, or marks it as waited for. EDEADLK, ESRCH for an owner that does not exist,
    /// EAGAIN with `only_try`.
    pub fn pi_attempt(&mut self, tid: Tid, va: Va, key: FutexKey, only_try: bool) -> Result<Attempt, Errno> {
        let waiters = if self.futexes.has_waiters(key) { WAITERS } else { 0 };
        if waiters != 0 && self.futexes.first_for_lock(key).is_none() {
            return Err(Errno::EINVAL);
        }
        let old = self.futex_update(tid, va, |v| match v & TID_MASK {
            0 => Some(tid | waiters | v & (WAITERS | OWNER_DIED)),
            owner if owner == tid || only_try => None,
            _ => Some(v | WAITERS),
        })?;
        match old & TID_MASK {
            0 => Ok(Attempt::Taken),
            owner if owner == tid => Err(Errno::EDEADLK),
            owner if self.task(owner).is_none() => Err(Errno::ESRCH),
            _ if only_try => Err(Errno::EAGAIN),
            owner => Ok(Attempt::Held(owner)),
        }
    }

    /// FUTEX_UNLOCK_PI: the word passes to the oldest sleeper, so that nobody can overtake it and WAITERS stays set while others sleep.
    /// EPERM.
    pub fn pi_unlock(&mut self, tid: Tid, va: Va, private: bool) -> Result<(), Errno> {
        // The owner is looked at before the address, as on Linux.
        if self.get_u32(tid, va)? & TID_MASK != tid {
            return Err(Errno::EPERM);
        }
        let key = self.futex_key(tid, va, private)?;
        let next = self.futexes.first_for_lock(key);
        if next.is_none() && self.futexes.has_waiters(key) {
            return Err(Errno::EINVAL);
        }
        let new = next.map_or(0, |(to, _, more)| to | if more { WAITERS } else { 0 });
        let old = self.futex_update(tid, va, |v| (v & TID_MASK == tid).then_some(new))?;
        if old & TID_MASK != tid {
            return Err(Errno::EPERM);
        }
        self.pi_hand_over(key);
        Ok(())
    }

    /// The oldest sleeper has the lock now.
    fn pi_hand_over(&mut self, key: FutexKey) {
        let Some(w) = self.futexes.pop(key) else { return };
        if self.futexes.has_waiters(key) {
            self.futexes.owners.insert(key, w.tid);
        }
        self.futexes.mark_woken(&w);
        self.unblock(w.tid, Cause::Woken);
    }

    /// A task that dies gives the locks that others wait for to the first of them, which is told by a bit in the word.
    pub(super) fn futex_owner_died(&mut self, tid: Tid) {
        let held: Vec<FutexKey> =
            self.futexes.owners.iter().filter(|(_, o)| **o == tid).map(|(k, _)| *k).collect();
        for key in held {
            let Some((to, va, more)) = self.futexes.first_for_lock(key) else { continue };
            let new = to | OWNER_DIED | if more { WAITERS } else { 0 };
            let mine = |v: u32| v & TID_MASK == tid || v & TID_MASK == 0;
            if self.futex_update(to, va, |v| mine(v).then_some(new)).is_ok_and(mine) {
                self.pi_hand_over(key);
            }
        }
    }

    /// FUTEX_CMP_REQUEUE_PI: gives the lock to the oldest sleeper if it is free, and moves others (`count` besides the first) to it;
    /// returns how many of both. EINVAL when a sleeper did not ask for this lock.
    pub fn pi_requeue(&mut self, from: FutexKey, to: FutexKey, count: u32) -> Result<u64, Errno> {
        let mut done: u64 = 0;
        while done < u64::from(count).saturating_add(1) {
            let Some(w) = self.futexes.queues.get(&from).and_then(|q| q.front()).copied() else { break };
            let Role::Requeue(wanted, va) = w.role else { return Err(Errno::EINVAL) };
            if wanted != to {
                return Err(Errno::EINVAL);
            }
            // Only the first may take the lock; the others wait for their turn behind it.
            let attempt = match self.futexes.owners.get(&to) {
                Some(owner) if done > 0 => Attempt::Held(*owner),
                _ => self.pi_attempt(w.tid, va, to, false)?,
            };
            if self.futexes.pop(from).is_none() {
                break;
            }
            match attempt {
                Attempt::Taken => {
                    self.futexes.mark_woken(&w);
                    self.unblock(w.tid, Cause::Woken);
                }
                Attempt::Held(owner) => {
                    self.futexes.put(Waiter { role: Role::Lock(va), bitset: u32::MAX, ..w }, from, to);
                    self.futexes.owners.insert(to, owner);
                }
            }
            done += 1;
        }
        Ok(done)
    }
}
