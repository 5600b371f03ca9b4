//! System calls on sockets. Addresses, messages and options are read from and written to user memory here; what they mean is in
//! [`crate::net`].

use super::{Arg, Context, Entry, ret};
use crate::errno::Errno;
use crate::net::addr::{AF_INET, AF_INET6, AF_UNIX, Address, Family, Given, MAX_ADDRESS};
use crate::net::transfer::{
    MSG_CTRUNC, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_NOSIGNAL, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, Outgoing,
    Progress, Received,
};
use crate::net::{Cred, Style};
use crate::num::{int, low32, u64_of, us};
use crate::signal::frame::{le32, le64};
use crate::vfs::file::{MAX_RW_COUNT, O_NONBLOCK, O_PATH};
use crate::wait::{Outcome, SysResult};

const SOCK_CLOEXEC: u32 = 0o2_000_000;
const SOL_SOCKET: u32 = 1;
const SCM_RIGHTS: u32 = 1;
const SCM_CREDENTIALS: u32 = 2;
/// Descriptors that one message may carry (SCM_MAX_FD).
const MAX_RIGHTS: usize = 253;
/// Longest control data that a message may carry, bytes (/proc/sys/net/core/optmem_max).
const MAX_CONTROL: u64 = 20480;
/// Longest option value, bytes.
const MAX_OPTION: usize = 4096;
/// sendmmsg(2) and recvmmsg(2) take at most this many (UIO_MAXIOV).
const MAX_MESSAGES: u64 = 1024;
const MSG_CMSG_CLOEXEC: u32 = 0x4000_0000;
const MSG_WAITFORONE: u32 = 0x10000;

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
const LOOPBACK: &str = "AF_UNIX, and AF_INET and AF_INET6 on loopback addresses; no host network";
const OPTIONS: &str = "options that tune a protocol are remembered and have no effect";

