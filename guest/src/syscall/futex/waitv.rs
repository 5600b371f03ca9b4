//! futex_waitv(2): sleeps on several words at once.

use super::super::{Context, ret};
use crate::errno::Errno;
use crate::futex::Role;
use crate::num::{int, low32, us};
use crate::wait::{Block, Cause, Outcome, Restart, SysResult};

/// Words at most (FUTEX_WAITV_MAX).
const MOST: u32 = 128;
/// FUTEX2_SIZE_U32 and FUTEX2_PRIVATE.
const SIZE_U32: u32 = 2;
const PRIVATE: u32 = 128;

pub(super) fn futex_waitv(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let (va, count, flags, timeout, clock) = (a[0], low32(a[1]), low32(a[2]), a[3], int(a[4]));
    if flags != 0 || count == 0 || count > MOST || va == 0 {
        return Err(Errno::EINVAL);
    }
    let resume = c.k.task(c.tid).and_then(|t| t.resume);
    let mut deadline = resume.and_then(|r| r.deadline);
    if timeout != 0 && resume.is_none() {
        if !matches!(clock, 0 | 1) {
            return Err(Errno::EINVAL);
        }
        let at = super::super::time::timespec(c, timeout)?;
        deadline = Some(if clock == 0 { super::super::time::realtime_deadline(c.k, at) } else { at });
    }
    if let Some(slot) = c.k.futexes.woken_at(c.tid) {
        return ret(slot.into());
    }
    c.k.futexes.forget(c.tid);
    if resume.is_some_and(|r| r.cause == Cause::TimedOut) {
        return Err(Errno::ETIMEDOUT);
    }
    let raw = c.k.copy_in_vec(c.tid, va, us(u64::from(count) * 24))?;
    let word =
        |b: &[u8], at: usize| b.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    let mut waits = Vec::new();
    for b in raw.chunks_exact(24) {
        let (value, uaddr, flags) = (word(b, 0), word(b, 8), word(b, 16));
        let (kind, reserved) = (low32(flags), low32(flags >> 32));
        if kind & !PRIVATE != SIZE_U32 || reserved != 0 || value > u64::from(u32::MAX) {
            return Err(Errno::EINVAL);
        }
        waits.push((low32(value), uaddr, kind & PRIVATE != 0));
    }
    let mut keys = Vec::new();
    for (_, uaddr, private) in &waits {
        keys.push(c.k.futex_key(c.tid, *uaddr, *private)?);
    }
    for (value, uaddr, _) in &waits {
        if c.k.futex_load(c.tid, *uaddr)? != *value {
            return Err(Errno::EAGAIN);
        }
    }
    c.k.futexes.enqueue_all(&keys, c.tid, u32::MAX, Role::Plain);
    let restart = Restart::IfSaRestart;
    Ok(Outcome::Block(Block { on: Vec::new(), deadline, relative: false, restart, memo: [0; 2] }))
}
