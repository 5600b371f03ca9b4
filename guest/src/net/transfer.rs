//! Sending and receiving on behalf of a task: from and to user memory, with blocking and time-outs.

use super::addr::{Address, Family, Given};
use super::options::{SO_PASSCRED, SOL_SOCKET};
use super::{Cred, MAX_QUEUE, Message, State, Style};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{u64_of, us};
use crate::platform::Ns;
use crate::poll::POLLOUT;
use crate::task::Tid;
use crate::vfs::file::{MAX_RW_COUNT, O_NONBLOCK, window};
use crate::wait::{Block, Cause, Outcome, Restart, SysResult, WaitKey};
use std::net::IpAddr;

/// MSG_PEEK.
pub const MSG_PEEK: u32 = 2;
/// MSG_CTRUNC.
pub const MSG_CTRUNC: u32 = 8;
/// MSG_TRUNC.
pub const MSG_TRUNC: u32 = 0x20;
/// MSG_DONTWAIT.
pub const MSG_DONTWAIT: u32 = 0x40;
/// MSG_WAITALL.
pub const MSG_WAITALL: u32 = 0x100;
/// MSG_NOSIGNAL.
pub const MSG_NOSIGNAL: u32 = 0x4000;
/// MSG_ERRQUEUE: errors are never queued.
pub const MSG_ERRQUEUE: u32 = 0x2000;
/// MSG_OOB, which no socket here has.
pub const MSG_OOB: u32 = 1;

/// Bytes of a stream moved at a time.
const PIECE: usize = 65536;
/// Largest UDP datagram over IPv4, bytes.
const MAX_UDP: u64 = 65507;
/// Most that one receive moves before it returns a short count, bytes.
const MAX_RECEIVE: u64 = 32 << 20;

/// How far a call came that may have slept already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attempt {
    /// Bytes moved before the sleep.
    pub done: u64,
    /// The time-out passed.
    pub timed_out: bool,
    /// When the time-out passes.
    pub deadline: Option<Ns>,
}

/// What came of a step that may have to wait.
#[derive(Clone, Debug)]
pub enum Progress<T> {
    /// It is done.
    Done(T),
    /// The task must sleep and try again.
    Sleep(Block),
}

impl Attempt {
    /// A sleep on `key` that remembers `done` bytes.
    pub(super) fn sleep<T>(&self, key: WaitKey, done: u64) -> Progress<T> {
        Progress::Sleep(self.block(key, done))
    }

    /// What [`Attempt::sleep`] sleeps on.
    pub fn block(&self, key: WaitKey, done: u64) -> Block {
        let restart = match (done, self.deadline) {
            (0, None) => Restart::IfSaRestart,
            (0, Some(_)) => Restart::Never,
            _ => Restart::Partial,
        };
        let deadline = self.deadline;
        Block { on: vec![key], deadline, relative: true, restart, memo: [done, 0] }
    }
}

/// What sendmsg(2) sends.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// User memory: (address, length).
    pub iovecs: Vec<(u64, u64)>,
    /// MSG_ flags.
    pub flags: u32,
    /// Destination, if one was given.
    pub to: Option<Address>,
    /// SCM_RIGHTS: files, without references of their own.
    pub files: Vec<u64>,
    /// SCM_CREDENTIALS, checked.
    pub cred: Option<Cred>,
}

/// What recvmsg(2) got.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// The call's result.
    pub bytes: u64,
    /// The sender.
    pub from: Option<Vec<u8>>,
    /// SCM_CREDENTIALS, where the receiver wants them.
    pub cred: Option<Cred>,
    /// SCM_RIGHTS: each holds a reference that is the caller's now.
    pub files: Vec<u64>,
    /// MSG_ flags to show.
    pub flags: u32,
}

impl From<Progress<u64>> for Outcome {
    fn from(p: Progress<u64>) -> Self {
        match p {
            Progress::Done(n) => Outcome::Return(n),
            Progress::Sleep(block) => Outcome::Block(block),
        }
    }
}

impl Kernel {
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

    /// FIONREAD: unread bytes of a stream, or of the first message. EINVAL for a listener.
    pub fn socket_pending(&self, id: u64) -> Result<u64, Errno> {
        let s = self.objects.net.get(id)?;
        match (s.state, s.style) {
            (State::Listening(_), _) => Err(Errno::EINVAL),
            (_, Style::Datagram) => Ok(s.queue.front().map_or(0, |m| u64_of(m.rest().len()))),
            _ => Ok(u64_of(s.bytes)),
        }
    }

