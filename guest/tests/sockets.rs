//! Sockets through their system calls.

#![allow(clippy::indexing_slicing, clippy::as_conversions, clippy::unwrap_used, clippy::panic)]

mod support;

use guest::errno::Errno;
use support::{INIT, Machine, err};

const READ: u64 = 0;
const WRITE: u64 = 1;
const CLOSE: u64 = 3;
const POLL: u64 = 7;
const SOCKET: u64 = 41;
const CONNECT: u64 = 42;
const ACCEPT: u64 = 43;
const SENDTO: u64 = 44;
const RECVFROM: u64 = 45;
const SENDMSG: u64 = 46;
const RECVMSG: u64 = 47;
const SHUTDOWN: u64 = 48;
const BIND: u64 = 49;
const LISTEN: u64 = 50;
const GETSOCKNAME: u64 = 51;
const GETPEERNAME: u64 = 52;
const SOCKETPAIR: u64 = 53;
const SETSOCKOPT: u64 = 54;
const GETSOCKOPT: u64 = 55;
const NONBLOCK: u64 = 0o4000;
const STREAM: u64 = 1;
const DGRAM: u64 = 2;
const SEQPACKET: u64 = 5;
const IN: u32 = 1;
const OUT: u32 = 4;
const ERR: u32 = 8;
const HUP: u32 = 16;
const RDHUP: u32 = 0x2000;

fn v4(ip: [u8; 4], port: u16) -> Vec<u8> {
    let mut b = vec![2, 0];
    b.extend(port.to_be_bytes());
    b.extend(ip);
    b.resize(16, 0);
    b
}

fn v6(last: u8, port: u16) -> Vec<u8> {
    let mut b = vec![10, 0];
    b.extend(port.to_be_bytes());
    b.resize(23, 0);
    b.push(last);
    b.resize(28, 0);
    b
}

fn un(path: &[u8]) -> Vec<u8> {
    [&[1, 0], path].concat()
}

const LOCAL: [u8; 4] = [127, 0, 0, 1];

trait Net {
    fn with_addr(&mut self, number: u64, fd: u64, addr: &[u8]) -> i64;
    fn name(&mut self, number: u64, fd: u64) -> Vec<u8>;
    fn pair(&mut self, style: u64) -> (u64, u64);
    fn listener(&mut self, port: u16, backlog: u64) -> u64;
    fn send(&mut self, fd: u64, data: &[u8]) -> i64;
    fn recv(&mut self, fd: u64, len: usize) -> Result<Vec<u8>, i64>;
    fn events(&mut self, fd: u64, want: u32) -> u32;
    fn option(&mut self, fd: u64, level: u64, name: u64) -> i32;
    fn set(&mut self, fd: u64, level: u64, name: u64, value: i32) -> i64;
}

impl Net for Machine {
    fn with_addr(&mut self, number: u64, fd: u64, addr: &[u8]) -> i64 {
        let va = self.put(addr);
        self.call(number, &[fd, va, addr.len() as u64])
    }

    fn name(&mut self, number: u64, fd: u64) -> Vec<u8> {
        let (va, len) = (self.alloc(128), self.put(&128_u32.to_le_bytes()));
        self.ok(number, &[fd, va, len]);
        let n = self.u32(len) as usize;
        self.read(va, n)
    }

    fn pair(&mut self, style: u64) -> (u64, u64) {
        let va = self.alloc(8);
        self.ok(SOCKETPAIR, &[1, style, 0, va]);
        (u64::from(self.u32(va)), u64::from(self.u32(va + 4)))
    }

    fn listener(&mut self, port: u16, backlog: u64) -> u64 {
        let fd = self.ok(SOCKET, &[2, STREAM, 0]);
        assert_eq!(self.with_addr(BIND, fd, &v4(LOCAL, port)), 0);
        self.ok(LISTEN, &[fd, backlog]);
        fd
    }

    fn send(&mut self, fd: u64, data: &[u8]) -> i64 {
        let va = self.put(data);
        self.call(WRITE, &[fd, va, data.len() as u64])
    }

