//! The file tree as the rest of the kernel sees it: mounting, opening, reading, writing and describing inodes.

use super::inode::{Dir, FsKind, Inode, Kind, ROOT, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, Target};
use super::path::{Link, MAY_EXEC, MAY_READ, MAY_WRITE, Walk};
use super::{Device, FileKind, InodeId, MapSource, OpenFile, Stat, lower};
use crate::errno::Errno;
use crate::fork::ForkArgs;
use crate::kernel::Kernel;
use crate::num::{low32, u64_of};
use crate::task::Tid;
use linux_raw_sys::general as g;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

pub use super::inode::Vfs;

/// O_TMPFILE includes O_DIRECTORY.
const O_TMPFILE: u32 = g::O_TMPFILE;
/// Flags that only matter while a file is being opened.
pub(crate) const OPEN_ONLY: u32 = g::O_CREAT | g::O_EXCL | g::O_NOCTTY | g::O_TRUNC | g::O_CLOEXEC;

/// What opening a path came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// A file with one reference.
    File(u64),
    /// A FIFO, whose opening may have to wait.
    Fifo(InodeId),
}

impl Kernel {
    /// Makes the empty root with proc, sys, dev, run and tmp.
    pub fn init_vfs(&mut self) {
        self.vfs.cpuinfo = super::synth::host_cpuinfo();
        let mut id = [0; 16];
        self.entropy.fill(&mut id);
        self.vfs.boot_id = id;
        // Adding to an empty table cannot fail: the only limit is the number of inodes.
        let _ = self.build_tree();
    }

