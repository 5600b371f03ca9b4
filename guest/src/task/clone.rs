//! Birth of tasks: clone(2), clone3(2), fork(2), vfork(2).

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::platform::{TASK_SIZE, Va, Vcpu};
use crate::signal::{AltStack, SIG_IGN, SigAction, SigQueue};
use crate::task::{ProcessAux, Rseq, Task, TaskAux, TaskState, Tid};

/// CLONE_ flags (clone(2)).
#[allow(missing_docs)]
pub mod flag {
    pub const VM: u64 = 0x100;
    pub const FS: u64 = 0x200;
    pub const FILES: u64 = 0x400;
    pub const SIGHAND: u64 = 0x800;
    pub const PIDFD: u64 = 0x1000;
    pub const VFORK: u64 = 0x4000;
    pub const PARENT: u64 = 0x8000;
    pub const THREAD: u64 = 0x1_0000;
    pub const SETTLS: u64 = 0x8_0000;
    pub const PARENT_SETTID: u64 = 0x10_0000;
    pub const CHILD_CLEARTID: u64 = 0x20_0000;
    pub const CHILD_SETTID: u64 = 0x100_0000;
    pub const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    pub const INTO_CGROUP: u64 = 0x2_0000_0000;
    pub const NEWNS: u64 = 0x2_0000;
    pub const NEWUSER: u64 = 0x1000_0000;
    pub const NEWPID: u64 = 0x2000_0000;
    /// NEWNS, NEWTIME, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
    pub const NAMESPACES: u64 = 0x7e02_0080;
}

/// What clone3(2) asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the names are those of struct clone_args
pub struct CloneArgs {
    pub flags: u64,
    pub child_tid: Va,
    pub parent_tid: Va,
    pub exit_signal: u32,
    /// Stack pointer of the child; 0 keeps the parent's.
    pub stack: Va,
    pub tls: u64,
    /// Wanted thread id; 0 for any.
    pub set_tid: u32,
    /// Where the descriptor of CLONE_PIDFD goes.
    pub pidfd: Va,
}

/// Largest thread id: pid_max of a 64-bit Linux.
const PID_MAX: u32 = 4_194_304;

/// The combinations that Linux refuses with EINVAL, and namespaces with EPERM.
pub fn check_flags(a: &CloneArgs, caller_is_init: bool) -> Result<(), Errno> {
    let has = |f: u64| a.flags & f == f;
    let any = |f: u64| a.flags & f != 0;
    if has(flag::NEWNS | flag::FS)
        || has(flag::NEWUSER | flag::FS)
        || (any(flag::THREAD) && !any(flag::SIGHAND))
        || (any(flag::SIGHAND) && !any(flag::VM))
        || (any(flag::PARENT) && caller_is_init)
        || (any(flag::THREAD) && any(flag::NEWUSER | flag::NEWPID))
        || (any(flag::PIDFD) && any(flag::THREAD))
    {
        return Err(Errno::EINVAL);
    }
    if any(flag::NAMESPACES) || any(flag::INTO_CGROUP) {
        return Err(Errno::EPERM);
    }
    if any(flag::SETTLS) && a.tls >= TASK_SIZE {
        return Err(Errno::EPERM);
    }
    Ok(())
}

impl Kernel {
    /// A fresh id for a task. EAGAIN at the sandbox's limit of tasks; EEXIST when the wanted one is taken.
    pub fn alloc_tid(&mut self, wanted: u32) -> Result<Tid, Errno> {
        let zombies = self.processes.values().filter(|p| p.zombie.is_some()).count();
        if self.tasks.len().saturating_add(zombies) >= self.limits.tasks {
            return Err(Errno::EAGAIN);
        }
        if wanted != 0 {
            let taken = self.id_taken(wanted);
            return if taken { Err(Errno::EEXIST) } else { Ok(wanted) };
        }
        // At most as many ids are taken as tasks, processes, groups and sessions exist.
        for _ in 0..PID_MAX {
            let id = if self.next_id >= PID_MAX { 300 } else { self.next_id.max(1) };
            self.next_id = id + 1;
            if !self.id_taken(id) {
                return Ok(id);
            }
        }
        Err(Errno::EAGAIN)
    }

    fn id_taken(&self, id: u32) -> bool {
        self.tasks.contains_key(&id)
            || self.processes.contains_key(&id)
            || self.processes.values().any(|p| p.pgid == id || p.sid == id)
    }

