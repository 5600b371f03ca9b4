//! Inodes and directories: the tables of the file tree and the operations that need nothing else.
//!
//! A directory maps names to inodes. One that lies over a host directory (`lower`) learns its names lazily: a name that was never
//! looked up is asked for once and remembered, present or absent. That is right because the lower tree is assumed not to
//! change while a sandbox runs. A whiteout hides a lower name that the guest removed.
//!
//! Knows nothing of paths, tasks or credentials.

use super::{Device, InodeId, Stat};
use crate::errno::Errno;
use crate::num::u64_of;
use crate::platform::Gpa;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Inodes of the in-memory layer that may exist at once (ENOSPC beyond).
pub const MAX_UPPER_INODES: u64 = 1 << 18;
/// Bytes of link targets and extended attributes that the in-memory layer may hold.
const MAX_SMALL: u64 = 64 << 20;
/// Names known to be absent that are kept before all of them are forgotten.
const MAX_NEGATIVE: u64 = 1 << 16;
/// Host descriptors kept open for reading before the idle ones are closed.
const MAX_HOST_FDS: usize = 256;
/// `st_dev` of the in-memory layer, proc, sys and dev. Lower files keep the host's.
const UPPER_DEV: u64 = 0x2a;
/// Inode numbers of the in-memory layer begin here, so that they differ from the host's.
const UPPER_INO: u64 = 1 << 40;

/// `S_IFMT` and its values.
pub const S_IFMT: u32 = 0o170_000;
/// Directory.
pub const S_IFDIR: u32 = 0o040_000;
/// Regular file.
pub const S_IFREG: u32 = 0o100_000;
/// Symbolic link.
pub const S_IFLNK: u32 = 0o120_000;
/// Character device.
pub const S_IFCHR: u32 = 0o020_000;
/// Block device.
pub const S_IFBLK: u32 = 0o060_000;
/// Named pipe.
pub const S_IFIFO: u32 = 0o010_000;
/// Socket.
pub const S_IFSOCK: u32 = 0o140_000;

/// Which of the guest's file systems an inode belongs to: hard links and renames stay within one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum FsKind {
    Root,
    Dev,
    Shm,
    Proc,
    Sys,
    /// What was mounted under this number.
    Mount(u32),
}

/// `st_dev` of what was mounted.
pub fn mount_dev(n: u32) -> u64 {
    UPPER_DEV + 8 + u64::from(n)
}

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// This inode.
    Inode(InodeId),
    /// A lower entry that was listed but not looked up yet: (inode number, DT_ type).
    Lower(u64, u8),
    /// A lower name that the guest removed.
    Whiteout,
    /// Not there (remembered).
    Negative,
}

/// A name in a directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dentry {
    /// What it stands for.
    pub target: Target,
    /// Its position in listings; 0 for names that are absent.
    pub cookie: u64,
    /// The lower directory holds the name too, so that removing it leaves a whiteout.
    pub in_lower: bool,
}

/// A directory's contents.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Dir {
    /// Known names.
    pub names: BTreeMap<Vec<u8>, Dentry>,
    /// Names that exist, in listing order.
    pub order: BTreeMap<u64, Vec<u8>>,
    /// Path of the host directory below it, relative to the root descriptor; `None` for a directory of the in-memory layer alone.
    pub lower: Option<Vec<u8>>,
    /// All lower names are in `names`.
    pub listed: bool,
    /// Last cookie given out; 1 and 2 are `.` and `..`.
    last_cookie: u64,
}

impl Dir {
    /// An empty directory over this host directory.
    pub fn over(lower: Option<Vec<u8>>) -> Self {
        Dir { lower, last_cookie: 2, ..Dir::default() }
    }

