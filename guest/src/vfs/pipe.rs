//! Pipes: a bounded queue of buffers of a page each, as Linux keeps them, with a count of open ends. Knows nothing of user memory or
//! of blocking: a call that cannot go on says EAGAIN, and `pipe_io` turns that into a sleep.

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::us;
use crate::platform::PAGE_SIZE;
use crate::vfs::{FileKind, OpenFile};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Bytes of a buffer.
const PAGE: usize = 4096;
/// Buffers that a new pipe has (pipe(7): 65,536 bytes).
const DEFAULT_BUFFERS: usize = 16;
/// Most bytes that F_SETPIPE_SZ allows (/proc/sys/fs/pipe-max-size).
pub const MAX_CAPACITY: usize = 1 << 20;
/// O_DIRECT on a pipe: writes are packets.
pub const O_DIRECT: u32 = 0o40000;

/// What one buffer of a pipe holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Unread bytes, 1 to 4096.
    pub len: usize,
    /// Bytes that may still be put behind them in their page; none behind packets and what was spliced.
    pub room: usize,
    /// A packet: a read takes it whole, and what the reader has no room for is lost.
    pub packet: bool,
}

/// One pipe.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pipe {
    /// Its object number for waiters.
    pub object: u64,
    /// Bytes written and not yet read: those of its buffers one after the other.
    data: VecDeque<u8>,
    /// Its buffers in use, each with 1 byte or more.
    parts: VecDeque<Part>,
    /// How many buffers it may have in use.
    buffers: usize,
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
    /// User, group and permission bits that fstat(2) shows of what pipe(2) made.
    pub owner: (u32, u32, u32),
}

impl Pipe {
    /// An empty pipe with one reader and one writer.
    pub fn new(object: u64) -> Self {
        Pipe {
            object,
            data: VecDeque::new(),
            parts: VecDeque::new(),
            buffers: DEFAULT_BUFFERS,
            readers: 1,
            writers: 1,
            open_read: 0,
            open_write: 0,
            times_read: 1,
            times_written: 1,
            owner: (0, 0, 0o600),
        }
    }

    /// Unread bytes.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether nothing is to be read.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Most bytes that it holds (F_GETPIPE_SZ).
    pub fn capacity(&self) -> usize {
        self.buffers.saturating_mul(PAGE)
    }

    /// Buffers that are not in use.
    pub fn free(&self) -> usize {
        self.buffers.saturating_sub(self.parts.len())
    }

    /// Copies the oldest bytes without taking them; 0 at the end. EAGAIN when empty with a writer left.
    pub fn peek(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        if self.data.is_empty() && self.writers > 0 && !buf.is_empty() {
            return Err(Errno::EAGAIN);
        }
        Ok(peek_queue(&self.data, buf))
    }

    /// The oldest buffer.
    pub fn front(&self) -> Option<Part> {
        self.parts.front().copied()
    }

