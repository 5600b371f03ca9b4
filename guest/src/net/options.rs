//! What setsockopt(2) sets and getsockopt(2) shows. Options that only tune a network protocol are remembered and have no effect.

use super::{Socket, State};
use crate::errno::Errno;
use crate::num::us;
use crate::platform::Ns;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// SOL_SOCKET.
pub const SOL_SOCKET: u32 = 1;
/// IPPROTO_IP.
pub const SOL_IP: u32 = 0;
/// IPPROTO_TCP.
pub const SOL_TCP: u32 = 6;
/// IPPROTO_UDP.
pub const SOL_UDP: u32 = 17;
/// IPPROTO_IPV6.
pub const SOL_IPV6: u32 = 41;
/// SO_REUSEADDR.
pub const SO_REUSEADDR: u32 = 2;
/// SO_REUSEPORT.
pub const SO_REUSEPORT: u32 = 15;
/// SO_PASSCRED.
pub const SO_PASSCRED: u32 = 16;
/// IPV6_V6ONLY.
pub const IPV6_V6ONLY: u32 = 26;

/// Default size of a queue, bytes (/proc/sys/net/core/wmem_default).
pub const DEFAULT_BUFFER: usize = 212_992;
/// Largest value that SO_SNDBUF and SO_RCVBUF take, bytes (/proc/sys/net/core/wmem_max).
const MAX_BUFFER: u64 = 212_992;

/// Integer options: (level, name, default, is a switch).
const KNOWN: &[(u32, u32, i32, bool)] = &[
    (SOL_SOCKET, 1, 0, true),            // SO_DEBUG
    (SOL_SOCKET, SO_REUSEADDR, 0, true), //
    (SOL_SOCKET, 5, 0, true),            // SO_DONTROUTE
    (SOL_SOCKET, 6, 0, true),            // SO_BROADCAST
    (SOL_SOCKET, 9, 0, true),            // SO_KEEPALIVE
    (SOL_SOCKET, 10, 0, true),           // SO_OOBINLINE
    (SOL_SOCKET, 11, 0, true),           // SO_NO_CHECK
    (SOL_SOCKET, 12, 0, false),          // SO_PRIORITY
    (SOL_SOCKET, SO_REUSEPORT, 0, true), //
    (SOL_SOCKET, SO_PASSCRED, 0, true),  //
    (SOL_SOCKET, 18, 1, false),          // SO_RCVLOWAT
    (SOL_SOCKET, 29, 0, true),           // SO_TIMESTAMP
    (SOL_SOCKET, 35, 0, true),           // SO_TIMESTAMPNS
    (SOL_SOCKET, 46, 0, false),          // SO_BUSY_POLL
    (SOL_IP, 1, 0, false),               // IP_TOS
    (SOL_IP, 2, 64, false),              // IP_TTL
    (SOL_IP, 8, 0, true),                // IP_PKTINFO
    (SOL_IP, 10, 0, false),              // IP_MTU_DISCOVER
    (SOL_IP, 11, 0, true),               // IP_RECVERR
    (SOL_IP, 12, 0, true),               // IP_RECVTTL
    (SOL_IP, 13, 0, true),               // IP_RECVTOS
    (SOL_IP, 15, 0, true),               // IP_FREEBIND
    (SOL_IP, 24, 0, true),               // IP_BIND_ADDRESS_NO_PORT
    (SOL_IP, 33, 1, false),              // IP_MULTICAST_TTL
    (SOL_IP, 34, 1, true),               // IP_MULTICAST_LOOP
    (SOL_TCP, 1, 0, true),               // TCP_NODELAY
    (SOL_TCP, 2, 32768, false),          // TCP_MAXSEG
    (SOL_TCP, 3, 0, true),               // TCP_CORK
    (SOL_TCP, 4, 7200, false),           // TCP_KEEPIDLE
    (SOL_TCP, 5, 75, false),             // TCP_KEEPINTVL
    (SOL_TCP, 6, 9, false),              // TCP_KEEPCNT
    (SOL_TCP, 7, 6, false),              // TCP_SYNCNT
    (SOL_TCP, 8, 60, false),             // TCP_LINGER2
    (SOL_TCP, 9, 0, false),              // TCP_DEFER_ACCEPT
    (SOL_TCP, 12, 1, true),              // TCP_QUICKACK
    (SOL_TCP, 18, 0, false),             // TCP_USER_TIMEOUT
    (SOL_TCP, 23, 0, false),             // TCP_FASTOPEN
    (SOL_TCP, 25, 0, false),             // TCP_NOTSENT_LOWAT
    (SOL_TCP, 30, 0, true),              // TCP_FASTOPEN_CONNECT
    (SOL_UDP, 1, 0, true),               // UDP_CORK
    (SOL_IPV6, 16, -1, false),           // IPV6_UNICAST_HOPS
    (SOL_IPV6, 18, 1, false),            // IPV6_MULTICAST_HOPS
    (SOL_IPV6, 19, 1, true),             // IPV6_MULTICAST_LOOP
    (SOL_IPV6, 25, 0, true),             // IPV6_RECVERR
    (SOL_IPV6, IPV6_V6ONLY, 0, true),    //
    (SOL_IPV6, 49, 0, true),             // IPV6_RECVPKTINFO
    (SOL_IPV6, 51, 0, true),             // IPV6_RECVHOPLIMIT
    (SOL_IPV6, 66, 0, true),             // IPV6_RECVTCLASS
    (SOL_IPV6, 67, 0, false),            // IPV6_TCLASS
];

