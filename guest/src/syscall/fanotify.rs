//! fanotify_init(2) and fanotify_mark(2).

use super::{Arg, Context, Entry, ret};
use crate::errno::Errno;
use crate::num::{int, low32};
use crate::task::creds::cap::SYS_ADMIN;
use crate::vfs::fanotify::{
    DIRENT, EVENTS, Mark, Marked, ON_CHILD, ONDIR, OPENED, REPORT_DIR_FID, REPORT_FID, REPORT_NAME,
    REPORT_TARGET_FID, REPORT_TID,
};
use crate::vfs::file::{O_NONBLOCK, O_PATH};
use crate::vfs::path::MAY_READ;
use crate::vfs::{FileKind, InodeId};
use crate::wait::SysResult;

use Arg::{DirFd, Fd, Hex, Path};

const CLOEXEC: u32 = 0o2_000_000;
/// FAN_REPORT_PIDFD.
const REPORT_PIDFD: u32 = 0x80;
/// FAN_CLASS_CONTENT and FAN_CLASS_PRE_CONTENT: of use for permission events alone.
const CLASS: u32 = 0xc;
/// FAN_CLOEXEC, FAN_NONBLOCK, the classes, FAN_UNLIMITED_QUEUE, FAN_UNLIMITED_MARKS, and what is reported.
const INIT_FLAGS: u32 = 1 | 2 | CLASS | 0x30 | REPORT_TID | FID_FLAGS | REPORT_TARGET_FID | REPORT_PIDFD;
const FID_FLAGS: u32 = REPORT_FID | REPORT_DIR_FID | REPORT_NAME;
/// O_ACCMODE, O_APPEND, O_NONBLOCK, O_DSYNC, __O_SYNC, O_LARGEFILE, O_NOATIME, O_CLOEXEC.
const EVENT_FLAGS: u32 = 3 | 0o2000 | O_NONBLOCK | 0o10000 | 0o4_000_000 | 0o100_000 | 0o1_000_000 | CLOEXEC;

const ADD: u32 = 1;
const REMOVE: u32 = 2;
const DONT_FOLLOW: u32 = 4;
const ONLYDIR: u32 = 8;
const MOUNT: u32 = 0x10;
const IGNORED_MASK: u32 = 0x20;
const SURVIVES: u32 = 0x40;
const FLUSH: u32 = 0x80;
const FILESYSTEM: u32 = 0x100;
const EVICTABLE: u32 = 0x200;
const IGNORE: u32 = 0x400;
const MARK_FLAGS: u32 = 0x7ff;
/// FAN_FS_ERROR, FAN_RENAME.
const NOT_HERE: u64 = 0x8000 | 0x1000_0000;
/// FAN_OPEN_PERM, FAN_ACCESS_PERM, FAN_OPEN_EXEC_PERM.
const PERMISSION: u64 = 0x7_0000;

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::partial(
        300,
        "fanotify_init",
        &[Hex, Hex],
        "no permission events, as of a kernel without CONFIG_FANOTIFY_ACCESS_PERMISSIONS; no FAN_REPORT_PIDFD, no FAN_REPORT_TARGET_FID",
        init,
    ),
    Entry::partial(
        301,
        "fanotify_mark",
        &[Fd, Hex, Hex, DirFd, Path],
        "a mark on a mount counts for its whole file system; no FAN_RENAME, no FAN_FS_ERROR, no FAN_OPEN_EXEC events",
        mark,
    ),
];

fn init(c: &mut Context<'_>, &[flags, event_flags, ..]: &[u64; 6]) -> SysResult {
    let (flags, event_flags) = (low32(flags), low32(event_flags));
    let fid = flags & FID_FLAGS;
    let root = c.k.capable(c.tid, SYS_ADMIN);
    // Without CAP_SYS_ADMIN: identities instead of files, and nothing without limit.
    if !root
        && (flags & !(3 | FID_FLAGS | REPORT_TARGET_FID) != 0 || fid & (REPORT_FID | REPORT_DIR_FID) == 0)
    {
        return Err(Errno::EPERM);
    }
    if flags & !INIT_FLAGS != 0 || flags & (REPORT_PIDFD | REPORT_TID) == REPORT_PIDFD | REPORT_TID {
        return Err(Errno::EINVAL);
    }
    if event_flags & !EVENT_FLAGS != 0 || event_flags & 3 == 3 {
        return Err(Errno::EINVAL);
    }
    let named = flags & REPORT_NAME != 0;
    if named && flags & REPORT_DIR_FID == 0 {
        return Err(Errno::EINVAL);
    }
    if flags & REPORT_TARGET_FID != 0 && (!named || flags & REPORT_FID == 0) {
        return Err(Errno::EINVAL);
    }
    if flags & CLASS == CLASS || (fid != 0 && flags & CLASS != 0) {
        return Err(Errno::EINVAL);
    }
    if flags & (REPORT_PIDFD | REPORT_TARGET_FID) != 0 {
        return Err(c.refuse(
            "flags",
            &[u64::from(flags & (REPORT_PIDFD | REPORT_TARGET_FID))],
            Errno::EINVAL,
        ));
    }
    let file = c.k.fanotify_open(flags, event_flags)?;
    ret(u64::from(c.k.install_fd(c.tid, file, flags & 1 != 0)?))
}

