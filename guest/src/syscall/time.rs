//! System calls: clocks, sleeping, timers.

use super::{Arg, Context, Entry, Support, ret};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{int, low32};
use crate::platform::Ns;
use crate::signal::frame::{le32, le64};
use crate::task::{Call, Tid};
use crate::time::TimerAction;
use crate::timers::cpu::{Which, clock_of, is_cpu_clock};
use crate::timers::{Armed, MAX_TIMERS, PosixTimer};
use crate::wait::{Block, Cause, Outcome, Restart, SysResult};

const CLOCKS: Arg = Arg::Flags(&[
    ("CLOCK_REALTIME", 0),
    ("CLOCK_MONOTONIC", 1),
    ("CLOCK_PROCESS_CPUTIME_ID", 2),
    ("CLOCK_THREAD_CPUTIME_ID", 3),
    ("CLOCK_MONOTONIC_RAW", 4),
    ("CLOCK_REALTIME_COARSE", 5),
    ("CLOCK_MONOTONIC_COARSE", 6),
    ("CLOCK_BOOTTIME", 7),
]);
const WALL: &str = "sleeps on clocks of processor time take wall time";
const SEC: u64 = 1_000_000_000;
/// Clock ticks of times(2): 100 a second.
const TICK: u64 = SEC / 100;

const fn refused(number: u32, name: &'static str) -> Entry {
    Entry {
        number,
        name,
        args: &[Arg::Hex, Arg::Hex],
        support: Support::Refused(Errno::EPERM, "the clock is the host's"),
        handler: |_, _| Err(Errno::EPERM),
    }
}

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::full(35, "nanosleep", &[Arg::Ptr, Arg::Ptr], nanosleep),
    Entry::full(36, "getitimer", &[Arg::Int, Arg::Ptr], getitimer),
    Entry::full(37, "alarm", &[Arg::Uint], alarm),
    Entry::full(38, "setitimer", &[Arg::Int, Arg::Ptr, Arg::Ptr], setitimer),
    Entry::full(96, "gettimeofday", &[Arg::Ptr, Arg::Ptr], gettimeofday),
    Entry::partial(98, "getrusage", &[Arg::Int, Arg::Ptr], "times and the resident size only", getrusage),
    Entry::full(100, "times", &[Arg::Ptr], times),
    refused(164, "settimeofday"),
    Entry::full(201, "time", &[Arg::Ptr], time),
    Entry::full(222, "timer_create", &[CLOCKS, Arg::Ptr, Arg::Ptr], timer_create),
    Entry::full(223, "timer_settime", &[Arg::Int, Arg::Int, Arg::Ptr, Arg::Ptr], timer_settime),
    Entry::full(224, "timer_gettime", &[Arg::Int, Arg::Ptr], timer_gettime),
    Entry::full(225, "timer_getoverrun", &[Arg::Int], timer_getoverrun),
    Entry::full(226, "timer_delete", &[Arg::Int], timer_delete),
    refused(227, "clock_settime"),
    Entry::full(228, "clock_gettime", &[CLOCKS, Arg::Ptr], clock_gettime),
    Entry::full(229, "clock_getres", &[CLOCKS, Arg::Ptr], clock_getres),
    Entry::partial(230, "clock_nanosleep", &[CLOCKS, Arg::Hex, Arg::Ptr, Arg::Ptr], WALL, clock_nanosleep),
];

/// Seconds and ns as ns (saturating). EINVAL when negative or not normal.
pub fn to_ns(sec: u64, nsec: u64) -> Result<Ns, Errno> {
    if sec.cast_signed() < 0 || nsec >= SEC {
        return Err(Errno::EINVAL);
    }
    Ok(sec.saturating_mul(SEC).saturating_add(nsec))
}

/// Reads a `struct timespec` as ns (saturating). EFAULT; EINVAL when negative or not normal.
pub fn timespec(c: &mut Context<'_>, va: u64) -> Result<Ns, Errno> {
    let b = c.k.copy_in_vec(c.tid, va, 16)?;
    to_ns(le64(&b, 0), le64(&b, 8))
}

