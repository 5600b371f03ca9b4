//! System calls on paths: opening, describing, changing and listing what is in the file tree.
//!
//! Calls on descriptors alone (read, lseek, fstat, ...) are in `fd`.

use super::{Arg, Context, Entry};
use crate::abi::{AT_FDCWD, PATH_MAX};
use crate::errno::Errno;
use crate::num::int;
use crate::platform::Va;
use crate::vfs::InodeId;
use linux_raw_sys::general as g;

mod attrs;
mod dents;
mod handle;
mod names;
mod open;
mod stat;
mod xattr;

const O_FLAGS: Arg = Arg::Flags(&[
    ("O_WRONLY", 1),
    ("O_RDWR", 2),
    ("O_CREAT", 0o100),
    ("O_EXCL", 0o200),
    ("O_NOCTTY", 0o400),
    ("O_TRUNC", 0o1000),
    ("O_APPEND", 0o2000),
    ("O_NONBLOCK", 0o4000),
    ("O_DSYNC", 0o10000),
    ("O_DIRECT", 0o40000),
    ("O_LARGEFILE", 0o100_000),
    ("O_DIRECTORY", 0o200_000),
    ("O_NOFOLLOW", 0o400_000),
    ("O_NOATIME", 0o1_000_000),
    ("O_CLOEXEC", 0o2_000_000),
    ("O_PATH", 0o10_000_000),
]);
const AT_FLAGS: Arg = Arg::Flags(&[
    ("AT_SYMLINK_NOFOLLOW", 0x100),
    ("AT_REMOVEDIR", 0x200),
    ("AT_SYMLINK_FOLLOW", 0x400),
    ("AT_NO_AUTOMOUNT", 0x800),
    ("AT_EMPTY_PATH", 0x1000),
]);
const ACCESS_MODE: Arg = Arg::Flags(&[("X_OK", 1), ("W_OK", 2), ("R_OK", 4)]);
const RENAME_FLAGS: Arg = Arg::Flags(&[("RENAME_NOREPLACE", 1), ("RENAME_EXCHANGE", 2)]);

use Arg::{DirFd, Fd, Hex, In, Int, Octal, Out, Path, Ptr, Uint};

const DEVICE_NOTE: &str = "of devices only those of mem(4), null(4), full(4) and random(4) can be opened";
const XATTR_NOTE: &str = "no access control lists; attributes of lower files are not shown";
const ROOT_NOTE: &str = "the sandbox's root is fixed; chroot(2) works";
const NEW_ROOT: super::Support = super::Support::Refused(Errno::EPERM, ROOT_NOTE);

