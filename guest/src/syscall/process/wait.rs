//! wait4(2) and waitid(2): children that ended, stopped or were continued.

use crate::errno::Errno;
use crate::num::{int, low32};
use crate::signal::frame::put;
use crate::signal::{SIGCHLD, SIGCONT};
use crate::syscall::time::rusage;
use crate::syscall::{Context, ret};
use crate::task::{ExitStatus, Process, child_key};
use crate::wait::{Block, Outcome, SysResult};

const WNOHANG: u32 = 1;
const WUNTRACED: u32 = 2;
const WEXITED: u32 = 4;
const WCONTINUED: u32 = 8;
const WNOWAIT: u32 = 0x100_0000;
/// __WNOTHREAD, __WALL, __WCLONE.
const KINDS: u32 = 0xe000_0000;

/// Which children a call is about.
enum Wanted {
    Pid(u32),
    Group(u32),
    Any,
}

/// What happened to a child.
#[derive(Clone, Copy)]
enum Event {
    Ended(ExitStatus),
    Stopped(u32),
    Continued,
    /// A tracee is stopped.
    Trapped(u32),
    /// A tracee's process has ended, which its parent is not told of yet.
    TraceeEnded(ExitStatus),
    /// A thread that was traced has ended.
    ThreadEnded(ExitStatus),
}

impl Event {
    /// The status word of wait4(2).
    fn word(self) -> u32 {
        match self {
            Event::Ended(how) | Event::TraceeEnded(how) | Event::ThreadEnded(how) => how.wait_status(),
            Event::Stopped(signo) | Event::Trapped(signo) => signo << 8 | 0x7f,
            Event::Continued => 0xffff,
        }
    }

    /// si_code and si_status.
    fn siginfo(self) -> (i32, u32) {
        match self {
            Event::Ended(how) | Event::TraceeEnded(how) | Event::ThreadEnded(how) => how.siginfo(),
            Event::Stopped(signo) => (5, signo),
            // CLD_TRAPPED
            Event::Trapped(code) => (4, code),
            Event::Continued => (6, SIGCONT),
        }
    }

    fn of(p: &Process, options: u32) -> Option<Event> {
        let stop = &p.aux.stop;
        match p.zombie {
            Some(how) => (options & WEXITED != 0).then_some(Event::Ended(how)),
            None if options & WUNTRACED != 0 && stop.unreported => stop.signal.map(Event::Stopped),
            None if options & WCONTINUED != 0 && stop.continued => Some(Event::Continued),
            None => None,
        }
    }
}

/// Finds a child to report; `None` when one may come yet, ECHILD when none fits. A dead child that nobody asked about does not count.
fn find(c: &Context<'_>, want: &Wanted, options: u32) -> Result<Option<(u32, Event)>, Errno> {
    let me = c.pid()?;
    let (all, cloned) = (options & 0x4000_0000 != 0, options & 0x8000_0000 != 0);
    let mut any = false;
    let fits = |id: u32, group: u32| match want {
        Wanted::Pid(pid) => id == *pid,
        Wanted::Group(g) => group == *g,
        Wanted::Any => true,
    };
    for p in c.k.processes.values().filter(|p| p.parent == me) {
        let traced = c.k.tracer_of(p.pid) == me;
        if !fits(p.pid, p.pgid) || (!traced && !all && cloned != (p.exit_signal != SIGCHLD)) {
            continue;
        }
        // A tracer sees its own stops in place of the group's; another's tracee ends for its tracer first.
        let options = if traced { options & !WUNTRACED } else { options };
        let event = trapped(c, p.pid, me).or_else(|| Event::of(p, options));
        if let Some(event) = event.filter(|_| p.aux.traced_by.is_none()) {
            return Ok(Some((p.pid, event)));
        }
        any |= p.zombie.is_none() || p.aux.traced_by.is_some();
    }
    for t in c.k.tasks.values().filter(|t| t.trace.as_ref().is_some_and(|x| x.tracer == me)) {
        if fits(t.tid, c.k.processes.get(&t.pid).map_or(0, |p| p.pgid)) {
            any = true;
            if let Some(event) = trapped(c, t.tid, me) {
                return Ok(Some((t.tid, event)));
            }
        }
    }
    for p in c.k.processes.values().filter(|p| p.aux.traced_by == Some(me) && fits(p.pid, p.pgid)) {
        any = true;
        if let Some(how) = p.zombie.filter(|_| options & WEXITED != 0) {
            return Ok(Some((p.pid, Event::TraceeEnded(how))));
        }
    }
    let dead = c.k.processes.get(&me).map(|p| &p.aux.dead_tracees);
    for (tid, _, _, how) in dead.into_iter().flatten().filter(|(tid, group, ..)| fits(*tid, *group)) {
        any = true;
        if options & WEXITED != 0 {
            return Ok(Some((*tid, Event::ThreadEnded(*how))));
        }
    }
    if any { Ok(None) } else { Err(Errno::ECHILD) }
}

/// The stop of a tracee of `me` that was not reported yet.
fn trapped(c: &Context<'_>, tid: u32, me: u32) -> Option<Event> {
    let trace = c.k.task(tid)?.trace.as_ref().filter(|t| t.tracer == me)?;
    let stop = trace.stop.as_ref().filter(|s| !s.reported && !s.listening)?;
    Some(Event::Trapped(stop.code))
}

