//! Operations of futex(2) on locks of the PI kind.

use super::super::{Context, ret};
use crate::errno::Errno;
use crate::futex::Role;
use crate::futex::pi::Attempt;
use crate::platform::Ns;
use crate::wait::{Block, Cause, Outcome, Restart, SysResult};

fn sleep(deadline: Option<Ns>) -> SysResult {
    let restart = Restart::WithDeadline;
    Ok(Outcome::Block(Block { on: Vec::new(), deadline, relative: false, restart, memo: [0; 2] }))
}

fn timed_out(c: &Context<'_>) -> bool {
    c.k.task(c.tid).and_then(|t| t.resume).is_some_and(|r| r.cause == Cause::TimedOut)
}

/// FUTEX_LOCK_PI, FUTEX_LOCK_PI2, FUTEX_TRYLOCK_PI.
pub fn lock(c: &mut Context<'_>, va: u64, private: bool, deadline: Option<Ns>, only_try: bool) -> SysResult {
    let key = c.k.futex_key(c.tid, va, private)?;
    // The one that unlocked it made the caller its owner.
    if c.k.futexes.was_woken(c.tid) {
        return ret(0);
    }
    let late = timed_out(c);
    c.k.futexes.forget(c.tid);
    match c.k.pi_attempt(c.tid, va, key, only_try)? {
        Attempt::Taken => ret(0),
        Attempt::Held(_) if late => Err(Errno::ETIMEDOUT),
        Attempt::Held(owner) => {
            c.k.futexes.enqueue_lock(key, c.tid, va, owner);
            sleep(deadline)
        }
    }
}

/// FUTEX_WAIT_REQUEUE_PI: ends with the lock at the second address, or without having been moved to it.
pub fn wait_requeue(
    c: &mut Context<'_>,
    (va, va2): (u64, u64),
    private: bool,
    value: u32,
    _bitset: u32,
    deadline: Option<Ns>,
) -> SysResult {
    if va == va2 {
        return Err(Errno::EINVAL);
    }
    if c.k.futexes.was_woken(c.tid) {
        return ret(0);
    }
    if timed_out(c) {
        c.k.futexes.forget(c.tid);
        return Err(Errno::ETIMEDOUT);
    }
    let (from, to) = (c.k.futex_key(c.tid, va, private)?, c.k.futex_key(c.tid, va2, private)?);
    if c.k.futex_load(c.tid, va)? != value {
        return Err(Errno::EAGAIN);
    }
    if from == to {
        return Err(Errno::EINVAL);
    }
    c.k.futexes.enqueue_all(&[from], c.tid, u32::MAX, Role::Requeue(to, va2));
    sleep(deadline)
}

/// FUTEX_CMP_REQUEUE_PI.
pub fn cmp_requeue(
    c: &mut Context<'_>,
    (va, va2): (u64, u64),
    private: bool,
    (wake, moved): (u32, u32),
    expected: u32,
) -> SysResult {
    if wake != 1 || moved.cast_signed() < 0 || va == va2 {
        return Err(Errno::EINVAL);
    }
    let (from, to) = (c.k.futex_key(c.tid, va, private)?, c.k.futex_key(c.tid, va2, private)?);
    if from == to {
        return Err(Errno::EINVAL);
    }
    if c.k.futex_load(c.tid, va)? != expected {
        return Err(Errno::EAGAIN);
    }
    ret(c.k.pi_requeue(from, to, moved)?)
}
