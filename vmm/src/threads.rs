//! vCPU threads beyond the first.
//!
//! Each owns one vCPU and takes tasks as the first one does; it waits on a condition variable when there is none. They are
//! started when tasks wait for a processor, parked whenever [`crate::sandbox::Sandbox::run`] returns, and ended (and joined) by a pause.

use crate::error::Error;
use crate::lock::{Guard, Ordered, Rank};
use crate::machine::{Machine, now};
use crate::signal::Ticker;
use crate::vcpu::KvmVcpu;
use guest::kernel::{Kernel, Next};
use guest::platform::{Ns, Platform};
use guest::task::Tid;
use kvm_ioctls::VmFd;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar};
use std::thread::JoinHandle;

/// What all vCPU threads of a sandbox share.
#[derive(Debug)]
pub struct Shared {
    kernel: Ordered<Kernel>,
    work: Condvar,
    parked: Condvar,
    /// Guest code may run.
    active: AtomicBool,
    /// Threads are to end.
    dismissed: AtomicBool,
    /// Further vCPUs that are not waiting.
    busy: AtomicUsize,
    error: Ordered<Option<Error>>,
    /// The first vCPU's thread sleeps, or is about to, and nobody has woken it yet.
    idle: AtomicBool,
    /// Further vCPUs' threads that wait for work.
    waiters: AtomicUsize,
    /// The guest's first deadline as the first vCPU's thread saw it last; `Ns::MAX` for none.
    due: AtomicU64,
    /// Digest of the host descriptors that it watches.
    watched: AtomicU64,
}

/// Tells one list of host descriptors from another.
fn digest(polls: &[(i32, bool, bool)]) -> u64 {
    let mut hasher = DefaultHasher::new();
    polls.hash(&mut hasher);
    hasher.finish()
}

impl Shared {
    /// Around a guest kernel.
    pub fn new(kernel: Kernel) -> Self {
        Shared {
            kernel: Ordered::new(Rank::Kernel, kernel),
            work: Condvar::new(),
            parked: Condvar::new(),
            active: AtomicBool::new(false),
            dismissed: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            error: Ordered::new(Rank::Error, None),
            idle: AtomicBool::new(false),
            waiters: AtomicUsize::new(0),
            due: AtomicU64::new(Ns::MAX),
            watched: AtomicU64::new(digest(&[])),
        }
    }

    /// The guest kernel.
    pub fn kernel(&self) -> Guard<'_, Kernel> {
        self.kernel.lock()
    }

    /// Wakes a waiting vCPU thread; all of them when a task may run on some only.
    pub fn notify(&self, kernel: &Kernel) {
        // Waking nobody would still cost a call of the host.
        if self.waiters.load(Ordering::Acquire) == 0 {
            return;
        }
        if kernel.sched.is_bound() {
            self.work.notify_all();
        } else {
            self.work.notify_one();
        }
    }

    /// The first vCPU's thread is about to sleep, or has slept; call with the kernel's lock held.
    pub fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::Release);
    }

    /// The first vCPU's thread watches these host descriptors and knows of this deadline; call with the kernel's lock held.
    pub fn set_watch(&self, polls: &[(i32, bool, bool)], due: Option<Ns>) {
        self.watched.store(digest(polls), Ordering::Release);
        self.due.store(due.unwrap_or(Ns::MAX), Ordering::Release);
    }

    /// Whether the guest has a timer that ends before the first vCPU's thread looks.
    fn is_due_earlier(&self, kernel: &Kernel) -> bool {
        kernel.next_deadline().is_some_and(|d| d < self.due.load(Ordering::Acquire))
    }

    /// Whether the first vCPU's thread has to see to something that it does not know of: an answer, an end, a host descriptor.
    fn is_news(&self, kernel: &Kernel) -> bool {
        kernel.exited.is_some()
            || !kernel.work.outbox.is_empty()
            || digest(&kernel.host_polls()) != self.watched.load(Ordering::Acquire)
    }

    /// Wakes the first vCPU's thread if it sleeps; false when it does not, or is woken already. Call with the kernel's lock held.
    fn wake_first(&self, machine: &Machine) -> bool {
        let asleep = self.idle.swap(false, Ordering::AcqRel);
        if asleep {
            machine.wake_first();
        }
        asleep
    }

    /// An error that ended a further vCPU.
    pub fn take_error(&self) -> Option<Error> {
        self.error.lock().take()
    }
}

/// The further vCPU threads of a sandbox.
#[derive(Debug, Default)]
pub struct Crew {
    threads: Vec<JoinHandle<()>>,
    wake: Option<OwnedFd>,
}

impl Crew {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.threads.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// How many run guest code or handle an exit; call with the kernel's lock held.
    pub fn running(&self, shared: &Shared) -> usize {
        shared.busy.load(Ordering::Acquire)
    }

