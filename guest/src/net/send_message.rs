//! Sending messages that go whole or not at all: AF_UNIX datagrams and packets, and UDP.

use super::addr::{Address, Family};
use super::multicast::{is_broadcast, is_many};
use super::options::{SO_BROADCAST, SOL_IP, SOL_IPV6, SOL_SOCKET};
use super::send::Sending;
use super::transfer::{Outgoing, Progress};
use super::{MAX_QUEUE, Message, Packet, Socket, State, Style};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{low8, u64_of};
use crate::task::Tid;
use crate::wait::WaitKey;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Largest UDP datagram over IPv4, bytes.
const MAX_UDP: u64 = 65507;
/// Largest UDP datagram over IPv6, bytes.
const MAX_UDP6: u64 = 65527;

/// What the header of a datagram says.
fn header(s: &Socket, m: &Outgoing, to: IpAddr) -> Packet {
    let byte = |level: u32, name: u32| low8(u64::from(s.options.get(level, name).cast_unsigned()));
    let (ttl, tos) = match (to, to.is_multicast()) {
        (IpAddr::V4(_), many) => (byte(SOL_IP, if many { 33 } else { 2 }), byte(SOL_IP, 1)),
        (IpAddr::V6(_), many) => (byte(SOL_IPV6, if many { 18 } else { 16 }), byte(SOL_IPV6, 67)),
    };
    Packet { to, coverage: None, ttl: m.ttl.unwrap_or(ttl), tos: m.tos.unwrap_or(tos) }
}

impl Kernel {
    /// All of a message that must be sent whole. EMSGSIZE, EFAULT.
    pub(super) fn gather_message(&mut self, tid: Tid, m: &Outgoing, most: u64) -> Result<Vec<u8>, Errno> {
        let total = m.bytes();
        if total > most {
            return Err(Errno::EMSGSIZE);
        }
        if let Some(data) = &m.own {
            return Ok(data.clone());
        }
        let data = self.gather(tid, &m.iovecs);
        if u64_of(data.len()) == total { Ok(data) } else { Err(Errno::EFAULT) }
    }

    /// A datagram or packet between AF_UNIX sockets.
    pub(super) fn send_unix(&mut self, w: &Sending<'_>) -> Result<Progress<u64>, Errno> {
        let id = w.id;
        let s = self.objects.net.get_mut(id)?;
        let style = s.style;
        let (limit, state, shut, peer) = (s.options.send_buffer, s.state, s.shut_write, s.peer);
        let packets = style == Style::SeqPacket;
        if packets && let Some(e) = s.error.take() {
            return Err(e);
        }
        if packets && state != State::Connected {
            return Err(Errno::ENOTCONN);
        }
        // The order of these is Linux's.
        self.unix_autobind(w.tid, id)?;
        let total = w.m.bytes();
        if total > u64_of(limit).saturating_sub(32) {
            return Err(Errno::EMSGSIZE);
        }
        if let Some(e) = self.objects.net.get_mut(id)?.error.take() {
            return Err(e);
        }
        if shut {
            return Err(Errno::EPIPE);
        }
        let data = self.gather_message(w.tid, w.m, total)?;
        let to = match (&w.m.to, peer) {
            (_, peer) if packets => peer.ok_or(Errno::EPIPE)?,
            (Some(address), _) => {
                let address = address.clone();
                self.unix_target(w.tid, &address, Style::Datagram)?
            }
            (None, peer) => peer.ok_or(Errno::ENOTCONN)?,
        };
        let Some(target) = self.objects.net.sockets.get(to) else {
            self.objects.net.set_default(id, None);
            self.objects.net.get_mut(id)?.state = State::Idle;
            return Err(Errno::ECONNREFUSED);
        };
        if style == Style::Datagram && target.peer.is_some_and(|p| p != id) {
            return Err(Errno::EPERM);
        }
        if target.shut_read {
            return Err(Errno::EPIPE);
        }
        let paired = target.peer == Some(id);
        let full = target.charge() >= limit || (!paired && target.queue.len() > MAX_QUEUE);
        if full {
            let (room, own) = (target.room, self.objects.net.get(id)?.object);
            if w.nonblock || w.attempt.timed_out {
                return Err(Errno::EAGAIN);
            }
            return Ok(w.attempt.sleep(WaitKey::Object(if paired { own } else { room }), 0));
        }
        self.socket_make_way(w.m.files.len());
        self.objects.net.admit(data.len(), w.m.files.len())?;
        let n = u64_of(data.len());
        self.deliver_message(w, to, data, w.m.files.clone());
        Ok(Progress::Done(n))
    }

