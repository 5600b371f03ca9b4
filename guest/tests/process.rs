//! Threads, processes, signals, futexes and sleeping, through the kernel's entry.

#![allow(clippy::indexing_slicing, clippy::as_conversions, clippy::unwrap_used, clippy::panic)]

mod support;

use guest::errno::Errno;
use guest::platform::Exit;
use support::{INIT, Machine, err};

const NANOSLEEP: u64 = 35;
const GETPID: u64 = 39;
const FORK: u64 = 57;
const EXIT_GROUP: u64 = 231;
const WAIT4: u64 = 61;
const FUTEX: u64 = 202;
const TGKILL: u64 = 234;
const SIGRETURN: u64 = 15;
const HANDLER: u64 = 0x40_0200;
const RESTORER: u64 = 0x40_0300;
const SECOND: u64 = 1_000_000_000;

fn handle(m: &mut Machine, signal: u64, flags: u64) {
    let action = m.words(&[HANDLER, flags | 0x0400_0000, RESTORER, 0]);
    m.ok(13, &[signal, action, 0, 8]);
}

#[test]
fn a_futex_waiter_sleeps_until_it_is_woken_or_its_time_is_up() {
    let mut m = Machine::boot();
    let other = m.thread();
    let word = m.put(&5_u32.to_le_bytes());
    assert_eq!(m.call(FUTEX, &[word, 128, 4, 0]), err(Errno::EAGAIN));
    assert_eq!(m.start(other, FUTEX, &[word, 128, 5, 0]), None);
    assert_eq!(m.call(FUTEX, &[word, 129, 8]), 1);
    assert_eq!(m.finish(other), Some(0));
    let time = m.words(&[1, 0]);
    assert_eq!(m.start(other, FUTEX, &[word, 128, 5, time]), None);
    m.advance(SECOND);
    assert_eq!(m.finish(other), Some(err(Errno::ETIMEDOUT)));
    assert_eq!(m.call(FUTEX, &[word, 129, 8]), 0);
    assert_eq!(m.call(FUTEX, &[word + 1, 129, 8]), err(Errno::EINVAL));
    assert_eq!(m.call(FUTEX, &[0x10, 128, 8, 0]), err(Errno::EFAULT));
}

#[test]
fn nanosleep_ends_in_time_and_a_signal_tells_how_much_was_left() {
    let mut m = Machine::boot();
    handle(&mut m, 10, 0);
    let time = m.words(&[3, 0]);
    let left = m.words(&[0, 0]);
    assert_eq!(m.start(INIT, NANOSLEEP, &[time, left]), None);
    m.advance(3 * SECOND);
    assert_eq!(m.finish(INIT), Some(0));
    let other = m.thread();
    assert_eq!(m.start(other, NANOSLEEP, &[time, left]), None);
    m.advance(SECOND);
    m.ok(TGKILL, &[1, u64::from(other), 10]);
    assert!(m.run(other));
    assert_eq!(m.kernel.task(other).unwrap().regs.rip, HANDLER);
    // Looking at the fake's clock moves it.
    assert_eq!((m.u64(left), m.u64(left + 8) / 1_000_000), (1, 999));
    let bad = m.words(&[0, SECOND]);
    assert_eq!(m.call(NANOSLEEP, &[bad, 0]), err(Errno::EINVAL));
}

#[test]
fn a_handler_runs_on_a_frame_and_rt_sigreturn_undoes_it() {
    let mut m = Machine::boot();
    handle(&mut m, 10, 4); // SA_SIGINFO
    {
        let r = &mut m.kernel.task_mut(INIT).unwrap().regs;
        (r.rbx, r.r12, r.rip) = (0x1111, 0x2222, 0x40_0150);
    }
    let before = m.kernel.task(INIT).unwrap().regs.clone();
    let result = m.start(INIT, TGKILL, &[1, 1, 10]);
    assert!(result.is_some());
    let r = m.kernel.task(INIT).unwrap().regs.clone();
    assert_eq!((r.rip, r.rdi), (HANDLER, 10));
    assert_eq!(m.u64(r.rsp), RESTORER);
    assert_eq!(r.rsp % 16, 8);
    assert_eq!(m.u32(r.rsi), 10, "siginfo");
    assert_ne!(m.kernel.task(INIT).unwrap().sigmask & 1 << 9, 0);
    // The handler returns into the restorer, which has popped the return address.
    m.kernel.task_mut(INIT).unwrap().regs.rsp += 8;
    m.start(INIT, SIGRETURN, &[]);
    let r = m.kernel.task(INIT).unwrap().regs.clone();
    assert_eq!((r.rbx, r.r12, r.rip, r.rsp), (0x1111, 0x2222, before.rip, before.rsp));
    assert_eq!(r.rax, 0, "the kill's own result");
    assert_eq!(m.kernel.task(INIT).unwrap().sigmask, 0);
    assert_eq!(m.call(GETPID, &[]), 1);
}

