//! Unit tests of tracing.

use super::*;
use crate::kernel::{Limits, Next};
use crate::platform::Exit;
use crate::platform::fake::{FakePlatform, FakeVcpu};
use crate::task::{Process, Task};
use std::sync::Arc;

/// Process 1, and its child 2 that it traces.
fn kernel() -> Kernel {
    let mut k = Kernel::new(Arc::new(FakePlatform::new(1 << 30)), Limits::default()).unwrap();
    for (pid, parent) in [(1, 0), (2, 1)] {
        let mut p = Process::new(pid, parent);
        p.threads.insert(pid);
        k.processes.insert(pid, p);
        k.tasks.insert(pid, Task::new(pid, pid));
    }
    k.tasks.get_mut(&2).unwrap().trace = Some(Box::new(Trace::new(1, true, 0)));
    k
}

fn stop(k: &Kernel) -> Option<Stop> {
    k.tasks[&2].trace.as_ref().and_then(|t| t.stop.clone())
}

#[test]
fn a_call_is_made_only_when_the_tracer_lets_it_and_as_the_tracer_says() {
    let (mut k, mut vcpu) = (kernel(), FakeVcpu::new(0));
    k.tasks.get_mut(&2).unwrap().trace.as_mut().unwrap().mode = Mode::Syscall;
    k.sched.push(2);
    assert_eq!(k.next(&mut vcpu), Next::Run(2));
    k.tasks.get_mut(&2).unwrap().regs.rax = 39;
    k.on_exit(&mut vcpu, 2, Exit::Syscall);
    assert_eq!(stop(&k).unwrap().kind, Kind::Entry);
    // getppid in place of getpid
    regs::set(k.tasks.get_mut(&2).unwrap(), 15, 110).unwrap();
    k.trace_resume(2, Mode::Syscall, 0);
    assert!(matches!(k.next(&mut vcpu), Next::Idle { .. }));
    assert_eq!((stop(&k).unwrap().kind, k.tasks[&2].regs.rax), (Kind::Exit, 1));
    k.trace_resume(2, Mode::Cont, 0);
    assert_eq!(k.next(&mut vcpu), Next::Run(2));
}

#[test]
fn a_fork_of_a_seed_keeps_the_stop_and_the_tracer() {
    let (mut k, mut vcpu) = (kernel(), FakeVcpu::new(0));
    k.sched.push(2);
    k.trace_interrupt(2);
    assert!(matches!(k.next(&mut vcpu), Next::Idle { .. }));
    let stopped = stop(&k);
    assert_eq!(stopped.as_ref().unwrap().code, SIGTRAP | EVENT_STOP << 8);
    k.after_fork(&crate::fork::ForkArgs::default());
    assert_eq!((stop(&k), k.tracer_of(2)), (stopped, 1));
    k.trace_resume(2, Mode::Cont, 0);
    assert_eq!(k.tasks[&2].state, TaskState::Runnable);
}

#[test]
fn tracees_go_on_when_their_tracer_ends_or_end_with_it() {
    for (options, lives) in [(0, true), (EXITKILL, false)] {
        let (mut k, mut vcpu) = (kernel(), FakeVcpu::new(0));
        // Another process traces it.
        let mut p = Process::new(3, 1);
        p.threads.insert(3);
        k.processes.insert(3, p);
        k.tasks.insert(3, Task::new(3, 3));
        k.tasks.get_mut(&2).unwrap().trace = Some(Box::new(Trace::new(3, true, options)));
        k.sched.push(2);
        k.trace_interrupt(2);
        assert!(matches!(k.next(&mut vcpu), Next::Idle { .. }));
        k.exit_process(3, ExitStatus::Code(0));
        assert_eq!(k.tasks.contains_key(&2), lives);
        assert!(!lives || k.next(&mut vcpu) == Next::Run(2));
    }
}

#[test]
fn the_parent_of_anothers_tracee_hears_of_its_end_last() {
    let mut k = kernel();
    let mut p = Process::new(3, 1);
    p.threads.insert(3);
    k.processes.insert(3, p);
    k.tasks.insert(3, Task::new(3, 3));
    k.tasks.get_mut(&2).unwrap().trace = Some(Box::new(Trace::new(3, true, 0)));
    k.tasks.get_mut(&1).unwrap().sigmask = u64::MAX;
    k.exit_process(2, ExitStatus::Code(4));
    assert_eq!(k.take_signal(1, u64::MAX), None);
    assert_eq!(k.processes[&2].aux.traced_by, Some(3));
    k.trace_let_go(2);
    assert_eq!(k.take_signal(1, u64::MAX).unwrap().signo, SIGCHLD);
}
