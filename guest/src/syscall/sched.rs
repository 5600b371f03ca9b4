//! System calls: scheduling attributes. Policies, priorities, nice values and affinities are recorded and reported; all tasks share the
//! sandbox's processors evenly.

use super::info::task_of;
use super::{Arg, Context, Entry, ret};
use crate::errno::Errno;
use crate::num::{int, low32, u64_of, us};
use crate::signal::frame::{le32, le64, put};
use crate::task::Tid;
use crate::task::creds::cap;
use crate::wait::SysResult;

const FIXED: &str = "recorded without effect: all tasks share the sandbox's CPUs evenly";
/// SCHED_RESET_ON_FORK in a policy.
const RESET: u32 = 0x4000_0000;
/// Time slice that SCHED_RR reports, ns.
const SLICE: u64 = 100_000_000;
/// Bytes of `struct sched_attr`, and of its first version.
const ATTR: usize = 56;
const ATTR_FIRST: usize = 48;

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::full(24, "sched_yield", &[], sched_yield),
    Entry::partial(142, "sched_setparam", &[Arg::Int, Arg::Ptr], FIXED, sched_setparam),
    Entry::full(143, "sched_getparam", &[Arg::Int, Arg::Ptr], sched_getparam),
    Entry::partial(144, "sched_setscheduler", &[Arg::Int, Arg::Int, Arg::Ptr], FIXED, sched_setscheduler),
    Entry::full(145, "sched_getscheduler", &[Arg::Int], sched_getscheduler),
    Entry::full(146, "sched_get_priority_max", &[Arg::Int], |_, a| priority_limit(a, 99)),
    Entry::full(147, "sched_get_priority_min", &[Arg::Int], |_, a| priority_limit(a, 1)),
    Entry::full(148, "sched_rr_get_interval", &[Arg::Int, Arg::Ptr], sched_rr_get_interval),
    Entry::full(203, "sched_setaffinity", &[Arg::Int, Arg::Uint, Arg::Ptr], sched_setaffinity),
    Entry::full(204, "sched_getaffinity", &[Arg::Int, Arg::Uint, Arg::Ptr], sched_getaffinity),
    Entry::partial(251, "ioprio_set", &[Arg::Int, Arg::Int, Arg::Int], FIXED, ioprio_set),
    Entry::full(252, "ioprio_get", &[Arg::Int, Arg::Int], ioprio_get),
    Entry::partial(314, "sched_setattr", &[Arg::Int, Arg::Ptr, Arg::Hex], FIXED, sched_setattr),
    Entry::full(315, "sched_getattr", &[Arg::Int, Arg::Ptr, Arg::Uint, Arg::Hex], sched_getattr),
];

fn sched_yield(c: &mut Context<'_>, _: &[u64; 6]) -> SysResult {
    c.k.sched.yield_now(c.vcpu.index());
    ret(0)
}

/// The task of a call that takes only positive ids. EINVAL, ESRCH.
fn target(c: &Context<'_>, pid: u64) -> Result<Tid, Errno> {
    if int(pid) < 0 { Err(Errno::EINVAL) } else { task_of(c, pid) }
}

/// Whether the caller may change a task's attributes: its own user's, or all as user 0. EPERM.
fn may_change(c: &Context<'_>, tid: Tid) -> Result<bool, Errno> {
    let (Some(me), Some(it)) = (c.k.process_of(c.tid), c.k.process_of(tid)) else { return Err(Errno::ESRCH) };
    let root = me.creds.can(cap::SYS_NICE);
    if root || me.creds.euid == it.creds.euid || me.creds.euid == it.creds.uid {
        Ok(root)
    } else {
        Err(Errno::EPERM)
    }
}

/// Sets policy and priority. EINVAL where they do not fit, EPERM for real time as another user than 0.
fn set_policy(c: &mut Context<'_>, tid: Tid, policy: u32, priority: u32) -> Result<(), Errno> {
    match (policy & !RESET, priority) {
        (0 | 3 | 5, 0) | (1 | 2, 1..=99) => {}
        _ => return Err(Errno::EINVAL),
    }
    let root = may_change(c, tid)?;
    let real_time = matches!(policy & !RESET, 1 | 2);
    if real_time && !root {
        return Err(Errno::EPERM);
    }
    let task = c.k.task_mut(tid).ok_or(Errno::ESRCH)?;
    // Leaving SCHED_IDLE is a rise in priority, which a user may do within the limits of nice.
    task.aux.policy = policy;
    task.aux.priority = priority;
    Ok(())
}

