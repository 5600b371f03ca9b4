//! inotify(7): queues of events about inodes of the tree. The operations of the tree call `Kernel::notify_inode` and its relatives; without
//! a watch anywhere these return at once.

use super::fanotify::Happened;
use super::{FileKind, InodeId, OpenFile};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{low32, u64_of, us};
use crate::task::Tid;
use crate::vfs::file::{O_NONBLOCK, iovec_total};
use crate::wait::{Block, Outcome, SysResult, WaitKey};
use linux_raw_sys::general as g;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Events that one queue holds (/proc/sys/fs/inotify/max_queued_events).
const MAX_EVENTS: usize = 16384;
/// Bytes that the events of all queues together take of the host's memory: what lies beyond is an overflow like too many events.
const MAX_BYTES: usize = 8 << 20;
/// Watches in a sandbox (max_user_watches).
pub const MAX_WATCHES: usize = 65536;
/// Queues in a sandbox (max_user_instances).
pub const MAX_QUEUES: usize = 128;
/// Bytes of an event before its name.
const HEADER: usize = 16;
/// Bits that a watch keeps besides the events.
const KEPT: u32 = g::IN_ALL_EVENTS | g::IN_ONESHOT | g::IN_EXCL_UNLINK | g::IN_UNMOUNT;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    wd: i32,
    mask: u32,
    cookie: u32,
    name: Vec<u8>,
}

impl Event {
    /// Bytes that it takes in a reader's buffer.
    fn len(&self) -> usize {
        HEADER + if self.name.is_empty() { 0 } else { (self.name.len() + 1).next_multiple_of(HEADER) }
    }

    /// Bytes that it takes here.
    fn cost(&self) -> usize {
        size_of::<Event>() + self.name.len()
    }

    /// `struct inotify_event`.
    fn encode(&self, out: &mut Vec<u8>) {
        let end = out.len() + self.len();
        out.extend(self.wd.to_le_bytes());
        out.extend(self.mask.to_le_bytes());
        out.extend(self.cookie.to_le_bytes());
        out.extend(low32(u64_of(self.len() - HEADER)).to_le_bytes());
        out.extend(&self.name);
        out.resize(end, 0);
    }
}

/// What inotify_init(2) makes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Inotify {
    /// Its object number for waiters.
    pub object: u64,
    queue: VecDeque<Event>,
    /// Inode and mask by watch descriptor.
    watches: BTreeMap<i32, (InodeId, u32)>,
    last: i32,
}

impl Inotify {
    /// Bytes that wait to be read.
    pub fn pending(&self) -> u64 {
        self.queue.iter().map(|e| u64_of(e.len())).sum()
    }

    /// POLL* events.
    pub fn poll(&self) -> u32 {
        if self.queue.is_empty() { 0 } else { crate::poll::POLLIN | crate::poll::POLLRDNORM }
    }
}

/// All queues, and who watches which inode.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Watches {
    /// Queues by id.
    pub queues: crate::store::Store<Inotify>,
    /// Watch descriptors by inode and queue.
    by_inode: BTreeMap<InodeId, BTreeMap<u64, i32>>,
    /// Who is told by a signal.
    pub dnotify: super::dnotify::Dnotify,
    /// Groups of fanotify(7).
    pub fanotify: super::fanotify::Fanotify,
    /// The task that does what is told of.
    pub actor: Tid,
    bytes: usize,
    cookie: u32,
}

impl Watches {
    /// Whether somebody watches an inode.
    pub fn has(&self, inode: InodeId) -> bool {
        self.by_inode.contains_key(&inode) || self.dnotify.has(inode) || self.fanotify.has(inode)
    }

    /// Whether nobody watches anything.
    fn is_idle(&self) -> bool {
        self.by_inode.is_empty() && self.dnotify.is_idle() && self.fanotify.is_idle()
    }