/// ns as seconds and ns.
pub fn split(ns: Ns) -> [u64; 2] {
    [ns / SEC, ns % SEC]
}

fn micros(ns: Ns) -> [u64; 2] {
    [ns / SEC, ns % SEC / 1000]
}

/// Rounded up: an armed timer never shows 0.
fn micros_up(ns: Ns) -> [u64; 2] {
    let us = ns.div_ceil(1000);
    [us / 1_000_000, us % 1_000_000]
}

/// The time on `CLOCK_MONOTONIC` at which `CLOCK_REALTIME` shows `at`.
pub fn realtime_deadline(k: &Kernel, at: Ns) -> Ns {
    let (mono, real) = (k.platform.monotonic(), k.platform.realtime());
    if at >= real { mono.saturating_add(at - real) } else { mono.saturating_sub(real - at) }
}

fn now(c: &Context<'_>, clock: i32) -> Result<Ns, Errno> {
    Ok(match clock {
        0 | 5 | 8 | 11 => c.k.platform.realtime(),
        1 | 4 | 6 | 7 | 9 => c.k.platform.monotonic(),
        x if is_cpu_clock(x) => c.k.cpu_clock(c.tid, x)?,
        _ => return Err(Errno::EINVAL),
    })
}

fn clock_gettime(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [clock, out, ..] = *a;
    let t = now(c, int(clock))?;
    c.put_words(out, &split(t))?;
    ret(0)
}

fn clock_getres(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [clock, out, ..] = *a;
    now(c, int(clock))?;
    let res = if matches!(int(clock), 5 | 6) { 4_000_000 } else { 1 };
    if out != 0 {
        c.put_words(out, &[0, res])?;
    }
    ret(0)
}

fn gettimeofday(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [tv, tz, ..] = *a;
    let t = c.k.platform.realtime();
    if tv != 0 {
        c.put_words(tv, &micros(t))?;
    }
    if tz != 0 {
        c.put_words(tz, &[0])?;
    }
    ret(0)
}

fn time(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [out, ..] = *a;
    let t = c.k.platform.realtime() / SEC;
    if out != 0 {
        c.k.put_u64(c.tid, out, t)?;
    }
    ret(t)
}

fn times(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [out, ..] = *a;
    let pid = c.pid()?;
    let (user, system) = c.k.process_times(pid);
    let (children, kernel) =
        c.k.processes.get(&pid).map_or((0, 0), |p| (p.aux.child_cpu_ns, p.aux.child_system_ns));
    if out != 0 {
        c.put_words(out, &[user, system, children, kernel].map(|ns| ns / TICK))?;
    }
    ret(c.k.platform.monotonic() / TICK)
}

/// `struct rusage` with user and system time, ns.
pub fn rusage((user, system): (Ns, Ns)) -> [u64; 18] {
    let mut r = [0; 18];
    let ([us, uu], [ss, su]) = (micros(user), micros(system));
    for (to, x) in r.iter_mut().zip([us, uu, ss, su]) {
        *to = x;
    }
    r
}

fn getrusage(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [who, out, ..] = *a;
    let pid = c.pid()?;
    let times = match int(who) {
        0 => c.k.process_times(pid),
        -1 => c.k.processes.get(&pid).map_or((0, 0), |p| (p.aux.child_cpu_ns, p.aux.child_system_ns)),
        1 => c.k.task(c.tid).map_or((0, 0), |t| c.k.task_times(t)),
        _ => return Err(Errno::EINVAL),
    };
    let mut r = rusage(times);
    if let Some(x) = r.get_mut(4) {
        *x = c.k.platform.resident() / 1024;
    }
    c.put_words(out, &r)?;
    ret(0)
}

