//! Receiving on behalf of a task, and what taking bytes out of a queue does for who waits to send.

use super::addr::{Address, Family};
use super::options::{SO_PASSCRED, SO_RCVLOWAT, SOL_SOCKET};
use super::transfer::{
    Attempt, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, PIECE, Progress, Received,
};
use super::{Cred, State, Style};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{u64_of, us};
use crate::poll::POLLOUT;
use crate::task::Tid;
use crate::vfs::file::{MAX_RW_COUNT, O_NONBLOCK, iovec_total, window};
use crate::wait::{Outcome, SysResult, WaitKey};

/// Most that one receive moves before it returns a short count, bytes.
const MAX_RECEIVE: u64 = 32 << 20;

/// A receive that is being tried.
struct Want<'a> {
    tid: Tid,
    id: u64,
    /// User memory: (address, length).
    iovecs: &'a [(u64, u64)],
    /// MSG_ flags.
    flags: u32,
    nonblock: bool,
    attempt: Attempt,
}

impl Want<'_> {
    fn room(&self, most: u64) -> u64 {
        iovec_total(self.iovecs).min(most)
    }

    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

impl Kernel {
    /// Receives on behalf of a task. Errors as recv(2).
    pub fn socket_receive(
        &mut self,
        tid: Tid,
        file: u64,
        iovecs: &[(u64, u64)],
        flags: u32,
    ) -> Result<Progress<Received>, Errno> {
        let id = self.socket_of(file)?;
        let nonblock = flags & MSG_DONTWAIT != 0 || self.open_file(file)?.flags & O_NONBLOCK != 0;
        let s = self.objects.net.get(id)?;
        let attempt = self.socket_attempt(tid, s.options.receive_timeout);
        let want = Want { tid, id, iovecs, flags, nonblock, attempt };
        let tcp = s.is_inet() && s.is_connection();
        if want.has(MSG_ERRQUEUE) && s.is_inet() {
            return self.receive_error(&want).map(Progress::Done);
        }
        // UDP and netlink do not look at the flag.
        if want.has(MSG_OOB) && (tcp || s.family == Family::Unix) {
            return if tcp { self.receive_urgent(&want) } else { Err(Errno::EOPNOTSUPP) };
        }
        if s.style == Style::Stream { self.receive_stream(&want) } else { self.receive_message(&want) }
    }

    /// What a receive from an empty queue does: 0 bytes, an error, or (`None`) waiting.
    fn empty_queue(&mut self, id: u64) -> Result<Option<()>, Errno> {
        let s = self.objects.net.get_mut(id)?;
        if s.family == Family::Unix && s.style == Style::Stream && s.state != State::Connected {
            return Err(Errno::EINVAL);
        }
        // An orderly end goes before an error that a later send met.
        let fin = s.shut_read && s.error == Some(Errno::EPIPE);
        if !(fin && s.is_inet())
            && let Some(e) = s.error.take()
        {
            return Err(e);
        }
        if s.shut_read {
            return Ok(Some(()));
        }
        match s.state {
            _ if !s.is_connection() => Ok(None),
            State::Connected | State::Connecting => Ok(None),
            _ => Err(Errno::ENOTCONN),
        }
    }

    /// TCP's urgent byte. EINVAL, EAGAIN, ENOTCONN, EFAULT.
    fn receive_urgent(&mut self, w: &Want<'_>) -> Result<Progress<Received>, Errno> {
        let s = self.objects.net.get_mut(w.id)?;
        if s.state == State::Idle && s.urgent.is_none() && !s.shut_read {
            return Err(Errno::EINVAL);
        }
        let byte = s.take_urgent(w.has(MSG_PEEK))?;
        let mut got = Received { flags: MSG_OOB, ..Received::default() };
        if w.room(1) == 0 {
            got.flags |= MSG_TRUNC;
        } else {
            got.bytes = 1;
            if !w.has(MSG_TRUNC) && self.scatter(w.tid, &window(w.iovecs, 0, 1), &[byte]) == 0 {
                return Err(Errno::EFAULT);
            }
        }
        Ok(Progress::Done(got))
    }

    /// The oldest error of the queue, with the beginning of the datagram that met it. EAGAIN when there is none.
    fn receive_error(&mut self, w: &Want<'_>) -> Result<Received, Errno> {
        let returned = self.objects.net.take_error(w.id).ok_or(Errno::EAGAIN)?;
        let s = self.objects.net.get(w.id)?;
        let (from, control) = returned.shown(s.family);
        let room = us(w.room(MAX_RW_COUNT));
        let want = returned.data.len().min(room);
        let part = returned.data.get(..want).unwrap_or_default();
        if self.scatter(w.tid, w.iovecs, part) < want {
            return Err(Errno::EFAULT);
        }
        let cut = if returned.data.len() > room { MSG_TRUNC } else { 0 };
        Ok(Received {
            bytes: u64_of(want),
            from: Some(from),
            controls: vec![control],
            flags: MSG_ERRQUEUE | cut,
            ..Received::default()
        })
    }

