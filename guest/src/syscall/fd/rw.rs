//! Reading, writing and seeking.

use super::{file, nth, open};
use crate::errno::Errno;
use crate::num::low32;
use crate::syscall::{Context, ret, user_range};
use crate::vfs::FileKind;
use crate::vfs::file::{MAX_RW_COUNT, O_APPEND, O_PATH};
use crate::wait::SysResult;

/// One buffer as an iovec: read(2) and write(2) move at most MAX_RW_COUNT. EBADF, EFAULT: in this order, and before anything is
/// looked at, as Linux does it.
pub(super) fn single(
    c: &Context<'_>,
    file: u64,
    write: bool,
    va: u64,
    len: u64,
) -> Result<[(u64, u64); 1], Errno> {
    check_mode(c, file, write)?;
    user_range(va, len)?;
    Ok([(va, len.min(MAX_RW_COUNT))])
}

/// Whether a file was opened for this, and can do it. EBADF, EINVAL.
pub(super) fn check_mode(c: &Context<'_>, file: u64, write: bool) -> Result<(), Errno> {
    let f = c.k.files.get(file).ok_or(Errno::EBADF)?;
    let barred = if write { 0 } else { 1 };
    if f.flags & 3 == barred || f.flags & O_PATH != 0 {
        return Err(Errno::EBADF);
    }
    match f.kind {
        // Neither is there for these, whatever the address is.
        FileKind::Epoll(_) | FileKind::PidFd(_) => Err(Errno::EINVAL),
        FileKind::TimerFd(_) | FileKind::SignalFd(_) | FileKind::Inotify(_) | FileKind::Mqueue(_)
            if write =>
        {
            Err(Errno::EINVAL)
        }
        _ => Ok(()),
    }
}

/// A position of pread(2) and friends. EINVAL, ESPIPE.
pub(super) fn position(c: &Context<'_>, file: u64, pos: u64) -> Result<Option<u64>, Errno> {
    if c.k.file_is_stream(file) {
        return Err(Errno::ESPIPE);
    }
    Ok(Some(pos))
}

pub(super) fn read(c: &mut Context<'_>, &[fd, va, len, ..]: &[u64; 6]) -> SysResult {
    let file = file(c, fd)?;
    let to = single(c, file, false, va, len)?;
    c.k.file_read(c.tid, file, &to, None)
}

pub(super) fn write(c: &mut Context<'_>, &[fd, va, len, ..]: &[u64; 6]) -> SysResult {
    let file = file(c, fd)?;
    let from = single(c, file, true, va, len)?;
    c.k.file_write(c.tid, file, &from, None)
}

pub(super) fn pread(c: &mut Context<'_>, &[fd, va, len, pos, ..]: &[u64; 6]) -> SysResult {
    if pos.cast_signed() < 0 {
        return Err(Errno::EINVAL);
    }
    let file = file(c, fd)?;
    let at = position(c, file, pos)?;
    let to = single(c, file, false, va, len)?;
    c.k.file_read(c.tid, file, &to, at)
}

pub(super) fn pwrite(c: &mut Context<'_>, &[fd, va, len, pos, ..]: &[u64; 6]) -> SysResult {
    if pos.cast_signed() < 0 {
        return Err(Errno::EINVAL);
    }
    let file = file(c, fd)?;
    let at = position(c, file, pos)?;
    let from = single(c, file, true, va, len)?;
    c.k.file_write(c.tid, file, &from, at)
}

const RWF_NOWAIT: u32 = 8;
const RWF_APPEND: u32 = 16;
const RWF_NOAPPEND: u32 = 32;
/// Besides those, what asks for speed or durability and so for nothing here: RWF_HIPRI, RWF_DSYNC, RWF_SYNC, RWF_DONTCACHE.
const RWF_KNOWN: u32 = 7 | RWF_NOWAIT | RWF_APPEND | RWF_NOAPPEND | 128;

pub(super) fn vectored(
    c: &mut Context<'_>,
    args: &[u64; 6],
    pos: Option<u64>,
    write: bool,
    flags: u64,
) -> SysResult {
    let &[fd, va, count, ..] = args;
    if pos.is_some_and(|p| p.cast_signed() < 0) {
        return Err(Errno::EINVAL);
    }
    let file = file(c, fd)?;
    let at = match pos {
        Some(p) => position(c, file, p)?,
        None => None,
    };
    check_mode(c, file, write)?;
    // Linux takes the count as 32 bits.
    let iovecs = c.k.read_iovecs(c.tid, va, u64::from(low32(count)))?;
    let flags = low32(flags);
    // Nothing is done with no bytes; a read(2) or write(2) of none may still be an error.
    if iovecs.iter().all(|(_, len)| *len == 0) {
        return ret(0);
    }
    check_flags(c, file, flags)?;
    transfer(c, file, &iovecs, at, write, flags)
}

