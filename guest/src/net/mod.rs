//! Sockets that live inside the sandbox: AF_UNIX, and AF_INET and AF_INET6 on the loopback addresses.
//!
//! There is no network and no protocol machinery: a connected stream is a queue of bytes each way with back pressure, a datagram
//! is a message in its receiver's queue. `unix` and `inet` know names and how connections come about; `send` and `receive`
//! move bytes from and to user memory; `options` holds what setsockopt(2) sets. This file owns the state and what closing does.
//!
//! Every byte and every descriptor in a queue is the guest's doing but the host's memory, so both have limits for the
//! sandbox as a whole ([`MAX_BUFFERED`], [`MAX_IN_FLIGHT`], [`MAX_SOCKETS`]).

use crate::errno::Errno;
use crate::platform::Ns;
use crate::store::Store;
use crate::vfs::InodeId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

pub mod addr;
mod ancillary;
mod collect;
mod errors;
mod genetlink;
pub mod iface;
mod inet;
mod life;
mod multicast;
mod netlink;
mod option_table;
pub mod options;
pub mod proc;
mod ready;
mod receive;
mod send;
mod send_message;
mod service;
mod tcp_info;
pub mod transfer;
mod unix;
mod urgent;

use addr::{Address, Family};
use options::Options;
pub use urgent::Urgent;

/// Bytes that all socket queues together may hold; sends fail with ENOBUFS beyond.
pub const MAX_BUFFERED: usize = 64 << 20;
/// Descriptors that may be under way in messages at once; sends fail with ETOOMANYREFS beyond.
pub const MAX_IN_FLIGHT: usize = 16384;
/// Sockets that may exist at once (ENFILE beyond).
pub const MAX_SOCKETS: usize = 65536;
/// Bytes of a stream up to which what is sent is put behind what waits already, instead of into a message of its own.
const JOINED: usize = 8192;
/// What one message costs besides its bytes.
const OVERHEAD: usize = 64;
/// Unread datagrams after which an AF_UNIX sender waits (/proc/sys/net/unix/max_dgram_qlen).
const MAX_QUEUE: usize = 10;
/// Longest backlog (/proc/sys/net/core/somaxconn).
const MAX_BACKLOG: usize = 4096;

/// SOCK_STREAM, SOCK_DGRAM, SOCK_RAW (AF_NETLINK only), SOCK_SEQPACKET.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Style {
    Stream,
    Datagram,
    Raw,
    SeqPacket,
}

impl Style {
    /// Its SOCK_ number.
    pub fn number(self) -> i32 {
        match self {
            Style::Stream => 1,
            Style::Datagram => 2,
            Style::Raw => 3,
            Style::SeqPacket => 5,
        }
    }
}

/// Who sent a message or made a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // struct ucred, unix(7)
pub struct Cred {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Cred {
    /// What SO_PEERCRED says where there is no peer.
    pub const NOBODY: Cred = Cred { pid: 0, uid: u32::MAX, gid: u32::MAX };
}

/// Where a socket is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Neither of the others (also: a connection that was reset).
    Idle,
    /// It accepts connections; so many may wait and one more.
    Listening(usize),
    /// An AF_INET stream that waits for room in the listener's queue.
    Connecting,
    /// It has (or had, until that closed) another end; a datagram socket has a default destination.
    Connected,
}

/// Bytes in a queue that belong together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message {
    /// Contents.
    pub data: Vec<u8>,
    /// Bytes of it that were read already (streams).
    pub start: usize,
    /// The sender's address.
    pub from: Address,
    /// The AF_UNIX socket that sent it, which may get a name later.
    pub sender: Option<u64>,
    /// The sender.
    pub cred: Cred,
    /// Files that come with it; each holds a reference.
    pub files: Vec<u64>,
    /// When it was sent, `CLOCK_REALTIME`, ns.
    pub stamp: Ns,
    /// What its IP header said (UDP).
    pub packet: Option<Packet>,
}

/// What the header of a UDP datagram says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// Destination.
    pub to: IpAddr,
    /// UDP-Lite: the bytes that the checksum covers, header included, where that is not all.
    pub coverage: Option<u16>,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Type of service, or traffic class.
    pub tos: u8,
}

impl Message {
    /// What is still to be read.
    pub fn rest(&self) -> &[u8] {
        self.data.get(self.start..).unwrap_or_default()
    }
}

