//! Calls on files and descriptors, through the kernel's entry.

#![allow(clippy::indexing_slicing, clippy::as_conversions, clippy::unwrap_used, clippy::panic)]

mod support;

use guest::errno::Errno;
use support::{INIT, Machine, err};

const READ: u64 = 0;
const WRITE: u64 = 1;
const OPEN: u64 = 2;
const CLOSE: u64 = 3;
const LSEEK: u64 = 8;
const PREAD: u64 = 17;
const FCNTL: u64 = 72;
const FTRUNCATE: u64 = 77;
const O_RDWR: u64 = 2;
const O_CREAT: u64 = 0o100;
const O_APPEND: u64 = 0o2000;

fn open(m: &mut Machine, path: &str, flags: u64) -> u64 {
    let path = m.path(path);
    m.ok(OPEN, &[path, flags, 0o644])
}

fn write(m: &mut Machine, fd: u64, data: &[u8]) -> i64 {
    let va = m.put(data);
    m.call(WRITE, &[fd, va, data.len() as u64])
}

fn read(m: &mut Machine, fd: u64, len: usize) -> Vec<u8> {
    let va = m.alloc(len);
    let n = m.ok(READ, &[fd, va, len as u64]);
    m.read(va, n as usize)
}

#[test]
fn in_memory_files_fill_half_of_the_memory_limit_and_then_there_is_no_space() {
    let mut m = Machine::boot();
    m.kernel.limits.memory = 8 << 20;
    let fd = open(&mut m, "/tmp/full", O_RDWR | O_CREAT);
    let chunk = m.put(&[7; 65536]);
    let mut held = 0;
    let refused = loop {
        match m.call(WRITE, &[fd, chunk, 65536]) {
            n if n > 0 => held += n,
            n => break n,
        }
        assert!(held <= 8 << 20, "{held} bytes are taken");
    };
    assert_eq!(refused, err(Errno::ENOSPC));
    assert_eq!(held, 4 << 20);
    // What is given back can be used again.
    assert_eq!(m.call(FTRUNCATE, &[fd, 0]), 0);
    m.ok(LSEEK, &[fd, 0, 0]);
    assert_eq!(m.call(WRITE, &[fd, chunk, 65536]), 65536);
}

#[test]
fn a_file_is_written_read_back_and_appended_to() {
    let mut m = Machine::boot();
    let fd = open(&mut m, "/tmp/a", O_RDWR | O_CREAT);
    assert_eq!(write(&mut m, fd, b"hello world"), 11);
    assert_eq!(m.ok(LSEEK, &[fd, 6, 0]), 6);
    assert_eq!(read(&mut m, fd, 100), b"world");
    assert_eq!(read(&mut m, fd, 100), b"");
    let va = m.alloc(8);
    assert_eq!(m.ok(PREAD, &[fd, va, 4, 1]), 4);
    assert_eq!(m.read(va, 4), b"ello");
    assert_eq!(m.ok(LSEEK, &[fd, 0, 1]), 11);
    assert_eq!(m.call(LSEEK, &[fd, (-12_i64) as u64, 1]), err(Errno::EINVAL));
    let app = open(&mut m, "/tmp/a", O_RDWR | O_APPEND);
    assert_eq!(write(&mut m, app, b"!"), 1);
    m.ok(LSEEK, &[fd, 0, 0]);
    assert_eq!(read(&mut m, fd, 100), b"hello world!");
    assert_eq!(m.call(READ, &[fd, 0x10, 4]), 0, "at the end no byte is copied");
    m.ok(LSEEK, &[fd, 0, 0]);
    assert_eq!(m.call(READ, &[fd, 0x10, 4]), err(Errno::EFAULT));
    assert_eq!(m.call(WRITE, &[fd, 0x10, 4]), err(Errno::EFAULT));
    assert_eq!(m.call(READ, &[77, 0x10, 4]), err(Errno::EBADF));
    assert_eq!(m.call(READ, &[fd, va, u64::MAX]), err(Errno::EFAULT), "no user space is that large");
}

