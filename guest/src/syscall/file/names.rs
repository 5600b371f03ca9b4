//! Making, linking, renaming and removing names.

use super::CWD;
use crate::errno::Errno;
use crate::num::{int, low32};
use crate::syscall::{Context, ret};
use crate::vfs::inode::{Kind, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK};
use crate::vfs::path::Walk;
use crate::wait::SysResult;
use linux_raw_sys::general as g;
use std::collections::BTreeMap;

/// Walks to where a name is made or removed: the last component is not followed.
fn name_at(c: &mut Context<'_>, dirfd: u64, path: u64) -> Result<Walk, Errno> {
    let path = c.path(path)?;
    name_in(c, dirfd, &path)
}

fn name_in(c: &mut Context<'_>, dirfd: u64, path: &[u8]) -> Result<Walk, Errno> {
    // A slash after the name must not make the walk follow a link: mkdir("link/") is about the name.
    let end = path.iter().rposition(|b| *b != b'/').map_or(0, |i| i + 1);
    let name = path.get(..end).unwrap_or_default();
    if name.is_empty() {
        return c.k.resolve(c.tid, int(dirfd), path, false);
    }
    if path.len() >= crate::abi::PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let mut walk = c.k.resolve(c.tid, int(dirfd), name, false)?;
    walk.dir = end < path.len();
    Ok(walk)
}

fn mkdir_at(c: &mut Context<'_>, dirfd: u64, path: u64, mode: u64) -> SysResult {
    let walk = name_at(c, dirfd, path)?;
    c.k.make_dir(c.tid, &walk, low32(mode))?;
    ret(0)
}

pub(super) fn mkdir(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [path, mode, ..] = *a;
    mkdir_at(c, CWD, path, mode)
}

pub(super) fn mkdirat(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [dirfd, path, mode, ..] = *a;
    mkdir_at(c, dirfd, path, mode)
}

pub(super) fn rmdir(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [path, ..] = *a;
    let walk = name_at(c, CWD, path)?;
    c.k.remove_dir(c.tid, &walk)?;
    ret(0)
}

pub(super) fn unlink(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [path, ..] = *a;
    let walk = name_at(c, CWD, path)?;
    c.k.unlink(c.tid, &walk)?;
    ret(0)
}

pub(super) fn unlinkat(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [dirfd, path, flags, ..] = *a;
    let flags = low32(flags);
    if flags & !g::AT_REMOVEDIR != 0 {
        return Err(Errno::EINVAL);
    }
    let walk = name_at(c, dirfd, path)?;
    if flags == 0 {
        c.k.unlink(c.tid, &walk)?;
    } else {
        c.k.remove_dir(c.tid, &walk)?;
    }
    ret(0)
}

fn rename_at(c: &mut Context<'_>, from: (u64, u64), to: (u64, u64), flags: u32) -> SysResult {
    let others = g::RENAME_NOREPLACE | g::RENAME_WHITEOUT;
    if flags & !(others | g::RENAME_EXCHANGE) != 0 || (flags & g::RENAME_EXCHANGE != 0 && flags & others != 0)
    {
        return Err(Errno::EINVAL);
    }
    let whiteout = flags & g::RENAME_WHITEOUT != 0;
    if whiteout && !c.k.capable(c.tid, crate::task::creds::cap::MKNOD) {
        return Err(Errno::EPERM);
    }
    let from_path = c.path(from.1)?;
    let to_path = c.path(to.1)?;
    let from = name_in(c, from.0, &from_path)?;
    let to = name_in(c, to.0, &to_path)?;
    c.k.rename(c.tid, &from, &to, flags & g::RENAME_NOREPLACE != 0, flags & g::RENAME_EXCHANGE != 0)?;
    if whiteout && !(from.parent == to.parent && from.name == to.name) {
        let left = Walk { inode: None, ..from };
        c.k.create(c.tid, &left, Kind::Special, S_IFCHR, 0)?;
    }
    ret(0)
}

pub(super) fn rename(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [from, to, ..] = *a;
    rename_at(c, (CWD, from), (CWD, to), 0)
}

pub(super) fn renameat(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [from_dir, from, to_dir, to, ..] = *a;
    rename_at(c, (from_dir, from), (to_dir, to), 0)
}

pub(super) fn renameat2(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [from_dir, from, to_dir, to, flags, _] = *a;
    rename_at(c, (from_dir, from), (to_dir, to), low32(flags))
}

fn link_at(c: &mut Context<'_>, from: (u64, u64), to: (u64, u64), flags: u32) -> SysResult {
    if flags & !(g::AT_SYMLINK_FOLLOW | g::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let object = c.object_at_flags(from.0, from.1, flags, flags & g::AT_SYMLINK_FOLLOW != 0)?;
    let walk = name_at(c, to.0, to.1)?;
    let inode = object.inode(Errno::EXDEV)?;
    let node = c.k.vfs.inode(inode)?;
    if node.stat.nlink == 0 && node.name != b"#tmpfile" {
        return Err(Errno::ENOENT);
    }
    c.k.link(c.tid, inode, &walk)?;
    ret(0)
}

pub(super) fn link(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [from, to, ..] = *a;
    link_at(c, (CWD, from), (CWD, to), 0)
}

pub(super) fn linkat(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [from_dir, from, to_dir, to, flags, _] = *a;
    link_at(c, (from_dir, from), (to_dir, to), low32(flags))
}

fn symlink_at(c: &mut Context<'_>, target: u64, dirfd: u64, path: u64) -> SysResult {
    let target = c.path(target)?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    let walk = name_at(c, dirfd, path)?;
    c.k.make_symlink(c.tid, &walk, target)?;
    ret(0)
}

pub(super) fn symlink(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [target, path, ..] = *a;
    symlink_at(c, target, CWD, path)
}

pub(super) fn symlinkat(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [target, dirfd, path, ..] = *a;
    symlink_at(c, target, dirfd, path)
}

fn mknod_at(c: &mut Context<'_>, dirfd: u64, path: u64, mode: u64, dev: u64) -> SysResult {
    let mode = low32(mode) & 0xffff;
    let kind = match mode & S_IFMT {
        0 | S_IFREG => Kind::File(BTreeMap::new()),
        S_IFIFO | S_IFSOCK => Kind::Special,
        // The number 0, 0 is no device but the whiteout of overlay file systems.
        S_IFCHR | S_IFBLK
            if c.k.capable(c.tid, crate::task::creds::cap::MKNOD)
                || (mode & S_IFMT == S_IFCHR && dev == 0) =>
        {
            Kind::Special
        }
        S_IFCHR | S_IFBLK | S_IFDIR => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    };
    let walk = name_at(c, dirfd, path)?;
    if walk.dir && walk.inode.is_none() {
        return Err(Errno::ENOENT);
    }
    let kind_bits = if mode & S_IFMT == 0 { S_IFREG } else { mode & S_IFMT };
    let mode = kind_bits | (mode & 0o7777 & !c.k.umask_of(c.tid));
    let rdev = if matches!(kind_bits, S_IFCHR | S_IFBLK) { u64::from(low32(dev)) } else { 0 };
    c.k.create(c.tid, &walk, kind, mode, rdev)?;
    ret(0)
}

pub(super) fn mknod(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [path, mode, dev, ..] = *a;
    mknod_at(c, CWD, path, mode, dev)
}

pub(super) fn mknodat(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [dirfd, path, mode, dev, ..] = *a;
    mknod_at(c, dirfd, path, mode, dev)
}
