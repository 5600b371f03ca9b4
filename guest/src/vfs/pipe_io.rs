//! Reading and writing pipes on behalf of a task: buffer by buffer, with the sleeps.

use super::OpenFile;
use super::file::{O_NONBLOCK, iovec_total, window};
use super::pipe::O_DIRECT;
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{u64_of, us};
use crate::task::Tid;
use crate::wait::{Outcome, SysResult};
use linux_raw_sys::general::{IN_ACCESS, IN_MODIFY};

impl Kernel {
    /// read(2) from a pipe. A buffer that user memory does not take whole stays.
    pub(super) fn pipe_read(
        &mut self,
        tid: Tid,
        (file, f): (u64, &OpenFile),
        pipe: u64,
        iovecs: &[(u64, u64)],
    ) -> SysResult {
        let (total, mut done) = (iovec_total(iovecs), 0u64);
        while done < total {
            let p = self.objects.pipes.get(pipe).ok_or(Errno::EBADF)?;
            let Some(part) = p.front() else {
                if done > 0 || p.writers == 0 {
                    break;
                }
                if f.flags & O_NONBLOCK != 0 {
                    return Err(Errno::EAGAIN);
                }
                return self.block_on(file, crate::poll::POLLIN, 0);
            };
            let bytes = p.oldest(part.len.min(us(total - done)));
            let want = u64_of(bytes.len());
            if self.scatter(tid, &window(iovecs, done, want), &bytes) < bytes.len() {
                if done == 0 {
                    return Err(Errno::EFAULT);
                }
                break;
            }
            self.file_consume(f, if part.packet { part.len } else { bytes.len() });
            done = done.saturating_add(want);
            if part.packet {
                break;
            }
        }
        if done > 0 {
            self.notify_file(f, IN_ACCESS);
        }
        Ok(Outcome::Return(done))
    }

    /// write(2) to a pipe.
    pub(super) fn pipe_write(
        &mut self,
        tid: Tid,
        (file, f): (u64, &OpenFile),
        pipe: u64,
        iovecs: &[(u64, u64)],
    ) -> SysResult {
        let total = iovec_total(iovecs);
        let mut done = self.moved_before(tid).min(total);
        let mut result = Ok(());
        while done < total {
            let p = self.objects.pipes.get(pipe).ok_or(Errno::EBADF)?;
            if p.readers == 0 {
                self.sigpipe(tid);
                result = Err(Errno::EPIPE);
                break;
            }
            let want = p.accepts(us(total - done));
            if want == 0 {
                if f.flags & O_NONBLOCK == 0 {
                    return self.block_on(file, crate::poll::POLLOUT, done);
                }
                result = Err(Errno::EAGAIN);
                break;
            }
            let mut data = self.gather(tid, &window(iovecs, done, u64_of(want)));
            let p = self.objects.pipes.get_mut(pipe).ok_or(Errno::EBADF)?;
            data.truncate(p.whole(data.len(), want));
            let object = p.object;
            if !data.is_empty() {
                done = done.saturating_add(u64_of(p.write(&data, f.flags & O_DIRECT != 0)?));
                self.wake_for(object, crate::poll::INPUT);
            }
            if data.len() < want {
                result = Err(Errno::EFAULT);
                break;
            }
        }
        match result {
            Err(e) if done == 0 => return Err(e),
            _ => {}
        }
        if done > 0 {
            self.notify_file(f, IN_MODIFY);
        }
        Ok(Outcome::Return(done))
    }
}
