//! Native asynchronous I/O (io_setup(2)): contexts, their rings of completed requests, and requests that wait for readiness.
//!
//! A ring is a file without a name that the address space maps, as on Linux: user memory shows it, libaio reads its header there, and a
//! context is known by the file that is mapped at the address the program gives, wherever mremap(2) moved it. Reads and writes are
//! done when they are submitted, so only IOCB_CMD_POLL leaves a request behind.

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::mm::mmap::MapRequest;
use crate::mm::{Backing, Prot, VmFlags};
use crate::num::{u64_of, us};
use crate::platform::{PAGE_SIZE, Va};
use crate::poll::{POLLERR, POLLHUP};
use crate::task::Tid;
use crate::vfs::{FileKind, InodeId};
use crate::wait::WaitKey;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Requests that all contexts together may be made for (/proc/sys/fs/aio-max-nr).
pub const MAX_REQUESTS: u64 = 65536;
/// Requests that wait for one object: each change of it goes through them all.
const MAX_WAITING: usize = 1024;
/// Bytes of `struct aio_ring`, which the events follow.
const HEADER: u64 = 32;
/// Bytes of `struct io_event`.
pub const EVENT: u64 = 32;
/// What libaio looks for in a ring's header.
const MAGIC: u32 = 0xa10a_10a1;
/// Where the header holds the index of the next event to be taken; that of the next to be put follows.
const HEAD: u64 = 8;
/// Most events of one context (Linux: 256 MiB of them).
const MOST_EVENTS: u64 = (1 << 28) / EVENT;
/// Events copied at a time.
const PIECE: u64 = 512;

/// A request that waits for a file to become ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The open file; the request holds a reference.
    file: u64,
    /// POLL* events, in 16 bits as poll(2) has them.
    events: u32,
    /// Objects whose change may bring them.
    objects: Vec<u64>,
    /// What is said of it at its end.
    done: Done,
}

/// What the end of a request is told with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The program's own word (`aio_data`).
    pub data: u64,
    /// Address of its `struct iocb`.
    pub iocb: Va,
    /// The open file of an eventfd that counts it.
    pub notify: Option<u64>,
}

/// One context.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AioContext {
    /// The address space that it belongs to.
    mm: u64,
    /// Its number there.
    index: u32,
    /// The ring.
    inode: InodeId,
    /// Events that the ring holds, one less at a time.
    events: u32,
    /// Index of the next event to be put. The one in user memory is only shown.
    tail: u32,
    /// What io_setup was asked for.
    requests: u64,
    /// Its object number for waiters.
    pub object: u64,
    waiting: BTreeMap<u64, Waiting>,
}

/// All contexts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Aio {
    /// By the open file that is the ring.
    contexts: BTreeMap<u64, AioContext>,
    by_mm: BTreeMap<(u64, u32), u64>,
    /// Requests that the contexts were made for (/proc/sys/fs/aio-nr).
    pub requests: u64,
    /// Waiting requests by object: (context, request).
    by_object: BTreeMap<u64, BTreeSet<(u64, u64)>>,
    /// Waiting requests of all contexts: rings have room for more than they were made for.
    waiting: u64,
    last: u64,
    /// Objects whose change is still to be looked at; not empty only within [`Kernel::aio_changed`].
    changed: Vec<u64>,
    busy: bool,
}

impl Aio {
    /// Objects that waiting requests wait for.
    pub fn objects(&self) -> impl Iterator<Item = u64> {
        self.by_object.keys().copied()
    }
}

/// Events of a ring that were put and not taken.
fn held(head: u32, tail: u32, events: u32) -> u32 {
    let (head, tail) = (head % events.max(1), tail % events.max(1));
    if head <= tail { tail - head } else { events - head + tail }
}

