//! System calls that wait for readiness: poll, select, epoll.

use super::{Arg, Context, Entry, ret, user_range};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{int, low8, low16, low32, u64_of, us};
use crate::poll::epoll::Ctl;
use crate::poll::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, POLLRDNORM, POLLWRNORM};
use crate::task::{Call, Tid};
use crate::vfs::FileKind;
use crate::vfs::file::O_PATH;
use crate::wait::{Block, Outcome, Restart, SysResult, WaitKey};
use std::collections::BTreeSet;

const CLOEXEC: u32 = 0o2_000_000;
/// SIGKILL and SIGSTOP, which no mask blocks.
const UNBLOCKABLE: u64 = 1 << 8 | 1 << 18;

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::full(7, "poll", &[Arg::Ptr, Arg::Uint, Arg::Int], poll),
    Entry::full(23, "select", &[Arg::Int, Arg::Ptr, Arg::Ptr, Arg::Ptr, Arg::Ptr], select),
    Entry::full(213, "epoll_create", &[Arg::Int], epoll_create),
    Entry::full(232, "epoll_wait", &[Arg::Fd, Arg::Ptr, Arg::Int, Arg::Int], epoll_wait),
    Entry::full(233, "epoll_ctl", &[Arg::Fd, Arg::Int, Arg::Fd, Arg::Ptr], epoll_ctl),
    Entry::full(270, "pselect6", &[Arg::Int, Arg::Ptr, Arg::Ptr, Arg::Ptr, Arg::Ptr, Arg::Ptr], pselect6),
    Entry::full(271, "ppoll", &[Arg::Ptr, Arg::Uint, Arg::Ptr, Arg::Ptr, Arg::Uint], ppoll),
    Entry::full(
        281,
        "epoll_pwait",
        &[Arg::Fd, Arg::Ptr, Arg::Int, Arg::Int, Arg::Ptr, Arg::Uint],
        epoll_pwait,
    ),
    Entry::full(291, "epoll_create1", &[Arg::Hex], epoll_create1),
    Entry::full(
        441,
        "epoll_pwait2",
        &[Arg::Fd, Arg::Ptr, Arg::Int, Arg::Ptr, Arg::Ptr, Arg::Uint],
        epoll_pwait2,
    ),
];

/// Whether the call is being tried again after a sleep.
pub(super) fn resumed(c: &Context<'_>) -> bool {
    c.k.task(c.tid).is_some_and(|t| t.resume.is_some())
}

/// When to give up: the deadline of the sleep that ended, or `timeout` ns from now; `None` never.
pub(super) fn deadline(c: &Context<'_>, timeout: Option<u64>) -> Option<u64> {
    match c.k.task(c.tid).and_then(|t| t.resume) {
        Some(r) => r.deadline,
        None => timeout.map(|t| c.k.platform.monotonic().saturating_add(t)),
    }
}

pub(super) fn expired(c: &Context<'_>, deadline: Option<u64>) -> bool {
    deadline.is_some_and(|d| d <= c.k.platform.monotonic())
}

fn sleep(objects: BTreeSet<u64>, deadline: Option<u64>, restart: Restart) -> SysResult {
    let on = objects.into_iter().map(WaitKey::Object).collect();
    Ok(Outcome::Block(Block { on, deadline, relative: true, restart, memo: [0; 2] }))
}

/// A time-out in ms; negative waits for ever.
fn millis(x: u64) -> Option<u64> {
    u64::try_from(int(x)).ok().map(|ms| ms * 1_000_000)
}

