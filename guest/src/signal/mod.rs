//! Signals: dispositions and sending. Queues are in `queue`, the way to user mode in `deliver`, frames in `frame`.

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::platform::Va;
use crate::task::{ExitStatus, TaskState, Tid};
use crate::wait::WaitKey;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

pub mod deliver;
pub mod frame;
pub mod queue;
mod stop;

/// SA_NOCLDSTOP.
pub const SA_NOCLDSTOP: u64 = 1;
/// SA_NOCLDWAIT.
pub const SA_NOCLDWAIT: u64 = 2;
/// SA_SIGINFO.
pub const SA_SIGINFO: u64 = 4;
/// SA_RESTORER.
pub const SA_RESTORER: u64 = 0x0400_0000;
/// SA_ONSTACK.
pub const SA_ONSTACK: u64 = 0x0800_0000;
/// SA_RESTART.
pub const SA_RESTART: u64 = 0x1000_0000;
/// SA_NODEFER.
pub const SA_NODEFER: u64 = 0x4000_0000;
/// SA_RESETHAND.
pub const SA_RESETHAND: u64 = 0x8000_0000;
/// SS_ONSTACK.
pub const SS_ONSTACK: u32 = 1;
/// SS_DISABLE.
pub const SS_DISABLE: u32 = 2;
/// SS_AUTODISARM.
pub const SS_AUTODISARM: u32 = 1 << 31;
/// SIG_IGN as a handler.
pub const SIG_IGN: Va = 1;
/// SIGKILL.
pub const SIGKILL: u32 = 9;
/// SIGSEGV.
pub const SIGSEGV: u32 = 11;
/// SIGCHLD.
pub const SIGCHLD: u32 = 17;
/// SIGCONT.
pub const SIGCONT: u32 = 18;
/// SIGSTOP.
pub const SIGSTOP: u32 = 19;
/// SIGKILL and SIGSTOP: never blocked, never caught.
pub const UNBLOCKABLE: u64 = bit(9) | bit(19);
/// Signals that are ignored by default: CHLD, CONT, URG, WINCH.
const DEFAULT_IGNORED: u64 = bit(17) | bit(18) | bit(23) | bit(28);
/// Signals that stop by default: STOP, TSTP, TTIN, TTOU.
const DEFAULT_STOP: u64 = bit(19) | bit(20) | bit(21) | bit(22);

/// A signal's bit in a mask; 0 for numbers that are no signal.
pub const fn bit(signo: u32) -> u64 {
    if signo >= 1 && signo <= 64 { 1 << (signo - 1) } else { 0 }
}

/// Whether a signal does nothing by default.
pub fn ignored_by_default(signo: u32) -> bool {
    bit(signo) & DEFAULT_IGNORED != 0
}

/// Whether a signal stops its process by default.
pub fn stops_by_default(signo: u32) -> bool {
    bit(signo) & DEFAULT_STOP != 0
}

/// One disposition, as in `struct sigaction`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigAction {
    /// SIG_DFL (0), SIG_IGN (1) or the handler's address.
    pub handler: Va,
    /// SA_ flags.
    pub flags: u64,
    /// Return trampoline (SA_RESTORER).
    pub restorer: Va,
    /// Mask while the handler runs.
    pub mask: u64,
}

/// sigaltstack(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AltStack {
    /// Lowest address.
    pub sp: Va,
    /// Bytes.
    pub size: u64,
    /// SS_ flags; SS_DISABLE when there is none (a `Default` stack has size 0 and counts as disabled).
    pub flags: u32,
}

/// `siginfo_t` in the parts that the kernel fills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigInfo {
    /// Signal number.
    pub signo: u32,
    /// si_errno.
    pub errno: i32,
    /// si_code.
    pub code: i32,
    /// The union after si_code, bytes 16..48 of the structure, in its first 32 bytes (little endian).
    pub fields: [u64; 4],
}

/// Pending signals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigQueue {
    /// In order of arrival; a standard signal at most once.
    pub queue: VecDeque<SigInfo>,
}

impl SigInfo {
    /// SIGSEGV from a general-protection fault: SI_KERNEL, no address.
    pub fn segv_general() -> Self {
        SigInfo { signo: 11, errno: 0, code: 0x80, fields: [0; 4] }
    }

