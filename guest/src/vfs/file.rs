//! Reading and writing open file descriptions by kind, and moving the bytes to and from user memory. A call that cannot go on
//! sleeps on the file's object; how far a blocked write got is in its `Block::memo`.

use super::eventfd::EventFd;
use super::inode::Kind;
use super::pipe::{O_DIRECT, Pipe};
use super::stream::HostStream;
use super::{FileKind, InodeId, MapSource, OpenFile, Stat};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{u64_of, us};
use crate::signal::SigInfo;
use crate::store::Store;
use crate::task::Tid;
use crate::wait::{Block, Outcome, Restart, SysResult, WaitKey};
use linux_raw_sys::general::{IN_ACCESS, IN_MODIFY};
use serde::{Deserialize, Serialize};

/// Most bytes that one call moves (read(2)).
pub const MAX_RW_COUNT: u64 = 0x7fff_f000;

/// What the vectors of one call come to, with that bound. Bytes.
pub fn iovec_total(iovecs: &[(u64, u64)]) -> u64 {
    iovecs.iter().fold(0u64, |total, (_, n)| total.saturating_add(*n)).min(MAX_RW_COUNT)
}

/// Bytes moved at a time between a file and user memory.
const PIECE: u64 = 65536;
/// Bytes that a call moves before it lets others have the kernel.
const PASS: u64 = 1 << 20;
/// O_NONBLOCK.
pub const O_NONBLOCK: u32 = 0o4000;
/// O_APPEND.
pub const O_APPEND: u32 = 0o2000;
/// O_PATH.
pub const O_PATH: u32 = 0o10_000_000;

/// Objects behind file descriptions that are not inodes: pipes, eventfds, host streams.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Files {
    /// Pipes.
    pub pipes: Store<Pipe>,
    /// Pipes of FIFOs that were opened.
    pub fifos: std::collections::BTreeMap<super::InodeId, u64>,
    /// Eventfds.
    pub eventfds: Store<EventFd>,
    /// The host's stdin, stdout, stderr.
    pub streams: Store<HostStream>,
    /// Timers.
    pub timerfds: Store<super::timerfd::TimerFd>,
    /// Sets of signals.
    pub signalfds: Store<super::signalfd::SignalFd>,
    /// inotify(7).
    pub watches: super::inotify::Watches,
    /// userfaultfd(2).
    pub userfaults: crate::mm::userfault::Userfaults,
    /// Processes.
    pub pidfds: Store<super::pidfd::PidFd>,
    /// Terminals.
    pub ttys: crate::tty::Ttys,
    /// Advisory locks.
    pub locks: super::lock::Locks,
    /// Descriptors open in all tables.
    pub descriptors: u64,
    /// Sockets.
    pub net: crate::net::Net,
}

/// The part of `iovecs` from byte `skip` on, at most `max` bytes of it.
pub(crate) fn window(iovecs: &[(u64, u64)], mut skip: u64, mut max: u64) -> Vec<(u64, u64)> {
    let mut out = Vec::new();
    for (base, len) in iovecs {
        let cut = skip.min(*len);
        skip -= cut;
        let n = (len - cut).min(max);
        if n > 0 {
            out.push((base.wrapping_add(cut), n));
            max -= n;
        }
    }
    out
}

/// Bytes from `va` to the end of its page, at most `left`.
fn page_piece(va: u64, left: usize) -> usize {
    us(4096 - va % 4096).min(left)
}

impl Kernel {
    /// A copy of an open file description. EBADF.
    pub fn open_file(&self, file: u64) -> Result<OpenFile, Errno> {
        self.files.get(file).cloned().ok_or(Errno::EBADF)
    }

    /// What mmap of a file maps. EACCES, ENODEV.
    pub fn file_map_source(&mut self, file: u64) -> Result<MapSource, Errno> {
        match self.open_file(file)?.kind {
            FileKind::Inode(inode) => self.inode_map_source(inode),
            FileKind::Device(super::Device::Zero, _) => Ok(MapSource::Zero),
            _ => Err(Errno::ENODEV),
        }
    }

