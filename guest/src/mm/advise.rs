//! madvise(2).

use super::vma::{Backing, VmFlags, Vma};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::align_up;
use crate::platform::{PAGE_SIZE, Va};

use linux_raw_sys::general as g;

/// What an advice asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Nothing,
    /// Nothing either, but not for locked memory.
    Age,
    Drop {
        /// Locked memory too.
        locked: bool,
    },
    Free,
    Remove,
    Set(VmFlags),
    Clear(VmFlags),
    Populate {
        write: bool,
    },
}

fn action(advice: u64) -> Option<Action> {
    let advice = u32::try_from(advice).ok()?;
    Some(match advice {
        g::MADV_COLD | g::MADV_PAGEOUT => Action::Age,
        g::MADV_NORMAL
        | g::MADV_RANDOM
        | g::MADV_SEQUENTIAL
        | g::MADV_WILLNEED
        | g::MADV_HUGEPAGE
        | g::MADV_NOHUGEPAGE
        | g::MADV_DONTDUMP
        | g::MADV_DODUMP
        | g::MADV_MERGEABLE
        | g::MADV_UNMERGEABLE
        | g::MADV_COLLAPSE => Action::Nothing,
        g::MADV_DONTNEED => Action::Drop { locked: false },
        g::MADV_DONTNEED_LOCKED => Action::Drop { locked: true },
        g::MADV_FREE => Action::Free,
        g::MADV_REMOVE => Action::Remove,
        g::MADV_DONTFORK => Action::Set(VmFlags::DONTFORK),
        g::MADV_DOFORK => Action::Clear(VmFlags::DONTFORK),
        g::MADV_WIPEONFORK => Action::Set(VmFlags::WIPEONFORK),
        g::MADV_KEEPONFORK => Action::Clear(VmFlags::WIPEONFORK),
        g::MADV_POPULATE_READ => Action::Populate { write: false },
        g::MADV_POPULATE_WRITE => Action::Populate { write: true },
        _ => return None,
    })
}

/// Whether an advice has a meaning here.
pub fn known(advice: u64) -> bool {
    action(advice).is_some()
}

