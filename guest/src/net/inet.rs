//! Ports, and connections between AF_INET and AF_INET6 sockets on the loopback addresses.

use super::addr::{Address, EPHEMERAL, Family, ephemeral, is_local};
use super::options::{IPV6_V6ONLY, SO_REUSEADDR, SO_REUSEPORT, SOL_IPV6, SOL_SOCKET};
use super::transfer::{Attempt, Progress};
use super::{Socket, State, Style};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::task::Tid;
use crate::wait::WaitKey;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address means something only on an interface that is named: IPv6's link-local ones.
fn needs_interface(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if matches!(ip.octets(), [0xfe, 0x80..=0xbf, ..] | [0xff, 0x02 | 0x12, ..]))
}

/// Whether two sockets with the same port could both be meant by one address.
fn overlap(a: &Socket, b: &Socket) -> bool {
    let (Address::Ip(x, _), Address::Ip(y, _)) = (&a.local, &b.local) else { return false };
    a.covers(*y) || b.covers(*x)
}

/// The address that a connection to `dest` comes from.
pub(super) fn source_for(dest: IpAddr) -> IpAddr {
    match dest {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

impl Kernel {
    pub(super) fn port_holders(&self, protocol: u8, port: u16) -> impl Iterator<Item = (u64, &Socket)> {
        let ids = self.objects.net.by_port.get(&(protocol, port)).map_or(&[][..], Vec::as_slice);
        ids.iter().filter_map(|id| Some((*id, self.objects.net.sockets.get(*id)?)))
    }

    /// Whether binding `s` as it is would take another socket's address.
    fn port_conflict(&self, id: u64, s: &Socket) -> bool {
        let stream = s.style == Style::Stream;
        let both = |other: &Socket, option| {
            s.options.is_on(SOL_SOCKET, option) && other.options.is_on(SOL_SOCKET, option)
        };
        self.port_holders(s.transport(), s.local.port()).any(|(other_id, other)| {
            let listening = matches!(other.state, State::Listening(_));
            other_id != id
                && overlap(s, other)
                && !(both(other, SO_REUSEADDR) && !(stream && listening))
                && !(both(other, SO_REUSEPORT) && s.cred.uid == other.cred.uid)
        })
    }

    fn hold_port(&mut self, id: u64, protocol: u8, port: u16) {
        self.objects.net.by_port.entry((protocol, port)).or_default().push(id);
    }

    pub(super) fn inet_release_port(&mut self, id: u64) {
        let Some(s) = self.objects.net.sockets.get(id) else { return };
        let key = (s.transport(), s.local.port());
        if let Some(list) = self.objects.net.by_port.get_mut(&key) {
            list.retain(|x| *x != id);
            if list.is_empty() {
                self.objects.net.by_port.remove(&key);
            }
        }
    }

    /// Binds to an address and port; port 0 takes a free one. EADDRINUSE.
    fn take_port(&mut self, id: u64, ip: IpAddr, port: u16) -> Result<(), Errno> {
        let mut s = self.objects.net.get(id)?.clone_name();
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        let first = u64::from_le_bytes(bytes) % EPHEMERAL;
        let tries = if port == 0 { EPHEMERAL } else { 1 };
        for i in 0..tries {
            let try_port = if port == 0 { ephemeral(first + i) } else { port };
            s.local = Address::Ip(ip, try_port);
            if !self.port_conflict(id, &s) {
                let protocol = s.transport();
                self.objects.net.get_mut(id)?.local = s.local;
                self.hold_port(id, protocol, try_port);
                return Ok(());
            }
        }
        Err(if port == 0 && self.objects.net.get(id)?.state != State::Idle {
            Errno::EADDRNOTAVAIL
        } else {
            Errno::EADDRINUSE
        })
    }

    /// bind(2). EADDRNOTAVAIL, EACCES, EINVAL, EADDRINUSE.
    pub(super) fn inet_bind(&mut self, tid: Tid, id: u64, ip: IpAddr, port: u16) -> Result<(), Errno> {
        let s = self.objects.net.get(id)?;
        if s.family == Family::Inet6 && ip.is_ipv4() && s.options.is_on(SOL_IPV6, IPV6_V6ONLY) {
            return Err(Errno::EINVAL);
        }
        if needs_interface(ip) && !s.options.device
            || (ip.is_multicast() && ip.is_ipv6() && s.is_connection())
        {
            return Err(Errno::EINVAL);
        }
        if !is_local(ip) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        if port != 0 && port < 1024 && !self.capable(tid, crate::task::creds::cap::NET_BIND_SERVICE) {
            return Err(Errno::EACCES);
        }
        if s.local != Address::Unnamed || s.state != State::Idle {
            return Err(Errno::EINVAL);
        }
        self.take_port(id, ip, port)?;
        let s = self.objects.net.get_mut(id)?;
        s.bound = s.local.clone();
        Ok(())
    }

    /// Forgets the local address as far as bind(2) has not chosen it.
    pub(super) fn inet_undo_autobind(&mut self, id: u64) {
        let Some(s) = self.objects.net.sockets.get_mut(id) else { return };
        if let Address::Ip(..) = s.bound {
            s.local = s.bound.clone();
        } else {
            self.inet_release_port(id);
            if let Some(s) = self.objects.net.sockets.get_mut(id) {
                s.local = Address::Unnamed;
            }
        }
    }

    /// Binds an unbound socket to any port.
    pub(super) fn inet_autobind(&mut self, id: u64, ip: IpAddr) -> Result<(), Errno> {
        if self.objects.net.get(id)?.local == Address::Unnamed {
            self.take_port(id, ip, 0)?;
        }
        Ok(())
    }

    /// The wildcard address of a socket's family.
    pub(super) fn inet_any(&self, id: u64) -> IpAddr {
        match self.objects.net.get(id).map(|s| s.family) {
            Ok(Family::Inet6) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }
    }

    /// Binds what listens without a name, and checks that no one else listens there. EADDRINUSE.
    pub(super) fn inet_may_listen(&mut self, _tid: Tid, id: u64) -> Result<(), Errno> {
        let any = self.inet_any(id);
        self.inet_autobind(id, any)?;
        let s = self.objects.net.get(id)?;
        let taken = self.port_holders(6, s.local.port()).any(|(other_id, other)| {
            let shared = s.options.is_on(SOL_SOCKET, SO_REUSEPORT)
                && other.options.is_on(SOL_SOCKET, SO_REUSEPORT)
                && s.cred.uid == other.cred.uid;
            other_id != id && matches!(other.state, State::Listening(_)) && overlap(s, other) && !shared
        });
        if taken { Err(Errno::EADDRINUSE) } else { Ok(()) }
    }

    /// Where a packet to an address goes: itself on the loopback interface. ENETUNREACH for all others.
    pub(super) fn inet_route(&self, id: u64, ip: IpAddr) -> Result<IpAddr, Errno> {
        let s = self.objects.net.get(id)?;
        let only = s.family == Family::Inet6 && s.options.is_on(SOL_IPV6, IPV6_V6ONLY);
        // The unspecified address means this host; a bound address decides between IPv4 and IPv6.
        if needs_interface(ip) && !ip.is_multicast() && !s.options.device && s.is_connection() {
            return Err(Errno::EINVAL);
        }
        let mixed = matches!(&s.local, Address::Ip(from, _) if !from.is_unspecified() && from.is_ipv4() != ip.is_ipv4());
        if (only && ip.is_ipv4()) || mixed {
            return Err(Errno::ENETUNREACH);
        }
        if ip.is_unspecified() {
            return Ok(source_for(ip));
        }
        if ip.is_loopback()
            || (ip.is_multicast() && ip.is_ipv4() && (s.options.device || s.options.multicast_device))
        {
            return Ok(ip);
        }
        Err(Errno::ENETUNREACH)
    }

    /// The socket that listens on (TCP) or receives at (others) an address; `from` prefers a datagram socket connected to it.
    pub(super) fn inet_target(&self, protocol: u8, ip: IpAddr, port: u16, from: &Address) -> Option<u64> {
        let stream = protocol == 6;
        let score = |s: &Socket| {
            let exact = matches!(s.local, Address::Ip(bound, _) if bound == ip);
            let connected = s.state == State::Connected;
            (connected, exact, s.family == Family::Inet || ip.is_ipv6(), std::cmp::Reverse(s.ready.len()))
        };
        let fits = |s: &Socket| {
            let state = if stream {
                matches!(s.state, State::Listening(_))
            } else {
                s.state != State::Connected || s.remote == *from
            };
            s.covers(ip) && state
        };
        self.port_holders(protocol, port)
            .filter(|(_, s)| fits(s))
            .max_by_key(|(_, s)| score(s))
            .map(|(id, _)| id)
    }

    /// connect(2) of a stream. EISCONN, EALREADY, EINPROGRESS, ECONNREFUSED, ENETUNREACH, EADDRNOTAVAIL.
    pub(super) fn inet_connect(
        &mut self,
        id: u64,
        dest: (IpAddr, u16),
        nonblock: bool,
        attempt: &Attempt,
    ) -> Result<Progress<()>, Errno> {
        let s = self.objects.net.get_mut(id)?;
        let object = s.object;
        match s.state {
            State::Listening(_) => return Err(Errno::EISCONN),
            State::Connected => {
                return if std::mem::take(&mut s.in_progress) {
                    Ok(Progress::Done(()))
                } else {
                    Err(Errno::EISCONN)
                };
            }
            State::Connecting if attempt.timed_out => return Err(Errno::EINPROGRESS),
            State::Connecting if nonblock => return Err(Errno::EALREADY),
            State::Connecting => return Ok(attempt.sleep(WaitKey::Object(object), 0)),
            State::Idle if std::mem::take(&mut s.in_progress) => {
                // Who was told of the failure has a socket as good as new.
                (s.shut_read, s.shut_write) = (false, false);
                return Err(s.error.take().unwrap_or(Errno::ECONNABORTED));
            }
            State::Idle => {}
        }
        let ip = self.inet_bind_towards(id, dest.0)?;
        let s = self.objects.net.get_mut(id)?;
        s.remote = Address::Ip(ip, dest.1);
        s.error = None;
        s.in_progress = nonblock;
        let Some(listener) = self.inet_target(6, ip, dest.1, &Address::Unnamed) else {
            let s = self.objects.net.get_mut(id)?;
            if s.local == s.remote {
                // Its own call answers it (RFC 9293, section 3.5: simultaneous initiation).
                self.socket_join(id, id);
                self.socket_wake(id);
                return if nonblock { Err(Errno::EINPROGRESS) } else { Ok(Progress::Done(())) };
            }
            s.refused();
            if !nonblock {
                (s.error, s.shut_read, s.shut_write) = (None, false, false);
                self.inet_undo_autobind(id);
                return Err(Errno::ECONNREFUSED);
            }
            self.socket_wake(id);
            return Err(Errno::EINPROGRESS);
        };
        if self.objects.net.get(listener)?.is_full() {
            let s = self.objects.net.get_mut(id)?;
            (s.state, s.in_progress) = (State::Connecting, true);
            self.objects.net.get_mut(listener)?.waiting.push_back(id);
            return if nonblock {
                Err(Errno::EINPROGRESS)
            } else {
                Ok(attempt.sleep(WaitKey::Object(object), 0))
            };
        }
        self.inet_establish(id, listener)?;
        if nonblock { Err(Errno::EINPROGRESS) } else { Ok(Progress::Done(())) }
    }

    /// Puts the other end of a connection into a listener's queue.
    fn inet_establish(&mut self, id: u64, listener: u64) -> Result<(), Errno> {
        let l = self.objects.net.get(listener)?;
        let (family, cred, mut options) = (l.family, l.cred, l.options.clone());
        options.linger = (0, 0);
        let child = self.socket_create(0, family, Style::Stream)?;
        let s = self.objects.net.get(id)?;
        let (local, remote) = (s.remote.clone(), s.local.clone());
        let port = local.port();
        let c = self.objects.net.get_mut(child)?;
        (c.local, c.remote, c.options, c.cred) = (local, remote, options, cred);
        c.listener = Some(listener);
        self.hold_port(child, 6, port);
        self.socket_join(id, child);
        self.objects.net.get_mut(listener)?.ready.push_back(child);
        self.socket_wake(listener);
        self.socket_wake(id);
        Ok(())
    }

    /// Room appeared in a listener's queue: connections that waited for it come about.
    pub(super) fn inet_admit_waiting(&mut self, listener: u64) {
        loop {
            let Some(l) = self.objects.net.sockets.get_mut(listener) else { return };
            if l.is_full() {
                return;
            }
            let Some(id) = l.waiting.pop_front() else { return };
            if let Err(e) = self.inet_establish(id, listener) {
                if let Some(s) = self.objects.net.sockets.get_mut(id) {
                    (s.state, s.error) = (State::Idle, Some(e));
                }
                self.socket_wake(id);
            }
        }
    }

    /// The address that `to` is routed to, after the socket's local address is one that can reach it. ENETUNREACH, EADDRINUSE.
    fn inet_bind_towards(&mut self, id: u64, to: IpAddr) -> Result<IpAddr, Errno> {
        let ip = self.inet_route(id, to)?;
        let from = source_for(ip);
        match self.objects.net.get(id)?.local {
            Address::Ip(bound, port) if bound.is_unspecified() => {
                self.objects.net.get_mut(id)?.local = Address::Ip(from, port);
            }
            _ => self.inet_autobind(id, from)?,
        }
        Ok(ip)
    }

    /// Gives a datagram socket a default destination. ENETUNREACH, EADDRINUSE.
    pub(super) fn inet_set_default(&mut self, id: u64, dest: (IpAddr, u16)) -> Result<(), Errno> {
        let ip = self.inet_bind_towards(id, dest.0)?;
        let s = self.objects.net.get_mut(id)?;
        (s.state, s.remote) = (State::Connected, Address::Ip(ip, dest.1));
        Ok(())
    }
}

impl Socket {
    /// Whether it gets what is sent to `dest`, as far as its address decides.
    pub(super) fn covers(&self, dest: IpAddr) -> bool {
        let only = self.family == Family::Inet6 && self.options.is_on(SOL_IPV6, IPV6_V6ONLY);
        match self.local {
            Address::Ip(ip, _) if ip == dest => true,
            Address::Ip(IpAddr::V6(ip), _) => ip.is_unspecified() && !(only && dest.is_ipv4()),
            Address::Ip(IpAddr::V4(ip), _) => ip.is_unspecified() && dest.is_ipv4(),
            _ => false,
        }
    }

    /// A copy without contents, to try names on.
    fn clone_name(&self) -> Socket {
        Socket {
            queue: Default::default(),
            errors: Default::default(),
            ready: Default::default(),
            waiting: Default::default(),
            groups: Default::default(),
            local: self.local.clone(),
            bound: Address::Unnamed,
            remote: self.remote.clone(),
            options: self.options.clone(),
            ..*self
        }
    }
}
