//! Changes to an address space that touch page tables and frames. Keeps the rule of [`super::vma::Piece`]: a leaf is present exactly
//! where a piece lies in a mapping with some access, writable where the mapping is and the piece is not copy-on-write.

use super::frames::Frames;
use super::vma::{Mm, Piece, Prot, Vma};
use crate::errno::Errno;
use crate::num::us;
use crate::platform::{Access, Gpa, LARGE_PAGE, PAGE_SIZE, Platform, Va};

/// An address space with what it takes to change it.
pub struct Space<'a> {
    /// The bookkeeping.
    pub mm: &'a mut Mm,
    /// The arena's extents.
    pub frames: &'a mut Frames,
    /// The machine.
    pub platform: &'a dyn Platform,
}

/// What is copied at once at a write to a page that others share: the leaves that a shadow MMU maps at one fault (8).
const COW_BLOCK: u64 = 8 * PAGE_SIZE;

fn access(prot: Prot, cow: bool) -> Access {
    Access { write: prot.contains(Prot::WRITE) && !cow, exec: prot.contains(Prot::EXEC) }
}

impl Space<'_> {
    /// Allocates frames for `va..va+len`, placed so that large leaves fit.
    pub fn alloc_for(&mut self, va: Va, len: u64) -> Result<Gpa, Errno> {
        let align = if len >= LARGE_PAGE { LARGE_PAGE } else { PAGE_SIZE };
        self.frames
            .alloc(self.platform, len, align, va)
            .or_else(|_| self.frames.alloc(self.platform, len, PAGE_SIZE, 0))
    }

    /// Backs a hole with frames whose reference it takes over (also on failure).
    pub fn back(&mut self, va: Va, len: u64, gpa: Gpa, cow: bool, prot: Prot) -> Result<(), Errno> {
        if !prot.is_empty()
            && let Err(e) = self.platform.map(self.mm.root, va, gpa, len, access(prot, cow))
        {
            // Part of the range may be mapped already.
            let _ = self.platform.unmap(self.mm.root, va, len);
            self.frames.release(self.platform, gpa, len);
            return Err(e.into());
        }
        self.mm.add_piece(va, Piece { end: va + len, gpa, cow });
        Ok(())
    }

    /// Makes the leaves of a range non-present; pieces stay.
    pub fn hide(&mut self, start: Va, end: Va) -> Result<(), Errno> {
        let mut run: Option<(Va, Va)> = None;
        for (s, p) in self.mm.pieces_in(start, end) {
            match &mut run {
                Some((_, e)) if *e == s => *e = p.end,
                _ => {
                    if let Some((s, e)) = run {
                        self.platform.unmap(self.mm.root, s, e - s)?;
                    }
                    run = Some((s, p.end));
                }
            }
        }
        if let Some((s, e)) = run {
            self.platform.unmap(self.mm.root, s, e - s)?;
        }
        Ok(())
    }

    /// Drops what backs a range.
    pub fn drop_pieces(&mut self, start: Va, end: Va) -> Result<(), Errno> {
        self.hide(start, end)?;
        for (s, p) in self.mm.pieces_in(start, end) {
            self.mm.pieces.remove(&s);
            self.frames.release(self.platform, p.gpa, p.end - s);
        }
        Ok(())
    }

    /// Drops all pieces of an address space whose page tables are gone.
    pub fn release_pieces(&mut self) {
        for (start, piece) in std::mem::take(&mut self.mm.pieces) {
            self.frames.release(self.platform, piece.gpa, piece.end - start);
        }
    }

    /// Removes the mappings of a range with what backs them.
    pub fn unmap(&mut self, start: Va, end: Va) -> Result<(), Errno> {
        self.drop_pieces(start, end)?;
        self.mm.remove(start, end);
        Ok(())
    }

    /// Sets the protection of one whole mapping.
    pub fn protect(&mut self, start: Va, prot: Prot) -> Result<(), Errno> {
        let Some(Vma { end, prot: old, .. }) = self.mm.vmas.get(&start).cloned() else { return Ok(()) };
        if old == prot {
            return Ok(());
        }
        if prot.is_empty() {
            self.hide(start, end)?;
        } else {
            for (s, p) in self.mm.pieces_in(start, end) {
                let len = p.end - s;
                if old.is_empty() {
                    self.platform.map(self.mm.root, s, p.gpa, len, access(prot, p.cow))?;
                } else if access(old, p.cow) != access(prot, p.cow) {
                    self.platform.protect(self.mm.root, s, len, access(prot, p.cow))?;
                }
            }
        }
        if let Some(v) = self.mm.vmas.get_mut(&start) {
            v.prot = prot;
        }
        Ok(())
    }

    /// Gives a page that is copy-on-write its own frame, and its neighbours theirs where that spares faults: all of its run within a
    /// large page when nobody else refers to it any more, and a block of eight pages when it has to be copied. `page` lies in a
    /// piece and a mapping.
    pub fn break_cow(&mut self, page: Va) -> Result<(), Errno> {
        let Some((start, piece)) = self.mm.piece(page).filter(|(_, p)| p.cow) else { return Ok(()) };
        let Some((from, vma)) = self.mm.find(page) else { return Ok(()) };
        let (prot, own) = (vma.prot, vma.is_private_anon());
        let gpa = piece.gpa + (page - start);
        // What is mapped here with one count of references.
        let (first, last) = self.frames.span(gpa);
        let low = start.max(from).max(page - (gpa - first).min(page));
        let high = piece.end.min(vma.end).min(page.saturating_add(last - gpa));
        let within = |size: u64| {
            let base = page & !(size - 1);
            (base.max(low), (base + size).min(high))
        };
        if self.frames.refs(gpa) == 1 {
            let (s, e) = within(LARGE_PAGE);
            for (at, p) in self.mm.pieces_in(s, e) {
                self.mm.pieces.remove(&at);
                self.mm.add_piece(at, Piece { cow: false, ..p });
            }
            if !prot.is_empty() {
                self.platform.protect(self.mm.root, s, e - s, access(prot, false))?;
            }
            return Ok(());
        }
        // The pages of an in-memory file stay the file's until they are written themselves.
        if prot.contains(Prot::WRITE) && (own || self.frames.is_file(gpa)) {
            let (s, e) = within(COW_BLOCK);
            // Where memory is short, or a file has become too short, the page alone may do.
            if e - s > PAGE_SIZE {
                match self.copy_pages(s, e, prot) {
                    Err(_) if self.mm.piece(page).is_some_and(|(_, p)| p.cow) => {}
                    other => return other,
                }
            }
        }
        self.copy_pages(page, page + PAGE_SIZE, prot)
    }

    /// Gives a range within one piece frames of its own with the same contents.
    fn copy_pages(&mut self, start: Va, end: Va, prot: Prot) -> Result<(), Errno> {
        let len = end - start;
        let Some((s, old)) = self.mm.piece(start) else { return Ok(()) };
        let old = old.gpa + (start - s);
        let fresh = self.frames.alloc(self.platform, len, PAGE_SIZE, 0)?;
        let mut data = vec![0; us(len)];
        let copied = self.platform.read(old, &mut data).and_then(|()| {
            let mut to = fresh;
            for page in data.chunks(us(PAGE_SIZE)) {
                // A fresh frame is zero, and takes no memory of the host before it is written.
                if page.iter().any(|b| *b != 0) {
                    self.platform.write(to, page)?;
                }
                to += PAGE_SIZE;
            }
            self.platform.unmap(self.mm.root, start, len)
        });
        if let Err(e) = copied {
            self.frames.release(self.platform, fresh, len);
            return Err(e.into());
        }
        for (at, p) in self.mm.pieces_in(start, end) {
            self.mm.pieces.remove(&at);
            self.frames.release(self.platform, p.gpa, p.end - at);
        }
        self.back(start, len, fresh, false, prot)
    }

    /// Moves the pieces of `from..from+len` to `to`; the mapping there exists already with protection `prot`.
    pub fn move_pieces(&mut self, from: Va, to: Va, len: u64, prot: Prot) -> Result<(), Errno> {
        self.hide(from, from + len)?;
        for (s, p) in self.mm.pieces_in(from, from + len) {
            self.mm.pieces.remove(&s);
            self.back(to + (s - from), p.end - s, p.gpa, p.cow, prot)?;
        }
        Ok(())
    }
}