    /// SIGBUS at an unknown address.
    pub fn bus_unknown() -> Self {
        SigInfo { signo: 7, errno: 0, code: 2, fields: [0; 4] }
    }
}

impl SigInfo {
    /// A signal from kill(2) and the like: sender's process and user.
    pub fn from_user(signo: u32, code: i32, pid: u32, uid: u32) -> Self {
        SigInfo { signo, errno: 0, code, fields: [u64::from(pid) | u64::from(uid) << 32, 0, 0, 0] }
    }

    /// A fault at an address.
    pub fn fault(signo: u32, code: i32, addr: Va) -> Self {
        SigInfo { signo, errno: 0, code, fields: [addr, 0, 0, 0] }
    }

    /// `siginfo_t`, 128 bytes.
    pub fn to_bytes(&self) -> [u8; 128] {
        let mut b = [0; 128];
        frame::put(&mut b, 0, &self.signo.to_le_bytes());
        frame::put(&mut b, 4, &self.errno.to_le_bytes());
        frame::put(&mut b, 8, &self.code.to_le_bytes());
        for (i, f) in self.fields.iter().enumerate() {
            frame::put(&mut b, 16 + 8 * i, &f.to_le_bytes());
        }
        b
    }

    /// Reads what a program passed; the signal number is the caller's business.
    pub fn from_bytes(b: &[u8], signo: u32) -> Self {
        SigInfo {
            signo,
            errno: frame::le32(b, 4).cast_signed(),
            code: frame::le32(b, 8).cast_signed(),
            fields: [frame::le64(b, 16), frame::le64(b, 24), frame::le64(b, 32), frame::le64(b, 40)],
        }
    }
}

impl AltStack {
    /// Whether there is one.
    pub fn enabled(&self) -> bool {
        self.size != 0 && self.flags & SS_DISABLE == 0
    }

    /// Whether an address lies on it, whatever its mode. The stack grows down: the lowest address is not on it.
    pub fn spans(&self, sp: Va) -> bool {
        self.enabled() && sp > self.sp && sp.wrapping_sub(self.sp) <= self.size
    }

    /// Whether a task with this stack pointer counts as running on it: never in SS_AUTODISARM mode.
    pub fn contains(&self, sp: Va) -> bool {
        self.flags & SS_AUTODISARM == 0 && self.spans(sp)
    }

    /// ss_flags as sigaltstack(2) reports it.
    pub fn flags_shown(&self, sp: Va) -> u32 {
        let state = match (self.enabled(), self.contains(sp)) {
            (false, _) => SS_DISABLE,
            (true, true) => SS_ONSTACK,
            (true, false) => 0,
        };
        state | self.flags & SS_AUTODISARM
    }
}

impl Kernel {
    /// A process's disposition of a signal.
    pub fn action(&self, pid: u32, signo: u32) -> SigAction {
        let at = crate::num::us(u64::from(signo.wrapping_sub(1)));
        self.processes.get(&pid).and_then(|p| p.actions.get(at)).copied().unwrap_or_default()
    }

    /// Sets a process's disposition of a signal.
    pub fn set_action(&mut self, pid: u32, signo: u32, action: SigAction) {
        let at = crate::num::us(u64::from(signo.wrapping_sub(1)));
        if let Some(slot) = self.processes.get_mut(&pid).and_then(|p| p.actions.get_mut(at)) {
            *slot = action;
        }
    }

    /// Whether a process ignores a signal, explicitly or by default.
    pub fn is_ignored(&self, pid: u32, signo: u32) -> bool {
        let handler = self.action(pid, signo).handler;
        handler == SIG_IGN || (handler == 0 && ignored_by_default(signo))
    }

    /// Whether a signal ends a process as soon as it is sent: by default. So the first of several decides. One that dumps core waits for
    /// a thread that takes it, which one that sleeps does at once.
    fn is_fatal(&self, pid: u32, signo: u32, taker: Option<Tid>) -> bool {
        // QUIT, ILL, TRAP, ABRT, BUS, FPE, SEGV, XCPU, XFSZ, SYS
        const DUMPS: u64 =
            bit(3) | bit(4) | bit(5) | bit(6) | bit(7) | bit(8) | bit(11) | bit(24) | bit(25) | bit(31);
        let sleeps = |tid: Tid| {
            matches!(self.tasks.get(&tid).map(|t| &t.state), Some(TaskState::Blocked(_)))
                && !self.sleeps_for_vfork(tid)
        };
        let kept = ignored_by_default(signo)
            || stops_by_default(signo)
            || (bit(signo) & DUMPS != 0 && !taker.is_some_and(sleeps));
        !kept && self.action(pid, signo).handler == 0
    }