#[test]
fn a_call_is_restarted_when_its_handler_says_so() {
    let mut m = Machine::boot();
    let va = m.alloc(8);
    m.ok(22, &[va]);
    let (r, w) = (u64::from(m.u32(va)), u64::from(m.u32(va + 4)));
    let other = m.thread();
    for (flags, rax) in [(0x1000_0000, 0), (0, err(Errno::EINTR))] {
        handle(&mut m, 10, flags);
        m.kernel.task_mut(other).unwrap().regs.rip = 0x40_0150;
        assert_eq!(m.start(other, 0, &[r, va, 1]), None);
        m.ok(TGKILL, &[1, u64::from(other), 10]);
        assert!(m.run(other));
        m.kernel.task_mut(other).unwrap().regs.rsp += 8;
        m.start(other, SIGRETURN, &[]);
        let regs = m.kernel.task(other).unwrap().regs.clone();
        // A restarted call is the syscall instruction again, with its number in rax.
        assert_eq!((regs.rip, regs.rax as i64), if rax == 0 { (0x40_014e, 0) } else { (0x40_0150, rax) });
    }
    m.ok(3, &[w]);
}

#[test]
fn a_fault_reaches_its_handler_with_the_address() {
    let mut m = Machine::boot();
    handle(&mut m, 11, 4);
    m.kernel.on_exit(&mut m.vcpu, INIT, Exit::Exception { vector: 14, error: 6, cr2: 0x1234 });
    assert!(m.run(INIT));
    // The harness still thinks the task runs: go through the kernel once more.
    m.advance(1);
    assert!(m.run(INIT));
    let r = m.kernel.task(INIT).unwrap().regs.clone();
    assert_eq!((r.rip, r.rdi), (HANDLER, 11));
    assert_eq!((m.u32(r.rsi), m.u32(r.rsi + 8), m.u64(r.rsi + 16)), (11, 1, 0x1234));
}

#[test]
fn a_forked_child_has_its_own_memory_and_its_parent_waits_for_it() {
    let mut m = Machine::boot();
    let word = m.words(&[1]);
    let child = m.ok(FORK, &[]) as u32;
    assert_eq!(m.finish(child), Some(0));
    assert_eq!(m.start(child, GETPID, &[]), Some(i64::from(child)));
    m.kernel.copy_out(child, word, &7_u64.to_le_bytes()).unwrap();
    assert_eq!(m.u64(word), 1);
    assert_eq!(m.kernel.get_u64(child, word), Ok(7));
    let status = m.alloc(4);
    assert_eq!(m.call(WAIT4, &[u64::MAX, status, 1, 0]), 0, "WNOHANG");
    assert_eq!(m.start(INIT, WAIT4, &[u64::MAX, status, 0, 0]), None);
    assert_eq!(m.start(child, EXIT_GROUP, &[3]), None);
    assert_eq!(m.finish(INIT), Some(i64::from(child)));
    assert_eq!(m.u32(status), 3 << 8);
    assert_eq!(m.call(WAIT4, &[u64::MAX, status, 0, 0]), err(Errno::ECHILD));
}

#[test]
fn a_pipe_joins_parent_and_child_and_ends_with_the_child() {
    let mut m = Machine::boot();
    let va = m.alloc(8);
    m.ok(22, &[va]);
    let (r, w) = (u64::from(m.u32(va)), u64::from(m.u32(va + 4)));
    let child = m.ok(FORK, &[]) as u32;
    m.ok(3, &[w]);
    let buf = m.put(b"child");
    assert_eq!(m.start(child, 1, &[w, buf, 5]), Some(5));
    assert_eq!(m.ok(0, &[r, va, 8]), 5);
    assert_eq!(m.start(INIT, 0, &[r, va, 8]), None);
    m.start(child, EXIT_GROUP, &[0]);
    assert_eq!(m.finish(INIT), Some(0));
}

#[test]
fn a_thread_ends_alone_and_clears_its_word() {
    let mut m = Machine::boot();
    let other = m.thread();
    let word = m.put(&1_u32.to_le_bytes());
    assert_eq!(m.start(other, 218, &[word]), Some(i64::from(other)));
    assert_eq!(m.start(INIT, FUTEX, &[word, 0, 1, 0]), None);
    assert_eq!(m.start(other, 60, &[0]), None);
    assert_eq!(m.finish(INIT), Some(0));
    assert_eq!(m.u32(word), 0);
    assert!(m.kernel.task(other).is_none());
}
