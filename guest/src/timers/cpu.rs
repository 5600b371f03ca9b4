//! Clocks and timers of processor time: setitimer(2)'s ITIMER_VIRTUAL and ITIMER_PROF, timer_create(2) on CPU clocks, RLIMIT_CPU.
//!
//! Such a timer's expiry ([`Armed::at`]) is on its own clock. Timers are looked at whenever a thread of their process leaves user mode, and
//! [`Kernel::cpu_deadline`] makes sure that it does in time.

use super::Armed;
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::platform::Ns;
use crate::signal::SigInfo;
use crate::task::{Task, TaskState, Tid};

/// ns in a second.
const SEC: u64 = 1_000_000_000;
/// RLIMIT_CPU.
const RLIMIT_CPU: u32 = 0;
/// CPUCLOCK_PERTHREAD_MASK.
const PER_THREAD: i32 = 4;

/// Which timer of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// ITIMER_VIRTUAL (0) or ITIMER_PROF (1).
    Interval(usize),
    /// A timer_create(2) timer.
    Posix(i32),
}

/// The clock of a process (or thread) as clock_getcpuclockid(3) makes it: user and kernel time.
pub fn clock_of(id: u32, thread: bool) -> i32 {
    (!id.cast_signed()) << 3 | 2 | if thread { PER_THREAD } else { 0 }
}

/// Whether a clock counts processor time.
pub fn is_cpu_clock(clock: i32) -> bool {
    clock < 0 || matches!(clock, 2 | 3)
}

impl Kernel {
    /// A thread's user and kernel time up to now, ns.
    pub fn task_times(&self, task: &Task) -> (Ns, Ns) {
        let running = match task.state {
            TaskState::Running(_) if task.aux.entered != 0 => {
                self.platform.monotonic().saturating_sub(task.aux.entered)
            }
            _ => 0,
        };
        (task.cpu_ns.saturating_add(running), task.aux.system_ns)
    }

    /// User and kernel time of a process up to now, ended threads included, ns.
    pub fn process_times(&self, pid: u32) -> (Ns, Ns) {
        let Some(process) = self.processes.get(&pid) else { return (0, 0) };
        let mut sum = (process.aux.dead_cpu_ns, process.aux.dead_system_ns);
        for task in process.threads.iter().filter_map(|t| self.tasks.get(t)) {
            let (user, system) = self.task_times(task);
            sum = (sum.0.saturating_add(user), sum.1.saturating_add(system));
        }
        sum
    }

    /// A CPU clock's time for a caller. EINVAL.
    pub fn cpu_clock(&self, caller: Tid, clock: i32) -> Result<Ns, Errno> {
        let (pid, sum) =
            (self.task(caller).map(|t| t.pid).ok_or(Errno::ESRCH)?, |(u, s): (Ns, Ns)| u.saturating_add(s));
        match clock {
            2 => return Ok(sum(self.process_times(pid))),
            3 => return Ok(self.task(caller).map_or(0, |t| sum(self.task_times(t)))),
            0.. => return Err(Errno::EINVAL),
            _ => {}
        }
        let id = (!(clock >> 3)).cast_unsigned();
        let times = if clock & PER_THREAD != 0 {
            let tid = if id == 0 { caller } else { id };
            let task = self.task(tid).filter(|t| t.pid == pid).ok_or(Errno::EINVAL)?;
            self.task_times(task)
        } else {
            let of = if id == 0 { pid } else { id };
            if !self.processes.contains_key(&of) {
                return Err(Errno::EINVAL);
            }
            self.process_times(of)
        };
        match clock & 3 {
            0 | 2 => Ok(sum(times)),
            1 => Ok(times.0),
            _ => Err(Errno::EINVAL),
        }
    }

    fn cpu_timer(&mut self, pid: u32, which: Which) -> Option<&mut Armed> {
        let timers = &mut self.processes.get_mut(&pid)?.aux.timers;
        match which {
            Which::Interval(n) => timers.cpu.get_mut(n),
            Which::Posix(id) => timers.posix.get_mut(&id).map(|t| &mut t.armed),
        }
    }

    /// Arms a timer for `at` on its clock, or disarms it with 0.
    pub fn arm_cpu_timer(&mut self, pid: u32, which: Which, at: Ns, interval: Ns) {
        if let Some(slot) = self.cpu_timer(pid, which) {
            *slot = Armed { at, due: at, seq: 0, interval, relative: true };
        }
        if at != 0 {
            self.watch_cpu(pid);
        }
    }

    /// Looks at a process's processor time from now on.
    pub fn watch_cpu(&mut self, pid: u32) {
        self.time.cpu_watched.insert(pid);
    }

    /// Armed timers of a process: which, how they are armed, and what their clock shows now.
    fn armed_cpu_timers(&self, pid: u32) -> Vec<(Which, Armed, Ns)> {
        let Some(process) = self.processes.get(&pid) else { return Vec::new() };
        let timers = &process.aux.timers;
        let (user, system) = self.process_times(pid);
        let mut all = Vec::new();
        for (n, armed) in timers.cpu.iter().enumerate().filter(|(_, a)| a.at != 0) {
            all.push((Which::Interval(n), *armed, if n == 0 { user } else { user.saturating_add(system) }));
        }
        let first = process.threads.iter().next().copied().unwrap_or(pid);
        for (id, timer) in timers.posix.iter().filter(|(_, t)| t.armed.at != 0 && is_cpu_clock(t.clock)) {
            if let Ok(now) = self.cpu_clock(first, timer.clock) {
                all.push((Which::Posix(*id), timer.armed, now));
            }
        }
        all
    }

