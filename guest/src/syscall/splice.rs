//! System calls that move bytes between a pipe and a file without user memory: splice, tee, vmsplice. The bytes are copied in the
//! kernel; what counts is who gets which, and when a call waits.

use super::{Arg, Context, Entry, ret};
use crate::errno::Errno;
use crate::num::{int, low32, u64_of, us};
use crate::platform::PAGE_SIZE;
use crate::vfs::file::{MAX_RW_COUNT, O_APPEND, O_NONBLOCK, O_PATH, iovec_total, window};
use crate::vfs::pipe::{Part, Pipe};
use crate::vfs::{Device, FileKind, OpenFile};
use crate::wait::{Block, Outcome, SysResult, WaitKey};
use linux_raw_sys::general as g;

/// SPLICE_F_NONBLOCK.
const NONBLOCK: u32 = 2;
/// SPLICE_F_MOVE, NONBLOCK, MORE, GIFT.
const KNOWN: u32 = 15;

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::partial(
        275,
        "splice",
        &[Arg::Fd, Arg::Ptr, Arg::Fd, Arg::Ptr, Arg::Uint, Arg::Hex],
        "not from a terminal",
        splice,
    ),
    Entry::full(276, "tee", &[Arg::Fd, Arg::Fd, Arg::Uint, Arg::Hex], tee),
    Entry::full(278, "vmsplice", &[Arg::Fd, Arg::Ptr, Arg::Uint, Arg::Hex], vmsplice),
];

/// One side of a transfer.
struct End {
    id: u64,
    file: OpenFile,
    pipe: Option<u64>,
}

fn end(c: &Context<'_>, fd: u64) -> Result<End, Errno> {
    let id = c.k.file_of(c.tid, int(fd))?;
    let file = c.k.open_file(id)?;
    if file.flags & O_PATH != 0 {
        return Err(Errno::EBADF);
    }
    if c.k.became_private(c.tid, &file) {
        return Err(Errno::EINVAL);
    }
    let pipe = match file.kind {
        FileKind::Pipe { pipe, .. } => Some(pipe),
        _ => None,
    };
    Ok(End { id, file, pipe })
}

fn pipe<'a>(c: &'a mut Context<'_>, end: &End) -> Result<&'a mut Pipe, Errno> {
    let id = end.pipe.ok_or(Errno::EINVAL)?;
    c.k.objects.pipes.get_mut(id).ok_or(Errno::EBADF)
}

/// Bytes that the free buffers of a pipe take. EAGAIN when there are none; EPIPE, with the signal, without readers.
fn room(c: &mut Context<'_>, to: &End) -> Result<usize, Errno> {
    let p = pipe(c, to)?;
    if p.readers == 0 {
        c.k.sigpipe(c.tid);
        return Err(Errno::EPIPE);
    }
    match p.free() {
        0 => Err(Errno::EAGAIN),
        n => Ok(n.saturating_mul(us(PAGE_SIZE))),
    }
}

/// Puts pages whose first byte lies at `at` of their file into a pipe, and wakes its readers; how many bytes went.
pub(super) fn lend(c: &mut Context<'_>, pipe: u64, at: u64, bytes: &[u8]) -> Result<usize, Errno> {
    let p = c.k.objects.pipes.get_mut(pipe).ok_or(Errno::EBADF)?;
    let (n, object) = (p.lend(at, bytes)?, p.object);
    c.k.wake_for(object, crate::poll::INPUT);
    Ok(n)
}

/// Sleeps until a file is ready, unless the call or the file says not to.
fn wait(c: &Context<'_>, end: &End, events: u32, nonblock: bool) -> SysResult {
    if nonblock || end.file.flags & O_NONBLOCK != 0 {
        return Err(Errno::EAGAIN);
    }
    let on = c.k.file_objects(end.id, events).into_iter().map(WaitKey::Object).collect();
    Ok(Outcome::Block(Block { on, ..Block::on(WaitKey::Object(0)) }))
}

fn offset(c: &mut Context<'_>, va: u64, end: &End) -> Result<u64, Errno> {
    if va == 0 {
        return Ok(end.file.pos);
    }
    let pos = c.k.get_u64(c.tid, va)?;
    if pos.cast_signed() < 0 { Err(Errno::EINVAL) } else { Ok(pos) }
}

