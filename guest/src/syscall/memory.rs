//! System calls: memory.

use super::{Arg, Context, Entry, ret};
use crate::errno::Errno;
use crate::mm::mmap::MAP_ANONYMOUS;
use crate::num::{int, low32, u64_of, us};
use crate::platform::{PAGE_SIZE, TASK_SIZE};
use crate::wait::SysResult;
use linux_raw_sys::general as g;

/// `u32` to `u64` in a constant, where `From` cannot be called.
const fn wide(x: u32) -> u64 {
    let [a, b, c, d] = x.to_le_bytes();
    u64::from_le_bytes([a, b, c, d, 0, 0, 0, 0])
}

macro_rules! names {
    ($($name:ident)*) => { Arg::Flags(&[$((stringify!($name), wide(g::$name))),*]) };
}

const PROT: Arg = names!(PROT_NONE PROT_READ PROT_WRITE PROT_EXEC PROT_SEM PROT_GROWSDOWN PROT_GROWSUP);
const MAP: Arg = names!(MAP_SHARED_VALIDATE MAP_SHARED MAP_PRIVATE MAP_FIXED MAP_ANONYMOUS MAP_32BIT MAP_GROWSDOWN
    MAP_DENYWRITE MAP_EXECUTABLE MAP_LOCKED MAP_NORESERVE MAP_POPULATE MAP_NONBLOCK MAP_STACK MAP_HUGETLB
    MAP_SYNC MAP_FIXED_NOREPLACE);
const MREMAP: Arg = names!(MREMAP_MAYMOVE MREMAP_FIXED MREMAP_DONTUNMAP);
const ADVICE: Arg = names!(MADV_NORMAL MADV_RANDOM MADV_SEQUENTIAL MADV_WILLNEED MADV_DONTNEED MADV_FREE MADV_REMOVE
    MADV_DONTFORK MADV_DOFORK MADV_MERGEABLE MADV_UNMERGEABLE MADV_HUGEPAGE MADV_NOHUGEPAGE MADV_DONTDUMP
    MADV_DODUMP MADV_WIPEONFORK MADV_KEEPONFORK MADV_COLD MADV_PAGEOUT MADV_POPULATE_READ MADV_POPULATE_WRITE);
