//! Terminals: pseudoterminal pairs (pty(7)), their line discipline (`ldisc`), modes (`termios`), control calls (`ioctl`), sessions and
//! foreground groups (`jobs`), and the one whose master is the host's terminal (`console`).
//!
//! A terminal exists while its master or one of its slave files is open. `Files::ttys` owns the state; the names below /dev/pts are
//! ordinary inodes of the tree. Both ends have an object number for those who wait on them.

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::{u64_of, us};
use crate::poll::{POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM};
use crate::task::Tid;
use crate::vfs::file::{O_NONBLOCK, iovec_total};
use crate::vfs::{FileKind, InodeId, OpenFile};
use crate::wait::{Block, Cause, Outcome, Restart, SysResult, WaitKey};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

pub mod console;
mod erase;
pub mod ioctl;
pub mod jobs;
pub mod ldisc;
pub mod pts;
pub mod termios;

use termios::{Termios, flag};

/// Bytes that wait in each direction before a writer has to (the limit of Linux's buffers for a terminal).
pub const QUEUE: usize = 65536;
/// Terminals that may exist at once.
pub const MAX_TTYS: u32 = 1024;
/// POLLPRI.
const POLLPRI: u32 = 2;

/// One open end of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TtyEnd {
    /// Which terminal.
    pub tty: u32,
    /// The master end.
    pub master: bool,
    /// The name that it was opened by.
    pub inode: InodeId,
}

/// One terminal.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tty {
    /// Modes.
    pub termios: Termios,
    /// `struct winsize`.
    pub winsize: [u8; 8],
    /// The session that it controls; 0 for none.
    pub session: u32,
    /// The foreground group; 0 for none.
    pub group: u32,
    /// TIOCSPTLCK: the slave cannot be opened.
    pub locked: bool,
    /// TIOCEXCL.
    pub exclusive: bool,
    /// The master is gone: slave files are dead.
    pub hung_up: bool,
    /// Open slave files.
    pub slaves: u32,
    /// The last slave was closed and none opened since.
    pub slave_closed: bool,
    /// TIOCPKT.
    pub packet: bool,
    /// What a master in packet mode has to hear.
    pub status: u8,
    /// Output is stopped (STOP character, tcflow(3)).
    pub stopped: bool,
    /// Bytes from the master that the line discipline has not taken.
    pub incoming: VecDeque<u8>,
    /// Cells that can be read: byte and marks of `ldisc`.
    pub input: VecDeque<u16>,
    /// Marks of line ends in `input`.
    pub ends: usize,
    /// The line that is being edited.
    pub line: Vec<u8>,
    /// Bytes for the master.
    pub output: VecDeque<u8>,
    /// The next character is taken literally.
    pub lnext: bool,
    /// An ECHOPRT erasure is being shown.
    pub erasing: bool,
    /// Column of the cursor.
    pub column: u32,
    /// Column at which the line that is being edited begins.
    pub line_column: u32,
    /// Object number of the master end.
    pub master_object: u64,
    /// Object number of the slave end.
    pub slave_object: u64,
    /// The slave's name; 0 once it is gone.
    pub node: InodeId,
}

/// All terminals.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ttys {
    /// By number.
    pub all: BTreeMap<u32, Tty>,
    /// The directory /dev/pts.
    pub directory: InodeId,
    /// The host's terminal, when the sandbox has one.
    pub console: Option<console::Console>,
}

impl Tty {
    /// POLL* events of the slave end.
    fn poll_slave(&self) -> u32 {
        if self.hung_up {
            return POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDNORM | POLLWRNORM;
        }
        let timed = self.termios.char(flag::VTIME) != 0;
        let min = if timed { 1 } else { usize::from(self.termios.char(flag::VMIN)) };
        let input = if self.readable(min) { POLLIN | POLLRDNORM } else { 0 };
        let room = self.output.len() < QUEUE && !self.stopped;
        input | if room { POLLOUT | POLLWRNORM } else { 0 }
    }

    /// POLL* events of the master end.
    fn poll_master(&self) -> u32 {
        let mut events = if self.output.is_empty() { 0 } else { POLLIN | POLLRDNORM };
        if self.packet && self.status != 0 {
            events |= POLLPRI | POLLIN | POLLRDNORM;
        }
        if self.slave_closed {
            events |= POLLHUP;
        }
        events | if self.incoming.len() < QUEUE { POLLOUT | POLLWRNORM } else { 0 }
    }
}

impl Kernel {
    /// A terminal. EIO when there is none any more.
    pub(crate) fn tty(&self, n: u32) -> Result<&Tty, Errno> {
        self.objects.ttys.all.get(&n).ok_or(Errno::EIO)
    }

    /// A terminal. EIO when there is none any more.
    pub(crate) fn tty_mut(&mut self, n: u32) -> Result<&mut Tty, Errno> {
        self.objects.ttys.all.get_mut(&n).ok_or(Errno::EIO)
    }

    /// POLL* events of one end.
    pub(crate) fn tty_poll(&self, end: &TtyEnd) -> u32 {
        self.tty(end.tty)
            .map_or(POLLERR | POLLHUP, |t| if end.master { t.poll_master() } else { t.poll_slave() })
    }