    /// Descriptor that further vCPUs make readable when the first one has something to do.
    pub fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.wake.as_ref().map(|fd| fd.as_fd())
    }

    /// Starts vCPU `index`.
    pub fn hire(
        &mut self,
        shared: &Arc<Shared>,
        machine: &Arc<Machine>,
        vm: &Arc<VmFd>,
        index: usize,
    ) -> Result<(), Error> {
        if self.wake.is_none() {
            let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
            let fd = rustix::event::eventfd(0, flags)
                .map_err(|e| Error::Host { what: "create an event descriptor", source: e.into() })?;
            machine.wake.store(fd.as_raw_fd(), Ordering::Release);
            self.wake = Some(fd);
        }
        shared.active.store(true, Ordering::Release);
        let vcpu = KvmVcpu::new(machine.clone(), vm, index)?;
        let (shared, machine) = (shared.clone(), machine.clone());
        shared.busy.fetch_add(1, Ordering::AcqRel);
        let in_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name(format!("vcpu-{index}"))
            .spawn(move || work(&in_thread, &machine, vcpu))
            .map_err(|source| Error::Host { what: "start a virtual processor's thread", source });
        match thread {
            Ok(thread) => self.threads.push(thread),
            Err(e) => {
                shared.busy.fetch_sub(1, Ordering::AcqRel);
                return Err(e);
            }
        }
        Ok(())
    }

    /// Lets parked threads go on.
    pub fn release(&self, shared: &Shared) {
        if !self.threads.is_empty() {
            shared.active.store(true, Ordering::Release);
            shared.work.notify_all();
        }
    }

    /// Waits until no further vCPU runs guest code.
    pub fn park(&self, shared: &Shared, machine: &Machine) {
        if self.threads.is_empty() {
            return;
        }
        let mut kernel = shared.kernel();
        shared.active.store(false, Ordering::Release);
        while shared.busy.load(Ordering::Acquire) > 0 {
            for index in 1..=self.threads.len() {
                machine.kick(index);
            }
            shared.work.notify_all();
            let time = std::time::Duration::from_millis(5);
            kernel.wait_timeout(&shared.parked, time);
        }
    }

    /// Ends and joins all threads.
    pub fn dismiss(&mut self, shared: &Shared, machine: &Machine) {
        self.park(shared, machine);
        {
            let _kernel = shared.kernel();
            shared.dismissed.store(true, Ordering::Release);
            shared.work.notify_all();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        shared.dismissed.store(false, Ordering::Release);
        machine.wake.store(-1, Ordering::Release);
        self.wake = None;
    }
}

/// A further vCPU's thread.
fn work(shared: &Shared, machine: &Machine, mut vcpu: KvmVcpu) {
    vcpu.attach();
    if let Err(error) = serve(shared, machine, &mut vcpu) {
        *shared.error.lock() = Some(error);
        shared.busy.fetch_sub(1, Ordering::AcqRel);
        machine.kick(0);
    }
    vcpu.detach();
}

fn serve(shared: &Shared, machine: &Machine, vcpu: &mut KvmVcpu) -> Result<(), Error> {
    let mut ticker = Ticker::new()?;
    let mut kernel = shared.kernel();
    loop {
        let next = if shared.active.load(Ordering::Acquire) { Some(kernel.next(vcpu)) } else { None };
        if let Some(Next::Run(tid)) = next {
            if kernel.sched.waiting() > 0 || kernel.next_deadline().is_some() {
                let time = now();
                ticker.arm(time, time + Ticker::PERIOD)?;
            }
            kernel = enter(shared, vcpu, kernel, tid)?;
            if kernel.sched.waiting() > 0 {
                shared.notify(&kernel);
                // The first vCPU can run it too.
                shared.wake_first(machine);
            }
            if shared.is_news(&kernel) && !shared.wake_first(machine) {
                machine.kick(0);
            }
            continue;
        }
        kernel.save_fpu(vcpu);
        ticker.disarm()?;
        shared.busy.fetch_sub(1, Ordering::AcqRel);
        if !shared.active.load(Ordering::Acquire) {
            shared.parked.notify_all();
        }
        // Asleep, it may be the one that finds the guest at rest; else it is left alone unless there is something new.
        if !shared.wake_first(machine) && (shared.is_news(&kernel) || shared.is_due_earlier(&kernel)) {
            machine.kick(0);
        }
        loop {
            shared.waiters.fetch_add(1, Ordering::AcqRel);
            kernel.wait(&shared.work);
            shared.waiters.fetch_sub(1, Ordering::AcqRel);
            if shared.dismissed.load(Ordering::Acquire) {
                return Ok(());
            }
            if shared.active.load(Ordering::Acquire) && kernel.sched.waiting() > 0 {
                break;
            }
        }
        shared.busy.fetch_add(1, Ordering::AcqRel);
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
    mut kernel: Guard<'k, Kernel>,
    tid: Tid,
) -> Result<Guard<'k, Kernel>, Error> {
    let task = kernel.tasks.get_mut(&tid);
    let Some((mut regs, mm)) = task.map(|t| (t.regs.clone(), t.mm)) else { return Ok(kernel) };
    let Some(root) = kernel.mms.get(mm).map(|m| m.root) else { return Ok(kernel) };
    drop(kernel);
    let exit = vcpu.run(&mut regs, root)?;
    let mut kernel = shared.kernel();
    kernel.counters.exits += 1;
    if let Some(task) = kernel.task_mut(tid) {
        task.regs = regs;
    }
    kernel.on_exit(vcpu, tid, exit);
    Ok(kernel)
}
