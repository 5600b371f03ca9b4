//! What a received message shows besides its bytes, where the receiver has asked for it: time stamps, the packet's header, IP_PKTINFO.

use super::options::{SO_TIMESTAMP, SO_TIMESTAMPNS, SOL_IP, SOL_IPV6, SOL_SOCKET};
use super::transfer::Control;
use super::{Message, Socket, Style, addr::Family};
use std::net::IpAddr;

impl Socket {
    /// The control messages of `m`, in the order in which Linux gives them; sender's credentials and descriptors are not among them.
    pub(super) fn shown_controls(&self, m: &Message) -> Vec<Control> {
        let mut all = Vec::new();
        // Unix streams carry no time.
        if self.style == Style::Stream {
            return all;
        }
        let (seconds, rest) = (m.stamp / 1_000_000_000, m.stamp % 1_000_000_000);
        let stamp = |rest: u64| [seconds.to_le_bytes(), rest.to_le_bytes()].concat();
        if self.options.is_on(SOL_SOCKET, SO_TIMESTAMPNS) {
            all.push(Control { level: SOL_SOCKET, kind: SO_TIMESTAMPNS, data: stamp(rest) });
        } else if self.options.is_on(SOL_SOCKET, SO_TIMESTAMP) {
            all.push(Control { level: SOL_SOCKET, kind: SO_TIMESTAMP, data: stamp(rest / 1000) });
        }
        let Some(p) = m.packet else { return all };
        let int = |x: u8| i32::from(x).to_le_bytes().to_vec();
        let index = 1u32.to_le_bytes();
        if let (Family::Inet6, to) = (self.family, p.to) {
            let to = match to {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            let mut put = |option: u32, kind: u32, data: Vec<u8>| {
                if self.options.is_on(SOL_IPV6, option) {
                    all.push(Control { level: SOL_IPV6, kind, data });
                }
            };
            put(49, 50, [&to.octets()[..], &index].concat());
            put(51, 52, int(p.ttl));
            put(66, 67, int(p.tos));
        }
        if let IpAddr::V4(to) = p.to {
            let mut put = |option: u32, kind: u32, data: Vec<u8>| {
                if self.options.is_on(SOL_IP, option) {
                    all.push(Control { level: SOL_IP, kind, data });
                }
            };
            // For a group, ipi_spec_dst is the interface's own address.
            let local = if super::multicast::is_many(p.to) { [127, 0, 0, 1] } else { to.octets() };
            put(8, 8, [index, local, to.octets()].concat());
            put(12, 2, int(p.ttl));
            put(13, 1, vec![p.tos]);
        }
        all
    }
}