    fn push(&mut self, id: u64, event: Event) -> Option<u64> {
        let queue = self.queues.get_mut(id)?;
        if queue.queue.back() == Some(&event) && event.mask & g::IN_IGNORED == 0 {
            return None;
        }
        if queue.queue.len() >= MAX_EVENTS || self.bytes + event.cost() > MAX_BYTES {
            let overflow = Event { wd: -1, mask: g::IN_Q_OVERFLOW, cookie: 0, name: Vec::new() };
            if queue.queue.back() != Some(&overflow) {
                self.bytes += overflow.cost();
                queue.queue.push_back(overflow);
            }
        } else {
            self.bytes += event.cost();
            queue.queue.push_back(event);
        }
        Some(queue.object)
    }

    /// Ends a watch: IN_IGNORED is its last event.
    fn forget(&mut self, id: u64, wd: i32) -> Option<u64> {
        let (inode, _) = self.queues.get_mut(id)?.watches.remove(&wd)?;
        if let Some(watchers) = self.by_inode.get_mut(&inode) {
            watchers.remove(&id);
            if watchers.is_empty() {
                self.by_inode.remove(&inode);
            }
        }
        self.push(id, Event { wd, mask: g::IN_IGNORED, cookie: 0, name: Vec::new() })
    }
}

impl Kernel {
    /// Makes a queue with one reference. `flags` are O_NONBLOCK or 0. EMFILE.
    pub fn inotify_open(&mut self, flags: u32) -> Result<u64, Errno> {
        if self.objects.watches.queues.len() >= MAX_QUEUES {
            return Err(Errno::EMFILE);
        }
        let object = self.new_object();
        let id = self.objects.watches.queues.insert(Inotify { object, ..Inotify::default() });
        Ok(self.files.insert(OpenFile { kind: FileKind::Inotify(id), flags, pos: 0, refs: 1 }))
    }

    /// Watches an inode, or changes what is watched of it; returns the watch descriptor. EEXIST, ENOSPC.
    pub fn inotify_add(&mut self, id: u64, inode: InodeId, mask: u32) -> Result<i32, Errno> {
        let watches = &mut self.objects.watches;
        let total: usize = watches.queues.iter().map(|(_, q)| q.watches.len()).sum();
        let queue = watches.queues.get_mut(id).ok_or(Errno::EINVAL)?;
        let known = watches.by_inode.get(&inode).and_then(|w| w.get(&id)).copied();
        if let Some(wd) = known {
            if mask & g::IN_MASK_CREATE != 0 {
                return Err(Errno::EEXIST);
            }
            if let Some((_, old)) = queue.watches.get_mut(&wd) {
                *old = mask & KEPT | if mask & g::IN_MASK_ADD != 0 { *old } else { 0 };
            }
            return Ok(wd);
        }
        if total >= MAX_WATCHES {
            return Err(Errno::ENOSPC);
        }
        queue.last = queue.last.checked_add(1).ok_or(Errno::ENOSPC)?;
        let wd = queue.last;
        queue.watches.insert(wd, (inode, mask & KEPT));
        watches.by_inode.entry(inode).or_default().insert(id, wd);
        Ok(wd)
    }

    /// inotify_rm_watch(2). EINVAL.
    pub fn inotify_remove(&mut self, id: u64, wd: i32) -> Result<(), Errno> {
        if !self.objects.watches.queues.get(id).is_some_and(|q| q.watches.contains_key(&wd)) {
            return Err(Errno::EINVAL);
        }
        if let Some(object) = self.objects.watches.forget(id, wd) {
            self.wake(WaitKey::Object(object));
        }
        Ok(())
    }

    /// The last reference to a queue is gone.
    pub fn inotify_close(&mut self, id: u64) {
        let Some(queue) = self.objects.watches.queues.remove(id) else { return };
        let watches = &mut self.objects.watches;
        watches.bytes -= queue.queue.iter().map(Event::cost).sum::<usize>().min(watches.bytes);
        for (inode, _) in queue.watches.values() {
            if let Some(watchers) = watches.by_inode.get_mut(inode) {
                watchers.remove(&id);
                if watchers.is_empty() {
                    watches.by_inode.remove(inode);
                }
            }
        }
    }

