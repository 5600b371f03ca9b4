//! fanotify(7): groups, their marks on inodes and file systems, and the events that wait to be read. The operations of the tree tell of
//! events by way of `inotify` (`Kernel::fan_event`); without a mark anywhere nothing is done.
//!
//! Events are of the notification class: nobody is asked for permission. A mark on a mount counts for its whole file system, because an
//! open file does not remember the mount that it was opened through.

use super::inode::FsKind;
use super::{FileKind, InodeId, OpenFile};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{low16, low32, u64_of, us};
use crate::task::Tid;
use crate::vfs::file::O_NONBLOCK;
use crate::wait::{Block, Outcome, SysResult, WaitKey};
use linux_raw_sys::general as g;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// FAN_REPORT_TID.
pub const REPORT_TID: u32 = 0x100;
/// FAN_REPORT_FID.
pub const REPORT_FID: u32 = 0x200;
/// FAN_REPORT_DIR_FID.
pub const REPORT_DIR_FID: u32 = 0x400;
/// FAN_REPORT_NAME.
pub const REPORT_NAME: u32 = 0x800;
/// FAN_REPORT_TARGET_FID.
pub const REPORT_TARGET_FID: u32 = 0x1000;
/// FAN_Q_OVERFLOW.
const OVERFLOW: u32 = 0x4000;
/// FAN_EVENT_ON_CHILD.
pub const ON_CHILD: u32 = 0x0800_0000;
/// FAN_ONDIR, which is inotify's bit for the same.
pub const ONDIR: u32 = g::IN_ISDIR;
/// Events of names in a directory.
pub const DIRENT: u32 = g::IN_CREATE | g::IN_DELETE | g::IN_MOVED_FROM | g::IN_MOVED_TO;
/// Events that come with an open file.
pub const OPENED: u32 =
    g::IN_ACCESS | g::IN_MODIFY | g::IN_CLOSE_WRITE | g::IN_CLOSE_NOWRITE | g::IN_OPEN | 0x1000;
/// All events.
pub const EVENTS: u32 = OPENED | DIRENT | g::IN_ATTRIB | g::IN_DELETE_SELF | g::IN_MOVE_SELF;
/// An open file that makes no events (FMODE_NONOTIFY): what a group's reader gets.
pub const QUIET: u32 = 1 << 26;

/// Events that one group holds (/proc/sys/fs/fanotify/max_queued_events), whatever FAN_UNLIMITED_QUEUE says.
pub const MAX_EVENTS: usize = 16384;
/// Bytes that the events of all groups together take.
const MAX_BYTES: usize = 8 << 20;
/// Groups (/proc/sys/fs/fanotify/max_user_groups).
pub const MAX_GROUPS: usize = 128;
/// Marks of all groups together (/proc/sys/fs/fanotify/max_user_marks), whatever FAN_UNLIMITED_MARKS says.
pub const MAX_MARKS: usize = 65536;
/// Bytes of `struct fanotify_event_metadata`.
const METADATA: usize = 24;

/// What is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Marked {
    /// An inode and, as the mark says, what is in the directory.
    Inode(InodeId),
    /// A file system, by any inode's; `true` for FAN_MARK_MOUNT.
    Fs(u64, bool),
}

/// One mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Events wanted, with [`ON_CHILD`] and [`ONDIR`].
    pub mask: u32,
    /// Events not wanted.
    pub ignored: u32,
    /// FAN_MARK_IGNORED_SURV_MODIFY.
    pub survives: bool,
    /// `ignored` has flags of its own (FAN_MARK_IGNORE).
    pub strict: bool,
}

/// What an event is about; equal ones become one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Key {
    /// The object, or the directory of an event of a name.
    inode: Option<InodeId>,
    /// The directory that it is in, and its name there, where the group wants to know.
    parent: Option<(InodeId, Vec<u8>)>,
    /// Its file system, as [`Kernel::fs_id`] calls it.
    fs: u64,
    /// Events of directories stay apart from those of files.
    of_dir: bool,
    /// Who did it.
    pid: u32,
}

impl Key {
    fn cost(&self) -> usize {
        size_of::<Key>() * 2 + self.parent.as_ref().map_or(0, |(_, name)| 2 * name.len())
    }
}

/// What fanotify_init(2) makes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Group {
    /// Its object number for waiters.
    pub object: u64,
    /// fanotify_init's flags.
    pub flags: u32,
    /// O_ flags of the files that its reader gets.
    event_flags: u32,
    marks: BTreeMap<Marked, Mark>,
    queue: BTreeMap<u64, (u32, Key)>,
    by_key: BTreeMap<Key, u64>,
    last: u64,
}

