//! The driver with tasks put into the kernel by hand. These need /dev/kvm.

use super::*;
use guest::platform::{Access, Gpa, Regs, Va};
use guest::task::{Process, Task, Tid};
use std::os::fd::AsFd;

const CODE: Va = 0x40_0000;
const CODE_GPA: Gpa = 40 << 20;
const DATA: Va = 0x50_0000;

fn sandbox(cpus: usize) -> Sandbox {
    let limits = Limits { memory: u64::MAX, cpus, tasks: 16 };
    Sandbox::boot(Config { arena_len: 1 << 30, max_vcpus: 4 }, limits)
        .expect("these tests need a working /dev/kvm")
}

/// Puts a runnable task that runs `code` into the kernel.
fn add(sandbox: &Sandbox, tid: Tid, code: &[u8]) {
    let machine = sandbox.machine();
    let root = machine.create_root().unwrap();
    let gpa = CODE_GPA + u64::from(tid) * 0x1000;
    machine.write(gpa, code).unwrap();
    machine.map(root, CODE, gpa, 0x1000, Access { write: false, exec: true }).unwrap();
    let mut kernel = sandbox.kernel();
    let mm = kernel.mms.insert(guest::mm::Mm::new(root));
    let mut task = Task::new(tid, tid);
    task.regs = Regs { rip: CODE, rflags: 0x202, ..Regs::default() };
    task.mm = mm;
    kernel.tasks.insert(tid, task);
    let mut process = Process::new(tid, 0);
    process.threads.insert(tid);
    kernel.processes.insert(tid, process);
    kernel.sched.push(tid);
}

fn deadline(ms: u64) -> RunOptions<'static> {
    RunOptions { deadline: Some(now() + ms * 1_000_000), ..RunOptions::default() }
}

// 1: mov eax, 500; syscall; inc r12; jmp 1b
const CALLS: &[u8] = b"\xb8\xf4\x01\0\0\x0f\x05\x49\xff\xc4\xeb\xf4";
// 1: inc r12; jmp 1b
const SPINS: &[u8] = b"\x49\xff\xc4\xeb\xfb";

/// Adds a task to the address space of task `of`, with a page of data that both have at `DATA`.
fn add_thread(sandbox: &Sandbox, tid: Tid, of: Tid, code: &[u8]) {
    let machine = sandbox.machine();
    let mut kernel = sandbox.kernel();
    let mm = kernel.tasks[&of].mm;
    let root = kernel.mms.get(mm).unwrap().root;
    let (va, gpa) = (CODE + u64::from(tid) * 0x1000, CODE_GPA + u64::from(tid) * 0x1000);
    machine.write(gpa, code).unwrap();
    machine.map(root, va, gpa, 0x1000, Access { write: false, exec: true }).unwrap();
    machine.map(root, DATA, CODE_GPA, 0x1000, Access { write: true, exec: false }).unwrap();
    let mut task = Task::new(tid, of);
    task.regs = Regs { rip: va, rdi: DATA, rflags: 0x202, ..Regs::default() };
    task.mm = mm;
    kernel.tasks.insert(tid, task);
    kernel.tasks.get_mut(&of).unwrap().regs.rdi = DATA;
    kernel.sched.push(tid);
}

#[test]
fn a_program_makes_system_calls_until_the_deadline() {
    let mut s = sandbox(1);
    add(&s, 1, CALLS);
    let started = now();
    assert_eq!(s.run(&deadline(200)).unwrap(), Stop::TimedOut);
    let late = now() - started - 200_000_000;
    let calls = s.kernel().counters.unknown[&500];
    eprintln!("{} exits/s, {} us late, {:?}", calls * 5, late / 1000, s.timings());
    let stats = s.stats().unwrap();
    eprintln!("exits {} pf {} emul {}", stats.exits(), stats.pf_taken(), stats.insn_emulation());
    assert!(calls > 100);
    assert!(s.kernel().tasks[&1].regs.r12.abs_diff(calls) <= 1);
}

#[test]
fn a_timer_faster_than_an_exit_does_not_stop_the_guest() {
    let mut s = sandbox(1);
    add(&s, 1, CALLS);
    {
        let mut kernel = s.kernel();
        let ignored = guest::signal::SigAction { handler: guest::signal::SIG_IGN, ..Default::default() };
        kernel.set_action(1, 14, ignored);
        kernel.arm_timer(&guest::time::TimerAction::IntervalReal(1), now(), 1_000, true);
    }
    assert_eq!(s.run(&deadline(300)).unwrap(), Stop::TimedOut);
    assert!(s.kernel().counters.unknown.get(&500).is_some_and(|n| *n > 50));
}

#[test]
fn a_program_that_never_exits_is_preempted_and_shares_the_processor() {
    let mut s = sandbox(1);
    add(&s, 1, SPINS);
    add(&s, 2, SPINS);
    assert_eq!(s.run(&deadline(100)).unwrap(), Stop::TimedOut);
    let kernel = s.kernel();
    let (a, b) = (kernel.tasks[&1].cpu_ns, kernel.tasks[&2].cpu_ns);
    assert!(a > 20_000_000 && b > 20_000_000, "{a} {b}");
}

