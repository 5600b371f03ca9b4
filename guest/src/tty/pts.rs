//! /dev/ptmx, /dev/tty and the names below /dev/pts (pts(4), tty(4)).

use super::{MAX_TTYS, Tty, TtyEnd};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::task::Tid;
use crate::vfs::inode::{FsKind, Kind, S_IFCHR};
use crate::vfs::{Device, FileKind, InodeId, OpenFile, Stat};
use linux_raw_sys::general as g;

/// Major number of the slaves.
const MAJOR: u64 = 136;
/// Group `tty`, which owns the slaves.
const GROUP: u32 = 5;

/// `st_rdev` of a slave.
pub fn device_number(n: u32) -> u64 {
    let n = u64::from(n);
    MAJOR << 8 | n & 0xff | (n & !0xff) << 12
}

impl Kernel {
    /// Makes a terminal and its name below /dev/pts, owned by a user. ENOSPC.
    pub(crate) fn tty_new(&mut self, uid: u32) -> Result<u32, Errno> {
        let all = &self.objects.ttys.all;
        let n = (0..MAX_TTYS).find(|n| !all.contains_key(n)).ok_or(Errno::ENOSPC)?;
        let stat = self.fresh_stat(S_IFCHR | 0o620);
        let stat = Stat { uid, gid: GROUP, rdev: device_number(n), ..stat };
        let (directory, name) = (self.objects.ttys.directory, n.to_string());
        let node =
            self.bind_new(directory, name.as_bytes(), Kind::Device(Device::Pts(n)), stat, FsKind::Dev)?;
        let tty = Tty {
            master_object: self.new_object(),
            slave_object: self.new_object(),
            locked: true,
            node,
            ..Tty::default()
        };
        self.objects.ttys.all.insert(n, tty);
        Ok(n)
    }

    /// Takes a slave's name away.
    pub(crate) fn pts_remove(&mut self, n: u32) {
        let Ok(t) = self.tty_mut(n) else { return };
        let node = std::mem::take(&mut t.node);
        let directory = self.objects.ttys.directory;
        if let Ok(dir) = self.vfs.dir_mut(directory) {
            dir.remove(n.to_string().as_bytes());
        }
        if let Ok(inode) = self.vfs.inode_mut(node) {
            inode.stat.nlink = 0;
            if inode.opens == 0 {
                self.reap_inode(node);
            }
        }
    }

    /// Opens a terminal device. The caller has checked permissions.
    pub(crate) fn tty_open(
        &mut self,
        tid: Tid,
        inode: InodeId,
        device: Device,
        flags: u32,
    ) -> Result<u64, Errno> {
        let (pid, uid) = self.process_of(tid).map_or((0, 0), |p| (p.pid, p.creds.fsuid));
        match device {
            Device::Ptmx => {
                let tty = self.tty_new(uid)?;
                Ok(self.tty_file(TtyEnd { tty, master: true, inode }, flags))
            }
            Device::Pts(tty) => self.slave_open(tid, pid, tty, inode, flags),
            _ => {
                let tty = self.controlling_tty(pid).ok_or(Errno::ENXIO)?;
                self.slave_open(tid, pid, tty, inode, flags | g::O_NOCTTY)
            }
        }
    }

    /// A further file of a slave; for a session leader without a terminal it becomes the controlling one. EIO, EBUSY.
    pub(crate) fn slave_open(
        &mut self,
        tid: Tid,
        pid: u32,
        tty: u32,
        inode: InodeId,
        flags: u32,
    ) -> Result<u64, Errno> {
        let root = self.capable(tid, crate::task::creds::cap::SYS_ADMIN);
        let t = self.tty_mut(tty)?;
        if t.locked || t.hung_up {
            return Err(Errno::EIO);
        }
        if t.exclusive && !root {
            return Err(Errno::EBUSY);
        }
        t.slaves += 1;
        t.slave_closed = false;
        if flags & g::O_NOCTTY == 0 && t.session == 0 && flags & g::O_ACCMODE != g::O_WRONLY {
            let _ = self.set_controlling_tty(pid, tty, false);
        }
        Ok(self.tty_file(TtyEnd { tty, master: false, inode }, flags))
    }

    fn tty_file(&mut self, end: TtyEnd, flags: u32) -> u64 {
        self.inode_open_count(end.inode, 1);
        let flags = flags & !crate::vfs::tree::OPEN_ONLY;
        self.files.insert(OpenFile { kind: FileKind::Tty(end), flags, pos: 0, refs: 1 })
    }
}
