//! Names of AF_UNIX sockets and connections between them (unix(7)).

use super::addr::Address;
use super::options::{SO_PASSCRED, SOL_SOCKET};
use super::transfer::{Attempt, Progress};
use super::{Cred, Socket, State, Style};
use crate::abi::AT_FDCWD;
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::task::Tid;
use crate::task::creds::cap;
use crate::vfs::inode::{Kind, S_IFSOCK};
use crate::vfs::path::{Last, MAY_WRITE};
use crate::wait::WaitKey;

/// The other end of a connection.
fn other_end(s: &Socket) -> Option<u64> {
    s.peer.filter(|_| s.is_connection())
}

impl Kernel {
    /// bind(2). EINVAL, EADDRINUSE, and what making a name in the tree gives.
    pub(super) fn unix_bind(&mut self, tid: Tid, id: u64, address: Address) -> Result<(), Errno> {
        let s = self.objects.net.get(id)?;
        if s.local != Address::Unnamed {
            // A path is looked at first.
            if let Address::Path(path) = &address
                && let walk = self.resolve(tid, AT_FDCWD, path, false)?
                && (walk.inode.is_some() || walk.file.is_some())
            {
                return Err(Errno::EADDRINUSE);
            }
            // Linux lets a bound socket ask for an automatic name again.
            return if address == Address::Unnamed { Ok(()) } else { Err(Errno::EINVAL) };
        }
        let kind = s.style.number();
        let address = match address {
            Address::Unnamed => self.unix_free_name(kind)?,
            other => other,
        };
        match &address {
            Address::Abstract(name) => {
                let name = (kind, name.clone());
                if self.objects.net.by_name.contains_key(&name) {
                    return Err(Errno::EADDRINUSE);
                }
                self.objects.net.by_name.insert(name, id);
            }
            Address::Path(path) => {
                let walk = self.resolve(tid, AT_FDCWD, path, false)?;
                if walk.inode.is_some() || walk.file.is_some() || walk.last != Last::Name {
                    return Err(Errno::EADDRINUSE);
                }
                if walk.dir {
                    return Err(Errno::ENOENT);
                }
                let mode = S_IFSOCK | 0o777 & !self.umask_of(tid);
                let inode = self.create(tid, &walk, Kind::Special, mode, 0)?;
                self.inode_open_count(inode, 1);
                self.objects.net.by_inode.insert(inode, id);
                self.objects.net.get_mut(id)?.inode = Some(inode);
            }
            _ => return Err(Errno::EINVAL),
        }
        // Who is connected to it sees the name.
        let peer = other_end(self.objects.net.get(id)?);
        let senders = self.objects.net.senders.get(&id).into_iter().flatten().copied();
        for other in senders.chain(peer).collect::<Vec<u64>>() {
            if let Some(o) = self.objects.net.sockets.get_mut(other) {
                o.remote = address.clone();
            }
        }
        self.objects.net.get_mut(id)?.local = address;
        Ok(())
    }

    /// An abstract name of five hexadecimal digits that is free. ENOSPC.
    fn unix_free_name(&mut self, kind: i32) -> Result<Address, Errno> {
        for _ in 0..1000 {
            let mut bytes = [0; 4];
            self.entropy.fill(&mut bytes);
            let name = format!("{:05x}", u32::from_le_bytes(bytes) & 0xf_ffff).into_bytes();
            let key = (kind, name);
            if !self.objects.net.by_name.contains_key(&key) {
                return Ok(Address::Abstract(key.1));
            }
        }
        Err(Errno::ENOSPC)
    }

    /// The socket that an address names. ECONNREFUSED, EPROTOTYPE, EACCES, ENOENT and what walking gives.
    pub(super) fn unix_target(&mut self, tid: Tid, address: &Address, style: Style) -> Result<u64, Errno> {
        let id = match address {
            Address::Abstract(name) => {
                let name = (style.number(), name.clone());
                *self.objects.net.by_name.get(&name).ok_or(Errno::ECONNREFUSED)?
            }
            Address::Path(path) => {
                let walk = self.resolve(tid, AT_FDCWD, path, true)?;
                let inode = self.existing(&walk)?;
                let creds = self.creds_of(tid);
                self.permission(&creds, inode, MAY_WRITE)?;
                if self.vfs.inode(inode)?.file_type() != S_IFSOCK {
                    return Err(Errno::ECONNREFUSED);
                }
                *self.objects.net.by_inode.get(&inode).ok_or(Errno::ECONNREFUSED)?
            }
            _ => return Err(Errno::EINVAL),
        };
        if self.objects.net.get(id)?.style != style { Err(Errno::EPROTOTYPE) } else { Ok(id) }
    }