fn mark(c: &mut Context<'_>, &[fd, flags, mask, dirfd, path, _]: &[u64; 6]) -> SysResult {
    let flags = low32(flags);
    let events = u32::try_from(mask).map_err(|_| Errno::EINVAL)?;
    let kind = flags & (MOUNT | FILESYSTEM);
    if flags & !MARK_FLAGS != 0 || kind == MOUNT | FILESYSTEM {
        return Err(Errno::EINVAL);
    }
    match flags & (ADD | REMOVE | FLUSH) {
        ADD | REMOVE if events != 0 => {}
        FLUSH if flags & !(MOUNT | FILESYSTEM | FLUSH) == 0 => {}
        _ => return Err(Errno::EINVAL),
    }
    if mask & PERMISSION != 0 {
        return Err(c.refuse("mask", &[mask & PERMISSION], Errno::EINVAL));
    }
    if mask & !(u64::from(EVENTS | ONDIR | ON_CHILD) | NOT_HERE) != 0 {
        return Err(Errno::EINVAL);
    }
    let ignores = flags & (IGNORED_MASK | IGNORE);
    if ignores == IGNORED_MASK | IGNORE {
        return Err(Errno::EINVAL);
    }
    let file = c.k.file_of(c.tid, int(fd))?;
    let f = c.k.open_file(file)?;
    if f.flags & O_PATH != 0 {
        return Err(Errno::EBADF);
    }
    let FileKind::Fanotify(id) = f.kind else { return Err(Errno::EINVAL) };
    let init = c.k.objects.watches.fanotify.groups.get(id).ok_or(Errno::EINVAL)?.flags;
    if kind != 0 && !c.k.capable(c.tid, SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    if flags & EVICTABLE != 0 && kind != 0 {
        return Err(Errno::EINVAL);
    }
    let fid = init & (REPORT_FID | REPORT_DIR_FID) != 0;
    // What has no open file is told of by identity alone, and not by a mount.
    if events & !(OPENED | ONDIR | ON_CHILD) != 0 && (!fid || kind == MOUNT) {
        return Err(Errno::EINVAL);
    }
    if mask & NOT_HERE != 0 {
        return Err(c.refuse("mask", &[mask & NOT_HERE], Errno::EINVAL));
    }
    if flags & FLUSH != 0 {
        c.k.fan_flush(id, |m| match m {
            Marked::Inode(_) => kind == 0,
            Marked::Fs(_, mount) => kind == if *mount { MOUNT } else { FILESYSTEM },
        });
        return ret(0);
    }
    let inode = place(c, dirfd, path, flags)?;
    let is_dir = c.k.vfs.inode(inode)?.is_dir();
    if flags & IGNORE != 0 {
        if !is_dir && kind == 0 && events & (DIRENT | ONDIR | ON_CHILD) != 0 {
            return Err(Errno::ENOTDIR);
        }
        if flags & (ADD | SURVIVES) == ADD && (kind != 0 || is_dir) {
            return Err(if kind != 0 { Errno::EINVAL } else { Errno::EISDIR });
        }
    }
    let what = match kind {
        0 => Marked::Inode(inode),
        _ => c.k.fan_fs(inode, kind == MOUNT)?,
    };
    let children = kind == 0 && is_dir;
    let bits = if children { events } else { events & !ON_CHILD };
    if flags & REMOVE != 0 {
        c.k.fan_unmark(id, what, |m| match ignores {
            0 => m.mask &= !events,
            _ => m.ignored &= !events,
        })?;
        return ret(0);
    }
    // An old way to ignore has no flags of its own, and goes by those of the mask.
    let strict = flags & IGNORE != 0;
    if c.k.fan_marked(id, what).is_some_and(|m| m.ignored != 0 && ignores != 0 && m.strict != strict) {
        return Err(Errno::EEXIST);
    }
    let survives = flags & SURVIVES != 0;
    c.k.fan_mark(id, what, |m: &mut Mark| match ignores {
        0 => m.mask |= bits,
        _ => {
            m.ignored |= if strict { bits } else { bits & EVENTS };
            m.survives |= survives;
            m.strict = strict;
        }
    })?;
    ret(0)
}

/// What is to be marked. EBADF, ENOTDIR, EACCES, and as a path.
fn place(c: &mut Context<'_>, dirfd: u64, path: u64, flags: u32) -> Result<InodeId, Errno> {
    let inode = if path == 0 {
        let file = c.k.file_of(c.tid, int(dirfd))?;
        // What is no file of the tree is on no mount that can be marked.
        c.k.open_file(file)?.kind.inode().ok_or(Errno::EINVAL)?
    } else {
        let path = c.k.copy_in_str(c.tid, path, crate::abi::PATH_MAX)?;
        let walk = c.k.resolve(c.tid, int(dirfd), &path, flags & DONT_FOLLOW == 0)?;
        if walk.file.is_some() {
            return Err(Errno::EINVAL);
        }
        c.k.existing(&walk)?
    };
    if flags & ONLYDIR != 0 && !c.k.vfs.inode(inode)?.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    let creds = c.k.creds_of(c.tid);
    c.k.permission(&creds, inode, MAY_READ)?;
    Ok(inode)
}