fn sched_setparam(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, param, ..] = *a;
    if param == 0 || int(pid) < 0 {
        return Err(Errno::EINVAL);
    }
    let priority = c.k.get_u32(c.tid, param)?;
    let tid = target(c, pid)?;
    let policy = c.k.task(tid).map_or(0, |t| t.aux.policy);
    set_policy(c, tid, policy, priority)?;
    ret(0)
}

fn sched_getparam(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, param, ..] = *a;
    if param == 0 {
        return Err(Errno::EINVAL);
    }
    let tid = target(c, pid)?;
    let priority = c.k.task(tid).map_or(0, |t| t.aux.priority);
    c.k.put_u32(c.tid, param, priority)?;
    ret(0)
}

fn sched_setscheduler(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, policy, param, ..] = *a;
    if int(policy) < 0 || param == 0 || int(pid) < 0 {
        return Err(Errno::EINVAL);
    }
    let priority = c.k.get_u32(c.tid, param)?;
    let tid = target(c, pid)?;
    set_policy(c, tid, low32(policy), priority)?;
    ret(0)
}

fn sched_getscheduler(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, ..] = *a;
    let tid = target(c, pid)?;
    ret(c.k.task(tid).map_or(0, |t| u64::from(t.aux.policy)))
}

fn priority_limit(a: &[u64; 6], real_time: u64) -> SysResult {
    let [policy, ..] = *a;
    match int(policy) {
        1 | 2 => ret(real_time),
        0 | 3 | 5 | 6 => ret(0),
        _ => Err(Errno::EINVAL),
    }
}

fn sched_rr_get_interval(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, out, ..] = *a;
    let tid = target(c, pid)?;
    // As on Linux a SCHED_FIFO task has no slice; others report what they would get.
    let slice = if c.k.task(tid).is_some_and(|t| t.aux.policy & !RESET == 1) { 0 } else { SLICE };
    c.put_words(out, &[0, slice])?;
    ret(0)
}

fn sched_getattr(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, out, size, flags, ..] = *a;
    let size = us(u64::from(low32(size)));
    if out == 0 || int(pid) < 0 || low32(flags) != 0 || !(ATTR_FIRST..=4096).contains(&size) {
        return Err(Errno::EINVAL);
    }
    let tid = target(c, pid)?;
    let aux = c.k.task(tid).map(|t| t.aux.clone()).unwrap_or_default();
    let mut b = [0; ATTR];
    let whole = size.min(ATTR);
    put(&mut b, 0, &low32(u64_of(whole)).to_le_bytes());
    put(&mut b, 4, &(aux.policy & !RESET).to_le_bytes());
    put(&mut b, 8, &u64::from(aux.policy & RESET != 0).to_le_bytes());
    let real_time = matches!(aux.policy & !RESET, 1 | 2);
    put(&mut b, 16, &(if real_time { 0 } else { aux.nice }).to_le_bytes());
    put(&mut b, 20, &aux.priority.to_le_bytes());
    c.k.copy_out(c.tid, out, b.get(..whole).unwrap_or_default())?;
    ret(0)
}

fn sched_setattr(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, attr, flags, ..] = *a;
    if attr == 0 || int(pid) < 0 || low32(flags) != 0 {
        return Err(Errno::EINVAL);
    }
    let size = match us(u64::from(c.k.get_u32(c.tid, attr)?)) {
        0 => ATTR_FIRST,
        n if (ATTR_FIRST..=4096).contains(&n) => n,
        _ => {
            c.k.put_u32(c.tid, attr, low32(u64_of(ATTR)))?;
            return Err(Errno::E2BIG);
        }
    };
    let b = c.k.copy_in_vec(c.tid, attr, size)?;
    if b.iter().skip(ATTR).any(|x| *x != 0) {
        return Err(Errno::E2BIG);
    }
    let tid = target(c, pid)?;
    let (policy, flags, nice) = (le32(&b, 4), le64(&b, 8), le32(&b, 16).cast_signed());
    // SCHED_FLAG_RESET_ON_FORK, KEEP_POLICY, KEEP_PARAMS; there is no bandwidth to give.
    if policy.cast_signed() < 0 || flags & !0x19 != 0 {
        return Err(Errno::EINVAL);
    }
    if policy == 6 {
        return Err(Errno::EPERM);
    }
    let old = c.k.task(tid).map(|t| t.aux.clone()).unwrap_or_default();
    let policy = if flags & 8 != 0 { old.policy & !RESET } else { policy };
    let reset = if flags & 1 != 0 { RESET } else { 0 };
    let priority = if flags & 0x10 != 0 { old.priority } else { le32(&b, 20) };
    set_policy(c, tid, policy | reset, priority)?;
    if !matches!(policy, 1 | 2) && flags & 0x10 == 0 {
        super::info::set_nice(c, tid, nice)?;
    }
    ret(0)
}

