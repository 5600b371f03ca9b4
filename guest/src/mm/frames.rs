//! The arena's extents: which guest-physical pages are free, and how often each allocated page is referred to.
//!
//! Owns no contents and knows no address space. Ranges are page-granular; a reference is to a range of pages, and extents are
//! split and joined on demand, so a mapping may give back any part of what it got. Allocation is first fit from the bottom,
//! so that the high-water mark (and with it the number of memory slots) stays low.

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::platform::{FIRST_EXTENT, Gpa, PAGE_SIZE, Platform};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Extents of the arena.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Frames {
    /// Free ranges: start to end.
    free: BTreeMap<Gpa, Gpa>,
    /// Allocated ranges by start.
    used: BTreeMap<Gpa, Used>,
}

/// An allocated range with one reference count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Used {
    end: Gpa,
    refs: u32,
    /// Backed by a host file: it must be detached before it is used again.
    file: bool,
}

impl Frames {
    /// All of `FIRST_EXTENT..arena_len` is free.
    pub fn new(arena_len: u64) -> Self {
        let end = arena_len & !(PAGE_SIZE - 1);
        let mut free = BTreeMap::new();
        if end > FIRST_EXTENT {
            free.insert(FIRST_EXTENT, end);
        }
        Frames { free, used: BTreeMap::new() }
    }

    /// Bytes that are free.
    pub fn free_bytes(&self) -> u64 {
        self.free.iter().map(|(s, e)| e - s).sum()
    }

    /// Allocates `len` bytes (a multiple of the page size, not 0) with one reference at the lowest address that equals
    /// `phase` modulo `align` (a power of two, at least a page). ENOMEM.
    pub fn alloc(&mut self, platform: &dyn Platform, len: u64, align: u64, phase: u64) -> Result<Gpa, Errno> {
        let phase = phase & (align - 1);
        let fit = self.free.iter().find_map(|(start, end)| {
            let base = start & !(align - 1);
            let at = if base + phase >= *start { base + phase } else { (base + phase).checked_add(align)? };
            (at.checked_add(len)? <= *end).then_some((*start, *end, at))
        });
        let (start, end, at) = fit.ok_or(Errno::ENOMEM)?;
        platform.ensure(at, len)?;
        self.free.remove(&start);
        if at > start {
            self.free.insert(start, at);
        }
        if at + len < end {
            self.free.insert(at + len, end);
        }
        self.used.insert(at, Used { end: at + len, refs: 1, file: false });
        Ok(at)
    }

    /// Marks a range as backed by a host file.
    pub fn set_file(&mut self, gpa: Gpa, len: u64) {
        self.each(gpa, len, |u| u.file = true);
    }

    /// One more reference to each page of a range.
    pub fn add_ref(&mut self, gpa: Gpa, len: u64) {
        self.each(gpa, len, |u| u.refs = u.refs.saturating_add(1));
    }

    /// References to the page at `gpa`; 0 when it is free.
    pub fn refs(&self, gpa: Gpa) -> u32 {
        self.find(gpa).map_or(0, |u| u.refs)
    }

    /// Bytes from `gpa` (page-aligned) that have the same count of references; at least a page.
    pub fn run(&self, gpa: Gpa) -> u64 {
        self.find(gpa).map_or(PAGE_SIZE, |u| u.end - gpa)
    }

    /// The range around `gpa` (page-aligned) that has the same count of references; at least a page.
    pub fn span(&self, gpa: Gpa) -> (Gpa, Gpa) {
        let at = self.used.range(..=gpa).next_back().filter(|(_, u)| gpa < u.end);
        at.map_or((gpa, gpa + PAGE_SIZE), |(s, u)| (*s, u.end))
    }

    /// Whether the page at `gpa` is backed by a host file.
    pub fn is_file(&self, gpa: Gpa) -> bool {
        self.find(gpa).is_some_and(|u| u.file)
    }

    /// One reference less to each page of a range; pages without any lose their contents and are free.
    pub fn release(&mut self, platform: &dyn Platform, gpa: Gpa, len: u64) {
        let mut gone = Vec::new();
        self.each(gpa, len, |u| u.refs = u.refs.saturating_sub(1));
        for (start, used) in self.used.range(gpa..gpa.saturating_add(len)) {
            if used.refs == 0 {
                gone.push((*start, *used));
            }
        }
        for (start, used) in gone {
            let len = used.end - start;
            let cleared =
                if used.file { platform.detach_file(start, len) } else { platform.discard(start, len) };
            self.used.remove(&start);
            // A range whose contents could not be dropped is lost rather than handed to somebody else.
            if cleared.is_ok() {
                self.put(start, used.end);
            }
        }
    }

