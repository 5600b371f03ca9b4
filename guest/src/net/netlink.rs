//! AF_NETLINK. Protocol NETLINK_ROUTE: who asks is told of the loopback interface, its addresses and routes (rtnetlink(7)), and nothing can be
//! changed. NETLINK_GENERIC's families are in `genetlink`.

use super::addr::{AF_INET, AF_INET6, Address};
use super::iface;
use super::options::MTU;
use super::transfer::Outgoing;
use super::{Cred, Message};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{low8, low16, low32, u64_of};
use crate::signal::frame::{le32, le64};
use crate::task::Tid;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_MULTI: u16 = 2;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_MAX: u16 = 123;
/// Requests of one message that are looked at.
const MAX_REQUESTS: usize = 64;

/// A request: its header and what follows.
pub(super) struct Request<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    header: &'a [u8],
    pub(super) body: &'a [u8],
}

/// Splits a message into requests, as far as it is well formed.
pub(super) fn requests(mut bytes: &[u8]) -> Vec<Request<'_>> {
    let mut all = Vec::new();
    while let (Some((header, _)), true) = (bytes.split_first_chunk::<16>(), all.len() < MAX_REQUESTS) {
        let length = crate::num::us(u64::from(le32(header, 0)));
        let Some(whole) = bytes.get(..length).filter(|w| w.len() >= 16) else { break };
        let word = le64(header, 0);
        all.push(Request {
            kind: low16(word >> 32),
            flags: low16(word >> 48),
            sequence: le32(header, 8),
            header: whole.get(..16).unwrap_or_default(),
            body: whole.get(16..).unwrap_or_default(),
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

/// One message with its header.
pub(super) fn message(kind: u16, flags: u16, sequence: u32, port: u32, body: &[u8]) -> Vec<u8> {
    let mut out = low32(u64_of(body.len() + 16)).to_le_bytes().to_vec();
    out.extend(kind.to_le_bytes());
    out.extend(flags.to_le_bytes());
    out.extend(sequence.to_le_bytes());
    out.extend(port.to_le_bytes());
    out.extend(body);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// Appends an attribute.
pub(super) fn attribute(out: &mut Vec<u8>, kind: u16, data: &[u8]) {
    out.extend(low16(u64_of(data.len() + 4)).to_le_bytes());
    out.extend(kind.to_le_bytes());
    out.extend(data);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// All attributes up to one that claims more than there is: kind without its flags, and value.
pub(super) fn attributes(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some((head, _)) = bytes.split_first_chunk::<4>() {
        let word = u64::from(u32::from_le_bytes(*head));
        let length = crate::num::us(word & 0xffff);
        let Some(data) = bytes.get(4..length) else { break };
        all.push((low16(word >> 16) & 0x3fff, data.to_vec()));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

/// What RTM_NEWLINK says.
fn link() -> Vec<u8> {
    let mut out = vec![0, 0];
    out.extend(iface::HARDWARE.to_le_bytes());
    out.extend(1i32.to_le_bytes());
    // IFF_UP, IFF_LOOPBACK, IFF_RUNNING, IFF_LOWER_UP
    out.extend(0x1_0049u32.to_le_bytes());
    out.extend([0; 4]);
    attribute(&mut out, 3, b"lo\0");
    attribute(&mut out, 13, &iface::QUEUE.to_le_bytes());
    attribute(&mut out, 16, &[0]); // IFLA_OPERSTATE: unknown
    attribute(&mut out, 17, &[0]);
    attribute(&mut out, 4, &MTU.to_le_bytes());
    attribute(&mut out, 27, &[0; 4]);
    attribute(&mut out, 30, &[0; 4]);
    attribute(&mut out, 31, &1u32.to_le_bytes());
    attribute(&mut out, 32, &1u32.to_le_bytes());
    attribute(&mut out, 33, &[1]); // IFLA_CARRIER
    attribute(&mut out, 1, &[0; 6]);
    attribute(&mut out, 2, &[0; 6]);
    attribute(&mut out, 23, &[0; 192]); // IFLA_STATS64
    attribute(&mut out, 7, &[0; 96]);
    attribute(&mut out, 6, b"noqueue\0");
    out
}

/// What RTM_NEWADDR says of an address of the interface.
fn address(ip: IpAddr) -> Vec<u8> {
    let (family, prefix, bytes) = match ip {
        IpAddr::V4(ip) => (AF_INET, 8, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AF_INET6, 128, ip.octets().to_vec()),
    };
    // IFA_F_PERMANENT, RT_SCOPE_HOST
    let mut out = vec![low8(u64::from(family)), prefix, 0x80, 254];
    out.extend(1u32.to_le_bytes());
    attribute(&mut out, 1, &bytes);
    if ip.is_ipv4() {
        attribute(&mut out, 2, &bytes);
        attribute(&mut out, 3, b"lo\0");
    }
    attribute(&mut out, 8, &0x80u32.to_le_bytes());
    attribute(&mut out, 6, &[[0xff; 8], [0; 8]].concat());
    out
}

/// What RTM_NEWROUTE says: destination, prefix length, table, scope and type.
fn route(to: IpAddr, prefix: u8, table: u8, scope: u8, kind: u8) -> Vec<u8> {
    let (family, bytes) = match to {
        IpAddr::V4(ip) => (AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AF_INET6, ip.octets().to_vec()),
    };
    // RTPROT_KERNEL
    let mut out = vec![low8(u64::from(family)), prefix, 0, 0, table, 2, scope, kind, 0, 0, 0, 0];
    attribute(&mut out, 15, &u32::from(table).to_le_bytes());
    attribute(&mut out, 1, &bytes);
    if to.is_ipv4() {
        attribute(&mut out, 7, &[127, 0, 0, 1]);
    } else {
        attribute(&mut out, 6, &(if table == 255 { 0u32 } else { 256 }).to_le_bytes());
    }
    attribute(&mut out, 4, &1u32.to_le_bytes());
    if to.is_ipv6() {
        attribute(&mut out, 12, &[0; 32]);
        attribute(&mut out, 20, &[0]);
    }
    out
}

fn routes(family: u16) -> Vec<Vec<u8>> {
    let v4 = |a, b, c, d| IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let mut all = Vec::new();
    if family != AF_INET6 {
        all.push(route(v4(127, 0, 0, 0), 8, 255, 254, 2));
        all.push(route(v4(127, 0, 0, 1), 32, 255, 254, 2));
        all.push(route(v4(127, 255, 255, 255), 32, 255, 253, 3));
    }
    if family != AF_INET {
        all.push(route(v6, 128, 254, 0, 1));
        all.push(route(v6, 128, 255, 0, 2));
    }
    all
}

/// The value of an attribute in what follows a request's fixed part.
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    while let Some((head, _)) = attributes.split_first_chunk::<4>() {
        let word = u64::from(u32::from_le_bytes(*head));
        let length = crate::num::us(word & 0xffff);
        let data = attributes.get(4..length)?;
        if low16(word >> 16) == kind {
            return Some(data);
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

/// The answer to one request that is no dump. EOPNOTSUPP, ENODEV, ENETUNREACH, EINVAL.
fn single(r: &Request<'_>) -> Result<(u16, Vec<u8>), Errno> {
    match r.kind {
        RTM_GETLINK => {
            let index = r.body.get(4..8).map_or(0, |b| le32(b, 0));
            let name = find(r.body.get(16..).unwrap_or_default(), 3)
                .map(|n| n.split(|b| *b == 0).next().unwrap_or_default());
            match (index, name) {
                (1, _) | (0, Some(b"lo")) => Ok((RTM_NEWLINK, link())),
                (0, None) => Err(Errno::EINVAL),
                _ => Err(Errno::ENODEV),
            }
        }
        RTM_GETROUTE => {
            let to = find(r.body.get(12..).unwrap_or_default(), 1);
            let to = match to {
                Some(b) if b.len() == 4 => b.first_chunk::<4>().map(|b| IpAddr::from(*b)),
                Some(b) => b.first_chunk::<16>().map(|b| IpAddr::from(*b)),
                None => None,
            };
            match to {
                Some(ip @ IpAddr::V4(_)) if ip.is_loopback() => Ok((RTM_NEWROUTE, route(ip, 32, 255, 0, 2))),
                Some(ip) if ip.is_loopback() => Ok((RTM_NEWROUTE, route(ip, 128, 255, 0, 2))),
                Some(_) => Err(Errno::ENETUNREACH),
                None => Err(Errno::EINVAL),
            }
        }
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// All that a dump lists. EOPNOTSUPP.
fn dump(r: &Request<'_>) -> Result<(u16, Vec<Vec<u8>>), Errno> {
    let family = u16::from(r.body.first().copied().unwrap_or(0));
    match r.kind {
        RTM_GETLINK => Ok((RTM_NEWLINK, vec![link()])),
        RTM_GETADDR => {
            let mut all = Vec::new();
            if family != AF_INET6 {
                all.push(address(IpAddr::V4(Ipv4Addr::LOCALHOST)));
            }
            if family != AF_INET {
                all.push(address(IpAddr::V6(Ipv6Addr::LOCALHOST)));
            }
            Ok((RTM_NEWADDR, all))
        }
        RTM_GETROUTE => Ok((RTM_NEWROUTE, routes(family))),
        // Neighbours, rules, queues, classes, filters, address labels, neighbour tables: there are none.
        30 | 34 | 38 | 42 | 46 | 66 | 74 => Ok((r.kind - 2, Vec::new())),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// The messages that answer a request: each is received by a call of its own.
fn answer(r: &Request<'_>, port: u32) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let result = if r.flags & NLM_F_REQUEST == 0 || r.kind < 16 {
        Ok(())
    } else if r.kind > RTM_MAX {
        Err(Errno::EOPNOTSUPP)
    } else if r.kind & 3 != 2 {
        Err(Errno::EPERM)
    } else if r.flags & NLM_F_DUMP != 0 {
        dump(r).map(|(kind, bodies)| {
            let mut all = Vec::new();
            for body in bodies {
                all.extend(message(kind, NLM_F_MULTI, r.sequence, port, &body));
            }
            if !all.is_empty() {
                out.push(all);
            }
            out.push(message(NLMSG_DONE, NLM_F_MULTI, r.sequence, port, &[0; 4]));
        })
    } else {
        single(r).map(|(kind, body)| out.push(message(kind, 0, r.sequence, port, &body)))
    };
    conclude(r, port, result, &mut out);
    out
}

/// The messages that answer a request of NETLINK_GENERIC.
fn generic(k: &Kernel, r: &Request<'_>, port: u32, root: bool) -> Vec<Vec<u8>> {
    let asks = r.flags & NLM_F_REQUEST != 0 && r.kind >= 16;
    let result = if asks { k.generic_answer(r, port, root) } else { Ok(Vec::new()) };
    let (mut out, result) = match result {
        Ok(all) => (all, Ok(())),
        Err(e) => (Vec::new(), Err(e)),
    };
    conclude(r, port, result, &mut out);
    out
}

/// Adds the acknowledgement that was asked for, or the error.
fn conclude(r: &Request<'_>, port: u32, result: Result<(), Errno>, out: &mut Vec<Vec<u8>>) {
    let dumped = result.is_ok() && r.flags & NLM_F_DUMP != 0 && r.kind >= 16;
    if result.is_err() || (r.flags & NLM_F_ACK != 0 && !dumped) {
        let code = result.err().map_or(0, |e| -i32::from(e.0));
        let mut body = code.to_le_bytes().to_vec();
        body.extend(r.header);
        if code != 0 {
            body.extend(r.body);
        }
        out.push(message(NLMSG_ERROR, if code == 0 { 0x100 } else { 0 }, r.sequence, port, &body));
    }
}

impl Kernel {
    /// bind(2) of a netlink socket; port 0 takes one. EADDRINUSE, EINVAL.
    pub(super) fn netlink_bind(&mut self, tid: Tid, id: u64, port: u32, groups: u32) -> Result<(), Errno> {
        let protocol = self.objects.net.get(id)?.protocol;
        let now = match self.objects.net.get(id)?.local {
            Address::Netlink(now, _) => now,
            _ => 0,
        };
        if now != 0 && port != now && port != 0 {
            return Err(Errno::EINVAL);
        }
        let taken = |k: &Kernel, port: u32| {
            k.objects
                .net
                .sockets
                .iter()
                .filter(|(other, s)| *other != id && s.protocol == protocol)
                .any(|(_, s)| matches!(s.local, Address::Netlink(p, _) if p == port))
        };
        let mut chosen = if port == 0 { now } else { port };
        if chosen == 0 {
            chosen = self.socket_cred(tid).pid;
            // Another socket of the process: a number no process has, counting down from the top as Linux does.
            let mut next = u32::MAX - 4096;
            while taken(self, chosen) {
                chosen = next;
                next -= 1;
            }
        } else if chosen != now && taken(self, chosen) {
            return Err(Errno::EADDRINUSE);
        }
        self.objects.net.get_mut(id)?.local = Address::Netlink(chosen, groups);
        Ok(())
    }

    /// Sends to the kernel: the answers are in the queue when it returns. ECONNREFUSED, EMSGSIZE, ENOBUFS.
    pub(super) fn netlink_send(&mut self, tid: Tid, id: u64, m: &Outgoing) -> Result<u64, Errno> {
        let s = self.objects.net.get(id)?;
        let (limit, remote) = (s.options.send_buffer, s.remote.clone());
        if let Address::Netlink(port, _) = m.to.as_ref().unwrap_or(&remote)
            && *port != 0
        {
            return Err(Errno::ECONNREFUSED);
        }
        if !matches!(s.local, Address::Netlink(p, _) if p != 0) {
            self.netlink_bind(tid, id, 0, 0)?;
        }
        let data = self.gather_message(tid, m, u64_of(limit).saturating_sub(32))?;
        let port = match self.objects.net.get(id)?.local {
            Address::Netlink(port, _) => port,
            _ => 0,
        };
        let stamp = self.platform.realtime();
        let root = self.capable(tid, crate::task::creds::cap::NET_ADMIN);
        let is_generic = self.objects.net.get(id)?.protocol == 16;
        for request in requests(&data) {
            let all = if is_generic { generic(self, &request, port, root) } else { answer(&request, port) };
            for data in all {
                let s = self.objects.net.get_mut(id)?;
                if s.charge() > s.options.receive_buffer {
                    s.error = Some(Errno::ENOBUFS);
                    break;
                }
                self.objects.net.admit(data.len(), 0)?;
                let from = Address::Netlink(0, 0);
                let cred = Cred { pid: 0, uid: 0, gid: 0 };
                let message = Message {
                    data,
                    start: 0,
                    from,
                    sender: None,
                    cred,
                    files: Vec::new(),
                    stamp,
                    packet: None,
                };
                self.objects.net.enqueue(id, message, false);
            }
        }
        self.socket_wake(id);
        Ok(u64_of(data.len()))
    }
}

impl Kernel {
    /// Puts a message of the kernel into a netlink socket's queue, if that is still there and has room.
    pub(crate) fn netlink_deliver(&mut self, id: u64, data: Vec<u8>) {
        let Some(s) = self.objects.net.sockets.get(id) else { return };
        if s.charge() > s.options.receive_buffer || self.objects.net.admit(data.len(), 0).is_err() {
            return;
        }
        let (from, cred) = (Address::Netlink(0, 0), Cred { pid: 0, uid: 0, gid: 0 });
        let (files, stamp) = (Vec::new(), self.platform.realtime());
        let message = Message { data, start: 0, from, sender: None, cred, files, stamp, packet: None };
        self.objects.net.enqueue(id, message, false);
        self.socket_wake(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(kind: u16, flags: u16, body: &[u8]) -> Vec<Vec<u8>> {
        let bytes = message(kind, flags, 7, 0, body);
        requests(&bytes).iter().flat_map(|r| answer(r, 9)).collect()
    }

    #[test]
    fn a_dump_of_addresses_lists_both_and_ends() {
        let all = ask(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, &[0]);
        assert_eq!(all.len(), 2);
        let parts = requests(&all[0]);
        assert_eq!(parts.len(), 2);
        assert_eq!(find(&parts[0].body[8..], 2), Some(&[127, 0, 0, 1][..]));
        assert_eq!(requests(&all[1])[0].kind, NLMSG_DONE);
    }

    #[test]
    fn changes_and_unknown_requests_are_refused() {
        let code = |all: Vec<Vec<u8>>| le32(requests(&all[0])[0].body, 0).cast_signed();
        assert_eq!(code(ask(RTM_NEWADDR, NLM_F_REQUEST, &[0; 8])), -1);
        assert_eq!(code(ask(122, NLM_F_REQUEST, &[0; 8])), -95);
        assert_eq!(code(ask(RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK, &[0; 16])), -22);
        let mut by_index = [0; 16];
        by_index[4] = 2;
        assert_eq!(code(ask(RTM_GETLINK, NLM_F_REQUEST, &by_index)), -19);
    }

    #[test]
    fn malformed_requests_are_ignored() {
        assert!(requests(&[0; 16]).is_empty());
        assert!(requests(&[255; 20]).is_empty());
        assert!(requests(&[16, 0, 0]).is_empty());
        assert_eq!(find(&[0, 0, 1, 0], 1), None);
    }
}
