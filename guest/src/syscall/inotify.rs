//! System calls that watch the file tree: inotify(7).

use super::{Arg, Context, Entry, ret};
use crate::errno::Errno;
use crate::num::{int, low32};
use crate::vfs::FileKind;
use crate::vfs::file::O_NONBLOCK;
use crate::vfs::path::MAY_READ;
use crate::wait::SysResult;
use linux_raw_sys::general as g;

const CLOEXEC: u32 = 0o2_000_000;
/// All bits that inotify_add_watch(2) takes.
const KNOWN: u32 = g::IN_ALL_EVENTS
    | g::IN_UNMOUNT
    | g::IN_Q_OVERFLOW
    | g::IN_IGNORED
    | g::IN_ONLYDIR
    | g::IN_DONT_FOLLOW
    | g::IN_EXCL_UNLINK
    | g::IN_MASK_ADD
    | g::IN_MASK_CREATE
    | g::IN_ISDIR
    | g::IN_ONESHOT;

use Arg::{Fd, Hex, Int, Path};

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::full(253, "inotify_init", &[], |c, _| make(c, 0)),
    Entry::full(254, "inotify_add_watch", &[Fd, Path, Hex], add_watch),
    Entry::full(255, "inotify_rm_watch", &[Fd, Int], rm_watch),
    Entry::full(294, "inotify_init1", &[Hex], |c, &[flags, ..]| make(c, low32(flags))),
];

fn make(c: &mut Context<'_>, flags: u32) -> SysResult {
    if flags & !(CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = c.k.inotify_open(flags & O_NONBLOCK)?;
    ret(u64::from(c.k.install_fd(c.tid, file, flags & CLOEXEC != 0)?))
}

/// The queue behind a descriptor. EBADF, EINVAL.
fn queue(c: &Context<'_>, fd: u64) -> Result<u64, Errno> {
    let file = c.k.usable_file_of(c.tid, int(fd))?;
    match c.k.open_file(file)?.kind {
        FileKind::Inotify(id) => Ok(id),
        _ => Err(Errno::EINVAL),
    }
}

fn add_watch(c: &mut Context<'_>, &[fd, path, mask, ..]: &[u64; 6]) -> SysResult {
    let mask = low32(mask);
    if mask & !KNOWN != 0 || mask & KNOWN == 0 {
        return Err(Errno::EINVAL);
    }
    c.k.usable_file_of(c.tid, int(fd))?;
    if mask & g::IN_MASK_ADD != 0 && mask & g::IN_MASK_CREATE != 0 {
        return Err(Errno::EINVAL);
    }
    let id = queue(c, fd)?;
    let path = c.k.copy_in_str(c.tid, path, crate::abi::PATH_MAX)?;
    let walk = c.k.resolve(c.tid, crate::abi::AT_FDCWD, &path, mask & g::IN_DONT_FOLLOW == 0)?;
    if walk.file.is_some() {
        return Err(Errno::EACCES);
    }
    let inode = c.k.existing(&walk)?;
    if mask & g::IN_ONLYDIR != 0 && !c.k.vfs.inode(inode)?.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    let creds = c.k.creds_of(c.tid);
    c.k.permission(&creds, inode, MAY_READ)?;
    let wd = c.k.inotify_add(id, inode, mask)?;
    ret(u64::from(wd.cast_unsigned()))
}

fn rm_watch(c: &mut Context<'_>, &[fd, wd, ..]: &[u64; 6]) -> SysResult {
    let id = queue(c, fd)?;
    c.k.inotify_remove(id, int(wd))?;
    ret(0)
}
