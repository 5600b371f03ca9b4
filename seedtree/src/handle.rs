//! A sandbox process as its owner holds it: channel, process descriptor, and its end.

use crate::channel::{Channel, ChannelError};
use crate::proto::{Event, Failure, ForkSpec, Request, receive, send};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, WaitId, WaitIdOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;

/// Errors of talking to a sandbox process.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// The process could not be started.
    #[error("cannot start a sandbox process")]
    Spawn(#[source] std::io::Error),
    /// The channel failed or the process is gone.
    #[error("the sandbox process is gone")]
    Channel(#[from] ChannelError),
    /// It said that it cannot.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// It did not answer in time and was killed.
    #[error("the sandbox process did not answer within {0} ms and was killed")]
    Silent(u64),
    /// It answered something else than it was asked.
    #[error("the sandbox process answered out of turn")]
    Protocol,
}

/// A process that this one is the parent of.
#[derive(Debug)]
pub struct Child {
    /// Its id on the host.
    pub pid: i32,
    pidfd: OwnedFd,
    reaped: bool,
}

impl Child {
    pub(crate) fn new(pid: i32, pidfd: OwnedFd) -> Self {
        Child { pid, pidfd, reaped: false }
    }

    /// Sends SIGKILL.
    pub fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// It is somebody else's to reap.
    pub(crate) fn forget(&mut self) {
        self.reaped = true;
    }

    /// Reaps it if it has ended; whether it is reaped now.
    pub fn try_reap(&mut self) -> bool {
        self.wait(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    /// Waits for its end.
    pub fn reap(&mut self) {
        self.wait(WaitIdOptions::EXITED);
    }

    fn wait(&mut self, options: WaitIdOptions) -> bool {
        while !self.reaped {
            match rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
                Ok(None) => break,
                Err(rustix::io::Errno::INTR) => {}
                // Someone else reaped it, or it was never ours: either way there is nothing to wait for.
                Ok(Some(_)) | Err(_) => self.reaped = true,
            }
        }
        self.reaped
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            self.reap();
        }
    }
}

/// A seed, paused and waiting for fork requests.
#[derive(Debug)]
pub struct Seed {
    /// Level: 0, 1 or 2.
    pub level: u8,
    /// Name for people.
    pub name: String,
    /// Its process.
    pub process: Child,
    channel: Channel,
}

/// A fork on its way: its channel works, its process is still to be announced by the seed.
#[derive(Debug)]
pub struct Fork {
    /// The child's channel.
    pub channel: Channel,
}

impl Seed {
    /// Boots an OS seed: `exe` must call [`crate::sandbox::run_if_asked`] first in its main.
    pub fn boot(exe: &Path) -> Result<Seed, HandleError> {
        let (process, channel) = Seed::spawn(exe, &[])?;
        await_ready(&channel, 60_000)?;
        Ok(Seed { level: 0, name: "os".into(), process, channel })
    }

    /// Starts the process of an OS seed, which will say when it is ready.
    pub(crate) fn spawn(exe: &Path, env: &[(String, String)]) -> Result<(Child, Channel), HandleError> {
        let (ours, theirs) = Channel::pair()?;
        let child = std::process::Command::new(exe)
            .arg0(format!("{:<1$}", crate::sandbox::COMMAND, crate::sandbox::COMMAND_BYTES))
            .arg(crate::sandbox::ROLE_ARGUMENT)
            .envs(env.iter().cloned())
            .stdin(std::process::Stdio::from(theirs.into_fd()))
            .spawn()
            .map_err(HandleError::Spawn)?;
        let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
        let raw = rustix::process::Pid::from_raw(pid).ok_or(HandleError::Protocol)?;
        let pidfd = rustix::process::pidfd_open(raw, PidfdFlags::empty())
            .map_err(|e| HandleError::Spawn(std::io::Error::from(e)))?;
        Ok((Child::new(pid, pidfd), ours))
    }

    /// Asks for a fork and returns at once.
    pub fn fork(
        &self,
        spec: ForkSpec,
        stderr: BorrowedFd<'_>,
        extra: Option<BorrowedFd<'_>>,
    ) -> Result<Fork, HandleError> {
        let (ours, theirs) = Channel::pair()?;
        let mut fds = vec![theirs.as_fd(), stderr];
        fds.extend(extra);
        send(&self.channel, &Request::Fork(spec), &fds)?;
        Ok(Fork { channel: ours })
    }

    /// Takes the announcement of the oldest fork asked for that was not taken yet.
    pub fn announced(&self) -> Result<Child, HandleError> {
        if !readable(&self.channel, 30_000) {
            return Err(HandleError::Silent(30_000));
        }
        match receive::<Event>(&self.channel)? {
            (Event::Forked { pid }, mut fds) => {
                let pidfd = fds.pop().ok_or(HandleError::Protocol)?;
                Ok(Child::new(pid, pidfd))
            }
            (Event::Failed(failure), _) => Err(failure.into()),
            _ => Err(HandleError::Protocol),
        }
    }

    /// Gives the seed the working set that its children are to prefill.
    pub fn set_working_set(&self, set: vmm::prefill::WorkingSet) -> Result<(), HandleError> {
        Ok(send(&self.channel, &Request::WorkingSet(set), &[])?)
    }

    /// A fork that has become a seed.
    pub fn from_fork(level: u8, name: String, process: Child, fork: Fork) -> Seed {
        Seed { level, name, process, channel: fork.channel }
    }
}

/// Waits until a channel has something to read (or is closed); false when the time is up.
pub fn readable(channel: &Channel, timeout_ms: u64) -> bool {
    let deadline = crate::sandbox::now() + timeout_ms * 1_000_000;
    loop {
        let left = deadline.saturating_sub(crate::sandbox::now());
        let time = Timespec {
            tv_sec: i64::try_from(left / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(left % 1_000_000_000).unwrap_or(0),
        };
        match poll(&mut [PollFd::new(channel, PollFlags::IN)], Some(&time)) {
            Ok(0) => return false,
            Err(rustix::io::Errno::INTR) => {}
            _ => return true,
        }
    }
}

/// Waits for [`Event::Ready`].
pub fn await_ready(channel: &Channel, timeout_ms: u64) -> Result<crate::proto::Phases, HandleError> {
    match next(channel, timeout_ms)? {
        Event::Ready(phases) => Ok(phases),
        Event::Failed(failure) => Err(failure.into()),
        _ => Err(HandleError::Protocol),
    }
}

/// Waits for the next event.
pub fn next(channel: &Channel, timeout_ms: u64) -> Result<Event, HandleError> {
    if !readable(channel, timeout_ms) {
        return Err(HandleError::Silent(timeout_ms));
    }
    Ok(receive::<Event>(channel)?.0)
}

/// A child for tests. Dropped, it is killed and reaped.
#[cfg(test)]
#[allow(clippy::zombie_processes)] // the handle waits for it
pub(crate) fn sleeper() -> Child {
    let child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let raw = rustix::process::Pid::from_raw(pid).unwrap();
    Child::new(pid, rustix::process::pidfd_open(raw, PidfdFlags::empty()).unwrap())
}
