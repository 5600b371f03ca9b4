//! ptrace(2): requests. What a tracee is and where it stops lives in `crate::ptrace`.

use super::{Arg, Context, Entry, ret};
use crate::errno::Errno;
use crate::num::{int, low32, u64_of, us};
use crate::ptrace::option::{ALL, EVENT_STOP};
use crate::ptrace::{Kind, Mode, SIGTRAP, Stop, Trace, regs};
use crate::signal::frame::{le32, le64, put};
use crate::signal::{SigInfo, UNBLOCKABLE};
use crate::task::Tid;
use crate::task::creds::cap::SYS_PTRACE;
use crate::wait::SysResult;

const NOTE: &str = "requests are taken from any thread of the tracer; no hardware breakpoints, no other segments than the usual, no \
    32-bit or SYSEMU requests; threads that others end do not report PTRACE_EVENT_EXIT";

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::partial(101, "ptrace", &[REQUEST, Arg::Int, Arg::Hex, Arg::Hex], NOTE, ptrace),
    // A tracer that changes registers may ask for it; the kernel itself never does.
    Entry::full(219, "restart_syscall", &[], |_, _| Err(Errno::EINTR)),
];

const REQUEST: Arg = Arg::Flags(&[]);
/// Bytes of `struct user` and where its debug registers begin.
const USER: u64 = 912;
const DEBUG: u64 = 848;
/// Register sets: general registers, floating point, XSAVE image.
const NT_PRSTATUS: u64 = 1;
const NT_PRFPREG: u64 = 2;
const NT_X86_XSTATE: u64 = 0x202;
/// Bytes of the legacy region of an XSAVE image.
const LEGACY: usize = 512;
/// What PTRACE_PEEKSIGINFO gives at once.
const MOST_SIGNALS: usize = 512;

fn ptrace(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [request, pid, addr, data, ..] = *a;
    if request == 0 {
        c.k.trace_me(c.tid)?;
        return ret(0);
    }
    let target = u32::try_from(int(pid)).map_err(|_| Errno::ESRCH)?;
    if c.k.task(target).is_none() {
        return Err(Errno::ESRCH);
    }
    match request {
        // PTRACE_ATTACH
        16 => {
            c.k.trace_attach(c.tid, target, false, 0)?;
            return ret(0);
        }
        // PTRACE_SEIZE
        0x4206 => {
            let options =
                u32::try_from(data).ok().filter(|o| o & !ALL == 0 && addr == 0).ok_or(Errno::EIO)?;
            c.k.trace_attach(c.tid, target, true, options)?;
            return ret(0);
        }
        _ => {}
    }
    let me = c.pid()?;
    let trace = c.k.task(target).and_then(|t| t.trace.as_ref()).filter(|t| t.tracer == me);
    let trace = trace.ok_or(Errno::ESRCH)?;
    let seized = trace.seized;
    match (request, &trace.stop) {
        // PTRACE_KILL, PTRACE_INTERRUPT: running or not.
        (8, _) => {
            c.k.signal_task(target, SigInfo { signo: 9, ..SigInfo::default() });
            return ret(0);
        }
        (0x4207, _) => {
            if !seized {
                return Err(Errno::EIO);
            }
            c.k.trace_interrupt(target);
            return ret(0);
        }
        (_, Some(stop)) if !stop.listening => {}
        _ => return Err(Errno::ESRCH),
    }
    go_on(c, request, target, data).unwrap_or_else(|| stopped(c, request, target, addr, data))
}

/// Requests after which the tracee is not stopped any more, or differently.
fn go_on(c: &mut Context<'_>, request: u64, target: Tid, data: u64) -> Option<SysResult> {
    let signo = if data <= 64 { Ok(low32(data)) } else { Err(Errno::EIO) };
    let mode = match request {
        7 => Mode::Cont,
        24 => Mode::Syscall,
        9 => Mode::Step,
        // PTRACE_DETACH
        17 => {
            return Some(signo.and_then(|s| {
                c.k.trace_detach(target, s);
                ret(0)
            }));
        }
        // PTRACE_LISTEN
        0x4208 => return Some(listen(c, target)),
        _ => return None,
    };
    Some(signo.and_then(|s| {
        c.k.trace_resume(target, mode, s);
        ret(0)
    }))
}