    fn recv(&mut self, fd: u64, len: usize) -> Result<Vec<u8>, i64> {
        let va = self.alloc(len);
        let n = self.call(RECVFROM, &[fd, va, len as u64, 0x40, 0, 0]);
        if n < 0 { Err(n) } else { Ok(self.read(va, n as usize)) }
    }

    fn events(&mut self, fd: u64, want: u32) -> u32 {
        let va = self.words(&[fd | u64::from(want) << 32]);
        self.call(POLL, &[va, 1, 0]);
        self.u32(va + 4) >> 16
    }

    fn option(&mut self, fd: u64, level: u64, name: u64) -> i32 {
        let (va, len) = (self.alloc(4), self.put(&4_u32.to_le_bytes()));
        self.ok(GETSOCKOPT, &[fd, level, name, va, len]);
        self.u32(va) as i32
    }

    fn set(&mut self, fd: u64, level: u64, name: u64, value: i32) -> i64 {
        let va = self.put(&value.to_le_bytes());
        self.call(SETSOCKOPT, &[fd, level, name, va, 4])
    }
}

#[test]
fn a_loopback_connection_carries_bytes_both_ways_and_ends() {
    let mut m = Machine::boot();
    let server = m.listener(0, 16);
    let port = u16::from_be_bytes([m.name(GETSOCKNAME, server)[2], m.name(GETSOCKNAME, server)[3]]);
    assert!(port >= 32768);
    let client = m.ok(SOCKET, &[2, STREAM | NONBLOCK, 0]);
    assert_eq!(m.events(client, IN | OUT), OUT | HUP);
    assert_eq!(m.events(server, IN), 0);
    assert_eq!(m.with_addr(CONNECT, client, &v4(LOCAL, port)), err(Errno::EINPROGRESS));
    assert_eq!(m.events(client, OUT), OUT);
    assert_eq!(m.option(client, 1, 4), 0);
    assert_eq!(m.with_addr(CONNECT, client, &v4(LOCAL, port)), 0);
    assert_eq!(m.with_addr(CONNECT, client, &v4(LOCAL, port)), err(Errno::EISCONN));
    assert_eq!(m.events(server, IN), IN);
    let (va, len) = (m.alloc(16), m.put(&16_u32.to_le_bytes()));
    let conn = m.ok(ACCEPT, &[server, va, len]);
    let peer = m.read(va, 16);
    assert_eq!(peer, m.name(GETSOCKNAME, client));
    assert_eq!(peer, m.name(GETPEERNAME, conn));
    assert_eq!(m.name(GETPEERNAME, client), v4(LOCAL, port));
    assert_eq!(m.send(client, b"GET /"), 5);
    assert_eq!(m.recv(conn, 3), Ok(b"GET".to_vec()));
    assert_eq!(m.recv(conn, 30), Ok(b" /".to_vec()));
    assert_eq!(m.recv(conn, 30), Err(err(Errno::EAGAIN)));
    assert_eq!(m.send(conn, b"200"), 3);
    m.ok(SHUTDOWN, &[conn, 1]);
    assert_eq!(m.events(client, IN | OUT | RDHUP), IN | OUT | RDHUP);
    assert_eq!(m.recv(client, 30), Ok(b"200".to_vec()));
    assert_eq!(m.recv(client, 30), Ok(Vec::new()));
    assert_eq!(m.send(client, b"more"), 4);
    assert_eq!(m.recv(conn, 30), Ok(b"more".to_vec()));
    m.ok(CLOSE, &[client]);
    assert_eq!(m.recv(conn, 30), Ok(Vec::new()));
    assert_eq!(m.events(conn, IN | OUT), IN | OUT | HUP);
    m.ok(CLOSE, &[conn]);
    m.ok(CLOSE, &[server]);
    assert!(m.kernel.objects.net.sockets.is_empty());
}

