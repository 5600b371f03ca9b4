//! Where a tracee stops on its way to user mode, and what its tracer is told.

use super::option::{EVENT_STOP, TRACESYSGOOD};
use super::{Kind, Mode, NO_RESULT, SIGTRAP, Stop, TF, event_info, restart_code};
use crate::kernel::Kernel;
use crate::platform::Vcpu;
use crate::signal::{SA_NOCLDSTOP, SIG_IGN, SIGCHLD, SIGKILL, SigInfo, bit};
use crate::task::{TaskState, Tid, child_key};
use crate::wait::{Block, Cause, Restart, Resume};

impl Kernel {
    /// Stops a task for its tracer.
    pub(super) fn trace_stop(
        &mut self,
        tid: Tid,
        kind: Kind,
        code: u32,
        info: Option<SigInfo>,
        message: u64,
    ) {
        self.sched.unqueue(tid);
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        let Some(trace) = task.trace.as_mut() else { return };
        if std::mem::take(&mut trace.stepping) {
            task.regs.rflags &= !TF;
        }
        if let Some(block) = &task.aux.interrupted {
            task.regs.rax = restart_code(block.restart);
            trace.past_interrupted = true;
        }
        trace.message = message;
        trace.stop = Some(Stop { code, kind, info, reported: false, listening: false });
        task.state = TaskState::Traced;
        self.tell_tracer(tid, code);
    }

    pub(super) fn tell_tracer(&mut self, tid: Tid, code: u32) {
        let (tracer, uid) = (self.tracer_of(tid), self.process_of(tid).map_or(0, |p| p.creds.uid));
        let (user, system) = self.task(tid).map_or((0, 0), |t| self.task_times(t));
        let action = self.action(tracer, SIGCHLD);
        if action.handler != SIG_IGN && action.flags & SA_NOCLDSTOP == 0 {
            // CLD_TRAPPED, or CLD_STOPPED with the process's stop signal.
            let group = self.task(tid).and_then(|t| t.trace.as_ref()).and_then(|t| t.stop.as_ref());
            let (why, status) = match group.is_some_and(|s| s.kind == Kind::Group) {
                true => (5, self.process_of(tid).and_then(|p| p.aux.stop.signal).unwrap_or(0)),
                false => (4, code & 0x7f),
            };
            let mut info = SigInfo::from_user(SIGCHLD, why, tid, uid);
            let [who, ..] = info.fields;
            info.fields = [who, u64::from(status), user / 10_000_000, system / 10_000_000];
            self.signal_process(tracer, info);
        }
        self.wake(child_key(tracer));
    }

    pub(super) fn group_stop(&mut self, tid: Tid, signo: u32) {
        let Some(trace) = self.tasks.get_mut(&tid).and_then(|t| t.trace.as_mut()) else { return };
        trace.group_seen = true;
        if trace.seized {
            let code = signo | EVENT_STOP << 8;
            self.trace_stop(tid, Kind::Group, code, Some(event_info(code, signo)), 0);
        } else {
            self.trace_stop(tid, Kind::Group, signo, None, 0);
        }
    }

    /// A traced task of a stopped process: whether it stops now. Once its tracer has let it go on it does not again.
    pub(crate) fn trace_group_stop(&mut self, tid: Tid, signo: u32) -> bool {
        let Some(trace) = self.tasks.get(&tid).and_then(|t| t.trace.as_ref()) else { return false };
        if !trace.group_seen {
            self.group_stop(tid, signo);
            return true;
        }
        false
    }

    /// A system call was asked for: whether the tracer is to look at it first.
    pub(crate) fn trace_entry(&mut self, tid: Tid) -> bool {
        let Some(task) = self.tasks.get_mut(&tid) else { return false };
        let Some(trace) = task.trace.as_mut() else { return false };
        trace.orig_rax = task.syscall.as_ref().map_or(u64::MAX, |c| c.number);
        trace.finished = false;
        if trace.mode != Mode::Syscall {
            return false;
        }
        task.regs.rax = NO_RESULT;
        self.syscall_stop(tid, Kind::Entry, 1);
        true
    }

    pub(super) fn syscall_stop(&mut self, tid: Tid, kind: Kind, message: u64) {
        let Some(trace) = self.tasks.get(&tid).and_then(|t| t.trace.as_ref()) else { return };
        let code = if trace.options & TRACESYSGOOD != 0 { SIGTRAP | 0x80 } else { SIGTRAP };
        self.trace_stop(tid, kind, code, Some(self.own_info(tid, code)), message);
    }

    pub(super) fn own_info(&self, tid: Tid, code: u32) -> SigInfo {
        let uid = self.process_of(tid).map_or(0, |p| p.creds.uid);
        SigInfo::from_user(SIGTRAP, i32::try_from(code).unwrap_or(0), tid, uid)
    }

    /// A call wants to sleep although an event is to be told first (vfork(2)): it is called again afterwards.
    pub(crate) fn trace_before_sleep(&mut self, tid: Tid, block: &Block) -> bool {
        let Some(task) = self.tasks.get_mut(&tid) else { return false };
        let Some((event, message)) = task.trace.as_mut().and_then(|t| t.events.pop_front()) else {
            return false;
        };
        task.resume = Some(Resume { cause: Cause::Woken, deadline: block.deadline, memo: block.memo });
        self.event_stop(tid, event, message);
        true
    }

