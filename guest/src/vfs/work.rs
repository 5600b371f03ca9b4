//! The work channel as a file: reading takes bytes of the inbox, writing assembles messages for the outbox.

use crate::errno::Errno;
use crate::kernel::{Kernel, WorkChannel};
use crate::num::{u64_of, us};

/// Longest message in bytes, without its length.
pub const MAX_MESSAGE: u64 = 16 << 20;

impl WorkChannel {
    /// Appends bytes up to the end of one message, which moves to the outbox. EAGAIN while the host has not taken the message
    /// before: what a guest writes must not pile up in the host's memory. EMSGSIZE drops what was assembled.
    pub fn write(&mut self, data: &[u8]) -> Result<usize, Errno> {
        if !self.outbox.is_empty() {
            return Err(Errno::EAGAIN);
        }
        let head = 4usize.saturating_sub(self.partial.len()).min(data.len());
        self.partial.extend(data.get(..head).unwrap_or_default());
        let Some(len) = self.partial.first_chunk::<4>() else { return Ok(head) };
        let len = u64::from(u32::from_le_bytes(*len));
        if len > MAX_MESSAGE {
            self.partial.clear();
            return Err(Errno::EMSGSIZE);
        }
        let missing = us(len).saturating_add(4).saturating_sub(self.partial.len());
        let body = data.get(head..).unwrap_or_default();
        let body = body.get(..missing.min(body.len())).unwrap_or_default();
        self.partial.extend(body);
        if body.len() == missing {
            let whole = std::mem::take(&mut self.partial);
            self.outbox.push_back(whole.get(4..).unwrap_or_default().to_vec());
        }
        Ok(head.saturating_add(body.len()))
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
    fn messages_split_anywhere_arrive_whole_one_at_a_time_and_a_long_one_is_refused() {
        let mut w = WorkChannel::default();
        for b in [2u8, 0, 0, 0, b'h', b'i'] {
            assert_eq!(w.write(&[b]), Ok(1));
        }
        assert_eq!(w.write(&[0]), Err(Errno::EAGAIN));
        assert_eq!(w.outbox.pop_front(), Some(b"hi".to_vec()));
        assert_eq!(w.write(&[0, 0, 0, 0, 1, 0]), Ok(4));
        assert_eq!(w.outbox.pop_front(), Some(Vec::new()));
        assert_eq!(w.write(&[1, 0]), Ok(2));
        assert_eq!(w.write(&[0, 0xff]), Err(Errno::EMSGSIZE));
        assert!(w.partial.is_empty());
    }
}
