//! userfaultfd(2): missing pages of registered mappings are a program's to fill. A thread that touches one sleeps until the page is there, or until
//! it is told to look again.
//!
//! A mapping names the descriptor that it is registered with (`Vma::userfault`); nothing backs its holes but the calls here. Mappings here are
//! backed before they are touched, so a page that holds only zeroes counts as missing when its range is registered.

use super::fault::Denied;
use super::vma::{Piece, Prot};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{u64_of, us};
use crate::platform::{PAGE_SIZE, Va};
use crate::task::{Call, TaskState, Tid};
use crate::vfs::{FileKind, OpenFile};
use crate::wait::{Block, Outcome, Restart, SysResult, WaitKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// UFFD_FEATURE_SIGBUS.
const SIGBUS: u64 = 128;
/// UFFD_FEATURE_THREAD_ID.
const THREAD_ID: u64 = 256;
/// UFFD_FEATURE_EXACT_ADDRESS.
const EXACT_ADDRESS: u64 = 2048;
/// All that is offered.
pub const FEATURES: u64 = SIGBUS | THREAD_ID | EXACT_ADDRESS;
/// Bytes of `struct uffd_msg`.
const MESSAGE: usize = 32;
/// [`Block::memo`] of a call that begins anew when the page is there.
const ANEW: [u64; 2] = [u64::MAX, u64::MAX];
/// Bytes that are looked at or copied before others have the kernel.
pub const PASS: u64 = 4 << 20;

/// A thread that waits for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Waiting {
    /// The address that it touched.
    va: Va,
    /// To write.
    write: bool,
    /// In the order of arrival.
    order: u64,
    /// It was read from the descriptor.
    told: bool,
}

/// What userfaultfd(2) makes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Userfault {
    /// Object number of who reads and polls.
    pub object: u64,
    /// Object number that waiting threads sleep on.
    waits: u64,
    /// The address space that it is about.
    pub mm: u64,
    /// UFFD_FEATURE_ bits, once UFFDIO_API has asked for them.
    pub features: Option<u64>,
    /// UFFD_USER_MODE_ONLY.
    user_only: bool,
    waiting: BTreeMap<Tid, Waiting>,
    last: u64,
}

/// All descriptors' state, and the hole that the present system call met.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Userfaults {
    /// By id.
    pub all: crate::store::Store<Userfault>,
    hit: Option<(u64, Va, bool)>,
}

/// System calls that can begin anew after EFAULT in what they read from user memory: all but those that take something before.
fn begins_anew(number: u64, write: bool) -> bool {
    match number {
        // accept, recvfrom, recvmsg, accept4, recvmmsg, wait4, waitid, rt_sigreturn
        43 | 45 | 47 | 288 | 299 | 61 | 247 | 15 => false,
        // read, stat, fstat, lstat, pread64, readv, uname, getcwd, readlink, gettimeofday, clock_gettime, newfstatat, readlinkat,
        // preadv, process_vm_readv, getrandom, preadv2, statx
        0 | 4 | 5 | 6 | 17 | 19 | 63 | 79 | 89 | 96 | 228 | 262 | 267 | 295 | 310 | 318 | 327 | 332 => true,
        _ => !write,
    }
}

impl Kernel {
    /// Makes a descriptor for a task's address space, with one reference. `flags` are O_NONBLOCK or 0.
    pub fn userfault_open(&mut self, tid: Tid, flags: u32, user_only: bool) -> u64 {
        let mm = self.task(tid).map_or(0, |t| t.mm);
        let (object, waits) = (self.new_object(), self.new_object());
        let state = Userfault { object, waits, mm, user_only, ..Userfault::default() };
        let id = self.objects.userfaults.all.insert(state);
        self.files.insert(OpenFile { kind: FileKind::Userfault(id), flags, pos: 0, refs: 1 })
    }

    /// The last reference is gone: the mappings are as any others, and who waits looks again.
    pub fn userfault_close(&mut self, id: u64) {
        let Some(u) = self.objects.userfaults.all.get(id) else { return };
        let mm = u.mm;
        if let Some(m) = self.mms.get_mut(mm) {
            m.vmas.values_mut().filter(|v| v.userfault == Some(id)).for_each(|v| v.userfault = None);
            m.merge(0, crate::platform::TASK_SIZE);
        }
        self.userfault_wake(id, 0, u64::MAX);
        self.objects.userfaults.all.remove(id);
    }

