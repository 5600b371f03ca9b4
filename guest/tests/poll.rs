//! Calls that wait for readiness, through the kernel's entry.

#![allow(clippy::indexing_slicing, clippy::as_conversions, clippy::unwrap_used, clippy::panic)]

mod support;

use guest::errno::Errno;
use support::{INIT, Machine, err};

const READ: u64 = 0;
const WRITE: u64 = 1;
const POLL: u64 = 7;
const SELECT: u64 = 23;
const PPOLL: u64 = 271;
const EPOLL_WAIT: u64 = 232;
const EPOLL_CTL: u64 = 233;
const MS: u64 = 1_000_000;

fn pipe(m: &mut Machine) -> (u64, u64) {
    let va = m.alloc(8);
    m.ok(22, &[va]);
    (u64::from(m.u32(va)), u64::from(m.u32(va + 4)))
}

fn event(m: &mut Machine, events: u32, data: u64) -> u64 {
    m.put(&[&events.to_le_bytes()[..], &data.to_le_bytes()].concat())
}

/// A handler for SIGUSR1 that is never run: the frame is what the tests look at.
fn handle(m: &mut Machine, flags: u64) {
    let action = m.words(&[0x40_0200, flags | 0x0400_0000, 0x40_0300, 0]);
    m.ok(13, &[10, action, 0, 8]);
}

#[test]
fn poll_waits_for_its_time_out_or_for_readiness() {
    let mut m = Machine::boot();
    let (r, w) = pipe(&mut m);
    let fds = m.words(&[r | 1 << 32, w | 4 << 32, u64::from(u32::MAX), 99 | 1 << 32]);
    assert_eq!(m.call(POLL, &[fds, 4, 1000]), 2);
    assert_eq!(m.u32(fds + 4) >> 16, 0);
    assert_eq!(m.u32(fds + 12) >> 16, 4);
    assert_eq!(m.u32(fds + 28) >> 16, 32, "POLLNVAL");
    assert_eq!(m.start(INIT, POLL, &[fds, 1, 50]), None);
    m.advance(49 * MS);
    assert_eq!(m.finish(INIT), None);
    m.advance(MS);
    assert_eq!(m.finish(INIT), Some(0));
    let other = m.thread();
    assert_eq!(m.start(other, POLL, &[fds, 1, u64::MAX]), None);
    let byte = m.put(b"x");
    m.ok(WRITE, &[w, byte, 1]);
    assert_eq!(m.finish(other), Some(1));
    m.ok(3, &[w]);
    let buf = m.alloc(4);
    m.ok(READ, &[r, buf, 4]);
    assert_eq!(m.call(POLL, &[fds, 1, 0]), 1);
    assert_eq!(m.u32(fds + 4) >> 16, 16, "POLLHUP");
    assert_eq!(m.call(POLL, &[0x10, 1, 0]), err(Errno::EFAULT));
    assert_eq!(m.call(POLL, &[fds, 5000, 0]), err(Errno::EINVAL));
}

#[test]
fn an_interrupted_ppoll_says_how_much_time_was_left() {
    let mut m = Machine::boot();
    handle(&mut m, 0);
    let (r, _w) = pipe(&mut m);
    let fds = m.words(&[r | 1 << 32]);
    let time = m.words(&[2, 0]);
    let other = m.thread();
    assert_eq!(m.start(other, PPOLL, &[fds, 1, time, 0, 0]), None);
    m.advance(500 * MS);
    m.ok(234, &[1, u64::from(other), 10]);
    // The thread is in its handler now; the interrupted result is in the frame.
    assert!(m.run(other));
    assert_eq!(m.kernel.task(other).unwrap().regs.rip, 0x40_0200);
    assert_eq!(m.u64(time), 1);
    // Looking at the fake's clock moves it.
    assert!((499 * MS..=500 * MS).contains(&m.u64(time + 8)));
    let back = m.start(other, 15, &[]);
    assert!(back.is_some() || m.kernel.task(other).is_none());
}

#[test]
fn a_sleep_without_a_handler_goes_on_to_its_first_deadline() {
    let mut m = Machine::boot();
    let (r, _w) = pipe(&mut m);
    let fds = m.words(&[r | 1 << 32]);
    let other = m.thread();
    assert_eq!(m.start(other, POLL, &[fds, 1, 1000]), None);
    m.advance(600 * MS);
    m.ok(234, &[1, u64::from(other), 18]); // SIGCONT: ignored by default
    assert_eq!(m.finish(other), None);
    m.advance(400 * MS);
    assert_eq!(m.finish(other), Some(0));
}

