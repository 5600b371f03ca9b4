//! System calls on descriptors: read and write in all forms, seek, duplicate, close, fcntl, ioctl, pipes, eventfds.

use super::{Arg, Context, Entry, Support, ret, user_range};
use crate::errno::Errno;
use crate::num::{int, low32, u64_of};
use crate::vfs::file::{MAX_RW_COUNT, O_APPEND, O_NONBLOCK, O_PATH};
use crate::vfs::{Device, FileKind, InodeId};
use crate::wait::SysResult;

const O_CLOEXEC: u64 = 0o2_000_000;

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::full(0, "read", &[Arg::Fd, Arg::Out, Arg::Uint], read),
    Entry::full(1, "write", &[Arg::Fd, Arg::In(2), Arg::Uint], write),
    Entry::full(3, "close", &[Arg::Fd], close),
    Entry::full(5, "fstat", &[Arg::Fd, Arg::Ptr], fstat),
    Entry::partial(
        8,
        "lseek",
        &[Arg::Fd, Arg::Int, Arg::Int],
        "SEEK_DATA and SEEK_HOLE see one hole, at the end",
        lseek,
    ),
    Entry::partial(
        16,
        "ioctl",
        &[Arg::Fd, Arg::Hex, Arg::Hex],
        "terminal size and modes are read only",
        ioctl,
    ),
    Entry::full(17, "pread64", &[Arg::Fd, Arg::Out, Arg::Uint, Arg::Uint], pread),
    Entry::full(18, "pwrite64", &[Arg::Fd, Arg::In(2), Arg::Uint, Arg::Uint], pwrite),
    Entry::full(19, "readv", &[Arg::Fd, Arg::Ptr, Arg::Uint], readv),
    Entry::full(20, "writev", &[Arg::Fd, Arg::Ptr, Arg::Uint], writev),
    Entry::full(22, "pipe", &[Arg::Ptr], pipe),
    Entry::full(32, "dup", &[Arg::Fd], dup),
    Entry::full(33, "dup2", &[Arg::Fd, Arg::Fd], dup2),
    Entry::partial(
        72,
        "fcntl",
        &[Arg::Fd, Arg::Int, Arg::Hex],
        "deadlocks of locks are not found; leases and F_SETOWN signals fail or do nothing",
        fcntl,
    ),
    Entry::full(73, "flock", &[Arg::Fd, Arg::Hex], super::lock::flock),
    Entry::full(74, "fsync", &[Arg::Fd], fsync),
    Entry::full(75, "fdatasync", &[Arg::Fd], fsync),
    Entry::full(77, "ftruncate", &[Arg::Fd, Arg::Uint], ftruncate),
    Entry::full(187, "readahead", &[Arg::Fd, Arg::Uint, Arg::Uint], readahead),
    Entry::full(221, "fadvise64", &[Arg::Fd, Arg::Uint, Arg::Uint, Arg::Int], fadvise),
    Entry::full(277, "sync_file_range", &[Arg::Fd, Arg::Uint, Arg::Uint, Arg::Hex], sync_file_range),
    Entry::full(284, "eventfd", &[Arg::Uint], eventfd),
    Entry::partial(
        285,
        "fallocate",
        &[Arg::Fd, Arg::Hex, Arg::Uint, Arg::Uint],
        "modes 0 and KEEP_SIZE",
        fallocate,
    ),
    Entry::full(290, "eventfd2", &[Arg::Uint, Arg::Hex], eventfd2),
    Entry::full(292, "dup3", &[Arg::Fd, Arg::Fd, Arg::Hex], dup3),
    Entry::partial(293, "pipe2", &[Arg::Ptr, Arg::Hex], "no packet mode (O_DIRECT)", pipe2),
    Entry::full(295, "preadv", &[Arg::Fd, Arg::Ptr, Arg::Uint, Arg::Uint], preadv),
    Entry::full(296, "pwritev", &[Arg::Fd, Arg::Ptr, Arg::Uint, Arg::Uint], pwritev),
    Entry::partial(
        327,
        "preadv2",
        &[Arg::Fd, Arg::Ptr, Arg::Uint, Arg::Uint, Arg::Uint, Arg::Hex],
        "no flags",
        preadv2,
    ),
    Entry::partial(
        328,
        "pwritev2",
        &[Arg::Fd, Arg::Ptr, Arg::Uint, Arg::Uint, Arg::Uint, Arg::Hex],
        "no flags",
        pwritev2,
    ),
    Entry::full(436, "close_range", &[Arg::Uint, Arg::Uint, Arg::Hex], close_range),
    refused(275, "splice"),
    refused(276, "tee"),
    refused(278, "vmsplice"),
];