    pub(super) fn event_stop(&mut self, tid: Tid, event: u32, message: u64) {
        let code = SIGTRAP | event << 8;
        self.trace_stop(tid, Kind::Event, code, Some(self.own_info(tid, code)), message);
    }

    /// A system call has ended.
    pub(crate) fn trace_finished(&mut self, tid: Tid) {
        if let Some(trace) = self.tasks.get_mut(&tid).and_then(|t| t.trace.as_mut()) {
            trace.finished = true;
        }
    }

    /// Something other than a system call made the task leave user mode.
    pub(crate) fn trace_no_call(&mut self, tid: Tid) {
        if let Some(trace) = self.tasks.get_mut(&tid).and_then(|t| t.trace.as_mut()) {
            trace.orig_rax = u64::MAX;
            trace.finished = false;
        }
    }

    /// Before signals are looked at: events, the end of a call, PTRACE_INTERRUPT, and the signal that the tracer let through. Returns
    /// whether the task does not go on here.
    pub(crate) fn trace_point(&mut self, vcpu: &mut dyn Vcpu, tid: Tid) -> bool {
        let Some(task) = self.tasks.get_mut(&tid) else { return true };
        let interrupted = task.aux.interrupted.is_some();
        let Some(trace) = task.trace.as_mut() else { return false };
        if let Some((event, message)) = trace.events.pop_front() {
            self.event_stop(tid, event, message);
            return true;
        }
        if let Some((status, whole)) = trace.dying.take() {
            let pid = task.pid;
            if whole {
                self.exit_process(pid, status);
            } else {
                self.exit_task(tid, status);
            }
            return !self.finish_if_exiting(tid);
        }
        let finished = std::mem::take(&mut trace.finished);
        let past = std::mem::replace(&mut trace.past_interrupted, interrupted);
        if (finished || (interrupted && !past)) && trace.mode == Mode::Syscall {
            self.syscall_stop(tid, Kind::Exit, 2);
            return true;
        }
        if finished && trace.mode == Mode::Step {
            // The instruction that was stepped over was `syscall`. TRAP_BRKPT.
            let rip = task.regs.rip;
            task.pending.push_fault(SigInfo::fault(SIGTRAP, 1, rip));
        }
        let Some(trace) = self.tasks.get_mut(&tid).and_then(|t| t.trace.as_mut()) else { return false };
        if std::mem::take(&mut trace.trap) {
            let signo = self.process_of(tid).and_then(|p| p.aux.stop.signal).unwrap_or(SIGTRAP);
            let code = signo | EVENT_STOP << 8;
            self.trace_stop(tid, Kind::Group, code, Some(event_info(code, signo)), 0);
            return true;
        }
        if let Some(info) = trace.inject.take() {
            return self.inject(vcpu, tid, info);
        }
        false
    }

    fn inject(&mut self, vcpu: &mut dyn Vcpu, tid: Tid, info: SigInfo) -> bool {
        let Some(task) = self.tasks.get_mut(&tid) else { return true };
        if task.sigmask & bit(info.signo) != 0 {
            task.pending.push(info);
            return false;
        }
        self.deliver(vcpu, tid, info);
        !self.finish_if_exiting(tid) || self.task(tid).is_none_or(|t| t.state == TaskState::Traced)
    }

    /// Whether a traced task has an event to report, or its announced end is due.
    pub(crate) fn trace_due(&self, tid: Tid) -> bool {
        let trace = self.task(tid).and_then(|t| t.trace.as_ref());
        trace.is_some_and(|t| !t.events.is_empty() || t.dying.is_some())
    }

    /// A signal is about to take effect: whether the tracer is to see it first.
    pub(crate) fn trace_signal(&mut self, tid: Tid, info: &SigInfo) -> bool {
        if info.signo == SIGKILL || !self.is_traced(tid) || self.task(tid).is_some_and(|t| t.exiting) {
            return false;
        }
        self.trace_stop(tid, Kind::Signal, info.signo, Some(*info), 0);
        true
    }

    /// A call that an interruption had ended for its tracer begins again: whether the tracer sees it do so.
    pub(crate) fn trace_restart(&mut self, tid: Tid, how: Restart) -> bool {
        let Some(task) = self.tasks.get_mut(&tid) else { return false };
        let Some(trace) = task.trace.as_mut() else { return false };
        if !std::mem::take(&mut trace.past_interrupted) || trace.mode != Mode::Syscall {
            return false;
        }
        if how == Restart::WithDeadline {
            // restart_syscall(2)
            trace.orig_rax = 219;
        }
        task.regs.rax = NO_RESULT;
        self.syscall_stop(tid, Kind::Entry, 1);
        true
    }

    /// What a tracer's step put into the flags is not for a signal frame to show.
    pub(crate) fn trace_own_flags(&mut self, tid: Tid) {
        if let Some(task) = self.tasks.get_mut(&tid)
            && task.trace.as_ref().is_some_and(|t| t.stepping)
        {
            task.regs.rflags &= !TF;
        }
    }

    /// A handler was entered while the tracer steps: it sees the first instruction.
    pub(crate) fn trace_handler(&mut self, tid: Tid) -> bool {
        let Some(trace) = self.tasks.get_mut(&tid).and_then(|t| t.trace.as_mut()) else { return false };
        trace.past_interrupted = false;
        if !std::mem::take(&mut trace.stepping) {
            return false;
        }
        let info = self.own_info(tid, SIGTRAP);
        self.trace_stop(tid, Kind::Event, SIGTRAP, Some(info), 0);
        true
    }
}
