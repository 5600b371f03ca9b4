//! Receiving on behalf of a task, and what taking bytes out of a queue does for who waits to send.

use super::addr::{Address, Family};
use super::options::{SO_PASSCRED, SOL_SOCKET};
use super::transfer::{
    Attempt, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, PIECE, Progress, Received,
};
use super::{State, Style};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{u64_of, us};
use crate::poll::POLLOUT;
use crate::task::Tid;
use crate::vfs::file::{MAX_RW_COUNT, O_NONBLOCK, window};
use crate::wait::{Outcome, SysResult, WaitKey};

/// Most that one receive moves before it returns a short count, bytes.
const MAX_RECEIVE: u64 = 32 << 20;

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
        let nonblock = self.open_file(file)?.flags & O_NONBLOCK != 0 || flags & MSG_DONTWAIT != 0;
        let s = self.objects.net.get(id)?;
        let attempt = self.socket_attempt(tid, s.options.receive_timeout);
        if flags & MSG_OOB != 0 {
            return Err(if s.is_inet() && s.is_connection() { Errno::EINVAL } else { Errno::EOPNOTSUPP });
        }
        if flags & MSG_ERRQUEUE != 0 {
            return Err(if s.is_inet() { Errno::EAGAIN } else { Errno::EOPNOTSUPP });
        }
        if s.style == Style::Stream {
            self.receive_stream(tid, id, iovecs, flags, nonblock, &attempt)
        } else {
            self.receive_message(tid, id, iovecs, flags, nonblock, &attempt)
        }
    }

    /// What a receive from an empty queue does: 0 bytes, an error, or (`None`) waiting.
    fn empty_queue(&mut self, id: u64) -> Result<Option<()>, Errno> {
        let s = self.objects.net.get_mut(id)?;
        // An orderly end goes before an error that a later send met.
        let fin = s.shut_read && s.error != Some(Errno::ECONNRESET);
        if !(fin && s.is_inet())
            && let Some(e) = s.error.take()
        {
            return Err(e);
        }
        if s.shut_read {
            return Ok(Some(()));
        }
        match (s.style, s.state) {
            (Style::Datagram, _) | (_, State::Connected | State::Connecting) => Ok(None),
            (Style::Stream, _) if !s.is_inet() => Err(Errno::EINVAL),
            _ => Err(Errno::ENOTCONN),
        }
    }

    fn receive_stream(
        &mut self,
        tid: Tid,
        id: u64,
        iovecs: &[(u64, u64)],
        flags: u32,
        nonblock: bool,
        attempt: &Attempt,
    ) -> Result<Progress<Received>, Errno> {
        let total = iovecs.iter().fold(0u64, |a, (_, n)| a.saturating_add(*n)).min(MAX_RECEIVE);
        let peek = flags & MSG_PEEK != 0;
        // A second look starts over: nothing was taken.
        let mut done = if peek { 0 } else { attempt.done.min(total) };
        let mut got = Received::default();
        let mut index = 0usize;
        let mut first = true;
        while done < total || first {
            let s = self.objects.net.get(id)?;
            let (object, family) = (s.object, s.family);
            let wants_cred = s.options.is_on(SOL_SOCKET, SO_PASSCRED);
            let Some(m) = s.queue.get(index) else {
                if done > 0 && (flags & MSG_WAITALL == 0 || peek) {
                    break;
                }
                match self.empty_queue(id) {
                    Ok(Some(())) => break,
                    Ok(None) => {}
                    Err(_) if done > 0 => break,
                    Err(e) => return Err(e),
                }
                if nonblock || attempt.timed_out {
                    if done > 0 {
                        break;
                    }
                    return Err(Errno::EAGAIN);
                }
                return Ok(attempt.sleep(WaitKey::Object(object), done));
            };
            // Bytes with descriptors begin a receive of their own; so do another sender's, for who wants to know.
            let other = wants_cred && got.cred.is_some_and(|c| c != m.cred);
            if done > 0 && (!m.files.is_empty() || other) {
                break;
            }
            let want = us(total - done).min(PIECE);
            let bytes = m.rest().get(..want.min(m.rest().len())).unwrap_or_default().to_vec();
            let (cred, from, rest) = (m.cred, m.from.clone(), m.rest().len());
            let n = if flags & MSG_TRUNC != 0 && family != Family::Unix {
                bytes.len() // TCP drops instead of copying.
            } else {
                let to = window(iovecs, done, u64_of(bytes.len()));
                self.scatter(tid, &to, &bytes)
            };
            if n == 0 && !bytes.is_empty() {
                if done > 0 {
                    break;
                }
                return Err(Errno::EFAULT);
            }
            first = false;
            got.cred = wants_cred.then_some(cred);
            if family == Family::Unix && from != Address::Unnamed {
                got.from = Some(from.to_bytes(family));
            }
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
            if !got.files.is_empty() || n < bytes.len() || (peek && n < rest) {
                break;
            }
            index = if peek { index.saturating_add(1) } else { 0 };
        }
        got.bytes = done;
        Ok(Progress::Done(got))
    }

    fn receive_message(
        &mut self,
        tid: Tid,
        id: u64,
        iovecs: &[(u64, u64)],
        flags: u32,
        nonblock: bool,
        attempt: &Attempt,
    ) -> Result<Progress<Received>, Errno> {
        let s = self.objects.net.get(id)?;
        let (object, family, style) = (s.object, s.family, s.style);
        if style == Style::SeqPacket && s.state != State::Connected {
            return Err(Errno::ENOTCONN);
        }
        let wants_cred = s.options.is_on(SOL_SOCKET, SO_PASSCRED);
        let Some(m) = s.queue.front() else {
            if self.empty_queue(id)?.is_some() {
                return Ok(Progress::Done(Received::default()));
            }
            if nonblock || attempt.timed_out {
                return Err(Errno::EAGAIN);
            }
            return Ok(attempt.sleep(WaitKey::Object(object), 0));
        };
        let room = us(iovecs.iter().fold(0u64, |a, (_, n)| a.saturating_add(*n)).min(MAX_RW_COUNT));
        let (data, cred, from) = (m.data.clone(), m.cred, m.from.clone());
        let mut files = m.files.clone();
        let part = data.get(..room.min(data.len())).unwrap_or_default();
        let moved = self.scatter(tid, iovecs, part);
        if flags & MSG_PEEK != 0 {
            for file in &files {
                self.file_ref(*file);
            }
        } else {
            files = self.consume_message(id, 0, true);
        }
        if moved < part.len() {
            for file in files {
                self.file_unref(file);
            }
            return Err(Errno::EFAULT);
        }
        let truncated = data.len() > room;
        let bytes = if flags & MSG_TRUNC != 0 { data.len() } else { moved };
        let shown = if truncated { MSG_TRUNC } else { 0 };
        let from = match (family, &from) {
            (Family::Unix, Address::Unnamed) => None,
            _ => Some(from.to_bytes(family)),
        };
        let cred = wants_cred.then_some(cred);
        Ok(Progress::Done(Received { bytes: u64_of(bytes), from, cred, files, flags: shown }))
    }

    /// Takes bytes (or, `whole`, a message) that were received, and wakes senders that have room now.
    pub(super) fn consume_message(&mut self, id: u64, n: usize, whole: bool) -> Vec<u64> {
        let Ok(s) = self.objects.net.get(id) else { return Vec::new() };
        let (peer, room) = (s.peer, s.room);
        let datagrams = !s.is_connection() && !s.is_inet();
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
                self.objects.net.sockets.iter().filter(|(_, s)| s.peer == Some(id)).map(|(n, _)| n).collect();
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