    fn put(&mut self, mut start: Gpa, mut end: Gpa) {
        if let Some((s, e)) = self.free.range(..start).next_back().map(|(s, e)| (*s, *e))
            && e == start
        {
            self.free.remove(&s);
            start = s;
        }
        if let Some(e) = self.free.remove(&end) {
            end = e;
        }
        self.free.insert(start, end);
    }

    fn find(&self, gpa: Gpa) -> Option<&Used> {
        self.used.range(..=gpa).next_back().map(|(_, u)| u).filter(|u| gpa < u.end)
    }

    fn split(&mut self, at: Gpa) {
        let Some((start, used)) = self.used.range(..at).next_back().map(|(s, u)| (*s, *u)) else { return };
        if at < used.end {
            self.used.insert(start, Used { end: at, ..used });
            self.used.insert(at, used);
        }
    }

    /// Changes each page of a range, then joins neighbours that have become equal.
    fn each(&mut self, gpa: Gpa, len: u64, f: impl Fn(&mut Used)) {
        let end = gpa.saturating_add(len);
        self.split(gpa);
        self.split(end);
        for (_, used) in self.used.range_mut(gpa..end) {
            f(used);
        }
        let first = self.used.range(..gpa).next_back().map_or(gpa, |(s, _)| *s);
        let starts: Vec<Gpa> = self.used.range(first..=end).map(|(s, _)| *s).collect();
        let mut last: Option<(Gpa, Used)> = None;
        for start in starts {
            let Some(used) = self.used.get(&start).copied() else { continue };
            match last {
                Some((s, u)) if u.end == start && u.refs == used.refs && u.file == used.file => {
                    // A range at 0 references that is about to be freed must not swallow its neighbours'.
                    self.used.remove(&start);
                    let joined = Used { end: used.end, ..u };
                    self.used.insert(s, joined);
                    last = Some((s, joined));
                }
                _ => last = Some((start, used)),
            }
        }
    }
}

impl Kernel {
    /// Allocates zeroed arena pages that belong to the kernel (an in-memory file's pages): `len` bytes, a multiple of the page
    /// size, with one reference. ENOMEM.
    pub fn frames_alloc(&mut self, len: u64) -> Result<Gpa, Errno> {
        self.frames.alloc(&*self.platform, len, PAGE_SIZE, 0)
    }

    /// Gives back a reference that [`Kernel::frames_alloc`] gave, or a part of its range; mappings keep their own.
    pub fn frames_release(&mut self, gpa: Gpa, len: u64) {
        self.frames.release(&*self.platform, gpa, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fake::FakePlatform;

    #[test]
    fn freed_parts_coalesce_into_the_whole_arena() {
        let p = FakePlatform::new(FIRST_EXTENT + 64 * PAGE_SIZE);
        let mut f = Frames::new(p.arena_len());
        let a = f.alloc(&p, 8 * PAGE_SIZE, PAGE_SIZE, 0).unwrap();
        let b = f.alloc(&p, 4 * PAGE_SIZE, PAGE_SIZE, 0).unwrap();
        f.add_ref(a + PAGE_SIZE, PAGE_SIZE);
        f.release(&p, a, 8 * PAGE_SIZE);
        assert_eq!(f.refs(a + PAGE_SIZE), 1);
        assert_eq!(f.refs(a), 0);
        f.release(&p, b, 4 * PAGE_SIZE);
        f.release(&p, a + PAGE_SIZE, PAGE_SIZE);
        assert_eq!(f.free_bytes(), 64 * PAGE_SIZE);
        assert_eq!(f.free.len(), 1);
        assert!(f.used.is_empty());
    }

    #[test]
    fn a_phase_is_honoured() {
        let p = FakePlatform::new(FIRST_EXTENT + (8 << 20));
        let mut f = Frames::new(p.arena_len());
        let a = f.alloc(&p, 2 << 20, 2 << 20, 0x7000).unwrap();
        assert_eq!(a % (2 << 20), 0x7000);
        assert_eq!(f.alloc(&p, 64 << 20, PAGE_SIZE, 0), Err(Errno::ENOMEM));
    }
}
