//! mremap(2): grows, shrinks, moves and doubles mappings.

use super::fault::POPULATE_MAX;
use super::mmap::{
    MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE, MapRequest, PAGE_MASK, RLIMIT_AS, choose, flag,
};
use super::vma::{Backing, MAX_MAP_COUNT, MMAP_MIN_ADDR, Prot, VmFlags, Vma};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::align_up;
use crate::platform::{PAGE_SIZE, TASK_SIZE, Va};

impl Kernel {
    /// mremap(2).
    pub fn mremap(
        &mut self,
        tid: u32,
        addr: Va,
        old_len: u64,
        new_len: u64,
        flags: u64,
        new_addr: Va,
    ) -> Result<Va, Errno> {
        let mm = self.task(tid).ok_or(Errno::EFAULT)?.mm;
        let limit = self.soft_limit(tid, RLIMIT_AS);
        let known = u64::from(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP);
        let may_move = flag(flags, MREMAP_MAYMOVE);
        let fixed = flag(flags, MREMAP_FIXED);
        let keep = flag(flags, MREMAP_DONTUNMAP);
        if flags & !known != 0
            || ((fixed || keep) && !may_move)
            || (keep && old_len != new_len)
            || addr & PAGE_MASK != 0
        {
            return Err(Errno::EINVAL);
        }
        let old_len = align_up(old_len, PAGE_SIZE).unwrap_or(0);
        let new_len = align_up(new_len, PAGE_SIZE).filter(|l| *l != 0).ok_or(Errno::EINVAL)?;
        if fixed {
            if new_addr & PAGE_MASK != 0 || new_len > TASK_SIZE || new_addr > TASK_SIZE - new_len {
                return Err(Errno::EINVAL);
            }
            let old_end = addr.checked_add(old_len).ok_or(Errno::EINVAL)?;
            if addr < new_addr + new_len && new_addr < old_end {
                return Err(Errno::EINVAL);
            }
            if new_addr < MMAP_MIN_ADDR {
                return Err(Errno::EPERM);
            }
        }
        let m = self.mms.get(mm).ok_or(Errno::EFAULT)?;
        let (start, vma) = m.find(addr).map(|(s, v)| (s, v.clone())).ok_or(Errno::EFAULT)?;
        if old_len == 0 && vma.flags.contains(VmFlags::SHARED) && !keep {
            return self.second_view(
                mm,
                addr - start,
                &vma,
                (may_move, fixed.then_some(new_addr)),
                new_len,
                limit,
            );
        }
        if old_len == 0 || vma.is_kernel() || (keep && !vma.is_private_anon()) {
            return Err(Errno::EINVAL);
        }
        if new_len < old_len && !fixed {
            let cut = addr.checked_add(new_len).ok_or(Errno::EINVAL)?;
            self.munmap(mm, cut, old_len - new_len)?;
            return Ok(addr);
        }
        // What changes nothing may reach over the end, since Linux 6.17.
        if new_len == old_len && !fixed && !keep {
            return Ok(addr);
        }
        if old_len > vma.end - addr && (fixed || new_len >= old_len) {
            return Err(Errno::EFAULT);
        }
        if m.vmas.len() + 3 > MAX_MAP_COUNT || m.total.saturating_add(new_len.saturating_sub(old_len)) > limit
        {
            return Err(Errno::ENOMEM);
        }
        let old_end = addr + old_len;
        let reserve = vma.prot.contains(Prot::WRITE) && !vma.flags.contains(VmFlags::NORESERVE);
        if reserve && new_len > self.limits.memory {
            return Err(Errno::ENOMEM);
        }
        let grown = addr.checked_add(new_len).filter(|e| *e <= TASK_SIZE);
        if let Some(grown) = grown.filter(|g| !fixed && !keep && vma.end == old_end && m.is_free(old_end, *g))
        {
            let backing = vma.backing_at(old_end - start);
            self.mm_map(
                mm,
                MapRequest {
                    backing,
                    flags: vma.flags,
                    may: vma.may,
                    ..MapRequest::anon(old_end, grown - old_end, vma.prot, true)
                },
            )?;
            return Ok(addr);
        }
        if !may_move {
            return Err(Errno::ENOMEM);
        }
        let target =
            if fixed { new_addr } else { choose(m, new_addr, new_len, false).ok_or(Errno::ENOMEM)? };
        self.move_mapping(mm, (addr, old_len), (target, new_len), keep)
    }

    /// mremap(2) of size 0: maps what a shared mapping maps once more.
    fn second_view(
        &mut self,
        mm: u64,
        delta: u64,
        vma: &Vma,
        (may_move, at): (bool, Option<Va>),
        len: u64,
        limit: u64,
    ) -> Result<Va, Errno> {
        if !may_move {
            return Err(Errno::EINVAL);
        }
        let mut request = MapRequest::anon(at.unwrap_or(0), len, vma.prot, at.is_some());
        request.backing = vma.backing_at(delta);
        (request.flags, request.may, request.limit) = (vma.flags, vma.may, limit);
        self.mm_map(mm, request)
    }

    fn move_mapping(
        &mut self,
        mm: u64,
        (addr, old_len): (Va, u64),
        (target, new_len): (Va, u64),
        keep: bool,
    ) -> Result<Va, Errno> {
        self.space(mm)?.unmap(target, target + new_len)?;
        if new_len < old_len {
            self.munmap(mm, addr + new_len, old_len - new_len)?;
        }
        let moved = old_len.min(new_len);
        let m = self.mms.get_mut(mm).ok_or(Errno::EFAULT)?;
        let (start, vma) = m.find(addr).map(|(s, v)| (s, v.clone())).ok_or(Errno::EFAULT)?;
        if vma.end < addr + moved {
            return Err(Errno::EFAULT);
        }
        let backing = match vma.backing_at(addr - start) {
            // Only the range at brk is the heap.
            Backing::Special(_) => Backing::Anon,
            other => other,
        };
        // The same number of references to a file throughout: insert before remove.
        m.insert(target, Vma { end: target + new_len, backing, userfault: None, ..vma.clone() });
        let mut space = self.space(mm)?;
        space.move_pieces(addr, target, moved, vma.prot)?;
        if !keep {
            space.unmap(addr, addr + moved)?;
        }
        if new_len <= POPULATE_MAX && !vma.flags.contains(VmFlags::NORESERVE) {
            let _ = self.mm_populate(mm, target, target + new_len);
        }
        self.mm_sweep_files(mm);
        Ok(target)
    }
}
