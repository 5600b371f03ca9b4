//! Writes random programs of system calls for the interpreter (`interpreter.c`, `arguments.c`), keeping account of what each slot holds, so that
//! most calls are valid ones on live objects, and of what would make two runs differ by themselves, so that none does.

use std::fmt::Write as _;

#[path = "../support/random.rs"]
mod random;

pub use random::Random;

/// An or of some of these flags.
fn some(random: &mut Random, flags: &[u64]) -> u64 {
    flags.iter().filter(|_| random.below(3) == 0).fold(0, |a, f| a | f)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Dir,
    PathOnly,
    PipeRead,
    PipeWrite,
    Stream,
    Dgram,
    Seqpacket,
    Listener,
    Tcp,
    Udp,
    Epoll,
    Event,
    Memfd,
    Timer,
    Signals,
    Inotify,
}

use Kind::*;

const SLOTS: u64 = 24;
const NAMES: &[&str] =
    &["a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "l", "l/a", "none/a", "a/b", ".", "d/..", "d/"];
const DATA: &[Kind] = &[File, File, Memfd, PipeRead, PipeWrite, Stream, Dgram, Seqpacket, Tcp, Event];
const SOCKETS: &[Kind] = &[Stream, Dgram, Seqpacket, Tcp, Udp, Listener];
const NONBLOCK: u64 = 0o4000;
const CLOEXEC: u64 = 0o2000000;

/// Writes one program.
pub struct Writer<'a> {
    random: &'a mut Random,
    slots: [Option<Kind>; SLOTS as usize],
    spawned: [bool; 4],
    ports: u64,
    lines: Vec<String>,
}

/// A program of about so many calls.
pub fn program(random: &mut Random, calls: usize) -> Vec<String> {
    let family = random.below(8);
    let mut w =
        Writer { random, slots: [None; SLOTS as usize], spawned: [false; 4], ports: 0, lines: Vec::new() };
    w.start();
    while w.lines.len() < calls {
        // Each program has a theme, so that calls of one kind meet each other's effects.
        let theme = if w.random.below(4) == 0 { w.random.below(8) } else { family };
        match theme {
            0 => w.names(),
            1 => w.data(),
            2 => w.descriptors(),
            3 => w.sockets(),
            4 => w.readiness(),
            5 => w.memory(),
            6 => w.signals(),
            _ => w.processes(),
        }
    }
    w.lines
}