fn sleep_until(c: &Context<'_>, deadline: Ns, relative: bool) -> SysResult {
    let resume = c.k.task(c.tid).and_then(|t| t.resume);
    if resume.is_some_and(|r| r.cause == Cause::TimedOut) || c.k.platform.monotonic() >= deadline {
        return ret(0);
    }
    let restart = if relative { Restart::WithDeadline } else { Restart::UnlessHandler };
    Ok(Outcome::Block(Block { on: Vec::new(), deadline: Some(deadline), relative, restart, memo: [0; 2] }))
}

fn first_deadline(c: &Context<'_>) -> Option<Ns> {
    c.k.task(c.tid).and_then(|t| t.resume).and_then(|r| r.deadline)
}

fn nanosleep(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [req, ..] = *a;
    let deadline = match first_deadline(c) {
        Some(d) => d,
        None => timespec(c, req)?.saturating_add(c.k.platform.monotonic()),
    };
    sleep_until(c, deadline, true)
}

fn clock_nanosleep(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [clock, flags, req, ..] = *a;
    let clock = int(clock);
    match clock {
        0 | 1 | 2 | 7 | 8 | 9 | 11 => {}
        3..=6 => return Err(Errno::EOPNOTSUPP),
        // Clocks of threads cannot be slept on.
        x if x < 0 && x & 4 == 0 => drop(now(c, x)?),
        _ => return Err(Errno::EINVAL),
    }
    let absolute = int(flags) & 1 != 0;
    let deadline = match first_deadline(c) {
        Some(d) => d,
        None => {
            let t = timespec(c, req)?;
            let mono = c.k.platform.monotonic();
            match (absolute, clock) {
                (false, _) => t.saturating_add(mono),
                (true, 0 | 8 | 11) => realtime_deadline(c.k, t),
                (true, 1 | 7 | 9) => t,
                (true, _) => mono.saturating_add(t.saturating_sub(now(c, clock)?)),
            }
        }
    };
    sleep_until(c, deadline, !absolute)
}

/// A relative sleep ends with EINTR: says how much was left.
pub fn write_remaining_sleep(k: &mut Kernel, tid: Tid, call: &Call, block: &Block) {
    let [_, nano_rem, _, clock_rem, ..] = call.args;
    let rem = match call.number {
        35 => nano_rem,
        230 => clock_rem,
        _ => return super::poll::write_remaining(k, tid, call, block.deadline),
    };
    if rem == 0 || !block.relative {
        return;
    }
    let left = block.deadline.unwrap_or(0).saturating_sub(k.platform.monotonic());
    let mut b = Vec::new();
    for w in split(left) {
        b.extend(w.to_le_bytes());
    }
    // Linux turns a bad address into EFAULT here; the call has slept already, EINTR is what callers look for.
    let _ = k.copy_out(tid, rem, &b);
}

fn remaining(c: &Context<'_>, t: &Armed) -> Ns {
    remaining_on(t, c.k.platform.monotonic())
}

fn itimer(c: &Context<'_>, which: i32) -> Result<Armed, Errno> {
    let timers = &c.k.process_of(c.tid).ok_or(Errno::ESRCH)?.aux.timers;
    let [virt, prof] = timers.cpu;
    match which {
        0 => Ok(timers.real),
        1 => Ok(virt),
        2 => Ok(prof),
        _ => Err(Errno::EINVAL),
    }
}

/// What an armed timer's own clock shows: of ITIMER_REAL, ITIMER_VIRTUAL or ITIMER_PROF. EINVAL.
fn interval_clock(c: &Context<'_>, which: i32) -> Result<Ns, Errno> {
    let (user, system) = c.k.process_times(c.pid()?);
    match which {
        0 => Ok(c.k.platform.monotonic()),
        1 => Ok(user),
        2 => Ok(user.saturating_add(system)),
        _ => Err(Errno::EINVAL),
    }
}

/// Time left on a timer whose clock shows `now`; 0 only when it is not armed.
fn remaining_on(t: &Armed, now: Ns) -> Ns {
    if t.at == 0 { 0 } else { t.at.saturating_sub(now).max(1) }
}

