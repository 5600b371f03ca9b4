//! Tasks (threads) and processes (thread groups): what each is made of.
//!
//! Lifecycle lives in the siblings: `clone` (birth), `exit` (death, wait). A task refers to its address space,
//! descriptor table and file-system context by id, so that clone(2)'s sharing is a shared number.

pub use fds::FdTable;

use crate::forkable;
use crate::platform::{Regs, Va};
use crate::signal::{AltStack, SigAction, SigQueue};
use crate::wait::{Block, Resume, WaitKey};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

pub mod clone;
pub mod creds;
pub mod exit;
mod fds;

pub use creds::Creds;

/// A thread id; the first thread's id is its process id.
pub type Tid = u32;

/// The system call that a task is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// rax at entry.
    pub number: u64,
    /// rdi, rsi, rdx, r10, r8, r9 at entry.
    pub args: [u64; 6],
}

/// Where a task is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskState {
    /// On the run queue.
    Runnable,
    /// In user mode (or being handled) on this vCPU.
    Running(usize),
    /// Asleep in a system call.
    Blocked(Block),
    /// Stopped by a signal.
    Stopped,
    /// Stopped for its tracer.
    Traced,
}

/// How a process ended, as wait(2) encodes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// exit(2) with this code, 0..=255.
    Code(u8),
    /// Killed by this signal.
    Signal(u8),
}

/// rseq(2) registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rseq {
    /// Address of `struct rseq`; 0 when not registered.
    pub addr: Va,
    /// Its length in bytes.
    pub len: u32,
    /// The signature before each abort handler.
    pub signature: u32,
}

forkable! {
    /// One thread.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub struct Task {
        /// Thread id.
        inherit pub tid: Tid,
        /// Process (thread group) id.
        inherit pub pid: u32,
        /// General registers while not in user mode.
        inherit pub regs: Regs,
        /// Extended state while no vCPU holds it; `None` is the initial state (or: a vCPU holds it).
        inherit pub xstate: Option<Vec<u8>>,
        /// Where it is.
        inherit pub state: TaskState,
        /// The call it is in.
        inherit pub syscall: Option<Call>,
        /// Set when its blocked call is to be tried again.
        inherit pub resume: Option<Resume>,
        /// Address space (a key of `Kernel::mms`).
        inherit pub mm: u64,
        /// Descriptor table (a key of `Kernel::fd_tables`).
        inherit pub files: u64,
        /// Working directory and umask (a key of `Kernel::fs_contexts`).
        inherit pub fs: u64,
        /// Blocked signals, bit n-1 for signal n.
        inherit pub sigmask: u64,
        /// Mask to restore when the current call (sigsuspend, ppoll, ...) ends.
        inherit pub saved_sigmask: Option<u64>,
        /// Signals directed at this thread.
        inherit pub pending: SigQueue,
        /// sigaltstack(2).
        inherit pub altstack: AltStack,
        /// set_tid_address(2); 0 for none.
        inherit pub clear_child_tid: Va,
        /// set_robust_list(2): head address; 0 for none.
        inherit pub robust_list: Va,
        /// rseq(2).
        inherit pub rseq: Rseq,
        /// PR_SET_NAME, NUL-padded.
        inherit pub name: [u8; 16],
        /// User-mode time on a vCPU, ns (an estimate from entry to exit).
        inherit pub cpu_ns: u64,
        /// The process is to die: leave at the next return to user mode.
        inherit pub exiting: bool,
        /// Who traces it, and where it is stopped for that.
        inherit pub trace: Option<Box<crate::ptrace::Trace>>,
        /// Bookkeeping of signals, rseq and accounting.
        inherit pub aux: TaskAux,
    }
}

forkable! {
    /// One process.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub struct Process {
        /// Process id.
        inherit pub pid: u32,
        /// Parent's process id; 0 for the first process.
        inherit pub parent: u32,
        /// Process group.
        inherit pub pgid: u32,
        /// Session.
        inherit pub sid: u32,
        /// Living threads.
        inherit pub threads: BTreeSet<Tid>,
        /// Signal dispositions, index n-1 for signal n.
        inherit pub actions: Vec<SigAction>,
        /// Signals directed at the process.
        inherit pub pending: SigQueue,
        /// How it ended, while it waits to be reaped.
        inherit pub zombie: Option<ExitStatus>,
        /// Status that a group exit in progress will end with.
        inherit pub group_exit: Option<ExitStatus>,
        /// Signal sent to the parent at death (SIGCHLD).
        inherit pub exit_signal: u32,
        /// Resource limits by RLIMIT_ number: (soft, hard).
        inherit pub rlimits: BTreeMap<u32, (u64, u64)>,
        /// Credentials.
        inherit pub creds: Creds,
        /// Absolute path of the program.
        inherit pub exe: Vec<u8>,
        /// The final auxiliary vector as bytes, for /proc/self/auxv.
        inherit pub auxv: Vec<u8>,
        /// `CLOCK_MONOTONIC` at birth, ns.
        inherit pub started: u64,
        /// PR_SET_DUMPABLE.
        inherit pub dumpable: u32,
        /// PR_SET_NO_NEW_PRIVS.
        inherit pub no_new_privs: bool,
        /// Timers, accounting and the rarer attributes.
        inherit pub aux: ProcessAux,
    }
}