const MSYNC: Arg = names!(MS_ASYNC MS_INVALIDATE MS_SYNC);
const MCL: Arg = names!(MCL_CURRENT MCL_FUTURE MCL_ONFAULT);

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::partial(
        g::__NR_mmap,
        "mmap",
        &[Arg::Ptr, Arg::Uint, PROT, MAP, Arg::Fd, Arg::Hex],
        "no huge pages; a shared mapping of a file of the read-only root is private",
        mmap,
    ),
    Entry::full(g::__NR_mprotect, "mprotect", &[Arg::Ptr, Arg::Uint, PROT], mprotect),
    Entry::full(g::__NR_munmap, "munmap", &[Arg::Ptr, Arg::Uint], munmap),
    Entry::full(g::__NR_brk, "brk", &[Arg::Ptr], brk),
    Entry::partial(
        g::__NR_mremap,
        "mremap",
        &[Arg::Ptr, Arg::Uint, Arg::Uint, MREMAP, Arg::Ptr],
        "moves no huge pages",
        mremap,
    ),
    Entry::full(g::__NR_msync, "msync", &[Arg::Ptr, Arg::Uint, MSYNC], msync),
    Entry::partial(
        g::__NR_mincore,
        "mincore",
        &[Arg::Ptr, Arg::Uint, Arg::Ptr],
        "tells what the guest kernel has backed, not what the host keeps in memory",
        mincore,
    ),
    Entry::partial(
        g::__NR_madvise,
        "madvise",
        &[Arg::Ptr, Arg::Uint, ADVICE],
        "hints change nothing; MADV_FREE is MADV_DONTNEED",
        madvise,
    ),
    Entry::partial(
        g::__NR_mlock,
        "mlock",
        &[Arg::Ptr, Arg::Uint],
        "counted against the limit; the host may still page",
        mlock,
    ),
    Entry::partial(
        g::__NR_mlock2,
        "mlock2",
        &[Arg::Ptr, Arg::Uint, Arg::Hex],
        "counted against the limit; the host may still page",
        mlock2,
    ),
    Entry::full(g::__NR_munlock, "munlock", &[Arg::Ptr, Arg::Uint], munlock),
    Entry::partial(
        g::__NR_mlockall,
        "mlockall",
        &[MCL],
        "counted against the limit; the host may still page",
        mlockall,
    ),
    Entry::full(g::__NR_munlockall, "munlockall", &[], munlockall),
    Entry::partial(
        g::__NR_membarrier,
        "membarrier",
        &[Arg::Int, Arg::Hex, Arg::Int],
        "no core serialisation; other vCPUs are kicked, not waited for",
        membarrier,
    ),
    Entry::partial(
        g::__NR_pkey_alloc,
        "pkey_alloc",
        &[Arg::Hex, Arg::Hex],
        "no key is ever free, as on processors without them (ENOSPC)",
        pkey_alloc,
    ),
    Entry::partial(g::__NR_pkey_free, "pkey_free", &[Arg::Int], "no key is ever allocated", pkey_free),
    Entry::partial(
        g::__NR_pkey_mprotect,
        "pkey_mprotect",
        &[Arg::Ptr, Arg::Uint, PROT, Arg::Int],
        "key -1 or 0 only",
        pkey_mprotect,
    ),
    Entry::partial(
        g::__NR_set_mempolicy,
        "set_mempolicy",
        &[Arg::Int, Arg::Ptr, Arg::Uint],
        "one node: accepted and without effect",
        set_mempolicy,
    ),
    Entry::partial(
        g::__NR_get_mempolicy,
        "get_mempolicy",
        &[Arg::Ptr, Arg::Ptr, Arg::Uint, Arg::Ptr, Arg::Hex],
        "one node, default policy",
        get_mempolicy,
    ),
    Entry::partial(
        g::__NR_mbind,
        "mbind",
        &[Arg::Ptr, Arg::Uint, Arg::Int, Arg::Ptr, Arg::Uint, Arg::Hex],
        "one node: accepted and without effect",
        mbind,
    ),
];

fn mm(c: &Context<'_>) -> Result<u64, Errno> {
    c.k.task(c.tid).map(|t| t.mm).ok_or(Errno::EFAULT)
}

fn mmap(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [addr, len, prot, flags, fd, offset] = *a;
    if !offset.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let file = if flags & u64::from(MAP_ANONYMOUS) != 0 {
        None
    } else {
        let file = c.k.file_of(c.tid, int(fd))?;
        // A descriptor that only names a file cannot be mapped.
        if c.k.files.get(file).is_some_and(|f| f.flags & g::O_PATH != 0) {
            return Err(Errno::EBADF);
        }
        Some(file)
    };
    ret(c.k.mmap(c.tid, addr, len, prot, flags, file, offset)?)
}

fn mprotect(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let mm = mm(c)?;
    let limit = c.k.soft_limit(c.tid, crate::mm::mmap::RLIMIT_DATA);
    c.k.mprotect_within(mm, a[0], a[1], a[2], limit).map(Into::into)
}

fn munmap(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let mm = mm(c)?;
    c.k.munmap(mm, a[0], a[1]).map(Into::into)
}

fn brk(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    ret(c.k.brk(c.tid, a[0])?)
}

fn mremap(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    ret(c.k.mremap(c.tid, a[0], a[1], a[2], a[3], a[4])?)
}

fn madvise(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let mm = mm(c)?;
    let advice = u64::from(low32(a[2]));
    if matches!(advice, 12..=25 | 100 | 101) && !crate::mm::advise::known(advice) {
        return Err(c.refuse("advice", &[advice], Errno::EINVAL));
    }
    c.k.madvise(mm, a[0], a[1], a[2]).map(Into::into)
}

