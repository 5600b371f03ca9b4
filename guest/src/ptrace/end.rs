//! The end of tracees and of tracers: who is told, who waits, who goes on.

use super::option::{EVENT_EXIT, EXITKILL, TRACEEXIT};
use crate::kernel::Kernel;
use crate::signal::{SA_NOCLDWAIT, SIG_IGN, SIGCHLD, SigInfo};
use crate::task::{ExitStatus, Task, Tid, child_key};

/// Threads that ended and that their tracer has not waited for, before the oldest are forgotten.
const MAX_DEAD: usize = 4096;

impl Kernel {
    /// A task is about to end by its own doing: whether its tracer hears of that first. Then it ends at [`Kernel::trace_point`].
    pub(crate) fn trace_exit(&mut self, tid: Tid, status: ExitStatus, whole: bool) -> bool {
        let Some(task) = self.tasks.get_mut(&tid) else { return false };
        let Some(trace) = task.trace.as_mut() else { return false };
        if task.exiting || trace.exit_told || trace.options & TRACEEXIT == 0 {
            return false;
        }
        trace.exit_told = true;
        trace.dying = Some((status, whole));
        trace.events.push_back((EVENT_EXIT, u64::from(status.wait_status())));
        true
    }

    /// A task that may be traced has ended. A thread is reported by itself; of a process its tracer hears when all of it has ended.
    pub(crate) fn trace_task_ended(&mut self, task: &Task, status: ExitStatus) {
        let Some(trace) = &task.trace else { return };
        if self.processes.get(&trace.tracer).is_none_or(|p| p.zombie.is_some()) {
            return;
        }
        let Some(process) = self.processes.get_mut(&task.pid) else { return };
        if task.tid == task.pid {
            process.aux.traced_by = Some(trace.tracer).filter(|t| *t != process.parent);
            return;
        }
        let (group, uid) = (process.pgid, process.creds.uid);
        if let Some(tracer) = self.processes.get_mut(&trace.tracer) {
            let dead = &mut tracer.aux.dead_tracees;
            if dead.len() >= MAX_DEAD {
                dead.pop_front();
            }
            dead.push_back((task.tid, group, uid, status));
        }
        self.tell_tracer_of_end(trace.tracer, task.tid, uid, status);
    }

    fn tell_tracer_of_end(&mut self, tracer: u32, id: u32, uid: u32, status: ExitStatus) {
        let (code, value) = status.siginfo();
        let mut info = SigInfo::from_user(SIGCHLD, code, id, uid);
        let [who, ..] = info.fields;
        info.fields = [who, u64::from(value), 0, 0];
        if self.action(tracer, SIGCHLD).handler != SIG_IGN {
            self.signal_process(tracer, info);
        }
        self.wake(child_key(tracer));
    }

    /// A process has ended: whether its tracer, who is not its parent, is to wait for it first.
    pub(crate) fn trace_process_ended(&mut self, pid: u32, status: ExitStatus) -> bool {
        let Some(process) = self.processes.get_mut(&pid) else { return false };
        let uid = process.creds.uid;
        let Some(tracer) = process.aux.traced_by else { return false };
        let chld = self.action(tracer, SIGCHLD);
        let wants = chld.handler != SIG_IGN && chld.flags & SA_NOCLDWAIT == 0;
        if !wants || self.processes.get(&tracer).is_none_or(|p| p.zombie.is_some()) {
            if let Some(process) = self.processes.get_mut(&pid) {
                process.aux.traced_by = None;
            }
            return false;
        }
        self.tell_tracer_of_end(tracer, pid, uid, status);
        true
    }

    /// The tracer of a process has ended or has waited for it: its parent is next.
    pub(crate) fn trace_let_go(&mut self, pid: u32) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        process.aux.traced_by = None;
        if let Some(status) = process.zombie {
            self.tell_of_end(pid, status);
        }
    }

    /// A process has ended: what it traced goes on, or ends too (PTRACE_O_EXITKILL).
    pub(crate) fn trace_tracer_ended(&mut self, pid: u32) {
        let of = |t: &Task| t.trace.as_ref().filter(|x| x.tracer == pid).map(|x| x.options & EXITKILL != 0);
        let tracees: Vec<(Tid, u32, bool)> =
            self.tasks.values().filter_map(|t| Some((t.tid, t.pid, of(t)?))).collect();
        for (tid, process, kill) in tracees {
            if kill {
                self.exit_process(process, ExitStatus::Signal(9));
                continue;
            }
            // A signal that the tracer never saw takes its course.
            let stop = self.tasks.get(&tid).and_then(|t| t.trace.as_ref()).and_then(|t| t.stop.as_ref());
            let signo = stop.filter(|s| !s.reported && s.kind == super::Kind::Signal).map_or(0, |s| s.code);
            self.trace_detach(tid, signo);
        }
        let dead: Vec<u32> =
            self.processes.values().filter(|p| p.aux.traced_by == Some(pid)).map(|p| p.pid).collect();
        for pid in dead {
            self.trace_let_go(pid);
        }
    }
}