    fn receive_stream(&mut self, w: &Want<'_>) -> Result<Progress<Received>, Errno> {
        let (id, total) = (w.id, w.room(MAX_RECEIVE));
        let peek = w.has(MSG_PEEK);
        let s = self.objects.net.get(id)?;
        let (object, family) = (s.object, s.family);
        let wants_cred = s.options.is_on(SOL_SOCKET, SO_PASSCRED);
        let least = u64::try_from(s.options.get(SOL_SOCKET, SO_RCVLOWAT)).unwrap_or(1);
        let target = if w.has(MSG_WAITALL) { total } else { least.min(total) };
        // A second look starts over: nothing was taken.
        let mut done = if peek { 0 } else { w.attempt.done.min(total) };
        let mut got = Received::default();
        let mut index = 0usize;
        let mut first = true;
        while done < total || first {
            let s = self.objects.net.get(id)?;
            let mut limit = PIECE;
            if s.urgent.is_some() && !peek {
                if done > 0 && s.is_at_mark() {
                    break;
                }
                if s.is_at_hole() && s.bytes > 0 {
                    self.consume_message(id, 1, false);
                    continue;
                }
                limit = s.before_mark().max(1);
            }
            let Some(m) = s.queue.get(index) else {
                if done > 0 && done >= target {
                    break;
                }
                match self.empty_queue(id) {
                    Ok(Some(())) => {
                        // Nobody sent the end, and that is what it says.
                        if wants_cred && got.cred.is_none() && family == Family::Unix {
                            got.cred = Some(Cred { pid: 0, uid: 0, gid: 0 });
                        }
                        break;
                    }
                    Ok(None) => {}
                    Err(_) if done > 0 => break,
                    Err(e) => return Err(e),
                }
                if w.nonblock || w.attempt.timed_out {
                    if done > 0 {
                        break;
                    }
                    return Err(Errno::EAGAIN);
                }
                return Ok(w.attempt.sleep(WaitKey::Object(object), if peek { 0 } else { done }));
            };
            // Descriptors end a receive. Another sender's bytes begin one of their own for who wants to know.
            let other = wants_cred && got.cred.is_some_and(|c| c != m.cred);
            if done > 0 && other {
                break;
            }
            let want = us(total - done).min(limit).min(m.rest().len());
            let (cred, rest) = (m.cred, m.rest().len());
            let named = m.sender.and_then(|id| self.objects.net.sockets.get(id)).map(|s| &s.local);
            let from = named.unwrap_or(&m.from);
            if family == Family::Unix && *from != Address::Unnamed && got.from.is_none() {
                got.from = Some(from.to_bytes(family));
            }
            let n = if w.has(MSG_TRUNC) && family != Family::Unix {
                want // TCP drops instead of copying.
            } else {
                self.scatter_message(w, index, done, want)
            };
            if n == 0 && want > 0 {
                if done > 0 {
                    break;
                }
                return Err(Errno::EFAULT);
            }
            first = false;
            got.cred = wants_cred.then_some(cred);
            done = done.saturating_add(u64_of(n));
            if peek {
                let files: Vec<u64> =
                    self.objects.net.get(id)?.queue.get(index).map(|m| m.files.clone()).unwrap_or_default();
                for file in &files {
                    self.file_ref(*file);
                }
                got.files.extend(files);
            } else if n > 0 {
                let files = self.consume_message(id, n, false);
                got.files.extend(files);
            }
            if !got.files.is_empty() || n < want || (peek && n < rest) {
                break;
            }
            index = if peek { index.saturating_add(1) } else { 0 };
        }
        got.bytes = done;
        Ok(Progress::Done(got))
    }

    /// Copies `n` bytes of the rest of a message of the queue to user memory, behind `done` bytes; returns how many went.
    fn scatter_message(&mut self, w: &Want<'_>, index: usize, done: u64, n: usize) -> usize {
        let Some(m) = self.objects.net.sockets.get_mut(w.id).and_then(|s| s.queue.get_mut(index)) else {
            return 0;
        };
        // Lent for the length of the copy.
        let (data, start) = (std::mem::take(&mut m.data), m.start);
        let part = data.get(start..).and_then(|d| d.get(..n)).unwrap_or_default();
        let moved = self.scatter(w.tid, &window(w.iovecs, done, u64_of(n)), part);
        if let Some(m) = self.objects.net.sockets.get_mut(w.id).and_then(|s| s.queue.get_mut(index)) {
            m.data = data;
        }
        moved
    }

