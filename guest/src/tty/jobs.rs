//! Controlling terminals: which session has which, its foreground group, and what happens to background groups (credentials(7), ioctl_tty(2)).

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::signal::{SIG_IGN, SigInfo, bit};
use crate::task::Tid;
use crate::wait::{Block, Outcome, Restart};

/// SIGTTIN.
pub const SIGTTIN: u32 = 21;
/// SIGTTOU.
pub const SIGTTOU: u32 = 22;
/// How soon a background caller looks again when its signal went to another thread, ns.
const AGAIN: u64 = 10_000_000;

impl Kernel {
    /// The controlling terminal of a process.
    pub fn controlling_tty(&self, pid: u32) -> Option<u32> {
        let process = self.processes.get(&pid)?;
        if process.aux.tty_given_up {
            return None;
        }
        self.objects.ttys.all.iter().find(|(_, t)| t.session == process.sid).map(|(n, _)| *n)
    }

    /// Whether a task may use its terminal now. One of a background group gets its group a signal and sleeps until it may be in the
    /// foreground (`Some`); EIO where that signal would come to nothing.
    pub(crate) fn check_foreground(
        &mut self,
        tid: Tid,
        tty: u32,
        signo: u32,
    ) -> Result<Option<Outcome>, Errno> {
        let (Some(process), Some(task)) = (self.process_of(tid), self.task(tid)) else { return Ok(None) };
        let (pid, group, blocked) = (process.pid, process.pgid, task.sigmask & bit(signo) != 0);
        let foreground = self.tty(tty)?.group;
        if foreground == 0 || foreground == group || self.controlling_tty(pid) != Some(tty) {
            return Ok(None);
        }
        if blocked || self.action(pid, signo).handler == SIG_IGN {
            return if signo == SIGTTIN { Err(Errno::EIO) } else { Ok(None) };
        }
        if self.is_orphaned(group, 0) {
            return Err(Errno::EIO);
        }
        self.signal_group(group, signo);
        let deadline = Some(self.platform.monotonic().saturating_add(AGAIN));
        let restart = Restart::IfSaRestart;
        Ok(Some(Outcome::Block(Block { on: Vec::new(), deadline, relative: true, restart, memo: [0; 2] })))
    }

    /// TIOCSCTTY, or an open(2) by a session leader: the terminal becomes the session's. EPERM.
    pub(crate) fn set_controlling_tty(&mut self, pid: u32, tty: u32, steal: bool) -> Result<(), Errno> {
        let process = self.processes.get(&pid).ok_or(Errno::EPERM)?;
        let (sid, group, root) =
            (process.sid, process.pgid, process.creds.can(crate::task::creds::cap::SYS_ADMIN));
        let owner = self.tty(tty)?.session;
        if sid == pid && owner == sid {
            return Ok(());
        }
        if sid != pid || self.controlling_tty(pid).is_some() || (owner != 0 && !(steal && root)) {
            return Err(Errno::EPERM);
        }
        for p in self.processes.values_mut().filter(|p| p.sid == sid) {
            p.aux.tty_given_up = false;
        }
        let t = self.tty_mut(tty)?;
        (t.session, t.group) = (sid, group);
        Ok(())
    }

    /// TIOCNOTTY: the caller gives its controlling terminal up; a session leader does so for all. ENOTTY.
    pub(crate) fn give_up_tty(&mut self, pid: u32, tty: u32) -> Result<(), Errno> {
        if self.controlling_tty(pid) != Some(tty) {
            return Err(Errno::ENOTTY);
        }
        let leads = self.processes.get(&pid).is_some_and(|p| p.sid == pid);
        if !leads {
            if let Some(p) = self.processes.get_mut(&pid) {
                p.aux.tty_given_up = true;
            }
            return Ok(());
        }
        let t = self.tty_mut(tty)?;
        let group = std::mem::take(&mut t.group);
        t.session = 0;
        if group != 0 {
            self.signal_group(group, 1);
            self.signal_group(group, 18);
        }
        Ok(())
    }

    /// A process ends: when it leads a session, the session loses its terminal and the foreground group is told.
    pub(crate) fn session_leader_ended(&mut self, pid: u32) {
        let leads = self.processes.get(&pid).is_some_and(|p| p.sid == pid);
        let Some(t) = self.objects.ttys.all.values_mut().find(|t| leads && t.session == pid) else { return };
        let group = std::mem::take(&mut t.group);
        t.session = 0;
        if group != 0 {
            let members: Vec<u32> =
                self.processes.values().filter(|p| p.pgid == group && p.pid != pid).map(|p| p.pid).collect();
            for member in members {
                self.signal_process(member, SigInfo { signo: 1, code: 0x80, ..SigInfo::default() });
            }
        }
    }

    /// tcsetpgrp(3). ENOTTY, EINVAL, ESRCH, EPERM; `Some` while the caller is in the background.
    pub(crate) fn set_foreground(
        &mut self,
        tid: Tid,
        tty: u32,
        group: i32,
    ) -> Result<Option<Outcome>, Errno> {
        let process = self.process_of(tid).ok_or(Errno::ESRCH)?;
        let (pid, sid) = (process.pid, process.sid);
        if let Some(outcome) = self.check_foreground(tid, tty, SIGTTOU)? {
            return Ok(Some(outcome));
        }
        if self.controlling_tty(pid) != Some(tty) || self.tty(tty)?.session != sid {
            return Err(Errno::ENOTTY);
        }
        let group = u32::try_from(group).map_err(|_| Errno::EINVAL)?;
        let mut members = self.processes.values().filter(|p| p.pgid == group).peekable();
        if members.peek().is_none() {
            return Err(Errno::ESRCH);
        }
        if !members.any(|p| p.sid == sid) {
            return Err(Errno::EPERM);
        }
        self.tty_mut(tty)?.group = group;
        Ok(None)
    }
}
