//! Processes as files (pidfd_open(2)): readable when the process has ended, and a name for it that is never reused.

use super::{FileKind, OpenFile};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::task::Tid;
use crate::vfs::file::O_NONBLOCK;
use serde::{Deserialize, Serialize};

/// One process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PidFd {
    /// Its object number for waiters.
    pub object: u64,
    /// The process.
    pub pid: u32,
    /// When it was born: another process under the same id is not meant.
    pub born: u64,
}

impl Kernel {
    /// Makes a descriptor for a process with one reference. `flags` are O_NONBLOCK or 0. ESRCH.
    pub fn pidfd_open(&mut self, pid: u32, flags: u32) -> Result<u64, Errno> {
        let born = self.processes.get(&pid).ok_or(Errno::ESRCH)?.started;
        let object = self.new_object();
        let id = self.objects.pidfds.insert(PidFd { object, pid, born });
        Ok(self.files.insert(OpenFile { kind: FileKind::PidFd(id), flags: flags | 2, pos: 0, refs: 1 }))
    }

    /// The process behind a pidfd while it exists, dead or alive. ESRCH.
    pub fn pidfd_pid(&self, id: u64) -> Result<u32, Errno> {
        let p = self.objects.pidfds.get(id).ok_or(Errno::EBADF)?;
        let same = self.processes.get(&p.pid).is_some_and(|q| q.started == p.born);
        if same { Ok(p.pid) } else { Err(Errno::ESRCH) }
    }

    /// The process that a task's descriptor stands for, and whether the descriptor is non-blocking. EBADF; ECHILD for a process that is gone.
    pub fn pidfd_target(&self, tid: Tid, fd: i32) -> Result<(u32, bool), Errno> {
        let file = self.open_file(self.file_of(tid, fd)?)?;
        let FileKind::PidFd(id) = file.kind else { return Err(Errno::EBADF) };
        let pid = self.pidfd_pid(id).map_err(|_| Errno::ECHILD)?;
        Ok((pid, file.flags & O_NONBLOCK != 0))
    }

    /// POLL* events: input once the process has ended, and a hang-up once it was waited for.
    pub fn pidfd_poll(&self, id: u64) -> u32 {
        use crate::poll::{POLLHUP, POLLIN, POLLRDNORM};
        match self.pidfd_pid(id).map(|pid| self.processes.get(&pid).is_some_and(|p| p.zombie.is_none())) {
            Ok(true) => 0,
            Ok(false) => POLLIN | POLLRDNORM,
            Err(_) => POLLIN | POLLRDNORM | POLLHUP,
        }
    }

    /// A process ended: whoever watches it is woken.
    pub(crate) fn pidfd_notify(&mut self, pid: u32) {
        let objects: Vec<u64> =
            self.objects.pidfds.iter().filter(|(_, p)| p.pid == pid).map(|(_, p)| p.object).collect();
        for object in objects {
            self.wake(crate::wait::WaitKey::Object(object));
        }
    }
}
