//! Copies between the kernel and user memory: a software walk over mappings and pieces that honours protection. Addresses are
//! hostile: they may wrap, point nowhere, or at memory that another thread unmaps next.

use super::vma::Prot;
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{u64_of, us};
use crate::platform::{Gpa, PAGE_SIZE, TASK_SIZE, Va};
use crate::task::Tid;

/// Entries that an iovec array may have (UIO_MAXIOV).
const IOV_MAX: u64 = 1024;

impl Kernel {
    /// Where `va` lies in the arena, and how many bytes from there are contiguous and equally accessible.
    fn walk(&mut self, mm: u64, va: Va, need: Prot) -> Result<(Gpa, u64), Errno> {
        if let Err(denied) = self.touch(mm, va, need) {
            self.userfault_hit(denied, va, need);
            return Err(Errno::EFAULT);
        }
        let m = self.mms.get(mm).ok_or(Errno::EFAULT)?;
        let (_, vma) = m.find(va).ok_or(Errno::EFAULT)?;
        let (start, piece) = m.piece(va).ok_or(Errno::EFAULT)?;
        Ok((piece.gpa + (va - start), piece.end.min(vma.end) - va))
    }

    /// Reads from an address space; returns the bytes read before the first that is not readable.
    pub fn mm_read_partial(&mut self, mm: u64, va: Va, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let Some(at) = va.checked_add(u64_of(done)).filter(|a| *a < TASK_SIZE) else { break };
            let Ok((gpa, run)) = self.walk(mm, at, Prot::READ) else { break };
            let n = us(run).min(buf.len() - done);
            let Some(part) = buf.get_mut(done..done + n) else { break };
            if self.platform.read(gpa, part).is_err() {
                break;
            }
            done += n;
        }
        done
    }

    /// Writes to an address space; returns the bytes written before the first that is not writable.
    pub fn mm_write_partial(&mut self, mm: u64, va: Va, buf: &[u8]) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let Some(at) = va.checked_add(u64_of(done)).filter(|a| *a < TASK_SIZE) else { break };
            let Ok((gpa, run)) = self.walk(mm, at, Prot::WRITE) else { break };
            let n = us(run).min(buf.len() - done);
            let Some(part) = buf.get(done..done + n) else { break };
            if self.platform.write(gpa, part).is_err() {
                break;
            }
            done += n;
        }
        done
    }

    fn mm_of(&self, tid: Tid) -> Result<u64, Errno> {
        self.task(tid).map(|t| t.mm).ok_or(Errno::EFAULT)
    }

    /// Copies from user memory of a task. EFAULT when any byte is not readable.
    pub fn copy_in(&mut self, tid: Tid, va: Va, buf: &mut [u8]) -> Result<(), Errno> {
        if self.copy_in_partial(tid, va, buf)? == buf.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Copies from user memory as far as it is readable; returns the bytes done. EFAULT when there is none and some were asked for.
    pub fn copy_in_partial(&mut self, tid: Tid, va: Va, buf: &mut [u8]) -> Result<usize, Errno> {
        let mm = self.mm_of(tid)?;
        match self.mm_read_partial(mm, va, buf) {
            0 if !buf.is_empty() => Err(Errno::EFAULT),
            n => Ok(n),
        }
    }

    /// Copies to user memory of a task. EFAULT when any byte is not writable (bytes before it may have been written).
    pub fn copy_out(&mut self, tid: Tid, va: Va, buf: &[u8]) -> Result<(), Errno> {
        if self.copy_out_partial(tid, va, buf)? == buf.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Copies to user memory as far as it is writable; returns the bytes done. EFAULT when there is none and some were asked for.
    pub fn copy_out_partial(&mut self, tid: Tid, va: Va, buf: &[u8]) -> Result<usize, Errno> {
        let mm = self.mm_of(tid)?;
        match self.mm_write_partial(mm, va, buf) {
            0 if !buf.is_empty() => Err(Errno::EFAULT),
            n => Ok(n),
        }
    }

    /// Reads a NUL-terminated string of at most `max` bytes with its NUL; without it in the result. ENAMETOOLONG when there is no NUL.
    pub fn copy_in_str(&mut self, tid: Tid, va: Va, max: usize) -> Result<Vec<u8>, Errno> {
        let mm = self.mm_of(tid)?;
        let mut out = Vec::new();
        while out.len() < max {
            let at = va.checked_add(u64_of(out.len())).ok_or(Errno::EFAULT)?;
            // To the end of the page, so that a string may end right before unreadable memory.
            let n = us(PAGE_SIZE - at % PAGE_SIZE).min(max - out.len());
            let mut part = vec![0; n];
            if self.mm_read_partial(mm, at, &mut part) != n {
                return Err(Errno::EFAULT);
            }
            if let Some(end) = part.iter().position(|b| *b == 0) {
                part.truncate(end);
                out.extend(part);
                return Ok(out);
            }
            out.extend(part);
        }
        Err(Errno::ENAMETOOLONG)
    }

    /// Reads `len` bytes (bounded by the caller).
    pub fn copy_in_vec(&mut self, tid: Tid, va: Va, len: usize) -> Result<Vec<u8>, Errno> {
        let mut buf = vec![0; len];
        self.copy_in(tid, va, &mut buf)?;
        Ok(buf)
    }

    /// Reads a little-endian number.
    pub fn get_u32(&mut self, tid: Tid, va: Va) -> Result<u32, Errno> {
        let mut b = [0; 4];
        self.copy_in(tid, va, &mut b)?;
        Ok(u32::from_le_bytes(b))
    }

    /// Reads a little-endian number.
    pub fn get_u64(&mut self, tid: Tid, va: Va) -> Result<u64, Errno> {
        let mut b = [0; 8];
        self.copy_in(tid, va, &mut b)?;
        Ok(u64::from_le_bytes(b))
    }

    /// Writes a little-endian number.
    pub fn put_u32(&mut self, tid: Tid, va: Va, x: u32) -> Result<(), Errno> {
        self.copy_out(tid, va, &x.to_le_bytes())
    }

    /// Writes a little-endian number.
    pub fn put_u64(&mut self, tid: Tid, va: Va, x: u64) -> Result<(), Errno> {
        self.copy_out(tid, va, &x.to_le_bytes())
    }

    /// The guest-physical address of a user byte, populated, and writable when `write` is set (breaking copy-on-write).
    pub fn user_gpa(&mut self, tid: Tid, va: Va, write: bool) -> Result<Gpa, Errno> {
        let mm = self.mm_of(tid)?;
        Ok(self.walk(mm, va, if write { Prot::WRITE } else { Prot::READ })?.0)
    }

    /// Reads an iovec array: (base, length) pairs, at most 1024, total length below `i64::MAX`. EINVAL, EFAULT.
    pub fn read_iovecs(&mut self, tid: Tid, va: Va, count: u64) -> Result<Vec<(Va, u64)>, Errno> {
        if count > IOV_MAX {
            return Err(Errno::EINVAL);
        }
        let raw = self.copy_in_vec(tid, va, us(count * 16))?;
        let mut total: u64 = 0;
        let mut out = Vec::new();
        for pair in raw.chunks_exact(16) {
            let (base, len) = pair.split_at(8);
            let base = base.try_into().map_or(0, u64::from_le_bytes);
            let len = len.try_into().map_or(0, u64::from_le_bytes);
            total = total.checked_add(len).filter(|t| *t <= i64::MAX.cast_unsigned()).ok_or(Errno::EINVAL)?;
            out.push((base, len));
        }
        Ok(out)
    }
}
