//! System calls: signals.

use super::{Arg, Context, Entry, ret};
use crate::errno::Errno;
use crate::num::{int, low32, u64_of};
use crate::signal::frame::{le32, le64, put};
use crate::signal::{AltStack, SIG_IGN, SigAction, SigInfo, UNBLOCKABLE, bit, ignored_by_default};
use crate::wait::{Block, Cause, Outcome, Restart, SysResult, WaitKey};

const HOW: Arg = Arg::Flags(&[("SIG_BLOCK", 0), ("SIG_UNBLOCK", 1), ("SIG_SETMASK", 2)]);

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::full(13, "rt_sigaction", &[Arg::Signal, Arg::Ptr, Arg::Ptr, Arg::Uint], rt_sigaction),
    Entry::full(14, "rt_sigprocmask", &[HOW, Arg::Ptr, Arg::Ptr, Arg::Uint], rt_sigprocmask),
    Entry::full(15, "rt_sigreturn", &[], |c, _| Ok(c.k.sigreturn(c.vcpu, c.tid))),
    Entry::full(34, "pause", &[], pause),
    Entry::full(62, "kill", &[Arg::Int, Arg::Signal], kill),
    Entry::full(127, "rt_sigpending", &[Arg::Ptr, Arg::Uint], rt_sigpending),
    Entry::full(128, "rt_sigtimedwait", &[Arg::Ptr, Arg::Ptr, Arg::Ptr, Arg::Uint], rt_sigtimedwait),
    Entry::full(129, "rt_sigqueueinfo", &[Arg::Int, Arg::Signal, Arg::Ptr], rt_sigqueueinfo),
    Entry::full(130, "rt_sigsuspend", &[Arg::Ptr, Arg::Uint], rt_sigsuspend),
    Entry::full(131, "sigaltstack", &[Arg::Ptr, Arg::Ptr], sigaltstack),
    Entry::full(200, "tkill", &[Arg::Int, Arg::Signal], tkill),
    Entry::full(234, "tgkill", &[Arg::Int, Arg::Int, Arg::Signal], tgkill),
    Entry::full(297, "rt_tgsigqueueinfo", &[Arg::Int, Arg::Int, Arg::Signal, Arg::Ptr], rt_tgsigqueueinfo),
];

/// A signal number argument; 0 is allowed where it only asks whether the target exists.
fn signo(x: i32, zero: bool) -> Result<u32, Errno> {
    let n = u32::try_from(x).map_err(|_| Errno::EINVAL)?;
    if n > 64 || (n == 0 && !zero) { Err(Errno::EINVAL) } else { Ok(n) }
}

fn set_size(size: u64) -> Result<(), Errno> {
    if size == 8 { Ok(()) } else { Err(Errno::EINVAL) }
}

fn rt_sigaction(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [sig, new, old, size, ..] = *a;
    set_size(size)?;
    let new = if new == 0 { None } else { Some(c.k.copy_in_vec(c.tid, new, 32)?) };
    let sig = signo(int(sig), false)?;
    if new.is_some() && UNBLOCKABLE & bit(sig) != 0 {
        return Err(Errno::EINVAL);
    }
    let pid = c.pid()?;
    let was = c.k.action(pid, sig);
    if let Some(b) = new {
        let action = SigAction {
            handler: le64(&b, 0),
            flags: le64(&b, 8) & 0xdc00_0807,
            restorer: le64(&b, 16),
            mask: le64(&b, 24) & !UNBLOCKABLE,
        };
        c.k.set_action(pid, sig, action);
        if action.handler == SIG_IGN || (action.handler == 0 && ignored_by_default(sig)) {
            c.k.discard_signals(pid, bit(sig));
        }
    }
    if old != 0 {
        let mut b = [0; 32];
        put(&mut b, 0, &was.handler.to_le_bytes());
        put(&mut b, 8, &was.flags.to_le_bytes());
        put(&mut b, 16, &was.restorer.to_le_bytes());
        put(&mut b, 24, &was.mask.to_le_bytes());
        c.k.copy_out(c.tid, old, &b)?;
    }
    ret(0)
}