    /// Binds a name, keeping its place in listings when it already exists.
    pub fn set(&mut self, name: &[u8], target: Target) {
        let present = matches!(target, Target::Inode(_) | Target::Lower(..));
        let (old, in_lower) = self.names.get(name).map_or((0, false), |d| (d.cookie, d.in_lower));
        let cookie = match (present, old) {
            (true, 0) => {
                self.last_cookie += 1;
                self.order.insert(self.last_cookie, name.to_vec());
                self.last_cookie
            }
            (true, c) => c,
            (false, c) => {
                self.order.remove(&c);
                0
            }
        };
        self.names.insert(name.to_vec(), Dentry { target, cookie, in_lower });
    }

    /// The inode of a name, if it is known.
    pub fn inode_of(&self, name: &[u8]) -> Option<InodeId> {
        match self.names.get(name)?.target {
            Target::Inode(id) => Some(id),
            _ => None,
        }
    }

    /// All inodes that it holds.
    pub fn inodes(&self) -> impl Iterator<Item = InodeId> {
        self.names.values().filter_map(|e| if let Target::Inode(id) = e.target { Some(id) } else { None })
    }

    /// Binds a name that the lower directory holds.
    pub fn set_lower(&mut self, name: &[u8], target: Target) {
        self.set(name, target);
        if let Some(d) = self.names.get_mut(name) {
            d.in_lower = true;
        }
    }

    /// Unbinds a name: hides it where a lower directory may hold it too.
    pub fn remove(&mut self, name: &[u8]) {
        if self.names.get(name).is_some_and(|d| d.in_lower) {
            self.set(name, Target::Whiteout);
        } else if let Some(d) = self.names.remove(name) {
            self.order.remove(&d.cookie);
        }
    }
}

/// What an inode is.
#[derive(Debug, Serialize, Deserialize)]
pub enum Kind {
    /// A directory.
    Dir(Dir),
    /// A regular file of the lower tree, read only.
    Host {
        /// Relative to the root descriptor.
        path: Vec<u8>,
        /// Opened on demand.
        #[serde(skip)]
        fd: Option<Arc<OwnedFd>>,
    },
    /// A regular file in memory: pages that were written; others are holes.
    File(BTreeMap<u64, Gpa>),
    /// A symbolic link's target.
    Symlink(Vec<u8>),
    /// A node that cannot be opened: lower fifos, sockets and devices, and what mknod(2) made.
    Special,
    /// A character device of the guest.
    Device(Device),
    /// The work channel.
    Work,
    /// A directory, file or link of proc or sys, by its path there (such as `proc/1/stat`): see `synth`.
    Synth(String),
}

/// One inode.
#[derive(Debug, Serialize, Deserialize)]
pub struct Inode {
    /// What it is.
    pub kind: Kind,
    /// Attributes; `size` and `blocks` are kept for all kinds.
    pub stat: Stat,
    /// The directory it was last bound in.
    pub parent: InodeId,
    /// The name it was last bound to.
    pub name: Vec<u8>,
    /// Open file descriptions.
    pub opens: u32,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Its file system.
    pub fs: FsKind,
    /// It differs from the lower file that it stands for, or may.
    pub changed: bool,
    /// F_SEAL_ bits of an anonymous file; `None` for all others.
    pub seals: Option<u32>,
}

impl Inode {
    /// Its S_IFMT bits.
    pub fn file_type(&self) -> u32 {
        self.stat.mode & S_IFMT
    }

    /// Whether its number is one of the lower tree's.
    pub fn is_lower(&self) -> bool {
        self.stat.ino < UPPER_INO
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type() == S_IFDIR
    }
}

/// `DT_` value for the type bits of a mode (they are the bits, shifted).
pub fn dtype(mode: u32) -> u8 {
    u8::try_from((mode & S_IFMT) >> 12).unwrap_or(0)
}

