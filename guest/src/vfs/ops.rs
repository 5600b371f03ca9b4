//! Changing the tree: making, linking, renaming and removing names; listing directories.

use super::inode::{Dir, FsKind, Kind, ROOT, S_IFDIR, S_IFLNK, Target, dtype};
use super::path::{Last, MAY_EXEC, MAY_READ, MAY_WRITE, Walk};
use super::{InodeId, Stat, lower};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::u64_of;
use crate::task::creds::cap;
use crate::task::{Creds, Tid};
use linux_raw_sys::general as g;
use std::collections::BTreeMap;

/// One line of a directory listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirLine {
    /// Inode number.
    pub ino: u64,
    /// DT_ type.
    pub dtype: u8,
    /// Name.
    pub name: Vec<u8>,
    /// Where to go on after it.
    pub next: u64,
}

impl Kernel {
    /// A task's umask.
    pub fn umask_of(&self, tid: Tid) -> u32 {
        self.task(tid).and_then(|t| self.fs_contexts.get(t.fs)).map_or(0o022, |f| f.umask)
    }

    /// Makes a new inode at the end of a walk that found none, owned by the task. EEXIST, EACCES, ENOENT, ENOSPC.
    pub fn create(
        &mut self,
        tid: Tid,
        walk: &Walk,
        kind: Kind,
        mode: u32,
        rdev: u64,
    ) -> Result<InodeId, Errno> {
        if walk.inode.is_some() || walk.file.is_some() || walk.last != Last::Name {
            return Err(Errno::EEXIST);
        }
        let creds = self.creds_of(tid);
        let fs = self.may_change(&creds, walk.parent)?;
        let stat = self.new_stat(&creds, walk.parent, &kind, mode)?;
        let is_dir = stat.mode & super::inode::S_IFMT == S_IFDIR;
        if self.is_live(walk.parent) {
            let id = self.live_create(&creds, walk.parent, &walk.name, &kind, &stat)?;
            self.notify_name(walk.parent, &walk.name, is_dir, g::IN_CREATE);
            return Ok(id);
        }
        let id = self.bind_new(walk.parent, &walk.name, kind, Stat { rdev, ..stat }, fs)?;
        self.touch_dir(walk.parent, i64::from(is_dir));
        self.notify_name(walk.parent, &walk.name, is_dir, g::IN_CREATE);
        Ok(id)
    }

    /// An inode without a name, for O_TMPFILE.
    pub(super) fn create_tmpfile(
        &mut self,
        tid: Tid,
        dir: InodeId,
        mode: u32,
        excl: bool,
    ) -> Result<InodeId, Errno> {
        let creds = self.creds_of(tid);
        let fs = self.may_change(&creds, dir)?;
        if self.is_live(dir) {
            return Err(Errno::EOPNOTSUPP);
        }
        let kind = Kind::File(BTreeMap::new());
        let mode = super::inode::S_IFREG | (mode & 0o7777 & !self.umask_of(tid));
        let stat = self.new_stat(&creds, dir, &kind, mode)?;
        let id = self.vfs.add(
            kind,
            Stat { nlink: 0, ..stat },
            dir,
            if excl { b"#tmpfile-excl" } else { b"#tmpfile" },
            fs,
        )?;
        Ok(id)
    }

    fn new_stat(&self, creds: &Creds, parent: InodeId, kind: &Kind, mode: u32) -> Result<Stat, Errno> {
        let above = self.vfs.inode(parent)?.stat;
        let mut stat = self.fresh_stat(mode);
        stat.uid = creds.fsuid;
        stat.gid = creds.fsgid;
        if above.mode & 0o2000 != 0 {
            stat.gid = above.gid;
            if matches!(kind, Kind::Dir(_)) {
                stat.mode |= 0o2000;
            } else if stat.mode & 0o2010 == 0o2010 && !creds.in_group(above.gid) && !creds.can(cap::FSETID) {
                stat.mode &= !0o2000;
            }
        }
        match kind {
            Kind::Dir(_) => {
                stat.nlink = 2;
                stat.size = 4096;
            }
            Kind::Symlink(target) => stat.size = u64_of(target.len()),
            _ => {}
        }
        Ok(stat)
    }

