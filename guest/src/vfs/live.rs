//! Directories of the host that are mounted in the guest (`coppice run --mount`): every look-up asks the host, and every change is made
//! there.
//!
//! The host is only reached below the mount's descriptor, with openat2(2): a directory is opened without following any link, and the
//! last component is used by name, so neither `..` nor a link, nor a rename on the host, leads out of the mounted directory.

use super::inode::{Dir, FsKind, Inode, Kind, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG};
use super::mount::What;
use super::{InodeId, Stat, lower};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::u64_of;
use crate::task::Creds;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

fn gone_wrong(e: rustix::io::Errno) -> Errno {
    // The sandbox's own descriptors ran out, not the caller's.
    if e == rustix::io::Errno::MFILE { Errno::ENFILE } else { e.into() }
}

/// The host's own name of an open file, which leads to that file and nowhere else.
fn by_descriptor(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn mode_of(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o7777)
}

/// Whether a file of this mode runs with its owner's or group's rights: a user of the host would get those of whoever a guest likes.
fn lends_rights(mode: u32) -> bool {
    mode & S_IFMT == S_IFREG && (mode & 0o4000 != 0 || mode & 0o2010 == 0o2010)
}

impl Kernel {
    fn live_base(&self, fs: FsKind) -> Option<Arc<OwnedFd>> {
        match &self.vfs.mounts.of(fs)?.what {
            What::Host { dir } => dir.clone(),
            _ => None,
        }
    }

    /// Whether an inode is a file or directory of a mounted host directory.
    pub fn is_live(&self, inode: InodeId) -> bool {
        let Ok(node) = self.vfs.inode(inode) else { return false };
        let host = self.vfs.mounts.of(node.fs).is_some_and(|m| matches!(m.what, What::Host { .. }));
        host && matches!(node.kind, Kind::Dir(_) | Kind::Host { .. } | Kind::Symlink(_) | Kind::Special)
    }

    /// The mounted directory's descriptor and the path of an inode below it.
    fn live_path(&self, inode: InodeId) -> Result<(Arc<OwnedFd>, Vec<u8>), Errno> {
        let fs = self.vfs.inode(inode)?.fs;
        let base = self.live_base(fs).ok_or(Errno::EIO)?;
        let root = self.vfs.mounts.of(fs).ok_or(Errno::EIO)?.root;
        let (mut names, mut at, mut len) = (Vec::new(), inode, 0);
        while at != root {
            let node = self.vfs.inode(at)?;
            if node.fs != fs || node.stat.nlink == 0 {
                return Err(Errno::ENOENT);
            }
            len += node.name.len() + 1;
            if len > crate::abi::PATH_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            names.push(node.name.as_slice());
            at = node.parent;
        }
        names.reverse();
        Ok((base, names.join(&b'/')))
    }