impl Kernel {
    /// io_setup(2): a context for `requests` requests; returns its address. EINVAL, EAGAIN, ENOMEM.
    pub fn aio_setup(&mut self, tid: Tid, requests: u32) -> Result<Va, Errno> {
        let requests = u64::from(requests);
        let mm = self.task(tid).ok_or(Errno::EFAULT)?.mm;
        let events = requests.max(u64_of(self.limits.cpus) * 4) * 2;
        // Linux doubles in 32 bits.
        if events & 0xffff_ffff > MOST_EVENTS {
            return Err(Errno::EINVAL);
        }
        if requests > MAX_REQUESTS.saturating_sub(self.aio.requests) {
            return Err(Errno::EAGAIN);
        }
        let len = (HEADER + EVENT * (events + 2)).next_multiple_of(PAGE_SIZE);
        let events = u32::try_from((len - HEADER) / EVENT).map_err(|_| Errno::EINVAL)?;
        let taken = self.aio.by_mm.range((mm, 0)..=(mm, u32::MAX)).map(|((_, i), _)| *i);
        let index = (0u32..).zip(taken).find(|(free, i)| free != i).map(|(free, _)| free);
        let index = match index {
            Some(free) => free,
            None => {
                let last = self.aio.by_mm.range((mm, 0)..=(mm, u32::MAX)).next_back();
                last.map_or(0, |((_, i), _)| i.saturating_add(1))
            }
        };
        let file = self.shmem_open(tid, b"[aio]", len).map_err(|_| Errno::ENOMEM)?;
        let made = self.aio_make_ring(tid, mm, file, len, (index, events));
        let (va, inode) = match made {
            Ok(made) => made,
            Err(e) => {
                self.file_unref(file);
                return Err(e);
            }
        };
        let object = self.new_object();
        let context =
            AioContext { mm, index, inode, events, tail: 0, requests, object, waiting: BTreeMap::new() };
        self.aio.contexts.insert(file, context);
        self.aio.by_mm.insert((mm, index), file);
        self.aio.requests += requests;
        Ok(va)
    }

    fn aio_make_ring(
        &mut self,
        tid: Tid,
        mm: u64,
        file: u64,
        len: u64,
        (index, events): (u32, u32),
    ) -> Result<(Va, InodeId), Errno> {
        let FileKind::Inode(inode) = self.open_file(file)?.kind else { return Err(Errno::ENOMEM) };
        let mut header = Vec::new();
        for word in [index, events, 0, 0, MAGIC, 1, 0, 32] {
            header.extend(word.to_le_bytes());
        }
        self.inode_write(inode, 0, &header).map_err(|_| Errno::ENOMEM)?;
        let mut request = MapRequest::anon(0, len, Prot::READ | Prot::WRITE, false);
        request.backing = Backing::File { file, offset: 0 };
        request.flags = VmFlags::SHARED;
        request.may = Prot::READ | Prot::WRITE;
        request.limit = self.soft_limit(tid, crate::mm::mmap::RLIMIT_AS);
        let va = self.mm_map(mm, request)?;
        Ok((va, inode))
    }

