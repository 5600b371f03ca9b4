//! ioctl(2) on sockets: what waits in their queues, and the interface (netdevice(7), unix(7), tcp(7)).

use super::super::{Context, ret};
use crate::errno::Errno;
use crate::net::iface;
use crate::num::{low32, u64_of};
use crate::wait::SysResult;

/// Handles a request on a socket. ENOTTY for those that it has not.
pub fn request(c: &mut Context<'_>, id: u64, request: u32, arg: u64) -> SysResult {
    match request {
        0x541b => {
            let n = c.k.socket_pending(id)?;
            c.k.put_u32(c.tid, arg, low32(n))?;
        }
        // SIOCOUTQ, SIOCOUTQNSD
        0x5411 | 0x894b => {
            let n = c.k.socket_unsent(id)?;
            c.k.put_u32(c.tid, arg, low32(n))?;
        }
        0x8905 => {
            let s = c.k.objects.net.get(id)?;
            if !(s.is_inet() && s.is_connection()) {
                return Err(Errno::ENOTTY);
            }
            let at = u32::from(s.is_at_mark());
            c.k.put_u32(c.tid, arg, at)?;
        }
        // FIOSETOWN, SIOCSPGRP: no signal is sent.
        0x8901 | 0x8902 => {
            c.k.get_u32(c.tid, arg)?;
        }
        0x8903 | 0x8904 => c.k.put_u32(c.tid, arg, 0)?,
        0x8912 => {
            let room = c.k.get_u32(c.tid, arg)?.cast_signed();
            let to = c.k.get_u64(c.tid, arg.wrapping_add(8))?;
            let entry = iface::configuration();
            let fits = usize::try_from(room).is_ok_and(|n| n >= entry.len());
            if to != 0 && fits {
                c.k.copy_out(c.tid, to, &entry)?;
            }
            let n = if to == 0 || fits { u64_of(entry.len()) } else { 0 };
            c.k.put_u32(c.tid, arg, low32(n))?;
        }
        0x8910..=0x89ff => {
            let bytes = c.k.copy_in_vec(c.tid, arg, iface::REQUEST)?;
            let bytes = bytes.first_chunk::<{ iface::REQUEST }>().ok_or(Errno::EFAULT)?;
            let root = c.k.capable(c.tid, crate::task::creds::cap::NET_ADMIN);
            let answer = iface::request(request, bytes, root)?.ok_or(Errno::ENOTTY)?;
            c.k.copy_out(c.tid, arg, &answer)?;
        }
        _ => return Err(Errno::ENOTTY),
    }
    ret(0)
}