const fn refused(number: u32, name: &'static str) -> Entry {
    let support = Support::Refused(Errno::EINVAL, "callers fall back to read and write");
    Entry { number, name, args: &[], support, handler: |_, _| Err(Errno::EINVAL) }
}

fn nth(args: &[u64; 6], n: usize) -> u64 {
    args.get(n).copied().unwrap_or(0)
}

fn file(c: &Context<'_>, fd: u64) -> Result<u64, Errno> {
    c.k.file_of(c.tid, int(fd))
}

/// A file that is not opened O_PATH. EBADF.
fn open(c: &Context<'_>, fd: u64) -> Result<u64, Errno> {
    let id = file(c, fd)?;
    if c.k.open_file(id)?.flags & O_PATH != 0 { Err(Errno::EBADF) } else { Ok(id) }
}

/// The inode of a file. EINVAL for other kinds.
fn inode(c: &Context<'_>, fd: u64) -> Result<InodeId, Errno> {
    match c.k.open_file(open(c, fd)?)?.kind {
        FileKind::Inode(inode) => Ok(inode),
        _ => Err(Errno::EINVAL),
    }
}

/// One buffer as an iovec: read(2) and write(2) move at most MAX_RW_COUNT. EBADF, EFAULT: in this order, and before anything is
/// looked at, as Linux does it.
fn single(c: &Context<'_>, file: u64, write: bool, va: u64, len: u64) -> Result<[(u64, u64); 1], Errno> {
    check_mode(c, file, write)?;
    user_range(va, len)?;
    Ok([(va, len.min(MAX_RW_COUNT))])
}

/// Whether a file was opened for this. EBADF.
fn check_mode(c: &Context<'_>, file: u64, write: bool) -> Result<(), Errno> {
    let flags = c.k.open_file(file)?.flags;
    let barred = if write { 0 } else { 1 };
    if flags & 3 == barred || flags & O_PATH != 0 { Err(Errno::EBADF) } else { Ok(()) }
}

/// A position of pread(2) and friends. EINVAL, ESPIPE.
fn position(c: &Context<'_>, file: u64, pos: u64) -> Result<Option<u64>, Errno> {
    if c.k.file_is_stream(file) {
        return Err(Errno::ESPIPE);
    }
    Ok(Some(pos))
}

fn read(c: &mut Context<'_>, &[fd, va, len, ..]: &[u64; 6]) -> SysResult {
    let file = file(c, fd)?;
    let to = single(c, file, false, va, len)?;
    c.k.file_read(c.tid, file, &to, None)
}

fn write(c: &mut Context<'_>, &[fd, va, len, ..]: &[u64; 6]) -> SysResult {
    let file = file(c, fd)?;
    let from = single(c, file, true, va, len)?;
    c.k.file_write(c.tid, file, &from, None)
}

fn pread(c: &mut Context<'_>, &[fd, va, len, pos, ..]: &[u64; 6]) -> SysResult {
    if pos.cast_signed() < 0 {
        return Err(Errno::EINVAL);
    }
    let file = file(c, fd)?;
    let at = position(c, file, pos)?;
    let to = single(c, file, false, va, len)?;
    c.k.file_read(c.tid, file, &to, at)
}