/// A socket's options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Bytes that its sends may leave unread.
    pub send_buffer: usize,
    /// Bytes of datagrams that it keeps.
    pub receive_buffer: usize,
    /// SO_SNDTIMEO, ns; 0 waits for ever.
    pub send_timeout: Ns,
    /// SO_RCVTIMEO, ns; 0 waits for ever.
    pub receive_timeout: Ns,
    /// SO_LINGER: on, seconds.
    pub linger: (i32, i32),
    /// Other integers that were set, by (level, name).
    set: BTreeMap<(u32, u32), i32>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            send_buffer: DEFAULT_BUFFER,
            receive_buffer: DEFAULT_BUFFER,
            send_timeout: 0,
            receive_timeout: 0,
            linger: (0, 0),
            set: BTreeMap::new(),
        }
    }
}

impl Options {
    /// An integer option's value; 0 for one that is not known.
    pub fn get(&self, level: u32, name: u32) -> i32 {
        match self.set.get(&(level, name)) {
            Some(x) => *x,
            None => {
                KNOWN.iter().find(|k| (k.0, k.1) == (level, name)).map_or(0, |(_, _, default, _)| *default)
            }
        }
    }

    /// Whether a switch is on.
    pub fn is_on(&self, level: u32, name: u32) -> bool {
        self.get(level, name) != 0
    }
}

fn integer(value: &[u8]) -> Result<i32, Errno> {
    value.first_chunk::<4>().map(|b| i32::from_le_bytes(*b)).ok_or(Errno::EINVAL)
}

/// A `struct timeval` as ns; 0 waits for ever. EINVAL, EDOM.
fn timeout(value: &[u8]) -> Result<Ns, Errno> {
    let Some((sec, rest)) = value.split_first_chunk::<8>() else { return Err(Errno::EINVAL) };
    let usec = rest.first_chunk::<8>().ok_or(Errno::EINVAL)?;
    let (sec, usec) = (i64::from_le_bytes(*sec), i64::from_le_bytes(*usec));
    if !(0..1_000_000).contains(&usec) {
        return Err(Errno::EDOM);
    }
    // A negative time is one that has passed; the shortest wait stands for it.
    let Ok(sec) = u64::try_from(sec) else { return Ok(1) };
    Ok(sec.saturating_mul(1_000_000_000).saturating_add(usec.cast_unsigned().saturating_mul(1000)))
}

fn timeval(ns: Ns) -> Vec<u8> {
    let mut out = (ns / 1_000_000_000).to_le_bytes().to_vec();
    out.extend((ns % 1_000_000_000 / 1000).to_le_bytes());
    out
}

/// A buffer size as Linux keeps it: twice what was asked for, within bounds.
fn buffer(value: i32, least: usize) -> usize {
    let asked = u64::try_from(value).unwrap_or(MAX_BUFFER).min(MAX_BUFFER);
    us(asked).saturating_mul(2).max(least)
}

