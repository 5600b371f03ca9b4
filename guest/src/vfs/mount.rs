//! What is mounted on directories of the tree: in-memory file systems, directories of the host, and directories of the tree itself.
//!
//! A mount covers an inode: a walk that finds it goes on at the mount's root, whose parent and name are those of the covered one, so
//! that `..` and paths come out right. A bound directory of the tree is the directory itself: `..` leads to where it really is.

use super::inode::{Dir, FsKind, Kind, ROOT, S_IFDIR};
use super::{InodeId, Stat};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::platform::PAGE_SIZE;
use crate::task::Tid;
use linux_raw_sys::general as g;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Mounts that may exist at once (/proc/sys/fs/mount-max is larger; ENOSPC).
const MAX_MOUNTS: usize = 1024;
/// The first mount's number: those below are the root, proc, sys, dev and shm.
const FIRST: u32 = 25;

/// MS_RDONLY.
pub const RDONLY: u32 = 1;
/// MS_NOSUID.
pub const NOSUID: u32 = 2;

/// What is mounted.
#[derive(Debug, Serialize, Deserialize)]
pub enum What {
    /// A file system in memory.
    Tmpfs {
        /// Pages that its files may hold.
        max_pages: u64,
        /// Inodes that it may have.
        max_inodes: u64,
        /// Pages that they hold.
        pages: u64,
        /// Inodes that there are.
        inodes: u64,
    },
    /// A directory of the host, whose changes are seen and which is written to.
    Host {
        /// The directory.
        #[serde(skip)]
        dir: Option<Arc<OwnedFd>>,
    },
    /// A directory or file of the tree.
    Bind,
}

/// One mount.
#[derive(Debug, Serialize, Deserialize)]
pub struct Mount {
    /// The covered inode.
    pub at: InodeId,
    /// What is found there instead.
    pub root: InodeId,
    /// What is mounted.
    pub what: What,
    /// Source as mount(2) got it.
    pub source: Vec<u8>,
    /// Type as proc shows it.
    pub fstype: String,
    /// MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME.
    pub flags: u32,
    /// Options besides the flags.
    pub options: String,
    /// It was unmounted lazily (MNT_DETACH): nobody comes to it any more, and it goes with the last that uses it.
    pub detached: bool,
}

/// All mounts.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Mounts {
    /// By number.
    pub all: BTreeMap<u32, Mount>,
    /// The mounts on an inode, the last on top.
    covered: BTreeMap<InodeId, Vec<u32>>,
    next: u32,
}

impl Mounts {
    /// Where a walk that comes to `inode` goes on.
    pub fn top(&self, inode: InodeId) -> InodeId {
        let mut at = inode;
        // Each step is another mount.
        for _ in 0..MAX_MOUNTS {
            match self.covered.get(&at).and_then(|m| m.last()).and_then(|m| self.all.get(m)) {
                Some(mount) if mount.root != at => at = mount.root,
                _ => break,
            }
        }
        at
    }

    /// Whether something is mounted on an inode.
    pub fn covers(&self, inode: InodeId) -> bool {
        self.covered.contains_key(&inode)
    }

    /// The mount of a file system.
    pub fn of(&self, fs: FsKind) -> Option<&Mount> {
        match fs {
            FsKind::Mount(n) => self.all.get(&n),
            _ => None,
        }
    }

    /// Another inode of a file system in memory. ENOSPC.
    pub(super) fn count_inode(&mut self, fs: FsKind) -> Result<(), Errno> {
        let FsKind::Mount(n) = fs else { return Ok(()) };
        if let Some(Mount { what: What::Tmpfs { inodes, max_inodes, .. }, .. }) = self.all.get_mut(&n) {
            if *inodes >= *max_inodes {
                return Err(Errno::ENOSPC);
            }
            *inodes += 1;
        }
        Ok(())
    }

    /// One inode less.
    pub(super) fn uncount_inode(&mut self, fs: FsKind) {
        let FsKind::Mount(n) = fs else { return };
        if let Some(Mount { what: What::Tmpfs { inodes, .. }, .. }) = self.all.get_mut(&n) {
            *inodes = inodes.saturating_sub(1);
        }
    }