const fn refused(number: u32, name: &'static str, args: &'static [Arg]) -> Entry {
    Entry { number, name, args, support: NEW_ROOT, handler: attrs::not_permitted }
}

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::full(g::__NR_open, "open", &[Path, O_FLAGS, Octal], open::open),
    Entry::full(g::__NR_openat, "openat", &[DirFd, Path, O_FLAGS, Octal], open::openat),
    Entry::full(g::__NR_openat2, "openat2", &[DirFd, Path, Ptr, Uint], open::openat2),
    Entry::full(g::__NR_creat, "creat", &[Path, Octal], open::creat),
    Entry::full(g::__NR_stat, "stat", &[Path, Ptr], stat::stat),
    Entry::full(g::__NR_lstat, "lstat", &[Path, Ptr], stat::lstat),
    Entry::full(g::__NR_newfstatat, "newfstatat", &[DirFd, Path, Ptr, AT_FLAGS], stat::newfstatat),
    Entry::partial(
        g::__NR_statx,
        "statx",
        &[DirFd, Path, AT_FLAGS, Hex, Ptr],
        "no attributes (STATX_ATTR_), no STATX_DIOALIGN",
        stat::statx,
    ),
    Entry::full(g::__NR_access, "access", &[Path, ACCESS_MODE], stat::access),
    Entry::full(g::__NR_faccessat, "faccessat", &[DirFd, Path, ACCESS_MODE], stat::faccessat),
    Entry::full(g::__NR_faccessat2, "faccessat2", &[DirFd, Path, ACCESS_MODE, Hex], stat::faccessat2),
    Entry::full(g::__NR_readlink, "readlink", &[Path, Out, Uint], stat::readlink),
    Entry::full(g::__NR_readlinkat, "readlinkat", &[DirFd, Path, Out, Uint], stat::readlinkat),
    Entry::full(g::__NR_statfs, "statfs", &[Path, Ptr], stat::statfs),
    Entry::full(g::__NR_fstatfs, "fstatfs", &[Fd, Ptr], stat::fstatfs),
    Entry::full(g::__NR_getcwd, "getcwd", &[Out, Uint], dents::getcwd),
    Entry::full(g::__NR_chdir, "chdir", &[Path], dents::chdir),
    Entry::full(g::__NR_fchdir, "fchdir", &[Fd], dents::fchdir),
    Entry::partial(g::__NR_chroot, "chroot", &[Path], "needs user id 0", dents::chroot),
    Entry::full(g::__NR_umask, "umask", &[Octal], dents::umask),
    Entry::full(g::__NR_getdents, "getdents", &[Fd, Ptr, Uint], dents::getdents),
    Entry::full(g::__NR_getdents64, "getdents64", &[Fd, Ptr, Uint], dents::getdents64),
    Entry::full(g::__NR_mkdir, "mkdir", &[Path, Octal], names::mkdir),
    Entry::full(g::__NR_mkdirat, "mkdirat", &[DirFd, Path, Octal], names::mkdirat),
    Entry::full(g::__NR_rmdir, "rmdir", &[Path], names::rmdir),
    Entry::full(g::__NR_unlink, "unlink", &[Path], names::unlink),
    Entry::full(g::__NR_unlinkat, "unlinkat", &[DirFd, Path, AT_FLAGS], names::unlinkat),
    Entry::full(g::__NR_rename, "rename", &[Path, Path], names::rename),
    Entry::full(g::__NR_renameat, "renameat", &[DirFd, Path, DirFd, Path], names::renameat),
    Entry::full(g::__NR_renameat2, "renameat2", &[DirFd, Path, DirFd, Path, RENAME_FLAGS], names::renameat2),
    Entry::full(g::__NR_link, "link", &[Path, Path], names::link),
    Entry::full(g::__NR_linkat, "linkat", &[DirFd, Path, DirFd, Path, AT_FLAGS], names::linkat),
    Entry::full(g::__NR_symlink, "symlink", &[Path, Path], names::symlink),
    Entry::full(g::__NR_symlinkat, "symlinkat", &[Path, DirFd, Path], names::symlinkat),
    Entry::partial(g::__NR_mknod, "mknod", &[Path, Octal, Hex], DEVICE_NOTE, names::mknod),
    Entry::partial(g::__NR_mknodat, "mknodat", &[DirFd, Path, Octal, Hex], DEVICE_NOTE, names::mknodat),
    Entry::partial(
        g::__NR_name_to_handle_at,
        "name_to_handle_at",
        &[DirFd, Path, Ptr, Ptr, AT_FLAGS],
        "handles last as long as the sandbox and its forks",
        handle::name_to_handle_at,
    ),
    Entry::partial(
        g::__NR_open_by_handle_at,
        "open_by_handle_at",
        &[Fd, Ptr, O_FLAGS],
        "no FIFOs",
        handle::open_by_handle_at,
    ),
    Entry::full(g::__NR_chmod, "chmod", &[Path, Octal], attrs::chmod),
    Entry::full(g::__NR_fchmod, "fchmod", &[Fd, Octal], attrs::fchmod),
    Entry::full(g::__NR_fchmodat, "fchmodat", &[DirFd, Path, Octal], attrs::fchmodat),
    Entry::full(g::__NR_fchmodat2, "fchmodat2", &[DirFd, Path, Octal, AT_FLAGS], attrs::fchmodat2),
    Entry::full(g::__NR_chown, "chown", &[Path, Int, Int], attrs::chown),
    Entry::full(g::__NR_fchown, "fchown", &[Fd, Int, Int], attrs::fchown),
    Entry::full(g::__NR_lchown, "lchown", &[Path, Int, Int], attrs::lchown),
    Entry::full(g::__NR_fchownat, "fchownat", &[DirFd, Path, Int, Int, AT_FLAGS], attrs::fchownat),
    Entry::full(g::__NR_truncate, "truncate", &[Path, Uint], attrs::truncate),
    Entry::full(g::__NR_utime, "utime", &[Path, Ptr], attrs::utime),
    Entry::full(g::__NR_utimes, "utimes", &[Path, Ptr], attrs::utimes),
    Entry::full(g::__NR_futimesat, "futimesat", &[DirFd, Path, Ptr], attrs::futimesat),
    Entry::full(g::__NR_utimensat, "utimensat", &[DirFd, Path, Ptr, AT_FLAGS], attrs::utimensat),
    Entry::full(g::__NR_sync, "sync", &[], attrs::sync),
    Entry::full(g::__NR_syncfs, "syncfs", &[Fd], attrs::syncfs),
    refused(g::__NR_pivot_root, "pivot_root", &[Path, Path]),
    Entry::partial(
        g::__NR_setxattr,
        "setxattr",
        &[Path, Path, In(3), Uint, Hex],
        XATTR_NOTE,
        xattr::setxattr,
    ),
    Entry::partial(
        g::__NR_lsetxattr,
        "lsetxattr",
        &[Path, Path, In(3), Uint, Hex],
        XATTR_NOTE,
        xattr::lsetxattr,
    ),
    Entry::partial(
        g::__NR_fsetxattr,
        "fsetxattr",
        &[Fd, Path, In(3), Uint, Hex],
        XATTR_NOTE,
        xattr::fsetxattr,
    ),
    Entry::partial(g::__NR_getxattr, "getxattr", &[Path, Path, Out, Uint], XATTR_NOTE, xattr::getxattr),
    Entry::partial(g::__NR_lgetxattr, "lgetxattr", &[Path, Path, Out, Uint], XATTR_NOTE, xattr::lgetxattr),
    Entry::partial(g::__NR_fgetxattr, "fgetxattr", &[Fd, Path, Out, Uint], XATTR_NOTE, xattr::fgetxattr),
    Entry::partial(g::__NR_listxattr, "listxattr", &[Path, Out, Uint], XATTR_NOTE, xattr::listxattr),
    Entry::partial(g::__NR_llistxattr, "llistxattr", &[Path, Out, Uint], XATTR_NOTE, xattr::llistxattr),
    Entry::partial(g::__NR_flistxattr, "flistxattr", &[Fd, Out, Uint], XATTR_NOTE, xattr::flistxattr),
    Entry::partial(g::__NR_removexattr, "removexattr", &[Path, Path], XATTR_NOTE, xattr::removexattr),
    Entry::partial(g::__NR_lremovexattr, "lremovexattr", &[Path, Path], XATTR_NOTE, xattr::lremovexattr),
    Entry::partial(g::__NR_fremovexattr, "fremovexattr", &[Fd, Path], XATTR_NOTE, xattr::fremovexattr),
];

