//! Interval timers (setitimer(2)) and POSIX timers (timer_create(2)): their state and what happens when they fire.
//!
//! Every armed timer has one entry in the kernel's queue, on `CLOCK_MONOTONIC`; those of processor time are in `cpu`.

use crate::kernel::Kernel;
use crate::num::u64_of;
use crate::platform::Ns;
use crate::signal::SigInfo;
use crate::task::Tid;
use crate::time::TimerAction;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub mod cpu;

/// Timers that one process may have.
pub const MAX_TIMERS: usize = 1024;

/// Timers of a shorter period fire at most once in this time, ns, and count what they missed: a storm of them must leave time for the guest.
/// The slack that Linux gives to sleeping threads by default (prctl(2), PR_SET_TIMERSLACK). Where many timers are armed it is as much again
/// for each [`SHARE`] of them.
const SLACK: Ns = 50_000;

/// So many timers may fire in one [`SLACK`].
const SHARE: Ns = 4;

/// An armed timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Armed {
    /// Next expiry on `CLOCK_MONOTONIC`, ns; 0 when disarmed.
    pub at: Ns,
    /// When it is looked at: `at`, or later where its period is shorter than `SLACK`.
    pub due: Ns,
    /// Its place among entries of the same time.
    pub seq: u64,
    /// Period, ns; 0 for once.
    pub interval: Ns,
    /// Set from a relative time: a pause before a fork of the sandbox moves it.
    pub relative: bool,
}

/// A timer_create(2) timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PosixTimer {
    /// Its clock.
    pub clock: i32,
    /// Signal to send; 0 for SIGEV_NONE.
    pub signo: u32,
    /// sigev_value.
    pub value: u64,
    /// Thread to signal (SIGEV_THREAD_ID); 0 for the process.
    pub thread: Tid,
    /// When it fires.
    pub armed: Armed,
    /// Expiries since its signal was last taken, beyond the first.
    pub overrun: u32,
    /// timer_getoverrun(2): the count when its signal was last taken.
    pub last_overrun: u32,
    /// Its signal is queued.
    pub queued: bool,
}

/// Timers of a process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProcessTimers {
    /// ITIMER_REAL.
    pub real: Armed,
    /// ITIMER_VIRTUAL and ITIMER_PROF, on their own clocks.
    pub cpu: [Armed; 2],
    /// Processor time at which RLIMIT_CPU is told next, ns.
    pub cpu_limit_told: Ns,
    /// timer_create(2).
    pub posix: BTreeMap<i32, PosixTimer>,
    /// Next timer id.
    pub next_id: i32,
}

impl Kernel {
    /// Arms (or, at 0, disarms) a timer in place of what it was.
    pub fn arm_timer(&mut self, action: &TimerAction, at: Ns, interval: Ns, relative: bool) {
        self.enter_timer(action, Armed { at, due: at, seq: 0, interval, relative });
    }

    fn enter_timer(&mut self, action: &TimerAction, armed: Armed) {
        let seq = self.new_object();
        let Some(slot) = self.timer_slot(action) else { return };
        let old = std::mem::replace(slot, Armed { seq, ..armed });
        self.time.timers.remove(&(old.due, old.seq));
        if armed.at != 0 {
            self.time.timers.insert((armed.due, seq), action.clone());
        }
    }

    fn timer_slot(&mut self, action: &TimerAction) -> Option<&mut Armed> {
        match action {
            TimerAction::TimerFd(id) => Some(&mut self.objects.timerfds.get_mut(*id)?.armed),
            TimerAction::IntervalReal(pid) => Some(&mut self.processes.get_mut(pid)?.aux.timers.real),
            TimerAction::Posix(pid, id) => {
                self.processes.get_mut(pid)?.aux.timers.posix.get_mut(id).map(|t| &mut t.armed)
            }
        }
    }

    /// Fires due timers.
    pub fn fire_timers(&mut self, now: Ns) {
        while let Some(key) = self.time.timers.first_key_value().map(|(key, _)| *key) {
            if key.0 > now {
                break;
            }
            let Some(action) = self.time.timers.remove(&key) else { break };
            let Some(armed) = self.timer_slot(&action).map(|a| *a) else { continue };
            // Expiries that were missed count as overruns and do not fire one by one.
            let missed = match now.saturating_sub(armed.at).checked_div(armed.interval) {
                None => {
                    self.arm_timer(&action, 0, 0, false);
                    0
                }
                Some(missed) => {
                    let step = armed.interval.saturating_mul(missed.saturating_add(1));
                    let next = armed.at.saturating_add(step).max(now.saturating_add(1));
                    let slack = SLACK.saturating_mul(1 + u64_of(self.time.timers.len()) / SHARE);
                    let due = if armed.interval < slack { next.max(now.saturating_add(slack)) } else { next };
                    self.enter_timer(&action, Armed { at: next, due, ..armed });
                    missed
                }
            };
            match action {
                TimerAction::IntervalReal(pid) => {
                    self.signal_process(pid, SigInfo { signo: 14, code: 0x80, ..SigInfo::default() });
                }
                TimerAction::Posix(pid, id) => self.posix_expired(pid, id, missed),
                TimerAction::TimerFd(id) => self.timerfd_expired(id, missed),
            }
        }
    }