#[test]
fn a_port_that_nobody_listens_on_refuses_and_other_hosts_are_unreachable() {
    let mut m = Machine::boot();
    let fd = m.ok(SOCKET, &[2, STREAM, 0]);
    assert_eq!(m.with_addr(CONNECT, fd, &v4(LOCAL, 9)), err(Errno::ECONNREFUSED));
    assert_eq!(m.with_addr(CONNECT, fd, &v4([10, 0, 0, 1], 80)), err(Errno::ENETUNREACH));
    let fd = m.ok(SOCKET, &[2, STREAM | NONBLOCK, 0]);
    assert_eq!(m.with_addr(CONNECT, fd, &v4(LOCAL, 9)), err(Errno::EINPROGRESS));
    assert_eq!(m.events(fd, IN | OUT | RDHUP), IN | OUT | ERR | HUP | RDHUP);
    assert_eq!(m.option(fd, 1, 4), i32::from(Errno::ECONNREFUSED.0));
    assert_eq!(m.events(fd, IN | OUT | RDHUP), IN | OUT | HUP | RDHUP);
    assert_eq!(m.option(fd, 1, 4), 0);
    let fd = m.ok(SOCKET, &[2, DGRAM, 0]);
    assert_eq!(m.with_addr(BIND, fd, &v4([8, 8, 8, 8], 53)), err(Errno::EADDRNOTAVAIL));
    assert_eq!(m.call(SOCKET, &[17, 3, 0]), err(Errno::EAFNOSUPPORT));
    assert_eq!(m.call(SOCKET, &[16, 3, 4]), err(Errno::EPROTONOSUPPORT));
    assert_eq!(m.call(SOCKET, &[2, 99, 0]), err(Errno::EINVAL));
    assert_eq!(m.call(SOCKET, &[2, 1, 17]), err(Errno::EPROTONOSUPPORT));
}

#[test]
fn a_port_is_taken_once_unless_both_agree() {
    let mut m = Machine::boot();
    let a = m.listener(5000, 1);
    let b = m.ok(SOCKET, &[2, STREAM, 0]);
    assert_eq!(m.with_addr(BIND, b, &v4([0; 4], 5000)), err(Errno::EADDRINUSE));
    assert_eq!(m.with_addr(BIND, b, &v4([127, 0, 0, 2], 5000)), 0);
    let c = m.ok(SOCKET, &[10, STREAM, 0]);
    assert_eq!(m.with_addr(BIND, c, &v6(0, 5000)), err(Errno::EADDRINUSE));
    assert_eq!(m.set(c, 41, 26, 1), 0);
    assert_eq!(m.with_addr(BIND, c, &v6(0, 5000)), 0);
    assert_eq!(m.with_addr(BIND, c, &v6(0, 5001)), err(Errno::EINVAL));
    m.ok(CLOSE, &[a]);
    let d = m.ok(SOCKET, &[2, STREAM, 0]);
    assert_eq!(m.with_addr(BIND, d, &v4(LOCAL, 5000)), 0);
    for _ in 0..2 {
        let fd = m.ok(SOCKET, &[2, STREAM, 0]);
        assert_eq!(m.set(fd, 1, 15, 1), 0);
        assert_eq!(m.with_addr(BIND, fd, &v4(LOCAL, 6000)), 0);
        m.ok(LISTEN, &[fd, 1]);
    }
}

#[test]
fn a_dual_stack_listener_takes_ipv4_and_shows_it_mapped() {
    let mut m = Machine::boot();
    let server = m.ok(SOCKET, &[10, STREAM, 0]);
    assert_eq!(m.with_addr(BIND, server, &v6(0, 7000)), 0);
    m.ok(LISTEN, &[server, 5]);
    let client = m.ok(SOCKET, &[2, STREAM, 0]);
    assert_eq!(m.with_addr(CONNECT, client, &v4([0; 4], 7000)), 0);
    let conn = m.ok(ACCEPT, &[server, 0, 0]);
    let name = m.name(GETSOCKNAME, conn);
    assert_eq!(&name[8..24], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 127, 0, 0, 1]);
    let client = m.ok(SOCKET, &[10, STREAM, 0]);
    assert_eq!(m.with_addr(CONNECT, client, &v6(1, 7000)), 0);
    let conn = m.ok(ACCEPT, &[server, 0, 0]);
    assert_eq!(m.name(GETSOCKNAME, conn), v6(1, 7000));
}

