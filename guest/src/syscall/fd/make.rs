//! Making pipes and eventfds.

use super::O_CLOEXEC;
use crate::errno::Errno;
use crate::num::low32;
use crate::syscall::{Context, ret};
use crate::vfs::FileKind;
use crate::vfs::file::O_NONBLOCK;
use crate::vfs::pipe::O_DIRECT;
use crate::wait::SysResult;

pub(super) fn make_pipe(c: &mut Context<'_>, va: u64, flags: u32) -> SysResult {
    let cloexec = u64::from(flags) & O_CLOEXEC != 0;
    let (read, write) = c.k.pipe_create(flags & (O_NONBLOCK | O_DIRECT));
    let creds = c.k.creds_of(c.tid);
    if let Ok(FileKind::Pipe { pipe, .. }) = c.k.open_file(read).map(|f| f.kind)
        && let Some(p) = c.k.objects.pipes.get_mut(pipe)
    {
        p.owner = (creds.fsuid, creds.fsgid, 0o600);
    }
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

pub(super) fn pipe(c: &mut Context<'_>, &[va, ..]: &[u64; 6]) -> SysResult {
    make_pipe(c, va, 0)
}

pub(super) fn pipe2(c: &mut Context<'_>, &[va, flags, ..]: &[u64; 6]) -> SysResult {
    let flags = low32(flags);
    if u64::from(flags & !(O_NONBLOCK | O_DIRECT)) & !O_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    make_pipe(c, va, flags)
}

pub(super) fn eventfd(c: &mut Context<'_>, &[count, ..]: &[u64; 6]) -> SysResult {
    let id = c.k.eventfd_create(u64::from(low32(count)), false, 0);
    ret(u64::from(c.k.install_fd(c.tid, id, false)?))
}

pub(super) fn eventfd2(c: &mut Context<'_>, &[count, flags, ..]: &[u64; 6]) -> SysResult {
    let flags = low32(flags);
    if u64::from(flags & !(O_NONBLOCK | 1)) & !O_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let id = c.k.eventfd_create(u64::from(low32(count)), flags & 1 != 0, flags & O_NONBLOCK);
    ret(u64::from(c.k.install_fd(c.tid, id, u64::from(flags) & O_CLOEXEC != 0)?))
}