    /// Makes a child of `tid` and puts it on the run queue. The caller handles CLONE_VFORK's sleep.
    pub fn clone_task(&mut self, vcpu: &mut dyn Vcpu, tid: Tid, a: &CloneArgs) -> Result<Tid, Errno> {
        let parent = self.tasks.get(&tid).ok_or(Errno::ESRCH)?.clone();
        check_flags(a, parent.pid == 1)?;
        let thread = a.flags & flag::THREAD != 0;
        if parent.exiting {
            return Err(Errno::EAGAIN);
        }
        let child_tid = self.alloc_tid(a.set_tid)?;
        if a.flags & flag::FILES == 0 {
            self.fd_table_has_room(parent.files)?;
        }
        let mm = if a.flags & flag::VM != 0 {
            self.mm_share(parent.mm);
            parent.mm
        } else {
            self.mm_fork(parent.mm)?
        };
        let files = if a.flags & flag::FILES != 0 {
            if let Some(t) = self.fd_tables.get_mut(parent.files) {
                t.refs = t.refs.saturating_add(1);
            }
            parent.files
        } else {
            self.fd_table_fork(parent.files)?
        };
        let fs = self.fs_for_child(parent.fs, a.flags & flag::FS != 0);
        let mut regs = parent.regs.clone();
        regs.rax = 0;
        if a.stack != 0 {
            regs.rsp = a.stack;
        }
        if a.flags & flag::SETTLS != 0 {
            regs.fs_base = a.tls;
        }
        let shares = a.flags & flag::VM != 0;
        let keeps_stack = a.flags & (flag::VM | flag::VFORK) != flag::VM;
        let child = Task {
            tid: child_tid,
            pid: if thread { parent.pid } else { child_tid },
            regs,
            xstate: Some(vcpu.save_xstate()),
            state: TaskState::Runnable,
            syscall: None,
            resume: None,
            mm,
            files,
            fs,
            saved_sigmask: None,
            pending: SigQueue::default(),
            altstack: if keeps_stack { parent.altstack } else { AltStack::default() },
            clear_child_tid: if a.flags & flag::CHILD_CLEARTID != 0 { a.child_tid } else { 0 },
            robust_list: 0,
            rseq: if shares { Rseq::default() } else { parent.rseq },
            cpu_ns: 0,
            exiting: false,
            trace: None,
            aux: inherited_aux(&parent.aux),
            ..parent.clone()
        };
        self.tasks.insert(child_tid, child);
        if thread {
            if let Some(p) = self.processes.get_mut(&parent.pid) {
                p.threads.insert(child_tid);
            }
        } else {
            self.birth_of_process(&parent, child_tid, a);
        }
        if a.flags & flag::PIDFD != 0 {
            self.give_pidfd(tid, child_tid, a.pidfd)?;
        }
        // As on Linux a bad address is not an error here.
        if a.flags & flag::PARENT_SETTID != 0 {
            let _ = self.put_u32(tid, a.parent_tid, child_tid);
        }
        if a.flags & flag::CHILD_SETTID != 0 {
            let _ = self.put_u32(child_tid, a.child_tid, child_tid);
        }
        self.sched.push(child_tid);
        Ok(child_tid)
    }

    /// CLONE_PIDFD. When the descriptor cannot be given, the child that nobody has seen goes again. EMFILE, EFAULT.
    fn give_pidfd(&mut self, tid: Tid, child: u32, va: Va) -> Result<(), Errno> {
        let file = self.pidfd_open(child, 0)?;
        let given = self.install_fd(tid, file, true).and_then(|fd| {
            self.put_u32(tid, va, fd).inspect_err(|_| {
                let _ = self.fd_close(tid, fd);
            })
        });
        if given.is_err() {
            if let Some(p) = self.processes.get_mut(&child) {
                // Its end is nobody's business.
                p.exit_signal = 0;
            }
            self.exit_process(child, crate::task::ExitStatus::Code(0));
            self.processes.remove(&child);
        }
        given
    }