    /// Absolute guest path of an open file, for /proc/self/maps and /proc/self/fd.
    pub fn file_path(&self, file: u64) -> Vec<u8> {
        match self.files.get(file).map(|f| &f.kind) {
            None => Vec::new(),
            Some(
                FileKind::Inode(inode)
                | FileKind::Device(_, inode)
                | FileKind::Pipe { inode: Some(inode), .. },
            ) => self.inode_path(*inode),
            Some(FileKind::Tty(end)) => self.inode_path(end.inode),
            Some(FileKind::Pipe { pipe, .. }) => format!("pipe:[{pipe}]").into_bytes(),
            Some(FileKind::EventFd(_)) => b"anon_inode:[eventfd]".to_vec(),
            Some(FileKind::Epoll(_)) => b"anon_inode:[eventpoll]".to_vec(),
            Some(FileKind::HostStream(id)) => format!("host:[{id}]").into_bytes(),
            Some(FileKind::TimerFd(_)) => b"anon_inode:[timerfd]".to_vec(),
            Some(FileKind::Inotify(_)) => b"anon_inode:inotify".to_vec(),
            Some(FileKind::Fanotify(_)) => b"anon_inode:[fanotify]".to_vec(),
            Some(FileKind::Userfault(_)) => b"anon_inode:[userfaultfd]".to_vec(),
            Some(FileKind::SignalFd(_)) => b"anon_inode:[signalfd]".to_vec(),
            Some(FileKind::PidFd(_)) => b"anon_inode:[pidfd]".to_vec(),
            Some(FileKind::Mqueue(id)) => {
                let name = self.ipc.mqueues.get(*id).map(|q| &q.name[..]).filter(|n| !n.is_empty());
                [&b"/"[..], name.unwrap_or(b"mqueue (deleted)")].concat()
            }
            Some(FileKind::Socket(id)) => format!("socket:[{id}]").into_bytes(),
            Some(FileKind::Work) => b"/dev/coppice".to_vec(),
        }
    }

