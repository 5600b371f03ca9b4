//! The kernel: all state of one sandbox's guest OS, and the driver's two entry points.
//!
//! [`Kernel::next`] says what a vCPU is to do now; [`Kernel::on_exit`] takes what happened. The driver holds the
//! kernel's lock around both and lets go of it while guest code runs or the sandbox sleeps.

use crate::entropy::Entropy;
use crate::fork::{FieldClass, ForkArgs};
use crate::futex::Futexes;
use crate::mm::{Frames, Mm};
use crate::platform::{Exit, Ns, Platform, Vcpu};
use crate::poll::Polls;
use crate::sched::Sched;
use crate::signal::SigInfo;
use crate::store::Store;
use crate::task::{ExitStatus, FdTable, FsContext, Process, Task, Tid};
use crate::time::Timekeeper;
use crate::vfs::{Files, OpenFile, Vfs};
use crate::wait::{Block, Cause, Outcome, Resume, WaitKey};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

mod parts;

use parts::no_platform;
pub use parts::{CallTime, Counters, Deadlines, Identity, Limits, PlatformHandle, WorkChannel};

/// What a vCPU is to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Run this task: its registers are in [`Kernel::task`], its extended state is loaded already.
    Run(Tid),
    /// Nothing is runnable. Sleep until the deadline (if any), until one of the host descriptors is ready, or until
    /// new work is pushed; then call [`Kernel::next`] again. With no deadline, nothing to poll and no work, the sandbox is
    /// quiescent.
    Idle {
        /// `CLOCK_MONOTONIC`, ns.
        deadline: Option<Ns>,
        /// Host descriptors that tasks sleep on: (descriptor, wants input, wants output).
        poll: Vec<(i32, bool, bool)>,
        /// A task is blocked reading the work channel.
        awaits_work: bool,
    },
    /// The first process ended.
    Exited(ExitStatus),
}

/// Timers that are absolute on `CLOCK_MONOTONIC`, by (time, sequence).
pub type TimerQueue = BTreeMap<(Ns, u64), crate::time::TimerAction>;

crate::forkable! {
    /// All state of one guest OS.
    #[derive(Debug, Serialize, Deserialize)]
    pub struct Kernel {
        /// The machine below.
        #[serde(skip, default = "no_platform")]
        reissue pub platform: PlatformHandle,
        /// Every task by thread id.
        inherit pub tasks: BTreeMap<Tid, Task>,
        /// Every process (thread group) by process id, zombies included.
        inherit pub processes: BTreeMap<u32, Process>,
        /// Next id for a task or process.
        inherit pub next_id: u32,
        /// Address spaces.
        inherit pub mms: Store<Mm>,
        /// Extents of the arena.
        inherit pub frames: Frames,
        /// Descriptor tables.
        inherit pub fd_tables: Store<FdTable>,
        /// Working directories, roots and umasks.
        inherit pub fs_contexts: Store<FsContext>,
        /// Open file descriptions.
        inherit pub files: Store<OpenFile>,
        /// Mounts, inodes, dentries.
        inherit pub vfs: Vfs,
        /// Pipes, eventfds, host streams.
        inherit pub objects: Files,
        /// Futex queues.
        inherit pub futexes: Futexes,
        /// System V objects and message queues.
        inherit pub ipc: crate::ipc::Ipc,
        /// Epoll sets and other waiters on objects.
        inherit pub polls: Polls,
        /// Contexts of asynchronous I/O.
        inherit pub aio: crate::aio::Aio,
        /// Who sleeps on what.
        inherit pub waiters: BTreeMap<WaitKey, BTreeSet<Tid>>,
        /// Last object number given out.
        inherit pub last_object: u64,
        /// Deadlines of sleeping tasks.
        reset pub deadlines: Deadlines,
        /// Run queue and vCPUs.
        reset pub sched: Sched,
        /// Clocks, the time page, interval timers.
        reset pub time: Timekeeper,
        /// Random numbers for the guest.
        reset pub entropy: Entropy,
        /// Counters.
        reset pub counters: Counters,
        /// What programs asked for in vain.
        reset pub refused: crate::refused::Refused,
        /// Requests and answers.
        reset pub work: WorkChannel,
        /// The AWS Lambda Runtime API, where the sandbox serves it.
        inherit pub lambda: crate::lambda::Service,
        /// Sandbox id and hostname.
        reissue pub identity: Identity,
        /// Memory, vCPUs, tasks.
        reissue pub limits: Limits,
        /// Processes that are to end when those that end now have.
        inherit pub ends: crate::task::exit::Ends,
        /// How the first process ended, once it has.
        inherit pub exited: Option<ExitStatus>,
        /// Prints system calls while set.
        #[serde(skip)]
        inherit pub strace: Option<crate::strace::Sink>,
    }
}