impl Socket {
    /// setsockopt(2). ENOPROTOOPT, EOPNOTSUPP, EINVAL, EDOM, EPERM.
    pub fn set_option(&mut self, level: u32, name: u32, value: &[u8]) -> Result<(), Errno> {
        self.check_level(level)?;
        match (level, name) {
            (SOL_SOCKET, 3 | 4 | 30 | 38 | 39) => return Err(Errno::ENOPROTOOPT),
            (SOL_SOCKET, 7 | 32) => self.options.send_buffer = buffer(integer(value)?, 4608),
            (SOL_SOCKET, 8 | 33) => self.options.receive_buffer = buffer(integer(value)?, 2304),
            (SOL_SOCKET, 13) => {
                let (on, rest) = value.split_first_chunk::<4>().ok_or(Errno::EINVAL)?;
                let time = integer(rest)?;
                self.options.linger = (i32::from(*on != [0; 4]), time);
            }
            (SOL_SOCKET, 20 | 66) => self.options.receive_timeout = timeout(value)?,
            (SOL_SOCKET, 21 | 67) => self.options.send_timeout = timeout(value)?,
            _ => {
                let Some((_, _, _, switch)) = KNOWN.iter().find(|k| (k.0, k.1) == (level, name)) else {
                    return Err(Errno::ENOPROTOOPT);
                };
                // IP options may be given as one byte.
                let x = match value {
                    [b] if level == SOL_IP => i32::from(*b),
                    _ => integer(value)?,
                };
                if (level, name) == (SOL_IPV6, IPV6_V6ONLY) && self.local.port() != 0 {
                    return Err(Errno::EINVAL);
                }
                if level == SOL_TCP && !switch && x < 0 {
                    return Err(Errno::EINVAL);
                }
                self.options.set.insert((level, name), if *switch { i32::from(x != 0) } else { x });
            }
        }
        Ok(())
    }

    fn check_level(&self, level: u32) -> Result<(), Errno> {
        use super::Style;
        let stream = self.style == Style::Stream;
        let known = match level {
            SOL_SOCKET => true,
            SOL_IP => self.is_inet(),
            SOL_TCP => self.is_inet() && stream,
            SOL_UDP => self.is_inet() && !stream,
            SOL_IPV6 => self.family == super::addr::Family::Inet6,
            _ => false,
        };
        match (known, self.is_inet()) {
            (true, _) => Ok(()),
            (false, true) => Err(Errno::ENOPROTOOPT),
            (false, false) => Err(Errno::EOPNOTSUPP),
        }
    }

    /// getsockopt(2): the value's bytes. SO_ERROR is cleared. ENOPROTOOPT, EOPNOTSUPP.
    pub fn option(&mut self, level: u32, name: u32) -> Result<Vec<u8>, Errno> {
        self.check_level(level)?;
        let size = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let protocol = match (self.is_inet(), self.is_connection()) {
            (false, _) => 0,
            (true, true) => 6,
            (true, false) => 17,
        };
        let x = match (level, name) {
            (SOL_SOCKET, 3) => self.style.number(),
            (SOL_SOCKET, 4) => self.error.take().map_or(0, |e| i32::from(e.0)),
            (SOL_SOCKET, 7) => size(self.options.send_buffer),
            (SOL_SOCKET, 8) => size(self.options.receive_buffer),
            (SOL_SOCKET, 13) => {
                let (on, time) = self.options.linger;
                return Ok([on.to_le_bytes(), time.to_le_bytes()].concat());
            }
            (SOL_SOCKET, 17) => {
                let c = self.peer_cred;
                return Ok([c.pid.to_le_bytes(), c.uid.to_le_bytes(), c.gid.to_le_bytes()].concat());
            }
            (SOL_SOCKET, 19) => 1, // SO_SNDLOWAT
            (SOL_SOCKET, 20 | 66) => return Ok(timeval(self.options.receive_timeout)),
            (SOL_SOCKET, 21 | 67) => return Ok(timeval(self.options.send_timeout)),
            (SOL_SOCKET, 30) => i32::from(matches!(self.state, State::Listening(_))),
            (SOL_SOCKET, 38) => protocol,
            (SOL_SOCKET, 39) => i32::from(self.family.number()),
            _ if KNOWN.iter().any(|k| (k.0, k.1) == (level, name)) => self.options.get(level, name),
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(x.to_le_bytes().to_vec())
    }
}
