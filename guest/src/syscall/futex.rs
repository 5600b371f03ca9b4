//! System calls: futexes and robust lists.

use super::{Arg, Context, Entry, ret};
use crate::errno::Errno;
use crate::num::{int, low32};
use crate::platform::Ns;
use crate::wait::{Block, Cause, Outcome, Restart, SysResult};

mod pi;
mod waitv;

const OPS: Arg = Arg::Flags(&[
    ("FUTEX_WAIT", 0),
    ("FUTEX_WAKE", 1),
    ("FUTEX_REQUEUE", 3),
    ("FUTEX_CMP_REQUEUE", 4),
    ("FUTEX_WAKE_OP", 5),
    ("FUTEX_LOCK_PI", 6),
    ("FUTEX_UNLOCK_PI", 7),
    ("FUTEX_TRYLOCK_PI", 8),
    ("FUTEX_WAIT_BITSET", 9),
    ("FUTEX_WAKE_BITSET", 10),
    ("FUTEX_WAIT_REQUEUE_PI", 11),
    ("FUTEX_CMP_REQUEUE_PI", 12),
    ("FUTEX_LOCK_PI2", 13),
    ("FUTEX_PRIVATE_FLAG", 128),
    ("FUTEX_CLOCK_REALTIME", 256),
]);

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::partial(
        202,
        "futex",
        &[Arg::Ptr, OPS, Arg::Int, Arg::Ptr, Arg::Ptr, Arg::Hex],
        "locks of the PI kind do not inherit priorities",
        futex,
    ),
    Entry::full(273, "set_robust_list", &[Arg::Ptr, Arg::Uint], set_robust_list),
    Entry::full(449, "futex_waitv", &[Arg::Ptr, Arg::Uint, Arg::Hex, Arg::Ptr, Arg::Int], waitv::futex_waitv),
    Entry::full(274, "get_robust_list", &[Arg::Int, Arg::Ptr, Arg::Ptr], get_robust_list),
];

fn set_robust_list(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [head, len, ..] = *a;
    if len != 24 {
        return Err(Errno::EINVAL);
    }
    c.k.task_mut(c.tid).ok_or(Errno::ESRCH)?.robust_list = head;
    ret(0)
}

fn get_robust_list(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [tid, head, len, ..] = *a;
    let tid = if int(tid) == 0 { c.tid } else { u32::try_from(int(tid)).map_err(|_| Errno::ESRCH)? };
    c.k.may_inspect(c.tid, tid, true)?;
    let list = c.k.task(tid).ok_or(Errno::ESRCH)?.robust_list;
    c.k.put_u64(c.tid, len, 24)?;
    c.k.put_u64(c.tid, head, list)?;
    ret(0)
}

fn futex(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [uaddr, op, value, timeout, uaddr2, value3] = *a;
    let op = low32(op);
    let private = op & 128 != 0;
    let realtime = op & 256 != 0;
    let command = op & !(128 | 256);
    // Linux refuses the clock on all but these: WAIT_BITSET, WAIT_REQUEUE_PI, LOCK_PI2.
    if realtime && !matches!(command, 9 | 11 | 13) {
        return Err(Errno::ENOSYS);
    }
    let resume = c.k.task(c.tid).and_then(|t| t.resume);
    let mut deadline = resume.and_then(|r| r.deadline);
    if matches!(command, 0 | 6 | 9 | 11 | 13) && timeout != 0 && resume.is_none() {
        let ns = super::time::timespec(c, timeout)?;
        let clock_real = realtime || command == 6;
        deadline = Some(match command {
            0 => c.k.platform.monotonic().saturating_add(ns),
            _ if clock_real => super::time::realtime_deadline(c.k, ns),
            _ => ns,
        });
    }
    let relative = command == 0;
    let (count, count2) = (low32(value), low32(timeout));
    match command {
        0 => wait(c, uaddr, private, low32(value), u32::MAX, deadline, relative),
        9 => wait(c, uaddr, private, low32(value), low32(value3), deadline, relative),
        1 => wake(c, uaddr, private, count, u32::MAX),
        10 => wake(c, uaddr, private, count, low32(value3)),
        3 => requeue(c, uaddr, uaddr2, private, (count, count2), None),
        4 => requeue(c, uaddr, uaddr2, private, (count, count2), Some(low32(value3))),
        5 => wake_op(c, uaddr, uaddr2, private, (count, count2), low32(value3)),
        6 | 13 => pi::lock(c, uaddr, private, deadline, false),
        8 => pi::lock(c, uaddr, private, None, true),
        7 => c.k.pi_unlock(c.tid, uaddr, private).map(Into::into),
        11 => pi::wait_requeue(c, (uaddr, uaddr2), private, low32(value), low32(value3), deadline),
        12 => pi::cmp_requeue(c, (uaddr, uaddr2), private, (count, count2), low32(value3)),
        _ => Err(Errno::ENOSYS),
    }
}

