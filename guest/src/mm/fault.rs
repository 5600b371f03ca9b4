//! Backing mappings: at mmap time for most, at page faults for the rest; copy-on-write.

use super::Fault;
use super::mmap::{RLIMIT_AS, RLIMIT_STACK, STACK_GAP};
use super::space::Space;
use super::vma::{Backing, MAX_MAP_COUNT, MMAP_MIN_ADDR, Prot, VmFlags, Vma};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::align_up;
use crate::platform::{LARGE_PAGE, PAGE_SIZE, TASK_SIZE, Va};
use crate::task::{ExitStatus, Tid};
use crate::vfs::MapSource;
use std::os::fd::AsFd;

/// Mappings up to this many bytes are backed whole when they are made: a guest page fault costs an exit (50 us on nested hosts),
/// while backing costs the host nothing before the first touch.
pub const POPULATE_MAX: u64 = 32 << 20;

/// #PF error code: the access was a write.
const PF_WRITE: u64 = 2;
/// #PF error code: a reserved bit was set in an entry, which the kernel never does.
const PF_RESERVED: u64 = 8;
/// #PF error code: instruction fetch.
const PF_FETCH: u64 = 0x10;
/// #PF error code: a protection key forbade it.
const PF_KEY: u64 = 0x20;

/// Why an access is not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// SIGSEGV with this si_code.
    Segv(i32),
    /// SIGBUS: beyond the end of a file.
    Bus,
    /// The arena has no page left.
    NoMemory,
    /// Missing, and for who reads this userfaultfd to fill.
    User(u64),
}

