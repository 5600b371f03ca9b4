//! Changing attributes: mode, owner, times, length; sync; what a sandbox never permits.

use super::{CWD, Object};
use crate::errno::Errno;
use crate::num::{int, low32};
use crate::syscall::{Context, ret};
use crate::task::creds::cap;
use crate::vfs::inode::{Kind, S_IFDIR, S_IFMT, S_IFREG};
use crate::vfs::path::MAY_WRITE;
use crate::vfs::{FileKind, InodeId};
use crate::wait::SysResult;
use linux_raw_sys::general as g;

const UTIME_NOW: u64 = 0x3fff_ffff;
const UTIME_OMIT: u64 = 0x3fff_fffe;
/// "Leave it" in chown(2).
const NO_ID: u32 = u32::MAX;

pub(super) fn not_permitted(_c: &mut Context<'_>, _a: &[u64; 6]) -> SysResult {
    Err(Errno::EPERM)
}

pub(super) fn sync(_c: &mut Context<'_>, _a: &[u64; 6]) -> SysResult {
    ret(0)
}

pub(super) fn syncfs(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [fd, ..] = *a;
    c.open_object(int(fd))?;
    ret(0)
}

/// User, group and mode of a file without an inode, where they can be changed: pipes and sockets have them, the other anonymous files
/// share one that nobody may change.
fn nameless<'a>(c: &'a mut Context<'_>, file: u64) -> Result<Option<&'a mut (u32, u32, u32)>, Errno> {
    let kind = c.k.open_file(file)?.kind;
    Ok(match kind {
        FileKind::Pipe { pipe, .. } => c.k.objects.pipes.get_mut(pipe).map(|p| &mut p.owner),
        FileKind::Socket(id) => c.k.objects.net.sockets.get_mut(id).map(|s| &mut s.owner),
        FileKind::Mqueue(id) => c.k.ipc.mqueues.get_mut(id).map(|q| &mut q.owner),
        _ => None,
    })
}

/// Whether a file is one of the host's streams: what lies behind it is not the guest's to change, and nobody is told so.
fn is_hosts(c: &Context<'_>, file: u64) -> Result<bool, Errno> {
    Ok(matches!(c.k.open_file(file)?.kind, FileKind::HostStream(_) | FileKind::Work))
}

fn change_mode(c: &mut Context<'_>, object: Object, mode: u64) -> SysResult {
    let creds = c.k.creds_of(c.tid);
    let id = match object {
        Object::Inode(id) => id,
        Object::File(file) => {
            if is_hosts(c, file)? {
                return ret(0);
            }
            let (uid, _, bits) = nameless(c, file)?.ok_or(Errno::EOPNOTSUPP)?;
            if !creds.owns(*uid) {
                return Err(Errno::EPERM);
            }
            *bits = low32(mode) & 0o7777;
            return ret(0);
        }
    };
    let now = c.k.now_pair();
    let node = c.k.vfs.inode_mut(id)?;
    if matches!(node.kind, Kind::Synth(_)) {
        return Err(Errno::EPERM);
    }
    if matches!(node.kind, Kind::Symlink(_)) {
        return Err(Errno::EOPNOTSUPP);
    }
    if !creds.owns(node.stat.uid) {
        return Err(Errno::EPERM);
    }
    c.k.want_write(id)?;
    let node = c.k.vfs.inode_mut(id)?;
    let mut mode = low32(mode) & 0o7777;
    if !creds.in_group(node.stat.gid) && !creds.can(cap::FSETID) {
        mode &= !0o2000;
    }
    if c.k.is_live(id) {
        c.k.live_chmod(id, mode)?;
    } else {
        let node = c.k.vfs.inode_mut(id)?;
        node.stat.mode = (node.stat.mode & S_IFMT) | mode;
        node.stat.ctime = now;
    }
    c.k.notify_both(id, g::IN_ATTRIB);
    ret(0)
}

pub(super) fn chmod(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [path, mode, ..] = *a;
    let object = c.object_at_flags(CWD, path, 0, true)?;
    change_mode(c, object, mode)
}

pub(super) fn fchmod(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [fd, mode, ..] = *a;
    let object = c.open_object(int(fd))?;
    change_mode(c, object, mode)
}

pub(super) fn fchmodat(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [dirfd, path, mode, ..] = *a;
    let object = c.object_at_flags(dirfd, path, 0, true)?;
    change_mode(c, object, mode)
}

