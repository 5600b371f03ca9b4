//! Walking paths: components, symbolic links, dot-dot, the root jail, permissions.

use super::inode::{Kind, S_IFDIR, S_IFLNK, S_IFREG, Target};
use super::{FileKind, InodeId, lower};
use crate::abi::{AT_FDCWD, NAME_MAX, PATH_MAX};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::task::creds::cap;
use crate::task::{Creds, Tid};

/// Symbolic links followed in one walk.
const MAX_LINKS: u32 = 40;

/// Permission to read.
pub const MAY_READ: u32 = 4;
/// Permission to write.
pub const MAY_WRITE: u32 = 2;
/// Permission to execute or search.
pub const MAY_EXEC: u32 = 1;

/// RESOLVE_ bits of openat2(2).
pub mod within {
    /// No crossing of file systems.
    pub const NO_XDEV: u32 = 1;
    /// No links of proc that lead to an object directly.
    pub const NO_MAGICLINKS: u32 = 2;
    /// No symbolic links at all.
    pub const NO_SYMLINKS: u32 = 4;
    /// Not out of the directory where the walk starts.
    pub const BENEATH: u32 = 8;
    /// The directory where the walk starts is the root.
    pub const IN_ROOT: u32 = 16;
    /// Only what is at hand: the tree in memory always is.
    pub const CACHED: u32 = 32;
}

/// What the last component of a path was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// A name.
    Name,
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// There was none: the path is `/`.
    Root,
}

/// Where a walk ended.
#[derive(Clone, Debug)]
pub struct Walk {
    /// The directory that holds the last component.
    pub parent: InodeId,
    /// The last component; empty unless `last` is `Name`.
    pub name: Vec<u8>,
    /// What the last component was.
    pub last: Last,
    /// The inode, when there is one.
    pub inode: Option<InodeId>,
    /// An open file that is not an inode (a pipe behind /proc/self/fd).
    pub file: Option<u64>,
    /// The path ended with a slash: only a directory will do.
    pub dir: bool,
}

/// Where a symbolic link leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// To a path.
    Path(Vec<u8>),
    /// To an inode directly (proc's magic links).
    Inode(InodeId),
    /// To an open file directly (proc's magic links).
    File(u64),
}

impl Kernel {
    /// Credentials of a task; the kernel's own work (no such task) counts as root.
    pub fn creds_of(&self, tid: Tid) -> Creds {
        self.process_of(tid).map(|p| p.creds.clone()).unwrap_or_default()
    }

    /// Gives a task's process other credentials. After a change of ids, or a gain, its memory is its own business
    /// (PR_SET_DUMPABLE), and its parent's death no reason to signal it.
    pub fn commit_creds(&mut self, tid: Tid, new: Creds) {
        let Some(p) = self.process_of_mut(tid) else { return };
        let old = std::mem::replace(&mut p.creds, new);
        if p.creds.hides_from(&old) {
            p.dumpable = 0;
            let threads = p.threads.clone();
            for thread in threads {
                if let Some(t) = self.tasks.get_mut(&thread) {
                    t.aux.pdeathsig = 0;
                }
            }
        }
    }

    /// Whether a capability is effective in a task.
    pub fn capable(&self, tid: Tid, capability: u32) -> bool {
        self.process_of(tid).is_none_or(|p| p.creds.can(capability))
    }

    /// Root and working directory of a task.
    pub fn fs_of(&self, tid: Tid) -> (InodeId, InodeId) {
        match self.task(tid).and_then(|t| self.fs_contexts.get(t.fs)) {
            Some(fs) => (fs.root, fs.cwd),
            None => (self.vfs.root(), self.vfs.root()),
        }
    }

