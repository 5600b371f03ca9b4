//! Fuzzes the system-call entry: arbitrary numbers and arguments on a live kernel without KVM, from two threads that drive a virtual
//! processor each through the kernel's lock, as the machine's threads do.
//!
//! Runs for `COPPICE_FUZZ_SECONDS` (60 by default) from a seed that it prints. `COPPICE_FUZZ_SEED` starts from one again; with
//! `COPPICE_FUZZ_THREADS=1` too, every call is the same. Nothing is asserted about results: the kernel must not panic, must not
//! hang, must not grow without bound, and must keep its own tables consistent enough to go on. So that calls get past their first
//! check, arguments follow the table: descriptors that are open, pointers at structures that make sense, names of files. While one thread
//! makes a call the other changes the memory that calls point at. Every few hundred calls the state is written out, read back and
//! gone on with, and now and then brought to where a fork's child begins.

// A test may index and cast: its own numbers are not hostile.
#![allow(clippy::indexing_slicing, clippy::as_conversions, clippy::unwrap_used, clippy::expect_used)]

mod fuzz;
mod support;

use fuzz::{BUFFERS, Random, SLOT_COUNT, SLOTS, argument, arguments, number, season};
use guest::exec::Spawn;
use guest::fork::ForkArgs;
use guest::kernel::{Kernel, Limits, Next, PlatformHandle};
use guest::platform::fake::{FakePlatform, FakeVcpu};
use guest::platform::{Exit, PAGE_SIZE, Platform};
use guest::task::TaskState;
use guest::vfs::Stdio;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Calls of one thread before the state is looked at.
const ROUND: usize = 500;
/// Rounds of one kernel.
const ROUNDS: usize = 6;
/// A single call may take this long on a busy machine.
const ONE_CALL: Duration = Duration::from_secs(10);
/// What this process may hold, bytes: the arena of a fake machine is memory of its own.
const MOST_MEMORY: u64 = 3 << 30;

struct Machine {
    kernel: Mutex<Kernel>,
    platform: Arc<FakePlatform>,
}

/// What one thread does at the moment: since when, and which call.
type Doing = Mutex<Option<(Instant, u64, [u64; 6])>>;

/// One thread's virtual processor, chance, and account.
struct Driver {
    vcpu: FakeVcpu,
    random: Random,
    numbers: Vec<u64>,
    calls: u64,
    succeeded: BTreeSet<u64>,
}

/// Gives the first task a listener, so that connections come about.
fn listen(kernel: &mut Kernel) {
    use guest::net::Style;
    use guest::net::addr::{Address, Family, Given};
    let id = kernel.socket_create(1, Family::Inet, Style::Stream).unwrap();
    let address = Address::Ip(std::net::Ipv4Addr::UNSPECIFIED.into(), 5000);
    kernel.socket_bind(1, id, Given::Address(address)).unwrap();
    kernel.socket_listen(1, id, 3).unwrap();
    let file = kernel.socket_file(id, 0o4000);
    kernel.install_fd(1, file, false).unwrap();
}

fn boot(root: &std::path::Path) -> Machine {
    let platform = Arc::new(FakePlatform::new(1 << 30));
    let limits = Limits { memory: 128 << 20, cpus: 2, tasks: 32 };
    let mut kernel = Kernel::new(platform.clone(), limits).expect("the kernel boots on the fake");
    kernel.mount_root(std::fs::File::open(root).unwrap().into()).expect("the root mounts");
    let spawn = Spawn {
        path: b"/bin/tiny".to_vec(),
        argv: vec![b"tiny".to_vec()],
        envp: vec![b"PATH=/bin".to_vec()],
        cwd: b"/".to_vec(),
    };
    kernel.spawn_init(&spawn, Stdio { work: true, ..Stdio::default() }).expect("the program starts");
    listen(&mut kernel);
    kernel.sched.set_online(2);
    Machine { kernel: Mutex::new(kernel), platform }
}

impl Driver {
    fn new(index: usize, seed: u64) -> Driver {
        let numbers = guest::syscall::table().iter().map(|e| u64::from(e.number)).collect();
        Driver {
            vcpu: FakeVcpu::new(index),
            random: Random(seed),
            numbers,
            calls: 0,
            succeeded: BTreeSet::new(),
        }
    }