/// Takes note that an event was reported; returns the child's user and system time, ns.
fn consume(c: &mut Context<'_>, pid: u32, event: Event, options: u32) -> (u64, u64) {
    let times = c.k.process_times(pid);
    if options & WNOWAIT != 0 {
        return times;
    }
    match event {
        Event::Ended(_) => c.k.reap(pid),
        Event::Trapped(_) => {
            let trace = c.k.task_mut(pid).and_then(|t| t.trace.as_mut());
            if let Some(stop) = trace.and_then(|t| t.stop.as_mut()) {
                stop.reported = true;
            }
        }
        Event::TraceeEnded(_) => c.k.trace_let_go(pid),
        Event::ThreadEnded(_) => {
            if let Some(p) = c.k.process_of_mut(c.tid) {
                p.aux.dead_tracees.retain(|(tid, ..)| *tid != pid);
            }
        }
        Event::Stopped(_) => {
            if let Some(p) = c.k.processes.get_mut(&pid) {
                p.aux.stop.unreported = false;
            }
        }
        Event::Continued => {
            if let Some(p) = c.k.processes.get_mut(&pid) {
                p.aux.stop.continued = false;
            }
        }
    }
    times
}

/// Who waits for whatever child there is takes care of what it adopts (see `Kernel::exists`).
fn take_care(c: &mut Context<'_>, want: &Wanted) -> Result<(), Errno> {
    let pid = c.pid()?;
    if let (Wanted::Any | Wanted::Group(_), Some(p)) = (want, c.k.processes.get_mut(&pid)) {
        p.aux.reaps = true;
    }
    Ok(())
}

fn own_group(c: &Context<'_>) -> u32 {
    c.k.process_of(c.tid).map_or(0, |p| p.pgid)
}

pub(super) fn wait4(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, status, options, usage, ..] = *a;
    let options = low32(options);
    if options & !(WNOHANG | WUNTRACED | WCONTINUED | KINDS) != 0 {
        return Err(Errno::EINVAL);
    }
    let want = match int(pid) {
        i32::MIN => return Err(Errno::ESRCH),
        -1 => Wanted::Any,
        0 => Wanted::Group(own_group(c)),
        p if p > 0 => Wanted::Pid(p.unsigned_abs()),
        p => Wanted::Group(p.unsigned_abs()),
    };
    take_care(c, &want)?;
    match find(c, &want, options | WEXITED)? {
        Some((pid, event)) => {
            let times = consume(c, pid, event, options);
            if status != 0 {
                c.k.put_u32(c.tid, status, event.word())?;
            }
            if usage != 0 {
                c.put_words(usage, &rusage(times))?;
            }
            ret(u64::from(pid))
        }
        None if options & WNOHANG != 0 => ret(0),
        None => Ok(Outcome::Block(Block::on(child_key(c.pid()?)))),
    }
}

pub(super) fn waitid(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [kind, id, out, options, usage, _] = *a;
    let options = low32(options);
    let asked = options & (WEXITED | WUNTRACED | WCONTINUED) != 0;
    if options & !(WNOHANG | WUNTRACED | WEXITED | WCONTINUED | WNOWAIT | KINDS) != 0 || !asked {
        return Err(Errno::EINVAL);
    }
    let mut never_sleep = false;
    let want = match int(kind) {
        0 => Wanted::Any,
        1 if int(id) > 0 => Wanted::Pid(low32(id)),
        2 if int(id) > 0 => Wanted::Group(low32(id)),
        2 if int(id) == 0 => Wanted::Group(own_group(c)),
        // P_PIDFD
        3 if int(id) >= 0 => {
            let (pid, nonblocking) = c.k.pidfd_target(c.tid, int(id))?;
            never_sleep = nonblocking;
            Wanted::Pid(pid)
        }
        _ => return Err(Errno::EINVAL),
    };
    let mut b = [0; 128];
    take_care(c, &want)?;
    match find(c, &want, options)? {
        Some((pid, event)) => {
            let (code, status) = event.siginfo();
            let by_thread = c.k.task(pid).map_or(pid, |t| t.pid);
            let uid = c.k.processes.get(&by_thread).map_or(0, |p| p.creds.uid);
            let times = consume(c, pid, event, options);
            put(&mut b, 0, &SIGCHLD.to_le_bytes());
            put(&mut b, 8, &code.to_le_bytes());
            put(&mut b, 16, &pid.to_le_bytes());
            put(&mut b, 20, &uid.to_le_bytes());
            put(&mut b, 24, &status.to_le_bytes());
            if usage != 0 {
                c.put_words(usage, &rusage(times))?;
            }
        }
        None if options & WNOHANG != 0 => {}
        None if never_sleep => return Err(Errno::EAGAIN),
        None => return Ok(Outcome::Block(Block::on(child_key(c.pid()?)))),
    }
    if out != 0 {
        // Linux writes only the fields up to si_status.
        let fields = b.get(..28).unwrap_or_default();
        c.k.copy_out(c.tid, out, fields)?;
    }
    ret(0)
}
