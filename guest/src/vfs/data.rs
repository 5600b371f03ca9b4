//! Contents of files: reading lower files, copying them up, pages of in-memory files, generated text.

use super::inode::Kind;
use super::pages::Charge;
use super::{FileKind, InodeId, lower};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::mm::Backing;
use crate::num::{u64_of, us};
use crate::platform::{Gpa, PAGE_SIZE};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Largest file in memory, bytes; the arena is smaller still.
pub(super) const MAX_FILE: u64 = 1 << 40;

impl Kernel {
    /// The open descriptor of a lower file.
    pub(super) fn host_fd(&mut self, id: InodeId) -> Result<Arc<OwnedFd>, Errno> {
        if self.is_live(id) {
            return self.live_open(id, false);
        }
        let Kind::Host { path, fd } = &self.vfs.inode(id)?.kind else { return Err(Errno::EINVAL) };
        if let Some(fd) = fd {
            return Ok(fd.clone());
        }
        let path = path.clone();
        let opened = Arc::new(self.vfs.below_root(|root, shown| lower::open_file(root, &path, shown))?);
        self.vfs.remember_fd(id, &opened);
        Ok(opened)
    }

    /// Makes a lower file's contents the guest's own, so that they can change. Nothing happens to a file that is so already. ENOSPC.
    pub fn copy_up(&mut self, id: InodeId) -> Result<(), Errno> {
        let inode = self.vfs.inode(id)?;
        if !matches!(inode.kind, Kind::Host { .. }) {
            return Ok(());
        }
        if self.is_live(id) {
            return Err(Errno::ENODEV);
        }
        let size = inode.stat.size;
        if size > self.platform.arena_len() {
            return Err(Errno::ENOSPC);
        }
        let fd = self.host_fd(id)?;
        let mut pages = BTreeMap::new();
        match self.copy_pages(&fd, size, &mut pages) {
            Ok(()) => {
                let node = self.vfs.inode_mut(id)?;
                node.stat.blocks = u64_of(pages.len()) * 8;
                node.kind = Kind::File(pages);
                // The copy is a file of its own: other names of the lower file keep the old contents.
                node.stat.nlink = node.stat.nlink.min(1);
                Ok(())
            }
            Err(e) => {
                self.frame_free_pages(pages.into_values(), Charge::All);
                Err(e)
            }
        }
    }

    fn copy_pages(&mut self, fd: &OwnedFd, size: u64, pages: &mut BTreeMap<u64, Gpa>) -> Result<(), Errno> {
        let mut buf = vec![0; us(PAGE_SIZE)];
        for index in 0..size.div_ceil(PAGE_SIZE) {
            let n = pread_full(fd, &mut buf, index * PAGE_SIZE)?;
            let data = buf.get(..n).unwrap_or_default();
            if data.iter().all(|b| *b == 0) {
                continue;
            }
            let gpa = self.frame_alloc_page()?;
            pages.insert(index, gpa);
            self.platform.write(gpa, data)?;
        }
        Ok(())
    }

    /// The arena page that holds page `index` of an in-memory file, made when missing if `create`.
    pub fn inode_page(&mut self, inode: InodeId, index: u64, create: bool) -> Result<Option<u64>, Errno> {
        if create {
            self.copy_up(inode)?;
        }
        let Kind::File(pages) = &self.vfs.inode(inode)?.kind else { return Err(Errno::EINVAL) };
        if let Some(gpa) = pages.get(&index) {
            return Ok(Some(*gpa));
        }
        if !create {
            return Ok(None);
        }
        Ok(self.inode_pages(inode, index, 1)?.first().map(|run| run.1))
    }

