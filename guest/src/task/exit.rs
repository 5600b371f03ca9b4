//! Death of tasks and processes, wait(2).

use crate::kernel::Kernel;
use crate::signal::{SA_NOCLDWAIT, SIG_IGN, SIGCHLD, SigInfo};
use crate::task::{ExitStatus, TaskState, Tid, child_key};
use crate::wait::WaitKey;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Zombies that outlived their parents and that process 1 does not wait for, before the oldest are forgotten.
const MAX_ADOPTED: usize = 64;

/// Processes that are to end. Empty but within [`Kernel::exit_process`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ends {
    queue: VecDeque<u32>,
    busy: bool,
}

impl ExitStatus {
    /// The status word of wait(2).
    pub fn wait_status(self) -> u32 {
        match self {
            ExitStatus::Code(code) => u32::from(code) << 8,
            ExitStatus::Signal(signo) => u32::from(signo),
        }
    }

    /// si_code (CLD_EXITED or CLD_KILLED) and si_status.
    pub fn siginfo(self) -> (i32, u32) {
        match self {
            ExitStatus::Code(code) => (1, u32::from(code)),
            ExitStatus::Signal(signo) => (2, u32::from(signo)),
        }
    }
}

impl Kernel {
    /// Ends one thread: robust futexes, clear_child_tid, references; ends the process when it was the last.
    pub fn exit_task(&mut self, tid: Tid, status: ExitStatus) {
        self.exit_robust_list(tid);
        let Some(clear) = self.tasks.get(&tid).map(|t| t.clear_child_tid) else { return };
        if clear != 0 && self.put_u32(tid, clear, 0).is_ok() {
            self.futex_wake_address(tid, clear, 1);
        }
        self.take_block(tid);
        self.futexes.forget(tid);
        self.sched.remove(tid);
        let Some(task) = self.tasks.remove(&tid) else { return };
        self.trace_task_ended(&task, status);
        self.mm_release(task.mm);
        self.fd_table_release(task.files);
        self.fs_release(task.fs);
        let Some(process) = self.processes.get_mut(&task.pid) else { return };
        process.threads.remove(&tid);
        process.aux.dead_cpu_ns = process.aux.dead_cpu_ns.saturating_add(task.cpu_ns);
        process.aux.dead_system_ns = process.aux.dead_system_ns.saturating_add(task.aux.system_ns);
        self.announce_stop(task.pid);
        if self.processes.get(&task.pid).is_some_and(|p| p.threads.len() == 1) {
            // One that waits in execve(2) to be alone goes on.
            self.wake(WaitKey::Vfork(task.pid));
        }
        let Some(process) = self.processes.get(&task.pid) else { return };
        if process.threads.is_empty() {
            // What the last thread ended with is the process's status (Linux since 5.19), not what the first one did.
            let status = process.group_exit.unwrap_or(status);
            self.process_ended(task.pid, status);
        }
    }