    /// SIOCOUTQ: bytes that the other end has not read. EINVAL for a listener.
    pub fn socket_unsent(&self, id: u64) -> Result<u64, Errno> {
        let s = self.objects.net.get(id)?;
        if let State::Listening(_) = s.state {
            return Err(Errno::EINVAL);
        }
        let peer = s.peer.filter(|_| s.is_connection());
        Ok(peer.and_then(|p| self.objects.net.sockets.get(p)).map_or(0, |p| u64_of(p.bytes)))
    }

    /// Where a call on a socket stands; a first attempt begins the time-out `timeout` (0: none).
    pub fn socket_attempt(&self, tid: Tid, timeout: Ns) -> Attempt {
        match self.task(tid).and_then(|t| t.resume) {
            Some(r) => {
                let [done, _] = r.memo;
                Attempt { done, timed_out: r.cause == Cause::TimedOut, deadline: r.deadline }
            }
            None => {
                let deadline = (timeout != 0).then(|| self.platform.monotonic().saturating_add(timeout));
                Attempt { done: 0, timed_out: false, deadline }
            }
        }
    }

    /// bind(2).
    pub fn socket_bind(&mut self, tid: Tid, id: u64, given: Given) -> Result<(), Errno> {
        let s = self.objects.net.get(id)?;
        match (s.family, given) {
            (Family::Unix, Given::Address(address)) => self.unix_bind(tid, id, address),
            (Family::Unix, Given::Unspecified) => Err(Errno::EINVAL),
            (_, Given::Address(Address::Ip(ip, port))) => self.inet_bind(tid, id, ip, port),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    /// connect(2).
    pub fn socket_connect(
        &mut self,
        tid: Tid,
        id: u64,
        given: Given,
        nonblock: bool,
    ) -> Result<Progress<()>, Errno> {
        let s = self.objects.net.get(id)?;
        let attempt = self.socket_attempt(tid, s.options.send_timeout);
        match (s.family, s.style, given) {
            (Family::Unix, Style::Datagram, Given::Unspecified)
            | (Family::Inet | Family::Inet6, _, Given::Unspecified) => {
                self.socket_disconnect(id)?;
                Ok(Progress::Done(()))
            }
            (Family::Unix, Style::Datagram, Given::Address(a)) => {
                self.unix_set_default(tid, id, &a).map(Progress::Done)
            }
            (Family::Unix, _, Given::Address(a)) => self.unix_connect(tid, id, &a, nonblock, &attempt),
            (_, Style::Datagram, Given::Address(Address::Ip(ip, port))) => {
                self.inet_set_default(id, (ip, port)).map(Progress::Done)
            }
            (_, _, Given::Address(Address::Ip(ip, port))) => {
                self.inet_connect(id, (ip, port), nonblock, &attempt)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// connect(2) to AF_UNSPEC.
    fn socket_disconnect(&mut self, id: u64) -> Result<(), Errno> {
        let s = self.objects.net.get_mut(id)?;
        if !s.is_connection() {
            (s.state, s.peer, s.remote) = (State::Idle, None, Address::Unnamed);
            self.socket_wake(id);
            return Ok(());
        }
        if let State::Listening(_) = s.state {
            self.socket_stop_listening(id);
            return Ok(());
        }
        (s.state, s.remote, s.in_progress) = (State::Idle, Address::Unnamed, false);
        let peer = s.peer.take();
        if let Some(p) = peer.and_then(|p| self.objects.net.sockets.get_mut(p)) {
            (p.peer, p.state, p.error) = (None, State::Idle, Some(Errno::ECONNRESET));
            (p.shut_read, p.shut_write) = (true, true);
        }
        for (_, listener) in self.objects.net.sockets.iter_mut() {
            listener.waiting.retain(|w| *w != id);
        }
        if let Some(p) = peer {
            self.socket_wake(p);
        }
        self.socket_wake(id);
        Ok(())
    }

    /// Sends on behalf of a task. Errors as send(2); EPIPE has sent SIGPIPE where it should.
    pub fn socket_send(&mut self, tid: Tid, file: u64, m: &Outgoing) -> Result<Progress<u64>, Errno> {
        let id = self.socket_of(file)?;
        let nonblock = self.open_file(file)?.flags & O_NONBLOCK != 0 || m.flags & MSG_DONTWAIT != 0;
        let s = self.objects.net.get(id)?;
        let attempt = self.socket_attempt(tid, s.options.send_timeout);
        if m.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
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
                (s.shut_write, s.error) = (true, Some(Errno::EPIPE));
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
    fn consume_message(&mut self, id: u64, n: usize, whole: bool) -> Vec<u64> {
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
}
