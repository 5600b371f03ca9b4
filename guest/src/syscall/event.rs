//! System calls that make files of timers and signals, and of memory.

use super::{Arg, Context, Entry, ret};
use crate::errno::Errno;
use crate::num::{int, low32};
use crate::signal::frame::le64;
use crate::syscall::time::{realtime_deadline, split, to_ns};
use crate::timers::Armed;
use crate::vfs::FileKind;
use crate::vfs::file::O_NONBLOCK;
use crate::wait::SysResult;

const CLOEXEC: u32 = 0o2_000_000;
/// SIGKILL and SIGSTOP, which nobody takes.
const UNBLOCKABLE: u64 = 1 << 8 | 1 << 18;

use Arg::{Fd, Hex, Int, Path, Ptr, Uint};

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::partial(282, "signalfd", &[Fd, Ptr, Uint], SIGNALFD, signalfd),
    Entry::full(283, "timerfd_create", &[Int, Hex], timerfd_create),
    Entry::partial(
        286,
        "timerfd_settime",
        &[Fd, Hex, Ptr, Ptr],
        "TFD_TIMER_CANCEL_ON_SET has no effect",
        timerfd_settime,
    ),
    Entry::full(287, "timerfd_gettime", &[Fd, Ptr], timerfd_gettime),
    Entry::partial(289, "signalfd4", &[Fd, Ptr, Uint, Hex], SIGNALFD, signalfd4),
    Entry::partial(319, "memfd_create", &[Path, Hex], "no huge pages", memfd_create),
    Entry::partial(
        447,
        "memfd_secret",
        &[Hex],
        "as hidden as all memory of a sandbox; the descriptor can be read and written, and locked memory is not counted",
        memfd_secret,
    ),
];

const SIGNALFD: &str = "poll and epoll look at the signals of the process that made it";

fn timerfd_create(c: &mut Context<'_>, &[clock, flags, ..]: &[u64; 6]) -> SysResult {
    let flags = low32(flags);
    if flags & !(CLOEXEC | O_NONBLOCK) != 0 || !matches!(int(clock), 0 | 1 | 7 | 8 | 9) {
        return Err(Errno::EINVAL);
    }
    let file = c.k.timerfd_open(int(clock), flags & O_NONBLOCK);
    ret(u64::from(c.k.install_fd(c.tid, file, flags & CLOEXEC != 0)?))
}

/// The timer behind a descriptor. EBADF, EINVAL.
fn timer(c: &Context<'_>, fd: u64) -> Result<u64, Errno> {
    let file = c.k.usable_file_of(c.tid, int(fd))?;
    match c.k.open_file(file)?.kind {
        FileKind::TimerFd(id) => Ok(id),
        _ => Err(Errno::EINVAL),
    }
}

fn put_itimerspec(c: &mut Context<'_>, out: u64, t: &Armed) -> Result<(), Errno> {
    let now = c.k.platform.monotonic();
    let left = if t.at == 0 { 0 } else { t.at.saturating_sub(now).max(1) };
    let ([is, inn], [vs, vn]) = (split(t.interval), split(left));
    c.put_words(out, &[is, inn, vs, vn])
}

fn timerfd_settime(c: &mut Context<'_>, &[fd, flags, new, old, ..]: &[u64; 6]) -> SysResult {
    let b = c.k.copy_in_vec(c.tid, new, 32)?;
    let flags = low32(flags);
    let (interval, value) = (to_ns(le64(&b, 0), le64(&b, 8))?, to_ns(le64(&b, 16), le64(&b, 24))?);
    if flags & !3 != 0 {
        return Err(Errno::EINVAL);
    }
    let id = timer(c, fd)?;
    let absolute = flags & 1 != 0;
    let clock = c.k.objects.timerfds.get(id).map_or(1, |t| t.clock);
    let at = match (value, absolute, clock) {
        (0, _, _) => 0,
        (_, false, _) => c.k.platform.monotonic().saturating_add(value),
        (_, true, 0 | 8) => realtime_deadline(c.k, value).max(1),
        (_, true, _) => value,
    };
    let was = c.k.timerfd_arm(id, at, interval, !absolute)?;
    // A time that has passed fires at once.
    let now = c.k.platform.monotonic();
    c.k.fire_timers(now);
    if old != 0 {
        put_itimerspec(c, old, &was)?;
    }
    ret(0)
}

fn timerfd_gettime(c: &mut Context<'_>, &[fd, out, ..]: &[u64; 6]) -> SysResult {
    let id = timer(c, fd)?;
    let armed = c.k.objects.timerfds.get(id).map(|t| t.armed).unwrap_or_default();
    put_itimerspec(c, out, &armed)?;
    ret(0)
}

fn signalfd4(c: &mut Context<'_>, &[fd, mask, size, flags, ..]: &[u64; 6]) -> SysResult {
    let flags = low32(flags);
    if flags & !(CLOEXEC | O_NONBLOCK) != 0 || size != 8 {
        return Err(Errno::EINVAL);
    }
    let mask = c.k.get_u64(c.tid, mask)? & !UNBLOCKABLE;
    if int(fd) == -1 {
        let file = c.k.signalfd_open(c.tid, mask, flags & O_NONBLOCK);
        return ret(u64::from(c.k.install_fd(c.tid, file, flags & CLOEXEC != 0)?));
    }
    let file = c.k.usable_file_of(c.tid, int(fd))?;
    let FileKind::SignalFd(id) = c.k.open_file(file)?.kind else { return Err(Errno::EINVAL) };
    let s = c.k.objects.signalfds.get_mut(id).ok_or(Errno::EINVAL)?;
    s.mask = mask;
    let object = s.object;
    c.k.wake(crate::wait::WaitKey::Object(object));
    ret(u64::from(low32(fd)))
}

fn signalfd(c: &mut Context<'_>, &[fd, mask, size, ..]: &[u64; 6]) -> SysResult {
    signalfd4(c, &[fd, mask, size, 0, 0, 0])
}

fn memfd_create(c: &mut Context<'_>, &[name, flags, ..]: &[u64; 6]) -> SysResult {
    let flags = low32(flags);
    // CLOEXEC, ALLOW_SEALING, NOEXEC_SEAL, EXEC
    if flags & !(1 | 2 | 8 | 16) != 0 || flags & 24 == 24 {
        return Err(Errno::EINVAL);
    }
    let name = match c.k.copy_in_str(c.tid, name, 250) {
        Err(Errno::ENAMETOOLONG) => return Err(Errno::EINVAL),
        other => other?,
    };
    let noexec = flags & 8 != 0;
    let seals = match (noexec, flags & 2 != 0) {
        (true, _) => crate::vfs::memfd::F_SEAL_EXEC,
        (_, true) => 0,
        _ => crate::vfs::memfd::F_SEAL_SEAL,
    };
    let file = c.k.memfd_open(c.tid, &name, seals, if noexec { 0o666 } else { 0o777 })?;
    ret(u64::from(c.k.install_fd(c.tid, file, flags & 1 != 0)?))
}

fn memfd_secret(c: &mut Context<'_>, &[flags, ..]: &[u64; 6]) -> SysResult {
    let flags = low32(flags);
    if flags & !CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let file = c.k.shmem_open(c.tid, b"secretmem", 0)?;
    ret(u64::from(c.k.install_fd(c.tid, file, flags != 0)?))
}