#[test]
fn a_full_backlog_makes_the_next_connection_wait() {
    let mut m = Machine::boot();
    let server = m.listener(5000, 0);
    let a = m.ok(SOCKET, &[2, STREAM, 0]);
    assert_eq!(m.with_addr(CONNECT, a, &v4(LOCAL, 5000)), 0);
    let b = m.ok(SOCKET, &[2, STREAM | NONBLOCK, 0]);
    assert_eq!(m.with_addr(CONNECT, b, &v4(LOCAL, 5000)), err(Errno::EINPROGRESS));
    assert_eq!(m.with_addr(CONNECT, b, &v4(LOCAL, 5000)), err(Errno::EALREADY));
    assert_eq!(m.events(b, OUT | IN), 0);
    m.ok(ACCEPT, &[server, 0, 0]);
    assert_eq!(m.events(b, OUT | IN), OUT);
    let c = m.ok(SOCKET, &[2, STREAM | NONBLOCK, 0]);
    m.with_addr(CONNECT, c, &v4(LOCAL, 5000));
    m.ok(CLOSE, &[server]);
    assert_eq!(m.option(c, 1, 4), i32::from(Errno::ECONNREFUSED.0));
    assert_eq!(m.recv(b, 1), Err(err(Errno::ECONNRESET)));
}

#[test]
fn accept_and_receive_sleep_until_another_thread_acts() {
    let mut m = Machine::boot();
    let server = m.listener(5000, 5);
    let other = m.thread();
    assert_eq!(m.start(other, ACCEPT, &[server, 0, 0]), None);
    let client = m.ok(SOCKET, &[2, STREAM, 0]);
    assert_eq!(m.with_addr(CONNECT, client, &v4(LOCAL, 5000)), 0);
    let conn = m.finish(other).unwrap() as u64;
    let buf = m.alloc(16);
    assert_eq!(m.start(other, READ, &[conn, buf, 16]), None);
    assert_eq!(m.send(client, b"hello"), 5);
    assert_eq!(m.finish(other), Some(5));
    assert_eq!(m.read(buf, 5), b"hello");
    // MSG_WAITALL goes on after a sleep where it was.
    assert_eq!(m.start(other, RECVFROM, &[conn, buf, 6, 0x100, 0, 0]), None);
    m.send(client, b"abc");
    assert_eq!(m.finish(other), None);
    m.send(client, b"def!");
    assert_eq!(m.finish(other), Some(6));
    assert_eq!(m.read(buf, 6), b"abcdef");
    assert_eq!(m.recv(conn, 9), Ok(b"!".to_vec()));
}

#[test]
fn a_slow_reader_holds_a_writer_back() {
    let mut m = Machine::boot();
    let (a, b) = m.pair(STREAM);
    let other = m.thread();
    let data = m.put(&[5; 60_000]);
    let mut sent = 0;
    while let n @ 1.. = m.call(SENDTO, &[a, data, 60_000, 0x40, 0, 0]) {
        sent += n;
    }
    assert!((150_000..=212_992).contains(&sent), "{sent}");
    assert_eq!(m.events(a, OUT), 0);
    assert_eq!(m.start(other, WRITE, &[a, data, 60_000]), None);
    let mut got = 0;
    let buf = m.alloc(60_000);
    while m.finish(other).is_none() {
        got += m.ok(READ, &[b, buf, 60_000]) as i64;
    }
    assert_eq!(m.finish(other), Some(60_000));
    while let n @ 1.. = m.call(RECVFROM, &[b, buf, 60_000, 0x40, 0, 0]) {
        got += n;
    }
    assert_eq!(got, sent + 60_000);
    assert_eq!(m.events(a, OUT), OUT);
}

#[test]
fn a_receive_time_out_ends_a_sleep() {
    let mut m = Machine::boot();
    let (a, _b) = m.pair(STREAM);
    let time = m.words(&[1, 500_000]);
    m.ok(SETSOCKOPT, &[a, 1, 20, time, 16]);
    let buf = m.alloc(8);
    assert_eq!(m.start(INIT, READ, &[a, buf, 8]), None);
    m.advance(1_400_000_000);
    assert_eq!(m.finish(INIT), None);
    m.advance(200_000_000);
    assert_eq!(m.finish(INIT), Some(err(Errno::EAGAIN)));
}

