//! fcntl(2) and ioctl(2).

use super::{dup_from, inode, open};
use crate::errno::Errno;
use crate::num::{int, low32, u64_of};
use crate::syscall::{Context, ret};
use crate::vfs::FileKind;
use crate::vfs::dnotify::{OWNER_PGRP, OWNER_PID, Owner};
use crate::vfs::file::{O_APPEND, O_NONBLOCK, O_PATH};
use crate::vfs::inode::{S_IFMT, S_IFREG};
use crate::wait::SysResult;

pub(super) fn set_cloexec(c: &mut Context<'_>, fd: u64, on: bool) -> SysResult {
    let entry = c.k.table_mut(c.tid)?.fds.get_mut(&low32(fd)).ok_or(Errno::EBADF)?;
    entry.cloexec = on;
    ret(0)
}

pub(super) fn set_flags(c: &mut Context<'_>, id: u64, clear: u32, set: u32) -> SysResult {
    let f = c.k.files.get_mut(id).ok_or(Errno::EBADF)?;
    f.flags = f.flags & !clear | set;
    ret(0)
}

pub(super) fn fcntl(c: &mut Context<'_>, &[fd, cmd, arg, ..]: &[u64; 6]) -> SysResult {
    let entry = c.k.fd_entry(c.tid, int(fd))?;
    let f = c.k.open_file(entry.file)?;
    let cmd = low32(cmd);
    if f.flags & O_PATH != 0 && !matches!(cmd, 0..=3 | 1030) {
        return Err(Errno::EBADF);
    }
    match cmd {
        0 | 1030 => {
            if low32(arg) >= c.k.fd_limit(c.tid) {
                return Err(Errno::EINVAL);
            }
            dup_from(c, fd, low32(arg), cmd == 1030)
        }
        1 => ret(u64::from(entry.cloexec)),
        2 => set_cloexec(c, fd, arg & 1 != 0),
        3 => ret(u64::from(f.flags)),
        4 => {
            // O_APPEND, O_NONBLOCK, O_DIRECT, O_NOATIME, FASYNC
            let may = O_APPEND | O_NONBLOCK | 0o40000 | 0o1_000_000 | 0o20000;
            let direct = match f.kind {
                FileKind::Pipe { .. } => true,
                // Not files without a name.
                FileKind::Inode(inode) => {
                    let node = c.k.vfs.inode(inode)?;
                    node.file_type() == S_IFREG && node.seals.is_none()
                }
                _ => false,
            };
            if low32(arg) & 0o40000 != 0 && !direct {
                return Err(Errno::EINVAL);
            }
            set_flags(c, entry.file, may, low32(arg) & may)
        }
        5..=7 | 36..=38 => crate::syscall::lock::fcntl(c, entry.file, cmd, arg),
        1033 => {
            if f.flags & 3 == 0 {
                return Err(Errno::EPERM);
            }
            let inode = inode(c, fd)?;
            c.k.add_seals(inode, low32(arg))?;
            ret(0)
        }
        1034 => {
            let inode = inode(c, fd)?;
            ret(u64::from(c.k.seals(inode)?))
        }
        8..=11 | 15..=17 => owner(c, entry.file, cmd, arg),
        1031 | 1032 => {
            let FileKind::Pipe { pipe, .. } = f.kind else { return Err(Errno::EBADF) };
            let pipe = c.k.objects.pipes.get_mut(pipe).ok_or(Errno::EBADF)?;
            let size = if cmd == 1031 { pipe.resize(u64::from(low32(arg)))? } else { pipe.capacity() };
            let object = pipe.object;
            if cmd == 1031 {
                c.k.wake(crate::wait::WaitKey::Object(object));
            }
            ret(u64_of(size))
        }
        // F_GETLEASE: there are none. F_SETLEASE fails as on file systems without them.
        1025 if matches!(f.kind, FileKind::Inode(_)) => ret(2),
        1026 => {
            c.k.dnotify_add(c.tid, low32(fd), entry.file, low32(arg))?;
            ret(0)
        }
        // F_DUPFD_QUERY
        1027 => ret(u64::from(c.k.file_of(c.tid, int(arg))? == entry.file)),
        // Leases and write hints.
        1024 | 1025 | 1035..=1038 => Err(c.refuse("command", &[u64::from(cmd)], Errno::EINVAL)),
        _ => Err(Errno::EINVAL),
    }
}

