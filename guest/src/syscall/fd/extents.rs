//! ioctl FS_IOC_FIEMAP: which stretches of a file hold data (Documentation/filesystems/fiemap.rst).

use crate::errno::Errno;
use crate::num::{low32, u64_of};
use crate::platform::PAGE_SIZE;
use crate::signal::frame::le64;
use crate::syscall::{Context, ret};
use crate::vfs::InodeId;
use crate::vfs::inode::{Kind, S_IFREG};
use crate::wait::SysResult;

/// FIEMAP_FLAG_SYNC, the only flag that files in memory can follow.
const SYNC: u32 = 1;
/// FIEMAP_EXTENT_LAST.
const LAST: u32 = 1;
/// FIEMAP_EXTENT_UNKNOWN: no place on a disk.
const UNKNOWN: u32 = 2;
/// Bytes of struct fiemap before its extents, and of an extent.
const HEADER: u64 = 32;
const EXTENT: u64 = 56;

pub(super) fn fiemap(c: &mut Context<'_>, inode: InodeId, va: u64) -> SysResult {
    let node = c.k.vfs.inode(inode)?;
    if node.file_type() != S_IFREG || matches!(node.kind, Kind::Synth(_)) {
        return Err(Errno::EOPNOTSUPP);
    }
    let header = c.k.copy_in_vec(c.tid, va, 32)?;
    let (start, len) = (le64(&header, 0), le64(&header, 8));
    let (flags, room) = (low32(le64(&header, 16)), u64::from(low32(le64(&header, 24))));
    if room > u64::from(u32::MAX) / EXTENT || len == 0 {
        return Err(Errno::EINVAL);
    }
    if start > i64::MAX.cast_unsigned() {
        return Err(Errno::EFBIG);
    }
    if flags & !SYNC != 0 {
        // What is not understood is told in the flags.
        c.k.put_u32(c.tid, va.saturating_add(16), flags & !SYNC)?;
        return Err(Errno::EBADR);
    }
    let end = start.saturating_add(len);
    let all = stretches(c, inode)?;
    let last = all.len().saturating_sub(1);
    let asked = all.iter().enumerate().filter(|(_, (from, to))| *from < end && *to > start);
    let mut bytes = Vec::new();
    let mut mapped = 0u64;
    for (n, (from, to)) in asked {
        if room != 0 && mapped == room {
            break;
        }
        mapped += 1;
        if room == 0 {
            continue;
        }
        for word in [*from, 0, to - from, 0, 0] {
            bytes.extend(word.to_le_bytes());
        }
        let flags = UNKNOWN | if n == last { LAST } else { 0 };
        bytes.extend(u64::from(flags).to_le_bytes());
        bytes.extend([0; 8]);
    }
    debug_assert!(u64_of(bytes.len()).is_multiple_of(EXTENT));
    c.k.copy_out(c.tid, va.checked_add(HEADER).ok_or(Errno::EFAULT)?, &bytes)?;
    c.k.put_u32(c.tid, va.saturating_add(20), low32(mapped))?;
    ret(0)
}

/// The stretches of a regular file that are no holes, in bytes, in order: whole pages.
fn stretches(c: &Context<'_>, inode: InodeId) -> Result<Vec<(u64, u64)>, Errno> {
    let node = c.k.vfs.inode(inode)?;
    let mut found: Vec<(u64, u64)> = Vec::new();
    match &node.kind {
        Kind::File(pages) => {
            for page in pages.keys() {
                let (from, to) =
                    (page.saturating_mul(PAGE_SIZE), page.saturating_add(1).saturating_mul(PAGE_SIZE));
                match found.last_mut() {
                    Some((_, end)) if *end == from => *end = to,
                    _ => found.push((from, to)),
                }
            }
        }
        _ if node.stat.size > 0 => {
            found.push((0, node.stat.size.div_ceil(PAGE_SIZE).saturating_mul(PAGE_SIZE)))
        }
        _ => {}
    }
    Ok(found)
}