impl Group {
    fn reports_fid(&self) -> bool {
        self.flags & (REPORT_FID | REPORT_DIR_FID) != 0
    }

    /// POLL* events.
    pub fn poll(&self) -> u32 {
        if self.queue.is_empty() { 0 } else { crate::poll::POLLIN | crate::poll::POLLRDNORM }
    }

    /// Bytes that wait to be read.
    pub fn pending(&self) -> u64 {
        self.queue.values().map(|(mask, key)| u64_of(self.len_of(*mask, key))).sum()
    }

    /// Which records follow an event's metadata: kind and name.
    fn records<'k>(&self, mask: u32, key: &'k Key) -> Vec<(u8, InodeId, &'k [u8])> {
        let mut all = Vec::new();
        let (Some(inode), true) = (key.inode, self.reports_fid()) else { return all };
        let of_dir = mask & (DIRENT | ONDIR) != 0;
        let (fid, dir_fid) = (self.flags & REPORT_FID != 0, self.flags & REPORT_DIR_FID != 0);
        if dir_fid && let Some((dir, name)) = &key.parent {
            all.push(match self.flags & REPORT_NAME {
                // Linux calls a lone directory that something happened in an object.
                0 if !fid && !of_dir => (1, *dir, &[][..]),
                0 => (3, *dir, &[][..]),
                _ => (2, *dir, &name[..]),
            });
        }
        if fid && !(dir_fid && of_dir) {
            all.push((1, inode, &[]));
        }
        all
    }

    fn len_of(&self, mask: u32, key: &Key) -> usize {
        let records = self.records(mask, key);
        METADATA + records.iter().map(|(kind, _, name)| record_len(*kind, name)).sum::<usize>()
    }
}

/// Bytes of a record: header, file system, handle of 8 bytes, name with its end.
fn record_len(kind: u8, name: &[u8]) -> usize {
    let name = if kind == 2 { name.len() + 1 } else { 0 };
    (4 + 8 + 16 + name).next_multiple_of(4)
}

/// All groups.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Fanotify {
    /// By id.
    pub groups: crate::store::Store<Group>,
    /// How many marks each has on what.
    marked: BTreeMap<Marked, usize>,
    marks: usize,
    bytes: usize,
}

impl Fanotify {
    /// Whether nothing is marked.
    pub fn is_idle(&self) -> bool {
        self.marks == 0
    }

    /// Whether an inode is marked itself.
    pub fn has(&self, inode: InodeId) -> bool {
        self.marked.contains_key(&Marked::Inode(inode))
    }

    fn drop_mark(&mut self, what: Marked) {
        self.marks = self.marks.saturating_sub(1);
        if let Some(n) = self.marked.get_mut(&what) {
            *n -= 1;
            if *n == 0 {
                self.marked.remove(&what);
            }
        }
    }
}

/// A file system as a number.
fn fs_number(fs: FsKind) -> u64 {
    match fs {
        FsKind::Root => 1,
        FsKind::Dev => 2,
        FsKind::Shm => 3,
        FsKind::Proc => 4,
        FsKind::Sys => 5,
        FsKind::Mount(n) => 16 + u64::from(n),
    }
}

/// An event as the operations of the tree know it.
pub(super) struct Happened {
    /// Its bits, [`ONDIR`] among them.
    pub mask: u32,
    /// What it is about: for an event of a name, what has the name.
    pub inode: Option<InodeId>,
    /// The directory and the name there.
    pub parent: Option<(InodeId, Vec<u8>)>,
    /// It is about a file that was opened.
    pub opened: bool,
}

impl Kernel {
    /// Makes a group with one reference. `event_flags` are those of the files that its reader gets. EMFILE.
    pub fn fanotify_open(&mut self, flags: u32, event_flags: u32) -> Result<u64, Errno> {
        if self.objects.watches.fanotify.groups.len() >= MAX_GROUPS {
            return Err(Errno::EMFILE);
        }
        let object = self.new_object();
        let group = Group { object, flags, event_flags, ..Group::default() };
        let id = self.objects.watches.fanotify.groups.insert(group);
        // FAN_NONBLOCK
        let nonblock = if flags & 2 != 0 { O_NONBLOCK } else { 0 };
        Ok(self.files.insert(OpenFile { kind: FileKind::Fanotify(id), flags: 2 | nonblock, pos: 0, refs: 1 }))
    }

