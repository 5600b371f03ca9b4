//! Advisory locks: the lock commands of fcntl(2), and flock(2).

use super::{Context, ret};
use crate::errno::Errno;
use crate::num::{int, low32};
use crate::signal::frame::{le32, le64, put};
use crate::vfs::InodeId;
use crate::vfs::lock::{Owner, Record};
use crate::wait::{Block, Outcome, SysResult};

fn inode_of(c: &Context<'_>, file: u64) -> Result<InodeId, Errno> {
    c.k.files.get(file).map(|f| f.kind.locked_as()).ok_or(Errno::EBADF)
}

/// The range that a `struct flock` means: first and last byte. EINVAL, EOVERFLOW.
fn range(c: &mut Context<'_>, file: u64, b: &[u8]) -> Result<(u64, u64), Errno> {
    let f = c.k.open_file(file)?;
    let base = match le32(b, 0) >> 16 {
        0 => 0,
        1 => f.pos.cast_signed(),
        2 => c.k.file_stat(file)?.size.cast_signed(),
        _ => return Err(Errno::EINVAL),
    };
    let start = base.checked_add(le64(b, 8).cast_signed()).ok_or(Errno::EOVERFLOW)?;
    let len = le64(b, 16).cast_signed();
    let (first, last) = match len {
        0 => (start, i64::MAX),
        1.. => (start, start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?),
        _ => (start.checked_add(len).ok_or(Errno::EINVAL)?, start.checked_sub(1).ok_or(Errno::EINVAL)?),
    };
    let first = u64::try_from(first).map_err(|_| Errno::EINVAL)?;
    let last = u64::try_from(last).map_err(|_| Errno::EINVAL)?;
    // What reaches the largest position reaches the end of the file wherever it is.
    Ok((first, if last == i64::MAX.cast_unsigned() { u64::MAX } else { last }))
}

/// F_GETLK, F_SETLK, F_SETLKW and their F_OFD_ forms. EINVAL, EBADF, EAGAIN, ENOLCK, EFAULT.
pub fn fcntl(c: &mut Context<'_>, file: u64, cmd: u32, va: u64) -> SysResult {
    let mut b = c.k.copy_in_vec(c.tid, va, 32)?;
    let kind = le32(&b, 0) & 0xffff;
    let ofd = cmd >= 36;
    let get = matches!(cmd, 5 | 36);
    if kind > 2 || (get && kind == 2 && !ofd) || (ofd && le32(&b, 24) != 0) {
        return Err(Errno::EINVAL);
    }
    let (start, end) = range(c, file, &b)?;
    let owner = if ofd { Owner::File(file) } else { Owner::Process(c.pid()?) };
    let inode = inode_of(c, file)?;
    let wanted = Record { owner, start, end, exclusive: kind == 1 };
    if get {
        let found = if kind == 2 {
            // What the file itself has there.
            c.k.lock_own(inode, &wanted)
        } else {
            c.k.lock_conflict(inode, &wanted)
        };
        match found {
            None => put(&mut b, 0, &[2, 0]),
            Some(other) => {
                let len = if other.end == u64::MAX { 0 } else { other.end - other.start + 1 };
                let pid = if let Owner::Process(pid) = other.owner { pid.cast_signed() } else { -1 };
                put(&mut b, 0, &[u8::from(other.exclusive), 0, 0, 0]);
                put(&mut b, 8, &other.start.to_le_bytes());
                put(&mut b, 16, &len.to_le_bytes());
                put(&mut b, 24, &pid.to_le_bytes());
            }
        }
        c.k.copy_out(c.tid, va, &b)?;
        return ret(0);
    }
    let access = c.k.open_file(file)?.flags & 3;
    match kind {
        0 if access == 1 => return Err(Errno::EBADF),
        1 if access == 0 => return Err(Errno::EBADF),
        2 => {
            c.k.lock_drop(inode, owner, start, end);
            return ret(0);
        }
        _ => {}
    }
    take(c, inode, wanted, matches!(cmd, 7 | 38))
}

fn take(c: &mut Context<'_>, inode: InodeId, wanted: Record, wait: bool) -> SysResult {
    match c.k.lock_take(inode, wanted) {
        Err(Errno::EAGAIN) if wait => {
            c.k.lock_wait(c.tid, inode, wanted)?;
            Ok(Outcome::Block(Block::on(c.k.lock_key(inode))))
        }
        other => {
            other?;
            ret(0)
        }
    }
}

/// flock(2). EINVAL, EBADF, EAGAIN, ENOLCK.
pub fn flock(c: &mut Context<'_>, &[fd, op, ..]: &[u64; 6]) -> SysResult {
    let op = low32(op);
    // LOCK_MAND is gone from Linux, and no error.
    if op & 32 != 0 {
        return super::ret(0);
    }
    let exclusive = match op & !4 {
        1 => false,
        2 => true,
        8 => {
            let file = open(c, fd)?;
            let inode = inode_of(c, file)?;
            c.k.lock_drop(inode, Owner::Flock(file), 0, u64::MAX);
            return ret(0);
        }
        _ => return Err(Errno::EINVAL),
    };
    let file = open(c, fd)?;
    let inode = inode_of(c, file)?;
    let owner = Owner::Flock(file);
    take(c, inode, Record { owner, start: 0, end: u64::MAX, exclusive }, op & 4 == 0)
}

fn open(c: &Context<'_>, fd: u64) -> Result<u64, Errno> {
    let file = c.k.file_of(c.tid, int(fd))?;
    if c.k.open_file(file)?.flags & crate::vfs::file::O_PATH != 0 { Err(Errno::EBADF) } else { Ok(file) }
}
