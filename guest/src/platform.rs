//! What the guest kernel needs of the machine below it, and nothing more.
//!
//! The kernel knows nothing of KVM. It sees an [`Platform`] (the arena, guest page tables, clocks, entropy) and,
//! while it handles an exit, the [`Vcpu`] that exited. `vmm` implements both on KVM; [`fake`] implements them on
//! plain memory for unit tests and fuzzing.
//!
//! Addresses: [`Gpa`] is an offset into the arena in bytes; [`Va`] is a guest-virtual address.

use serde::{Deserialize, Serialize};
use std::os::fd::BorrowedFd;

pub mod fake;

/// A guest-physical address: an offset into the arena, in bytes.
pub type Gpa = u64;
/// A guest-virtual address, in bytes.
pub type Va = u64;
/// A time in nanoseconds on the guest's `CLOCK_MONOTONIC` (which is the host's).
pub type Ns = u64;

/// Bytes in a page.
pub const PAGE_SIZE: u64 = 4096;
/// Bytes in a large (PMD-level) page.
pub const LARGE_PAGE: u64 = 2 << 20;
/// First guest-virtual address that user mappings may not reach. Above it lie the machine's own pages (stub,
/// descriptor tables), mapped into every address space. Linux has `0x7fff_ffff_f000`.
pub const TASK_SIZE: Va = 0x7fff_0000_0000;
/// First guest-physical address that the kernel's extent allocator may hand out; below it the machine keeps its
/// descriptor tables and page tables.
pub const FIRST_EXTENT: Gpa = 32 << 20;

/// One address space's page-table root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Root(pub u64);

/// What a leaf translation allows user mode to do. A present leaf is always readable (x86 has no write-only or
/// execute-only pages without protection keys); "no access" is expressed by unmapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Stores are allowed.
    pub write: bool,
    /// Instruction fetches are allowed.
    pub exec: bool,
}

/// Errors of the platform.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The arena's reserved range or its page-table pool is used up.
    #[error("the arena is exhausted: raise the sandbox's memory limit")]
    Exhausted,
    /// A guest-physical range lies outside the arena.
    #[error("guest-physical range {gpa:#x}+{len:#x} lies outside the arena")]
    OutOfArena {
        /// First byte.
        gpa: Gpa,
        /// Length in bytes.
        len: u64,
    },
    /// A host system call failed.
    #[error("the host refused to {what}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// The host's error.
        #[source]
        source: std::io::Error,
    },
}

/// The arena, the guest page tables, clocks and entropy. All methods may be called from any vCPU thread; the kernel
/// calls them with its own lock held.
pub trait Platform: Send + Sync + std::fmt::Debug {
    /// Size of the arena in bytes: all extents lie in `FIRST_EXTENT..arena_len()`.
    fn arena_len(&self) -> u64;

