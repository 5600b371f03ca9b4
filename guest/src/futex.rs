//! Futexes: keys, queues, waking, requeueing, robust lists. Locks of the PI kind (without inheritance) are in `pi`.
//!
//! A queue is first come, first served. A waiter that was woken is marked, so that its call returns 0 whatever the word holds
//! by then. It does not know the calls' argument rules: those are in `syscall::futex`.

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::mm::{Backing, VmFlags};
use crate::platform::{Gpa, Va};
use crate::task::Tid;
use crate::vfs::InodeId;
use crate::wait::Cause;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

pub mod pi;

/// The owner's thread id in a futex word.
pub const TID_MASK: u32 = 0x3fff_ffff;
/// The owner died.
pub const OWNER_DIED: u32 = 0x4000_0000;
/// Someone sleeps on the word.
pub const WAITERS: u32 = 0x8000_0000;
/// Entries of a robust list that are looked at; Linux has the same bound.
const ROBUST_LIMIT: usize = 2048;
/// Attempts at a compare-exchange on a word that others change all the time, before the call is tried again later.
const SPINS: usize = 64;

/// What a futex is identified by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FutexKey {
    /// A private futex: address space and address.
    Private(u64, Va),
    /// A shared one in private memory: address space and address, since a copy at a write moves the page.
    Unshared(u64, Va),
    /// A shared one in shared memory: its guest-physical address.
    Shared(Gpa),
    /// A shared one in a file of the host, which every mapping has elsewhere: the inode and the offset in it.
    File(InodeId, u64),
}

/// What a sleeper waits for besides a wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Nothing.
    Plain,
    /// The lock at this address of its own (FUTEX_LOCK_PI).
    Lock(Va),
    /// To be moved to the lock with this key and address (FUTEX_WAIT_REQUEUE_PI).
    Requeue(FutexKey, Va),
}

/// One sleeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    /// Who.
    pub tid: Tid,
    /// Wakes that share a bit with this reach it.
    pub bitset: u32,
    /// What for.
    pub role: Role,
    /// Which of several words (futex_waitv(2)).
    pub slot: u32,
}

/// All futex queues.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Futexes {
    queues: BTreeMap<FutexKey, VecDeque<Waiter>>,
    asleep: BTreeMap<Tid, Vec<FutexKey>>,
    woken: BTreeMap<Tid, u32>,
    /// Who holds each lock that others sleep on.
    owners: BTreeMap<FutexKey, Tid>,
}

impl Futexes {
    /// Puts a task at the end of a queue.
    pub fn enqueue(&mut self, key: FutexKey, tid: Tid, bitset: u32) {
        self.enqueue_all(&[key], tid, bitset, Role::Plain);
    }

    /// Puts a task at the end of several queues, each with its index as the slot.
    pub fn enqueue_all(&mut self, keys: &[FutexKey], tid: Tid, bitset: u32, role: Role) {
        self.forget(tid);
        for (slot, key) in (0..).zip(keys) {
            self.queues.entry(*key).or_default().push_back(Waiter { tid, bitset, role, slot });
        }
        self.asleep.insert(tid, keys.to_vec());
    }

    /// Takes up to `count` plain waiters off a queue, oldest first, and marks them woken.
    pub fn take(&mut self, key: FutexKey, count: u32, bitset: u32) -> Vec<Tid> {
        let mut hits: Vec<Waiter> = Vec::new();
        let Some(queue) = self.queues.get_mut(&key) else { return Vec::new() };
        queue.retain(|w| {
            let hit = u32::try_from(hits.len()).is_ok_and(|n| n < count)
                && w.bitset & bitset != 0
                && w.role == Role::Plain
                && !hits.iter().any(|h| h.tid == w.tid);
            if hit {
                hits.push(*w);
            }
            !hit
        });
        self.drop_empty(key);
        for w in &hits {
            self.mark_woken(w);
        }
        hits.iter().map(|w| w.tid).collect()
    }