#[test]
fn closing_with_unread_bytes_resets_and_writing_to_nobody_signals() {
    let mut m = Machine::boot();
    let (a, b) = m.pair(STREAM);
    m.send(a, b"unread");
    m.ok(CLOSE, &[b]);
    assert_eq!(m.events(a, IN | OUT | RDHUP), IN | OUT | RDHUP | ERR | HUP);
    assert_eq!(m.recv(a, 8), Err(err(Errno::ECONNRESET)));
    assert_eq!(m.recv(a, 8), Ok(Vec::new()));
    let va = m.put(b"x");
    assert_eq!(m.call(SENDTO, &[a, va, 1, 0x4000, 0, 0]), err(Errno::EPIPE));
    // SIGPIPE ends the process where it is not ignored.
    assert_eq!(m.start(INIT, WRITE, &[a, va, 1]), None);
    assert_eq!(m.kernel.exited, Some(guest::task::ExitStatus::Signal(13)));
}

#[test]
fn packets_keep_their_bounds_and_datagrams_say_when_they_are_cut() {
    let mut m = Machine::boot();
    for style in [SEQPACKET, DGRAM] {
        let (a, b) = m.pair(style);
        m.send(a, b"one");
        m.send(a, b"");
        m.send(a, b"three");
        assert_eq!(m.recv(b, 100), Ok(b"one".to_vec()));
        assert_eq!(m.recv(b, 100), Ok(Vec::new()));
        let buf = m.alloc(8);
        assert_eq!(m.call(RECVFROM, &[b, buf, 2, 0x22, 0, 0]), 5, "peek with MSG_TRUNC");
        assert_eq!(m.recv(b, 2), Ok(b"th".to_vec()));
        assert_eq!(m.recv(b, 2), Err(err(Errno::EAGAIN)));
    }
}

#[test]
fn udp_finds_its_receiver_and_a_connected_sender_learns_that_there_is_none() {
    let mut m = Machine::boot();
    let a = m.ok(SOCKET, &[2, DGRAM, 0]);
    assert_eq!(m.with_addr(BIND, a, &v4([0; 4], 5353)), 0);
    let b = m.ok(SOCKET, &[2, DGRAM, 0]);
    let to = m.put(&v4(LOCAL, 5353));
    let data = m.put(b"query");
    assert_eq!(m.call(SENDTO, &[b, data, 5, 0, to, 16]), 5);
    let (buf, from, len) = (m.alloc(8), m.alloc(16), m.put(&16_u32.to_le_bytes()));
    assert_eq!(m.call(RECVFROM, &[a, buf, 8, 0, from, len]), 5);
    assert_eq!(m.read(buf, 5), b"query");
    let sender = m.read(from, 16);
    assert_eq!(&sender[4..8], LOCAL);
    assert_eq!(m.call(SENDTO, &[a, data, 2, 0, from, 16]), 2);
    assert_eq!(m.recv(b, 8), Ok(b"qu".to_vec()));
    assert_eq!(m.call(SENDTO, &[b, data, 5, 0, 0, 0]), err(Errno::EDESTADDRREQ));
    assert_eq!(m.with_addr(CONNECT, b, &v4(LOCAL, 5354)), 0);
    assert_eq!(m.send(b, b"x"), 1);
    assert_eq!(m.send(b, b"x"), err(Errno::ECONNREFUSED));
    assert_eq!(m.with_addr(CONNECT, b, &[0; 16]), 0);
    assert_eq!(m.send(b, b"x"), err(Errno::EDESTADDRREQ));
}