fn put_itimer(c: &mut Context<'_>, out: u64, t: &Armed, left: Ns) -> Result<(), Errno> {
    let ([is, iu], [vs, vu]) = (micros(t.interval), micros_up(left));
    c.put_words(out, &[is, iu, vs, vu])
}

fn getitimer(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [which, out, ..] = *a;
    let t = itimer(c, int(which))?;
    let left = remaining_on(&t, interval_clock(c, int(which))?);
    put_itimer(c, out, &t, left)?;
    ret(0)
}

fn timeval(b: &[u8], at: usize) -> Result<Ns, Errno> {
    let usec = le64(b, at + 8);
    if usec >= 1_000_000 { Err(Errno::EINVAL) } else { to_ns(le64(b, at), usec * 1000) }
}

fn setitimer(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [which, new, old, ..] = *a;
    let (mut interval, mut value) = (0, 0);
    if new != 0 {
        let b = c.k.copy_in_vec(c.tid, new, 32)?;
        (interval, value) = (timeval(&b, 0)?, timeval(&b, 16)?);
    }
    let was = itimer(c, int(which))?;
    let left = remaining_on(&was, interval_clock(c, int(which))?);
    let at = if value == 0 { 0 } else { c.k.platform.monotonic().saturating_add(value) };
    let pid = c.pid()?;
    match int(which) {
        0 => c.k.arm_timer(&TimerAction::IntervalReal(pid), at, interval, true),
        n => {
            let slot = if n == 1 { 0 } else { 1 };
            let at = if value == 0 { 0 } else { interval_clock(c, n)?.saturating_add(value) };
            c.k.arm_cpu_timer(pid, Which::Interval(slot), at, interval);
        }
    }
    if old != 0 {
        put_itimer(c, old, &was, left)?;
    }
    ret(0)
}

fn alarm(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [seconds, ..] = *a;
    let was = itimer(c, 0)?;
    let left = remaining(c, &was);
    let value = u64::from(low32(seconds)) * SEC;
    let at = if value == 0 { 0 } else { c.k.platform.monotonic().saturating_add(value) };
    let pid = c.pid()?;
    c.k.arm_timer(&TimerAction::IntervalReal(pid), at, 0, true);
    // Rounded to the nearest second, but never to 0 while it was armed.
    let whole = left.saturating_add(SEC / 2) / SEC;
    ret(if left != 0 { whole.max(1) } else { 0 })
}

fn posix(c: &Context<'_>, id: u64) -> Result<PosixTimer, Errno> {
    let timers = &c.k.process_of(c.tid).ok_or(Errno::ESRCH)?.aux.timers;
    timers.posix.get(&int(id)).copied().ok_or(Errno::EINVAL)
}

fn timer_create(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [clock, event, out, ..] = *a;
    let clock = int(clock);
    if !matches!(clock, 0..=3 | 7 | 8 | 9 | 11) && clock >= 0 {
        return Err(if matches!(clock, 4..=6) { Errno::EOPNOTSUPP } else { Errno::EINVAL });
    }
    now(c, clock)?;
    let pid = c.pid()?;
    let timers = &c.k.process_of(c.tid).ok_or(Errno::ESRCH)?.aux.timers;
    if timers.posix.len() >= MAX_TIMERS {
        return Err(Errno::EAGAIN);
    }
    let mut id = timers.next_id;
    while timers.posix.contains_key(&id) {
        id = id.wrapping_add(1) & i32::MAX;
    }
    let (mut signo, mut value, mut thread) = (14, u64::from(id.cast_unsigned()), 0);
    if event != 0 {
        let b = c.k.copy_in_vec(c.tid, event, 64)?;
        value = le64(&b, 0);
        let (sig, notify) = (le32(&b, 8).cast_signed(), le32(&b, 12));
        let valid = u32::try_from(sig).ok().filter(|s| (1..=64).contains(s));
        signo = match notify {
            0 | 2 => valid.ok_or(Errno::EINVAL)?,
            1 => 0,
            4 => {
                thread = le32(&b, 16);
                if c.k.task(thread).is_none_or(|t| t.pid != pid) {
                    return Err(Errno::EINVAL);
                }
                valid.ok_or(Errno::EINVAL)?
            }
            _ => return Err(Errno::EINVAL),
        };
    }
    c.k.put_u32(c.tid, out, id.cast_unsigned())?;
    // The clock of the caller, whoever asks later.
    let clock = match clock {
        2 => clock_of(pid, false),
        3 => clock_of(c.tid, true),
        other => other,
    };
    let timer = PosixTimer {
        clock,
        signo,
        value,
        thread,
        armed: Armed::default(),
        overrun: 0,
        last_overrun: 0,
        queued: false,
    };
    let timers = &mut c.k.process_of_mut(c.tid).ok_or(Errno::ESRCH)?.aux.timers;
    timers.posix.insert(id, timer);
    timers.next_id = id.wrapping_add(1) & i32::MAX;
    ret(0)
}