impl Kernel {
    /// A booted guest OS without processes: the state of an OS seed.
    pub fn new(platform: Arc<dyn Platform>, limits: Limits) -> Result<Self, crate::errno::Errno> {
        let platform = PlatformHandle(platform);
        let mut kernel = Kernel {
            tasks: BTreeMap::new(),
            processes: BTreeMap::new(),
            next_id: 1,
            mms: Store::default(),
            frames: Frames::new(platform.arena_len()),
            fd_tables: Store::default(),
            fs_contexts: Store::default(),
            files: Store::default(),
            vfs: Vfs::new(),
            objects: Files::default(),
            futexes: Futexes::default(),
            ipc: crate::ipc::Ipc::default(),
            polls: Polls::default(),
            aio: crate::aio::Aio::default(),
            waiters: BTreeMap::new(),
            last_object: 0,
            deadlines: Deadlines::default(),
            sched: Sched::default(),
            time: Timekeeper::default(),
            entropy: Entropy::default(),
            counters: Counters::default(),
            refused: crate::refused::Refused::default(),
            work: WorkChannel::default(),
            lambda: crate::lambda::Service::default(),
            identity: Identity { sandbox_id: String::new(), hostname: "coppice".into(), generation: 0 },
            limits,
            ends: crate::task::exit::Ends::default(),
            exited: None,
            strace: None,
            platform,
        };
        kernel.work.object = kernel.new_object();
        let mut seed = [0; 32];
        kernel.platform.entropy(&mut seed);
        kernel.entropy.reseed(&seed);
        kernel.init_time()?;
        kernel.init_vfs();
        Ok(kernel)
    }

    /// Brings inherited state up to date in the child of a fork: applies each field's declaration, moves relative
    /// deadlines by the time the seed was paused, and wakes what was declared reset.
    pub fn after_fork(&mut self, args: &ForkArgs) {
        let object = self.work.object;
        self.apply_fork(args);
        self.work.object = object;
        let pause = args.now.saturating_sub(args.paused_at);
        let mut runnable = Vec::new();
        for (tid, task) in &mut self.tasks {
            match &mut task.state {
                crate::task::TaskState::Blocked(block) => {
                    if let Some(deadline) = &mut block.deadline {
                        if block.relative {
                            *deadline = deadline.saturating_add(pause);
                        }
                        self.deadlines.0.insert((*deadline, *tid));
                    }
                }
                crate::task::TaskState::Runnable => runnable.push(*tid),
                _ => {}
            }
        }
        for tid in runnable {
            self.sched.push(tid);
        }
        self.time_after_fork(pause);
        self.vfs_after_fork(args);
        self.mm_after_fork();
    }

    /// Every field's declared behaviour at a fork.
    pub fn inheritance_table() -> Vec<FieldClass> {
        let mut all = Vec::new();
        all.extend_from_slice(Kernel::FORK_CLASSES);
        all.extend_from_slice(Task::FORK_CLASSES);
        all.extend_from_slice(Process::FORK_CLASSES);
        all
    }

    /// The task, if it exists.
    pub fn task(&self, tid: Tid) -> Option<&Task> {
        self.tasks.get(&tid)
    }

    /// The task, if it exists.
    pub fn task_mut(&mut self, tid: Tid) -> Option<&mut Task> {
        self.tasks.get_mut(&tid)
    }