fn set_offset(c: &mut Context<'_>, va: u64, end: &End, pos: u64) -> Result<(), Errno> {
    if va != 0 {
        return c.k.put_u64(c.tid, va, pos);
    }
    if let (FileKind::Inode(_) | FileKind::Device(..), Some(f)) = (&end.file.kind, c.k.files.get_mut(end.id))
    {
        f.pos = pos;
    }
    Ok(())
}

fn splice(c: &mut Context<'_>, &[input, in_va, output, out_va, len, flags]: &[u64; 6]) -> SysResult {
    let flags = low32(flags);
    if len == 0 {
        return ret(0);
    }
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let from = end(c, input)?;
    let to = end(c, output)?;
    // Offsets are looked at before the modes.
    if (from.pipe.is_some() && in_va != 0) || (to.pipe.is_some() && out_va != 0) {
        return Err(Errno::ESPIPE);
    }
    let in_pos = offset(c, in_va, &from)?;
    let out_pos = offset(c, out_va, &to)?;
    if from.file.flags & 3 == 1 || to.file.flags & 3 == 0 {
        return Err(Errno::EBADF);
    }
    let len = us(len.min(MAX_RW_COUNT));
    let nonblock = flags & NONBLOCK != 0;
    match (from.pipe, to.pipe) {
        (None, None) => Err(Errno::EINVAL),
        (Some(a), Some(b)) if a == b => Err(Errno::EINVAL),
        (Some(_), Some(_)) => between_pipes(c, &from, &to, len, nonblock, true),
        (None, Some(_)) => {
            if in_va != 0 && c.k.file_is_stream(from.id) {
                return Err(Errno::EINVAL);
            }
            into_pipe(c, (&from, in_va, in_pos), &to, len, nonblock)
        }
        (Some(_), None) => {
            if (out_va != 0 && c.k.file_is_stream(to.id)) || to.file.flags & O_APPEND != 0 {
                return Err(Errno::EINVAL);
            }
            out_of_pipe(c, &from, (&to, out_va, out_pos), len, nonblock)
        }
    }
}

/// Moves (or, for tee(2), copies) what one pipe has and the other takes.
fn between_pipes(
    c: &mut Context<'_>,
    from: &End,
    to: &End,
    len: usize,
    nonblock: bool,
    take: bool,
) -> SysResult {
    let p = pipe(c, from)?;
    if p.is_empty() {
        return if p.writers == 0 { ret(0) } else { wait(c, from, crate::poll::POLLIN, nonblock) };
    }
    match room(c, to) {
        Err(Errno::EAGAIN) => return wait(c, to, crate::poll::POLLOUT, nonblock),
        other => other?,
    };
    let buffers = pipe(c, to)?.free();
    let pieces = pipe(c, from)?.pieces(len, buffers);
    let target = pipe(c, to)?;
    let (mut moved, object) = (0usize, target.object);
    for (part, bytes) in pieces {
        moved = moved.saturating_add(bytes.len());
        // A page that two pipes have takes no more bytes.
        let room = if take { part.room } else { 0 };
        target.append(Part { room, ..part }, &bytes);
    }
    c.k.wake_for(object, crate::poll::INPUT);
    if take {
        c.k.file_consume(&from.file, moved);
    }
    ret(u64_of(moved))
}

fn into_pipe(
    c: &mut Context<'_>,
    (from, va, pos): (&End, u64, u64),
    to: &End,
    len: usize,
    nonblock: bool,
) -> SysResult {
    let room = match room(c, to) {
        Err(Errno::EAGAIN) => return wait(c, to, crate::poll::POLLOUT, nonblock),
        other => other?.min(len),
    };
    let read = match from.file.kind {
        FileKind::Inode(inode) if c.k.vfs.inode(inode)?.is_dir() => Err(Errno::EINVAL),
        FileKind::Device(Device::Null, _) => Err(Errno::EINVAL),
        FileKind::Inode(_) | FileKind::Device(..) | FileKind::HostStream(_) => {
            let mut buf = vec![0; room];
            c.k.file_peek(&from.file, pos, &mut buf).map(|n| {
                buf.truncate(n);
                buf
            })
        }
        FileKind::Socket(_) => c.k.socket_pull(from.id, room),
        _ => Err(Errno::EINVAL),
    };
    let bytes = match read {
        Err(Errno::EAGAIN) => return wait(c, from, crate::poll::POLLIN, false),
        other => other?,
    };
    let at = if let FileKind::Inode(_) = from.file.kind { pos } else { 0 };
    let moved = match to.pipe {
        Some(pipe) if !bytes.is_empty() => lend(c, pipe, at, &bytes)?,
        _ => 0,
    };
    if moved > 0 {
        c.k.notify_file(&from.file, g::IN_ACCESS);
        set_offset(c, va, from, pos.saturating_add(u64_of(moved)))?;
    }
    ret(u64_of(moved))
}

