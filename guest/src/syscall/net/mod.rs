//! System calls on sockets. Addresses, messages and options are read from and written to user memory here; what they mean is in
//! [`crate::net`].

use super::{Arg, Context, Entry, ret};
use crate::errno::Errno;
use crate::net::Style;
use crate::net::addr::{AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, Address, Family, Given, MAX_ADDRESS};
use crate::net::options::{IPV6_V6ONLY, SOL_IP, SOL_IPV6, SOL_TCP};
use crate::net::transfer::Progress;
use crate::num::{int, low32, u64_of, us};
use crate::vfs::file::{O_NONBLOCK, O_PATH};
use crate::wait::{Outcome, SysResult};

mod control;
pub mod ioctl;
mod message;
mod refused;

use message::{recvfrom, recvmmsg, recvmsg, sendmmsg, sendmsg, sendto};

const SOCK_CLOEXEC: u32 = 0o2_000_000;
/// IPPROTO_UDPLITE.
const UDPLITE: i32 = 136;
/// Longest option value, bytes.
const MAX_OPTION: usize = 4096;

const MSG_FLAGS: Arg = Arg::Flags(&[
    ("MSG_OOB", 1),
    ("MSG_PEEK", 2),
    ("MSG_TRUNC", 0x20),
    ("MSG_DONTWAIT", 0x40),
    ("MSG_WAITALL", 0x100),
    ("MSG_NOSIGNAL", 0x4000),
    ("MSG_MORE", 0x8000),
    ("MSG_WAITFORONE", 0x10000),
    ("MSG_CMSG_CLOEXEC", 0x4000_0000),
]);
const FAMILIES: Arg =
    Arg::Flags(&[("AF_UNIX", 1), ("AF_INET", 2), ("AF_INET6", 10), ("AF_NETLINK", 16), ("AF_PACKET", 17)]);
const LOOPBACK: &str = "AF_UNIX, AF_INET and AF_INET6 on loopback addresses, NETLINK_ROUTE, NETLINK_GENERIC (TASKSTATS); no raw sockets, no host network";
const OPTIONS: &str = "options that tune a protocol are remembered and have no effect; no SO_PEEK_OFF, SO_ZEROCOPY, socket filters, SO_PEERPIDFD";

const MANY: &str = "streams wait for the first message only";

use Arg::{Fd, Hex, In, Int, Out, Ptr, Uint};

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::partial(41, "socket", &[FAMILIES, Hex, Int], LOOPBACK, socket),
    Entry::partial(42, "connect", &[Fd, Ptr, Uint], LOOPBACK, connect),
    Entry::full(43, "accept", &[Fd, Ptr, Ptr], accept),
    Entry::partial(
        44,
        "sendto",
        &[Fd, In(2), Uint, MSG_FLAGS, Ptr, Uint],
        "no urgent data on AF_UNIX",
        sendto,
    ),
    Entry::partial(
        45,
        "recvfrom",
        &[Fd, Out, Uint, MSG_FLAGS, Ptr, Ptr],
        "no urgent data on AF_UNIX",
        recvfrom,
    ),
    Entry::partial(
        46,
        "sendmsg",
        &[Fd, Ptr, MSG_FLAGS],
        "no urgent data on AF_UNIX; no SCM_PIDFD, SCM_TIMESTAMPING",
        sendmsg,
    ),
    Entry::partial(
        47,
        "recvmsg",
        &[Fd, Ptr, MSG_FLAGS],
        "no urgent data on AF_UNIX; no SCM_PIDFD, SCM_TIMESTAMPING",
        recvmsg,
    ),
    Entry::full(48, "shutdown", &[Fd, Int], shutdown),
    Entry::partial(49, "bind", &[Fd, Ptr, Uint], LOOPBACK, bind),
    Entry::full(50, "listen", &[Fd, Int], listen),
    Entry::full(51, "getsockname", &[Fd, Ptr, Ptr], getsockname),
    Entry::full(52, "getpeername", &[Fd, Ptr, Ptr], getpeername),
    Entry::full(53, "socketpair", &[FAMILIES, Hex, Int, Ptr], socketpair),
    Entry::partial(54, "setsockopt", &[Fd, Int, Int, In(4), Uint], OPTIONS, setsockopt),
    Entry::partial(55, "getsockopt", &[Fd, Int, Int, Ptr, Ptr], OPTIONS, getsockopt),
    Entry::full(288, "accept4", &[Fd, Ptr, Ptr, Hex], accept4),
    Entry::partial(299, "recvmmsg", &[Fd, Ptr, Uint, MSG_FLAGS, Ptr], MANY, recvmmsg),
    Entry::partial(307, "sendmmsg", &[Fd, Ptr, Uint, MSG_FLAGS], MANY, sendmmsg),
];