/// ENOMEM unless every page of the range is mapped.
fn check_mapped(c: &Context<'_>, addr: u64, len: u64) -> Result<(), Errno> {
    let mm = mm(c)?;
    let start = addr & !(PAGE_SIZE - 1);
    // A length that wraps is 0 after rounding, and 0 is no error (mm/msync.c and mm/mlock.c round the same way).
    let len = len.wrapping_add(addr - start).wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
    let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
    let covered = c.k.mms.get(mm).is_some_and(|m| m.covered(start, end));
    if covered { Ok(()) } else { Err(Errno::ENOMEM) }
}

fn msync(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let (sync, asynchronous) = (u64::from(g::MS_SYNC), u64::from(g::MS_ASYNC));
    let known = sync | asynchronous | u64::from(g::MS_INVALIDATE);
    let flags = u64::from(low32(a[2]));
    if flags & !known != 0
        || !a[0].is_multiple_of(PAGE_SIZE)
        || flags & (sync | asynchronous) == sync | asynchronous
    {
        return Err(Errno::EINVAL);
    }
    check_mapped(c, a[0], a[1])?;
    if flags & sync != 0 {
        let mm = mm(c)?;
        c.k.mm_sync(mm, a[0], a[0].saturating_add(a[1]))?;
    }
    ret(0)
}

