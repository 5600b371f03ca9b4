//! The lower tree: a host directory that is only ever read, below one descriptor.
//!
//! Paths arrive here already walked component by component; the host resolves no symbolic link and no `..` for the guest. The tree may
//! hold anything; only regular files and directories are opened, never blocking.

use super::Stat;
use super::inode::{S_IFDIR, S_IFMT, S_IFREG};
use crate::errno::Errno;
use crate::num::low32;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub(super) fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path: &[u8] = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    for _ in 0..8 {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // A rename somewhere on the host raced with the walk.
            Err(rustix::io::Errno::AGAIN) => {}
            Err(rustix::io::Errno::MFILE) => return Err(Errno::ENFILE),
            other => return Ok(other?),
        }
    }
    Err(Errno::EIO)
}

/// Attributes of an open lower file.
pub fn stat_fd(fd: BorrowedFd<'_>) -> Result<Stat, Errno> {
    let s = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
    let time = |t: rustix::fs::StatxTimestamp| (t.tv_sec, t.tv_nsec);
    Ok(Stat {
        dev: rustix::fs::makedev(s.stx_dev_major, s.stx_dev_minor),
        ino: s.stx_ino.max(1),
        nlink: u64::from(s.stx_nlink),
        mode: u32::from(s.stx_mode),
        uid: s.stx_uid,
        gid: s.stx_gid,
        rdev: rustix::fs::makedev(s.stx_rdev_major, s.stx_rdev_minor),
        size: s.stx_size,
        blksize: u64::from(s.stx_blksize),
        blocks: s.stx_blocks,
        atime: time(s.stx_atime),
        mtime: time(s.stx_mtime),
        ctime: time(s.stx_ctime),
        btime: time(s.stx_btime),
    })
}

/// Attributes of a path and, for a symbolic link, its target. ENOENT and the host's other errors.
pub fn stat(root: BorrowedFd<'_>, path: &[u8]) -> Result<(Stat, Option<Vec<u8>>), Errno> {
    let fd = open(root, path, OFlags::PATH)?;
    let stat = stat_fd(fd.as_fd())?;
    let link = if stat.mode & S_IFMT == super::inode::S_IFLNK {
        Some(rustix::fs::readlinkat(&fd, c"", Vec::new())?.into_bytes())
    } else {
        None
    };
    Ok((stat, link))
}

/// Opens a regular file for reading. EACCES when it is something else by now.
pub fn open_file(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let fd = open(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    if stat_fd(fd.as_fd())?.mode & S_IFMT != S_IFREG {
        return Err(Errno::EACCES);
    }
    Ok(fd)
}

/// Names in a directory: (name, inode number, DT_ type), without `.` and `..`.
pub fn list(root: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<(Vec<u8>, u64, u8)>, Errno> {
    let fd = open(root, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    if stat_fd(fd.as_fd())?.mode & S_IFMT != S_IFDIR {
        return Err(Errno::ENOTDIR);
    }
    let mut out = Vec::new();
    for entry in rustix::fs::Dir::new(fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = super::inode::dtype(low32(u64::from(entry.file_type().as_raw_mode())));
        out.push((name.to_vec(), entry.ino(), kind));
    }
    Ok(out)
}
