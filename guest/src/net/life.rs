//! A socket's life: made, joined to another, listening, shut down, closed.

use super::addr::{Address, Family};
use super::options::Options;
use super::{Cred, MAX_BACKLOG, MAX_SOCKETS, Socket, State, Style};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::task::Tid;
use crate::vfs::{FileKind, OpenFile};
use crate::wait::WaitKey;
use std::collections::{BTreeSet, VecDeque};

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
        let creds = self.creds_of(tid);
        Ok(self.objects.net.sockets.insert(Socket {
            object,
            room,
            family,
            style,
            protocol: 0,
            state: State::Idle,
            local: Address::Unnamed,
            bound: Address::Unnamed,
            remote: Address::Unnamed,
            peer: None,
            queue: VecDeque::new(),
            bytes: 0,
            errors: VecDeque::new(),
            error_bytes: 0,
            ready: VecDeque::new(),
            listener: None,
            waiting: VecDeque::new(),
            shut_read: false,
            shut_write: false,
            error: None,
            in_progress: false,
            inode: None,
            cred,
            peer_cred: Cred::NOBODY,
            owner: (creds.fsuid, creds.fsgid, 0o777),
            urgent: None,
            groups: BTreeSet::new(),
            options: Options::default(),
        }))
    }

    /// Makes a file for a socket, with one reference. `flags` are O_NONBLOCK or 0.
    pub fn socket_file(&mut self, id: u64, flags: u32) -> u64 {
        self.files.insert(OpenFile { kind: FileKind::Socket(id), flags: flags | 2, pos: 0, refs: 1 })
    }

    /// Why a socket cannot be mapped: of those only TCP's can on Linux, to be read.
    pub(crate) fn socket_unmappable(&self, file: u64, writes: bool) -> Option<Errno> {
        let s = self.socket_of(file).and_then(|id| self.objects.net.get(id)).ok()?;
        Some(if s.transport() == 6 && writes { Errno::EPERM } else { Errno::ENODEV })
    }

    /// The socket behind a file. ENOTSOCK.
    pub fn socket_of(&self, file: u64) -> Result<u64, Errno> {
        match self.files.get(file).map(|f| &f.kind) {
            Some(FileKind::Socket(id)) => Ok(*id),
            _ => Err(Errno::ENOTSOCK),
        }
    }

    /// A socket's readiness changed.
    pub(super) fn socket_wake(&mut self, id: u64) {
        self.lambda.socket_changed(id);
        if let Some(object) = self.objects.net.sockets.get(id).map(|s| s.object) {
            self.wake(WaitKey::Object(object));
        }
    }

    /// Room appeared in a socket's queues.
    pub(super) fn socket_wake_room(&mut self, id: u64) {
        if let Some(room) = self.objects.net.sockets.get(id).map(|s| s.room) {
            self.wake(WaitKey::Object(room));
        }
    }

    /// Joins two sockets into a connection; who waits for one of them learns of it.
    pub(super) fn socket_join(&mut self, a: u64, b: u64) {
        for (me, other) in [(a, b), (b, a)] {
            let Some(s) = self.objects.net.sockets.get_mut(me) else { continue };
            s.state = State::Connected;
            if s.is_connection() {
                s.peer = Some(other);
            } else {
                self.objects.net.set_default(me, Some(other));
            }
        }
    }

    /// listen(2). EOPNOTSUPP, EINVAL, EADDRINUSE.
    pub fn socket_listen(&mut self, tid: Tid, id: u64, backlog: i32) -> Result<(), Errno> {
        let s = self.objects.net.get(id)?;
        if !s.is_connection() {
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
        if !s.is_connection() {
            return Err(Errno::EOPNOTSUPP);
        }
        if !matches!(s.state, State::Listening(_)) {
            return Err(Errno::EINVAL);
        }
        let child = s.ready.pop_front().ok_or(Errno::EAGAIN)?;
        self.objects.net.get_mut(child)?.listener = None;
        self.inet_admit_waiting(id);
        self.socket_wake_room(id);
        Ok(child)
    }

    /// A listener listens no more: what waits for it fails.
    pub(super) fn socket_stop_listening(&mut self, id: u64) {
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
        if s.family == Family::Netlink {
            return Err(Errno::EOPNOTSUPP);
        }
        if s.is_inet() {
            match s.state {
                State::Listening(_) if read => {
                    self.socket_stop_listening(id);
                    self.socket_wake(id);
                    self.socket_release_doomed();
                    return Ok(());
                }
                State::Listening(_) => return Ok(()),
                State::Idle => {
                    // Nobody is there, and yet it is shut for who polls it.
                    s.shut_read |= read;
                    s.shut_write |= write;
                    self.socket_wake(id);
                    return Err(Errno::ENOTCONN);
                }
                State::Connecting => return Err(Errno::ENOTCONN),
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
    pub(super) fn socket_release_doomed(&mut self) {
        if std::mem::replace(&mut self.objects.net.draining, true) {
            return;
        }
        while let Some(file) = self.objects.net.doomed.pop() {
            self.file_unref(file);
            if self.objects.net.doomed.is_empty() {
                // What was closed may have been the last way to others.
                self.objects.net.doom_unreachable(&self.files);
            }
        }
        self.objects.net.draining = false;
    }

    pub(super) fn socket_destroy(&mut self, id: u64, reset: bool) {
        if matches!(self.objects.net.get(id).map(|s| s.state), Ok(State::Listening(_))) {
            self.socket_stop_listening(id);
        }
        self.socket_unbind(id);
        let unread = self.objects.net.get(id).is_ok_and(|s| !s.queue.is_empty());
        while self.objects.net.get(id).is_ok_and(|s| !s.queue.is_empty()) {
            let files = self.objects.net.dequeue(id, 0, true);
            self.objects.net.doomed.extend(files);
        }
        self.objects.net.forget_errors(id);
        self.socket_wake_room(id);
        if self.objects.net.get(id).is_ok_and(|s| !s.is_connection()) {
            self.objects.net.set_default(id, None);
            self.objects.net.senders.remove(&id);
        }
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
    pub(super) fn socket_unbind(&mut self, id: u64) {
        self.inet_release_port(id);
        let Some(s) = self.objects.net.sockets.get_mut(id) else { return };
        let inode = s.inode.take();
        if let Address::Abstract(name) = &s.local {
            let name = (s.style.number(), name.clone());
            if self.objects.net.by_name.get(&name) == Some(&id) {
                self.objects.net.by_name.remove(&name);
            }
        }
        if let Some(inode) = inode {
            self.objects.net.by_inode.remove(&inode);
            self.inode_open_count(inode, -1);
        }
    }
}