    /// Reads an inode's contents (regular or generated) at `offset`; 0 at the end. EISDIR, EINVAL.
    pub fn inode_read(&mut self, inode: InodeId, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let node = self.vfs.inode(inode)?;
        if node.is_dir() {
            return Err(Errno::EISDIR);
        }
        let size = node.stat.size;
        match &node.kind {
            Kind::Host { .. } => {
                let fd = self.host_fd(inode)?;
                if i64::try_from(offset).is_err() {
                    return Ok(0);
                }
                pread_full(&fd, buf, offset)
            }
            Kind::File(pages) => {
                let left = size.saturating_sub(offset);
                let len = buf.len().min(us(left));
                let mut done = 0;
                while done < len {
                    let at = offset + u64_of(done);
                    let within = at % PAGE_SIZE;
                    let n = (len - done).min(us(PAGE_SIZE - within));
                    let Some(part) = buf.get_mut(done..done + n) else { break };
                    match pages.get(&(at / PAGE_SIZE)) {
                        Some(gpa) => self.platform.read(gpa + within, part)?,
                        None => part.fill(0),
                    }
                    done += n;
                }
                Ok(len)
            }
            Kind::Synth(path) => {
                let path = path.clone();
                if let Some((_, mm)) = self.synth_memory(&path) {
                    return match self.mm_read_forced(mm, offset, buf) {
                        0 if !buf.is_empty() => Err(Errno::EIO),
                        n => Ok(n),
                    };
                }
                if let Some(done) = self.maps_read(inode, &path, offset, buf) {
                    return Ok(done);
                }
                if let Some(mm) = self.synth_pagemap(&path) {
                    return self.mm_pagemap(mm, offset, buf);
                }
                let text = self.synth_text(&path)?;
                let rest = text.get(us(offset)..).unwrap_or_default();
                let n = rest.len().min(buf.len());
                if let (Some(to), Some(from)) = (buf.get_mut(..n), rest.get(..n)) {
                    to.copy_from_slice(from);
                }
                Ok(n)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// Writes an inode's contents, growing the file (a hole before `offset` reads as zeroes). ENOSPC, EFBIG; EINVAL where nothing can be
    /// written.
    pub fn inode_write(&mut self, inode: InodeId, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        if let Kind::Synth(path) = &self.vfs.inode(inode)?.kind {
            let path = path.clone();
            if let Some((_, mm)) = self.synth_memory(&path) {
                return match self.mm_write_forced(mm, offset, data) {
                    0 if !data.is_empty() => Err(Errno::EIO),
                    n => Ok(n),
                };
            }
            return self.synth_write(&path, data);
        }
        if self.vfs.inode(inode)?.is_dir() {
            return Err(Errno::EISDIR);
        }
        if data.is_empty() {
            return Ok(0);
        }
        let end = offset.checked_add(u64_of(data.len())).ok_or(Errno::EFBIG)?;
        if end > MAX_FILE {
            return Err(Errno::EFBIG);
        }
        self.check_seal_write(inode, end)?;
        if self.is_live(inode) {
            return self.live_write(inode, offset, data);
        }
        self.copy_up(inode)?;
        let old = self.vfs.inode(inode)?.stat.size;
        if offset > old {
            self.clear_tail(inode, old)?;
        }
        let mut done = 0;
        while done < data.len() {
            let at = offset + u64_of(done);
            let within = at % PAGE_SIZE;
            let n = (data.len() - done).min(us(PAGE_SIZE - within));
            let gpa = match self.inode_page(inode, at / PAGE_SIZE, true) {
                Ok(Some(gpa)) => gpa,
                Ok(None) => break,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            };
            self.platform.write(gpa + within, data.get(done..done + n).unwrap_or_default())?;
            done += n;
        }
        let now = self.now_pair();
        let node = self.vfs.inode_mut(inode)?;
        node.stat.size = node.stat.size.max(offset + u64_of(done));
        node.stat.mtime = now;
        node.stat.ctime = now;
        Ok(done)
    }

    /// Clears the last page of a file in memory from `end` on: what a mapping left beyond the end must read as zeroes once the file grows.
    fn clear_tail(&mut self, inode: InodeId, end: u64) -> Result<(), Errno> {
        let Kind::File(pages) = &self.vfs.inode(inode)?.kind else { return Ok(()) };
        let within = end % PAGE_SIZE;
        match pages.get(&(end / PAGE_SIZE)) {
            Some(gpa) if within != 0 => {
                Ok(self.platform.write(*gpa + within, &vec![0; us(PAGE_SIZE - within)])?)
            }
            _ => Ok(()),
        }
    }

    /// Makes a regular file `len` bytes long. EISDIR, EINVAL, EFBIG.
    pub fn inode_truncate(&mut self, inode: InodeId, len: u64) -> Result<(), Errno> {
        let node = self.vfs.inode(inode)?;
        if node.is_dir() {
            return Err(Errno::EISDIR);
        }
        match &node.kind {
            Kind::Synth(_) | Kind::Device(_) | Kind::Work if len == 0 => return Ok(()),
            Kind::Host { .. } | Kind::File(_) => {}
            _ => return Err(Errno::EINVAL),
        }
        if len > MAX_FILE {
            return Err(Errno::EFBIG);
        }
        self.check_seal_size(inode, len)?;
        if self.is_live(inode) {
            return self.live_truncate(inode, len);
        }
        if len == 0 && matches!(node.kind, Kind::Host { .. }) {
            let node = self.vfs.inode_mut(inode)?;
            node.kind = Kind::File(BTreeMap::new());
            node.stat.nlink = node.stat.nlink.min(1);
        }
        self.copy_up(inode)?;
        let now = self.now_pair();
        let charge = self.charge_of(inode);
        let old = self.vfs.inode(inode)?.stat.size;
        self.clear_tail(inode, old.min(len))?;
        let node = self.vfs.inode_mut(inode)?;
        node.stat.size = len;
        node.stat.mtime = now;
        node.stat.ctime = now;
        let Kind::File(pages) = &mut node.kind else { return Err(Errno::EINVAL) };
        let gone = pages.split_off(&len.div_ceil(PAGE_SIZE));
        node.stat.blocks = u64_of(pages.len()) * 8;
        if !gone.is_empty() {
            self.unmap_file(inode, len.next_multiple_of(PAGE_SIZE), u64::MAX)?;
        }
        self.frame_free_pages(gone.into_values(), charge);
        Ok(())
    }

    /// Takes a part of a file (page-aligned) out of every mapping of it: a touch is SIGBUS beyond the end, or finds what is there then.
    pub(super) fn unmap_file(&mut self, inode: InodeId, first: u64, last: u64) -> Result<(), Errno> {
        let mut ranges = Vec::new();
        for (mm, m) in self.mms.iter() {
            for (start, vma) in &m.vmas {
                let Backing::File { file, offset } = &vma.backing else { continue };
                let from = start.saturating_add(first.saturating_sub(*offset));
                let to = start.saturating_add(last.saturating_sub(*offset)).min(vma.end);
                let maps = self.files.get(*file).is_some_and(|f| f.kind == FileKind::Inode(inode));
                if maps && from < to {
                    ranges.push((mm, from, to));
                }
            }
        }
        for (mm, from, to) in ranges {
            self.space(mm)?.drop_pieces(from, to)?;
        }
        Ok(())
    }
}

/// Reads until the buffer is full or the file ends.
fn pread_full(fd: &OwnedFd, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buf.len() {
        let Some(rest) = buf.get_mut(done..) else { break };
        match rustix::io::pread(fd, rest, offset + u64_of(done)) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) if done > 0 => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(done)
}