#[test]
fn select_returns_sets_of_bits() {
    let mut m = Machine::boot();
    let (r, w) = pipe(&mut m);
    let byte = m.put(b"x");
    m.ok(WRITE, &[w, byte, 1]);
    let reads = m.words(&[1 << r | 1 << w]);
    let writes = m.words(&[1 << w]);
    let time = m.words(&[1, 0]);
    assert_eq!(m.call(SELECT, &[w + 1, reads, writes, 0, time]), 2);
    assert_eq!((m.u64(reads), m.u64(writes)), (1 << r, 1 << w));
    let reads = m.words(&[1 << 40]);
    assert_eq!(m.call(SELECT, &[64, reads, 0, 0, time]), err(Errno::EBADF));
    assert_eq!(m.call(SELECT, &[u64::MAX, 0, 0, 0, 0]), err(Errno::EINVAL));
    let time = m.words(&[0, 20_000]);
    assert_eq!(m.start(INIT, SELECT, &[0, 0, 0, 0, time]), None);
    m.advance(20 * MS);
    assert_eq!(m.finish(INIT), Some(0));
    assert_eq!((m.u64(time), m.u64(time + 8)), (0, 0));
}

#[test]
fn epoll_waits_reports_and_keeps_what_could_not_be_written() {
    let mut m = Machine::boot();
    let (r, w) = pipe(&mut m);
    let ep = m.ok(291, &[0]);
    let e = event(&mut m, 1 | 1 << 31, 0x1_2345_6789);
    m.ok(EPOLL_CTL, &[ep, 1, r, e]);
    assert_eq!(m.call(EPOLL_CTL, &[ep, 1, r, e]), err(Errno::EEXIST));
    assert_eq!(m.call(EPOLL_CTL, &[ep, 9, r, e]), err(Errno::EINVAL));
    let out = m.alloc(24);
    let other = m.thread();
    assert_eq!(m.start(other, EPOLL_WAIT, &[ep, out, 2, 100]), None);
    let byte = m.put(b"x");
    m.ok(WRITE, &[w, byte, 1]);
    assert_eq!(m.finish(other), Some(1));
    assert_eq!((m.u32(out), m.u64(out + 4)), (1, 0x1_2345_6789));
    m.ok(WRITE, &[w, byte, 1]);
    assert_eq!(m.call(EPOLL_WAIT, &[ep, 0x10, 2, 0]), err(Errno::EFAULT));
    assert_eq!(m.call(EPOLL_WAIT, &[ep, out, 2, 0]), 1, "the edge is still there");
    assert_eq!(m.call(EPOLL_WAIT, &[ep, out, 2, 0]), 0);
    assert_eq!(m.call(EPOLL_WAIT, &[ep, out, 0, 0]), err(Errno::EINVAL));
    assert_eq!(m.start(other, EPOLL_WAIT, &[ep, out, 2, 100]), None);
    m.advance(100 * MS);
    assert_eq!(m.finish(other), Some(0));
    let exclusive = event(&mut m, 1 | 1 << 28, 0);
    assert_eq!(m.call(EPOLL_CTL, &[ep, 3, r, exclusive]), err(Errno::EINVAL));
    let oneshot = event(&mut m, 1 | 1 << 28 | 1 << 30, 0);
    assert_eq!(m.call(EPOLL_CTL, &[ep, 1, w, oneshot]), err(Errno::EINVAL));
}

#[test]
fn an_edge_on_a_host_stream_is_reported_once_and_does_not_poll_the_host_again() {
    let (host_r, host_w) = rustix::pipe::pipe().unwrap();
    let mut m = Machine::with(guest::vfs::Stdio { stdin: Some(host_r), ..Default::default() });
    let ep = m.ok(291, &[0]);
    let e = event(&mut m, 1 | 1 << 31, 7);
    m.ok(EPOLL_CTL, &[ep, 1, 0, e]);
    rustix::io::write(&host_w, b"abc").unwrap();
    let out = m.alloc(12);
    assert_eq!(m.call(EPOLL_WAIT, &[ep, out, 1, 0]), 1);
    let other = m.thread();
    assert_eq!(m.start(other, EPOLL_WAIT, &[ep, out, 1, u64::MAX]), None);
    assert!(m.kernel.host_polls().is_empty());
    let buf = m.alloc(8);
    assert_eq!(m.call(READ, &[0, buf, 8]), 3);
    assert_eq!(m.kernel.host_polls().len(), 1);
    rustix::io::write(&host_w, b"d").unwrap();
    let fd = m.kernel.host_polls()[0].0;
    m.kernel.host_ready(fd);
    assert_eq!(m.finish(other), Some(1));
}

#[test]
fn an_eventfd_wakes_a_reader() {
    let mut m = Machine::boot();
    let fd = m.ok(290, &[0, 0]);
    let other = m.thread();
    let (out, one) = (m.alloc(8), m.words(&[5]));
    assert_eq!(m.start(other, READ, &[fd, out, 8]), None);
    assert_eq!(m.call(WRITE, &[fd, one, 8]), 8);
    assert_eq!(m.finish(other), Some(8));
    assert_eq!(m.u64(out), 5);
    assert_eq!(m.call(WRITE, &[fd, one, 4]), err(Errno::EINVAL));
}