    /// The last reference to a group is gone.
    pub fn fanotify_close(&mut self, id: u64) {
        let fan = &mut self.objects.watches.fanotify;
        let Some(group) = fan.groups.remove(id) else { return };
        group.marks.keys().for_each(|what| fan.drop_mark(*what));
        let fid = group.reports_fid();
        for (_, key) in group.queue.into_values() {
            self.fan_release(&key, fid);
        }
    }

    /// What an inode's file system is called in a mark.
    pub fn fan_fs(&self, inode: InodeId, mount: bool) -> Result<Marked, Errno> {
        Ok(Marked::Fs(fs_number(self.vfs.inode(inode)?.fs), mount))
    }

    /// FAN_MARK_ADD: `change` says what becomes of the mark. ENOSPC.
    pub fn fan_mark(&mut self, id: u64, what: Marked, change: impl FnOnce(&mut Mark)) -> Result<(), Errno> {
        let fan = &mut self.objects.watches.fanotify;
        let full = fan.marks >= MAX_MARKS;
        let group = fan.groups.get_mut(id).ok_or(Errno::EINVAL)?;
        if !group.marks.contains_key(&what) {
            if full {
                return Err(Errno::ENOSPC);
            }
            fan.marks += 1;
            *fan.marked.entry(what).or_default() += 1;
        }
        change(group.marks.entry(what).or_default());
        Ok(())
    }

    /// FAN_MARK_REMOVE: takes bits out of a mark, which goes when it has none left. ENOENT.
    pub fn fan_unmark(&mut self, id: u64, what: Marked, change: impl FnOnce(&mut Mark)) -> Result<(), Errno> {
        let fan = &mut self.objects.watches.fanotify;
        let group = fan.groups.get_mut(id).ok_or(Errno::EINVAL)?;
        let mark = group.marks.get_mut(&what).ok_or(Errno::ENOENT)?;
        change(mark);
        if mark.mask == 0 && mark.ignored == 0 {
            group.marks.remove(&what);
            fan.drop_mark(what);
        }
        Ok(())
    }

    /// A group's mark.
    pub fn fan_marked(&self, id: u64, what: Marked) -> Option<Mark> {
        self.objects.watches.fanotify.groups.get(id)?.marks.get(&what).copied()
    }

    /// FAN_MARK_FLUSH: all marks of a kind go.
    pub fn fan_flush(&mut self, id: u64, kind: impl Fn(&Marked) -> bool) {
        let fan = &mut self.objects.watches.fanotify;
        let Some(group) = fan.groups.get_mut(id) else { return };
        let gone: Vec<Marked> = group.marks.keys().filter(|m| kind(m)).copied().collect();
        group.marks.retain(|m, _| !kind(m));
        gone.into_iter().for_each(|what| fan.drop_mark(what));
    }

    /// An inode goes away, and the marks on it.
    pub(super) fn fan_gone(&mut self, inode: InodeId) {
        if !self.objects.watches.fanotify.has(inode) {
            return;
        }
        let ids: Vec<u64> = self.objects.watches.fanotify.groups.iter().map(|(id, _)| id).collect();
        for id in ids {
            self.fan_flush(id, |m| *m == Marked::Inode(inode));
        }
    }

    /// Something happened: tells the groups that want to know.
    pub(super) fn fan_event(&mut self, what: &Happened) {
        if self.objects.watches.fanotify.is_idle() {
            return;
        }
        let dirent = what.mask & DIRENT != 0;
        // The object whose marks count: the directory of an event of a name.
        let object = if dirent { what.parent.as_ref().map(|(dir, _)| *dir) } else { what.inode };
        let Some(object) = object else { return };
        let Ok(node) = self.vfs.inode(object) else { return };
        // Files without a name (memfd_create(2), shared memory) belong to no mount.
        if node.seals.is_some() {
            return;
        }
        let fs = fs_number(node.fs);
        let plain = node.is_dir() || node.file_type() == super::inode::S_IFREG;
        let parent = what.parent.as_ref().filter(|_| !dirent).map(|(dir, _)| *dir);
        let fan = &self.objects.watches.fanotify;
        let places = [Marked::Inode(object), Marked::Fs(fs, false), Marked::Fs(fs, true)];
        let near = places.iter().chain(parent.map(Marked::Inode).iter()).any(|m| fan.marked.contains_key(m));
        if !near {
            return;
        }
        let ids: Vec<u64> = fan.groups.iter().map(|(id, _)| id).collect();
        for id in ids {
            self.fan_tell(id, what, (object, parent, plain, fs), &places);
        }
    }

