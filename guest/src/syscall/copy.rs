//! System calls that move bytes from file to file: sendfile, copy_file_range. The bytes go through kernel memory; both may return
//! less than was asked for.

use super::{Arg, Context, Entry, ret};
use crate::errno::Errno;
use crate::num::{int, low32, u64_of, us};
use crate::vfs::file::{MAX_RW_COUNT, O_APPEND, O_NONBLOCK, O_PATH};
use crate::vfs::{FileKind, InodeId, OpenFile};
use crate::wait::{Block, Outcome, SysResult, WaitKey};
use linux_raw_sys::general::{IN_ACCESS, IN_MODIFY};

/// Bytes moved at a time.
const PIECE: u64 = 65536;
/// Most that one call moves: the kernel is locked meanwhile.
const MOST: u64 = 4 << 20;

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::full(40, "sendfile", &[Arg::Fd, Arg::Fd, Arg::Ptr, Arg::Uint], sendfile),
    Entry::full(
        326,
        "copy_file_range",
        &[Arg::Fd, Arg::Ptr, Arg::Fd, Arg::Ptr, Arg::Uint, Arg::Hex],
        copy_file_range,
    ),
];

/// An open file that may be used for this direction. EBADF.
fn end(c: &Context<'_>, fd: u64, write: bool) -> Result<(u64, OpenFile), Errno> {
    let id = c.k.file_of(c.tid, int(fd))?;
    let f = c.k.open_file(id)?;
    let forbidden = if write { 0 } else { 1 };
    if f.flags & O_PATH != 0 || f.flags & 3 == forbidden {
        return Err(Errno::EBADF);
    }
    if c.k.became_private(c.tid, &f) { Err(Errno::EINVAL) } else { Ok((id, f)) }
}

/// A position in user memory, or the file's own. EFAULT, EINVAL.
fn position(c: &mut Context<'_>, va: u64, f: &OpenFile) -> Result<u64, Errno> {
    if va == 0 {
        return Ok(f.pos);
    }
    let pos = c.k.get_u64(c.tid, va)?;
    if pos.cast_signed() < 0 { Err(Errno::EINVAL) } else { Ok(pos) }
}

fn set_position(c: &mut Context<'_>, va: u64, file: u64, pos: u64) -> Result<(), Errno> {
    if va != 0 {
        return c.k.put_u64(c.tid, va, pos);
    }
    if let Some(f) = c.k.files.get_mut(file) {
        f.pos = pos;
    }
    Ok(())
}

fn regular(c: &Context<'_>, f: &OpenFile) -> Result<InodeId, Errno> {
    let FileKind::Inode(inode) = f.kind else { return Err(Errno::EINVAL) };
    if c.k.vfs.inode(inode)?.is_dir() { Err(Errno::EISDIR) } else { Ok(inode) }
}

