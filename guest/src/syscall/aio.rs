//! System calls of native asynchronous I/O: io_setup(2) and its relatives. A request that reads or writes is done when it is submitted;
//! where it has to wait (a pipe, a socket), io_submit(2) waits, as Linux's does.

use super::fd::rw::{check_flags, transfer};
use super::poll::{deadline, expired, resumed, swap_mask};
use super::{Arg, Context, Entry, ret, user_range};
use crate::aio::{Done, EVENT};
use crate::errno::Errno;
use crate::num::low32;
use crate::signal::frame::{le32, le64};
use crate::task::creds::cap;
use crate::vfs::FileKind;
use crate::vfs::file::{MAX_RW_COUNT, O_PATH};
use crate::wait::{Block, Outcome, Restart, Resume, SysResult, WaitKey};

/// Bytes of `struct iocb`.
const IOCB: usize = 64;
/// IOCB_FLAG_RESFD: the end is counted at an eventfd.
const RESFD: u32 = 1;
/// IOCB_FLAG_IOPRIO.
const IOPRIO: u32 = 2;
/// Requests that one call submits before it lets others have the kernel.
const PASS: u64 = 256;
/// Bytes likewise.
const PASS_BYTES: u64 = 1 << 20;

use Arg::{Int, Ptr, Uint};

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::full(206, "io_setup", &[Uint, Ptr], setup),
    Entry::full(207, "io_destroy", &[Uint], destroy),
    Entry::full(208, "io_getevents", &[Uint, Int, Int, Ptr, Ptr], getevents),
    Entry::partial(
        209,
        "io_submit",
        &[Uint, Int, Ptr],
        "requests but those to poll are done before it returns; a signal while one waits for a pipe or socket ends the call, not the request",
        submit,
    ),
    Entry::full(210, "io_cancel", &[Uint, Ptr, Ptr], cancel),
    Entry::full(333, "io_pgetevents", &[Uint, Int, Int, Ptr, Ptr, Ptr], pgetevents),
];

fn setup(c: &mut Context<'_>, &[requests, out, ..]: &[u64; 6]) -> SysResult {
    let requests = low32(requests);
    if c.k.get_u64(c.tid, out)? != 0 || requests == 0 {
        return Err(Errno::EINVAL);
    }
    let id = c.k.aio_setup(c.tid, requests)?;
    if let Err(e) = c.k.put_u64(c.tid, out, id) {
        let context = c.k.aio_find(c.tid, id)?;
        c.k.aio_destroy(c.tid, context, id);
        return Err(e);
    }
    ret(0)
}

fn destroy(c: &mut Context<'_>, &[id, ..]: &[u64; 6]) -> SysResult {
    let context = c.k.aio_find(c.tid, id)?;
    c.k.aio_destroy(c.tid, context, id);
    ret(0)
}

/// A time-out in ns. Linux does not look whether it makes sense, and its timer takes a negative one for the end of time. EFAULT.
fn timeout(c: &mut Context<'_>, va: u64) -> Result<Option<u64>, Errno> {
    if va == 0 {
        return Ok(None);
    }
    let seconds = c.k.get_u64(c.tid, va)?.cast_signed();
    let nanos = c.k.get_u64(c.tid, va.wrapping_add(8))?.cast_signed();
    let total = seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
    Ok(u64::try_from(total).ok())
}

fn wait(c: &mut Context<'_>, args: &[u64; 6], deadline: Option<u64>, restart: Restart) -> SysResult {
    let &[id, least, most, events, ..] = args;
    let (least, most) = (least.cast_signed(), most.cast_signed());
    let context = c.k.aio_find(c.tid, id)?;
    let (Ok(least), Ok(most)) = (u64::try_from(least), u64::try_from(most)) else {
        return Err(Errno::EINVAL);
    };
    if least > most {
        return Err(Errno::EINVAL);
    }
    let before = c.k.moved_before(c.tid);
    let to = events.wrapping_add(before.wrapping_mul(EVENT));
    let got = match c.k.aio_reap(c.tid, context, to, most.saturating_sub(before)) {
        Ok(n) => before + n,
        Err(e) if before == 0 => return Err(e),
        Err(_) => return ret(before),
    };
    if got >= least || expired(c, deadline) {
        return ret(got);
    }
    let (_, object) = c.k.aio_context(context)?;
    // What was taken from the ring has to be told of.
    let restart = if got > 0 { Restart::Partial } else { restart };
    let on = vec![WaitKey::Object(object)];
    Ok(Outcome::Block(Block { on, deadline, relative: true, restart, memo: [got, 0] }))
}

fn getevents(c: &mut Context<'_>, args: &[u64; 6]) -> SysResult {
    let &[.., time, _] = args;
    let limit = if resumed(c) { None } else { timeout(c, time)? };
    let deadline = deadline(c, limit);
    wait(c, args, deadline, Restart::Never)
}

