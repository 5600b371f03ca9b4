//! Blocking as data: what a task waits for, and how its call ends.
//!
//! A handler that cannot finish returns [`Outcome::Block`]. The task sleeps on the listed keys; a waker names a key
//! ([`crate::kernel::Kernel::wake`]), and the handler is called again from the start with [`Resume`] telling why. Handlers re-check
//! their condition: a wake-up is a hint.

use crate::errno::Errno;
use crate::futex::FutexKey;
use crate::platform::Ns;
use serde::{Deserialize, Serialize};

/// Something a task can sleep on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WaitKey {
    /// A pollable object (pipe, eventfd, epoll, host stream, work channel, ...), by its object number
    /// ([`crate::kernel::Kernel::new_object`]).
    Object(u64),
    /// A futex.
    Futex(FutexKey),
    /// A child of this process changed state.
    Child(u32),
    /// A signal for this task arrived (sigtimedwait, pause); any signal wakes a sleeping task anyway.
    Signal(u32),
    /// This process, born by vfork(2), executed a program or ended.
    Vfork(u32),
}

/// How an interrupted call ends when a handler ran (signal(7), "Interruption of system calls").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restart {
    /// Restarted when the handler has SA_RESTART, else EINTR (ERESTARTSYS).
    IfSaRestart,
    /// EINTR when a handler ran, restarted when none did (ERESTARTNOHAND: poll, pause, sigsuspend, ...).
    UnlessHandler,
    /// As `UnlessHandler`, and the restart keeps the first deadline (ERESTART_RESTARTBLOCK: nanosleep, futex, ...).
    WithDeadline,
    /// Always EINTR, handler or not.
    Never,
    /// Ends with the bytes that were transferred already ([`Block::memo`]`[0]`), handler or not.
    Partial,
}

/// What a sleeping task waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Wakes on any of these; empty sleeps until the deadline or a signal.
    pub on: Vec<WaitKey>,
    /// Wakes at this time, if any.
    pub deadline: Option<Ns>,
    /// The deadline came from a relative time-out: a fork that happens while the seed is paused moves it by the pause.
    pub relative: bool,
    /// How it ends when a signal interrupts it.
    pub restart: Restart,
    /// Private to the handler: comes back in [`Resume::memo`].
    pub memo: [u64; 2],
}

impl Block {
    /// Sleeps on one key without a deadline; restarted after a signal as SA_RESTART says.
    pub fn on(key: WaitKey) -> Self {
        Block { on: vec![key], deadline: None, relative: false, restart: Restart::IfSaRestart, memo: [0; 2] }
    }
}

/// Why a task woke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// One of the keys was woken.
    Woken,
    /// The deadline passed.
    TimedOut,
}

/// What a handler sees when it is called again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Why.
    pub cause: Cause,
    /// The deadline it slept with.
    pub deadline: Option<Ns>,
    /// What it left in [`Block::memo`].
    pub memo: [u64; 2],
}

/// How a handler ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The call returns this in rax.
    Return(u64),
    /// The task sleeps and the call is tried again.
    Block(Block),
    /// The handler has set the registers itself (execve, rt_sigreturn) or the task is gone (exit).
    Done,
}

impl From<u64> for Outcome {
    fn from(x: u64) -> Self {
        Outcome::Return(x)
    }
}

impl From<()> for Outcome {
    fn from((): ()) -> Self {
        Outcome::Return(0)
    }
}

/// What every system-call handler returns.
pub type SysResult = Result<Outcome, Errno>;