    fn fan_tell(
        &mut self,
        id: u64,
        what: &Happened,
        (object, parent, plain, fs): (InodeId, Option<InodeId>, bool, u64),
        places: &[Marked; 3],
    ) {
        let Some(group) = self.objects.watches.fanotify.groups.get_mut(id) else { return };
        let of_dir = what.mask & ONDIR != 0;
        let (mut wanted, mut ignored) = (0, 0);
        let parent_mark = parent.map(Marked::Inode);
        for place in places.iter().chain(parent_mark.iter()) {
            let Some(mark) = group.marks.get_mut(place) else { continue };
            let is_parent = Some(*place) == parent_mark;
            if what.mask & g::IN_MODIFY != 0 && !mark.survives && !is_parent {
                mark.ignored = 0;
            }
            // A mark of a mount knows only what is done to open files.
            if matches!(place, Marked::Fs(_, true)) && !what.opened {
                continue;
            }
            let flags = if mark.strict { mark.ignored } else { mark.mask };
            let counts =
                (!of_dir || !mark.strict || flags & ONDIR != 0) && (!is_parent || flags & ON_CHILD != 0);
            if counts {
                ignored |= mark.ignored & EVENTS;
            }
            if (of_dir && mark.mask & ONDIR == 0) || (is_parent && mark.mask & ON_CHILD == 0) {
                continue;
            }
            wanted |= mark.mask;
        }
        let hit = what.mask & EVENTS & wanted & !ignored;
        if hit == 0 {
            return;
        }
        let fid = group.reports_fid();
        if !fid && (!what.opened || !plain) {
            return;
        }
        let by_name = group.flags & REPORT_DIR_FID != 0;
        if fid && group.flags & REPORT_FID == 0 && what.parent.is_none() && !of_dir {
            return;
        }
        let (tids, flags) = (group.flags & REPORT_TID != 0, group.flags);
        let actor = self.objects.watches.actor;
        let pid = if tids { actor } else { self.task(actor).map_or(0, |t| t.pid) };
        let named = |(dir, name): &(InodeId, Vec<u8>)| {
            (*dir, if flags & REPORT_NAME != 0 { name.clone() } else { Vec::new() })
        };
        let place = match &what.parent {
            Some(place) if by_name && (!of_dir || what.mask & DIRENT != 0) => Some(named(place)),
            // A directory is told of by itself.
            _ if by_name && of_dir => Some(named(&(object, b".".to_vec()))),
            _ => None,
        };
        // Who is told of the directory alone is not told twice of what is in it.
        let about = match &place {
            Some((dir, _)) if flags & REPORT_FID == 0 => *dir,
            _ => object,
        };
        let key = Key { inode: Some(about), parent: place, fs, of_dir, pid };
        // Only events of names say whether they are about a directory, and only to who asked for identities.
        let shown = if fid && of_dir { hit | ONDIR } else { hit };
        self.fan_push(id, shown, key);
    }

    fn fan_push(&mut self, id: u64, mask: u32, key: Key) {
        let fan = &mut self.objects.watches.fanotify;
        let Some(group) = fan.groups.get_mut(id) else { return };
        let object = group.object;
        if let Some((old, _)) = group.by_key.get(&key).and_then(|at| group.queue.get_mut(at)) {
            *old |= mask;
            return;
        }
        let full = group.queue.len() >= MAX_EVENTS || fan.bytes + key.cost() > MAX_BYTES;
        let (mask, key) = match full {
            true => (OVERFLOW, Key { inode: None, parent: None, fs: 0, of_dir: false, pid: 0 }),
            false => (mask, key),
        };
        if full && group.by_key.contains_key(&key) {
            return;
        }
        group.last += 1;
        fan.bytes += key.cost();
        group.by_key.insert(key.clone(), group.last);
        let pinned = key.inode.filter(|_| !group.reports_fid());
        group.queue.insert(group.last, (mask, key));
        // What is to be opened stays until then, whatever becomes of its name.
        if let Some(inode) = pinned {
            self.inode_open_count(inode, 1);
        }
        self.wake(WaitKey::Object(object));
    }

