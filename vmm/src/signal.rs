//! The signal that makes a vCPU thread leave KVM_RUN, and the timer that raises it.
//!
//! The handler sets `immediate_exit` in the shared page of the vCPU that the thread runs, so a signal that comes between
//! the last check and KVM_RUN is not lost and needs no change of the signal mask.

use crate::error::Error;
use guest::platform::Ns;
use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU8, Ordering};

thread_local! {
    /// `immediate_exit` of the vCPU that this thread runs; null when it runs none. Constant initialiser and no
    /// destructor: reading it in a signal handler is a plain load.
    static IMMEDIATE_EXIT: Cell<*const AtomicU8> = const { Cell::new(std::ptr::null()) };
}

/// The real-time signal used. Below it lie those that C libraries keep for themselves.
fn number() -> i32 {
    libc::SIGRTMIN() + 5
}

extern "C" fn on_signal(_: i32) {
    let p = IMMEDIATE_EXIT.get();
    if !p.is_null() {
        // SAFETY: `attach` was given a byte of a shared page that stays mapped until `detach` on the same thread.
        unsafe { (*p).store(1, Ordering::Relaxed) };
    }
}

/// Installs the handler (once is enough; again does no harm).
pub fn install() -> Result<(), Error> {
    // SAFETY: an all-zero sigaction is a valid value.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = on_signal as extern "C" fn(i32) as usize;
    // SAFETY: the handler only loads a thread-local pointer and stores a byte, which is safe in a signal handler.
    if unsafe { libc::sigaction(number(), &action, std::ptr::null_mut()) } != 0 {
        return Err(Error::last("install the signal handler that interrupts virtual processors"));
    }
    Ok(())
}

/// Signals that come on this thread set this byte from now on.
///
/// # Safety
/// The byte must stay mapped until [`detach`] is called on this thread.
pub unsafe fn attach(immediate_exit: *const AtomicU8) {
    IMMEDIATE_EXIT.set(immediate_exit);
}

/// Signals that come on this thread do nothing from now on.
pub fn detach() {
    IMMEDIATE_EXIT.set(std::ptr::null());
}

/// This thread's id.
pub fn gettid() -> i32 {
    // SAFETY: no arguments, no effects.
    unsafe { libc::gettid() }
}

/// Raises the signal on a thread of this process. A thread that is gone is ignored.
pub fn kick(tid: i32) {
    // SAFETY: sends a signal whose handler is installed to a thread of this process.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, number()) };
}

/// Makes an eventfd readable.
pub fn wake(fd: i32) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: writes eight bytes of a local array; a descriptor that is gone gives an error that does not matter.
    unsafe { libc::write(fd, one.as_ptr().cast(), one.len()) };
}

/// A timer that raises the signal on the thread that made it, at a time and then every [`Ticker::PERIOD`].
#[derive(Debug)]
pub struct Ticker {
    id: libc::timer_t,
    tid: i32,
    next: Option<Ns>,
}

// SAFETY: a POSIX timer's id may be used by any thread.
unsafe impl Send for Ticker {}

impl Ticker {
    /// Time slice, ns.
    pub const PERIOD: Ns = 10_000_000;

    /// A timer for this thread, not armed.
    pub fn new() -> Result<Self, Error> {
        // SAFETY: an all-zero sigevent is a valid value.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = number();
        event.sigev_notify_thread_id = gettid();
        let mut id: libc::timer_t = std::ptr::null_mut();
        // SAFETY: both pointers are to locals.
        match unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut id) } {
            0 => Ok(Ticker { id, tid: gettid(), next: None }),
            _ => Err(Error::last("create a timer")),
        }
    }

    /// Whether it raises its signal on this thread.
    pub fn is_mine(&self) -> bool {
        self.tid == gettid()
    }

    /// Sees to it that the signal is raised at `at` or earlier, and periodically from then on until it is armed again. Costs a system call
    /// only when the timer is not armed for that already, or has fired.
    pub fn arm(&mut self, now: Ns, at: Ns) -> Result<(), Error> {
        let at = at.max(now + 1_000);
        // One that is due earlier stays: it comes to nothing, and the next time is then set anew.
        if self.next.is_some_and(|n| n > now && n <= at.saturating_add(100_000)) {
            return Ok(());
        }
        self.set(at, Self::PERIOD)?;
        self.next = Some(at);
        Ok(())
    }

    /// Stops it.
    pub fn disarm(&mut self) -> Result<(), Error> {
        if self.next.take().is_some() {
            self.set(0, 0)?;
        }
        Ok(())
    }

    fn set(&self, at: Ns, period: Ns) -> Result<(), Error> {
        let spec = |ns: Ns| libc::timespec {
            tv_sec: (ns / 1_000_000_000) as i64,
            tv_nsec: (ns % 1_000_000_000) as i64,
        };
        let value = libc::itimerspec { it_value: spec(at), it_interval: spec(period) };
        // SAFETY: the timer is this object's; the value is a local.
        match unsafe { libc::timer_settime(self.id, libc::TIMER_ABSTIME, &value, std::ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(Error::Host { what: "set a timer", source: io::Error::last_os_error() }),
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        // SAFETY: the timer is this object's. In the child of a fork it does not exist and the call does nothing.
        unsafe { libc::timer_delete(self.id) };
    }
}
