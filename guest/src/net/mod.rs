//! Sockets that live inside the sandbox: AF_UNIX, and AF_INET and AF_INET6 on the loopback addresses.
//!
//! There is no network and no protocol machinery: a connected stream is a queue of bytes each way with back pressure, a datagram
//! is a message in its receiver's queue. `unix` and `inet` know names and how connections come about; `send` and `receive`
//! move bytes from and to user memory; `options` holds what setsockopt(2) sets. This file owns the state and what closing does.
//!
//! Every byte and every descriptor in a queue is the guest's doing but the host's memory, so both have limits for the
//! sandbox as a whole ([`MAX_BUFFERED`], [`MAX_IN_FLIGHT`], [`MAX_SOCKETS`]).

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::store::Store;
use crate::task::Tid;
use crate::vfs::{FileKind, InodeId, OpenFile};
use crate::wait::WaitKey;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

pub mod addr;
mod inet;
pub mod options;
mod receive;
mod send;
mod service;
pub mod transfer;
mod unix;

use addr::{Address, Family};
use options::Options;

/// Bytes that all socket queues together may hold; sends fail with ENOBUFS beyond.
pub const MAX_BUFFERED: usize = 64 << 20;
/// Descriptors that may be under way in messages at once; sends fail with ETOOMANYREFS beyond. Sockets that only refer to each
/// other by messages are never freed; this bounds them too.
pub const MAX_IN_FLIGHT: usize = 16384;
/// Sockets that may exist at once (ENFILE beyond).
pub const MAX_SOCKETS: usize = 65536;
/// What one message costs besides its bytes.
const OVERHEAD: usize = 64;
/// Unread datagrams after which an AF_UNIX sender waits (/proc/sys/net/unix/max_dgram_qlen).
const MAX_QUEUE: usize = 10;
/// Longest backlog (/proc/sys/net/core/somaxconn).
const MAX_BACKLOG: usize = 4096;

/// SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Style {
    Stream,
    Datagram,
    SeqPacket,
}

