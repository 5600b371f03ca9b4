//! The lower tree: a host directory that is only ever read, below one descriptor.
//!
//! Paths arrive here already walked component by component; the host resolves no symbolic link and no `..` for the guest. The tree may
//! hold anything; only regular files and directories are opened, never blocking.

use super::Stat;
use super::inode::{S_IFDIR, S_IFMT, S_IFREG};
use super::path::{MAY_EXEC, MAY_READ};
use crate::errno::Errno;
use crate::num::low32;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What of the lower tree is for the guest to see. By default, all that this process may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Paths in the lower tree, without a slash before them and without links on the way: at and below each, directories appear empty
    /// and files cannot be read, whatever is there by then.
    pub paths: Vec<Vec<u8>>,
    /// Device and inode numbers of directories and files that are hidden in the same way, wherever they are met. Who gives them holds
    /// these objects, so that no other one gets their numbers.
    pub hidden: Vec<(u64, u64)>,
    /// Only what everybody may see on the host, as its mode bits for others say. The root directory itself is what was chosen to be shown.
    pub public_only: bool,
}

impl Shown {
    /// Whether a path of the lower tree is a hidden one or below one.
    pub(super) fn hides(&self, path: &[u8]) -> bool {
        let below = |hidden: &Vec<u8>| matches!(path.strip_prefix(&hidden[..]), Some([] | [b'/', ..]));
        self.paths.iter().any(below)
    }

    /// Whether `needed`, permission bits of others, are there for what is at `path` and not hidden.
    pub(super) fn allows(&self, path: &[u8], stat: &Stat, needed: u32) -> bool {
        !self.hides(path)
            && !self.hidden.contains(&(stat.dev, stat.ino))
            && (!self.public_only || stat.mode & needed == needed)
    }
}

pub(super) fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    open_with(root, path, flags | OFlags::NOFOLLOW, ResolveFlags::NO_SYMLINKS)
}

fn open_with(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let path: &[u8] = if path.is_empty() { b"." } else { path };
    let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC;
    for _ in 0..8 {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // A rename somewhere on the host raced with the walk.
            Err(rustix::io::Errno::AGAIN) => {}
            Err(rustix::io::Errno::MFILE) => return Err(Errno::ENFILE),
            other => return Ok(other?),
        }
    }
    Err(Errno::EIO)
}

/// Attributes of an open lower file.
pub fn stat_fd(fd: BorrowedFd<'_>) -> Result<Stat, Errno> {
    let s = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
    let time = |t: rustix::fs::StatxTimestamp| (t.tv_sec, t.tv_nsec);
    Ok(Stat {
        dev: rustix::fs::makedev(s.stx_dev_major, s.stx_dev_minor),
        ino: s.stx_ino.max(1),
        nlink: u64::from(s.stx_nlink),
        mode: u32::from(s.stx_mode),
        uid: s.stx_uid,
        gid: s.stx_gid,
        rdev: rustix::fs::makedev(s.stx_rdev_major, s.stx_rdev_minor),
        size: s.stx_size,
        blksize: u64::from(s.stx_blksize),
        blocks: s.stx_blocks,
        atime: time(s.stx_atime),
        mtime: time(s.stx_mtime),
        ctime: time(s.stx_ctime),
        btime: time(s.stx_btime),
    })
}

/// Attributes of a path and, for a symbolic link, its target. ENOENT and the host's other errors.
pub fn stat(root: BorrowedFd<'_>, path: &[u8]) -> Result<(Stat, Option<Vec<u8>>), Errno> {
    let fd = open(root, path, OFlags::PATH)?;
    let stat = stat_fd(fd.as_fd())?;
    let link = if stat.mode & S_IFMT == super::inode::S_IFLNK {
        Some(rustix::fs::readlinkat(&fd, c"", Vec::new())?.into_bytes())
    } else {
        None
    };
    Ok((stat, link))
}

/// As [`stat`]. A hidden link leads nowhere, as it may lead elsewhere since it was hidden: it is what it leads to, empty or unreadable.
pub(super) fn look(
    root: BorrowedFd<'_>,
    path: &[u8],
    shown: &Shown,
) -> Result<(Stat, Option<Vec<u8>>), Errno> {
    let (stat, link) = stat(root, path)?;
    if link.is_none() || !shown.hides(path) {
        return Ok((stat, link));
    }
    match open_with(root, path, OFlags::PATH, ResolveFlags::empty()) {
        Ok(fd) => Ok((stat_fd(fd.as_fd())?, None)),
        Err(Errno::ENFILE) => Err(Errno::ENFILE),
        Err(_) => Ok((Stat { mode: S_IFREG, ..stat }, None)),
    }
}