impl Kernel {
    /// madvise(2): mapped parts are advised even when others are not mapped, which ends in ENOMEM.
    pub fn madvise(&mut self, mm: u64, addr: Va, len: u64, advice: u64) -> Result<(), Errno> {
        let action = action(crate::num::low32(advice).into()).ok_or(Errno::EINVAL)?;
        if !addr.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let len = align_up(len, PAGE_SIZE).ok_or(Errno::EINVAL)?;
        let end = addr.checked_add(len).ok_or(Errno::EINVAL)?;
        if len == 0 {
            return Ok(());
        }
        let m = self.mms.get(mm).ok_or(Errno::EFAULT)?;
        let covered = m.covered(addr, end);
        if matches!(action, Action::Populate { .. }) && !covered {
            return Err(Errno::ENOMEM);
        }
        for (start, end, key) in m.vmas_in(addr, end) {
            let Some(vma) = self.mms.get(mm).and_then(|m| m.find(start)).map(|(_, v)| v.clone()) else {
                continue;
            };
            let _ = key;
            self.advise_one(mm, start, end, &vma, action)?;
        }
        if let Some(m) = self.mms.get_mut(mm) {
            m.merge(addr, end);
        }
        if covered { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    fn advise_one(&mut self, mm: u64, start: Va, end: Va, vma: &Vma, action: Action) -> Result<(), Errno> {
        match action {
            Action::Nothing => Ok(()),
            Action::Age | Action::Drop { locked: false } | Action::Free
                if vma.flags.contains(VmFlags::LOCKED) =>
            {
                Err(Errno::EINVAL)
            }
            Action::Age => Ok(()),
            Action::Drop { .. } if vma.is_kernel() => Err(Errno::EINVAL),
            Action::Drop { .. } => self.drop_range(mm, start, end, vma),
            Action::Free if vma.is_private_anon() => self.drop_range(mm, start, end, vma),
            Action::Remove => self.remove_range(mm, start, end),
            Action::Free => Err(Errno::EINVAL),
            Action::Set(VmFlags::WIPEONFORK) if !vma.is_private_anon() => Err(Errno::EINVAL),
            Action::Set(flag) => self.set_flag(mm, start, end, flag, true),
            Action::Clear(flag) => self.set_flag(mm, start, end, flag, false),
            Action::Populate { write } => {
                use super::fault::Denied;
                let need = if write { super::Prot::WRITE } else { super::Prot::READ };
                let mut page = start;
                while page < end {
                    self.touch(mm, page, need).map_err(|d| match d {
                        Denied::Segv(_) => Errno::EINVAL,
                        Denied::Bus | Denied::User(_) => Errno::EFAULT,
                        Denied::NoMemory => Errno::ENOMEM,
                    })?;
                    // The rest of what backs it, unless each page has to be copied.
                    page = match self.mms.get(mm).and_then(|m| m.piece(page)) {
                        Some((_, p)) if !(p.cow && write) => p.end,
                        _ => page + PAGE_SIZE,
                    };
                }
                Ok(())
            }
        }
    }

    /// Punches a hole into the file that a shared, writable mapping maps.
    fn remove_range(&mut self, mm: u64, start: Va, end: Va) -> Result<(), Errno> {
        let (first, vma) = self.mms.get(mm).and_then(|m| m.find(start)).ok_or(Errno::ENOMEM)?;
        if vma.flags.contains(VmFlags::LOCKED) {
            return Err(Errno::EINVAL);
        }
        let Backing::File { file, offset } = vma.backing_at(start - first) else { return Err(Errno::EINVAL) };
        if !vma.flags.contains(VmFlags::SHARED) || !vma.may.contains(super::Prot::WRITE) {
            return Err(Errno::EACCES);
        }
        let Some(crate::vfs::FileKind::Inode(inode)) = self.files.get(file).map(|f| f.kind.clone()) else {
            return Err(Errno::EINVAL);
        };
        self.inode_punch(inode, offset, offset.saturating_add(end - start))
    }

    fn set_flag(&mut self, mm: u64, start: Va, end: Va, flag: VmFlags, on: bool) -> Result<(), Errno> {
        let m = self.mms.get_mut(mm).ok_or(Errno::EFAULT)?;
        m.split(start);
        m.split(end);
        if let Some(v) = m.vmas.get_mut(&start) {
            v.flags.set(flag, on);
        }
        Ok(())
    }

    /// Private memory reads as at the start again: zeroes, or the file's contents. Shared memory keeps its contents.
    fn drop_range(&mut self, mm: u64, start: Va, end: Va, vma: &Vma) -> Result<(), Errno> {
        if vma.flags.contains(VmFlags::SHARED) {
            return Ok(());
        }
        if vma.is_private_anon() && vma.userfault.is_none() {
            return self.discard_range(mm, start, end);
        }
        self.space(mm)?.drop_pieces(start, end)
    }

    /// Zeroes a range of anonymous memory and gives its host memory back. Frames that are shared are let go instead.
    pub(crate) fn discard_range(&mut self, mm: u64, start: Va, end: Va) -> Result<(), Errno> {
        let mut space = self.space(mm)?;
        for (s, p) in space.mm.pieces_in(start, end) {
            let mut at = s;
            while at < p.end {
                // Runs with one reference count.
                let gpa = p.gpa + (at - s);
                let refs = space.frames.refs(gpa);
                let run = (at + space.frames.run(gpa)).min(p.end);
                if p.cow && refs > 1 {
                    space.drop_pieces(at, run)?;
                } else {
                    space.platform.discard(gpa, run - at)?;
                }
                at = run;
            }
        }
        Ok(())
    }
}