/// F_SETOWN and its relatives: who gets the file's signals, and which.
fn owner(c: &mut Context<'_>, file: u64, cmd: u32, arg: u64) -> SysResult {
    match cmd {
        8 => {
            // A process, or a group as a negative number.
            let who = int(arg);
            if who == i32::MIN {
                return Err(Errno::EINVAL);
            }
            let kind = if who < 0 { OWNER_PGRP } else { OWNER_PID };
            c.k.own_file(c.tid, file, kind, who.unsigned_abs())?;
            ret(0)
        }
        9 => match c.k.owner_shown(file) {
            (OWNER_PGRP, id) => ret((-i64::from(id)).cast_unsigned()),
            (_, id) => ret(u64::from(id)),
        },
        10 => {
            let signal = u32::try_from(arg).ok().filter(|s| *s <= 64).ok_or(Errno::EINVAL)?;
            let owner = c.k.owner_of(file);
            c.k.set_owner(file, Owner { signal, ..owner });
            ret(0)
        }
        11 => ret(u64::from(c.k.owner_of(file).signal)),
        15 => {
            let kind = c.k.get_u32(c.tid, arg)?;
            let id = c.k.get_u32(c.tid, arg.wrapping_add(4))?;
            if kind > OWNER_PGRP {
                return Err(Errno::EINVAL);
            }
            c.k.own_file(c.tid, file, kind, id)?;
            ret(0)
        }
        16 => {
            let (kind, id) = c.k.owner_shown(file);
            c.k.put_u64(c.tid, arg, u64::from(kind) | u64::from(id) << 32)?;
            ret(0)
        }
        _ => {
            let (uid, euid) = c.k.owner_of(file).uid;
            c.k.put_u64(c.tid, arg, u64::from(uid) | u64::from(euid) << 32)?;
            ret(0)
        }
    }
}

pub(super) fn ioctl(c: &mut Context<'_>, &[fd, request, arg, ..]: &[u64; 6]) -> SysResult {
    let id = open(c, fd)?;
    let f = c.k.open_file(id)?;
    match low32(request) {
        0x5451 => set_cloexec(c, fd, true),
        0x5450 => set_cloexec(c, fd, false),
        0x5421 => {
            let on = c.k.get_u32(c.tid, arg)? != 0;
            set_flags(c, id, O_NONBLOCK, if on { O_NONBLOCK } else { 0 })
        }
        request if matches!(f.kind, FileKind::Tty(_)) => {
            let end = c.k.tty_end(id)?;
            crate::tty::ioctl::ioctl(c, end, request, arg)
        }
        request if let FileKind::Userfault(id) = f.kind => {
            crate::syscall::userfault::ioctl(c, id, request, arg)
        }
        request if let FileKind::Socket(id) = f.kind => {
            crate::syscall::net::ioctl::request(c, id, request, arg)
        }
        0x541b if !matches!(f.kind, FileKind::Epoll(_)) => {
            let n = match f.kind {
                FileKind::Pipe { pipe, .. } => c.k.objects.pipes.get(pipe).map_or(0, |p| u64_of(p.len())),
                FileKind::Inode(inode) => {
                    let stat = c.k.inode_stat(inode)?;
                    if stat.mode & S_IFMT != S_IFREG {
                        return Err(Errno::ENOTTY);
                    }
                    // Behind the end it is a negative number.
                    stat.size.wrapping_sub(f.pos)
                }
                FileKind::Work => c.k.work_available(),
                FileKind::Inotify(id) => c.k.objects.watches.queues.get(id).map_or(0, |q| q.pending()),
                FileKind::Fanotify(id) => {
                    c.k.objects.watches.fanotify.groups.get(id).map_or(0, |q| q.pending())
                }
                _ => return Err(Errno::ENOTTY),
            };
            c.k.put_u32(c.tid, arg, low32(n))?;
            ret(0)
        }
        request @ (0x5401 | 0x5413) if !matches!(f.kind, FileKind::Epoll(_)) => {
            let FileKind::HostStream(stream) = f.kind else { return Err(Errno::ENOTTY) };
            let stream = c.k.objects.streams.get(stream).ok_or(Errno::EBADF)?;
            let bytes =
                if request == 0x5401 { stream.termios()?.to_vec() } else { stream.winsize()?.to_vec() };
            c.k.copy_out(c.tid, arg, &bytes)?;
            ret(0)
        }
        // FS_IOC_FIEMAP
        0xc020_660b => match f.kind {
            FileKind::Inode(inode) => super::extents::fiemap(c, inode, arg),
            _ => Err(Errno::EOPNOTSUPP),
        },
        _ if matches!(f.kind, FileKind::Epoll(_)) => Err(Errno::EINVAL),
        request => {
            let request = u64::from(request);
            let linux_has = match (f.kind, request) {
                (FileKind::HostStream(stream), 0x5400..=0x54ff) => {
                    c.k.objects.streams.get(stream).is_some_and(|s| s.termios().is_ok())
                }
                // Not the cloning of extents, which few file systems have.
                (FileKind::Inode(_), 0x5400..=0x54ff | 0x8900..=0x89ff | 0x4004_9409 | 0x4020_940d) => false,
                (FileKind::Inode(_), _) | (FileKind::Socket(_), 0x8900..=0x8bff) => true,
                _ => false,
            };
            if linux_has && crate::refused::ioctl_name(request).is_some() {
                return Err(c.refuse("request", &[request], Errno::ENOTTY));
            }
            Err(Errno::ENOTTY)
        }
    }
}
