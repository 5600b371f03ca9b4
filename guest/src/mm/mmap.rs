//! mmap(2), munmap(2), mprotect(2), brk(2): which addresses and what order of checks, as Linux has them.

use super::fault::POPULATE_MAX;
use super::vma::{Backing, MAX_MAP_COUNT, MMAP_MIN_ADDR, Mm, Prot, Special, VmFlags, Vma};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{align_up, low8};
use crate::platform::{PAGE_SIZE, TASK_SIZE, Va};
use crate::vfs::MapSource;
use std::collections::BTreeSet;

pub use linux_raw_sys::general::{
    MAP_32BIT, MAP_ANONYMOUS, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_GROWSDOWN, MAP_HUGETLB, MAP_LOCKED,
    MAP_NORESERVE, MAP_POPULATE, MAP_PRIVATE, MAP_SHARED, MAP_SHARED_VALIDATE, MREMAP_DONTUNMAP,
    MREMAP_FIXED, MREMAP_MAYMOVE, PROT_GROWSDOWN, PROT_GROWSUP,
};

/// What stays free below a mapping that grows down, bytes (stack_guard_gap: 256 pages).
pub const STACK_GAP: u64 = 1 << 20;
/// RLIMIT_DATA's number.
pub const RLIMIT_DATA: u32 = 2;
/// RLIMIT_STACK's number.
pub const RLIMIT_STACK: u32 = 3;
/// RLIMIT_AS's number.
pub const RLIMIT_AS: u32 = 9;

/// Flags that MAP_SHARED_VALIDATE knows (LEGACY_MAP_MASK).
const KNOWN_FLAGS: u64 = 0x7c7f_ff7f;
const MAP_TYPE: u64 = 0xf;
pub(super) const PAGE_MASK: u64 = PAGE_SIZE - 1;

/// A checked request for a mapping in an address space.
#[derive(Clone, Debug)]
pub struct MapRequest {
    /// Wished or fixed address.
    pub addr: Va,
    /// Bytes, a multiple of the page size, not 0.
    pub len: u64,
    /// Protection.
    pub prot: Prot,
    /// What mprotect may allow.
    pub may: Prot,
    /// Properties.
    pub flags: VmFlags,
    /// What is mapped. The address space takes its own reference to a file.
    pub backing: Backing,
    /// Exactly at `addr`, replacing what is there.
    pub fixed: bool,
    /// With `fixed`: EEXIST instead of replacing.
    pub noreplace: bool,
    /// Below 2 GiB.
    pub low: bool,
    /// Back it whole now.
    pub populate: bool,
    /// RLIMIT_AS in bytes.
    pub limit: u64,
    /// RLIMIT_DATA in bytes.
    pub data_limit: u64,
}

impl MapRequest {
    /// Private anonymous memory.
    pub fn anon(addr: Va, len: u64, prot: Prot, fixed: bool) -> Self {
        MapRequest {
            addr,
            len,
            prot,
            may: Prot::all(),
            flags: VmFlags::empty(),
            backing: Backing::Anon,
            fixed,
            noreplace: false,
            low: false,
            populate: false,
            limit: u64::MAX,
            data_limit: u64::MAX,
        }
    }
}

fn prot_of(prot: u64) -> Prot {
    Prot::from_bits_truncate(low8(prot))
}

pub(super) fn flag(flags: u64, bit: u32) -> bool {
    flags & u64::from(bit) != 0
}

impl Kernel {
    /// The soft limit of a task's process; no limit when none is recorded.
    pub(crate) fn soft_limit(&self, tid: u32, resource: u32) -> u64 {
        self.process_of(tid).and_then(|p| p.rlimits.get(&resource)).map_or(u64::MAX, |l| l.0)
    }