fn pgetevents(c: &mut Context<'_>, args: &[u64; 6]) -> SysResult {
    let &[.., time, mask] = args;
    let limit = if resumed(c) { None } else { timeout(c, time)? };
    if mask != 0 && !resumed(c) {
        let va = c.k.get_u64(c.tid, mask)?;
        let size = c.k.get_u64(c.tid, mask.wrapping_add(8))?;
        swap_mask(c, va, size)?;
    }
    let deadline = deadline(c, limit);
    wait(c, args, deadline, Restart::UnlessHandler)
}

fn cancel(c: &mut Context<'_>, &[id, iocb, ..]: &[u64; 6]) -> SysResult {
    // KIOCB_KEY, which submission leaves in aio_key.
    if c.k.get_u32(c.tid, iocb.wrapping_add(8))? != 0 {
        return Err(Errno::EINVAL);
    }
    let context = c.k.aio_find(c.tid, id)?;
    c.k.aio_cancel(context, iocb)?;
    // It has an event all the same.
    Err(Errno::EINPROGRESS)
}

/// How one request was submitted.
enum Submitted {
    /// It is done, or waits to be; so many bytes were moved.
    Yes(u64),
    /// The call has to be tried again from this request on.
    Sleep(Block),
}

/// `memo` of a call that only let others have the kernel: no request is under way.
const BETWEEN: u64 = u64::MAX;

fn submit(c: &mut Context<'_>, &[id, count, list, ..]: &[u64; 6]) -> SysResult {
    let context = c.k.aio_find(c.tid, id)?;
    let (room, _) = c.k.aio_context(context)?;
    let count = u64::try_from(count.cast_signed()).map_err(|_| Errno::EINVAL)?.min(u64::from(room));
    // A call that slept has submitted `first` requests, and moved so many bytes for the one after them.
    let (mut first, mut resume) = (0, None);
    if let Some(r) = c.k.task_mut(c.tid).and_then(|t| t.resume.take()) {
        let [done, moved] = r.memo;
        first = done;
        resume = (moved != BETWEEN).then_some(Resume { memo: [moved, 0], ..r });
    }
    let (mut i, mut bytes) = (first, 0);
    while i < count {
        if i - first >= PASS || bytes >= PASS_BYTES {
            let deadline = Some(c.k.platform.monotonic());
            let memo = [i, BETWEEN];
            let restart = Restart::Partial;
            return Ok(Outcome::Block(Block { on: Vec::new(), deadline, relative: false, restart, memo }));
        }
        if let Some(t) = c.k.task_mut(c.tid) {
            t.resume = resume.take();
        }
        let one = match c.k.get_u64(c.tid, list.wrapping_add(i * 8)) {
            Ok(iocb) => submit_one(c, context, iocb),
            Err(e) => Err(e),
        };
        match one {
            Ok(Submitted::Yes(n)) => bytes += n,
            Ok(Submitted::Sleep(block)) => {
                let [moved, _] = block.memo;
                let restart = if i > 0 { Restart::Partial } else { Restart::IfSaRestart };
                return Ok(Outcome::Block(Block { memo: [i, moved], restart, ..block }));
            }
            Err(e) if i == 0 => return Err(e),
            Err(_) => break,
        }
        i += 1;
    }
    ret(i)
}

fn submit_one(c: &mut Context<'_>, context: u64, iocb: u64) -> Result<Submitted, Errno> {
    let b = c.k.copy_in_vec(c.tid, iocb, IOCB)?;
    let (data, flags) = (le64(&b, 0), le32(&b, 56));
    if le64(&b, 48) != 0 || le64(&b, 32).cast_signed() < 0 {
        return Err(Errno::EINVAL);
    }
    if !c.k.aio_has_room(context)? {
        return Err(Errno::EAGAIN);
    }
    let file = c.k.file_of(c.tid, le32(&b, 20).cast_signed())?;
    if c.k.open_file(file)?.flags & O_PATH != 0 {
        return Err(Errno::EBADF);
    }
    let notify = match flags & RESFD {
        0 => None,
        _ => {
            let eventfd = c.k.file_of(c.tid, le32(&b, 60).cast_signed())?;
            if !matches!(c.k.open_file(eventfd)?.kind, FileKind::EventFd(_)) {
                return Err(Errno::EINVAL);
            }
            Some(eventfd)
        }
    };
    c.k.put_u32(c.tid, iocb.wrapping_add(8), 0)?;
    let request = Request { b, file, done: Done { data, iocb, notify } };
    let result = match request.opcode() {
        0 => request.transfer(c, false, false),
        1 => request.transfer(c, true, false),
        2 | 3 => request.sync(c),
        5 => return request.poll(c, context),
        7 => request.transfer(c, false, true),
        8 => request.transfer(c, true, true),
        _ => Err(Errno::EINVAL),
    }?;
    let (result, moved) = match result {
        Ok(Outcome::Return(n)) => (n.cast_signed(), n),
        Ok(Outcome::Block(block)) => return Ok(Submitted::Sleep(block)),
        Ok(Outcome::Done) => (0, 0),
        Err(e) => (e.to_rax().cast_signed(), 0),
    };
    request.hold_notify(c);
    c.k.aio_complete(context, request.done, result);
    Ok(Submitted::Yes(moved))
}

