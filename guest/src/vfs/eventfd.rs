//! eventfd(2): a 64-bit counter that can be polled.

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::task::Tid;
use crate::vfs::file::O_NONBLOCK;
use crate::vfs::{FileKind, OpenFile};
use crate::wait::{Outcome, SysResult};
use serde::{Deserialize, Serialize};

/// One eventfd.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventFd {
    /// Its object number for waiters.
    pub object: u64,
    /// The counter, at most `u64::MAX - 1`.
    pub count: u64,
    /// EFD_SEMAPHORE.
    pub semaphore: bool,
}

impl EventFd {
    /// What a read returns now. EAGAIN at zero.
    pub fn peek(&self) -> Result<u64, Errno> {
        match (self.count, self.semaphore) {
            (0, _) => Err(Errno::EAGAIN),
            (_, true) => Ok(1),
            (n, false) => Ok(n),
        }
    }

    /// Takes what a read returned.
    pub fn consume(&mut self) {
        self.count = if self.semaphore { self.count.saturating_sub(1) } else { 0 };
    }

    /// Adds. EINVAL for `u64::MAX`, EAGAIN when the counter would overflow.
    pub fn add(&mut self, value: u64) -> Result<(), Errno> {
        if value == u64::MAX {
            return Err(Errno::EINVAL);
        }
        match self.count.checked_add(value) {
            Some(n) if n < u64::MAX => {
                self.count = n;
                Ok(())
            }
            _ => Err(Errno::EAGAIN),
        }
    }

    /// POLL* events.
    pub fn poll(&self) -> u32 {
        let input = if self.count > 0 { crate::poll::POLLIN } else { 0 };
        let output = if self.count < u64::MAX - 1 { crate::poll::POLLOUT } else { 0 };
        input | output
    }
}

impl Kernel {
    /// Makes an eventfd with one reference. `flags` are O_NONBLOCK or 0.
    pub fn eventfd_create(&mut self, count: u64, semaphore: bool, flags: u32) -> u64 {
        let object = self.new_object();
        let id = self.objects.eventfds.insert(EventFd { object, count, semaphore });
        self.files.insert(OpenFile { kind: FileKind::EventFd(id), flags: flags | 2, pos: 0, refs: 1 })
    }

    /// write(2) to an eventfd: every buffer is a number of 8 bytes, added by itself. EINVAL for other lengths, EAGAIN, EFAULT.
    pub(super) fn eventfd_write(
        &mut self,
        tid: Tid,
        (file, f): (u64, &OpenFile),
        iovecs: &[(u64, u64)],
    ) -> SysResult {
        let before = self.moved_before(tid);
        let mut done = 0;
        for buffer in iovecs {
            let (_, len) = *buffer;
            if done < before {
                done += len;
                continue;
            }
            let data = self.gather(tid, &[*buffer].map(|(va, len)| (va, len.min(9))));
            let added = match (len, data.first_chunk::<8>()) {
                (8, Some(_)) => self.file_push(f, 0, &data),
                (8, None) => Err(Errno::EFAULT),
                _ => Err(Errno::EINVAL),
            };
            match added {
                Ok(_) => done += len,
                Err(Errno::EAGAIN) if f.flags & O_NONBLOCK == 0 => {
                    return self.block_on(file, crate::poll::POLLOUT, done);
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(Outcome::Return(done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_blocks_at_its_bounds_and_a_semaphore_counts_down_by_one() {
        let mut e = EventFd { object: 1, count: 0, semaphore: false };
        assert_eq!(e.peek(), Err(Errno::EAGAIN));
        assert_eq!(e.add(u64::MAX), Err(Errno::EINVAL));
        assert_eq!(e.add(u64::MAX - 1), Ok(()));
        assert_eq!(e.add(1), Err(Errno::EAGAIN));
        assert_eq!(e.poll(), crate::poll::POLLIN);
        e.consume();
        assert_eq!(e.count, 0);
        e.semaphore = true;
        e.count = 3;
        assert_eq!(e.peek(), Ok(1));
        e.consume();
        assert_eq!(e.count, 2);
    }
}
