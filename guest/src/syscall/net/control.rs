//! Control messages (cmsg(3)): those that a sendmsg(2) brings, and those that a recvmsg(2) shows.

use super::super::Context;
use super::message::Header;
use crate::errno::Errno;
use crate::net::Cred;
use crate::net::options::{SOL_IP, SOL_IPV6, SOL_SOCKET};
use crate::net::transfer::{Control, MSG_CTRUNC, Outgoing, Received};
use crate::num::{u64_of, us};
use crate::signal::frame::{le32, le64};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const SCM_RIGHTS: u32 = 1;
const SCM_CREDENTIALS: u32 = 2;
/// Descriptors that one message may carry (SCM_MAX_FD).
const MAX_RIGHTS: usize = 253;
/// Longest control data that a message may carry, bytes (/proc/sys/net/core/optmem_max).
const MAX_CONTROL: u64 = 131_072;

/// Puts the control data of a message into what is sent. EINVAL, EBADF, EPERM, ENOBUFS, ETOOMANYREFS.
pub(super) fn read(c: &mut Context<'_>, id: u64, h: &Header, m: &mut Outgoing) -> Result<(), Errno> {
    if h.control_len == 0 || h.control == 0 {
        return Ok(());
    }
    if h.control_len > MAX_CONTROL {
        return Err(Errno::ENOBUFS);
    }
    let s = c.k.objects.net.get(id)?;
    let (inet, datagram) = (s.is_inet(), !s.is_connection());
    let bytes = c.k.copy_in_vec(c.tid, h.control, us(h.control_len))?;
    let mut rest = bytes.as_slice();
    // Headers are 16 bytes; a tail that is too short for one is ignored.
    while rest.len() >= 16 {
        let (len, level, kind) = (us(le64(rest, 0)), le32(rest, 8), le32(rest, 12));
        let data = match len.checked_sub(16) {
            Some(_) => rest.get(16..len).ok_or(Errno::EINVAL)?,
            None => return Err(Errno::EINVAL),
        };
        match level {
            SOL_SOCKET if !inet => unix(c, kind, data, m)?,
            // Rights and credentials are for AF_UNIX; others ignore them.
            SOL_SOCKET if matches!(kind, SCM_RIGHTS | SCM_CREDENTIALS) => {}
            SOL_SOCKET => return Err(Errno::EINVAL),
            SOL_IP | SOL_IPV6 if inet && datagram => packet(level, kind, data, m)?,
            _ => {}
        }
        let step = len.checked_add(7).map_or(usize::MAX, |n| n & !7);
        rest = rest.get(step..).unwrap_or_default();
    }
    Ok(())
}

fn unix(c: &mut Context<'_>, kind: u32, data: &[u8], m: &mut Outgoing) -> Result<(), Errno> {
    match kind {
        SCM_RIGHTS => {
            for fd in data.chunks_exact(4) {
                if m.files.len() >= MAX_RIGHTS {
                    return Err(Errno::EINVAL);
                }
                let file = c.k.file_of(c.tid, le32(fd, 0).cast_signed())?;
                m.files.push(file);
            }
        }
        SCM_CREDENTIALS => {
            if data.len() != 12 {
                return Err(Errno::EINVAL);
            }
            let cred = Cred { pid: le32(data, 0), uid: le32(data, 4), gid: le32(data, 8) };
            c.k.socket_may_claim(c.tid, cred)?;
            m.cred = Some(cred);
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

/// A number in the control data of a packet, within a range. EINVAL.
fn number(data: &[u8], least: i32) -> Result<u8, Errno> {
    let x = match data {
        [one] => i32::from(*one),
        [a, b, c, d] => i32::from_le_bytes([*a, *b, *c, *d]),
        _ => return Err(Errno::EINVAL),
    };
    if x < least { Err(Errno::EINVAL) } else { u8::try_from(x).map_err(|_| Errno::EINVAL) }
}

fn packet(level: u32, kind: u32, data: &[u8], m: &mut Outgoing) -> Result<(), Errno> {
    let index = |at: usize| match data.get(at..at + 4).map(|b| le32(b, 0)) {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        Some(_) => Err(Errno::ENODEV),
        None => Err(Errno::EINVAL),
    };
    match (level, kind) {
        (SOL_IP, 1) => m.tos = Some(number(data, 0)?),
        (SOL_IP, 2) => m.ttl = Some(number(data, 1)?),
        (SOL_IPV6, 52) => m.ttl = Some(number(data, 0)?),
        (SOL_IPV6, 67) => m.tos = Some(number(data, 0)?),
        (SOL_IP, 8) if data.len() == 12 => {
            m.device = index(0)?;
            let source = data.get(4..).and_then(|b| b.first_chunk::<4>()).copied().unwrap_or_default();
            m.source = Some(IpAddr::V4(Ipv4Addr::from(source)));
        }
        (SOL_IPV6, 50) if data.len() == 20 => {
            m.device = index(16)?;
            let source = data.first_chunk::<16>().copied().unwrap_or_default();
            let source = Ipv6Addr::from(source);
            if !source.is_unspecified() && !source.is_loopback() && source.to_ipv4_mapped().is_none() {
                return Err(Errno::EINVAL);
            }
            m.source = Some(IpAddr::V6(source));
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
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
pub(super) fn build(c: &mut Context<'_>, got: &Received, room: u64, cloexec: bool) -> (Vec<u8>, u32) {
    let room = us(room.min(MAX_CONTROL));
    let (mut out, mut flags) = (Vec::new(), got.flags);
    let put = |out: &mut Vec<u8>, control: &Control, flags: &mut u32| {
        let left = room.saturating_sub(out.len());
        if left < 16 {
            *flags |= MSG_CTRUNC;
            return;
        }
        let len = (16 + control.data.len()).min(left);
        if len < 16 + control.data.len() {
            *flags |= MSG_CTRUNC;
        }
        out.extend(u64_of(len).to_le_bytes());
        out.extend(control.level.to_le_bytes());
        out.extend(control.kind.to_le_bytes());
        out.extend(control.data.get(..len - 16).unwrap_or_default());
        let padded = out.len().next_multiple_of(8).min(room);
        out.resize(padded.max(out.len()), 0);
    };
    for control in &got.controls {
        put(&mut out, control, &mut flags);
    }
    if let Some(cred) = got.cred {
        let data = [cred.pid.to_le_bytes(), cred.uid.to_le_bytes(), cred.gid.to_le_bytes()].concat();
        put(&mut out, &Control { level: SOL_SOCKET, kind: SCM_CREDENTIALS, data }, &mut flags);
    }
    if !got.files.is_empty() {
        let most = room.saturating_sub(out.len()).saturating_sub(16) / 4;
        let fds = install(c, &got.files, most, cloexec);
        if fds.len() < got.files.len() {
            flags |= MSG_CTRUNC;
        }
        if !fds.is_empty() {
            let data: Vec<u8> = fds.iter().flat_map(|fd| fd.to_le_bytes()).collect();
            put(&mut out, &Control { level: SOL_SOCKET, kind: SCM_RIGHTS, data }, &mut flags);
        }
    }
    (out, flags)
}
