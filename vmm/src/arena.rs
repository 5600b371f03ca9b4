//! The arena: guest-physical memory as a private range of this process's address space.
//!
//! Owns the reservation and everything that changes what backs it. It knows nothing of KVM: translations that KVM holds die
//! through the host's MMU notifier when the range changes, so this is also where they are invalidated.

use crate::copy;
use crate::error::Error;
use guest::platform::{Gpa, PAGE_SIZE, PlatformError};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use vm_memory::{MmapRegion, VolatileMemory};

/// See the module.
#[derive(Debug)]
pub struct Arena {
    region: MmapRegion,
    base: *mut u8,
    len: u64,
    /// Moves at the start and the end of every invalidation; odd while one runs. A vCPU that got EFAULT compares it.
    generation: AtomicU64,
}

// SAFETY: `base` is only used for address arithmetic and system calls on the range that `region` names; all access to the memory
// is through volatile or atomic operations.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

const PROT: i32 = libc::PROT_READ | libc::PROT_WRITE;
const ANON: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

impl Arena {
    /// Reserves `len` bytes (a multiple of 2 MiB). Nothing is allocated until it is touched.
    pub fn new(len: u64) -> Result<Self, Error> {
        let size = usize::try_from(len).map_err(|_| Error::MissingCapability("a 64-bit address space"))?;
        // 2 MiB more, so that the base is 2 MiB-aligned and large host pages can back large guest pages.
        let slack = 2 << 20;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let raw = unsafe { libc::mmap(std::ptr::null_mut(), size + slack, PROT, ANON, -1, 0) };
        if raw == libc::MAP_FAILED {
            return Err(Error::last("reserve address space for the arena"));
        }
        let head = raw.align_offset(slack);
        let base = raw.cast::<u8>().wrapping_add(head);
        // SAFETY: both ranges are the unused ends of the mapping made above.
        unsafe {
            if head > 0 {
                libc::munmap(raw, head);
            }
            libc::munmap(base.wrapping_add(size).cast(), slack - head);
        }
        // SAFETY: `base..base + size` is mapped as told and is unmapped only in `drop`.
        let region = unsafe { MmapRegion::build_raw(base, size, PROT, ANON) }
            .map_err(|e| Error::Host { what: "describe the arena", source: io::Error::other(e) })?;
        copy::install();
        Ok(Arena { region, base, len, generation: AtomicU64::new(0) })
    }

    /// Size in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no memory at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Host address of a gpa that lies inside.
    pub(crate) fn host(&self, gpa: Gpa) -> *mut u8 {
        debug_assert!(gpa <= self.len);
        self.base.wrapping_add(gpa as usize)
    }

    fn check(&self, gpa: Gpa, len: u64) -> Result<(usize, usize), PlatformError> {
        match gpa.checked_add(len) {
            Some(end) if end <= self.len => Ok((gpa as usize, len as usize)),
            _ => Err(PlatformError::OutOfArena { gpa, len }),
        }
    }

