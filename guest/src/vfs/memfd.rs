//! Anonymous files in memory (memfd_create(2)) and their seals (fcntl(2), "File Sealing").

use super::inode::{FsKind, Kind, ROOT, S_IFREG};
use super::mount::What;
use super::{FileKind, InodeId};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::mm::{Backing, Prot, VmFlags};
use crate::task::Tid;
use std::collections::BTreeMap;

/// No more seals.
pub const F_SEAL_SEAL: u32 = 1;
const F_SEAL_SHRINK: u32 = 2;
const F_SEAL_GROW: u32 = 4;
const F_SEAL_WRITE: u32 = 8;
const F_SEAL_FUTURE_WRITE: u32 = 16;
/// The executable bits do not change.
pub const F_SEAL_EXEC: u32 = 32;

impl Kernel {
    /// Makes a file without a name and opens it for reading and writing; one reference. ENOSPC.
    pub fn memfd_open(&mut self, tid: Tid, name: &[u8], seals: u32, mode: u32) -> Result<u64, Errno> {
        let creds = self.creds_of(tid);
        let mut stat = self.fresh_stat(S_IFREG | mode);
        (stat.uid, stat.gid, stat.nlink) = (creds.fsuid, creds.fsgid, 0);
        let name = [b"memfd:", name].concat();
        let id = self.vfs.add(Kind::File(BTreeMap::new()), stat, ROOT, &name, FsKind::Shm)?;
        self.vfs.inode_mut(id)?.seals = Some(seals);
        self.open_inode(id, 2 | linux_raw_sys::general::O_LARGEFILE)
    }

    /// A file of `len` bytes without a name (as proc shows it) or seals, opened for reading and writing; one reference. ENOSPC.
    pub(crate) fn shmem_open(&mut self, tid: Tid, name: &[u8], len: u64) -> Result<u64, Errno> {
        let creds = self.creds_of(tid);
        let mut stat = self.fresh_stat(S_IFREG | 0o777);
        (stat.uid, stat.gid, stat.nlink, stat.size) = (creds.fsuid, creds.fsgid, 0, len);
        let id = self.vfs.add(Kind::File(BTreeMap::new()), stat, ROOT, name, FsKind::Shm)?;
        self.vfs.inode_mut(id)?.seals = Some(F_SEAL_SEAL);
        self.open_inode(id, 2 | linux_raw_sys::general::O_LARGEFILE)
    }

    /// F_GET_SEALS. EINVAL for files that have none.
    pub fn seals(&self, inode: InodeId) -> Result<u32, Errno> {
        let node = self.vfs.inode(inode)?;
        let tmpfs = self.is_tmpfs(inode);
        // The named files of a tmpfs are sealed against seals.
        let named = (tmpfs && node.file_type() == S_IFREG).then_some(F_SEAL_SEAL);
        node.seals.or(named).ok_or(Errno::EINVAL)
    }

    /// Whether an inode is of a file system in memory.
    pub fn is_tmpfs(&self, inode: InodeId) -> bool {
        match self.vfs.inode(inode).map(|n| n.fs) {
            Ok(FsKind::Shm) => true,
            Ok(fs) => self.vfs.mounts.of(fs).is_some_and(|m| matches!(m.what, What::Tmpfs { .. })),
            Err(_) => false,
        }
    }

    /// Whether a shared mapping of a file may be written to now or after an mprotect(2).
    fn is_mapped_writable(&self, inode: InodeId) -> bool {
        let of = |file: u64| self.files.get(file).is_some_and(|f| f.kind == FileKind::Inode(inode));
        self.mms.iter().any(|(_, mm)| {
            mm.files.keys().any(|file| of(*file))
                && mm.vmas.values().any(|v| {
                    v.flags.contains(VmFlags::SHARED)
                        && v.may.contains(Prot::WRITE)
                        && matches!(v.backing, Backing::File { file, .. } if of(file))
                })
        })
    }

    /// F_ADD_SEALS. EINVAL, EPERM; EBUSY for a seal against writes under a mapping that can be written to.
    pub fn add_seals(&mut self, inode: InodeId, new: u32) -> Result<(), Errno> {
        let old = self.seals(inode)?;
        if new & !0x3f != 0 {
            return Err(Errno::EINVAL);
        }
        if old & F_SEAL_SEAL != 0 {
            return Err(Errno::EPERM);
        }
        if new & F_SEAL_WRITE != 0 && old & F_SEAL_WRITE == 0 && self.is_mapped_writable(inode) {
            return Err(Errno::EBUSY);
        }
        self.vfs.inode_mut(inode)?.seals = Some(old | new);
        Ok(())
    }

    /// Whether seals forbid new shared mappings that can be written to.
    pub fn file_is_write_sealed(&self, file: u64) -> bool {
        let Some(super::FileKind::Inode(inode)) = self.files.get(file).map(|f| &f.kind) else { return false };
        self.seals(*inode).is_ok_and(|s| s & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) != 0)
    }

    /// Whether seals forbid writing up to `end`. EPERM.
    pub fn check_seal_write(&self, inode: InodeId, end: u64) -> Result<(), Errno> {
        let node = self.vfs.inode(inode)?;
        let seals = node.seals.unwrap_or(0);
        let grows = end > node.stat.size && seals & F_SEAL_GROW != 0;
        if seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) != 0 || grows { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// Whether seals forbid making the file `len` bytes long. EPERM.
    pub fn check_seal_size(&self, inode: InodeId, len: u64) -> Result<(), Errno> {
        let node = self.vfs.inode(inode)?;
        let seals = node.seals.unwrap_or(0);
        let bad = (len < node.stat.size && seals & F_SEAL_SHRINK != 0)
            || (len > node.stat.size && seals & F_SEAL_GROW != 0);
        if bad { Err(Errno::EPERM) } else { Ok(()) }
    }
}