#[test]
fn a_second_virtual_processor_is_started_for_a_second_task() {
    let mut s = sandbox(2);
    add(&s, 1, SPINS);
    add(&s, 2, CALLS);
    assert_eq!(s.run(&deadline(100)).unwrap(), Stop::TimedOut);
    assert_eq!(s.kernel().sched.online(), 2);
    assert!(s.kernel().counters.unknown[&500] > 50);
    assert!(s.kernel().tasks[&1].regs.r12 > 1000);
    assert_eq!(s.run(&deadline(20)).unwrap(), Stop::TimedOut);
    s.pause().unwrap();
    assert!(s.is_paused());
    assert_eq!(s.run(&deadline(20)).unwrap(), Stop::TimedOut, "a paused sandbox goes on");
}

// 1: cmp dword ptr [rdi], 0; jne 1b; mov dword ptr [rdi], 1; inc r12; jmp 1b, and the other way round.
const PING: &[u8] = b"\x83\x3f\x00\x75\xfb\xc7\x07\x01\0\0\0\x49\xff\xc4\xeb\xf0";
const PONG: &[u8] = b"\x83\x3f\x01\x75\xfb\xc7\x07\x00\0\0\0\x49\xff\xc4\xeb\xf0";

/// Two threads that wait for each other without system calls, for 300 ms: how often they take turns, and how long guest code ran on the
/// virtual processors together, ns.
fn turns(cpus: usize) -> (u64, u64) {
    let mut s = sandbox(cpus);
    add(&s, 1, PING);
    add_thread(&s, 2, 1, PONG);
    assert_eq!(s.run(&deadline(300)).unwrap(), Stop::TimedOut);
    let kernel = s.kernel();
    let tasks = [&kernel.tasks[&1], &kernel.tasks[&2]];
    (tasks.iter().map(|t| t.regs.r12).sum(), tasks.iter().map(|t| t.cpu_ns).sum())
}

#[test]
fn two_threads_on_two_virtual_processors_run_at_the_same_time() {
    let (one, two) = (turns(1), turns(2));
    eprintln!("(turns, ns): {one:?} on one virtual processor, {two:?} on two");
    // The number of turns says the same, by a factor of thousands, but only where the host has a processor to spare for each.
    assert!(one.0 <= 60, "on one, each turn takes the time slice of 10 ms: {one:?}");
    assert!(two.0 > 0 && 2 * two.1 > 3 * one.1, "{one:?} {two:?}");
}

#[test]
fn an_address_space_in_which_a_virtual_processor_runs_is_not_destroyed() {
    let s = sandbox(1);
    let machine = s.machine();
    let root = machine.create_root().unwrap();
    machine.set_running(3, Some(root));
    machine.destroy_root(root);
    assert!(machine.tables().roots().contains(&root));
    machine.set_running(3, None);
    machine.destroy_root(root);
    assert!(!machine.tables().roots().contains(&root));
}

#[test]
fn the_control_descriptor_interrupts_guest_code() {
    let mut s = sandbox(1);
    add(&s, 1, SPINS);
    let (r, w) = rustix::pipe::pipe().unwrap();
    let writer = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(30));
        rustix::io::write(&w, b"x").unwrap();
        w
    });
    let options = RunOptions { control: Some(r.as_fd()), ..deadline(2000) };
    assert_eq!(s.run(&options).unwrap(), Stop::Control);
    writer.join().unwrap();
}

#[test]
fn a_sandbox_without_tasks_is_stuck() {
    assert_eq!(sandbox(1).run(&RunOptions::default()).unwrap(), Stop::Stuck);
}

#[test]
fn a_fork_is_refused_while_other_threads_exist() {
    // The test harness itself has threads.
    let mut s = sandbox(1);
    let e = s.fork(Default::default(), Default::default()).unwrap_err();
    assert!(matches!(e, Error::Threads(n) if n > 1), "{e}");
    s.resume().unwrap();
    assert!(matches!(s.fork(Default::default(), Default::default()), Err(Error::NotPaused)));
}

#[test]
fn a_program_that_touches_page_after_page_is_killed_soon_after_its_limit() {
    let mut s = sandbox(1);
    // 1: mov [rdi], al; add rdi, 4096; jmp 1b
    add(&s, 1, b"\x88\x07\x48\x81\xc7\x00\x10\0\0\xeb\xf5");
    let (gpa, len) = (128 << 20, 512 << 20);
    let machine = s.machine().clone();
    machine.ensure(gpa, len).unwrap();
    {
        let mut kernel = s.kernel();
        let root = kernel.mms.get(kernel.tasks[&1].mm).unwrap().root;
        machine.map(root, 0x1000_0000, gpa, len, Access { write: true, exec: false }).unwrap();
        kernel.tasks.get_mut(&1).unwrap().regs.rdi = 0x1000_0000;
        kernel.limits.memory = machine.resident() + (64 << 20);
    }
    let started = now();
    assert_eq!(s.run(&deadline(60_000)).unwrap(), Stop::Exited(ExitStatus::Signal(9)));
    let (took, over) = (now() - started, machine.resident().saturating_sub(s.kernel().limits.memory));
    let t = now();
    for _ in 0..100 {
        let _ = machine.resident();
    }
    let sample = (now() - t) / 100_000;
    eprintln!(
        "killed after {} ms, {} KiB over its 64 MiB; a look at memory takes {sample} us",
        took / 1_000_000,
        over >> 10
    );
}

#[test]
fn many_short_runs_are_held_to_the_memory_limit_as_one_long_run_is() {
    let mut s = sandbox(1);
    add(&s, 1, SPINS);
    s.kernel().limits.memory = 1;
    let mut runs = 0;
    while s.run(&deadline(1)).unwrap() == Stop::TimedOut {
        runs += 1;
        assert!(runs < 1000);
    }
    assert_eq!(s.kernel().counters.oom_kills, 1);
}
