//! Stopping and continuing whole processes, and orphaned process groups (signal(7), setpgid(2), wait(2)).
//!
//! A process is stopped as a whole: one thread takes the stop signal, all of them stop, and the parent is told when the last one has.
//! SIGCONT ends that when it is sent, whatever its disposition.

use super::{DEFAULT_STOP, SA_NOCLDSTOP, SIG_IGN, SIGCHLD, SIGCONT, SIGSTOP, SigInfo, bit};
use crate::kernel::Kernel;
use crate::task::{TaskState, Tid, child_key};

/// CLD_STOPPED.
const CLD_STOPPED: i32 = 5;
/// CLD_CONTINUED.
const CLD_CONTINUED: i32 = 6;
/// SIGHUP.
const SIGHUP: u32 = 1;

impl Kernel {
    /// What sending a signal does at once: SIGCONT removes pending stop signals and lets a stopped process go on; a stop signal removes a
    /// pending SIGCONT.
    pub(super) fn job_control(&mut self, pid: u32, signo: u32) {
        if signo == SIGCONT {
            self.discard_signals(pid, DEFAULT_STOP);
            self.continue_process(pid);
        } else if bit(signo) & DEFAULT_STOP != 0 {
            self.discard_signals(pid, bit(SIGCONT));
        }
    }

