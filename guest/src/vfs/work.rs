//! The work channel as a file: reading takes bytes of the inbox, writing assembles messages for the outbox.

use crate::errno::Errno;
use crate::kernel::{Kernel, WorkChannel};
use crate::num::{u64_of, us};

/// Longest message in bytes, without its length.
pub const MAX_MESSAGE: u64 = 16 << 20;
/// Messages that wait for the host before writers wait too.
const MAX_WAITING: usize = 64;

impl WorkChannel {
    /// Whether nothing may be written until the host has taken a message.
    pub fn is_full(&self) -> bool {
        let held = || self.outbox.iter().map(|m| u64_of(m.len())).fold(0, u64::saturating_add);
        self.outbox.len() >= MAX_WAITING || held() >= MAX_MESSAGE
    }

    /// Appends bytes and moves whole messages to the outbox. EAGAIN while it is full; EMSGSIZE drops what was assembled.
    pub fn write(&mut self, data: &[u8]) -> Result<usize, Errno> {
        if self.is_full() {
            return Err(Errno::EAGAIN);
        }
        self.partial.extend_from_slice(data);
        let mut at = 0usize;
        while let Some(head) = self.partial.get(at..).and_then(|p| p.first_chunk::<4>()) {
            let len = u64::from(u32::from_le_bytes(*head));
            if len > MAX_MESSAGE {
                self.partial.clear();
                return Err(Errno::EMSGSIZE);
            }
            let Some(message) = self.partial.get(at + 4..at + 4 + us(len)) else { break };
            self.outbox.push_back(message.to_vec());
            at += 4 + us(len);
        }
        self.partial.drain(..at.min(self.partial.len()));
        Ok(data.len())
    }

    /// Copies the oldest bytes without taking them. EAGAIN when there are none.
    pub fn peek(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        if self.inbox.is_empty() && !buf.is_empty() {
            return Err(Errno::EAGAIN);
        }
        Ok(super::pipe::peek_queue(&self.inbox, buf))
    }
}

impl Kernel {
    /// Bytes of the work channel that a read would get now.
    pub fn work_available(&self) -> u64 {
        u64_of(self.work.inbox.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_floods_the_host_waits() {
        let p = std::sync::Arc::new(crate::platform::fake::FakePlatform::new(64 << 20));
        let mut k = Kernel::new(p, crate::kernel::Limits::default()).unwrap();
        let mut sent = 0;
        while k.work.write(&[0; 4]).is_ok() {
            sent += 1;
            assert!(sent <= MAX_WAITING);
        }
        assert_eq!(k.work.write(&[0; 4]), Err(Errno::EAGAIN));
        let object = k.work.object;
        k.tasks.insert(1, crate::task::Task::new(1, 1));
        k.tasks.get_mut(&1).unwrap().state =
            crate::task::TaskState::Blocked(crate::wait::Block::on(crate::wait::WaitKey::Object(object)));
        k.waiters.insert(crate::wait::WaitKey::Object(object), [1].into());
        assert_eq!(k.take_answer(), Some(Vec::new()));
        assert_eq!(k.tasks[&1].state, crate::task::TaskState::Runnable);
        assert_eq!(k.work.write(&[0; 4]), Ok(4));
    }

    #[test]
    fn messages_split_anywhere_arrive_whole_and_a_long_one_is_refused() {
        let mut w = WorkChannel::default();
        for b in [2u8, 0, 0, 0, b'h', b'i', 0, 0, 0, 0, 1, 0] {
            assert_eq!(w.write(&[b]), Ok(1));
        }
        assert_eq!(w.outbox, [b"hi".to_vec(), Vec::new()]);
        assert_eq!(w.partial, [1, 0]);
        assert_eq!(w.write(&[0, 0xff]), Err(Errno::EMSGSIZE));
        assert!(w.partial.is_empty());
    }
}