fn rt_sigprocmask(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [how, new, old, size, ..] = *a;
    set_size(size)?;
    let was = c.k.task(c.tid).ok_or(Errno::ESRCH)?.sigmask;
    if new != 0 {
        let set = c.k.get_u64(c.tid, new)?;
        let mask = match int(how) {
            0 => was | set,
            1 => was & !set,
            2 => set,
            _ => return Err(Errno::EINVAL),
        };
        c.k.set_sigmask(c.tid, mask);
    }
    if old != 0 {
        c.k.put_u64(c.tid, old, was)?;
    }
    ret(0)
}

fn rt_sigpending(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [out, size, ..] = *a;
    if size > 8 {
        return Err(Errno::EINVAL);
    }
    let task = c.k.task(c.tid).ok_or(Errno::ESRCH)?;
    let process = c.k.process_of(c.tid).map_or(0, |p| p.pending.mask());
    let set = (task.pending.mask() | process) & task.sigmask;
    let bytes = set.to_le_bytes();
    c.k.copy_out(c.tid, out, bytes.get(..crate::num::us(size)).unwrap_or_default())?;
    ret(0)
}

fn sleep_for_signal(restart: Restart) -> SysResult {
    Ok(Outcome::Block(Block { on: Vec::new(), deadline: None, relative: false, restart, memo: [0; 2] }))
}

fn pause(_: &mut Context<'_>, _: &[u64; 6]) -> SysResult {
    sleep_for_signal(Restart::UnlessHandler)
}

fn rt_sigsuspend(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [set, size, ..] = *a;
    set_size(size)?;
    let resumed = c.k.task(c.tid).is_some_and(|t| t.resume.is_some());
    if !resumed {
        let set = c.k.get_u64(c.tid, set)?;
        let was = c.k.task(c.tid).map(|t| t.sigmask);
        c.k.set_sigmask(c.tid, set);
        if let Some(t) = c.k.task_mut(c.tid) {
            t.saved_sigmask = was;
        }
    }
    sleep_for_signal(Restart::UnlessHandler)
}

fn rt_sigtimedwait(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [set, out, timeout, size, ..] = *a;
    set_size(size)?;
    let set = c.k.get_u64(c.tid, set)? & !UNBLOCKABLE;
    let resume = c.k.task(c.tid).and_then(|t| t.resume);
    let mut deadline = resume.and_then(|r| r.deadline);
    if resume.is_none() && timeout != 0 {
        let ns = super::time::timespec(c, timeout)?;
        deadline = Some(c.k.platform.monotonic().saturating_add(ns));
        if ns == 0 {
            deadline = Some(0);
        }
    }
    if let Some(info) = c.k.take_signal(c.tid, set) {
        if out != 0 {
            c.k.copy_out(c.tid, out, &info.to_bytes())?;
        }
        return ret(u64::from(info.signo));
    }
    if deadline == Some(0) || resume.is_some_and(|r| r.cause == Cause::TimedOut) {
        return Err(Errno::EAGAIN);
    }
    let on = vec![WaitKey::Signal(c.tid)];
    Ok(Outcome::Block(Block { on, deadline, relative: true, restart: Restart::Never, memo: [0; 2] }))
}

fn sigaltstack(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [new, old, ..] = *a;
    let new = if new == 0 { None } else { Some(c.k.copy_in_vec(c.tid, new, 24)?) };
    let task = c.k.task(c.tid).ok_or(Errno::ESRCH)?;
    let (was, sp) = (task.altstack, task.regs.rsp);
    if let Some(b) = new {
        let alt = AltStack { sp: le64(&b, 0), flags: le32(&b, 8), size: le64(&b, 16) };
        c.k.set_altstack(c.tid, alt, sp)?;
    }
    if old != 0 {
        let mut b = [0; 24];
        put(&mut b, 0, &was.sp.to_le_bytes());
        put(&mut b, 8, &was.flags_shown(sp).to_le_bytes());
        put(&mut b, 16, &was.size.to_le_bytes());
        c.k.copy_out(c.tid, old, &b)?;
    }
    ret(0)
}