    /// A waiter that is off its queue has been woken: it leaves the other queues.
    fn mark_woken(&mut self, w: &Waiter) {
        self.forget(w.tid);
        self.woken.insert(w.tid, w.slot);
    }

    fn drop_empty(&mut self, key: FutexKey) {
        if self.queues.get(&key).is_some_and(VecDeque::is_empty) {
            self.queues.remove(&key);
            self.owners.remove(&key);
        }
    }

    /// Moves up to `count` waiters to another queue, in order.
    pub fn requeue(&mut self, from: FutexKey, to: FutexKey, count: u32) -> u64 {
        if from == to {
            let there = self.queues.get(&from).map_or(0, |q| crate::num::u64_of(q.len()));
            return there.min(u64::from(count));
        }
        let mut moved = 0;
        while moved < u64::from(count) {
            let Some(w) = self.queues.get_mut(&from).and_then(VecDeque::pop_front) else { break };
            self.put(w, from, to);
            moved += 1;
        }
        self.drop_empty(from);
        moved
    }

    /// Puts a waiter that was taken off `from` at the end of `to`.
    fn put(&mut self, w: Waiter, from: FutexKey, to: FutexKey) {
        if let Some(keys) = self.asleep.get_mut(&w.tid) {
            for key in keys.iter_mut().filter(|k| **k == from) {
                *key = to;
            }
        }
        self.queues.entry(to).or_default().push_back(w);
    }

    /// Whether anyone sleeps on a key.
    pub fn has_waiters(&self, key: FutexKey) -> bool {
        self.queues.contains_key(&key)
    }

    /// Whether a wake that reaches `bitset` would meet someone who waits for a lock.
    pub fn has_lock_waiters(&self, key: FutexKey, bitset: u32) -> bool {
        let waits = |w: &Waiter| w.role != Role::Plain && w.bitset & bitset != 0;
        self.queues.get(&key).is_some_and(|q| q.iter().any(waits))
    }

    /// Takes a task's mark of having been woken.
    pub fn was_woken(&mut self, tid: Tid) -> bool {
        self.woken_at(tid).is_some()
    }

    /// The same, with the slot at which it was.
    pub fn woken_at(&mut self, tid: Tid) -> Option<u32> {
        self.woken.remove(&tid)
    }

    /// Forgets a task that no longer sleeps on a futex (a signal, a time-out, its death).
    pub fn forget(&mut self, tid: Tid) {
        self.woken.remove(&tid);
        for key in self.asleep.remove(&tid).unwrap_or_default() {
            if let Some(queue) = self.queues.get_mut(&key) {
                queue.retain(|w| w.tid != tid);
            }
            self.drop_empty(key);
        }
    }
}

impl Kernel {
    /// The key of a futex word. EINVAL when unaligned, EFAULT.
    pub fn futex_key(&mut self, tid: Tid, va: Va, private: bool) -> Result<FutexKey, Errno> {
        if !va.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        if va >= crate::platform::TASK_SIZE {
            return Err(Errno::EFAULT);
        }
        let mm = self.tasks.get(&tid).ok_or(Errno::ESRCH)?.mm;
        if private {
            return Ok(FutexKey::Private(mm, va));
        }
        let gpa = self.user_gpa(tid, va, false)?;
        let (start, vma) = self.mms.get(mm).and_then(|m| m.find(va)).ok_or(Errno::EFAULT)?;
        if let (true, Backing::File { file, offset }) =
            (vma.flags.contains(VmFlags::SHARED), vma.backing_at(va - start))
            && let Some(inode) = self.files.get(file).and_then(|f| f.kind.inode())
            && self.is_live(inode)
        {
            return Ok(FutexKey::File(inode, offset));
        }
        Ok(if vma.flags.contains(VmFlags::SHARED) {
            FutexKey::Shared(gpa)
        } else {
            FutexKey::Unshared(mm, va)
        })
    }

    /// Reads a futex word.
    pub fn futex_load(&mut self, tid: Tid, va: Va) -> Result<u32, Errno> {
        let gpa = self.user_gpa(tid, va, false)?;
        self.platform.load_u32(gpa).map_err(|_| Errno::EFAULT)
    }

