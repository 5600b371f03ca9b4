//! What setsockopt(2) sets and getsockopt(2) shows. Options that only tune a network protocol are remembered and have no effect.

use super::option_table::{Rule, find};
use super::{Socket, State, Style};
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
/// IPPROTO_UDPLITE.
pub const SOL_UDPLITE: u32 = 136;
/// UDPLITE_SEND_CSCOV.
pub const SEND_COVERAGE: u32 = 10;
/// UDPLITE_RECV_CSCOV.
pub const RECEIVE_COVERAGE: u32 = 11;
/// IPPROTO_IPV6.
pub const SOL_IPV6: u32 = 41;
/// SOL_NETLINK.
pub const SOL_NETLINK: u32 = 270;
/// SO_REUSEADDR.
pub const SO_REUSEADDR: u32 = 2;
/// SO_BROADCAST.
pub const SO_BROADCAST: u32 = 6;
/// SO_OOBINLINE.
pub const SO_OOBINLINE: u32 = 10;
/// SO_REUSEPORT.
pub const SO_REUSEPORT: u32 = 15;
/// SO_PASSCRED.
pub const SO_PASSCRED: u32 = 16;
/// SO_RCVLOWAT.
pub const SO_RCVLOWAT: u32 = 18;
/// SO_TIMESTAMP.
pub const SO_TIMESTAMP: u32 = 29;
/// SO_TIMESTAMPNS.
pub const SO_TIMESTAMPNS: u32 = 35;
/// SO_SELECT_ERR_QUEUE.
pub const SO_SELECT_ERR_QUEUE: u32 = 45;
/// IPV6_V6ONLY.
pub const IPV6_V6ONLY: u32 = 26;

/// Default size of a queue, bytes (/proc/sys/net/core/wmem_default).
pub const DEFAULT_BUFFER: usize = 212_992;
/// Largest value that SO_SNDBUF and SO_RCVBUF take, bytes (/proc/sys/net/core/wmem_max).
const MAX_BUFFER: u64 = 212_992;
/// Half of TCP's largest receive buffer (/proc/sys/net/ipv4/tcp_rmem), bytes.
const HALF_WINDOW: i32 = 3_145_728;
/// MTU of the loopback interface, bytes.
pub const MTU: i32 = 65536;

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
    /// SO_BINDTODEVICE names the loopback interface.
    pub device: bool,
    /// IP_MULTICAST_IF or IPV6_MULTICAST_IF names the loopback interface.
    pub multicast_device: bool,
    /// The address that IP_MULTICAST_IF was given.
    pub multicast_source: [u8; 4],
    /// TCP_CONGESTION is reno, not cubic.
    pub reno: bool,
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
            device: false,
            multicast_device: false,
            multicast_source: [0; 4],
            reno: false,
            set: BTreeMap::new(),
        }
    }
}

impl Options {
    /// An integer option's value; 0 for one that is not known.
    pub fn get(&self, level: u32, name: u32) -> i32 {
        let set = self.set.get(&(level, name)).copied();
        set.unwrap_or_else(|| find(level, name).map_or(0, |k| k.default))
    }

    /// Whether a switch is on.
    pub fn is_on(&self, level: u32, name: u32) -> bool {
        self.get(level, name) != 0
    }

    /// An integer option's value, if it was set.
    pub fn given(&self, level: u32, name: u32) -> Option<i32> {
        self.set.get(&(level, name)).copied()
    }

    fn put(&mut self, level: u32, name: u32, value: i32) {
        self.set.insert((level, name), value);
    }
}

