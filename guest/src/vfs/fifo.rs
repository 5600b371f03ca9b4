//! Named pipes (fifo(7)): a pipe per inode, and an open(2) that waits for the other side.
//!
//! A task that waits to be a reader or a writer sleeps on an object of its own kind. Who comes from the other side counts the sleepers
//! in before it wakes them, so that it never finds the pipe without its peer; they find in [`Block::memo`] that somebody came.

use super::pipe::Pipe;
use super::{FileKind, InodeId, OpenFile};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::task::Tid;
use crate::vfs::file::O_NONBLOCK;
use crate::wait::{Block, Outcome, SysResult, WaitKey};

impl Kernel {
    /// The pipe of a FIFO's inode, made when there is none.
    fn fifo_pipe(&mut self, inode: InodeId) -> u64 {
        if let Some(pipe) = self.objects.fifos.get(&inode) {
            return *pipe;
        }
        let mut pipe = Pipe::new(self.new_object());
        (pipe.readers, pipe.writers) = (0, 0);
        (pipe.open_read, pipe.open_write) = (self.new_object(), self.new_object());
        let id = self.objects.pipes.insert(pipe);
        self.objects.fifos.insert(inode, id);
        id
    }

    /// Forgets the pipe of an inode that is gone.
    pub(super) fn fifo_forget(&mut self, inode: InodeId) {
        if let Some(pipe) = self.objects.fifos.remove(&inode) {
            self.objects.pipes.remove(pipe);
        }
    }

    fn sleepers(&self, object: u64) -> u32 {
        let n = self.waiters.get(&WaitKey::Object(object)).map_or(0, std::collections::BTreeSet::len);
        u32::try_from(n).unwrap_or(u32::MAX)
    }

    /// Opens a FIFO: `Return` carries the file, with one reference. Blocks until the other side is there. ENXIO.
    pub fn fifo_open(&mut self, tid: Tid, inode: InodeId, flags: u32) -> SysResult {
        let id = self.fifo_pipe(inode);
        let (reads, writes) = (flags & 3 != 1, flags & 3 != 0);
        let memo =
            self.task(tid).and_then(|t| t.resume).map(|r| r.memo).filter(|m| m.first() == Some(&inode));
        let pipe = self.objects.pipes.get(id).ok_or(Errno::ENXIO)?;
        let (open_read, open_write) = (pipe.open_read, pipe.open_write);
        let (seen, key, there) = if writes {
            (pipe.times_read, open_write, pipe.readers > 0 || self.sleepers(open_read) > 0)
        } else {
            (pipe.times_written, open_read, pipe.writers > 0 || self.sleepers(open_write) > 0)
        };
        let counted = memo.is_some_and(|m| m.last() != Some(&seen));
        let waits = !(counted || there || (reads && writes));
        if waits {
            match (flags & O_NONBLOCK != 0, writes) {
                (true, true) => return Err(Errno::ENXIO),
                (true, false) => {}
                (false, _) => {
                    return Ok(Outcome::Block(Block {
                        memo: [inode, seen],
                        ..Block::on(WaitKey::Object(key))
                    }));
                }
            }
        }
        let (new_readers, new_writers) = if counted {
            (0, 0)
        } else {
            let waiting_readers = if writes { self.sleepers(open_read) } else { 0 };
            let waiting_writers = if reads { self.sleepers(open_write) } else { 0 };
            (u32::from(reads) + waiting_readers, u32::from(writes) + waiting_writers)
        };
        let pipe = self.objects.pipes.get_mut(id).ok_or(Errno::ENXIO)?;
        pipe.readers = pipe.readers.saturating_add(new_readers);
        pipe.writers = pipe.writers.saturating_add(new_writers);
        pipe.times_read += u64::from(new_readers);
        pipe.times_written += u64::from(new_writers);
        let times_written = pipe.times_written;
        let object = pipe.object;
        // A reader that did not wait for a writer sees no hang-up before one has come and gone.
        let pos = if pipe.writers == 0 { times_written } else { 0 };
        if reads {
            self.wake(WaitKey::Object(open_write));
        }
        if writes {
            self.wake(WaitKey::Object(open_read));
        }
        self.wake(WaitKey::Object(object));
        self.inode_open_count(inode, 1);
        self.notify_open(inode, linux_raw_sys::general::IN_OPEN);
        let kind = FileKind::Pipe { pipe: id, write: writes, inode: Some(inode) };
        let file = OpenFile { kind, flags: flags & !super::tree::OPEN_ONLY, pos, refs: 1 };
        Ok(Outcome::Return(self.files.insert(file)))
    }

    /// One more end of a pipe without a name, by way of /proc/self/fd.
    pub(super) fn pipe_reopen(&mut self, id: u64, flags: u32) -> Result<u64, Errno> {
        let pipe = self.objects.pipes.get_mut(id).ok_or(Errno::ENXIO)?;
        let (reads, writes) = (flags & 3 != 1, flags & 3 != 0);
        pipe.readers = pipe.readers.saturating_add(u32::from(reads));
        pipe.writers = pipe.writers.saturating_add(u32::from(writes));
        let kind = FileKind::Pipe { pipe: id, write: writes, inode: None };
        Ok(self.files.insert(OpenFile { kind, flags: flags & !super::tree::OPEN_ONLY, pos: 0, refs: 1 }))
    }
}