/// What a task carries besides its ABI state. All zero in a new task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskAux {
    /// The sleep that a signal ended, until the call is restarted or failed at the return to user mode.
    pub interrupted: Option<Block>,
    /// Vector of the last exception, as a signal frame shows it.
    pub trapno: u64,
    /// Its error code.
    pub trap_error: u64,
    /// The last page fault's address.
    pub cr2: u64,
    /// `CLOCK_MONOTONIC` when it last went to user mode, ns; 0 while it is not there.
    pub entered: u64,
    /// rseq(2): it was preempted or got a signal, so its critical section must be looked at.
    pub rseq_event: bool,
    /// The vCPU whose number its rseq area shows.
    pub rseq_cpu: Option<usize>,
    /// nice(2) value, -20..=19.
    pub nice: i32,
    /// PR_SET_PDEATHSIG; 0 for none.
    pub pdeathsig: u32,
    /// Scheduling policy, with SCHED_RESET_ON_FORK.
    pub policy: u32,
    /// Real-time priority, 0..=99.
    pub priority: u32,
    /// CPUs that it asked for, a mask; empty for all.
    pub affinity: Vec<u8>,
    /// ioprio_set(2); 0 when nothing was set.
    pub ioprio: u32,
    /// PR_SET_TIMERSLACK, ns; 0 for the default.
    pub timer_slack: u64,
    /// Time in which the kernel worked for it, ns.
    pub system_ns: u64,
    /// Its system call is still to be made: a tracer held it up.
    pub enter: bool,
}

/// What a process carries besides its ABI state. All zero in a new process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProcessAux {
    /// The parent sleeps in vfork(2) until this process executes a program or ends.
    pub vforked: bool,
    /// User time of threads that ended, ns.
    pub dead_cpu_ns: u64,
    /// User time of reaped children, ns.
    pub child_cpu_ns: u64,
    /// setitimer(2) and timer_create(2).
    pub timers: crate::timers::ProcessTimers,
    /// PR_SET_CHILD_SUBREAPER.
    pub subreaper: bool,
    /// It has executed a program since it was born.
    pub executed: bool,
    /// personality(2).
    pub personality: u32,
    /// Whether it is stopped.
    pub stop: StopState,
    /// PR_SET_THP_DISABLE.
    pub thp_disabled: bool,
    /// Kernel time of threads that ended, ns.
    pub dead_system_ns: u64,
    /// Kernel time of reaped children, ns.
    pub child_system_ns: u64,
    /// TIOCNOTTY: the terminal of its session is not its own.
    pub tty_given_up: bool,
    /// It outlived its parent and was given to process 1 or a subreaper.
    pub adopted: bool,
    /// It has waited for any child or for a group's: it takes care of what it adopts.
    pub reaps: bool,
    /// What was written to oom_score_adj, -1000..=1000.
    pub oom_score_adj: i32,
    /// Its tracer, not its parent, is to wait for its end first.
    pub traced_by: Option<u32>,
    /// Threads that it traced, have ended, and that it has not waited for: id, process group, user, how.
    pub dead_tracees: std::collections::VecDeque<(Tid, u32, u32, ExitStatus)>,
}

/// A process's stop by a signal, and what its parent has still to hear of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopState {
    /// The signal that stopped it, while it is stopped.
    pub signal: Option<u32>,
    /// The parent was told that all threads have stopped.
    pub announced: bool,
    /// No wait(2) has reported the stop.
    pub unreported: bool,
    /// It was continued, and no wait(2) has reported that.
    pub continued: bool,
}

impl TaskAux {
    /// The first 64 vCPUs of the affinity mask; 0 when nothing was set.
    pub fn vcpus(&self) -> u64 {
        self.affinity.iter().take(8).rev().fold(0, |mask, byte| mask << 8 | u64::from(*byte))
    }
}

impl Task {
    /// A runnable task in its initial state that refers to nothing yet.
    pub fn new(tid: Tid, pid: u32) -> Self {
        Task {
            tid,
            pid,
            regs: Regs::default(),
            xstate: None,
            state: TaskState::Runnable,
            syscall: None,
            resume: None,
            mm: 0,
            files: 0,
            fs: 0,
            sigmask: 0,
            saved_sigmask: None,
            pending: SigQueue::default(),
            altstack: AltStack::default(),
            clear_child_tid: 0,
            robust_list: 0,
            rseq: Rseq::default(),
            name: [0; 16],
            cpu_ns: 0,
            exiting: false,
            trace: None,
            aux: TaskAux::default(),
        }
    }
}

impl Process {
    /// A process without threads, in a group and session of its own.
    pub fn new(pid: u32, parent: u32) -> Self {
        Process {
            pid,
            parent,
            pgid: pid,
            sid: pid,
            threads: BTreeSet::new(),
            actions: vec![SigAction::default(); 64],
            pending: SigQueue::default(),
            zombie: None,
            group_exit: None,
            exit_signal: 17,
            rlimits: BTreeMap::new(),
            creds: Creds::default(),
            exe: Vec::new(),
            auxv: Vec::new(),
            started: 0,
            dumpable: 1,
            no_new_privs: false,
            aux: ProcessAux::default(),
        }
    }
}

/// One descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fd {
    /// The open file description (a key of `Kernel::files`).
    pub file: u64,
    /// FD_CLOEXEC.
    pub cloexec: bool,
}

/// Root, working directory and umask, shared by tasks cloned with CLONE_FS.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FsContext {
    /// Inode of the root directory.
    pub root: crate::vfs::InodeId,
    /// Inode of the working directory.
    pub cwd: crate::vfs::InodeId,
    /// umask(2).
    pub umask: u32,
    /// Tasks that share it.
    pub refs: u32,
}

/// The waiters' key for children of a process.
pub fn child_key(pid: u32) -> WaitKey {
    WaitKey::Child(pid)
}