    /// Sends a signal to a process: queued, ignored or woken for as its disposition says.
    pub fn signal_process(&mut self, pid: u32, info: SigInfo) {
        let _ = self.try_signal_process(pid, info);
    }

    /// Sends a signal to a process. EAGAIN when its queue of real-time signals is full.
    pub fn try_signal_process(&mut self, pid: u32, info: SigInfo) -> Result<(), Errno> {
        let Some(process) = self.processes.get(&pid) else { return Ok(()) };
        if process.zombie.is_some() || process.threads.is_empty() {
            return Ok(());
        }
        if info.signo == SIGKILL {
            self.exit_process(pid, ExitStatus::Signal(9));
            return Ok(());
        }
        // The first thread stands first in the set, as Linux prefers it.
        let threads: Vec<Tid> = process.threads.iter().copied().collect();
        let masks: Vec<(Tid, u64)> =
            threads.iter().filter_map(|t| Some((*t, self.tasks.get(t)?.sigmask))).collect();
        let blocked = masks.iter().all(|(_, m)| m & bit(info.signo) != 0);
        self.job_control(pid, info.signo);
        let traced = threads.iter().any(|t| self.is_traced(*t));
        if !blocked && !traced && self.is_ignored(pid, info.signo) {
            return Ok(());
        }
        let takes = |(t, m): &(Tid, u64)| {
            let can = |t: &crate::task::Task| t.state != TaskState::Stopped && t.trace.is_none();
            m & bit(info.signo) == 0 && self.tasks.get(t).is_some_and(can)
        };
        let taker = masks.iter().find(|m| takes(m)).map(|(t, _)| *t);
        if taker.is_some() && self.is_fatal(pid, info.signo, taker) {
            self.exit_process(pid, ExitStatus::Signal(crate::num::low8(u64::from(info.signo))));
            return Ok(());
        }
        let limit = self.pending_limit(pid);
        let Some(process) = self.processes.get_mut(&pid) else { return Ok(()) };
        if info.signo >= queue::SIGRTMIN && process.pending.queue.len() >= limit {
            return Err(Errno::EAGAIN);
        }
        process.pending.push(info);
        for tid in &threads {
            self.wake(WaitKey::Signal(*tid));
        }
        self.signalfd_notify(pid, info.signo);
        let open: Vec<Tid> =
            masks.iter().filter(|(_, m)| m & bit(info.signo) == 0).map(|(t, _)| *t).collect();
        // A thread that runs or sleeps takes it; any of them notices it at its next return to user mode.
        if let Some(tid) = open.first() {
            self.notify(*tid);
        }
        Ok(())
    }

    /// Sends a signal to one thread.
    pub fn signal_task(&mut self, tid: Tid, info: SigInfo) {
        let _ = self.try_signal_task(tid, info);
    }

    /// Sends a signal to one thread. EAGAIN when its queue of real-time signals is full.
    pub fn try_signal_task(&mut self, tid: Tid, info: SigInfo) -> Result<(), Errno> {
        let Some(task) = self.tasks.get(&tid) else { return Ok(()) };
        let (pid, mask) = (task.pid, task.sigmask);
        if info.signo == SIGKILL {
            self.exit_process(pid, ExitStatus::Signal(9));
            return Ok(());
        }
        self.job_control(pid, info.signo);
        let blocked = mask & bit(info.signo) != 0;
        let traced = self.is_traced(tid);
        if !blocked && !traced && self.is_ignored(pid, info.signo) {
            return Ok(());
        }
        let stopped = traced || self.tasks.get(&tid).is_some_and(|t| t.state == TaskState::Stopped);
        if !blocked && !stopped && self.is_fatal(pid, info.signo, Some(tid)) {
            self.exit_process(pid, ExitStatus::Signal(crate::num::low8(u64::from(info.signo))));
            return Ok(());
        }
        let limit = self.pending_limit(pid);
        let Some(task) = self.tasks.get_mut(&tid) else { return Ok(()) };
        if info.signo >= queue::SIGRTMIN && task.pending.queue.len() >= limit {
            return Err(Errno::EAGAIN);
        }
        task.pending.push(info);
        self.wake(WaitKey::Signal(tid));
        self.signalfd_notify(pid, info.signo);
        if !blocked {
            self.notify(tid);
        }
        Ok(())
    }

