//! Sandbox processes of a node: ended and reaped off the request path.

use super::lock;
use crate::handle::Child;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::HashSet;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;

/// Time that an instance has for ending by itself once its answer is out.
const ENDING: Duration = Duration::from_secs(2);

/// Process ids that somebody here holds, until they are reaped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known(Arc<Mutex<HashSet<i32>>>);

impl Known {
    pub(crate) fn add(&self, pid: i32) {
        lock(&self.0).insert(pid);
    }

    pub(crate) fn remove(&self, pid: i32) {
        lock(&self.0).remove(&pid);
    }

    pub(crate) fn has(&self, pid: i32) -> bool {
        lock(&self.0).contains(&pid)
    }
}

/// Takes processes that are to end, and reaps them.
#[derive(Clone, Debug)]
pub struct Reaper {
    ending: mpsc::UnboundedSender<Ending>,
    pub(crate) known: Known,
    /// Those of them that are on their way out.
    leaving: Known,
}

/// A process on its way out. Dropped, it is killed, reaped and forgotten.
#[derive(Debug)]
struct Ending {
    child: Child,
    known: Known,
    leaving: Known,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.child.try_reap() {
            self.child.kill();
            self.child.reap();
        }
        self.leaving.remove(self.child.pid);
        self.known.remove(self.child.pid);
    }
}

impl Reaper {
    /// Starts the task. It ends with the last handle.
    pub fn start() -> Reaper {
        let (sender, mut receiver) = mpsc::unbounded_channel::<Ending>();
        tokio::spawn(async move {
            while let Some(mut ending) = receiver.recv().await {
                if ending.child.try_reap() {
                    continue;
                }
                tokio::spawn(async move {
                    // Of a pipe a process descriptor has what is wanted here: it becomes readable (pidfd_open(2)).
                    let fd = ending.child.as_fd().try_clone_to_owned();
                    if let Ok(end) = fd.and_then(Receiver::from_owned_fd_unchecked) {
                        let _ = tokio::time::timeout(ENDING, end.readable()).await;
                    }
                    // One that has not ended is killed.
                    drop(ending);
                });
            }
        });
        Reaper { ending: sender, known: Known::default(), leaving: Known::default() }
    }

    /// Waits until the processes that are on their way out now have gone, no longer than `limit`: until then they share pages with their
    /// seeds, and are none of those that a look at the memory counts.
    pub(crate) async fn departed(&self, limit: Duration) {
        let now = lock(&self.leaving.0).clone();
        let gone = async {
            while now.iter().any(|pid| self.leaving.has(*pid)) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(limit, gone).await;
    }
}

/// A process of this node. Dropped, it is killed; [`Process::release`] lets it end by itself.
#[derive(Debug)]
pub struct Process {
    child: Option<Child>,
    reaper: Reaper,
}

impl Process {
    pub(crate) fn new(child: Child, reaper: Reaper) -> Process {
        reaper.known.add(child.pid);
        Process { child: Some(child), reaper }
    }

    /// Its id on the host; 0 once it was let go.
    pub fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |c| c.pid)
    }

    /// Whether it has ended by itself, or was killed by somebody else. It is reaped when this is dropped.
    pub fn has_ended(&self) -> bool {
        let Some(child) = &self.child else { return true };
        let mut fds = [PollFd::new(child, PollFlags::IN)];
        // Readable once the process has ended (pidfd_open(2)).
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Sends SIGKILL.
    pub fn kill(&self) {
        if let Some(child) = &self.child {
            child.kill();
        }
    }

    /// It has done its work and is about to end.
    pub fn release(mut self) {
        self.pass_on();
    }

    fn pass_on(&mut self) {
        if let Some(child) = self.child.take() {
            let (known, leaving) = (self.reaper.known.clone(), self.reaper.leaving.clone());
            leaving.add(child.pid);
            // Without a reaper it ends here.
            let _ = self.reaper.ending.send(Ending { child, known, leaving });
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        self.pass_on();
    }
}
