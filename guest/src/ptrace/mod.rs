//! Tracing (ptrace(2)): which thread is traced by which process, where it stops, and how it goes on.
//!
//! A tracee stops only on its way to user mode (`trace_point`) or between `syscall` and its handler
//! (`trace_entry`); a stopped one is a task in [`TaskState::Traced`]. Everything is plain data of the traced task, so that a
//! fork of a seed with a traced process has the same tracer and the same stop. Requests are parsed in `syscall::ptrace`; registers as
//! tracers see them are in `regs`.

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::signal::{SIGCHLD, SIGSTOP, SigInfo};
use crate::task::clone::{CloneArgs, flag};
use crate::task::creds::cap;
use crate::task::{ExitStatus, TaskState, Tid};
use crate::wait::Restart;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

mod end;
pub mod regs;
mod stop;

/// Options and events of ptrace(2).
#[allow(missing_docs)]
pub mod option {
    pub const TRACESYSGOOD: u32 = 1;
    pub const TRACEEXEC: u32 = 1 << EVENT_EXEC;
    pub const TRACEVFORKDONE: u32 = 1 << EVENT_VFORK_DONE;
    pub const TRACEEXIT: u32 = 1 << EVENT_EXIT;
    pub const EXITKILL: u32 = 1 << 20;
    /// Those that may be set. Not PTRACE_O_SUSPEND_SECCOMP: there are no filters.
    pub const ALL: u32 = 0xff | EXITKILL;
    pub const EVENT_FORK: u32 = 1;
    pub const EVENT_VFORK: u32 = 2;
    pub const EVENT_CLONE: u32 = 3;
    pub const EVENT_EXEC: u32 = 4;
    pub const EVENT_VFORK_DONE: u32 = 5;
    pub const EVENT_EXIT: u32 = 6;
    pub const EVENT_STOP: u32 = 128;
}
use option::*;

/// SIGTRAP.
pub const SIGTRAP: u32 = 5;
/// rax of a call that is to be made, as a tracer sees it at its entry (-ENOSYS).
const NO_RESULT: u64 = 38_u64.wrapping_neg();
/// The trap flag.
const TF: u64 = 0x100;

/// How a tracee goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Until a signal or an event.
    #[default]
    Cont,
    /// And until the next entry to or exit from a system call.
    Syscall,
    /// For one instruction.
    Step,
}

/// Which kind of stop a tracee is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Before a signal takes effect.
    Signal,
    /// With its whole process.
    Group,
    /// Before a system call is made.
    Entry,
    /// After it.
    Exit,
    /// PTRACE_EVENT_*.
    Event,
}

/// A tracee's stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// The status that wait(2) shows, without its low byte 0x7f.
    pub code: u32,
    /// What kind it is.
    pub kind: Kind,
    /// What PTRACE_GETSIGINFO shows.
    pub info: Option<SigInfo>,
    /// wait(2) has reported it.
    pub reported: bool,
    /// PTRACE_LISTEN: it stays stopped, and no request but PTRACE_INTERRUPT is taken.
    pub listening: bool,
}

/// What a task carries while it is traced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The process that traces it.
    pub tracer: u32,
    /// By PTRACE_SEIZE.
    pub seized: bool,
    /// PTRACE_O_*.
    pub options: u32,
    /// How it goes on, or went on last.
    pub mode: Mode,
    /// Where it stands, while it is stopped.
    pub stop: Option<Stop>,
    /// The signal that its tracer lets through.
    pub inject: Option<SigInfo>,
    /// Events to be reported, each with its message. One call makes two at most.
    pub events: VecDeque<(u32, u64)>,
    /// PTRACE_INTERRUPT: it is to stop.
    pub trap: bool,
    /// It has stopped with its process since that was stopped last.
    pub group_seen: bool,
    /// A system call has just ended.
    pub finished: bool,
    /// It is past the end of an interrupted call, where a tracer of calls would stop it.
    pub past_interrupted: bool,
    /// Number of the call it is in, or all ones.
    pub orig_rax: u64,
    /// PTRACE_GETEVENTMSG.
    pub message: u64,
    /// The trap flag is the tracer's, not its own.
    pub stepping: bool,
    /// It is about to end so, and has said so; with its whole process or alone.
    pub dying: Option<(ExitStatus, bool)>,
    /// Its end was announced (PTRACE_EVENT_EXIT).
    pub exit_told: bool,
}

impl Trace {
    /// The record of a thread that `tracer` begins to trace.
    pub fn new(tracer: u32, seized: bool, options: u32) -> Self {
        Trace { tracer, seized, options, orig_rax: u64::MAX, ..Trace::default() }
    }
}