    /// A socket that shows credentials gets a name before it tells anybody anything.
    pub(super) fn unix_autobind(&mut self, tid: Tid, id: u64) -> Result<(), Errno> {
        let s = self.objects.net.get(id)?;
        if s.local == Address::Unnamed && s.options.is_on(SOL_SOCKET, SO_PASSCRED) {
            self.unix_bind(tid, id, Address::Unnamed)?;
        }
        Ok(())
    }

    /// connect(2) of a stream or packet socket. EISCONN, EINVAL, ECONNREFUSED, EAGAIN and as [`Kernel::unix_target`].
    pub(super) fn unix_connect(
        &mut self,
        tid: Tid,
        id: u64,
        address: &Address,
        nonblock: bool,
        attempt: &Attempt,
    ) -> Result<Progress<()>, Errno> {
        self.unix_autobind(tid, id)?;
        let s = self.objects.net.get(id)?;
        let style = s.style;
        let target = self.unix_target(tid, address, style)?;
        let state = self.objects.net.get(id)?.state;
        let l = self.objects.net.get(target)?;
        if !matches!(l.state, State::Listening(_)) || l.shut_read {
            return Err(Errno::ECONNREFUSED);
        }
        if l.is_full() {
            if nonblock || attempt.timed_out {
                return Err(Errno::EAGAIN);
            }
            return Ok(attempt.sleep(WaitKey::Object(l.room), 0));
        }
        match state {
            State::Idle => {}
            State::Connected => return Err(Errno::EISCONN),
            State::Listening(_) | State::Connecting => return Err(Errno::EINVAL),
        }
        let (family, local, cred) = (l.family, l.local.clone(), l.cred);
        let child = self.socket_create(tid, family, style)?;
        let mine = self.socket_cred(tid);
        let from = self.objects.net.get(id)?.local.clone();
        let c = self.objects.net.get_mut(child)?;
        (c.local, c.remote, c.peer_cred, c.cred) = (local.clone(), from, mine, cred);
        c.listener = Some(target);
        let s = self.objects.net.get_mut(id)?;
        (s.remote, s.peer_cred) = (local, cred);
        self.socket_join(id, child);
        self.objects.net.get_mut(target)?.ready.push_back(child);
        self.socket_wake(target);
        self.socket_wake(id);
        Ok(Progress::Done(()))
    }

    /// Gives a datagram socket a default destination. EPERM and as [`Kernel::unix_target`].
    pub(super) fn unix_set_default(&mut self, tid: Tid, id: u64, address: &Address) -> Result<(), Errno> {
        self.unix_autobind(tid, id)?;
        let target = self.unix_target(tid, address, Style::Datagram)?;
        let t = self.objects.net.get(target)?;
        if t.peer.is_some_and(|p| p != id) {
            return Err(Errno::EPERM);
        }
        let remote = t.local.clone();
        let s = self.objects.net.get_mut(id)?;
        (s.state, s.remote) = (State::Connected, remote);
        self.objects.net.set_default(id, Some(target));
        self.socket_wake(id);
        Ok(())
    }

    /// socketpair(2): two sockets joined to each other. ENFILE.
    pub fn socket_pair(&mut self, tid: Tid, style: Style) -> Result<(u64, u64), Errno> {
        let a = self.socket_create(tid, super::addr::Family::Unix, style)?;
        let b = match self.socket_create(tid, super::addr::Family::Unix, style) {
            Ok(b) => b,
            Err(e) => {
                self.objects.net.sockets.remove(a);
                return Err(e);
            }
        };
        self.socket_join(a, b);
        let cred = self.socket_cred(tid);
        for id in [a, b] {
            self.objects.net.get_mut(id)?.peer_cred = cred;
        }
        Ok((a, b))
    }

    /// Whether a task may send these credentials. EPERM, ESRCH.
    pub fn socket_may_claim(&self, tid: Tid, claim: Cred) -> Result<(), Errno> {
        let p = self.process_of(tid).ok_or(Errno::EPERM)?;
        let c = &p.creds;
        let pid = claim.pid == p.pid || c.can(cap::SYS_ADMIN);
        let uid = c.can(cap::SETUID) || [c.uid, c.euid, c.suid].contains(&claim.uid);
        let gid = c.can(cap::SETGID) || [c.gid, c.egid, c.sgid].contains(&claim.gid);
        if !(pid && uid && gid) {
            return Err(Errno::EPERM);
        }
        if self.processes.contains_key(&claim.pid) { Ok(()) } else { Err(Errno::ESRCH) }
    }
}
