//! A forked sandbox makes its own virtual machine. Without the test harness, because a fork needs a process with one thread.

use guest::fork::ForkArgs;
use guest::kernel::Limits;
use guest::mm::Mm;
use guest::platform::{Access, FIRST_EXTENT, Platform, Regs};
use guest::task::{Process, Task};
use vmm::fork::{ForkOptions, Forked};
use vmm::machine::now;
use vmm::sandbox::{Config, RunOptions, Sandbox, Stop};

/// A sandbox that ran on two virtual processors can be forked again once it is paused: its threads are gone.
fn a_pause_ends_every_thread() {
    // 1: jmp 1b
    const CODE: &[u8] = b"\xeb\xfe";
    let limits = Limits { memory: u64::MAX, cpus: 2, tasks: 8 };
    let mut sandbox = Sandbox::boot(Config { arena_len: 1 << 30, max_vcpus: 2 }, limits).expect("a sandbox");
    let machine = sandbox.machine().clone();
    machine.write(FIRST_EXTENT + (8 << 20), CODE).expect("memory");
    for tid in [1, 2] {
        let root = machine.create_root().expect("an address space");
        let access = Access { write: false, exec: true };
        machine.map(root, 0x40_0000, FIRST_EXTENT + (8 << 20), 4096, access).expect("a mapping");
        let mut kernel = sandbox.kernel();
        let mut task = Task::new(tid, tid);
        task.regs = Regs { rip: 0x40_0000, rflags: 0x202, ..Regs::default() };
        task.mm = kernel.mms.insert(Mm::new(root));
        let mut process = Process::new(tid, 0);
        process.threads.insert(tid);
        kernel.tasks.insert(tid, task);
        kernel.processes.insert(tid, process);
        kernel.sched.push(tid);
    }
    let soon = |ms: u64| RunOptions { deadline: Some(now() + ms * 1_000_000), ..RunOptions::default() };
    assert_eq!(sandbox.run(&soon(50)).expect("a run"), Stop::TimedOut);
    assert_eq!(sandbox.kernel().sched.online(), 2, "two virtual processors");
    sandbox.pause().expect("a pause");
    match sandbox.fork(ForkArgs::default(), ForkOptions::default()).expect("one thread is left") {
        Forked::Child => {
            let stop = sandbox.run(&soon(50));
            std::process::exit(if matches!(stop, Ok(Stop::TimedOut)) { 0 } else { 1 });
        }
        Forked::Parent { pid, .. } => {
            let pid = rustix::process::Pid::from_raw(pid);
            let ended = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
            let (_, status) = ended.expect("the child is ours").expect("it ended");
            assert_eq!(status.exit_status(), Some(0), "the child's threads are its own");
        }
    }
}

fn main() {
    let config = Config { arena_len: 1 << 30, max_vcpus: 1 };
    let mut sandbox = Sandbox::boot(config, Limits::default()).expect("this test needs a working /dev/kvm");
    sandbox.resume().expect("a virtual machine in the parent");
    sandbox.pause().expect("a paused sandbox");
    for round in 0..3 {
        let args = ForkArgs { sandbox_id: format!("child-{round}"), ..ForkArgs::default() };
        match sandbox.fork(args, ForkOptions::default()).expect("a fork") {
            Forked::Child => {
                let stop = sandbox.run(&RunOptions::default()).expect("a run in the child");
                let named = sandbox.kernel().identity.sandbox_id == format!("child-{round}");
                println!("child {round}: {:?}", sandbox.timings());
                std::process::exit(if stop == Stop::Stuck && named { 0 } else { 1 });
            }
            Forked::Parent { pid, clone_ns, .. } => {
                let pid = rustix::process::Pid::from_raw(pid);
                let ended = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
                let (_, status) = ended.expect("the child is ours").expect("it ended");
                println!("cloned in {} us", clone_ns / 1000);
                assert_eq!(status.exit_status(), Some(0), "the child's run");
            }
        }
    }
    a_pause_ends_every_thread();
    println!("ok");
}