    pub(crate) fn posix_expired(&mut self, pid: u32, id: i32, missed: u64) {
        let Some(t) = self.processes.get_mut(&pid).and_then(|p| p.aux.timers.posix.get_mut(&id)) else {
            return;
        };
        let missed = u32::try_from(missed).unwrap_or(i32::MAX.cast_unsigned());
        if t.signo == 0 {
            return;
        }
        t.overrun = t.overrun.saturating_add(missed).min(i32::MAX.cast_unsigned());
        let t = *t;
        // SI_TIMER: si_tid, si_overrun, si_value.
        let first = u64::from(id.cast_unsigned()) | u64::from(t.overrun) << 32;
        let info = SigInfo { signo: t.signo, errno: 0, code: -2, fields: [first, t.value, 0, 0] };
        if t.queued && self.timer_pending(pid, &t, id) {
            if let Some(t) = self.processes.get_mut(&pid).and_then(|p| p.aux.timers.posix.get_mut(&id)) {
                t.overrun = t.overrun.saturating_add(1);
            }
            return;
        }
        if let Some(t) = self.processes.get_mut(&pid).and_then(|p| p.aux.timers.posix.get_mut(&id)) {
            t.queued = true;
        }
        if t.thread == 0 {
            self.signal_process(pid, info);
        } else {
            self.signal_task(t.thread, info);
        }
    }

    fn timer_pending(&self, pid: u32, t: &PosixTimer, id: i32) -> bool {
        let mine = |i: &SigInfo| {
            i.signo == t.signo
                && i.code == -2
                && i.fields.first().is_some_and(|f| crate::num::low32(*f) == id.cast_unsigned())
        };
        if t.thread == 0 {
            self.processes.get(&pid).is_some_and(|p| p.pending.queue.iter().any(mine))
        } else {
            self.tasks.get(&t.thread).is_some_and(|t| t.pending.queue.iter().any(mine))
        }
    }

    /// A process's signal was taken off its queue: if a timer sent it, it tells the overruns up to now and may be queued again.
    pub fn timer_signal_taken(&mut self, tid: Tid, info: &mut SigInfo) {
        if info.code != -2 {
            return;
        }
        let id = info.fields.first().map_or(-1, |f| crate::num::low32(*f).cast_signed());
        if let Some(t) = self.process_of_mut(tid).and_then(|p| p.aux.timers.posix.get_mut(&id)) {
            t.queued = false;
            t.last_overrun = std::mem::take(&mut t.overrun);
            if let Some(first) = info.fields.first_mut() {
                *first = u64::from(id.cast_unsigned()) | u64::from(t.last_overrun) << 32;
            }
        }
    }

    /// Disarms all timers of a process; POSIX timers are deleted.
    pub fn drop_process_timers(&mut self, pid: u32) {
        self.arm_timer(&TimerAction::IntervalReal(pid), 0, 0, false);
        self.drop_posix_timers(pid);
    }

    /// Deletes the POSIX timers of a process (execve(2), its end).
    pub fn drop_posix_timers(&mut self, pid: u32) {
        let ids: Vec<i32> = self
            .processes
            .get(&pid)
            .map(|p| p.aux.timers.posix.keys().copied().collect())
            .unwrap_or_default();
        for id in ids {
            self.arm_timer(&TimerAction::Posix(pid, id), 0, 0, false);
        }
        if let Some(p) = self.processes.get_mut(&pid) {
            p.aux.timers.posix.clear();
        }
    }

    /// Moves relative timers by the time the sandbox was paused before a fork.
    pub fn timers_after_fork(&mut self, pause: Ns) {
        let all: Vec<TimerAction> = self.time.timers.values().cloned().collect();
        for action in all {
            if let Some(a) = self.timer_slot(&action).map(|a| *a)
                && a.relative
            {
                self.arm_timer(&action, a.at.saturating_add(pause), a.interval, true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Limits;
    use crate::platform::fake::FakePlatform;
    use crate::task::{Process, Task};
    use std::sync::Arc;

    #[test]
    fn an_interval_timer_fires_once_per_look_and_a_pause_moves_it() {
        let mut k = Kernel::new(Arc::new(FakePlatform::new(1 << 30)), Limits::default()).unwrap();
        let mut p = Process::new(1, 0);
        p.threads.insert(1);
        k.processes.insert(1, p);
        k.tasks.insert(1, Task { sigmask: u64::MAX, ..Task::new(1, 1) });
        k.arm_timer(&TimerAction::IntervalReal(1), 1_000, 10, true);
        k.timers_after_fork(500);
        k.fire_timers(1_499);
        assert!(k.processes[&1].pending.queue.is_empty());
        k.fire_timers(1_000_000_000);
        assert_eq!(k.processes[&1].pending.queue.len(), 1);
        assert!(k.next_timer().unwrap() > 1_000_000_000);
        k.drop_process_timers(1);
        assert_eq!(k.next_timer(), None);
    }

    #[test]
    fn a_short_interval_leaves_time_for_the_guest() {
        let mut k = Kernel::new(Arc::new(FakePlatform::new(1 << 30)), Limits::default()).unwrap();
        k.processes.insert(1, Process::new(1, 0));
        k.arm_timer(&TimerAction::IntervalReal(1), 1_000, 1_000, true);
        k.fire_timers(1_000_000);
        assert_eq!(k.next_timer(), Some(1_000_000 + SLACK));
        assert_eq!(k.processes[&1].aux.timers.real.at, 1_001_000);
        k.arm_timer(&TimerAction::IntervalReal(1), 0, 0, true);
        assert_eq!(k.next_timer(), None);
    }
}
