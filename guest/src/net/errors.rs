//! Errors that come back for datagrams: nobody listens there. A connected socket learns of them by its next call; one with IP_RECVERR
//! keeps them in a queue that recvmsg(2) with MSG_ERRQUEUE reads (ip(7)). And UDP-Lite's coverage (udplite(7)).

use super::addr::{Address, Family};
use super::options::{RECEIVE_COVERAGE, SEND_COVERAGE, SOL_IP, SOL_IPV6, SOL_UDPLITE};
use super::transfer::Control;
use super::{Net, OVERHEAD, Packet, Socket, State};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::low16;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Bytes of a datagram that an ICMP message brings back: 576 without two IP headers, an ICMP and a UDP header.
const BACK_V4: usize = 576 - 20 - 8 - 20 - 8;
/// The same of ICMPv6, whose messages are up to 1280 bytes long.
const BACK_V6: usize = 1280 - 40 - 8 - 40 - 8;
/// IP_RECVERR, IPV6_RECVERR.
const RECVERR: (u32, u32) = (11, 25);

/// A datagram that met a closed port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Returned {
    /// Where it was sent.
    to: (IpAddr, u16),
    /// The beginning of what it carried.
    pub(super) data: Vec<u8>,
}

impl Returned {
    /// What recvmsg(2) shows of it on a socket of `family`: the address it was sent to, and IP_RECVERR or IPV6_RECVERR.
    pub(super) fn shown(&self, family: Family) -> (Vec<u8>, Control) {
        let (ip, port) = self.to;
        // struct sock_extended_err: the port is unreachable, as ICMP or ICMPv6 says it.
        let (origin, kind, code) = if ip.is_ipv4() { (2, 3, 3) } else { (3, 1, 4) };
        let mut data = u32::from(Errno::ECONNREFUSED.0).to_le_bytes().to_vec();
        data.extend([origin, kind, code, 0]);
        data.extend([0; 8]);
        // Who says so: the host itself.
        data.extend(Address::Ip(super::inet::source_for(ip), 0).to_bytes(family));
        let (level, kind) = if family == Family::Inet6 { (SOL_IPV6, RECVERR.1) } else { (SOL_IP, RECVERR.0) };
        (Address::Ip(ip, port).to_bytes(family), Control { level, kind, data })
    }
}

impl Net {
    /// Forgets a socket's queued errors.
    pub(crate) fn forget_errors(&mut self, id: u64) {
        let pending = self.sockets.get(id).and_then(|s| s.error);
        while self.take_error(id).is_some() {}
        if let Some(s) = self.sockets.get_mut(id) {
            s.error = pending;
        }
    }

    /// The oldest queued error. The socket's own is the next one's, or nobody's.
    pub(super) fn take_error(&mut self, id: u64) -> Option<Returned> {
        let s = self.sockets.get_mut(id)?;
        let first = s.errors.pop_front()?;
        let bytes = first.data.len().saturating_add(OVERHEAD);
        s.error_bytes = s.error_bytes.saturating_sub(bytes);
        s.error = (!s.errors.is_empty()).then_some(Errno::ECONNREFUSED);
        self.buffered = self.buffered.saturating_sub(bytes);
        Some(first)
    }

    /// Queues an error, where there is room for it.
    fn put_error(&mut self, id: u64, returned: Returned) {
        let bytes = returned.data.len().saturating_add(OVERHEAD);
        let room = self.admit(returned.data.len(), 0).is_ok();
        let Some(s) = self.sockets.get_mut(id) else { return };
        if room && s.charge().saturating_add(bytes) < s.options.receive_buffer {
            s.error_bytes = s.error_bytes.saturating_add(bytes);
            s.errors.push_back(returned);
            self.buffered = self.buffered.saturating_add(bytes);
        }
    }
}

impl Kernel {
    /// Nobody receives at the address that a datagram was sent to.
    pub(super) fn inet_refused(&mut self, id: u64, to: (IpAddr, u16), data: &[u8]) {
        let Ok(s) = self.objects.net.get_mut(id) else { return };
        let (v4, v6) = (s.options.is_on(SOL_IP, RECVERR.0), s.options.is_on(SOL_IPV6, RECVERR.1));
        let (keeps, most) = if to.0.is_ipv4() { (v4, BACK_V4) } else { (v6, BACK_V6) };
        if !keeps && s.state != State::Connected {
            return;
        }
        s.error = Some(Errno::ECONNREFUSED);
        if keeps {
            let data = data.get(..most.min(data.len())).unwrap_or_default().to_vec();
            self.objects.net.put_error(id, Returned { to, data });
        }
        self.socket_wake(id);
    }
}

impl Socket {
    /// What the header of a UDP-Lite datagram with so many bytes says of its checksum.
    pub(super) fn coverage(&self, bytes: usize) -> Option<u16> {
        let covered = self.options.given(SOL_UDPLITE, SEND_COVERAGE).filter(|_| self.is_lite())?;
        let covered = u16::try_from(covered).ok()?;
        (covered > 0 && usize::from(covered) < bytes.saturating_add(8)).then_some(covered)
    }

    /// Whether a datagram's checksum covers as much as the socket asks for.
    pub(super) fn takes(&self, packet: &Packet) -> bool {
        match (packet.coverage, self.options.given(SOL_UDPLITE, RECEIVE_COVERAGE)) {
            (Some(covered), Some(least)) => {
                let least = low16(u64::from(least.unsigned_abs()));
                least != 0 && covered >= least
            }
            _ => true,
        }
    }
}
