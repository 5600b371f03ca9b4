//! System calls: POSIX message queues.

use super::{Arg, Context, Entry, ret};
use crate::errno::Errno;
use crate::ipc::mqueue::{Attr, COOKIE, Notify, PRIO_MAX};
use crate::net::addr::Family;
use crate::num::{int, low32, u64_of, us};
use crate::platform::Ns;
use crate::vfs::FileKind;
use crate::wait::{Block, Cause, Outcome, Restart, SysResult, WaitKey};
use linux_raw_sys::general as g;

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::partial(
        240,
        "mq_open",
        &[Arg::Path, Arg::Hex, Arg::Octal, Arg::Ptr],
        "64 MiB in all queues together, whatever the limits; no mqueue file system",
        mq_open,
    ),
    Entry::full(241, "mq_unlink", &[Arg::Path], mq_unlink),
    Entry::full(242, "mq_timedsend", &[Arg::Fd, Arg::In(2), Arg::Uint, Arg::Uint, Arg::Ptr], mq_timedsend),
    Entry::full(243, "mq_timedreceive", &[Arg::Fd, Arg::Out, Arg::Uint, Arg::Ptr, Arg::Ptr], mq_timedreceive),
    Entry::full(244, "mq_notify", &[Arg::Fd, Arg::Ptr], mq_notify),
    Entry::full(245, "mq_getsetattr", &[Arg::Fd, Arg::Ptr, Arg::Ptr], mq_getsetattr),
];

