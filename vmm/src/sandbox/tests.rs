//! The driver with tasks put into the kernel by hand. These need /dev/kvm.

use super::*;
use guest::platform::{Access, Gpa, Regs, Va};
use guest::task::{Process, Task};
use std::os::fd::AsFd;

const CODE: Va = 0x40_0000;
const CODE_GPA: Gpa = 40 << 20;

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
    kernel.processes.insert(tid, Process::new(tid, 0));
    kernel.sched.push(tid);
}

fn deadline(ms: u64) -> RunOptions<'static> {
    RunOptions { deadline: Some(now() + ms * 1_000_000), ..RunOptions::default() }
}

// 1: mov eax, 500; syscall; inc r12; jmp 1b
const CALLS: &[u8] = b"\xb8\xf4\x01\0\0\x0f\x05\x49\xff\xc4\xeb\xf4";
// 1: inc r12; jmp 1b
const SPINS: &[u8] = b"\x49\xff\xc4\xeb\xfb";

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
