//! Forking a paused sandbox: the child process is a sandbox with the same guest.
//!
//! The whole guest is memory of this process, so clone3(2) without a stack of its own is the fork. What must hold: one
//! thread (another one could hold the allocator's lock), no virtual machine (KVM refuses its descriptors in the child).

use crate::error::Error;
use crate::machine::now;
use crate::sandbox::Sandbox;
use guest::fork::ForkArgs;
use std::mem::size_of;
use std::os::fd::{FromRawFd, OwnedFd};

const PR_GET_TID_ADDRESS: i32 = 40;

/// How the child hangs together with other processes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForkOptions {
    /// The parent of the calling process reaps the child (CLONE_PARENT), not the calling process.
    pub parent_reaps: bool,
}

/// What [`Sandbox::fork`] returns, twice.
#[derive(Debug)]
pub enum Forked {
    /// In the process that called.
    Parent {
        /// The child's process id.
        pid: i32,
        /// A descriptor of the child process.
        pidfd: OwnedFd,
        /// Time that clone3 took, ns.
        clone_ns: u64,
    },
    /// In the child, after the guest kernel was brought up to date.
    Child,
}

/// `struct clone_args` of clone3(2), its first version.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

impl Sandbox {
    /// Forks the process of a paused sandbox. In the child the guest kernel has been told ([`guest::kernel::Kernel::after_fork`]), and the
    /// next [`Sandbox::run`] makes a new virtual machine. The child is killed when its parent dies.
    ///
    /// Fails when the sandbox is not paused, or its process has other threads.
    pub fn fork(&mut self, args: ForkArgs, options: ForkOptions) -> Result<Forked, Error> {
        if !self.is_paused() {
            return Err(Error::NotPaused);
        }
        let threads = threads()?;
        if threads != 1 {
            return Err(Error::Threads(threads));
        }
        let mut pidfd: i32 = -1;
        let mut clone = CloneArgs { flags: libc::CLONE_PIDFD as u64, ..CloneArgs::default() };
        clone.pidfd = (&raw mut pidfd).addr() as u64;
        if options.parent_reaps {
            // The exit signal is then that of the calling process, and clone3 wants none named.
            clone.flags |= libc::CLONE_PARENT as u64;
        } else {
            clone.exit_signal = libc::SIGCHLD as u64;
        }
        if let Some(address) = tid_address() {
            // The C library caches the thread id there; a raw clone3 would leave the parent's.
            clone.flags |= (libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID) as u64;
            clone.child_tid = address;
        }
        // SAFETY: getpid and getppid have no preconditions.
        let reaper = unsafe { if options.parent_reaps { libc::getppid() } else { libc::getpid() } };
        let started = now();
        // SAFETY: without CLONE_VM and with one thread the child gets a copy of this process, as fork(2) gives; the structure and
        // what it points to are valid for the call, and the thread-id address is the C library's own.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const clone, size_of::<CloneArgs>()) };
        match pid {
            0 => {
                die_with(reaper);
                self.kernel().after_fork(&args);
                self.timings.clone = now() - started;
                Ok(Forked::Child)
            }
            pid if pid > 0 => {
                let clone_ns = now() - started;
                self.timings.clone = clone_ns;
                // SAFETY: clone3 succeeded, so it stored a new descriptor that is nobody else's.
                let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
                Ok(Forked::Parent { pid: pid as i32, pidfd, clone_ns })
            }
            _ => Err(cannot_clone(std::io::Error::last_os_error())),
        }
    }
}

fn cannot_clone(source: std::io::Error) -> Error {
    let what = match source.raw_os_error() {
        Some(libc::EAGAIN) => {
            "clone the sandbox process: allow more processes (pids.max of the control group, kernel.threads-max)"
        }
        _ => "clone the sandbox process",
    };
    Error::Host { what, source }
}

/// Kills this process when its parent dies; at once when that has happened already.
fn die_with(parent: i32) {
    // SAFETY: prctl with these arguments only sets a number; the others have no preconditions.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != parent {
            libc::_exit(1);
        }
    }
}

fn threads() -> Result<usize, Error> {
    let failed = |source| Error::Host { what: "count the threads of the sandbox process", source };
    Ok(std::fs::read_dir("/proc/self/task").map_err(failed)?.count())
}

/// Where the C library keeps the thread id; `None` where the host kernel does not tell.
fn tid_address() -> Option<u64> {
    let mut address = 0u64;
    // SAFETY: the call stores one pointer into the local.
    let result = unsafe { libc::prctl(PR_GET_TID_ADDRESS, &raw mut address) };
    (result == 0 && address != 0).then_some(address)
}

/// Runs `work` in a forked child that is killed after `limit`; whether it said true. For a self-test: unlike [`Sandbox::fork`] it may be
/// called in a process with several threads, so `work` must hold no lock that another thread might have taken.
pub(crate) fn try_in_child(
    work: impl FnOnce() -> Result<bool, Error>,
    limit: std::time::Duration,
) -> Result<bool, Error> {
    // SAFETY: the C library's fork keeps its own locks consistent; the child runs only `work` and leaves without destructors.
    match unsafe { libc::fork() } {
        -1 => Err(Error::last("fork")),
        0 => {
            let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(if matches!(passed, Ok(Ok(true))) { 0 } else { 1 }) }
        }
        pid => {
            let started = std::time::Instant::now();
            let mut status = 0;
            loop {
                // SAFETY: waits for the child made above; the status is a local.
                match unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } {
                    0 if started.elapsed() < limit => std::thread::sleep(std::time::Duration::from_millis(1)),
                    0 => {
                        // SAFETY: kills and reaps the child made above, which is not reaped yet.
                        unsafe {
                            libc::kill(pid, libc::SIGKILL);
                            libc::waitpid(pid, &raw mut status, 0);
                        }
                        return Ok(false);
                    }
                    n if n == pid => return Ok(status == 0),
                    _ => return Err(Error::last("wait for a forked child")),
                }
            }
        }
    }
}