    /// Lets go of what an event held.
    fn fan_release(&mut self, key: &Key, fid: bool) {
        let fan = &mut self.objects.watches.fanotify;
        fan.bytes = fan.bytes.saturating_sub(key.cost());
        if let Some(inode) = key.inode.filter(|_| !fid) {
            self.inode_open_count(inode, -1);
        }
    }

    /// read(2): as many events as there is room for, each with a descriptor of what it is about, or with identities. EINVAL, EAGAIN.
    pub fn fanotify_read(&mut self, tid: Tid, f: &OpenFile, id: u64, iovecs: &[(u64, u64)]) -> SysResult {
        let room = us(iovecs.iter().fold(0u64, |a, (_, n)| a.saturating_add(*n)).min(1 << 16));
        let mut bytes: Vec<u8> = Vec::new();
        let mut fds = Vec::new();
        loop {
            let group = self.objects.watches.fanotify.groups.get(id).ok_or(Errno::EBADF)?;
            let Some((at, (mask, key))) = group.queue.first_key_value() else { break };
            let (at, mask, key) = (*at, *mask, key.clone());
            let len = group.len_of(mask, &key);
            if bytes.len() + len > room {
                if bytes.is_empty() {
                    return Err(Errno::EINVAL);
                }
                break;
            }
            let (fid, flags) = (group.reports_fid(), group.event_flags);
            let records: Vec<(u8, InodeId, Vec<u8>)> =
                group.records(mask, &key).into_iter().map(|(k, i, n)| (k, i, n.to_vec())).collect();
            let fd = match key.inode {
                Some(inode) if !fid => match self.fan_open(tid, inode, flags) {
                    Ok(fd) => fd.cast_signed(),
                    Err(e) if bytes.is_empty() => {
                        self.fan_take(id, at);
                        return Err(e);
                    }
                    Err(_) => break,
                },
                _ => -1,
            };
            if fd >= 0 {
                fds.push(fd.unsigned_abs());
            }
            bytes.extend(low32(u64_of(len)).to_le_bytes());
            // Version and, after a reserved byte, the metadata's length.
            bytes.extend([3, 0, 24, 0]);
            bytes.extend(u64::from(mask).to_le_bytes());
            bytes.extend(fd.to_le_bytes());
            bytes.extend(key.pid.to_le_bytes());
            for (kind, inode, name) in records {
                fan_record(&mut bytes, (kind, inode, &name), key.fs);
            }
            self.fan_take(id, at);
        }
        if bytes.is_empty() {
            if f.flags & O_NONBLOCK != 0 {
                return Err(Errno::EAGAIN);
            }
            let object = self.objects.watches.fanotify.groups.get(id).map_or(0, |q| q.object);
            return Ok(Outcome::Block(Block::on(WaitKey::Object(object))));
        }
        let moved = self.scatter(tid, iovecs, &bytes);
        if moved < bytes.len() {
            for fd in fds {
                let _ = self.fd_close(tid, fd);
            }
            return Err(Errno::EFAULT);
        }
        Ok(Outcome::Return(u64_of(moved)))
    }

    /// Takes an event out of a group's queue.
    fn fan_take(&mut self, id: u64, at: u64) {
        let Some(group) = self.objects.watches.fanotify.groups.get_mut(id) else { return };
        let Some((_, key)) = group.queue.remove(&at) else { return };
        group.by_key.remove(&key);
        let fid = group.reports_fid();
        self.fan_release(&key, fid);
    }

    /// A descriptor of what an event is about; what is done with it makes no events. EMFILE, and as open(2).
    fn fan_open(&mut self, tid: Tid, inode: InodeId, flags: u32) -> Result<u32, Errno> {
        let writes = flags & g::O_ACCMODE != g::O_RDONLY;
        if writes && self.vfs.inode(inode)?.is_dir() {
            return Err(Errno::EISDIR);
        }
        if self.is_live(inode) {
            self.live_open(inode, writes)?;
        } else if writes {
            self.copy_up(inode)?;
        }
        let file = self.open_inode(inode, flags | QUIET)?;
        self.install_fd(tid, file, flags & g::O_CLOEXEC != 0)
    }

    /// What statfs(2) calls a file system.
    pub fn fs_id(&self, inode: InodeId) -> u64 {
        self.vfs.inode(inode).map_or(0, |n| fs_number(n.fs))
    }
}

