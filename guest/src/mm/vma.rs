//! An address space as data: mappings (what the guest asked for) and pieces (what backs them now). Pure bookkeeping; page
//! tables and frames are changed by [`super::space`].

use super::gaps::Gaps;
use crate::platform::{Gpa, Root, TASK_SIZE, Va};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Lowest address that a mapping may have (vm.mmap_min_addr).
pub const MMAP_MIN_ADDR: Va = 0x1_0000;
/// Mappings that an address space may have (vm.max_map_count).
pub const MAX_MAP_COUNT: usize = 65_530;

bitflags::bitflags! {
    /// Protection, with mmap(2)'s numbers.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    pub struct Prot: u8 {
        /// PROT_READ.
        const READ = 1;
        /// PROT_WRITE.
        const WRITE = 2;
        /// PROT_EXEC.
        const EXEC = 4;
    }

    /// Properties of a mapping.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    pub struct VmFlags: u16 {
        /// MAP_SHARED: a fork of the process shares it.
        const SHARED = 1;
        /// MAP_GROWSDOWN or the stack.
        const GROWSDOWN = 2;
        /// MAP_NORESERVE: populated at faults only.
        const NORESERVE = 4;
        /// MADV_WIPEONFORK.
        const WIPEONFORK = 8;
        /// MADV_DONTFORK.
        const DONTFORK = 16;
        /// mlock(2).
        const LOCKED = 32;
    }
}

/// What a mapping maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backing {
    /// Zero-filled memory.
    Anon,
    /// A file.
    File {
        /// The open file description (a key of `Kernel::files`).
        file: u64,
        /// Offset of the mapping's first byte.
        offset: u64,
    },
    /// Anonymous or kernel-owned memory with a name in /proc/self/maps.
    Special(Special),
}

/// Named mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Special {
    /// `[heap]`
    Heap,
    /// `[stack]`
    Stack,
    /// `[vvar]`: the time page.
    Vvar,
    /// `[vdso]`
    Vdso,
}

impl Special {
    /// Its name in /proc/self/maps.
    pub fn name(self) -> &'static str {
        match self {
            Special::Heap => "[heap]",
            Special::Stack => "[stack]",
            Special::Vvar => "[vvar]",
            Special::Vdso => "[vdso]",
        }
    }
}

/// One mapping; its start is its key in [`Mm::vmas`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vma {
    /// First address after it.
    pub end: Va,
    /// What accesses are allowed.
    pub prot: Prot,
    /// What mprotect(2) may allow.
    pub may: Prot,
    /// Properties.
    pub flags: VmFlags,
    /// What it maps.
    pub backing: Backing,
    /// The userfaultfd that its missing pages are told to.
    pub userfault: Option<u64>,
}

impl Vma {
    /// Whether it is private and zero-filled.
    pub fn is_private_anon(&self) -> bool {
        !self.flags.contains(VmFlags::SHARED)
            && matches!(self.backing, Backing::Anon | Backing::Special(Special::Heap | Special::Stack))
    }

    /// Whether it belongs to the kernel: its frames are not the address space's own.
    pub fn is_kernel(&self) -> bool {
        matches!(self.backing, Backing::Special(Special::Vvar | Special::Vdso))
    }

    /// The backing `delta` bytes further on.
    pub fn backing_at(&self, delta: u64) -> Backing {
        match &self.backing {
            Backing::File { file, offset } => {
                Backing::File { file: *file, offset: offset.saturating_add(delta) }
            }
            other => other.clone(),
        }
    }
}

/// What backs a range of addresses: its start is its key in [`Mm::pieces`].
///
/// A leaf translation is present exactly where a piece lies in a mapping with some access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// First address after it.
    pub end: Va,
    /// Guest-physical address of its first byte; the piece holds one reference to the range.
    pub gpa: Gpa,
    /// Somebody else refers to the frames too: copy before a write.
    pub cow: bool,
}