fn trace<'a>(c: &'a mut Context<'_>, target: Tid) -> Result<&'a mut Trace, Errno> {
    c.k.task_mut(target).and_then(|t| t.trace.as_deref_mut()).ok_or(Errno::ESRCH)
}

fn stop<'a>(c: &'a mut Context<'_>, target: Tid) -> Result<&'a mut Stop, Errno> {
    trace(c, target)?.stop.as_mut().ok_or(Errno::ESRCH)
}

fn listen(c: &mut Context<'_>, target: Tid) -> SysResult {
    let t = trace(c, target)?;
    let (seized, pending) = (t.seized, t.trap);
    let at = stop(c, target)?;
    if !seized || at.code >> 8 != EVENT_STOP {
        return Err(Errno::EIO);
    }
    at.listening = true;
    if pending {
        trace(c, target)?.trap = false;
        c.k.trace_interrupt(target);
    }
    ret(0)
}

/// The address space of a tracee. One that hides it by now (PR_SET_DUMPABLE, a program that may not be read) does so from its tracer
/// too. EIO.
fn memory(c: &Context<'_>, target: Tid) -> Result<u64, Errno> {
    let dumpable = c.k.process_of(target).is_some_and(|p| p.dumpable == 1);
    if !dumpable && !c.k.capable(c.tid, SYS_PTRACE) {
        return Err(Errno::EIO);
    }
    c.k.task(target).map(|t| t.mm).ok_or(Errno::ESRCH)
}

/// Requests about a tracee that stays stopped.
fn stopped(c: &mut Context<'_>, request: u64, target: Tid, addr: u64, data: u64) -> SysResult {
    match request {
        // PTRACE_PEEKTEXT, PEEKDATA
        1 | 2 => {
            let mm = memory(c, target)?;
            let mut word = [0; 8];
            if c.k.mm_read_forced(mm, addr, &mut word) != 8 {
                return Err(Errno::EIO);
            }
            c.k.copy_out(c.tid, data, &word)?;
        }
        // PTRACE_POKETEXT, POKEDATA
        4 | 5 => {
            let mm = memory(c, target)?;
            if c.k.mm_write_forced(mm, addr, &data.to_le_bytes()) != 8 {
                return Err(Errno::EIO);
            }
        }
        // PTRACE_PEEKUSER
        3 => {
            if !addr.is_multiple_of(8) || addr > USER {
                return Err(Errno::EIO);
            }
            let all = regs::get(c.k.task(target).ok_or(Errno::ESRCH)?);
            c.k.put_u64(c.tid, data, le64(&all, us(addr)))?;
        }
        // PTRACE_POKEUSER; debug registers hold nothing.
        6 => {
            if !addr.is_multiple_of(8) || addr >= USER {
                return Err(Errno::EIO);
            }
            let task = c.k.task_mut(target).ok_or(Errno::ESRCH)?;
            match us(addr / 8) {
                index if index < 27 => regs::set(task, index, data)?,
                _ if addr >= DEBUG => return if data == 0 { ret(0) } else { Err(Errno::EINVAL) },
                _ => return Err(Errno::EIO),
            }
        }
        // PTRACE_GETREGS, SETREGS, GETFPREGS, SETFPREGS
        12 => transfer(c, target, NT_PRSTATUS, (data, regs::LEN), false).map(drop)?,
        13 => transfer(c, target, NT_PRSTATUS, (data, regs::LEN), true).map(drop)?,
        14 => transfer(c, target, NT_PRFPREG, (data, LEGACY), false).map(drop)?,
        15 => transfer(c, target, NT_PRFPREG, (data, LEGACY), true).map(drop)?,
        // PTRACE_GETREGSET, SETREGSET
        0x4204 | 0x4205 => {
            let (base, len) = (c.k.get_u64(c.tid, data)?, c.k.get_u64(c.tid, data.wrapping_add(8))?);
            if len % 8 != 0 {
                return Err(Errno::EINVAL);
            }
            let done = transfer(c, target, addr, (base, us(len)), request == 0x4205)?;
            c.k.put_u64(c.tid, data.wrapping_add(8), u64_of(done))?;
        }
        // PTRACE_SETOPTIONS, and its old number
        0x4200 | 21 => {
            let options = u32::try_from(data).ok().filter(|o| o & !ALL == 0).ok_or(Errno::EINVAL)?;
            trace(c, target)?.options = options;
        }
        // PTRACE_GETEVENTMSG
        0x4201 => {
            let message = trace(c, target)?.message;
            c.k.put_u64(c.tid, data, message)?;
        }
        // PTRACE_GETSIGINFO, SETSIGINFO
        0x4202 => {
            let info = stop(c, target)?.info.ok_or(Errno::EINVAL)?;
            c.k.copy_out(c.tid, data, &info.to_bytes())?;
        }
        0x4203 => {
            let b = c.k.copy_in_vec(c.tid, data, 128)?;
            let at = stop(c, target)?;
            at.info.ok_or(Errno::EINVAL)?;
            at.info = Some(SigInfo::from_bytes(&b, le32(&b, 0)));
        }
        0x4209 => return peek_signals(c, target, addr, data),
        // PTRACE_GETSIGMASK, SETSIGMASK
        0x420a | 0x420b => {
            if addr != 8 {
                return Err(Errno::EINVAL);
            }
            if request == 0x420a {
                let task = c.k.task(target).ok_or(Errno::ESRCH)?;
                let mask = task.saved_sigmask.unwrap_or(task.sigmask);
                c.k.put_u64(c.tid, data, mask)?;
            } else {
                let mask = c.k.get_u64(c.tid, data)? & !UNBLOCKABLE;
                let task = c.k.task_mut(target).ok_or(Errno::ESRCH)?;
                task.saved_sigmask = None;
                task.sigmask = mask;
            }
        }
        0x420e => return syscall_info(c, target, addr, data),
        // PTRACE_GET_RSEQ_CONFIGURATION
        0x420f => {
            let rseq = c.k.task(target).ok_or(Errno::ESRCH)?.rseq;
            let mut b = [0; 24];
            put(&mut b, 0, &rseq.addr.to_le_bytes());
            put(&mut b, 8, &rseq.len.to_le_bytes());
            put(&mut b, 12, &rseq.signature.to_le_bytes());
            let n = us(addr).min(24);
            c.k.copy_out(c.tid, data, b.get(..n).unwrap_or_default())?;
            return ret(24);
        }
        _ => return Err(c.refuse("request", &[request], Errno::EIO)),
    }
    ret(0)
}