#[test]
fn a_path_names_a_socket_until_it_is_unlinked() {
    let mut m = Machine::boot();
    let server = m.ok(SOCKET, &[1, STREAM, 0]);
    assert_eq!(m.with_addr(BIND, server, &un(b"/tmp/s\0")), 0);
    let other = m.ok(SOCKET, &[1, STREAM, 0]);
    assert_eq!(m.with_addr(BIND, other, &un(b"/tmp/s")), err(Errno::EADDRINUSE));
    assert_eq!(m.with_addr(CONNECT, other, &un(b"/tmp/s")), err(Errno::ECONNREFUSED));
    m.ok(LISTEN, &[server, 4]);
    assert_eq!(m.with_addr(CONNECT, other, &un(b"/tmp/s")), 0);
    let conn = m.ok(ACCEPT, &[server, 0, 0]);
    assert_eq!(m.name(GETSOCKNAME, conn), un(b"/tmp/s\0"));
    assert_eq!(m.name(GETPEERNAME, conn), un(b""));
    let dgram = m.ok(SOCKET, &[1, DGRAM, 0]);
    assert_eq!(m.with_addr(CONNECT, dgram, &un(b"/tmp/s")), err(Errno::EPROTOTYPE));
    assert_eq!(m.with_addr(CONNECT, dgram, &un(b"/tmp/none")), err(Errno::ENOENT));
    assert_eq!(m.with_addr(CONNECT, dgram, &un(b"/dir/file")), err(Errno::ECONNREFUSED));
    let (path, stat) = (m.path("/tmp/s"), m.alloc(144));
    m.ok(4, &[path, stat]);
    assert_eq!(m.u32(stat + 24) & 0o170_000, 0o140_000);
    m.ok(87, &[path]);
    let third = m.ok(SOCKET, &[1, STREAM, 0]);
    assert_eq!(m.with_addr(CONNECT, third, &un(b"/tmp/s")), err(Errno::ENOENT));
    assert_eq!(m.with_addr(BIND, third, &un(b"/tmp/s")), 0);
}

#[test]
fn abstract_names_and_automatic_ones_are_free_after_the_close() {
    let mut m = Machine::boot();
    let a = m.ok(SOCKET, &[1, DGRAM, 0]);
    assert_eq!(m.with_addr(BIND, a, &un(b"\0name")), 0);
    let b = m.ok(SOCKET, &[1, DGRAM, 0]);
    assert_eq!(m.with_addr(BIND, b, &un(b"\0name")), err(Errno::EADDRINUSE));
    assert_eq!(m.with_addr(BIND, b, &un(b"")), 0);
    assert_eq!(m.name(GETSOCKNAME, b).len(), 8);
    assert_eq!(m.with_addr(CONNECT, b, &un(b"\0name")), 0);
    for _ in 0..11 {
        assert_eq!(m.send(b, b"m"), 1);
    }
    assert_eq!(m.events(b, OUT), 0);
    m.ok(CLOSE, &[a]);
    assert_eq!(m.send(b, b"m"), err(Errno::ECONNREFUSED));
    let a = m.ok(SOCKET, &[1, DGRAM, 0]);
    assert_eq!(m.with_addr(BIND, a, &un(b"\0name")), 0);
}

fn message(m: &mut Machine, data: &[u8], control: &[u8]) -> u64 {
    let buf = m.put(data);
    let iov = m.words(&[buf, data.len() as u64]);
    let ctl = m.put(control);
    m.words(&[0, 0, iov, 1, ctl, control.len() as u64, 0])
}

fn rights(fds: &[u32]) -> Vec<u8> {
    let mut c = (16 + fds.len() as u64 * 4).to_le_bytes().to_vec();
    c.extend([1, 0, 0, 0, 1, 0, 0, 0]);
    fds.iter().for_each(|fd| c.extend(fd.to_le_bytes()));
    c.resize(c.len().next_multiple_of(8), 0);
    c
}

#[test]
fn descriptors_travel_in_messages() {
    let mut m = Machine::boot();
    let (a, b) = m.pair(STREAM);
    let (c, d) = m.pair(STREAM);
    let out = message(&mut m, b"fd", &rights(&[c as u32]));
    assert_eq!(m.call(SENDMSG, &[a, out, 0]), 2);
    m.ok(CLOSE, &[c]);
    m.send(a, b"later");
    let input = message(&mut m, &[0; 16], &[0; 64]);
    assert_eq!(m.call(RECVMSG, &[b, input, 0x4000_0000]), 2, "bytes with descriptors end a receive");
    assert_eq!(m.u64(input + 40), 24);
    assert_eq!(m.u32(input + 48), 0x4000_0000);
    let ctl = m.u64(input + 32);
    assert_eq!(m.u64(ctl), 20);
    let fd = u64::from(m.u32(ctl + 16));
    assert_eq!(m.ok(72, &[fd, 1]), 1, "FD_CLOEXEC");
    m.send(fd, b"through");
    assert_eq!(m.recv(d, 16), Ok(b"through".to_vec()));
    assert_eq!(m.recv(b, 16), Ok(b"later".to_vec()));
    // Without room for them they are closed, and the receiver is told.
    let out = message(&mut m, b"x", &rights(&[fd as u32]));
    m.ok(SENDMSG, &[a, out, 0]);
    m.ok(CLOSE, &[fd]);
    let input = message(&mut m, &[0; 16], &[]);
    assert_eq!(m.call(RECVMSG, &[b, input, 0]), 1);
    assert_eq!(m.u32(input + 48), 8, "MSG_CTRUNC");
    assert_eq!(m.recv(d, 1), Ok(Vec::new()));
    let bad = message(&mut m, b"x", &rights(&[99]));
    assert_eq!(m.call(SENDMSG, &[a, bad, 0]), err(Errno::EBADF));
}

