//! A sandbox: one machine, one guest kernel, and the loop that drives them.
//!
//! The calling thread runs vCPU 0 and is the only one that sleeps on host descriptors. Further vCPU threads are started
//! when guest tasks wait for a processor ([`crate::threads`]). A paused sandbox has neither threads nor a virtual machine, so that its
//! process is cheap to fork; [`Sandbox::run`] makes them again.

use crate::error::Error;
use crate::lock::Guard;
use crate::machine::{Machine, now};
use crate::signal::Ticker;
use crate::stats::{Stats, Timings};
use crate::threads::{Crew, Shared, enter, put_back};
use crate::vcpu::KvmVcpu;
use guest::kernel::{Kernel, Limits, Next};
use guest::platform::{Ns, Platform};
use guest::task::ExitStatus;
use kvm_ioctls::VmFd;
use sleep::wait;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

mod sleep;

/// Sizes that are fixed for a sandbox's life.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Reserved guest-physical address space, bytes. Costs nothing until it is used.
    pub arena_len: u64,
    /// Most vCPUs, 1 or more.
    pub max_vcpus: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config { arena_len: 64 << 30, max_vcpus: 8 }
    }
}

/// When [`Sandbox::run`] is to return, besides the guest's own reasons.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions<'a> {
    /// `CLOCK_MONOTONIC`, ns.
    pub deadline: Option<Ns>,
    /// Return when this descriptor is readable.
    pub control: Option<BorrowedFd<'a>>,
    /// Return [`Stop::Quiescent`] instead of sleeping for work.
    pub stop_when_quiescent: bool,
}

/// Why [`Sandbox::run`] returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Every task sleeps, nothing of the host is awaited, and one task awaits work.
    Quiescent,
    /// Every task sleeps, and nothing can ever wake one.
    Stuck,
    /// The guest wrote this answer to the work channel.
    Answer(Vec<u8>),
    /// The first process ended.
    Exited(ExitStatus),
    /// The deadline passed.
    TimedOut,
    /// The control descriptor is readable.
    Control,
}

/// The host's count of resident memory is looked at after a time in which guest code cannot use up what is left of its limit, but not
/// more often, and not more seldom, than this, ns.
const MEMORY_PERIOD: (Ns, Ns) = (10_000_000, 1_000_000_000);
/// Bytes per ns that one vCPU can touch for the first time at most: a host zeroes pages no faster than its memory takes them.
const FILL_RATE: u64 = 8;
/// How often the control descriptor is looked at while guest code runs, ns. Seldom, because each look costs the guest an exit (1.7 % of
/// its time at 100 a second on a nested host); a signal to the process ends guest code by itself.
const CONTROL_PERIOD: Ns = 100_000_000;
/// Time in user mode that a task gets whatever timers are due, ns: several times what an exit costs on nested hosts, so that a
/// guest timer with a period of a microsecond cannot keep all of its guest from going on.
const MIN_SLICE: Ns = 300_000;

/// See the module.
#[derive(Debug)]
pub struct Sandbox {
    machine: Arc<Machine>,
    shared: Arc<Shared>,
    config: Config,
    live: Option<Live>,
    pub(crate) timings: Timings,
}

/// What exists only while the sandbox is not paused. Dropped in this order.
#[derive(Debug)]
struct Live {
    crew: Crew,
    ticker: Option<Ticker>,
    /// When memory is to be looked at next; 0: not decided.
    check_memory: Ns,
    vcpu: KvmVcpu,
    vm: Arc<VmFd>,
}

impl Sandbox {
    /// A machine with a booted guest OS and no process.
    pub fn boot(config: Config, limits: Limits) -> Result<Self, Error> {
        let machine = Machine::new(config.arena_len)?;
        let kernel = Kernel::new(machine.clone(), limits).map_err(Error::Kernel)?;
        let shared = Arc::new(Shared::new(kernel));
        Ok(Sandbox { machine, shared, config, live: None, timings: Timings::default() })
    }

