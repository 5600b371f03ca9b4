//! Extended attributes (xattr(7)): `user.*`, `trusted.*` and `security.*`, kept with the inode in memory. There are no access control
//! lists, and attributes of lower files are not shown.

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

/// What a name's first part means (xattr(7)).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    User,
    Trusted,
    Security,
}

/// The name space of a name. EOPNOTSUPP for those that no file system here has, EINVAL for a space without a name.
fn space(name: &[u8]) -> Result<Space, Errno> {
    for (prefix, space) in
        [(&b"user."[..], Space::User), (b"trusted.", Space::Trusted), (b"security.", Space::Security)]
    {
        if let Some(rest) = name.strip_prefix(prefix) {
            return if rest.is_empty() { Err(Errno::EINVAL) } else { Ok(space) };
        }
    }
    Err(Errno::EOPNOTSUPP)
}

/// The inode, if it can hold attributes of this name and the caller may use them so. EOPNOTSUPP, EINVAL, EPERM, EACCES, ENODATA.
fn holder(c: &mut Context<'_>, object: Object, name: &[u8], mask: u32) -> Result<u64, Errno> {
    let nameless = match (name.starts_with(b"user."), mask == MAY_WRITE) {
        (true, true) => Errno::EPERM,
        (true, false) => Errno::ENODATA,
        _ => Errno::EOPNOTSUPP,
    };
    let id = object.inode(nameless)?;
    let node = c.k.vfs.inode(id)?;
    let file_type = node.file_type();
    let writes = mask == MAY_WRITE;
    let creds = c.k.creds_of(c.tid);
    let root = creds.can(crate::task::creds::cap::SYS_ADMIN);
    if name.starts_with(b"trusted.") && !root {
        return Err(if writes { Errno::EPERM } else { Errno::ENODATA });
    }
    if name.starts_with(b"user.") {
        if !matches!(file_type, S_IFREG | S_IFDIR) {
            return Err(if writes { Errno::EPERM } else { Errno::ENODATA });
        }
        let owner = creds.owns(node.stat.uid);
        if writes && file_type == S_IFDIR && node.stat.mode & 0o1000 != 0 && !owner {
            return Err(Errno::EPERM);
        }
        c.k.permission(&creds, id, mask)?;
    }
    if writes {
        c.k.want_write(id)?;
    }
    if matches!(c.k.vfs.inode(id)?.kind, Kind::Synth(_)) || c.k.is_live(id) {
        return Err(Errno::EOPNOTSUPP);
    }
    let labels =
        if name == b"security.capability" { creds.can(crate::task::creds::cap::SETFCAP) } else { root };
    if space(name)? == Space::Security && writes && !labels {
        return Err(Errno::EPERM);
    }
    Ok(id)
}

fn total(node: &Inode) -> usize {
    node.xattrs.iter().map(|(k, v)| k.len() + v.len() + 1).sum()
}

/// Finds what a call is about, once its other arguments are known to be good.
type Find = fn(&mut Context<'_>, u64) -> Result<Object, Errno>;

fn set(c: &mut Context<'_>, find: Find, a: &[u64; 6]) -> SysResult {
    let [at, key, value, size, flags, _] = *a;
    let flags = low32(flags);
    if flags & !(g::XATTR_CREATE | g::XATTR_REPLACE) != 0 {
        return Err(Errno::EINVAL);
    }
    let key = name(c, key)?;
    if size > SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    let value = c.k.copy_in_vec(c.tid, value, us(size))?;
    let object = find(c, at)?;
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
    c.k.notify_both(id, g::IN_ATTRIB);
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

fn get(c: &mut Context<'_>, find: Find, a: &[u64; 6]) -> SysResult {
    let [at, key, out, size, ..] = *a;
    let key = name(c, key)?;
    let object = find(c, at)?;
    let id = holder(c, object, &key, MAY_READ)?;
    let value = c.k.vfs.inode(id)?.xattrs.get(&key).cloned().ok_or(Errno::ENODATA)?;
    give(c, &value, out, size)
}

fn list(c: &mut Context<'_>, find: Find, a: &[u64; 6]) -> SysResult {
    let [at, out, size, ..] = *a;
    let object = find(c, at)?;
    let mut all = Vec::new();
    let root = c.k.capable(c.tid, crate::task::creds::cap::SYS_ADMIN);
    if let Object::Inode(id) = object {
        for key in c.k.vfs.inode(id)?.xattrs.keys().filter(|k| root || !k.starts_with(b"trusted.")) {
            all.extend_from_slice(key);
            all.push(0);
        }
    }
    give(c, &all, out, size)
}

fn remove(c: &mut Context<'_>, find: Find, a: &[u64; 6]) -> SysResult {
    let [at, key, ..] = *a;
    let key = name(c, key)?;
    let object = find(c, at)?;
    let id = holder(c, object, &key, MAY_WRITE)?;
    let now = c.k.now_pair();
    let node = c.k.vfs.inode_mut(id)?;
    let value = node.xattrs.remove(&key).ok_or(Errno::ENODATA)?;
    node.stat.ctime = now;
    c.k.vfs.uncharge(key.len() + value.len() + 1);
    c.k.notify_both(id, g::IN_ATTRIB);
    ret(0)
}

macro_rules! family {
    ($($what:ident: $by_path:ident $by_link:ident $by_fd:ident;)*) => {$(
        pub(super) fn $by_path(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
            $what(c, |c, path| c.object_at_flags(CWD, path, 0, true), a)
        }
        pub(super) fn $by_link(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
            $what(c, |c, path| c.object_at_flags(CWD, path, 0, false), a)
        }
        pub(super) fn $by_fd(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
            $what(c, |c, fd| c.open_object(int(fd)), a)
        }
    )*};
}

family! {
    set: setxattr lsetxattr fsetxattr;
    get: getxattr lgetxattr fgetxattr;
    list: listxattr llistxattr flistxattr;
    remove: removexattr lremovexattr fremovexattr;
}