pub(super) fn fchmodat2(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [dirfd, path, mode, flags, ..] = *a;
    let flags = low32(flags);
    if flags & !(g::AT_SYMLINK_NOFOLLOW | g::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let object = c.object_at_flags(dirfd, path, flags, flags & g::AT_SYMLINK_NOFOLLOW == 0)?;
    change_mode(c, object, mode)
}

fn change_owner(c: &mut Context<'_>, object: Object, uid: u64, gid: u64) -> SysResult {
    let (uid, gid) = (low32(uid), low32(gid));
    let creds = c.k.creds_of(c.tid);
    let id = match object {
        Object::Inode(id) => id,
        Object::File(file) => {
            if is_hosts(c, file)? {
                return ret(0);
            }
            let (owner, group, _) = nameless(c, file)?.ok_or(Errno::EOPNOTSUPP)?;
            let mine = creds.fsuid == *owner;
            let may = |new: u32, is: bool| new == NO_ID || creds.can(cap::CHOWN) || (mine && is);
            let member = gid == creds.fsgid || creds.groups.contains(&gid) || gid == *group;
            if !may(uid, uid == *owner) || !may(gid, member) {
                return Err(Errno::EPERM);
            }
            if uid != NO_ID {
                *owner = uid;
            }
            if gid != NO_ID {
                *group = gid;
            }
            return ret(0);
        }
    };
    let now = c.k.now_pair();
    let node = c.k.vfs.inode_mut(id)?;
    if matches!(node.kind, Kind::Synth(_)) {
        return Err(Errno::EPERM);
    }
    if !creds.can(cap::CHOWN) {
        let owner = creds.fsuid == node.stat.uid;
        let member = creds.in_group(gid) || gid == node.stat.gid;
        let uid_ok = uid == NO_ID || (owner && uid == node.stat.uid);
        let gid_ok = gid == NO_ID || (owner && member);
        if !uid_ok || !gid_ok {
            return Err(Errno::EPERM);
        }
    }
    let node = c.k.vfs.inode(id)?;
    // To take mode bits away is a change of mode.
    let lost = if node.is_dir() { 0 } else { creds.bits_lost(node.stat.mode, node.stat.gid) };
    if lost != 0 && !creds.owns(node.stat.uid) {
        return Err(Errno::EPERM);
    }
    c.k.want_write(id)?;
    if c.k.is_live(id) {
        c.k.live_chown(id, uid, gid)?;
        c.k.notify_both(id, g::IN_ATTRIB);
        return ret(0);
    }
    let node = c.k.vfs.inode_mut(id)?;
    if uid != NO_ID {
        node.stat.uid = uid;
    }
    if gid != NO_ID {
        node.stat.gid = gid;
    }
    node.stat.mode &= !lost;
    node.stat.ctime = now;
    if uid != NO_ID || gid != NO_ID {
        c.k.notify_both(id, g::IN_ATTRIB);
    }
    ret(0)
}

pub(super) fn chown(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [path, uid, gid, ..] = *a;
    let object = c.object_at_flags(CWD, path, 0, true)?;
    change_owner(c, object, uid, gid)
}

pub(super) fn lchown(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [path, uid, gid, ..] = *a;
    let object = c.object_at_flags(CWD, path, 0, false)?;
    change_owner(c, object, uid, gid)
}

pub(super) fn fchown(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [fd, uid, gid, ..] = *a;
    let object = c.open_object(int(fd))?;
    change_owner(c, object, uid, gid)
}

pub(super) fn fchownat(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [dirfd, path, uid, gid, flags, _] = *a;
    let flags = low32(flags);
    if flags & !(g::AT_SYMLINK_NOFOLLOW | g::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let object = c.object_at_flags(dirfd, path, flags, flags & g::AT_SYMLINK_NOFOLLOW == 0)?;
    change_owner(c, object, uid, gid)
}

pub(super) fn truncate(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [path, len, ..] = *a;
    if i64::try_from(len).is_err() {
        return Err(Errno::EINVAL);
    }
    let id = c.object_at_flags(CWD, path, 0, true)?.inode(Errno::EINVAL)?;
    match c.k.vfs.inode(id)?.file_type() {
        S_IFDIR => return Err(Errno::EISDIR),
        S_IFREG => {}
        _ => return Err(Errno::EINVAL),
    }
    let creds = c.k.creds_of(c.tid);
    c.k.permission(&creds, id, MAY_WRITE)?;
    c.k.check_file_size(c.tid, id, len)?;
    c.k.inode_truncate(id, len)?;
    c.k.contents_changed(c.tid, id);
    c.k.notify_both(id, g::IN_MODIFY);
    ret(0)
}

/// One of the two times: set to now, set to this, or left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NewTime {
    Now,
    At(i64, u32),
    Keep,
    Bad,
}

fn set_times(c: &mut Context<'_>, object: Object, times: [NewTime; 2]) -> SysResult {
    let Object::Inode(id) = object else { return ret(0) };
    if times.contains(&NewTime::Bad) {
        return Err(Errno::EINVAL);
    }
    if times == [NewTime::Keep; 2] {
        return ret(0);
    }
    may_set_times(c, id, times == [NewTime::Now; 2])?;
    c.k.want_write(id)?;
    if c.k.is_live(id) {
        let raw = |t: NewTime| match t {
            NewTime::Now => (0, UTIME_NOW.cast_signed()),
            NewTime::At(secs, ns) => (secs, i64::from(ns)),
            NewTime::Keep | NewTime::Bad => (0, UTIME_OMIT.cast_signed()),
        };
        c.k.live_times(id, times.map(raw))?;
        c.k.notify_both(id, g::IN_ATTRIB);
        return ret(0);
    }
    let now = c.k.now_pair();
    let stat = &mut c.k.vfs.inode_mut(id)?.stat;
    for (to, new) in [&mut stat.atime, &mut stat.mtime].into_iter().zip(times) {
        match new {
            NewTime::Now => *to = now,
            NewTime::At(secs, ns) => *to = (secs, ns),
            NewTime::Keep | NewTime::Bad => {}
        }
    }
    stat.ctime = now;
    let event = match times.map(|t| t != NewTime::Keep) {
        [true, true] => g::IN_ATTRIB,
        [true, false] => g::IN_ACCESS,
        _ => g::IN_MODIFY,
    };
    c.k.notify_both(id, event);
    ret(0)
}

/// The owner may set any time; who may write may set both to now.
fn may_set_times(c: &mut Context<'_>, id: InodeId, to_now: bool) -> Result<(), Errno> {
    let creds = c.k.creds_of(c.tid);
    let node = c.k.vfs.inode(id)?;
    if matches!(node.kind, Kind::Synth(_)) {
        return Err(Errno::EPERM);
    }
    if creds.owns(node.stat.uid) {
        return Ok(());
    }
    if to_now { c.k.permission(&creds, id, MAY_WRITE) } else { Err(Errno::EPERM) }
}

/// Reads four numbers: two pairs of seconds and a fraction.
fn read_pairs(c: &mut Context<'_>, va: u64) -> Result<[(u64, u64); 2], Errno> {
    let bytes = c.k.copy_in_vec(c.tid, va, 32)?;
    let mut words = bytes.chunks_exact(8).map(|b| b.try_into().map_or(0, u64::from_le_bytes));
    let mut next = || words.next().unwrap_or(0);
    Ok([(next(), next()), (next(), next())])
}

pub(super) fn utimensat(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [dirfd, path, times, flags, ..] = *a;
    let flags = low32(flags);
    let mut new = [NewTime::Now; 2];
    if times != 0 {
        for (to, (secs, ns)) in new.iter_mut().zip(read_pairs(c, times)?) {
            *to = match ns {
                UTIME_NOW => NewTime::Now,
                UTIME_OMIT => NewTime::Keep,
                0..=999_999_999 => NewTime::At(secs.cast_signed(), low32(ns)),
                // Said once the file is found.
                _ => NewTime::Bad,
            };
        }
        if new == [NewTime::Keep; 2] {
            return ret(0);
        }
    }
    if flags & !(g::AT_SYMLINK_NOFOLLOW | g::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let object = if path == 0 {
        // futimens(3): the descriptor itself.
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        if int(dirfd) == crate::abi::AT_FDCWD {
            return Err(Errno::EFAULT);
        }
        c.open_object(int(dirfd))?
    } else {
        c.object_at_flags(dirfd, path, flags, flags & g::AT_SYMLINK_NOFOLLOW == 0)?
    };
    set_times(c, object, new)
}

fn utimes_at(c: &mut Context<'_>, dirfd: u64, path: u64, times: u64) -> SysResult {
    let mut new = [NewTime::Now; 2];
    if times != 0 {
        for (to, (secs, us)) in new.iter_mut().zip(read_pairs(c, times)?) {
            if us >= 1_000_000 {
                return Err(Errno::EINVAL);
            }
            *to = NewTime::At(secs.cast_signed(), low32(us * 1000));
        }
    }
    let object = if path == 0 && int(dirfd) != crate::abi::AT_FDCWD {
        c.open_object(int(dirfd))?
    } else {
        c.object_at_flags(dirfd, path, 0, true)?
    };
    set_times(c, object, new)
}

pub(super) fn utimes(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [path, times, ..] = *a;
    utimes_at(c, CWD, path, times)
}

pub(super) fn futimesat(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [dirfd, path, times, ..] = *a;
    utimes_at(c, dirfd, path, times)
}

pub(super) fn utime(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [path, times, ..] = *a;
    let mut new = [NewTime::Now; 2];
    if times != 0 {
        let access = c.k.get_u64(c.tid, times)?;
        let modified = c.k.get_u64(c.tid, times.checked_add(8).ok_or(Errno::EFAULT)?)?;
        new = [NewTime::At(access.cast_signed(), 0), NewTime::At(modified.cast_signed(), 0)];
    }
    let object = c.object_at_flags(CWD, path, 0, true)?;
    set_times(c, object, new)
}
