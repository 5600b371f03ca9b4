//! Pages of the arena that hold the contents of in-memory files.

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::platform::{FIRST_EXTENT, Gpa, PAGE_SIZE};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A pool that takes pages from the arena's end downwards.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PagePool {
    taken: u64,
    free: Vec<Gpa>,
    shares: BTreeMap<Gpa, u32>,
}

impl Kernel {
    /// A zeroed page with one user. ENOSPC when the arena is full.
    pub fn frame_alloc_page(&mut self) -> Result<Gpa, Errno> {
        if let Some(gpa) = self.vfs.pages.free.pop() {
            return Ok(gpa);
        }
        let used = self.vfs.pages.taken.checked_add(1).and_then(|n| n.checked_mul(PAGE_SIZE));
        let gpa = used.and_then(|u| self.platform.arena_len().checked_sub(u)).ok_or(Errno::ENOSPC)?;
        if gpa < FIRST_EXTENT {
            return Err(Errno::ENOSPC);
        }
        self.platform.ensure(gpa, PAGE_SIZE).map_err(|_| Errno::ENOSPC)?;
        self.vfs.pages.taken += 1;
        Ok(gpa)
    }

    /// One more user of a page.
    pub fn frame_share(&mut self, gpa: Gpa) {
        *self.vfs.pages.shares.entry(gpa).or_insert(0) += 1;
    }

    /// One user less; the last one's going empties the page and makes it free.
    pub fn frame_free_page(&mut self, gpa: Gpa) {
        if let Some(extra) = self.vfs.pages.shares.get_mut(&gpa) {
            *extra -= 1;
            if *extra == 0 {
                self.vfs.pages.shares.remove(&gpa);
            }
            return;
        }
        if self.platform.discard(gpa, PAGE_SIZE).is_ok() {
            self.vfs.pages.free.push(gpa);
        }
    }
}