/// A request whose file is there.
struct Request {
    b: Vec<u8>,
    file: u64,
    done: Done,
}

impl Request {
    fn opcode(&self) -> u32 {
        le32(&self.b, 16) & 0xffff
    }

    /// Takes the reference to the eventfd that the end of the request drops.
    fn hold_notify(&self, c: &mut Context<'_>) {
        if let Some(eventfd) = self.done.notify {
            c.k.file_ref(eventfd);
        }
    }

    /// Reads or writes. The outer error is submission's, the inner one the request's.
    fn transfer(&self, c: &mut Context<'_>, write: bool, vectored: bool) -> Result<SysResult, Errno> {
        let (va, len, pos) = (le64(&self.b, 24), le64(&self.b, 32), le64(&self.b, 40));
        if le32(&self.b, 56) & IOPRIO != 0 {
            check_priority(c, le32(&self.b, 16) >> 16)?;
        }
        let flags = le32(&self.b, 12);
        check_flags(c, self.file, flags)?;
        let f = c.k.open_file(self.file)?;
        if f.flags & 3 == u32::from(!write) {
            return Err(Errno::EBADF);
        }
        if !has_iter(c, &f.kind, write) {
            return Err(Errno::EINVAL);
        }
        let iovecs = if vectored {
            let iovecs = c.k.read_iovecs(c.tid, va, len)?;
            iovecs.iter().try_for_each(|(va, len)| user_range(*va, *len))?;
            iovecs
        } else {
            user_range(va, len)?;
            vec![(va, len.min(MAX_RW_COUNT))]
        };
        let at = (!c.k.file_is_stream(self.file)).then_some(pos);
        if pos.cast_signed() < 0 {
            return Err(Errno::EINVAL);
        }
        Ok(transfer(c, self.file, &iovecs, at, write, flags))
    }

    fn sync(&self, c: &mut Context<'_>) -> Result<SysResult, Errno> {
        self.plain(le64(&self.b, 24))?;
        let FileKind::Inode(inode) = c.k.open_file(self.file)?.kind else { return Err(Errno::EINVAL) };
        Ok(c.k.live_sync(inode).map(|()| Outcome::Return(0)))
    }

    fn poll(&self, c: &mut Context<'_>, context: u64) -> Result<Submitted, Errno> {
        let events = le64(&self.b, 24);
        self.plain(events & !0xffff)?;
        c.k.aio_poll(context, self.file, low32(events), self.done)?;
        Ok(Submitted::Yes(0))
    }

    /// Whether nothing is said that means nothing to the request. EINVAL.
    fn plain(&self, buffer: u64) -> Result<(), Errno> {
        let stray = buffer | le64(&self.b, 32) | le64(&self.b, 40) | u64::from(le32(&self.b, 12));
        if stray != 0 { Err(Errno::EINVAL) } else { Ok(()) }
    }
}

/// Whether Linux's file has read_iter or write_iter, without which there is no asynchronous I/O.
fn has_iter(c: &Context<'_>, kind: &FileKind, write: bool) -> bool {
    match kind {
        FileKind::Inode(inode) => c.k.vfs.inode(*inode).is_ok_and(|n| !n.is_dir()),
        FileKind::EventFd(_) | FileKind::TimerFd(_) | FileKind::SignalFd(_) => !write,
        FileKind::Userfault(_) => !write,
        FileKind::Epoll(_)
        | FileKind::Inotify(_)
        | FileKind::Fanotify(_)
        | FileKind::PidFd(_)
        | FileKind::Mqueue(_) => false,
        _ => true,
    }
}

/// The priority that a request asks for (ioprio_set(2)); it has no effect. EINVAL, EPERM.
fn check_priority(c: &Context<'_>, priority: u32) -> Result<(), Errno> {
    let may = c.k.capable(c.tid, cap::SYS_NICE) || c.k.capable(c.tid, cap::SYS_ADMIN);
    match (priority >> 13, priority & 7) {
        (1, _) if !may => Err(Errno::EPERM),
        (1..=3, _) | (0, 0) => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}
