//! System calls: the system, limits, scheduling attributes, random numbers.

use super::{Arg, Context, Entry, Support, ret, user_range};
use crate::errno::Errno;
use crate::num::{int, low32, u64_of, us};
use crate::signal::frame::{le64, put};
use crate::task::creds::cap;
use crate::wait::SysResult;

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
    Entry::full(63, "uname", &[Arg::Ptr], uname),
    Entry::full(97, "getrlimit", &[Arg::Int, Arg::Ptr], getrlimit),
    Entry::partial(99, "sysinfo", &[Arg::Ptr], "no swap", sysinfo),
    refused(103, "syslog"),
    Entry::partial(140, "getpriority", &[Arg::Int, Arg::Int], FIXED, getpriority),
    Entry::partial(141, "setpriority", &[Arg::Int, Arg::Int, Arg::Int], FIXED, setpriority),
    Entry::full(160, "setrlimit", &[Arg::Int, Arg::Ptr], setrlimit),
    refused(170, "sethostname"),
    refused(171, "setdomainname"),
    Entry::full(302, "prlimit64", &[Arg::Int, Arg::Int, Arg::Ptr, Arg::Ptr], prlimit64),
    Entry::full(309, "getcpu", &[Arg::Ptr, Arg::Ptr], getcpu),
    Entry::full(318, "getrandom", &[Arg::Out, Arg::Uint, Arg::Hex], getrandom),
];

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
    // The averages' point is at bit 16 here, at bit 11 there.
    for (n, load) in c.k.time.load.averages.iter().enumerate() {
        put(&mut b, 8 + 8 * n, &(load << 5).to_le_bytes());
    }
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
    let (m, t) = (&me.creds, &it.creds);
    let same = [t.uid, t.euid, t.suid].iter().all(|u| *u == m.uid)
        && [t.gid, t.egid, t.sgid].iter().all(|g| *g == m.gid);
    if me.pid == pid || same || m.can(cap::SYS_RESOURCE) { Ok(pid) } else { Err(Errno::EPERM) }
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
    let root = c.k.capable(c.tid, cap::SYS_RESOURCE);
    if new.1 > hard && !root {
        return Err(Errno::EPERM);
    }
    // RLIMIT_CPU
    if low32(resource) == 0 {
        c.k.watch_cpu(pid);
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

/// A thread by id, 0 for the caller. EINVAL, ESRCH.
pub(super) fn task_of(c: &Context<'_>, tid: u64) -> Result<u32, Errno> {
    let tid = match int(tid) {
        0 => c.tid,
        x => u32::try_from(x).map_err(|_| Errno::EINVAL)?,
    };
    if c.k.task(tid).is_some() { Ok(tid) } else { Err(Errno::ESRCH) }
}

/// The threads of getpriority(2)'s kinds: a process, a group, a user.
pub(super) fn nice_targets(c: &Context<'_>, which: u64, who: u64) -> Result<Vec<u32>, Errno> {
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
    for tid in nice_targets(c, which, who)? {
        set_nice(c, tid, int(nice))?;
    }
    ret(0)
}

/// Sets a nice value. EACCES for a lower one as another user than 0, EPERM for another's task.
pub(super) fn set_nice(c: &mut Context<'_>, tid: u32, nice: i32) -> Result<(), Errno> {
    let nice = nice.clamp(-20, 19);
    let me = c.k.process_of(c.tid).map(|p| p.creds.clone()).unwrap_or_default();
    let it = c.k.process_of(tid).map(|p| p.creds.clone()).unwrap_or_default();
    let may = me.can(cap::SYS_NICE);
    if !may && me.euid != it.uid && me.euid != it.euid {
        return Err(Errno::EPERM);
    }
    // RLIMIT_NICE counts from 20 down.
    let limit = c.k.process_of(tid).and_then(|p| p.rlimits.get(&13)).map_or(0, |l| l.0);
    let may = may || u64::from((20 - nice).unsigned_abs()) <= limit;
    if let Some(t) = c.k.task_mut(tid) {
        if nice < t.aux.nice && !may {
            return Err(Errno::EACCES);
        }
        t.aux.nice = nice;
    }
    Ok(())
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