    /// The guest kernel. No guest code runs between calls of [`Sandbox::run`].
    pub fn kernel(&self) -> Guard<'_, Kernel> {
        self.shared.kernel()
    }

    /// Puts another state of the guest kernel onto the same memory, such as this one's after it was written out and read back; returns
    /// the old one. The sandbox must be paused. The new state gets this machine as its platform; its root directory and standard streams are
    /// the caller's to give back ([`Kernel::set_root_fd`], [`Kernel::reissue_stdio`]).
    pub fn replace_kernel(&mut self, mut kernel: Kernel) -> Result<Kernel, Error> {
        if !self.is_paused() {
            return Err(Error::NotPaused);
        }
        kernel.platform = guest::kernel::PlatformHandle(self.machine.clone());
        Ok(std::mem::replace(&mut *self.shared.kernel(), kernel))
    }

    /// The machine.
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// Whether there is neither a virtual machine nor a thread of this sandbox.
    pub fn is_paused(&self) -> bool {
        self.live.is_none()
    }

    /// Time spent in each phase, for benchmarks.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// KVM's counters of the present virtual machine.
    pub fn stats(&self) -> Result<Stats, Error> {
        match &self.live {
            Some(live) => Stats::read(&live.vm, live.vcpu.fd()),
            None => Ok(Stats::default()),
        }
    }

    /// Makes the virtual machine and its first vCPU, unless they exist.
    pub fn resume(&mut self) -> Result<(), Error> {
        if self.live.is_some() {
            return Ok(());
        }
        let t0 = now();
        self.machine.tables.machine_gone()?;
        let vm = self.machine.slots.create(&self.machine.host.kvm)?;
        let t1 = now();
        self.machine.slots.fill()?;
        let t2 = now();
        let vcpu = KvmVcpu::new(self.machine.clone(), &vm, 0)?;
        let t3 = now();
        self.kernel().sched.set_online(1);
        self.timings.vm_create = t1 - t0;
        self.timings.slots = t2 - t1;
        self.timings.vcpu = t3 - t2;
        self.live = Some(Live { crew: Crew::default(), ticker: None, check_memory: 0, vcpu, vm });
        Ok(())
    }

    /// Ends all threads of this sandbox and its virtual machine. Tasks keep their whole state.
    pub fn pause(&mut self) -> Result<(), Error> {
        let Some(mut live) = self.live.take() else { return Ok(()) };
        live.crew.dismiss(&self.shared, &self.machine);
        {
            let mut kernel = self.shared.kernel();
            kernel.save_fpu(&mut live.vcpu);
            kernel.sched.set_online(0);
        }
        self.machine.slots.forget();
        drop(live);
        self.machine.tables.machine_gone()?;
        Ok(())
    }

    /// The first vCPU, the virtual machine's, made when there is none.
    pub(crate) fn first_vcpu(&mut self) -> Result<&mut KvmVcpu, Error> {
        self.resume()?;
        self.live.as_mut().map(|l| &mut l.vcpu).ok_or(Error::NotPaused)
    }

    /// Runs the guest until there is a reason to stop.
    pub fn run(&mut self, options: &RunOptions<'_>) -> Result<Stop, Error> {
        self.resume()?;
        let started = now();
        let Some(live) = &mut self.live else { return Err(Error::NotPaused) };
        live.ticker = live.ticker.take().filter(Ticker::is_mine);
        live.vcpu.attach();
        live.crew.release(&self.shared);
        {
            let mut kernel = self.shared.kernel();
            let most = kernel.limits.cpus.min(self.config.max_vcpus).min(self.machine.host.max_vcpus);
            kernel.sched.set_most(most);
        }
        let mut driver = Driver {
            machine: &self.machine,
            shared: &self.shared,
            max_vcpus: self.config.max_vcpus.min(self.machine.host.max_vcpus),
            options,
            checked_control: 0,
        };
        let result = driver.drive(live);
        live.crew.park(&self.shared, &self.machine);
        live.vcpu.detach();
        if let Some(ticker) = &mut live.ticker {
            ticker.disarm()?;
        }
        self.timings.run = now() - started;
        result
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Some(mut live) = self.live.take() {
            live.crew.dismiss(&self.shared, &self.machine);
            self.machine.slots.forget();
        }
    }
}