/// One socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Socket {
    /// Object number for those who wait for its readiness.
    pub object: u64,
    /// Object number for those who wait for room in its queues.
    pub room: u64,
    /// Family.
    pub family: Family,
    /// Type.
    pub style: Style,
    /// NETLINK_ROUTE (0) or NETLINK_GENERIC (16); IPPROTO_UDPLITE; else 0.
    pub protocol: i32,
    /// State.
    pub state: State,
    /// What it is bound to.
    pub local: Address,
    /// What bind(2) was given (AF_INET); `local` may have an address that a connection chose.
    pub bound: Address,
    /// The other end's address.
    pub remote: Address,
    /// The other end (streams), or the AF_UNIX datagram socket that it sends to.
    pub peer: Option<u64>,
    /// Received and not yet read.
    pub queue: VecDeque<Message>,
    /// Unread bytes in `queue`.
    pub bytes: usize,
    /// Errors that came back for datagrams (IP_RECVERR).
    pub errors: VecDeque<errors::Returned>,
    /// What they count for, bytes.
    pub error_bytes: usize,
    /// Connections to accept.
    pub ready: VecDeque<u64>,
    /// The listener in whose `ready` it is.
    pub listener: Option<u64>,
    /// AF_INET streams that wait for room in `ready`.
    pub waiting: VecDeque<u64>,
    /// No more will be received: shutdown(2) here, or the other end is done.
    pub shut_read: bool,
    /// No more can be sent.
    pub shut_write: bool,
    /// SO_ERROR.
    pub error: Option<Errno>,
    /// connect(2) gave EINPROGRESS and has not been asked again.
    pub in_progress: bool,
    /// The inode of its path.
    pub inode: Option<InodeId>,
    /// Its maker or, once it listens, who called listen(2).
    pub cred: Cred,
    /// SO_PEERCRED.
    pub peer_cred: Cred,
    /// User, group and permission bits that fstat(2) shows.
    pub owner: (u32, u32, u32),
    /// TCP's urgent byte.
    pub urgent: Option<Urgent>,
    /// Multicast groups that it joined on the loopback interface.
    pub groups: BTreeSet<IpAddr>,
    /// setsockopt(2).
    pub options: Options,
}

impl Socket {
    /// Whether it is AF_INET or AF_INET6.
    pub fn is_inet(&self) -> bool {
        matches!(self.family, Family::Inet | Family::Inet6)
    }

    /// Whether it needs a connection before it can send.
    pub fn is_connection(&self) -> bool {
        matches!(self.style, Style::Stream | Style::SeqPacket)
    }

    /// Bytes that its queue counts for.
    pub fn charge(&self) -> usize {
        let messages = self.queue.len().saturating_mul(OVERHEAD);
        self.bytes.saturating_add(messages).saturating_add(self.error_bytes)
    }

    /// Whether it speaks UDP-Lite.
    pub fn is_lite(&self) -> bool {
        self.transport() == 136
    }

    /// The number of the protocol whose ports it uses (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE); 0 where there are none.
    pub fn transport(&self) -> u8 {
        match (self.is_inet(), self.is_connection(), self.protocol == 136) {
            (false, ..) => 0,
            (true, true, _) => 6,
            (true, false, false) => 17,
            (true, false, true) => 136,
        }
    }

    /// A connection did not come about.
    fn refused(&mut self) {
        (self.state, self.error) = (State::Idle, Some(Errno::ECONNREFUSED));
        (self.shut_read, self.shut_write) = (true, true);
    }

    /// Whether a listener takes no more connections.
    fn is_full(&self) -> bool {
        matches!(self.state, State::Listening(backlog) if self.ready.len() > backlog)
    }
}

/// All sockets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Net {
    /// By id.
    pub sockets: Store<Socket>,
    /// Sockets bound to an inode.
    by_inode: BTreeMap<InodeId, u64>,
    /// Sockets bound to an abstract name, by SOCK_ number and name.
    by_name: BTreeMap<(i32, Vec<u8>), u64>,
    /// Sockets that hold a port, by (protocol, port).
    by_port: BTreeMap<(u8, u16), Vec<u64>>,
    /// AF_UNIX datagram sockets by the one that they send to.
    senders: BTreeMap<u64, BTreeSet<u64>>,
    /// Bytes in all queues.
    buffered: usize,
    /// Files in all queues.
    in_flight: usize,
    /// Files in queues: how often each is in which socket's.
    flying: BTreeMap<u64, BTreeMap<u64, usize>>,
    /// At so many files in flight those that nobody can receive are looked for.
    collect_at: usize,
    /// Files in flight that were closed since then.
    closed_in_flight: usize,
    /// Files of closed queues that are still to be released.
    doomed: Vec<u64>,
    /// `doomed` is being emptied.
    draining: bool,
}

impl Net {
    /// The socket. EBADF (it cannot happen while a file refers to it).
    pub fn get(&self, id: u64) -> Result<&Socket, Errno> {
        self.sockets.get(id).ok_or(Errno::EBADF)
    }

