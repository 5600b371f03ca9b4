//! Signals: dispositions, queues, delivery, frames.

use crate::kernel::Kernel;
use crate::platform::{Va, Vcpu};
use crate::task::Tid;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// One disposition, as in `struct sigaction`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigAction {
    /// SIG_DFL (0), SIG_IGN (1) or the handler's address.
    pub handler: Va,
    /// SA_ flags.
    pub flags: u64,
    /// Return trampoline (SA_RESTORER).
    pub restorer: Va,
    /// Mask while the handler runs.
    pub mask: u64,
}

/// sigaltstack(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AltStack {
    /// Lowest address.
    pub sp: Va,
    /// Bytes.
    pub size: u64,
    /// SS_ flags; SS_DISABLE when there is none (a `Default` stack has size 0 and counts as disabled).
    pub flags: u32,
}

/// `siginfo_t` in the parts that the kernel fills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigInfo {
    /// Signal number.
    pub signo: u32,
    /// si_errno.
    pub errno: i32,
    /// si_code.
    pub code: i32,
    /// The union after si_code, bytes 16..48 of the structure, in its first 32 bytes (little endian).
    pub fields: [u64; 4],
}

/// Pending signals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigQueue {
    /// In order of arrival; a standard signal at most once.
    pub queue: VecDeque<SigInfo>,
}

impl SigInfo {
    /// SIGSEGV from a general-protection fault: SI_KERNEL, no address.
    pub fn segv_general() -> Self {
        SigInfo { signo: 11, errno: 0, code: 0x80, fields: [0; 4] }
    }

    /// SIGBUS at an unknown address.
    pub fn bus_unknown() -> Self {
        SigInfo { signo: 7, errno: 0, code: 2, fields: [0; 4] }
    }
}

impl Kernel {
    /// Sends a signal to a process: queued, ignored or woken for as its disposition says.
    pub fn signal_process(&mut self, _pid: u32, _info: SigInfo) {}

    /// Sends a signal to one thread.
    pub fn signal_task(&mut self, _tid: Tid, _info: SigInfo) {}

    /// Sends a signal that cannot be ignored or blocked (a fault): resets such a disposition to the default first.
    pub fn force_signal(&mut self, _tid: Tid, _info: SigInfo) {}

    /// Whether a signal would interrupt the task's sleep now.
    pub fn has_deliverable_signal(&self, _tid: Tid) -> bool {
        false
    }

    /// Ends a task's sleep because of a signal: makes it runnable and remembers how its call restarts.
    pub fn interrupt(&mut self, _tid: Tid) {}

    /// The last thing before user mode: takes the task off when it is exiting, delivers pending signals (frames on its stack),
    /// restarts or ends an interrupted call, fixes up rseq. Returns whether the task goes to user mode on this vCPU now.
    pub fn return_to_user(&mut self, _vcpu: &mut dyn Vcpu, _tid: Tid) -> bool {
        true
    }

    /// Turns a processor exception into its resolution (a page fault) or its signal.
    pub fn exception(&mut self, _tid: Tid, _vector: u8, _error: u64, _cr2: u64) {}
}