/// The open file and the socket behind a descriptor. EBADF, ENOTSOCK.
fn of(c: &Context<'_>, fd: u64) -> Result<(u64, u64), Errno> {
    let file = c.k.file_of(c.tid, int(fd))?;
    if c.k.open_file(file)?.flags & O_PATH != 0 {
        return Err(Errno::EBADF);
    }
    Ok((file, c.k.socket_of(file)?))
}

fn nonblocking(c: &Context<'_>, file: u64) -> bool {
    c.k.open_file(file).is_ok_and(|f| f.flags & O_NONBLOCK != 0)
}

/// Reads an address. EINVAL, EFAULT.
fn read_address(c: &mut Context<'_>, id: u64, va: u64, len: u32) -> Result<Given, Errno> {
    if len > MAX_ADDRESS {
        return Err(Errno::EINVAL);
    }
    let bytes = c.k.copy_in_vec(c.tid, va, us(u64::from(len)))?;
    Address::parse(c.k.objects.net.get(id)?.family, &bytes)
}

/// Writes an address and its length as Linux does: as much as there is room for, and the whole length. EFAULT, EINVAL.
fn write_address(c: &mut Context<'_>, va: u64, len_va: u64, bytes: &[u8]) -> Result<(), Errno> {
    let room = c.k.get_u32(c.tid, len_va)?.cast_signed();
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    let part = bytes.get(..room.min(bytes.len())).unwrap_or_default();
    if !part.is_empty() {
        c.k.copy_out(c.tid, va, part)?;
    }
    c.k.put_u32(c.tid, len_va, low32(u64_of(bytes.len())))
}