    /// RLIMIT_CPU's soft and hard limit, ns.
    fn cpu_limits(&self, pid: u32) -> Option<(Ns, Ns)> {
        let (soft, hard) = self.processes.get(&pid)?.rlimits.get(&RLIMIT_CPU).copied()?;
        (soft != u64::MAX).then(|| (soft.saturating_mul(SEC), hard.saturating_mul(SEC)))
    }

    /// Fires the timers of a process whose time has come.
    pub fn run_cpu_timers(&mut self, pid: u32) {
        if !self.time.cpu_watched.contains(&pid) {
            return;
        }
        let timers = self.armed_cpu_timers(pid);
        let limits = self.cpu_limits(pid);
        if (timers.is_empty() && limits.is_none())
            || self.processes.get(&pid).is_none_or(|p| p.zombie.is_some())
        {
            self.time.cpu_watched.remove(&pid);
            return;
        }
        for (which, armed, now) in timers {
            let Some(late) = now.checked_sub(armed.at) else { continue };
            let missed = late.checked_div(armed.interval);
            let next = match missed {
                None => 0,
                Some(missed) => {
                    armed.at.saturating_add(armed.interval.saturating_mul(missed.saturating_add(1)))
                }
            };
            self.arm_cpu_timer(pid, which, next, armed.interval);
            match which {
                Which::Interval(n) => {
                    // SIGVTALRM, SIGPROF
                    let signo = if n == 0 { 26 } else { 27 };
                    self.signal_process(pid, SigInfo { signo, code: 0x80, ..SigInfo::default() });
                }
                Which::Posix(id) => self.posix_expired(pid, id, missed.unwrap_or(0)),
            }
        }
        if let Some((soft, hard)) = limits {
            let (user, system) = self.process_times(pid);
            let used = user.saturating_add(system);
            let told = self.processes.get(&pid).map_or(0, |p| p.aux.timers.cpu_limit_told);
            if used >= hard {
                self.signal_process(pid, SigInfo { signo: 9, code: 0x80, ..SigInfo::default() });
            } else if used >= soft.max(told) {
                if let Some(p) = self.processes.get_mut(&pid) {
                    // Again every second.
                    p.aux.timers.cpu_limit_told = (used / SEC).saturating_add(1).saturating_mul(SEC);
                }
                // SIGXCPU
                self.signal_process(pid, SigInfo { signo: 24, code: 0x80, ..SigInfo::default() });
            }
        }
    }

    /// When a process that computes now may reach the expiry of one of its timers.
    pub fn cpu_deadline(&self) -> Option<Ns> {
        if self.time.cpu_watched.is_empty() {
            return None;
        }
        let now = self.platform.monotonic();
        let busy = |t: &Task| matches!(t.state, TaskState::Running(_) | TaskState::Runnable);
        let mut first: Option<Ns> = None;
        for pid in &self.time.cpu_watched {
            let Some(process) = self.processes.get(pid) else { continue };
            let threads =
                process.threads.iter().filter_map(|t| self.tasks.get(t)).filter(|t| busy(t)).count();
            if threads == 0 {
                continue;
            }
            let mut left: Vec<Ns> =
                self.armed_cpu_timers(*pid).iter().map(|(_, a, clock)| a.at.saturating_sub(*clock)).collect();
            if let Some((soft, _)) = self.cpu_limits(*pid) {
                let (user, system) = self.process_times(*pid);
                let next = soft.max(process.aux.timers.cpu_limit_told);
                left.push(next.saturating_sub(user.saturating_add(system)));
            }
            let share = crate::num::u64_of(threads.max(1));
            for ns in left {
                let at = now.saturating_add(ns / share).max(now + 1);
                first = Some(first.map_or(at, |f| f.min(at)));
            }
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Limits;
    use crate::platform::fake::FakePlatform;
    use crate::task::Process;
    use std::sync::Arc;

    #[test]
    fn a_timer_of_processor_time_fires_when_that_much_was_used() {
        let mut k = Kernel::new(Arc::new(FakePlatform::new(1 << 30)), Limits::default()).unwrap();
        let mut p = Process::new(1, 0);
        p.threads.insert(1);
        k.processes.insert(1, p);
        k.tasks.insert(1, Task { sigmask: u64::MAX, ..Task::new(1, 1) });
        k.arm_cpu_timer(1, Which::Interval(0), 1000, 500);
        assert!(k.cpu_deadline().is_some());
        k.run_cpu_timers(1);
        assert!(k.processes[&1].pending.queue.is_empty());
        k.tasks.get_mut(&1).unwrap().cpu_ns = 2600;
        k.run_cpu_timers(1);
        assert_eq!(k.take_signal(1, u64::MAX).unwrap().signo, 26);
        assert_eq!(k.processes[&1].aux.timers.cpu[0].at, 3000);
        k.arm_cpu_timer(1, Which::Interval(0), 0, 0);
        k.run_cpu_timers(1);
        assert_eq!(k.cpu_deadline(), None);
    }

    #[test]
    fn clocks_of_processes_and_threads_have_the_numbers_that_libc_makes() {
        assert_eq!(clock_of(5, false), -46);
        assert_eq!(clock_of(5, true), -42);
        assert!(is_cpu_clock(2) && is_cpu_clock(-6) && !is_cpu_clock(1));
    }
}