    fn receive_message(&mut self, w: &Want<'_>) -> Result<Progress<Received>, Errno> {
        let id = w.id;
        let s = self.objects.net.get_mut(id)?;
        let (object, room, family) = (s.object, us(w.room(MAX_RW_COUNT)), s.family);
        if s.style == Style::SeqPacket && s.state != State::Connected {
            return Err(Errno::ENOTCONN);
        }
        if let Some(e) = s.error.take() {
            return Err(e);
        }
        let wants_cred = s.options.is_on(SOL_SOCKET, SO_PASSCRED);
        let Some(m) = self.objects.net.get(id)?.queue.front() else {
            let s = self.objects.net.get(id)?;
            let datagrams = !s.is_connection();
            if self.empty_queue(id)?.is_some() && !(datagrams && w.nonblock) {
                return Ok(Progress::Done(Received::default()));
            }
            if w.nonblock || w.attempt.timed_out {
                return Err(Errno::EAGAIN);
            }
            return Ok(w.attempt.sleep(WaitKey::Object(object), 0));
        };
        let (length, cred) = (m.data.len(), m.cred);
        let named = m.sender.and_then(|id| self.objects.net.sockets.get(id)).map(|s| &s.local);
        let from = match (family, named.unwrap_or(&m.from)) {
            (Family::Unix, Address::Unnamed) => None,
            (_, from) => Some(from.to_bytes(family)),
        };
        let mut files = m.files.clone();
        let controls = self.objects.net.get(id)?.shown_controls(m);
        let want = room.min(length);
        let moved = self.scatter_message(w, 0, 0, want);
        if w.has(MSG_PEEK) {
            for file in &files {
                self.file_ref(*file);
            }
        } else {
            files = self.consume_message(id, 0, true);
        }
        if moved < want {
            for file in files {
                self.file_unref(file);
            }
            return Err(Errno::EFAULT);
        }
        let bytes = u64_of(if w.has(MSG_TRUNC) { length } else { moved });
        let flags = if length > room { MSG_TRUNC } else { 0 };
        let cred = wants_cred.then_some(cred);
        Ok(Progress::Done(Received { bytes, from, cred, files, controls, flags }))
    }

    /// Takes bytes (or, `whole`, a message) that were received, and wakes senders that have room now.
    pub(super) fn consume_message(&mut self, id: u64, n: usize, whole: bool) -> Vec<u64> {
        let Ok(s) = self.objects.net.get(id) else { return Vec::new() };
        let (peer, room) = (s.peer, s.room);
        let datagrams = !s.is_connection() && s.family == Family::Unix;
        let writable = |k: &Kernel| peer.is_some_and(|p| k.socket_poll(p) & POLLOUT != 0);
        let was_writable = writable(self);
        let files = self.objects.net.dequeue(id, n, whole);
        if !was_writable
            && writable(self)
            && let Some(p) = peer
        {
            self.socket_wake(p);
        }
        if datagrams {
            self.wake(WaitKey::Object(room));
            let senders: Vec<u64> =
                self.objects.net.senders.get(&id).into_iter().flatten().copied().collect();
            for sender in senders {
                self.socket_wake(sender);
            }
        }
        files
    }

    /// Takes up to `most` bytes of a stream socket for the kernel itself (splice(2)); none at the end. EAGAIN; EINVAL for other styles.
    pub fn socket_pull(&mut self, file: u64, most: usize) -> Result<Vec<u8>, Errno> {
        let id = self.socket_of(file)?;
        let s = self.objects.net.get(id)?;
        if s.style != Style::Stream {
            return Err(Errno::EINVAL);
        }
        let Some(m) = s.queue.front() else {
            return if self.empty_queue(id)?.is_some() { Ok(Vec::new()) } else { Err(Errno::EAGAIN) };
        };
        let bytes = m.rest().get(..most.min(m.rest().len())).unwrap_or_default().to_vec();
        for file in self.consume_message(id, bytes.len(), false) {
            self.file_unref(file);
        }
        Ok(bytes)
    }

    /// read(2) from a socket. Descriptors that come with the bytes are closed.
    pub fn socket_read(&mut self, tid: Tid, file: u64, iovecs: &[(u64, u64)]) -> SysResult {
        // Linux does not even look for a message when nothing is to be read.
        if iovecs.iter().all(|(_, n)| *n == 0) {
            return Ok(Outcome::Return(0));
        }
        match self.socket_receive(tid, file, iovecs, 0)? {
            Progress::Sleep(block) => Ok(Outcome::Block(block)),
            Progress::Done(got) => {
                for file in got.files {
                    self.file_unref(file);
                }
                Ok(Outcome::Return(got.bytes))
            }
        }
    }
}