    /// The process of a task.
    pub fn process_of(&self, tid: Tid) -> Option<&Process> {
        self.processes.get(&self.tasks.get(&tid)?.pid)
    }

    /// The process of a task.
    pub fn process_of_mut(&mut self, tid: Tid) -> Option<&mut Process> {
        self.processes.get_mut(&self.tasks.get(&tid)?.pid)
    }

    /// A new object number for [`WaitKey::Object`].
    pub fn new_object(&mut self) -> u64 {
        self.last_object += 1;
        self.last_object
    }

    /// Wakes every task that sleeps on `key`; they run their handlers again.
    pub fn wake(&mut self, key: WaitKey) {
        if let WaitKey::Object(object) = key {
            self.object_changed(object);
        }
        if let Some(tids) = self.waiters.get(&key) {
            for tid in tids.clone() {
                self.unblock(tid, Cause::Woken);
            }
        }
    }

    /// Ends a task's sleep for `cause`. Nothing happens when it does not sleep.
    pub fn unblock(&mut self, tid: Tid, cause: Cause) {
        let Some(block) = self.take_block(tid) else { return };
        if let Some(task) = self.tasks.get_mut(&tid) {
            task.resume = Some(Resume { cause, deadline: block.deadline, memo: block.memo });
        }
        self.sched.push(tid);
    }

    /// Removes a sleeping task from all queues and marks it runnable without putting it on the run queue.
    pub fn take_block(&mut self, tid: Tid) -> Option<Block> {
        let task = self.tasks.get_mut(&tid)?;
        let crate::task::TaskState::Blocked(block) = &task.state else { return None };
        let block = block.clone();
        task.state = crate::task::TaskState::Runnable;
        for key in &block.on {
            if let Some(set) = self.waiters.get_mut(key) {
                set.remove(&tid);
                if set.is_empty() {
                    self.waiters.remove(key);
                }
            }
        }
        if let Some(deadline) = block.deadline {
            self.deadlines.0.remove(&(deadline, tid));
        }
        Some(block)
    }

    /// Puts a task to sleep outside of a system call; a signal that is pending ends the sleep before it begins.
    pub(crate) fn sleep_now(&mut self, tid: Tid, block: Block) {
        self.put_to_sleep(tid, block);
        if self.has_deliverable_signal(tid) {
            self.interrupt(tid);
        }
    }

    fn put_to_sleep(&mut self, tid: Tid, block: Block) {
        for key in &block.on {
            self.waiters.entry(*key).or_default().insert(tid);
        }
        if let Some(deadline) = block.deadline {
            self.deadlines.0.insert((deadline, tid));
        }
        if let Some(task) = self.tasks.get_mut(&tid) {
            task.state = crate::task::TaskState::Blocked(block);
        }
    }

    /// Hands a message to whoever reads the work channel.
    pub fn push_work(&mut self, message: &[u8]) {
        let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
        self.work.inbox.extend(len.to_le_bytes());
        self.work.inbox.extend(message);
        let object = self.work.object;
        self.wake(WaitKey::Object(object));
        self.lambda_poke();
    }

    /// The oldest message that the guest wrote to the work channel.
    pub fn take_answer(&mut self) -> Option<Vec<u8>> {
        let answer = self.work.outbox.pop_front();
        if answer.is_some() {
            // A writer may go on.
            let object = self.work.object;
            self.wake(WaitKey::Object(object));
        }
        answer
    }

    /// Tells the kernel that a host descriptor it asked to poll is ready.
    pub fn host_ready(&mut self, fd: i32) {
        self.console_ready(fd);
        for object in self.host_objects(fd) {
            self.wake(WaitKey::Object(object));
        }
    }

    /// Fires what is due at `now`: deadlines of sleeping tasks and timers.
    pub fn run_timers(&mut self, now: Ns) {
        while let Some((deadline, tid)) = self.deadlines.0.first().copied() {
            if deadline > now {
                break;
            }
            self.deadlines.0.remove(&(deadline, tid));
            self.unblock(tid, Cause::TimedOut);
        }
        self.fire_timers(now);
    }