    /// The oldest bytes, `n` at most.
    pub fn oldest(&self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n.min(self.data.len())];
        peek_queue(&self.data, &mut bytes);
        bytes
    }

    /// Copies of the oldest buffers: `len` bytes and `buffers` of them at most. One that is cut takes no more bytes.
    pub fn pieces(&self, len: usize, buffers: usize) -> Vec<(Part, Vec<u8>)> {
        let (mut at, mut left, mut all) = (0usize, len, Vec::new());
        for part in self.parts.iter().take(buffers) {
            if left == 0 {
                break;
            }
            let n = part.len.min(left);
            let room = if n == part.len { part.room } else { 0 };
            let bytes = self.data.range(at..at.saturating_add(n)).copied().collect();
            all.push((Part { len: n, room, ..*part }, bytes));
            at = at.saturating_add(part.len);
            left = left.saturating_sub(n);
        }
        all
    }

    /// Takes bytes that were peeked.
    pub fn consume(&mut self, n: usize) {
        let mut left = n.min(self.data.len());
        self.data.drain(..left);
        while let Some(part) = self.parts.front_mut() {
            let cut = part.len.min(left);
            part.len = part.len.saturating_sub(cut);
            left = left.saturating_sub(cut);
            if part.len > 0 {
                break;
            }
            self.parts.pop_front();
        }
    }

    /// How many of the first bytes of a write of so many go into the newest buffer: what is over whole pages, where it fits there.
    fn joined(&self, bytes: usize) -> usize {
        let over = bytes % PAGE;
        if self.parts.back().is_some_and(|last| last.room >= over) { over } else { 0 }
    }

    /// How many bytes of a write of so many it takes now.
    pub fn accepts(&self, bytes: usize) -> usize {
        let joined = self.joined(bytes);
        bytes.min(joined.saturating_add(self.free().saturating_mul(PAGE)))
    }

    /// Of `got` bytes that could be read from user memory for a write of `wanted`, those that fill what Linux copies at a time.
    pub fn whole(&self, got: usize, wanted: usize) -> usize {
        match got.checked_sub(self.joined(wanted)) {
            Some(rest) if got < wanted => got.saturating_sub(rest % PAGE),
            Some(_) => got,
            None => 0,
        }
    }

    /// Appends what it takes of a write, each page of it as a packet where `packet` says so. EPIPE without readers, EAGAIN when nothing
    /// may be written now.
    pub fn write(&mut self, buf: &[u8], packet: bool) -> Result<usize, Errno> {
        if self.readers == 0 {
            return Err(Errno::EPIPE);
        }
        let n = self.accepts(buf.len());
        if n == 0 && !buf.is_empty() {
            return Err(Errno::EAGAIN);
        }
        let (joined, pages) = buf.get(..n).unwrap_or_default().split_at(self.joined(buf.len()).min(n));
        if let Some(last) = self.parts.back_mut().filter(|_| !joined.is_empty()) {
            last.len = last.len.saturating_add(joined.len());
            last.room = last.room.saturating_sub(joined.len());
            self.data.extend(joined);
        }
        for page in pages.chunks(PAGE) {
            let room = if packet { 0 } else { PAGE.saturating_sub(page.len()) };
            self.append(Part { len: page.len(), room, packet }, page);
        }
        Ok(n)
    }

    /// Appends a buffer, where one is free.
    pub fn append(&mut self, part: Part, bytes: &[u8]) {
        if !bytes.is_empty() && self.free() > 0 {
            self.data.extend(bytes);
            self.parts.push_back(Part { len: bytes.len(), ..part });
        }
    }

    /// Appends the pages of a file or of memory whose first byte lies at `at`, as far as there are buffers for them; how many bytes
    /// went. Each stays a buffer of its own. EPIPE, EAGAIN as [`Pipe::write`].
    pub fn lend(&mut self, at: u64, mut bytes: &[u8]) -> Result<usize, Errno> {
        if self.readers == 0 {
            return Err(Errno::EPIPE);
        }
        if self.free() == 0 {
            return Err(Errno::EAGAIN);
        }
        let (mut offset, mut done) = (us(at % PAGE_SIZE), 0usize);
        while !bytes.is_empty() && self.free() > 0 {
            let (page, rest) = bytes.split_at(PAGE.saturating_sub(offset).min(bytes.len()));
            self.append(Part { len: page.len(), room: 0, packet: false }, page);
            done = done.saturating_add(page.len());
            (bytes, offset) = (rest, 0);
        }
        Ok(done)
    }

    /// F_SETPIPE_SZ: rounds up to a power of two of pages. EPERM above the maximum, EBUSY below what is in use.
    pub fn resize(&mut self, bytes: u64) -> Result<usize, Errno> {
        if bytes > u64::from(u32::MAX >> 1) {
            return Err(Errno::EINVAL);
        }
        let new = us(bytes).max(PAGE).next_power_of_two();
        if new > MAX_CAPACITY {
            return Err(Errno::EPERM);
        }
        if new / PAGE < self.parts.len() {
            return Err(Errno::EBUSY);
        }
        self.buffers = new / PAGE;
        Ok(new)
    }

    /// Forgets what it holds and F_SETPIPE_SZ.
    fn empty(&mut self) {
        (self.data, self.parts) = (VecDeque::new(), VecDeque::new());
        self.buffers = DEFAULT_BUFFERS;
    }

    /// POLL* events of an end that reads or writes or does both; `seen` is what `times_written` was when it was opened without a writer.
    pub fn poll(&self, reads: bool, writes: bool, seen: u64) -> u32 {
        use crate::poll::{POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM};
        let mut mask = 0;
        if writes {
            if self.free() > 0 {
                mask |= POLLOUT | POLLWRNORM;
            }
            if self.readers == 0 {
                mask |= POLLERR;
            }
        }
        if reads {
            if !self.is_empty() {
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
    let (a, b) = queue.as_slices();
    let (to_a, rest) = buf.split_at_mut(n.min(a.len()));
    to_a.copy_from_slice(a.get(..to_a.len()).unwrap_or_default());
    let left = n.saturating_sub(to_a.len());
    if let (Some(to), Some(from)) = (rest.get_mut(..left), b.get(..left)) {
        to.copy_from_slice(from);
    }
    n
}

impl Kernel {
    /// Makes a pipe; returns its read and write ends, each with one reference. `flags` are O_NONBLOCK and O_DIRECT or 0.
    pub fn pipe_create(&mut self, flags: u32) -> (u64, u64) {
        let object = self.new_object();
        let pipe = self.objects.pipes.insert(Pipe::new(object));
        let kind = |write: bool| FileKind::Pipe { pipe, write, inode: None };
        // Only the end that writes has packets.
        let read = OpenFile { kind: kind(false), flags: flags & !O_DIRECT, pos: 0, refs: 1 };
        let write = OpenFile { kind: kind(true), flags: flags | 1, pos: 0, refs: 1 };
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
            pipe.empty();
        } else if gone {
            self.objects.pipes.remove(id);
        }
        self.wake(crate::wait::WaitKey::Object(object));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::u64_of;
    use proptest::prelude::*;

    #[test]
    fn small_writes_share_a_page_and_the_next_page_begins_where_one_does_not_fit() {
        let mut pipe = Pipe::new(1);
        for _ in 0..4096 {
            assert_eq!(pipe.write(b"x", false), Ok(1));
        }
        assert_eq!(pipe.free(), DEFAULT_BUFFERS - 1);
        // 3000 and 3000 take a page each; what is over whole pages goes behind the last one.
        assert_eq!(pipe.write(&[0; 3000], false), Ok(3000));
        assert_eq!(pipe.write(&[0; 3000], false), Ok(3000));
        assert_eq!(pipe.free(), DEFAULT_BUFFERS - 3);
        assert_eq!(pipe.write(&[0; 4096 + 1096], false), Ok(4096 + 1096));
        assert_eq!(pipe.free(), DEFAULT_BUFFERS - 4);
    }

    #[test]
    fn sixteen_pieces_fill_a_pipe_whatever_their_size() {
        let mut pipe = Pipe::new(1);
        for _ in 0..DEFAULT_BUFFERS {
            assert_eq!(pipe.write(b"packet", true), Ok(6));
        }
        assert_eq!(pipe.write(b"packet", true), Err(Errno::EAGAIN));
        assert_eq!(pipe.poll(false, true, 0) & crate::poll::POLLOUT, 0);
        assert_eq!(pipe.len(), 96);
        pipe.consume(3);
        assert_eq!(pipe.front(), Some(Part { len: 3, room: 0, packet: true }));
        assert_eq!(pipe.resize(4096), Err(Errno::EBUSY));
        // 100 bytes around the end of a page of a file are two.
        let mut pipe = Pipe::new(1);
        assert_eq!(pipe.lend(4090, &[1; 100]), Ok(100));
        assert_eq!(pipe.free(), DEFAULT_BUFFERS - 2);
        assert_eq!(pipe.accepts(70_000), 14 * PAGE);
    }

    #[test]
    fn what_memory_lacks_leaves_whole_pages() {
        let mut pipe = Pipe::new(1);
        assert_eq!(pipe.whole(9000, 20_000), 8192);
        assert_eq!(pipe.whole(50, 100), 0);
        pipe.write(b"x", false).unwrap();
        assert_eq!(pipe.whole(100 + 5000, 100 + 8192), 100 + 4096);
        assert_eq!(pipe.whole(99, 100 + 8192), 0);
    }

    proptest! {
        #[test]
        fn a_pipe_is_a_bounded_queue(ops in prop::collection::vec((0u8..4, 0usize..9000), 1..80)) {
            let mut pipe = Pipe::new(1);
            let mut model: VecDeque<u8> = VecDeque::new();
            let mut next = 0u8;
            for (op, len) in ops {
                if op > 0 {
                    let data: Vec<u8> = (0..len).map(|i| next.wrapping_add(crate::num::low8(u64_of(i % 251)))).collect();
                    next = next.wrapping_add(17);
                    let done = if op == 3 { pipe.lend(u64_of(len), &data) } else { pipe.write(&data, op == 2) };
                    match done {
                        Ok(n) => model.extend(&data[..n]),
                        Err(e) => {
                            prop_assert_eq!(e, Errno::EAGAIN);
                            prop_assert!(pipe.free() == 0);
                        }
                    }
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
                prop_assert_eq!(pipe.len(), model.len());
                prop_assert_eq!(pipe.parts.iter().map(|p| p.len).sum::<usize>(), model.len());
                prop_assert!(pipe.parts.iter().all(|p| p.len > 0 && p.len + p.room <= PAGE));
                prop_assert!(pipe.parts.len() <= DEFAULT_BUFFERS);
            }
        }
    }
}