    /// A thread takes a stop signal whose disposition is the default. Nothing happens in an orphaned group, but for SIGSTOP.
    pub(super) fn stop_process(&mut self, pid: u32, signo: u32) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let group = process.pgid;
        if signo != SIGSTOP && self.is_orphaned(group, 0) {
            return;
        }
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let stop = &mut process.aux.stop;
        stop.signal = Some(signo);
        stop.announced = false;
        stop.continued = false;
        let threads: Vec<Tid> = process.threads.iter().copied().collect();
        for tid in threads {
            let traced = match self.tasks.get_mut(&tid).and_then(|t| t.trace.as_mut()) {
                Some(trace) => {
                    trace.group_seen = false;
                    true
                }
                None => false,
            };
            match self.tasks.get(&tid).map(|t| &t.state) {
                Some(TaskState::Blocked(_)) if !self.sleeps_for_vfork(tid) => {
                    self.interrupt(tid);
                    // A traced one stops for its tracer, on its way to user mode.
                    if !traced {
                        self.stop_task(tid);
                    }
                }
                Some(TaskState::Runnable) if !traced => self.stop_task(tid),
                // Those on other vCPUs stop at their return to user mode, a parent in vfork(2) when its child is done.
                Some(TaskState::Running(vcpu)) => self.platform.kick(*vcpu),
                _ => {}
            }
        }
        self.announce_stop(pid);
    }

    /// Whether the task belongs to a stopped process and is not to die: then it stops here and now.
    pub(super) fn stops_here(&mut self, tid: Tid) -> bool {
        let Some(process) = self.process_of(tid) else { return false };
        let Some(signo) = process.aux.stop.signal.filter(|_| process.group_exit.is_none()) else {
            return false;
        };
        let pid = process.pid;
        if !self.is_traced(tid) {
            self.stop_task(tid);
        } else if !self.trace_group_stop(tid, signo) {
            return false;
        }
        self.announce_stop(pid);
        true
    }

    fn stop_task(&mut self, tid: Tid) {
        self.sched.unqueue(tid);
        if let Some(task) = self.tasks.get_mut(&tid) {
            task.state = TaskState::Stopped;
        }
    }

    /// Tells the parent once every thread has stopped.
    pub(crate) fn announce_stop(&mut self, pid: u32) {
        let Some(process) = self.processes.get(&pid) else { return };
        let Some(signo) = process.aux.stop.signal else { return };
        let settled = process.threads.iter().all(|t| {
            self.tasks.get(t).is_none_or(|t| {
                matches!(t.state, TaskState::Stopped | TaskState::Traced | TaskState::Blocked(_))
            })
        });
        if process.aux.stop.announced || !settled || process.threads.is_empty() {
            return;
        }
        if let Some(process) = self.processes.get_mut(&pid) {
            process.aux.stop.announced = true;
            process.aux.stop.unreported = true;
        }
        self.tell_parent(pid, CLD_STOPPED, signo);
    }

    /// Lets a stopped process go on.
    fn continue_process(&mut self, pid: u32) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let stop = &mut process.aux.stop;
        if stop.signal.take().is_none() {
            return;
        }
        let was_announced = std::mem::take(&mut stop.announced);
        stop.unreported = false;
        stop.continued = was_announced;
        let threads: Vec<Tid> = process.threads.iter().copied().collect();
        for tid in threads {
            if let Some(task) = self.tasks.get_mut(&tid).filter(|t| t.state == TaskState::Stopped) {
                task.state = TaskState::Runnable;
                self.sched.push(tid);
            }
            self.trace_continued(tid);
        }
        if was_announced {
            self.tell_parent(pid, CLD_CONTINUED, SIGCONT);
        }
    }

    /// SIGCHLD for a stop or its end, unless the parent does not want it (SA_NOCLDSTOP); whoever waits for the child looks again.
    fn tell_parent(&mut self, pid: u32, code: i32, status: u32) {
        let Some(process) = self.processes.get(&pid) else { return };
        let (parent, uid) = (process.parent, process.creds.uid);
        let (user, system) = self.process_times(pid);
        let action = self.action(parent, SIGCHLD);
        // A parent that traces its child hears of that in another way.
        let traces = self.tracer_of(pid) == parent;
        if action.handler != SIG_IGN && action.flags & SA_NOCLDSTOP == 0 && !traces {
            let mut info = SigInfo::from_user(SIGCHLD, code, pid, uid);
            info.fields = [
                info.fields.first().copied().unwrap_or(0),
                u64::from(status),
                user / 10_000_000,
                system / 10_000_000,
            ];
            self.signal_process(parent, info);
        }
        self.wake(child_key(parent));
    }

    /// Sends a signal from the kernel to every process of a group.
    pub fn signal_group(&mut self, pgid: u32, signo: u32) {
        let members: Vec<u32> = self.processes.values().filter(|p| p.pgid == pgid).map(|p| p.pid).collect();
        for pid in members {
            // SI_KERNEL
            self.signal_process(pid, SigInfo { signo, code: 0x80, ..SigInfo::default() });
        }
    }

    /// Whether no living member of a group, `without` left out, has its parent in another group of the same session.
    pub fn is_orphaned(&self, pgid: u32, without: u32) -> bool {
        !self.processes.values().filter(|p| p.pgid == pgid && p.pid != without && p.zombie.is_none()).any(
            |p| {
                // What outlives its parent belongs to process 1, which counts as the parent of nobody here.
                let parent = self.processes.get(&p.parent).filter(|q| q.pid != 1 || !p.aux.adopted);
                parent.is_some_and(|q| q.pgid != pgid && q.sid == p.sid && q.zombie.is_none())
            },
        )
    }

    /// Groups that a process ties to their session: its own through its parent, its children's through itself.
    pub(crate) fn groups_tied_by(&self, pid: u32) -> Vec<u32> {
        let Some(dead) = self.processes.get(&pid) else { return Vec::new() };
        let tied = |p: &crate::task::Process, by: u32| {
            self.processes.get(&by).is_some_and(|q| q.pgid != p.pgid && q.sid == p.sid)
        };
        let children = self.processes.values().filter(|p| p.parent == pid && tied(p, pid));
        let mut groups: Vec<u32> = children.map(|p| p.pgid).collect();
        if tied(dead, dead.parent) {
            groups.push(dead.pgid);
        }
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// A process has ended, and others have its children. Those of the groups that it tied to their session which are orphaned now and
    /// have stopped members get SIGHUP and SIGCONT (setpgid(2)).
    pub(crate) fn hang_up_orphans(&mut self, pid: u32, groups: &[u32]) {
        for group in groups {
            let stopped = |p: &crate::task::Process| {
                p.pgid == *group && p.pid != pid && p.zombie.is_none() && p.aux.stop.signal.is_some()
            };
            if self.is_orphaned(*group, pid) && self.processes.values().any(stopped) {
                self.signal_group(*group, SIGHUP);
                self.signal_group(*group, SIGCONT);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Limits;
    use crate::platform::fake::{FakePlatform, FakeVcpu};
    use crate::task::{ExitStatus, Process, Task};
    use std::sync::Arc;

    /// Processes (pid, parent, group) of one session, all on the run queue.
    fn kernel(family: &[(u32, u32, u32)]) -> Kernel {
        let mut k = Kernel::new(Arc::new(FakePlatform::new(1 << 30)), Limits::default()).unwrap();
        for (pid, parent, group) in family {
            let mut p = Process::new(*pid, *parent);
            (p.pgid, p.sid) = (*group, 1);
            p.threads.insert(*pid);
            k.processes.insert(*pid, p);
            k.tasks.insert(*pid, Task::new(*pid, *pid));
            k.sched.push(*pid);
        }
        k.tasks.get_mut(&1).unwrap().sigmask = u64::MAX;
        k
    }

    fn run(k: &mut Kernel) {
        let mut vcpu = FakeVcpu::new(0);
        for _ in 0..20 {
            if let crate::kernel::Next::Run(tid) = k.next(&mut vcpu) {
                k.on_exit(&mut vcpu, tid, crate::platform::Exit::Preempted);
            }
        }
    }

    #[test]
    fn a_stop_takes_all_threads_and_continuing_lets_them_go_on() {
        let mut k = kernel(&[(1, 0, 1), (2, 1, 2)]);
        k.tasks.insert(3, Task::new(3, 2));
        k.processes.get_mut(&2).unwrap().threads.insert(3);
        k.sched.push(3);
        k.signal_process(2, SigInfo::from_user(20, 0, 1, 0));
        run(&mut k);
        assert!([2, 3].iter().all(|t| k.tasks[t].state == TaskState::Stopped));
        let info = k.take_signal(1, u64::MAX).unwrap();
        assert_eq!((info.signo, info.code, info.fields[1]), (17, CLD_STOPPED, 20));
        k.signal_process(2, SigInfo::from_user(SIGCONT, 0, 1, 0));
        assert!([2, 3].iter().all(|t| k.tasks[t].state == TaskState::Runnable));
        assert_eq!(k.take_signal(1, u64::MAX).unwrap().code, CLD_CONTINUED);
    }

    #[test]
    fn a_stopped_process_can_be_killed() {
        let mut k = kernel(&[(1, 0, 1), (2, 1, 2)]);
        k.signal_process(2, SigInfo::from_user(SIGSTOP, 0, 1, 0));
        run(&mut k);
        k.signal_process(2, SigInfo::from_user(9, 0, 1, 0));
        assert_eq!(k.processes[&2].zombie, Some(ExitStatus::Signal(9)));
    }

    #[test]
    fn the_terminals_stop_does_nothing_in_an_orphaned_group_but_sigstop_does() {
        let mut k = kernel(&[(1, 0, 1), (2, 1, 1)]);
        k.signal_process(2, SigInfo::from_user(20, 0, 1, 0));
        run(&mut k);
        assert_eq!(k.processes[&2].aux.stop.signal, None);
        k.signal_process(2, SigInfo::from_user(SIGSTOP, 0, 1, 0));
        run(&mut k);
        assert_eq!(k.tasks[&2].state, TaskState::Stopped);
    }

    #[test]
    fn stopped_jobs_of_a_shell_that_ends_are_hung_up_and_continued() {
        let mut k = kernel(&[(1, 0, 1), (2, 1, 2), (3, 2, 3)]);
        k.signal_process(3, SigInfo::from_user(20, 0, 2, 0));
        run(&mut k);
        assert_eq!(k.tasks[&3].state, TaskState::Stopped);
        k.exit_process(2, ExitStatus::Code(0));
        run(&mut k);
        assert_eq!(k.processes[&3].zombie, Some(ExitStatus::Signal(1)));
    }
}
