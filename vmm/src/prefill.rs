//! The working set of a seed's children, and making it ready in a new child before the first request touches it.
//!
//! Recorded on one child by the Accessed and Dirty bits of its page tables. What the host offers decides how it is used:
//! EPT or NPT hosts with KVM_PRE_FAULT_MEMORY get their second-level tables filled, and everywhere copy-on-write of the written
//! part is broken ahead.

use crate::error::Error;
use crate::layout;
use crate::machine::now;
use crate::pagetable::{ACCESSED, DIRTY};
use crate::sandbox::Sandbox;
use crate::stub;
use guest::platform::{Exit, FIRST_EXTENT, Gpa, PAGE_SIZE, Regs, Root, Va};
use serde::{Deserialize, Serialize};
use std::os::fd::AsRawFd;

const KVM_PRE_FAULT_MEMORY: libc::c_ulong = 0xc040_aed5;

/// A page that a child touches while it serves a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    /// The address space that it was touched through.
    pub root: Root,
    /// Its address there.
    pub va: Va,
    /// Its place in the arena.
    pub gpa: Gpa,
    /// It was written, not only read.
    pub write: bool,
}

/// Pages that a child touches while it serves a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkingSet {
    /// Touched pages, by address space and address.
    pub touched: Vec<Touched>,
    /// What is allocated and made writable ahead: (address, bytes) in the arena. See [`Sandbox::end_recording`].
    pub ready: Vec<(Gpa, u64)>,
}

/// Leaves that KVM's shadow MMU maps ahead around a fault: an aligned block of so many (PTE_PREFETCH_NUM), from its first leaf up to the
/// first that the host has not mapped writable.
const BLOCK: u64 = 8;

/// Pages that may be copied ahead to save one fault. A fault costs 3 to 20 times what a copied page does (figures in
/// docs/ARCHITECTURE.md, "Prefill").
const COPIES_PER_FAULT: usize = 2;

/// `struct kvm_pre_fault_memory`.
#[repr(C)]
#[derive(Default)]
struct PreFault {
    gpa: u64,
    size: u64,
    flags: u64,
    padding: [u64; 5],
}

impl Sandbox {
    /// Begins a recording: clears the Accessed and Dirty bits of all 4 KiB leaves. The sandbox must be paused, so that no
    /// translation exists that would hide an access.
    pub fn begin_recording(&mut self) -> Result<(), Error> {
        if !self.is_paused() {
            return Err(Error::NotPaused);
        }
        for root in self.machine().tables().roots() {
            self.machine().tables().visit(root, |_, _, _, _| Some(0))?;
        }
        Ok(())
    }

    /// Ends a recording: what was touched since it began. Pages below 2 MiB leaves are not seen.
    ///
    /// Made ready ahead are the pages that were written and, where KVM may shadow the tables, the pages in front of touched
    /// neighbours in a block of eight, because then one fault maps them all.
    pub fn end_recording(&mut self) -> Result<WorkingSet, Error> {
        let (mut set, mut pages) = (WorkingSet::default(), Vec::new());
        let shadow = !self.machine().host().nested_paging;
        for root in self.machine().tables().roots() {
            let mut leaves: Vec<Touched> = Vec::new();
            self.machine().tables().visit(root, |va, gpa, entry, size| {
                if size == PAGE_SIZE {
                    let (read, write) = (entry & ACCESSED != 0, entry & DIRTY != 0);
                    leaves.push(Touched { root, va, gpa, write });
                    if read {
                        set.touched.push(Touched { root, va, gpa, write });
                    }
                }
                // Set for good again, so that KVM need not.
                Some(ACCESSED | if entry & 2 != 0 { DIRTY } else { 0 })
            })?;
            let touched: Vec<Va> = set.touched.iter().filter(|t| t.root == root).map(|t| t.va).collect();
            for block in leaves.chunk_by(|a, b| a.va / (BLOCK * PAGE_SIZE) == b.va / (BLOCK * PAGE_SIZE)) {
                let is_touched = |t: &Touched| touched.binary_search(&t.va).is_ok();
                pages.extend(worth_copying(block, is_touched, shadow));
            }
        }
        pages.retain(|gpa| *gpa >= FIRST_EXTENT);
        pages.sort_unstable();
        set.ready = runs(pages.into_iter());
        Ok(set)
    }