#[test]
fn a_chain_of_sockets_inside_messages_is_freed_without_recursion() {
    let mut m = Machine::boot();
    let (mut a, mut b) = m.pair(DGRAM);
    let va = m.alloc(8);
    let out = message(&mut m, b"x", &rights(&[0, 0]));
    let ctl = m.u64(out + 32);
    for _ in 0..5000 {
        m.ok(SOCKETPAIR, &[1, DGRAM, 0, va]);
        let (c, d) = (u64::from(m.u32(va)), u64::from(m.u32(va + 4)));
        m.write(ctl + 16, &[(a as u32).to_le_bytes(), (b as u32).to_le_bytes()].concat());
        assert_eq!(m.call(SENDMSG, &[c, out, 0]), 1);
        m.ok(CLOSE, &[a]);
        m.ok(CLOSE, &[b]);
        (a, b) = (c, d);
    }
    m.ok(CLOSE, &[a]);
    m.ok(CLOSE, &[b]);
    assert!(m.kernel.objects.net.sockets.is_empty());
}

#[test]
fn credentials_are_shown_to_who_asks() {
    let mut m = Machine::boot();
    let (a, b) = m.pair(STREAM);
    let (va, len) = (m.alloc(12), m.put(&12_u32.to_le_bytes()));
    m.ok(GETSOCKOPT, &[a, 1, 17, va, len]);
    assert_eq!(m.u32(va), 1);
    m.set(b, 1, 16, 1);
    m.send(a, b"hi");
    let input = message(&mut m, &[0; 16], &[0; 64]);
    assert_eq!(m.call(RECVMSG, &[b, input, 0]), 2);
    let ctl = m.u64(input + 32);
    assert_eq!((m.u64(ctl), m.u32(ctl + 12), m.u32(ctl + 16)), (28, 2, 1));
}

#[test]
fn options_read_back() {
    let mut m = Machine::boot();
    let fd = m.ok(SOCKET, &[2, STREAM, 0]);
    assert_eq!((m.option(fd, 1, 3), m.option(fd, 1, 39), m.option(fd, 1, 38)), (1, 2, 6));
    assert_eq!(m.option(fd, 1, 30), 0);
    for (level, name, set, get) in [(6, 1, 7, 1), (1, 2, 1, 1), (6, 4, 60, 60), (1, 7, 8192, 16384)] {
        assert_eq!(m.set(fd, level, name, set), 0);
        assert_eq!(m.option(fd, level, name), get);
    }
    assert_eq!(m.set(fd, 1, 9999, 1), err(Errno::ENOPROTOOPT));
    assert_eq!(m.set(0, 1, 2, 1), err(Errno::ENOTSOCK));
    assert_eq!(m.set(99, 1, 2, 1), err(Errno::EBADF));
    m.ok(LISTEN, &[fd, 1]);
    assert_eq!(m.option(fd, 1, 30), 1);
}

#[test]
fn epoll_reports_a_connection_and_its_end_by_edges() {
    let mut m = Machine::boot();
    let (a, b) = m.pair(STREAM);
    let ep = m.ok(291, &[0]);
    let event = m.put(&[&(IN | RDHUP | 1 << 31).to_le_bytes()[..], &7_u64.to_le_bytes()].concat());
    m.ok(233, &[ep, 1, a, event]);
    let out = m.alloc(48);
    assert_eq!(m.call(232, &[ep, out, 4, 0]), 0);
    m.send(b, b"x");
    assert_eq!(m.call(232, &[ep, out, 4, 0]), 1);
    assert_eq!(m.call(232, &[ep, out, 4, 0]), 0);
    m.ok(CLOSE, &[b]);
    assert_eq!(m.call(232, &[ep, out, 4, 0]), 1);
    assert_eq!(m.u32(out), IN | RDHUP | HUP);
}