fn pwrite(c: &mut Context<'_>, &[fd, va, len, pos, ..]: &[u64; 6]) -> SysResult {
    if pos.cast_signed() < 0 {
        return Err(Errno::EINVAL);
    }
    let file = file(c, fd)?;
    let at = position(c, file, pos)?;
    let from = single(c, file, true, va, len)?;
    c.k.file_write(c.tid, file, &from, at)
}

fn vectored(c: &mut Context<'_>, args: &[u64; 6], pos: Option<u64>, write: bool, flags: u64) -> SysResult {
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
    if low32(flags) != 0 && iovecs.iter().any(|(_, len)| *len > 0) {
        return Err(Errno::EOPNOTSUPP);
    }
    if write { c.k.file_write(c.tid, file, &iovecs, at) } else { c.k.file_read(c.tid, file, &iovecs, at) }
}

fn readv(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    vectored(c, a, None, false, 0)
}

fn writev(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    vectored(c, a, None, true, 0)
}

fn preadv(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    vectored(c, a, Some(nth(a, 3)), false, 0)
}

fn pwritev(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    vectored(c, a, Some(nth(a, 3)), true, 0)
}

fn preadv2(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    vectored(c, a, Some(nth(a, 3)).filter(|p| *p != u64::MAX), false, nth(a, 5))
}

fn pwritev2(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    vectored(c, a, Some(nth(a, 3)).filter(|p| *p != u64::MAX), true, nth(a, 5))
}

fn lseek(c: &mut Context<'_>, &[fd, offset, whence, ..]: &[u64; 6]) -> SysResult {
    let id = open(c, fd)?;
    let whence = low32(whence);
    if whence > 4 {
        return Err(Errno::EINVAL);
    }
    if c.k.file_is_stream(id) {
        return Err(Errno::ESPIPE);
    }
    let f = c.k.open_file(id)?;
    let FileKind::Inode(inode) = f.kind else {
        return ret(0);
    };
    let offset = offset.cast_signed();
    let base = match whence {
        0 => 0,
        1 => f.pos.cast_signed(),
        _ => c.k.inode_stat(inode)?.size.cast_signed(),
    };
    let new = match whence {
        // The whole file is data; the hole is at its end.
        3 | 4 if offset < 0 || offset >= base => return Err(Errno::ENXIO),
        3 => offset,
        4 => base,
        _ => base.checked_add(offset).ok_or(Errno::EOVERFLOW)?,
    };
    let new = u64::try_from(new).map_err(|_| Errno::EINVAL)?;
    if let Some(f) = c.k.files.get_mut(id) {
        f.pos = new;
    }
    ret(new)
}

fn close(c: &mut Context<'_>, &[fd, ..]: &[u64; 6]) -> SysResult {
    c.k.fd_close(c.tid, low32(fd))?;
    ret(0)
}

fn close_range(c: &mut Context<'_>, &[first, last, flags, ..]: &[u64; 6]) -> SysResult {
    let (first, last, flags) = (low32(first), low32(last), low32(flags));
    if flags & !6 != 0 || first > last {
        return Err(Errno::EINVAL);
    }
    let id = c.k.task(c.tid).map(|t| t.files).ok_or(Errno::EBADF)?;
    // CLOSE_RANGE_UNSHARE
    if flags & 2 != 0 && c.k.fd_tables.get(id).is_some_and(|t| t.refs > 1) {
        let copy = c.k.fd_table_copy(id);
        c.k.fd_table_release(id);
        if let Some(t) = c.k.task_mut(c.tid) {
            t.files = copy;
        }
    }
    let table = c.k.table_mut(c.tid)?;
    if flags & 4 != 0 {
        table.fds.range_mut(first..=last).for_each(|(_, e)| e.cloexec = true);
        return ret(0);
    }
    let gone: Vec<u32> = table.fds.range(first..=last).map(|(n, _)| *n).collect();
    for fd in gone {
        c.k.fd_close(c.tid, fd)?;
    }
    ret(0)
}