fn out_of_pipe(
    c: &mut Context<'_>,
    from: &End,
    (to, va, mut pos): (&End, u64, u64),
    len: usize,
    nonblock: bool,
) -> SysResult {
    let p = pipe(c, from)?;
    if p.is_empty() {
        return if p.writers == 0 { ret(0) } else { wait(c, from, crate::poll::POLLIN, nonblock) };
    }
    let bytes = p.oldest(len);
    let pushed = match to.file.kind {
        FileKind::Socket(_) => c.k.socket_push(c.tid, to.id, &bytes),
        FileKind::Inode(_) | FileKind::Device(..) | FileKind::HostStream(_) | FileKind::Tty(_) => {
            c.k.file_push(&to.file, pos, &bytes)
        }
        _ => Err(Errno::EINVAL),
    };
    let moved = match pushed {
        Err(Errno::EAGAIN) => return wait(c, to, crate::poll::POLLOUT, false),
        Err(Errno::EPIPE) => {
            c.k.sigpipe(c.tid);
            return Err(Errno::EPIPE);
        }
        other => other?,
    };
    c.k.file_consume(&from.file, moved);
    c.k.written_by(c.tid, &to.file);
    c.k.notify_file(&to.file, g::IN_MODIFY);
    pos = pos.saturating_add(u64_of(moved));
    set_offset(c, va, to, pos)?;
    ret(u64_of(moved))
}

fn tee(c: &mut Context<'_>, &[input, output, len, flags, ..]: &[u64; 6]) -> SysResult {
    let flags = low32(flags);
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return ret(0);
    }
    let (from, to) = (end(c, input)?, end(c, output)?);
    if from.file.flags & 3 == 1 || to.file.flags & 3 == 0 {
        return Err(Errno::EBADF);
    }
    match (from.pipe, to.pipe) {
        (Some(a), Some(b)) if a != b => {
            between_pipes(c, &from, &to, us(len.min(MAX_RW_COUNT)), flags & NONBLOCK != 0, false)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn vmsplice(c: &mut Context<'_>, &[fd, va, count, flags, ..]: &[u64; 6]) -> SysResult {
    let flags = low32(flags);
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let e = end(c, fd)?;
    let iovecs = c.k.read_iovecs(c.tid, va, u64::from(low32(count)))?;
    if e.pipe.is_none() {
        return Err(Errno::EBADF);
    }
    let total = iovec_total(&iovecs);
    if total == 0 {
        return ret(0);
    }
    let nonblock = flags & NONBLOCK != 0;
    if e.file.flags & 3 == 0 {
        let p = pipe(c, &e)?;
        if p.is_empty() && p.writers > 0 {
            return wait(c, &e, crate::poll::POLLIN, nonblock);
        }
        return c.k.file_read(c.tid, e.id, &iovecs, None);
    }
    let room = match room(c, &e) {
        Err(Errno::EAGAIN) => return wait(c, &e, crate::poll::POLLOUT, nonblock),
        other => u64_of(other?),
    };
    let pipe = e.pipe.ok_or(Errno::EBADF)?;
    let mut done = 0;
    for part in window(&iovecs, 0, total.min(room)) {
        let bytes = c.k.gather(c.tid, &[part]);
        match lend(c, pipe, part.0, &bytes) {
            Ok(n) => done += u64_of(n),
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
        if u64_of(bytes.len()) < part.1 {
            break;
        }
    }
    if done == 0 { Err(Errno::EFAULT) } else { ret(done) }
}