    /// Forgets who does not wait any more: a signal or its end has taken it away.
    fn userfault_prune(&mut self, id: u64) {
        let Kernel { objects, tasks, .. } = self;
        let Some(u) = objects.userfaults.all.get_mut(id) else { return };
        let waits = u.waits;
        u.waiting.retain(|tid, _| tasks.get(tid).is_some_and(|t| sleeps_on(&t.state, waits)));
    }

    /// POLL* events.
    pub fn userfault_poll(&self, id: u64, flags: u32) -> u32 {
        let Some(u) = self.objects.userfaults.all.get(id) else { return crate::poll::POLLERR };
        // What another thread may read first is promised to nobody (userfaultfd(2)).
        if u.features.is_none() || flags & crate::vfs::file::O_NONBLOCK == 0 {
            return crate::poll::POLLERR;
        }
        let waits = |tid: &Tid| self.tasks.get(tid).is_some_and(|t| sleeps_on(&t.state, u.waits));
        let any = u.waiting.iter().any(|(tid, w)| !w.told && waits(tid));
        if any { crate::poll::POLLIN } else { 0 }
    }

    /// read(2): a message for each thread that waits and was not told of. EINVAL, EAGAIN.
    pub fn userfault_read(&mut self, tid: Tid, f: &OpenFile, id: u64, iovecs: &[(u64, u64)]) -> SysResult {
        self.userfault_prune(id);
        let room = us(iovecs.iter().fold(0u64, |a, (_, n)| a.saturating_add(*n)).min(1 << 16));
        let u = self.objects.userfaults.all.get_mut(id).ok_or(Errno::EBADF)?;
        let features = u.features.ok_or(Errno::EINVAL)?;
        if room < MESSAGE {
            return Err(Errno::EINVAL);
        }
        let mut new: Vec<(u64, Tid)> =
            u.waiting.iter().filter(|(_, w)| !w.told).map(|(t, w)| (w.order, *t)).collect();
        if new.is_empty() {
            if f.flags & crate::vfs::file::O_NONBLOCK != 0 {
                return Err(Errno::EAGAIN);
            }
            return Ok(Outcome::Block(Block::on(WaitKey::Object(u.object))));
        }
        new.sort_unstable();
        new.truncate(room / MESSAGE);
        let mut bytes = Vec::new();
        for (_, waiter) in &new {
            let Some(w) = u.waiting.get(waiter) else { continue };
            let va = if features & EXACT_ADDRESS != 0 { w.va } else { w.va & !(PAGE_SIZE - 1) };
            let thread = if features & THREAD_ID != 0 { u64::from(*waiter) } else { 0 };
            // UFFD_EVENT_PAGEFAULT
            for word in [0x12, u64::from(w.write), va, thread] {
                bytes.extend(word.to_le_bytes());
            }
        }
        let moved = self.scatter(tid, iovecs, &bytes);
        if moved < bytes.len() {
            return Err(Errno::EFAULT);
        }
        if let Some(u) = self.objects.userfaults.all.get_mut(id) {
            for (_, waiter) in new {
                if let Some(w) = u.waiting.get_mut(&waiter) {
                    w.told = true;
                }
            }
        }
        Ok(Outcome::Return(u64_of(moved)))
    }

    /// Wakes who waits for a page of a range.
    pub fn userfault_wake(&mut self, id: u64, start: Va, end: Va) {
        let Some(u) = self.objects.userfaults.all.get_mut(id) else { return };
        let (waits, mut woken) = (u.waits, Vec::new());
        u.waiting.retain(|tid, w| {
            let stays = !(start..end).contains(&w.va);
            if !stays {
                woken.push(*tid);
            }
            stays
        });
        for tid in woken {
            if self.tasks.get(&tid).is_some_and(|t| sleeps_on(&t.state, waits)) {
                self.unblock(tid, crate::wait::Cause::Woken);
            }
        }
    }

    /// Enters a thread among those that wait, and tells readers; what it sleeps on.
    fn userfault_enter(&mut self, id: u64, tid: Tid, va: Va, write: bool, memo: [u64; 2]) -> Option<Block> {
        let known = self.objects.userfaults.all.get(id)?.waiting.len();
        if known > self.tasks.len() {
            self.userfault_prune(id);
        }
        let u = self.objects.userfaults.all.get_mut(id)?;
        u.last += 1;
        u.waiting.insert(tid, Waiting { va, write, order: u.last, told: false });
        let on = vec![WaitKey::Object(u.waits)];
        // A fault that a signal ends is met again; a call ends as it would have without the wait.
        let restart = if memo == ANEW { Restart::IfSaRestart } else { Restart::Never };
        Some(Block { on, deadline: None, relative: false, restart, memo })
    }

