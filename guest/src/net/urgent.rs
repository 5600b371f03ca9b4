//! TCP's urgent byte (tcp(7), "Sockets API", MSG_OOB): it stays in the stream; a mark says where, and who asks for it gets a copy.

use super::Socket;
use super::options::{SO_OOBINLINE, SOL_SOCKET};
use crate::errno::Errno;
use serde::{Deserialize, Serialize};

/// The byte that was sent last with MSG_OOB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Urgent {
    /// Unread bytes before it.
    pub ahead: usize,
    /// The byte.
    pub byte: u8,
    /// It was received with MSG_OOB.
    pub taken: bool,
}

impl Urgent {
    /// What is left of the mark after `n` bytes were read.
    pub(super) fn after(self, n: usize) -> Option<Urgent> {
        Some(Urgent { ahead: self.ahead.checked_sub(n)?, ..self })
    }
}

impl Socket {
    fn is_inline(&self) -> bool {
        self.options.is_on(SOL_SOCKET, SO_OOBINLINE)
    }

    /// SIOCATMARK.
    pub fn is_at_mark(&self) -> bool {
        self.urgent.is_some_and(|u| u.ahead == 0)
    }

    /// Whether the next byte is urgent and not a part of what an ordinary receive gives.
    pub(super) fn is_at_hole(&self) -> bool {
        self.is_at_mark() && !self.is_inline()
    }

    /// Whether POLLPRI is to be shown.
    pub(super) fn has_urgent(&self) -> bool {
        self.urgent.is_some_and(|u| !u.taken)
    }

    /// Unread bytes up to the mark, which an ordinary receive does not pass at one go.
    pub(super) fn before_mark(&self) -> usize {
        match self.urgent {
            Some(u) if u.ahead > 0 => u.ahead.min(self.bytes),
            _ => self.bytes,
        }
    }

    /// FIONREAD.
    pub(super) fn readable(&self) -> usize {
        match self.urgent {
            Some(u) if !self.is_inline() => u.ahead.min(self.bytes),
            _ => self.bytes,
        }
    }

    /// recv(2) with MSG_OOB: the byte, or `None` at the end of the stream. EINVAL where there is none or it was taken.
    pub(super) fn take_urgent(&mut self, peek: bool) -> Result<u8, Errno> {
        if self.is_inline() {
            return Err(Errno::EINVAL);
        }
        match &mut self.urgent {
            Some(u) if !u.taken => {
                u.taken = !peek;
                Ok(u.byte)
            }
            _ => Err(Errno::EINVAL),
        }
    }
}