impl Style {
    /// Its SOCK_ number.
    pub fn number(self) -> i32 {
        match self {
            Style::Stream => 1,
            Style::Datagram => 2,
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
    /// The sender.
    pub cred: Cred,
    /// Files that come with it; each holds a reference.
    pub files: Vec<u64>,
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
    /// State.
    pub state: State,
    /// What it is bound to.
    pub local: Address,
    /// The other end's address.
    pub remote: Address,
    /// The other end (streams), or the AF_UNIX datagram socket that it sends to.
    pub peer: Option<u64>,
    /// Received and not yet read.
    pub queue: VecDeque<Message>,
    /// Unread bytes in `queue`.
    pub bytes: usize,
    /// Connections to accept.
    pub ready: VecDeque<u64>,
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
    /// setsockopt(2).
    pub options: Options,
}

impl Socket {
    /// Whether it is AF_INET or AF_INET6.
    pub fn is_inet(&self) -> bool {
        self.family != Family::Unix
    }

    /// Whether it needs a connection before it can send.
    pub fn is_connection(&self) -> bool {
        self.style != Style::Datagram
    }

    /// Bytes that its queue counts for.
    pub fn charge(&self) -> usize {
        self.bytes.saturating_add(self.queue.len().saturating_mul(OVERHEAD))
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
    /// Sockets bound to an abstract name.
    by_name: BTreeMap<Vec<u8>, u64>,
    /// Sockets that hold a port, by (stream, port).
    by_port: BTreeMap<(bool, u16), Vec<u64>>,
    /// Bytes in all queues.
    buffered: usize,
    /// Files in all queues.
    in_flight: usize,
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
        bytes == self.buffered
            && files == self.in_flight
            && self.doomed.is_empty()
            && self.sockets.iter().all(|(id, s)| counted(s) && joined(id, s))
            && self.by_port.values().flatten().all(|id| self.sockets.get(*id).is_some())
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
        match s.queue.back_mut() {
            Some(last)
                if join
                    && message.files.is_empty()
                    && last.files.is_empty()
                    && last.cred == message.cred
                    && last.data.len() < 32768 =>
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
        if whole || first.rest().is_empty() {
            s.queue.pop_front();
        }
        self.buffered = self.buffered.saturating_sub(before.saturating_sub(s.charge()));
        self.in_flight = self.in_flight.saturating_sub(files.len());
        files
    }
}

impl Kernel {
    /// Credentials of a task as a socket shows them.
    pub fn socket_cred(&self, tid: Tid) -> Cred {
        self.process_of(tid).map_or(Cred::NOBODY, |p| Cred {
            pid: p.pid,
            uid: p.creds.euid,
            gid: p.creds.egid,
        })
    }

    /// Makes a socket. ENFILE.
    pub fn socket_create(&mut self, tid: Tid, family: Family, style: Style) -> Result<u64, Errno> {
        if self.objects.net.sockets.len() >= MAX_SOCKETS {
            return Err(Errno::ENFILE);
        }
        let (object, room) = (self.new_object(), self.new_object());
        let cred = self.socket_cred(tid);
        Ok(self.objects.net.sockets.insert(Socket {
            object,
            room,
            family,
            style,
            state: State::Idle,
            local: Address::Unnamed,
            remote: Address::Unnamed,
            peer: None,
            queue: VecDeque::new(),
            bytes: 0,
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            shut_read: false,
            shut_write: false,
            error: None,
            in_progress: false,
            inode: None,
            cred,
            peer_cred: Cred::NOBODY,
            options: Options::default(),
        }))
    }

    /// Makes a file for a socket, with one reference. `flags` are O_NONBLOCK or 0.
    pub fn socket_file(&mut self, id: u64, flags: u32) -> u64 {
        self.files.insert(OpenFile { kind: FileKind::Socket(id), flags: flags | 2, pos: 0, refs: 1 })
    }

    /// The socket behind a file. ENOTSOCK.
    pub fn socket_of(&self, file: u64) -> Result<u64, Errno> {
        match self.files.get(file).map(|f| &f.kind) {
            Some(FileKind::Socket(id)) => Ok(*id),
            _ => Err(Errno::ENOTSOCK),
        }
    }

    /// A socket's readiness changed.
    fn socket_wake(&mut self, id: u64) {
        self.lambda.socket_changed(id);
        if let Some(object) = self.objects.net.sockets.get(id).map(|s| s.object) {
            self.wake(WaitKey::Object(object));
        }
    }

    /// Room appeared in a socket's queues.
    fn socket_wake_room(&mut self, id: u64) {
        if let Some(room) = self.objects.net.sockets.get(id).map(|s| s.room) {
            self.wake(WaitKey::Object(room));
        }
    }

    /// Joins two sockets into a connection; who waits for one of them learns of it.
    fn socket_join(&mut self, a: u64, b: u64) {
        for (me, other) in [(a, b), (b, a)] {
            if let Some(s) = self.objects.net.sockets.get_mut(me) {
                s.peer = Some(other);
                s.state = State::Connected;
            }
        }
    }

    /// listen(2). EOPNOTSUPP, EINVAL, EADDRINUSE.
    pub fn socket_listen(&mut self, tid: Tid, id: u64, backlog: i32) -> Result<(), Errno> {
        let s = self.objects.net.get(id)?;
        if s.style == Style::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        if !matches!(s.state, State::Idle | State::Listening(_)) || s.peer.is_some() {
            return Err(Errno::EINVAL);
        }
        if s.is_inet() {
            self.inet_may_listen(tid, id)?;
        } else if s.local == Address::Unnamed {
            return Err(Errno::EINVAL);
        }
        let cred = self.socket_cred(tid);
        let s = self.objects.net.get_mut(id)?;
        // A negative backlog is a very large one, as on Linux.
        s.state = State::Listening(usize::try_from(backlog).unwrap_or(MAX_BACKLOG).min(MAX_BACKLOG));
        (s.cred, s.shut_read, s.shut_write) = (cred, false, false);
        self.inet_admit_waiting(id);
        Ok(())
    }

    /// Takes a connection off a listener's queue. EINVAL, EOPNOTSUPP; EAGAIN when there is none.
    pub fn socket_accept(&mut self, id: u64) -> Result<u64, Errno> {
        let s = self.objects.net.get_mut(id)?;
        if s.style == Style::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        if !matches!(s.state, State::Listening(_)) {
            return Err(Errno::EINVAL);
        }
        let child = s.ready.pop_front().ok_or(Errno::EAGAIN)?;
        self.inet_admit_waiting(id);
        self.socket_wake_room(id);
        Ok(child)
    }

    /// A listener listens no more: what waits for it fails.
    fn socket_stop_listening(&mut self, id: u64) {
        let Some(s) = self.objects.net.sockets.get_mut(id) else { return };
        s.state = State::Idle;
        let (ready, waiting) = (std::mem::take(&mut s.ready), std::mem::take(&mut s.waiting));
        for child in ready {
            self.socket_destroy(child, true);
        }
        for other in waiting {
            if let Some(s) = self.objects.net.sockets.get_mut(other) {
                s.refused();
            }
            self.socket_wake(other);
        }
        self.socket_wake_room(id);
    }

    /// shutdown(2). `how` has bit 0 for reading and bit 1 for writing. ENOTCONN.
    pub fn socket_shutdown(&mut self, id: u64, how: u32) -> Result<(), Errno> {
        let (read, write) = (how & 1 != 0, how & 2 != 0);
        let s = self.objects.net.get_mut(id)?;
        if s.is_inet() {
            match s.state {
                State::Listening(_) if read => {
                    self.socket_stop_listening(id);
                    self.socket_wake(id);
                    self.socket_release_doomed();
                    return Ok(());
                }
                State::Listening(_) => return Ok(()),
                State::Idle | State::Connecting => return Err(Errno::ENOTCONN),
                State::Connected => {}
            }
        }
        s.shut_read |= read;
        s.shut_write |= write;
        let (inet, connection, peer) = (s.is_inet(), s.is_connection(), s.peer);
        if let (true, Some(other)) = (connection, peer) {
            if let Some(o) = self.objects.net.sockets.get_mut(other) {
                o.shut_read |= write;
                o.shut_write |= read && !inet;
            }
            self.socket_wake(other);
        }
        self.socket_wake(id);
        self.socket_wake_room(id);
        Ok(())
    }

    /// The last reference to a socket's file is gone.
    pub fn socket_close(&mut self, id: u64) {
        if let Some(s) = self.objects.net.sockets.get(id) {
            // A zero linger time resets the connection instead of closing it.
            let reset = s.is_inet() && s.options.linger == (1, 0);
            self.socket_destroy(id, reset);
        }
        self.socket_release_doomed();
    }

    /// Releases files of messages that nobody will read. They may be sockets with messages in turn: no recursion over them.
    fn socket_release_doomed(&mut self) {
        if std::mem::replace(&mut self.objects.net.draining, true) {
            return;
        }
        while let Some(file) = self.objects.net.doomed.pop() {
            self.file_unref(file);
        }
        self.objects.net.draining = false;
    }

    fn socket_destroy(&mut self, id: u64, reset: bool) {
        if matches!(self.objects.net.get(id).map(|s| s.state), Ok(State::Listening(_))) {
            self.socket_stop_listening(id);
        }
        self.socket_unbind(id);
        let unread = self.objects.net.get(id).is_ok_and(|s| !s.queue.is_empty());
        while self.objects.net.get(id).is_ok_and(|s| !s.queue.is_empty()) {
            let files = self.objects.net.dequeue(id, 0, true);
            self.objects.net.doomed.extend(files);
        }
        self.socket_wake_room(id);
        let Some(s) = self.objects.net.sockets.remove(id) else { return };
        if s.state == State::Connecting {
            for (_, listener) in self.objects.net.sockets.iter_mut() {
                listener.waiting.retain(|w| *w != id);
            }
        }
        let Some(peer) = s.peer.filter(|_| s.is_connection()) else { return };
        let Some(p) = self.objects.net.sockets.get_mut(peer) else { return };
        p.peer = None;
        p.shut_read = true;
        // An AF_INET stream learns only by its next send that nobody reads any more.
        p.shut_write |= !s.is_inet();
        if unread || reset {
            p.error = Some(Errno::ECONNRESET);
            p.shut_write = true;
            if s.is_inet() {
                p.state = State::Idle;
            }
        }
        self.socket_wake(peer);
        self.socket_wake_room(peer);
    }

    /// Gives back a socket's name.
    fn socket_unbind(&mut self, id: u64) {
        self.inet_release_port(id);
        let Some(s) = self.objects.net.sockets.get_mut(id) else { return };
        let inode = s.inode.take();
        if let Address::Abstract(name) = &s.local
            && self.objects.net.by_name.get(name) == Some(&id)
        {
            let name = name.clone();
            self.objects.net.by_name.remove(&name);
        }
        if let Some(inode) = inode {
            self.objects.net.by_inode.remove(&inode);
            self.inode_open_count(inode, -1);
        }
    }

    /// Bytes that may still be sent before the other end's queue is full; 0 also where nothing can be sent.
    fn socket_send_room(&self, s: &Socket) -> usize {
        match s.peer.and_then(|p| self.objects.net.sockets.get(p)) {
            Some(peer) => s.options.send_buffer.saturating_sub(peer.charge()),
            None => s.options.send_buffer,
        }
    }

    /// POLL* events of a socket.
    pub fn socket_poll(&self, id: u64) -> u32 {
        use crate::poll::{POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, POLLRDNORM, POLLWRNORM};
        let Some(s) = self.objects.net.sockets.get(id) else { return POLLERR };
        let input = POLLIN | POLLRDNORM;
        let output = POLLOUT | POLLWRNORM;
        if let State::Listening(_) = s.state {
            return if s.ready.is_empty() { 0 } else { input };
        }
        let mut mask = if s.error.is_some() { POLLERR } else { 0 };
        if s.state == State::Connecting {
            return mask;
        }
        let reset = s.is_connection() && s.state == State::Idle;
        if (s.shut_read && s.shut_write) || reset {
            mask |= POLLHUP;
        }
        if s.shut_read {
            mask |= POLLRDHUP | input;
        }
        if !s.queue.is_empty() {
            mask |= input;
        }
        let room = self.socket_send_room(s);
        let writable = if s.is_inet() {
            s.shut_write || !s.is_connection() || room >= s.options.send_buffer / 3
        } else if s.is_connection() {
            room >= s.options.send_buffer / 4 * 3
        } else {
            s.peer.and_then(|p| self.objects.net.sockets.get(p)).is_none_or(|p| {
                p.charge() < s.options.send_buffer && (p.peer == Some(id) || p.queue.len() <= MAX_QUEUE)
            })
        };
        if writable {
            mask |= output;
        }
        mask
    }
}