    /// Replaces a futex word by `f` of it, atomically; returns what it was. `None` from `f` leaves it. EAGAIN when others
    /// change it without end.
    pub fn futex_update(
        &mut self,
        tid: Tid,
        va: Va,
        mut f: impl FnMut(u32) -> Option<u32>,
    ) -> Result<u32, Errno> {
        let gpa = self.user_gpa(tid, va, true)?;
        let mut old = self.platform.load_u32(gpa).map_err(|_| Errno::EFAULT)?;
        for _ in 0..SPINS {
            let Some(new) = f(old) else { return Ok(old) };
            match self.platform.compare_exchange_u32(gpa, old, new).map_err(|_| Errno::EFAULT)? {
                Ok(_) => return Ok(old),
                Err(seen) => old = seen,
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Wakes up to `count` waiters; returns how many.
    pub fn futex_wake(&mut self, key: FutexKey, count: u32, bitset: u32) -> u64 {
        let tids = self.futexes.take(key, count, bitset);
        for tid in &tids {
            self.unblock(*tid, Cause::Woken);
        }
        crate::num::u64_of(tids.len())
    }

    /// Wakes waiters of either kind of key on an address: for words that the kernel itself writes at a task's death.
    pub fn futex_wake_address(&mut self, tid: Tid, va: Va, count: u32) {
        for private in [true, false] {
            if let Ok(key) = self.futex_key(tid, va, private) {
                self.futex_wake(key, count, u32::MAX);
            }
        }
    }

    /// A dying task's robust list (get_robust_list(2)): its locks are marked and one waiter each is woken.
    pub fn exit_robust_list(&mut self, tid: Tid) {
        self.walk_robust_list(tid);
        self.futex_owner_died(tid);
    }

    fn walk_robust_list(&mut self, tid: Tid) {
        let Some(head) = self.tasks.get_mut(&tid).map(|t| std::mem::take(&mut t.robust_list)) else { return };
        if head == 0 {
            return;
        }
        let (Ok(first), Ok(offset), Ok(pending)) = (
            self.get_u64(tid, head),
            self.get_u64(tid, head.wrapping_add(8)),
            self.get_u64(tid, head.wrapping_add(16)),
        ) else {
            return;
        };
        let pending_at = pending & !1;
        let mut entry = first;
        for _ in 0..ROBUST_LIMIT {
            let at = entry & !1;
            if at == head || at == 0 {
                break;
            }
            // The next pointer is read first: the waiter may free the entry.
            let next = self.get_u64(tid, at);
            if at != pending_at
                && self.robust_death(tid, at.wrapping_add(offset), entry & 1 != 0, false).is_err()
            {
                return;
            }
            let Ok(next) = next else { return };
            entry = next;
        }
        if pending_at != 0 {
            let _ = self.robust_death(tid, pending_at.wrapping_add(offset), pending & 1 != 0, true);
        }
    }

    fn robust_death(&mut self, tid: Tid, va: Va, pi: bool, pending: bool) -> Result<(), Errno> {
        if !va.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        let value = self.futex_load(tid, va)?;
        if pending && !pi && value & TID_MASK == 0 {
            self.futex_wake_address(tid, va, 1);
            return Ok(());
        }
        let old =
            self.futex_update(tid, va, |v| (v & TID_MASK == tid).then_some(v & WAITERS | OWNER_DIED))?;
        // Who waits for a lock of the PI kind is given it afterwards.
        if !pi && old & TID_MASK == tid && old & WAITERS != 0 {
            self.futex_wake_address(tid, va, 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: FutexKey = FutexKey::Private(1, 0x1000);
    const B: FutexKey = FutexKey::Private(1, 0x2000);

    #[test]
    fn waiters_are_woken_in_the_order_they_came_and_by_bitset() {
        let mut f = Futexes::default();
        for (tid, bits) in [(3, 1), (1, 2), (2, 3)] {
            f.enqueue(A, tid, bits);
        }
        assert_eq!(f.take(A, 1, 2), [1]);
        assert_eq!(f.take(A, 5, u32::MAX), [3, 2]);
        assert!(f.was_woken(3) && !f.was_woken(3));
        assert!(!f.has_waiters(A));
    }

    #[test]
    fn a_requeued_waiter_is_found_at_its_new_key_only() {
        let mut f = Futexes::default();
        f.enqueue(A, 1, 1);
        f.enqueue(A, 2, 1);
        assert_eq!(f.requeue(A, B, 1), 1);
        assert_eq!(f.take(B, 9, 1), [1]);
        f.forget(2);
        assert!(f.take(A, 9, 1).is_empty());
        assert!(!f.was_woken(2));
    }

    /// pthread_join waits like this, and another thread's fork makes the page a copy at the next write.
    #[test]
    fn a_shared_wait_on_private_memory_is_found_after_a_fork_of_the_process() {
        let p = std::sync::Arc::new(crate::platform::fake::FakePlatform::new(64 << 20));
        let mut k = Kernel::new(p, crate::kernel::Limits::default()).unwrap();
        let mm = k.mm_new().unwrap();
        crate::exec::test_task(&mut k, 1, mm, 0, 0);
        let va = k.mmap(1, 0, 4096, 3, 0x22, None, 0).unwrap();
        k.put_u32(1, va, 7).unwrap();
        let before = k.futex_key(1, va, false).unwrap();
        let child = k.mm_fork(mm).unwrap();
        k.put_u32(1, va, 0).unwrap();
        assert_eq!(k.futex_key(1, va, false), Ok(before));
        crate::exec::test_task(&mut k, 2, child, 0, 0);
        assert_ne!(k.futex_key(2, va, false), Ok(before));
        let va = k.mmap(1, 0, 4096, 3, 0x21, None, 0).unwrap();
        let (before, child) = (k.futex_key(1, va, false).unwrap(), k.mm_fork(mm).unwrap());
        k.put_u32(1, va, 1).unwrap();
        crate::exec::test_task(&mut k, 2, child, 0, 0);
        assert_eq!(k.futex_key(2, va, false), Ok(before));
    }

    #[test]
    fn a_waiter_for_several_words_leaves_the_others_when_one_is_woken() {
        let mut f = Futexes::default();
        f.enqueue_all(&[A, B], 1, u32::MAX, Role::Plain);
        f.enqueue(B, 2, u32::MAX);
        assert_eq!(f.take(B, 1, u32::MAX), [1]);
        assert!(!f.has_waiters(A));
        assert_eq!(f.woken_at(1), Some(1));
        assert_eq!(f.take(B, 9, u32::MAX), [2]);
    }

    #[test]
    fn the_lock_of_a_thread_that_dies_goes_to_the_first_who_waits() {
        let p = std::sync::Arc::new(crate::platform::fake::FakePlatform::new(64 << 20));
        let mut k = Kernel::new(p, crate::kernel::Limits::default()).unwrap();
        let mm = k.mm_new().unwrap();
        for tid in 1..4 {
            crate::exec::test_task(&mut k, tid, mm, 0, 0);
        }
        let va = k.mmap(1, 0, 4096, 3, 0x22, None, 0).unwrap();
        let key = k.futex_key(1, va, true).unwrap();
        assert_eq!(k.pi_attempt(1, va, key, false), Ok(pi::Attempt::Taken));
        for tid in 2..4 {
            assert_eq!(k.pi_attempt(tid, va, key, false), Ok(pi::Attempt::Held(1)));
            k.futexes.enqueue_lock(key, tid, va, 1);
        }
        k.exit_robust_list(1);
        assert_eq!(k.get_u32(2, va), Ok(2 | OWNER_DIED | WAITERS));
        assert!(k.futexes.was_woken(2) && !k.futexes.was_woken(3));
        assert_eq!(k.pi_unlock(2, va, true), Ok(()));
        assert_eq!(k.get_u32(2, va), Ok(3));
        assert_eq!(k.pi_unlock(2, va, true), Err(Errno::EPERM));
    }
}
