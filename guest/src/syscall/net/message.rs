//! System calls that send and receive: sendto, sendmsg, sendmmsg and their counterparts.

use super::super::time::timespec;
use super::super::{Context, ret};
use super::{control, of, write_address};
use crate::errno::Errno;
use crate::net::addr::{Address, Family, Given, MAX_ADDRESS};
use crate::net::transfer::{
    MSG_DONTWAIT, MSG_ERRQUEUE, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, Outgoing, Progress,
};
use crate::net::{State, Style};
use crate::num::{low32, u64_of, us};
use crate::signal::frame::{le32, le64};
use crate::vfs::file::MAX_RW_COUNT;
use crate::wait::{Outcome, Restart, SysResult};

/// sendmmsg(2) and recvmmsg(2) take at most this many (UIO_MAXIOV).
const MAX_MESSAGES: u64 = 1024;
const MSG_CMSG_CLOEXEC: u32 = 0x4000_0000;
const MSG_WAITFORONE: u32 = 0x10000;

/// One buffer, checked as Linux checks it. EFAULT never: the copy says that.
fn single(va: u64, len: u64) -> Vec<(u64, u64)> {
    vec![(va, len.min(MAX_RW_COUNT))]
}

/// The destination of a send; nothing means none. EINVAL, EFAULT, EAFNOSUPPORT.
fn destination(c: &mut Context<'_>, id: u64, va: u64, len: u32) -> Result<Option<Address>, Errno> {
    if va == 0 || len == 0 {
        return Ok(None);
    }
    let s = c.k.objects.net.get(id)?;
    if s.is_connection() {
        // A connection ignores it (AF_INET) or must not have it.
        return Ok(Some(Address::Unnamed));
    }
    let own = s.family;
    if len > MAX_ADDRESS {
        return Err(Errno::EINVAL);
    }
    let mut bytes = c.k.copy_in_vec(c.tid, va, us(u64::from(len)))?;
    // ipv6(7): an IPv4 address will do as well. ip(7) sockets take AF_UNSPEC for AF_INET.
    let family = match (bytes.as_mut_slice(), own) {
        ([2, 0, ..], Family::Inet6) => Family::Inet,
        ([kind @ 0, 0, ..], Family::Inet) => {
            *kind = 2;
            own
        }
        ([a, b, ..], Family::Inet6) if !matches!((*a, *b), (0 | 10, 0)) => return Err(Errno::EINVAL),
        _ => own,
    };
    match Address::parse(family, &bytes)? {
        Given::Address(Address::Unnamed) => Err(Errno::EINVAL),
        Given::Address(address) => Ok(Some(address)),
        Given::Unspecified if family == Family::Unix => Err(Errno::EINVAL),
        Given::Unspecified => Ok(None),
    }
}

pub(super) fn sendto(c: &mut Context<'_>, &[fd, va, len, flags, to, to_len]: &[u64; 6]) -> SysResult {
    let (file, id) = of(c, fd)?;
    let to = destination(c, id, to, low32(to_len))?;
    let m = Outgoing { iovecs: single(va, len), flags: low32(flags), to, ..Outgoing::default() };
    Ok(c.k.socket_send(c.tid, file, &m)?.into())
}