#[test]
fn connections_survive_serialisation() {
    let mut m = Machine::boot();
    let server = m.listener(5000, 5);
    let client = m.ok(SOCKET, &[2, STREAM, 0]);
    assert_eq!(m.with_addr(CONNECT, client, &v4(LOCAL, 5000)), 0);
    m.send(client, b"before");
    let bytes = postcard::to_allocvec(&m.kernel.objects).unwrap();
    m.kernel.objects = postcard::from_bytes(&bytes).unwrap();
    let conn = m.ok(ACCEPT, &[server, 0, 0]);
    assert_eq!(m.recv(conn, 16), Ok(b"before".to_vec()));
    assert!(m.kernel.objects.net.is_consistent());
}

#[test]
fn a_reset_by_zero_linger_reaches_the_other_end() {
    let mut m = Machine::boot();
    let server = m.listener(5000, 5);
    let client = m.ok(SOCKET, &[2, STREAM, 0]);
    m.with_addr(CONNECT, client, &v4(LOCAL, 5000));
    let conn = m.ok(ACCEPT, &[server, 0, 0]);
    let linger = m.words(&[1]);
    m.ok(SETSOCKOPT, &[client, 1, 13, linger, 8]);
    m.ok(CLOSE, &[client]);
    assert_eq!(m.recv(conn, 1), Err(err(Errno::ECONNRESET)));
    let (va, len) = (m.alloc(16), m.put(&16_u32.to_le_bytes()));
    assert_eq!(m.call(GETPEERNAME, &[conn, va, len]), err(Errno::ENOTCONN));
}

#[test]
fn a_write_to_a_closed_connection_is_taken_once_and_then_fails() {
    let mut m = Machine::boot();
    let server = m.listener(5000, 5);
    let client = m.ok(SOCKET, &[2, STREAM, 0]);
    m.with_addr(CONNECT, client, &v4(LOCAL, 5000));
    let conn = m.ok(ACCEPT, &[server, 0, 0]);
    m.ok(CLOSE, &[client]);
    let all = IN | OUT | RDHUP;
    assert_eq!(m.events(conn, all), all);
    let va = m.put(b"x");
    assert_eq!(m.call(SENDTO, &[conn, va, 1, 0x4000, 0, 0]), 1);
    assert_eq!(m.events(conn, all), all | ERR | HUP);
    assert_eq!(m.call(SENDTO, &[conn, va, 1, 0x4000, 0, 0]), err(Errno::EPIPE));
    assert_eq!(m.recv(conn, 1), Ok(Vec::new()));
    assert_eq!(m.events(conn, all), all | HUP);
    let (va, len) = (m.alloc(16), m.put(&16_u32.to_le_bytes()));
    assert_eq!(m.call(GETPEERNAME, &[conn, va, len]), err(Errno::ENOTCONN));
}

#[test]
fn several_messages_go_in_one_call_and_an_error_queue_is_empty() {
    let mut m = Machine::boot();
    let (a, b) = m.pair(DGRAM);
    let one = message(&mut m, b"one", &[]);
    let two = message(&mut m, b"three", &[]);
    let (one, two) = (m.read(one, 56), m.read(two, 56));
    let list = m.put(&[&one[..], &[0; 8], &two[..], &[0; 8]].concat());
    assert_eq!(m.call(307, &[a, list, 2, 0]), 2);
    assert_eq!((m.u32(list + 56), m.u32(list + 120)), (3, 5));
    assert_eq!(m.call(299, &[b, list, 2, 0, 0]), 2);
    assert_eq!((m.u32(list + 56), m.u32(list + 120)), (3, 5));
    assert_eq!(m.call(299, &[b, list, 2, 0x40, 0]), err(Errno::EAGAIN));
    let udp = m.ok(SOCKET, &[2, DGRAM, 0]);
    assert_eq!(m.call(RECVMSG, &[udp, list, 0x2000]), err(Errno::EAGAIN));
}
