//! System calls on descriptors: the table, close and duplicate; the rest by what it does in the files below.

use super::{Arg, Context, Entry, ret};
use crate::errno::Errno;
use crate::num::{int, low32};
use crate::vfs::file::O_PATH;
use crate::vfs::{FileKind, InodeId};
use crate::wait::SysResult;
use control::{fcntl, ioctl};
use make::{eventfd, eventfd2, pipe, pipe2};
use rw::{lseek, pread, preadv, preadv2, pwrite, pwritev, pwritev2, read, readv, write, writev};
use space::{fadvise, fallocate, fsync, ftruncate, readahead, sync_file_range};

mod control;
mod extents;
mod make;
pub(super) mod rw;
mod space;

const O_CLOEXEC: u64 = 0o2_000_000;

const RW_NOTE: &str = "no RWF_ATOMIC";

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::full(0, "read", &[Arg::Fd, Arg::Out, Arg::Uint], read),
    Entry::full(1, "write", &[Arg::Fd, Arg::In(2), Arg::Uint], write),
    Entry::full(3, "close", &[Arg::Fd], close),
    Entry::full(5, "fstat", &[Arg::Fd, Arg::Ptr], fstat),
    Entry::full(8, "lseek", &[Arg::Fd, Arg::Int, Arg::Int], lseek),
    Entry::partial(
        16,
        "ioctl",
        &[Arg::Fd, Arg::Hex, Arg::Hex],
        "of the host's own terminal (run without --tty) size and modes are read only; TIOCSTI is refused; no signals by FIOSETOWN",
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
        "no leases; F_SETOWN's and F_SETSIG's signals are those of F_NOTIFY only; F_SETPIPE_SZ up to 1 MiB for root too",
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
        "no FALLOC_FL_UNSHARE_RANGE; room is looked for but not set aside",
        fallocate,
    ),
    Entry::full(290, "eventfd2", &[Arg::Uint, Arg::Hex], eventfd2),
    Entry::full(292, "dup3", &[Arg::Fd, Arg::Fd, Arg::Hex], dup3),
    Entry::full(293, "pipe2", &[Arg::Ptr, Arg::Hex], pipe2),
    Entry::full(295, "preadv", &[Arg::Fd, Arg::Ptr, Arg::Uint, Arg::Uint], preadv),
    Entry::full(296, "pwritev", &[Arg::Fd, Arg::Ptr, Arg::Uint, Arg::Uint], pwritev),
    Entry::partial(
        327,
        "preadv2",
        &[Arg::Fd, Arg::Ptr, Arg::Uint, Arg::Uint, Arg::Uint, Arg::Hex],
        RW_NOTE,
        preadv2,
    ),
    Entry::partial(
        328,
        "pwritev2",
        &[Arg::Fd, Arg::Ptr, Arg::Uint, Arg::Uint, Arg::Uint, Arg::Hex],
        RW_NOTE,
        pwritev2,
    ),
    Entry::full(436, "close_range", &[Arg::Uint, Arg::Uint, Arg::Hex], close_range),
];

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
        let copy = c.k.fd_table_copy(id)?;
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

fn fstat(c: &mut Context<'_>, &[fd, va, ..]: &[u64; 6]) -> SysResult {
    let id = file(c, fd)?;
    let stat = c.k.file_stat(id)?;
    c.k.put_stat(c.tid, va, &stat)?;
    ret(0)
}