fn dup_from(c: &mut Context<'_>, fd: u64, from: u32, cloexec: bool) -> SysResult {
    let id = file(c, fd)?;
    c.k.file_ref(id);
    ret(u64::from(c.k.install_fd_from(c.tid, id, cloexec, from)?))
}

fn dup(c: &mut Context<'_>, &[fd, ..]: &[u64; 6]) -> SysResult {
    dup_from(c, fd, 0, false)
}

fn dup2(c: &mut Context<'_>, &[old, new, ..]: &[u64; 6]) -> SysResult {
    if low32(old) == low32(new) {
        file(c, old)?;
    } else {
        c.k.fd_dup_to(c.tid, int(old), low32(new), false)?;
    }
    ret(u64::from(low32(new)))
}

fn dup3(c: &mut Context<'_>, &[old, new, flags, ..]: &[u64; 6]) -> SysResult {
    let flags = u64::from(low32(flags));
    if flags & !O_CLOEXEC != 0 || low32(old) == low32(new) {
        return Err(Errno::EINVAL);
    }
    c.k.fd_dup_to(c.tid, int(old), low32(new), flags != 0)?;
    ret(u64::from(low32(new)))
}

fn set_cloexec(c: &mut Context<'_>, fd: u64, on: bool) -> SysResult {
    let entry = c.k.table_mut(c.tid)?.fds.get_mut(&low32(fd)).ok_or(Errno::EBADF)?;
    entry.cloexec = on;
    ret(0)
}

fn set_flags(c: &mut Context<'_>, id: u64, clear: u32, set: u32) -> SysResult {
    let f = c.k.files.get_mut(id).ok_or(Errno::EBADF)?;
    f.flags = f.flags & !clear | set;
    ret(0)
}

fn fcntl(c: &mut Context<'_>, &[fd, cmd, arg, ..]: &[u64; 6]) -> SysResult {
    let entry = c.k.fd_entry(c.tid, int(fd))?;
    let f = c.k.open_file(entry.file)?;
    let cmd = low32(cmd);
    if f.flags & O_PATH != 0 && !matches!(cmd, 0..=3 | 1030) {
        return Err(Errno::EBADF);
    }
    match cmd {
        0 | 1030 => {
            if low32(arg) >= c.k.fd_limit(c.tid) {
                return Err(Errno::EINVAL);
            }
            dup_from(c, fd, low32(arg), cmd == 1030)
        }
        1 => ret(u64::from(entry.cloexec)),
        2 => set_cloexec(c, fd, arg & 1 != 0),
        3 => ret(u64::from(f.flags)),
        4 => {
            // O_APPEND, O_NONBLOCK, O_DIRECT, O_NOATIME, FASYNC
            let may = O_APPEND | O_NONBLOCK | 0o40000 | 0o1_000_000 | 0o20000;
            set_flags(c, entry.file, may, low32(arg) & may)
        }
        5..=7 | 36..=38 => super::lock::fcntl(c, entry.file, cmd, arg),
        1033 => {
            if f.flags & 3 == 0 {
                return Err(Errno::EPERM);
            }
            let inode = inode(c, fd)?;
            c.k.add_seals(inode, low32(arg))?;
            ret(0)
        }
        1034 => {
            let inode = inode(c, fd)?;
            ret(u64::from(c.k.seals(inode)?))
        }
        8 => {
            // F_SETOWN: a process, or a group as a negative number.
            let owner = int(arg);
            if owner == i32::MIN {
                return Err(Errno::EINVAL);
            }
            let id = owner.unsigned_abs();
            let known = if owner > 0 {
                c.k.processes.contains_key(&id)
            } else {
                c.k.processes.values().any(|p| p.pgid == id)
            };
            if owner == 0 || known { ret(0) } else { Err(Errno::ESRCH) }
        }
        9 => ret(0),
        1031 | 1032 => {
            let FileKind::Pipe { pipe, .. } = f.kind else { return Err(Errno::EBADF) };
            let pipe = c.k.objects.pipes.get_mut(pipe).ok_or(Errno::EBADF)?;
            let size = if cmd == 1031 { pipe.resize(u64::from(low32(arg)))? } else { pipe.capacity };
            let object = pipe.object;
            if cmd == 1031 {
                c.k.wake(crate::wait::WaitKey::Object(object));
            }
            ret(u64_of(size))
        }
        _ => Err(Errno::EINVAL),
    }
}