    /// Pages that files of a file system may still take.
    pub(super) fn pages_left(&self, n: u32) -> u64 {
        match self.all.get(&n).map(|m| &m.what) {
            Some(What::Tmpfs { max_pages, pages, .. }) => max_pages.saturating_sub(*pages),
            _ => u64::MAX,
        }
    }

    /// Files of a file system hold so many pages more.
    pub(super) fn add_pages(&mut self, n: u32, more: u64) {
        if let Some(Mount { what: What::Tmpfs { pages, .. }, .. }) = self.all.get_mut(&n) {
            *pages = pages.saturating_add(more);
        }
    }

    /// Files of a file system hold so many pages less.
    pub(super) fn sub_pages(&mut self, n: u32, less: u64) {
        if let Some(Mount { what: What::Tmpfs { pages, .. }, .. }) = self.all.get_mut(&n) {
            *pages = pages.saturating_sub(less);
        }
    }
}

/// What a new in-memory file system is to be like (tmpfs(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TmpfsOptions {
    /// Bytes that its files may hold; `None` is half of the memory limit.
    pub size: Option<u64>,
    /// Inodes that it may have; `None` for no limit of its own.
    pub inodes: Option<u64>,
    /// Mode, owner and group of its root.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Default for TmpfsOptions {
    fn default() -> Self {
        TmpfsOptions { size: None, inodes: None, mode: 0o1777, uid: 0, gid: 0 }
    }
}