fn sendfile(c: &mut Context<'_>, &[out, input, offset, count, ..]: &[u64; 6]) -> SysResult {
    let (in_id, from) = end(c, input, false)?;
    let mut pos = position(c, offset, &from)?;
    let (out_id, to) = end(c, out, true)?;
    let nothing = count == 0 && matches!(from.kind, FileKind::Inode(_));
    if !nothing && !matches!(from.kind, FileKind::Device(..)) {
        regular(c, &from).map_err(|_| Errno::EINVAL)?;
    }
    if to.flags & O_APPEND != 0 || count.cast_signed() < 0 {
        return Err(Errno::EINVAL);
    }
    let total = count.min(MAX_RW_COUNT).min(MOST);
    let (mut done, mut out_pos) = (0u64, to.pos);
    while done < total {
        let mut buf = vec![0; us((total - done).min(PIECE))];
        let n = c.k.file_peek(&from, pos, &mut buf)?;
        let data = buf.get(..n).unwrap_or_default();
        if data.is_empty() {
            break;
        }
        let pushed = match to.kind {
            FileKind::Socket(_) => c.k.socket_push(c.tid, out_id, data),
            FileKind::Inode(inode) => c.k.inode_write(inode, out_pos, data),
            FileKind::Pipe { pipe, .. } => super::splice::lend(c, pipe, pos, data),
            FileKind::Device(..) | FileKind::HostStream(_) | FileKind::Tty(_) | FileKind::Work => {
                c.k.file_push(&to, out_pos, data)
            }
            _ => Err(Errno::EINVAL),
        };
        match pushed {
            Ok(n) => {
                let n = u64_of(n);
                done = done.saturating_add(n);
                pos = pos.saturating_add(n);
                out_pos = out_pos.saturating_add(n);
                if n < u64_of(data.len()) && matches!(to.kind, FileKind::Inode(_)) {
                    break;
                }
            }
            Err(Errno::EAGAIN) if done == 0 && to.flags & O_NONBLOCK == 0 => {
                let mut block = Block::on(WaitKey::Object(0));
                block.on =
                    c.k.file_objects(out_id, crate::poll::POLLOUT).into_iter().map(WaitKey::Object).collect();
                return Ok(Outcome::Block(block));
            }
            Err(e) => {
                if e == Errno::EPIPE {
                    c.k.sigpipe(c.tid);
                }
                if done == 0 {
                    return Err(e);
                }
                break;
            }
        }
    }
    if done > 0 {
        c.k.notify_file(&from, IN_ACCESS);
        c.k.written_by(c.tid, &to);
        c.k.notify_file(&to, IN_MODIFY);
    }
    set_position(c, offset, in_id, pos)?;
    if let (FileKind::Inode(_), Some(f)) = (&to.kind, c.k.files.get_mut(out_id)) {
        f.pos = out_pos;
    }
    ret(done)
}

fn copy_file_range(c: &mut Context<'_>, &[input, in_va, out, out_va, count, flags]: &[u64; 6]) -> SysResult {
    let in_id = c.k.usable_file_of(c.tid, int(input))?;
    let out_id = c.k.usable_file_of(c.tid, int(out))?;
    let (from, to) = (c.k.open_file(in_id)?, c.k.open_file(out_id)?);
    let mut in_pos = if in_va == 0 { from.pos } else { c.k.get_u64(c.tid, in_va)? };
    let mut out_pos = if out_va == 0 { to.pos } else { c.k.get_u64(c.tid, out_va)? };
    if low32(flags) != 0 {
        return Err(Errno::EINVAL);
    }
    let source = regular(c, &from);
    if let (Err(Errno::EINVAL), Err(e)) = (source, regular(c, &to)) {
        // A directory on either side is said first.
        return Err(e);
    }
    let (source, target) = (source?, regular(c, &to)?);
    end(c, input, false)?;
    end(c, out, true)?;
    if to.flags & O_APPEND != 0 {
        return Err(Errno::EBADF);
    }
    let ends = in_pos.checked_add(count).zip(out_pos.checked_add(count));
    let (in_end, out_end) = ends.ok_or(Errno::EOVERFLOW)?;
    if in_pos.cast_signed() < 0 || out_pos.cast_signed() < 0 {
        return Err(Errno::EINVAL);
    }
    // Only what there is to copy can overlap.
    let count = count.min(c.k.inode_stat(source)?.size.saturating_sub(in_pos));
    let (in_end, out_end) =
        (in_end.min(in_pos.saturating_add(count)), out_end.min(out_pos.saturating_add(count)));
    if source == target && in_pos < out_end && out_pos < in_end {
        return Err(Errno::EINVAL);
    }
    let total = count.min(MAX_RW_COUNT).min(MOST);
    let mut done = 0u64;
    while done < total {
        let mut buf = vec![0; us((total - done).min(PIECE))];
        let n = c.k.inode_read(source, in_pos, &mut buf)?;
        let data = buf.get(..n).unwrap_or_default();
        if data.is_empty() {
            break;
        }
        let n = match c.k.inode_write(target, out_pos, data) {
            Ok(n) => u64_of(n),
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        };
        done = done.saturating_add(n);
        in_pos = in_pos.saturating_add(n);
        out_pos = out_pos.saturating_add(n);
        if n < u64_of(data.len()) {
            break;
        }
    }
    if done > 0 {
        c.k.notify_file(&from, IN_ACCESS);
        c.k.written_by(c.tid, &to);
        c.k.notify_file(&to, IN_MODIFY);
    }
    set_position(c, in_va, in_id, in_pos)?;
    set_position(c, out_va, out_id, out_pos)?;
    ret(done)
}