/// Whether the caller may signal a process (kill(2)).
fn may_signal(c: &Context<'_>, pid: u32, sig: u32) -> bool {
    let (Some(me), Some(target)) = (c.k.process_of(c.tid), c.k.processes.get(&pid)) else { return false };
    let (m, t) = (&me.creds, &target.creds);
    me.pid == pid
        || m.can(crate::task::creds::cap::KILL)
        || [t.suid, t.uid].iter().any(|u| *u == m.euid || *u == m.uid)
        || (sig == 18 && me.sid == target.sid)
}

fn sender(c: &Context<'_>, sig: u32, code: i32) -> SigInfo {
    let (pid, uid) = c.k.process_of(c.tid).map_or((0, 0), |p| (p.pid, p.creds.uid));
    SigInfo::from_user(sig, code, pid, uid)
}

fn kill(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, sig, ..] = *a;
    let (pid, sig) = (int(pid), int(sig));
    if pid == i32::MIN {
        return Err(Errno::ESRCH);
    }
    let own = c.pid()?;
    let pgid = c.k.process_of(c.tid).map_or(0, |p| p.pgid);
    let targets: Vec<u32> = match pid {
        1.. => {
            // A thread's id names its process here.
            let pid = c.k.task(pid.unsigned_abs()).map_or(pid.unsigned_abs(), |t| t.pid);
            Some(pid).filter(|p| c.k.exists(*p)).into_iter().collect()
        }
        -1 => c.k.processes.keys().copied().filter(|p| *p != 1 && *p != own).collect(),
        _ => {
            let group = if pid == 0 { pgid } else { pid.unsigned_abs() };
            c.k.processes.values().filter(|p| p.pgid == group && c.k.exists(p.pid)).map(|p| p.pid).collect()
        }
    };
    let sig = signo(sig, true)?;
    if targets.is_empty() {
        return Err(Errno::ESRCH);
    }
    let allowed: Vec<u32> = targets.into_iter().filter(|p| may_signal(c, *p, sig)).collect();
    if allowed.is_empty() {
        return Err(Errno::EPERM);
    }
    let info = sender(c, sig, 0);
    if sig != 0 {
        for p in allowed {
            c.k.try_signal_process(p, info)?;
        }
    }
    ret(0)
}

fn thread_target(c: &Context<'_>, tgid: i32, tid: i32, sig: u32) -> Result<u32, Errno> {
    let tid = u32::try_from(tid).map_err(|_| Errno::EINVAL)?;
    let pid = c.k.task(tid).map(|t| t.pid).ok_or(Errno::ESRCH)?;
    if tgid > 0 && tgid.unsigned_abs() != pid {
        return Err(Errno::ESRCH);
    }
    if may_signal(c, pid, sig) { Ok(tid) } else { Err(Errno::EPERM) }
}

fn thread_kill(c: &mut Context<'_>, tgid: i32, tid: i32, sig: i32) -> SysResult {
    if tid <= 0 {
        return Err(Errno::EINVAL);
    }
    // Existence and permission are looked at before the number's range is.
    let sig_checked = signo(sig, true);
    let tid = thread_target(c, tgid, tid, sig_checked.unwrap_or(0))?;
    let sig = sig_checked?;
    // SI_TKILL
    let info = sender(c, sig, -6);
    if sig != 0 {
        c.k.try_signal_task(tid, info)?;
    }
    ret(0)
}

fn tgkill(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [tgid, tid, sig, ..] = *a;
    if int(tgid) <= 0 {
        return Err(Errno::EINVAL);
    }
    thread_kill(c, int(tgid), int(tid), int(sig))
}

/// A siginfo that a program passes; only itself may pretend to be the kernel or kill(2).
fn user_info(c: &mut Context<'_>, va: u64, sig: i32, own: bool) -> Result<SigInfo, Errno> {
    let b = c.k.copy_in_vec(c.tid, va, 128)?;
    let info = SigInfo::from_bytes(&b, sig.unsigned_abs());
    if (info.code >= 0 || info.code == -6) && !own {
        return Err(Errno::EPERM);
    }
    Ok(info)
}

