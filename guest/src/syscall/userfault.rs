//! userfaultfd(2) and its ioctls (ioctl_userfaultfd(2)).

use super::{Arg, Context, Entry, ret};
use crate::errno::Errno;
use crate::mm::userfault::{FEATURES, PASS};
use crate::num::{low32, us};
use crate::platform::{PAGE_SIZE, TASK_SIZE};
use crate::signal::frame::le64;
use crate::task::creds::cap::SYS_PTRACE;
use crate::vfs::file::O_NONBLOCK;
use crate::wait::{Block, Outcome, Restart, SysResult};

const CLOEXEC: u32 = 0o2_000_000;
/// UFFD_USER_MODE_ONLY.
const USER_MODE_ONLY: u32 = 1;
/// UFFDIO_REGISTER, UFFDIO_UNREGISTER and UFFDIO_API as bits.
const API_IOCTLS: u64 = 1 | 2 | 1 << 63;
/// UFFDIO_WAKE, UFFDIO_COPY and UFFDIO_ZEROPAGE as bits.
const RANGE_IOCTLS: u64 = 1 << 2 | 1 << 3 | 1 << 4;

/// This family's calls.
pub const TABLE: &[Entry] = &[Entry::partial(
    323,
    "userfaultfd",
    &[Arg::Hex],
    "missing pages of private anonymous memory only; pages of zeroes count as missing when registered; no events of fork, remap or remove; system \
     calls wait for a page where they can begin anew, else EFAULT",
    userfaultfd,
)];

fn userfaultfd(c: &mut Context<'_>, &[flags, ..]: &[u64; 6]) -> SysResult {
    let flags = low32(flags);
    let user_only = flags & USER_MODE_ONLY != 0;
    // /proc/sys/vm/unprivileged_userfaultfd is 0.
    if !user_only && !c.k.capable(c.tid, SYS_PTRACE) {
        return Err(Errno::EPERM);
    }
    if flags & !(CLOEXEC | O_NONBLOCK | USER_MODE_ONLY) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = c.k.userfault_open(c.tid, flags & O_NONBLOCK, user_only);
    ret(u64::from(c.k.install_fd(c.tid, file, flags & CLOEXEC != 0)?))
}

/// A range as the ioctls take it: its end. EINVAL.
fn range(start: u64, len: u64) -> Result<u64, Errno> {
    let aligned = (start | len).is_multiple_of(PAGE_SIZE);
    if !aligned
        || len == 0
        || !(crate::mm::vma::MMAP_MIN_ADDR..TASK_SIZE).contains(&start)
        || len > TASK_SIZE - start
    {
        return Err(Errno::EINVAL);
    }
    Ok(start + len)
}

/// Lets others have the kernel in the middle of a long request, which has done so much; the call goes on at once.
fn pause(c: &Context<'_>, done: u64) -> SysResult {
    let deadline = Some(c.k.platform.monotonic());
    // What is done is found done when the request is made again.
    let restart = Restart::UnlessHandler;
    Ok(Outcome::Block(Block { on: Vec::new(), deadline, relative: false, restart, memo: [done, 0] }))
}

