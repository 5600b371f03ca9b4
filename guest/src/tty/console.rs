//! The terminal whose master is the host's: `coppice run --tty` copies between the host's terminal, in raw mode, and a guest terminal.

use super::{QUEUE, TtyEnd};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::task::{Fd, Tid};
use crate::vfs::{FileKind, Stdio};
use linux_raw_sys::general as g;
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// Most bytes moved at a time.
const PIECE: usize = 4096;

/// The host's side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Console {
    /// The guest terminal.
    pub tty: u32,
    /// Keyboard; none once it has ended.
    #[serde(skip)]
    pub input: Option<Arc<OwnedFd>>,
    /// Screen; none once it cannot be written.
    #[serde(skip)]
    pub output: Option<Arc<OwnedFd>>,
    /// The keyboard is a terminal: its end is a hang-up. Of anything else the end is an end-of-file character.
    pub terminal: bool,
}

fn ready(fd: &OwnedFd, events: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, events)];
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(rustix::event::poll(&mut fds, Some(&zero)), Ok(n) if n > 0)
}

impl Kernel {
    /// Gives process 1 a controlling terminal that is the host's, on its descriptors 0, 1 and 2; standard error stays the host's own where
    /// one is given. EIO, ENOSPC.
    pub fn attach_console(
        &mut self,
        tid: Tid,
        input: OwnedFd,
        output: OwnedFd,
        stderr: bool,
        winsize: [u8; 8],
    ) -> Result<(), Errno> {
        let terminal = rustix::termios::isatty(&input);
        let tty = self.tty_new(0)?;
        let t = self.tty_mut(tty)?;
        t.locked = false;
        t.winsize = winsize;
        let node = t.node;
        let pid = self.task(tid).map(|t| t.pid).ok_or(Errno::ESRCH)?;
        let file = self.slave_open(tid, pid, tty, node, g::O_RDWR)?;
        let table = self.task(tid).map(|t| t.files).ok_or(Errno::EBADF)?;
        for fd in 0..if stderr { 2 } else { 3 } {
            if fd > 0 {
                self.file_ref(file);
            }
            let old = self.fd_tables.get_mut(table).and_then(|t| t.put(fd, Fd { file, cloexec: false }));
            if let Some(old) = old {
                self.file_unref(old.file);
            }
        }
        let console = Console { tty, input: Some(Arc::new(input)), output: Some(Arc::new(output)), terminal };
        self.objects.ttys.console = Some(console);
        Ok(())
    }

    /// The host's terminal has another size (`struct winsize`).
    pub fn console_resize(&mut self, winsize: [u8; 8]) {
        if let Some(tty) = self.objects.ttys.console.as_ref().map(|c| c.tty) {
            self.tty_resize(tty, winsize);
        }
    }

    /// Host descriptors to watch: (descriptor, wants input, wants output).
    pub(crate) fn console_polls(&self) -> Vec<(i32, bool, bool)> {
        let Some(console) = &self.objects.ttys.console else { return Vec::new() };
        let Ok(t) = self.tty(console.tty) else { return Vec::new() };
        let mut all = Vec::new();
        if let Some(fd) = console.input.as_ref().filter(|_| t.incoming.len() < PIECE && !t.hung_up) {
            all.push((fd.as_raw_fd(), true, false));
        }
        if let Some(fd) = console.output.as_ref().filter(|_| !t.output.is_empty()) {
            all.push((fd.as_raw_fd(), false, true));
        }
        all
    }

    /// A host descriptor that may be the console's is ready.
    pub(crate) fn console_ready(&mut self, fd: i32) {
        let Some(console) = &self.objects.ttys.console else { return };
        let is = |f: &Option<Arc<OwnedFd>>| f.as_ref().is_some_and(|f| f.as_raw_fd() == fd);
        let (keys, screen) = (is(&console.input), is(&console.output));
        if keys {
            self.console_input();
        }
        if screen {
            self.console_flush();
        }
    }

    fn console_input(&mut self) {
        let Some(Console { tty, input: Some(fd), terminal, .. }) = self.objects.ttys.console.clone() else {
            return;
        };
        if !ready(&fd, PollFlags::IN) {
            return;
        }
        let mut buf = [0; PIECE];
        let n = rustix::io::read(&*fd, &mut buf).unwrap_or(0);
        if let Some(data) = buf.get(..n).filter(|d| !d.is_empty()) {
            let _ = self.tty_push(&TtyEnd { tty, master: true, inode: 0 }, data);
            return;
        }
        if let Some(console) = &mut self.objects.ttys.console {
            console.input = None;
        }
        if terminal {
            self.tty_hang_up(tty);
        } else if let Ok(t) = self.tty_mut(tty) {
            let eof = t.termios.char(super::flag::VEOF);
            // A line that has begun ends with the first, and the next read sees the second.
            let times = if t.line.is_empty() && t.incoming.is_empty() { 1 } else { 2 };
            t.incoming.extend(std::iter::repeat_n(eof, times));
            self.tty_pump(tty);
        }
    }

    /// A reader made room: what the host has for it can come.
    pub(crate) fn console_room(&mut self) {
        if self.objects.ttys.console.is_some() {
            self.console_input();
        }
    }

    /// Writes what the host's terminal takes without waiting.
    pub(crate) fn console_flush(&mut self) {
        while self.console_write(false) {}
        self.console_wake();
    }

    /// Writes everything that the guest has left, waiting for the host's terminal; for the end of a sandbox.
    pub fn console_drain(&mut self) {
        while self.console_write(true) {}
    }

    fn console_wake(&mut self) {
        let Some(tty) = self.objects.ttys.console.as_ref().map(|c| c.tty) else { return };
        if let Ok(t) = self.tty(tty)
            && t.output.len() < QUEUE
        {
            let object = t.slave_object;
            self.wake_for(object, crate::poll::OUTPUT);
        }
    }

    /// One piece; whether there may be more to write now.
    fn console_write(&mut self, wait: bool) -> bool {
        let Some(Console { tty, output, .. }) = self.objects.ttys.console.clone() else { return false };
        let Ok(t) = self.tty_mut(tty) else { return false };
        if t.output.is_empty() {
            return false;
        }
        let piece: Vec<u8> = t.output.iter().copied().take(PIECE).collect();
        let Some(fd) = output else {
            // Nobody sees it.
            t.output.clear();
            return false;
        };
        if !wait && !ready(&fd, PollFlags::OUT) {
            return false;
        }
        match rustix::io::write(&*fd, &piece) {
            Ok(n) => {
                t.output.drain(..n.min(t.output.len()));
                n > 0
            }
            Err(rustix::io::Errno::INTR) => true,
            Err(rustix::io::Errno::AGAIN) if wait => {
                let mut fds = [PollFd::new(&*fd, PollFlags::OUT)];
                rustix::event::poll(&mut fds, None).is_ok()
            }
            Err(rustix::io::Errno::AGAIN) => false,
            Err(_) => {
                if let Some(console) = &mut self.objects.ttys.console {
                    console.output = None;
                }
                true
            }
        }
    }

    /// The standard streams of a process that gets a console: only standard error may be the host's.
    pub fn console_stdio(stderr: Option<OwnedFd>) -> Stdio {
        Stdio { stderr, ..Stdio::default() }
    }

    /// Whether a file is an end of the console.
    pub fn is_console(&self, file: u64) -> bool {
        let tty = self.objects.ttys.console.as_ref().map(|c| c.tty);
        matches!(self.files.get(file).map(|f| &f.kind), Some(FileKind::Tty(end)) if Some(end.tty) == tty)
    }
}
