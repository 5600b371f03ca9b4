//! mount(2) and umount2(2): in-memory file systems and directories of the tree; proc, sys and dev again. One set of mounts for the whole
//! sandbox.

use super::{Arg, Context, Entry, ret};
use crate::abi::{AT_FDCWD, PATH_MAX};
use crate::errno::Errno;
use crate::num::low32;
use crate::vfs::InodeId;
use crate::vfs::mount::TmpfsOptions;
use crate::wait::SysResult;

const RDONLY: u32 = 1;
const REMOUNT: u32 = 32;
const BIND: u32 = 4096;
const MOVE: u32 = 8192;
const REC: u32 = 16384;
/// MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED.
const PROPAGATION: u32 = 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20;
/// What a mount remembers: MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME.
const KEPT: u32 = RDONLY | 2 | 4 | 8 | 1024;
/// The high half of the flags once had to be this.
const MAGIC: u32 = 0xc0ed_0000;

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::partial(
        165,
        "mount",
        &[Arg::Path, Arg::Path, Arg::Path, Arg::Hex, Arg::Ptr],
        "tmpfs and MS_BIND, proc, sysfs and devtmpfs as a bind of the sandbox's; MS_NOEXEC, MS_NODEV and MS_NOSUID are only shown; \
         `..` leads out of a bind to where the directory really is; no MS_MOVE",
        mount,
    ),
    Entry::partial(
        166,
        "umount2",
        &[Arg::Path, Arg::Hex],
        "not the root, /proc, /sys and /dev; MNT_EXPIRE only marks",
        umount2,
    ),
];

fn string(c: &mut Context<'_>, va: u64) -> Result<Vec<u8>, Errno> {
    if va == 0 { Ok(Vec::new()) } else { c.k.copy_in_str(c.tid, va, PATH_MAX) }
}

fn find(c: &mut Context<'_>, path: &[u8], follow: bool) -> Result<InodeId, Errno> {
    let walk = c.k.resolve(c.tid, AT_FDCWD, path, follow)?;
    if walk.file.is_some() {
        return Err(Errno::EINVAL);
    }
    c.k.existing(&walk)
}

fn mount(c: &mut Context<'_>, &[source, target, fstype, flags, data, _]: &[u64; 6]) -> SysResult {
    let fstype = string(c, fstype)?;
    let source = string(c, source)?;
    let data = if data == 0 { Vec::new() } else { c.k.copy_in_str(c.tid, data, PATH_MAX)? };
    let target = c.k.copy_in_str(c.tid, target, PATH_MAX)?;
    let at = find(c, &target, true)?;
    if !c.k.capable(c.tid, crate::task::creds::cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let mut flags = low32(flags);
    if flags & 0xffff_0000 == MAGIC {
        flags &= 0xffff;
    }
    if flags & REMOUNT != 0 {
        let n = c.k.mount_at(at).ok_or(Errno::EINVAL)?;
        return remount(c, n, flags, &data);
    }
    if flags & BIND != 0 {
        if source.is_empty() {
            return Err(Errno::EINVAL);
        }
        let root = find(c, &source, true)?;
        c.k.mount_bind(at, &source, root, "none")?;
        return ret(0);
    }
    if flags & PROPAGATION != 0 {
        if flags & !(PROPAGATION | REC | 0x8000) != 0 || (flags & PROPAGATION).count_ones() != 1 {
            return Err(Errno::EINVAL);
        }
        // All mounts are private, and there is nobody to share them with.
        let root = c.k.mount_at(at).is_some() || at == c.k.vfs.root();
        return if root { ret(0) } else { Err(Errno::EINVAL) };
    }
    if flags & MOVE != 0 {
        return Err(Errno::EINVAL);
    }
    match fstype.as_slice() {
        b"tmpfs" | b"ramfs" => {
            let text = std::str::from_utf8(&data).map_err(|_| Errno::EINVAL)?;
            let options = TmpfsOptions::parse(text, c.k.limits.memory)?;
            c.k.mount_tmpfs(at, &source, flags & KEPT, &options)?;
        }
        b"proc" => shown(c, at, &source, b"/proc", "proc")?,
        b"sysfs" => shown(c, at, &source, b"/sys", "sysfs")?,
        b"devtmpfs" => shown(c, at, &source, b"/dev", "devtmpfs")?,
        b"" => return Err(Errno::EINVAL),
        _ => return Err(Errno::ENODEV),
    }
    ret(0)
}

/// Shows one of the sandbox's own file systems in another place.
fn shown(
    c: &mut Context<'_>,
    at: InodeId,
    source: &[u8],
    path: &[u8],
    fstype: &'static str,
) -> Result<(), Errno> {
    let root = c.k.lookup_dir(0, path)?;
    c.k.mount_bind(at, source, root, fstype)
}

fn remount(c: &mut Context<'_>, n: u32, flags: u32, data: &[u8]) -> SysResult {
    let memory = c.k.limits.memory;
    let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    let options = TmpfsOptions::parse(text, memory)?;
    c.k.remount(n, flags & KEPT, if flags & BIND != 0 { None } else { Some(&options) })?;
    ret(0)
}

fn umount2(c: &mut Context<'_>, &[target, flags, ..]: &[u64; 6]) -> SysResult {
    let flags = low32(flags);
    if flags & !15 != 0 {
        return Err(Errno::EINVAL);
    }
    let target = c.k.copy_in_str(c.tid, target, PATH_MAX)?;
    let root = find(c, &target, flags & 8 == 0)?;
    if !c.k.capable(c.tid, crate::task::creds::cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let Some(n) = c.k.mount_at(root) else {
        // The root, proc, sys and dev are in use for as long as the sandbox lives.
        return Err(if c.k.is_fixed_mount(root) { Errno::EBUSY } else { Errno::EINVAL });
    };
    // MNT_EXPIRE marks first, and takes away the second time; it goes with no other flag.
    if flags & 4 != 0 {
        return Err(if flags & 3 != 0 { Errno::EINVAL } else { Errno::EAGAIN });
    }
    c.k.unmount(n, flags & 2 != 0)?;
    ret(0)
}