impl Kernel {
    /// The address space with what it takes to change it.
    pub(crate) fn space(&mut self, mm: u64) -> Result<Space<'_>, Errno> {
        let Kernel { mms, frames, platform, .. } = self;
        let mm = mms.get_mut(mm).ok_or(Errno::EFAULT)?;
        Ok(Space { mm, frames, platform: &**platform })
    }

    /// Backs every hole in the accessible mappings of a range. Parts of a file mapping beyond the end of its file stay holes.
    pub(crate) fn mm_populate(&mut self, mm: u64, start: Va, end: Va) -> Result<(), Errno> {
        let space = self.space(mm)?;
        let mut todo: Vec<(Va, Va, Va, Vma)> = Vec::new();
        for (s, e, key) in space.mm.vmas_in(start, end) {
            if let Some(vma) = space
                .mm
                .vmas
                .get(&key)
                .filter(|v| !v.prot.is_empty() && !v.is_kernel() && v.userfault.is_none())
            {
                todo.extend(space.mm.holes(s, e).into_iter().map(|(a, b)| (a, b, key, vma.clone())));
            }
        }
        for (s, e, key, vma) in todo {
            match vma.backing_at(s - key) {
                Backing::File { file, offset } => self.populate_file(mm, file, offset, s, e, &vma)?,
                _ => self.populate_anon(mm, s, e, vma.prot)?,
            }
        }
        Ok(())
    }

    fn populate_anon(&mut self, mm: u64, start: Va, end: Va, prot: Prot) -> Result<(), Errno> {
        let mut space = self.space(mm)?;
        let gpa = space.alloc_for(start, end - start)?;
        space.back(start, end - start, gpa, false, prot)
    }

    fn populate_file(
        &mut self,
        mm: u64,
        file: u64,
        offset: u64,
        start: Va,
        end: Va,
        vma: &Vma,
    ) -> Result<(), Errno> {
        let source = self.file_map_source(file)?;
        self.populate_from(mm, source, offset, start, end, vma)
    }

    /// Backs a hole of a file mapping whose first byte is at `offset` in the file.
    pub(super) fn populate_from(
        &mut self,
        mm: u64,
        source: MapSource,
        offset: u64,
        start: Va,
        end: Va,
        vma: &Vma,
    ) -> Result<(), Errno> {
        match source {
            MapSource::Zero => self.populate_anon(mm, start, end, vma.prot),
            MapSource::Host(fd, size) => {
                let limit = align_up(size, PAGE_SIZE).unwrap_or(!(PAGE_SIZE - 1));
                let len = limit.saturating_sub(offset).min(end - start);
                if len == 0 {
                    return Ok(());
                }
                // Writes to a file of a mounted host directory are the host's to see.
                let shared = vma.flags.contains(VmFlags::SHARED)
                    && vma.may.contains(Prot::WRITE)
                    && matches!(vma.backing, Backing::File { file, .. } if self.file_is_live(file));
                let mut space = self.space(mm)?;
                let gpa = space.alloc_for(start, len)?;
                if let Err(e) = space.platform.attach_file(gpa, len, fd.as_fd(), offset, shared) {
                    space.frames.release(space.platform, gpa, len);
                    return Err(e.into());
                }
                space.frames.set_file(gpa, len);
                space.back(start, len, gpa, false, vma.prot)
            }
            MapSource::Pages(inode, size) => {
                let cow = !vma.flags.contains(VmFlags::SHARED);
                let pages = size.saturating_sub(offset).min(end - start).div_ceil(PAGE_SIZE);
                if pages == 0 {
                    return Ok(());
                }
                let first = offset / PAGE_SIZE;
                for (index, gpa, count) in self.inode_pages(inode, first, pages)? {
                    let mut space = self.space(mm)?;
                    space.frames.add_ref(gpa, count * PAGE_SIZE);
                    space.back(start + (index - first) * PAGE_SIZE, count * PAGE_SIZE, gpa, cow, vma.prot)?;
                }
                Ok(())
            }
        }
    }

    /// Backs what surrounds `page` in its mapping: a large page's worth, or the page alone when memory is short.
    pub(crate) fn populate_around(&mut self, mm: u64, page: Va) -> Result<(), Errno> {
        let Some((start, vma)) = self.mms.get(mm).and_then(|m| m.find(page)) else {
            return Err(Errno::EFAULT);
        };
        let low = (page & !(LARGE_PAGE - 1)).max(start);
        let high = ((page & !(LARGE_PAGE - 1)) + LARGE_PAGE).min(vma.end);
        match self.mm_populate(mm, low, high) {
            Err(Errno::ENOMEM) => self.mm_populate(mm, page, page + PAGE_SIZE),
            other => other,
        }
    }

    /// Lets a MAP_GROWSDOWN mapping that begins above a page grow down to it: as far as RLIMIT_STACK allows, and not near to what can
    /// be accessed below.
    fn grow_down(&mut self, mm: u64, page: Va) {
        let Some(m) = self.mms.get(mm) else { return };
        let Some((start, vma)) = m.vmas.range(page..).next().map(|(s, v)| (*s, v.clone())) else { return };
        if !vma.flags.contains(VmFlags::GROWSDOWN) || page < MMAP_MIN_ADDR {
            return;
        }
        // Whoever runs in it has the limits that count.
        let Some(tid) = self.tasks.iter().find(|(_, t)| t.mm == mm).map(|(tid, _)| *tid) else { return };
        let fits = |resource: u32, bytes: u64| bytes <= self.soft_limit(tid, resource);
        let more = start - page;
        let near = m.vmas.range(..page).next_back().is_some_and(|(_, below)| {
            !below.flags.contains(VmFlags::GROWSDOWN)
                && !below.prot.is_empty()
                && page.saturating_sub(below.end) < STACK_GAP
        });
        if near
            || !fits(RLIMIT_STACK, vma.end - page)
            || !fits(RLIMIT_AS, m.total.saturating_add(more))
            || m.vmas.len() >= MAX_MAP_COUNT
        {
            return;
        }
        if let Some(m) = self.mms.get_mut(mm) {
            m.insert(page, Vma { end: start, ..vma });
        }
    }

    /// Makes a page accessible as asked. `Err` is the signal that an access of user mode would get.
    pub(crate) fn touch(&mut self, mm: u64, va: Va, need: Prot) -> Result<(), Denied> {
        let page = va & !(PAGE_SIZE - 1);
        if self.mms.get(mm).is_some_and(|m| m.find(va).is_none()) && va < TASK_SIZE {
            self.grow_down(mm, page);
        }
        let m = self.mms.get(mm).ok_or(Denied::Segv(1))?;
        let (_, vma) = m.find(va).filter(|_| va < TASK_SIZE).ok_or(Denied::Segv(1))?;
        // Every present page is readable on x86.
        let granted = if vma.prot.is_empty() { Prot::empty() } else { vma.prot | Prot::READ };
        if !granted.contains(need) {
            return Err(Denied::Segv(2));
        }
        let is_file = matches!(vma.backing, Backing::File { .. });
        let mut found = m.piece(va);
        if found.is_none() {
            if let Some(id) = vma.userfault {
                return Err(Denied::User(id));
            }
            match self.populate_around(mm, page) {
                Ok(()) => {}
                Err(Errno::ENOMEM) => return Err(Denied::NoMemory),
                Err(_) => return Err(Denied::Bus),
            }
            found = self.mms.get(mm).and_then(|m| m.piece(va));
        }
        match found {
            None if is_file => Err(Denied::Bus),
            None => Err(Denied::Segv(1)),
            Some((_, piece)) if piece.cow && need.contains(Prot::WRITE) => {
                self.space(mm).and_then(|mut s| s.break_cow(page)).map_err(|_| Denied::NoMemory)
            }
            Some(_) => Ok(()),
        }
    }

    /// Handles #PF at `va` with the processor's error code. A process that needs memory where there
    /// is none is killed, and its fault counts as resolved.
    pub fn page_fault(&mut self, tid: Tid, va: Va, error: u64) -> Fault {
        let Some((mm, pid)) = self.task(tid).map(|t| (t.mm, t.pid)) else { return Fault::Segv(1) };
        // Nothing of anybody's is mapped there, whatever the bits say: hosts without hardware support have tables of their own above.
        if va >= TASK_SIZE {
            return Fault::Segv(1);
        }
        if error & PF_KEY != 0 {
            return Fault::Segv(4);
        }
        if error & PF_RESERVED != 0 {
            return Fault::Segv(2);
        }
        let need = match error {
            e if e & PF_WRITE != 0 => Prot::WRITE,
            e if e & PF_FETCH != 0 => Prot::EXEC,
            _ => Prot::READ,
        };
        match self.touch(mm, va, need) {
            Ok(()) => Fault::Resolved,
            Err(Denied::NoMemory) => {
                self.counters.oom_kills += 1;
                self.exit_process(pid, ExitStatus::Signal(9));
                Fault::Resolved
            }
            Err(Denied::Segv(code)) => Fault::Segv(code),
            Err(Denied::Bus) => Fault::Bus(2),
            Err(Denied::User(id)) if self.userfault_meet(id, tid, va, need.contains(Prot::WRITE)) => {
                Fault::Resolved
            }
            Err(Denied::User(_)) => Fault::Bus(2),
        }
    }
}
