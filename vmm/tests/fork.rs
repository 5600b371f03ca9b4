//! A forked sandbox makes its own virtual machine. Without the test harness, because a fork needs a process with one thread.

use guest::fork::ForkArgs;
use guest::kernel::Limits;
use vmm::fork::{ForkOptions, Forked};
use vmm::sandbox::{Config, RunOptions, Sandbox, Stop};

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
    println!("ok");
}
