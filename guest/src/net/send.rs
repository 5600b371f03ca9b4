//! Sending on behalf of a task: streams, as far as there is room. Messages are in `send_message`.

use super::addr::{Address, Family};
use super::transfer::{Attempt, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_OOB, Outgoing, PIECE, Progress};
use super::{Message, State, Style, Urgent};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{u64_of, us};
use crate::task::Tid;
use crate::vfs::file::{O_NONBLOCK, iovec_total, window};
use crate::wait::WaitKey;

/// A send that is being tried.
pub(super) struct Sending<'a> {
    pub tid: Tid,
    pub id: u64,
    pub m: &'a Outgoing,
    pub nonblock: bool,
    pub attempt: Attempt,
}

impl Kernel {
    /// Sends on behalf of a task. Errors as send(2); EPIPE has sent SIGPIPE where it should.
    pub fn socket_send(&mut self, tid: Tid, file: u64, m: &Outgoing) -> Result<Progress<u64>, Errno> {
        let id = self.socket_of(file)?;
        let nonblock = m.flags & MSG_DONTWAIT != 0 || self.open_file(file)?.flags & O_NONBLOCK != 0;
        let s = self.objects.net.get(id)?;
        let (style, family) = (s.style, s.family);
        let attempt = self.socket_attempt(tid, s.options.send_timeout);
        let sending = Sending { tid, id, m, nonblock, attempt };
        let ignores = family == Family::Inet6 || (family == Family::Inet && style == Style::Stream);
        if m.flags & MSG_OOB != 0 && !ignores {
            let linux_has = style == Style::Stream;
            let refuse = |k: &mut Kernel| k.refuse(tid, "flags", &[u64::from(MSG_OOB)], Errno::EOPNOTSUPP);
            return Err(if linux_has { refuse(self) } else { Errno::EOPNOTSUPP });
        }
        let result = match (style, family) {
            (Style::Stream, _) => self.send_stream(&sending),
            (_, Family::Unix) => self.send_unix(&sending),
            (_, Family::Netlink) => self.netlink_send(tid, id, m).map(Progress::Done),
            _ => self.send_udp(tid, id, m).map(Progress::Done),
        };
        if matches!(result, Err(Errno::EPIPE)) && style == Style::Stream && m.flags & MSG_NOSIGNAL == 0 {
            self.sigpipe(tid);
        }
        result
    }

    /// What keeps a stream from sending at all.
    fn stream_fault(&mut self, id: u64, m: &Outgoing) -> Result<(), Errno> {
        let s = self.objects.net.get_mut(id)?;
        if !s.is_inet() && m.to.is_some() {
            return Err(if s.state == State::Connected { Errno::EISCONN } else { Errno::EOPNOTSUPP });
        }
        if !s.is_inet() && !matches!(s.state, State::Connected | State::Connecting) {
            return Err(Errno::ENOTCONN);
        }
        if s.is_inet() && s.error.is_some() {
            return Err(s.error.take().unwrap_or(Errno::EPIPE));
        }
        if s.shut_write {
            return Err(Errno::EPIPE);
        }
        match s.state {
            State::Connected => Ok(()),
            State::Connecting => Err(Errno::EAGAIN),
            _ => Err(Errno::EPIPE),
        }
    }