    /// read(2): as many whole events as there is room for. EINVAL, EAGAIN.
    pub fn inotify_read(&mut self, tid: Tid, f: &OpenFile, id: u64, iovecs: &[(u64, u64)]) -> SysResult {
        let room = us(iovec_total(iovecs).min(1 << 20));
        let queue = self.objects.watches.queues.get_mut(id).ok_or(Errno::EBADF)?;
        let (mut bytes, mut taken) = (Vec::new(), 0);
        for event in &queue.queue {
            if bytes.len() + event.len() > room {
                break;
            }
            event.encode(&mut bytes);
            taken += 1;
        }
        if queue.queue.is_empty() {
            if f.flags & O_NONBLOCK != 0 {
                return Err(Errno::EAGAIN);
            }
            return Ok(Outcome::Block(Block::on(WaitKey::Object(queue.object))));
        }
        if taken == 0 {
            return Err(Errno::EINVAL);
        }
        let gone: usize = queue.queue.drain(..taken).map(|e| e.cost()).sum();
        self.objects.watches.bytes = self.objects.watches.bytes.saturating_sub(gone);
        let moved = self.scatter(tid, iovecs, &bytes);
        if moved < bytes.len() { Err(Errno::EFAULT) } else { Ok(Outcome::Return(u64_of(moved))) }
    }

    /// An event about an inode alone.
    pub(crate) fn notify_inode(&mut self, inode: InodeId, mask: u32) {
        if self.objects.watches.is_idle() {
            return;
        }
        let of_dir = self.vfs.inode(inode).is_ok_and(super::inode::Inode::is_dir);
        let told = mask | if of_dir { g::IN_ISDIR } else { 0 };
        self.fan_event(&Happened { mask: told, inode: Some(inode), parent: None, opened: false });
        self.tell(inode, mask, b"", 0);
    }

    /// The directory that an inode is in, and its name there; nothing for what has none.
    fn parent_of(&self, inode: InodeId) -> Option<(InodeId, Vec<u8>)> {
        let node = self.vfs.inode(inode).ok()?;
        let (parent, name) = (node.parent, &node.name);
        let named =
            !name.is_empty() && parent != inode && node.seals.is_none() && !name.starts_with(b"#tmpfile");
        named.then(|| (parent, name.clone()))
    }

    /// Tells who watches an inode; `name` is that of an entry when the event is about one.
    fn tell(&mut self, inode: InodeId, mask: u32, name: &[u8], cookie: u32) {
        self.dnotify_event(inode, mask, !name.is_empty());
        let Some(watchers) = self.objects.watches.by_inode.get(&inode) else { return };
        let mut wake = Vec::new();
        for (id, wd) in watchers.clone() {
            let watches = &mut self.objects.watches;
            let found = watches.queues.get(id).and_then(|q| q.watches.get(&wd));
            let Some((_, wanted)) = found.copied() else { continue };
            if mask & wanted & (g::IN_ALL_EVENTS | g::IN_UNMOUNT) == 0 {
                continue;
            }
            wake.extend(watches.push(id, Event { wd, mask, cookie, name: name.to_vec() }));
            if wanted & g::IN_ONESHOT != 0 {
                wake.extend(watches.forget(id, wd));
            }
        }
        for object in wake {
            self.wake(WaitKey::Object(object));
        }
    }

    /// An event about an inode, for who watches it and for who watches the directory that it is in.
    pub(crate) fn notify_both(&mut self, inode: InodeId, mask: u32) {
        self.notify_of(inode, mask, false);
    }

    /// As [`Kernel::notify_both`], of what is done to an open file.
    pub(crate) fn notify_open(&mut self, inode: InodeId, mask: u32) {
        self.notify_of(inode, mask, true);
    }