/// A pair of seconds and a fraction in units of `unit` ns; no pointer waits for ever. EINVAL, EFAULT.
fn timespec(c: &mut Context<'_>, va: u64, unit: u64) -> Result<Option<u64>, Errno> {
    if va == 0 {
        return Ok(None);
    }
    let seconds = c.k.get_u64(c.tid, va)?;
    let fraction = c.k.get_u64(c.tid, va.wrapping_add(8))?;
    if seconds.cast_signed() < 0 || fraction.cast_signed() < 0 {
        return Err(Errno::EINVAL);
    }
    if unit == 1 && fraction >= 1_000_000_000 {
        return Err(Errno::EINVAL);
    }
    Ok(Some(seconds.saturating_mul(1_000_000_000).saturating_add(fraction.saturating_mul(unit))))
}

/// A call that waits for readiness ends with EINTR: says how much of its time-out was left.
pub fn write_remaining(k: &mut Kernel, tid: Tid, call: &Call, deadline: Option<u64>) {
    let [_, _, third, _, fifth, _] = call.args;
    let (va, unit) = match call.number {
        23 => (fifth, 1000),
        270 => (fifth, 1),
        271 => (third, 1),
        _ => return,
    };
    let Some(deadline) = deadline.filter(|_| va != 0) else { return };
    let left = deadline.saturating_sub(k.platform.monotonic());
    let mut bytes = (left / 1_000_000_000).to_le_bytes().to_vec();
    bytes.extend((left % 1_000_000_000 / unit).to_le_bytes());
    let _ = k.copy_out(tid, va, &bytes);
}

/// Writes back what is left of a time-out. A fault here is ignored, as on Linux.
fn put_left(c: &mut Context<'_>, deadline: Option<u64>) {
    if let Some(call) = c.k.task(c.tid).and_then(|t| t.syscall.clone()) {
        write_remaining(c.k, c.tid, &call, deadline);
    }
}

/// Sets the mask for the length of the call. EINVAL, EFAULT.
pub(super) fn swap_mask(c: &mut Context<'_>, va: u64, size: u64) -> Result<(), Errno> {
    if va == 0 || resumed(c) {
        return Ok(());
    }
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    let mask = c.k.get_u64(c.tid, va)?;
    if let Some(t) = c.k.task_mut(c.tid) {
        t.saved_sigmask = Some(t.sigmask);
        t.sigmask = mask & !UNBLOCKABLE;
    }
    Ok(())
}

/// poll's events of a descriptor.
fn events_of(c: &mut Context<'_>, fd: i32, want: u32, objects: &mut BTreeSet<u64>) -> u32 {
    match c.k.file_of(c.tid, fd) {
        Ok(file) if c.k.open_file(file).is_ok_and(|f| f.flags & O_PATH == 0) => {
            objects.extend(c.k.file_objects(file, want));
            c.k.file_poll(file) & (want | POLLERR | POLLHUP)
        }
        _ => POLLNVAL,
    }
}

fn do_poll(c: &mut Context<'_>, va: u64, count: u64, deadline: Option<u64>, restart: Restart) -> SysResult {
    let count = u64::from(low32(count));
    if count > u64::from(c.k.fd_limit(c.tid)) {
        return Err(Errno::EINVAL);
    }
    user_range(va, count * 8)?;
    let mut bytes = c.k.copy_in_vec(c.tid, va, us(count * 8))?;
    let mut objects = BTreeSet::new();
    let mut ready = 0u64;
    for entry in bytes.chunks_exact_mut(8) {
        let &mut [a, b, d, e, lo, hi, ref mut out_lo, ref mut out_hi] = entry else { continue };
        let fd = i32::from_le_bytes([a, b, d, e]);
        let want = u32::from(u16::from_le_bytes([lo, hi]));
        let got = if fd < 0 { 0 } else { events_of(c, fd, want, &mut objects) };
        [*out_lo, *out_hi] = low16(u64::from(got)).to_le_bytes();
        ready += u64::from(got != 0);
    }
    if ready == 0 && !expired(c, deadline) {
        return sleep(objects, deadline, restart);
    }
    for (i, entry) in (0u64..).zip(bytes.chunks_exact(8)) {
        // Only revents is the kernel's to write.
        c.k.copy_out(c.tid, va.wrapping_add(i * 8 + 6), entry.get(6..8).unwrap_or_default())?;
    }
    ret(ready)
}

