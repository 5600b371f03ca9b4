//! System calls: the system, limits, scheduling attributes, random numbers.

use super::{Arg, Context, Entry, Support, ret, user_range};
use crate::errno::Errno;
use crate::num::{int, low32, u64_of, us};
use crate::signal::frame::{le64, put};
use crate::wait::SysResult;

/// Every capability that this release knows, 41 bits.
pub const ALL_CAPS: u64 = 0x1ff_ffff_ffff;
/// uname(2)'s release and version.
pub const RELEASE: &str = "6.6.0-coppice";
/// uname(2)'s version.
pub const VERSION: &str = "#1 SMP PREEMPT_DYNAMIC";

const fn refused(number: u32, name: &'static str) -> Entry {
    Entry {
        number,
        name,
        args: &[Arg::Hex, Arg::Hex, Arg::Hex],
        support: Support::Refused(Errno::EPERM, "the host's business"),
        handler: |_, _| Err(Errno::EPERM),
    }
}

const FIXED: &str = "recorded or ignored: all tasks share the sandbox's CPUs evenly";

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::full(24, "sched_yield", &[], sched_yield),
    Entry::full(63, "uname", &[Arg::Ptr], uname),
    Entry::full(97, "getrlimit", &[Arg::Int, Arg::Ptr], getrlimit),
    Entry::partial(99, "sysinfo", &[Arg::Ptr], "no swap, no load", sysinfo),
    refused(103, "syslog"),
    Entry::partial(140, "getpriority", &[Arg::Int, Arg::Int], FIXED, getpriority),
    Entry::partial(141, "setpriority", &[Arg::Int, Arg::Int, Arg::Int], FIXED, setpriority),
    Entry::partial(142, "sched_setparam", &[Arg::Int, Arg::Ptr], FIXED, sched_setparam),
    Entry::full(143, "sched_getparam", &[Arg::Int, Arg::Ptr], sched_getparam),
    Entry::partial(144, "sched_setscheduler", &[Arg::Int, Arg::Int, Arg::Ptr], FIXED, sched_setscheduler),
    Entry::full(145, "sched_getscheduler", &[Arg::Int], sched_getscheduler),
    Entry::full(146, "sched_get_priority_max", &[Arg::Int], |_, a| priority_limit(a, 99)),
    Entry::full(147, "sched_get_priority_min", &[Arg::Int], |_, a| priority_limit(a, 1)),
    Entry::full(160, "setrlimit", &[Arg::Int, Arg::Ptr], setrlimit),
    refused(170, "sethostname"),
    refused(171, "setdomainname"),
    Entry::partial(203, "sched_setaffinity", &[Arg::Int, Arg::Uint, Arg::Ptr], FIXED, sched_setaffinity),
    Entry::full(204, "sched_getaffinity", &[Arg::Int, Arg::Uint, Arg::Ptr], sched_getaffinity),
    Entry::partial(251, "ioprio_set", &[Arg::Int, Arg::Int, Arg::Int], FIXED, ioprio_set),
    Entry::full(252, "ioprio_get", &[Arg::Int, Arg::Int], ioprio_get),
    Entry::full(302, "prlimit64", &[Arg::Int, Arg::Int, Arg::Ptr, Arg::Ptr], prlimit64),
    Entry::full(309, "getcpu", &[Arg::Ptr, Arg::Ptr], getcpu),
    Entry::full(318, "getrandom", &[Arg::Out, Arg::Uint, Arg::Hex], getrandom),
];

fn sched_yield(c: &mut Context<'_>, _: &[u64; 6]) -> SysResult {
    c.k.sched.yield_now(c.vcpu.index());
    ret(0)
}

fn uname(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [out, ..] = *a;
    let mut b = [0; 390];
    let host = c.k.identity.hostname.clone();
    for (i, s) in ["Linux", &host, RELEASE, VERSION, "x86_64", "(none)"].iter().enumerate() {
        let s = s.as_bytes();
        put(&mut b, i * 65, s.get(..s.len().min(64)).unwrap_or_default());
    }
    c.k.copy_out(c.tid, out, &b)?;
    ret(0)
}

fn sysinfo(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [out, ..] = *a;
    let total = c.k.limits.memory;
    let free = total.saturating_sub(c.k.platform.resident());
    let procs = u16::try_from(c.k.tasks.len()).unwrap_or(u16::MAX);
    let mut b = [0; 112];
    // uptime, three loads, totalram, freeram, sharedram, bufferram, totalswap, freeswap, procs, totalhigh, freehigh, mem_unit
    put(&mut b, 0, &(c.k.platform.monotonic() / 1_000_000_000).to_le_bytes());
    put(&mut b, 32, &total.to_le_bytes());
    put(&mut b, 40, &free.to_le_bytes());
    put(&mut b, 80, &procs.to_le_bytes());
    put(&mut b, 104, &1u32.to_le_bytes());
    c.k.copy_out(c.tid, out, &b)?;
    ret(0)
}