    /// Checks `mask` (MAY_*) against an inode's mode for these credentials. EACCES.
    pub fn permission(&self, creds: &Creds, inode: InodeId, mask: u32) -> Result<(), Errno> {
        let id = inode;
        let inode = self.vfs.inode(id)?;
        if mask & MAY_WRITE != 0 && matches!(inode.file_type(), S_IFREG | S_IFDIR | S_IFLNK) {
            self.want_write(id)?;
        }
        let mode = inode.stat.mode;
        let bits = if creds.fsuid == inode.stat.uid {
            mode >> 6
        } else if creds.in_group(inode.stat.gid) {
            mode >> 3
        } else {
            mode
        };
        if bits & mask == mask {
            return Ok(());
        }
        // What nobody may execute is executed by nobody.
        let (reads, exec_ok) = match inode.is_dir() {
            true => (mask & MAY_WRITE == 0, true),
            false => (mask == MAY_READ, mask & MAY_EXEC == 0 || mode & 0o111 != 0),
        };
        let allowed = (reads && creds.can(cap::DAC_READ_SEARCH)) || (exec_ok && creds.can(cap::DAC_OVERRIDE));
        if allowed { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// The directory that a relative path starts at. EBADF, ENOTDIR.
    pub fn dirfd_inode(&self, tid: Tid, dirfd: i32) -> Result<InodeId, Errno> {
        if dirfd == AT_FDCWD {
            return Ok(self.fs_of(tid).1);
        }
        let file = self.file_of(tid, dirfd)?;
        match self.files.get(file).ok_or(Errno::EBADF)?.kind {
            FileKind::Inode(id) if self.vfs.inode(id)?.is_dir() => Ok(id),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// The inode of a name in a directory, if it exists: asks the lower tree where nothing is known yet.
    pub fn lookup(&mut self, dir: InodeId, name: &[u8]) -> Result<Option<InodeId>, Errno> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if self.is_live(dir) && self.vfs.inode(dir)?.is_dir() {
            return self.live_lookup(dir, name);
        }
        let inode = self.vfs.inode(dir)?;
        let fs = inode.fs;
        let d = match &inode.kind {
            Kind::Dir(d) => d,
            Kind::Synth(_) => return self.synth_lookup(dir, name),
            _ => return Err(Errno::ENOTDIR),
        };
        match d.names.get(name).map(|e| e.target) {
            Some(Target::Inode(id)) => return Ok(Some(id)),
            Some(Target::Whiteout | Target::Negative) => return Ok(None),
            Some(Target::Lower(..)) => {}
            None if d.listed => return Ok(None),
            None => {}
        }
        let (Some(base), Some(_)) = (&d.lower, &self.vfs.root_fd) else { return Ok(None) };
        let path = join(base, name);
        match self.vfs.below_root(|root, shown| lower::look(root, &path, shown)) {
            Ok((mut stat, link)) => {
                if !matches!(stat.mode & super::inode::S_IFMT, super::inode::S_IFREG | super::inode::S_IFDIR)
                {
                    // Its other names in the lower tree are not known.
                    stat.nlink = 1;
                }
                let kind = match (stat.mode & super::inode::S_IFMT, link) {
                    (_, Some(target)) => Kind::Symlink(target),
                    (super::inode::S_IFDIR, _) => {
                        let shown = self.vfs.shown.allows(&path, &stat, MAY_EXEC);
                        Kind::Dir(super::inode::Dir::over(shown.then_some(path)))
                    }
                    (super::inode::S_IFREG, _) => Kind::Host { path, fd: None },
                    _ => Kind::Special,
                };
                let id = self.vfs.add(kind, stat, dir, name, fs)?;
                self.vfs.dir_mut(dir)?.set_lower(name, Target::Inode(id));
                Ok(Some(id))
            }
            Err(Errno::ENOENT) => {
                self.vfs.set_negative(dir, name)?;
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Where a symbolic link leads for this task. EINVAL when it is none.
    pub fn read_link(&mut self, tid: Tid, inode: InodeId) -> Result<Link, Errno> {
        match &self.vfs.inode(inode)?.kind {
            Kind::Symlink(target) => Ok(Link::Path(target.clone())),
            Kind::Synth(path) => {
                let path = path.clone();
                self.synth_link(tid, &path)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// Walks a path. The last component need not exist; `follow` says whether it is followed when it is a symbolic link.
    pub fn resolve(&mut self, tid: Tid, dirfd: i32, path: &[u8], follow: bool) -> Result<Walk, Errno> {
        self.resolve_within(tid, dirfd, path, follow, 0)
    }

    /// As [`Kernel::resolve`] with the bits of [`within`]. EXDEV and ELOOP where they forbid a step.
    pub fn resolve_within(
        &mut self,
        tid: Tid,
        dirfd: i32,
        path: &[u8],
        follow: bool,
        limits: u32,
    ) -> Result<Walk, Errno> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let (mut root, _) = self.fs_of(tid);
        let absolute = path.first() == Some(&b'/');
        if absolute && limits & within::BENEATH != 0 {
            return Err(Errno::EXDEV);
        }
        let scoped = limits & (within::BENEATH | within::IN_ROOT) != 0;
        if scoped {
            root = self.dirfd_inode(tid, dirfd)?;
        }
        let start = if absolute || scoped { root } else { self.dirfd_inode(tid, dirfd)? };
        self.walk_path(tid, root, start, path, follow, limits)
    }

    /// Whether a step from one directory to another is allowed. EXDEV.
    fn may_cross(&self, from: InodeId, to: InodeId, limits: u32) -> Result<(), Errno> {
        let crosses = || Ok::<_, Errno>(self.vfs.inode(from)?.fs != self.vfs.inode(to)?.fs);
        if limits & within::NO_XDEV != 0 && crosses()? { Err(Errno::EXDEV) } else { Ok(()) }
    }

    /// The directory at an absolute path, for the kernel's own use. ENOENT, ENOTDIR.
    pub fn lookup_dir(&mut self, tid: Tid, path: &[u8]) -> Result<InodeId, Errno> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let (root, _) = self.fs_of(tid);
        let walk = self.walk_path(tid, root, root, path, true, 0)?;
        let inode = self.existing(&walk)?;
        if self.vfs.inode(inode)?.is_dir() { Ok(inode) } else { Err(Errno::ENOTDIR) }
    }

    /// The inode a walk ended at. ENOENT; ENOTDIR when a slash asked for a directory and it is none.
    pub fn existing(&self, walk: &Walk) -> Result<InodeId, Errno> {
        let inode = walk.inode.ok_or(Errno::ENOENT)?;
        if walk.dir && !self.vfs.inode(inode)?.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        Ok(inode)
    }

    fn walk_path(
        &mut self,
        tid: Tid,
        root: InodeId,
        start: InodeId,
        path: &[u8],
        follow: bool,
        limits: u32,
    ) -> Result<Walk, Errno> {
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let creds = self.creds_of(tid);
        let mut todo: Vec<Vec<u8>> = components(path);
        let mut dir = path.last() == Some(&b'/');
        let mut links = 0;
        let mut cur = start;
        let mut at =
            Walk { parent: start, name: Vec::new(), last: Last::Root, inode: Some(start), file: None, dir };
        while let Some(name) = todo.pop() {
            let last = todo.is_empty();
            if !self.vfs.inode(cur)?.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            self.permission(&creds, cur, MAY_EXEC)?;
            if name == b"." || name == b".." {
                if name == b".." && cur != root {
                    let above = self.vfs.inode(cur)?.parent;
                    self.may_cross(cur, above, limits)?;
                    cur = above;
                } else if name == b".." && limits & within::BENEATH != 0 {
                    return Err(Errno::EXDEV);
                }
                let kind = if name == b"." { Last::Dot } else { Last::DotDot };
                at = Walk { parent: cur, name: Vec::new(), last: kind, inode: Some(cur), file: None, dir };
                continue;
            }
            let Some(id) = self.lookup(cur, &name)?.map(|id| self.vfs.mounts.top(id)) else {
                if !last {
                    return Err(Errno::ENOENT);
                }
                return Ok(Walk { parent: cur, name, last: Last::Name, inode: None, file: None, dir });
            };
            self.may_cross(cur, id, limits)?;
            at = Walk { parent: cur, name, last: Last::Name, inode: Some(id), file: None, dir };
            if self.vfs.inode(id)?.file_type() != S_IFLNK || (last && !follow && !dir) {
                cur = id;
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::ELOOP);
            }
            if limits & within::NO_SYMLINKS != 0 {
                return Err(Errno::ELOOP);
            }
            let link = self.read_link(tid, id)?;
            let plain = ["proc/self", "proc/thread-self", "proc/mounts"];
            let magic =
                matches!(&self.vfs.inode(id)?.kind, Kind::Synth(path) if !plain.contains(&path.as_str()));
            if magic {
                if limits & within::NO_MAGICLINKS != 0 {
                    return Err(Errno::ELOOP);
                }
                if limits & (within::BENEATH | within::IN_ROOT) != 0 {
                    return Err(Errno::EXDEV);
                }
            }
            match link {
                Link::Path(target) => {
                    if target.is_empty() {
                        return Err(Errno::ENOENT);
                    }
                    if target.first() == Some(&b'/') {
                        if limits & within::BENEATH != 0 {
                            return Err(Errno::EXDEV);
                        }
                        self.may_cross(cur, root, limits)?;
                        cur = root;
                        at = Walk {
                            parent: root,
                            name: Vec::new(),
                            last: Last::Root,
                            inode: Some(root),
                            file: None,
                            dir,
                        };
                    }
                    if last && target.last() == Some(&b'/') {
                        dir = true;
                        at.dir = true;
                    }
                    todo.extend(components(&target));
                }
                Link::Inode(id) => {
                    self.may_cross(cur, id, limits)?;
                    at.inode = Some(id);
                    cur = id;
                }
                Link::File(_) if !last => return Err(Errno::ENOTDIR),
                Link::File(file) => at.file = Some(file),
            }
        }
        Ok(at)
    }
}

/// A path below a lower directory.
pub fn join(base: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = base.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Components of a path, the first one last.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').rev().filter(|c| !c.is_empty()).map(<[u8]>::to_vec).collect()
}
