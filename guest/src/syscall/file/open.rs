//! Opening files.

use super::CWD;
use crate::errno::Errno;
use crate::num::{int, low32, us};
use crate::platform::PAGE_SIZE;
use crate::syscall::{Context, ret};
use crate::vfs::path::within;
use crate::vfs::tree::Opening;
use crate::wait::{Outcome, SysResult};
use linux_raw_sys::general as g;

/// All flags that open(2) knows; openat2(2) refuses others.
const KNOWN: u64 = 0o37_777_703;

fn open_common(c: &mut Context<'_>, dirfd: u64, path: u64, flags: u32, mode: u64) -> SysResult {
    open_within(c, (dirfd, path), flags, mode, 0)
}

fn open_within(
    c: &mut Context<'_>,
    (dirfd, path): (u64, u64),
    flags: u32,
    mode: u64,
    resolve: u32,
) -> SysResult {
    // A task that waited for the other side of a FIFO goes on with the inode that it waited for, whatever the path means now.
    let waited = c.k.task(c.tid).and_then(|t| t.resume).and_then(|r| r.memo.first().copied());
    let opening = match waited {
        Some(inode) if inode != 0 => Opening::Fifo(inode),
        _ => {
            let path = c.path(path)?;
            c.k.open_for(c.tid, (int(dirfd), &path), flags, low32(mode) & 0o7777, resolve)?
        }
    };
    let file = match opening {
        Opening::File(file) => file,
        Opening::Fifo(inode) => match c.k.fifo_open(c.tid, inode, flags)? {
            Outcome::Return(file) => file,
            other => return Ok(other),
        },
    };
    ret(u64::from(c.k.install_fd(c.tid, file, flags & g::O_CLOEXEC != 0)?))
}

pub(super) fn open(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [path, flags, mode, ..] = *a;
    open_common(c, CWD, path, low32(flags), mode)
}

pub(super) fn openat(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [dirfd, path, flags, mode, ..] = *a;
    open_common(c, dirfd, path, low32(flags), mode)
}

pub(super) fn creat(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [path, mode, ..] = *a;
    open_common(c, CWD, path, g::O_CREAT | g::O_WRONLY | g::O_TRUNC, mode)
}

pub(super) fn openat2(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [dirfd, path, how, size, ..] = *a;
    if size < 24 {
        return Err(Errno::EINVAL);
    }
    if size > PAGE_SIZE {
        return Err(Errno::E2BIG);
    }
    let bytes = c.k.copy_in_vec(c.tid, how, us(size))?;
    if bytes.iter().skip(24).any(|b| *b != 0) {
        return Err(Errno::E2BIG);
    }
    let mut words = bytes.chunks_exact(8).map(|b| b.try_into().map_or(0, u64::from_le_bytes));
    let (Some(flags), Some(mode), Some(resolve)) = (words.next(), words.next(), words.next()) else {
        return Err(Errno::EINVAL);
    };
    let creates =
        flags & u64::from(g::O_CREAT) != 0 || flags & u64::from(g::O_TMPFILE) == u64::from(g::O_TMPFILE);
    if flags & !KNOWN != 0 || resolve & !0x3f != 0 || mode & !0o7777 != 0 || (mode != 0 && !creates) {
        return Err(Errno::EINVAL);
    }
    let resolve = low32(resolve);
    if resolve & (within::BENEATH | within::IN_ROOT) == within::BENEATH | within::IN_ROOT {
        return Err(Errno::EINVAL);
    }
    let changes = creates || flags & u64::from(g::O_TRUNC) != 0;
    if resolve & within::CACHED != 0 && changes {
        return Err(Errno::EAGAIN);
    }
    open_within(c, (dirfd, path), low32(flags), mode, resolve)
}
