//! Fuzzes the system-call entry: arbitrary numbers and arguments on a live kernel without KVM.
//!
//! Runs for `COPPICE_FUZZ_SECONDS` (60 by default) from a seed that it prints (`COPPICE_FUZZ_SEED` repeats one). Nothing is asserted about results: the kernel
//! must not panic, must not hang, and must keep its own tables consistent enough to go on.

// A test may index and cast: its own numbers are not hostile.
#![allow(clippy::indexing_slicing, clippy::as_conversions, clippy::unwrap_used, clippy::expect_used)]

use guest::exec::Spawn;
use guest::kernel::{Kernel, Limits, Next};
use guest::platform::fake::{FakePlatform, FakeVcpu};
use guest::platform::{Exit, PAGE_SIZE, TASK_SIZE};
use guest::task::Tid;
use guest::vfs::Stdio;
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

/// A static program of one page: headers, and one instruction that is never run.
fn tiny_elf() -> Vec<u8> {
    let mut elf = vec![0_u8; 4096];
    elf[..16].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let put = |elf: &mut Vec<u8>, at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(&mut elf, 16, &2_u16.to_le_bytes()); // ET_EXEC
    put(&mut elf, 18, &62_u16.to_le_bytes()); // EM_X86_64
    put(&mut elf, 20, &1_u32.to_le_bytes());
    put(&mut elf, 24, &0x40_0100_u64.to_le_bytes()); // entry
    put(&mut elf, 32, &64_u64.to_le_bytes()); // phoff
    put(&mut elf, 52, &64_u16.to_le_bytes());
    put(&mut elf, 54, &56_u16.to_le_bytes());
    put(&mut elf, 56, &1_u16.to_le_bytes());
    put(&mut elf, 64, &1_u32.to_le_bytes()); // PT_LOAD
    put(&mut elf, 68, &7_u32.to_le_bytes()); // rwx
    put(&mut elf, 80, &0x40_0000_u64.to_le_bytes());
    put(&mut elf, 88, &0x40_0000_u64.to_le_bytes());
    put(&mut elf, 96, &4096_u64.to_le_bytes());
    put(&mut elf, 104, &(64 * 4096_u64).to_le_bytes());
    put(&mut elf, 112, &4096_u64.to_le_bytes());
    elf
}

struct Machine {
    kernel: Kernel,
    platform: Arc<FakePlatform>,
    vcpus: [FakeVcpu; 2],
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
    b"/dev/null\0",
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

/// Fills a page that the program has mapped with things that system calls point at.
fn season(machine: &mut Machine, tid: Tid, random: &mut Random) {
    let base = 0x40_1000 + PAGE_SIZE * random.below(8);
    for _ in 0..4 {
        let at = base + random.below(PAGE_SIZE - 64);
        let bytes: Vec<u8> = match random.below(4) {
            0 => random.of(STRINGS).to_vec(),
            1 => (0..8).flat_map(|_| argument(random).to_le_bytes()).collect(),
            2 => (0..8).flat_map(|_| random.below(5).to_le_bytes()).collect(),
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
        5..=6 => 0x40_1000 + random.below(8 * PAGE_SIZE),
        7 => 0x40_0000 + PAGE_SIZE * random.below(64),
        8 => 1 << random.below(64),
        _ => random.next(),
    }
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
    let root = dir.path();
    for sub in ["bin", "tmp", "dir", "etc"] {
        std::fs::create_dir(root.join(sub)).unwrap();
    }
    std::fs::write(root.join("bin/tiny"), tiny_elf()).unwrap();
    std::fs::write(root.join("dir/file"), vec![7; 10_000]).unwrap();
    use std::os::unix::fs::{PermissionsExt, symlink};
    std::fs::set_permissions(root.join("bin/tiny"), std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink("/dir/file", root.join("link")).unwrap();
    symlink("loop", root.join("loop")).unwrap();

    let numbers: Vec<u64> = guest::syscall::table().iter().map(|e| u64::from(e.number)).collect();
    let mut random = Random(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut calls, mut boots) = (0_u64, 0_u64);
    while Instant::now() < end {
        let mut machine = boot(root);
        boots += 1;
        let mut idle = 0;
        for _ in 0..3_000 {
            let cpu = random.below(2) as usize;
            let started = Instant::now();
            match machine.kernel.next(&mut machine.vcpus[cpu]) {
                Next::Run(tid) => {
                    idle = 0;
                    season(&mut machine, tid, &mut random);
                    let number = if random.below(20) == 0 { random.below(600) } else { random.of(&numbers) };
                    // exit and exit_group end the run soon enough by other ways.
                    let number = if matches!(number, 15 | 60 | 62 | 200 | 231 | 234) && random.below(100) != 0
                    {
                        39
                    } else {
                        number
                    };
                    let exit = match random.below(2000) {
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
                    let args: Vec<u64> = (0..6).map(|_| argument(&mut random)).collect();
                    if let Some(task) = machine.kernel.task_mut(tid) {
                        let r = &mut task.regs;
                        r.rax = number;
                        (r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9) =
                            (args[0], args[1], args[2], args[3], args[4], args[5]);
                        if random.below(4) == 0 {
                            r.rsp = argument(&mut random);
                        }
                    }
                    machine.kernel.on_exit(&mut machine.vcpus[cpu], tid, exit);
                    calls += 1;
                }
                Next::Idle { deadline, awaits_work, .. } => {
                    idle += 1;
                    if awaits_work {
                        machine.kernel.push_work(b"work");
                    }
                    machine.platform.advance(deadline.map_or(1_000_000, |d| d.min(1 << 40)));
                    // Asleep for good: a signal wakes someone, or a new kernel starts.
                    if idle > 50 {
                        break;
                    }
                }
                Next::Exited(_) => break,
            }
            assert!(started.elapsed() < Duration::from_secs(20), "one call took {:?}", started.elapsed());
        }
    }
    println!("{calls} calls, {boots} kernels");
    assert!(calls > 1000, "only {calls} calls were made");
}