    fn birth_of_process(&mut self, parent: &Task, pid: u32, a: &CloneArgs) {
        let Some(mut p) = self.processes.get(&parent.pid).cloned() else { return };
        p.parent = if a.flags & flag::PARENT != 0 { p.parent } else { p.pid };
        p.pid = pid;
        p.threads = [pid].into_iter().collect();
        p.pending = SigQueue::default();
        p.zombie = None;
        p.group_exit = None;
        if a.flags & flag::PARENT == 0 {
            p.exit_signal = a.exit_signal;
        }
        p.started = self.platform.monotonic();
        p.aux = ProcessAux {
            vforked: a.flags & flag::VFORK != 0,
            oom_score_adj: p.aux.oom_score_adj,
            personality: p.aux.personality,
            thp_disabled: p.aux.thp_disabled,
            tty_given_up: p.aux.tty_given_up,
            ..ProcessAux::default()
        };
        if a.flags & flag::CLEAR_SIGHAND != 0 {
            for action in &mut p.actions {
                if action.handler != SIG_IGN {
                    *action = SigAction::default();
                }
            }
        }
        let limited = p.rlimits.get(&0).is_some_and(|l| l.0 != u64::MAX);
        self.processes.insert(pid, p);
        if limited {
            self.watch_cpu(pid);
        }
    }

    fn fs_for_child(&mut self, fs: u64, shared: bool) -> u64 {
        let Some(context) = self.fs_contexts.get_mut(fs) else { return fs };
        if shared {
            context.refs = context.refs.saturating_add(1);
            return fs;
        }
        let copy = crate::task::FsContext { refs: 1, ..context.clone() };
        self.fs_contexts.insert(copy)
    }
}

/// Scheduling attributes are the parent's, unless it asked for the defaults (SCHED_RESET_ON_FORK).
fn inherited_aux(parent: &TaskAux) -> TaskAux {
    const RESET: u32 = 0x4000_0000;
    let reset = parent.policy & RESET != 0;
    let real_time = matches!(parent.policy & !RESET, 1 | 2);
    TaskAux {
        nice: if reset { parent.nice.max(0) } else { parent.nice },
        policy: if reset && real_time { 0 } else { parent.policy & !RESET },
        priority: if reset { 0 } else { parent.priority },
        affinity: parent.affinity.clone(),
        ioprio: parent.ioprio,
        timer_slack: parent.timer_slack,
        ..TaskAux::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Limits;
    use crate::platform::fake::{FakePlatform, FakeVcpu};
    use crate::task::Process;
    use std::sync::Arc;

    const THREAD: u64 = flag::VM | flag::FS | flag::FILES | flag::SIGHAND | flag::THREAD;

    fn kernel() -> Kernel {
        let limits = Limits { tasks: 10, ..Limits::default() };
        let mut k = Kernel::new(Arc::new(FakePlatform::new(1 << 30)), limits).unwrap();
        let mut p = Process::new(1, 0);
        p.threads.insert(1);
        k.processes.insert(1, p);
        k.tasks.insert(1, Task::new(1, 1));
        k.next_id = 2;
        k
    }

    #[test]
    fn a_bomb_of_threads_ends_in_eagain() {
        let (mut k, mut v) = (kernel(), FakeVcpu::new(0));
        let a = CloneArgs { flags: THREAD, stack: 0x1000, ..CloneArgs::default() };
        let born = (0..100).filter(|_| k.clone_task(&mut v, 1, &a).is_ok()).count();
        assert_eq!(born, 9);
        assert_eq!(k.clone_task(&mut v, 1, &a), Err(Errno::EAGAIN));
        assert_eq!(k.processes[&1].threads.len(), 10);
    }

    #[test]
    fn a_thread_starts_on_its_stack_with_its_tls_and_its_parents_extended_state() {
        let (mut k, mut v) = (kernel(), FakeVcpu::new(0));
        v.xstate[7] = 42;
        let a =
            CloneArgs { flags: THREAD | flag::SETTLS, stack: 0x9000, tls: 0x7000, ..CloneArgs::default() };
        let tid = k.clone_task(&mut v, 1, &a).unwrap();
        let t = &k.tasks[&tid];
        assert_eq!((t.pid, t.regs.rsp, t.regs.fs_base, t.regs.rax), (1, 0x9000, 0x7000, 0));
        assert_eq!(t.xstate.as_ref().unwrap()[7], 42);
    }

    #[test]
    fn impossible_combinations_of_flags_are_refused() {
        let e = |flags| check_flags(&CloneArgs { flags, ..CloneArgs::default() }, false);
        assert_eq!(e(flag::THREAD), Err(Errno::EINVAL));
        assert_eq!(e(flag::SIGHAND), Err(Errno::EINVAL));
        assert_eq!(e(flag::THREAD | flag::VM), Err(Errno::EINVAL));
        assert_eq!(e(flag::NEWNS | flag::FS), Err(Errno::EINVAL));
        assert_eq!(e(flag::NEWPID), Err(Errno::EPERM));
        assert_eq!(e(THREAD), Ok(()));
    }
}