    /// Calls of this thread until the round is over, or nothing goes on.
    fn round(&mut self, machine: &Machine, doing: &Doing) {
        let mut idle = 0;
        for _ in 0..ROUND {
            let mut kernel = machine.kernel.lock().unwrap();
            match kernel.next(&mut self.vcpu) {
                Next::Run(tid) => {
                    idle = 0;
                    season(&mut kernel, tid, &mut self.random);
                    let number = number(&self.numbers, &mut self.random);
                    let args = arguments(&kernel, tid, number, &mut self.random);
                    let exit = self.exit();
                    let Some(mut regs) = kernel.task(tid).map(|t| t.regs.clone()) else { continue };
                    let root = kernel.task(tid).and_then(|t| kernel.mms.get(t.mm)).map(|m| m.root);
                    drop(kernel);
                    // Guest code runs: the kernel is not locked, and its memory changes under whoever reads it.
                    if let Some(root) = root {
                        self.scribble(machine, root);
                    }
                    regs.rax = number;
                    (regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9) =
                        (args[0], args[1], args[2], args[3], args[4], args[5]);
                    if self.random.below(20) == 0 {
                        regs.rsp = argument(&mut self.random);
                    }
                    let mut kernel = machine.kernel.lock().unwrap();
                    if let Some(task) = kernel.task_mut(tid) {
                        task.regs = regs;
                    }
                    let started = Instant::now();
                    *doing.lock().unwrap() = Some((started, number, args));
                    kernel.on_exit(&mut self.vcpu, tid, exit);
                    *doing.lock().unwrap() = None;
                    self.calls += 1;
                    let done = kernel.task(tid).filter(|t| t.syscall.is_none());
                    if exit == Exit::Syscall && done.is_some_and(|t| (t.regs.rax as i64) >= 0) {
                        self.succeeded.insert(number);
                    }
                    let took = started.elapsed();
                    assert!(took < ONE_CALL, "{number} {args:x?} took {took:?}");
                }
                Next::Idle { deadline, awaits_work, .. } => {
                    idle += 1;
                    kernel.take_answer();
                    if awaits_work {
                        kernel.push_work(b"work");
                    }
                    let now = machine.platform.monotonic();
                    machine
                        .platform
                        .advance(deadline.map_or(1_000_000, |d| d.saturating_sub(now).min(1 << 40)));
                    if idle > 50 {
                        return;
                    }
                    drop(kernel);
                    std::thread::yield_now();
                }
                Next::Exited(_) => return,
            }
        }
    }

    fn exit(&mut self) -> Exit {
        let random = &mut self.random;
        match random.below(4000) {
            0 => Exit::Exception {
                vector: random.below(32) as u8,
                error: random.below(32),
                cr2: argument(random),
            },
            1 => Exit::Preempted,
            2 => Exit::Illegal,
            3 => Exit::BadMemory,
            _ => Exit::Syscall,
        }
    }

    /// Changes memory that another thread's call may be reading.
    fn scribble(&mut self, machine: &Machine, root: guest::platform::Root) {
        for _ in 0..self.random.below(4) {
            let va = if self.random.below(2) == 0 {
                SLOTS + 8 * self.random.below(SLOT_COUNT * 32)
            } else {
                BUFFERS + 8 * self.random.below(512)
            };
            let value = argument(&mut self.random).to_le_bytes();
            let writable = machine.platform.translate(root, va).filter(|(_, access)| access.write);
            if let Some((gpa, _)) = writable {
                let _ = machine.platform.write(gpa / PAGE_SIZE * PAGE_SIZE + va % PAGE_SIZE, &value);
            }
        }
    }
}