/// One record of identities: kind, inode and name.
fn fan_record(out: &mut Vec<u8>, (kind, inode, name): (u8, InodeId, &[u8]), fs: u64) {
    let end = out.len() + record_len(kind, name);
    out.extend([kind, 0]);
    out.extend(low16(u64_of(record_len(kind, name))).to_le_bytes());
    out.extend(fs.to_le_bytes());
    // As name_to_handle_at(2) has it: 8 bytes, type 1, the number of the inode.
    out.extend(8u32.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    out.extend(inode.to_le_bytes());
    out.extend(name);
    out.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Limits;
    use crate::platform::fake::FakePlatform;

    fn kernel() -> Kernel {
        let mut k = Kernel::new(std::sync::Arc::new(FakePlatform::new(64 << 20)), Limits::default()).unwrap();
        let files = k.fd_table_new();
        crate::exec::test_task(&mut k, 1, 0, files, 0);
        k.objects.watches.actor = 1;
        k
    }

    fn group(k: &mut Kernel, flags: u32) -> (u64, u64) {
        let file = k.fanotify_open(flags, 0).unwrap();
        let FileKind::Fanotify(id) = k.open_file(file).unwrap().kind else { panic!() };
        (file, id)
    }

    fn event(inode: InodeId, mask: u32) -> Happened {
        Happened { mask, inode: Some(inode), parent: None, opened: true }
    }

    #[test]
    fn events_of_one_object_become_one_and_their_number_is_limited() {
        let mut k = kernel();
        let (file, id) = group(&mut k, REPORT_FID);
        let root = super::super::inode::ROOT;
        let what = k.fan_fs(root, false).unwrap();
        k.fan_mark(id, what, |m| m.mask = OPENED | ONDIR).unwrap();
        k.fan_event(&event(root, g::IN_OPEN | ONDIR));
        k.fan_event(&event(root, g::IN_ACCESS | ONDIR));
        assert_eq!(k.objects.watches.fanotify.groups.get(id).unwrap().queue.len(), 1);
        for n in 0..2 * MAX_EVENTS {
            // Each by another process, so that none are joined.
            k.objects.watches.actor = u32::try_from(n).unwrap();
            let key = Key {
                inode: Some(root),
                parent: None,
                fs: 1,
                of_dir: false,
                pid: 5 + u32::try_from(n).unwrap(),
            };
            k.fan_push(id, g::IN_OPEN, key);
        }
        let g = k.objects.watches.fanotify.groups.get(id).unwrap();
        assert_eq!(g.queue.len(), MAX_EVENTS + 1);
        assert_eq!(g.queue.values().last().unwrap().0, OVERFLOW);
        k.file_unref(file);
        assert!(k.objects.watches.fanotify.is_idle());
        assert_eq!((k.objects.watches.fanotify.bytes, k.objects.watches.fanotify.marked.len()), (0, 0));
    }

    #[test]
    fn an_event_keeps_what_it_is_about_until_it_is_read_or_its_group_goes() {
        let mut k = kernel();
        let (file, id) = group(&mut k, 0);
        let root = super::super::inode::ROOT;
        let before = k.vfs.inode(root).unwrap().opens;
        k.fan_mark(id, Marked::Inode(root), |m| m.mask = OPENED | ONDIR).unwrap();
        assert!(k.objects.watches.has(root));
        k.fan_event(&event(root, g::IN_OPEN | ONDIR));
        assert_eq!(k.vfs.inode(root).unwrap().opens, before + 1);
        k.file_unref(file);
        assert_eq!(k.vfs.inode(root).unwrap().opens, before);
    }

    #[test]
    fn marks_and_groups_are_limited() {
        let mut k = kernel();
        let (_, id) = group(&mut k, 0);
        for n in 0..MAX_MARKS {
            k.fan_mark(id, Marked::Inode(1000 + u64_of(n)), |m| m.mask = 1).unwrap();
        }
        assert_eq!(k.fan_mark(id, Marked::Inode(1), |m| m.mask = 1), Err(Errno::ENOSPC));
        assert_eq!(k.fan_unmark(id, Marked::Inode(1), |m| m.mask = 0), Err(Errno::ENOENT));
        k.fan_unmark(id, Marked::Inode(1000), |m| m.mask = 0).unwrap();
        k.fan_mark(id, Marked::Inode(1), |m| m.mask = 1).unwrap();
        k.fan_flush(id, |_| true);
        assert!(k.objects.watches.fanotify.is_idle());
        while k.objects.watches.fanotify.groups.len() < MAX_GROUPS {
            group(&mut k, 0);
        }
        assert_eq!(k.fanotify_open(0, 0), Err(Errno::EMFILE));
    }
}