    /// The earliest time at which [`Kernel::run_timers`] has something to do.
    pub fn next_deadline(&self) -> Option<Ns> {
        let tasks = self.deadlines.0.first().map(|(t, _)| *t);
        [tasks, self.next_timer(), self.cpu_deadline()].into_iter().flatten().min()
    }

    /// Says what this vCPU is to do now. Loads the chosen task's extended state.
    pub fn next(&mut self, vcpu: &mut dyn Vcpu) -> Next {
        let now = self.platform.monotonic();
        self.run_timers(now);
        self.refresh_time(now);
        self.look_at_load(now);
        loop {
            self.lambda_pump();
            if let Some(status) = &self.exited {
                return Next::Exited(*status);
            }
            let Some(tid) = self.sched.pick(vcpu.index(), &self.tasks) else {
                // A task whose state stays in this vCPU could be run by no other while this one sleeps.
                if self.sched.online() > 1 {
                    self.save_fpu(vcpu);
                }
                return Next::Idle {
                    deadline: self.next_deadline(),
                    poll: self.host_polls(),
                    awaits_work: self.lambda.awaits_work()
                        || self.waiters.contains_key(&WaitKey::Object(self.work.object)),
                };
            };
            self.bind(vcpu, tid);
            if self.task(tid).is_some_and(|t| (t.resume.is_some() || t.aux.enter) && t.syscall.is_some()) {
                self.run_syscall(vcpu, tid);
            }
            if self.return_to_user(vcpu, tid) {
                if let Some(task) = self.tasks.get_mut(&tid) {
                    task.aux.entered = now.max(1);
                }
                return Next::Run(tid);
            }
        }
    }

    /// Makes `vcpu` hold the extended state of `tid`, saving whoever's it held.
    fn bind(&mut self, vcpu: &mut dyn Vcpu, tid: Tid) {
        let index = vcpu.index();
        self.objects.watches.actor = tid;
        if let Some(task) = self.tasks.get_mut(&tid) {
            task.state = crate::task::TaskState::Running(index);
        }
        let owner = self.sched.fpu_owner(index);
        if owner == Some(tid) {
            return;
        }
        self.save_fpu(vcpu);
        let loaded = match self.tasks.get_mut(&tid).and_then(|t| t.xstate.take()) {
            Some(image) => vcpu.load_xstate(&image).is_ok(),
            None => false,
        };
        if !loaded {
            vcpu.reset_xstate();
        }
        self.sched.set_fpu_owner(index, Some(tid));
    }

    /// Saves the extended state that the vCPU holds into its task, so that the task can run elsewhere (on another vCPU, or in the child
    /// of a fork).
    pub fn save_fpu(&mut self, vcpu: &mut dyn Vcpu) {
        if let Some(old) = self.sched.fpu_owner(vcpu.index()) {
            if let Some(task) = self.tasks.get_mut(&old) {
                task.xstate = Some(vcpu.save_xstate());
            }
            self.sched.set_fpu_owner(vcpu.index(), None);
        }
    }

    /// Takes what happened on a vCPU that ran `tid`. The driver has stored the task's registers.
    pub fn on_exit(&mut self, vcpu: &mut dyn Vcpu, tid: Tid, exit: Exit) {
        if !self.tasks.contains_key(&tid) {
            self.sched.set_fpu_owner(vcpu.index(), None);
            return;
        }
        let now = self.platform.monotonic();
        if let Some(task) = self.tasks.get_mut(&tid) {
            if task.aux.entered != 0 {
                task.cpu_ns = task.cpu_ns.saturating_add(now.saturating_sub(task.aux.entered));
                task.aux.entered = 0;
            }
            // A critical section (rseq(2)) holds no system call, so only these can have cut one.
            task.aux.rseq_event |= !matches!(exit, Exit::Syscall);
        }
        if !matches!(exit, Exit::Syscall) {
            self.trace_no_call(tid);
        }
        self.objects.watches.actor = tid;
        match exit {
            // A thread that is to die does nothing any more: its exit_group or execve would be the whole process's.
            _ if self.task(tid).is_some_and(|t| t.exiting) => {}
            Exit::Syscall => {
                self.enter_syscall(tid);
                if !self.trace_entry(tid) {
                    self.run_syscall(vcpu, tid);
                }
            }
            Exit::Exception { vector: vector @ (16 | 19), .. } => self.float_exception(vcpu, tid, vector),
            Exit::Exception { vector, error, cr2 } => self.exception(tid, vector, error, cr2),
            Exit::Illegal => self.force_signal(tid, SigInfo::segv_general()),
            Exit::BadMemory => self.force_signal(tid, SigInfo::bus_unknown()),
            Exit::Preempted => {}
        }
        self.lambda_pump();
        self.account(tid, now);
        self.after_exit(vcpu, tid, matches!(exit, Exit::Preempted));
    }

