//! Random calls for the fuzzing of the entry: numbers, arguments that follow the table, and memory that makes sense to point at.

use guest::kernel::Kernel;
use guest::platform::{PAGE_SIZE, TASK_SIZE};
use guest::syscall::Arg;
use guest::task::Tid;

#[path = "../../../tests/support/random.rs"]
mod random;

pub use random::Random;

pub const STRINGS: &[&[u8]] = &[
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
    b"user.x\0",
    b"/dev/ptmx\0",
    b"/dev/pts/0\0",
    b"/dev/tty\0",
    b"/queue\0",
    b"/tmp/fifo\0",
    b"/proc/self/task/1/stat\0",
    b"/dev/shm\0",
];

/// Structures for calls to point at lie here, 256 bytes each.
pub const SLOTS: u64 = 0x40_1000;
pub const SLOT_COUNT: u64 = 64;
/// Buffers.
pub const BUFFERS: u64 = 0x40_8000;

pub fn slot(random: &mut Random) -> u64 {
    SLOTS + 256 * random.below(SLOT_COUNT)
}

pub fn words(list: &[u64]) -> Vec<u8> {
    list.iter().flat_map(|w| w.to_le_bytes()).collect()
}

pub fn open_fd(kernel: &Kernel, tid: Tid, random: &mut Random) -> u64 {
    let table = kernel.task(tid).and_then(|t| kernel.fd_tables.get(t.files));
    let fds: Vec<u64> = table.map(|t| t.fds.keys().map(|fd| u64::from(*fd)).collect()).unwrap_or_default();
    if fds.is_empty() || random.below(12) == 0 { argument(random) } else { random.of(&fds) }
}

pub fn address(random: &mut Random) -> Vec<u8> {
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
pub fn season(kernel: &mut Kernel, tid: Tid, random: &mut Random) {
    for _ in 0..3 {
        let fds = [open_fd(kernel, tid, random), open_fd(kernel, tid, random)];
        let mut at = slot(random);
        let what = random.below(19);
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
            13 => b"user.x\0".to_vec(),
            14 => b"/bin/tiny\0".to_vec(),
            // struct open_how
            15 => words(&[random.of(&[0, 2, 0o102, 0o200000]), 0, random.of(&[0, 0, 4, 8, 16])]),
            // A set of signals, struct sembuf, a message with its type
            16 => words(&[random.of(&[0x200, 0x800, u64::MAX, 1 << 40]), 0, 0, 0]),
            17 => words(&[random.below(2) | random.of(&[1, 0xffff, 0]) << 16 | 0x800 << 32, 1, 0, 0]),
            _ => (0..32).map(|_| random.next() as u8).collect(),
        };
        let _ = kernel.copy_out(tid, at, &bytes);
    }
}

pub fn argument(random: &mut Random) -> u64 {
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

/// FIONREAD, TIOC..., TC..., and terminals' own.
const IOCTLS: &[u64] = &[
    0x541b,
    0x5411,
    0x5421,
    0x5401,
    0x5451,
    0x5402,
    0x5403,
    0x5404,
    0x5413,
    0x5414,
    0x540e,
    0x540f,
    0x5410,
    0x8004_5430,
    0x4004_5431,
    0x5441,
    0x540b,
    0x5409,
    0x540a,
    0x5412,
    0x5422,
    0x8910,
    0x8912,
    0x8913,
    0x8905,
];
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
    3, 3, 3, 11, 9, 10, 25, 33, 59, 60, 62, 130, 160, 200, 231, 234, 292, 302, 322, 436, 14, 13, 15, 161,
    109, 105,
];

pub fn number(numbers: &[u64], random: &mut Random) -> u64 {
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
    if matches!(number, 15 | 60 | 231) && random.below(100) != 0 { 39 } else { number }
}

pub fn arguments(kernel: &Kernel, tid: Tid, number: u64, random: &mut Random) -> [u64; 6] {
    let mut all = [0; 6];
    let kinds = guest::syscall::entry(number).map_or(&[][..], |e| e.args);
    for (i, arg) in all.iter_mut().enumerate() {
        *arg = match kinds.get(i) {
            _ if random.below(24) == 0 => argument(random),
            Some(Arg::Fd) => open_fd(kernel, tid, random),
            Some(Arg::DirFd) if random.below(2) == 0 => 0xffff_ff9c,
            Some(Arg::DirFd) => open_fd(kernel, tid, random),
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
        16 => all[1] = random.of(IOCTLS),
        62 | 200 | 234 => {
            let quiet = random.of(&[0, 17, 18, 23, 28, 10, 34]);
            (all[0], all[1], all[2]) = (random.of(&[1, 1, 0, u64::from(tid)]), quiet, quiet);
            if number == 234 {
                all[1] = u64::from(tid);
            }
        }
        14 => (all[0], all[1], all[3]) = (random.below(3), slot(random), 8),
        128 | 130 => (all[0], all[1], all[3]) = (slot(random), 0, 8),
        437 => all[3] = 24,
        188..=199 => (all[3], all[4]) = (random.below(64), 0),
        // System V: small keys and ids
        68 | 64 | 29 => (all[0], all[1]) = (random.below(4), random.of(&[1, 3, 4096, 0o1600])),
        69 | 70 | 71 | 65 | 66 | 30 | 31 | 220 => all[0] = random.below(4),
        275 | 276 => (all[1], all[3]) = (if number == 276 { all[1] } else { 0 }, 0),
        78 | 217 => all[2] = random.below(512),
        56 => (all[0], all[1]) = (random.of(&[17, 0x5_0f00, 0x5_0f00]), BUFFERS + 0x8000),
        72 => all[1] = random.of(&[0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1031, 1033, 1034]),
        233 => (all[1], all[2]) = (1 + random.below(3), open_fd(kernel, tid, random)),
        54 | 55 => (all[1], all[2]) = (random.of(&[0, 1, 6, 41]), random.below(40)),
        7 | 271 | 232 | 281 => {
            all[1] = if number == 7 || number == 271 { random.below(3) } else { slot(random) }
        }
        _ => {}
    }
    all
}
