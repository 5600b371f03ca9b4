//! Memory of guest processes: extents of the arena, mappings, page faults, user copies.

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::platform::{Gpa, Root, Va};
use crate::task::Tid;
use serde::{Deserialize, Serialize};

/// Extents of the arena.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Frames {
    arena_len: u64,
}

impl Frames {
    /// All of `FIRST_EXTENT..arena_len` is free.
    pub fn new(arena_len: u64) -> Self {
        Frames { arena_len }
    }
}

/// One address space.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mm {
    /// Its page tables.
    pub root: Root,
}

/// How a page fault ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The translation is there now: try again.
    Resolved,
    /// SIGSEGV with this si_code (SEGV_MAPERR 1, SEGV_ACCERR 2).
    Segv(i32),
    /// SIGBUS with this si_code (BUS_ADRERR 2): beyond the end of a file.
    Bus(i32),
}

impl Kernel {
    /// The sandbox uses more anonymous memory than its limit: picks a process and kills it. Called by the driver.
    pub fn out_of_memory(&mut self) {}

    /// A new empty address space with one user; returns its key in `mms`.
    pub fn mm_new(&mut self) -> Result<u64, Errno> {
        Err(Errno::ENOSYS)
    }

    /// One more user of an address space.
    pub fn mm_share(&mut self, _mm: u64) {}

    /// One user less; the last one's going frees it.
    pub fn mm_release(&mut self, _mm: u64) {}

    /// Handles #PF at `va` with the processor's error code.
    pub fn page_fault(&mut self, _tid: Tid, _va: Va, _error: u64) -> Fault {
        Fault::Segv(1)
    }

    /// Copies from user memory of a task. EFAULT when any byte is not readable.
    pub fn copy_in(&mut self, _tid: Tid, _va: Va, _buf: &mut [u8]) -> Result<(), Errno> {
        Err(Errno::EFAULT)
    }

    /// Copies to user memory of a task. EFAULT when any byte is not writable (bytes before it may have been written).
    pub fn copy_out(&mut self, _tid: Tid, _va: Va, _buf: &[u8]) -> Result<(), Errno> {
        Err(Errno::EFAULT)
    }

    /// Reads a NUL-terminated string of at most `max` bytes with its NUL; without it in the result. ENAMETOOLONG when there is no NUL.
    pub fn copy_in_str(&mut self, _tid: Tid, _va: Va, _max: usize) -> Result<Vec<u8>, Errno> {
        Err(Errno::EFAULT)
    }

    /// Reads `len` bytes (bounded by the caller).
    pub fn copy_in_vec(&mut self, tid: Tid, va: Va, len: usize) -> Result<Vec<u8>, Errno> {
        let mut buf = vec![0; len];
        self.copy_in(tid, va, &mut buf)?;
        Ok(buf)
    }

    /// Reads a little-endian number.
    pub fn get_u32(&mut self, tid: Tid, va: Va) -> Result<u32, Errno> {
        let mut b = [0; 4];
        self.copy_in(tid, va, &mut b)?;
        Ok(u32::from_le_bytes(b))
    }

    /// Reads a little-endian number.
    pub fn get_u64(&mut self, tid: Tid, va: Va) -> Result<u64, Errno> {
        let mut b = [0; 8];
        self.copy_in(tid, va, &mut b)?;
        Ok(u64::from_le_bytes(b))
    }

    /// Writes a little-endian number.
    pub fn put_u32(&mut self, tid: Tid, va: Va, x: u32) -> Result<(), Errno> {
        self.copy_out(tid, va, &x.to_le_bytes())
    }

    /// Writes a little-endian number.
    pub fn put_u64(&mut self, tid: Tid, va: Va, x: u64) -> Result<(), Errno> {
        self.copy_out(tid, va, &x.to_le_bytes())
    }

    /// The guest-physical address of a user byte, populated, and writable when `write` is set (breaking copy-on-write).
    pub fn user_gpa(&mut self, _tid: Tid, _va: Va, _write: bool) -> Result<Gpa, Errno> {
        Err(Errno::EFAULT)
    }

    /// Reads an iovec array: (base, length) pairs, at most 1024, total length below `i64::MAX`.
    pub fn read_iovecs(&mut self, _tid: Tid, _va: Va, _count: u64) -> Result<Vec<(Va, u64)>, Errno> {
        Err(Errno::EFAULT)
    }
}
