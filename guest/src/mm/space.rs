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

    /// Gives a page that is copy-on-write its own frame. `page` lies in a piece and a mapping.
    pub fn break_cow(&mut self, page: Va) -> Result<(), Errno> {
        let prot = self.mm.find(page).map_or(Prot::empty(), |(_, v)| v.prot);
        let Some((_, piece)) = self.mm.pieces_in(page, page + PAGE_SIZE).first().copied() else {
            return Ok(());
        };
        if !piece.cow {
            return Ok(());
        }
        if self.frames.refs(piece.gpa) == 1 {
            self.mm.pieces.remove(&page);
            self.mm.add_piece(page, Piece { cow: false, ..piece });
            if !prot.is_empty() {
                self.platform.protect(self.mm.root, page, PAGE_SIZE, access(prot, false))?;
            }
            return Ok(());
        }
        let fresh = self.frames.alloc(self.platform, PAGE_SIZE, PAGE_SIZE, 0)?;
        let mut data = vec![0; us(PAGE_SIZE)];
        let copied = self
            .platform
            .read(piece.gpa, &mut data)
            .and_then(|()| self.platform.write(fresh, &data))
            .and_then(|()| self.platform.unmap(self.mm.root, page, PAGE_SIZE));
        if let Err(e) = copied {
            self.frames.release(self.platform, fresh, PAGE_SIZE);
            return Err(e.into());
        }
        self.mm.pieces.remove(&page);
        self.frames.release(self.platform, piece.gpa, PAGE_SIZE);
        self.back(page, PAGE_SIZE, fresh, false, prot)
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