    /// Copies out of the arena. Fails where a file that backs it has become too short.
    pub fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), PlatformError> {
        self.check(gpa, buf.len() as u64)?;
        // SAFETY: the range lies inside the arena, which is mapped readable and writable and which no Rust reference names.
        unsafe { copy::bytes(buf.as_mut_ptr(), self.host(gpa), buf.len()) }.map_err(gone)
    }

    /// Copies into the arena. Fails where a file that backs it has become too short.
    pub fn write(&self, gpa: Gpa, buf: &[u8]) -> Result<(), PlatformError> {
        self.check(gpa, buf.len() as u64)?;
        // SAFETY: as in `read`; guest code that uses the memory at the same time sees some bytes earlier than others.
        unsafe { copy::bytes(self.host(gpa), buf.as_ptr(), buf.len()) }.map_err(gone)
    }

    /// Loads an aligned 32-bit word that guest code may change at the same time.
    pub fn load_u32(&self, gpa: Gpa) -> Result<u32, PlatformError> {
        let word = self.word(gpa)?;
        // SAFETY: an aligned word inside the arena.
        unsafe { copy::load(word) }.map_err(gone)
    }

    /// Exchanges such a word if it holds `old`: `Ok(Ok(old))`, or `Ok(Err(what it holds))`.
    pub fn compare_exchange_u32(
        &self,
        gpa: Gpa,
        old: u32,
        new: u32,
    ) -> Result<Result<u32, u32>, PlatformError> {
        let word = self.word(gpa)?;
        // SAFETY: an aligned word inside the arena.
        let seen = unsafe { copy::exchange(word, old, new) }.map_err(gone)?;
        Ok(if seen == old { Ok(old) } else { Err(seen) })
    }

    fn word(&self, gpa: Gpa) -> Result<*const AtomicU32, PlatformError> {
        let (_, len) = self.check(gpa, 4)?;
        if gpa.is_multiple_of(4) {
            Ok(self.host(gpa).cast::<AtomicU32>().cast_const())
        } else {
            Err(out(gpa, len))
        }
    }

    /// An aligned 64-bit word of the low arena (page-table entries, frames), which no file ever backs.
    pub(crate) fn entry(&self, gpa: Gpa) -> Result<&AtomicU64, PlatformError> {
        let (at, len) = self.check(gpa, 8)?;
        self.region.get_atomic_ref::<AtomicU64>(at).map_err(|_| out(gpa, len))
    }

    /// Current invalidation count; odd while an invalidation runs.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Makes KVM forget every translation to a page-aligned range, on every vCPU, keeping the contents: the protection is taken
    /// away and given back, and the kernel's MMU notifier does the rest (shadow pages, EPT and NPT alike).
    pub fn invalidate(&self, gpa: Gpa, len: u64) -> Result<(), PlatformError> {
        self.check(gpa, len)?;
        self.generation.fetch_add(1, Ordering::AcqRel);
        let result =
            self.protection(gpa, len, libc::PROT_READ).and_then(|()| self.protection(gpa, len, PROT));
        self.generation.fetch_add(1, Ordering::AcqRel);
        result
    }

    fn protection(&self, gpa: Gpa, len: u64, prot: i32) -> Result<(), PlatformError> {
        // SAFETY: the range lies inside the arena (checked by the caller), whose memory is only reached through
        // volatile and atomic operations; readable all the time, and nobody in this process writes to it meanwhile because the
        // guest kernel's lock is held.
        match unsafe { libc::mprotect(self.host(gpa).cast(), len as usize, prot) } {
            0 => Ok(()),
            _ => Err(refused("change the protection of guest memory")),
        }
    }

    /// Backs a range with a file, privately or so that writes reach it.
    pub fn attach_file(
        &self,
        gpa: Gpa,
        len: u64,
        file: BorrowedFd<'_>,
        offset: u64,
        shared: bool,
    ) -> Result<(), PlatformError> {
        let (_, size) = self.check(gpa, len)?;
        let offset = i64::try_from(offset).map_err(|_| out(offset, size))?;
        let kind = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        self.remap(gpa, size, kind | libc::MAP_NORESERVE, file.as_raw_fd(), offset)
    }

    /// Makes a range anonymous and zero again.
    pub fn detach_file(&self, gpa: Gpa, len: u64) -> Result<(), PlatformError> {
        let (_, size) = self.check(gpa, len)?;
        self.remap(gpa, size, ANON, -1, 0)
    }

    fn remap(&self, gpa: Gpa, size: usize, flags: i32, fd: i32, offset: i64) -> Result<(), PlatformError> {
        if size == 0 {
            return Ok(());
        }
        self.generation.fetch_add(1, Ordering::AcqRel);
        // SAFETY: replaces a part of the arena's own reservation (checked by the callers) with other memory of the same protection,
        // which is only reached as the arena is, whoever else has the file mapped.
        let p = unsafe { libc::mmap(self.host(gpa).cast(), size, PROT, flags | libc::MAP_FIXED, fd, offset) };
        self.generation.fetch_add(1, Ordering::AcqRel);
        if p == libc::MAP_FAILED { Err(refused("map memory into the arena")) } else { Ok(()) }
    }

    /// Drops the contents of a range; it reads as zeroes (an anonymous range) and translations to it are dead.
    pub fn discard(&self, gpa: Gpa, len: u64) -> Result<(), PlatformError> {
        self.advise(gpa, len, libc::MADV_DONTNEED)
    }

    /// Allocates and makes writable every page of a range now (breaks copy-on-write).
    pub fn populate(&self, gpa: Gpa, len: u64) -> Result<(), PlatformError> {
        self.advise(gpa, len, libc::MADV_POPULATE_WRITE)
    }

    fn advise(&self, gpa: Gpa, len: u64, advice: i32) -> Result<(), PlatformError> {
        let (_, size) = self.check(gpa, len)?;
        if size == 0 {
            return Ok(());
        }
        // SAFETY: the range lies inside the arena; neither advice invalidates a Rust object, since the memory is only reached
        // through volatile and atomic operations.
        match unsafe { libc::madvise(self.host(gpa).cast(), size, advice) } {
            0 => Ok(()),
            _ => Err(refused("discard or populate guest memory")),
        }
    }

    /// Anonymous bytes resident in this process: resident minus shared of `/proc/self/statm`. Read anew each time,
    /// because a descriptor would stay with the parent over a fork.
    pub fn resident(&self) -> u64 {
        let Ok(text) = std::fs::read_to_string("/proc/self/statm") else { return 0 };
        let mut fields = text.split_ascii_whitespace().skip(1).map(|f| f.parse::<u64>().unwrap_or(0));
        let (resident, shared) = (fields.next().unwrap_or(0), fields.next().unwrap_or(0));
        resident.saturating_sub(shared) * PAGE_SIZE
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the reservation is this object's own and nothing refers to it any more.
        unsafe { libc::munmap(self.base.cast(), self.len as usize) };
    }
}

fn out(gpa: Gpa, len: usize) -> PlatformError {
    PlatformError::OutOfArena { gpa, len: len as u64 }
}