fn fsync(c: &mut Context<'_>, &[fd, ..]: &[u64; 6]) -> SysResult {
    inode(c, fd)?;
    ret(0)
}

fn readahead(c: &mut Context<'_>, &[fd, ..]: &[u64; 6]) -> SysResult {
    let id = open(c, fd)?;
    if c.k.open_file(id)?.flags & 3 == 1 {
        return Err(Errno::EBADF);
    }
    let inode = inode(c, fd)?;
    if c.k.vfs.inode(inode)?.is_dir() { Err(Errno::EINVAL) } else { ret(0) }
}

fn sync_file_range(c: &mut Context<'_>, &[fd, offset, len, flags, ..]: &[u64; 6]) -> SysResult {
    let id = open(c, fd)?;
    let end = offset.cast_signed().checked_add(len.cast_signed());
    if low32(flags) & !7 != 0 || offset.cast_signed() < 0 || end.is_none_or(|e| e < offset.cast_signed()) {
        return Err(Errno::EINVAL);
    }
    if c.k.file_is_stream(id) {
        return Err(Errno::ESPIPE);
    }
    ret(0)
}

fn fadvise(c: &mut Context<'_>, &[fd, _, len, advice, ..]: &[u64; 6]) -> SysResult {
    let id = open(c, fd)?;
    if matches!(c.k.open_file(id)?.kind, FileKind::Pipe { .. } | FileKind::Socket(_)) {
        return Err(Errno::ESPIPE);
    }
    if len.cast_signed() < 0 || low32(advice) > 5 { Err(Errno::EINVAL) } else { ret(0) }
}

fn ftruncate(c: &mut Context<'_>, &[fd, len, ..]: &[u64; 6]) -> SysResult {
    if len.cast_signed() < 0 {
        return Err(Errno::EINVAL);
    }
    let id = open(c, fd)?;
    let inode = inode(c, fd)?;
    if c.k.open_file(id)?.flags & 3 == 0 {
        return Err(Errno::EINVAL);
    }
    c.k.inode_truncate(inode, len)?;
    ret(0)
}

fn fallocate(c: &mut Context<'_>, &[fd, mode, offset, len, ..]: &[u64; 6]) -> SysResult {
    let id = open(c, fd)?;
    if offset.cast_signed() < 0 || len.cast_signed() <= 0 {
        return Err(Errno::EINVAL);
    }
    if low32(mode) & !1 != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if c.k.open_file(id)?.flags & 3 == 0 {
        return Err(Errno::EBADF);
    }
    let inode = match c.k.open_file(id)?.kind {
        FileKind::Inode(inode) => inode,
        FileKind::Pipe { .. } => return Err(Errno::ESPIPE),
        _ => return Err(Errno::ENODEV),
    };
    let end = offset.checked_add(len).filter(|e| e.cast_signed() >= 0).ok_or(Errno::EFBIG)?;
    if low32(mode) == 0 && end > c.k.inode_stat(inode)?.size {
        c.k.inode_truncate(inode, end)?;
    }
    ret(0)
}

fn fstat(c: &mut Context<'_>, &[fd, va, ..]: &[u64; 6]) -> SysResult {
    let id = file(c, fd)?;
    let stat = c.k.file_stat(id)?;
    c.k.put_stat(c.tid, va, &stat)?;
    ret(0)
}

