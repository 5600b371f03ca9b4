//! Open file descriptions and descriptor tables; reading and writing by kind.

use super::{MapSource, Stat, Stdio};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::task::Tid;
use crate::wait::SysResult;
use serde::{Deserialize, Serialize};

/// Objects behind file descriptions that are not inodes: pipes, eventfds, host streams.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Files {}

impl Kernel {
    /// Replaces the host descriptors behind stdin, stdout, stderr (kinds opened by [`Kernel::spawn_init`]); `None` leaves one as it is.
    pub fn reissue_stdio(&mut self, _stdio: Stdio) {}

    /// The open file description behind a descriptor. EBADF.
    pub fn file_of(&self, _tid: Tid, _fd: i32) -> Result<u64, Errno> {
        Err(Errno::EBADF)
    }

    /// Puts a file into the lowest free descriptor, taking over the caller's reference. EMFILE (then the reference is dropped).
    pub fn install_fd(&mut self, _tid: Tid, _file: u64, _cloexec: bool) -> Result<u32, Errno> {
        Err(Errno::EMFILE)
    }

    /// One more reference to a file.
    pub fn file_ref(&mut self, file: u64) {
        if let Some(f) = self.files.get_mut(file) {
            f.refs += 1;
        }
    }

    /// One reference less; the last closes it.
    pub fn file_unref(&mut self, _file: u64) {}

    /// A new descriptor table with one user.
    pub fn fd_table_new(&mut self) -> u64 {
        self.fd_tables.insert(crate::task::FdTable { refs: 1, ..Default::default() })
    }

    /// A copy of a descriptor table with one user (fork without CLONE_FILES).
    pub fn fd_table_copy(&mut self, _table: u64) -> u64 {
        0
    }

    /// One user less of a descriptor table; the last closes its descriptors.
    pub fn fd_table_release(&mut self, _table: u64) {}

    /// execve: makes the table the task's own and closes FD_CLOEXEC descriptors.
    pub fn fd_table_exec(&mut self, _tid: Tid) {}

    /// What mmap of a file maps. EACCES, ENODEV.
    pub fn file_map_source(&mut self, _file: u64) -> Result<MapSource, Errno> {
        Err(Errno::ENODEV)
    }

    /// Absolute guest path of an open file, for /proc/self/maps and /proc/self/fd.
    pub fn file_path(&self, _file: u64) -> Vec<u8> {
        Vec::new()
    }

    /// Reads for the kernel itself (ELF headers, scripts): up to `buf.len()` bytes at `offset`; 0 at the end.
    pub fn file_read_at(&mut self, _file: u64, _offset: u64, _buf: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::ENOSYS)
    }

    /// read(2) family on behalf of a task into user memory: `iovecs`, at `offset` or at the file's own.
    pub fn file_read(
        &mut self,
        _tid: Tid,
        _file: u64,
        _iovecs: &[(u64, u64)],
        _offset: Option<u64>,
    ) -> SysResult {
        Err(Errno::ENOSYS)
    }

    /// write(2) family on behalf of a task.
    pub fn file_write(
        &mut self,
        _tid: Tid,
        _file: u64,
        _iovecs: &[(u64, u64)],
        _offset: Option<u64>,
    ) -> SysResult {
        Err(Errno::ENOSYS)
    }

    /// What fstat(2) says of a file of any kind.
    pub fn file_stat(&mut self, _file: u64) -> Result<Stat, Errno> {
        Err(Errno::EBADF)
    }
}

impl Kernel {
    /// Opens descriptors 0, 1 and 2 (and 3, the work channel, when asked) of a new process.
    pub fn install_stdio(&mut self, _tid: Tid, _stdio: Stdio) {}
}
