//! Access to guest memory that may not be there: a private mapping of a host file loses its pages (also those that were written) when
//! the file is truncated, and the host then raises SIGBUS at whoever touches them.
//!
//! Every access of the VMM to guest memory that a file may back goes through a few instructions of assembly here. When one of them
//! faults, the signal handler lets it return "failed" instead: the same way in which an operating system kernel copies from user
//! memory. A SIGBUS anywhere else means what it always did. Nothing is paid while nothing fails, and no system call is needed.

use std::arch::global_asm;
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;

// System V calling convention; none of these has a stack frame, so that the way out is the same from every instruction.
global_asm!(
    ".pushsection .text.coppice_copy,\"ax\",@progbits",
    ".balign 16",
    ".globl coppice_copy_start",
    ".globl coppice_copy_bytes",
    ".globl coppice_copy_load",
    ".globl coppice_copy_exchange",
    ".globl coppice_copy_end",
    "coppice_copy_start:",
    // (to, from, length)
    "coppice_copy_bytes:",
    "mov rcx, rdx",
    "rep movsb",
    "xor eax, eax",
    "ret",
    // (word, where to store its value)
    "coppice_copy_load:",
    "mov ecx, [rdi]",
    "mov [rsi], ecx",
    "xor eax, eax",
    "ret",
    // (word, expected, new, where to store what it held)
    "coppice_copy_exchange:",
    "mov eax, esi",
    "lock cmpxchg [rdi], edx",
    "mov [rcx], eax",
    "xor eax, eax",
    "ret",
    "coppice_copy_end:",
    "mov eax, 1",
    "ret",
    ".popsection",
);

unsafe extern "C" {
    static coppice_copy_start: u8;
    static coppice_copy_end: u8;
    fn coppice_copy_bytes(to: *mut u8, from: *const u8, len: usize) -> u32;
    fn coppice_copy_load(word: *const AtomicU32, value: *mut u32) -> u32;
    fn coppice_copy_exchange(word: *const AtomicU32, old: u32, new: u32, seen: *mut u32) -> u32;
}

/// A page of the source or the target is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

fn result(code: u32) -> Result<(), Gone> {
    if code == 0 { Ok(()) } else { Err(Gone) }
}

/// Copies bytes; a part of them may have been copied when it fails.
///
/// # Safety
/// Both ranges must be mapped as wanted (only SIGBUS is caught), the one that is not guest memory must be the caller's, and [`install`]
/// must have been called.
pub unsafe fn bytes(to: *mut u8, from: *const u8, len: usize) -> Result<(), Gone> {
    // SAFETY: as the caller promises; the routine touches nothing else.
    result(unsafe { coppice_copy_bytes(to, from, len) })
}

/// Loads an aligned word with acquire ordering (every load of this processor has it).
///
/// # Safety
/// As for [`bytes`].
pub unsafe fn load(word: *const AtomicU32) -> Result<u32, Gone> {
    let mut value = 0;
    // SAFETY: as the caller promises; the value is a local.
    result(unsafe { coppice_copy_load(word, &raw mut value) }).map(|()| value)
}

/// Exchanges an aligned word if it holds `old`; returns what it held.
///
/// # Safety
/// As for [`bytes`].
pub unsafe fn exchange(word: *const AtomicU32, old: u32, new: u32) -> Result<u32, Gone> {
    let mut seen = 0;
    // SAFETY: as the caller promises; `seen` is a local.
    result(unsafe { coppice_copy_exchange(word, old, new, &raw mut seen) }).map(|()| seen)
}

/// What SIGBUS did before.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler, once for each process and its forks.
pub fn install() {
    PREVIOUS.get_or_init(|| {
        // SAFETY: an all-zero sigaction is a valid value.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: as above.
        let mut previous: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the handler only reads statics and changes the interrupted context; both structures are locals. With these arguments
        // the call cannot fail.
        unsafe { libc::sigaction(libc::SIGBUS, &raw const action, &raw mut previous) };
        previous
    });
}

extern "C" fn on_bus_error(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes the interrupted context to a handler with SA_SIGINFO.
    let Some(context) = (unsafe { context.cast::<libc::ucontext_t>().as_mut() }) else { return };
    let rip = &mut context.uc_mcontext.gregs[libc::REG_RIP as usize];
    let (start, end) = ((&raw const coppice_copy_start).addr(), (&raw const coppice_copy_end).addr());
    if (start..end).contains(&(*rip as usize)) {
        // No frame, nothing on the stack but the return address: returning from here is returning to the caller.
        *rip = end as i64;
        return;
    }
    // Not ours: the instruction faults again, and then it is as if this handler had never been.
    // SAFETY: restores what `install` found, or the default when the signal came before that was stored.
    unsafe {
        match PREVIOUS.get() {
            Some(previous) => libc::sigaction(libc::SIGBUS, previous, std::ptr::null_mut()),
            None => libc::signal(libc::SIGBUS, libc::SIG_DFL) as i32,
        };
    }
}