fn wait(
    c: &mut Context<'_>,
    uaddr: u64,
    private: bool,
    value: u32,
    bitset: u32,
    deadline: Option<Ns>,
    relative: bool,
) -> SysResult {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    // A waiter that was woken does not look at the word again.
    if c.k.futexes.was_woken(c.tid) {
        return ret(0);
    }
    if c.k.task(c.tid).and_then(|t| t.resume).is_some_and(|r| r.cause == Cause::TimedOut) {
        c.k.futexes.forget(c.tid);
        return Err(Errno::ETIMEDOUT);
    }
    let key = c.k.futex_key(c.tid, uaddr, private)?;
    if c.k.futex_load(c.tid, uaddr)? != value {
        return Err(Errno::EAGAIN);
    }
    c.k.futexes.enqueue(key, c.tid, bitset);
    let restart = if deadline.is_some() { Restart::WithDeadline } else { Restart::IfSaRestart };
    Ok(Outcome::Block(Block { on: Vec::new(), deadline, relative, restart, memo: [0; 2] }))
}

fn wake(c: &mut Context<'_>, uaddr: u64, private: bool, count: u32, bitset: u32) -> SysResult {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    let key = c.k.futex_key(c.tid, uaddr, private)?;
    if c.k.futexes.has_lock_waiters(key, bitset) {
        return Err(Errno::EINVAL);
    }
    // As on Linux, a count of 0 or below wakes one.
    let count = if count.cast_signed() <= 0 { 1 } else { count };
    ret(c.k.futex_wake(key, count, bitset))
}

fn requeue(
    c: &mut Context<'_>,
    from: u64,
    to: u64,
    private: bool,
    (wake, moved): (u32, u32),
    expected: Option<u32>,
) -> SysResult {
    if wake.cast_signed() < 0 || moved.cast_signed() < 0 {
        return Err(Errno::EINVAL);
    }
    let from_key = c.k.futex_key(c.tid, from, private)?;
    let to_key = c.k.futex_key(c.tid, to, private)?;
    if let Some(expected) = expected
        && c.k.futex_load(c.tid, from)? != expected
    {
        return Err(Errno::EAGAIN);
    }
    if c.k.futexes.has_lock_waiters(from_key, u32::MAX) {
        return Err(Errno::EINVAL);
    }
    let woken = c.k.futex_wake(from_key, wake, u32::MAX);
    let moved = c.k.futexes.requeue(from_key, to_key, moved);
    ret(woken.saturating_add(moved))
}

fn wake_op(
    c: &mut Context<'_>,
    uaddr: u64,
    uaddr2: u64,
    private: bool,
    (count, count2): (u32, u32),
    encoded: u32,
) -> SysResult {
    let key = c.k.futex_key(c.tid, uaddr, private)?;
    let key2 = c.k.futex_key(c.tid, uaddr2, private)?;
    let op = (encoded >> 28) & 7;
    let cmp = (encoded >> 24) & 15;
    // 12-bit signed fields.
    let sign = |x: u32| ((x << 20).cast_signed() >> 20).cast_unsigned();
    let mut arg = sign((encoded >> 12) & 0xfff);
    let cmparg = sign(encoded & 0xfff).cast_signed();
    if encoded >> 31 != 0 {
        arg = 1u32.checked_shl(arg & 31).unwrap_or(0);
    }
    if op > 4 {
        return Err(Errno::ENOSYS);
    }
    let old = c.k.futex_update(c.tid, uaddr2, |v| {
        Some(match op {
            0 => arg,
            1 => v.wrapping_add(arg),
            2 => v | arg,
            3 => v & !arg,
            _ => v ^ arg,
        })
    })?;
    let old = old.cast_signed();
    let also = match cmp {
        0 => old == cmparg,
        1 => old != cmparg,
        2 => old < cmparg,
        3 => old <= cmparg,
        4 => old > cmparg,
        5 => old >= cmparg,
        _ => return Err(Errno::ENOSYS),
    };
    let at_least_one = |n: u32| if n.cast_signed() <= 0 { 1 } else { n };
    let mut woken = c.k.futex_wake(key, at_least_one(count), u32::MAX);
    if also {
        woken = woken.saturating_add(c.k.futex_wake(key2, at_least_one(count2), u32::MAX));
    }
    ret(woken)
}
