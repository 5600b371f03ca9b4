//! Fuzzes the system-call entry: arbitrary numbers and arguments on a live kernel without KVM.
//!
//! Runs for `COPPICE_FUZZ_SECONDS` (60 by default) from a seed that it prints (`COPPICE_FUZZ_SEED` repeats one). Nothing is asserted about results: the kernel
//! must not panic, must not hang, and must keep its own tables consistent enough to go on. So that calls get past their
//! first check, arguments follow the table: descriptors that are open, pointers at structures that make sense, names of files.

// A test may index and cast: its own numbers are not hostile.
#![allow(clippy::indexing_slicing, clippy::as_conversions, clippy::unwrap_used, clippy::expect_used)]

mod support;

use guest::exec::Spawn;
use guest::kernel::{Kernel, Limits, Next};
use guest::platform::fake::{FakePlatform, FakeVcpu};
use guest::platform::{Exit, PAGE_SIZE, Platform, TASK_SIZE};
use guest::syscall::Arg;
use guest::task::Tid;
use guest::vfs::Stdio;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }
}

struct Machine {
    kernel: Kernel,
    platform: Arc<FakePlatform>,
    vcpus: [FakeVcpu; 2],
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
    Machine { kernel, platform, vcpus: [FakeVcpu::new(0), FakeVcpu::new(1)] }
}

const STRINGS: &[&[u8]] = &[
    b"/bin/tiny\0",
    b"/\0",
    b".\0",
    b"..\0",
    b"/tmp/a\0",
    b"/tmp/b\0",
    b"a\0",
    b"/proc/self/maps\0",
    b"/proc/self/fd/0\0",
    b"/proc/self/fd/5\0",
    b"/dev/null\0",
    b"/dev/zero\0",
    b"/dev/urandom\0",
    b"/proc/self/status\0",
    b"/tmp\0",
    b"/link\0",
    b"/loop\0",
    b"/dir/file\0",
    b"\0",
    b"/sys/devices/system/cpu/online\0",
    b"/proc/self/exe\0",
    b"/dev/shm/x\0",
    b"/dir/../../../etc/passwd\0",
];

/// Structures for calls to point at lie here, 256 bytes each.
const SLOTS: u64 = 0x40_1000;
const SLOT_COUNT: u64 = 64;
/// Buffers.
const BUFFERS: u64 = 0x40_8000;

fn slot(random: &mut Random) -> u64 {
    SLOTS + 256 * random.below(SLOT_COUNT)
}

fn words(list: &[u64]) -> Vec<u8> {
    list.iter().flat_map(|w| w.to_le_bytes()).collect()
}

fn open_fd(machine: &Machine, tid: Tid, random: &mut Random) -> u64 {
    let table = machine.kernel.task(tid).and_then(|t| machine.kernel.fd_tables.get(t.files));
    let fds: Vec<u64> = table.map(|t| t.fds.keys().map(|fd| u64::from(*fd)).collect()).unwrap_or_default();
    if fds.is_empty() || random.below(12) == 0 { argument(random) } else { random.of(&fds) }
}

fn address(random: &mut Random) -> Vec<u8> {
    let port = 5000 + random.below(3) as u16;
    match random.below(6) {
        0 => [&[1, 0, 0][..], &[b'a' + random.below(3) as u8]].concat(),
        1 => b"\x01\0/tmp/s\0".to_vec(),
        2 => [&[10, 0][..], &port.to_be_bytes(), &[0; 19], &[random.below(2) as u8], &[0; 4]].concat(),
        3 => vec![0; 16],
        _ => {
            let ip = [127, 0, 0, 1 + random.below(2) as u8];
            [&[2, 0][..], &port.to_be_bytes(), &ip, &[0; 8]].concat()
        }
    }
}

/// Writes some things that system calls point at.
fn season(machine: &mut Machine, tid: Tid, random: &mut Random) {
    for _ in 0..3 {
        let fds = [open_fd(machine, tid, random), open_fd(machine, tid, random)];
        let mut at = slot(random);
        let what = random.below(14);
        if matches!(what, 2 | 3) {
            // Where bind and connect look.
            at = SLOTS + 256 * random.below(8);
        }
        let bytes: Vec<u8> = match what {
            0..=1 => random.of(STRINGS).to_vec(),
            2..=3 => address(random),
            4 => {
                // struct msghdr
                let name = if random.below(2) == 0 { slot(random) } else { 0 };
                let len = random.of(&[0, 4, 9, 16, 28, 110]);
                let control = slot(random);
                let room = random.of(&[0, 20, 24, 64, 256]);
                words(&[name, len, slot(random), random.below(4), control, room, 0, 0])
            }
            5 => words(&[BUFFERS, random.below(9000), BUFFERS + 4096, random.below(64), slot(random), 8]),
            6 => {
                // SCM_RIGHTS
                let mut b = words(&[24, 1 | 1 << 32]);
                b.extend([fds[0] as u32, fds[1] as u32].iter().flat_map(|x| x.to_le_bytes()));
                b
            }
            7 => {
                // struct epoll_event
                let events = (random.below(64) | random.below(16) << 28) as u32;
                [&events.to_le_bytes()[..], &random.next().to_le_bytes()].concat()
            }
            8 => words(&[0, random.below(5_000_000), 0, random.below(5_000_000)]),
            9 => words(&[fds[0] & 0xffff_ffff | random.below(64) << 32, fds[1] & 0xffff_ffff | 5 << 32]),
            10 => words(&[random.of(&[2, 4, 8, 16, 28, 128]); 4]),
            11 => (0..8).flat_map(|_| argument(random).to_le_bytes()).collect(),
            12 => (0..8).flat_map(|_| random.below(5).to_le_bytes()).collect(),
            _ => (0..32).map(|_| random.next() as u8).collect(),
        };
        let _ = machine.kernel.copy_out(tid, at, &bytes);
    }
}