fn rt_sigqueueinfo(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, sig, va, ..] = *a;
    let own = i64::from(int(pid)) == i64::from(c.pid()?);
    let info = user_info(c, va, int(sig), own)?;
    let pid = u32::try_from(int(pid)).map_err(|_| Errno::ESRCH)?;
    // A thread's id names its process here.
    let pid = c.k.task(pid).map_or(pid, |t| t.pid);
    if !c.k.exists(pid) {
        return Err(Errno::ESRCH);
    }
    let sig = signo(int(sig), true)?;
    if !may_signal(c, pid, sig) {
        return Err(Errno::EPERM);
    }
    if sig != 0 {
        c.k.try_signal_process(pid, info)?;
    }
    ret(0)
}

/// Whom pidfd_send_signal(2) is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The thread of this id.
    Thread,
    /// The process.
    Process,
    /// The process group of this id, whoever leads it.
    Group,
}

/// pidfd_send_signal(2), with the sender's siginfo unless `info` is given. ESRCH, EPERM, EINVAL.
pub(super) fn send(c: &mut Context<'_>, pid: u32, sig: i32, info: u64, scope: Scope) -> SysResult {
    let info = if info == 0 {
        // SI_TKILL, SI_USER
        sender(c, sig.unsigned_abs(), if scope == Scope::Thread { -6 } else { 0 })
    } else {
        let own = c.tid == pid && scope != Scope::Group;
        let b = c.k.copy_in_vec(c.tid, info, 128)?;
        if le32(&b, 0) != sig.unsigned_abs() {
            return Err(Errno::EINVAL);
        }
        let info = SigInfo::from_bytes(&b, sig.unsigned_abs());
        if (info.code >= 0 || info.code == -6) && !own {
            return Err(Errno::EPERM);
        }
        info
    };
    let targets: Vec<u32> = match scope {
        Scope::Group => {
            c.k.processes.values().filter(|p| p.pgid == pid && c.k.exists(p.pid)).map(|p| p.pid).collect()
        }
        _ => vec![pid],
    };
    if targets.is_empty() {
        return Err(Errno::ESRCH);
    }
    let sig = signo(sig, true)?;
    let allowed: Vec<u32> = targets.into_iter().filter(|p| may_signal(c, *p, sig)).collect();
    if allowed.is_empty() {
        return Err(Errno::EPERM);
    }
    if sig != 0 {
        for pid in allowed {
            match scope {
                Scope::Thread => c.k.try_signal_task(pid, info)?,
                _ => c.k.try_signal_process(pid, info)?,
            }
        }
    }
    ret(0)
}

fn rt_tgsigqueueinfo(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [tgid, tid, sig, va, ..] = *a;
    let own = low32(tid) == c.tid;
    let info = user_info(c, va, int(sig), own)?;
    if int(tgid) <= 0 || int(tid) <= 0 {
        return Err(Errno::EINVAL);
    }
    let target = thread_target(c, int(tgid), int(tid), 0)?;
    if signo(int(sig), true)? != 0 {
        c.k.try_signal_task(target, info)?;
    }
    ret(0)
}

impl Context<'_> {
    /// The caller's process id.
    pub fn pid(&self) -> Result<u32, Errno> {
        self.k.task(self.tid).map(|t| t.pid).ok_or(Errno::ESRCH)
    }

    /// Writes a list of little-endian words.
    pub fn put_words(&mut self, va: u64, words: &[u64]) -> Result<(), Errno> {
        let mut b = Vec::with_capacity(words.len().saturating_mul(8));
        for w in words {
            b.extend(w.to_le_bytes());
        }
        debug_assert_eq!(u64_of(b.len()), u64_of(words.len()) * 8);
        self.k.copy_out(self.tid, va, &b)
    }
}

fn tkill(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [tid, sig, ..] = *a;
    thread_kill(c, 0, int(tid), int(sig))
}