fn word(b: &[u8], at: usize) -> u64 {
    b.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn name(c: &mut Context<'_>, va: u64) -> Result<Vec<u8>, Errno> {
    c.k.copy_in_str(c.tid, va, 4096)
}

fn mq_open(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let flags = low32(a[1]);
    // Read even when nothing is created, as Linux does.
    let attr = match a[3] {
        0 => None,
        va => {
            let b = c.k.copy_in_vec(c.tid, va, 64)?;
            Some(Attr { most: word(&b, 8).cast_signed(), size: word(&b, 16).cast_signed() })
        }
    };
    let attr = attr.filter(|_| flags & g::O_CREAT != 0);
    let name = name(c, a[0])?;
    let umask = c.k.task(c.tid).and_then(|t| c.k.fs_contexts.get(t.fs)).map_or(0, |f| f.umask);
    let file = c.k.mqueue_open(c.tid, &name, flags, low32(a[2]) & !umask, attr)?;
    // Always closed at execve.
    ret(c.k.install_fd(c.tid, file, true)?.into())
}

fn mq_unlink(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let name = name(c, a[0])?;
    c.k.mqueue_unlink(c.tid, &name).map(Into::into)
}

/// The queue behind a descriptor, and its O_ flags. EBADF.
fn queue(c: &Context<'_>, fd: u64) -> Result<(u64, u64, u32), Errno> {
    let file = c.k.file_of(c.tid, int(fd))?;
    let open = c.k.files.get(file).ok_or(Errno::EBADF)?;
    match open.kind {
        FileKind::Mqueue(id) => Ok((id, file, open.flags)),
        _ => Err(Errno::EBADF),
    }
}

/// The absolute CLOCK_REALTIME time-out, checked even when it is not needed.
fn deadline(c: &mut Context<'_>, va: u64) -> Result<Option<Ns>, Errno> {
    let resume = c.k.task(c.tid).and_then(|t| t.resume);
    match resume {
        Some(r) => Ok(r.deadline),
        None if va == 0 => Ok(None),
        None => {
            let at = super::time::timespec(c, va)?;
            Ok(Some(super::time::realtime_deadline(c.k, at)))
        }
    }
}

fn wait(c: &mut Context<'_>, id: u64, flags: u32, deadline: Option<Ns>) -> SysResult {
    if flags & g::O_NONBLOCK != 0 {
        return Err(Errno::EAGAIN);
    }
    if c.k.task(c.tid).and_then(|t| t.resume).is_some_and(|r| r.cause == Cause::TimedOut) {
        return Err(Errno::ETIMEDOUT);
    }
    let object = c.k.ipc.mqueues.get(id).ok_or(Errno::EBADF)?.object;
    let on = vec![WaitKey::Object(object)];
    Ok(Outcome::Block(Block { on, deadline, relative: false, restart: Restart::IfSaRestart, memo: [0; 2] }))
}

fn mq_timedsend(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [fd, va, len, prio, timeout, _] = *a;
    let deadline = deadline(c, timeout)?;
    let prio = low32(prio);
    if prio >= PRIO_MAX {
        return Err(Errno::EINVAL);
    }
    let (id, _, flags) = queue(c, fd)?;
    if flags & 3 == g::O_RDONLY {
        return Err(Errno::EBADF);
    }
    let size = c.k.ipc.mqueues.get(id).map_or(0, |q| q.size.unsigned_abs());
    if len > size {
        return Err(Errno::EMSGSIZE);
    }
    let text = c.k.copy_in_vec(c.tid, va, us(len))?;
    match c.k.mqueue_send(c.tid, id, text, prio)? {
        Some(()) => ret(0),
        None => wait(c, id, flags, deadline),
    }
}

fn mq_timedreceive(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [fd, va, len, prio_va, timeout, _] = *a;
    let deadline = deadline(c, timeout)?;
    let (id, _, flags) = queue(c, fd)?;
    if flags & 3 == g::O_WRONLY {
        return Err(Errno::EBADF);
    }
    let Some((text, prio)) = c.k.mqueue_receive(c.tid, id, len)? else {
        return wait(c, id, flags, deadline);
    };
    if prio_va != 0 {
        c.k.put_u32(c.tid, prio_va, prio)?;
    }
    c.k.copy_out(c.tid, va, &text)?;
    ret(u64_of(text.len()))
}

fn mq_notify(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let wanted = if a[1] == 0 {
        None
    } else {
        let b = c.k.copy_in_vec(c.tid, a[1], 64)?;
        let (value, second) = (word(&b, 0), word(&b, 8));
        let (signo, kind) = (low32(second), low32(second >> 32));
        match kind {
            // SIGEV_SIGNAL, SIGEV_NONE
            0 if signo > 64 => return Err(Errno::EINVAL),
            0 => Some(Notify { signo, value, ..Notify::default() }),
            1 => Some(Notify { value, kind, ..Notify::default() }),
            // SIGEV_THREAD: the C library's thread waits at a netlink socket, which is sent the cookie.
            2 => {
                let bytes = c.k.copy_in_vec(c.tid, value, COOKIE)?;
                let file = c.k.usable_file_of(c.tid, signo.cast_signed())?;
                let socket = c.k.socket_of(file)?;
                if c.k.objects.net.get(socket)?.family != Family::Netlink {
                    return Err(Errno::EINVAL);
                }
                Some(Notify { value, kind, cookie: Some((socket, bytes)), ..Notify::default() })
            }
            _ => return Err(Errno::EINVAL),
        }
    };
    let (id, _, _) = queue(c, a[0])?;
    let pid = c.k.task(c.tid).map_or(0, |t| t.pid);
    let Some(wanted) = wanted else {
        c.k.mqueue_forget(pid, Some(id));
        return ret(0);
    };
    let queue = c.k.ipc.mqueues.get_mut(id).ok_or(Errno::EBADF)?;
    if queue.notify.is_some() {
        return Err(Errno::EBUSY);
    }
    queue.notify = Some(Notify { pid, ..wanted });
    ret(0)
}

fn mq_getsetattr(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [fd, new, old, ..] = *a;
    let wanted = if new == 0 { None } else { Some(c.k.get_u64(c.tid, new)?) };
    if wanted.is_some_and(|f| f & !u64::from(g::O_NONBLOCK) != 0) {
        return Err(Errno::EINVAL);
    }
    let (id, file, flags) = queue(c, fd)?;
    let q = c.k.ipc.mqueues.get(id).ok_or(Errno::EBADF)?;
    let was = [
        u64::from(flags & g::O_NONBLOCK),
        q.most.unsigned_abs(),
        q.size.unsigned_abs(),
        q.count.unsigned_abs(),
        0,
        0,
        0,
        0,
    ];
    if let Some(wanted) = wanted
        && let Some(open) = c.k.files.get_mut(file)
    {
        open.flags = open.flags & !g::O_NONBLOCK | low32(wanted) & g::O_NONBLOCK;
    }
    if old != 0 {
        c.put_words(old, &was)?;
    }
    ret(0)
}
