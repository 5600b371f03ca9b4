//! Socket addresses: their meaning, and their form in user memory (unix(7), ip(7), ipv6(7)). Knows nothing of sockets.

use crate::errno::Errno;
use crate::num::{low16, u64_of};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// AF_UNSPEC.
pub const AF_UNSPEC: u16 = 0;
/// AF_UNIX.
pub const AF_UNIX: u16 = 1;
/// AF_INET.
pub const AF_INET: u16 = 2;
/// AF_INET6.
pub const AF_INET6: u16 = 10;
/// AF_NETLINK.
pub const AF_NETLINK: u16 = 16;
/// Longest address that a call accepts, bytes (`sizeof(struct sockaddr_storage)`).
pub const MAX_ADDRESS: u32 = 128;
/// `sizeof(struct sockaddr_un)`.
const UN_LEN: usize = 110;

/// Address families that sockets can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// AF_UNIX.
    Unix,
    /// AF_INET.
    Inet,
    /// AF_INET6.
    Inet6,
    /// AF_NETLINK, protocol NETLINK_ROUTE.
    Netlink,
}

impl Family {
    /// Its AF_ number.
    pub fn number(self) -> u16 {
        match self {
            Family::Unix => AF_UNIX,
            Family::Inet => AF_INET,
            Family::Inet6 => AF_INET6,
            Family::Netlink => AF_NETLINK,
        }
    }
}

/// A socket's address. An IPv4 address of an AF_INET6 socket is kept as IPv4 and shown mapped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// None.
    #[default]
    Unnamed,
    /// A path of the tree, as it was given.
    Path(Vec<u8>),
    /// A name of the abstract namespace, without its leading NUL.
    Abstract(Vec<u8>),
    /// Address and port.
    Ip(IpAddr, u16),
    /// Port number and groups of a netlink socket; 0 is the kernel.
    Netlink(u32, u32),
}

/// What a `struct sockaddr` in user memory says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// AF_UNSPEC: a connect(2) with it dissolves the association.
    Unspecified,
    /// An address.
    Address(Address),
}

/// The IPv4 address inside a mapped one, else the address itself.
fn unmapped(ip: Ipv6Addr) -> IpAddr {
    match ip.to_ipv4_mapped() {
        Some(v4) => IpAddr::V4(v4),
        None => IpAddr::V6(ip),
    }
}

impl Address {
    /// Reads a `struct sockaddr` of a socket of `family`. EINVAL, EAFNOSUPPORT.
    pub fn parse(family: Family, bytes: &[u8]) -> Result<Given, Errno> {
        let Some((kind, rest)) = bytes.split_first_chunk::<2>() else { return Err(Errno::EINVAL) };
        let kind = u16::from_le_bytes(*kind);
        if kind == AF_UNSPEC && family != Family::Unix {
            return Ok(Given::Unspecified);
        }
        match family {
            Family::Unix => {
                if kind == AF_UNSPEC {
                    return Ok(Given::Unspecified);
                }
                if kind != AF_UNIX || bytes.len() > UN_LEN {
                    return Err(Errno::EINVAL);
                }
                Ok(Given::Address(match rest {
                    [] => Address::Unnamed,
                    [0, name @ ..] => Address::Abstract(name.to_vec()),
                    path => {
                        let end = path.iter().position(|b| *b == 0).unwrap_or(path.len());
                        Address::Path(path.get(..end).unwrap_or_default().to_vec())
                    }
                }))
            }
            Family::Netlink => {
                let number = |at: usize| {
                    bytes.get(at..).and_then(|b| b.first_chunk::<4>()).map(|b| u32::from_le_bytes(*b))
                };
                let (Some(port), Some(groups)) = (number(4), number(8)) else { return Err(Errno::EINVAL) };
                if kind != AF_NETLINK {
                    return Err(Errno::EINVAL);
                }
                Ok(Given::Address(Address::Netlink(port, groups)))
            }
            Family::Inet => Self::parse_inet(kind, bytes).map(Given::Address),
            Family::Inet6 => {
                let &[_, _, p0, p1, _, _, _, _, ..] = bytes else { return Err(Errno::EINVAL) };
                let Some(ip) = bytes.get(8..24).and_then(|b| <[u8; 16]>::try_from(b).ok()) else {
                    return Err(Errno::EINVAL);
                };
                if kind != AF_INET6 {
                    return Err(Errno::EAFNOSUPPORT);
                }
                Ok(Given::Address(Address::Ip(unmapped(Ipv6Addr::from(ip)), u16::from_be_bytes([p0, p1]))))
            }
        }
    }