#[test]
fn stat_and_statx_lie_as_the_abi_says() {
    use linux_raw_sys::general::{stat, statx};
    use std::mem::{offset_of, size_of};
    let mut m = Machine::boot();
    let (path, va) = (m.path("/dir/file"), m.alloc(size_of::<stat>()));
    m.ok(4, &[path, va]);
    assert_eq!(m.u64(va + offset_of!(stat, st_size) as u64), 10_000);
    assert_eq!(m.u32(va + offset_of!(stat, st_mode) as u64) & 0o170_000, 0o100_000);
    assert_eq!(m.u64(va + offset_of!(stat, st_nlink) as u64), 1);
    assert_eq!(m.u64(va + offset_of!(stat, st_blksize) as u64), 4096);
    let ino = m.u64(va + offset_of!(stat, st_ino) as u64);
    let fd = open(&mut m, "/dir/file", 0);
    let vb = m.alloc(size_of::<stat>());
    m.ok(5, &[fd, vb]);
    assert_eq!(m.read(va, size_of::<stat>()), m.read(vb, size_of::<stat>()), "fstat agrees");
    let (empty, vx) = (m.path(""), m.alloc(size_of::<statx>()));
    m.ok(332, &[fd, empty, 0x1000, 0x7ff, vx]);
    assert_eq!(m.u64(vx + offset_of!(statx, stx_size) as u64), 10_000);
    assert_eq!(m.u64(vx + offset_of!(statx, stx_ino) as u64), ino);
    assert_eq!(m.u32(vx) & 0x7ff, 0x7ff);
    let missing = m.path("/dir/none");
    assert_eq!(m.call(4, &[missing, va]), err(Errno::ENOENT));
    assert_eq!(m.call(4, &[path, 0x10]), err(Errno::EFAULT));
}

#[test]
fn getdents64_lists_every_name_once_whatever_the_buffer() {
    let mut m = Machine::boot();
    for name in ["/tmp/one", "/tmp/two", "/tmp/three"] {
        open(&mut m, name, O_RDWR | O_CREAT);
    }
    let fd = open(&mut m, "/tmp", 0o200_000);
    let va = m.alloc(64);
    let mut names = Vec::new();
    assert_eq!(m.call(217, &[fd, va, 8]), err(Errno::EINVAL));
    loop {
        let n = m.ok(217, &[fd, va, 64]) as usize;
        if n == 0 {
            break;
        }
        let bytes = m.read(va, n);
        let mut at = 0;
        while at < n {
            let len = usize::from(u16::from_le_bytes([bytes[at + 16], bytes[at + 17]]));
            assert_eq!(len % 8, 0);
            let kind = bytes[at + 18];
            let name: Vec<u8> = bytes[at + 19..at + len].iter().copied().take_while(|b| *b != 0).collect();
            names.push((String::from_utf8(name).unwrap(), kind));
            at += len;
        }
    }
    names.sort();
    let want = [(".", 4), ("..", 4), ("one", 8), ("three", 8), ("two", 8)];
    assert_eq!(names, want.map(|(n, k)| (n.to_owned(), k)));
}

#[test]
fn descriptors_are_duplicated_and_flags_kept_apart() {
    let mut m = Machine::boot();
    let fd = open(&mut m, "/tmp/a", O_RDWR | O_CREAT);
    let dup = m.ok(32, &[fd]);
    write(&mut m, fd, b"abc");
    assert_eq!(m.ok(LSEEK, &[dup, 0, 1]), 3, "one offset");
    m.ok(FCNTL, &[dup, 2, 1]);
    assert_eq!(m.ok(FCNTL, &[dup, 1]), 1);
    assert_eq!(m.ok(FCNTL, &[fd, 1]), 0);
    m.ok(FCNTL, &[dup, 4, 0o4000]);
    assert_eq!(m.ok(FCNTL, &[fd, 3]) & 0o4003, 0o4002, "status flags are shared");
    assert_eq!(m.ok(33, &[fd, 20]), 20);
    assert_eq!(m.ok(FCNTL, &[fd, 0, 20]), 21);
    assert_eq!(m.call(292, &[fd, fd, 0]), err(Errno::EINVAL));
    assert_eq!(m.call(33, &[fd, 5000]), err(Errno::EBADF));
    m.ok(436, &[20, 30, 0]);
    assert_eq!(m.call(CLOSE, &[20]), err(Errno::EBADF));
    m.ok(CLOSE, &[fd]);
    assert_eq!(write(&mut m, dup, b"d"), 1);
}

#[test]
fn a_pipe_sleeps_when_empty_and_when_full_and_wakes_the_other_thread() {
    let mut m = Machine::boot();
    let other = m.thread();
    let va = m.alloc(8);
    m.ok(22, &[va]);
    let (r, w) = (u64::from(m.u32(va)), u64::from(m.u32(va + 4)));
    let buf = m.alloc(70_000);
    assert_eq!(m.start(other, READ, &[r, buf, 10]), None);
    write(&mut m, w, b"ping");
    assert_eq!(m.finish(other), Some(4));
    assert_eq!(m.start(other, WRITE, &[w, buf, 70_000]), None);
    assert_eq!(m.ok(READ, &[r, buf, 65_536]), 65_536);
    assert_eq!(m.finish(other), Some(70_000));
    m.ok(CLOSE, &[w]);
    assert_eq!(m.ok(READ, &[r, buf, 70_000]), 70_000 - 65_536);
    assert_eq!(m.ok(READ, &[r, buf, 10]), 0);
}

