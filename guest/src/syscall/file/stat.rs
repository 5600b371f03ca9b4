//! Describing files: attributes, permissions, link targets, file systems.

use super::{CWD, Object};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{int, low16, low32, us};
use crate::platform::Va;
use crate::syscall::{Context, ret};
use crate::task::Tid;
use crate::task::creds::secure;
use crate::vfs::inode::FsKind;
use crate::vfs::mount::What;
use crate::vfs::{InodeId, Stat};
use crate::wait::{Outcome, SysResult};
use linux_raw_sys::general as g;

const STAT_FLAGS: u32 = g::AT_SYMLINK_NOFOLLOW | g::AT_NO_AUTOMOUNT | g::AT_EMPTY_PATH;

/// Builds little-endian structures.
#[derive(Default)]
pub(super) struct Bytes(pub Vec<u8>);

impl Bytes {
    fn u16(&mut self, x: u16) -> &mut Self {
        self.0.extend(x.to_le_bytes());
        self
    }
    fn u32(&mut self, x: u32) -> &mut Self {
        self.0.extend(x.to_le_bytes());
        self
    }
    fn u64(&mut self, x: u64) -> &mut Self {
        self.0.extend(x.to_le_bytes());
        self
    }
}

fn major(dev: u64) -> u32 {
    low32(dev >> 8) & 0xfff
}

fn minor(dev: u64) -> u32 {
    (low32(dev) & 0xff) | (low32(dev >> 12) & 0xffff_ff00)
}

impl Kernel {
    /// Writes `struct stat` to user memory. EFAULT.
    pub fn put_stat(&mut self, tid: Tid, va: Va, s: &Stat) -> Result<(), Errno> {
        let mut b = Bytes::default();
        b.u64(s.dev).u64(s.ino).u64(s.nlink).u32(s.mode).u32(s.uid).u32(s.gid).u32(0);
        b.u64(s.rdev).u64(s.size).u64(s.blksize).u64(s.blocks);
        for (secs, ns) in [s.atime, s.mtime, s.ctime] {
            b.u64(secs.cast_unsigned()).u64(u64::from(ns));
        }
        b.u64(0).u64(0).u64(0);
        self.copy_out(tid, va, &b.0)
    }

    fn put_statx(&mut self, tid: Tid, va: Va, s: &Stat, mount: u64) -> Result<(), Errno> {
        let mut b = Bytes::default();
        let known = s.btime != (0, 0);
        let mask = g::STATX_BASIC_STATS | g::STATX_MNT_ID | if known { g::STATX_BTIME } else { 0 };
        b.u32(mask).u32(low32(s.blksize)).u64(0);
        b.u32(low32(s.nlink)).u32(s.uid).u32(s.gid).u16(low16(u64::from(s.mode))).u16(0);
        b.u64(s.ino).u64(s.size).u64(s.blocks).u64(0);
        for (secs, ns) in [s.atime, s.btime, s.ctime, s.mtime] {
            b.u64(secs.cast_unsigned()).u32(ns).u32(0);
        }
        b.u32(major(s.rdev)).u32(minor(s.rdev)).u32(major(s.dev)).u32(minor(s.dev)).u64(mount);
        b.0.resize(256, 0);
        self.copy_out(tid, va, &b.0)
    }
}

impl Context<'_> {
    fn object_stat(&mut self, object: Object) -> Result<Stat, Errno> {
        match object {
            Object::Inode(id) => self.k.inode_stat(id),
            Object::File(file) => self.k.file_stat(file),
        }
    }
}

fn stat_at(c: &mut Context<'_>, dirfd: u64, path: u64, out: u64, flags: u32) -> SysResult {
    if flags & !STAT_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let object = c.object_at_flags(dirfd, path, flags, flags & g::AT_SYMLINK_NOFOLLOW == 0)?;
    let stat = c.object_stat(object)?;
    c.k.put_stat(c.tid, out, &stat)?;
    ret(0)
}

pub(super) fn stat(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [path, out, ..] = *a;
    stat_at(c, CWD, path, out, 0)
}

pub(super) fn lstat(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [path, out, ..] = *a;
    stat_at(c, CWD, path, out, g::AT_SYMLINK_NOFOLLOW)
}

pub(super) fn newfstatat(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [dirfd, path, out, flags, ..] = *a;
    stat_at(c, dirfd, path, out, low32(flags))
}

pub(super) fn statx(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [dirfd, path, flags, mask, out, _] = *a;
    let flags = low32(flags);
    let sync = flags & g::AT_STATX_SYNC_TYPE;
    if mask & 0x8000_0000 != 0
        || flags & !(STAT_FLAGS | g::AT_STATX_SYNC_TYPE) != 0
        || sync == g::AT_STATX_SYNC_TYPE
    {
        return Err(Errno::EINVAL);
    }
    let object = c.object_at_flags(dirfd, path, flags, flags & g::AT_SYMLINK_NOFOLLOW == 0)?;
    let stat = c.object_stat(object)?;
    let mount = match object {
        Object::Inode(id) => c.k.mount_id(c.k.vfs.inode(id)?.fs),
        Object::File(_) => 1,
    };
    c.k.put_statx(c.tid, out, &stat, mount)?;
    ret(0)
}