/// The state written out and read back, and sometimes as a fork's child begins.
fn renew(machine: &mut Machine, drivers: &mut [Driver], root: &std::path::Path) -> usize {
    let kernel = machine.kernel.get_mut().unwrap();
    for driver in drivers.iter_mut() {
        kernel.save_fpu(&mut driver.vcpu);
    }
    assert!(
        kernel.tasks.values().all(|t| !matches!(t.state, TaskState::Running(_))),
        "nobody runs between rounds"
    );
    let bytes = postcard::to_allocvec(&*kernel).expect("the state is plain data");
    let mut again: Kernel = postcard::from_bytes(&bytes).expect("the state reads back");
    again.platform = PlatformHandle(machine.platform.clone());
    again.set_root_fd(std::fs::File::open(root).unwrap().into());
    again.reissue_stdio(Stdio { work: true, ..Stdio::default() });
    if drivers[0].random.below(3) == 0 {
        let now = machine.platform.monotonic();
        let args = ForkArgs { paused_at: now, now: now + 1_000_000, ..ForkArgs::default() };
        again.after_fork(&args);
    }
    again.sched.set_online(drivers.len());
    *kernel = again;
    bytes.len()
}

/// Memory of this process, bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).map_or(0, |pages| pages * PAGE_SIZE)
}

/// Ends the process when a call does not come back: nothing else could.
fn watch(doing: &[Doing], over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(200));
        for d in doing {
            let what = *d.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some((_, number, args)) = what.filter(|(since, ..)| since.elapsed() > 6 * ONE_CALL) {
                eprintln!("call {number} {args:x?} does not come back");
                std::process::abort();
            }
        }
    }
}

#[test]
fn arbitrary_system_calls_never_panic_the_kernel() {
    let var = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seconds = var("COPPICE_FUZZ_SECONDS").unwrap_or(60);
    let threads = var("COPPICE_FUZZ_THREADS").unwrap_or(2).clamp(1, 8) as usize;
    let seed = var("COPPICE_FUZZ_SEED").unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64)
    });
    println!("seed {seed}, {threads} threads");
    let dir = tempfile::tempdir().unwrap();
    support::populate(dir.path());
    let mut drivers: Vec<Driver> =
        (0..threads).map(|i| Driver::new(i, seed.wrapping_add(i as u64))).collect();
    let doing: Vec<Doing> = (0..threads).map(|_| Mutex::new(None)).collect();
    let over = AtomicBool::new(false);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut boots, mut most_fds, mut most_sockets, mut most_state, mut most_memory) = (0_u64, 0, 0, 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| watch(&doing, &over));
        // A panic must end the watch too.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _over = Over(&over);
        while Instant::now() < end {
            let mut machine = boot(dir.path());
            boots += 1;
            for _ in 0..ROUNDS {
                std::thread::scope(|round| {
                    for (driver, doing) in drivers.iter_mut().zip(&doing) {
                        let machine = &machine;
                        round.spawn(move || driver.round(machine, doing));
                    }
                });
                most_state = most_state.max(renew(&mut machine, &mut drivers, dir.path()));
                let kernel = machine.kernel.get_mut().unwrap();
                assert!(kernel.objects.net.is_consistent());
                most_fds = most_fds.max(kernel.files.len());
                most_sockets = most_sockets.max(kernel.objects.net.sockets.len());
                most_memory = most_memory.max(resident());
                assert!(most_memory < MOST_MEMORY, "{most_memory} bytes in this process");
                if kernel.exited.is_some() {
                    break;
                }
            }
        }
    });
    let calls: u64 = drivers.iter().map(|d| d.calls).sum();
    let succeeded: BTreeSet<u64> = drivers.iter().flat_map(|d| d.succeeded.iter().copied()).collect();
    let refused = |e: &guest::syscall::Entry| matches!(e.support, guest::syscall::Support::Refused(..));
    let table: Vec<_> = guest::syscall::table().iter().filter(|e| !refused(e)).collect();
    let never: Vec<_> =
        table.iter().filter(|e| !succeeded.contains(&u64::from(e.number))).map(|e| e.name).collect();
    println!(
        "{calls} calls, {boots} kernels, {} of {} entries succeeded once; never: {never:?}",
        table.len() - never.len(),
        table.len()
    );
    println!(
        "at most {most_fds} open files, {most_sockets} sockets, {most_state} bytes of state, {} MiB in all",
        most_memory >> 20
    );
    assert!(calls > 1000, "only {calls} calls were made");
}