/// The extended state of a stopped task as a standard-format XSAVE image.
fn image(c: &Context<'_>, target: Tid) -> Vec<u8> {
    let len = c.k.platform.xstate_len().max(LEGACY + 64);
    let mut b = c.k.task(target).and_then(|t| t.xstate.clone()).unwrap_or_else(|| {
        // The initial state: control words only.
        let mut b = vec![0; len];
        put(&mut b, 0, &0x37f_u16.to_le_bytes());
        put(&mut b, 24, &0x1f80_u32.to_le_bytes());
        put(&mut b, 28, &0xffff_u32.to_le_bytes());
        b
    });
    b.resize(len, 0);
    b
}

/// Moves a register set between a stopped task and the tracer's memory; returns the bytes moved. EINVAL, EIO, EFAULT.
fn transfer(
    c: &mut Context<'_>,
    target: Tid,
    kind: u64,
    (va, len): (u64, usize),
    write: bool,
) -> Result<usize, Errno> {
    let mut all = match kind {
        NT_PRSTATUS => regs::get(c.k.task(target).ok_or(Errno::ESRCH)?),
        NT_PRFPREG => image(c, target).get(..LEGACY).unwrap_or_default().to_vec(),
        NT_X86_XSTATE => image(c, target),
        _ => return Err(Errno::EINVAL),
    };
    let n = len.min(all.len());
    if !write {
        if kind == NT_X86_XSTATE {
            // Where debuggers find which components there are.
            put(&mut all, crate::signal::frame::SW_RESERVED, &c.k.platform.xcr0().to_le_bytes());
        }
        c.k.copy_out(c.tid, va, all.get(..n).unwrap_or_default())?;
        return Ok(n);
    }
    let new = c.k.copy_in_vec(c.tid, va, n)?;
    if kind == NT_PRSTATUS {
        let task = c.k.task_mut(target).ok_or(Errno::ESRCH)?;
        for (index, word) in new.chunks_exact(8).enumerate() {
            regs::set(task, index, le64(word, 0))?;
        }
        return Ok(n);
    }
    let mut whole = image(c, target);
    if kind == NT_X86_XSTATE && n != whole.len() {
        return Err(Errno::EFAULT);
    }
    put(&mut whole, 0, &new);
    let present = le64(&whole, LEGACY) | if kind == NT_PRFPREG { 3 } else { 0 };
    put(&mut whole, LEGACY, &present.to_le_bytes());
    // What the processor would refuse: unknown components, the compacted format, reserved bits.
    let header = whole.get(LEGACY + 8..LEGACY + 64).unwrap_or_default();
    let bad = present & !c.k.platform.xcr0() != 0
        || header.iter().any(|x| *x != 0)
        || le32(&whole, 24) & !0xffff != 0;
    if bad {
        return Err(Errno::EINVAL);
    }
    c.k.task_mut(target).ok_or(Errno::ESRCH)?.xstate = Some(whole);
    Ok(n)
}

