//! A sandbox: one machine, one guest kernel, and the loop that drives them.
//!
//! The calling thread runs vCPU 0 and is the only one that sleeps on host descriptors. Further vCPU threads are started
//! when guest tasks wait for a processor ([`crate::threads`]). A paused sandbox has neither threads nor a virtual machine, so that its
//! process is cheap to fork; [`Sandbox::run`] makes them again.

use crate::error::Error;
use crate::machine::{Machine, now};
use crate::signal::Ticker;
use crate::stats::{Stats, Timings};
use crate::threads::{Crew, Shared};
use crate::vcpu::KvmVcpu;
use guest::kernel::{Kernel, Limits, Next};
use guest::platform::{Ns, Platform};
use guest::task::{ExitStatus, Tid};
use kvm_ioctls::VmFd;
use rustix::event::{PollFd, PollFlags};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, MutexGuard};

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

/// How often the host's count of resident memory is looked at while guest code runs, ns.
const MEMORY_PERIOD: Ns = 20_000_000;
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
    pub fn kernel(&self) -> MutexGuard<'_, Kernel> {
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
        self.live = Some(Live { crew: Crew::default(), ticker: None, vcpu, vm });
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
        live.vcpu.attach();
        live.crew.release(&self.shared);
        let mut driver = Driver {
            machine: &self.machine,
            shared: &self.shared,
            max_vcpus: self.config.max_vcpus.min(self.machine.host.max_vcpus),
            options,
            checked_memory: 0,
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
    checked_memory: Ns,
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
                    let others = live.crew.running(&shared);
                    // Threads that sleep until a time, and timers, go on in the children: a seed does not wait for them.
                    if others == 0 && awaits_work && self.options.stop_when_quiescent {
                        return Ok(Stop::Quiescent);
                    }
                    // Whoever watches a control descriptor may yet wake the guest, with a signal.
                    let hopeless = poll.is_empty() && deadline.is_none() && self.options.control.is_none();
                    if others == 0 && hopeless && !awaits_work {
                        return Ok(Stop::Stuck);
                    }
                    // Nobody else looks at the memory that they take.
                    let look = now().saturating_add(MEMORY_PERIOD);
                    let deadline =
                        if others > 0 { Some(deadline.map_or(look, |d| d.min(look))) } else { deadline };
                    drop(kernel);
                    if let Some(stop) = self.sleep(live, deadline, &poll)? {
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
                self.shared.notify();
            }
        }
        if self.options.control.is_some() || !polls.is_empty() || limit != u64::MAX {
            due = Some(due.map_or(tick, |d| d.min(tick)));
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
        if time >= self.checked_memory + MEMORY_PERIOD {
            let first = self.checked_memory == 0;
            self.checked_memory = time;
            if !first && self.machine.resident() > limit {
                kernel.out_of_memory();
            }
        }
        match due {
            Some(due) => {
                if live.ticker.as_ref().is_none_or(|t| !t.is_mine()) {
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
        if self.machine.resident() > kernel.limits.memory {
            kernel.out_of_memory();
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

/// Lets a task that was chosen, and has not run, wait for its turn again.
pub(crate) fn put_back(kernel: &mut Kernel, tid: Tid) {
    if let Some(task) = kernel.task_mut(tid) {
        task.state = guest::task::TaskState::Runnable;
        kernel.sched.push(tid);
    }
}

/// One entry into user mode and the exit that follows; the lock is released while guest code runs.
pub(crate) fn enter<'k>(
    shared: &'k Shared,
    vcpu: &mut KvmVcpu,
    mut kernel: MutexGuard<'k, Kernel>,
    tid: Tid,
) -> Result<MutexGuard<'k, Kernel>, Error> {
    let task = kernel.tasks.get_mut(&tid);
    let Some((mut regs, mm)) = task.map(|t| (t.regs.clone(), t.mm)) else { return Ok(kernel) };
    let Some(root) = kernel.mms.get(mm).map(|m| m.root) else { return Ok(kernel) };
    drop(kernel);
    let entered = now();
    let exit = vcpu.run(&mut regs, root)?;
    let spent = now().saturating_sub(entered);
    let mut kernel = shared.kernel();
    if let Some(task) = kernel.task_mut(tid) {
        task.regs = regs;
        task.cpu_ns = task.cpu_ns.saturating_add(spent);
    }
    kernel.on_exit(vcpu, tid, exit);
    Ok(kernel)
}

#[derive(Debug, Default)]
struct Ready {
    fds: Vec<i32>,
    control: bool,
}

/// ppoll(2) on the guest's host descriptors, the control descriptor and the wake-up descriptor. A signal ends it like a time-out.
fn wait(
    poll: &[(i32, bool, bool)],
    control: Option<BorrowedFd<'_>>,
    wake: Option<BorrowedFd<'_>>,
    timeout: Option<Ns>,
) -> Result<Ready, Error> {
    let mut fds = Vec::with_capacity(poll.len() + 2);
    for (fd, input, output) in poll {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, *input);
        flags.set(PollFlags::OUT, *output);
        // SAFETY: the guest kernel keeps the descriptors that it names open while its tasks sleep on them; poll(2) of a closed one only
        // reports that.
        let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
        fds.push(PollFd::from_borrowed_fd(fd, flags));
    }
    let mut extra = |fd: Option<BorrowedFd<'_>>| {
        fd.map(|fd| {
            // SAFETY: outlives this call, as the borrow that was given does.
            let fd = unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) };
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            fds.len() - 1
        })
    };
    let control = extra(control);
    let wake = extra(wake);
    let timeout = timeout.map(|ns| rustix::event::Timespec {
        tv_sec: (ns / 1_000_000_000).cast_signed(),
        tv_nsec: (ns % 1_000_000_000).cast_signed(),
    });
    match rustix::event::poll(&mut fds, timeout.as_ref()) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
        Err(e) => return Err(Error::Host { what: "wait for events", source: e.into() }),
    }
    let is_ready = |i: Option<usize>| i.and_then(|i| fds.get(i)).is_some_and(|p| !p.revents().is_empty());
    if is_ready(wake)
        && let Some(p) = wake.and_then(|i| fds.get(i))
    {
        let _ = rustix::io::read(p, &mut [0; 8]);
    }
    let ready = poll.iter().zip(&fds).filter(|(_, p)| !p.revents().is_empty()).map(|((fd, ..), _)| *fd);
    Ok(Ready { fds: ready.collect(), control: is_ready(control) })
}

#[cfg(test)]
mod tests;
