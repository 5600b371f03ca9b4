//! ioctl(2) on terminals (ioctl_tty(2)).

use super::termios::{LEN, LEN2, Termios};
use super::{TtyEnd, jobs};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{int, low32, u64_of};
use crate::syscall::{Context, ret};
use crate::wait::{Outcome, SysResult, WaitKey};
use linux_raw_sys::general as g;

/// A termios with its length in user memory, and what to flush first, by request.
fn setter(request: u32) -> Option<(usize, bool)> {
    match request {
        0x5402 | 0x5403 => Some((LEN, false)),
        0x5404 => Some((LEN, true)),
        0x402c_542b | 0x402c_542c => Some((LEN2, false)),
        0x402c_542d => Some((LEN2, true)),
        _ => None,
    }
}

/// Handles one request on one end of a terminal.
pub fn ioctl(c: &mut Context<'_>, end: TtyEnd, request: u32, arg: u64) -> SysResult {
    let n = end.tty;
    if !end.master && c.k.tty(n)?.hung_up {
        return Err(if request == 0x5410 { Errno::ENOTTY } else { Errno::EIO });
    }
    if let Some((len, flush)) = setter(request) {
        return set_modes(c, &end, arg, len, flush);
    }
    match request {
        0x5401 | 0x802c_542a => {
            let b = c.k.tty(n)?.termios.to_bytes();
            let len = if request == 0x5401 { LEN } else { LEN2 };
            c.k.copy_out(c.tid, arg, b.get(..len).unwrap_or_default())?;
        }
        // TCSBRK, TCSBRKP: nothing waits on a line, and there is no break.
        0x5409 | 0x5425 => {
            if let Some(outcome) = background(c, &end)? {
                return Ok(outcome);
            }
        }
        0x540a => return flow(c, &end, int(arg)),
        0x540b => return flush(c, &end, int(arg)),
        0x540c => c.k.tty_mut(n)?.exclusive = true,
        0x540d => c.k.tty_mut(n)?.exclusive = false,
        0x8004_5440 => {
            let on = c.k.tty(n)?.exclusive;
            c.k.put_u32(c.tid, arg, u32::from(on))?;
        }
        0x540e if !end.master => {
            let pid = c.pid()?;
            c.k.set_controlling_tty(pid, n, int(arg) == 1)?;
        }
        0x540e => return Err(Errno::EPERM),
        0x5422 if !end.master => {
            let pid = c.pid()?;
            c.k.give_up_tty(pid, n)?;
        }
        0x540f | 0x5429 => return ids(c, &end, request, arg),
        0x5410 => {
            let group = c.k.get_u32(c.tid, arg)?.cast_signed();
            if let Some(outcome) = c.k.set_foreground(c.tid, n, group)? {
                return Ok(outcome);
            }
        }
        // TIOCOUTQ: what is written is with the master at once.
        0x5411 => c.k.put_u32(c.tid, arg, 0)?,
        // TIOCSTI: programs may not type (dev.tty.legacy_tiocsti = 0).
        0x5412 => return Err(Errno::EIO),
        0x5413 => {
            let size = c.k.tty(n)?.winsize;
            c.k.copy_out(c.tid, arg, &size)?;
        }
        0x5414 => {
            let b = c.k.copy_in_vec(c.tid, arg, 8)?;
            c.k.tty_resize(n, b.try_into().unwrap_or_default());
        }
        0x541b => {
            let t = c.k.tty(n)?;
            let waiting = if end.master { t.output.len() } else { t.available() };
            c.k.put_u32(c.tid, arg, low32(u64_of(waiting)))?;
        }
        // TIOCGSOFTCAR, TIOCSSOFTCAR: CLOCAL.
        0x5419 => {
            let on = c.k.tty(n)?.termios.control & 0o4000 != 0;
            c.k.put_u32(c.tid, arg, u32::from(on))?;
        }
        0x541a => {
            let on = c.k.get_u32(c.tid, arg)? != 0;
            let t = &mut c.k.tty_mut(n)?.termios;
            t.control = if on { t.control | 0o4000 } else { t.control & !0o4000 };
        }
        // TIOCSETD, TIOCGETD: there is one line discipline.
        0x5423 => {
            if c.k.get_u32(c.tid, arg)? != 0 {
                return Err(Errno::EINVAL);
            }
        }
        0x5424 => c.k.put_u32(c.tid, arg, 0)?,
        0x8004_5432 => {
            let number = super::pts::device_number(n);
            c.k.put_u32(c.tid, arg, low32(number))?;
        }
        _ if end.master => return master(c, n, request, arg),
        // TIOCGPTPEER of a slave.
        0x5441 => return Err(Errno::EIO),
        _ => return Err(Errno::ENOTTY),
    }
    ret(0)
}

