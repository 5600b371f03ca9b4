//! System V shared memory (shmget(2), shmop(2)): a segment is a file without a name, and an attachment a shared mapping of it.

use super::{Object, Perm};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::mm::mmap::{MapRequest, RLIMIT_AS};
use crate::mm::{Backing, Prot, VmFlags};
use crate::num::align_up;
use crate::platform::{PAGE_SIZE, TASK_SIZE, Va};
use crate::task::Tid;
use serde::{Deserialize, Serialize};

/// Segments at most (kernel.shmmni).
pub const SHMMNI: usize = 4096;
/// Bytes of a segment at most, and pages of all (kernel.shmmax, kernel.shmall): no limit but the sandbox's memory.
pub const SHMMAX: u64 = u64::MAX - (1 << 24);
/// Destroyed when the last attachment goes.
pub const SHM_DEST: u32 = 0o1000;
/// Locked in memory (without an effect here).
pub const SHM_LOCKED: u32 = 0o2000;
const SHM_HUGETLB: u32 = 0o4000;
const SHM_RDONLY: u32 = 0o10000;
const SHM_RND: u32 = 0o20000;
const SHM_REMAP: u32 = 0o40000;
const SHM_EXEC: u32 = 0o100000;

/// One segment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)] // shmctl(2)
pub struct Segment {
    pub perm: Perm,
    /// The open file behind it; the segment holds one reference.
    pub file: u64,
    pub size: u64,
    pub atime: i64,
    pub dtime: i64,
    pub ctime: i64,
    pub cpid: u32,
    pub lpid: u32,
}

impl Object for Segment {
    fn perm(&self) -> &Perm {
        &self.perm
    }
    fn perm_mut(&mut self) -> &mut Perm {
        &mut self.perm
    }
}

impl Kernel {
    /// shmget(2).
    pub fn shm_get(&mut self, tid: Tid, key: i32, size: u64, flags: u32) -> Result<u32, Errno> {
        let who = self.creds_of(tid);
        if let Some(index) = self.ipc.shm.lookup(key, flags)? {
            let id = self.ipc.shm.id_at(index).ok_or(Errno::EINVAL)?;
            let segment = self.ipc.shm.get(id.cast_signed())?;
            if size > segment.size {
                return Err(Errno::EINVAL);
            }
            segment.perm.check(&who, flags)?;
            return Ok(id);
        }
        if !(1..=SHMMAX).contains(&size) {
            return Err(Errno::EINVAL);
        }
        // No file is longer.
        if size > i64::MAX.cast_unsigned() {
            return Err(Errno::EINVAL);
        }
        let whole = align_up(size, PAGE_SIZE).filter(|s| *s <= TASK_SIZE).ok_or(Errno::ENOMEM)?;
        if flags & SHM_HUGETLB != 0 {
            return Err(Errno::ENOMEM);
        }
        if self.ipc.shm.len() >= SHMMNI {
            return Err(Errno::ENOSPC);
        }
        let name = format!("SYSV{:08x}", key.cast_unsigned());
        let file = self.shmem_open(tid, name.as_bytes(), whole)?;
        let (ctime, _) = self.now_pair();
        let cpid = self.task(tid).map_or(0, |t| t.pid);
        let perm = Perm::new(key, flags, &who);
        let segment = Segment { perm, file, size, atime: 0, dtime: 0, ctime, cpid, lpid: 0 };
        match self.ipc.shm.insert(segment, SHMMNI) {
            Ok(id) => Ok(id),
            Err(e) => {
                self.file_unref(file);
                Err(e)
            }
        }
    }

    /// How many mappings a segment has.
    pub fn shm_attached(&self, file: u64) -> u64 {
        self.mms.iter().map(|(_, m)| u64::from(m.files.get(&file).copied().unwrap_or(0))).sum()
    }