/// Family and type of a new socket. EAFNOSUPPORT, EINVAL, ESOCKTNOSUPPORT, EPROTONOSUPPORT, EPERM, EACCES.
fn kind(family: u64, style: u64, protocol: u64) -> Result<(Family, Style, u32), Errno> {
    let style = low32(style);
    let flags = style & !0xf;
    if flags & !(SOCK_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let (family, number) = (int(family), style & 0xf);
    if !(0..46).contains(&family) {
        return Err(Errno::EAFNOSUPPORT);
    }
    if number > 10 {
        return Err(Errno::EINVAL);
    }
    let family = match u16::try_from(family) {
        Ok(AF_UNIX) => Family::Unix,
        Ok(AF_INET) => Family::Inet,
        Ok(AF_INET6) => Family::Inet6,
        Ok(AF_NETLINK) => Family::Netlink,
        _ => return Err(Errno::EAFNOSUPPORT),
    };
    let style = match (family, number, int(protocol)) {
        // SOCK_PACKET
        (Family::Inet, 10, _) => return Err(Errno::EAFNOSUPPORT),
        (Family::Unix, _, p) if p != 0 && p != 1 => return Err(Errno::EPROTONOSUPPORT),
        (Family::Unix, 1, _) => Style::Stream,
        // SOCK_RAW is SOCK_DGRAM there.
        (Family::Unix, 2 | 3, _) => Style::Datagram,
        (Family::Unix, 5, _) => Style::SeqPacket,
        (Family::Netlink, 2, 0 | 16) => Style::Datagram,
        (Family::Netlink, 3, 0 | 16) => Style::Raw,
        (Family::Netlink, 2 | 3, _) => return Err(Errno::EPROTONOSUPPORT),
        (Family::Unix | Family::Netlink, ..) => return Err(Errno::ESOCKTNOSUPPORT),
        // IPPROTO_MAX
        (_, _, i32::MIN..0 | 263..) => return Err(Errno::EINVAL),
        (_, 1, 0 | 6) => Style::Stream,
        (_, 2, 0 | 17 | UDPLITE) => Style::Datagram,
        // net.ipv4.ping_group_range is empty.
        (Family::Inet, 2, 1) | (Family::Inet6, 2, 58) => return Err(Errno::EACCES),
        (_, 3, 0) | (_, 1 | 2, _) => return Err(Errno::EPROTONOSUPPORT),
        (_, 3, _) => return Err(Errno::EPERM),
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    Ok((family, style, flags))
}

fn socket(c: &mut Context<'_>, &[family, style, protocol, ..]: &[u64; 6]) -> SysResult {
    let (family, style, flags) = refused::kind(c, family, style, protocol)?;
    let id = c.k.socket_create(c.tid, family, style)?;
    let s = c.k.objects.net.get_mut(id)?;
    if family == Family::Netlink || (s.is_inet() && int(protocol) == UDPLITE) {
        s.protocol = int(protocol);
    }
    let file = c.k.socket_file(id, flags & O_NONBLOCK);
    ret(u64::from(c.k.install_fd(c.tid, file, flags & SOCK_CLOEXEC != 0)?))
}

fn socketpair(c: &mut Context<'_>, &[family, style, protocol, va, ..]: &[u64; 6]) -> SysResult {
    let (family, style, flags) = refused::kind(c, family, style, protocol)?;
    if family != Family::Unix {
        return Err(Errno::EOPNOTSUPP);
    }
    let (a, b) = c.k.socket_pair(c.tid, style)?;
    let (a, b) = (c.k.socket_file(a, flags & O_NONBLOCK), c.k.socket_file(b, flags & O_NONBLOCK));
    let cloexec = flags & SOCK_CLOEXEC != 0;
    let first = match c.k.install_fd(c.tid, a, cloexec) {
        Ok(fd) => fd,
        Err(e) => {
            c.k.file_unref(b);
            return Err(e);
        }
    };
    let second = match c.k.install_fd(c.tid, b, cloexec) {
        Ok(fd) => fd,
        Err(e) => {
            c.k.fd_close(c.tid, first)?;
            return Err(e);
        }
    };
    let bytes = [first.to_le_bytes(), second.to_le_bytes()].concat();
    if let Err(e) = c.k.copy_out(c.tid, va, &bytes) {
        c.k.fd_close(c.tid, first)?;
        c.k.fd_close(c.tid, second)?;
        return Err(e);
    }
    ret(0)
}

fn bind(c: &mut Context<'_>, &[fd, va, len, ..]: &[u64; 6]) -> SysResult {
    let (_, id) = of(c, fd)?;
    let given = read_address(c, id, va, low32(len))?;
    let given = match given {
        // ip(7): AF_UNSPEC is AF_INET where the address is the wildcard.
        Given::Unspecified if c.k.objects.net.get(id)?.family == Family::Inet => {
            let mut bytes = c.k.copy_in_vec(c.tid, va, us(u64::from(low32(len))))?;
            if let Some(kind) = bytes.first_mut() {
                *kind = 2;
            }
            match Address::parse(Family::Inet, &bytes)? {
                Given::Address(Address::Ip(ip, port)) if ip.is_unspecified() => {
                    Given::Address(Address::Ip(ip, port))
                }
                _ => return Err(Errno::EAFNOSUPPORT),
            }
        }
        other => other,
    };
    c.k.socket_bind(c.tid, id, given)?;
    ret(0)
}

/// The address of a connect(2), of which a connection that exists or is being made looks at nothing but AF_UNSPEC.
fn connect_address(c: &mut Context<'_>, id: u64, va: u64, len: u32) -> Result<Given, Errno> {
    let given = read_address(c, id, va, len);
    let s = c.k.objects.net.get(id)?;
    match given {
        Err(Errno::EINVAL | Errno::EAFNOSUPPORT) if s.is_inet() && (2..=MAX_ADDRESS).contains(&len) => {}
        other => return other,
    }
    let any = Given::Address(Address::Ip(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0));
    if s.is_connection() {
        return if s.state == crate::net::State::Idle && !s.in_progress { given } else { Ok(any) };
    }
    // ipv6(7): a datagram socket takes an IPv4 address, unless it is for IPv6 alone.
    if s.family == Family::Inet6 {
        let only = s.options.is_on(SOL_IPV6, IPV6_V6ONLY)
            || matches!(s.local, Address::Ip(std::net::IpAddr::V6(ip), _) if !ip.is_unspecified());
        let bytes = c.k.copy_in_vec(c.tid, va, us(u64::from(len)))?;
        if let [2, 0, ..] = bytes.as_slice() {
            return if only { Err(Errno::EAFNOSUPPORT) } else { Address::parse(Family::Inet, &bytes) };
        }
    }
    given
}

fn connect(c: &mut Context<'_>, &[fd, va, len, ..]: &[u64; 6]) -> SysResult {
    let (file, id) = of(c, fd)?;
    let given = connect_address(c, id, va, low32(len))?;
    if given == Given::Address(Address::Unnamed) {
        return Err(Errno::EINVAL);
    }
    let nonblock = nonblocking(c, file);
    match c.k.socket_connect(c.tid, id, given, nonblock)? {
        Progress::Done(()) => ret(0),
        Progress::Sleep(block) => Ok(Outcome::Block(block)),
    }
}

fn listen(c: &mut Context<'_>, &[fd, backlog, ..]: &[u64; 6]) -> SysResult {
    let (_, id) = of(c, fd)?;
    c.k.socket_listen(c.tid, id, int(backlog))?;
    ret(0)
}

fn do_accept(c: &mut Context<'_>, fd: u64, va: u64, len_va: u64, flags: u32) -> SysResult {
    if flags & !(SOCK_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    c.k.usable_file_of(c.tid, int(fd))?;
    c.k.fd_is_free(c.tid)?;
    let (file, id) = of(c, fd)?;
    let s = c.k.objects.net.get(id)?;
    let attempt = c.k.socket_attempt(c.tid, s.options.receive_timeout);
    let object = s.object;
    let child = match c.k.socket_accept(id) {
        Err(Errno::EAGAIN) if !nonblocking(c, file) && !attempt.timed_out => {
            return Ok(Outcome::Block(attempt.block(crate::wait::WaitKey::Object(object), 0)));
        }
        other => other?,
    };
    let s = c.k.objects.net.get(child)?;
    let name = s.remote.to_bytes(s.family);
    let file = c.k.socket_file(child, flags & O_NONBLOCK);
    if va != 0
        && let Err(e) = write_address(c, va, len_va, &name)
    {
        c.k.file_unref(file);
        return Err(e);
    }
    ret(u64::from(c.k.install_fd(c.tid, file, flags & SOCK_CLOEXEC != 0)?))
}

fn accept(c: &mut Context<'_>, &[fd, va, len, ..]: &[u64; 6]) -> SysResult {
    do_accept(c, fd, va, len, 0)
}

fn accept4(c: &mut Context<'_>, &[fd, va, len, flags, ..]: &[u64; 6]) -> SysResult {
    do_accept(c, fd, va, len, low32(flags))
}

fn shutdown(c: &mut Context<'_>, &[fd, how, ..]: &[u64; 6]) -> SysResult {
    let (_, id) = of(c, fd)?;
    let how = low32(how);
    if how > 2 {
        return Err(Errno::EINVAL);
    }
    c.k.socket_shutdown(id, how + 1)?;
    ret(0)
}

fn getsockname(c: &mut Context<'_>, &[fd, va, len, ..]: &[u64; 6]) -> SysResult {
    let (_, id) = of(c, fd)?;
    let s = c.k.objects.net.get(id)?;
    let name = s.local.to_bytes(s.family);
    write_address(c, va, len, &name)?;
    ret(0)
}

fn getpeername(c: &mut Context<'_>, &[fd, va, len, ..]: &[u64; 6]) -> SysResult {
    let (_, id) = of(c, fd)?;
    let s = c.k.objects.net.get(id)?;
    if s.state != crate::net::State::Connected {
        return Err(Errno::ENOTCONN);
    }
    let name = s.remote.to_bytes(s.family);
    write_address(c, va, len, &name)?;
    ret(0)
}

fn setsockopt(c: &mut Context<'_>, &[fd, level, name, va, len, _]: &[u64; 6]) -> SysResult {
    let (_, id) = of(c, fd)?;
    let len = usize::try_from(int(len)).map_err(|_| Errno::EINVAL)?;
    let value = c.k.copy_in_vec(c.tid, va, len.min(MAX_OPTION))?;
    let root = c.k.capable(c.tid, crate::task::creds::cap::NET_ADMIN);
    let done = c.k.objects.net.get_mut(id)?.set_option(low32(level), low32(name), &value, root);
    done.map_err(|e| refused::option(c, level, name, e))?;
    let s = c.k.objects.net.get(id)?;
    // IP_RECVERR, IPV6_RECVERR
    if matches!((low32(level), low32(name)), (SOL_IP, 11) | (SOL_IPV6, 25))
        && !s.options.is_on(low32(level), low32(name))
    {
        c.k.objects.net.forget_errors(id);
    }
    ret(0)
}

fn getsockopt(c: &mut Context<'_>, &[fd, level, name, va, len_va, _]: &[u64; 6]) -> SysResult {
    let (_, id) = of(c, fd)?;
    let len = usize::try_from(c.k.get_u32(c.tid, len_va)?.cast_signed()).map_err(|_| Errno::EINVAL)?;
    let s = c.k.objects.net.get(id)?;
    let stream = s.is_inet() && s.is_connection();
    let value = match (low32(level), low32(name)) {
        (SOL_TCP, 11) if stream => Ok(c.k.tcp_info(s)),
        (level, name) => c.k.objects.net.get_mut(id)?.option(level, name),
    };
    let value = value.map_err(|e| refused::option(c, level, name, e))?;
    // ip(7): a small number fits into one byte.
    let small = matches!(value.as_slice(), [_, 0, 0, 0]) && low32(level) == SOL_IP && (1..4).contains(&len);
    let len = if small { 1 } else { len };
    let part = value.get(..len.min(value.len())).unwrap_or_default();
    c.k.copy_out(c.tid, va, part)?;
    c.k.put_u32(c.tid, len_va, low32(u64_of(part.len())))?;
    ret(0)
}
