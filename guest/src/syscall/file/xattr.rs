//! Extended attributes: `user.*`, kept with the inode in memory.

use super::{CWD, Object};
use crate::errno::Errno;
use crate::num::{int, low32, u64_of, us};
use crate::syscall::{Context, ret};
use crate::vfs::inode::{Inode, Kind, S_IFDIR, S_IFREG};
use crate::vfs::path::{MAY_READ, MAY_WRITE};
use crate::wait::SysResult;
use linux_raw_sys::general as g;

/// Bytes of names and values that one inode may hold.
const MAX_TOTAL: usize = 64 << 10;
const SIZE_MAX: u64 = 65_536;

fn name(c: &mut Context<'_>, va: u64) -> Result<Vec<u8>, Errno> {
    let name = match c.k.copy_in_str(c.tid, va, 256) {
        Err(Errno::ENAMETOOLONG) => return Err(Errno::ERANGE),
        other => other?,
    };
    if name.is_empty() { Err(Errno::ERANGE) } else { Ok(name) }
}

/// The inode, if it can hold attributes of this name. EOPNOTSUPP.
fn holder(c: &mut Context<'_>, object: Object, name: &[u8], mask: u32) -> Result<u64, Errno> {
    let id = object.inode(Errno::EOPNOTSUPP)?;
    let node = c.k.vfs.inode(id)?;
    if matches!(node.kind, Kind::Synth(_)) {
        return Err(Errno::EOPNOTSUPP);
    }
    if !name.starts_with(b"user.") || name == b"user." {
        let quiet = mask == MAY_READ && (name.starts_with(b"security.") || name.starts_with(b"trusted."));
        return Err(if quiet { Errno::ENODATA } else { Errno::EOPNOTSUPP });
    }
    if !matches!(node.file_type(), S_IFREG | S_IFDIR) {
        return Err(if mask == MAY_READ { Errno::ENODATA } else { Errno::EPERM });
    }
    let creds = c.k.creds_of(c.tid);
    c.k.permission(&creds, id, mask)?;
    Ok(id)
}

fn total(node: &Inode) -> usize {
    node.xattrs.iter().map(|(k, v)| k.len() + v.len() + 1).sum()
}

fn set(c: &mut Context<'_>, object: Object, a: &[u64; 6]) -> SysResult {
    let [_, key, value, size, flags, _] = *a;
    let flags = low32(flags);
    if flags & !(g::XATTR_CREATE | g::XATTR_REPLACE) != 0 {
        return Err(Errno::EINVAL);
    }
    let key = name(c, key)?;
    if size > SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    let value = c.k.copy_in_vec(c.tid, value, us(size))?;
    let id = holder(c, object, &key, MAY_WRITE)?;
    let now = c.k.now_pair();
    let node = c.k.vfs.inode_mut(id)?;
    let old = node.xattrs.get(&key).map(|v| v.len() + key.len() + 1);
    if flags & g::XATTR_CREATE != 0 && old.is_some() {
        return Err(Errno::EEXIST);
    }
    if flags & g::XATTR_REPLACE != 0 && old.is_none() {
        return Err(Errno::ENODATA);
    }
    if total(node) - old.unwrap_or(0) + key.len() + value.len() + 1 > MAX_TOTAL {
        return Err(Errno::ENOSPC);
    }
    let bytes = key.len() + value.len() + 1;
    c.k.vfs.charge(bytes)?;
    c.k.vfs.uncharge(old.unwrap_or(0));
    let node = c.k.vfs.inode_mut(id)?;
    node.xattrs.insert(key, value);
    node.stat.ctime = now;
    ret(0)
}

/// Copies a result out, or only tells its size.
fn give(c: &mut Context<'_>, data: &[u8], out: u64, size: u64) -> SysResult {
    if size != 0 {
        if u64_of(data.len()) > size {
            return Err(Errno::ERANGE);
        }
        c.k.copy_out(c.tid, out, data)?;
    }
    ret(u64_of(data.len()))
}

fn get(c: &mut Context<'_>, object: Object, a: &[u64; 6]) -> SysResult {
    let [_, key, out, size, ..] = *a;
    let key = name(c, key)?;
    let id = holder(c, object, &key, MAY_READ)?;
    let value = c.k.vfs.inode(id)?.xattrs.get(&key).cloned().ok_or(Errno::ENODATA)?;
    give(c, &value, out, size)
}

fn list(c: &mut Context<'_>, object: Object, a: &[u64; 6]) -> SysResult {
    let [_, out, size, ..] = *a;
    let mut all = Vec::new();
    if let Object::Inode(id) = object {
        for key in c.k.vfs.inode(id)?.xattrs.keys() {
            all.extend_from_slice(key);
            all.push(0);
        }
    }
    give(c, &all, out, size)
}

fn remove(c: &mut Context<'_>, object: Object, a: &[u64; 6]) -> SysResult {
    let [_, key, ..] = *a;
    let key = name(c, key)?;
    let id = holder(c, object, &key, MAY_WRITE)?;
    let value = c.k.vfs.inode_mut(id)?.xattrs.remove(&key).ok_or(Errno::ENODATA)?;
    c.k.vfs.uncharge(key.len() + value.len() + 1);
    ret(0)
}

macro_rules! family {
    ($($what:ident: $by_path:ident $by_link:ident $by_fd:ident;)*) => {$(
        pub(super) fn $by_path(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
            let [path, ..] = *a;
            let object = c.object_at_flags(CWD, path, 0, true)?;
            $what(c, object, a)
        }
        pub(super) fn $by_link(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
            let [path, ..] = *a;
            let object = c.object_at_flags(CWD, path, 0, false)?;
            $what(c, object, a)
        }
        pub(super) fn $by_fd(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
            let [fd, ..] = *a;
            let object = c.open_object(int(fd))?;
            $what(c, object, a)
        }
    )*};
}

family! {
    set: setxattr lsetxattr fsetxattr;
    get: getxattr lgetxattr fgetxattr;
    list: listxattr llistxattr flistxattr;
    remove: removexattr lremovexattr fremovexattr;
}