    /// Ends a whole process (exit_group, a fatal signal). One end may bring others about (signals at a parent's or a child's death,
    /// PTRACE_O_EXITKILL): these follow one after another, however long the chain. Sleeping and waiting threads end at once; those on a vCPU (the caller's own
    /// too) end at their return to user mode.
    pub fn exit_process(&mut self, pid: u32, status: ExitStatus) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        process.group_exit.get_or_insert(status);
        self.ends.queue.push_back(pid);
        if self.ends.busy {
            return;
        }
        self.ends.busy = true;
        while let Some(pid) = self.ends.queue.pop_front() {
            let Some(process) = self.processes.get(&pid) else { continue };
            let status = process.group_exit.unwrap_or(status);
            let threads: Vec<Tid> = process.threads.iter().copied().collect();
            for tid in threads {
                self.end_thread(tid, status);
            }
        }
        self.ends.busy = false;
    }

    /// What execve(2) does to a task's threads, signals and registrations at its point of no return. Call it while the old
    /// address space is still the task's: locks on the robust list are handed on there.
    pub fn reset_for_exec(&mut self, tid: Tid) {
        self.exit_siblings(tid);
        self.exit_robust_list(tid);
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        task.rseq = crate::task::Rseq::default();
        task.altstack = crate::signal::AltStack::default();
        let clear = std::mem::take(&mut task.clear_child_tid);
        let pid = task.pid;
        if clear != 0 && self.put_u32(tid, clear, 0).is_ok() {
            self.futex_wake_address(tid, clear, 1);
        }
        self.drop_posix_timers(pid);
        let Some(process) = self.processes.get_mut(&pid) else { return };
        for action in &mut process.actions {
            let handler = if action.handler == SIG_IGN { SIG_IGN } else { 0 };
            *action = crate::signal::SigAction { handler, ..crate::signal::SigAction::default() };
        }
    }

    /// Ends the other threads of a process (execve).
    pub fn exit_siblings(&mut self, tid: Tid) {
        let Some(process) = self.process_of(tid) else { return };
        let others: Vec<Tid> = process.threads.iter().copied().filter(|t| *t != tid).collect();
        for other in others {
            self.end_thread(other, ExitStatus::Code(0));
        }
    }

    fn end_thread(&mut self, tid: Tid, status: ExitStatus) {
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        task.exiting = true;
        match task.state {
            TaskState::Running(vcpu) => self.platform.kick(vcpu),
            _ => self.exit_task(tid, status),
        }
    }

    fn process_ended(&mut self, pid: u32, status: ExitStatus) {
        self.drop_process_timers(pid);
        self.lock_process_ended(pid);
        self.time.cpu_watched.remove(&pid);
        self.sem_process_ended(pid);
        self.mqueue_forget(pid, None);
        let Some(process) = self.processes.get_mut(&pid) else { return };
        process.zombie = Some(status);
        process.pending.queue.clear();
        self.vfork_done(pid);
        self.pidfd_notify(pid);
        if pid == 1 {
            self.exited = Some(status);
            return;
        }
        self.session_leader_ended(pid);
        let groups = self.groups_tied_by(pid);
        self.trace_tracer_ended(pid);
        self.orphan_children(pid);
        self.hang_up_orphans(pid, &groups);
        if !self.trace_process_ended(pid, status) {
            self.tell_of_end(pid, status);
        }
    }

    /// Tells the parent that a process has ended, and reaps it when the parent does not want to.
    pub(crate) fn tell_of_end(&mut self, pid: u32, status: ExitStatus) {
        let Some(process) = self.processes.get(&pid) else { return };
        let (parent, exit_signal, uid) = (process.parent, process.exit_signal, process.creds.uid);
        let (user, system) = self.process_times(pid);
        let chld = self.action(parent, SIGCHLD);
        let unwanted = exit_signal == SIGCHLD && (chld.handler == SIG_IGN || chld.flags & SA_NOCLDWAIT != 0);
        if self.processes.get(&parent).is_none_or(|p| p.zombie.is_some()) || unwanted {
            self.bury(pid);
        }
        self.forget_adopted();
        // clone(2) takes any eight bits; what is no signal is not sent.
        if (1..=64).contains(&exit_signal) && chld.handler != SIG_IGN {
            let (code, value) = status.siginfo();
            let (user, system) = (user / 10_000_000, system / 10_000_000);
            let mut info = SigInfo::from_user(exit_signal, code, pid, uid);
            info.fields = [info.fields.first().copied().unwrap_or(0), u64::from(value), user, system];
            self.signal_process(parent, info);
        }
        self.wake(child_key(parent));
    }

    /// Children of a dead process go to the nearest subreaper above it, else to process 1.
    fn orphan_children(&mut self, pid: u32) {
        let mut heir = 1;
        let mut at = self.processes.get(&pid).map_or(0, |p| p.parent);
        // Bounded by the number of processes: a parent is older than its child, but be safe.
        for _ in 0..self.processes.len() {
            match self.processes.get(&at) {
                Some(p) if p.aux.subreaper && p.zombie.is_none() => {
                    heir = at;
                    break;
                }
                Some(p) if p.parent != 0 => at = p.parent,
                _ => break,
            }
        }
        let children: Vec<u32> = self.processes.values().filter(|p| p.parent == pid).map(|p| p.pid).collect();
        let mut ended = Vec::new();
        for child in &children {
            let mut deaths = Vec::new();
            if let Some(p) = self.processes.get_mut(child) {
                p.parent = heir;
                p.exit_signal = SIGCHLD;
                p.aux.adopted = true;
                ended.extend(p.zombie.map(|status| (p.pid, status)));
                deaths.extend(p.threads.iter().copied());
            }
            for tid in deaths {
                let signal = self.tasks.get(&tid).map_or(0, |t| t.aux.pdeathsig);
                if signal != 0 {
                    self.signal_task(tid, SigInfo::from_user(signal, 0, pid, 0));
                }
            }
        }
        for (child, status) in ended {
            self.tell_of_end(child, status);
        }
        if !children.is_empty() {
            self.wake(child_key(heir));
        }
    }

    /// Whether a process is there for those who look for it by its number. What outlived its parent and has ended is gone, as an init
    /// would have reaped it, unless process 1 takes care itself; should it do so later, wait(2) still finds the dead.
    pub fn exists(&self, pid: u32) -> bool {
        let Some(p) = self.processes.get(&pid) else { return false };
        let left = p.parent == 1 && p.aux.adopted && p.zombie.is_some();
        !left || self.processes.get(&1).is_some_and(|init| init.aux.reaps)
    }

    /// The program that is process 1 need not know that it is to reap what others leave behind: only so many such zombies are kept.
    fn forget_adopted(&mut self) {
        let zombie = |p: &&crate::task::Process| p.parent == 1 && p.aux.adopted && p.zombie.is_some();
        let zombies: Vec<u32> = self.processes.values().filter(zombie).map(|p| p.pid).collect();
        for pid in zombies.iter().take(zombies.len().saturating_sub(MAX_ADOPTED)) {
            self.bury(*pid);
        }
    }

    /// A process born by vfork(2) has executed a program or ended: its parent goes on.
    pub fn vfork_done(&mut self, pid: u32) {
        if let Some(process) = self.processes.get_mut(&pid)
            && std::mem::take(&mut process.aux.vforked)
        {
            self.wake(WaitKey::Vfork(pid));
        }
    }

    /// Removes a process that nobody waits for; its times stay those of the sandbox.
    fn bury(&mut self, pid: u32) {
        if let Some(dead) = self.processes.remove(&pid) {
            let (user, system) = &mut self.time.buried;
            for ns in [dead.aux.dead_cpu_ns, dead.aux.child_cpu_ns] {
                *user = user.saturating_add(ns);
            }
            for ns in [dead.aux.dead_system_ns, dead.aux.child_system_ns] {
                *system = system.saturating_add(ns);
            }
        }
    }

    /// Removes a zombie and adds its times to its parent's.
    pub fn reap(&mut self, pid: u32) {
        let parent = self.processes.get(&pid).map_or(0, |p| p.parent);
        if !self.processes.contains_key(&parent) {
            self.bury(pid);
        }
        if let Some(dead) = self.processes.remove(&pid)
            && let Some(parent) = self.processes.get_mut(&dead.parent)
        {
            let cpu = dead.aux.dead_cpu_ns.saturating_add(dead.aux.child_cpu_ns);
            parent.aux.child_cpu_ns = parent.aux.child_cpu_ns.saturating_add(cpu);
            let system = dead.aux.dead_system_ns.saturating_add(dead.aux.child_system_ns);
            parent.aux.child_system_ns = parent.aux.child_system_ns.saturating_add(system);
        }
    }

    /// One user less of a file-system context.
    pub fn fs_release(&mut self, fs: u64) {
        let Some(context) = self.fs_contexts.get_mut(fs) else { return };
        context.refs = context.refs.saturating_sub(1);
        if context.refs == 0 {
            self.fs_contexts.remove(fs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Limits, Next};
    use crate::platform::fake::FakePlatform;
    use crate::task::{Process, Task};
    use std::sync::Arc;

    fn kernel(family: &[(u32, u32)]) -> Kernel {
        let mut k = Kernel::new(Arc::new(FakePlatform::new(1 << 30)), Limits::default()).unwrap();
        for (pid, parent) in family {
            let mut p = Process::new(*pid, *parent);
            p.threads.insert(*pid);
            k.processes.insert(*pid, p);
            k.tasks.insert(*pid, Task::new(*pid, *pid));
            k.next_id = k.next_id.max(pid + 1);
        }
        k
    }

    #[test]
    fn a_dead_child_is_a_zombie_and_its_parent_is_told() {
        let mut k = kernel(&[(1, 0), (2, 1)]);
        k.tasks.get_mut(&1).unwrap().sigmask = u64::MAX;
        k.exit_process(2, ExitStatus::Code(3));
        assert_eq!(k.processes[&2].zombie, Some(ExitStatus::Code(3)));
        let info = k.take_signal(1, u64::MAX).unwrap();
        assert_eq!((info.signo, info.code, info.fields[0], info.fields[1]), (17, 1, 2, 3));
        k.reap(2);
        assert!(!k.processes.contains_key(&2));
    }

    #[test]
    fn the_sandboxs_times_do_not_go_down_when_a_process_ends_that_nobody_waits_for() {
        let mut k = kernel(&[(1, 0), (2, 1)]);
        let action = crate::signal::SigAction { handler: SIG_IGN, ..Default::default() };
        k.set_action(1, SIGCHLD, action);
        k.tasks.get_mut(&2).unwrap().cpu_ns = 3_000_000_000;
        k.processes.get_mut(&2).unwrap().aux.child_system_ns = 1_000_000_000;
        let before = k.cpu_lines(0);
        k.exit_process(2, ExitStatus::Code(0));
        assert!(!k.processes.contains_key(&2));
        assert_eq!(k.cpu_lines(0), before);
        assert!(before.starts_with("cpu  300 0 100 "), "{before}");
    }

    #[test]
    fn a_long_chain_of_ends_needs_no_deep_stack() {
        let family: Vec<(u32, u32)> = (1..=1000).map(|pid| (pid, pid - 1)).collect();
        let mut k = kernel(&family);
        k.processes.values_mut().for_each(|p| p.exit_signal = 15);
        k.tasks.get_mut(&1).unwrap().sigmask = u64::MAX;
        // Its parent dies of the signal, and so on up to the first.
        k.exit_process(1000, ExitStatus::Code(0));
        assert!(k.exited.is_none() && k.tasks.len() == 1);
    }

    #[test]
    fn an_exit_signal_that_is_none_is_not_sent() {
        let mut k = kernel(&[(1, 0), (2, 1)]);
        k.processes.get_mut(&2).unwrap().exit_signal = 255;
        k.exit_process(2, ExitStatus::Code(0));
        assert!(k.exited.is_none() && k.processes[&1].pending.queue.is_empty());
        assert!(k.take_signal(1, u64::MAX).is_none());
    }

    #[test]
    fn orphans_go_to_process_one_and_the_first_process_ends_the_sandbox() {
        let mut k = kernel(&[(1, 0), (2, 1), (3, 2)]);
        k.exit_process(2, ExitStatus::Signal(9));
        assert_eq!(k.processes[&3].parent, 1);
        assert_eq!(k.exited, None);
        k.exit_process(1, ExitStatus::Code(7));
        assert_eq!(k.exited, Some(ExitStatus::Code(7)));
    }

    #[test]
    fn a_dead_orphan_is_gone_unless_process_one_waits_for_any_child() {
        let mut k = kernel(&[(1, 0), (2, 1), (3, 2)]);
        let mut vcpu = crate::platform::fake::FakeVcpu::new(0);
        k.sched.push(1);
        assert_eq!(k.next(&mut vcpu), Next::Run(1));
        k.exit_process(2, ExitStatus::Code(0));
        assert!(k.exists(2) && k.exists(3));
        k.exit_process(3, ExitStatus::Code(0));
        assert!(k.exists(2) && !k.exists(3));
        // kill(3, 0)
        assert_eq!(call(&mut k, &mut vcpu, 1, 62, 3), Next::Run(1));
        assert_eq!(k.tasks[&1].regs.rax, crate::errno::Errno::ESRCH.to_rax());
        // wait4(2) changes nothing, wait4(-1) finds what was left.
        assert_eq!(call(&mut k, &mut vcpu, 1, 61, 2), Next::Run(1));
        assert!(k.tasks[&1].regs.rax == 2 && !k.exists(3));
        assert_eq!(call(&mut k, &mut vcpu, 1, 61, u64::MAX), Next::Run(1));
        assert!(k.tasks[&1].regs.rax == 3 && k.processes[&1].aux.reaps);
    }

    #[test]
    fn a_thread_on_another_vcpu_is_marked_and_dies_at_its_return() {
        let mut k = kernel(&[(1, 0), (2, 1)]);
        k.tasks.get_mut(&2).unwrap().state = TaskState::Running(0);
        k.exit_process(2, ExitStatus::Signal(9));
        assert!(k.tasks[&2].exiting);
        let mut vcpu = crate::platform::fake::FakeVcpu::new(0);
        assert!(!k.return_to_user(&mut vcpu, 2));
        assert!(!k.tasks.contains_key(&2));
        assert_eq!(k.processes[&2].zombie, Some(ExitStatus::Signal(9)));
    }

    #[test]
    fn a_thread_that_is_to_die_makes_no_call_any_more() {
        let mut k = kernel(&[(1, 0)]);
        let mut t = Task::new(2, 1);
        t.state = TaskState::Running(1);
        t.regs.rax = 231;
        k.tasks.insert(2, t);
        k.processes.get_mut(&1).unwrap().threads.insert(2);
        // As execve of thread 1 does while thread 2 enters exit_group on another vCPU.
        k.exit_siblings(1);
        let mut vcpu = crate::platform::fake::FakeVcpu::new(1);
        k.on_exit(&mut vcpu, 2, crate::platform::Exit::Syscall);
        k.next(&mut vcpu);
        assert!(!k.tasks.contains_key(&2));
        assert!(k.tasks.contains_key(&1) && k.processes[&1].group_exit.is_none());
        assert_eq!(k.exited, None);
    }

    #[test]
    fn execve_keeps_ignored_signals_and_resets_handlers() {
        let mut k = kernel(&[(1, 0)]);
        let with = |handler| crate::signal::SigAction { handler, flags: 4, ..Default::default() };
        k.set_action(1, 10, with(0x5000));
        k.set_action(1, 13, with(SIG_IGN));
        k.tasks.insert(2, Task::new(2, 1));
        k.processes.get_mut(&1).unwrap().threads.insert(2);
        k.reset_for_exec(1);
        assert_eq!(k.action(1, 10), crate::signal::SigAction::default());
        assert_eq!(k.action(1, 13).handler, SIG_IGN);
        assert_eq!(k.processes[&1].threads.len(), 1);
    }

    fn call(
        k: &mut Kernel,
        vcpu: &mut crate::platform::fake::FakeVcpu,
        tid: Tid,
        number: u64,
        arg: u64,
    ) -> Next {
        let t = k.tasks.get_mut(&tid).unwrap();
        (t.regs.rax, t.regs.rdi) = (number, arg);
        k.on_exit(vcpu, tid, crate::platform::Exit::Syscall);
        k.next(vcpu)
    }

    #[test]
    fn a_call_returns_to_its_caller_and_exit_group_ends_the_sandbox() {
        let mut k = kernel(&[(1, 0)]);
        let mut vcpu = crate::platform::fake::FakeVcpu::new(0);
        k.sched.push(1);
        assert_eq!(k.next(&mut vcpu), Next::Run(1));
        assert_eq!(call(&mut k, &mut vcpu, 1, 39, 0), Next::Run(1));
        assert_eq!(k.tasks[&1].regs.rax, 1);
        assert_eq!(call(&mut k, &mut vcpu, 1, 231, 5), Next::Exited(ExitStatus::Code(5)));
        assert!(k.tasks.is_empty() && k.waiters.is_empty());
    }

    #[test]
    fn wait4_sleeps_until_a_child_ends_and_reaps_it() {
        let mut k = kernel(&[(1, 0), (2, 1)]);
        let mut vcpu = crate::platform::fake::FakeVcpu::new(0);
        k.sched.push(1);
        assert_eq!(k.next(&mut vcpu), Next::Run(1));
        assert!(matches!(call(&mut k, &mut vcpu, 1, 61, u64::MAX), Next::Idle { .. }));
        k.exit_process(2, ExitStatus::Code(1));
        assert_eq!(k.next(&mut vcpu), Next::Run(1));
        assert_eq!(k.tasks[&1].regs.rax, 2);
        assert_eq!(call(&mut k, &mut vcpu, 1, 61, u64::MAX), Next::Run(1));
        assert_eq!(k.tasks[&1].regs.rax, crate::errno::Errno::ECHILD.to_rax());
    }

    #[test]
    fn a_signal_by_default_ends_a_sleeping_process() {
        let mut k = kernel(&[(1, 0)]);
        let mut vcpu = crate::platform::fake::FakeVcpu::new(0);
        k.sched.push(1);
        assert_eq!(k.next(&mut vcpu), Next::Run(1));
        assert!(matches!(call(&mut k, &mut vcpu, 1, 34, 0), Next::Idle { .. }));
        k.signal_process(1, SigInfo::from_user(28, 0, 1, 0));
        assert!(matches!(k.next(&mut vcpu), Next::Idle { .. }));
        k.signal_process(1, SigInfo::from_user(15, 0, 1, 0));
        assert_eq!(k.next(&mut vcpu), Next::Exited(ExitStatus::Signal(15)));
    }
}