/// Opens a regular file for reading. EACCES when it is something else by now, or not for the guest to see: what counts is what was opened.
pub fn open_file(root: BorrowedFd<'_>, path: &[u8], shown: &Shown) -> Result<OwnedFd, Errno> {
    if shown.hides(path) {
        return Err(Errno::EACCES);
    }
    let fd = open(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    let stat = stat_fd(fd.as_fd())?;
    if stat.mode & S_IFMT != S_IFREG || !shown.allows(path, &stat, MAY_READ) {
        return Err(Errno::EACCES);
    }
    Ok(fd)
}

/// Names in a directory: (name, inode number, DT_ type), without `.` and `..`. EACCES where they are not for the guest to see.
pub fn list(root: BorrowedFd<'_>, path: &[u8], shown: &Shown) -> Result<Vec<(Vec<u8>, u64, u8)>, Errno> {
    let fd = open(root, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let stat = stat_fd(fd.as_fd())?;
    if stat.mode & S_IFMT != S_IFDIR {
        return Err(Errno::ENOTDIR);
    }
    if !path.is_empty() && !shown.allows(path, &stat, MAY_READ | MAY_EXEC) {
        return Err(Errno::EACCES);
    }
    let mut out = Vec::new();
    for entry in rustix::fs::Dir::new(fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = super::inode::dtype(low32(u64::from(entry.file_type().as_raw_mode())));
        out.push((name.to_vec(), entry.ino(), kind));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::inode::Kind;
    use super::*;
    use crate::abi::AT_FDCWD;
    use crate::kernel::{Kernel, Limits};
    use crate::platform::fake::FakePlatform;
    use linux_raw_sys::general as g;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;

    fn kernel(root: &Path, shown: Shown) -> Kernel {
        let platform = std::sync::Arc::new(FakePlatform::new(64 << 20));
        let mut k = Kernel::new(platform, Limits::default()).unwrap();
        k.show_only(shown);
        k.mount_root(fs::File::open(root).unwrap().into()).unwrap();
        k
    }

    /// The first byte of a file.
    fn read(k: &mut Kernel, path: &str) -> Result<u8, Errno> {
        let file = k.open_path(0, AT_FDCWD, path.as_bytes(), g::O_RDONLY, 0)?;
        let super::super::FileKind::Inode(id) = k.files.get(file).unwrap().kind else { panic!("{path}") };
        let mut byte = [0];
        k.inode_read(id, 0, &mut byte)?;
        Ok(byte[0])
    }

    fn list(k: &mut Kernel, path: &str) -> Result<Vec<String>, Errno> {
        let dir = k.lookup_dir(0, path.as_bytes())?;
        let lines = k.inode_readdir(dir, 2, 100)?;
        Ok(lines.into_iter().map(|l| String::from_utf8(l.name).unwrap()).collect())
    }

    fn tree() -> tempfile::TempDir {
        // 0700, as temporary directories are: what was chosen for the root is shown.
        let top = tempfile::tempdir().unwrap();
        let make = |path: &str, mode: u32| {
            let path = top.path().join(path);
            if path.extension().is_none() {
                fs::create_dir(&path).unwrap();
                fs::write(path.join("file"), "x").unwrap();
            } else {
                fs::write(&path, "x").unwrap();
            }
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        };
        for (path, mode) in [("all.f", 0o604), ("own.f", 0o640), ("program.f", 0o711)] {
            make(path, mode);
        }
        for (path, mode) in
            [("open", 0o755), ("own", 0o750), ("search", 0o711), ("names", 0o744), ("tmp", 0o700)]
        {
            make(path, mode);
        }
        std::os::unix::fs::symlink("own/file", top.path().join("link")).unwrap();
        top
    }

    #[test]
    fn a_guest_sees_what_everybody_may() {
        let top = tree();
        let mut k = kernel(top.path(), Shown { public_only: true, ..Shown::default() });
        for good in ["/all.f", "/open/file", "/search/file"] {
            assert_eq!(read(&mut k, good), Ok(b'x'), "{good}");
        }
        for secret in ["/own.f", "/program.f"] {
            assert_eq!(read(&mut k, secret), Err(Errno::EACCES), "{secret}");
            // A root of its own may say that it is for all; the host has not.
            let walk = k.resolve(0, AT_FDCWD, secret.as_bytes(), true).unwrap();
            k.vfs.inode_mut(walk.inode.unwrap()).unwrap().stat.mode |= 0o777;
            assert_eq!(read(&mut k, secret), Err(Errno::EACCES), "{secret}");
            let changing = k.open_path(0, AT_FDCWD, secret.as_bytes(), g::O_RDWR, 0);
            assert_eq!(changing, Err(Errno::EACCES), "{secret}");
        }
        for secret in ["/own/file", "/names/file", "/tmp/file", "/link"] {
            assert_eq!(read(&mut k, secret), Err(Errno::ENOENT), "{secret}");
        }
        for empty in ["/own", "/names", "/tmp"] {
            assert_eq!(list(&mut k, empty), Ok(Vec::new()), "{empty}");
        }
        assert_eq!(list(&mut k, "/search"), Err(Errno::EACCES));
        assert_eq!(list(&mut k, "/open"), Ok(vec!["file".to_owned()]));
        assert!(list(&mut k, "/").unwrap().contains(&"own".to_owned()));
        // Their places are the guest's to use.
        let new = k.open_path(0, AT_FDCWD, b"/own/new", g::O_WRONLY | g::O_CREAT, 0o600);
        assert!(new.is_ok(), "{new:?}");
        let over = k.open_path(0, AT_FDCWD, b"/own.f", g::O_WRONLY | g::O_TRUNC, 0).unwrap();
        let super::super::FileKind::Inode(id) = k.files.get(over).unwrap().kind else { panic!() };
        assert!(matches!(k.vfs.inode(id).unwrap().kind, Kind::File(_)));
    }

    #[test]
    fn a_file_whose_mode_has_changed_since_it_was_looked_up_stays_closed() {
        let top = tree();
        let mut k = kernel(top.path(), Shown { public_only: true, ..Shown::default() });
        k.resolve(0, AT_FDCWD, b"/all.f", true).unwrap();
        fs::set_permissions(top.path().join("all.f"), PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(read(&mut k, "/all.f"), Err(Errno::EACCES));
    }

    #[test]
    fn what_is_hidden_is_hidden_under_every_name() {
        let top = tree();
        fs::hard_link(top.path().join("all.f"), top.path().join("open/other.f")).unwrap();
        let node = |path: &str| {
            let meta = fs::metadata(top.path().join(path)).unwrap();
            (meta.dev(), meta.ino())
        };
        let hidden = vec![node("all.f"), node("search"), node("tmp")];
        let mut k = kernel(top.path(), Shown { hidden, ..Shown::default() });
        for closed in ["/all.f", "/open/other.f"] {
            assert_eq!(read(&mut k, closed), Err(Errno::EACCES), "{closed}");
        }
        for empty in ["/search", "/tmp"] {
            assert_eq!(list(&mut k, empty), Ok(Vec::new()), "{empty}");
        }
        assert_eq!((read(&mut k, "/own.f"), read(&mut k, "/link")), (Ok(b'x'), Ok(b'x')));
    }

    #[test]
    fn what_comes_to_a_hidden_path_is_hidden() {
        let top = tree();
        let at = |path: &str| top.path().join(path);
        let paths = ["all.f", "open", "search/file", "later", "link"].map(|p| p.as_bytes().to_vec()).to_vec();
        let shown = Shown { paths, ..Shown::default() };
        // One that has looked before, and one that has not.
        let mut old = kernel(top.path(), shown.clone());
        assert_eq!(read(&mut old, "/all.f"), Err(Errno::EACCES));
        assert_eq!(read(&mut old, "/search/file"), Err(Errno::EACCES));
        assert_eq!(list(&mut old, "/open"), Ok(Vec::new()));
        for (new, path) in [("new", "all.f"), ("new", "search/file"), ("new", "openfile.f")] {
            fs::write(at(new), "new").unwrap();
            fs::rename(at(new), at(path)).unwrap();
        }
        fs::rename(at("open"), at("away")).unwrap();
        fs::rename(at("names"), at("open")).unwrap();
        fs::create_dir_all(at("later/on")).unwrap();
        fs::write(at("later/on/file"), "new").unwrap();
        fs::remove_file(at("link")).unwrap();
        std::os::unix::fs::symlink("own.f", at("link")).unwrap();
        let mut young = kernel(top.path(), shown);
        for k in [&mut old, &mut young] {
            for closed in ["/all.f", "/search/file", "/link"] {
                assert_eq!(read(k, closed), Err(Errno::EACCES), "{closed}");
            }
            for empty in ["/open", "/later"] {
                assert_eq!(list(k, empty), Ok(Vec::new()), "{empty}");
            }
            for gone in ["/open/file", "/later/on/file"] {
                assert_eq!(read(k, gone), Err(Errno::ENOENT), "{gone}");
            }
            // A longer name is another one.
            assert_eq!((read(k, "/openfile.f"), read(k, "/own.f")), (Ok(b'n'), Ok(b'x')));
        }
    }

    #[test]
    fn what_becomes_hidden_while_it_is_known_stays_closed() {
        let top = tree();
        let fd = fs::File::open(top.path()).unwrap();
        let shown = Shown { paths: vec![b"own".to_vec()], ..Shown::default() };
        for hidden in ["own", "own/file"] {
            let (path, root) = (hidden.as_bytes(), fd.as_fd());
            assert_eq!(open_file(root, path, &shown).unwrap_err(), Errno::EACCES);
        }
        assert_eq!(super::list(fd.as_fd(), b"own", &shown).unwrap_err(), Errno::EACCES);
    }

    #[test]
    fn a_hidden_link_leads_nowhere() {
        let top = tree();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, top.path().join(name)).unwrap();
        link("open", "l1");
        link("/all.f", "l2");
        link("gone", "l3");
        let paths = ["l1", "l2", "l3"].map(|p| p.as_bytes().to_vec()).to_vec();
        let mut k = kernel(top.path(), Shown { paths, ..Shown::default() });
        assert_eq!(list(&mut k, "/l1"), Ok(Vec::new()));
        assert_eq!(read(&mut k, "/l1/file"), Err(Errno::ENOENT));
        assert_eq!((read(&mut k, "/l2"), read(&mut k, "/l3")), (Err(Errno::EACCES), Err(Errno::EACCES)));
        // Under their own names they are not.
        assert_eq!((read(&mut k, "/open/file"), read(&mut k, "/all.f")), (Ok(b'x'), Ok(b'x')));
    }
}
