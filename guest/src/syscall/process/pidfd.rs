//! pidfd_open(2), pidfd_send_signal(2), pidfd_getfd(2).

use crate::errno::Errno;
use crate::num::{int, low32};
use crate::syscall::signal::{Scope, send};
use crate::syscall::{Context, ret};
use crate::vfs::FileKind;
use crate::vfs::file::O_NONBLOCK;
use crate::wait::SysResult;

/// The process behind a descriptor. EBADF, ESRCH.
fn process(c: &Context<'_>, fd: u64) -> Result<u32, Errno> {
    let FileKind::PidFd(id) = c.k.open_file(c.k.file_of(c.tid, int(fd))?)?.kind else {
        return Err(Errno::EBADF);
    };
    c.k.pidfd_pid(id)
}

/// As [`process`]; pidfd_send_signal(2) also takes a descriptor of /proc/PID.
fn process_or_proc(c: &Context<'_>, fd: u64) -> Result<u32, Errno> {
    if let FileKind::Inode(inode) = c.k.open_file(c.k.file_of(c.tid, int(fd))?)?.kind {
        let pid = c.k.proc_directory(inode).ok_or(Errno::EBADF)?;
        return if c.k.processes.contains_key(&pid) { Ok(pid) } else { Err(Errno::ESRCH) };
    }
    process(c, fd)
}

pub(super) fn pidfd_open(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, flags, ..] = *a;
    let flags = low32(flags);
    if flags & !O_NONBLOCK != 0 {
        return Err(Errno::EINVAL);
    }
    let pid = u32::try_from(int(pid)).ok().filter(|p| *p > 0).ok_or(Errno::EINVAL)?;
    // A thread's id is no process's.
    if !c.k.exists(pid) {
        return Err(if c.k.task(pid).is_some() { Errno::ENOENT } else { Errno::ESRCH });
    }
    let file = c.k.pidfd_open(pid, flags)?;
    ret(u64::from(c.k.install_fd(c.tid, file, true)?))
}

pub(super) fn pidfd_send_signal(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [fd, sig, info, flags, ..] = *a;
    // PIDFD_SIGNAL_THREAD, PIDFD_SIGNAL_THREAD_GROUP, PIDFD_SIGNAL_PROCESS_GROUP: one at most.
    let scope = low32(flags);
    if !matches!(scope, 0 | 1 | 2 | 4) {
        return Err(Errno::EINVAL);
    }
    let pid = process_or_proc(c, fd)?;
    let scope = match scope {
        1 => Scope::Thread,
        4 => Scope::Group,
        _ => Scope::Process,
    };
    send(c, pid, int(sig), info, scope)
}

pub(super) fn pidfd_getfd(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [fd, target, flags, ..] = *a;
    if low32(flags) != 0 {
        return Err(Errno::EINVAL);
    }
    let pid = process(c, fd)?;
    let them = c.k.processes.get(&pid).ok_or(Errno::ESRCH)?;
    let thread = them.threads.iter().next().copied().ok_or(Errno::ESRCH)?;
    c.k.may_inspect(c.tid, thread, true)?;
    let file = c.k.file_of(thread, int(target))?;
    c.k.file_ref(file);
    ret(u64::from(c.k.install_fd(c.tid, file, true)?))
}