    /// Copies from the arena. A fresh or discarded page reads as zeroes.
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), PlatformError>;
    /// Copies into the arena.
    fn write(&self, gpa: Gpa, buf: &[u8]) -> Result<(), PlatformError>;
    /// Loads a naturally aligned 32-bit word with acquire ordering.
    fn load_u32(&self, gpa: Gpa) -> Result<u32, PlatformError>;
    /// Atomic compare-exchange of an aligned 32-bit word; `Ok(Ok(old))` when it was exchanged, `Ok(Err(seen))` when not.
    fn compare_exchange_u32(&self, gpa: Gpa, old: u32, new: u32) -> Result<Result<u32, u32>, PlatformError>;

    /// Makes a page-aligned range usable as guest memory: registers memory slots up to its end. Host pages are still
    /// allocated lazily.
    fn ensure(&self, gpa: Gpa, len: u64) -> Result<(), PlatformError>;
    /// Backs a page-aligned range with a host file from a page-aligned offset: privately (copy on write), or `shared`, so that writes
    /// reach the file, which is then open for reading and writing. Pages that lie wholly beyond the end of the file must not be
    /// touched (the host would raise SIGBUS).
    fn attach_file(
        &self,
        gpa: Gpa,
        len: u64,
        file: BorrowedFd<'_>,
        offset: u64,
        shared: bool,
    ) -> Result<(), PlatformError>;
    /// Undoes [`Platform::attach_file`]: the range is anonymous and zero again, and old translations to it are dead.
    fn detach_file(&self, gpa: Gpa, len: u64) -> Result<(), PlatformError>;
    /// Drops the contents of an anonymous range: it reads as zeroes, uses no host memory, and no vCPU holds a
    /// translation to the old pages any more.
    fn discard(&self, gpa: Gpa, len: u64) -> Result<(), PlatformError>;
    /// Anonymous bytes resident in the sandbox process, from the host's own count; used for the memory limit.
    fn resident(&self) -> u64;

    /// Makes an empty address space that holds only the machine's own pages.
    fn create_root(&self) -> Result<Root, PlatformError>;
    /// Destroys an address space with all its translations, which no vCPU can use any more when it returns true. False, and
    /// nothing is done, while a vCPU runs in it.
    fn destroy_root(&self, root: Root) -> bool;
    /// Maps `va..va+len` to `gpa..gpa+len` (all page-aligned; the target range is mapped by nobody else with more
    /// rights unless the kernel wants that sharing). Non-present entries become present; large pages are used where
    /// both sides are 2 MiB-aligned. Fails when an entry in the range is already present.
    fn map(&self, root: Root, va: Va, gpa: Gpa, len: u64, access: Access) -> Result<(), PlatformError>;
    /// Makes all leaves in the range non-present, whatever they were, and invalidates every cached translation of
    /// them on every vCPU before it returns. Contents of the target pages are kept.
    fn unmap(&self, root: Root, va: Va, len: u64) -> Result<(), PlatformError>;
    /// Changes what present leaves in the range allow; non-present leaves stay so. On return no vCPU can use more
    /// than the new access.
    fn protect(&self, root: Root, va: Va, len: u64, access: Access) -> Result<(), PlatformError>;
    /// [`Platform::protect`] of many ranges (address, length, access), which invalidates once for all. When it fails, any part
    /// may have been done.
    fn protect_all(&self, root: Root, ranges: &[(Va, u64, Access)]) -> Result<(), PlatformError> {
        ranges.iter().try_for_each(|(va, len, access)| self.protect(root, *va, *len, *access))
    }

    /// The host's `CLOCK_MONOTONIC`, ns.
    fn monotonic(&self) -> Ns;
    /// The host's `CLOCK_REALTIME`, ns since the epoch.
    fn realtime(&self) -> Ns;
    /// The host's time-stamp counter, as guest code reads it with `rdtsc`.
    fn tsc(&self) -> u64;
    /// Frequency of [`Platform::tsc`] in kHz, or `None` where guest code must not use the counter (no invariant TSC, or a guest
    /// offset that is not zero): the vDSO then makes the real system call.
    fn tsc_khz(&self) -> Option<u64>;
    /// Whether the value that `rdtscp` leaves in ecx is the number of the vCPU that runs the guest.
    fn tsc_aux_is_vcpu(&self) -> bool;
    /// Fills the buffer from the host's entropy source.
    fn entropy(&self, buf: &mut [u8]);
    /// The vDSO: a complete ELF image (a multiple of pages) that reads the time page at `image address - PAGE_SIZE`,
    /// laid out as [`crate::time::TimePage`]. Empty where there is none.
    fn vdso_image(&self) -> &[u8];
    /// Bytes of a complete XSAVE image (standard format) of every state component of this host; 576 at least.
    fn xstate_len(&self) -> usize;
    /// The XCR0 mask that guest code sees.
    fn xcr0(&self) -> u64;
    /// Tells the driver that vCPU `index` runs something that must be interrupted soon (a signal for its task, a
    /// shared mapping that changed).
    fn kick(&self, index: usize);
}

/// The vCPU that exited, while the kernel handles its exit. Holds one task's extended (FPU, SSE, AVX, ...) state.
pub trait Vcpu {
    /// Number of this vCPU, from 0.
    fn index(&self) -> usize;
    /// Reads the live extended state: a standard-format XSAVE image of [`Platform::xstate_len`] bytes.
    fn save_xstate(&mut self) -> Vec<u8>;
    /// Loads extended state. Refuses an image that the processor would refuse (bad header, reserved MXCSR bits).
    fn load_xstate(&mut self, image: &[u8]) -> Result<(), BadXstate>;
    /// Loads the initial extended state (as after execve).
    fn reset_xstate(&mut self);
}

/// An XSAVE image that the processor refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the extended state is malformed")]
pub struct BadXstate;

/// General registers of a task, as they are while it is not in user mode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are the processor's
pub struct Regs {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
    pub fs_base: u64,
    pub gs_base: u64,
}

/// Why a vCPU came back. The driver has already stored the task's registers: for a system call `rip` is the address
/// after the instruction and `rflags` the caller's; for an exception `rip` is the frame's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The `syscall` instruction.
    Syscall,
    /// A processor exception.
    Exception {
        /// Vector, 0..=31.
        vector: u8,
        /// Error code, 0 for vectors that push none.
        error: u64,
        /// Faulting address for #PF (vector 14), else 0.
        cr2: u64,
    },
    /// Guest user code caused an exit that only the stub may cause (its own `out`, a forged stub frame, `hlt`, `vmcall`
    /// that the host does not turn into an exception). Linux would deliver SIGSEGV.
    Illegal,
    /// The host could not resolve a guest memory access (`EFAULT` from KVM_RUN): a file page beyond the end of a
    /// file that was truncated. Linux would deliver SIGBUS.
    BadMemory,
    /// Interrupted by the timer or a kick; nothing is to be delivered.
    Preempted,
}