fn hex(words: &[u64]) -> String {
    words.iter().flat_map(|w| w.to_le_bytes()).fold(String::new(), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

fn hex32(words: &[u32]) -> String {
    words.iter().flat_map(|w| w.to_le_bytes()).fold(String::new(), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

impl Writer<'_> {
    fn put(&mut self, line: String) {
        self.lines.push(line);
    }

    /// A plain call.
    fn call(&mut self, number: u32, result: &str, arguments: &[String]) {
        let name = guest::syscall::entry(u64::from(number)).map_or("call", |e| e.name);
        self.put(format!("{name} {result} {number} {}", arguments.join(" ")));
    }

    fn start(&mut self) {
        for line in ["mkdir . 83 \"d i493", "mkdir . 83 \"d/e i493"] {
            if self.random.below(3) > 0 {
                self.put(line.into());
            }
        }
        for _ in 0..2 {
            self.open();
        }
    }

    fn name(&mut self) -> String {
        let most = if self.random.below(4) == 0 { NAMES.len() } else { 9 };
        format!("\"{}", self.random.of(&NAMES[..most]))
    }

    /// A slot to fill, empty where there is one.
    fn room(&mut self) -> usize {
        let start = self.random.below(SLOTS - 1) as usize;
        (start..SLOTS as usize - 1).find(|s| self.slots[*s].is_none()).unwrap_or(start)
    }

    /// A slot that holds one of these; now and then any slot.
    fn holding(&mut self, kinds: &[Kind]) -> usize {
        let fitting: Vec<usize> =
            (0..SLOTS as usize).filter(|s| self.slots[*s].is_some_and(|k| kinds.contains(&k))).collect();
        // What is read from these has process ids in it, or cookies.
        let odd = |k: Kind| matches!(k, Signals | Inotify) && !kinds.contains(&k);
        let live: Vec<usize> =
            (0..SLOTS as usize).filter(|s| self.slots[*s].is_some_and(|k| !odd(k))).collect();
        match self.random.below(12) {
            0 if !live.is_empty() => self.random.of(&live),
            1 => Some(self.random.below(SLOTS) as usize)
                .filter(|s| !self.slots[*s].is_some_and(odd))
                .unwrap_or(0),
            _ if !fitting.is_empty() => self.random.of(&fitting),
            _ if !live.is_empty() => self.random.of(&live),
            _ => 0,
        }
    }

    fn fd(&mut self, kinds: &[Kind]) -> String {
        format!("f{}", self.holding(kinds))
    }

    fn dirfd(&mut self) -> String {
        if self.random.below(3) > 0 { "i-100".into() } else { self.fd(&[Dir, PathOnly]) }
    }

    fn n(&mut self, items: &[i64]) -> String {
        format!("i{}", self.random.of(items))
    }

    fn length(&mut self) -> i64 {
        self.random.of(&[0, 1, 2, 7, 100, 511, 4095, 4096, 4097, 10_000, 65_536])
    }

    fn offset(&mut self) -> i64 {
        self.random.of(&[0, 0, 1, 50, 100, 4095, 4096, 8192, 10_000, 100_000, -1])
    }

    fn open(&mut self) {
        let slot = self.room();
        let access = self.random.of(&[0_u64, 1, 2, 2, 2]);
        let (name, dirfd) = (self.name(), self.dirfd());
        let flags = some(self.random, &[0o100, 0o100, 0o1000, 0o2000, 0o200, 0o400000, CLOEXEC]);
        let (flags, kind) = match self.random.below(12) {
            0 => (0o200000, Dir),
            1 => (0o10000000 | some(self.random, &[0o200000, 0o400000, CLOEXEC]), PathOnly),
            2 => (0o20200000 | 2, File),
            3..=5 => (flags | access | 0o100, File),
            _ => (flags | access, File),
        };
        let (name, kind) = if kind == Dir {
            (self.random.of(&["\".", "\"d", "\"d/e"]).to_owned(), kind)
        } else {
            (name, kind)
        };
        let name =
            if flags & 0o20200000 == 0o20200000 { self.random.of(&["\".", "\"d"]).to_owned() } else { name };
        let mode = self.n(&[0o644, 0o600, 0o755, 0o400, 0o000, 0o6755]);
        self.call(257, &format!(">{slot}"), &[dirfd, name, format!("i{}", flags | NONBLOCK), mode]);
        self.slots[slot] = Some(kind);
    }

    /// Names: what is where in the tree, and what stat(2) says of it.
    fn names(&mut self) {
        let (a, b, at, other) = (self.name(), self.name(), self.dirfd(), self.dirfd());
        match self.random.below(30) {
            0..=3 => self.open(),
            4 => {
                let mode = self.n(&[0o755, 0o700, 0o1777, 0o2755]);
                self.call(258, ".", &[at, a, mode]);
            }
            5 => {
                let flags = self.n(&[0, 0, 0x200]);
                self.call(263, ".", &[at, a, flags]);
            }
            6 => self.call(82, ".", &[a, b]),
            7..=8 => {
                let flags = self.n(&[0, 0, 1, 2, 3]);
                self.call(316, ".", &[at, a, other, b, flags]);
            }
            9 => {
                let flags = self.n(&[0, 0, 0x400]);
                self.call(265, ".", &[at, a, other, b, flags]);
            }
            10 => {
                let to =
                    self.random.of(&["\"a", "\"d", "\"d/e", "\"l", "\"nowhere", "\"../l", "\"."]).to_owned();
                self.call(266, ".", &[to, at, a]);
            }
            11 => self.call(267, ".", &[at, a, "string".into(), "i60".into()]),
            12..=14 => {
                let flags = self.n(&[0, 0x100, 0x1000]);
                self.call(262, ".", &[at, a, "stat".into(), flags]);
            }
            15 => self.call(332, ".", &[at, a, "i256".into(), "i2047".into(), "statx".into()]),
            16 => {
                let mode = self.n(&[0o644, 0o755, 0o600, 0o0, 0o4755, 0o1777]);
                self.call(268, ".", &[at, a, mode]);
            }
            17 => {
                let mode = self.n(&[0, 1, 2, 4, 6, 7]);
                let flags = self.n(&[0, 0x100, 0x200, 0x1000]);
                self.call(439, ".", &[at, a, mode, flags]);
            }
            18 => {
                let length = format!("i{}", self.offset());
                self.call(76, ".", &[a, length]);
            }
            19..=20 => {
                let dir = self.fd(&[Dir]);
                self.call(217, ".", &[dir, "dents".into(), "i8000".into()]);
            }
            21 => self.call(80, ".", &[a]),
            22 => {
                let dir = self.fd(&[Dir, PathOnly]);
                self.call(81, ".", &[dir]);
            }
            23 => self.call(79, "h", &["string".into(), "i200".into()]),
            24 => {
                let mask = self.n(&[0, 0o22, 0o77, 0o777, 0o27]);
                self.call(95, ".", &[mask]);
            }
            25 => {
                let times = hex(&[1_000_000, 5, 2_000_000, self.random.of(&[7, 0x3fff_fffe, 2_000_000_000])]);
                self.call(280, ".", &[at, a, format!("x{times}"), "i0".into()]);
            }
            26 => {
                let owner = self.n(&[-1, 0, 7]);
                self.call(260, ".", &[at, a, owner, "i-1".into(), "i256".into()]);
            }
            27 => {
                let key = self.random.of(&["\"user.x", "\"user.yy", "\"odd.x"]).to_owned();
                match self.random.below(4) {
                    0 => {
                        let flags = self.n(&[0, 0, 1, 2]);
                        self.call(188, ".", &[a, key, "w5,2".into(), "i5".into(), flags]);
                    }
                    1 => self.call(191, ".", &[a, key, "r64".into(), "i64".into()]),
                    2 => self.call(194, ".", &[a, "r64".into(), "i64".into()]),
                    _ => self.call(197, ".", &[a, key]),
                }
            }
            28 => {
                let mode = self.n(&[0o10644, 0o10600, 0o100644, 0o140600]);
                self.call(259, ".", &[at, a, mode, "i0".into()]);
            }
            _ => {
                let mode = self.n(&[0o644, 0o755, 0o600, 0o0, 0o4755]);
                let file = self.fd(&[File, Dir, Memfd]);
                self.call(91, ".", &[file, mode]);
            }
        }
    }

    /// Bytes: what was written is what is read.
    fn data(&mut self) {
        let slot = self.holding(DATA);
        let fd = format!("f{slot}");
        let (mut n, seed, at) = (self.length(), self.random.below(9), self.offset());
        if self.slots[slot].is_none_or(|k| SOCKETS.contains(&k)) {
            // How much fits into a socket is a matter of how the kernel counts.
            n = n.min(2000);
        }
        match self.random.below(34) {
            0..=1 => self.open(),
            2..=5 => self.call(1, ".", &[fd, format!("w{n},{seed}"), format!("i{n}")]),
            6..=9 => self.call(0, ".", &[fd, format!("r{n}"), format!("i{n}")]),
            10 => self.call(17, ".", &[fd, format!("r{n}"), format!("i{n}"), format!("i{at}")]),
            11..=12 => self.call(18, ".", &[fd, format!("w{n},{seed}"), format!("i{n}"), format!("i{at}")]),
            13 => self.call(19, ".", &[fd, format!("Vr{n},{at}"), "i2".into()]),
            14 => self.call(20, ".", &[fd, format!("Vw{n},{},{seed}", at.max(0)), "i2".into()]),
            15 => {
                let flags = self.n(&[0, 0, 2, 8, 16]);
                let name = if self.random.below(2) == 0 { 327 } else { 328 };
                let vector = if name == 327 { format!("Vr{n},9") } else { format!("Vw{n},9,{seed}") };
                self.call(name, ".", &[fd, vector, "i2".into(), format!("i{at}"), "i0".into(), flags]);
            }
            16..=18 => {
                let whence = self.n(&[0, 0, 1, 2, 3, 4]);
                self.call(8, ".", &[fd, format!("i{at}"), whence]);
            }
            19 => self.call(77, ".", &[fd, format!("i{at}")]),
            20 => {
                let mode = self.n(&[0, 1, 3, 16, 17, 8, 32]);
                let length = self.n(&[1, 4096, 8192, 10_000, 0]);
                self.call(285, ".", &[fd, mode, format!("i{at}"), length]);
            }
            21 => self.call(5, ".", &[fd, "stat".into()]),
            22 => {
                let (from, n) = (self.fd(&[File, Memfd]), n.min(60_000));
                self.call(40, ".", &[fd, from, "i0".into(), format!("i{n}")]);
            }
            23 => {
                let (from, to) = (self.fd(&[File, Memfd]), self.fd(&[File, Memfd]));
                self.call(326, ".", &[from, "i0".into(), to, "i0".into(), format!("i{n}"), "i0".into()]);
            }
            24 => {
                let (from, to) = (self.fd(&[PipeRead, File, Stream]), self.fd(&[PipeWrite, File, Stream]));
                self.call(275, ".", &[from, "i0".into(), to, "i0".into(), format!("i{n}"), "i2".into()]);
            }
            25 => {
                let (from, to) = (self.fd(&[PipeRead]), self.fd(&[PipeWrite]));
                self.call(276, ".", &[from, to, format!("i{n}"), "i2".into()]);
            }
            26..=27 => {
                let slot = self.room();
                let flags = some(self.random, &[CLOEXEC, 0o40000]);
                self.slots[slot] = Some(PipeRead);
                self.slots[slot + 1] = Some(PipeWrite);
                self.call(293, ".", &[format!("2{slot}"), format!("i{}", flags | NONBLOCK)]);
            }
            28 => {
                let slot = self.room();
                self.slots[slot] = Some(Memfd);
                let flags = self.n(&[0, 1, 2, 3, 2]);
                self.call(319, &format!(">{slot}"), &["\"memory".into(), flags]);
            }
            29 => {
                let file = self.fd(&[Memfd]);
                let seals = self.n(&[1, 2, 4, 8, 16, 6]);
                self.call(72, ".", &[file.clone(), "i1033".into(), seals]);
                self.call(72, ".", &[file, "i1034".into(), "i0".into()]);
            }
            30 => {
                let command = self.n(&[1032, 1031]);
                let size = self.n(&[4096, 5000, 65_536, 1, 131_072]);
                let pipe = self.fd(&[PipeRead, PipeWrite]);
                self.call(72, ".", &[pipe, command, size]);
            }
            31 => self.call(16, ".", &[fd, "i21531".into(), "y00000000".into()]),
            32 => {
                let sync = self.random.of(&[74, 75]);
                self.call(sync, ".", &[fd]);
            }
            _ => self.call(221, ".", &[fd, format!("i{at}"), "i100".into(), "i4".into()]),
        }
    }

    fn any(&mut self) -> usize {
        self.holding(&[File, Dir, PipeRead, PipeWrite, Stream, Epoll, Event, Memfd, Timer, Listener, Dgram])
    }

    /// Descriptors: tables, flags, locks.
    fn descriptors(&mut self) {
        let slot = self.any();
        let (fd, other) = (format!("f{slot}"), format!("f{}", self.any()));
        match self.random.below(20) {
            0 => self.open(),
            1..=3 => {
                self.call(3, ".", std::slice::from_ref(&fd));
                self.slots[slot] = None;
            }
            4 => {
                let to = self.room();
                self.slots[to] = self.slots[slot];
                self.call(32, &format!(">{to}"), &[fd]);
            }
            5 => self.call(33, ".", &[fd, other]),
            6 => {
                let flags = self.n(&[0, CLOEXEC as i64, 1]);
                self.call(292, ".", &[fd, other, flags]);
            }
            7 => {
                let to = self.room();
                self.slots[to] = self.slots[slot];
                let (command, least) = (self.n(&[0, 1030]), self.n(&[0, 3, 10, 40, 1024, -1]));
                self.call(72, &format!(">{to}"), &[fd, command, least]);
            }
            8..=9 => self.call(72, ".", &[fd, "i1".into(), "i0".into()]),
            10 => {
                let flag = self.n(&[0, 1]);
                self.call(72, ".", &[fd, "i2".into(), flag]);
            }
            11 => self.call(72, ".", &[fd, "i3".into(), "i0".into()]),
            12 => {
                let flags = format!("i{}", NONBLOCK | some(self.random, &[0o2000, 0o40000]));
                self.call(72, ".", &[fd, "i4".into(), flags]);
            }
            13..=14 => {
                let file = self.fd(&[File, Memfd]);
                let how = self.n(&[5, 6, 4 | 8, 12]);
                self.call(73, ".", &[file, how]);
            }
            15..=16 => {
                // struct flock: type, whence, start, length, pid
                let file = self.fd(&[File, Memfd]);
                let command = self.random.of(&[6_i64, 6, 5, 37, 36]);
                let kind = self.random.below(3) | self.random.of(&[0_u64, 0, 1]) << 16;
                let (start, length) = (self.random.of(&[0_u64, 10, 50]), self.random.of(&[0_u64, 10, 20, 5]));
                // F_GETLK of another process's lock would tell its pid.
                let show = if command == 6 || command == 37 { 'x' } else { 'z' };
                let flock = hex(&[kind, start, length, 0]);
                self.call(72, ".", &[file, format!("i{command}"), format!("{show}{flock}")]);
            }
            17 => {
                let (first, flags) = (self.n(&[10, 5, 30]), self.n(&[0, 4]));
                self.call(436, ".", &[first, "i60".into(), flags]);
            }
            18 => {
                let limit = hex(&[self.random.of(&[1024_u64, 900, 16]), 1024]);
                self.call(
                    302,
                    ".",
                    &["i0".into(), "i7".into(), format!("x{limit}"), format!("y{}", hex(&[0, 0]))],
                );
            }
            _ => self.put("!exec".into()),
        }
    }

    /// Sockets within the machine.
    fn sockets(&mut self) {
        let slot = self.room();
        let flags = NONBLOCK | some(self.random, &[CLOEXEC]);
        let socket = self.fd(SOCKETS);
        let n = self.random.of(&[0, 1, 10, 100, 2000]);
        let unix = self.random.of(&["u:s", "u:t", "u@s", "u@t"]).to_owned();
        match self.random.below(30) {
            0..=2 => {
                let (number, kind) = self.random.of(&[(1, Stream), (2, Dgram), (5, Seqpacket)]);
                (self.slots[slot], self.slots[slot + 1]) = (Some(kind), Some(kind));
                let kind = format!("i{}", number | flags);
                self.call(53, ".", &["i1".into(), kind, "i0".into(), format!("2{slot}")]);
            }
            3..=4 => {
                let (number, kind) = self.random.of(&[(1, Stream), (2, Dgram), (5, Seqpacket), (1, Stream)]);
                self.slots[slot] = Some(kind);
                let kind = format!("i{}", number | flags);
                self.call(41, &format!(">{slot}"), &["i1".into(), kind, "i0".into()]);
            }
            5 => {
                let (domain, kind, k) =
                    self.random.of(&[(2, 1, Tcp), (2, 2, Udp), (10, 1, Tcp), (10, 2, Udp)]);
                self.slots[slot] = Some(k);
                self.call(
                    41,
                    &format!(">{slot}"),
                    &[format!("i{domain}"), format!("i{}", kind | flags), "i0".into()],
                );
                let address = if domain == 2 { "n4:-" } else { "n6:-" };
                let f = format!("f{slot}");
                self.call(49, ".", &[f.clone(), address.into(), "L".into()]);
                let port = self.ports % 6;
                self.ports += 1;
                self.put(format!("!port {slot} {port}"));
                if k == Tcp && self.random.below(2) == 0 {
                    self.slots[slot] = Some(Listener);
                    self.call(50, ".", &[f, "i3".into()]);
                }
            }
            6 => self.call(49, ".", &[socket, unix, "L".into()]),
            7 => {
                let backlog = self.n(&[0, 1, 5, -1]);
                let listener = self.holding(&[Stream, Seqpacket]);
                self.slots[listener] = self.slots[listener].map(|_| Listener);
                self.call(50, ".", &[format!("f{listener}"), backlog]);
            }
            8..=9 => self.call(42, ".", &[socket, unix, "L".into()]),
            10 => {
                let address = format!(
                    "{}:{}",
                    self.random.of(&["n4", "n6"]),
                    self.random.below(self.ports.clamp(1, 6))
                );
                let s = self.fd(&[Tcp, Udp]);
                self.call(42, ".", &[s, address, "L".into()]);
            }
            11..=12 => {
                let listener = self.fd(&[Listener]);
                self.slots[slot] = Some(Stream);
                let flags = format!("i{flags}");
                self.call(288, &format!(">{slot}"), &[listener, "address".into(), "length".into(), flags]);
            }
            13..=15 => {
                let flags = self.n(&[0, 0x4000, 0x40]);
                self.call(
                    44,
                    ".",
                    &[socket, format!("w{n},4"), format!("i{n}"), flags, "i0".into(), "i0".into()],
                );
            }
            16..=18 => {
                let flags = self.n(&[0x40, 0x42, 0x60, 0x40]);
                self.call(
                    45,
                    ".",
                    &[socket, format!("r{n}"), format!("i{n}"), flags, "i0".into(), "i0".into()],
                );
            }
            19 => {
                let s = self.fd(&[Dgram, Stream]);
                self.call(44, ".", &[s, format!("w{n},4"), format!("i{n}"), "i64".into(), unix, "L".into()]);
            }
            20 => {
                let s = self.fd(&[Dgram]);
                self.call(
                    45,
                    ".",
                    &[s, "r100".into(), "i100".into(), "i64".into(), "address".into(), "length".into()],
                );
            }
            21..=22 => {
                let socket = self.holding(&[Stream, Dgram, Seqpacket]);
                let passed = if self.random.below(2) == 0 { self.any() as i64 } else { -1 };
                self.put(format!("!sendmsg {socket} {n} 64 {passed}"));
            }
            23..=24 => {
                let socket = self.holding(&[Stream, Dgram, Seqpacket, Udp]);
                let (flags, room) =
                    (self.random.of(&[64, 66, 96, 0x4000_0040]), self.random.of(&[0, 20, 24, 64]));
                self.put(format!("!recvmsg {socket} {n} {flags} {room} {slot}"));
            }
            25 => {
                let how = self.n(&[0, 1, 2]);
                self.call(48, ".", &[socket, how]);
            }
            26 => {
                let number = self.random.of(&[51, 52]);
                let s = self.fd(&[Stream, Dgram, Seqpacket, Listener]);
                self.call(number, ".", &[s, "address".into(), "length".into()]);
            }
            27 => {
                let option = self.n(&[3, 4, 30, 38, 39, 2, 9, 16, 15]);
                self.call(55, ".", &[socket, "i1".into(), option, "y00000000".into(), "y04000000".into()]);
            }
            28 => {
                let option = self.n(&[2, 9, 16, 15, 6]);
                self.call(54, ".", &[socket, "i1".into(), option, "x01000000".into(), "i4".into()]);
            }
            _ => self.call(16, ".", &[socket, "i21531".into(), "y00000000".into()]),
        }
    }

    /// poll, epoll, and what becomes ready.
    fn readiness(&mut self) {
        let slot = self.room();
        let (x, y) = (self.any(), self.any());
        let (a, b) = (format!("f{x}"), self.random.of(&[1, 4, 5, 0x2005]));
        let epoll = self.fd(&[Epoll]);
        match self.random.below(22) {
            0 => self.data(),
            1 => self.sockets(),
            2..=3 => {
                self.slots[slot] = Some(Epoll);
                self.call(291, &format!(">{slot}"), &["i0".into()]);
            }
            4..=7 => {
                let operation = self.n(&[1, 1, 1, 3, 2]);
                let events = u64::from(b as u32) | some(self.random, &[1 << 31, 1 << 30, 1 << 28]);
                self.call(233, ".", &[epoll, operation, a, format!("E{x}:{events}")]);
            }
            8..=11 => {
                let most = self.n(&[8, 32]);
                self.call(232, ".", &[epoll, "epoll".into(), most, "i0".into()]);
            }
            12..=14 => {
                let (e, f) = (self.random.of(&[1, 4, 5, 0x2007, 0]), self.random.of(&[1, 4, 5]));
                self.call(7, ".", &[format!("P{x}:{e},{y}:{f}"), "i2".into(), "i0".into()]);
            }
            15 => {
                self.slots[slot] = Some(Event);
                let (start, flags) = (self.n(&[0, 1, 5]), self.random.of(&[0, 1]) | NONBLOCK);
                self.call(290, &format!(">{slot}"), &[start, format!("i{flags}")]);
            }
            16 => {
                let value = hex(&[self.random.of(&[1_u64, 3, u64::MAX - 1, u64::MAX])]);
                let event = self.fd(&[Event]);
                self.call(1, ".", &[event, format!("x{value}"), "i8".into()]);
            }
            17 => {
                let event = self.fd(&[Event, Timer]);
                self.call(0, ".", &[event, "r8".into(), "i8".into()]);
            }
            18 => {
                self.slots[slot] = Some(Timer);
                self.call(283, &format!(">{slot}"), &["i1".into(), format!("i{NONBLOCK}")]);
            }
            19 => {
                let timer = self.fd(&[Timer]);
                // Either long ago or far away.
                let (time, flags) = self.random.of(&[(1_u64, 1), (100_000, 0), (0, 0)]);
                let spec = hex(&[0, 0, time, 0]);
                self.call(286, ".", &[timer, format!("i{flags}"), format!("x{spec}"), "i0".into()]);
            }
            20 => match self.random.below(3) {
                0 => {
                    self.slots[slot] = Some(Inotify);
                    self.call(294, &format!(">{slot}"), &[format!("i{NONBLOCK}")]);
                }
                1 => {
                    let (watch, name) = (self.fd(&[Inotify]), self.name());
                    let mask = format!(
                        "i{}",
                        some(self.random, &[2, 4, 0x40, 0x80, 0x100, 0x200, 0x400, 0x800, 8, 0x20]) | 0x100
                    );
                    self.call(254, ".", &[watch, name, mask]);
                }
                _ => self.names(),
            },
            _ => {
                let watch = self.fd(&[Inotify]);
                self.call(0, ".", &[watch, "changes".into(), "i4096".into()]);
            }
        }
    }

    /// Memory in windows of its own.
    fn memory(&mut self) {
        let region = self.random.below(4);
        let page = 4096 * self.random.of(&[0_u64, 0, 0, 1, 2, 3]);
        let length = 4096 * self.random.of(&[1_u64, 1, 2, 3, 4, 8]);
        let (at, len) = (format!("m{region}+{page}"), format!("i{length}"));
        match self.random.below(26) {
            0..=3 => {
                let protection = self.n(&[3, 3, 3, 1, 0]);
                let flags = self.n(&[0x32, 0x31, 0x32]);
                self.call(9, "h", &[at, len, protection, flags, "i-1".into(), "i0".into()]);
            }
            4..=6 => {
                let protection = self.n(&[3, 3, 1]);
                let (file, flags) = (self.fd(&[File, Memfd]), self.n(&[0x11, 0x12]));
                let from = self.n(&[0, 0, 4096, 8192]);
                self.call(9, "h", &[at, len, protection, flags, file, from]);
            }
            7 => self.call(11, ".", &[at, len]),
            8..=9 => {
                let protection = self.n(&[0, 1, 3, 3]);
                self.call(10, ".", &[at, len, protection]);
            }
            10 => {
                let new = 4096 * self.random.of(&[1_u64, 2, 4, 8]);
                let to = self.random.below(4) + 4;
                self.call(25, "h", &[at, len, format!("i{new}"), "i3".into(), format!("m{to}+0")]);
            }
            11 => {
                let new = 4096 * self.random.of(&[1_u64, 2, 3]);
                self.call(25, "h", &[at, len, format!("i{new}"), "i0".into()]);
            }
            12 => {
                let advice = self.n(&[4, 4, 9, 14, 3, 0, 18, 19]);
                self.call(28, ".", &[at, len, advice]);
            }
            13 => {
                let flags = self.n(&[4, 1, 0, 2, 5]);
                self.call(26, ".", &[at, len, flags]);
            }
            14 => {
                let lock = self.random.of(&[149, 150]);
                self.call(lock, ".", &[at, len]);
            }
            15..=19 => {
                let value = self.random.of(&[-1_i64, -1, 7, 200]);
                let region = self.random.below(8);
                let byte = self.random.of(&[0_u64, 1, 4095, 4096, 8192, 12_288]);
                self.put(format!("!touch m{region}+{byte} {value}"));
            }
            20..=22 => self.data(),
            23 => {
                // A call that reads or writes where a mapping may end.
                let file = self.fd(&[File, Memfd, PipeWrite]);
                let number = self.random.of(&[0, 1]);
                self.call(number, ".", &[file, format!("m{region}+{}", page + 4000), "i200".into()]);
            }
            24 => {
                let file = self.fd(&[File, Memfd]);
                let size = self.n(&[0, 100, 4096, 5000, 16_384]);
                self.call(77, ".", &[file, size]);
            }
            _ => {
                let calls = 1 + self.random.below(3);
                self.put(format!("!fork {calls} 0"));
                for _ in 0..calls {
                    let (byte, value) = (self.random.of(&[0_u64, 1, 4096]), self.random.of(&[-1_i64, 9]));
                    let region = self.random.below(4);
                    self.put(format!("!touch m{region}+{byte} {value}"));
                }
            }
        }
    }

    /// Signals to the process itself.
    fn signals(&mut self) {
        let slot = self.room();
        // SIGUSR1, SIGUSR2, SIGRTMIN (34), SIGCHLD, SIGURG, SIGCONT
        let signal = self.random.of(&[10_u64, 12, 34, 17, 23, 18]);
        let set = self.random.of(&[0x200_u64, 0x800, 0xa00, 0x2_0000_0000, 0x2_0000_0a00, 0x1_0000]);
        let mask = format!("x{}", hex(&[set]));
        let old = format!("y{}", hex(&[0]));
        match self.random.below(18) {
            0..=3 => {
                let how = self.n(&[0, 0, 1, 2]);
                self.call(14, ".", &[how, mask, old, "i8".into()]);
            }
            4..=6 => self.put(format!("kill . 62 k31 i{signal}")),
            7 => self.call(127, ".", &[old, "i8".into()]),
            8..=9 => {
                let zero = format!("x{}", hex(&[0, 0]));
                self.call(128, ".", &[mask, "siginfo".into(), zero, "i8".into()]);
            }
            10 => {
                // siginfo: signo, errno, code SI_QUEUE, pad, pid, uid, value
                let info =
                    hex32(&[signal as u32, 0, -1_i32 as u32, 0, 0, 0, self.random.below(100) as u32, 0]);
                self.call(129, ".", &["k31".into(), format!("i{signal}"), format!("x{info}")]);
            }
            11..=12 => {
                let how = self.random.of(&[1, 2, 2]);
                let flags = self.random.of(&[0_u64, 0x1000_0000, 0x4000_0000, 0x8000_0000]);
                self.put(format!("!handle {signal} {how} {flags}"));
            }
            13 => {
                self.slots[slot] = Some(Signals);
                self.call(
                    289,
                    &format!(">{slot}"),
                    &["i-1".into(), mask, "i8".into(), format!("i{NONBLOCK}")],
                );
            }
            14..=15 => {
                let fd = self.fd(&[Signals]);
                self.call(0, ".", &[fd, "signals".into(), "i512".into()]);
            }
            16 => {
                // A child has its own pending signals.
                self.put("!fork 2 5".into());
                self.call(127, ".", &[old.clone(), "i8".into()]);
                self.call(14, ".", &["i0".into(), "i0".into(), old, "i8".into()]);
            }
            _ => self.readiness(),
        }
    }

    /// Processes that are made, ended and asked about.
    fn processes(&mut self) {
        match self.random.below(14) {
            0..=1 => {
                let calls = 1 + self.random.below(4) as usize;
                let code = self.random.below(4);
                let at = self.lines.len();
                self.put(String::new());
                let (slots, ports) = (self.slots, self.ports);
                for _ in 0..calls {
                    match self.random.below(4) {
                        0 => self.data(),
                        1 => self.descriptors(),
                        2 => self.names(),
                        _ => self.signals(),
                    }
                }
                (self.slots, self.ports) = (slots, ports);
                self.lines[at] = format!("!fork {} {code}", self.lines.len() - at - 1);
            }
            2..=3 => {
                let k = self.random.below(4);
                if !self.spawned[k as usize] {
                    self.spawned[k as usize] = true;
                    self.put(format!("!spawn {k}"));
                }
            }
            4..=6 => {
                let k = self.random.below(4);
                let signal = self.random.of(&[15, 9, 2, 0, 18, 14, 1]);
                self.spawned[k as usize] = false;
                self.put(format!("!reap {k} {signal}"));
            }
            7 => {
                self.call(97, ".", &["i7".into(), format!("y{}", hex(&[0, 0]))]);
            }
            8 => {
                let number = self.random.of(&[102, 104, 107, 108]);
                self.call(number, ".", &[]);
            }
            9 => {
                let (which, value) = (self.n(&[3, 38, 36, 4, 7]), self.n(&[0, 0, 1]));
                self.call(157, ".", &[which, value, "i0".into(), "i0".into(), "i0".into()]);
            }
            10 => {
                self.call(157, ".", &["i15".into(), "\"renamed".into()]);
                self.call(157, ".", &["i16".into(), "string".into()]);
            }
            11 => self.put("!exec".into()),
            12 => {
                let options = self.n(&[1, 1, 0x4000_0001]);
                self.call(61, "h", &["i-1".into(), "status".into(), options, "i0".into()]);
            }
            _ => {
                let (number, a) = self.random.of(&[(140, "i0"), (111, "i0"), (145, "i0")]);
                self.call(number, "h", &[a.into(), "i0".into()]);
            }
        }
    }
}
