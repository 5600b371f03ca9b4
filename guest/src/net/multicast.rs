//! Multicast groups and broadcast on the loopback interface (ip(7), ipv6(7)).

use super::Socket;
use super::options::{SOL_IP, SOL_IPV6, integer};
use crate::errno::Errno;
use crate::kernel::Kernel;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Groups that one socket may join (igmp_max_memberships).
const MAX_GROUPS: usize = 20;

/// Whether a datagram to the address goes to every socket that listens for it.
pub(super) fn is_many(ip: IpAddr) -> bool {
    ip.is_multicast() || is_broadcast(ip)
}

/// Whether the address is the broadcast address of the loopback network.
pub(super) fn is_broadcast(ip: IpAddr) -> bool {
    ip == IpAddr::V4(Ipv4Addr::new(127, 255, 255, 255))
}

fn v4(value: &[u8], at: usize) -> Option<Ipv4Addr> {
    value.get(at..)?.first_chunk::<4>().map(|b| Ipv4Addr::from(*b))
}

/// Whether an interface is named: by index, or by an address of it. ENODEV (as `none`) for others; nothing named has no route.
fn names_loopback(index: i32, address: Ipv4Addr, none: Errno) -> Result<(), Errno> {
    if index == 1 || (index == 0 && address.is_loopback()) { Ok(()) } else { Err(none) }
}

impl Socket {
    /// Options that name groups or interfaces; false for any other option. EINVAL, ENODEV, EADDRINUSE, EADDRNOTAVAIL, ENOBUFS.
    pub(super) fn set_multicast(&mut self, level: u32, name: u32, value: &[u8]) -> Result<bool, Errno> {
        let datagram = !self.is_connection();
        match (level, name) {
            (SOL_IP, 32) if !datagram => return Err(Errno::EINVAL),
            (SOL_IP, 32) => {
                // struct in_addr, ip_mreq or ip_mreqn
                let (address, index) = match value.len() {
                    12.. => (v4(value, 4), integer(value.get(8..).unwrap_or_default())?),
                    8.. => (v4(value, 4), 0),
                    _ => (v4(value, 0), 0),
                };
                let address = address.ok_or(Errno::EINVAL)?;
                if index == 0 && address.is_unspecified() {
                    (self.options.multicast_device, self.options.multicast_source) = (false, [0; 4]);
                } else {
                    names_loopback(index, address, Errno::EADDRNOTAVAIL)?;
                    (self.options.multicast_device, self.options.multicast_source) = (true, address.octets());
                }
            }
            (SOL_IP, 35 | 36) if !datagram => return Err(Errno::EPROTO),
            (SOL_IP, 35 | 36) => {
                let group = v4(value, 0).ok_or(Errno::EINVAL)?;
                let address = v4(value, 4).ok_or(Errno::EINVAL)?;
                let index = if value.len() >= 12 { integer(value.get(8..).unwrap_or_default())? } else { 0 };
                if name == 35 && !group.is_multicast() {
                    return Err(Errno::EINVAL);
                }
                self.membership(IpAddr::V4(group), name == 35, || {
                    names_loopback(index, address, Errno::ENODEV)
                })?;
            }
            (SOL_IPV6, 17) => {
                let index = integer(value)?;
                if !datagram {
                    return Err(Errno::ENOPROTOOPT);
                }
                if !(0..=1).contains(&index) {
                    return Err(Errno::ENODEV);
                }
                self.options.multicast_device = index == 1;
            }
            (SOL_IPV6, 20 | 21) => {
                let group = value.first_chunk::<16>().map(|b| Ipv6Addr::from(*b)).ok_or(Errno::EINVAL)?;
                let index = integer(value.get(16..).unwrap_or_default())?;
                if !datagram {
                    return Err(Errno::EPROTO);
                }
                if name == 20 && !group.is_multicast() {
                    return Err(Errno::EINVAL);
                }
                self.membership(IpAddr::V6(group), name == 20, || {
                    if index == 1 { Ok(()) } else { Err(Errno::ENODEV) }
                })?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn membership(
        &mut self,
        group: IpAddr,
        join: bool,
        device: impl Fn() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        device()?;
        match (join, self.groups.contains(&group)) {
            (true, true) => Err(Errno::EADDRINUSE),
            (true, false) if self.groups.len() >= MAX_GROUPS => Err(Errno::ENOBUFS),
            (true, false) => {
                self.groups.insert(group);
                Ok(())
            }
            (false, true) => {
                self.groups.remove(&group);
                Ok(())
            }
            (false, false) => Err(Errno::EADDRNOTAVAIL),
        }
    }

    /// Whether it takes datagrams of a group that somebody has joined.
    fn wants_group(&self, group: IpAddr) -> bool {
        let all = match group {
            IpAddr::V4(_) => self.options.is_on(SOL_IP, 49),
            IpAddr::V6(_) => self.options.is_on(SOL_IPV6, 29),
        };
        self.groups.contains(&group) || all
    }
}

impl Kernel {
    /// The sockets that a datagram to a group or to everybody goes to.
    pub(super) fn inet_many(
        &self,
        protocol: u8,
        to: IpAddr,
        port: u16,
        from: &super::addr::Address,
    ) -> Vec<u64> {
        let group = to.is_multicast();
        if group && !self.objects.net.sockets.iter().any(|(_, s)| s.groups.contains(&to)) {
            return Vec::new();
        }
        self.port_holders(protocol, port)
            .filter(|(_, s)| s.covers(to) && (s.state != super::State::Connected || s.remote == *from))
            .filter(|(_, s)| !group || s.wants_group(to))
            .map(|(id, _)| id)
            .collect()
    }
}