#[test]
fn a_long_read_lets_others_run_and_comes_back_whole() {
    let mut m = Machine::boot();
    let len = 3 << 20;
    let fd = m.path("big");
    let fd = m.ok(319, &[fd, 0]);
    m.ok(77, &[fd, len]);
    // PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS
    let va = m.ok(9, &[0, len, 3, 0x22, u64::MAX, 0]);
    assert_eq!(m.ok(READ, &[fd, va, len]), len);
    assert_eq!(m.ok(LSEEK, &[fd, 0, 1]), len);
    assert_eq!(m.ok(18, &[fd, va, len, 5]), len);
    assert_eq!(m.ok(LSEEK, &[fd, 0, 2]), len + 5);
    let zero = open(&mut m, "/dev/zero", 0);
    assert_eq!(m.ok(READ, &[zero, va, len]), len);
}

fn timer(m: &mut Machine, fd: u64, flags: u64, interval: u64, value: u64) {
    let s = 1_000_000_000;
    let spec = m.words(&[interval / s, interval % s, value / s, value % s]);
    m.ok(286, &[fd, flags, spec, 0]);
}

#[test]
fn a_timerfd_counts_expiries_and_wakes_a_reader() {
    let mut m = Machine::boot();
    let fd = m.ok(283, &[1, 0o4000]);
    let va = m.alloc(8);
    timer(&mut m, fd, 0, 100_000_000, 1_000_000_000);
    assert_eq!(m.call(READ, &[fd, va, 8]), err(Errno::EAGAIN));
    m.advance(1_250_000_000);
    assert_eq!(m.call(READ, &[fd, va, 8]), 8);
    assert_eq!(m.u64(va), 3);
    assert_eq!(m.call(READ, &[fd, va, 4]), err(Errno::EINVAL));
    let now = m.alloc(16);
    m.ok(228, &[0, now]);
    let at = m.u64(now) * 1_000_000_000 + m.u64(now + 8) + 5_000_000_000;
    let real = m.ok(283, &[0, 0]);
    timer(&mut m, real, 1, 0, at);
    let other = m.thread();
    assert_eq!(m.start(other, READ, &[real, va, 8]), None);
    m.advance(4_000_000_000);
    assert_eq!(m.finish(other), None);
    m.advance(1_000_000_000);
    assert_eq!(m.finish(other), Some(8));
    assert_eq!(m.u64(va), 1);
    m.ok(CLOSE, &[fd]);
    m.ok(CLOSE, &[real]);
    assert_eq!(m.kernel.next_timer(), None);
}

#[test]
fn a_pause_before_a_fork_of_the_sandbox_moves_relative_timers_only() {
    let mut m = Machine::boot();
    let (a, b) = (m.ok(283, &[1, 0o4000]), m.ok(283, &[1, 0o4000]));
    let now = m.alloc(16);
    m.ok(228, &[1, now]);
    let at = m.u64(now) * 1_000_000_000 + m.u64(now + 8) + 1_000_000_000;
    timer(&mut m, a, 0, 0, 1_000_000_000);
    timer(&mut m, b, 1, 0, at);
    m.kernel.timers_after_fork(5_000_000_000);
    m.advance(2_000_000_000);
    let va = m.alloc(8);
    assert_eq!(m.call(READ, &[a, va, 8]), err(Errno::EAGAIN));
    assert_eq!(m.call(READ, &[b, va, 8]), 8);
    m.advance(4_100_000_000);
    assert_eq!(m.call(READ, &[a, va, 8]), 8);
}

#[test]
fn a_signalfd_gives_blocked_signals_and_polls_ready() {
    let mut m = Machine::boot();
    let mask = m.words(&[1 << 9]); // SIGUSR1
    m.ok(14, &[0, mask, 0, 8]);
    let fd = m.ok(289, &[u64::MAX, mask, 8, 0]);
    let poll = m.words(&[fd | 1 << 32]);
    assert_eq!(m.call(7, &[poll, 1, 0]), 0);
    let other = m.thread();
    assert_eq!(m.start(other, 7, &[poll, 1, u64::MAX]), None);
    m.ok(62, &[1, 10]);
    assert_eq!(m.finish(other), Some(1));
    let va = m.alloc(256);
    assert_eq!(m.call(READ, &[fd, va, 256]), 128);
    assert_eq!((m.u32(va), m.u32(va + 12)), (10, 1));
    assert_eq!(m.call(READ, &[fd, va, 100]), err(Errno::EINVAL));
}