/// One address space.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mm {
    /// Its page tables.
    pub root: Root,
    /// Tasks that use it.
    pub users: u32,
    /// Mappings by start; they do not overlap.
    pub vmas: BTreeMap<Va, Vma>,
    /// What lies between the mappings.
    pub gaps: Gaps,
    /// Backed ranges by start; each lies in mappings.
    pub pieces: BTreeMap<Va, Piece>,
    /// How many mappings refer to each open file; the address space holds one reference to each file.
    pub files: BTreeMap<u64, u32>,
    /// Bytes in mappings.
    pub total: u64,
    /// Start of the heap.
    pub brk_start: Va,
    /// brk(2)'s current value.
    pub brk: Va,
    /// Addresses are chosen downwards from here.
    pub mmap_base: Va,
    /// The vDSO image; 0 when there is none.
    pub vdso: Va,
    /// Executable's code, first to last address.
    pub code: (Va, Va),
    /// Top of the initial stack (startstack in /proc/self/stat).
    pub stack_start: Va,
    /// Argument strings on the initial stack.
    pub args: (Va, Va),
    /// Environment strings on the initial stack.
    pub env: (Va, Va),
    /// membarrier(2) commands registered.
    pub membarrier: u64,
    /// MCL_FUTURE: mappings to come are locked.
    pub lock_future: bool,
}

impl Mm {
    /// An address space without mappings.
    pub fn new(root: Root) -> Self {
        Mm {
            root,
            users: 1,
            vmas: BTreeMap::new(),
            gaps: Gaps::new(),
            pieces: BTreeMap::new(),
            files: BTreeMap::new(),
            total: 0,
            brk_start: 0,
            brk: 0,
            mmap_base: TASK_SIZE - (1 << 20),
            vdso: 0,
            code: (0, 0),
            stack_start: 0,
            args: (0, 0),
            env: (0, 0),
            membarrier: 0,
            lock_future: false,
        }
    }

    /// The mapping that contains `va`, with its start.
    pub fn find(&self, va: Va) -> Option<(Va, &Vma)> {
        self.vmas.range(..=va).next_back().filter(|(_, v)| va < v.end).map(|(s, v)| (*s, v))
    }

    /// The piece that contains `va`, with its start.
    pub fn piece(&self, va: Va) -> Option<(Va, Piece)> {
        self.pieces.range(..=va).next_back().filter(|(_, p)| va < p.end).map(|(s, p)| (*s, *p))
    }

    /// Mappings that intersect a range, cut to it: (start, end, whole mapping's start).
    pub fn vmas_in(&self, start: Va, end: Va) -> Vec<(Va, Va, Va)> {
        let first = self.find(start).map_or(start, |(s, _)| s);
        self.vmas.range(first..end.max(first)).map(|(s, v)| (start.max(*s), end.min(v.end), *s)).collect()
    }

    /// Whether every address of a range is mapped.
    pub fn covered(&self, start: Va, end: Va) -> bool {
        let mut at = start;
        while at < end {
            match self.find(at) {
                Some((_, v)) => at = v.end,
                None => return false,
            }
        }
        true
    }

    /// Whether a range is free of mappings.
    pub fn is_free(&self, start: Va, end: Va) -> bool {
        self.vmas.range(..end).next_back().is_none_or(|(_, v)| v.end <= start)
    }

    /// Whether a mapping that grows down begins at `end` or so little above it that its gap would be touched.
    pub fn grows_onto(&self, end: Va) -> bool {
        let above = self.vmas.range(end..).next();
        above.is_some_and(|(start, v)| {
            v.flags.contains(VmFlags::GROWSDOWN) && start.saturating_sub(end) < super::mmap::STACK_GAP
        })
    }

    /// Ranges within `start..end` that no piece backs.
    pub fn holes(&self, start: Va, end: Va) -> Vec<(Va, Va)> {
        let mut holes = Vec::new();
        let mut at = start;
        let first = self.piece(start).map_or(start, |(s, _)| s);
        for (s, p) in self.pieces.range(first..end.max(first)) {
            if *s > at {
                holes.push((at, *s));
            }
            at = at.max(p.end);
        }
        if at < end {
            holes.push((at, end));
        }
        holes
    }

    /// Makes `at` a boundary between mappings.
    pub fn split(&mut self, at: Va) {
        let Some((start, vma)) = self.vmas.range_mut(..at).next_back() else { return };
        if at >= vma.end {
            return;
        }
        let upper = Vma { backing: vma.backing_at(at - *start), ..vma.clone() };
        vma.end = at;
        self.count_file(&upper.backing, 1);
        self.vmas.insert(at, upper);
    }