struct Driver<'a> {
    machine: &'a Arc<Machine>,
    shared: &'a Arc<Shared>,
    max_vcpus: usize,
    options: &'a RunOptions<'a>,
    checked_control: Ns,
}

impl Driver<'_> {
    fn drive(&mut self, live: &mut Live) -> Result<Stop, Error> {
        let shared = self.shared.clone();
        loop {
            let mut kernel = shared.kernel();
            if let Some(error) = shared.take_error() {
                return Err(error);
            }
            if let Some(answer) = kernel.take_answer() {
                return Ok(Stop::Answer(answer));
            }
            match kernel.next(&mut live.vcpu) {
                Next::Exited(status) => return Ok(Stop::Exited(status)),
                Next::Run(tid) => {
                    if let Some(stop) = self.before_entry(live, &mut kernel)? {
                        put_back(&mut kernel, tid);
                        return Ok(stop);
                    }
                    drop(enter(&shared, &mut live.vcpu, kernel, tid)?);
                }
                Next::Idle { deadline, poll, awaits_work } => {
                    // Another vCPU may hold the only answer or the last task.
                    if !kernel.work.outbox.is_empty() {
                        continue;
                    }
                    kernel.save_fpu(&mut live.vcpu);
                    // A task that may not run here waits for a vCPU that may not be there yet.
                    if kernel.sched.waiting() > 0 {
                        let online = 1 + live.crew.len();
                        if online < kernel.limits.cpus.min(self.max_vcpus) {
                            live.crew.hire(self.shared, self.machine, &live.vm, online)?;
                            kernel.sched.set_online(online + 1);
                            continue;
                        }
                        self.shared.notify(&kernel);
                    }
                    let others = live.crew.running(&shared);
                    // Threads that sleep until a time, and timers, go on in the children: a seed does not wait for them.
                    if others == 0 && awaits_work && self.options.stop_when_quiescent {
                        return Ok(Stop::Quiescent);
                    }
                    // Whoever watches a control descriptor may yet wake the guest, with a signal.
                    let hopeless = poll.is_empty() && deadline.is_none() && self.options.control.is_none();
                    if others == 0 && hopeless && !awaits_work && kernel.sched.waiting() == 0 {
                        return Ok(Stop::Stuck);
                    }
                    let mut deadline = deadline;
                    if others > 0 {
                        // Nobody else looks at the memory that they take.
                        let time = now();
                        if time >= live.check_memory {
                            self.look_at_memory(live, &mut kernel, time);
                        }
                        deadline = Some(deadline.map_or(live.check_memory, |d| d.min(live.check_memory)));
                    }
                    shared.set_watch(&poll, deadline);
                    shared.set_idle(true);
                    drop(kernel);
                    let slept = self.sleep(live, deadline, &poll);
                    shared.set_idle(false);
                    if let Some(stop) = slept? {
                        return Ok(stop);
                    }
                }
            }
        }
    }

    /// What has to be looked at while guest code runs; arms the timer that makes sure of the next look.
    fn before_entry(&mut self, live: &mut Live, kernel: &mut Kernel) -> Result<Option<Stop>, Error> {
        let limit = kernel.limits.memory;
        let waiting = kernel.sched.waiting();
        let polls = kernel.host_polls();
        let time = now();
        let mut due = kernel.next_deadline().map(|d| d.max(time + MIN_SLICE));
        if self.options.deadline.is_some_and(|d| time >= d) {
            return Ok(Some(Stop::TimedOut));
        }
        let tick = time + Ticker::PERIOD;
        if waiting > 0 {
            due = Some(due.map_or(tick, |d| d.min(tick)));
            let online = 1 + live.crew.len();
            if online < kernel.limits.cpus.min(self.max_vcpus) {
                live.crew.hire(self.shared, self.machine, &live.vm, online)?;
                kernel.sched.set_online(online + 1);
            } else {
                self.shared.notify(kernel);
            }
        }
        if !polls.is_empty() {
            due = Some(due.map_or(tick, |d| d.min(tick)));
        }
        if self.options.control.is_some() {
            let look = time + CONTROL_PERIOD;
            due = Some(due.map_or(look, |d| d.min(look)));
        }
        if limit != u64::MAX {
            if time >= live.check_memory {
                self.look_at_memory(live, kernel, time);
            }
            due = Some(due.map_or(live.check_memory, |d| d.min(live.check_memory)));
        }
        if let Some(deadline) = self.options.deadline {
            due = Some(due.map_or(deadline, |d| d.min(deadline)));
        }
        if time >= self.checked_control + Ticker::PERIOD {
            self.checked_control = time;
            if self.look(&polls, Some(0), kernel)? {
                return Ok(Some(Stop::Control));
            }
        }
        self.shared.set_watch(&polls, kernel.next_deadline());
        match due {
            Some(due) => {
                if live.ticker.is_none() {
                    live.ticker = Some(Ticker::new()?);
                }
                if let Some(ticker) = &mut live.ticker {
                    ticker.arm(time, due)?;
                }
            }
            None => {
                if let Some(ticker) = &mut live.ticker {
                    ticker.disarm()?;
                }
            }
        }
        Ok(None)
    }

    /// Enforces the memory limit, and tells when to look again. The first look of a new virtual machine is put off: most runs in one end
    /// sooner.
    fn look_at_memory(&self, live: &mut Live, kernel: &mut Kernel, time: Ns) {
        let (shortest, longest) = MEMORY_PERIOD;
        if live.check_memory == 0 {
            live.check_memory = time + shortest;
            return;
        }
        let (used, limit) = (self.machine.resident(), kernel.limits.memory);
        if used > limit {
            kernel.out_of_memory();
        }
        let safe = limit.saturating_sub(used) / (FILL_RATE * (live.crew.len() as u64 + 1));
        live.check_memory = time + safe.clamp(shortest, longest);
    }

    /// Sleeps until something happens.
    fn sleep(
        &mut self,
        live: &mut Live,
        deadline: Option<Ns>,
        poll: &[(i32, bool, bool)],
    ) -> Result<Option<Stop>, Error> {
        let until = match (deadline, self.options.deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let timeout = until.map(|t| t.saturating_sub(now()));
        if let Some(ticker) = &mut live.ticker {
            ticker.disarm()?;
        }
        let ready = wait(poll, self.options.control, live.crew.wake_fd(), timeout)?;
        let mut kernel = self.shared.kernel();
        for fd in ready.fds {
            kernel.host_ready(fd);
        }
        if ready.control {
            return Ok(Some(Stop::Control));
        }
        let late = self.options.deadline.is_some_and(|d| now() >= d);
        Ok(late.then_some(Stop::TimedOut))
    }

    /// Looks at the host descriptors without sleeping; true when the control descriptor is readable.
    fn look(
        &self,
        poll: &[(i32, bool, bool)],
        timeout: Option<Ns>,
        kernel: &mut Kernel,
    ) -> Result<bool, Error> {
        if poll.is_empty() && self.options.control.is_none() {
            return Ok(false);
        }
        let ready = wait(poll, self.options.control, None, timeout)?;
        for fd in ready.fds {
            kernel.host_ready(fd);
        }
        Ok(ready.control)
    }
}

#[cfg(test)]
mod tests;
