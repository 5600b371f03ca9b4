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
}

impl Event {
    /// The status word of wait4(2).
    fn word(self) -> u32 {
        match self {
            Event::Ended(how) => how.wait_status(),
            Event::Stopped(signo) => signo << 8 | 0x7f,
            Event::Continued => 0xffff,
        }
    }

    /// si_code and si_status.
    fn siginfo(self) -> (i32, u32) {
        match self {
            Event::Ended(how) => how.siginfo(),
            Event::Stopped(signo) => (5, signo),
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
    for p in c.k.processes.values().filter(|p| p.parent == me) {
        let fits = match want {
            Wanted::Pid(pid) => p.pid == *pid,
            Wanted::Group(g) => p.pgid == *g,
            Wanted::Any => true,
        };
        if !fits || (!all && cloned != (p.exit_signal != SIGCHLD)) {
            continue;
        }
        if let Some(event) = Event::of(p, options) {
            return Ok(Some((p.pid, event)));
        }
        any |= p.zombie.is_none();
    }
    if any { Ok(None) } else { Err(Errno::ECHILD) }
}

/// Takes note that an event was reported; returns the child's user and system time, ns.
fn consume(c: &mut Context<'_>, pid: u32, event: Event, options: u32) -> (u64, u64) {
    let times = c.k.process_times(pid);
    if options & WNOWAIT != 0 {
        return times;
    }
    match event {
        Event::Ended(_) => c.k.reap(pid),
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
            let uid = c.k.processes.get(&pid).map_or(0, |p| p.creds.uid);
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