    /// Adds a mapping to a free range.
    pub fn insert(&mut self, start: Va, vma: Vma) {
        self.count_file(&vma.backing, 1);
        self.total = self.total.saturating_add(vma.end.saturating_sub(start));
        let end = vma.end;
        self.gaps.fill(start, end);
        self.vmas.insert(start, vma);
        self.merge(start, end);
    }

    /// Takes the mappings of a range out; those that straddle its ends are split.
    pub fn remove(&mut self, start: Va, end: Va) -> Vec<(Va, Vma)> {
        self.split(start);
        self.split(end);
        let keys: Vec<Va> = self.vmas.range(start..end).map(|(s, _)| *s).collect();
        let mut gone = Vec::new();
        for key in keys {
            if let Some(vma) = self.vmas.remove(&key) {
                self.count_file(&vma.backing, -1);
                self.total = self.total.saturating_sub(vma.end - key);
                self.gaps.clear(key, vma.end);
                gone.push((key, vma));
            }
        }
        gone
    }

    /// Joins equal neighbours at and between two addresses.
    pub fn merge(&mut self, start: Va, end: Va) {
        let first = self.vmas.range(..start).next_back().map_or(start, |(s, _)| *s);
        let keys: Vec<Va> = self.vmas.range(first..=end).map(|(s, _)| *s).collect();
        let mut last: Option<Va> = None;
        for key in keys {
            let joined = match (last.and_then(|l| self.vmas.get(&l).map(|v| (l, v))), self.vmas.get(&key)) {
                (Some((l, a)), Some(b))
                    if a.end == key
                        && a.prot == b.prot
                        && a.may == b.may
                        && a.flags == b.flags
                        && a.userfault == b.userfault
                        && !a.is_kernel()
                        && a.backing_at(key - l) == b.backing =>
                {
                    Some((l, b.end, b.backing.clone()))
                }
                _ => None,
            };
            match joined {
                Some((l, end, backing)) => {
                    self.vmas.remove(&key);
                    self.count_file(&backing, -1);
                    if let Some(v) = self.vmas.get_mut(&l) {
                        v.end = end;
                    }
                }
                None => last = Some(key),
            }
        }
    }

    fn count_file(&mut self, backing: &Backing, delta: i32) {
        if let Backing::File { file, .. } = backing {
            let count = self.files.entry(*file).or_default();
            *count = count.saturating_add_signed(delta);
        }
    }

    /// A free range of `len` bytes in `low..high`, near the top, at a large-page boundary when it is that long.
    pub fn find_gap(&self, len: u64, low: Va, high: Va) -> Option<Va> {
        self.gaps.find(len, low, high).0
    }

    /// Makes `at` a boundary between pieces.
    pub fn split_piece(&mut self, at: Va) {
        if let Some((start, piece)) = self.pieces.range_mut(..at).next_back()
            && at < piece.end
        {
            let upper = Piece { gpa: piece.gpa + (at - *start), ..*piece };
            piece.end = at;
            self.pieces.insert(at, upper);
        }
    }

    /// The pieces of a range, split at its ends.
    pub fn pieces_in(&mut self, start: Va, end: Va) -> Vec<(Va, Piece)> {
        self.split_piece(start);
        self.split_piece(end);
        self.pieces.range(start..end).map(|(s, p)| (*s, *p)).collect()
    }

    /// Adds a piece, joined with a neighbour that continues it.
    pub fn add_piece(&mut self, mut start: Va, mut piece: Piece) {
        if let Some((s, p)) = self.pieces.range(..start).next_back().map(|(s, p)| (*s, *p))
            && p.end == start
            && p.cow == piece.cow
            && p.gpa + (p.end - s) == piece.gpa
        {
            piece.gpa = p.gpa;
            start = s;
        }
        if let Some(p) = self.pieces.get(&piece.end).copied()
            && p.cow == piece.cow
            && piece.gpa + (piece.end - start) == p.gpa
        {
            self.pieces.remove(&piece.end);
            piece.end = p.end;
        }
        self.pieces.insert(start, piece);
    }
}