    /// A directory of the host, to use names in.
    fn live_dir(&self, dir: InodeId) -> Result<OwnedFd, Errno> {
        let (base, path) = self.live_path(dir)?;
        lower::open(base.as_fd(), &path, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// The very file or directory, to change its attributes.
    fn live_node(&self, inode: InodeId) -> Result<OwnedFd, Errno> {
        let (base, path) = self.live_path(inode)?;
        lower::open(base.as_fd(), &path, OFlags::PATH)
    }

    /// The inode of a name, made anew when the host has another file there by now.
    pub(super) fn live_lookup(&mut self, dir: InodeId, name: &[u8]) -> Result<Option<InodeId>, Errno> {
        let fs = self.vfs.inode(dir)?.fs;
        let (base, path) = self.live_path(dir)?;
        let known = self.vfs.dir(dir)?.inode_of(name);
        let (stat, link) = match lower::stat(base.as_fd(), &super::path::join(&path, name)) {
            Ok(found) => found,
            Err(Errno::ENOENT) => {
                if let Some(id) = known {
                    self.live_forget(dir, name, id);
                }
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        let stat = self.live_stat(fs, stat);
        if let Some(id) = known {
            let node = self.vfs.inode_mut(id)?;
            // Whatever is mounted here, the name stays the host's.
            let same = node.stat.ino == stat.ino && node.stat.mode & S_IFMT == stat.mode & S_IFMT;
            if same && node.stat.nlink > 0 {
                node.stat = stat;
                if let (Kind::Symlink(old), Some(new)) = (&mut node.kind, link) {
                    *old = new;
                }
                return Ok(Some(id));
            }
            self.live_forget(dir, name, id);
        }
        let kind = match (stat.mode & S_IFMT, link) {
            (_, Some(target)) => Kind::Symlink(target),
            (S_IFDIR, _) => Kind::Dir(Dir::over(None)),
            (S_IFREG, _) => Kind::Host { path: Vec::new(), fd: None },
            _ => Kind::Special,
        };
        let id = self.vfs.add(kind, stat, dir, name, fs)?;
        self.vfs.dir_mut(dir)?.set(name, super::inode::Target::Inode(id));
        Ok(Some(id))
    }

    fn live_stat(&self, fs: FsKind, stat: Stat) -> Stat {
        let FsKind::Mount(n) = fs else { return stat };
        Stat { dev: super::inode::mount_dev(n), ..stat }
    }

    /// A name is another file's or nobody's by now.
    fn live_forget(&mut self, dir: InodeId, name: &[u8], id: InodeId) {
        if let Ok(d) = self.vfs.dir_mut(dir) {
            d.remove(name);
        }
        let mut todo = vec![id];
        while let Some(id) = todo.pop() {
            let Ok(node) = self.vfs.inode_mut(id) else { continue };
            if let Kind::Dir(d) = &node.kind {
                todo.extend(d.inodes());
            }
            node.stat.nlink = 0;
            self.vfs.orphans.insert(id);
        }
        self.reap_inode(id);
    }

    /// Makes what a directory is known to hold what it holds on the host now.
    pub(super) fn live_list(&mut self, dir: InodeId) -> Result<(), Errno> {
        let (base, path) = self.live_path(dir)?;
        let lines = lower::list(base.as_fd(), &path, &lower::Shown::default())?;
        let now: std::collections::BTreeSet<&[u8]> = lines.iter().map(|(n, ..)| n.as_slice()).collect();
        let d = self.vfs.dir(dir)?;
        let lost: Vec<(Vec<u8>, Option<InodeId>)> = d
            .names
            .keys()
            .filter(|n| !now.contains(n.as_slice()))
            .map(|n| (n.clone(), d.inode_of(n)))
            .collect();
        for (name, id) in lost {
            match id {
                Some(id) => self.live_forget(dir, &name, id),
                None => self.vfs.dir_mut(dir)?.remove(&name),
            }
        }
        let d = self.vfs.dir_mut(dir)?;
        for (name, ino, kind) in lines {
            if d.inode_of(&name).is_none() {
                d.set(&name, super::inode::Target::Lower(ino, kind));
            }
        }
        Ok(())
    }

    /// Asks the host for an inode's attributes as they are now.
    pub(super) fn live_refresh(&mut self, inode: InodeId) -> Result<(), Errno> {
        let node = self.vfs.inode(inode)?;
        let fs = node.fs;
        let stat = match &node.kind {
            Kind::Host { fd: Some(fd), .. } => lower::stat_fd(fd.as_fd())?,
            _ if node.stat.nlink == 0 => return Ok(()),
            _ => lower::stat_fd(self.live_node(inode)?.as_fd())?,
        };
        let stat = self.live_stat(fs, stat);
        let node = self.vfs.inode_mut(inode)?;
        let removed = node.stat.nlink == 0;
        node.stat = stat;
        if removed {
            node.stat.nlink = 0;
        }
        Ok(())
    }

    /// Opens a file on the host; one descriptor serves all who have it open here, so it is opened again when the first one writes.
    pub(super) fn live_open(&mut self, inode: InodeId, write: bool) -> Result<Arc<OwnedFd>, Errno> {
        let node = self.vfs.inode(inode)?;
        let Kind::Host { fd, .. } = &node.kind else { return Err(Errno::EINVAL) };
        if let Some(fd) = fd {
            let can_write = rustix::fs::fcntl_getfl(fd).is_ok_and(|f| f & OFlags::RWMODE != OFlags::RDONLY);
            if can_write || !write {
                return Ok(fd.clone());
            }
        }
        let (base, path) = self.live_path(inode)?;
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        let opened = lower::open(base.as_fd(), &path, access | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        if lower::stat_fd(opened.as_fd())?.mode & S_IFMT != S_IFREG {
            return Err(Errno::ESTALE);
        }
        let opened = Arc::new(opened);
        if let Inode { kind: Kind::Host { fd, .. }, .. } = self.vfs.inode_mut(inode)? {
            *fd = Some(opened.clone());
        }
        Ok(opened)
    }

    /// Nobody has a file open any more.
    pub(super) fn live_close(&mut self, inode: InodeId) {
        if self.is_live(inode)
            && let Ok(Inode { kind: Kind::Host { fd, .. }, .. }) = self.vfs.inode_mut(inode)
        {
            *fd = None;
        }
    }

    /// Writes to a file on the host.
    pub(super) fn live_write(&mut self, inode: InodeId, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        let fd = self.live_open(inode, true)?;
        let n = rustix::io::pwrite(&*fd, data, offset).map_err(gone_wrong)?;
        let node = self.vfs.inode_mut(inode)?;
        node.stat.size = node.stat.size.max(offset.saturating_add(u64_of(n)));
        Ok(n)
    }

    /// Sets the length of a file on the host.
    pub(super) fn live_truncate(&mut self, inode: InodeId, len: u64) -> Result<(), Errno> {
        let fd = self.live_open(inode, true)?;
        rustix::fs::ftruncate(&*fd, len).map_err(gone_wrong)?;
        let left_open = self.vfs.inode(inode)?.opens > 0;
        if !left_open {
            self.live_close(inode);
        }
        self.live_refresh(inode)
    }

    /// fallocate(2) on the host.
    pub fn live_allocate(&mut self, inode: InodeId, mode: u32, offset: u64, len: u64) -> Result<bool, Errno> {
        if !self.is_live(inode) {
            return Ok(false);
        }
        let fd = self.live_open(inode, true)?;
        let flags = rustix::fs::FallocateFlags::from_bits_retain(mode);
        rustix::fs::fallocate(&*fd, flags, offset, len).map_err(gone_wrong)?;
        self.live_refresh(inode)?;
        Ok(true)
    }

    /// fsync(2) on the host, of what is open there.
    pub fn live_sync(&mut self, inode: InodeId) -> Result<(), Errno> {
        match &self.vfs.inode(inode)?.kind {
            Kind::Host { fd: Some(fd), .. } if self.is_live(inode) => Ok(rustix::fs::fsync(&**fd)?),
            _ => Ok(()),
        }
    }

    /// Whether a file is of a mounted host directory: its pages are the host's.
    pub(crate) fn file_is_live(&self, file: u64) -> bool {
        self.files.get(file).and_then(|f| f.kind.inode()).is_some_and(|i| self.is_live(i))
    }

    /// Makes a name on the host, owned by the caller. EPERM for devices and sockets, and for programs that run with their owner's rights.
    pub(super) fn live_create(
        &mut self,
        creds: &Creds,
        dir: InodeId,
        name: &[u8],
        kind: &Kind,
        stat: &Stat,
    ) -> Result<InodeId, Errno> {
        if lends_rights(stat.mode) {
            return Err(Errno::EPERM);
        }
        let at = self.live_dir(dir)?;
        let mode = mode_of(stat.mode);
        match (stat.mode & S_IFMT, kind) {
            (S_IFDIR, _) => rustix::fs::mkdirat(&at, name, mode),
            (S_IFLNK, Kind::Symlink(target)) => rustix::fs::symlinkat(target.as_slice(), &at, name),
            (S_IFREG, _) => {
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(&at, name, flags, mode).map(drop)
            }
            (S_IFIFO, _) => rustix::fs::mknodat(&at, name, rustix::fs::FileType::Fifo, mode, 0),
            _ => return Err(Errno::EPERM),
        }
        .map_err(gone_wrong)?;
        let id = self.live_lookup(dir, name)?.ok_or(Errno::ENOENT)?;
        let made = self.vfs.inode(id)?.stat;
        let changed = if (made.uid, made.gid) == (creds.fsuid, stat.gid) {
            Ok(())
        } else {
            self.live_chown(id, creds.fsuid, stat.gid)
        };
        // The host's umask is not the guest's, and a change of owner takes bits away.
        let changed = changed.and_then(|()| {
            if stat.mode & S_IFMT == S_IFLNK || self.vfs.inode(id)?.stat.mode & 0o7777 == stat.mode & 0o7777 {
                return Ok(());
            }
            self.live_chmod(id, stat.mode)
        });
        if let Err(e) = changed {
            let _ = self.live_unlink(dir, name, stat.mode & S_IFMT == S_IFDIR);
            self.live_forget(dir, name, id);
            return Err(e);
        }
        Ok(id)
    }

    /// Removes a name on the host.
    pub(super) fn live_unlink(&mut self, dir: InodeId, name: &[u8], is_dir: bool) -> Result<(), Errno> {
        let at = self.live_dir(dir)?;
        let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        rustix::fs::unlinkat(&at, name, flags).map_err(gone_wrong)
    }

    /// Renames on the host.
    pub(super) fn live_rename(
        &mut self,
        (from, old): (InodeId, &[u8]),
        (to, new): (InodeId, &[u8]),
        keep: bool,
        swap: bool,
    ) -> Result<(), Errno> {
        let (a, b) = (self.live_dir(from)?, self.live_dir(to)?);
        let mut flags = RenameFlags::empty();
        flags.set(RenameFlags::NOREPLACE, keep);
        flags.set(RenameFlags::EXCHANGE, swap);
        let done = if flags.is_empty() {
            rustix::fs::renameat(&a, old, &b, new)
        } else {
            rustix::fs::renameat_with(&a, old, &b, new, flags)
        };
        done.map_err(gone_wrong)
    }

    /// One more name on the host.
    pub(super) fn live_link(&mut self, inode: InodeId, dir: InodeId, name: &[u8]) -> Result<(), Errno> {
        let node = self.vfs.inode(inode)?;
        let (parent, old) = (node.parent, node.name.clone());
        let (a, b) = (self.live_dir(parent)?, self.live_dir(dir)?);
        rustix::fs::linkat(&a, old.as_slice(), &b, name, AtFlags::empty()).map_err(gone_wrong)?;
        self.live_refresh(inode)?;
        self.live_lookup(dir, name).map(drop)
    }

    /// Changes mode bits on the host. EPERM where a program would run with its owner's rights from then on.
    pub fn live_chmod(&mut self, inode: InodeId, mode: u32) -> Result<(), Errno> {
        self.live_refresh(inode)?;
        let now = self.vfs.inode(inode)?.stat.mode;
        if lends_rights(now & S_IFMT | mode & 0o7777) && !lends_rights(now) {
            return Err(Errno::EPERM);
        }
        let node = self.live_node(inode)?;
        rustix::fs::chmod(by_descriptor(&node), mode_of(mode)).map_err(gone_wrong)?;
        self.live_refresh(inode)
    }

    /// Changes the owner on the host; `u32::MAX` leaves one.
    pub fn live_chown(&mut self, inode: InodeId, uid: u32, gid: u32) -> Result<(), Errno> {
        let node = self.live_node(inode)?;
        let uid = (uid != u32::MAX).then(|| Uid::from_raw(uid));
        let gid = (gid != u32::MAX).then(|| Gid::from_raw(gid));
        rustix::fs::chownat(&node, c"", uid, gid, AtFlags::EMPTY_PATH).map_err(gone_wrong)?;
        self.live_refresh(inode)
    }

    /// Sets times on the host: (seconds, nanoseconds) or the special values of utimensat(2).
    pub fn live_times(&mut self, inode: InodeId, times: [(i64, i64); 2]) -> Result<(), Errno> {
        let [access, modified] = times.map(|(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec });
        let times = Timestamps { last_access: access, last_modification: modified };
        let node = self.vfs.inode(inode)?;
        let (parent, name) = (node.parent, node.name.clone());
        let root = self.vfs.mounts.of(node.fs).is_some_and(|m| m.root == inode);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if root {
            let base = self.live_node(inode)?;
            rustix::fs::utimensat(rustix::fs::CWD, by_descriptor(&base), &times, AtFlags::empty())
                .map_err(gone_wrong)?;
        } else {
            let at = self.live_dir(parent)?;
            rustix::fs::utimensat(&at, name.as_slice(), &times, flags).map_err(gone_wrong)?;
        }
        self.live_refresh(inode)
    }

    /// statfs(2) of the host's file system: (type, block size, blocks, free, available, files, free files).
    pub fn live_statfs(&self, fs: FsKind) -> Option<[u64; 7]> {
        let base = self.live_base(fs)?;
        let s = rustix::fs::fstatfs(&*base).ok()?;
        let number = |n: i64| u64::try_from(n).unwrap_or(0);
        Some([number(s.f_type), number(s.f_bsize), s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree])
    }
}