/// PTRACE_PEEKSIGINFO: copies of pending signals.
fn peek_signals(c: &mut Context<'_>, target: Tid, addr: u64, data: u64) -> SysResult {
    let b = c.k.copy_in_vec(c.tid, addr, 16)?;
    let (offset, flags, wanted) = (le64(&b, 0), le32(&b, 8), le32(&b, 12).cast_signed());
    if flags & !1 != 0 {
        return Err(Errno::EINVAL);
    }
    let wanted = usize::try_from(wanted).map_err(|_| Errno::EINVAL)?.min(MOST_SIGNALS);
    let queue = if flags & 1 != 0 {
        &c.k.process_of(target).ok_or(Errno::ESRCH)?.pending
    } else {
        &c.k.task(target).ok_or(Errno::ESRCH)?.pending
    };
    let found: Vec<SigInfo> = queue.queue.iter().skip(us(offset)).take(wanted).copied().collect();
    for (at, info) in (0_u64..).zip(&found) {
        let va = data.checked_add(at * 128).ok_or(Errno::EFAULT)?;
        c.k.copy_out(c.tid, va, &info.to_bytes())?;
    }
    ret(u64_of(found.len()))
}

/// PTRACE_GET_SYSCALL_INFO.
fn syscall_info(c: &mut Context<'_>, target: Tid, size: u64, data: u64) -> SysResult {
    let task = c.k.task(target).ok_or(Errno::ESRCH)?;
    let (regs, at) = (&task.regs, task.trace.as_ref().and_then(|t| t.stop.as_ref()).ok_or(Errno::ESRCH)?);
    let mut b = [0; 88];
    let good = at.code == SIGTRAP | 0x80;
    let (op, len) = match at.kind {
        Kind::Entry if good => (1_u8, 80),
        Kind::Exit if good => (2, 33),
        _ => (0, 24),
    };
    b[0] = op;
    // AUDIT_ARCH_X86_64
    put(&mut b, 4, &0xc000_003e_u32.to_le_bytes());
    put(&mut b, 8, &regs.rip.to_le_bytes());
    put(&mut b, 16, &regs.rsp.to_le_bytes());
    if op == 1 {
        let number = task.trace.as_ref().map_or(u64::MAX, |t| t.orig_rax);
        let words = [number, regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9];
        for (i, word) in words.iter().enumerate() {
            put(&mut b, 24 + 8 * i, &word.to_le_bytes());
        }
    }
    if op == 2 {
        put(&mut b, 24, &regs.rax.to_le_bytes());
        put(&mut b, 32, &[u8::from(regs.rax > 4095_u64.wrapping_neg().wrapping_sub(1))]);
    }
    let n = us(size).min(len);
    c.k.copy_out(c.tid, data, b.get(..n).unwrap_or_default())?;
    ret(u64_of(len))
}
