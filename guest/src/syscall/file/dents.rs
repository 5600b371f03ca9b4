//! Listing directories, the working directory, the root, the umask.

use super::CWD;
use crate::errno::Errno;
use crate::num::{int, low16, low32, u64_of, us};
use crate::syscall::{Context, ret};
use crate::vfs::ops::DirLine;
use crate::vfs::path::MAY_EXEC;
use crate::vfs::{FileKind, InodeId};
use crate::wait::SysResult;
use linux_raw_sys::general as g;

/// Bytes of listing made in one call, whatever the caller's buffer.
const MAX_LISTING: u64 = 64 << 10;

/// `struct linux_dirent64`.
fn line64(line: &DirLine) -> Vec<u8> {
    let len = (19 + line.name.len() + 1).next_multiple_of(8);
    let mut b = Vec::with_capacity(len);
    b.extend(line.ino.to_le_bytes());
    b.extend(line.next.to_le_bytes());
    b.extend(low16(u64_of(len)).to_le_bytes());
    b.push(line.dtype);
    b.extend(&line.name);
    b.resize(len, 0);
    b
}

/// `struct linux_dirent`: the type is the last byte.
fn line_old(line: &DirLine) -> Vec<u8> {
    let len = (18 + line.name.len() + 2).next_multiple_of(8);
    let mut b = Vec::with_capacity(len);
    b.extend(line.ino.to_le_bytes());
    b.extend(line.next.to_le_bytes());
    b.extend(low16(u64_of(len)).to_le_bytes());
    b.extend(&line.name);
    b.resize(len - 1, 0);
    b.push(line.dtype);
    b
}

fn listing(c: &mut Context<'_>, a: &[u64; 6], encode: fn(&DirLine) -> Vec<u8>) -> SysResult {
    let [fd, buf, size, ..] = *a;
    let file = c.k.file_of(c.tid, int(fd))?;
    let open = c.k.files.get(file).ok_or(Errno::EBADF)?;
    if open.flags & g::O_PATH != 0 {
        return Err(Errno::EBADF);
    }
    let FileKind::Inode(inode) = open.kind else { return Err(Errno::ENOTDIR) };
    let (pos, quiet) = (open.pos, open.flags & crate::vfs::fanotify::QUIET != 0);
    let room = us(u64::from(low32(size)).min(MAX_LISTING));
    let lines = c.k.inode_readdir(inode, pos, room / 24 + 1)?;
    if !quiet {
        c.k.notify_open(inode, g::IN_ACCESS);
    }
    let (mut out, mut next) = (Vec::new(), pos);
    let any = !lines.is_empty();
    for line in lines {
        let bytes = encode(&line);
        if out.len() + bytes.len() > room {
            break;
        }
        out.extend(bytes);
        next = line.next;
    }
    if any && out.is_empty() {
        return Err(Errno::EINVAL);
    }
    c.k.copy_out(c.tid, buf, &out)?;
    if let Some(open) = c.k.files.get_mut(file) {
        open.pos = next;
    }
    ret(u64_of(out.len()))
}

pub(super) fn getdents64(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    listing(c, a, line64)
}

pub(super) fn getdents(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    listing(c, a, line_old)
}

pub(super) fn getcwd(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [buf, size, ..] = *a;
    let (root, cwd) = c.k.fs_of(c.tid);
    if c.k.vfs.inode(cwd)?.stat.nlink == 0 {
        return Err(Errno::ENOENT);
    }
    let mut path = c.k.inode_path(cwd);
    if path.len() >= crate::abi::PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    if root != c.k.vfs.root() {
        let above = c.k.inode_path(root);
        path = match path.strip_prefix(above.as_slice()) {
            Some(b"") => b"/".to_vec(),
            Some(rest) if rest.first() == Some(&b'/') => rest.to_vec(),
            _ => [&b"(unreachable)"[..], &path].concat(),
        };
    }
    path.push(0);
    if u64_of(path.len()) > size {
        return Err(Errno::ERANGE);
    }
    c.k.copy_out(c.tid, buf, &path)?;
    ret(u64_of(path.len()))
}

fn enterable(c: &mut Context<'_>, inode: InodeId) -> Result<(), Errno> {
    if !c.k.vfs.inode(inode)?.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    let creds = c.k.creds_of(c.tid);
    c.k.permission(&creds, inode, MAY_EXEC)
}

fn context_of<'c>(c: &'c mut Context<'_>) -> Result<&'c mut crate::task::FsContext, Errno> {
    let id = c.k.task(c.tid).ok_or(Errno::ESRCH)?.fs;
    c.k.fs_contexts.get_mut(id).ok_or(Errno::ENOENT)
}

pub(super) fn chdir(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [path, ..] = *a;
    let inode = c.object_at_flags(CWD, path, 0, true)?.inode(Errno::ENOTDIR)?;
    enterable(c, inode)?;
    context_of(c)?.cwd = inode;
    ret(0)
}

pub(super) fn fchdir(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [fd, ..] = *a;
    let inode = c.object_of(int(fd))?.inode(Errno::ENOTDIR)?;
    enterable(c, inode)?;
    context_of(c)?.cwd = inode;
    ret(0)
}

pub(super) fn chroot(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [path, ..] = *a;
    let inode = c.object_at_flags(CWD, path, 0, true)?.inode(Errno::ENOTDIR)?;
    enterable(c, inode)?;
    if !c.k.capable(c.tid, crate::task::creds::cap::SYS_CHROOT) {
        return Err(Errno::EPERM);
    }
    context_of(c)?.root = inode;
    ret(0)
}

pub(super) fn umask(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [mask, ..] = *a;
    let fs = context_of(c)?;
    let old = std::mem::replace(&mut fs.umask, low32(mask) & 0o777);
    ret(u64::from(old))
}
