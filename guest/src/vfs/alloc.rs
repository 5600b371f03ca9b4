//! Holes of in-memory files: where they are, and making, filling and moving them (fallocate(2), lseek(2)).

use super::InodeId;
use super::inode::Kind;
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{u64_of, us};
use crate::platform::{Gpa, PAGE_SIZE};
use std::collections::BTreeMap;

/// Largest file, bytes.
const MAX_FILE: u64 = super::data::MAX_FILE;

impl Kernel {
    /// The first byte at `from` or after it that is data (or, with `hole`, that is in a hole; the end counts as one). ENXIO at the end
    /// and when no data follows.
    pub fn inode_seek(&self, inode: InodeId, from: u64, hole: bool) -> Result<u64, Errno> {
        let node = self.vfs.inode(inode)?;
        let size = node.stat.size;
        if from >= size {
            return Err(Errno::ENXIO);
        }
        let Kind::File(pages) = &node.kind else { return Ok(if hole { size } else { from }) };
        let first = from / PAGE_SIZE;
        if hole {
            let mut at = first;
            for page in pages.range(first..).map(|(n, _)| *n) {
                if page != at {
                    break;
                }
                at += 1;
            }
            return Ok((at * PAGE_SIZE).max(from).min(size));
        }
        let (page, _) = pages.range(first..).next().ok_or(Errno::ENXIO)?;
        let at = (page * PAGE_SIZE).max(from);
        if at < size { Ok(at) } else { Err(Errno::ENXIO) }
    }

    /// The pages of a file that is about to change, with its modification time set. EPERM for seals; ENODEV for what is no regular file.
    fn changing(&mut self, inode: InodeId, seal_end: u64) -> Result<&mut BTreeMap<u64, Gpa>, Errno> {
        self.check_seal_write(inode, seal_end)?;
        self.copy_up(inode)?;
        let now = self.now_pair();
        let node = self.vfs.inode_mut(inode)?;
        (node.stat.mtime, node.stat.ctime) = (now, now);
        match &mut node.kind {
            Kind::File(pages) => Ok(pages),
            _ => Err(Errno::ENODEV),
        }
    }

    /// Gives pages back that a file does not hold any more.
    fn let_go(&mut self, inode: InodeId, pages: impl IntoIterator<Item = Gpa>) -> Result<(), Errno> {
        let charge = self.charge_of(inode);
        self.frame_free_pages(pages, charge);
        let node = self.vfs.inode_mut(inode)?;
        if let Kind::File(pages) = &node.kind {
            node.stat.blocks = u64_of(pages.len()) * 8;
        }
        Ok(())
    }

    /// Makes `offset..end` read as zeroes, giving whole pages back (FALLOC_FL_PUNCH_HOLE). The length stays.
    pub fn inode_punch(&mut self, inode: InodeId, offset: u64, end: u64) -> Result<(), Errno> {
        let size = self.vfs.inode(inode)?.stat.size;
        let platform = self.platform.clone();
        let pages = self.changing(inode, 0)?;
        let end = end.min(size.next_multiple_of(PAGE_SIZE));
        let (first, last) = (offset.div_ceil(PAGE_SIZE), end / PAGE_SIZE);
        let edges = if first > last {
            vec![(offset, end)]
        } else {
            vec![(offset, first * PAGE_SIZE), (last * PAGE_SIZE, end)]
        };
        for (from, to) in edges {
            if from < to
                && let Some(gpa) = pages.get(&(from / PAGE_SIZE))
            {
                platform.write(gpa + from % PAGE_SIZE, &vec![0; us(to - from)])?;
            }
        }
        if first >= last {
            return Ok(());
        }
        let mut tail = pages.split_off(&first);
        let mut rest = tail.split_off(&last);
        pages.append(&mut rest);
        self.unmap_file(inode, first * PAGE_SIZE, last * PAGE_SIZE)?;
        self.let_go(inode, tail.into_values())
    }

    /// Takes `offset..offset + len` out of a file; both in whole pages (FALLOC_FL_COLLAPSE_RANGE). EINVAL.
    pub fn inode_collapse(&mut self, inode: InodeId, offset: u64, len: u64) -> Result<(), Errno> {
        let size = self.vfs.inode(inode)?.stat.size;
        if !offset.is_multiple_of(PAGE_SIZE)
            || !len.is_multiple_of(PAGE_SIZE)
            || offset.saturating_add(len) >= size
        {
            return Err(Errno::EINVAL);
        }
        self.check_seal_size(inode, size - len)?;
        let (first, by) = (offset / PAGE_SIZE, len / PAGE_SIZE);
        let pages = self.changing(inode, 0)?;
        let mut gone = pages.split_off(&first);
        let moved = gone.split_off(&(first + by));
        pages.extend(moved.into_iter().map(|(n, gpa)| (n - by, gpa)));
        self.vfs.inode_mut(inode)?.stat.size = size - len;
        self.unmap_file(inode, first * PAGE_SIZE, u64::MAX)?;
        self.let_go(inode, gone.into_values())
    }

    /// Makes a hole of `len` bytes at `offset`, moving what follows; both in whole pages (FALLOC_FL_INSERT_RANGE). EINVAL, EFBIG.
    pub fn inode_insert(&mut self, inode: InodeId, offset: u64, len: u64) -> Result<(), Errno> {
        let size = self.vfs.inode(inode)?.stat.size;
        if !offset.is_multiple_of(PAGE_SIZE) || !len.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let new = size.checked_add(len).filter(|n| *n <= MAX_FILE).ok_or(Errno::EFBIG)?;
        if offset >= size {
            return Err(Errno::EINVAL);
        }
        self.check_seal_size(inode, new)?;
        let (first, by) = (offset / PAGE_SIZE, len / PAGE_SIZE);
        let pages = self.changing(inode, 0)?;
        let moved = pages.split_off(&first);
        pages.extend(moved.into_iter().map(|(n, gpa)| (n + by, gpa)));
        self.vfs.inode_mut(inode)?.stat.size = new;
        self.unmap_file(inode, first * PAGE_SIZE, u64::MAX)
    }

    /// Whether pages for `offset..end` could still be had. ENOSPC. They are not set aside.
    pub fn inode_has_room(&mut self, inode: InodeId, offset: u64, end: u64) -> Result<(), Errno> {
        if end > MAX_FILE {
            return Err(Errno::EFBIG);
        }
        let Kind::File(pages) = &self.vfs.inode(inode)?.kind else { return Ok(()) };
        let (first, last) = (offset / PAGE_SIZE, end.div_ceil(PAGE_SIZE));
        let held = u64_of(pages.range(first..last).count());
        let wanted = (last - first).saturating_sub(held);
        if wanted > self.charge_left(self.charge_of(inode)) { Err(Errno::ENOSPC) } else { Ok(()) }
    }
}
