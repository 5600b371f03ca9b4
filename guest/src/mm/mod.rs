//! Memory of guest processes: extents of the arena, mappings, page faults, user copies.
//!
//! `frames` hands out the arena; `vma` is an address space as data, `gaps` what is free in it; `space` changes one with its page tables; `mmap`, `mremap` and `advise`
//! give system calls their meaning; `fault` backs mappings; `uaccess` copies to and from user memory; `report` serves /proc;
//! `lock` keeps count of locked memory, `remote` reaches the memory of other processes.
//! Files are known by the number of their open file description only.

use crate::errno::Errno;
use crate::kernel::Kernel;
use serde::{Deserialize, Serialize};

pub mod advise;
pub mod fault;
pub mod fork;
pub mod frames;
pub mod gaps;
pub mod lock;
pub mod mmap;
pub mod mremap;
mod pagemap;
pub mod remote;
pub mod report;
pub mod space;
pub mod uaccess;
pub mod userfault;
pub mod vma;

#[cfg(test)]
mod tests;

pub use frames::Frames;
pub use report::MmStats;
pub use vma::{Backing, Mm, Prot, Special, VmFlags, Vma};

/// How a page fault ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The translation is there now: try again.
    Resolved,
    /// SIGSEGV with this si_code (SEGV_MAPERR 1, SEGV_ACCERR 2, SEGV_PKUERR 4).
    Segv(i32),
    /// SIGBUS with this si_code (BUS_ADRERR 2): beyond the end of a file.
    Bus(i32),
}

impl Kernel {
    /// A new empty address space with one user; returns its key in `mms`.
    pub fn mm_new(&mut self) -> Result<u64, Errno> {
        let root = self.platform.create_root()?;
        Ok(self.mms.insert(Mm::new(root)))
    }

    /// One more user of an address space.
    pub fn mm_share(&mut self, mm: u64) {
        if let Some(m) = self.mms.get_mut(mm) {
            m.users = m.users.saturating_add(1);
        }
    }

    /// One user less; the last one's going frees it.
    pub fn mm_release(&mut self, mm: u64) {
        let Some(m) = self.mms.get_mut(mm) else { return };
        m.users = m.users.saturating_sub(1);
        if m.users > 0 {
            return;
        }
        let root = m.root;
        self.aio_release(mm);
        // With the tables gone, no page needs an invalidation of its own.
        if self.platform.destroy_root(root) {
            if let Ok(mut space) = self.space(mm) {
                space.release_pieces();
                space.mm.remove(0, crate::platform::TASK_SIZE);
            }
        } else if let Ok(mut space) = self.space(mm) {
            // A range that the machine refuses to unmap stays allocated.
            let _ = space.unmap(0, crate::platform::TASK_SIZE);
        }
        self.mm_sweep_files(mm);
        self.mms.remove(mm);
    }

    /// Gives back the files that no mapping refers to any more.
    pub(crate) fn mm_sweep_files(&mut self, mm: u64) {
        let Some(m) = self.mms.get_mut(mm) else { return };
        let gone: Vec<u64> = m.files.iter().filter(|(_, n)| **n == 0).map(|(f, _)| *f).collect();
        for file in gone {
            if let Some(m) = self.mms.get_mut(mm) {
                m.files.remove(&file);
            }
            self.file_unref(file);
        }
        self.shm_sweep();
    }
}
