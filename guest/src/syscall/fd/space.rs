//! The space that a file takes: length, allocation, advice, synchronisation.

use super::{inode, open};
use crate::errno::Errno;
use crate::num::low32;
use crate::syscall::{Context, ret};
use crate::vfs::FileKind;
use crate::vfs::inode::S_IFREG;
use crate::wait::SysResult;
use linux_raw_sys::general::IN_MODIFY;

pub(super) fn fsync(c: &mut Context<'_>, &[fd, ..]: &[u64; 6]) -> SysResult {
    let inode = inode(c, fd)?;
    c.k.live_sync(inode)?;
    ret(0)
}

pub(super) fn readahead(c: &mut Context<'_>, &[fd, ..]: &[u64; 6]) -> SysResult {
    let id = open(c, fd)?;
    if c.k.open_file(id)?.flags & 3 == 1 {
        return Err(Errno::EBADF);
    }
    let inode = inode(c, fd)?;
    if c.k.vfs.inode(inode)?.is_dir() { Err(Errno::EINVAL) } else { ret(0) }
}

pub(super) fn sync_file_range(c: &mut Context<'_>, &[fd, offset, len, flags, ..]: &[u64; 6]) -> SysResult {
    let id = open(c, fd)?;
    let end = offset.cast_signed().checked_add(len.cast_signed());
    if low32(flags) & !7 != 0 || offset.cast_signed() < 0 || end.is_none_or(|e| e < offset.cast_signed()) {
        return Err(Errno::EINVAL);
    }
    if c.k.file_is_stream(id) {
        return Err(Errno::ESPIPE);
    }
    ret(0)
}

pub(super) fn fadvise(c: &mut Context<'_>, &[fd, _, len, advice, ..]: &[u64; 6]) -> SysResult {
    let id = open(c, fd)?;
    if matches!(c.k.open_file(id)?.kind, FileKind::Pipe { .. }) {
        return Err(Errno::ESPIPE);
    }
    if len.cast_signed() < 0 || low32(advice) > 5 { Err(Errno::EINVAL) } else { ret(0) }
}

pub(super) fn ftruncate(c: &mut Context<'_>, &[fd, len, ..]: &[u64; 6]) -> SysResult {
    if len.cast_signed() < 0 {
        return Err(Errno::EINVAL);
    }
    let id = open(c, fd)?;
    let inode = inode(c, fd)?;
    if c.k.open_file(id)?.flags & 3 == 0 {
        return Err(Errno::EINVAL);
    }
    c.k.check_file_size(c.tid, inode, len)?;
    c.k.inode_truncate(inode, len)?;
    c.k.contents_changed(c.tid, inode);
    c.k.notify_both(inode, IN_MODIFY);
    ret(0)
}

const KEEP_SIZE: u32 = 1;
const PUNCH_HOLE: u32 = 2;
const COLLAPSE: u32 = 8;
const ZERO: u32 = 16;
const INSERT: u32 = 32;

pub(super) fn fallocate(c: &mut Context<'_>, &[fd, mode, offset, len, ..]: &[u64; 6]) -> SysResult {
    let id = open(c, fd)?;
    let mode = low32(mode);
    if offset.cast_signed() < 0 || len.cast_signed() <= 0 {
        return Err(Errno::EINVAL);
    }
    let keep = mode & KEEP_SIZE != 0;
    match mode & !KEEP_SIZE {
        0 | ZERO => {}
        PUNCH_HOLE if keep => {}
        COLLAPSE | INSERT if !keep => {}
        _ => return Err(Errno::EOPNOTSUPP),
    }
    let f = c.k.open_file(id)?;
    if f.flags & 3 == 0 {
        return Err(Errno::EBADF);
    }
    let inode = match f.kind {
        FileKind::Inode(inode) => inode,
        FileKind::Pipe { .. } => return Err(Errno::ESPIPE),
        _ => return Err(Errno::ENODEV),
    };
    if c.k.vfs.inode(inode)?.file_type() != S_IFREG {
        return Err(Errno::ENODEV);
    }
    let end = offset.checked_add(len).filter(|e| e.cast_signed() >= 0).ok_or(Errno::EFBIG)?;
    if c.k.live_allocate(inode, mode, offset, len)? {
        return ret(0);
    }
    match mode & !KEEP_SIZE {
        PUNCH_HOLE => c.k.inode_punch(inode, offset, end)?,
        COLLAPSE => c.k.inode_collapse(inode, offset, len)?,
        INSERT => c.k.inode_insert(inode, offset, len)?,
        what => {
            c.k.inode_has_room(inode, offset, end)?;
            let size = c.k.inode_stat(inode)?.size;
            if what == ZERO && offset < size {
                c.k.inode_punch(inode, offset, end.min(size))?;
            }
            if !keep && end > size {
                c.k.check_file_size(c.tid, inode, end)?;
                c.k.inode_truncate(inode, end)?;
            }
        }
    }
    c.k.contents_changed(c.tid, inode);
    c.k.notify_open(inode, IN_MODIFY);
    ret(0)
}
