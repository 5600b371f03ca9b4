//! Pipes: a bounded byte queue with a count of open ends. Knows nothing of user memory or of blocking: a call that
//! cannot go on says EAGAIN, and `vfs::file` turns that into a sleep.

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::us;
use crate::vfs::{FileKind, OpenFile};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Writes of at most this many bytes are never interleaved (pipe(7)).
pub const PIPE_BUF: usize = 4096;
/// Bytes that a new pipe holds (pipe(7)).
pub const DEFAULT_CAPACITY: usize = 65536;
/// Most bytes that F_SETPIPE_SZ allows (/proc/sys/fs/pipe-max-size).
pub const MAX_CAPACITY: usize = 1 << 20;

/// One pipe.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pipe {
    /// Its object number for waiters.
    pub object: u64,
    /// Bytes written and not yet read.
    pub data: VecDeque<u8>,
    /// Most bytes it holds.
    pub capacity: usize,
    /// Open read ends.
    pub readers: u32,
    /// Open write ends.
    pub writers: u32,
    /// Object number for who waits in open(2) of a FIFO to be a reader; 0 for what pipe(2) made.
    pub open_read: u64,
    /// As `open_read`, to be a writer.
    pub open_write: u64,
    /// How often it was opened for reading.
    pub times_read: u64,
    /// How often it was opened for writing.
    pub times_written: u64,
}

impl Pipe {
    /// An empty pipe with one reader and one writer.
    pub fn new(object: u64) -> Self {
        Pipe {
            object,
            data: VecDeque::new(),
            capacity: DEFAULT_CAPACITY,
            readers: 1,
            writers: 1,
            open_read: 0,
            open_write: 0,
            times_read: 1,
            times_written: 1,
        }
    }

    /// Copies the oldest bytes without taking them; 0 at the end. EAGAIN when empty with a writer left.
    pub fn peek(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        if self.data.is_empty() && self.writers > 0 && !buf.is_empty() {
            return Err(Errno::EAGAIN);
        }
        Ok(peek_queue(&self.data, buf))
    }

    /// Takes bytes that were peeked.
    pub fn consume(&mut self, n: usize) {
        self.data.drain(..n.min(self.data.len()));
    }

    /// Appends what fits; all or nothing when `atomic`. EPIPE without readers, EAGAIN when nothing may be written now.
    pub fn write(&mut self, buf: &[u8], atomic: bool) -> Result<usize, Errno> {
        if self.readers == 0 {
            return Err(Errno::EPIPE);
        }
        let free = self.capacity.saturating_sub(self.data.len());
        if free == 0 || (atomic && free < buf.len()) {
            return Err(Errno::EAGAIN);
        }
        let n = free.min(buf.len());
        self.data.extend(buf.get(..n).unwrap_or_default());
        Ok(n)
    }

    /// F_SETPIPE_SZ: rounds up to a power of two of pages. EPERM above the maximum, EBUSY below what it holds.
    pub fn resize(&mut self, bytes: u64) -> Result<usize, Errno> {
        if bytes > u64::from(u32::MAX >> 1) {
            return Err(Errno::EINVAL);
        }
        let new = us(bytes).max(4096).next_power_of_two();
        if new > MAX_CAPACITY {
            return Err(Errno::EPERM);
        }
        if new < self.data.len() {
            return Err(Errno::EBUSY);
        }
        self.capacity = new;
        Ok(new)
    }

    /// POLL* events of an end that reads or writes or does both; `seen` is what `times_written` was when it was opened without a writer.
    pub fn poll(&self, reads: bool, writes: bool, seen: u64) -> u32 {
        use crate::poll::{POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM};
        let mut mask = 0;
        if writes {
            if self.capacity.saturating_sub(self.data.len()) >= PIPE_BUF {
                mask |= POLLOUT | POLLWRNORM;
            }
            if self.readers == 0 {
                mask |= POLLERR;
            }
        }
        if reads {
            if !self.data.is_empty() {
                mask |= POLLIN | POLLRDNORM;
            }
            if self.writers == 0 && self.times_written != seen {
                mask |= POLLHUP;
            }
        }
        mask
    }
}

/// Copies the front of a queue.
pub fn peek_queue(queue: &VecDeque<u8>, buf: &mut [u8]) -> usize {
    let n = buf.len().min(queue.len());
    for (to, from) in buf.iter_mut().zip(queue.iter()) {
        *to = *from;
    }
    n
}

impl Kernel {
    /// Makes a pipe; returns its read and write ends, each with one reference. `flags` are O_NONBLOCK or 0.
    pub fn pipe_create(&mut self, flags: u32) -> (u64, u64) {
        let object = self.new_object();
        let pipe = self.objects.pipes.insert(Pipe::new(object));
        let read =
            OpenFile { kind: FileKind::Pipe { pipe, write: false, inode: None }, flags, pos: 0, refs: 1 };
        let write = OpenFile {
            kind: FileKind::Pipe { pipe, write: true, inode: None },
            flags: flags | 1,
            pos: 0,
            refs: 1,
        };
        (self.files.insert(read), self.files.insert(write))
    }

    /// An end of a pipe was closed: the other side learns of it; the last end frees the pipe, or empties that of a FIFO.
    pub fn pipe_close(&mut self, id: u64, flags: u32, named: bool) {
        let Some(pipe) = self.objects.pipes.get_mut(id) else { return };
        if flags & 3 != 0 {
            pipe.writers = pipe.writers.saturating_sub(1);
        }
        if flags & 3 != 1 {
            pipe.readers = pipe.readers.saturating_sub(1);
        }
        let (object, gone) = (pipe.object, pipe.readers == 0 && pipe.writers == 0);
        if gone && named {
            pipe.data = VecDeque::new();
            pipe.capacity = DEFAULT_CAPACITY;
        } else if gone {
            self.objects.pipes.remove(id);
        }
        self.wake(crate::wait::WaitKey::Object(object));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_pipe_is_a_bounded_queue(ops in prop::collection::vec((any::<bool>(), 0usize..9000), 1..80)) {
            let mut pipe = Pipe::new(1);
            let mut model: VecDeque<u8> = VecDeque::new();
            let mut next = 0u8;
            for (write, len) in ops {
                if write {
                    let data: Vec<u8> = (0..len).map(|i| next.wrapping_add(crate::num::low8(crate::num::u64_of(i % 251)))).collect();
                    next = next.wrapping_add(17);
                    let free = DEFAULT_CAPACITY - model.len();
                    let atomic = len <= PIPE_BUF;
                    let want = if free == 0 || (atomic && free < len) { Err(Errno::EAGAIN) } else { Ok(free.min(len)) };
                    prop_assert_eq!(pipe.write(&data, atomic), want);
                    if let Ok(n) = want { model.extend(&data[..n]); }
                } else {
                    let mut buf = vec![0; len];
                    match pipe.peek(&mut buf) {
                        Ok(n) => {
                            pipe.consume(n);
                            let want: Vec<u8> = model.drain(..n).collect();
                            prop_assert_eq!(n, len.min(n + model.len()));
                            prop_assert_eq!(&buf[..n], &want[..]);
                        }
                        Err(e) => {
                            prop_assert_eq!(e, Errno::EAGAIN);
                            prop_assert!(model.is_empty() && len > 0);
                        }
                    }
                }
            }
        }
    }
}