/// A limit that was never set: what a container commonly has.
fn default_limit(resource: u32) -> (u64, u64) {
    match resource {
        3 => (8 << 20, u64::MAX),
        4 => (0, u64::MAX),
        6 => (u64::MAX, u64::MAX),
        7 => (1024, 1 << 20),
        8 => (8 << 20, 8 << 20),
        11 => (4096, 4096),
        12 => (819_200, 819_200),
        13 | 14 => (0, 0),
        _ => (u64::MAX, u64::MAX),
    }
}

fn limit_target(c: &Context<'_>, pid: u64) -> Result<u32, Errno> {
    if int(pid) == 0 {
        return c.pid();
    }
    let pid = u32::try_from(int(pid)).map_err(|_| Errno::ESRCH)?;
    let pid = c.k.task(pid).map(|t| t.pid).ok_or(Errno::ESRCH)?;
    let (Some(me), Some(it)) = (c.k.process_of(c.tid), c.k.processes.get(&pid)) else {
        return Err(Errno::ESRCH);
    };
    if me.creds.euid == 0 || me.creds.uid == it.creds.uid { Ok(pid) } else { Err(Errno::EPERM) }
}

fn limit(c: &Context<'_>, pid: u32, resource: u64) -> Result<(u64, u64), Errno> {
    let resource = low32(resource);
    if resource > 15 {
        return Err(Errno::EINVAL);
    }
    let set = c.k.processes.get(&pid).and_then(|p| p.rlimits.get(&resource)).copied();
    Ok(set.unwrap_or_else(|| default_limit(resource)))
}

fn set_limit(c: &mut Context<'_>, pid: u32, resource: u64, new: (u64, u64)) -> Result<(), Errno> {
    let (_, hard) = limit(c, pid, resource)?;
    if new.0 > new.1 {
        return Err(Errno::EINVAL);
    }
    if low32(resource) == 7 && new.1 > 1 << 20 {
        return Err(Errno::EPERM);
    }
    let root = c.k.process_of(c.tid).is_some_and(|p| p.creds.euid == 0);
    if new.1 > hard && !root {
        return Err(Errno::EPERM);
    }
    if let Some(p) = c.k.processes.get_mut(&pid) {
        p.rlimits.insert(low32(resource), new);
    }
    Ok(())
}

fn read_limit(c: &mut Context<'_>, va: u64) -> Result<(u64, u64), Errno> {
    let b = c.k.copy_in_vec(c.tid, va, 16)?;
    Ok((le64(&b, 0), le64(&b, 8)))
}

fn getrlimit(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [resource, out, ..] = *a;
    let (soft, hard) = limit(c, c.pid()?, resource)?;
    c.put_words(out, &[soft, hard])?;
    ret(0)
}

fn setrlimit(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [resource, new, ..] = *a;
    let new = read_limit(c, new)?;
    set_limit(c, c.pid()?, resource, new)?;
    ret(0)
}

fn prlimit64(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, resource, new, old, ..] = *a;
    let new = if new == 0 { None } else { Some(read_limit(c, new)?) };
    let pid = limit_target(c, pid)?;
    let was = limit(c, pid, resource)?;
    if let Some(new) = new {
        set_limit(c, pid, resource, new)?;
    }
    if old != 0 {
        c.put_words(old, &[was.0, was.1])?;
    }
    ret(0)
}

fn task_of(c: &Context<'_>, tid: u64) -> Result<u32, Errno> {
    let tid = match int(tid) {
        0 => c.tid,
        x => u32::try_from(x).map_err(|_| Errno::EINVAL)?,
    };
    if c.k.task(tid).is_some() { Ok(tid) } else { Err(Errno::ESRCH) }
}

fn nice_targets(c: &Context<'_>, which: u64, who: u64) -> Result<Vec<u32>, Errno> {
    let found: Vec<u32> = match int(which) {
        0 => task_of(c, who).map_err(|_| Errno::ESRCH).into_iter().collect(),
        1 => {
            let own = c.k.process_of(c.tid).map_or(0, |p| p.pgid);
            let group = if int(who) == 0 { own } else { low32(who) };
            let members = c.k.processes.values().filter(|p| p.pgid == group);
            members.flat_map(|p| p.threads.iter().copied()).collect()
        }
        2 => {
            let own = c.k.process_of(c.tid).map_or(0, |p| p.creds.uid);
            let user = if int(who) == 0 { own } else { low32(who) };
            let members = c.k.processes.values().filter(|p| p.creds.uid == user);
            members.flat_map(|p| p.threads.iter().copied()).collect()
        }
        _ => return Err(Errno::EINVAL),
    };
    if found.is_empty() { Err(Errno::ESRCH) } else { Ok(found) }
}

fn getpriority(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [which, who, ..] = *a;
    let tids = nice_targets(c, which, who)?;
    let best = tids.iter().filter_map(|t| c.k.task(*t)).map(|t| t.aux.nice).min().unwrap_or(0);
    // 1..=40, so that no value looks like an error.
    ret(u64::from((20 - best).unsigned_abs()))
}