/// The first four bytes as a number. EINVAL.
pub(super) fn integer(value: &[u8]) -> Result<i32, Errno> {
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

/// TCP_DEFER_ACCEPT as Linux keeps it: seconds rounded up to a whole number of retransmissions.
fn deferral(seconds: i32) -> i32 {
    let (mut step, mut sum, mut count) = (1i32, 1i32, 1);
    while seconds > sum && count < 255 {
        step = step.saturating_mul(2).min(120);
        sum = sum.saturating_add(step);
        count += 1;
    }
    if seconds > 0 { sum } else { 0 }
}

impl Socket {
    /// setsockopt(2). `root`: the caller may do what needs CAP_NET_ADMIN. ENOPROTOOPT, EOPNOTSUPP, EINVAL, EDOM, EPERM, ENODEV, ENOENT,
    /// EADDRINUSE, EADDRNOTAVAIL.
    pub fn set_option(&mut self, level: u32, name: u32, value: &[u8], root: bool) -> Result<(), Errno> {
        self.check_level(level)?;
        match (level, name) {
            (SOL_SOCKET, 25) => return self.bind_to_device(value),
            (SOL_SOCKET, _) if value.len() < 4 => return Err(Errno::EINVAL),
            (SOL_SOCKET, 7) => self.options.send_buffer = buffer(integer(value)?, 4608),
            (SOL_SOCKET, 8) => self.options.receive_buffer = buffer(integer(value)?, 2304),
            // Ports can be shared, and credentials and security labels received, by some families only.
            (SOL_SOCKET, SO_REUSEPORT) if !self.is_inet() && integer(value)? != 0 => {
                return Err(Errno::EOPNOTSUPP);
            }
            (SOL_SOCKET, SO_PASSCRED | 34) if self.is_inet() => return Err(Errno::EOPNOTSUPP),
            (SOL_SOCKET, 32 | 33) if !root => return Err(Errno::EPERM),
            (SOL_SOCKET, 32) => self.options.send_buffer = buffer(integer(value)?.max(0), 4608),
            (SOL_SOCKET, 33) => self.options.receive_buffer = buffer(integer(value)?.max(0), 2304),
            (SOL_SOCKET, 13) => {
                let (on, rest) = value.split_first_chunk::<4>().ok_or(Errno::EINVAL)?;
                let time = integer(rest)?;
                self.options.linger = (i32::from(*on != [0; 4]), time);
            }
            (SOL_SOCKET, 20 | 66) => self.options.receive_timeout = timeout(value)?,
            (SOL_SOCKET, 21 | 67) => self.options.send_timeout = timeout(value)?,
            (SOL_SOCKET, 27) => return Err(Errno::ENOENT), // SO_DETACH_FILTER
            (SOL_SOCKET, 42 | 60) => return Err(Errno::EOPNOTSUPP), // SO_PEEK_OFF, SO_ZEROCOPY
            (SOL_IP | SOL_IPV6, _) if self.set_multicast(level, name, value)? => {}
            (SOL_TCP, 13) => {
                self.options.reno = match value.split(|b| *b == 0).next() {
                    Some(b"reno") => true,
                    Some(b"cubic") => false,
                    _ => return Err(Errno::ENOENT),
                };
            }
            (SOL_NETLINK, _) => {}
            _ => return self.set_integer(level, name, value, root),
        }
        Ok(())
    }

    fn bind_to_device(&mut self, value: &[u8]) -> Result<(), Errno> {
        match value.split(|b| *b == 0).next() {
            None | Some(b"") => self.options.device = false,
            Some(b"lo") => self.options.device = true,
            Some(_) => return Err(Errno::ENODEV),
        }
        Ok(())
    }

    fn set_integer(&mut self, level: u32, name: u32, value: &[u8], root: bool) -> Result<(), Errno> {
        // UDP's options are UDP-Lite's too, at either level; two are UDP-Lite's alone.
        let level = match (level, name) {
            (SOL_UDPLITE, SEND_COVERAGE | RECEIVE_COVERAGE) => level,
            (SOL_UDPLITE, _) => SOL_UDP,
            _ => level,
        };
        let Some(known) = find(level, name) else { return Err(Errno::ENOPROTOOPT) };
        if level == SOL_UDPLITE && !self.is_lite() {
            return Err(Errno::ENOPROTOOPT);
        }
        if known.rule == Rule::ReadOnly {
            return Err(Errno::ENOPROTOOPT);
        }
        let stream = self.style == Style::Stream;
        if (level, name) == (SOL_IPV6, 18) && stream {
            return Err(Errno::ENOPROTOOPT);
        }
        // IP options may be given as one byte.
        let x = match value {
            [] if level == SOL_IP => 0,
            [b, ..] if level == SOL_IP && value.len() < 4 => i32::from(*b),
            _ => integer(value)?,
        };
        let was = self.options.get(level, name);
        let kept = match known.rule {
            Rule::Switch => i32::from(x != 0),
            Rule::Any | Rule::ReadOnly => x,
            Rule::Range(least, most) if (least..=most).contains(&x) => x,
            Rule::OrDefault(..) if x == -1 => known.default,
            Rule::OrDefault(least, most) if (least..=most).contains(&x) => x,
            _ => return Err(Errno::EINVAL),
        };
        let kept = match (level, name) {
            (SOL_SOCKET, 12) if !(0..=6).contains(&x) && !root => return Err(Errno::EPERM),
            (SOL_SOCKET, 36) if !root => return Err(Errno::EPERM),
            // TCP cannot be asked for more than half of its largest window.
            (SOL_SOCKET, SO_RCVLOWAT) if self.is_inet() && stream && !(0..=HALF_WINDOW).contains(&x) => {
                HALF_WINDOW
            }
            (SOL_SOCKET, SO_RCVLOWAT) if x < 0 => i32::MAX,
            (SOL_SOCKET, SO_RCVLOWAT) => x.max(1),
            (SOL_SOCKET, SO_TIMESTAMP | SO_TIMESTAMPNS) => {
                self.options.put(SOL_SOCKET, SO_TIMESTAMP, 0);
                self.options.put(SOL_SOCKET, SO_TIMESTAMPNS, 0);
                kept
            }
            (SOL_IP, 1) | (SOL_IPV6, 67) => {
                // A stream's ECN bits are its own.
                if stream { kept & 0xfc | was & 3 } else { kept & 0xff }
            }
            (SOL_UDPLITE, _) if x != 0 && x < 8 => 8,
            (SOL_UDPLITE, _) => x.min(0xffff),
            (SOL_IP, 33) if stream => return Err(Errno::EINVAL),
            (SOL_IPV6, IPV6_V6ONLY) if self.local.port() != 0 => return Err(Errno::EINVAL),
            (SOL_TCP, 2) if x != 0 && !(88..=32767).contains(&x) => return Err(Errno::EINVAL),
            (SOL_TCP, 8) => match x {
                i32::MIN..0 => -1,
                0 => 60,
                _ => x.min(120),
            },
            (SOL_TCP, 9) => deferral(x),
            (SOL_TCP, 23 | 30) if self.state == State::Connected => return Err(Errno::EINVAL),
            _ => kept,
        };
        self.options.put(level, name, kept);
        Ok(())
    }

    fn check_level(&self, level: u32) -> Result<(), Errno> {
        use super::addr::Family;
        let stream = self.style == Style::Stream;
        let known = match level {
            SOL_SOCKET => true,
            SOL_IP => self.is_inet(),
            SOL_TCP => self.is_inet() && stream,
            SOL_UDP | SOL_UDPLITE => self.is_inet() && !stream,
            SOL_IPV6 => self.family == Family::Inet6,
            SOL_NETLINK => self.family == Family::Netlink,
            _ => false,
        };
        match (known, self.family) {
            (true, _) => Ok(()),
            (false, Family::Unix) => Err(Errno::EOPNOTSUPP),
            (false, _) => Err(Errno::ENOPROTOOPT),
        }
    }

    /// getsockopt(2): the value's bytes. SO_ERROR is cleared. ENOPROTOOPT, EOPNOTSUPP, ENOTCONN.
    pub fn option(&mut self, level: u32, name: u32) -> Result<Vec<u8>, Errno> {
        self.check_level(level)
            .map_err(|e| if self.family == super::addr::Family::Inet { Errno::EOPNOTSUPP } else { e })?;
        let size = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let connected = self.state == State::Connected;
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
            (SOL_SOCKET, 20 | 66) => return Ok(timeval(self.options.receive_timeout)),
            (SOL_SOCKET, 21 | 67) => return Ok(timeval(self.options.send_timeout)),
            (SOL_SOCKET, 25) => return Ok(if self.options.device { b"lo\0".to_vec() } else { Vec::new() }),
            (SOL_SOCKET, 28) if connected => return Ok(self.remote.to_bytes(self.family)),
            (SOL_SOCKET, 28) => return Err(Errno::ENOTCONN),
            (SOL_SOCKET, 30) => i32::from(matches!(self.state, State::Listening(_))),
            (SOL_SOCKET, 38) if !self.is_inet() => self.protocol,
            (SOL_SOCKET, 38) => i32::from(self.transport()),
            (SOL_UDPLITE, name) if find(SOL_UDP, name).is_some() => self.options.get(SOL_UDP, name),
            (SOL_SOCKET, 39) => i32::from(self.family.number()),
            (SOL_SOCKET, 57) => return Ok(self.object.to_le_bytes().to_vec()), // SO_COOKIE
            (SOL_SOCKET, SO_PASSCRED | 34) if self.is_inet() => return Err(Errno::EOPNOTSUPP),
            (SOL_SOCKET, 42) => -1,
            (SOL_SOCKET, 60) => 0,
            (SOL_IP, 4) => return Ok(Vec::new()), // IP_OPTIONS
            (SOL_IP, 14) | (SOL_IPV6, 24) if connected => MTU,
            (SOL_IP, 14) | (SOL_IPV6, 24) => return Err(Errno::ENOTCONN),
            (SOL_IP, 32) => return Ok(self.options.multicast_source.to_vec()),
            (SOL_IPV6, 17) => i32::from(self.options.multicast_device),
            (SOL_TCP, 2) if connected => 32768,
            (SOL_TCP, 2) if self.options.get(SOL_TCP, 2) == 0 => 536,
            (SOL_TCP, 13) => {
                let name: &[u8] = if self.options.reno { b"reno" } else { b"cubic" };
                let mut bytes = name.to_vec();
                bytes.resize(16, 0);
                return Ok(bytes);
            }
            _ if find(level, name).is_some() => self.options.get(level, name),
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(x.to_le_bytes().to_vec())
    }
}
