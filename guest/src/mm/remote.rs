//! Memory of other processes: process_vm_readv(2), and /proc/pid/mem, which reads and writes what the process itself could not.

use super::vma::{Backing, Prot, VmFlags};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{u64_of, us};
use crate::platform::{Gpa, PAGE_SIZE, TASK_SIZE, Va};
use crate::task::Tid;
use crate::task::creds::cap;

impl Kernel {
    /// Whether `tid` may look into a task's process: itself; one of the same user and group that hides nothing (PR_SET_DUMPABLE) and
    /// can do no more than the caller; any with CAP_SYS_PTRACE (ptrace(2), "Ptrace access mode checking"). System calls go by the
    /// caller's real ids (`real`), files of proc by those for files. ESRCH, EPERM.
    pub fn may_inspect(&self, tid: Tid, target: Tid, real: bool) -> Result<(), Errno> {
        let target = self.task(target).ok_or(Errno::ESRCH)?;
        let process = self.processes.get(&target.pid).ok_or(Errno::ESRCH)?;
        let it = &process.creds;
        let me = self.creds_of(tid);
        if me.can(cap::SYS_PTRACE) || self.task(tid).is_some_and(|t| t.pid == target.pid) {
            return Ok(());
        }
        let (uid, gid) = if real { (me.uid, me.gid) } else { (me.fsuid, me.fsgid) };
        let caps = if real { me.caps.permitted } else { me.caps.effective };
        let same = [it.uid, it.euid, it.suid].iter().all(|u| *u == uid)
            && [it.gid, it.egid, it.sgid].iter().all(|g| *g == gid);
        if same && process.dumpable == 1 && it.caps.permitted & !caps == 0 {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// The address space of a task whose memory `tid` may reach; see [`Kernel::may_inspect`]. ESRCH, EPERM.
    pub fn remote_mm(&self, tid: Tid, target: Tid, real: bool) -> Result<u64, Errno> {
        self.may_inspect(tid, target, real)?;
        self.task(target).map(|t| t.mm).ok_or(Errno::ESRCH)
    }

    /// The page at `va` whatever its protection, to be read or written for a debugger, and how many bytes lie in it from there.
    fn forced(&mut self, mm: u64, va: Va, write: bool) -> Result<(Gpa, usize), Errno> {
        let page = va & !(PAGE_SIZE - 1);
        let room = us(PAGE_SIZE - (va - page));
        let m = self.mms.get(mm).ok_or(Errno::EIO)?;
        let (_, vma) = m.find(va).filter(|_| va < TASK_SIZE).ok_or(Errno::EIO)?;
        let (shared, file, prot) =
            (vma.flags.contains(VmFlags::SHARED), matches!(vma.backing, Backing::File { .. }), vma.prot);
        if write && (vma.is_kernel() || shared && !prot.contains(Prot::WRITE)) {
            return Err(Errno::EIO);
        }
        if m.piece(va).is_none() {
            if prot.is_empty() {
                // Nothing backs what nobody may touch; only a file has contents there, and those are not needed by anybody yet.
                return Err(Errno::EIO);
            }
            self.populate_around(mm, page)?;
        }
        let mut space = self.space(mm)?;
        if write && (!shared || !file) {
            space.break_cow(page)?;
        }
        let (start, piece) = space.mm.piece(va).ok_or(Errno::EIO)?;
        Ok((piece.gpa + (va - start), room))
    }

    /// Reads from an address space as a debugger does; returns the bytes before the first that is not mapped.
    pub fn mm_read_forced(&mut self, mm: u64, va: Va, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let Some(at) = va.checked_add(u64_of(done)) else { break };
            let Ok((gpa, room)) = self.forced(mm, at, false) else { break };
            let n = room.min(buf.len() - done);
            let Some(part) = buf.get_mut(done..done + n) else { break };
            if self.platform.read(gpa, part).is_err() {
                break;
            }
            done += n;
        }
        done
    }

    /// Writes likewise.
    pub fn mm_write_forced(&mut self, mm: u64, va: Va, buf: &[u8]) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let Some(at) = va.checked_add(u64_of(done)) else { break };
            let Ok((gpa, room)) = self.forced(mm, at, true) else { break };
            let n = room.min(buf.len() - done);
            let Some(part) = buf.get(done..done + n) else { break };
            if self.platform.write(gpa, part).is_err() {
                break;
            }
            done += n;
        }
        done
    }
}