pub(super) fn recvfrom(c: &mut Context<'_>, &[fd, va, len, flags, from, from_len]: &[u64; 6]) -> SysResult {
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
pub(super) struct Header {
    name: u64,
    name_len: u32,
    iovecs: u64,
    count: u64,
    pub control: u64,
    pub control_len: u64,
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

fn send_one(c: &mut Context<'_>, fd: u64, va: u64, flags: u32) -> Result<Progress<u64>, Errno> {
    let (file, id) = of(c, fd)?;
    let h = header(c, va)?;
    let s = c.k.objects.net.get(id)?;
    if s.style == Style::SeqPacket && s.state != State::Connected {
        return Err(Errno::ENOTCONN);
    }
    let to = destination(c, id, h.name, h.name_len)?;
    let iovecs = c.k.read_iovecs(c.tid, h.iovecs, h.count)?;
    let mut m = Outgoing { iovecs, flags, to, ..Outgoing::default() };
    control::read(c, id, &h, &mut m)?;
    c.k.socket_send(c.tid, file, &m)
}

pub(super) fn sendmsg(c: &mut Context<'_>, &[fd, va, flags, ..]: &[u64; 6]) -> SysResult {
    Ok(send_one(c, fd, va, low32(flags))?.into())
}

fn receive_one(c: &mut Context<'_>, fd: u64, va: u64, flags: u32) -> Result<Progress<u64>, Errno> {
    let (file, _) = of(c, fd)?;
    let h = header(c, va)?;
    let iovecs = c.k.read_iovecs(c.tid, h.iovecs, h.count)?;
    let known = MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT | MSG_WAITALL | MSG_ERRQUEUE | MSG_OOB;
    let got = match c.k.socket_receive(c.tid, file, &iovecs, flags & known)? {
        Progress::Done(got) => got,
        Progress::Sleep(block) => return Ok(Progress::Sleep(block)),
    };
    let room = if h.control == 0 { 0 } else { h.control_len };
    let (control, shown) = control::build(c, &got, room, flags & MSG_CMSG_CLOEXEC != 0);
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

pub(super) fn recvmsg(c: &mut Context<'_>, &[fd, va, flags, ..]: &[u64; 6]) -> SysResult {
    Ok(receive_one(c, fd, va, low32(flags))?.into())
}

type One = fn(&mut Context<'_>, u64, u64, u32) -> Result<Progress<u64>, Errno>;

/// An array of `struct mmsghdr` to move.
struct Many {
    fd: u64,
    va: u64,
    count: u64,
    flags: u32,
    /// When no further message is begun; 0 never.
    deadline: u64,
    one: One,
}

/// Moves messages until one fails, or the deadline has passed after one.
fn many(c: &mut Context<'_>, m: &Many) -> SysResult {
    let (_, id) = of(c, m.fd)?;
    let receives = m.flags & MSG_WAITFORONE != 0;
    // What a sleep left: the messages that are done, and the deadline.
    let (mut i, mut deadline) = (0, m.deadline);
    if let Some(r) = c.k.task_mut(c.tid).and_then(|t| t.resume.as_mut()) {
        [i, deadline] = std::mem::take(&mut r.memo);
    }
    let stream = c.k.objects.net.get(id)?.is_connection();
    while i < m.count {
        let at = m.va.wrapping_add(i * 64);
        let wait = i == 0 || !(receives || stream);
        let flags = m.flags & !MSG_WAITFORONE | if wait { 0 } else { MSG_DONTWAIT };
        let bytes = match (m.one)(c, m.fd, at, flags) {
            Ok(Progress::Done(n)) => n,
            Ok(Progress::Sleep(mut block)) => {
                if i > 0 || block.memo == [0; 2] {
                    block.memo = [i, deadline];
                    block.restart = if i > 0 { Restart::Partial } else { block.restart };
                }
                return Ok(Outcome::Block(block));
            }
            Err(e) if i == 0 => return Err(e),
            Err(_) => return ret(i),
        };
        // What the message slept for is over.
        if let Some(t) = c.k.task_mut(c.tid) {
            t.resume = None;
        }
        match c.k.put_u32(c.tid, at.wrapping_add(56), low32(bytes)) {
            Ok(()) => {}
            Err(e) if i == 0 => return Err(e),
            Err(_) => return ret(i),
        }
        i += 1;
        if deadline != 0 && c.k.platform.monotonic() >= deadline {
            break;
        }
    }
    ret(i)
}

pub(super) fn sendmmsg(c: &mut Context<'_>, &[fd, va, count, flags, ..]: &[u64; 6]) -> SysResult {
    let count = u64::from(low32(count)).min(MAX_MESSAGES);
    let flags = low32(flags) & !MSG_WAITFORONE;
    many(c, &Many { fd, va, count, flags, deadline: 0, one: send_one })
}

pub(super) fn recvmmsg(c: &mut Context<'_>, &[fd, va, count, flags, timeout, _]: &[u64; 6]) -> SysResult {
    let mut deadline = 0;
    if timeout != 0 {
        let limit = timespec(c, timeout)?;
        deadline = c.k.platform.monotonic().saturating_add(limit).max(1);
    }
    let count = u64::from(low32(count)).min(MAX_MESSAGES);
    let result = many(c, &Many { fd, va, count, flags: low32(flags), deadline, one: receive_one });
    if let (Ok(Outcome::Return(1..)), true) = (&result, timeout != 0) {
        let left = deadline.saturating_sub(c.k.platform.monotonic());
        c.put_words(timeout, &[left / 1_000_000_000, left % 1_000_000_000])?;
    }
    result
}
