//! Sandbox processes of a node: ended and reaped off the request path.

use crate::handle::Child;
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;

/// Time that an instance has for ending by itself once its answer is out.
const ENDING: Duration = Duration::from_secs(2);

/// Takes processes that are to end, and reaps them.
#[derive(Clone, Debug)]
pub struct Reaper(mpsc::UnboundedSender<Child>);

impl Reaper {
    /// Starts the task. It ends with the last handle.
    pub fn start() -> Reaper {
        let (sender, mut receiver) = mpsc::unbounded_channel::<Child>();
        tokio::spawn(async move {
            while let Some(mut child) = receiver.recv().await {
                if child.try_reap() {
                    continue;
                }
                tokio::spawn(async move {
                    // Of a pipe a process descriptor has what is wanted here: it becomes readable (pidfd_open(2)).
                    let end = child.as_fd().try_clone_to_owned().and_then(Receiver::from_owned_fd_unchecked);
                    if let Ok(end) = end {
                        let _ = tokio::time::timeout(ENDING, end.readable()).await;
                    }
                    // One that has not ended is killed.
                    drop(child);
                });
            }
        });
        Reaper(sender)
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
        Process { child: Some(child), reaper }
    }

    /// Its id on the host; 0 once it was let go.
    pub fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |c| c.pid)
    }

    /// It has done its work and is about to end.
    pub fn release(mut self) {
        self.pass_on();
    }

    fn pass_on(&mut self) {
        if let Some(child) = self.child.take() {
            // Without a reaper the child is dropped, which kills and reaps it here.
            let _ = self.reaper.0.send(child);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            child.kill();
        }
        self.pass_on();
    }
}