    /// The context that a program means: its ring is mapped at `id`. EINVAL.
    pub fn aio_find(&self, tid: Tid, id: Va) -> Result<u64, Errno> {
        let mm = self.task(tid).ok_or(Errno::EINVAL)?.mm;
        let m = self.mms.get(mm).ok_or(Errno::EINVAL)?;
        let (start, vma) = m.find(id).filter(|(_, v)| !v.prot.is_empty()).ok_or(Errno::EINVAL)?;
        match vma.backing_at(id - start) {
            Backing::File { file, offset: 0 } if self.aio.contexts.get(&file).is_some_and(|c| c.mm == mm) => {
                Ok(file)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// Events that a context's ring holds at most, and its object. EINVAL when it is gone.
    pub fn aio_context(&self, context: u64) -> Result<(u32, u64), Errno> {
        self.aio.contexts.get(&context).map(|c| (c.events, c.object)).ok_or(Errno::EINVAL)
    }

    /// io_destroy(2): ends waiting requests without a word and unmaps the ring, which is mapped at `id`.
    pub fn aio_destroy(&mut self, tid: Tid, context: u64, id: Va) {
        let len = match self.aio.contexts.get(&context) {
            Some(c) => (HEADER + EVENT * u64::from(c.events)).next_multiple_of(PAGE_SIZE),
            None => return,
        };
        self.aio_drop(context);
        if let Some(mm) = self.task(tid).map(|t| t.mm) {
            // What the program has unmapped or replaced is its own doing, as on Linux.
            let _ = self.munmap(mm, id, len);
        }
    }

    /// An address space ends, and its contexts with it.
    pub(crate) fn aio_release(&mut self, mm: u64) {
        let gone: Vec<u64> = self.aio.by_mm.range((mm, 0)..=(mm, u32::MAX)).map(|(_, f)| *f).collect();
        for context in gone {
            self.aio_drop(context);
        }
    }

    fn aio_drop(&mut self, context: u64) {
        let requests: Vec<u64> =
            self.aio.contexts.get(&context).map(|c| c.waiting.keys().copied().collect()).unwrap_or_default();
        for request in requests {
            if let Some(w) = self.aio_take(context, request) {
                self.file_unref(w.file);
                if let Some(eventfd) = w.done.notify {
                    self.file_unref(eventfd);
                }
            }
        }
        let Some(c) = self.aio.contexts.remove(&context) else { return };
        self.aio.by_mm.remove(&(c.mm, c.index));
        self.aio.requests = self.aio.requests.saturating_sub(c.requests);
        // Who waits for events learns that there will be none.
        self.wake(WaitKey::Object(c.object));
        self.file_unref(context);
    }

    /// A word of a ring's header.
    fn aio_word(&mut self, inode: InodeId, at: u64) -> Result<u32, Errno> {
        let mut b = [0; 4];
        self.inode_read(inode, at, &mut b)?;
        Ok(u32::from_le_bytes(b))
    }

    /// Whether a context has room for one more request. EINVAL.
    pub fn aio_has_room(&mut self, context: u64) -> Result<bool, Errno> {
        let c = self.aio.contexts.get(&context).ok_or(Errno::EINVAL)?;
        let (inode, tail, events, waiting) = (c.inode, c.tail, c.events, u64_of(c.waiting.len()));
        let head = self.aio_word(inode, HEAD)?;
        Ok(u64::from(held(head, tail, events)) + waiting < u64::from(events) - 1)
    }

    /// A request is done: puts its event into the ring, counts it at its eventfd, and wakes who waits. The reference to the eventfd is
    /// taken over.
    pub fn aio_complete(&mut self, context: u64, done: Done, result: i64) {
        if let Some(c) = self.aio.contexts.get_mut(&context) {
            let (inode, at, object) = (c.inode, c.tail, c.object);
            c.tail = (c.tail + 1) % c.events.max(1);
            let tail = c.tail;
            let mut event = Vec::new();
            for word in [done.data, done.iocb, result.cast_unsigned(), 0] {
                event.extend(word.to_le_bytes());
            }
            // The ring's pages are there since it was mapped; without memory for one its event is lost, as if the page were.
            let _ = self.inode_write(inode, HEADER + EVENT * u64::from(at), &event);
            let _ = self.inode_write(inode, HEAD + 4, &tail.to_le_bytes());
            self.wake(WaitKey::Object(object));
        }
        if let Some(file) = done.notify {
            self.eventfd_signal(file);
            self.file_unref(file);
        }
    }

    /// Adds one to an eventfd; what is full stays full.
    fn eventfd_signal(&mut self, file: u64) {
        let Some(FileKind::EventFd(id)) = self.files.get(file).map(|f| f.kind.clone()) else { return };
        let Some(e) = self.objects.eventfds.get_mut(id) else { return };
        let _ = e.add(1);
        let object = e.object;
        self.wake_for(object, crate::poll::INPUT);
    }

    /// Copies up to `most` events to user memory and takes them from the ring; returns how many. EFAULT, EINVAL.
    pub fn aio_reap(&mut self, tid: Tid, context: u64, va: Va, most: u64) -> Result<u64, Errno> {
        let c = self.aio.contexts.get(&context).ok_or(Errno::EINVAL)?;
        let (inode, events) = (c.inode, c.events.max(1));
        // Both are the program's to change; whatever they say is within the ring.
        let (head, tail) = (self.aio_word(inode, HEAD)? % events, self.aio_word(inode, HEAD + 4)? % events);
        let count = u64::from(held(head, tail, events)).min(most);
        let mut done = 0;
        while done < count {
            let at = (u64::from(head) + done) % u64::from(events);
            let n = (count - done).min(u64::from(events) - at).min(PIECE);
            let mut bytes = vec![0; us(n * EVENT)];
            self.inode_read(inode, HEADER + at * EVENT, &mut bytes)?;
            self.copy_out(tid, va.wrapping_add(done * EVENT), &bytes)?;
            done += n;
        }
        if done > 0 {
            let head = u32::try_from((u64::from(head) + done) % u64::from(events)).unwrap_or(0);
            self.inode_write(inode, HEAD, &head.to_le_bytes())?;
        }
        Ok(done)
    }

    /// IOCB_CMD_POLL: done when `file` has one of `events`, now or later. EAGAIN where too many wait already.
    pub fn aio_poll(&mut self, context: u64, file: u64, events: u32, done: Done) -> Result<(), Errno> {
        let events = events | POLLERR | POLLHUP;
        let ready = self.file_poll(file) & events & 0xffff;
        let objects = self.file_objects(file, events);
        let waiting = |o: &u64| self.aio.by_object.get(o).map_or(0, BTreeSet::len);
        let full = self.aio.waiting >= MAX_REQUESTS || objects.iter().any(|o| waiting(o) >= MAX_WAITING);
        if ready == 0 && full {
            return Err(Errno::EAGAIN);
        }
        if let Some(eventfd) = done.notify {
            self.file_ref(eventfd);
        }
        if ready != 0 {
            self.aio_complete(context, done, i64::from(ready));
            return Ok(());
        }
        self.aio.last += 1;
        let request = self.aio.last;
        let c = self.aio.contexts.get_mut(&context).ok_or(Errno::EINVAL)?;
        self.aio.waiting += 1;
        for object in &objects {
            self.aio.by_object.entry(*object).or_default().insert((context, request));
        }
        c.waiting.insert(request, Waiting { file, events, objects, done });
        self.file_ref(file);
        Ok(())
    }

    /// Takes a waiting request out.
    fn aio_take(&mut self, context: u64, request: u64) -> Option<Waiting> {
        let w = self.aio.contexts.get_mut(&context)?.waiting.remove(&request)?;
        self.aio.waiting = self.aio.waiting.saturating_sub(1);
        for object in &w.objects {
            if let Some(set) = self.aio.by_object.get_mut(object) {
                set.remove(&(context, request));
                if set.is_empty() {
                    self.aio.by_object.remove(object);
                }
            }
        }
        Some(w)
    }

    /// io_cancel(2): ends the waiting request of an iocb; its event says that nothing was ready. EINVAL when there is none.
    pub fn aio_cancel(&mut self, context: u64, iocb: Va) -> Result<(), Errno> {
        let c = self.aio.contexts.get(&context).ok_or(Errno::EINVAL)?;
        let request =
            c.waiting.iter().find(|(_, w)| w.done.iocb == iocb).map(|(r, _)| *r).ok_or(Errno::EINVAL)?;
        self.aio_finish(context, request, 0);
        Ok(())
    }

    fn aio_finish(&mut self, context: u64, request: u64, result: u32) {
        if let Some(w) = self.aio_take(context, request) {
            self.aio_complete(context, w.done, i64::from(result));
            self.file_unref(w.file);
        }
    }

    /// An object's readiness changed: looks at the requests that wait for it. An end may change further objects (an eventfd), and
    /// these are looked at after it rather than within.
    pub(crate) fn aio_changed(&mut self, object: u64) {
        if !self.aio.by_object.contains_key(&object) {
            return;
        }
        if !self.aio.changed.contains(&object) {
            self.aio.changed.push(object);
        }
        if self.aio.busy {
            return;
        }
        self.aio.busy = true;
        while let Some(object) = self.aio.changed.pop() {
            let requests: Vec<(u64, u64)> =
                self.aio.by_object.get(&object).map(|s| s.iter().copied().collect()).unwrap_or_default();
            for (context, request) in requests {
                let waiting = self.aio.contexts.get(&context).and_then(|c| c.waiting.get(&request));
                let Some((file, events)) = waiting.map(|w| (w.file, w.events)) else { continue };
                let ready = self.file_poll(file) & events & 0xffff;
                if ready != 0 {
                    self.aio_finish(context, request, ready);
                }
            }
        }
        self.aio.busy = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Limits;
    use crate::platform::FIRST_EXTENT;
    use crate::platform::fake::FakePlatform;
    use crate::task::{FdTable, FsContext};
    use std::sync::Arc;

    fn kernel() -> Kernel {
        let p = Arc::new(FakePlatform::new(FIRST_EXTENT + (64 << 20)));
        let mut k = Kernel::new(p, Limits::default()).unwrap();
        let mm = k.mm_new().unwrap();
        let files = k.fd_tables.insert(FdTable::default());
        let fs = k.fs_contexts.insert(FsContext { root: 0, cwd: 0, umask: 0, refs: 1 });
        crate::exec::test_task(&mut k, 1, mm, files, fs);
        k
    }

    fn done(data: u64) -> Done {
        Done { data, iocb: 0x1234_0000, notify: None }
    }

    #[test]
    fn a_ring_shows_what_is_done_and_forgets_what_is_taken() {
        let mut k = kernel();
        let id = k.aio_setup(1, 10).unwrap();
        let context = k.aio_find(1, id).unwrap();
        assert_eq!(k.get_u32(1, id + 16), Ok(MAGIC));
        assert_eq!(k.get_u32(1, id + 4), Ok(127));
        let out = k.mmap(1, 0, 8192, 3, 0x22, None, 0).unwrap();
        for round in 0..100 {
            for n in 0..5 {
                k.aio_complete(context, done(round * 5 + n), 7);
            }
            assert_eq!(k.get_u32(1, id + 12).map(u64::from), Ok((round * 5 + 5) % 127));
            assert_eq!(k.aio_reap(1, context, out, 3), Ok(3));
            assert_eq!(k.aio_reap(1, context, out + 96, 9), Ok(2));
            for n in 0..5 {
                assert_eq!(k.get_u64(1, out + 32 * n), Ok(round * 5 + n));
                assert_eq!(k.get_u64(1, out + 32 * n + 16), Ok(7));
            }
        }
        assert_eq!(k.aio_reap(1, context, 8, 9), Ok(0));
        k.aio_complete(context, done(1), 7);
        assert_eq!(k.aio_reap(1, context, 8, 9), Err(Errno::EFAULT));
        assert_eq!(k.aio_reap(1, context, out, 9), Ok(1));
        k.aio_destroy(1, context, id);
        assert_eq!((k.aio_find(1, id), k.aio.requests), (Err(Errno::EINVAL), 0));
    }

    #[test]
    fn a_program_that_spoils_its_ring_spoils_nothing_else() {
        let mut k = kernel();
        let id = k.aio_setup(1, 10).unwrap();
        let context = k.aio_find(1, id).unwrap();
        let out = k.mmap(1, 0, 8192, 3, 0x22, None, 0).unwrap();
        for (head, tail) in [(u32::MAX, 0), (0, u32::MAX), (5, 3), (126, 127), (128, 1)] {
            k.put_u32(1, id + 8, head).unwrap();
            k.put_u32(1, id + 12, tail).unwrap();
            assert!(k.aio_has_room(context).is_ok());
            assert!(k.aio_reap(1, context, out, 1000).unwrap_or(0) <= 126);
            k.aio_complete(context, done(1), 7);
        }
    }

    #[test]
    fn requests_are_limited_and_an_address_space_takes_its_contexts_along() {
        let mut k = kernel();
        assert_eq!(k.aio_setup(1, u32::MAX), Err(Errno::EINVAL));
        assert_eq!(k.aio_setup(1, 1 << 31), Err(Errno::EAGAIN));
        assert_eq!(k.aio_setup(1, 65537), Err(Errno::EAGAIN));
        let all = k.aio_setup(1, 65536).unwrap();
        assert_eq!(k.aio_setup(1, 1), Err(Errno::EAGAIN));
        let context = k.aio_find(1, all).unwrap();
        k.aio_destroy(1, context, all);
        let ids: Vec<Va> = (0..20).map(|_| k.aio_setup(1, 100).unwrap()).collect();
        assert_eq!(k.get_u32(1, ids[19]), Ok(19));
        let context = k.aio_find(1, ids[7]).unwrap();
        k.aio_destroy(1, context, ids[7]);
        let again = k.aio_setup(1, 100).unwrap();
        assert_eq!(k.get_u32(1, again), Ok(7));
        let mm = k.task(1).unwrap().mm;
        let before = k.files.len();
        k.mm_release(mm);
        assert_eq!((k.aio.requests, k.aio.contexts.len(), k.files.len()), (0, 0, before - 20));
    }

    /// Each end of a request changes the eventfd that the next one waits for.
    #[test]
    fn requests_that_end_one_another_do_so_without_deep_recursion() {
        let mut k = kernel();
        let id = k.aio_setup(1, 20_000).unwrap();
        let context = k.aio_find(1, id).unwrap();
        let eventfds: Vec<u64> = (0..=20_000).map(|_| k.eventfd_create(0, false, 0)).collect();
        for (n, pair) in (0..).zip(eventfds.windows(2)) {
            assert_eq!(k.aio_has_room(context), Ok(true));
            let done = Done { notify: Some(pair[1]), ..done(n) };
            k.aio_poll(context, pair[0], crate::poll::POLLIN, done).unwrap();
        }
        assert_eq!((k.aio.objects().count(), k.aio.waiting), (20_000, 20_000));
        k.eventfd_signal(eventfds[0]);
        let FileKind::EventFd(e) = k.open_file(eventfds[20_000]).unwrap().kind else { panic!() };
        assert_eq!(k.objects.eventfds.get(e).unwrap().count, 1);
        assert_eq!((k.aio.objects().count(), k.aio.waiting), (0, 0));
        assert!(eventfds.iter().all(|e| k.files.get(*e).unwrap().refs == 1));
    }

    #[test]
    fn only_so_many_requests_wait_for_one_object_and_in_all() {
        let mut k = kernel();
        let id = k.aio_setup(1, 2000).unwrap();
        let context = k.aio_find(1, id).unwrap();
        let [one, other] = [0; 2].map(|_| k.eventfd_create(0, false, 0));
        let poll = |k: &mut Kernel, file, n| {
            k.aio_poll(context, file, crate::poll::POLLIN, Done { notify: Some(other), ..done(n) })
        };
        for n in 0..1024 {
            poll(&mut k, one, n).unwrap();
        }
        assert_eq!(poll(&mut k, one, 1024), Err(Errno::EAGAIN));
        poll(&mut k, other, 1025).unwrap();
        k.aio.waiting += MAX_REQUESTS;
        assert_eq!(poll(&mut k, other, 1026), Err(Errno::EAGAIN));
        k.aio.waiting -= MAX_REQUESTS;
        k.aio_destroy(1, context, id);
        assert_eq!(
            (k.aio.waiting, k.files.get(one).unwrap().refs, k.files.get(other).unwrap().refs),
            (0, 1, 1)
        );
    }
}