    /// The socket. EBADF.
    pub fn get_mut(&mut self, id: u64) -> Result<&mut Socket, Errno> {
        self.sockets.get_mut(id).ok_or(Errno::EBADF)
    }

    /// Whether the counters agree with the queues, and ends of connections name each other: what a test checks after a storm of calls.
    pub fn is_consistent(&self) -> bool {
        let bytes: usize = self.sockets.iter().map(|(_, s)| s.charge()).sum();
        let files: usize = self.sockets.iter().flat_map(|(_, s)| &s.queue).map(|m| m.files.len()).sum();
        let counted = |s: &Socket| s.bytes == s.queue.iter().map(|m| m.rest().len()).sum::<usize>();
        let joined = |id: u64, s: &Socket| {
            let peer = s.peer.and_then(|p| self.sockets.get(p));
            !s.is_connection() || peer.is_none_or(|p| p.peer == Some(id))
        };
        let flying: usize = self.flying.values().flat_map(BTreeMap::values).sum();
        bytes == self.buffered
            && files == self.in_flight
            && flying == files
            && self.doomed.is_empty()
            && self.sockets.iter().all(|(id, s)| counted(s) && joined(id, s))
            && self.senders.values().flatten().all(|id| self.sockets.get(*id).is_some())
            && self.by_port.values().flatten().all(|id| self.sockets.get(*id).is_some())
    }

    /// Says where an AF_UNIX datagram socket sends to from now on.
    fn set_default(&mut self, id: u64, to: Option<u64>) {
        let Some(s) = self.sockets.get_mut(id) else { return };
        if let Some(old) = std::mem::replace(&mut s.peer, to)
            && let Some(senders) = self.senders.get_mut(&old)
        {
            senders.remove(&id);
            if senders.is_empty() {
                self.senders.remove(&old);
            }
        }
        if let Some(to) = to {
            self.senders.entry(to).or_default().insert(id);
        }
    }

    /// Checks the limits of the sandbox before a message is queued. ENOBUFS, ETOOMANYREFS.
    fn admit(&self, bytes: usize, files: usize) -> Result<(), Errno> {
        if self.buffered.saturating_add(bytes).saturating_add(OVERHEAD) > MAX_BUFFERED {
            return Err(Errno::ENOBUFS);
        }
        if files > 0 && self.in_flight.saturating_add(files) > MAX_IN_FLIGHT {
            return Err(Errno::ETOOMANYREFS);
        }
        Ok(())
    }

    /// Appends a message (its files hold their references already). `join` lets its bytes follow those of the last one.
    fn enqueue(&mut self, id: u64, message: Message, join: bool) {
        let Some(s) = self.sockets.get_mut(id) else { return };
        let before = s.charge();
        s.bytes = s.bytes.saturating_add(message.data.len());
        self.in_flight = self.in_flight.saturating_add(message.files.len());
        for file in &message.files {
            *self.flying.entry(*file).or_default().entry(id).or_default() += 1;
        }
        match s.queue.back_mut() {
            Some(last)
                if join
                    && message.files.is_empty()
                    && last.files.is_empty()
                    && last.cred == message.cred
                    && last.data.len().saturating_add(message.data.len()) <= JOINED =>
            {
                last.data.extend(message.data);
            }
            _ => s.queue.push_back(message),
        }
        self.buffered = self.buffered.saturating_add(s.charge().saturating_sub(before));
    }

    /// Takes `n` bytes of the oldest message, and with `whole` (or its last byte) the message. Its files go to the caller.
    fn dequeue(&mut self, id: u64, n: usize, whole: bool) -> Vec<u64> {
        let Some(s) = self.sockets.get_mut(id) else { return Vec::new() };
        let before = s.charge();
        let Some(first) = s.queue.front_mut() else { return Vec::new() };
        let files = std::mem::take(&mut first.files);
        let n = if whole { first.rest().len() } else { n.min(first.rest().len()) };
        first.start = first.start.saturating_add(n);
        s.bytes = s.bytes.saturating_sub(n);
        s.urgent = s.urgent.and_then(|u| u.after(n));
        if whole || first.rest().is_empty() {
            s.queue.pop_front();
        }
        self.buffered = self.buffered.saturating_sub(before.saturating_sub(s.charge()));
        self.landed(id, &files);
        files
    }

    /// Files have left a socket's queue.
    fn landed(&mut self, id: u64, files: &[u64]) {
        self.in_flight = self.in_flight.saturating_sub(files.len());
        for file in files {
            let Some(holders) = self.flying.get_mut(file) else { continue };
            if let Some(n) = holders.get_mut(&id) {
                *n = n.saturating_sub(1);
                if *n == 0 {
                    holders.remove(&id);
                }
            }
            if holders.is_empty() {
                self.flying.remove(file);
            }
        }
    }
}
