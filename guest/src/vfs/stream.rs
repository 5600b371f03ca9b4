//! Host descriptors behind stdin, stdout and stderr. Their descriptions are shared with programs outside the sandbox, so
//! O_NONBLOCK is never changed: every transfer is preceded by a poll that does not wait.

use super::{FileKind, OpenFile, Stat, Stdio};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::task::{Fd, Tid};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// One host stream. Without a descriptor it behaves as /dev/null, so that a seed started without stdio can get it at a fork.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostStream {
    /// 0 stdin, 1 stdout, 2 stderr.
    pub role: u32,
    /// The descriptor.
    #[serde(skip)]
    pub fd: Option<Arc<OwnedFd>>,
    /// Object number for those who wait for input.
    pub object_in: u64,
    /// Object number for those who wait for output.
    pub object_out: u64,
}

/// Most bytes written after one poll: a pipe that polls writable takes this many without blocking.
const WRITE_PIECE: usize = 4096;

/// st_dev of the sandbox's stdin, stdout and stderr.
const HOST_DEVICE: u64 = 0xe;

impl HostStream {
    /// POLL* events now.
    pub fn poll(&self) -> u32 {
        let Some(fd) = &self.fd else { return crate::poll::POLLIN | crate::poll::POLLOUT };
        let mut fds = [PollFd::new(fd, PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP)];
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        match rustix::event::poll(&mut fds, Some(&zero)) {
            Ok(_) => fds.first().map_or(0, |p| u32::from(p.revents().bits())),
            Err(_) => 0,
        }
    }

    /// Reads what is there. EAGAIN when nothing is.
    pub fn read(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        use crate::poll::{POLLERR, POLLHUP, POLLIN};
        let Some(fd) = &self.fd else { return Ok(0) };
        if buf.is_empty() {
            return Ok(0);
        }
        if self.poll() & (POLLIN | POLLHUP | POLLERR) == 0 {
            return Err(Errno::EAGAIN);
        }
        Ok(rustix::io::read(fd, buf)?)
    }

    /// Writes what a reader takes without waiting. EAGAIN when that is nothing, EPIPE.
    pub fn write(&self, buf: &[u8]) -> Result<usize, Errno> {
        use crate::poll::{POLLERR, POLLHUP, POLLOUT};
        let Some(fd) = &self.fd else { return Ok(buf.len()) };
        if self.poll() & (POLLOUT | POLLHUP | POLLERR) == 0 {
            return Err(Errno::EAGAIN);
        }
        let piece = buf.get(..buf.len().min(WRITE_PIECE)).unwrap_or_default();
        Ok(rustix::io::write(fd, piece)?)
    }

    /// The host's type and mode, without its device numbers.
    pub fn stat(&self) -> Result<Stat, Errno> {
        let Some(fd) = &self.fd else {
            return Ok(Stat { mode: 0o20666, rdev: 0x103, nlink: 1, blksize: 4096, ..Stat::default() });
        };
        let st = rustix::fs::fstat(fd)?;
        let size = u64::try_from(st.st_size).unwrap_or(0);
        Ok(Stat {
            mode: st.st_mode,
            nlink: 1,
            // The same host file behind two descriptors is the same to the guest; no guest file has this device number.
            dev: HOST_DEVICE,
            ino: st.st_ino,
            size,
            blksize: 4096,
            blocks: size.div_ceil(512),
            ..Stat::default()
        })
    }

    /// `struct termios` in the kernel's layout. ENOTTY.
    pub fn termios(&self) -> Result<[u8; 36], Errno> {
        use rustix::termios::SpecialCodeIndex as C;
        let t = rustix::termios::tcgetattr(self.fd.as_ref().ok_or(Errno::ENOTTY)?)?;
        let codes = [
            C::VINTR,
            C::VQUIT,
            C::VERASE,
            C::VKILL,
            C::VEOF,
            C::VTIME,
            C::VMIN,
            C::VSWTC,
            C::VSTART,
            C::VSTOP,
            C::VSUSP,
            C::VEOL,
            C::VREPRINT,
            C::VDISCARD,
            C::VWERASE,
            C::VLNEXT,
            C::VEOL2,
        ];
        let mut bytes = Vec::with_capacity(36);
        for mode in
            [t.input_modes.bits(), t.output_modes.bits(), t.control_modes.bits(), t.local_modes.bits()]
        {
            bytes.extend(mode.to_le_bytes());
        }
        bytes.push(0); // the line discipline: always N_TTY
        bytes.extend(codes.map(|c| t.special_codes[c]));
        bytes.resize(36, 0);
        bytes.try_into().map_err(|_| Errno::EINVAL)
    }

    /// `struct winsize`. ENOTTY.
    pub fn winsize(&self) -> Result<[u8; 8], Errno> {
        let w = rustix::termios::tcgetwinsize(self.fd.as_ref().ok_or(Errno::ENOTTY)?)?;
        let mut bytes = [0; 8];
        for (to, x) in bytes.chunks_exact_mut(2).zip([w.ws_row, w.ws_col, w.ws_xpixel, w.ws_ypixel]) {
            to.copy_from_slice(&x.to_le_bytes());
        }
        Ok(bytes)
    }
}

impl Kernel {
    /// Gives a task without descriptors its first: 0..2 on the host's, 3 on the work channel when asked for.
    pub fn install_stdio(&mut self, tid: Tid, stdio: Stdio) {
        let Some(table) = self.task(tid).map(|t| t.files) else { return };
        let fds = [stdio.stdin, stdio.stdout, stdio.stderr];
        for (role, (fd, access)) in (0u32..).zip(fds.into_iter().zip([0, 1, 1])) {
            let stream = HostStream {
                role,
                fd: fd.map(Arc::new),
                object_in: self.new_object(),
                object_out: self.new_object(),
            };
            let flags = match &stream.fd {
                Some(fd) => rustix::fs::fcntl_getfl(fd).map_or(access, |f| f.bits() & 3),
                None => 2,
            };
            let id = self.objects.streams.insert(stream);
            self.install_at(table, role, OpenFile { kind: FileKind::HostStream(id), flags, pos: 0, refs: 1 });
        }
        if stdio.work {
            self.install_at(table, 3, OpenFile { kind: FileKind::Work, flags: 2, pos: 0, refs: 1 });
        }
    }

    fn install_at(&mut self, table: u64, fd: u32, file: OpenFile) {
        let file = self.files.insert(file);
        let old = self.fd_tables.get_mut(table).and_then(|t| t.put(fd, Fd { file, cloexec: false }));
        match old {
            Some(old) => self.file_unref(old.file),
            None => self.objects.descriptors += 1,
        }
    }

    /// Replaces the host descriptors behind stdin, stdout, stderr; `None` leaves one as it is. Whoever sleeps on one tries again.
    pub fn reissue_stdio(&mut self, stdio: Stdio) {
        let mut changed = Vec::new();
        for (role, fd) in (0u32..).zip([stdio.stdin, stdio.stdout, stdio.stderr]) {
            let Some(fd) = fd.map(Arc::new) else { continue };
            for (_, stream) in self.objects.streams.iter_mut().filter(|(_, s)| s.role == role) {
                stream.fd = Some(fd.clone());
                changed.extend([stream.object_in, stream.object_out]);
            }
        }
        for object in changed {
            self.wake(crate::wait::WaitKey::Object(object));
        }
    }
}
