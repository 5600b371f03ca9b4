//! Sending on behalf of a task: streams as far as there is room, messages whole or not at all.

use super::addr::{Address, Family};
use super::options::SOL_SOCKET;
use super::transfer::{Attempt, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_OOB, Outgoing, PIECE, Progress};
use super::{Cred, MAX_QUEUE, Message, State, Style};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{u64_of, us};
use crate::task::Tid;
use crate::vfs::file::{MAX_RW_COUNT, O_NONBLOCK, window};
use crate::wait::WaitKey;
use std::net::IpAddr;

/// Largest UDP datagram over IPv4, bytes.
const MAX_UDP: u64 = 65507;

impl Kernel {
    /// Sends on behalf of a task. Errors as send(2); EPIPE has sent SIGPIPE where it should.
    pub fn socket_send(&mut self, tid: Tid, file: u64, m: &Outgoing) -> Result<Progress<u64>, Errno> {
        let id = self.socket_of(file)?;
        let nonblock = self.open_file(file)?.flags & O_NONBLOCK != 0 || m.flags & MSG_DONTWAIT != 0;
        let s = self.objects.net.get(id)?;
        let attempt = self.socket_attempt(tid, s.options.send_timeout);
        if m.flags & MSG_OOB != 0 {
            let stream = s.style == Style::Stream;
            let refuse = |k: &mut Kernel| k.refuse(tid, "flags", &[u64::from(MSG_OOB)], Errno::EOPNOTSUPP);
            return Err(if stream { refuse(self) } else { Errno::EOPNOTSUPP });
        }
        let result = match (s.style, s.family) {
            (Style::Stream, _) => self.send_stream(tid, id, m, nonblock, &attempt),
            (_, Family::Unix) => self.send_unix(tid, id, m, nonblock, &attempt),
            _ => self.send_udp(tid, id, m).map(Progress::Done),
        };
        let stream = self.objects.net.get(id).is_ok_and(|s| s.style == Style::Stream);
        if matches!(result, Err(Errno::EPIPE)) && stream && m.flags & MSG_NOSIGNAL == 0 {
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
        if s.is_inet() && s.error.is_some() {
            return Err(s.error.take().unwrap_or(Errno::EPIPE));
        }
        if s.shut_write {
            return Err(Errno::EPIPE);
        }
        match s.state {
            State::Connected => Ok(()),
            State::Connecting => Err(Errno::EAGAIN),
            _ if s.is_inet() => Err(Errno::EPIPE),
            _ => Err(Errno::ENOTCONN),
        }
    }

    fn send_stream(
        &mut self,
        tid: Tid,
        id: u64,
        m: &Outgoing,
        nonblock: bool,
        attempt: &Attempt,
    ) -> Result<Progress<u64>, Errno> {
        let total = m.iovecs.iter().fold(0u64, |a, (_, n)| a.saturating_add(*n)).min(MAX_RW_COUNT);
        let mut done = attempt.done.min(total);
        loop {
            match self.stream_fault(id, m) {
                Ok(()) => {}
                Err(_) if done > 0 => return Ok(Progress::Done(done)),
                Err(Errno::EAGAIN) if !nonblock && !attempt.timed_out => {
                    let object = self.objects.net.get(id)?.object;
                    return Ok(attempt.sleep(WaitKey::Object(object), done));
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
                (s.shut_write, s.error, s.state) = (true, Some(Errno::EPIPE), State::Idle);
                self.socket_wake(id);
                return Ok(Progress::Done(total));
            };
            let room = self.socket_send_room(s);
            if room == 0 {
                if nonblock || attempt.timed_out {
                    return if done > 0 { Ok(Progress::Done(done)) } else { Err(Errno::EAGAIN) };
                }
                return Ok(attempt.sleep(WaitKey::Object(object), done));
            }
            let want = us(total - done).min(room).min(PIECE);
            let files = if done == 0 { m.files.clone() } else { Vec::new() };
            if let Err(e) = self.objects.net.admit(want, files.len()) {
                return if done > 0 { Ok(Progress::Done(done)) } else { Err(e) };
            }
            let data = self.gather(tid, &window(&m.iovecs, done, u64_of(want)));
            if data.is_empty() {
                return if done > 0 { Ok(Progress::Done(done)) } else { Err(Errno::EFAULT) };
            }
            let n = data.len();
            self.deliver_message(tid, id, peer, data, files, m.cred);
            done = done.saturating_add(u64_of(n));
            if n < want {
                return Ok(Progress::Done(done));
            }
        }
    }

    /// Sends bytes of kernel memory on a stream, as many as there is room for. EAGAIN, EINVAL and as send(2).
    pub fn socket_push(&mut self, tid: Tid, file: u64, data: &[u8]) -> Result<usize, Errno> {
        let id = self.socket_of(file)?;
        if self.objects.net.get(id)?.style != Style::Stream {
            return Err(Errno::EINVAL);
        }
        self.stream_fault(id, &Outgoing::default())?;
        let s = self.objects.net.get(id)?;
        let peer = s.peer.ok_or(Errno::EPIPE)?;
        let n = self.socket_send_room(s).min(data.len());
        if n == 0 {
            return Err(Errno::EAGAIN);
        }
        self.objects.net.admit(n, 0)?;
        let part = data.get(..n).unwrap_or_default().to_vec();
        self.deliver_message(tid, id, peer, part, Vec::new(), None);
        Ok(n)
    }

    /// Puts a message into a socket's queue and wakes who waits for it.
    fn deliver_message(
        &mut self,
        tid: Tid,
        from: u64,
        to: u64,
        data: Vec<u8>,
        files: Vec<u64>,
        cred: Option<Cred>,
    ) {
        for file in &files {
            self.file_ref(*file);
        }
        let cred = cred.unwrap_or_else(|| self.socket_cred(tid));
        let (stream, address) = match self.objects.net.get(from) {
            Ok(s) if s.style == Style::Stream && s.is_inet() => (true, Address::Unnamed),
            Ok(s) => (s.style == Style::Stream, s.local.clone()),
            Err(_) => (false, Address::Unnamed),
        };
        let message = Message { data, start: 0, from: address, cred, files };
        self.objects.net.enqueue(to, message, stream);
        self.socket_wake(to);
    }

    /// All of a message that must be sent whole. EMSGSIZE, EFAULT.
    fn gather_message(&mut self, tid: Tid, m: &Outgoing, most: u64) -> Result<Vec<u8>, Errno> {
        let total = m.iovecs.iter().fold(0u64, |a, (_, n)| a.saturating_add(*n));
        if total > most {
            return Err(Errno::EMSGSIZE);
        }
        let data = self.gather(tid, &m.iovecs);
        if u64_of(data.len()) == total { Ok(data) } else { Err(Errno::EFAULT) }
    }

    /// A datagram or packet between AF_UNIX sockets.
    fn send_unix(
        &mut self,
        tid: Tid,
        id: u64,
        m: &Outgoing,
        nonblock: bool,
        attempt: &Attempt,
    ) -> Result<Progress<u64>, Errno> {
        let s = self.objects.net.get_mut(id)?;
        if let Some(e) = s.error.take() {
            return Err(e);
        }
        let style = s.style;
        let (limit, state, shut) = (s.options.send_buffer, s.state, s.shut_write);
        let to = match (&m.to, s.peer) {
            (_, peer) if style == Style::SeqPacket => {
                if state != State::Connected {
                    return Err(Errno::ENOTCONN);
                }
                peer.ok_or(Errno::EPIPE)?
            }
            (Some(address), _) => {
                let address = address.clone();
                self.unix_target(tid, &address, Style::Datagram)?
            }
            (None, Some(peer)) => peer,
            (None, None) => return Err(Errno::ENOTCONN),
        };
        if shut {
            return Err(Errno::EPIPE);
        }
        let Some(target) = self.objects.net.sockets.get(to) else {
            let s = self.objects.net.get_mut(id)?;
            (s.peer, s.state) = (None, State::Idle);
            return Err(Errno::ECONNREFUSED);
        };
        if target.shut_read {
            return Err(Errno::EPIPE);
        }
        if style == Style::Datagram && target.peer.is_some_and(|p| p != id) {
            return Err(Errno::EPERM);
        }
        let paired = target.peer == Some(id);
        let full = target.charge() >= limit || (!paired && target.queue.len() > MAX_QUEUE);
        let (room, own) = (target.room, self.objects.net.get(id)?.object);
        let data = self.gather_message(tid, m, u64_of(limit).saturating_sub(32))?;
        if full {
            if nonblock || attempt.timed_out {
                return Err(Errno::EAGAIN);
            }
            return Ok(attempt.sleep(WaitKey::Object(if paired { own } else { room }), 0));
        }
        self.objects.net.admit(data.len(), m.files.len())?;
        let n = u64_of(data.len());
        self.deliver_message(tid, id, to, data, m.files.clone(), m.cred);
        Ok(Progress::Done(n))
    }

    /// A UDP datagram: it arrives, or it is dropped.
    fn send_udp(&mut self, tid: Tid, id: u64, m: &Outgoing) -> Result<u64, Errno> {
        let s = self.objects.net.get_mut(id)?;
        let most = MAX_UDP;
        let dest = match (&m.to, &s.remote) {
            (Some(to), _) => to.clone(),
            (None, remote @ Address::Ip(..)) if s.state == State::Connected => remote.clone(),
            _ => return Err(Errno::EDESTADDRREQ),
        };
        let Address::Ip(ip, port) = dest else { return Err(Errno::EINVAL) };
        if port == 0 {
            return Err(Errno::EINVAL);
        }
        if let Some(e) = s.error.take() {
            return Err(e);
        }
        if s.shut_write {
            return Err(Errno::EPIPE);
        }
        if matches!(ip, IpAddr::V4(ip) if ip.is_broadcast()) && !s.options.is_on(SOL_SOCKET, 6) {
            return Err(Errno::EACCES);
        }
        let connected = s.state == State::Connected;
        let ip = self.inet_route(id, ip)?;
        let data = self.gather_message(tid, m, most)?;
        let any = self.inet_any(id);
        self.inet_autobind(id, any)?;
        let n = u64_of(data.len());
        let from = self.inet_sender(id, ip);
        match self.inet_target(false, ip, port, &from) {
            Some(to) => {
                let t = self.objects.net.get(to)?;
                let room = t.charge() < t.options.receive_buffer && !t.shut_read;
                if room && self.objects.net.admit(data.len(), 0).is_ok() {
                    let cred = self.socket_cred(tid);
                    let message = Message { data, start: 0, from, cred, files: Vec::new() };
                    self.objects.net.enqueue(to, message, false);
                    self.socket_wake(to);
                }
            }
            None if connected => {
                self.objects.net.get_mut(id)?.error = Some(Errno::ECONNREFUSED);
                self.socket_wake(id);
            }
            None => {}
        }
        Ok(n)
    }

    /// The address that a datagram to `dest` comes from.
    fn inet_sender(&self, id: u64, dest: IpAddr) -> Address {
        match self.objects.net.get(id).map(|s| s.local.clone()) {
            Ok(Address::Ip(ip, port)) if ip.is_unspecified() => match dest {
                IpAddr::V4(_) => Address::Ip(std::net::Ipv4Addr::LOCALHOST.into(), port),
                IpAddr::V6(_) => Address::Ip(std::net::Ipv6Addr::LOCALHOST.into(), port),
            },
            Ok(address) => address,
            Err(_) => Address::Unnamed,
        }
    }
}