    /// Reads for the kernel itself (ELF headers, scripts): up to `buf.len()` bytes at `offset`; 0 at the end.
    pub fn file_read_at(&mut self, file: u64, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        match self.open_file(file)?.kind {
            FileKind::Inode(inode) => self.inode_read(inode, offset, buf),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Whether offsets mean nothing to a file (pread(2): ESPIPE).
    pub fn file_is_stream(&self, file: u64) -> bool {
        let kind = self.files.get(file).map(|f| &f.kind);
        !matches!(kind, Some(FileKind::Inode(_) | FileKind::Device(..) | FileKind::Mqueue(_)))
    }

    /// What a read would give, without taking it where the kind allows that (all but host streams). EAGAIN when it would block.
    pub fn file_peek(&mut self, f: &OpenFile, pos: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        match &f.kind {
            FileKind::Inode(inode) => self.inode_read(*inode, pos, buf),
            FileKind::Device(device, _) => self.device_read(*device, buf),
            FileKind::Pipe { pipe, .. } => self.objects.pipes.get(*pipe).ok_or(Errno::EBADF)?.peek(buf),
            FileKind::EventFd(id) => {
                let to = buf.first_chunk_mut::<8>().ok_or(Errno::EINVAL)?;
                *to = self.objects.eventfds.get(*id).ok_or(Errno::EBADF)?.peek()?.to_le_bytes();
                Ok(8)
            }
            FileKind::TimerFd(id) => {
                let to = buf.first_chunk_mut::<8>().ok_or(Errno::EINVAL)?;
                *to = self.objects.timerfds.get(*id).ok_or(Errno::EBADF)?.peek()?.to_le_bytes();
                Ok(8)
            }
            FileKind::Epoll(_)
            | FileKind::Socket(_)
            | FileKind::SignalFd(_)
            | FileKind::Inotify(_)
            | FileKind::Fanotify(_)
            | FileKind::Userfault(_)
            | FileKind::PidFd(_)
            | FileKind::Tty(_) => Err(Errno::EINVAL),
            FileKind::Mqueue(id) => {
                let text = self.mqueue_text(*id);
                let rest = text.as_bytes().get(crate::num::us(pos)..).unwrap_or_default();
                let n = rest.len().min(buf.len());
                if let (Some(to), Some(from)) = (buf.get_mut(..n), rest.get(..n)) {
                    to.copy_from_slice(from);
                }
                Ok(n)
            }
            FileKind::HostStream(id) => {
                let s = self.objects.streams.get(*id).ok_or(Errno::EBADF)?;
                let (result, object) = (s.read(buf), s.object_in);
                if !matches!(result, Ok(n) if n == buf.len()) {
                    self.object_drained(object);
                }
                result
            }
            FileKind::Work => self.work.peek(buf),
        }
    }

    /// Takes `n` peeked bytes and wakes writers.
    pub fn file_consume(&mut self, f: &OpenFile, n: usize) {
        let object = match &f.kind {
            FileKind::Pipe { pipe, .. } => self.objects.pipes.get_mut(*pipe).and_then(|p| {
                // Nobody waited for room where there was a free buffer.
                let was_full = p.free() == 0;
                p.consume(n);
                (was_full && p.free() > 0).then_some(p.object)
            }),
            FileKind::EventFd(id) => self.objects.eventfds.get_mut(*id).map(|e| {
                e.consume();
                e.object
            }),
            FileKind::TimerFd(id) => {
                if let Some(t) = self.objects.timerfds.get_mut(*id) {
                    t.ticks = 0;
                }
                None
            }
            FileKind::Work => {
                self.work.inbox.drain(..n.min(self.work.inbox.len()));
                None
            }
            _ => None,
        };
        if let Some(object) = object.filter(|_| n > 0) {
            self.wake_for(object, crate::poll::OUTPUT);
        }
    }

    /// Writes from kernel memory what goes at once, and wakes readers. EAGAIN when it would block.
    pub fn file_push(&mut self, f: &OpenFile, pos: u64, data: &[u8]) -> Result<usize, Errno> {
        let (n, object) = match &f.kind {
            FileKind::Inode(inode) => return self.inode_write(*inode, pos, data),
            FileKind::Device(device, _) => return self.device_write(*device, data.len()),
            FileKind::Pipe { pipe, .. } => {
                let p = self.objects.pipes.get_mut(*pipe).ok_or(Errno::EBADF)?;
                (p.write(data, f.flags & O_DIRECT != 0)?, p.object)
            }
            FileKind::EventFd(id) => {
                let value = data.first_chunk::<8>().ok_or(Errno::EINVAL)?;
                let e = self.objects.eventfds.get_mut(*id).ok_or(Errno::EBADF)?;
                e.add(u64::from_le_bytes(*value))?;
                (8, e.object)
            }
            FileKind::Epoll(_)
            | FileKind::Socket(_)
            | FileKind::TimerFd(_)
            | FileKind::Inotify(_)
            | FileKind::Fanotify(_)
            | FileKind::Userfault(_)
            | FileKind::SignalFd(_)
            | FileKind::PidFd(_)
            | FileKind::Mqueue(_) => {
                return Err(Errno::EINVAL);
            }
            FileKind::HostStream(id) => {
                let s = self.objects.streams.get(*id).ok_or(Errno::EBADF)?;
                let (result, object) = (s.write(data), s.object_out);
                if result == Err(Errno::EAGAIN) {
                    self.object_drained(object);
                }
                return result;
            }
            FileKind::Tty(end) => {
                return match self.tty_push(&end.clone(), data)? {
                    0 if !data.is_empty() => Err(Errno::EAGAIN),
                    n => Ok(n),
                };
            }
            FileKind::Work => return self.work.write(data),
        };
        self.wake_for(object, crate::poll::INPUT);
        Ok(n)
    }

    /// Copies to user memory; how many bytes went before a fault.
    pub(crate) fn scatter(&mut self, tid: Tid, to: &[(u64, u64)], mut data: &[u8]) -> usize {
        let mut done = 0;
        for (base, len) in to {
            let (mut va, mut left) = (*base, us(*len).min(data.len()));
            while left > 0 {
                let n = page_piece(va, left);
                let Some((head, tail)) = data.split_at_checked(n) else { return done };
                if self.copy_out(tid, va, head).is_err() {
                    return done;
                }
                (data, done, left, va) = (tail, done + n, left - n, va.wrapping_add(u64_of(n)));
            }
        }
        done
    }

    /// Copies from user memory what lies before a fault.
    pub(crate) fn gather(&mut self, tid: Tid, from: &[(u64, u64)]) -> Vec<u8> {
        let mut all = Vec::new();
        for (base, len) in from {
            let (mut va, mut left) = (*base, us(*len));
            while left > 0 {
                let n = page_piece(va, left);
                let Ok(mut bytes) = self.copy_in_vec(tid, va, n) else { return all };
                all.append(&mut bytes);
                (left, va) = (left - n, va.wrapping_add(u64_of(n)));
            }
        }
        all
    }

    /// Bytes that a call which is tried again has moved already.
    pub(crate) fn moved_before(&self, tid: Tid) -> u64 {
        self.task(tid).and_then(|t| t.resume).map_or(0, |r| r.memo.first().copied().unwrap_or(0))
    }

    /// Lets others run in the middle of a long transfer; the call goes on at once. A signal ends it with the bytes
    /// moved so far.
    fn pause(&mut self, file: u64, offset: Option<u64>, pos: u64, done: u64) -> Outcome {
        if let (None, Some(f)) = (offset, self.files.get_mut(file)) {
            f.pos = pos;
        }
        let deadline = Some(self.platform.monotonic());
        let restart = Restart::Partial;
        Outcome::Block(Block { on: Vec::new(), deadline, relative: false, restart, memo: [done, 0] })
    }

    /// Sleeps until a file may be ready; `memo` as in [`Block::memo`].
    pub(super) fn block_on(&self, file: u64, events: u32, memo: u64) -> SysResult {
        let on = self.file_objects(file, events).into_iter().map(WaitKey::Object).collect();
        // A write that has moved bytes must not be repeated from its start.
        let restart = if memo > 0 { Restart::Partial } else { Restart::IfSaRestart };
        Ok(Outcome::Block(Block { on, deadline: None, relative: false, restart, memo: [memo, 0] }))
    }

    /// read(2) family on behalf of a task into user memory: `iovecs`, at `offset` or at the file's own.
    pub fn file_read(
        &mut self,
        tid: Tid,
        file: u64,
        iovecs: &[(u64, u64)],
        offset: Option<u64>,
    ) -> SysResult {
        let f = self.open_file(file)?;
        if f.flags & 3 == 1 || f.flags & O_PATH != 0 {
            return Err(Errno::EBADF);
        }
        if let FileKind::Socket(_) = f.kind {
            return self.socket_read(tid, file, iovecs);
        }
        if let FileKind::Inotify(id) = f.kind {
            return self.inotify_read(tid, &f, id, iovecs);
        }
        if let FileKind::Fanotify(id) = f.kind {
            return self.fanotify_read(tid, &f, id, iovecs);
        }
        if let FileKind::Userfault(id) = f.kind {
            return self.userfault_read(tid, &f, id, iovecs);
        }
        if let FileKind::SignalFd(id) = f.kind {
            return self.signalfd_read(tid, &f, id, iovecs);
        }
        if let FileKind::Tty(end) = f.kind {
            return self.tty_read(tid, &f, end, iovecs);
        }
        if let FileKind::Pipe { pipe, .. } = f.kind {
            return self.pipe_read(tid, (file, &f), pipe, iovecs);
        }
        if self.became_private(tid, &f) {
            return Ok(Outcome::Return(0));
        }
        let total = iovec_total(iovecs);
        let mut done = self.moved_before(tid).min(total);
        let mut pos = offset.map_or(f.pos, |o| o.saturating_add(done));
        let begun = done;
        loop {
            if done - begun >= PASS {
                return Ok(self.pause(file, offset, pos, done));
            }
            let want = (total - done).min(PIECE);
            let to = window(iovecs, done, want);
            if let (FileKind::HostStream(_), Some((va, _))) = (&f.kind, to.first()) {
                // Bytes of a host stream cannot be put back: look at the destination first.
                self.user_gpa(tid, *va, true)?;
            }
            let mut buf = vec![0; us(want)];
            let n = match self.file_peek(&f, pos, &mut buf) {
                Ok(n) => n,
                Err(_) if done > 0 => break,
                Err(Errno::EAGAIN) if f.flags & O_NONBLOCK == 0 => {
                    return self.block_on(file, crate::poll::POLLIN, 0);
                }
                Err(e) => return Err(e),
            };
            let moved = self.scatter(tid, &to, buf.get(..n).unwrap_or_default());
            if moved == 0 && n > 0 {
                if done == 0 {
                    return Err(Errno::EFAULT);
                }
                break;
            }
            self.file_consume(&f, moved);
            done += u64_of(moved);
            pos = pos.saturating_add(u64_of(moved));
            // Generated text is made anew for every piece, so a long read of it comes back short, as Linux's do.
            let once = match &f.kind {
                FileKind::EventFd(_) | FileKind::TimerFd(_) | FileKind::HostStream(_) => true,
                FileKind::Inode(inode) => {
                    self.vfs.inode(*inode).is_ok_and(|n| matches!(n.kind, Kind::Synth(_)))
                }
                _ => false,
            };
            if moved < us(want) || done >= total || once {
                break;
            }
        }
        if let (None, Some(f)) = (offset, self.files.get_mut(file)) {
            f.pos = pos;
        }
        if done > 0 {
            self.notify_file(&f, IN_ACCESS);
        }
        Ok(Outcome::Return(done))
    }

    /// write(2) family on behalf of a task.
    pub fn file_write(
        &mut self,
        tid: Tid,
        file: u64,
        iovecs: &[(u64, u64)],
        offset: Option<u64>,
    ) -> SysResult {
        let f = self.open_file(file)?;
        if f.flags & 3 == 0 || f.flags & O_PATH != 0 {
            return Err(Errno::EBADF);
        }
        if let FileKind::Socket(_) = f.kind {
            let m = crate::net::transfer::Outgoing { iovecs: iovecs.to_vec(), ..Default::default() };
            return Ok(self.socket_send(tid, file, &m)?.into());
        }
        if let FileKind::Tty(end) = f.kind {
            return self.tty_write(tid, &f, end, iovecs);
        }
        if let FileKind::Pipe { pipe, .. } = f.kind {
            return self.pipe_write(tid, (file, &f), pipe, iovecs);
        }
        if let FileKind::EventFd(_) = f.kind {
            return self.eventfd_write(tid, (file, &f), iovecs);
        }
        if self.became_private(tid, &f) {
            return Ok(Outcome::Return(0));
        }
        let mut total = iovec_total(iovecs);
        let mut done = self.moved_before(tid).min(total);
        let begun = done;
        if total == 0 {
            return Ok(Outcome::Return(0));
        }
        let mut pos = offset.map_or(f.pos, |o| o.saturating_add(done));
        if let FileKind::Inode(inode) = f.kind {
            if f.flags & O_APPEND != 0 {
                pos = self.inode_stat(inode)?.size;
            }
            total = total.min(done.saturating_add(self.room_at(tid, pos)?));
        }
        while done < total {
            if done - begun >= PASS {
                return Ok(self.pause(file, offset, pos, done));
            }
            let want = (total - done).min(PIECE);
            let data = self.gather(tid, &window(iovecs, done, want));
            if data.is_empty() && want > 0 {
                if done == 0 {
                    return Err(Errno::EFAULT);
                }
                break;
            }
            match self.file_push(&f, pos, &data) {
                Ok(n) => {
                    done += u64_of(n);
                    pos = pos.saturating_add(u64_of(n));
                    let stream = matches!(f.kind, FileKind::HostStream(_) | FileKind::Work);
                    if u64_of(data.len()) < want || (n < data.len() && !stream) || n == 0 {
                        break;
                    }
                }
                Err(Errno::EAGAIN) if f.flags & O_NONBLOCK == 0 => {
                    return self.block_on(file, crate::poll::POLLOUT, done);
                }
                Err(e) => {
                    if e == Errno::EPIPE {
                        self.sigpipe(tid);
                    }
                    if done == 0 {
                        return Err(e);
                    }
                    break;
                }
            }
        }
        if let (None, Some(f)) = (offset, self.files.get_mut(file)) {
            f.pos = pos;
        }
        if done > 0 {
            self.written_by(tid, &f);
            self.notify_file(&f, IN_MODIFY);
        }
        Ok(Outcome::Return(done))
    }

    /// A write without CAP_FSETID takes the set-user-id bit away, and set-group-id where the group may execute or the writer is no member.
    pub(crate) fn written_by(&mut self, tid: Tid, f: &OpenFile) {
        if let FileKind::Inode(inode) = f.kind {
            self.contents_changed(tid, inode);
        }
    }

    /// See [`Kernel::written_by`]; also a change of length does it.
    pub(crate) fn contents_changed(&mut self, tid: Tid, inode: InodeId) {
        if self.capable(tid, crate::task::creds::cap::FSETID) {
            return;
        }
        let creds = self.creds_of(tid);
        if let Ok(node) = self.vfs.inode_mut(inode)
            && node.file_type() == super::inode::S_IFREG
        {
            let mode = node.stat.mode;
            node.stat.mode &= !creds.bits_lost(mode, node.stat.gid);
            let left = node.stat.mode;
            if left != mode && self.is_live(inode) {
                // The host would not do it for a sandbox that runs as root.
                let _ = self.live_chmod(inode, left);
            }
        }
    }

    /// Checks RLIMIT_FSIZE for a file that is to become `len` bytes long. EFBIG, with SIGXFSZ.
    pub(crate) fn check_file_size(&mut self, tid: Tid, inode: InodeId, len: u64) -> Result<(), Errno> {
        let limit = self.process_of(tid).and_then(|p| p.rlimits.get(&1)).map_or(u64::MAX, |l| l.0);
        if len > limit && len > self.vfs.inode(inode)?.stat.size {
            self.signal_task(tid, SigInfo { signo: 25, ..SigInfo::default() });
            return Err(Errno::EFBIG);
        }
        Ok(())
    }

    /// Bytes that may be written at `pos`. EFBIG (with SIGXFSZ at RLIMIT_FSIZE).
    fn room_at(&mut self, tid: Tid, pos: u64) -> Result<u64, Errno> {
        let limit = self.process_of(tid).and_then(|p| p.rlimits.get(&1)).map_or(u64::MAX, |l| l.0);
        if pos >= limit {
            self.signal_task(tid, SigInfo { signo: 25, ..SigInfo::default() });
            return Err(Errno::EFBIG);
        }
        let most = limit.min(i64::MAX.cast_unsigned());
        most.checked_sub(pos).filter(|n| *n > 0).ok_or(Errno::EFBIG)
    }

    /// Tells a task that nobody reads what it writes.
    pub(crate) fn sigpipe(&mut self, tid: Tid) {
        let pid = self.task(tid).map_or(0, |t| t.pid);
        let uid = self.process_of(tid).map_or(0, |p| p.creds.uid);
        let fields = [u64::from(pid) | u64::from(uid) << 32, 0, 0, 0];
        self.signal_task(tid, SigInfo { signo: 13, errno: 0, code: 0, fields });
    }

    /// What fstat(2) says of a file of any kind.
    pub fn file_stat(&mut self, file: u64) -> Result<Stat, Errno> {
        let anon = Stat { dev: 0xd, mode: 0o600, nlink: 1, ino: file, blksize: 4096, ..Stat::default() };
        match self.open_file(file)?.kind {
            FileKind::Inode(inode)
            | FileKind::Device(_, inode)
            | FileKind::Pipe { inode: Some(inode), .. } => self.inode_stat(inode),
            FileKind::Tty(end) => self.inode_stat(end.inode),
            FileKind::Pipe { pipe, .. } => {
                let (uid, gid, mode) = self.objects.pipes.get(pipe).ok_or(Errno::EBADF)?.owner;
                Ok(Stat { dev: 0xc, mode: 0o010_000 | mode, ino: pipe, uid, gid, ..anon })
            }
            FileKind::EventFd(_)
            | FileKind::Epoll(_)
            | FileKind::TimerFd(_)
            | FileKind::Inotify(_)
            | FileKind::Fanotify(_)
            | FileKind::Userfault(_)
            | FileKind::SignalFd(_)
            | FileKind::PidFd(_) => Ok(anon),
            FileKind::HostStream(id) => self.objects.streams.get(id).ok_or(Errno::EBADF)?.stat(),
            FileKind::Mqueue(id) => {
                let (uid, gid, mode) = self.ipc.mqueues.get(id).ok_or(Errno::EBADF)?.owner;
                Ok(Stat { dev: 0xe, mode: 0o100_000 | mode, ino: id, size: 80, uid, gid, ..anon })
            }
            FileKind::Socket(id) => {
                let (uid, gid, mode) = self.objects.net.get(id)?.owner;
                Ok(Stat { dev: 0xb, mode: 0o140_000 | mode, ino: id, uid, gid, ..anon })
            }
            FileKind::Work => Ok(Stat { mode: 0o20600, ..anon }),
        }
    }
}