impl TmpfsOptions {
    /// Parses mount(8)'s text. `memory` is what percentages are of, bytes. EINVAL.
    pub fn parse(text: &str, memory: u64) -> Result<Self, Errno> {
        let mut options = TmpfsOptions::default();
        for item in text.split(',').filter(|i| !i.is_empty()) {
            let (key, value) = item.split_once('=').unwrap_or((item, ""));
            let number = || parse_size(value, memory).ok_or(Errno::EINVAL);
            let id = || value.parse::<u32>().map_err(|_| Errno::EINVAL);
            match key {
                // 0 is no limit of its own.
                "size" => options.size = Some(number()?).filter(|n| *n != 0),
                "nr_blocks" => options.size = Some(number()?.saturating_mul(PAGE_SIZE)).filter(|n| *n != 0),
                "nr_inodes" => options.inodes = Some(number()?).filter(|n| *n != 0),
                "mode" => {
                    options.mode = u32::from_str_radix(value, 8).map_err(|_| Errno::EINVAL)? & 0o7777;
                }
                "uid" => options.uid = id()?,
                "gid" => options.gid = id()?,
                "huge" | "mpol" | "inode32" | "inode64" | "noswap" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(options)
    }
}

fn parse_size(text: &str, memory: u64) -> Option<u64> {
    if let Some(percent) = text.strip_suffix('%') {
        return memory.checked_mul(percent.parse().ok()?).map(|n| n / 100);
    }
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(['k', 'm', 'g', 't']);
    let scale = match lower.get(digits.len()..)? {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(scale)
}

impl Kernel {
    /// Covers an inode. EBUSY for the root of all, ENOTDIR when one is a directory and the other not, ENOSPC.
    fn mount_on(&mut self, n: u32, mount: Mount) -> Result<(), Errno> {
        let at = mount.at;
        self.vfs.mounts.covered.entry(at).or_default().push(n);
        self.vfs.mounts.all.insert(n, mount);
        Ok(())
    }

    fn next_mount(&mut self, at: InodeId) -> Result<u32, Errno> {
        if at == ROOT {
            return Err(Errno::EBUSY);
        }
        if self.vfs.mounts.all.len() >= MAX_MOUNTS {
            return Err(Errno::ENOSPC);
        }
        self.vfs.mounts.next = self.vfs.mounts.next.max(FIRST - 1).checked_add(1).ok_or(Errno::ENOSPC)?;
        Ok(self.vfs.mounts.next)
    }

    /// Mounts a new file system in memory on a directory. ENOTDIR, EBUSY, ENOSPC.
    pub fn mount_tmpfs(
        &mut self,
        at: InodeId,
        source: &[u8],
        flags: u32,
        options: &TmpfsOptions,
    ) -> Result<(), Errno> {
        let covered = self.vfs.inode(at)?;
        if !covered.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        let (parent, name) = (covered.parent, covered.name.clone());
        let n = self.next_mount(at)?;
        let size = options.size.unwrap_or(self.limits.memory / 2);
        let what = What::Tmpfs {
            max_pages: size.div_ceil(PAGE_SIZE),
            max_inodes: options.inodes.unwrap_or(u64::MAX),
            pages: 0,
            inodes: 0,
        };
        let stat = self.fresh_stat(S_IFDIR | options.mode);
        let stat = Stat { nlink: 2, uid: options.uid, gid: options.gid, ..stat };
        let mut text = String::new();
        if options.size.is_some() {
            text.push_str(&format!(",size={}k", size / 1024));
        }
        if let Some(inodes) = options.inodes {
            text.push_str(&format!(",nr_inodes={inodes}"));
        }
        if options.mode != 0o1777 {
            text.push_str(&format!(",mode={:o}", options.mode));
        }
        // The mount is there before its root, which is the first inode that it counts.
        let mount = Mount {
            at,
            root: at,
            what,
            source: source.to_vec(),
            fstype: "tmpfs".into(),
            flags,
            options: text,
            detached: false,
        };
        self.vfs.mounts.all.insert(n, mount);
        match self.vfs.add(Kind::Dir(Dir::over(None)), stat, parent, &name, FsKind::Mount(n)) {
            Ok(root) => {
                if let Some(m) = self.vfs.mounts.all.get_mut(&n) {
                    m.root = root;
                }
                self.vfs.mounts.covered.entry(at).or_default().push(n);
                Ok(())
            }
            Err(e) => {
                self.vfs.mounts.all.remove(&n);
                Err(e)
            }
        }
    }

    /// Mounts a directory of the host. Names below it are looked up on the host each time, and changes go there; no link and no `..`
    /// leads out of it. ENOTDIR, EBUSY, ENOSPC and the host's errors.
    pub fn mount_host(&mut self, at: InodeId, source: &[u8], flags: u32, dir: OwnedFd) -> Result<(), Errno> {
        use std::os::fd::AsFd;
        let stat = super::lower::stat_fd(dir.as_fd())?;
        let covered = self.vfs.inode(at)?;
        if !covered.is_dir() || stat.mode & super::inode::S_IFMT != S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        let (parent, name) = (covered.parent, covered.name.clone());
        let n = self.next_mount(at)?;
        let stat = Stat { dev: super::inode::mount_dev(n), ..stat };
        let root = self.vfs.add(Kind::Dir(Dir::over(None)), stat, parent, &name, FsKind::Mount(n))?;
        let what = What::Host { dir: Some(Arc::new(dir)) };
        let (source, fstype, options) = (source.to_vec(), "coppice".to_owned(), String::new());
        self.mount_on(n, Mount { at, root, what, source, fstype, flags, options, detached: false })
    }

    /// Shows a directory or file of the tree in another place. ENOTDIR, EBUSY, ENOSPC.
    pub fn mount_bind(
        &mut self,
        at: InodeId,
        source: &[u8],
        root: InodeId,
        fstype: &str,
    ) -> Result<(), Errno> {
        if self.vfs.inode(at)?.is_dir() != self.vfs.inode(root)?.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        let n = self.next_mount(at)?;
        let (source, options) = (source.to_vec(), String::new());
        self.mount_on(
            n,
            Mount {
                at,
                root,
                what: What::Bind,
                source,
                fstype: fstype.into(),
                flags: 0,
                options,
                detached: false,
            },
        )
    }

    /// The number of the mount whose root a path led to, if it is one that was made.
    pub fn mount_at(&self, root: InodeId) -> Option<u32> {
        self.vfs.mounts.all.iter().rev().find(|(_, m)| m.root == root).map(|(n, _)| *n)
    }

    /// Takes a mount away. EBUSY while something of it is in use, unless it is `lazy`.
    pub fn unmount(&mut self, n: u32, lazy: bool) -> Result<(), Errno> {
        let mount = self.vfs.mounts.all.get(&n).ok_or(Errno::EINVAL)?;
        let (at, fs, bind) = (mount.at, FsKind::Mount(n), matches!(mount.what, What::Bind));
        let mine: Vec<InodeId> = if bind {
            Vec::new()
        } else {
            self.vfs.inodes.iter().filter(|(_, i)| i.fs == fs).map(|(id, _)| *id).collect()
        };
        let host = matches!(mount.what, What::Host { .. });
        let used: BTreeSet<InodeId> = self.fs_contexts.iter().flat_map(|(_, f)| [f.root, f.cwd]).collect();
        let busy = |id: &InodeId| {
            used.contains(id) || self.vfs.mounts.covers(*id) || self.vfs.inode(*id).is_ok_and(|i| i.opens > 0)
        };
        let in_use = mine.iter().any(busy);
        if !lazy && in_use {
            return Err(Errno::EBUSY);
        }
        if let Some(stack) = self.vfs.mounts.covered.get_mut(&at) {
            stack.retain(|m| *m != n);
            if stack.is_empty() {
                self.vfs.mounts.covered.remove(&at);
            }
        }
        // What is open of a directory of the host goes on there, and so does who works in it.
        if host && in_use {
            if let Some(mount) = self.vfs.mounts.all.get_mut(&n) {
                mount.detached = true;
            }
            return Ok(());
        }
        for id in &mine {
            if self.objects.watches.has(*id) {
                self.notify_inode(*id, g::IN_UNMOUNT);
                self.notify_ignored(*id);
            }
            // What is still open lives until it is closed.
            if let Ok(node) = self.vfs.inode_mut(*id) {
                node.stat.nlink = 0;
                self.vfs.orphans.insert(*id);
            }
        }
        if let Some(first) = mine.first() {
            self.reap_inode(*first);
        }
        self.vfs.mounts.all.remove(&n);
        Ok(())
    }

    /// Something of a file system is not open any more: a mount of it that was detached goes when it was the last.
    pub(super) fn unmount_detached(&mut self, fs: FsKind) {
        if let FsKind::Mount(n) = fs
            && self.vfs.mounts.all.get(&n).is_some_and(|m| m.detached)
        {
            // Still in use, or gone.
            let _ = self.unmount(n, false);
        }
    }

    /// Changes what a mount allows, and (`options`) how large a file system in memory may be. EINVAL, EBUSY.
    pub fn remount(&mut self, n: u32, flags: u32, options: Option<&TmpfsOptions>) -> Result<(), Errno> {
        let writers = flags & RDONLY != 0
            && self.files.iter().any(|(_, f)| {
                let fs = f.kind.inode().and_then(|i| self.vfs.inode(i).ok()).map(|i| i.fs);
                f.flags & 3 != 0 && fs == Some(FsKind::Mount(n))
            });
        let mount = self.vfs.mounts.all.get_mut(&n).ok_or(Errno::EINVAL)?;
        match &mut mount.what {
            // What is bound belongs to another file system, which may be written to elsewhere.
            What::Bind if flags & RDONLY != 0 => return Err(Errno::EPERM),
            What::Host { .. } if mount.flags & RDONLY > flags & RDONLY => return Err(Errno::EPERM),
            What::Host { .. } if writers => return Err(Errno::EBUSY),
            What::Tmpfs { max_pages, max_inodes, pages, inodes } => {
                if writers {
                    return Err(Errno::EBUSY);
                }
                if let Some(size) = options.and_then(|o| o.size) {
                    if size / PAGE_SIZE < *pages {
                        return Err(Errno::EINVAL);
                    }
                    *max_pages = size.div_ceil(PAGE_SIZE);
                    mount.options = format!(",size={}k", size / 1024);
                }
                if let Some(n) = options.and_then(|o| o.inodes) {
                    if n < *inodes {
                        return Err(Errno::EINVAL);
                    }
                    *max_inodes = n;
                }
            }
            _ => {}
        }
        mount.flags = flags;
        Ok(())
    }

    /// Whether an inode is the root of what a sandbox is born with.
    pub fn is_fixed_mount(&self, inode: InodeId) -> bool {
        let Ok(node) = self.vfs.inode(inode) else { return false };
        inode == ROOT || self.vfs.inode(node.parent).is_ok_and(|p| p.fs != node.fs)
    }

    /// Whether set-user-ID bits mean nothing on a file system.
    pub fn is_nosuid(&self, fs: FsKind) -> bool {
        match fs {
            FsKind::Root => false,
            FsKind::Dev | FsKind::Shm | FsKind::Proc | FsKind::Sys => true,
            FsKind::Mount(_) => self.vfs.mounts.of(fs).is_some_and(|m| m.flags & NOSUID != 0),
        }
    }

    /// Whether the file system of an inode may be changed. EROFS.
    pub fn want_write(&self, inode: InodeId) -> Result<(), Errno> {
        let fs = self.vfs.inode(inode)?.fs;
        let barred = self.vfs.mounts.of(fs).is_some_and(|m| m.flags & RDONLY != 0);
        if barred { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// The inode of an absolute path that something of the operator's is to be mounted on; missing directories are made. ENOTDIR.
    pub fn mount_point(&mut self, path: &[u8]) -> Result<InodeId, Errno> {
        let tid: Tid = 0;
        let mut at = Vec::new();
        for name in path.split(|b| *b == b'/').filter(|n| !n.is_empty()) {
            at.push(b'/');
            at.extend_from_slice(name);
            let walk = self.resolve(tid, crate::abi::AT_FDCWD, &at, true)?;
            if walk.inode.is_none() {
                self.make_dir(tid, &walk, 0o755)?;
            }
        }
        self.lookup_dir(tid, path)
    }

    /// Lines of /proc/PID/mounts and mountinfo for what was mounted: (number, parent, device, path, source, type, options).
    pub(super) fn mount_lines(&self) -> Vec<(u32, String, String, String, String)> {
        let escape = |text: &[u8]| {
            let text = String::from_utf8_lossy(text).into_owned();
            text.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011").replace('\n', "\\012")
        };
        self.vfs
            .mounts
            .all
            .iter()
            .filter(|(_, m)| !m.detached)
            .map(|(n, m)| {
                let mut options = String::from(if m.flags & RDONLY != 0 { "ro" } else { "rw" });
                for (bit, name) in [(2, "nosuid"), (4, "nodev"), (8, "noexec"), (1024, "noatime")] {
                    if m.flags & bit != 0 {
                        options.push(',');
                        options.push_str(name);
                    }
                }
                options.push_str(&m.options);
                (*n, escape(&self.inode_path(m.at)), escape(&m.source), m.fstype.clone(), options)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tmpfs_options_are_those_of_tmpfs_5() {
        let parse = |text: &str| TmpfsOptions::parse(text, 1 << 30);
        let o = parse("size=64m,nr_inodes=1k,mode=700,uid=5,gid=6").unwrap();
        assert_eq!(o, TmpfsOptions { size: Some(64 << 20), inodes: Some(1024), mode: 0o700, uid: 5, gid: 6 });
        assert_eq!(parse("size=25%").unwrap().size, Some(1 << 28));
        assert_eq!(parse("size=0").unwrap().size, None);
        assert_eq!(parse("nr_blocks=4").unwrap().size, Some(16384));
        for bad in ["size=", "size=x", "size=1q", "mode=9", "unknown", "uid=-1", "size=99999999999g"] {
            assert_eq!(parse(bad), Err(Errno::EINVAL), "{bad}");
        }
    }
}