    fn notify_of(&mut self, inode: InodeId, mask: u32, opened: bool) {
        if self.objects.watches.is_idle() {
            return;
        }
        let Ok(node) = self.vfs.inode(inode) else { return };
        let mask = if node.is_dir() { mask | g::IN_ISDIR } else { mask };
        let gone = node.stat.nlink == 0;
        let parent = self.parent_of(inode);
        self.fan_event(&Happened { mask, inode: Some(inode), parent: parent.clone(), opened });
        if let Some((parent, name)) = parent
            && !(gone && self.excludes_unlinked(parent))
        {
            self.tell(parent, mask, &name, 0);
        }
        self.tell(inode, mask, b"", 0);
    }

    fn excludes_unlinked(&self, dir: InodeId) -> bool {
        let watches = &self.objects.watches;
        watches.by_inode.get(&dir).is_some_and(|w| {
            w.iter().all(|(id, wd)| {
                let mask = watches.queues.get(*id).and_then(|q| q.watches.get(wd)).map_or(0, |(_, m)| *m);
                mask & g::IN_EXCL_UNLINK != 0
            })
        })
    }

    /// An event about an open file.
    pub(crate) fn notify_file(&mut self, f: &OpenFile, mask: u32) {
        if self.objects.watches.is_idle() || f.flags & (super::file::O_PATH | super::fanotify::QUIET) != 0 {
            return;
        }
        if let Some(inode) = f.kind.inode() {
            self.notify_open(inode, mask);
        }
    }

    /// An event about a name in a directory.
    pub(crate) fn notify_name(&mut self, dir: InodeId, name: &[u8], is_dir: bool, mask: u32) {
        let mask = mask | if is_dir { g::IN_ISDIR } else { 0 };
        self.fan_name(dir, name, mask);
        self.tell(dir, mask, name, 0);
    }

    fn fan_name(&mut self, dir: InodeId, name: &[u8], mask: u32) {
        if !self.objects.watches.fanotify.is_idle() {
            let parent = Some((dir, name.to_vec()));
            self.fan_event(&Happened { mask, inode: None, parent, opened: false });
        }
    }

    /// A name moved.
    pub(crate) fn notify_move(
        &mut self,
        (from, old): (InodeId, &[u8]),
        (to, new): (InodeId, &[u8]),
        moved: InodeId,
    ) {
        if self.objects.watches.is_idle() {
            return;
        }
        let is_dir =
            if self.vfs.inode(moved).is_ok_and(super::inode::Inode::is_dir) { g::IN_ISDIR } else { 0 };
        self.objects.watches.cookie = self.objects.watches.cookie.wrapping_add(1).max(1);
        let cookie = self.objects.watches.cookie;
        self.fan_name(from, old, g::IN_MOVED_FROM | is_dir);
        self.fan_name(to, new, g::IN_MOVED_TO | is_dir);
        self.tell(from, g::IN_MOVED_FROM | is_dir, old, cookie);
        self.tell(to, g::IN_MOVED_TO | is_dir, new, cookie);
        if from == to {
            self.dnotify_event(from, super::dnotify::RENAMED | is_dir, true);
        }
    }

    /// An inode without names and users goes away, and its watches with it.
    pub(crate) fn notify_gone(&mut self, inode: InodeId) {
        self.notify_inode(inode, g::IN_DELETE_SELF);
        self.notify_ignored(inode);
        self.fan_gone(inode);
    }

    /// Ends all watches of an inode.
    pub(crate) fn notify_ignored(&mut self, inode: InodeId) {
        let Some(watchers) = self.objects.watches.by_inode.get(&inode).cloned() else { return };
        let objects: Vec<u64> =
            watchers.iter().filter_map(|(id, wd)| self.objects.watches.forget(*id, *wd)).collect();
        for object in objects {
            self.wake(WaitKey::Object(object));
        }
    }
}