/// What a path or descriptor names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Object {
    /// Something in the tree.
    Inode(InodeId),
    /// An open file that is not.
    File(u64),
}

impl Object {
    /// The inode. `other` where there is none.
    fn inode(self, other: Errno) -> Result<InodeId, Errno> {
        match self {
            Object::Inode(id) => Ok(id),
            Object::File(_) => Err(other),
        }
    }
}

impl Context<'_> {
    /// Copies a path in. EFAULT, ENAMETOOLONG.
    fn path(&mut self, va: Va) -> Result<Vec<u8>, Errno> {
        self.k.copy_in_str(self.tid, va, PATH_MAX)
    }

    /// What an open descriptor stands for. EBADF.
    fn object_of(&mut self, fd: i32) -> Result<Object, Errno> {
        let file = self.k.file_of(self.tid, fd)?;
        let open = self.k.files.get(file).ok_or(Errno::EBADF)?;
        Ok(open.kind.inode().map_or(Object::File(file), Object::Inode))
    }

    /// What an open descriptor stands for when it was not opened with O_PATH. EBADF.
    fn open_object(&mut self, fd: i32) -> Result<Object, Errno> {
        let file = self.k.file_of(self.tid, fd)?;
        if self.k.files.get(file).is_none_or(|f| f.flags & g::O_PATH != 0) {
            return Err(Errno::EBADF);
        }
        self.object_of(fd)
    }

    /// The object at a path that must exist.
    fn object_at(&mut self, dirfd: i32, path: &[u8], follow: bool) -> Result<Object, Errno> {
        let walk = self.k.resolve(self.tid, dirfd, path, follow)?;
        match walk.file {
            Some(file) => Ok(Object::File(file)),
            None => Ok(Object::Inode(self.k.existing(&walk)?)),
        }
    }

    /// The object that an `*at` call names: an empty path with AT_EMPTY_PATH is the descriptor itself (or the working directory).
    fn object_at_flags(&mut self, dirfd: u64, path: Va, flags: u32, follow: bool) -> Result<Object, Errno> {
        let dirfd = int(dirfd);
        let path = self.path(path)?;
        if path.is_empty() && flags & g::AT_EMPTY_PATH != 0 {
            return if dirfd == AT_FDCWD {
                Ok(Object::Inode(self.k.fs_of(self.tid).1))
            } else {
                self.object_of(dirfd)
            };
        }
        self.object_at(dirfd, &path, follow)
    }
}

/// AT_FDCWD as an argument.
const CWD: u64 = 0xffff_ff9c;