    /// Checks that names in a directory may change. ENOENT for a removed directory; EACCES, EPERM.
    fn may_change(&self, creds: &Creds, dir: InodeId) -> Result<FsKind, Errno> {
        let node = self.vfs.inode(dir)?;
        match (&node.kind, node.fs) {
            (Kind::Dir(_), fs) => {
                if node.stat.nlink == 0 {
                    return Err(Errno::ENOENT);
                }
                self.permission(creds, dir, MAY_WRITE | MAY_EXEC)?;
                Ok(fs)
            }
            (Kind::Synth(_), FsKind::Proc) => Err(Errno::ENOENT),
            (Kind::Synth(_), _) => Err(Errno::EPERM),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// The sticky bit: only owners remove names from such a directory. EPERM; EBUSY for mount points.
    fn may_remove(&self, creds: &Creds, dir: InodeId, victim: InodeId) -> Result<(), Errno> {
        let (d, v) = (self.vfs.inode(dir)?, self.vfs.inode(victim)?);
        let owner = creds.owns(d.stat.uid) || creds.fsuid == v.stat.uid;
        if d.stat.mode & 0o1000 != 0 && !owner {
            return Err(Errno::EPERM);
        }
        if d.fs != v.fs || self.vfs.mounts.covers(victim) {
            return Err(Errno::EBUSY);
        }
        Ok(())
    }

    /// A directory's names changed, and it gained or lost subdirectories.
    fn touch_dir(&mut self, dir: InodeId, subdirs: i64) {
        let now = self.now_pair();
        if let Ok(node) = self.vfs.inode_mut(dir) {
            node.stat.mtime = now;
            node.stat.ctime = now;
            // Some host file systems give every directory one link; zero would mean removed.
            node.stat.nlink = node.stat.nlink.saturating_add_signed(subdirs).max(1);
        }
    }

    /// Frees a removed inode unless something still refers to it.
    pub(crate) fn reap_inode(&mut self, id: InodeId) {
        self.vfs.orphans.insert(id);
        let used: Vec<InodeId> = self.fs_contexts.iter().flat_map(|(_, f)| [f.root, f.cwd]).collect();
        let gone: Vec<InodeId> = self
            .vfs
            .orphans
            .iter()
            .copied()
            .filter(|id| {
                !used.contains(id) && self.vfs.inode(*id).is_ok_and(|n| n.opens == 0 && n.stat.nlink == 0)
            })
            .collect();
        for id in gone {
            self.notify_gone(id);
            self.fifo_forget(id);
            let charge = self.charge_of(id);
            let pages = self.vfs.drop_inode(id);
            self.frame_free_pages(pages, charge);
        }
    }

    /// One name less for an inode.
    fn unlink_inode(&mut self, id: InodeId) -> Result<(), Errno> {
        let now = self.now_pair();
        let node = self.vfs.inode_mut(id)?;
        node.stat.ctime = now;
        // Lower hard links cannot all be found, so removing one name of a lower file removes the inode that stood for it.
        let lower = matches!(node.kind, Kind::Host { .. });
        node.stat.nlink = if node.is_dir() || lower { 0 } else { node.stat.nlink.saturating_sub(1) };
        if node.stat.nlink > 0 {
            self.vfs.upper_count = self.vfs.upper_count.saturating_sub(1);
        } else if node.opens == 0 {
            self.reap_inode(id);
        }
        Ok(())
    }

    /// unlink(2) at the end of a walk.
    pub fn unlink(&mut self, tid: Tid, walk: &Walk) -> Result<(), Errno> {
        if walk.last != Last::Name {
            return Err(Errno::EISDIR);
        }
        let id = walk.inode.ok_or(Errno::ENOENT)?;
        let is_dir = self.vfs.inode(id)?.is_dir();
        if walk.dir && !is_dir {
            return Err(Errno::ENOTDIR);
        }
        let creds = self.creds_of(tid);
        self.changeable(&creds, walk.parent)?;
        self.may_remove(&creds, walk.parent, id)?;
        if is_dir {
            return Err(Errno::EISDIR);
        }
        self.not_bound_over(walk)?;
        if self.is_live(walk.parent) {
            self.live_unlink(walk.parent, &walk.name, false)?;
        }
        self.vfs.dir_mut(walk.parent)?.remove(&walk.name);
        self.touch_dir(walk.parent, 0);
        self.notify_inode(id, g::IN_ATTRIB);
        self.unlink_inode(id)?;
        self.notify_name(walk.parent, &walk.name, false, g::IN_DELETE);
        Ok(())
    }

    /// As `may_change` for a name that exists: proc refuses with EPERM.
    fn changeable(&self, creds: &Creds, dir: InodeId) -> Result<FsKind, Errno> {
        match &self.vfs.inode(dir)?.kind {
            Kind::Synth(_) => Err(Errno::EPERM),
            _ => self.may_change(creds, dir),
        }
    }

    /// rmdir(2) at the end of a walk.
    pub fn remove_dir(&mut self, tid: Tid, walk: &Walk) -> Result<(), Errno> {
        match walk.last {
            Last::Dot => return Err(Errno::EINVAL),
            Last::DotDot => return Err(Errno::ENOTEMPTY),
            Last::Root => return Err(Errno::EBUSY),
            Last::Name => {}
        }
        let id = walk.inode.ok_or(Errno::ENOENT)?;
        let creds = self.creds_of(tid);
        self.changeable(&creds, walk.parent)?;
        self.may_remove(&creds, walk.parent, id)?;
        if !self.vfs.inode(id)?.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        self.not_bound_over(walk)?;
        if !self.is_empty_dir(id)? {
            return Err(Errno::ENOTEMPTY);
        }
        if self.is_live(walk.parent) {
            self.live_unlink(walk.parent, &walk.name, true)?;
        }
        self.vfs.dir_mut(walk.parent)?.remove(&walk.name);
        self.touch_dir(walk.parent, -1);
        self.unlink_inode(id)?;
        self.notify_name(walk.parent, &walk.name, true, g::IN_DELETE);
        Ok(())
    }

    /// A name that something is mounted on stays. EBUSY.
    fn not_bound_over(&self, walk: &Walk) -> Result<(), Errno> {
        let covered =
            self.vfs.dir(walk.parent)?.inode_of(&walk.name).is_some_and(|i| self.vfs.mounts.covers(i));
        if covered { Err(Errno::EBUSY) } else { Ok(()) }
    }

    fn is_empty_dir(&mut self, id: InodeId) -> Result<bool, Errno> {
        self.list_lower(id)?;
        Ok(self.vfs.dir(id)?.order.is_empty())
    }

    /// link(2): one more name for an inode.
    pub fn link(&mut self, tid: Tid, inode: InodeId, walk: &Walk) -> Result<(), Errno> {
        if walk.inode.is_some() || walk.last != Last::Name {
            return Err(Errno::EEXIST);
        }
        if walk.dir {
            return Err(Errno::ENOENT);
        }
        let creds = self.creds_of(tid);
        let node = self.vfs.inode(inode)?;
        if node.fs != self.vfs.inode(walk.parent)?.fs {
            return Err(Errno::EXDEV);
        }
        if node.is_dir() {
            return Err(Errno::EPERM);
        }
        // fs.protected_hardlinks (proc(5)): who does not own a file links it only where it could as well be a copy.
        if !creds.owns(node.stat.uid) {
            let mode = node.stat.mode;
            let plain =
                node.file_type() == super::inode::S_IFREG && mode & 0o4000 == 0 && mode & 0o2010 != 0o2010;
            if !plain || self.permission(&creds, inode, MAY_READ | MAY_WRITE).is_err() {
                return Err(Errno::EPERM);
            }
        }
        self.may_change(&creds, walk.parent)?;
        if self.vfs.upper_count >= super::inode::MAX_UPPER_INODES {
            return Err(Errno::ENOSPC);
        }
        if self.is_live(inode) {
            self.live_link(inode, walk.parent, &walk.name)?;
            self.notify_name(walk.parent, &walk.name, false, g::IN_CREATE);
            return Ok(());
        }
        self.copy_up(inode)?;
        let now = self.now_pair();
        let node = self.vfs.inode_mut(inode)?;
        let more = node.stat.nlink > 0;
        node.stat.nlink += 1;
        node.stat.ctime = now;
        node.parent = walk.parent;
        node.name.clone_from(&walk.name);
        // Each further name counts like an inode: it takes as much of the host's memory.
        self.vfs.upper_count += u64::from(more);
        self.vfs.dir_mut(walk.parent)?.set(&walk.name, Target::Inode(inode));
        self.touch_dir(walk.parent, 0);
        self.notify_inode(inode, g::IN_ATTRIB);
        self.notify_name(walk.parent, &walk.name, false, g::IN_CREATE);
        Ok(())
    }

    /// rename(2) between the ends of two walks; `keep` is RENAME_NOREPLACE, `swap` RENAME_EXCHANGE.
    pub fn rename(&mut self, tid: Tid, from: &Walk, to: &Walk, keep: bool, swap: bool) -> Result<(), Errno> {
        if self.vfs.inode(from.parent)?.fs != self.vfs.inode(to.parent)?.fs {
            return Err(Errno::EXDEV);
        }
        if from.last != Last::Name || to.last != Last::Name {
            return Err(if keep && to.last != Last::Name { Errno::EEXIST } else { Errno::EBUSY });
        }
        let source = from.inode.ok_or(Errno::ENOENT)?;
        if keep && to.inode.is_some() {
            return Err(Errno::EEXIST);
        }
        if swap && to.inode.is_none() {
            return Err(Errno::ENOENT);
        }
        let source_dir = self.vfs.inode(source)?.is_dir();
        let target_dir = match to.inode {
            Some(id) => self.vfs.inode(id)?.is_dir(),
            None => source_dir,
        };
        if (from.dir && !source_dir) || (to.dir && !source_dir && !swap) || (swap && to.dir && !target_dir) {
            return Err(Errno::ENOTDIR);
        }
        // A directory cannot move into itself, and an ancestor of the source cannot be replaced by it.
        if self.is_above(source, to.parent) {
            return Err(Errno::EINVAL);
        }
        if to.inode.is_some_and(|t| self.is_above(t, from.parent)) {
            return Err(if swap { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
        if to.inode == Some(source) {
            return Ok(());
        }
        let creds = self.creds_of(tid);
        self.changeable(&creds, from.parent)?;
        self.may_remove(&creds, from.parent, source)?;
        self.changeable(&creds, to.parent)?;
        if let Some(target) = to.inode {
            self.may_remove(&creds, to.parent, target)?;
            if !swap {
                match (source_dir, target_dir) {
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    (true, true) if !self.is_empty_dir(target)? => return Err(Errno::ENOTEMPTY),
                    _ => {}
                }
            }
        }
        for walk in [from, to] {
            self.not_bound_over(walk)?;
        }
        if self.is_live(from.parent) {
            self.live_rename((from.parent, &from.name), (to.parent, &to.name), keep, swap)?;
        }
        let subdir = |yes: bool| i64::from(yes);
        if let (Some(target), true) = (to.inode, swap) {
            self.vfs.dir_mut(from.parent)?.set(&from.name, Target::Inode(target));
            let node = self.vfs.inode_mut(target)?;
            node.parent = from.parent;
            node.name.clone_from(&from.name);
            self.touch_dir(from.parent, subdir(target_dir) - subdir(source_dir));
            self.touch_dir(to.parent, subdir(source_dir) - subdir(target_dir));
        } else {
            self.vfs.dir_mut(from.parent)?.remove(&from.name);
            self.touch_dir(from.parent, -subdir(source_dir));
            self.touch_dir(to.parent, if to.inode.is_some() { 0 } else { subdir(source_dir) });
        }
        let now = self.now_pair();
        self.vfs.dir_mut(to.parent)?.set(&to.name, Target::Inode(source));
        let node = self.vfs.inode_mut(source)?;
        node.parent = to.parent;
        node.name.clone_from(&to.name);
        node.stat.ctime = now;
        self.notify_move((from.parent, &from.name), (to.parent, &to.name), source);
        match to.inode {
            Some(target) if swap => {
                self.notify_inode(source, g::IN_MOVE_SELF);
                self.notify_move((to.parent, &to.name), (from.parent, &from.name), target);
                self.notify_inode(target, g::IN_MOVE_SELF);
                Ok(())
            }
            Some(target) => {
                self.notify_inode(target, g::IN_ATTRIB);
                self.notify_inode(source, g::IN_MOVE_SELF);
                self.unlink_inode(target)
            }
            None => {
                self.notify_inode(source, g::IN_MOVE_SELF);
                Ok(())
            }
        }
    }

    /// Whether directory `upper` is `below` or one of its ancestors.
    fn is_above(&self, upper: InodeId, below: InodeId) -> bool {
        let mut at = below;
        loop {
            if at == upper {
                return true;
            }
            if at == ROOT {
                return false;
            }
            match self.vfs.inode(at) {
                Ok(node) => at = node.parent,
                Err(_) => return false,
            }
        }
    }

    /// Makes all lower names of a directory known.
    pub(super) fn list_lower(&mut self, id: InodeId) -> Result<(), Errno> {
        if self.is_live(id) {
            return self.live_list(id);
        }
        let dir = self.vfs.dir(id)?;
        let (Some(path), Some(_), false) = (dir.lower.clone(), &self.vfs.root_fd, dir.listed) else {
            return Ok(());
        };
        let lines = self.vfs.below_root(|root, shown| lower::list(root, &path, shown))?;
        let dir = self.vfs.dir_mut(id)?;
        for (name, ino, kind) in lines {
            if !dir.names.contains_key(&name) {
                dir.set_lower(&name, Target::Lower(ino, kind));
            }
        }
        dir.listed = true;
        Ok(())
    }

    /// Up to `max` lines of a directory from a position: 0 is the beginning, others come from [`DirLine::next`]. Positions stay valid while
    /// names come and go. ENOTDIR; ENOENT for a removed directory.
    pub fn inode_readdir(&mut self, id: InodeId, cookie: u64, max: usize) -> Result<Vec<DirLine>, Errno> {
        let node = self.vfs.inode(id)?;
        if !node.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        if node.stat.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        let above = self.vfs.inode(node.parent).map_or(node.stat.ino, |p| p.stat.ino);
        let mut out = Vec::new();
        for (at, name, ino) in [(1, &b"."[..], node.stat.ino), (2, b"..", above)] {
            if cookie < at && out.len() < max {
                out.push(DirLine { ino, dtype: dtype(S_IFDIR), name: name.to_vec(), next: at });
            }
        }
        if let Kind::Synth(path) = &node.kind {
            let path = path.clone();
            let rest = self.synth_list(&path);
            let from = cookie.max(2);
            let room = max - out.len();
            out.extend(rest.into_iter().filter(|l| l.next > from).take(room));
            return Ok(out);
        }
        // A listing of a directory of the host is made when it begins, not at each piece of it.
        if cookie <= 2 || !self.is_live(id) {
            self.list_lower(id)?;
        }
        let dir = self.vfs.dir(id)?;
        let after = cookie.max(2).saturating_add(1);
        for (at, name) in dir.order.range(after..) {
            if out.len() >= max {
                break;
            }
            let (ino, kind) = match dir.names.get(name).map(|e| e.target) {
                Some(Target::Inode(id)) => {
                    self.vfs.inode(id).map_or((0, 0), |n| (n.stat.ino, dtype(n.stat.mode)))
                }
                Some(Target::Lower(ino, kind)) => (ino, kind),
                _ => continue,
            };
            out.push(DirLine { ino, dtype: kind, name: name.clone(), next: *at });
        }
        Ok(out)
    }

    /// mkdir(2) at the end of a walk.
    pub fn make_dir(&mut self, tid: Tid, walk: &Walk, mode: u32) -> Result<InodeId, Errno> {
        let mode = S_IFDIR | (mode & 0o1777 & !self.umask_of(tid));
        self.create(tid, walk, Kind::Dir(Dir::over(None)), mode, 0)
    }

    /// symlink(2) at the end of a walk.
    pub fn make_symlink(&mut self, tid: Tid, walk: &Walk, target: Vec<u8>) -> Result<InodeId, Errno> {
        if walk.dir && walk.inode.is_none() {
            return Err(Errno::ENOENT);
        }
        let len = target.len();
        self.vfs.charge(len)?;
        let made = self.create(tid, walk, Kind::Symlink(target), S_IFLNK | 0o777, 0);
        if made.is_err() {
            self.vfs.uncharge(len);
        }
        made
    }
}
