//! The working set of a seed's children, and making it ready in a new child before the first request touches it.
//!
//! Recorded on one child by the Accessed and Dirty bits of its page tables. What the host offers decides how it is used:
//! EPT or NPT hosts with KVM_PRE_FAULT_MEMORY get their second-level tables filled, and everywhere copy-on-write of the written
//! part is broken ahead.

use crate::error::Error;
use crate::machine::now;
use crate::pagetable::{ACCESSED, DIRTY};
use crate::sandbox::Sandbox;
use guest::platform::{Gpa, PAGE_SIZE, Va};
use serde::{Deserialize, Serialize};
use std::os::fd::AsRawFd;

const KVM_PRE_FAULT_MEMORY: libc::c_ulong = 0xc040_aed5;

/// Pages that a child touches while it serves a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkingSet {
    /// Touched pages by guest-virtual and guest-physical address.
    pub touched: Vec<(Va, Gpa)>,
    /// Those of them that were written, in order.
    pub written: Vec<Gpa>,
}

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
    pub fn end_recording(&mut self) -> Result<WorkingSet, Error> {
        let mut set = WorkingSet::default();
        for root in self.machine().tables().roots() {
            self.machine().tables().visit(root, |va, gpa, entry, size| {
                if size == PAGE_SIZE && entry & ACCESSED != 0 {
                    set.touched.push((va, gpa));
                    if entry & DIRTY != 0 {
                        set.written.push(gpa);
                    }
                }
                // Set for good again, so that KVM need not.
                Some(ACCESSED | if entry & 2 != 0 { DIRTY } else { 0 })
            })?;
        }
        set.written.sort_unstable();
        set.written.dedup();
        Ok(set)
    }

    /// Makes a working set ready: breaks copy-on-write of its written pages, and fills second-level tables where KVM can.
    /// Makes the virtual machine when there is none.
    pub fn prefill(&mut self, set: &WorkingSet) -> Result<(), Error> {
        let started = now();
        for (gpa, len) in runs(set.written.iter().copied()) {
            self.machine().arena().populate(gpa, len)?;
        }
        if self.machine().host().pre_fault {
            let mut touched: Vec<Gpa> = set.touched.iter().map(|(_, gpa)| *gpa).collect();
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

    #[test]
    fn neighbouring_pages_are_merged() {
        let pages = [0x1000, 0x2000, 0x2000, 0x5000, 0x6000].into_iter();
        assert_eq!(runs(pages), [(0x1000, 0x2000), (0x5000, 0x2000)]);
    }
}