/// ioctl(2) of a userfaultfd.
pub(super) fn ioctl(c: &mut Context<'_>, id: u64, request: u32, arg: u64) -> SysResult {
    let api = request == 0xc018_aa3f;
    let features = c.k.objects.userfaults.all.get(id).ok_or(Errno::EBADF)?.features;
    if !api && features.is_none() {
        return Err(Errno::EINVAL);
    }
    match request {
        0xc018_aa3f => {
            let b = c.k.copy_in_vec(c.tid, arg, 24)?;
            let wanted = le64(&b, 8);
            let fits = le64(&b, 0) == 0xaa && wanted & !FEATURES == 0 && features.is_none();
            let words = if fits { [0xaa, FEATURES, API_IOCTLS] } else { [0; 3] };
            c.put_words(arg, &words)?;
            if !fits {
                // UFFD_FEATURE_EVENT_FORK needs CAP_SYS_PTRACE before anything else.
                let fork = le64(&b, 0) == 0xaa && wanted & 2 != 0 && !c.k.capable(c.tid, SYS_PTRACE);
                return Err(if fork { Errno::EPERM } else { Errno::EINVAL });
            }
            if let Some(u) = c.k.objects.userfaults.all.get_mut(id) {
                u.features = Some(wanted);
            }
            ret(0)
        }
        0xc020_aa00 => {
            let b = c.k.copy_in_vec(c.tid, arg, 24)?;
            let (start, len, mode) = (le64(&b, 0), le64(&b, 8), le64(&b, 16));
            // UFFDIO_REGISTER_MODE_MISSING alone.
            if mode != 1 {
                return match mode {
                    2..8 => Err(c.refuse("mode", &[mode], Errno::EINVAL)),
                    _ => Err(Errno::EINVAL),
                };
            }
            let end = range(start, len)?;
            let done = c.k.moved_before(c.tid);
            if done == 0 {
                c.k.userfault_register(id, start, end)?;
            }
            let from = start.saturating_add(done).min(end);
            let to = from.saturating_add(PASS).min(end);
            c.k.userfault_make_holes(id, from, to)?;
            if to < end {
                return pause(c, to - start);
            }
            c.k.put_u64(c.tid, arg.wrapping_add(24), RANGE_IOCTLS)?;
            ret(0)
        }
        0x8010_aa01 | 0x8010_aa02 => {
            let b = c.k.copy_in_vec(c.tid, arg, 16)?;
            let start = le64(&b, 0);
            let end = range(start, le64(&b, 8))?;
            if request == 0x8010_aa01 {
                c.k.userfault_unregister(id, start, end)?;
            } else {
                c.k.userfault_wake(id, start, end);
            }
            ret(0)
        }
        0xc028_aa03 => {
            let b = c.k.copy_in_vec(c.tid, arg, 32)?;
            let (to, from, len, mode) = (le64(&b, 0), le64(&b, 8), le64(&b, 16), le64(&b, 24));
            let end = from.checked_add(len).filter(|e| *e > from && *e <= TASK_SIZE && from != 0);
            range(to, len)?;
            if end.is_none() || mode & !1 != 0 {
                return Err(Errno::EINVAL);
            }
            fill(c, id, (to, len), Some(from), mode & 1 == 0, arg.wrapping_add(32))
        }
        0xc020_aa04 => {
            let b = c.k.copy_in_vec(c.tid, arg, 24)?;
            let (to, len, mode) = (le64(&b, 0), le64(&b, 8), le64(&b, 16));
            range(to, len)?;
            if mode & !1 != 0 {
                return Err(Errno::EINVAL);
            }
            fill(c, id, (to, len), None, mode & 1 == 0, arg.wrapping_add(24))
        }
        // UFFDIO_MOVE, UFFDIO_WRITEPROTECT, UFFDIO_CONTINUE, UFFDIO_POISON and what is none.
        _ => Err(Errno::EINVAL),
    }
}

/// UFFDIO_COPY and UFFDIO_ZEROPAGE: fills holes from `from`, or with zeroes. What was done goes to `out`, a negative error where nothing was.
fn fill(
    c: &mut Context<'_>,
    id: u64,
    (to, len): (u64, u64),
    from: Option<u64>,
    wake: bool,
    out: u64,
) -> SysResult {
    let end = to + len;
    let before = c.k.moved_before(c.tid).min(len);
    let mut done = before;
    let error = loop {
        if done >= len {
            break None;
        }
        if from.is_some() && done - before >= PASS {
            return pause(c, done);
        }
        let at = to + done;
        let (mm, hole) = match c.k.userfault_hole(id, at, end) {
            Ok(found) => found,
            Err(e) => break Some(e),
        };
        // Data goes a piece at a time; zeroes take no memory before they are touched.
        let upto = if from.is_some() { hole.min(at + (1 << 18)) } else { hole };
        let data = match from {
            Some(from) => {
                let mut data = vec![0; us(upto - at)];
                let read = c.k.copy_in_partial(c.tid, from + done, &mut data).unwrap_or(0);
                data.truncate(read - read % us(PAGE_SIZE));
                Some(data)
            }
            None => None,
        };
        let upto = data.as_ref().map_or(upto, |d| at + crate::num::u64_of(d.len()));
        if upto == at {
            break Some(Errno::EFAULT);
        }
        if let Err(e) = c.k.userfault_fill(mm, at, upto, data.as_deref()) {
            break Some(e);
        }
        done = upto - to;
    };
    let told = if done > 0 { done } else { error.map_or(0, |e| e.to_rax()) };
    c.k.put_u64(c.tid, out, told)?;
    if wake && done > 0 {
        c.k.userfault_wake(id, to, to + done);
    }
    match error {
        None => ret(0),
        Some(e) if done == 0 => Err(e),
        Some(_) => Err(Errno::EAGAIN),
    }
}