    /// User code touched a hole: it sleeps until the hole is filled. Returns false where it gets SIGBUS instead.
    pub(super) fn userfault_meet(&mut self, id: u64, tid: Tid, va: Va, write: bool) -> bool {
        let features = self.objects.userfaults.all.get(id).and_then(|u| u.features).unwrap_or(0);
        if features & SIGBUS != 0 {
            return false;
        }
        let Some(block) = self.userfault_enter(id, tid, va, write, [0; 2]) else { return false };
        self.sleep_now(tid, block);
        self.userfault_told(id);
        true
    }

    fn userfault_told(&mut self, id: u64) {
        if let Some(object) = self.objects.userfaults.all.get(id).map(|u| u.object) {
            self.wake(WaitKey::Object(object));
        }
    }

    /// The kernel itself met a hole, for the present system call.
    pub(super) fn userfault_hit(&mut self, denied: Denied, va: Va, need: Prot) {
        if let Denied::User(id) = denied {
            self.objects.userfaults.hit = Some((id, va, need.contains(Prot::WRITE)));
        }
    }

    /// A system call begins: forgets the last one's hole, and that a call which begins anew was tried before.
    pub(crate) fn userfault_begin(&mut self, tid: Tid) {
        self.objects.userfaults.hit = None;
        if let Some(task) = self.tasks.get_mut(&tid)
            && task.resume.is_some_and(|r| r.memo == ANEW)
        {
            task.resume = None;
        }
    }

    /// A system call failed because of a hole: it sleeps until the hole is filled and begins anew, where it can.
    pub(crate) fn userfault_end(&mut self, tid: Tid, call: &Call, result: SysResult) -> SysResult {
        let Some((id, va, write)) = self.objects.userfaults.hit.take() else { return result };
        let Some(u) = self.objects.userfaults.all.get(id) else { return result };
        let sleeps = !u.user_only && u.features.is_some_and(|f| f & SIGBUS == 0);
        let anew = begins_anew(call.number, write) && !(write && self.takes_first(tid, call));
        if result != Err(Errno::EFAULT) || !sleeps || !anew {
            return result;
        }
        match self.userfault_enter(id, tid, va, write, ANEW) {
            Some(block) => Ok(Outcome::Block(block)),
            None => result,
        }
    }

    /// Whether a call reads from a file that gives away what it has before it is known to arrive.
    fn takes_first(&self, tid: Tid, call: &Call) -> bool {
        let [fd, ..] = call.args;
        let kind =
            self.file_of(tid, crate::num::int(fd)).ok().and_then(|f| self.files.get(f)).map(|f| &f.kind);
        let takes = matches!(
            kind,
            Some(
                FileKind::Inotify(_)
                    | FileKind::Fanotify(_)
                    | FileKind::SignalFd(_)
                    | FileKind::Tty(_)
                    | FileKind::Socket(_)
            )
        );
        matches!(call.number, 0 | 17 | 19 | 295 | 327) && takes
    }

    /// Tells readers of a thread whose call sleeps by now.
    pub(crate) fn userfault_asleep(&mut self, tid: Tid) {
        let waits = |t: &crate::task::Task| matches!(&t.state, TaskState::Blocked(b) if b.memo == ANEW);
        if !self.task(tid).is_some_and(waits) {
            return;
        }
        let about = self.objects.userfaults.all.iter().find(|(_, u)| u.waiting.contains_key(&tid));
        if let Some(id) = about.map(|(id, _)| id) {
            self.userfault_told(id);
        }
    }

    /// UFFDIO_REGISTER for missing pages: the mappings of a range, of which one at least must be there. EINVAL, EPERM, EBUSY, ENOMEM.
    pub fn userfault_register(&mut self, id: u64, start: Va, end: Va) -> Result<(), Errno> {
        let mm = self.objects.userfaults.all.get(id).ok_or(Errno::EBADF)?.mm;
        let m = self.mms.get_mut(mm).ok_or(Errno::ENOMEM)?;
        let parts = m.vmas_in(start, end);
        if parts.is_empty() {
            return Err(Errno::EINVAL);
        }
        for (_, _, key) in &parts {
            let Some(vma) = m.vmas.get(key) else { continue };
            if !vma.is_private_anon() {
                return Err(Errno::EINVAL);
            }
            if !vma.may.contains(Prot::WRITE) {
                return Err(Errno::EPERM);
            }
            if vma.userfault.is_some_and(|other| other != id) {
                return Err(Errno::EBUSY);
            }
        }
        if m.vmas.len() + 2 > super::vma::MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        m.split(start);
        m.split(end);
        m.vmas.range_mut(start..end).for_each(|(_, v)| v.userfault = Some(id));
        m.merge(start, end);
        Ok(())
    }