fn access_at(c: &mut Context<'_>, dirfd: u64, path: u64, mode: u64, flags: u32) -> SysResult {
    let mode = low32(mode);
    if mode & !7 != 0 || flags & !(g::AT_EACCESS | g::AT_SYMLINK_NOFOLLOW | g::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let own = c.k.creds_of(c.tid);
    let mut creds = own.clone();
    if flags & g::AT_EACCESS == 0 {
        creds.fsuid = creds.uid;
        creds.fsgid = creds.gid;
        if creds.securebits & secure::NO_SETUID_FIXUP == 0 {
            creds.caps.effective = if creds.uid == 0 { creds.caps.permitted } else { 0 };
        }
    }
    // The way there, too, goes by these credentials.
    if let Some(p) = c.k.process_of_mut(c.tid) {
        p.creds = creds.clone();
    }
    let object = c.object_at_flags(dirfd, path, flags, flags & g::AT_SYMLINK_NOFOLLOW == 0);
    if let Some(p) = c.k.process_of_mut(c.tid) {
        p.creds = own;
    }
    if let Object::Inode(id) = object? {
        c.k.permission(&creds, id, mode)?;
    }
    ret(0)
}

pub(super) fn access(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [path, mode, ..] = *a;
    access_at(c, CWD, path, mode, 0)
}

pub(super) fn faccessat(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [dirfd, path, mode, ..] = *a;
    access_at(c, dirfd, path, mode, 0)
}

pub(super) fn faccessat2(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [dirfd, path, mode, flags, ..] = *a;
    access_at(c, dirfd, path, mode, low32(flags))
}

fn readlink_at(c: &mut Context<'_>, dirfd: u64, path: u64, out: u64, size: u64) -> SysResult {
    let size = int(size);
    if size <= 0 {
        return Err(Errno::EINVAL);
    }
    let path = c.path(path)?;
    // An empty path names the descriptor itself, which must be an O_PATH one of a link.
    let inode = if path.is_empty() {
        let id = c.object_of(int(dirfd)).map_err(|_| Errno::ENOENT)?.inode(Errno::ENOENT)?;
        if c.k.vfs.inode(id)?.file_type() != crate::vfs::inode::S_IFLNK {
            return Err(Errno::ENOENT);
        }
        id
    } else {
        c.object_at(int(dirfd), &path, false)?.inode(Errno::EINVAL)?
    };
    let mut text = c.k.link_text(c.tid, inode)?;
    text.truncate(us(u64::from(size.unsigned_abs())));
    c.k.copy_out(c.tid, out, &text)?;
    ret(crate::num::u64_of(text.len()))
}

pub(super) fn readlink(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [path, out, size, ..] = *a;
    readlink_at(c, CWD, path, out, size)
}

pub(super) fn readlinkat(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [dirfd, path, out, size, ..] = *a;
    readlink_at(c, dirfd, path, out, size)
}

fn put_statfs(c: &mut Context<'_>, inode: Option<InodeId>, out: u64) -> SysResult {
    let fs = match inode {
        Some(id) => Some(c.k.vfs.inode(id)?.fs),
        None => None,
    };
    let mount = fs.and_then(|fs| c.k.vfs.mounts.of(fs));
    let fsid = inode.map_or(0, |id| c.k.fs_id(id));
    let flags = 0x20 | u64::from(mount.is_some_and(|m| m.flags & 1 != 0));
    if let Some([magic, size, blocks, free, available, files, free_files]) =
        fs.and_then(|fs| c.k.live_statfs(fs))
    {
        let mut b = Bytes::default();
        b.u64(magic).u64(size).u64(blocks).u64(free).u64(available).u64(files).u64(free_files);
        b.u64(fsid).u64(255).u64(size).u64(flags);
        b.0.resize(120, 0);
        c.k.copy_out(c.tid, out, &b.0)?;
        return Ok(Outcome::Return(0));
    }
    let magic: u32 = match inode {
        None => 0x5049_5045,
        Some(id) => match c.k.vfs.inode(id)?.fs {
            FsKind::Root => g::OVERLAYFS_SUPER_MAGIC,
            FsKind::Dev | FsKind::Shm | FsKind::Mount(_) => g::TMPFS_MAGIC,
            FsKind::Proc => 0x9fa0,
            FsKind::Sys => 0x6265_6572,
        },
    };
    let (all_files, free_files) = c.k.vfs.inode_room(fs);
    let (blocks, free) = match mount.map(|m| &m.what) {
        Some(What::Tmpfs { max_pages, pages, .. }) => {
            (*max_pages, max_pages.saturating_sub(*pages).min(c.k.file_pages_left()))
        }
        // Inodes take memory too: eight of them are counted as a page.
        _ => {
            let inodes = all_files.saturating_sub(free_files) / 8 + 1;
            (c.k.limits.memory / 2 / 4096, c.k.file_pages_left().saturating_sub(inodes))
        }
    };
    let (blocks, free) =
        if matches!(magic, 0x9fa0 | 0x6265_6572 | 0x5049_5045) { (0, 0) } else { (blocks, free) };
    let mut b = Bytes::default();
    b.u64(u64::from(magic)).u64(4096).u64(blocks).u64(free).u64(free);
    b.u64(all_files).u64(free_files);
    b.u64(fsid).u64(255).u64(4096).u64(flags | if magic == g::TMPFS_MAGIC { 0 } else { 0x1000 });
    b.0.resize(120, 0);
    c.k.copy_out(c.tid, out, &b.0)?;
    Ok(Outcome::Return(0))
}

pub(super) fn statfs(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [path, out, ..] = *a;
    let object = c.object_at_flags(CWD, path, 0, true)?;
    put_statfs(c, object.inode(Errno::ENOSYS).ok(), out)
}

pub(super) fn fstatfs(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [fd, out, ..] = *a;
    let object = c.object_of(int(fd))?;
    put_statfs(c, object.inode(Errno::ENOSYS).ok(), out)
}