fn poll(c: &mut Context<'_>, &[va, count, timeout, ..]: &[u64; 6]) -> SysResult {
    let deadline = deadline(c, millis(timeout));
    do_poll(c, va, count, deadline, Restart::WithDeadline)
}

fn ppoll(c: &mut Context<'_>, &[va, count, timeout, mask, size, _]: &[u64; 6]) -> SysResult {
    let limit = if resumed(c) { None } else { timespec(c, timeout, 1)? };
    let deadline = deadline(c, limit);
    swap_mask(c, mask, size)?;
    let result = do_poll(c, va, count, deadline, Restart::UnlessHandler);
    if !matches!(result, Ok(Outcome::Block(_))) {
        put_left(c, deadline);
    }
    result
}

fn do_select(c: &mut Context<'_>, n: u64, sets: [u64; 3], deadline: Option<u64>) -> SysResult {
    let n = u32::try_from(int(n)).map_err(|_| Errno::EINVAL)?;
    // Linux looks only at as many as the table could hold.
    let n = n.min(c.k.fd_limit(c.tid));
    let len = us(u64::from(n.div_ceil(64)) * 8);
    let masks = [
        POLLIN | POLLRDNORM | POLLHUP | POLLERR | POLLNVAL,
        POLLOUT | POLLWRNORM | POLLERR | POLLNVAL,
        POLLPRI | POLLNVAL,
    ];
    let mut objects = BTreeSet::new();
    let mut results = Vec::new();
    let mut ready = 0u64;
    let mut wanted = Vec::new();
    for va in sets {
        wanted.push(if va == 0 { Vec::new() } else { c.k.copy_in_vec(c.tid, va, len)? });
    }
    for ((va, mask), set) in sets.into_iter().zip(masks).zip(wanted) {
        let mut out = vec![0u8; set.len()];
        for fd in 0..n {
            let at = us(u64::from(fd / 8));
            let bit = low8(1 << (fd % 8));
            if set.get(at).is_none_or(|b| b & bit == 0) {
                continue;
            }
            c.k.file_of(c.tid, fd.cast_signed())?;
            // What only names a file (O_PATH) is always ready for all: POLLNVAL.
            let got = events_of(c, fd.cast_signed(), mask, &mut objects);
            if let (true, Some(b)) = (got & mask != 0, out.get_mut(at)) {
                *b |= bit;
                ready += 1;
            }
        }
        results.push((va, out));
    }
    if ready == 0 && !expired(c, deadline) {
        return sleep(objects, deadline, Restart::UnlessHandler);
    }
    for (va, out) in results.iter().filter(|(va, _)| *va != 0) {
        c.k.copy_out(c.tid, *va, out)?;
    }
    ret(ready)
}

fn select(c: &mut Context<'_>, &[n, r, w, x, timeout, _]: &[u64; 6]) -> SysResult {
    let limit = if resumed(c) { None } else { timespec(c, timeout, 1000)? };
    let deadline = deadline(c, limit);
    let result = do_select(c, n, [r, w, x], deadline);
    if !matches!(result, Ok(Outcome::Block(_))) {
        put_left(c, deadline);
    }
    result
}

fn pselect6(c: &mut Context<'_>, &[n, r, w, x, timeout, mask]: &[u64; 6]) -> SysResult {
    let limit = if resumed(c) { None } else { timespec(c, timeout, 1)? };
    let deadline = deadline(c, limit);
    if mask != 0 && !resumed(c) {
        let va = c.k.get_u64(c.tid, mask)?;
        let size = c.k.get_u64(c.tid, mask.wrapping_add(8))?;
        swap_mask(c, va, size)?;
    }
    let result = do_select(c, n, [r, w, x], deadline);
    if !matches!(result, Ok(Outcome::Block(_))) {
        put_left(c, deadline);
    }
    result
}