fn argument(random: &mut Random) -> u64 {
    const EDGES: &[u64] = &[
        0,
        1,
        2,
        3,
        4,
        7,
        8,
        16,
        24,
        32,
        64,
        128,
        4095,
        4096,
        4097,
        65536,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x1_0000_0000,
        u64::MAX,
        u64::MAX - 1,
        u64::MAX - 99,
        u64::MAX - 4095,
        i64::MAX as u64,
        1 << 63,
        TASK_SIZE,
        TASK_SIZE - 1,
        TASK_SIZE - 4096,
        0x7fff_ffff_f000,
        0xffff_8000_0000_0000,
        1 << 47,
        1 << 46,
        1 << 30,
        0x10_0000,
    ];
    match random.below(10) {
        0..=2 => random.of(EDGES),
        3..=4 => random.below(16),
        5..=6 => slot(random),
        7 => 0x40_0000 + PAGE_SIZE * random.below(64),
        8 => 1 << random.below(64),
        _ => random.next(),
    }
}

/// Calls that make the objects that others work on.
const MAKERS: &[u64] =
    &[2, 22, 41, 41, 43, 53, 53, 56, 57, 85, 257, 282, 283, 288, 289, 290, 291, 293, 319, 32, 72];
/// Calls that move bytes and wait.
const MOVERS: &[u64] = &[
    0, 0, 1, 1, 7, 19, 20, 40, 42, 42, 44, 44, 45, 46, 46, 47, 47, 49, 49, 50, 54, 55, 48, 51, 52, 202, 232,
    232, 233, 233, 233, 271, 270, 281, 286, 286, 299, 307, 326, 73, 72, 16, 17, 18, 77,
];
/// Calls that take away what a long run needs.
const ENDERS: &[u64] = &[
    3, 3, 3, 11, 9, 10, 25, 33, 59, 60, 62, 160, 200, 231, 234, 292, 302, 322, 436, 14, 13, 15, 161, 109, 105,
];

fn number(numbers: &[u64], random: &mut Random) -> u64 {
    let number = match random.below(20) {
        0..=4 => random.of(MAKERS),
        5..=13 => random.of(MOVERS),
        14 => random.below(600),
        _ => random.of(numbers),
    };
    if ENDERS.contains(&number) && random.below(8) != 0 {
        return 3;
    }
    // exit and exit_group end the run soon enough by other ways.
    if matches!(number, 15 | 60 | 62 | 200 | 231 | 234) && random.below(100) != 0 { 39 } else { number }
}

fn arguments(machine: &Machine, tid: Tid, number: u64, random: &mut Random) -> [u64; 6] {
    let mut all = [0; 6];
    let kinds = guest::syscall::entry(number).map_or(&[][..], |e| e.args);
    for (i, arg) in all.iter_mut().enumerate() {
        *arg = match kinds.get(i) {
            _ if random.below(24) == 0 => argument(random),
            Some(Arg::Fd) => open_fd(machine, tid, random),
            Some(Arg::DirFd) if random.below(2) == 0 => 0xffff_ff9c,
            Some(Arg::DirFd) => open_fd(machine, tid, random),
            Some(Arg::Path | Arg::Ptr | Arg::In(_) | Arg::Out) if random.below(5) == 0 => 0,
            Some(Arg::Path | Arg::Ptr) => slot(random),
            Some(Arg::In(_) | Arg::Out) => BUFFERS + random.below(4) * PAGE_SIZE,
            Some(Arg::Int | Arg::Uint) => random.of(&[0, 1, 2, 3, 8, 16, 28, 56, 128, 4096, 60_000]),
            Some(Arg::Flags(list)) if !list.is_empty() => {
                random.of(list).1 | (random.of(list).1 * random.below(2))
            }
            _ => argument(random),
        };
    }
    match number {
        41 | 53 => {
            (all[0], all[1], all[2]) = (random.of(&[1, 1, 2, 10]), random.of(&[1, 2, 5, 0o4001, 0o4002]), 0)
        }
        42 | 49 => (all[1], all[2]) = (SLOTS + 256 * random.below(8), random.of(&[4, 9, 16, 16, 28])),
        43 | 288 => (all[2], all[3]) = (slot(random), 0),
        289 => (all[0], all[2], all[3]) = (u64::MAX, 8, 0),
        16 => all[1] = random.of(&[0x541b, 0x5411, 0x5421, 0x5401, 0x5451]),
        78 | 217 => all[2] = random.below(512),
        56 => (all[0], all[1]) = (random.of(&[17, 0x5_0f00, 0x5_0f00]), BUFFERS + 0x8000),
        72 => all[1] = random.of(&[0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1031, 1033, 1034]),
        233 => (all[1], all[2]) = (1 + random.below(3), open_fd(machine, tid, random)),
        54 | 55 => (all[1], all[2]) = (random.of(&[0, 1, 6, 41]), random.below(40)),
        7 | 271 | 232 | 281 => {
            all[1] = if number == 7 || number == 271 { random.below(3) } else { slot(random) }
        }
        _ => {}
    }
    all
}