    /// Drops pending signals of a process and all its threads.
    pub fn discard_signals(&mut self, pid: u32, mask: u64) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        process.pending.discard(mask);
        for tid in &process.threads {
            if let Some(task) = self.tasks.get_mut(tid) {
                task.pending.discard(mask);
            }
        }
    }

    /// Real-time signals that may be queued: RLIMIT_SIGPENDING (11), never more than 4096 per queue.
    fn pending_limit(&self, pid: u32) -> usize {
        let soft = self.processes.get(&pid).and_then(|p| p.rlimits.get(&11)).map_or(4096, |l| l.0);
        crate::num::us(soft.min(4096))
    }

    /// Makes a task look at its signals soon.
    pub(crate) fn notify(&mut self, tid: Tid) {
        match self.tasks.get(&tid).map(|t| &t.state) {
            Some(TaskState::Running(vcpu)) => self.platform.kick(*vcpu),
            Some(TaskState::Blocked(_)) if self.has_deliverable_signal(tid) => self.interrupt(tid),
            _ => {}
        }
    }

    /// Sends a signal that cannot be ignored or blocked (a fault): resets such a disposition to the default first.
    pub fn force_signal(&mut self, tid: Tid, info: SigInfo) {
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        let pid = task.pid;
        let blocked = task.sigmask & bit(info.signo) != 0;
        task.sigmask &= !bit(info.signo);
        task.pending.push_fault(info);
        if info.signo == SIGKILL {
            self.exit_process(pid, ExitStatus::Signal(9));
        } else if blocked || self.action(pid, info.signo).handler == SIG_IGN {
            self.set_action(pid, info.signo, SigAction::default());
        }
    }

    /// Whether a signal would interrupt the task's sleep now.
    pub fn has_deliverable_signal(&self, tid: Tid) -> bool {
        let Some(task) = self.tasks.get(&tid) else { return false };
        if task.exiting {
            return true;
        }
        if self.sleeps_for_vfork(tid) {
            return false;
        }
        if task.trace.as_ref().is_some_and(|t| t.trap || t.inject.is_some()) {
            return true;
        }
        let process = self.processes.get(&task.pid).map_or(0, |p| p.pending.mask());
        (task.pending.mask() | process) & !task.sigmask != 0
    }

    /// Whether a task is a parent in vfork(2), or waits in execve(2) for its other threads: it can only be killed.
    pub(crate) fn sleeps_for_vfork(&self, tid: Tid) -> bool {
        match self.tasks.get(&tid).map(|t| &t.state) {
            Some(TaskState::Blocked(block)) => block.on.iter().any(|k| matches!(k, WaitKey::Vfork(_))),
            _ => false,
        }
    }

    /// Ends a task's sleep because of a signal: makes it runnable and remembers how its call restarts.
    pub fn interrupt(&mut self, tid: Tid) {
        let Some(block) = self.take_block(tid) else { return };
        self.futexes.forget(tid);
        if let Some(task) = self.tasks.get_mut(&tid) {
            task.resume = None;
            task.aux.interrupted = Some(block);
        }
        self.sched.push(tid);
    }

    /// Sets a task's signal mask (never SIGKILL or SIGSTOP).
    pub fn set_sigmask(&mut self, tid: Tid, mask: u64) {
        if let Some(task) = self.tasks.get_mut(&tid) {
            task.sigmask = mask & !UNBLOCKABLE;
        }
        // A signal of the process that this thread now blocks may have another taker.
        let Some(process) = self.process_of(tid) else { return };
        if process.pending.queue.is_empty() {
            return;
        }
        let others: Vec<Tid> = process.threads.iter().copied().filter(|t| *t != tid).collect();
        for other in others {
            if self.has_deliverable_signal(other) {
                self.notify(other);
            }
        }
    }
}