    /// mmap(2). `file` is the open file behind the descriptor, unless MAP_ANONYMOUS is set.
    #[allow(clippy::too_many_arguments)] // the call has that many
    pub fn mmap(
        &mut self,
        tid: u32,
        addr: Va,
        len: u64,
        prot: u64,
        flags: u64,
        file: Option<u64>,
        offset: u64,
    ) -> Result<Va, Errno> {
        let mm = self.task(tid).ok_or(Errno::EFAULT)?.mm;
        if flag(flags, MAP_HUGETLB) && file.is_none() {
            return Err(Errno::ENOMEM);
        }
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let noreplace = flag(flags, MAP_FIXED_NOREPLACE);
        let fixed = flag(flags, MAP_FIXED) || noreplace;
        let len = align_up(len, PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        if file.is_some() && offset.checked_add(len).is_none_or(|end| end > i64::MAX.cast_unsigned()) {
            return Err(Errno::EOVERFLOW);
        }
        let m = self.mms.get(mm).ok_or(Errno::EFAULT)?;
        if m.vmas.len() > MAX_MAP_COUNT || len > TASK_SIZE {
            return Err(Errno::ENOMEM);
        }
        if fixed {
            check_fixed(m, addr, len, noreplace)?;
        }
        let kind = flags & MAP_TYPE;
        let shared = kind == u64::from(MAP_SHARED) || kind == u64::from(MAP_SHARED_VALIDATE);
        if !shared && kind != u64::from(MAP_PRIVATE) {
            return Err(Errno::EINVAL);
        }
        let mut request = MapRequest::anon(addr, len, prot_of(prot), fixed);
        request.noreplace = noreplace;
        request.low = flag(flags, MAP_32BIT);
        request.populate = flag(flags, MAP_POPULATE) || flag(flags, MAP_LOCKED);
        request.limit = self.soft_limit(tid, RLIMIT_AS);
        request.data_limit = self.soft_limit(tid, RLIMIT_DATA);
        request.flags.set(VmFlags::SHARED, shared);
        request.flags.set(VmFlags::GROWSDOWN, flag(flags, MAP_GROWSDOWN));
        request.flags.set(VmFlags::NORESERVE, flag(flags, MAP_NORESERVE));
        let future = self.mms.get(mm).is_some_and(|m| m.lock_future);
        if flag(flags, MAP_LOCKED) || future {
            request.flags.insert(VmFlags::LOCKED);
            if flag(flags, MAP_LOCKED) && !self.may_lock(tid) {
                return Err(Errno::EPERM);
            }
            if !self.lock_fits(tid, mm, len) {
                return Err(Errno::EAGAIN);
            }
        }
        match file {
            Some(file) => self.check_file(mm, &mut request, file, offset, flags)?,
            None if shared && flag(flags, MAP_GROWSDOWN) => return Err(Errno::EINVAL),
            None => {}
        }
        if shared && request.backing == Backing::Anon {
            return self.map_shared_anon(tid, mm, request);
        }
        self.mm_map(mm, request)
    }

    /// Shared memory without a file has one without a name: who forks later shares pages that nobody has touched yet.
    fn map_shared_anon(&mut self, tid: u32, mm: u64, mut request: MapRequest) -> Result<Va, Errno> {
        let file = self.shmem_open(tid, b"dev/zero", request.len).map_err(|_| Errno::ENOMEM)?;
        request.backing = Backing::File { file, offset: 0 };
        let mapped = self.mm_map(mm, request);
        self.file_unref(file);
        mapped
    }

    fn check_file(
        &mut self,
        mm: u64,
        request: &mut MapRequest,
        file: u64,
        offset: u64,
        flags: u64,
    ) -> Result<(), Errno> {
        let shared = request.flags.contains(VmFlags::SHARED);
        if flags & MAP_TYPE == u64::from(MAP_SHARED_VALIDATE) && flags & !KNOWN_FLAGS != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let mode = self.files.get(file).ok_or(Errno::EBADF)?.flags & 3;
        let (readable, writable) = (mode != 1, mode != 0);
        if (shared && request.prot.contains(Prot::WRITE) && !writable) || !readable {
            return Err(Errno::EACCES);
        }
        if shared && !writable {
            request.may.remove(Prot::WRITE);
        }
        if let Some(e) = self.socket_unmappable(file, request.prot.intersects(Prot::WRITE | Prot::EXEC)) {
            // Linux asks the socket last: what was mapped there is gone by then.
            if request.fixed {
                self.munmap(mm, request.addr, request.len)?;
            }
            return Err(e);
        }
        let source = self.file_map_source(file)?;
        if request.flags.contains(VmFlags::GROWSDOWN) {
            return Err(Errno::EINVAL);
        }
        if shared && self.file_is_write_sealed(file) {
            if request.prot.contains(Prot::WRITE) {
                return Err(Errno::EPERM);
            }
            request.may.remove(Prot::WRITE);
        }
        request.backing =
            if matches!(source, MapSource::Zero) { Backing::Anon } else { Backing::File { file, offset } };
        Ok(())
    }

    /// Makes a mapping; returns its address. ENOMEM, EEXIST, EPERM, EINVAL.
    pub fn mm_map(&mut self, mm: u64, request: MapRequest) -> Result<Va, Errno> {
        let memory = self.limits.memory;
        let m = self.mms.get(mm).ok_or(Errno::EFAULT)?;
        let len = request.len;
        let start = if request.fixed {
            check_fixed(m, request.addr, len, request.noreplace)?;
            request.addr
        } else {
            choose(m, request.addr, len, request.low).ok_or(Errno::ENOMEM)?
        };
        let end = start + len;
        let replaced: u64 = m.vmas_in(start, end).iter().map(|(s, e, _)| e - s).sum();
        if (m.total - replaced).saturating_add(len) > request.limit {
            return Err(Errno::ENOMEM);
        }
        let private_writable = request.prot.contains(Prot::WRITE) && !request.flags.contains(VmFlags::SHARED);
        if private_writable
            && !request.flags.contains(VmFlags::GROWSDOWN)
            && !m.data_fits(len, request.data_limit)
        {
            return Err(Errno::ENOMEM);
        }
        let noreserve = request.flags.contains(VmFlags::NORESERVE);
        if private_writable && !noreserve && len > memory {
            return Err(Errno::ENOMEM);
        }
        if replaced > 0 {
            self.space(mm)?.unmap(start, end)?;
        }
        let file = match request.backing {
            Backing::File { file, .. } => Some(file),
            _ => None,
        };
        if let Some(file) = file {
            let held = self.mms.get(mm).is_some_and(|m| m.files.contains_key(&file));
            if !held {
                self.file_ref(file);
            }
        }
        let vma = Vma {
            end,
            prot: request.prot,
            may: request.may,
            flags: request.flags,
            backing: request.backing,
            userfault: None,
        };
        let kernel = vma.is_kernel();
        if let Some(m) = self.mms.get_mut(mm) {
            m.insert(start, vma);
        }
        // A stack is long and little of it is used.
        let eager = len <= POPULATE_MAX && !noreserve && !request.flags.contains(VmFlags::GROWSDOWN);
        if !kernel && (request.populate || eager) {
            // What cannot be backed now is tried again at the first touch.
            let _ = self.mm_populate(mm, start, end);
        }
        self.mm_sweep_files(mm);
        Ok(start)
    }

    /// msync(2) with MS_SYNC: what shared mappings of a range have written to files of the host.
    pub fn mm_sync(&mut self, mm: u64, start: Va, end: Va) -> Result<(), Errno> {
        let m = self.mms.get(mm).ok_or(Errno::EFAULT)?;
        let file = |key: &Va| match m.vmas.get(key) {
            Some(Vma { flags, backing: Backing::File { file, .. }, .. })
                if flags.contains(VmFlags::SHARED) =>
            {
                Some(*file)
            }
            _ => None,
        };
        let files: BTreeSet<u64> = m.vmas_in(start, end).iter().filter_map(|(_, _, key)| file(key)).collect();
        for file in files {
            if let Some(inode) = self.files.get(file).and_then(|f| f.kind.inode()) {
                self.live_sync(inode)?;
            }
        }
        Ok(())
    }

    /// munmap(2).
    pub fn munmap(&mut self, mm: u64, addr: Va, len: u64) -> Result<(), Errno> {
        if addr & PAGE_MASK != 0 || addr > TASK_SIZE || len > TASK_SIZE - addr {
            return Err(Errno::EINVAL);
        }
        let end = addr + align_up(len, PAGE_SIZE).filter(|l| *l != 0).ok_or(Errno::EINVAL)?;
        let m = self.mms.get(mm).ok_or(Errno::EFAULT)?;
        if m.vmas.len() >= MAX_MAP_COUNT && m.find(addr).is_some_and(|(s, v)| s < addr && v.end > end) {
            return Err(Errno::ENOMEM);
        }
        self.space(mm)?.unmap(addr, end)?;
        self.mm_sweep_files(mm);
        Ok(())
    }

    /// mprotect(2): mappings before the first hole or refusal are changed.
    pub fn mprotect(&mut self, mm: u64, addr: Va, len: u64, prot: u64) -> Result<(), Errno> {
        self.mprotect_within(mm, addr, len, prot, u64::MAX)
    }

    /// mprotect(2) under an RLIMIT_DATA of `limit` bytes.
    pub(crate) fn mprotect_within(
        &mut self,
        mm: u64,
        addr: Va,
        len: u64,
        prot: u64,
        limit: u64,
    ) -> Result<(), Errno> {
        let grow = prot & u64::from(PROT_GROWSDOWN | PROT_GROWSUP);
        let bits = prot & !u64::from(PROT_GROWSDOWN | PROT_GROWSUP);
        if grow == u64::from(PROT_GROWSDOWN | PROT_GROWSUP) || addr & PAGE_MASK != 0 {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(());
        }
        let len = align_up(len, PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        let end = addr.checked_add(len).ok_or(Errno::ENOMEM)?;
        // PROT_SEM is accepted and means nothing.
        if bits & !0xf != 0 {
            return Err(Errno::EINVAL);
        }
        let want = prot_of(bits);
        let mut start = addr;
        let m = self.mms.get(mm).ok_or(Errno::EFAULT)?;
        if grow != 0 {
            let (s, v) = m
                .find(addr)
                .or_else(|| m.vmas.range(addr..end).next().map(|(s, v)| (*s, v)))
                .ok_or(Errno::ENOMEM)?;
            if grow == u64::from(PROT_GROWSUP) || !v.flags.contains(VmFlags::GROWSDOWN) {
                return Err(Errno::EINVAL);
            }
            start = s;
        }
        let mut at = start;
        let result = loop {
            if at >= end {
                break Ok(());
            }
            let m = self.mms.get_mut(mm).ok_or(Errno::EFAULT)?;
            let Some((s, v)) = m.find(at) else { break Err(Errno::ENOMEM) };
            if !v.may.contains(want) {
                break Err(Errno::EACCES);
            }
            let cut = v.end.min(end);
            if v.prot != want {
                let data = want.contains(Prot::WRITE) && !v.prot.contains(Prot::WRITE);
                if data && !v.flags.contains(VmFlags::SHARED) && !m.data_fits(cut - at, limit) {
                    break Err(Errno::ENOMEM);
                }
                if m.vmas.len() + 2 > MAX_MAP_COUNT && (s < at || cut < v.end) {
                    break Err(Errno::ENOMEM);
                }
                m.split(at);
                m.split(cut);
                if let Err(e) = self.space(mm)?.protect(at, want) {
                    break Err(e);
                }
                let reserve = |v: &Vma| !v.flags.contains(VmFlags::NORESERVE);
                let fill = self.mms.get(mm).and_then(|m| m.vmas.get(&at)).is_some_and(reserve);
                if fill && !want.is_empty() && cut - at <= POPULATE_MAX {
                    let _ = self.mm_populate(mm, at, cut);
                }
            }
            at = cut;
        };
        if let Some(m) = self.mms.get_mut(mm) {
            m.merge(start, end);
        }
        result
    }

    /// brk(2): returns the break, moved or not.
    pub fn brk(&mut self, tid: u32, want: Va) -> Result<Va, Errno> {
        let mm = self.task(tid).ok_or(Errno::EFAULT)?.mm;
        let limit = self.soft_limit(tid, RLIMIT_DATA);
        let m = self.mms.get_mut(mm).ok_or(Errno::EFAULT)?;
        let (first, old) = (m.brk_start, m.brk);
        if want < first || want >= TASK_SIZE || want - first > limit {
            return Ok(old);
        }
        let (Some(old_end), Some(new_end)) = (align_up(old, PAGE_SIZE), align_up(want, PAGE_SIZE)) else {
            return Ok(old);
        };
        if new_end > old_end {
            // A page stays free above the heap, as Linux keeps it.
            if !m.is_free(old_end, new_end + PAGE_SIZE) {
                return Ok(old);
            }
            let mut request = MapRequest::anon(old_end, new_end - old_end, Prot::READ | Prot::WRITE, true);
            request.backing = Backing::Special(Special::Heap);
            request.data_limit = limit;
            request.limit = self.soft_limit(tid, RLIMIT_AS);
            if self.mm_map(mm, request).is_err() {
                return Ok(old);
            }
        } else if new_end < old_end && self.munmap(mm, new_end, old_end - new_end).is_err() {
            return Ok(old);
        }
        if let Some(m) = self.mms.get_mut(mm) {
            m.brk = want;
        }
        Ok(want)
    }
}

fn check_fixed(m: &Mm, addr: Va, len: u64, noreplace: bool) -> Result<(), Errno> {
    if len > TASK_SIZE || addr > TASK_SIZE - len {
        return Err(Errno::ENOMEM);
    }
    if addr & PAGE_MASK != 0 {
        return Err(Errno::EINVAL);
    }
    if addr < MMAP_MIN_ADDR {
        return Err(Errno::EPERM);
    }
    if noreplace && !m.is_free(addr, addr + len) {
        return Err(Errno::EEXIST);
    }
    Ok(())
}

/// An address for a mapping that is not fixed: the hint when it is free, else top down.
pub(super) fn choose(m: &Mm, hint: Va, len: u64, low: bool) -> Option<Va> {
    if low {
        return m.find_gap(len, 0x4000_0000, 0x8000_0000);
    }
    if hint != 0 {
        let at = align_up(hint.max(MMAP_MIN_ADDR), PAGE_SIZE).unwrap_or(TASK_SIZE);
        if let Some(end) = at.checked_add(len)
            && end <= TASK_SIZE
            && m.is_free(at, end)
            && !m.grows_onto(end)
        {
            return Some(at);
        }
    }
    let below = |mut high: Va| -> Option<Va> {
        loop {
            let at = m.find_gap(len, MMAP_MIN_ADDR, high)?;
            let above = m.vmas.range(at + len..).next().map(|(start, _)| *start);
            match above.filter(|_| m.grows_onto(at + len)) {
                // Each turn begins below another mapping.
                Some(start) => high = start.checked_sub(STACK_GAP)?,
                None => return Some(at),
            }
        }
    };
    below(m.mmap_base).or_else(|| below(TASK_SIZE))
}