fn mincore(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [addr, len, vec, ..] = *a;
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    if addr > TASK_SIZE || len > TASK_SIZE - addr {
        return Err(Errno::ENOMEM);
    }
    let mm = mm(c)?;
    let pages = len.div_ceil(PAGE_SIZE);
    super::user_range(vec, pages)?;
    let mut done = 0;
    // The buffer for the answer bounds the loop: a page of it at a time.
    while done < pages {
        let n = (pages - done).min(PAGE_SIZE);
        let start = addr + done * PAGE_SIZE;
        let part = c.k.mm_residency(mm, start, start + n * PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        c.k.copy_out(c.tid, vec.checked_add(done).ok_or(Errno::EFAULT)?, &part)?;
        done += n;
    }
    ret(0)
}

/// The page-aligned range that mlock(2) means. EINVAL when it wraps.
fn lock_range(a: &[u64; 6]) -> Result<(u64, u64), Errno> {
    let start = a[0] & !(PAGE_SIZE - 1);
    let len = a[1].wrapping_add(a[0] - start).wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
    Ok((start, start.checked_add(len).ok_or(Errno::EINVAL)?))
}

fn mlock(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let (start, end) = lock_range(a)?;
    c.k.mm_lock(c.tid, start, end, true).map(Into::into)
}

fn munlock(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let (start, end) = lock_range(a)?;
    c.k.mm_lock(c.tid, start, end, false).map(Into::into)
}

fn mlock2(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    // MLOCK_ONFAULT
    if low32(a[2]) & !1 != 0 {
        return Err(Errno::EINVAL);
    }
    mlock(c, a)
}

fn munlockall(c: &mut Context<'_>, _a: &[u64; 6]) -> SysResult {
    c.k.mm_unlock_all(c.tid);
    ret(0)
}

fn mlockall(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let flags = low32(a[0]);
    if flags == 0 || flags & !7 != 0 || flags == g::MCL_ONFAULT {
        return Err(Errno::EINVAL);
    }
    c.k.mm_lock_all(c.tid, flags & g::MCL_CURRENT != 0, flags & g::MCL_FUTURE != 0).map(Into::into)
}

/// Commands of membarrier(2) that exist here, and those that must be registered first.
const GLOBAL: u64 = 1;
const GLOBAL_EXPEDITED: u64 = 2;
const REGISTER_GLOBAL_EXPEDITED: u64 = 4;
const PRIVATE_EXPEDITED: u64 = 8;
const REGISTER_PRIVATE_EXPEDITED: u64 = 16;

fn membarrier(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    if low32(a[1]) != 0 {
        return Err(Errno::EINVAL);
    }
    let mm = mm(c)?;
    let m = c.k.mms.get_mut(mm).ok_or(Errno::EFAULT)?;
    match u64::from(low32(a[0])) {
        0 => {
            return ret(GLOBAL
                | GLOBAL_EXPEDITED
                | REGISTER_GLOBAL_EXPEDITED
                | PRIVATE_EXPEDITED
                | REGISTER_PRIVATE_EXPEDITED);
        }
        command @ (REGISTER_GLOBAL_EXPEDITED | REGISTER_PRIVATE_EXPEDITED) => {
            m.membarrier |= command;
            return ret(0);
        }
        GLOBAL | GLOBAL_EXPEDITED => {}
        PRIVATE_EXPEDITED if m.membarrier & REGISTER_PRIVATE_EXPEDITED != 0 => {}
        PRIVATE_EXPEDITED => return Err(Errno::EPERM),
        // Barriers for code and for restartable sequences.
        command @ (0x20 | 0x40 | 0x80 | 0x100 | 0x200) => {
            return Err(c.refuse("command", &[command], Errno::EINVAL));
        }
        _ => return Err(Errno::EINVAL),
    }
    // An exit of each other vCPU is a full barrier there.
    let own = c.vcpu.index();
    let others: Vec<usize> =
        c.k.tasks
            .values()
            .filter_map(|t| match t.state {
                crate::task::TaskState::Running(i) if i != own => Some(i),
                _ => None,
            })
            .collect();
    for index in others {
        c.k.platform.kick(index);
    }
    ret(0)
}

fn pkey_alloc(_c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    if a[0] != 0 || a[1] & !3 != 0 {
        return Err(Errno::EINVAL);
    }
    Err(Errno::ENOSPC)
}

fn pkey_free(_c: &mut Context<'_>, _a: &[u64; 6]) -> SysResult {
    Err(Errno::EINVAL)
}

fn pkey_mprotect(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    if !matches!(int(a[3]), -1 | 0) {
        return Err(Errno::EINVAL);
    }
    mprotect(c, a)
}

/// MPOL_DEFAULT to MPOL_WEIGHTED_INTERLEAVE; the upper bits are mode flags.
fn check_policy(mode: u64) -> Result<(), Errno> {
    if low32(mode) & 0x1fff > 6 { Err(Errno::EINVAL) } else { Ok(()) }
}

fn set_mempolicy(_c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    check_policy(a[0])?;
    ret(0)
}

fn mbind(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    check_policy(a[2])?;
    if !a[0].is_multiple_of(PAGE_SIZE) || a[5] & !7 != 0 {
        return Err(Errno::EINVAL);
    }
    check_mapped(c, a[0], a[1]).map_err(|_| Errno::EFAULT)?;
    ret(0)
}

/// Bits that a node mask may have at most.
const MAX_NODES: u64 = 4096 * 8;

fn get_mempolicy(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    const F_NODE: u64 = 1;
    const F_ADDR: u64 = 2;
    const F_MEMS_ALLOWED: u64 = 4;
    let [mode, mask, bits, addr, flags, _] = *a;
    if flags & !(F_NODE | F_ADDR | F_MEMS_ALLOWED) != 0
        || (flags & F_MEMS_ALLOWED != 0 && flags & (F_NODE | F_ADDR) != 0)
        || (flags & F_ADDR == 0 && addr != 0)
        // The node of an address is the only node that can be asked for under the default policy.
        || flags & (F_NODE | F_ADDR) == F_NODE
        || (mask != 0 && bits == 0)
    {
        return Err(Errno::EINVAL);
    }
    if flags & F_ADDR != 0 {
        let mm = mm(c)?;
        if c.k.mms.get(mm).is_none_or(|m| m.find(addr).is_none()) {
            return Err(Errno::EFAULT);
        }
    }
    if mode != 0 {
        // MPOL_DEFAULT, or node 0.
        c.k.put_u32(c.tid, mode, 0)?;
    }
    if mask != 0 {
        if bits > MAX_NODES {
            return Err(Errno::EINVAL);
        }
        let mut nodes = vec![0; us(bits.div_ceil(64) * 8)];
        if flags & F_MEMS_ALLOWED != 0
            && let Some(first) = nodes.first_mut()
        {
            *first = 1;
        }
        debug_assert!(u64_of(nodes.len()) <= MAX_NODES / 8);
        c.k.copy_out(c.tid, mask, &nodes)?;
    }
    ret(0)
}