    fn parse_inet(kind: u16, bytes: &[u8]) -> Result<Address, Errno> {
        if bytes.len() < 16 {
            return Err(Errno::EINVAL);
        }
        let &[_, _, p0, p1, a, b, c, d, ..] = bytes else { return Err(Errno::EINVAL) };
        if kind != AF_INET {
            return Err(Errno::EAFNOSUPPORT);
        }
        Ok(Address::Ip(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), u16::from_be_bytes([p0, p1])))
    }

    /// The address as a socket of `family` shows it to user code.
    pub fn to_bytes(&self, family: Family) -> Vec<u8> {
        let mut out = family.number().to_le_bytes().to_vec();
        match (self, family) {
            (Address::Unnamed, Family::Unix) => {}
            (Address::Path(path), _) => {
                out.extend(path);
                out.push(0);
            }
            (Address::Abstract(name), _) => {
                out.push(0);
                out.extend(name);
            }
            (_, Family::Netlink) => {
                let (port, groups) = match self {
                    Address::Netlink(port, groups) => (*port, *groups),
                    _ => (0, 0),
                };
                out.extend([0; 2]);
                out.extend(port.to_le_bytes());
                out.extend(groups.to_le_bytes());
            }
            (_, Family::Inet6) => {
                let (ip, port) = match self {
                    Address::Ip(IpAddr::V6(ip), port) => (*ip, *port),
                    Address::Ip(IpAddr::V4(ip), port) => (ip.to_ipv6_mapped(), *port),
                    _ => (Ipv6Addr::UNSPECIFIED, 0),
                };
                out.extend(port.to_be_bytes());
                out.extend([0; 4]);
                out.extend(ip.octets());
                out.extend([0; 4]);
            }
            _ => {
                let (ip, port) = match self {
                    Address::Ip(IpAddr::V4(ip), port) => (*ip, *port),
                    _ => (Ipv4Addr::UNSPECIFIED, 0),
                };
                out.extend(port.to_be_bytes());
                out.extend(ip.octets());
                out.extend([0; 8]);
            }
        }
        out
    }

    /// Its port; 0 where there is none.
    pub fn port(&self) -> u16 {
        if let Address::Ip(_, port) = self { *port } else { 0 }
    }
}

/// Whether a socket can be bound to an address: one of the sandbox's own, a group, or the broadcast address.
pub fn is_local(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || broadcast
}

/// The port at `index` of the ephemeral range (ip_local_port_range), wrapping.
pub fn ephemeral(index: u64) -> u16 {
    low16(32768 + index % EPHEMERAL)
}

/// Size of the ephemeral range.
pub const EPHEMERAL: u64 = 60999 - 32768 + 1;

/// An address's length in user memory.
pub fn length(bytes: &[u8]) -> u64 {
    u64_of(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_they_were_written() {
        let v4 = Address::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
        let v6 = Address::Ip(IpAddr::V6(Ipv6Addr::LOCALHOST), 1);
        for (family, address) in [
            (Family::Inet, v4.clone()),
            (Family::Inet6, v4),
            (Family::Inet6, v6),
            (Family::Unix, Address::Path(b"/tmp/s".to_vec())),
            (Family::Unix, Address::Abstract(b"a\0b".to_vec())),
            (Family::Unix, Address::Unnamed),
        ] {
            assert_eq!(Address::parse(family, &address.to_bytes(family)), Ok(Given::Address(address)));
        }
    }

    #[test]
    fn short_and_foreign_addresses_are_refused() {
        assert_eq!(Address::parse(Family::Inet, &[2]), Err(Errno::EINVAL));
        assert_eq!(Address::parse(Family::Inet, &[2, 0, 0, 1, 127, 0, 0, 1]), Err(Errno::EINVAL));
        assert_eq!(Address::parse(Family::Inet, &[10; 28]), Err(Errno::EAFNOSUPPORT));
        assert_eq!(Address::parse(Family::Unix, &[1; 111]), Err(Errno::EINVAL));
        assert_eq!(Address::parse(Family::Inet6, &[0; 16]), Ok(Given::Unspecified));
    }
}