    /// What to sleep on for a change of one end.
    pub(crate) fn tty_object(&self, end: &TtyEnd) -> Option<u64> {
        self.tty(end.tty).ok().map(|t| if end.master { t.master_object } else { t.slave_object })
    }

    /// Takes what the master wrote through the line discipline, sends its signals and wakes whoever may go on.
    pub(crate) fn tty_pump(&mut self, n: u32) {
        let Ok(t) = self.tty_mut(n) else { return };
        let signals = t.pump();
        let (group, slave) = (t.group, t.slave_object);
        for signo in signals {
            if group != 0 {
                self.signal_group(group, signo);
            }
        }
        self.wake(WaitKey::Object(slave));
        self.tty_output(n);
    }

    /// There may be something for the master, or for the host's terminal.
    pub(crate) fn tty_output(&mut self, n: u32) {
        if self.objects.ttys.console.as_ref().is_some_and(|c| c.tty == n) {
            return self.console_flush();
        }
        if let Ok(t) = self.tty(n) {
            let object = t.master_object;
            self.wake(WaitKey::Object(object));
        }
    }

    /// read(2) of either end.
    pub(crate) fn tty_read(
        &mut self,
        tid: Tid,
        f: &OpenFile,
        end: TtyEnd,
        iovecs: &[(u64, u64)],
    ) -> SysResult {
        let total = us(iovec_total(iovecs)).min(QUEUE);
        if total == 0 {
            return Ok(Outcome::Return(0));
        }
        if let Some((va, _)) = iovecs.iter().find(|(_, len)| *len > 0) {
            // Bytes cannot be put back: look at the destination first.
            self.user_gpa(tid, *va, true)?;
        }
        let nonblocking = f.flags & O_NONBLOCK != 0;
        let data = if end.master {
            match self.master_take(end.tty, total)? {
                Some(data) => data,
                None if nonblocking => return Err(Errno::EAGAIN),
                None => return self.tty_sleep(&end, None, 0),
            }
        } else {
            match self.slave_take(tid, &end, total, nonblocking)? {
                Ok(data) => data,
                Err(outcome) => return Ok(outcome),
            }
        };
        Ok(Outcome::Return(u64_of(self.scatter(tid, iovecs, &data))))
    }

    fn tty_sleep(&self, end: &TtyEnd, deadline: Option<u64>, memo: u64) -> SysResult {
        let on = self.tty_object(end).map(WaitKey::Object).into_iter().collect();
        let restart = Restart::IfSaRestart;
        Ok(Outcome::Block(Block { on, deadline, relative: true, restart, memo: [memo, 0] }))
    }

    /// What the master reads; `None` when that is nothing yet. EIO when no slave is open any more.
    fn master_take(&mut self, n: u32, max: usize) -> Result<Option<Vec<u8>>, Errno> {
        let t = self.tty_mut(n)?;
        if t.packet && t.status != 0 {
            return Ok(Some(vec![std::mem::take(&mut t.status)]));
        }
        if t.output.is_empty() {
            return if t.slave_closed { Err(Errno::EIO) } else { Ok(None) };
        }
        let mut data = Vec::new();
        if t.packet {
            data.push(0);
        }
        let room = max - data.len();
        data.extend(t.output.drain(..room.min(t.output.len())));
        let slave = t.slave_object;
        self.wake_for(slave, crate::poll::OUTPUT);
        Ok(Some(data))
    }

    /// What a slave reads, or how the call sleeps.
    fn slave_take(
        &mut self,
        tid: Tid,
        end: &TtyEnd,
        max: usize,
        nonblocking: bool,
    ) -> Result<Result<Vec<u8>, Outcome>, Errno> {
        if self.tty(end.tty)?.hung_up {
            return Ok(Ok(Vec::new()));
        }
        if let Some(outcome) = self.check_foreground(tid, end.tty, jobs::SIGTTIN)? {
            return Ok(Err(outcome));
        }
        let resume = self.task(tid).and_then(|t| t.resume);
        let now = self.platform.monotonic();
        let t = self.tty_mut(end.tty)?;
        let canonical = t.termios.has(flag::ICANON);
        let min = usize::from(t.termios.char(flag::VMIN));
        let time = u64::from(t.termios.char(flag::VTIME)) * 100_000_000;
        let have = t.input.len();
        let timed_out = resume.is_some_and(|r| r.cause == Cause::TimedOut);
        let ready = if canonical {
            t.readable(1)
        } else if min == 0 {
            have > 0 || time == 0 || (timed_out && !nonblocking)
        } else {
            have >= min.min(max) || (have > 0 && (nonblocking || (time != 0 && timed_out)))
        };
        if ready {
            let data = t.take(max);
            // There is room for more of what the master wrote, and the master may write on.
            let master = t.master_object;
            self.tty_pump(end.tty);
            self.wake_for(master, crate::poll::OUTPUT);
            self.console_room();
            return Ok(Ok(data));
        }
        if nonblocking {
            return Err(Errno::EAGAIN);
        }
        let seen = resume.map_or(0, |r| us(r.memo.first().copied().unwrap_or(0)));
        let deadline = match (canonical || time == 0, min) {
            (true, _) => None,
            // One deadline for the whole call.
            (false, 0) => resume.and_then(|r| r.deadline).or(Some(now.saturating_add(time))),
            // One after each byte.
            (false, _) if have == 0 => None,
            (false, _) if have == seen => resume.and_then(|r| r.deadline).or(Some(now.saturating_add(time))),
            (false, _) => Some(now.saturating_add(time)),
        };
        self.tty_sleep(end, deadline, u64_of(have)).map(Err)
    }