    /// Makes a working set ready: breaks copy-on-write ahead, and fills second-level tables where KVM can. Makes the
    /// virtual machine when there is none.
    pub fn prefill(&mut self, set: &WorkingSet) -> Result<(), Error> {
        let started = now();
        for (gpa, len) in &set.ready {
            // A hint: what cannot be made ready now (beyond the end of a file, host short of memory) faults later.
            let _ = self.machine().arena().populate(*gpa, *len);
        }
        if self.machine().host().pre_fault {
            let mut touched: Vec<Gpa> = set.touched.iter().map(|t| t.gpa).collect();
            touched.sort_unstable();
            let fd = self.first_vcpu()?.fd().as_raw_fd();
            for (gpa, size) in runs(touched.into_iter()) {
                let mut range = PreFault { gpa, size, ..PreFault::default() };
                // SAFETY: KVM reads and writes the structure, which outlives the call. It is only a hint: an error is
                // a fault that comes later.
                unsafe { libc::ioctl(fd, KVM_PRE_FAULT_MEMORY, &raw mut range) };
            }
        }
        self.timings.prefill = now() - started;
        Ok(())
    }

    /// Maps a working set by touching it from guest user mode: for spares, which have time before their request comes. No task's
    /// registers change; a page that is not mapped any more ends the pass over its list early and is no error.
    pub fn touch(&mut self, set: &WorkingSet) -> Result<(), Error> {
        let machine = self.machine().clone();
        let vcpu = self.first_vcpu()?;
        vcpu.attach();
        for list in set.touched.chunk_by(|a, b| a.root == b.root) {
            for chunk in list.chunks(layout::TOUCH_ENTRIES) {
                let Some(first) = chunk.first() else { continue };
                let bytes: Vec<u8> =
                    chunk.iter().flat_map(|t| (t.va | u64::from(t.write)).to_le_bytes()).collect();
                machine.arena().write(layout::TOUCH_LIST, &bytes)?;
                let start = layout::window(layout::TOUCH_LIST);
                let mut regs = Regs {
                    rip: stub::touch_entry(),
                    rflags: 0x202,
                    rsi: start,
                    rdi: start + bytes.len() as u64,
                    ..Regs::default()
                };
                while vcpu.run(&mut regs, first.root)? == Exit::Preempted {}
            }
        }
        self.first_vcpu()?.detach();
        Ok(())
    }
}

/// Which pages of one block of neighbouring leaves to make ready: those that were written, and all up to the last touched one when
/// that saves more than it costs.
fn worth_copying(block: &[Touched], touched: impl Fn(&Touched) -> bool, shadow: bool) -> Vec<Gpa> {
    let count = block.iter().filter(|t| touched(t)).count();
    let head = block.iter().rposition(&touched).map_or(0, |last| last + 1);
    let written = block.iter().filter(|t| t.write && touched(t));
    let from_the_start = block.first().is_some_and(|t| t.va % (BLOCK * PAGE_SIZE) == 0)
        && block.windows(2).take(head.saturating_sub(1)).all(|w| w[0].va + PAGE_SIZE == w[1].va);
    let extra = head - written.clone().count().min(head);
    if shadow && from_the_start && extra <= count.saturating_sub(1) * COPIES_PER_FAULT {
        return block.iter().take(head).map(|t| t.gpa).collect();
    }
    written.map(|t| t.gpa).collect()
}

/// Merges sorted pages into contiguous runs (address, bytes).
fn runs(pages: impl Iterator<Item = Gpa>) -> Vec<(Gpa, u64)> {
    let mut runs: Vec<(Gpa, u64)> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some((start, len)) if page >= *start && page < *start + *len => {}
            Some((start, len)) if *start + *len == page => *len += PAGE_SIZE,
            _ => runs.push((page, PAGE_SIZE)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(first: u64, written: &[u64]) -> Vec<Touched> {
        let page = |i| Touched {
            root: Root(1),
            va: i * PAGE_SIZE,
            gpa: 0x100_0000 + i * PAGE_SIZE,
            write: written.contains(&i),
        };
        (first..8).map(page).collect()
    }

    #[test]
    fn pages_in_front_of_touched_neighbours_are_copied_when_that_pays() {
        let touched = |t: &Touched| [1, 2, 3].contains(&(t.va / PAGE_SIZE));
        assert_eq!(worth_copying(&block(0, &[1]), touched, true).len(), 4);
        assert_eq!(worth_copying(&block(0, &[1]), touched, false), [0x100_1000]);
        // The block's first page is not mapped: KVM would stop there, so only what is written is worth it.
        assert_eq!(worth_copying(&block(1, &[1]), touched, true), [0x100_1000]);
        let last = |t: &Touched| t.va / PAGE_SIZE == 7;
        assert!(worth_copying(&block(0, &[]), last, true).is_empty());
    }

    #[test]
    fn neighbouring_pages_are_merged() {
        let pages = [0x1000, 0x2000, 0x2000, 0x5000, 0x6000].into_iter();
        assert_eq!(runs(pages), [(0x1000, 0x2000), (0x5000, 0x2000)]);
    }
}
