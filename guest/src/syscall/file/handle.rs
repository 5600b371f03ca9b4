//! File handles: name_to_handle_at(2), open_by_handle_at(2). A handle is the number of an inode, which is never given again.

use crate::errno::Errno;
use crate::num::{int, low32};
use crate::signal::frame::le64;
use crate::syscall::{Context, ret};
use crate::vfs::inode::{FsKind, Kind, S_IFLNK};
use crate::vfs::tree::Opening;
use crate::wait::SysResult;
use linux_raw_sys::general as g;

/// MAX_HANDLE_SZ, bytes.
const MOST: u32 = 128;
/// Bytes of ours.
const BYTES: u32 = 8;
/// The type of ours.
const TYPE: u32 = 1;
/// Where the bytes start in struct file_handle: after the count of bytes and the type.
const DATA: u64 = 8;

pub(super) fn name_to_handle_at(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [dirfd, path, handle, mount, flags, _] = *a;
    let flags = low32(flags);
    // AT_HANDLE_FID asks for a handle that need not open anything.
    if flags & !(g::AT_SYMLINK_FOLLOW | g::AT_EMPTY_PATH | g::AT_HANDLE_FID) != 0 {
        return Err(Errno::EINVAL);
    }
    let object = c.object_at_flags(dirfd, path, flags, flags & g::AT_SYMLINK_FOLLOW != 0)?;
    let id = object.inode(Errno::EOPNOTSUPP)?;
    let inode = c.k.vfs.inode(id)?;
    if matches!(inode.kind, Kind::Synth(_)) || inode.fs == FsKind::Proc {
        return Err(Errno::EOPNOTSUPP);
    }
    let mount_id = c.k.mount_id(inode.fs);
    let room = c.k.get_u32(c.tid, handle)?;
    if room > MOST {
        return Err(Errno::EINVAL);
    }
    c.k.put_u32(c.tid, mount, low32(mount_id))?;
    c.k.put_u32(c.tid, handle, BYTES)?;
    if room < BYTES {
        return Err(Errno::EOVERFLOW);
    }
    c.k.put_u32(c.tid, handle.checked_add(4).ok_or(Errno::EFAULT)?, TYPE)?;
    c.k.put_u64(c.tid, handle.checked_add(DATA).ok_or(Errno::EFAULT)?, id)?;
    ret(0)
}

pub(super) fn open_by_handle_at(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [mount, handle, flags, ..] = *a;
    let flags = low32(flags);
    let header = c.k.copy_in_vec(c.tid, handle, 8)?;
    let (room, kind) = (low32(le64(&header, 0)), low32(le64(&header, 0) >> 32));
    if room == 0 || room > MOST {
        return Err(Errno::EINVAL);
    }
    let at = if int(mount) == crate::abi::AT_FDCWD {
        c.k.fs_of(c.tid).1
    } else {
        c.object_of(int(mount))?.inode(Errno::ESTALE)?
    };
    if !c.k.capable(c.tid, crate::task::creds::cap::DAC_READ_SEARCH) {
        return Err(Errno::EPERM);
    }
    if room < BYTES || kind != TYPE {
        return Err(Errno::ESTALE);
    }
    let id = c.k.get_u64(c.tid, handle.checked_add(DATA).ok_or(Errno::EFAULT)?)?;
    let fs = c.k.vfs.inode(at)?.fs;
    if c.k.vfs.inode(id).map(|i| i.fs) != Ok(fs) {
        return Err(Errno::ESTALE);
    }
    if flags & g::O_PATH == 0 && c.k.vfs.inode(id)?.file_type() == S_IFLNK {
        return Err(Errno::ELOOP);
    }
    match c.k.open_node(c.tid, id, flags | g::O_LARGEFILE)? {
        Opening::File(file) => ret(u64::from(c.k.install_fd(c.tid, file, flags & g::O_CLOEXEC != 0)?)),
        Opening::Fifo(_) => Err(Errno::ENXIO),
    }
}