#[test]
fn a_memfd_obeys_its_seals() {
    let mut m = Machine::boot();
    let name = m.path("x");
    let fd = m.ok(319, &[name, 2]);
    assert_eq!(write(&mut m, fd, b"data"), 4);
    m.ok(FCNTL, &[fd, 1033, 2 | 4]);
    assert_eq!(m.call(77, &[fd, 2]), err(Errno::EPERM));
    assert_eq!(write(&mut m, fd, b"more"), err(Errno::EPERM));
    m.ok(LSEEK, &[fd, 0, 0]);
    assert_eq!(write(&mut m, fd, b"DATA"), 4);
    m.ok(FCNTL, &[fd, 1033, 1 | 8]);
    assert_eq!(m.ok(FCNTL, &[fd, 1034]), 15);
    m.ok(LSEEK, &[fd, 0, 0]);
    assert_eq!(write(&mut m, fd, b"x"), err(Errno::EPERM));
    assert_eq!(m.call(FCNTL, &[fd, 1033, 16]), err(Errno::EPERM));
    assert_eq!(m.call(9, &[0, 4096, 3, 1, fd, 0]), err(Errno::EPERM));
    m.ok(9, &[0, 4096, 1, 1, fd, 0]);
}

#[test]
fn locks_of_processes_and_descriptions_exclude_each_other() {
    let mut m = Machine::boot();
    let a = open(&mut m, "/tmp/a", O_RDWR | O_CREAT);
    let b = open(&mut m, "/tmp/a", O_RDWR);
    assert_eq!(m.call(73, &[a, 2]), 0);
    assert_eq!(m.call(73, &[b, 2 | 4]), err(Errno::EAGAIN));
    let other = m.thread();
    assert_eq!(m.start(other, 73, &[b, 1]), None);
    m.ok(CLOSE, &[a]);
    assert_eq!(m.finish(other), Some(0));
    // F_OFD_SETLK against F_SETLK of the same process.
    let lock = m.words(&[1, 10, 20, 0]);
    m.ok(FCNTL, &[b, 6, lock]);
    let c = open(&mut m, "/tmp/a", O_RDWR);
    let probe = m.words(&[1, 0, 0, 0]);
    m.ok(FCNTL, &[c, 36, probe]);
    assert_eq!((m.u32(probe), m.u64(probe + 8), m.u64(probe + 16), m.u32(probe + 24)), (1, 10, 20, 1));
    let ofd = m.words(&[1, 29, 1, 0]);
    assert_eq!(m.call(FCNTL, &[c, 37, ofd]), err(Errno::EAGAIN));
    m.ok(CLOSE, &[b]);
    m.ok(FCNTL, &[c, 37, ofd]);
}

#[test]
fn sendfile_and_copy_file_range_move_bytes_inside_the_kernel() {
    let mut m = Machine::boot();
    let from = open(&mut m, "/dir/file", 0);
    let va = m.alloc(8);
    m.ok(22, &[va]);
    let (r, w) = (u64::from(m.u32(va)), u64::from(m.u32(va + 4)));
    assert_eq!(m.ok(40, &[w, from, 0, 4000]), 4000);
    assert_eq!(m.ok(LSEEK, &[from, 0, 1]), 4000);
    assert_eq!(read(&mut m, r, 5000), vec![7; 4000]);
    let at = m.words(&[9_998]);
    assert_eq!(m.ok(40, &[w, from, at, 4000]), 2);
    assert_eq!((m.u64(at), m.ok(LSEEK, &[from, 0, 1])), (10_000, 4000));
    let to = open(&mut m, "/tmp/copy", O_RDWR | O_CREAT);
    assert_eq!(m.ok(326, &[from, 0, to, 0, 100_000, 0]), 6000);
    assert_eq!(m.ok(LSEEK, &[to, 0, 2]), 6000);
    assert_eq!(m.call(40, &[w, r, 0, 1]), err(Errno::EINVAL));
    m.ok(41, &[1, 1, 0]);
    m.ok(53, &[1, 1, 0, va]);
    let (a, b) = (u64::from(m.u32(va)), u64::from(m.u32(va + 4)));
    m.ok(LSEEK, &[from, 0, 0]);
    assert_eq!(m.ok(40, &[a, from, 0, 10_000]), 10_000);
    assert_eq!(read(&mut m, b, 20_000).len(), 10_000);
}

#[test]
fn the_work_channel_holds_one_answer_and_then_its_writer() {
    let mut m = Machine::boot();
    assert_eq!(write(&mut m, 3, b"\x02\0\0\0hi"), 6);
    let data = m.put(b"\x01\0\0\0!");
    assert_eq!(m.start(INIT, WRITE, &[3, data, 5]), None);
    assert_eq!(m.kernel.take_answer(), Some(b"hi".to_vec()));
    assert_eq!(m.finish(INIT), Some(5));
    assert_eq!(m.kernel.take_answer(), Some(b"!".to_vec()));
}