use Arg::{Fd, Hex, In, Int, Out, Ptr, Uint};

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::partial(41, "socket", &[FAMILIES, Hex, Int], LOOPBACK, socket),
    Entry::partial(42, "connect", &[Fd, Ptr, Uint], LOOPBACK, connect),
    Entry::full(43, "accept", &[Fd, Ptr, Ptr], accept),
    Entry::partial(44, "sendto", &[Fd, In(2), Uint, MSG_FLAGS, Ptr, Uint], "no urgent data", sendto),
    Entry::partial(45, "recvfrom", &[Fd, Out, Uint, MSG_FLAGS, Ptr, Ptr], "no urgent data", recvfrom),
    Entry::partial(
        46,
        "sendmsg",
        &[Fd, Ptr, MSG_FLAGS],
        "control data: SCM_RIGHTS, SCM_CREDENTIALS",
        sendmsg,
    ),
    Entry::partial(
        47,
        "recvmsg",
        &[Fd, Ptr, MSG_FLAGS],
        "control data: SCM_RIGHTS, SCM_CREDENTIALS",
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
    Entry::partial(
        299,
        "recvmmsg",
        &[Fd, Ptr, Uint, MSG_FLAGS, Ptr],
        "waits for the first message only",
        recvmmsg,
    ),
    Entry::partial(
        307,
        "sendmmsg",
        &[Fd, Ptr, Uint, MSG_FLAGS],
        "waits for the first message only",
        sendmmsg,
    ),
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

/// Family and type of a new socket. EAFNOSUPPORT, EINVAL, ESOCKTNOSUPPORT, EPROTONOSUPPORT.
fn kind(family: u64, style: u64, protocol: u64) -> Result<(Family, Style, u32), Errno> {
    let style = low32(style);
    let flags = style & !0xf;
    if flags & !(SOCK_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let family = match int(family) {
        x if x == i32::from(AF_UNIX) => Family::Unix,
        x if x == i32::from(AF_INET) => Family::Inet,
        x if x == i32::from(AF_INET6) => Family::Inet6,
        _ => return Err(Errno::EAFNOSUPPORT),
    };
    let protocol = int(protocol);
    let style = match (family, style & 0xf, protocol) {
        (_, 11.., _) | (_, 0, _) => return Err(Errno::EINVAL),
        (Family::Unix, _, p) if p != 0 && p != 1 => return Err(Errno::EPROTONOSUPPORT),
        (Family::Unix, 1, _) => Style::Stream,
        // SOCK_RAW is SOCK_DGRAM there.
        (Family::Unix, 2 | 3, _) => Style::Datagram,
        (Family::Unix, 5, _) => Style::SeqPacket,
        (Family::Unix, ..) => return Err(Errno::ESOCKTNOSUPPORT),
        (_, 1, 0 | 6) => Style::Stream,
        (_, 2, 0 | 17) => Style::Datagram,
        (_, 1 | 2, _) => return Err(Errno::EPROTONOSUPPORT),
        (_, 3, _) => return Err(Errno::EPERM),
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    Ok((family, style, flags))
}

/// [`kind`], with a record of what Linux may have and this kernel has not.
fn supported(
    c: &mut Context<'_>,
    family: u64,
    style: u64,
    protocol: u64,
) -> Result<(Family, Style, u32), Errno> {
    kind(family, style, protocol).map_err(|e| {
        let asked = [family, style & 0xf, protocol].map(|v| u64::from(low32(v)));
        let has = |protocols: &[u64]| protocols.contains(&u64::from(low32(protocol)));
        let refused = match (e, style & 0xf) {
            (Errno::EAFNOSUPPORT, _) => crate::refused::family_name(u64::from(low32(family))).is_some(),
            // Raw sockets.
            (Errno::EPERM, _) => true,
            // SCTP and MPTCP; ICMP and UDP-Lite.
            (Errno::EPROTONOSUPPORT, 1) => has(&[132, 262]),
            (Errno::EPROTONOSUPPORT, 2) => has(&[1, 58, 136]),
            (Errno::ESOCKTNOSUPPORT, 5) => has(&[0, 132]) && low32(family) != 1,
            _ => false,
        };
        if refused { c.refuse("family, type, protocol", &asked, e) } else { e }
    })
}

/// Records a socket option that Linux has and this kernel has not.
fn refused_option(c: &mut Context<'_>, level: u64, name: u64, errno: Errno) -> Errno {
    let asked = [level, name].map(|v| u64::from(low32(v)));
    let known = crate::refused::option_name(asked[0], asked[1]).is_some();
    // Linux lets nobody set these either: SO_TYPE, SO_ERROR, SO_PEERCRED and more of their kind.
    let read_only = asked[0] == 1 && matches!(asked[1], 3 | 4 | 17 | 28 | 30 | 38 | 39 | 55 | 56 | 57 | 59);
    let reads = c.k.task(c.tid).and_then(|t| t.syscall.as_ref()).is_some_and(|call| call.number == 55);
    if errno == Errno::ENOPROTOOPT && known && (reads || !read_only) {
        return c.refuse("level, option", &asked, errno);
    }
    errno
}

fn socket(c: &mut Context<'_>, &[family, style, protocol, ..]: &[u64; 6]) -> SysResult {
    let (family, style, flags) = supported(c, family, style, protocol)?;
    let id = c.k.socket_create(c.tid, family, style)?;
    let file = c.k.socket_file(id, flags & O_NONBLOCK);
    ret(u64::from(c.k.install_fd(c.tid, file, flags & SOCK_CLOEXEC != 0)?))
}

fn socketpair(c: &mut Context<'_>, &[family, style, protocol, va, ..]: &[u64; 6]) -> SysResult {
    let (family, style, flags) = supported(c, family, style, protocol)?;
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

fn connect(c: &mut Context<'_>, &[fd, va, len, ..]: &[u64; 6]) -> SysResult {
    let (file, id) = of(c, fd)?;
    let given = read_address(c, id, va, low32(len))?;
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
    let done = c.k.objects.net.get_mut(id)?.set_option(low32(level), low32(name), &value);
    done.map_err(|e| refused_option(c, level, name, e))?;
    ret(0)
}

fn getsockopt(c: &mut Context<'_>, &[fd, level, name, va, len_va, _]: &[u64; 6]) -> SysResult {
    let (_, id) = of(c, fd)?;
    let len = usize::try_from(c.k.get_u32(c.tid, len_va)?.cast_signed()).map_err(|_| Errno::EINVAL)?;
    let value = c.k.objects.net.get_mut(id)?.option(low32(level), low32(name));
    let value = value.map_err(|e| refused_option(c, level, name, e))?;
    let part = value.get(..len.min(value.len())).unwrap_or_default();
    c.k.copy_out(c.tid, va, part)?;
    c.k.put_u32(c.tid, len_va, low32(u64_of(part.len())))?;
    ret(0)
}

/// One buffer, checked as Linux checks it. EFAULT never: the copy says that.
fn single(va: u64, len: u64) -> Vec<(u64, u64)> {
    vec![(va, len.min(MAX_RW_COUNT))]
}

/// The destination of a send; AF_UNSPEC and nothing mean none. EINVAL, EFAULT, EAFNOSUPPORT.
fn destination(c: &mut Context<'_>, id: u64, va: u64, len: u32) -> Result<Option<Address>, Errno> {
    if va == 0 || len == 0 {
        return Ok(None);
    }
    let s = c.k.objects.net.get(id)?;
    if s.is_connection() {
        // A connection ignores it (AF_INET) or must not have it.
        return Ok(Some(Address::Unnamed));
    }
    let inet6 = s.family == Family::Inet6;
    if len > MAX_ADDRESS {
        return Err(Errno::EINVAL);
    }
    let bytes = c.k.copy_in_vec(c.tid, va, us(u64::from(len)))?;
    // ipv6(7): an IPv4 address will do as well.
    let family = match bytes.as_slice() {
        [2, 0, ..] if inet6 => Family::Inet,
        _ => c.k.objects.net.get(id)?.family,
    };
    match Address::parse(family, &bytes)? {
        Given::Address(Address::Unnamed) => Err(Errno::EINVAL),
        Given::Address(address) => Ok(Some(address)),
        Given::Unspecified if family == Family::Unix => Err(Errno::EINVAL),
        Given::Unspecified => Ok(None),
    }
}

fn sendto(c: &mut Context<'_>, &[fd, va, len, flags, to, to_len]: &[u64; 6]) -> SysResult {
    let (file, id) = of(c, fd)?;
    let to = destination(c, id, to, low32(to_len))?;
    let m = Outgoing { iovecs: single(va, len), flags: low32(flags), to, ..Outgoing::default() };
    Ok(c.k.socket_send(c.tid, file, &m)?.into())
}

fn recvfrom(c: &mut Context<'_>, &[fd, va, len, flags, from, from_len]: &[u64; 6]) -> SysResult {
    let (file, _) = of(c, fd)?;
    let got = match c.k.socket_receive(c.tid, file, &single(va, len), low32(flags))? {
        Progress::Done(got) => got,
        Progress::Sleep(block) => return Ok(Outcome::Block(block)),
    };
    for file in &got.files {
        c.k.file_unref(*file);
    }
    if from != 0 {
        match &got.from {
            Some(name) => write_address(c, from, from_len, name)?,
            None => c.k.put_u32(c.tid, from_len, 0)?,
        }
    }
    ret(got.bytes)
}

/// `struct msghdr`.
#[derive(Clone, Copy, Debug, Default)]
struct Header {
    name: u64,
    name_len: u32,
    iovecs: u64,
    count: u64,
    control: u64,
    control_len: u64,
}

fn header(c: &mut Context<'_>, va: u64) -> Result<Header, Errno> {
    let b = c.k.copy_in_vec(c.tid, va, 56)?;
    let h = Header {
        name: le64(&b, 0),
        name_len: le32(&b, 8),
        iovecs: le64(&b, 16),
        count: le64(&b, 24),
        control: le64(&b, 32),
        control_len: le64(&b, 40),
    };
    if h.name_len.cast_signed() < 0 {
        return Err(Errno::EINVAL);
    }
    if h.count > 1024 {
        return Err(Errno::EMSGSIZE);
    }
    Ok(h)
}

/// Puts the control data of a message into what is sent. EINVAL, EBADF, EPERM, ENOBUFS, ETOOMANYREFS.
fn read_control(c: &mut Context<'_>, id: u64, h: &Header, m: &mut Outgoing) -> Result<(), Errno> {
    if h.control_len == 0 || h.control == 0 {
        return Ok(());
    }
    if h.control_len > MAX_CONTROL {
        return Err(Errno::ENOBUFS);
    }
    let unix = !c.k.objects.net.get(id)?.is_inet();
    let bytes = c.k.copy_in_vec(c.tid, h.control, us(h.control_len))?;
    let mut rest = bytes.as_slice();
    // Headers are 16 bytes; a tail that is too short for one is ignored.
    while rest.len() >= 16 {
        let (len, level, kind) = (us(le64(rest, 0)), le32(rest, 8), le32(rest, 12));
        let data = match len.checked_sub(16) {
            Some(_) => rest.get(16..len).ok_or(Errno::EINVAL)?,
            None => return Err(Errno::EINVAL),
        };
        match (level, kind) {
            (SOL_SOCKET, SCM_RIGHTS) if unix => {
                for fd in data.chunks_exact(4) {
                    if m.files.len() >= MAX_RIGHTS {
                        return Err(Errno::EINVAL);
                    }
                    let file = c.k.file_of(c.tid, le32(fd, 0).cast_signed())?;
                    if c.k.open_file(file)?.flags & O_PATH != 0 {
                        return Err(Errno::EBADF);
                    }
                    m.files.push(file);
                }
            }
            (SOL_SOCKET, SCM_CREDENTIALS) if unix => {
                if data.len() != 12 {
                    return Err(Errno::EINVAL);
                }
                let cred = Cred { pid: le32(data, 0), uid: le32(data, 4), gid: le32(data, 8) };
                c.k.socket_may_claim(c.tid, cred)?;
                m.cred = Some(cred);
            }
            (SOL_SOCKET, _) => return Err(Errno::EINVAL),
            _ => {}
        }
        let step = len.checked_add(7).map_or(usize::MAX, |n| n & !7);
        rest = rest.get(step..).unwrap_or_default();
    }
    Ok(())
}

fn send_one(c: &mut Context<'_>, fd: u64, va: u64, flags: u32) -> Result<Progress<u64>, Errno> {
    let (file, id) = of(c, fd)?;
    let h = header(c, va)?;
    let to = destination(c, id, h.name, h.name_len)?;
    let iovecs = c.k.read_iovecs(c.tid, h.iovecs, h.count)?;
    let mut m = Outgoing { iovecs, flags, to, ..Outgoing::default() };
    read_control(c, id, &h, &mut m)?;
    c.k.socket_send(c.tid, file, &m)
}

fn sendmsg(c: &mut Context<'_>, &[fd, va, flags, ..]: &[u64; 6]) -> SysResult {
    Ok(send_one(c, fd, va, low32(flags))?.into())
}

/// Installs received files; returns their descriptors. Those that find no place are closed.
fn install(c: &mut Context<'_>, files: &[u64], most: usize, cloexec: bool) -> Vec<u32> {
    let mut fds = Vec::new();
    let mut full = false;
    for file in files {
        if full || fds.len() >= most {
            c.k.file_unref(*file);
            continue;
        }
        match c.k.install_fd(c.tid, *file, cloexec) {
            Ok(fd) => fds.push(fd),
            Err(_) => full = true,
        }
    }
    fds
}

/// The control data that shows what was received, and the flags to show with it.
fn build_control(c: &mut Context<'_>, got: &Received, room: u64, cloexec: bool) -> (Vec<u8>, u32) {
    let room = us(room.min(MAX_CONTROL));
    let (mut out, mut flags) = (Vec::new(), got.flags);
    let mut put = |kind: u32, data: &[u8], flags: &mut u32| {
        let left = room.saturating_sub(out.len());
        if left < 16 {
            *flags |= MSG_CTRUNC;
            return;
        }
        let len = (16 + data.len()).min(left);
        if len < 16 + data.len() {
            *flags |= MSG_CTRUNC;
        }
        out.extend(u64_of(len).to_le_bytes());
        out.extend(SOL_SOCKET.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend(data.get(..len - 16).unwrap_or_default());
        let padded = out.len().next_multiple_of(8).min(room);
        out.resize(padded.max(out.len()), 0);
    };
    if let Some(cred) = got.cred {
        let bytes = [cred.pid.to_le_bytes(), cred.uid.to_le_bytes(), cred.gid.to_le_bytes()].concat();
        put(SCM_CREDENTIALS, &bytes, &mut flags);
    }
    if !got.files.is_empty() {
        let used = if got.cred.is_some() { 32 } else { 0 };
        let most = room.saturating_sub(used).saturating_sub(16) / 4;
        let fds = install(c, &got.files, most, cloexec);
        if fds.len() < got.files.len() {
            flags |= MSG_CTRUNC;
        }
        if !fds.is_empty() {
            let bytes: Vec<u8> = fds.iter().flat_map(|fd| fd.to_le_bytes()).collect();
            put(SCM_RIGHTS, &bytes, &mut flags);
        }
    }
    (out, flags)
}

fn receive_one(c: &mut Context<'_>, fd: u64, va: u64, flags: u32) -> Result<Progress<u64>, Errno> {
    let (file, _) = of(c, fd)?;
    let h = header(c, va)?;
    let iovecs = c.k.read_iovecs(c.tid, h.iovecs, h.count)?;
    let known = MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT | MSG_WAITALL | MSG_ERRQUEUE | 1;
    let got = match c.k.socket_receive(c.tid, file, &iovecs, flags & known)? {
        Progress::Done(got) => got,
        Progress::Sleep(block) => return Ok(Progress::Sleep(block)),
    };
    let room = if h.control == 0 { 0 } else { h.control_len };
    let (control, shown) = build_control(c, &got, room, flags & MSG_CMSG_CLOEXEC != 0);
    if h.name != 0 {
        let name = got.from.unwrap_or_default();
        let room = us(u64::from(h.name_len));
        let part = name.get(..room.min(name.len())).unwrap_or_default();
        if !part.is_empty() {
            c.k.copy_out(c.tid, h.name, part)?;
        }
        c.k.put_u32(c.tid, va.wrapping_add(8), low32(u64_of(name.len())))?;
    }
    if !control.is_empty() {
        c.k.copy_out(c.tid, h.control, &control)?;
    }
    c.k.put_u64(c.tid, va.wrapping_add(40), u64_of(control.len()))?;
    let shown = shown | flags & MSG_CMSG_CLOEXEC;
    c.k.put_u32(c.tid, va.wrapping_add(48), shown)?;
    Ok(Progress::Done(got.bytes))
}

fn recvmsg(c: &mut Context<'_>, &[fd, va, flags, ..]: &[u64; 6]) -> SysResult {
    Ok(receive_one(c, fd, va, low32(flags))?.into())
}

type One = fn(&mut Context<'_>, u64, u64, u32) -> Result<Progress<u64>, Errno>;

/// Moves messages of a `struct mmsghdr` array: waits for the first, and takes what else goes without waiting.
fn many(c: &mut Context<'_>, fd: u64, va: u64, count: u64, flags: u32, one: One) -> SysResult {
    let count = u64::from(low32(count)).min(MAX_MESSAGES);
    of(c, fd)?;
    for i in 0..count {
        let at = va.wrapping_add(i * 64);
        let wait = if i == 0 { flags } else { flags | MSG_DONTWAIT };
        let bytes = match one(c, fd, at, wait) {
            Ok(Progress::Done(n)) => n,
            Ok(Progress::Sleep(block)) if i == 0 => return Ok(Outcome::Block(block)),
            Err(e) if i == 0 => return Err(e),
            _ => return ret(i),
        };
        // What the first message slept for is over.
        if let Some(t) = c.k.task_mut(c.tid) {
            t.resume = None;
        }
        match c.k.put_u32(c.tid, at.wrapping_add(56), low32(bytes)) {
            Ok(()) => {}
            Err(e) if i == 0 => return Err(e),
            Err(_) => return ret(i),
        }
    }
    ret(count)
}

fn sendmmsg(c: &mut Context<'_>, &[fd, va, count, flags, ..]: &[u64; 6]) -> SysResult {
    many(c, fd, va, count, low32(flags) & !MSG_WAITFORONE | (low32(flags) & MSG_NOSIGNAL), send_one)
}

fn recvmmsg(c: &mut Context<'_>, &[fd, va, count, flags, timeout, _]: &[u64; 6]) -> SysResult {
    if timeout != 0 {
        super::time::timespec(c, timeout)?;
    }
    many(c, fd, va, count, low32(flags) & !MSG_WAITFORONE, receive_one)
}