    /// A UDP datagram: it arrives, or it is dropped.
    pub(super) fn send_udp(&mut self, tid: Tid, id: u64, m: &Outgoing) -> Result<u64, Errno> {
        let s = self.objects.net.get_mut(id)?;
        let dest = match (&m.to, &s.remote) {
            (Some(to), _) => to.clone(),
            (None, remote @ Address::Ip(..)) if s.state == State::Connected => remote.clone(),
            _ => return Err(Errno::EDESTADDRREQ),
        };
        let Address::Ip(ip, port) = dest else { return Err(Errno::EINVAL) };
        let most = if ip.is_ipv4() { MAX_UDP } else { MAX_UDP6 };
        if m.bytes() > 0xffff {
            return Err(Errno::EMSGSIZE);
        }
        if port == 0 {
            return Err(Errno::EINVAL);
        }
        let named = m.device || s.options.device || s.options.multicast_device;
        // The loopback interface has no route for IPv6 groups.
        let ip = if ip.is_multicast() && ip.is_ipv4() && named { ip } else { self.inet_route(id, ip)? };
        let s = self.objects.net.get_mut(id)?;
        if is_broadcast(ip) && !s.options.is_on(SOL_SOCKET, SO_BROADCAST) {
            return Err(Errno::EACCES);
        }
        let packet = header(s, m, ip);
        let any = self.inet_any(id);
        self.inet_autobind(id, any)?;
        let s = self.objects.net.get_mut(id)?;
        if let Some(e) = s.error.take() {
            return Err(e);
        }
        if s.shut_write {
            return Err(Errno::EPIPE);
        }
        let data = self.gather_message(tid, m, most)?;
        let n = u64_of(data.len());
        let from = self.inet_sender(id, ip, m.source);
        let s = self.objects.net.get(id)?;
        let protocol = s.transport();
        let packet = Packet { coverage: s.coverage(data.len()), ..packet };
        let targets = if is_many(ip) {
            self.inet_many(protocol, ip, port, &from)
        } else {
            self.inet_target(protocol, ip, port, &from).into_iter().collect()
        };
        if targets.is_empty() && !is_many(ip) {
            self.inet_refused(id, (ip, port), &data);
        }
        let (cred, stamp) = (self.socket_cred(tid), self.platform.realtime());
        let message = Message {
            data,
            start: 0,
            from,
            sender: None,
            cred,
            files: Vec::new(),
            stamp,
            packet: Some(packet),
        };
        for to in targets {
            let t = self.objects.net.get(to)?;
            let room = t.charge() < t.options.receive_buffer && t.takes(&packet);
            if room && self.objects.net.admit(message.data.len(), 0).is_ok() {
                self.objects.net.enqueue(to, message.clone(), false);
                self.socket_wake(to);
            }
        }
        Ok(n)
    }

    /// The address that a datagram to `dest` comes from.
    fn inet_sender(&self, id: u64, dest: IpAddr, asked: Option<IpAddr>) -> Address {
        let Ok(s) = self.objects.net.get(id) else { return Address::Unnamed };
        let (bound, port) = match s.local {
            Address::Ip(ip, port) => (ip, port),
            _ => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        };
        let chosen = asked.filter(|ip| !ip.is_unspecified()).unwrap_or(bound);
        let fits = chosen.is_ipv4() == dest.is_ipv4() && !chosen.is_unspecified() && !is_many(chosen);
        let ip = match (fits, dest) {
            (true, _) => chosen,
            (false, IpAddr::V4(_)) if s.family == Family::Inet && s.options.multicast_source != [0; 4] => {
                IpAddr::from(s.options.multicast_source)
            }
            (false, IpAddr::V4(to)) if to.is_loopback() && !is_broadcast(dest) => {
                super::inet::source_for(IpAddr::V4(to))
            }
            (false, IpAddr::V4(_)) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            (false, IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        Address::Ip(ip, port)
    }
}
