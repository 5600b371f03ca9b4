//! /proc/PID/pagemap: one word for each page of an address space, without frame numbers, as those without CAP_SYS_ADMIN see it.

use super::vma::{Backing, VmFlags};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{u64_of, us};
use crate::platform::{PAGE_SIZE, TASK_SIZE};

/// The page is there.
const PRESENT: u64 = 1 << 63;
/// It is a file's, or shared.
const FILE: u64 = 1 << 61;
/// Nobody else maps it.
const EXCLUSIVE: u64 = 1 << 56;
/// Words given at once.
const MOST: usize = 8192;

impl Kernel {
    /// Reads words from a position; returns the bytes read, none beyond user memory. EINVAL unless whole words are asked for.
    pub(crate) fn mm_pagemap(&self, mm: u64, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        if !offset.is_multiple_of(8) || !buf.len().is_multiple_of(8) {
            return Err(Errno::EINVAL);
        }
        let Some(m) = self.mms.get(mm) else { return Ok(0) };
        let mut done = 0;
        for word in buf.chunks_exact_mut(8).take(MOST) {
            let at = offset.saturating_add(u64_of(done)) / 8;
            let Some(va) = at.checked_mul(PAGE_SIZE).filter(|va| *va < TASK_SIZE) else { break };
            let entry = match (m.find(va), m.piece(va)) {
                (Some((_, vma)), Some((_, piece))) if !vma.prot.is_empty() => {
                    let shared = vma.flags.contains(VmFlags::SHARED);
                    let file = shared || matches!(vma.backing, Backing::File { .. });
                    PRESENT | if file { FILE } else { 0 } | if piece.cow || shared { 0 } else { EXCLUSIVE }
                }
                _ => 0,
            };
            word.copy_from_slice(&entry.to_le_bytes());
            done += 8;
        }
        Ok(us(u64_of(done)))
    }
}