    /// Adds the time since an exit to the task's kernel time, and looks at its process's timers of processor time.
    fn account(&mut self, tid: Tid, since: Ns) {
        let spent = self.platform.monotonic().saturating_sub(since);
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        task.aux.system_ns = task.aux.system_ns.saturating_add(spent);
        let pid = task.pid;
        self.run_cpu_timers(pid);
    }

    /// Requeues a task that is still runnable, and lets go of its extended state where another vCPU may want it.
    fn after_exit(&mut self, vcpu: &mut dyn Vcpu, tid: Tid, preempted: bool) {
        let Some(task) = self.tasks.get_mut(&tid) else {
            self.sched.set_fpu_owner(vcpu.index(), None);
            return;
        };
        let here = self.sched.allows(task.aux.vcpus(), vcpu.index());
        if matches!(task.state, crate::task::TaskState::Running(_)) {
            task.state = crate::task::TaskState::Runnable;
            if preempted || !here {
                self.sched.push(tid);
            } else {
                self.sched.push_front(tid, vcpu.index());
            }
        }
        if self.sched.online() > 1 && (!here || self.sched.pick_would_move(tid, vcpu.index())) {
            self.save_fpu(vcpu);
        }
    }

    /// Records the call that `syscall` asked for.
    fn enter_syscall(&mut self, tid: Tid) {
        if let Some(task) = self.tasks.get_mut(&tid) {
            let r = &task.regs;
            // Linux takes the number from eax.
            let number = u64::from(crate::num::low32(r.rax));
            task.syscall = Some(crate::task::Call { number, args: [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9] });
            task.resume = None;
            Counters::count(&mut self.counters.syscalls, number);
        }
    }

    /// Calls the handler of the task's current system call and acts on its outcome.
    fn run_syscall(&mut self, vcpu: &mut dyn Vcpu, tid: Tid) {
        let Some(call) = self.task_mut(tid).and_then(|t| {
            t.aux.enter = false;
            t.syscall.clone()
        }) else {
            return;
        };
        let start = self.counters.timed.then(|| self.platform.monotonic());
        self.userfault_begin(tid);
        let result = crate::syscall::dispatch(self, vcpu, tid, &call);
        let result = self.userfault_end(tid, &call, result);
        if let Some(start) = start {
            let ns = self.platform.monotonic().saturating_sub(start);
            self.counters.add_time(call.number, ns, &result);
        }
        if let Ok(Outcome::Block(block)) = result {
            if let Some(task) = self.tasks.get_mut(&tid) {
                task.resume = None;
            }
            if self.trace_before_sleep(tid, &block) {
                return;
            }
            // A signal that is already pending interrupts the sleep before it begins.
            self.sleep_now(tid, block);
            self.userfault_asleep(tid);
            return;
        }
        // A successful execve(2) was printed before its arguments went.
        if !(matches!(result, Ok(Outcome::Done)) && matches!(call.number, 59 | 322)) {
            self.trace_call(tid, &call, &result);
        }
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        task.syscall = None;
        task.resume = None;
        match result {
            Ok(Outcome::Return(value)) => task.regs.rax = value,
            Err(errno) => task.regs.rax = errno.to_rax(),
            Ok(Outcome::Done | Outcome::Block(_)) => {}
        }
        self.trace_finished(tid);
    }
}