    fn build_tree(&mut self) -> Result<(), Errno> {
        let root = self.new_dir(ROOT, b"", 0o755, FsKind::Root)?;
        self.mount_synth(root, "proc", FsKind::Proc)?;
        self.mount_synth(root, "sys", FsKind::Sys)?;
        let dev = self.new_dir(root, b"dev", 0o755, FsKind::Dev)?;
        for (name, device, minor) in [
            ("null", Device::Null, g_dev(1, 3)),
            ("zero", Device::Zero, g_dev(1, 5)),
            ("full", Device::Full, g_dev(1, 7)),
            ("random", Device::Random, g_dev(1, 8)),
            ("urandom", Device::Urandom, g_dev(1, 9)),
            ("tty", Device::Tty, g_dev(5, 0)),
            ("ptmx", Device::Ptmx, g_dev(5, 2)),
        ] {
            let stat = self.fresh_stat(S_IFCHR | 0o666);
            let stat = Stat { rdev: minor, ..stat };
            self.bind_new(dev, name.as_bytes(), Kind::Device(device), stat, FsKind::Dev)?;
        }
        let stat = self.fresh_stat(S_IFCHR | 0o600);
        self.bind_new(dev, b"coppice", Kind::Work, Stat { rdev: g_dev(10, 250), ..stat }, FsKind::Dev)?;
        for (name, target) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
        ] {
            let stat = self.fresh_stat(S_IFLNK | 0o777);
            let stat = Stat { size: u64_of(target.len()), ..stat };
            let kind = Kind::Symlink(target.as_bytes().to_vec());
            self.bind_new(dev, name.as_bytes(), kind, stat, FsKind::Dev)?;
        }
        self.new_dir(dev, b"shm", 0o1777, FsKind::Shm)?;
        let pts = self.new_dir(dev, b"pts", 0o755, FsKind::Dev)?;
        let stat = Stat { rdev: g_dev(5, 2), ..self.fresh_stat(S_IFCHR | 0o666) };
        self.bind_new(pts, b"ptmx", Kind::Device(Device::Ptmx), stat, FsKind::Dev)?;
        self.objects.ttys.directory = pts;
        self.new_dir(root, b"tmp", 0o1777, FsKind::Root)?;
        self.new_dir(root, b"run", 0o1777, FsKind::Root)?;
        Ok(())
    }

    fn mount_synth(&mut self, root: InodeId, path: &str, fs: FsKind) -> Result<(), Errno> {
        let stat = self.fresh_stat(S_IFDIR | 0o555);
        let stat = Stat { nlink: 2, ..stat };
        let id = self.bind_new(root, path.as_bytes(), Kind::Synth(path.to_owned()), stat, fs)?;
        self.vfs.synth.insert(path.to_owned(), id);
        Ok(())
    }

    fn new_dir(&mut self, parent: InodeId, name: &[u8], mode: u32, fs: FsKind) -> Result<InodeId, Errno> {
        let stat = self.fresh_stat(S_IFDIR | mode);
        let stat = Stat { nlink: 2, size: 4096, ..stat };
        let kind = Kind::Dir(Dir::over(None));
        if name.is_empty() {
            return self.vfs.add(kind, stat, parent, name, fs);
        }
        self.bind_new(parent, name, kind, stat, fs)
    }

    /// Attributes of something that root makes now.
    pub(crate) fn fresh_stat(&self, mode: u32) -> Stat {
        let now = self.now_pair();
        Stat { mode, nlink: 1, atime: now, mtime: now, ctime: now, btime: now, ..Stat::default() }
    }

    /// The wall clock as seconds and nanoseconds.
    pub fn now_pair(&self) -> (i64, u32) {
        let ns = self.platform.realtime();
        (i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX), low32(ns % 1_000_000_000))
    }

    /// Adds an inode and binds it to a name.
    pub(crate) fn bind_new(
        &mut self,
        dir: InodeId,
        name: &[u8],
        kind: Kind,
        stat: Stat,
        fs: FsKind,
    ) -> Result<InodeId, Errno> {
        let id = self.vfs.add(kind, stat, dir, name, fs)?;
        self.vfs.dir_mut(dir)?.set(name, Target::Inode(id));
        Ok(id)
    }

    /// Mounts a host directory read-only under the in-memory layer as the root. proc, sys and dev stay the guest's own, and
    /// /tmp and /run are writable by all. The tree is assumed not to change while the sandbox lives. EBUSY the second time; ENOTDIR.
    pub fn mount_root(&mut self, dir: OwnedFd) -> Result<(), Errno> {
        if self.vfs.mounted {
            return Err(Errno::EBUSY);
        }
        let stat = lower::stat_fd(dir.as_fd())?;
        if stat.mode & S_IFMT != S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        self.vfs.root_fd = Some(Arc::new(dir));
        self.vfs.mounted = true;
        let root = self.vfs.inode_mut(ROOT)?;
        root.stat = stat;
        if let Kind::Dir(d) = &mut root.kind {
            d.lower = Some(Vec::new());
        }
        for name in [&b"tmp"[..], b"run"] {
            let root_fd = self.vfs.root_fd.clone().ok_or(Errno::ENOENT)?;
            let shown = matches!(lower::stat(root_fd.as_fd(), name),
                Ok((s, _)) if s.mode & S_IFMT == S_IFDIR && self.vfs.shown.allows(name, &s, MAY_EXEC));
            if shown && let Some(id) = self.lookup(ROOT, name)? {
                self.vfs.dir_mut(id)?.lower = Some(name.to_vec());
                // Removing it must not uncover the host's own.
                self.vfs.dir_mut(ROOT)?.set_lower(name, Target::Inode(id));
            }
        }
        Ok(())
    }

    /// What the guest may see of the root directory; the rest is the host's own business. To be called before the root is mounted.
    pub fn show_only(&mut self, shown: lower::Shown) {
        self.vfs.shown = shown;
    }

    /// Gives the root directory's descriptor back to a tree that was written out and read again.
    pub fn set_root_fd(&mut self, dir: OwnedFd) {
        self.vfs.root_fd = Some(Arc::new(dir));
    }

    /// Brings file state up to date in the child of a fork: a boot id of its own.
    pub fn vfs_after_fork(&mut self, _args: &ForkArgs) {
        let mut id = [0; 16];
        self.entropy.fill(&mut id);
        self.vfs.boot_id = id;
    }

    /// Opens a path for a task; returns a file with one reference that the caller owns.
    pub fn open_path(
        &mut self,
        tid: Tid,
        dirfd: i32,
        path: &[u8],
        flags: u32,
        mode: u32,
    ) -> Result<u64, Errno> {
        match self.open_for(tid, (dirfd, path), flags, mode, 0)? {
            Opening::File(file) => Ok(file),
            Opening::Fifo(_) => Err(Errno::EACCES),
        }
    }

    /// As [`Kernel::open_path`] for open(2) and openat2(2) with its RESOLVE_ bits: a FIFO is left to [`Kernel::fifo_open`].
    pub fn open_for(
        &mut self,
        tid: Tid,
        (dirfd, path): (i32, &[u8]),
        flags: u32,
        mode: u32,
        resolve: u32,
    ) -> Result<Opening, Errno> {
        let mut flags = flags;
        if flags & g::O_PATH != 0 {
            flags &= g::O_PATH | g::O_DIRECTORY | g::O_NOFOLLOW | g::O_CLOEXEC;
        } else {
            flags |= g::O_LARGEFILE;
        }
        let tmpfile = flags & O_TMPFILE == O_TMPFILE;
        let writes = flags & g::O_ACCMODE != g::O_RDONLY;
        if (tmpfile && !writes)
            || (!tmpfile && flags & (g::O_CREAT | g::O_DIRECTORY) == (g::O_CREAT | g::O_DIRECTORY))
        {
            return Err(Errno::EINVAL);
        }
        if tmpfile && flags & g::O_CREAT != 0 {
            return Err(Errno::EINVAL);
        }
        let exclusive = flags & (g::O_CREAT | g::O_EXCL) == (g::O_CREAT | g::O_EXCL);
        let follow = flags & g::O_NOFOLLOW == 0 && !exclusive;
        let walk = self.resolve_within(tid, dirfd, path, follow, resolve)?;
        if let Some(file) = walk.file {
            return self.reopen_object(file, flags).map(Opening::File);
        }
        if tmpfile {
            let dir = self.existing(&walk)?;
            if !self.vfs.inode(dir)?.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            let id = self.create_tmpfile(tid, dir, mode, flags & g::O_EXCL != 0)?;
            return self.open_inode(id, flags).map(Opening::File);
        }
        let Some(id) = walk.inode else {
            if flags & g::O_CREAT == 0 {
                return Err(Errno::ENOENT);
            }
            return self.open_new(tid, &walk, flags, mode).map(Opening::File);
        };
        if flags & g::O_CREAT != 0 && walk.dir {
            return Err(Errno::EISDIR);
        }
        if exclusive {
            return Err(Errno::EEXIST);
        }
        let inode = self.vfs.inode(id)?;
        let is_dir = inode.is_dir();
        if flags & g::O_CREAT != 0 && is_dir {
            return Err(Errno::EISDIR);
        }
        if (walk.dir || flags & g::O_DIRECTORY != 0) && !is_dir {
            return Err(Errno::ENOTDIR);
        }
        self.open_node(tid, id, flags)
    }

    /// Opens what is there, as open(2) does when it has found it.
    pub fn open_node(&mut self, tid: Tid, id: InodeId, flags: u32) -> Result<Opening, Errno> {
        let inode = self.vfs.inode(id)?;
        let is_dir = inode.is_dir();
        let writes = flags & g::O_ACCMODE != g::O_RDONLY;
        if flags & g::O_DIRECTORY != 0 && !is_dir {
            return Err(Errno::ENOTDIR);
        }
        if flags & g::O_PATH != 0 {
            return self.open_inode(id, flags).map(Opening::File);
        }
        if inode.file_type() == S_IFLNK {
            return Err(Errno::ELOOP);
        }
        let trunc = flags & g::O_TRUNC != 0;
        if is_dir && (writes || trunc) {
            return Err(Errno::EISDIR);
        }
        self.check_open(tid, id, flags)?;
        if let Kind::Device(device @ (Device::Tty | Device::Ptmx | Device::Pts(_))) = self.vfs.inode(id)?.kind
        {
            return self.tty_open(tid, id, device, flags).map(Opening::File);
        }
        let kind = self.vfs.inode(id)?.file_type();
        if kind == super::inode::S_IFIFO {
            if flags & super::pipe::O_DIRECT != 0 {
                return Err(Errno::EINVAL);
            }
            return Ok(Opening::Fifo(id));
        }
        if kind == S_IFREG {
            if self.is_live(id) {
                self.live_open(id, writes || trunc)?;
            }
            if trunc {
                self.inode_truncate(id, 0)?;
                self.contents_changed(tid, id);
            } else if writes && !self.is_live(id) {
                self.copy_up(id)?;
            } else if self.vfs.shown != lower::Shown::default()
                && matches!(self.vfs.inode(id)?.kind, Kind::Host { .. })
            {
                // Told now, not by the first read.
                self.host_fd(id)?;
            }
        }
        let file = self.open_inode(id, flags)?;
        if trunc && kind == S_IFREG {
            self.notify_both(id, g::IN_MODIFY);
        }
        Ok(Opening::File(file))
    }

    fn open_new(&mut self, tid: Tid, walk: &Walk, flags: u32, mode: u32) -> Result<u64, Errno> {
        if walk.dir {
            return Err(Errno::EISDIR);
        }
        let mode = S_IFREG | (mode & 0o7777 & !self.umask_of(tid));
        let id = self.create(tid, walk, Kind::File(BTreeMap::new()), mode, 0)?;
        if self.is_live(id) {
            self.live_open(id, flags & g::O_ACCMODE != g::O_RDONLY)?;
        }
        self.open_inode(id, flags)
    }

    /// Checks the mode bits, and refuses what cannot be opened at all.
    fn check_open(&mut self, tid: Tid, id: InodeId, flags: u32) -> Result<(), Errno> {
        let mask = match flags & g::O_ACCMODE {
            g::O_RDONLY => MAY_READ,
            g::O_WRONLY => MAY_WRITE,
            _ => MAY_READ | MAY_WRITE,
        };
        let mask = if flags & g::O_TRUNC != 0 { mask | MAY_WRITE } else { mask };
        let creds = self.creds_of(tid);
        self.permission(&creds, id, mask)?;
        if flags & g::O_NOATIME != 0 && !creds.owns(self.vfs.inode(id)?.stat.uid) {
            return Err(Errno::EPERM);
        }
        let inode = self.vfs.inode(id)?;
        match &inode.kind {
            Kind::Special if inode.file_type() == super::inode::S_IFIFO => Ok(()),
            Kind::Special if inode.file_type() == S_IFCHR => match Device::by_number(inode.stat.rdev) {
                None | Some(Device::Tty) => Err(Errno::ENXIO),
                Some(_) => Ok(()),
            },
            Kind::Special => Err(Errno::ENXIO),
            Kind::Work if self.process_of(tid).is_some_and(|p| p.pid != 1) => Err(Errno::EACCES),
            Kind::Synth(path) => match self.synth_private(path) {
                Some(target) => self.may_inspect(tid, target, false).map_err(|_| Errno::EACCES),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Makes an open file description for an inode.
    pub(super) fn open_inode(&mut self, id: InodeId, flags: u32) -> Result<u64, Errno> {
        let node = self.vfs.inode(id)?;
        let by_number = || Device::by_number(node.stat.rdev).filter(|_| node.file_type() == S_IFCHR);
        let kind = match &node.kind {
            Kind::Special if flags & g::O_PATH == 0 => match by_number() {
                Some(device) => FileKind::Device(device, id),
                None => FileKind::Inode(id),
            },
            Kind::Device(device) if flags & g::O_PATH == 0 => FileKind::Device(*device, id),
            Kind::Work if flags & g::O_PATH == 0 => FileKind::Work,
            _ => FileKind::Inode(id),
        };
        if kind != FileKind::Work {
            self.inode_open_count(id, 1);
        }
        if flags & (g::O_PATH | super::fanotify::QUIET) == 0 {
            self.notify_open(id, g::IN_OPEN);
        }
        Ok(self.files.insert(OpenFile { kind, flags: flags & !OPEN_ONLY, pos: 0, refs: 1 }))
    }

    /// Opens what /proc/self/fd/N refers to when it is no inode: one more end of a pipe, or the same description of a stream.
    fn reopen_object(&mut self, file: u64, flags: u32) -> Result<u64, Errno> {
        let open = self.files.get(file).ok_or(Errno::ENOENT)?;
        if flags & g::O_DIRECTORY != 0 {
            return Err(Errno::ENOTDIR);
        }
        match open.kind {
            FileKind::Pipe { pipe, .. } => self.pipe_reopen(pipe, flags),
            FileKind::HostStream(_) => {
                let (have, want) = (open.flags & g::O_ACCMODE, flags & g::O_ACCMODE);
                if have != g::O_RDWR && have != want {
                    return Err(Errno::EACCES);
                }
                self.file_ref(file);
                Ok(file)
            }
            FileKind::Work => Err(Errno::EACCES),
            _ => Err(Errno::ENXIO),
        }
    }

    /// What stat(2) says of an inode.
    pub fn inode_stat(&mut self, inode: InodeId) -> Result<Stat, Errno> {
        if self.is_live(inode) {
            self.live_refresh(inode)?;
        }
        Ok(self.vfs.inode(inode)?.stat)
    }

    /// A file description is opened on (`+1`) or closed from (`-1`) an inode: an unlinked inode lives until the last closes.
    pub fn inode_open_count(&mut self, inode: InodeId, delta: i32) {
        let Ok(node) = self.vfs.inode_users(inode) else { return };
        node.opens = node.opens.saturating_add_signed(delta);
        let fs = node.fs;
        let (idle, gone) = (node.opens == 0, node.opens == 0 && node.stat.nlink == 0);
        if idle {
            self.live_close(inode);
        }
        if gone {
            self.reap_inode(inode);
        }
        if idle {
            self.unmount_detached(fs);
        }
    }

    /// Absolute path of an inode as the guest sees it; ` (deleted)` follows the last known path of a removed one. Of a path longer than
    /// PATH_MAX only the end comes back, PATH_MAX bytes or little more: directories nest without limit, and a guest that has thousands
    /// of mappings of one deep file must not get a text of gigabytes for them.
    pub fn inode_path(&self, inode: InodeId) -> Vec<u8> {
        let mut names = Vec::new();
        let mut len = 0;
        let mut at = inode;
        let mut deleted = false;
        // Directories form a tree; the bound only guards against a bug.
        for _ in 0..super::inode::MAX_UPPER_INODES {
            if at == ROOT {
                break;
            }
            let Ok(node) = self.vfs.inode(at) else { break };
            deleted |= node.stat.nlink == 0;
            names.push(node.name.as_slice());
            len += node.name.len() + 1;
            if len >= crate::abi::PATH_MAX {
                break;
            }
            at = node.parent;
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        if deleted {
            path.extend_from_slice(b" (deleted)");
        }
        path
    }

    /// What mmap of an inode maps. ENODEV, EACCES.
    pub fn inode_map_source(&mut self, inode: InodeId) -> Result<MapSource, Errno> {
        if self.is_live(inode) {
            self.live_refresh(inode)?;
        }
        let Inode { kind, stat, .. } = self.vfs.inode(inode)?;
        let size = stat.size;
        match kind {
            Kind::Host { .. } => Ok(MapSource::Host(self.host_fd(inode)?, size)),
            Kind::File(_) => Ok(MapSource::Pages(inode, size)),
            Kind::Device(Device::Zero) => Ok(MapSource::Zero),
            _ => Err(Errno::ENODEV),
        }
    }

    /// The target of a symbolic link as readlink(2) reports it. EINVAL when it is none.
    pub fn link_text(&mut self, tid: Tid, inode: InodeId) -> Result<Vec<u8>, Errno> {
        let path = match self.read_link(tid, inode)? {
            Link::Path(path) => return Ok(path),
            Link::Inode(id) => self.inode_path(id),
            Link::File(file) => self.file_path(file),
        };
        if path.len() >= crate::abi::PATH_MAX { Err(Errno::ENAMETOOLONG) } else { Ok(path) }
    }
}

/// Linux's encoding of a device number in `st_rdev`, for small numbers.
fn g_dev(major: u64, minor: u64) -> u64 {
    major << 8 | minor
}