/// Mounts, inodes, dentries.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Vfs {
    pub(super) inodes: BTreeMap<InodeId, Inode>,
    pub(super) next: InodeId,
    pub(super) upper_count: u64,
    /// Host memory in bytes that link targets and extended attributes of the in-memory layer use.
    pub(super) small_bytes: u64,
    /// Pages that in-memory files hold.
    pub(super) file_pages: u64,
    negative: u64,
    /// When this many inodes exist, idle ones are forgotten.
    pub(super) forget_at: usize,
    /// The host directory under the root.
    #[serde(skip)]
    pub(super) root_fd: Option<Arc<OwnedFd>>,
    pub(super) mounted: bool,
    /// What of the host is for the guest to see, below the root.
    pub(super) shown: super::lower::Shown,
    /// Inodes whose lower descriptor is open.
    #[serde(skip)]
    host_fds: BTreeSet<InodeId>,
    /// What is mounted.
    pub mounts: super::mount::Mounts,
    /// Inodes of proc and sys that exist, by path.
    pub(super) synth: BTreeMap<String, InodeId>,
    /// Readers of /proc/PID/maps.
    pub(super) places: std::collections::VecDeque<super::maps::Place>,
    /// Removed inodes that a working directory may still refer to.
    pub(super) orphans: BTreeSet<InodeId>,
    /// The host's /proc/cpuinfo of one processor, without its number.
    pub(super) cpuinfo: String,
    pub(super) boot_id: [u8; 16],
}

/// The root directory's inode.
pub const ROOT: InodeId = 1;

impl Vfs {
    /// An empty tree.
    pub fn new() -> Self {
        Vfs { forget_at: super::evict::KEEP, ..Vfs::default() }
    }

    /// The root directory.
    pub fn root(&self) -> InodeId {
        ROOT
    }

    /// The inode. ENOENT.
    pub fn inode(&self, id: InodeId) -> Result<&Inode, Errno> {
        self.inodes.get(&id).ok_or(Errno::ENOENT)
    }

    /// The inode, to change what it is or says. ENOENT.
    pub fn inode_mut(&mut self, id: InodeId) -> Result<&mut Inode, Errno> {
        let node = self.inodes.get_mut(&id).ok_or(Errno::ENOENT)?;
        node.changed = true;
        Ok(node)
    }

    /// The inode, to count its users. ENOENT.
    pub fn inode_users(&mut self, id: InodeId) -> Result<&mut Inode, Errno> {
        self.inodes.get_mut(&id).ok_or(Errno::ENOENT)
    }

