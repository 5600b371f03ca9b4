//! Pages of the arena that hold the contents of in-memory files, from the one allocator of extents.

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::platform::{Gpa, PAGE_SIZE};

impl Kernel {
    /// A zeroed page with one user. ENOSPC when the arena is full.
    pub fn frame_alloc_page(&mut self) -> Result<Gpa, Errno> {
        self.frames_alloc(PAGE_SIZE).map_err(|_| Errno::ENOSPC)
    }

    /// One user less; the last one's going empties the page and makes it free. Mappings of the page are users of their own.
    pub fn frame_free_page(&mut self, gpa: Gpa) {
        self.frames_release(gpa, PAGE_SIZE);
    }
}
