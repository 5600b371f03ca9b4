//! mlock(2) and its kin, and RLIMIT_DATA: what is counted, and who is exempt. Nothing is locked on the host: the sandbox's memory is the
//! operator's to page.

use super::vma::{Backing, Mm, Prot, Special, VmFlags};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::platform::Va;
use crate::task::Tid;

/// RLIMIT_MEMLOCK's number.
const RLIMIT_MEMLOCK: u32 = 8;

impl Mm {
    /// Bytes of a range that are locked.
    fn locked_in(&self, start: Va, end: Va) -> u64 {
        let locked = |key: &Va| self.vmas.get(key).is_some_and(|v| v.flags.contains(VmFlags::LOCKED));
        self.vmas_in(start, end).iter().filter(|(_, _, key)| locked(key)).map(|(s, e, _)| e - s).sum()
    }

    /// Whether `len` more bytes of private writable memory stay within RLIMIT_DATA.
    pub(super) fn data_fits(&self, len: u64, limit: u64) -> bool {
        if limit == u64::MAX {
            return true;
        }
        let is_data = |v: &super::Vma| {
            v.prot.contains(Prot::WRITE)
                && !v.flags.intersects(VmFlags::SHARED | VmFlags::GROWSDOWN)
                && v.backing != Backing::Special(Special::Stack)
        };
        let data: u64 = self.vmas.iter().filter(|(_, v)| is_data(v)).map(|(s, v)| v.end - s).sum();
        data.saturating_add(len) <= limit
    }
}

impl Kernel {
    fn exempt(&self, tid: Tid) -> bool {
        self.capable(tid, crate::task::creds::cap::IPC_LOCK)
    }

    /// Whether a task may lock memory at all.
    pub(super) fn may_lock(&self, tid: Tid) -> bool {
        self.exempt(tid) || self.soft_limit(tid, RLIMIT_MEMLOCK) > 0
    }

    /// Whether `len` more bytes may be locked.
    pub(super) fn lock_fits(&self, tid: Tid, mm: u64, len: u64) -> bool {
        let locked = self.mms.get(mm).map_or(0, |m| m.locked_in(0, Va::MAX));
        self.exempt(tid) || locked.saturating_add(len) <= self.soft_limit(tid, RLIMIT_MEMLOCK)
    }

    /// mlock(2) and munlock(2) of a page-aligned range: parts that are mapped are marked although others are not. EPERM, ENOMEM.
    pub fn mm_lock(&mut self, tid: Tid, start: Va, end: Va, on: bool) -> Result<(), Errno> {
        let mm = self.task(tid).ok_or(Errno::EFAULT)?.mm;
        if on {
            if !self.may_lock(tid) {
                return Err(Errno::EPERM);
            }
            let already = self.mms.get(mm).map_or(0, |m| m.locked_in(start, end));
            if !self.lock_fits(tid, mm, (end - start).saturating_sub(already)) {
                return Err(Errno::ENOMEM);
            }
        }
        let m = self.mms.get_mut(mm).ok_or(Errno::EFAULT)?;
        let whole = m.covered(start, end);
        m.split(start);
        m.split(end);
        for (_, vma) in m.vmas.range_mut(start..end) {
            vma.flags.set(VmFlags::LOCKED, on);
        }
        m.merge(start, end);
        if whole { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// mlockall(2) with these wishes. EPERM, ENOMEM.
    pub fn mm_lock_all(&mut self, tid: Tid, current: bool, future: bool) -> Result<(), Errno> {
        if !self.may_lock(tid) {
            return Err(Errno::EPERM);
        }
        let mm = self.task(tid).ok_or(Errno::EFAULT)?.mm;
        let limit = self.soft_limit(tid, RLIMIT_MEMLOCK);
        let exempt = self.exempt(tid);
        let m = self.mms.get_mut(mm).ok_or(Errno::EFAULT)?;
        if current && m.total > limit && !exempt {
            return Err(Errno::ENOMEM);
        }
        m.lock_future = future;
        if current {
            m.vmas.values_mut().filter(|v| !v.is_kernel()).for_each(|v| v.flags.insert(VmFlags::LOCKED));
        }
        Ok(())
    }

    /// munlockall(2).
    pub fn mm_unlock_all(&mut self, tid: Tid) {
        let Some(m) = self.task(tid).map(|t| t.mm).and_then(|mm| self.mms.get_mut(mm)) else { return };
        m.lock_future = false;
        m.vmas.values_mut().for_each(|v| v.flags.remove(VmFlags::LOCKED));
        m.merge(0, Va::MAX);
    }
}