/// Requests that only a master knows.
fn master(c: &mut Context<'_>, n: u32, request: u32, arg: u64) -> SysResult {
    match request {
        // TIOCPKT, TIOCGPKT
        0x5420 => {
            let on = c.k.get_u32(c.tid, arg)? != 0;
            let t = c.k.tty_mut(n)?;
            if on && !t.packet {
                t.status = 0;
            }
            t.packet = on;
        }
        0x8004_5438 => {
            let on = c.k.tty(n)?.packet;
            c.k.put_u32(c.tid, arg, u32::from(on))?;
        }
        // TIOCGPTN, TIOCSPTLCK, TIOCGPTLCK
        0x8004_5430 => c.k.put_u32(c.tid, arg, n)?,
        0x4004_5431 => {
            let on = c.k.get_u32(c.tid, arg)? != 0;
            c.k.tty_mut(n)?.locked = on;
        }
        0x8004_5439 => {
            let on = c.k.tty(n)?.locked;
            c.k.put_u32(c.tid, arg, u32::from(on))?;
        }
        // TIOCSIG
        0x4004_5436 => {
            let signo =
                u32::try_from(int(arg)).ok().filter(|s| matches!(s, 2 | 3 | 20)).ok_or(Errno::EINVAL)?;
            let group = c.k.tty(n)?.group;
            if group != 0 {
                c.k.signal_group(group, signo);
            }
        }
        // TIOCGPTPEER: the slave, whatever the mount it would be found by.
        0x5441 => {
            let flags = low32(arg);
            let node = c.k.tty(n)?.node;
            let pid = c.pid()?;
            let slave = c.k.slave_open(c.tid, pid, n, node, flags)?;
            return ret(u64::from(c.k.install_fd(c.tid, slave, flags & g::O_CLOEXEC != 0)?));
        }
        _ => return Err(Errno::ENOTTY),
    }
    ret(0)
}

/// What a background process may not do to its terminal.
fn background(c: &mut Context<'_>, end: &TtyEnd) -> Result<Option<Outcome>, Errno> {
    if end.master { Ok(None) } else { c.k.check_foreground(c.tid, end.tty, jobs::SIGTTOU) }
}

fn set_modes(c: &mut Context<'_>, end: &TtyEnd, arg: u64, len: usize, flush: bool) -> SysResult {
    if let Some(outcome) = background(c, end)? {
        return Ok(outcome);
    }
    let b = c.k.copy_in_vec(c.tid, arg, len)?;
    let t = c.k.tty_mut(end.tty)?;
    if flush {
        t.flush_input();
    }
    let new = Termios::from_bytes(&b, &t.termios);
    t.set_termios(new);
    c.k.tty_pump(end.tty);
    ret(0)
}

fn flow(c: &mut Context<'_>, end: &TtyEnd, action: i32) -> SysResult {
    if let Some(outcome) = background(c, end)? {
        return Ok(outcome);
    }
    let t = c.k.tty_mut(end.tty)?;
    match action {
        0 => t.set_stopped(true),
        1 => t.set_stopped(false),
        // The STOP and START characters go to the other side.
        2 | 3 => {
            let index = if action == 2 { super::flag::VSTOP } else { super::flag::VSTART };
            let ch = t.termios.char(index);
            t.send_flow(ch);
        }
        _ => return Err(Errno::EINVAL),
    }
    let object = t.slave_object;
    c.k.wake(WaitKey::Object(object));
    c.k.tty_output(end.tty);
    ret(0)
}

fn flush(c: &mut Context<'_>, end: &TtyEnd, which: i32) -> SysResult {
    if let Some(outcome) = background(c, end)? {
        return Ok(outcome);
    }
    let t = c.k.tty_mut(end.tty)?;
    let (read, write) = match which {
        0 => (true, false),
        1 => (false, true),
        2 => (true, true),
        _ => return Err(Errno::EINVAL),
    };
    // The master reads what the slave writes.
    let (input, output) = if end.master { (write, read) } else { (read, write) };
    if input {
        t.flush_input();
        t.incoming.clear();
    }
    if output {
        t.flush_output();
    }
    let (m, s) = (t.master_object, t.slave_object);
    c.k.wake(WaitKey::Object(m));
    c.k.wake(WaitKey::Object(s));
    ret(0)
}

/// TIOCGPGRP and TIOCGSID: of the caller's controlling terminal, or through a master.
fn ids(c: &mut Context<'_>, end: &TtyEnd, request: u32, arg: u64) -> SysResult {
    let pid = c.pid()?;
    if !end.master && c.k.controlling_tty(pid) != Some(end.tty) {
        return Err(Errno::ENOTTY);
    }
    let t = c.k.tty(end.tty)?;
    if request == 0x5429 && t.session == 0 {
        return Err(Errno::ENOTTY);
    }
    let id = if request == 0x5429 { t.session } else { t.group };
    c.k.put_u32(c.tid, arg, id)?;
    ret(0)
}

impl Kernel {
    /// Sets a terminal's size; a change is told to the foreground group.
    pub(crate) fn tty_resize(&mut self, n: u32, winsize: [u8; 8]) {
        let Ok(t) = self.tty_mut(n) else { return };
        if std::mem::replace(&mut t.winsize, winsize) == winsize {
            return;
        }
        let group = t.group;
        if group != 0 {
            self.signal_group(group, 28);
        }
    }
}