/// Whether a file may be read or written with RWF_ flags. EOPNOTSUPP, EINVAL.
pub(in crate::syscall) fn check_flags(c: &Context<'_>, file: u64, flags: u32) -> Result<(), Errno> {
    if flags & !RWF_KNOWN != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags & (RWF_APPEND | RWF_NOAPPEND) == RWF_APPEND | RWF_NOAPPEND {
        return Err(Errno::EINVAL);
    }
    let kind = c.k.open_file(file)?.kind;
    let may = matches!(kind, FileKind::Inode(_) | FileKind::Pipe { .. } | FileKind::Socket(_));
    if flags & RWF_NOWAIT != 0 && !may { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
}

/// Reads or writes with RWF_ flags that were checked.
pub(in crate::syscall) fn transfer(
    c: &mut Context<'_>,
    file: u64,
    iovecs: &[(u64, u64)],
    at: Option<u64>,
    write: bool,
    flags: u32,
) -> SysResult {
    let f = c.k.open_file(file)?;
    if flags & RWF_NOWAIT != 0 {
        let events = if write { crate::poll::POLLOUT } else { crate::poll::POLLIN };
        if c.k.file_poll(file) & (events | crate::poll::POLLHUP | crate::poll::POLLERR) == 0 {
            return Err(Errno::EAGAIN);
        }
    }
    if !write {
        return c.k.file_read(c.tid, file, iovecs, at);
    }
    if flags & (RWF_APPEND | RWF_NOAPPEND) == 0 {
        return c.k.file_write(c.tid, file, iovecs, at);
    }
    // O_APPEND for this call alone. Such a call is not tried again: only writes to streams sleep, and for them it means nothing.
    let append = match flags & (RWF_APPEND | RWF_NOAPPEND) {
        RWF_APPEND => f.flags | O_APPEND,
        _ => f.flags & !O_APPEND,
    };
    let put = |c: &mut Context<'_>, flags: u32| {
        if let Some(f) = c.k.files.get_mut(file) {
            f.flags = flags;
        }
    };
    put(c, append);
    let result = c.k.file_write(c.tid, file, iovecs, at);
    put(c, f.flags);
    result
}

pub(super) fn readv(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    vectored(c, a, None, false, 0)
}

pub(super) fn writev(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    vectored(c, a, None, true, 0)
}

pub(super) fn preadv(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    vectored(c, a, Some(nth(a, 3)), false, 0)
}

pub(super) fn pwritev(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    vectored(c, a, Some(nth(a, 3)), true, 0)
}

pub(super) fn preadv2(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    vectored(c, a, Some(nth(a, 3)).filter(|p| *p != u64::MAX), false, nth(a, 5))
}

pub(super) fn pwritev2(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    vectored(c, a, Some(nth(a, 3)).filter(|p| *p != u64::MAX), true, nth(a, 5))
}

pub(super) fn lseek(c: &mut Context<'_>, &[fd, offset, whence, ..]: &[u64; 6]) -> SysResult {
    let id = open(c, fd)?;
    let whence = low32(whence);
    if whence > 4 {
        return Err(Errno::EINVAL);
    }
    let f = c.k.open_file(id)?;
    // These accept it and have no position.
    if matches!(
        f.kind,
        FileKind::EventFd(_)
            | FileKind::Epoll(_)
            | FileKind::TimerFd(_)
            | FileKind::SignalFd(_)
            | FileKind::Inotify(_)
            | FileKind::Fanotify(_)
            | FileKind::Userfault(_)
    ) {
        return ret(0);
    }
    if c.k.file_is_stream(id) {
        return Err(Errno::ESPIPE);
    }
    let FileKind::Inode(inode) = f.kind else {
        return ret(0);
    };
    let offset = offset.cast_signed();
    // The directories of a file system in memory have no end to count from.
    if whence == 2 && c.k.vfs.inode(inode)?.is_dir() && c.k.is_tmpfs(inode) {
        return Err(Errno::EINVAL);
    }
    let base = match whence {
        0 => 0,
        1 => f.pos.cast_signed(),
        _ => c.k.inode_stat(inode)?.size.cast_signed(),
    };
    let new = match whence {
        3 | 4 if c.k.vfs.inode(inode)?.is_dir() => return Err(Errno::EINVAL),
        3 | 4 => {
            let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
            c.k.inode_seek(inode, from, whence == 4)?.cast_signed()
        }
        _ => base.checked_add(offset).ok_or(Errno::EINVAL)?,
    };
    let new = u64::try_from(new).map_err(|_| Errno::EINVAL)?;
    if let Some(f) = c.k.files.get_mut(id) {
        f.pos = new;
    }
    ret(new)
}
