//! Address spaces at forks: fork(2) of a guest process, and the fork of the whole sandbox.

use super::space::Space;
use super::vma::{Mm, Piece, VmFlags};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::platform::{Access, Va};

/// A range of the parent that became copy-on-write for this fork, and what it allowed.
type Taken = (Va, Va, Access);

/// Gives the child a reference to what backs the parent, copy-on-write on both sides where it is private. The parent's ranges that were
/// its own until now are added to `taken`; their leaves still allow writing.
fn share_pieces(space: &mut Space<'_>, child: &mut Mm, taken: &mut Vec<Taken>) {
    let pieces: Vec<(Va, Piece)> = space.mm.pieces.iter().map(|(s, p)| (*s, *p)).collect();
    for (start, piece) in pieces {
        for (s, e, key) in space.mm.vmas_in(start, piece.end) {
            let Some(vma) = space.mm.vmas.get(&key) else { continue };
            let (shared, kernel, prot) = (vma.flags.contains(VmFlags::SHARED), vma.is_kernel(), vma.prot);
            if vma.flags.intersects(VmFlags::WIPEONFORK | VmFlags::DONTFORK) {
                continue;
            }
            let gpa = piece.gpa + (s - start);
            let cow = !shared && !kernel || piece.cow;
            space.frames.add_ref(gpa, e - s);
            child.add_piece(s, Piece { end: e, gpa, cow });
            if cow && !piece.cow {
                for (at, p) in space.mm.pieces_in(s, e) {
                    space.mm.pieces.insert(at, Piece { cow: true, ..p });
                }
                let exec = prot.contains(super::Prot::EXEC);
                taken.push((s, e, Access { write: prot.contains(super::Prot::WRITE), exec }));
            }
        }
    }
}

/// Takes back what a fork that failed did to the parent: the ranges are its own again.
fn give_back(space: &mut Space<'_>, taken: &[Taken]) {
    for (s, e, access) in taken {
        // To allow more needs no memory. Should the machine refuse all the same, each page asks again when it is written.
        if access.write && space.platform.protect(space.mm.root, *s, e - s, *access).is_err() {
            continue;
        }
        for (at, p) in space.mm.pieces_in(*s, *e) {
            space.mm.pieces.insert(at, Piece { cow: false, ..p });
        }
    }
}

impl Kernel {
    /// A copy of an address space for fork(2): shared mappings are shared, private ones copied at the first write. ENOMEM.
    pub fn mm_fork(&mut self, parent: u64) -> Result<u64, Errno> {
        let root = self.platform.create_root()?;
        let mut space = self.space(parent)?;
        let mut child =
            Mm { root, users: 1, pieces: Default::default(), lock_future: false, ..space.mm.clone() };
        // Locks are not inherited (mlock(2)).
        child.vmas.values_mut().for_each(|v| {
            v.flags.remove(VmFlags::LOCKED);
            // Nor are registrations of userfaultfd(2) without UFFD_FEATURE_EVENT_FORK.
            v.userfault = None;
        });
        let mut taken = Vec::new();
        share_pieces(&mut space, &mut child, &mut taken);
        let mut ranges: Vec<(Va, u64, Access)> = taken
            .iter()
            .filter(|t| t.2.write)
            .map(|(s, e, a)| (*s, e - s, Access { write: false, ..*a }))
            .collect();
        // Neighbours with the same access need one walk.
        ranges.dedup_by(|b, a| {
            let joins = a.0 + a.1 == b.0 && a.2 == b.2;
            a.1 += if joins { b.1 } else { 0 };
            joins
        });
        let shared = space.platform.protect_all(space.mm.root, &ranges);
        let gone: Vec<(Va, Va)> = child
            .vmas
            .iter()
            .filter(|(_, v)| v.flags.contains(VmFlags::DONTFORK))
            .map(|(s, v)| (*s, v.end))
            .collect();
        for (start, end) in gone {
            child.remove(start, end);
        }
        let files: Vec<u64> = child.files.keys().copied().collect();
        let maps: Vec<(Va, Piece)> = child.pieces.iter().map(|(s, p)| (*s, *p)).collect();
        for file in files {
            self.file_ref(file);
        }
        let id = self.mms.insert(child);
        self.mm_sweep_files(id);
        if let Err(e) = shared.map_err(Errno::from).and_then(|()| self.map_pieces(id, &maps)) {
            self.mm_release(id);
            give_back(&mut self.space(parent)?, &taken);
            return Err(e);
        }
        Ok(id)
    }

    fn map_pieces(&mut self, mm: u64, pieces: &[(Va, Piece)]) -> Result<(), Errno> {
        let space = self.space(mm)?;
        for (start, piece) in pieces {
            for (s, e, key) in space.mm.vmas_in(*start, piece.end) {
                let Some(prot) = space.mm.vmas.get(&key).map(|v| v.prot).filter(|p| !p.is_empty()) else {
                    continue;
                };
                let access = Access {
                    write: prot.contains(super::Prot::WRITE) && !piece.cow,
                    exec: prot.contains(super::Prot::EXEC),
                };
                space.platform.map(space.mm.root, s, piece.gpa + (s - start), e - s, access)?;
            }
        }
        Ok(())
    }

    /// In the child of a sandbox fork: ranges marked MADV_WIPEONFORK read as zeroes in every address space.
    pub fn mm_after_fork(&mut self) {
        let mut wipe = Vec::new();
        for (id, m) in self.mms.iter() {
            for (start, vma) in m.vmas.iter().filter(|(_, v)| v.flags.contains(VmFlags::WIPEONFORK)) {
                wipe.push((id, *start, vma.end));
            }
        }
        for (mm, start, end) in wipe {
            // Letting go of the frames would do too; if even that fails the range must not stay readable.
            if self.discard_range(mm, start, end).is_err()
                && let Ok(mut space) = self.space(mm)
            {
                let _ = space.drop_pieces(start, end);
            }
        }
    }
}
