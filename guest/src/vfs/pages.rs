//! Pages of the arena that hold the contents of in-memory files, from the one allocator of extents.

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::platform::{Gpa, PAGE_SIZE};

impl Kernel {
    /// A zeroed page with one user. ENOSPC when in-memory files hold half of the sandbox's memory limit (as tmpfs(5) does by default), so
    /// that a full file system is an error of the writer and does not kill anybody, or when the arena is full.
    pub fn frame_alloc_page(&mut self) -> Result<Gpa, Errno> {
        if self.vfs.file_pages >= self.limits.memory / 2 / PAGE_SIZE {
            return Err(Errno::ENOSPC);
        }
        let gpa = self.frames_alloc(PAGE_SIZE).map_err(|_| Errno::ENOSPC)?;
        self.vfs.file_pages += 1;
        Ok(gpa)
    }

    /// One user less; the last one's going empties the page and makes it free. Mappings of the page are users of their own.
    pub fn frame_free_page(&mut self, gpa: Gpa) {
        self.vfs.file_pages = self.vfs.file_pages.saturating_sub(1);
        self.frames_release(gpa, PAGE_SIZE);
    }
}