/// rax at the end of a call that will be restarted, as only tracers see it.
fn restart_code(how: Restart) -> u64 {
    let errno: u64 = match how {
        Restart::IfSaRestart => 512,
        Restart::UnlessHandler => 514,
        Restart::WithDeadline => 516,
        Restart::Never | Restart::Partial => 4,
    };
    errno.wrapping_neg()
}

impl Kernel {
    /// Whether a task is traced.
    pub fn is_traced(&self, tid: Tid) -> bool {
        self.tasks.get(&tid).is_some_and(|t| t.trace.is_some())
    }

    /// The process that traces a task; 0 for none.
    pub fn tracer_of(&self, tid: Tid) -> u32 {
        self.tasks.get(&tid).and_then(|t| t.trace.as_ref()).map_or(0, |t| t.tracer)
    }

    /// Whether a task is traced by one that may not trace everybody.
    pub fn traced_by_weaker(&self, tid: Tid) -> bool {
        let tracer = self.tracer_of(tid);
        tracer != 0 && self.processes.get(&tracer).is_some_and(|p| !p.creds.can(cap::SYS_PTRACE))
    }

    /// PTRACE_ATTACH and PTRACE_SEIZE. EPERM, ESRCH.
    pub fn trace_attach(&mut self, tid: Tid, target: Tid, seized: bool, options: u32) -> Result<(), Errno> {
        let me = self.task(tid).ok_or(Errno::ESRCH)?.pid;
        let task = self.task(target).ok_or(Errno::ESRCH)?;
        if task.pid == me || task.exiting {
            return Err(Errno::EPERM);
        }
        self.may_inspect(tid, target, true)?;
        self.trace_begin(target, Trace::new(me, seized, options))?;
        if !seized {
            // SI_KERNEL
            self.signal_task(target, SigInfo { signo: SIGSTOP, code: 0x80, ..SigInfo::default() });
        }
        // One that is stopped already stops anew, for its tracer.
        let group = self.process_of(target).and_then(|p| p.aux.stop.signal);
        let stopped = self.task(target).is_some_and(|t| t.state == TaskState::Stopped);
        if let (Some(signo), true) = (group, stopped) {
            self.group_stop(target, signo);
        }
        Ok(())
    }

    /// PTRACE_TRACEME. EPERM.
    pub fn trace_me(&mut self, tid: Tid) -> Result<(), Errno> {
        let tracer = self.process_of(tid).ok_or(Errno::ESRCH)?.parent;
        if tracer == 0 {
            return Err(Errno::EPERM);
        }
        self.trace_begin(tid, Trace::new(tracer, false, 0))
    }

    fn trace_begin(&mut self, target: Tid, mut trace: Trace) -> Result<(), Errno> {
        let task = self.tasks.get_mut(&target).ok_or(Errno::ESRCH)?;
        if task.trace.is_some() {
            return Err(Errno::EPERM);
        }
        if let Some(call) = &task.syscall {
            trace.orig_rax = call.number;
        }
        task.trace = Some(Box::new(trace));
        Ok(())
    }

    /// PTRACE_INTERRUPT of a thread that was seized.
    pub fn trace_interrupt(&mut self, tid: Tid) {
        let Some(trace) = self.tasks.get_mut(&tid).and_then(|t| t.trace.as_mut()) else { return };
        if trace.stop.as_ref().is_some_and(|s| s.listening) {
            self.stop_again(tid);
            return;
        }
        trace.trap = true;
        self.notify(tid);
    }

    /// One that listens has something to say.
    fn stop_again(&mut self, tid: Tid) {
        let signo = self.process_of(tid).and_then(|p| p.aux.stop.signal).unwrap_or(SIGTRAP);
        let code = signo | EVENT_STOP << 8;
        if let Some(stop) =
            self.tasks.get_mut(&tid).and_then(|t| t.trace.as_mut()).and_then(|t| t.stop.as_mut())
        {
            stop.code = code;
            stop.info = Some(event_info(code, signo));
            (stop.reported, stop.listening) = (false, false);
        }
        self.tell_tracer(tid, code);
    }

    /// The process of a tracee was continued: a seized one tells its tracer.
    pub(crate) fn trace_continued(&mut self, tid: Tid) {
        let Some(trace) = self.tasks.get_mut(&tid).and_then(|t| t.trace.as_mut()) else { return };
        trace.group_seen = false;
        if !trace.seized {
            return;
        }
        match &trace.stop {
            Some(stop) if stop.listening => self.stop_again(tid),
            Some(stop) if stop.kind == Kind::Group => trace.trap = true,
            _ => {}
        }
    }

