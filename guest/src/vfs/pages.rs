//! Pages of the arena that hold the contents of in-memory files, from the one allocator of extents.

use super::InodeId;
use super::inode::{FsKind, Kind};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::u64_of;
use crate::platform::{Gpa, PAGE_SIZE};
use std::collections::BTreeMap;

/// Pages that are allocated for a file in one piece at most: a large page's worth.
const CHUNK: u64 = 512;

/// What a file's pages count against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charge {
    /// Nothing but the sandbox's memory.
    Nothing,
    /// What all in-memory files may hold.
    All,
    /// That, and the size of the file system mounted under this number.
    Mount(u32),
}

impl Kernel {
    /// Pages that in-memory files may still take.
    pub fn file_pages_left(&self) -> u64 {
        (self.limits.memory / 2 / PAGE_SIZE).saturating_sub(self.vfs.file_pages)
    }

    /// A zeroed page with one user. ENOSPC when in-memory files hold half of the sandbox's memory limit (as tmpfs(5) does by default), so
    /// that a full file system is an error of the writer and does not kill anybody, or when the arena is full.
    pub fn frame_alloc_page(&mut self) -> Result<Gpa, Errno> {
        self.frame_alloc_pages(1, Charge::All)
    }

    /// The same for `count` pages side by side. Files without a name (memfd_create(2), shared anonymous memory) have no such limit
    /// ([`Charge::Nothing`]), as on Linux: they are charged to the sandbox's memory.
    fn frame_alloc_pages(&mut self, count: u64, charge: Charge) -> Result<Gpa, Errno> {
        if count > self.charge_left(charge) {
            return Err(Errno::ENOSPC);
        }
        let gpa = self.frames_alloc(count * PAGE_SIZE).map_err(|_| Errno::ENOSPC)?;
        self.charge_pages(charge, count);
        Ok(gpa)
    }

    /// One user less of each page of a file that goes; the last one's going empties the page and makes it free. Mappings of the pages
    /// are users of their own.
    pub(super) fn frame_free_pages(&mut self, pages: impl IntoIterator<Item = Gpa>, charge: Charge) {
        let mut run: Option<(Gpa, u64)> = None;
        for gpa in pages {
            self.uncharge_page(charge);
            run = match run {
                Some((start, len)) if start + len == gpa => Some((start, len + PAGE_SIZE)),
                other => {
                    if let Some((start, len)) = other {
                        self.frames_release(start, len);
                    }
                    Some((gpa, PAGE_SIZE))
                }
            };
        }
        if let Some((start, len)) = run {
            self.frames_release(start, len);
        }
    }

    /// What the pages of a file count against.
    pub(super) fn charge_of(&self, inode: InodeId) -> Charge {
        match self.vfs.inode(inode) {
            Ok(node) if node.seals.is_none() => match node.fs {
                FsKind::Mount(n) => Charge::Mount(n),
                _ => Charge::All,
            },
            _ => Charge::Nothing,
        }
    }

    /// Pages that may still be charged so.
    pub(super) fn charge_left(&self, charge: Charge) -> u64 {
        match charge {
            Charge::Nothing => u64::MAX,
            Charge::All => self.file_pages_left(),
            Charge::Mount(n) => self.file_pages_left().min(self.vfs.mounts.pages_left(n)),
        }
    }

    fn charge_pages(&mut self, charge: Charge, count: u64) {
        if charge != Charge::Nothing {
            self.vfs.file_pages += count;
        }
        if let Charge::Mount(n) = charge {
            self.vfs.mounts.add_pages(n, count);
        }
    }

    fn uncharge_page(&mut self, charge: Charge) {
        if charge != Charge::Nothing {
            self.vfs.file_pages = self.vfs.file_pages.saturating_sub(1);
        }
        if let Charge::Mount(n) = charge {
            self.vfs.mounts.sub_pages(n, 1);
        }
    }

    /// The arena pages of `count` pages of an in-memory file from page `first`, made where they are missing, as runs: (first page, gpa,
    /// pages). What could not be made any more is left out, unless it is the very first: ENOSPC.
    pub(crate) fn inode_pages(
        &mut self,
        inode: InodeId,
        first: u64,
        count: u64,
    ) -> Result<Vec<(u64, Gpa, u64)>, Errno> {
        self.copy_up(inode)?;
        let charge = self.charge_of(inode);
        let end = first.saturating_add(count);
        let Kind::File(pages) = &self.vfs.inode(inode)?.kind else { return Err(Errno::EINVAL) };
        let mut missing: Vec<(u64, u64)> = Vec::new();
        let mut at = first;
        for index in pages.range(first..end).map(|(i, _)| *i).chain([end]) {
            while at < index {
                let n = (index - at).min(CHUNK);
                missing.push((at, n));
                at += n;
            }
            at = index + 1;
        }
        let mut fresh: BTreeMap<u64, Gpa> = BTreeMap::new();
        let mut failed = None;
        for (at, n) in missing {
            // Page by page where a whole piece is too much.
            let pieces = match self.frame_alloc_pages(n, charge) {
                Ok(gpa) => vec![(at, gpa, n)],
                Err(_) => (at..at + n)
                    .map_while(|i| self.frame_alloc_pages(1, charge).ok().map(|gpa| (i, gpa, 1)))
                    .collect(),
            };
            let done: u64 = pieces.iter().map(|p| p.2).sum();
            for (at, gpa, n) in pieces {
                fresh.extend((0..n).map(|i| (at + i, gpa + i * PAGE_SIZE)));
            }
            if done < n {
                failed = Some(at + done);
                break;
            }
        }
        let node = self.vfs.inode_mut(inode)?;
        let Kind::File(pages) = &mut node.kind else { return Err(Errno::EINVAL) };
        pages.append(&mut fresh);
        node.stat.blocks = u64_of(pages.len()) * 8;
        let mut runs: Vec<(u64, Gpa, u64)> = Vec::new();
        for (index, gpa) in pages.range(first..end) {
            match runs.last_mut() {
                Some((i, g, n)) if *i + *n == *index && *g + *n * PAGE_SIZE == *gpa => *n += 1,
                _ => runs.push((*index, *gpa, 1)),
            }
        }
        if failed == Some(first) { Err(Errno::ENOSPC) } else { Ok(runs) }
    }
}