    /// shmat(2): returns the address.
    pub fn shm_attach(&mut self, tid: Tid, id: i32, addr: Va, flags: u32) -> Result<Va, Errno> {
        if id < 0 {
            return Err(Errno::EINVAL);
        }
        let mm = self.task(tid).ok_or(Errno::EFAULT)?.mm;
        let aligned = addr & !(PAGE_SIZE - 1);
        if addr != aligned && flags & SHM_RND == 0 {
            return Err(Errno::EINVAL);
        }
        if flags & SHM_REMAP != 0 && (addr == 0 || aligned == 0) {
            return Err(Errno::EINVAL);
        }
        let mut prot = Prot::READ;
        let mut wanted = 0o444;
        if flags & SHM_RDONLY == 0 {
            prot |= Prot::WRITE;
            wanted |= 0o222;
        }
        if flags & SHM_EXEC != 0 {
            prot |= Prot::EXEC;
            wanted |= 0o111;
        }
        let who = self.creds_of(tid);
        let segment = self.ipc.shm.get(id)?;
        segment.perm.check(&who, wanted)?;
        let (file, size) = (segment.file, segment.size);
        let len = align_up(size, PAGE_SIZE).ok_or(Errno::EINVAL)?;
        let m = self.mms.get(mm).ok_or(Errno::EFAULT)?;
        if addr != 0 {
            let end = aligned.checked_add(len).ok_or(Errno::EINVAL)?;
            if flags & SHM_REMAP == 0 && end <= TASK_SIZE && !m.is_free(aligned, end) {
                return Err(Errno::EINVAL);
            }
        }
        let mut request = MapRequest::anon(aligned, len, prot, addr != 0);
        request.flags = VmFlags::SHARED;
        request.backing = Backing::File { file, offset: 0 };
        request.limit = self.soft_limit(tid, RLIMIT_AS);
        if flags & SHM_RDONLY != 0 {
            request.may.remove(Prot::WRITE);
        }
        let at = self.mm_map(mm, request)?;
        let (now, _) = self.now_pair();
        let pid = self.task(tid).map_or(0, |t| t.pid);
        let segment = self.ipc.shm.get_mut(id)?;
        (segment.atime, segment.lpid) = (now, pid);
        Ok(at)
    }

    /// shmdt(2). EINVAL where nothing is attached.
    pub fn shm_detach(&mut self, tid: Tid, addr: Va) -> Result<(), Errno> {
        let mm = self.task(tid).ok_or(Errno::EFAULT)?.mm;
        if !addr.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let m = self.mms.get(mm).ok_or(Errno::EFAULT)?;
        let attached = |file: u64| self.ipc.shm.iter().find(|(_, s)| s.file == file);
        // The first part of the attachment that is still there; parts that were unmapped are skipped.
        let found = m.vmas.range(addr..).find_map(|(start, vma)| {
            let Backing::File { file, offset } = &vma.backing else { return None };
            (start - addr == *offset).then(|| attached(*file)).flatten().map(|(id, s)| (id, *file, s.size))
        });
        let (id, file, size) = found.ok_or(Errno::EINVAL)?;
        let end = addr.saturating_add(align_up(size, PAGE_SIZE).unwrap_or(size));
        let parts: Vec<(Va, Va)> = m
            .vmas
            .range(addr..end)
            .filter(|(start, vma)| vma.backing == Backing::File { file, offset: **start - addr })
            .map(|(start, vma)| (*start, vma.end))
            .collect();
        let (now, _) = self.now_pair();
        let pid = self.task(tid).map_or(0, |t| t.pid);
        let segment = self.ipc.shm.get_mut(id)?;
        (segment.dtime, segment.lpid) = (now, pid);
        for (start, end) in parts {
            self.munmap(mm, start, end - start)?;
        }
        Ok(())
    }

    /// IPC_RMID: the key goes at once, the segment with its last attachment. EINVAL, EPERM.
    pub fn shm_remove(&mut self, tid: Tid, id: i32) -> Result<(), Errno> {
        let who = self.creds_of(tid);
        let segment = self.ipc.shm.get_mut(id)?;
        segment.perm.check_owner(&who)?;
        segment.perm.mode |= SHM_DEST;
        self.ipc.shm.forget_key(id);
        self.shm_sweep();
        Ok(())
    }

    /// Destroys removed segments that nobody has attached any more. Called when mappings of files went.
    pub(crate) fn shm_sweep(&mut self) {
        if self.ipc.shm.is_empty() {
            return;
        }
        let removed: Vec<(i32, u64)> = self
            .ipc
            .shm
            .iter()
            .filter(|(_, s)| s.perm.mode & SHM_DEST != 0)
            .map(|(id, s)| (id, s.file))
            .collect();
        for (id, file) in removed {
            if self.shm_attached(file) == 0 && self.ipc.shm.remove(id).is_ok() {
                self.file_unref(file);
            }
        }
    }
}