    /// write(2) of either end.
    pub(crate) fn tty_write(
        &mut self,
        tid: Tid,
        f: &OpenFile,
        end: TtyEnd,
        iovecs: &[(u64, u64)],
    ) -> SysResult {
        let total = us(iovec_total(iovecs));
        let mut done = us(self.moved_before(tid)).min(total);
        let mut written = 0;
        loop {
            if !end.master {
                if self.tty(end.tty)?.hung_up {
                    return Err(Errno::EIO);
                }
                if self.tty(end.tty)?.termios.has(flag::TOSTOP)
                    && let Some(outcome) = self.check_foreground(tid, end.tty, jobs::SIGTTOU)?
                {
                    return Ok(outcome);
                }
            }
            if done == total {
                return Ok(Outcome::Return(u64_of(done)));
            }
            let window = crate::vfs::file::window(iovecs, u64_of(done), 4096);
            let data = self.gather(tid, &window);
            if data.is_empty() {
                return if done == 0 { Err(Errno::EFAULT) } else { Ok(Outcome::Return(u64_of(done))) };
            }
            let n = self.tty_push(&end, &data)?;
            done += n;
            written += n;
            // Others may run in the middle of a long transfer, above all who reads the other end.
            if n == data.len() && written < QUEUE {
                continue;
            }
            if n < data.len() && f.flags & O_NONBLOCK != 0 {
                return if done == 0 { Err(Errno::EAGAIN) } else { Ok(Outcome::Return(u64_of(done))) };
            }
            let restart = if done > 0 { Restart::Partial } else { Restart::IfSaRestart };
            let on = self.tty_object(&end).map(WaitKey::Object).into_iter().collect();
            let deadline = (n == data.len()).then(|| self.platform.monotonic());
            return Ok(Outcome::Block(Block {
                on,
                deadline,
                relative: false,
                restart,
                memo: [u64_of(done), 0],
            }));
        }
    }

    /// Puts bytes into one end as far as there is room. EIO.
    pub(crate) fn tty_push(&mut self, end: &TtyEnd, data: &[u8]) -> Result<usize, Errno> {
        let t = self.tty_mut(end.tty)?;
        if end.master {
            let n = data.len().min(QUEUE.saturating_sub(t.incoming.len()));
            t.incoming.extend(data.iter().take(n));
            self.tty_pump(end.tty);
            return Ok(n);
        }
        let n = t.write(data);
        if n > 0 {
            self.tty_output(end.tty);
        }
        Ok(n)
    }

    /// The last reference to a file of one end is gone.
    pub(crate) fn tty_close(&mut self, end: &TtyEnd) {
        self.inode_open_count(end.inode, -1);
        let Some(t) = self.objects.ttys.all.get_mut(&end.tty) else { return };
        let (master, slave) = (t.master_object, t.slave_object);
        if end.master {
            self.tty_hang_up(end.tty);
            self.pts_remove(end.tty);
        } else {
            t.slaves = t.slaves.saturating_sub(1);
            if t.slaves == 0 {
                t.slave_closed = true;
                t.packet_status(0, 0);
            }
        }
        if self.objects.ttys.all.get(&end.tty).is_some_and(|t| t.hung_up && t.slaves == 0) {
            self.objects.ttys.all.remove(&end.tty);
        }
        self.wake(WaitKey::Object(master));
        self.wake(WaitKey::Object(slave));
    }

    /// The master, or the host's terminal, is gone: slave files are dead, and the session hears of it.
    pub(crate) fn tty_hang_up(&mut self, n: u32) {
        let Ok(t) = self.tty_mut(n) else { return };
        t.hung_up = true;
        t.flush_input();
        t.incoming.clear();
        t.output.clear();
        t.stopped = false;
        let (session, master, slave) = (std::mem::take(&mut t.session), t.master_object, t.slave_object);
        t.group = 0;
        for signo in [1, 18] {
            if session != 0 {
                let info = crate::signal::SigInfo { signo, code: 0x80, ..Default::default() };
                self.signal_process(session, info);
            }
        }
        self.wake(WaitKey::Object(master));
        self.wake(WaitKey::Object(slave));
    }

    /// The end behind a file. ENOTTY.
    pub(crate) fn tty_end(&self, file: u64) -> Result<TtyEnd, Errno> {
        match self.open_file(file)?.kind {
            FileKind::Tty(end) => Ok(end),
            _ => Err(Errno::ENOTTY),
        }
    }
}