    fn send_stream(&mut self, w: &Sending<'_>) -> Result<Progress<u64>, Errno> {
        let (id, m) = (w.id, w.m);
        let total = iovec_total(&m.iovecs);
        let mut done = w.attempt.done.min(total);
        loop {
            match self.stream_fault(id, m) {
                Ok(()) => {}
                Err(_) if done > 0 => return Ok(Progress::Done(done)),
                Err(Errno::EAGAIN) if !w.nonblock && !w.attempt.timed_out => {
                    let object = self.objects.net.get(id)?.object;
                    return Ok(w.attempt.sleep(WaitKey::Object(object), done));
                }
                Err(e) => return Err(e),
            }
            if done >= total {
                return Ok(Progress::Done(done));
            }
            let s = self.objects.net.get(id)?;
            let (object, peer) = (s.object, s.peer);
            let Some(peer) = peer else {
                if !s.is_inet() {
                    return Err(Errno::EPIPE);
                }
                // The other end has closed: it answers what is sent now with a reset.
                let s = self.objects.net.get_mut(id)?;
                let room = u64_of(s.options.send_buffer);
                (s.shut_write, s.error, s.state) = (true, Some(Errno::EPIPE), State::Idle);
                self.socket_wake(id);
                // Its buffer takes what fits, and the rest meets the reset.
                return Ok(Progress::Done(total.min(done.saturating_add(room))));
            };
            let room = self.socket_send_room(s);
            if room == 0 {
                if w.nonblock || w.attempt.timed_out {
                    return if done > 0 { Ok(Progress::Done(done)) } else { Err(Errno::EAGAIN) };
                }
                return Ok(w.attempt.sleep(WaitKey::Object(object), done));
            }
            let want = us(total - done).min(room).min(PIECE);
            let files = if done == 0 { m.files.clone() } else { Vec::new() };
            self.socket_make_way(files.len());
            if let Err(e) = self.objects.net.admit(want, files.len()) {
                return if done > 0 { Ok(Progress::Done(done)) } else { Err(e) };
            }
            let data = self.gather(w.tid, &window(&m.iovecs, done, u64_of(want)));
            if data.is_empty() {
                return if done > 0 { Ok(Progress::Done(done)) } else { Err(Errno::EFAULT) };
            }
            let n = data.len();
            done = done.saturating_add(u64_of(n));
            let urgent = data.last().copied().filter(|_| m.flags & MSG_OOB != 0 && done >= total);
            if urgent.is_some() && self.objects.net.get(peer)?.is_at_hole() {
                // An urgent byte that was not taken is lost when the next one comes.
                let lost = self.objects.net.dequeue(peer, 1, false);
                self.objects.net.doomed.extend(lost);
            }
            self.deliver_message(w, peer, data, files);
            if let (Some(byte), Some(p)) = (urgent, self.objects.net.sockets.get_mut(peer)) {
                p.urgent = Some(Urgent { ahead: p.bytes.saturating_sub(1), byte, taken: false });
                self.socket_wake(peer);
            }
            if n < want {
                return Ok(Progress::Done(done));
            }
        }
    }

    /// Sends bytes of kernel memory: on a stream as many as there is room for, else as one message. EAGAIN and as send(2).
    pub fn socket_push(&mut self, tid: Tid, file: u64, data: &[u8]) -> Result<usize, Errno> {
        let id = self.socket_of(file)?;
        if self.objects.net.get(id)?.style != Style::Stream {
            let (own, flags) = (Some(data.to_vec()), MSG_DONTWAIT);
            let m = Outgoing { own, flags, ..Outgoing::default() };
            return match self.socket_send(tid, file, &m)? {
                Progress::Done(n) => Ok(us(n)),
                Progress::Sleep(_) => Err(Errno::EAGAIN),
            };
        }
        let m = Outgoing::default();
        let w = Sending { tid, id, m: &m, nonblock: true, attempt: Attempt::default() };
        self.stream_fault(id, &m)?;
        let s = self.objects.net.get(id)?;
        let peer = s.peer.ok_or(Errno::EPIPE)?;
        let n = self.socket_send_room(s).min(data.len());
        if n == 0 {
            return Err(Errno::EAGAIN);
        }
        self.objects.net.admit(n, 0)?;
        let part = data.get(..n).unwrap_or_default().to_vec();
        self.deliver_message(&w, peer, part, Vec::new());
        Ok(n)
    }

    /// Puts a message into a socket's queue and wakes who waits for it.
    pub(super) fn deliver_message(&mut self, w: &Sending<'_>, to: u64, data: Vec<u8>, files: Vec<u64>) {
        for file in &files {
            self.file_ref(*file);
        }
        let cred = w.m.cred.unwrap_or_else(|| self.socket_cred(w.tid));
        let (stream, from, sender) = match self.objects.net.get(w.id) {
            Ok(s) if s.style == Style::Stream && s.is_inet() => (true, Address::Unnamed, None),
            Ok(s) => (s.style == Style::Stream, s.local.clone(), Some(w.id)),
            Err(_) => (false, Address::Unnamed, None),
        };
        let stamp = if stream { 0 } else { self.platform.realtime() };
        let message = Message { data, start: 0, from, sender, cred, files, stamp, packet: None };
        self.objects.net.enqueue(to, message, stream);
        self.socket_wake(to);
    }
}