#[test]
fn arbitrary_system_calls_never_panic_the_kernel() {
    let var = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seconds = var("COPPICE_FUZZ_SECONDS").unwrap_or(60);
    let seed = var("COPPICE_FUZZ_SEED").unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64)
    });
    println!("seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    support::populate(dir.path());

    let numbers: Vec<u64> = guest::syscall::table().iter().map(|e| u64::from(e.number)).collect();
    let mut random = Random(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut calls, mut boots) = (0_u64, 0_u64);
    let mut succeeded = BTreeSet::new();
    let (mut most_fds, mut most_sockets) = (0, 0);
    while Instant::now() < end {
        let mut machine = boot(dir.path());
        boots += 1;
        let mut idle = 0;
        for _ in 0..3_000 {
            let cpu = random.below(2) as usize;
            let started = Instant::now();
            let mut what = (0, [0; 6]);
            match machine.kernel.next(&mut machine.vcpus[cpu]) {
                Next::Run(tid) => {
                    idle = 0;
                    season(&mut machine, tid, &mut random);
                    let number = number(&numbers, &mut random);
                    let exit = match random.below(4000) {
                        0 => Exit::Exception {
                            vector: random.below(32) as u8,
                            error: random.below(32),
                            cr2: argument(&mut random),
                        },
                        1 => Exit::Preempted,
                        2 => Exit::Illegal,
                        3 => Exit::BadMemory,
                        _ => Exit::Syscall,
                    };
                    let args = arguments(&machine, tid, number, &mut random);
                    what = (number, args);
                    if let Some(task) = machine.kernel.task_mut(tid) {
                        let r = &mut task.regs;
                        r.rax = number;
                        (r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9) =
                            (args[0], args[1], args[2], args[3], args[4], args[5]);
                        if random.below(20) == 0 {
                            r.rsp = argument(&mut random);
                        }
                    }
                    machine.kernel.on_exit(&mut machine.vcpus[cpu], tid, exit);
                    calls += 1;
                    if exit == Exit::Syscall
                        && machine
                            .kernel
                            .task(tid)
                            .is_some_and(|t| t.syscall.is_none() && (t.regs.rax as i64) >= 0)
                    {
                        succeeded.insert(number);
                    }
                }
                Next::Idle { deadline, awaits_work, .. } => {
                    idle += 1;
                    machine.kernel.take_answer();
                    if awaits_work {
                        machine.kernel.push_work(b"work");
                    }
                    let now = machine.platform.monotonic();
                    machine
                        .platform
                        .advance(deadline.map_or(1_000_000, |d| d.saturating_sub(now).min(1 << 40)));
                    // Asleep for good: a new kernel starts.
                    if idle > 50 {
                        break;
                    }
                }
                Next::Exited(_) => break,
            }
            let took = started.elapsed();
            assert!(took < Duration::from_secs(5), "{what:x?} took {took:?}");
        }
        assert!(machine.kernel.objects.net.is_consistent());
        most_fds = most_fds.max(machine.kernel.files.len());
        most_sockets = most_sockets.max(machine.kernel.objects.net.sockets.len());
    }
    println!("{calls} calls, {boots} kernels, {} of {} succeeded once", succeeded.len(), numbers.len());
    println!("at most {most_fds} open files and {most_sockets} sockets");
    let never: Vec<_> = guest::syscall::table()
        .iter()
        .filter(|e| {
            !succeeded.contains(&u64::from(e.number))
                && !matches!(e.support, guest::syscall::Support::Refused(..))
        })
        .map(|e| e.name)
        .collect();
    println!("never: {never:?}");
    assert!(calls > 1000, "only {calls} calls were made");
}