fn ioctl(c: &mut Context<'_>, &[fd, request, arg, ..]: &[u64; 6]) -> SysResult {
    let id = open(c, fd)?;
    let f = c.k.open_file(id)?;
    match low32(request) {
        0x5451 => set_cloexec(c, fd, true),
        0x5450 => set_cloexec(c, fd, false),
        0x5421 => {
            let on = c.k.get_u32(c.tid, arg)? != 0;
            set_flags(c, id, O_NONBLOCK, if on { O_NONBLOCK } else { 0 })
        }
        0x541b => {
            let n = match f.kind {
                FileKind::Pipe { pipe, .. } => {
                    c.k.objects.pipes.get(pipe).map_or(0, |p| u64_of(p.data.len()))
                }
                FileKind::Inode(inode) => c.k.inode_stat(inode)?.size.saturating_sub(f.pos),
                FileKind::Work => c.k.work_available(),
                FileKind::Socket(id) => c.k.socket_pending(id)?,
                _ => return Err(Errno::ENOTTY),
            };
            c.k.put_u32(c.tid, arg, low32(n))?;
            ret(0)
        }
        0x5411 | 0x8905 if matches!(f.kind, FileKind::Socket(_)) => {
            // SIOCOUTQ; SIOCATMARK: there is no urgent data.
            let n = match f.kind {
                FileKind::Socket(id) if low32(request) == 0x5411 => c.k.socket_unsent(id)?,
                _ => 0,
            };
            c.k.put_u32(c.tid, arg, low32(n))?;
            ret(0)
        }
        request @ (0x5401 | 0x5413) => {
            let FileKind::HostStream(stream) = f.kind else { return Err(Errno::ENOTTY) };
            let stream = c.k.objects.streams.get(stream).ok_or(Errno::EBADF)?;
            let bytes =
                if request == 0x5401 { stream.termios()?.to_vec() } else { stream.winsize()?.to_vec() };
            c.k.copy_out(c.tid, arg, &bytes)?;
            ret(0)
        }
        _ if matches!(f.kind, FileKind::Device(Device::Tty, _)) => Err(Errno::EIO),
        _ => Err(Errno::ENOTTY),
    }
}

fn make_pipe(c: &mut Context<'_>, va: u64, flags: u32) -> SysResult {
    let cloexec = u64::from(flags) & O_CLOEXEC != 0;
    let (read, write) = c.k.pipe_create(flags & O_NONBLOCK);
    let a = match c.k.install_fd(c.tid, read, cloexec) {
        Ok(fd) => fd,
        Err(e) => {
            c.k.file_unref(write);
            return Err(e);
        }
    };
    let b = match c.k.install_fd(c.tid, write, cloexec) {
        Ok(fd) => fd,
        Err(e) => {
            c.k.fd_close(c.tid, a)?;
            return Err(e);
        }
    };
    let bytes = u64::from(a) | u64::from(b) << 32;
    if let Err(e) = c.k.copy_out(c.tid, va, &bytes.to_le_bytes()) {
        c.k.fd_close(c.tid, a)?;
        c.k.fd_close(c.tid, b)?;
        return Err(e);
    }
    ret(0)
}

fn pipe(c: &mut Context<'_>, &[va, ..]: &[u64; 6]) -> SysResult {
    make_pipe(c, va, 0)
}

fn pipe2(c: &mut Context<'_>, &[va, flags, ..]: &[u64; 6]) -> SysResult {
    let flags = low32(flags);
    if u64::from(flags & !O_NONBLOCK) & !O_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    make_pipe(c, va, flags)
}

fn eventfd(c: &mut Context<'_>, &[count, ..]: &[u64; 6]) -> SysResult {
    let id = c.k.eventfd_create(u64::from(low32(count)), false, 0);
    ret(u64::from(c.k.install_fd(c.tid, id, false)?))
}

fn eventfd2(c: &mut Context<'_>, &[count, flags, ..]: &[u64; 6]) -> SysResult {
    let flags = low32(flags);
    if u64::from(flags & !(O_NONBLOCK | 1)) & !O_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let id = c.k.eventfd_create(u64::from(low32(count)), flags & 1 != 0, flags & O_NONBLOCK);
    ret(u64::from(c.k.install_fd(c.tid, id, u64::from(flags) & O_CLOEXEC != 0)?))
}
