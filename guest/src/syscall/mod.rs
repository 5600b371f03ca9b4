//! The system-call table and its dispatch.
//!
//! One table entry per call: number, name, decoded arguments, support level, handler. Each family's file exports its
//! part as `TABLE`. Handlers parse and check arguments (checked conversions only); the meaning lives in the subsystems.
//! docs/COMPATIBILITY.md is generated from the table.

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{u64_of, us};
use crate::platform::Vcpu;
use crate::task::{Call, Tid};
use crate::wait::{Outcome, SysResult};
use std::sync::OnceLock;

pub mod aio;
pub mod copy;
pub mod event;
pub mod fanotify;
pub mod fd;
pub mod file;
pub mod futex;
pub mod info;
pub mod inotify;
pub mod ipc;
pub mod lock;
pub mod memory;
pub mod mount;
pub mod mqueue;
pub mod names;
pub mod net;
pub mod poll;
pub mod process;
pub mod ptrace;
pub mod remote;
pub mod sched;
pub mod signal;
pub mod splice;
pub mod time;
pub mod userfault;

/// A handler. It may return `Outcome::Block` and is then called again with the same arguments.
pub type Handler = fn(&mut Context<'_>, &[u64; 6]) -> SysResult;

/// What a handler works on.
pub struct Context<'a> {
    /// The kernel.
    pub k: &'a mut Kernel,
    /// The vCPU that holds the caller's extended state.
    pub vcpu: &'a mut dyn Vcpu,
    /// The caller.
    pub tid: Tid,
}

/// How well a call is supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// As on Linux.
    Full,
    /// As on Linux except as noted.
    Partial(&'static str),
    /// Always fails with this error, for the noted reason.
    Refused(Errno, &'static str),
}

/// How an argument is printed by `--strace` (and how a test generator fills it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// Signed 32-bit number.
    Int,
    /// Unsigned number.
    Uint,
    /// Number in hexadecimal, or flags.
    Hex,
    /// Number in octal (modes).
    Octal,
    /// Pointer to a structure.
    Ptr,
    /// Descriptor.
    Fd,
    /// Descriptor or AT_FDCWD.
    DirFd,
    /// NUL-terminated path, read by the call.
    Path,
    /// Buffer read by the call; its length is the argument of that index.
    In(usize),
    /// Buffer filled by the call; how much is the result.
    Out,
    /// Signal number.
    Signal,
    /// One of a set of constants or an or of them, by name.
    Flags(&'static [(&'static str, u64)]),
}

/// One line of the table.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Number in rax.
    pub number: u32,
    /// Name as in syscalls(2).
    pub name: &'static str,
    /// Arguments.
    pub args: &'static [Arg],
    /// Support level.
    pub support: Support,
    /// Handler.
    pub handler: Handler,
}

impl Entry {
    /// A fully supported call.
    pub const fn full(number: u32, name: &'static str, args: &'static [Arg], handler: Handler) -> Self {
        Entry { number, name, args, support: Support::Full, handler }
    }

    /// A partly supported call.
    pub const fn partial(
        number: u32,
        name: &'static str,
        args: &'static [Arg],
        note: &'static str,
        handler: Handler,
    ) -> Self {
        Entry { number, name, args, support: Support::Partial(note), handler }
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({})", self.name, self.number)
    }
}

const FAMILIES: &[&[Entry]] = &[
    aio::TABLE,
    copy::TABLE,
    event::TABLE,
    fanotify::TABLE,
    fd::TABLE,
    file::TABLE,
    futex::TABLE,
    info::TABLE,
    inotify::TABLE,
    ipc::TABLE,
    memory::TABLE,
    mount::TABLE,
    mqueue::TABLE,
    net::TABLE,
    poll::TABLE,
    process::TABLE,
    ptrace::TABLE,
    remote::TABLE,
    sched::TABLE,
    signal::TABLE,
    splice::TABLE,
    time::TABLE,
    userfault::TABLE,
];

/// All entries in the order of their numbers.
pub fn table() -> &'static [Entry] {
    static TABLE: OnceLock<Vec<Entry>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut all: Vec<Entry> = FAMILIES.iter().flat_map(|f| f.iter().copied()).collect();
        all.sort_by_key(|e| e.number);
        all
    })
}

/// The entry for a number.
pub fn entry(number: u64) -> Option<&'static Entry> {
    static INDEX: OnceLock<Vec<Option<&'static Entry>>> = OnceLock::new();
    let index = INDEX.get_or_init(|| {
        let last = table().last().map_or(0, |e| us(u64::from(e.number)));
        let mut index = vec![None; last + 1];
        for e in table() {
            if let Some(slot) = index.get_mut(us(u64::from(e.number))) {
                *slot = Some(e);
            }
        }
        index
    });
    if number >= u64_of(index.len()) { None } else { index.get(us(number)).copied().flatten() }
}

/// Runs the handler of a call.
pub fn dispatch(k: &mut Kernel, vcpu: &mut dyn Vcpu, tid: Tid, call: &Call) -> SysResult {
    let Some(entry) = entry(call.number) else {
        crate::kernel::Counters::count(&mut k.counters.unknown, call.number);
        return Err(k.refuse(tid, "", &[], Errno::ENOSYS));
    };
    k.forget_idle_inodes();
    let result = (entry.handler)(&mut Context { k, vcpu, tid }, &call.args);
    match (entry.support, &result) {
        (Support::Refused(errno, _), Err(e)) if *e == errno => Err(k.refuse(tid, "", &[], errno)),
        _ => result,
    }
}

/// Whether `len` bytes from `va` lie in what Linux calls user space, mapped or not: its access_ok, which some calls make before
/// anything else. EFAULT.
pub fn user_range(va: u64, len: u64) -> Result<(), Errno> {
    // TASK_SIZE_MAX of Linux on x86-64; ours is lower, and nothing is mapped between the two.
    const END: u64 = 0x7fff_ffff_f000;
    if va > END || len > END - va { Err(Errno::EFAULT) } else { Ok(()) }
}

/// Shorthand for handlers that return a number.
pub fn ret(value: u64) -> SysResult {
    Ok(Outcome::Return(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_listed_twice() {
        for pair in table().windows(2) {
            assert!(pair[0].number < pair[1].number, "{:?} and {:?}", pair[0], pair[1]);
        }
        assert!(u64::from(table().last().unwrap().number) < crate::kernel::Counters::LAST);
    }

    #[test]
    fn numbers_that_the_guest_makes_up_take_no_memory() {
        let mut map = std::collections::BTreeMap::new();
        for number in (0..100_000).chain([u64::MAX]) {
            crate::kernel::Counters::count(&mut map, number);
        }
        assert_eq!((map.len(), map[&7], map[&1023]), (1024, 1, 98_978));
    }
}