/// The CPUs as a mask of whole 64-bit words.
fn cpu_mask(cpus: usize) -> Vec<u8> {
    let cpus = cpus.clamp(1, 1024);
    let mut mask = vec![0; cpus.div_ceil(64) * 8];
    for (i, byte) in mask.iter_mut().enumerate() {
        for bit in 0..8u8 {
            if i * 8 + usize::from(bit) < cpus {
                *byte |= 1 << bit;
            }
        }
    }
    mask
}

fn sched_getaffinity(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, len, out, ..] = *a;
    let len = u64::from(low32(len));
    let mut mask = cpu_mask(c.k.limits.cpus);
    if len.saturating_mul(8) < u64_of(c.k.limits.cpus) || len % 8 != 0 {
        return Err(Errno::EINVAL);
    }
    let tid = task_of(c, pid).map_err(|_| Errno::ESRCH)?;
    let set = c.k.task(tid).map(|t| t.aux.affinity.clone()).unwrap_or_default();
    // A set that holds none of the CPUs (the sandbox has fewer now) counts as all.
    if set.iter().zip(&mask).any(|(s, m)| s & m != 0) {
        for (m, s) in mask.iter_mut().zip(set.iter().chain(std::iter::repeat(&0))) {
            *m &= *s;
        }
    }
    let n = mask.len().min(us(len));
    c.k.copy_out(c.tid, out, mask.get(..n).unwrap_or_default())?;
    ret(u64_of(n))
}

fn sched_setaffinity(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, len, va, ..] = *a;
    let mask = cpu_mask(c.k.limits.cpus);
    let wanted = c.k.copy_in_vec(c.tid, va, us(u64::from(low32(len))).min(mask.len()))?;
    let tid = task_of(c, pid).map_err(|_| Errno::ESRCH)?;
    may_change(c, tid)?;
    if !wanted.iter().zip(&mask).any(|(w, m)| w & m != 0) {
        return Err(Errno::EINVAL);
    }
    let task = c.k.task_mut(tid).ok_or(Errno::ESRCH)?;
    task.aux.affinity = wanted;
    let (vcpus, state) = (task.aux.vcpus(), task.state.clone());
    c.k.sched.set_bound();
    // One that runs where it may not any more moves at its next exit.
    if let crate::task::TaskState::Running(vcpu) = state
        && tid != c.tid
        && !c.k.sched.allows(vcpus, vcpu)
    {
        c.k.platform.kick(vcpu);
    }
    ret(0)
}

/// The tasks of ioprio_get(2)'s kinds: a process, a group, a user.
fn io_targets(c: &Context<'_>, which: u64, who: u64) -> Result<Vec<Tid>, Errno> {
    let which = match int(which) {
        n @ 1..=3 => n - 1,
        _ => return Err(Errno::EINVAL),
    };
    super::info::nice_targets(c, u64::from(which.unsigned_abs()), who)
}

fn ioprio_set(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [which, who, prio, ..] = *a;
    let (class, level) = (low32(prio) >> 13 & 7, low32(prio) & 7);
    if class > 3 || (class == 0 && level != 0) {
        return Err(Errno::EINVAL);
    }
    let targets = io_targets(c, which, who)?;
    let root = c.k.capable(c.tid, cap::SYS_NICE) || c.k.capable(c.tid, cap::SYS_ADMIN);
    if class == 1 && !root {
        return Err(Errno::EPERM);
    }
    for tid in targets {
        may_change(c, tid)?;
        if let Some(t) = c.k.task_mut(tid) {
            t.aux.ioprio = low32(prio) & 0xffff;
        }
    }
    ret(0)
}

fn ioprio_get(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [which, who, ..] = *a;
    let targets = io_targets(c, which, who)?;
    // Nothing was set: IOPRIO_CLASS_BE (as nice has it), level 4.
    let of = |t: &crate::task::Task| if t.aux.ioprio == 0 { 2 << 13 | 4 } else { t.aux.ioprio };
    ret(targets.iter().filter_map(|t| c.k.task(*t)).map(|t| u64::from(of(t))).min().unwrap_or(2 << 13 | 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_mask_has_one_bit_for_each_cpu() {
        assert_eq!(cpu_mask(1), [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(cpu_mask(9)[..2], [0xff, 1]);
        assert_eq!(cpu_mask(65).len(), 16);
    }
}