fn put_itimerspec(c: &mut Context<'_>, out: u64, t: &Armed, left: Ns) -> Result<(), Errno> {
    let ([is, inn], [vs, vn]) = (split(t.interval), split(left));
    c.put_words(out, &[is, inn, vs, vn])
}

/// The time on the clock that a timer's expiry is on. A thread's clock stands still once the thread has ended.
fn timer_clock(c: &Context<'_>, t: &PosixTimer) -> Result<Ns, Errno> {
    if is_cpu_clock(t.clock) {
        Ok(c.k.cpu_clock(c.tid, t.clock).unwrap_or(0))
    } else {
        Ok(c.k.platform.monotonic())
    }
}

fn timer_settime(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [id, flags, new, old, ..] = *a;
    if new == 0 {
        return Err(Errno::EINVAL);
    }
    let b = c.k.copy_in_vec(c.tid, new, 32)?;
    let (interval, value) = (to_ns(le64(&b, 0), le64(&b, 8))?, to_ns(le64(&b, 16), le64(&b, 24))?);
    let t = posix(c, id)?;
    let absolute = int(flags) & 1 != 0;
    let left = remaining_on(&t.armed, timer_clock(c, &t)?);
    let mono = c.k.platform.monotonic();
    let at = match (value, absolute, t.clock) {
        (0, _, _) => 0,
        (_, true, clock) if is_cpu_clock(clock) => value,
        (_, false, clock) if is_cpu_clock(clock) => timer_clock(c, &t)?.saturating_add(value),
        (_, false, _) => mono.saturating_add(value),
        (_, true, 0 | 8 | 11) => realtime_deadline(c.k, value).max(1),
        (_, true, 1 | 7 | 9) => value,
        (_, true, clock) => mono.saturating_add(value.saturating_sub(now(c, clock)?)),
    };
    let pid = c.pid()?;
    if is_cpu_clock(t.clock) {
        c.k.arm_cpu_timer(pid, Which::Posix(int(id)), at, interval);
    } else {
        c.k.arm_timer(&TimerAction::Posix(pid, int(id)), at, interval, !absolute);
    }
    if old != 0 {
        put_itimerspec(c, old, &t.armed, left)?;
    }
    ret(0)
}

fn timer_gettime(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [id, out, ..] = *a;
    let t = posix(c, id)?;
    let left = remaining_on(&t.armed, timer_clock(c, &t)?);
    put_itimerspec(c, out, &t.armed, left)?;
    ret(0)
}

fn timer_getoverrun(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [id, ..] = *a;
    ret(u64::from(posix(c, id)?.last_overrun))
}

fn timer_delete(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [id, ..] = *a;
    posix(c, id)?;
    let pid = c.pid()?;
    c.k.arm_timer(&TimerAction::Posix(pid, int(id)), 0, 0, false);
    if let Some(p) = c.k.process_of_mut(c.tid) {
        p.aux.timers.posix.remove(&int(id));
    }
    ret(0)
}
