//! Clocks, the time page that the vDSO reads (`page`), interval and POSIX timers.

mod load;

pub use load::Load;

use crate::fork::{ForkArgs, Reset};
use crate::kernel::Kernel;
use crate::platform::{Gpa, Ns};
use serde::{Deserialize, Serialize};

pub mod page;

/// What to do when a timer fires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimerAction {
    /// ITIMER_REAL of a process.
    IntervalReal(u32),
    /// A timer_create(2) timer: process and timer id.
    Posix(u32, i32),
    /// A timerfd (a key of `Files::timerfds`).
    TimerFd(u64),
}

/// The page that the vDSO reads, at `vDSO image - PAGE_SIZE`, all little endian. A reader takes `sequence` (retry while odd), the rest,
/// and `sequence` again. `time = base + ((tsc - tsc_base) * mult) >> shift` in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C)]
pub struct TimePage {
    /// Offset 0: odd while the page is being written.
    pub sequence: u32,
    /// Offset 4: 1 when the counter may be used, 0 when the vDSO must make the system call.
    pub mode: u32,
    /// Offset 8: counter value at the base.
    pub tsc_base: u64,
    /// Offset 16: multiplier.
    pub mult: u32,
    /// Offset 20: shift.
    pub shift: u32,
    /// Offset 24: CLOCK_MONOTONIC at the base, ns.
    pub monotonic_base: u64,
    /// Offset 32: CLOCK_REALTIME at the base, ns.
    pub realtime_base: u64,
    /// Offset 40: 1 when rdtscp's ecx is the vCPU number, 0 when getcpu must make the system call.
    pub cpu_from_tsc_aux: u32,
    /// Offset 44: unused.
    pub reserved: u32,
}

/// The clocks' state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Timekeeper {
    /// Guest-physical address of the time page; the vDSO image follows it. 0 when there is no vDSO.
    pub page: Gpa,
    /// What the page says now.
    pub current: TimePage,
    /// Pending timers.
    pub timers: crate::kernel::TimerQueue,
    /// Processes that have timers or a limit of processor time.
    pub cpu_watched: std::collections::BTreeSet<u32>,
    /// The load average.
    pub load: Load,
    /// User and kernel time of processes that nobody waited for, with what their children left them, ns.
    pub buried: (Ns, Ns),
}

impl Reset for Timekeeper {
    /// The kernel re-anchors the page and moves relative timers in `time_after_fork`; the queue itself is kept.
    fn reset(&mut self, _args: &ForkArgs) {}
}

impl Kernel {
    /// Re-anchors the time page and moves relative timers by the pause.
    pub fn time_after_fork(&mut self, pause: Ns) {
        self.timers_after_fork(pause);
        let now = self.platform.monotonic();
        self.time.load.restart(now);
        self.reanchor_time();
    }

    /// When the next timer fires.
    pub fn next_timer(&self) -> Option<Ns> {
        self.time.timers.first_key_value().map(|((t, _), _)| *t)
    }
}
