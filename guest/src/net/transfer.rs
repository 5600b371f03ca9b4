//! What sending (`send`) and receiving (`receive`) share: flags, time-outs, sleeping; and bind and connect by family.

use super::addr::{Address, Family, Given};
use super::{Cred, State, Style};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::u64_of;
use crate::platform::Ns;
use crate::task::Tid;
use crate::vfs::file::iovec_total;
use crate::wait::{Block, Cause, Outcome, Restart, WaitKey};
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
/// MSG_ERRQUEUE.
pub const MSG_ERRQUEUE: u32 = 0x2000;
/// MSG_OOB: TCP's urgent byte.
pub const MSG_OOB: u32 = 1;

/// Bytes of a stream moved at a time.
pub(super) const PIECE: usize = 65536;

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

    /// What `Attempt::sleep` sleeps on.
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
    /// Memory of the kernel that is sent instead.
    pub own: Option<Vec<u8>>,
    /// MSG_ flags.
    pub flags: u32,
    /// Destination, if one was given.
    pub to: Option<Address>,
    /// SCM_RIGHTS: files, without references of their own.
    pub files: Vec<u64>,
    /// SCM_CREDENTIALS, checked.
    pub cred: Option<Cred>,
    /// IP_TTL or IPV6_HOPLIMIT for this datagram.
    pub ttl: Option<u8>,
    /// IP_TOS or IPV6_TCLASS for this datagram.
    pub tos: Option<u8>,
    /// Source address that IP_PKTINFO or IPV6_PKTINFO asks for.
    pub source: Option<IpAddr>,
    /// The loopback interface was named by IP_PKTINFO or IPV6_PKTINFO.
    pub device: bool,
}

impl Outgoing {
    /// How many bytes are to be sent.
    pub fn bytes(&self) -> u64 {
        match &self.own {
            Some(data) => u64_of(data.len()),
            None => iovec_total(&self.iovecs),
        }
    }
}

/// One control message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// cmsg_level.
    pub level: u32,
    /// cmsg_type.
    pub kind: u32,
    /// What follows the header.
    pub data: Vec<u8>,
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
    /// Other control messages.
    pub controls: Vec<Control>,
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
    /// FIONREAD: unread bytes of a stream, or of the first message. EINVAL for a listener.
    pub fn socket_pending(&self, id: u64) -> Result<u64, Errno> {
        let s = self.objects.net.get(id)?;
        match (s.state, s.style) {
            (State::Listening(_), _) => Err(Errno::EINVAL),
            (_, Style::Stream) => Ok(u64_of(s.readable())),
            (_, Style::SeqPacket) => Ok(u64_of(s.bytes)),
            _ => Ok(s.queue.front().map_or(0, |m| u64_of(m.rest().len()))),
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
            (_, Given::Address(Address::Netlink(port, groups))) => self.netlink_bind(tid, id, port, groups),
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
            (Family::Netlink, _, Given::Unspecified) => {
                self.objects.net.get_mut(id)?.remote = Address::Unnamed;
                Ok(Progress::Done(()))
            }
            (Family::Netlink, _, Given::Address(a)) => {
                self.objects.net.get_mut(id)?.remote = a;
                Ok(Progress::Done(()))
            }
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
            let inet = s.is_inet();
            (s.state, s.remote) = (State::Idle, Address::Unnamed);
            if inet {
                self.inet_undo_autobind(id);
            } else {
                self.objects.net.set_default(id, None);
            }
            self.socket_wake(id);
            return Ok(());
        }
        if let State::Listening(_) = s.state {
            self.socket_stop_listening(id);
            return Ok(());
        }
        let was = std::mem::replace(&mut s.state, State::Idle);
        (s.remote, s.in_progress) = (Address::Unnamed, false);
        let broken = (was == State::Connected).then_some(Errno::ECONNRESET);
        (s.error, s.shut_read, s.shut_write, s.urgent) = (broken, false, false, None);
        let peer = s.peer.take().filter(|p| *p != id);
        if let Some(p) = peer.and_then(|p| self.objects.net.sockets.get_mut(p)) {
            (p.peer, p.state, p.error) = (None, State::Idle, Some(Errno::ECONNRESET));
            (p.shut_read, p.shut_write) = (true, true);
        }
        for (_, listener) in self.objects.net.sockets.iter_mut() {
            listener.waiting.retain(|w| *w != id);
        }
        while self.objects.net.get(id).is_ok_and(|s| !s.queue.is_empty()) {
            self.objects.net.dequeue(id, 0, true);
        }
        self.inet_undo_autobind(id);
        if let Some(p) = peer {
            self.socket_wake(p);
        }
        self.socket_wake(id);
        Ok(())
    }
}