fn setpriority(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [which, who, nice, ..] = *a;
    if !(0..=2).contains(&int(which)) {
        return Err(Errno::EINVAL);
    }
    let nice = int(nice).clamp(-20, 19);
    let root = c.k.process_of(c.tid).is_some_and(|p| p.creds.euid == 0);
    for tid in nice_targets(c, which, who)? {
        if let Some(t) = c.k.task_mut(tid) {
            if nice < t.aux.nice && !root {
                return Err(Errno::EACCES);
            }
            t.aux.nice = nice;
        }
    }
    ret(0)
}

fn sched_setparam(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, param, ..] = *a;
    if param == 0 || int(pid) < 0 {
        return Err(Errno::EINVAL);
    }
    let priority = c.k.get_u32(c.tid, param)?;
    task_of(c, pid)?;
    if priority == 0 { ret(0) } else { Err(Errno::EINVAL) }
}

fn sched_getparam(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, param, ..] = *a;
    if param == 0 || int(pid) < 0 {
        return Err(Errno::EINVAL);
    }
    task_of(c, pid)?;
    c.k.put_u32(c.tid, param, 0)?;
    ret(0)
}

fn sched_setscheduler(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, policy, param, ..] = *a;
    if int(policy) < 0 || param == 0 || int(pid) < 0 {
        return Err(Errno::EINVAL);
    }
    let priority = c.k.get_u32(c.tid, param)?;
    task_of(c, pid)?;
    match (int(policy) & !0x4000_0000, priority) {
        (0 | 3 | 5, 0) => ret(0),
        (1 | 2, 1..=99) => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

fn sched_getscheduler(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, ..] = *a;
    task_of(c, pid)?;
    ret(0)
}

fn priority_limit(a: &[u64; 6], real_time: u64) -> SysResult {
    let [policy, ..] = *a;
    match int(policy) {
        1 | 2 => ret(real_time),
        0 | 3 | 5 | 6 => ret(0),
        _ => Err(Errno::EINVAL),
    }
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
    let mask = cpu_mask(c.k.limits.cpus);
    if len.saturating_mul(8) < u64_of(c.k.limits.cpus) || len % 8 != 0 {
        return Err(Errno::EINVAL);
    }
    task_of(c, pid).map_err(|_| Errno::ESRCH)?;
    let n = mask.len().min(us(len));
    c.k.copy_out(c.tid, out, mask.get(..n).unwrap_or_default())?;
    ret(u64_of(n))
}

fn sched_setaffinity(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, len, va, ..] = *a;
    let mask = cpu_mask(c.k.limits.cpus);
    let wanted = c.k.copy_in_vec(c.tid, va, us(u64::from(low32(len))).min(mask.len()))?;
    task_of(c, pid).map_err(|_| Errno::ESRCH)?;
    let any = wanted.iter().zip(&mask).any(|(w, m)| w & m != 0);
    if any { ret(0) } else { Err(Errno::EINVAL) }
}

fn ioprio_set(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [which, _, prio, ..] = *a;
    let class = low32(prio) >> 13;
    if !(1..=3).contains(&int(which)) || class > 3 {
        return Err(Errno::EINVAL);
    }
    let root = c.k.process_of(c.tid).is_some_and(|p| p.creds.euid == 0);
    if class == 1 && !root { Err(Errno::EPERM) } else { ret(0) }
}

fn ioprio_get(_: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [which, ..] = *a;
    // IOPRIO_CLASS_BE, level 4.
    if (1..=3).contains(&int(which)) { ret(2 << 13 | 4) } else { Err(Errno::EINVAL) }
}

fn getcpu(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [cpu, node, ..] = *a;
    if cpu != 0 {
        let n = u32::try_from(c.vcpu.index()).unwrap_or(0);
        c.k.put_u32(c.tid, cpu, n)?;
    }
    if node != 0 {
        c.k.put_u32(c.tid, node, 0)?;
    }
    ret(0)
}

fn getrandom(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [out, len, flags, ..] = *a;
    let flags = low32(flags);
    // GRND_NONBLOCK, GRND_RANDOM, GRND_INSECURE; the last two exclude each other.
    if flags & !7 != 0 || flags & 6 == 6 {
        return Err(Errno::EINVAL);
    }
    // Linux first cuts the length to what one call moves.
    user_range(out, len.min(crate::vfs::file::MAX_RW_COUNT))?;
    // A call may return less; this bounds the time for which it holds the kernel.
    let len = us(len.min(1 << 20));
    let mut done = 0;
    let mut buf = vec![0; len.min(4096)];
    while done < len {
        let n = buf.len().min(len - done);
        let Some(part) = buf.get_mut(..n) else { break };
        c.k.entropy.fill(part);
        let part = part.to_vec();
        let at = out.checked_add(u64_of(done)).ok_or(Errno::EFAULT)?;
        if let Err(e) = c.k.copy_out(c.tid, at, &part) {
            if done == 0 {
                return Err(e);
            }
            break;
        }
        done += n;
    }
    ret(u64_of(done))
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