    /// Lets a stopped tracee go on (PTRACE_CONT, SYSCALL, SINGLESTEP) with a signal, 0 for none.
    pub fn trace_resume(&mut self, tid: Tid, mode: Mode, signo: u32) {
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        let Some(trace) = task.trace.as_mut() else { return };
        let Some(stop) = trace.stop.take() else { return };
        trace.mode = mode;
        let sender = trace.tracer;
        if mode == Mode::Step && task.regs.rflags & TF == 0 {
            trace.stepping = true;
            task.regs.rflags |= TF;
        }
        match stop.kind {
            Kind::Signal if signo != 0 => trace.inject = Some(injected(&stop, signo, sender)),
            Kind::Entry => regs::redo_call(task),
            _ => {}
        }
        if stop.kind != Kind::Entry {
            regs::restart_changed(task);
        }
        task.state = TaskState::Runnable;
        self.sched.push(tid);
        if matches!(stop.kind, Kind::Entry | Kind::Exit) && signo != 0 {
            self.signal_task(tid, SigInfo { signo, code: 0x80, ..SigInfo::default() });
        }
    }

    /// PTRACE_DETACH, or the tracer's end: a stopped tracee goes on with a signal, 0 for none, or stops with its process.
    pub fn trace_detach(&mut self, tid: Tid, signo: u32) {
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        let Some(mut trace) = task.trace.take() else { return };
        if trace.stepping {
            task.regs.rflags &= !TF;
        }
        let Some(stop) = trace.stop.take() else { return };
        match stop.kind {
            Kind::Entry => {
                task.trace = Some(trace);
                regs::redo_call(task);
                task.trace = None;
            }
            Kind::Signal if signo != 0 => {
                task.pending.push_fault(injected(&stop, signo, 0));
            }
            _ => {}
        }
        regs::restart_changed(task);
        let pid = task.pid;
        let stays = self.processes.get(&pid).is_some_and(|p| p.aux.stop.signal.is_some());
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        if stays {
            task.state = TaskState::Stopped;
            self.announce_stop(pid);
        } else {
            task.state = TaskState::Runnable;
            self.sched.push(tid);
        }
    }

    /// A traced task has got a child: an event for its tracer, who traces the child too where it asked for that.
    pub(crate) fn trace_birth(&mut self, tid: Tid, child: Tid, a: &CloneArgs) {
        const CLONE_PTRACE: u64 = 0x2000;
        const CLONE_UNTRACED: u64 = 0x80_0000;
        let Some(trace) = self.tasks.get_mut(&tid).and_then(|t| t.trace.as_mut()) else { return };
        let event = match a.exit_signal {
            _ if a.flags & flag::VFORK != 0 => EVENT_VFORK,
            SIGCHLD if a.flags & flag::THREAD == 0 => EVENT_FORK,
            _ => EVENT_CLONE,
        };
        let told = trace.options & (1 << event) != 0 && a.flags & CLONE_UNTRACED == 0;
        if told {
            trace.events.push_back((event, u64::from(child)));
        }
        if !told && a.flags & CLONE_PTRACE == 0 {
            return;
        }
        let (tracer, seized, options) = (trace.tracer, trace.seized, trace.options);
        if let Some(born) = self.tasks.get_mut(&child) {
            let mut own = Trace::new(tracer, seized, options);
            own.trap = seized;
            if !seized {
                born.pending.push(SigInfo { signo: SIGSTOP, code: 0x80, ..SigInfo::default() });
            }
            born.trace = Some(Box::new(own));
        }
    }

    /// The child of vfork(2) let its parent go on.
    pub(crate) fn trace_vfork_done(&mut self, tid: Tid, child: Tid) {
        let Some(trace) = self.tasks.get_mut(&tid).and_then(|t| t.trace.as_mut()) else { return };
        if trace.options & TRACEVFORKDONE != 0 {
            trace.events.push_back((EVENT_VFORK_DONE, u64::from(child)));
        }
    }

    /// A traced task runs another program; it was thread `old` before.
    pub(crate) fn trace_exec(&mut self, tid: Tid, old: Tid) {
        let uid = self.process_of(tid).map_or(0, |p| p.creds.uid);
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        let Some(trace) = task.trace.as_mut() else { return };
        trace.finished = true;
        if trace.options & TRACEEXEC != 0 {
            trace.events.push_back((EVENT_EXEC, u64::from(old)));
        } else if !trace.seized {
            task.pending.push(SigInfo::from_user(SIGTRAP, 0, tid, uid));
        }
    }
}

/// The siginfo of a PTRACE_EVENT_STOP.
fn event_info(code: u32, signo: u32) -> SigInfo {
    SigInfo { signo, code: i32::try_from(code).unwrap_or(0), ..SigInfo::default() }
}

/// The signal that a tracer lets through: the one that stopped it, or another of the tracer's.
fn injected(stop: &Stop, signo: u32, tracer: u32) -> SigInfo {
    match stop.info {
        Some(info) if info.signo == signo => info,
        _ => SigInfo::from_user(signo, 0, tracer, 0),
    }
}

#[cfg(test)]
mod tests;