    /// The directory's contents. ENOTDIR.
    pub fn dir_mut(&mut self, id: InodeId) -> Result<&mut Dir, Errno> {
        match &mut self.inode_users(id)?.kind {
            Kind::Dir(dir) => Ok(dir),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// The directory's contents. ENOTDIR.
    pub fn dir(&self, id: InodeId) -> Result<&Dir, Errno> {
        match &self.inode(id)?.kind {
            Kind::Dir(dir) => Ok(dir),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// Adds an inode that no name refers to yet. A zero inode number gets one of the in-memory layer.
    pub fn add(
        &mut self,
        kind: Kind,
        mut stat: Stat,
        parent: InodeId,
        name: &[u8],
        fs: FsKind,
    ) -> Result<InodeId, Errno> {
        self.next += 1;
        let id = self.next;
        if stat.ino == 0 {
            if self.upper_count >= MAX_UPPER_INODES {
                return Err(Errno::ENOSPC);
            }
            self.mounts.count_inode(fs)?;
            self.upper_count += 1;
            stat.ino = UPPER_INO + id;
            stat.dev = UPPER_DEV
                + match fs {
                    FsKind::Root => 0,
                    FsKind::Dev => 1,
                    FsKind::Shm => 2,
                    FsKind::Proc => 3,
                    FsKind::Sys => 4,
                    FsKind::Mount(n) => 8 + u64::from(n),
                };
            stat.blksize = 4096;
        }
        let inode = Inode {
            kind,
            stat,
            parent,
            name: name.to_vec(),
            opens: 0,
            xattrs: BTreeMap::new(),
            fs,
            changed: false,
            seals: None,
        };
        self.inodes.insert(id, inode);
        Ok(id)
    }

    /// Inodes that a file system may have, and how many of them are free.
    pub fn inode_room(&self, fs: Option<FsKind>) -> (u64, u64) {
        let free = MAX_UPPER_INODES.saturating_sub(self.upper_count);
        match fs.and_then(|fs| self.mounts.of(fs)).map(|m| &m.what) {
            Some(super::mount::What::Tmpfs { max_inodes, inodes, .. }) => {
                let most = (*max_inodes).min(MAX_UPPER_INODES);
                (most, most.saturating_sub(*inodes).min(free))
            }
            _ => (MAX_UPPER_INODES, free),
        }
    }

    /// Forgets an inode and gives back its pages, for the caller to free.
    pub fn drop_inode(&mut self, id: InodeId) -> Vec<Gpa> {
        self.orphans.remove(&id);
        self.host_fds.remove(&id);
        let Some(inode) = self.inodes.remove(&id) else { return Vec::new() };
        let attrs: usize = inode.xattrs.iter().map(|(k, v)| k.len() + v.len() + 1).sum();
        self.small_bytes = self.small_bytes.saturating_sub(u64_of(attrs));
        if inode.stat.ino >= UPPER_INO {
            self.mounts.uncount_inode(inode.fs);
            self.upper_count = self.upper_count.saturating_sub(1);
        }
        match inode.kind {
            Kind::File(pages) => pages.into_values().collect(),
            Kind::Symlink(target) if inode.stat.ino >= UPPER_INO => {
                self.small_bytes = self.small_bytes.saturating_sub(u64_of(target.len()));
                Vec::new()
            }
            Kind::Synth(path) => {
                self.synth.remove(&path);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Accounts for more bytes of link targets and extended attributes. ENOSPC.
    pub fn charge(&mut self, bytes: usize) -> Result<(), Errno> {
        let after = self.small_bytes.saturating_add(u64_of(bytes));
        if after > MAX_SMALL {
            return Err(Errno::ENOSPC);
        }
        self.small_bytes = after;
        Ok(())
    }

    /// Gives bytes that were charged back.
    pub fn uncharge(&mut self, bytes: usize) {
        self.small_bytes = self.small_bytes.saturating_sub(u64_of(bytes));
    }

    /// Remembers that a name is absent; forgets all such names when there are too many.
    pub fn set_negative(&mut self, dir: InodeId, name: &[u8]) -> Result<(), Errno> {
        if self.negative >= MAX_NEGATIVE {
            self.negative = 0;
            for inode in self.inodes.values_mut() {
                if let Kind::Dir(d) = &mut inode.kind {
                    d.names.retain(|_, e| e.target != Target::Negative);
                }
            }
        }
        self.negative += 1;
        self.dir_mut(dir)?.set(name, Target::Negative);
        Ok(())
    }

    /// Remembers a lower file's open descriptor; closes idle ones when there are too many.
    pub(super) fn remember_fd(&mut self, id: InodeId, open: &Arc<OwnedFd>) {
        if self.host_fds.len() >= MAX_HOST_FDS {
            self.close_idle_fds();
        }
        if let Some(Inode { kind: Kind::Host { fd, .. }, .. }) = self.inodes.get_mut(&id) {
            *fd = Some(open.clone());
            self.host_fds.insert(id);
        }
    }

    /// What `f` finds below the lower root; where this process has too many descriptors, a second time without the idle ones. EIO
    /// without a root.
    pub(super) fn below_root<T>(
        &mut self,
        f: impl Fn(BorrowedFd<'_>, &super::lower::Shown) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let root = self.root_fd.clone().ok_or(Errno::EIO)?;
        match f(root.as_fd(), &self.shown) {
            Err(Errno::ENFILE) => {
                self.close_idle_fds();
                f(root.as_fd(), &self.shown)
            }
            other => other,
        }
    }

    /// Closes every lower descriptor that nobody else holds; they are reopened on demand.
    pub(super) fn close_idle_fds(&mut self) {
        for id in std::mem::take(&mut self.host_fds) {
            if let Some(Inode { kind: Kind::Host { fd, .. }, .. }) = self.inodes.get_mut(&id) {
                if fd.as_ref().is_some_and(|f| Arc::strong_count(f) > 1) {
                    self.host_fds.insert(id);
                } else {
                    *fd = None;
                }
            }
        }
    }
}