fn gone(copy::Gone: copy::Gone) -> PlatformError {
    let source = io::Error::from_raw_os_error(libc::EFAULT);
    PlatformError::Host { what: "reach guest memory: a file behind it was truncated", source }
}

fn refused(what: &'static str) -> PlatformError {
    PlatformError::Host { what, source: io::Error::last_os_error() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn discarded_memory_reads_as_zeroes() {
        let a = Arena::new(4 << 20).unwrap();
        a.write(0x1ffe, b"abcd").unwrap();
        let mut b = [0; 4];
        a.read(0x1ffe, &mut b).unwrap();
        assert_eq!(&b, b"abcd");
        a.discard(0x2000, 0x1000).unwrap();
        a.read(0x1ffe, &mut b).unwrap();
        assert_eq!(&b, b"ab\0\0");
    }

    #[test]
    fn a_range_beyond_the_end_or_one_that_wraps_is_refused() {
        let a = Arena::new(4 << 20).unwrap();
        let mut b = [0; 16];
        assert!(matches!(a.read((4 << 20) - 8, &mut b), Err(PlatformError::OutOfArena { .. })));
        assert!(matches!(a.read(u64::MAX - 4, &mut b), Err(PlatformError::OutOfArena { .. })));
        assert!(matches!(a.discard(0x1000, u64::MAX), Err(PlatformError::OutOfArena { .. })));
        assert!(a.load_u32(2).is_err(), "a word must be aligned");
        assert!(a.compare_exchange_u32((4 << 20) - 2, 0, 1).is_err());
    }

    #[test]
    fn a_word_is_exchanged_only_when_it_holds_what_was_expected() {
        let a = Arena::new(4 << 20).unwrap();
        assert_eq!(a.compare_exchange_u32(0x1004, 0, 7).unwrap(), Ok(0));
        assert_eq!(a.compare_exchange_u32(0x1004, 0, 8).unwrap(), Err(7));
        assert_eq!(a.load_u32(0x1004).unwrap(), 7);
        assert_eq!(a.load_u32(0x1000).unwrap(), 0);
    }

    #[test]
    fn a_file_that_is_truncated_under_the_arena_is_an_error_and_not_the_end() {
        let mut f =
            std::fs::File::from(rustix::fs::memfd_create("t", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        f.write_all(&[7; 8192]).unwrap();
        let a = Arena::new(4 << 20).unwrap();
        a.attach_file(0x10000, 8192, f.as_fd(), 0, false).unwrap();
        a.write(0x11000, &[9; 16]).unwrap();
        f.set_len(4096).unwrap();
        let mut b = [0; 16];
        a.read(0x10ff0, &mut b).unwrap();
        assert_eq!(b, [7; 16]);
        assert!(a.read(0x11000, &mut b).is_err(), "also a page that was written is gone");
        assert!(a.read(0x10ff8, &mut b).is_err());
        assert_eq!(b[..8], [7; 8], "what is there was copied");
        assert!(a.write(0x11000, &[1]).is_err());
        assert!(a.load_u32(0x11000).is_err());
        assert!(a.compare_exchange_u32(0x11000, 0, 1).is_err());
        assert!(a.populate(0x11000, 0x1000).is_err());
        f.set_len(8192).unwrap();
        a.read(0x11000, &mut b).unwrap();
        assert_eq!(b, [0; 16]);
    }

    #[test]
    fn an_attached_file_is_private_and_detaching_zeroes() {
        let mut f =
            std::fs::File::from(rustix::fs::memfd_create("t", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        f.write_all(&[7; 8192]).unwrap();
        let a = Arena::new(4 << 20).unwrap();
        a.attach_file(0x10000, 4096, f.as_fd(), 4096, false).unwrap();
        let mut b = [0; 2];
        a.read(0x10000, &mut b).unwrap();
        assert_eq!(b, [7, 7]);
        a.write(0x10000, &[9]).unwrap();
        let mut c = [0; 1];
        rustix::io::pread(f.as_fd(), &mut c, 4096).unwrap();
        assert_eq!(c, [7], "the file itself must not change");
        a.detach_file(0x10000, 4096).unwrap();
        a.read(0x10000, &mut b).unwrap();
        assert_eq!(b, [0, 0]);
    }

    #[test]
    fn a_bus_error_elsewhere_still_ends_the_process() {
        let f = std::fs::File::from(rustix::fs::memfd_create("t", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        let _installs_the_handler = Arena::new(4 << 20).unwrap();
        // SAFETY: the child makes two system calls and dies of the access between them.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: a mapping of a page that the empty file does not have; touching it raises SIGBUS, which is what is tested.
            unsafe {
                let fd = f.as_raw_fd();
                let p = libc::mmap(std::ptr::null_mut(), 4096, PROT, libc::MAP_PRIVATE, fd, 0);
                p.cast::<u8>().write_volatile(1);
                libc::_exit(0);
            }
        }
        let mut status = 0;
        // SAFETY: waits for the child made above.
        unsafe { libc::waitpid(pid, &raw mut status, 0) };
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGBUS, "{status:#x}");
    }
}
