//! The file tree: inodes, names, the overlay of a read-only host directory under an in-memory layer, proc, sys, dev.

use super::{InodeId, Stat};
use crate::errno::Errno;
use crate::fork::ForkArgs;
use crate::kernel::Kernel;
use crate::task::Tid;
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;

/// Mounts, inodes, dentries.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Vfs {}

impl Vfs {
    /// An empty tree.
    pub fn new() -> Self {
        Vfs {}
    }
}

impl Kernel {
    /// Makes the empty root with proc, sys, dev and tmp.
    pub fn init_vfs(&mut self) {}

    /// Mounts a host directory read-only under the in-memory layer as the root.
    pub fn mount_root(&mut self, _dir: OwnedFd) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// Brings file state up to date in the child of a fork.
    pub fn vfs_after_fork(&mut self, _args: &ForkArgs) {}

    /// Opens a path for a task; returns a file with one reference that the caller owns.
    pub fn open_path(
        &mut self,
        _tid: Tid,
        _dirfd: i32,
        _path: &[u8],
        _flags: u32,
        _mode: u32,
    ) -> Result<u64, Errno> {
        Err(Errno::ENOSYS)
    }

    /// The arena page that holds page `index` of an in-memory file, made when missing if `create`.
    pub fn inode_page(&mut self, _inode: InodeId, _index: u64, _create: bool) -> Result<Option<u64>, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Reads an inode's contents (regular or generated) at `offset`; 0 at the end. EISDIR, EINVAL.
    pub fn inode_read(&mut self, _inode: InodeId, _offset: u64, _buf: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    /// Writes an inode's contents, growing the file (a hole before `offset` reads as zeroes). EROFS, ENOSPC, EFBIG.
    pub fn inode_write(&mut self, _inode: InodeId, _offset: u64, _data: &[u8]) -> Result<usize, Errno> {
        Err(Errno::EROFS)
    }

    /// What stat(2) says of an inode.
    pub fn inode_stat(&mut self, _inode: InodeId) -> Result<Stat, Errno> {
        Err(Errno::ENOENT)
    }

    /// A file description is opened on (`+1`) or closed from (`-1`) an inode: an unlinked inode lives until the last closes.
    pub fn inode_open_count(&mut self, _inode: InodeId, _delta: i32) {}

    /// Absolute path of an inode as the guest sees it.
    pub fn inode_path(&self, _inode: InodeId) -> Vec<u8> {
        Vec::new()
    }

    /// What mmap of an inode maps. ENODEV, EACCES.
    pub fn inode_map_source(&mut self, _inode: InodeId) -> Result<super::MapSource, Errno> {
        Err(Errno::ENODEV)
    }

    /// Sets an inode's length. EROFS, EFBIG, EINVAL.
    pub fn inode_truncate(&mut self, _inode: InodeId, _len: u64) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    /// Writes a `struct stat` to user memory. EFAULT.
    pub fn put_stat(&mut self, _tid: Tid, _va: u64, _stat: &Stat) -> Result<(), Errno> {
        Err(Errno::EFAULT)
    }
}