fn epoll_create(c: &mut Context<'_>, &[size, ..]: &[u64; 6]) -> SysResult {
    if int(size) <= 0 {
        return Err(Errno::EINVAL);
    }
    epoll_create1(c, &[0; 6])
}

fn epoll_create1(c: &mut Context<'_>, &[flags, ..]: &[u64; 6]) -> SysResult {
    let flags = low32(flags);
    if flags & !CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let file = c.k.epoll_create_file();
    ret(u64::from(c.k.install_fd(c.tid, file, flags != 0)?))
}

fn epoll_ctl(c: &mut Context<'_>, &[ep, op, fd, event, ..]: &[u64; 6]) -> SysResult {
    let (mut events, mut data) = (0, 0);
    if low32(op) != 2 {
        // struct epoll_event is packed: 4 bytes, then 8.
        events = c.k.get_u32(c.tid, event)?;
        data = c.k.get_u64(c.tid, event.wrapping_add(4))?;
    }
    let set = c.k.usable_file_of(c.tid, int(ep))?;
    let file = c.k.usable_file_of(c.tid, int(fd))?;
    if matches!(c.k.open_file(file)?.kind, FileKind::Inode(_)) {
        return Err(Errno::EPERM);
    }
    let op = match low32(op) {
        1 => Ctl::Add(events, data),
        2 => Ctl::Del,
        3 => Ctl::Mod(events, data),
        _ => return Err(Errno::EINVAL),
    };
    let set = c.k.epoll_of(set)?;
    c.k.epoll_change(set, int(fd), file, op)?;
    ret(0)
}

fn do_epoll_wait(c: &mut Context<'_>, ep: u64, va: u64, max: u64, deadline: Option<u64>) -> SysResult {
    let file = c.k.usable_file_of(c.tid, int(ep))?;
    let max = u32::try_from(int(max)).map_err(|_| Errno::EINVAL)?;
    if max == 0 || max > 0x7fff_ffff / 12 {
        return Err(Errno::EINVAL);
    }
    user_range(va, u64::from(max) * 12)?;
    let set = c.k.epoll_of(file)?;
    let mut found = c.k.epoll_found(set, us(u64::from(max)));
    if found.is_empty() && !expired(c, deadline) {
        // epoll_wait is never restarted (signal(7)).
        return sleep(c.k.file_objects(file, POLLIN).into_iter().collect(), deadline, Restart::Never);
    }
    let mut bytes = Vec::with_capacity(found.len() * 12);
    for f in &found {
        bytes.extend(f.events.to_le_bytes());
        bytes.extend(f.data.to_le_bytes());
    }
    if !bytes.is_empty() {
        // What could not be written stays to be reported.
        let whole = c.k.copy_out_partial(c.tid, va, &bytes)? / 12;
        if whole == 0 {
            return Err(Errno::EFAULT);
        }
        found.truncate(whole);
        c.k.epoll_reported(set, &found);
    }
    ret(u64_of(found.len()))
}

fn epoll_wait(c: &mut Context<'_>, &[ep, va, max, timeout, ..]: &[u64; 6]) -> SysResult {
    let deadline = deadline(c, millis(timeout));
    do_epoll_wait(c, ep, va, max, deadline)
}

fn epoll_pwait(c: &mut Context<'_>, &[ep, va, max, timeout, mask, size]: &[u64; 6]) -> SysResult {
    swap_mask(c, mask, size)?;
    let deadline = deadline(c, millis(timeout));
    do_epoll_wait(c, ep, va, max, deadline)
}

fn epoll_pwait2(c: &mut Context<'_>, &[ep, va, max, timeout, mask, size]: &[u64; 6]) -> SysResult {
    let limit = if resumed(c) { None } else { timespec(c, timeout, 1)? };
    swap_mask(c, mask, size)?;
    let deadline = deadline(c, limit);
    do_epoll_wait(c, ep, va, max, deadline)
}