    /// Lets go of the pages of a registered range that hold only zeroes.
    pub fn userfault_make_holes(&mut self, id: u64, start: Va, end: Va) -> Result<(), Errno> {
        let mm = self.objects.userfaults.all.get(id).ok_or(Errno::EBADF)?.mm;
        let mut space = self.space(mm)?;
        let pieces: Vec<(Va, Piece)> = space.mm.pieces_in(start, end);
        let mut page = vec![0; us(PAGE_SIZE)];
        for (s, p) in pieces {
            let mut run = None;
            for at in (s..=p.end).step_by(us(PAGE_SIZE)) {
                let empty = at < p.end && {
                    space.platform.read(p.gpa + (at - s), &mut page)?;
                    page.iter().all(|b| *b == 0)
                };
                match (empty, run) {
                    (true, None) => run = Some(at),
                    (false, Some(first)) => {
                        space.drop_pieces(first, at)?;
                        run = None;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// UFFDIO_UNREGISTER: the mappings of a range are as any others, and who waits there looks again. EINVAL, ENOMEM.
    pub fn userfault_unregister(&mut self, id: u64, start: Va, end: Va) -> Result<(), Errno> {
        let mm = self.objects.userfaults.all.get(id).ok_or(Errno::EBADF)?.mm;
        let m = self.mms.get_mut(mm).ok_or(Errno::ENOMEM)?;
        let parts = m.vmas_in(start, end);
        let fits = |key: &Va| {
            m.vmas.get(key).is_some_and(|v| v.is_private_anon() && v.userfault.is_none_or(|o| o == id))
        };
        if parts.is_empty() || !parts.iter().all(|(_, _, key)| fits(key)) {
            return Err(Errno::EINVAL);
        }
        if m.vmas.len() + 2 > super::vma::MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        m.split(start);
        m.split(end);
        m.vmas.range_mut(start..end).for_each(|(_, v)| v.userfault = None);
        m.merge(start, end);
        self.userfault_wake(id, start, end);
        Ok(())
    }

    /// Where the holes from `at` on end, at `end` at the latest; all of the range has to be registered. ESRCH, ENOENT, EEXIST.
    pub fn userfault_hole(&self, id: u64, at: Va, end: Va) -> Result<(u64, Va), Errno> {
        let mm = self.objects.userfaults.all.get(id).ok_or(Errno::EBADF)?.mm;
        let m = self.mms.get(mm).ok_or(Errno::ESRCH)?;
        let fits = m.find(at).is_some_and(|(_, v)| v.userfault.is_some() && end <= v.end);
        if !fits {
            return Err(Errno::ENOENT);
        }
        if m.piece(at).is_some() {
            return Err(Errno::EEXIST);
        }
        Ok((mm, m.pieces.range(at..).next().map_or(end, |(s, _)| (*s).min(end))))
    }

    /// Fills holes with pages of zeroes, or with `data` (of as many bytes). ENOMEM.
    pub fn userfault_fill(&mut self, mm: u64, start: Va, end: Va, data: Option<&[u8]>) -> Result<(), Errno> {
        let mut space = self.space(mm)?;
        let prot = space.mm.find(start).map(|(_, v)| v.prot).ok_or(Errno::ENOENT)?;
        let gpa = space.alloc_for(start, end - start)?;
        if let Some(data) = data
            && let Err(e) = space.platform.write(gpa, data)
        {
            space.frames.release(space.platform, gpa, end - start);
            return Err(e.into());
        }
        space.back(start, end - start, gpa, false, prot)
    }
}

fn sleeps_on(state: &TaskState, object: u64) -> bool {
    matches!(state, TaskState::Blocked(block) if block.on.first() == Some(&WaitKey::Object(object)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Limits;
    use crate::mm::Fault;
    use crate::platform::FIRST_EXTENT;
    use crate::platform::fake::FakePlatform;
    use crate::task::{FdTable, FsContext};
    use std::sync::Arc;

    /// A kernel with task 1, and a descriptor of it that offers `features`.
    fn kernel(features: u64) -> (Kernel, u64) {
        let p = Arc::new(FakePlatform::new(FIRST_EXTENT + (64 << 20)));
        let mut k = Kernel::new(p, Limits::default()).unwrap();
        let mm = k.mm_new().unwrap();
        let files = k.fd_tables.insert(FdTable::default());
        let fs = k.fs_contexts.insert(FsContext { root: 0, cwd: 0, umask: 0, refs: 1 });
        crate::exec::test_task(&mut k, 1, mm, files, fs);
        let file = k.userfault_open(1, 0, false);
        let FileKind::Userfault(id) = k.open_file(file).unwrap().kind else { panic!() };
        k.objects.userfaults.all.get_mut(id).unwrap().features = Some(features);
        (k, id)
    }

    fn map(k: &mut Kernel, pages: u64) -> Va {
        k.mmap(1, 0, pages * PAGE_SIZE, 3, 0x22, None, 0).unwrap()
    }

    #[test]
    fn a_touch_sleeps_until_the_page_is_filled() {
        let (mut k, id) = kernel(0);
        let a = map(&mut k, 4);
        k.put_u64(1, a + PAGE_SIZE, 7).unwrap();
        k.userfault_register(id, a, a + 4 * PAGE_SIZE).unwrap();
        k.userfault_make_holes(id, a, a + 4 * PAGE_SIZE).unwrap();
        assert_eq!(k.get_u64(1, a + PAGE_SIZE), Ok(7));
        assert_eq!(k.userfault_hole(id, a + PAGE_SIZE, a + 2 * PAGE_SIZE), Err(Errno::EEXIST));
        assert_eq!(k.page_fault(1, a + 5, 6), Fault::Resolved);
        assert!(matches!(k.task(1).unwrap().state, TaskState::Blocked(_)));
        assert_eq!(k.userfault_poll(id, crate::vfs::file::O_NONBLOCK), crate::poll::POLLIN);
        k.userfault_wake(id, a + PAGE_SIZE, a + 4 * PAGE_SIZE);
        assert!(matches!(k.task(1).unwrap().state, TaskState::Blocked(_)));
        let (mm, end) = k.userfault_hole(id, a, a + 4 * PAGE_SIZE).unwrap();
        assert_eq!(end, a + PAGE_SIZE);
        k.userfault_fill(mm, a, end, Some(&[9; 4096])).unwrap();
        k.userfault_wake(id, a, end);
        assert_eq!(k.task(1).unwrap().state, TaskState::Runnable);
        assert_eq!(k.get_u32(1, a), Ok(0x0909_0909));
        assert_eq!(k.userfault_poll(id, crate::vfs::file::O_NONBLOCK), 0);
    }

    #[test]
    fn who_asks_for_a_signal_or_goes_does_not_wait() {
        let (mut k, id) = kernel(SIGBUS);
        let a = map(&mut k, 4);
        k.userfault_register(id, a, a + 2 * PAGE_SIZE).unwrap();
        k.userfault_make_holes(id, a, a + 2 * PAGE_SIZE).unwrap();
        assert_eq!(k.page_fault(1, a, 4), Fault::Bus(2));
        assert_eq!(k.get_u32(1, a), Err(Errno::EFAULT));
        let mm = k.task(1).unwrap().mm;
        let child = k.mm_fork(mm).unwrap();
        assert!(k.mms.get(child).unwrap().vmas.values().all(|v| v.userfault.is_none()));
        k.userfault_close(id);
        assert_eq!(k.get_u32(1, a), Ok(0));
        assert_eq!(k.mms.get(mm).unwrap().vmas.len(), 1);
    }

    #[test]
    fn a_signal_takes_a_waiting_thread_off_the_list() {
        let (mut k, id) = kernel(0);
        let a = map(&mut k, 1);
        k.userfault_register(id, a, a + PAGE_SIZE).unwrap();
        k.userfault_make_holes(id, a, a + PAGE_SIZE).unwrap();
        k.page_fault(1, a, 4);
        k.interrupt(1);
        assert_eq!(k.userfault_poll(id, crate::vfs::file::O_NONBLOCK), 0);
        k.userfault_prune(id);
        assert!(k.objects.userfaults.all.get(id).unwrap().waiting.is_empty());
    }
}
