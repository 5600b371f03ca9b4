//! A seed of a node: fork requests wait in a queue with a bound, some are under way at once.

use super::channel::AsyncChannel;
use super::process::{Process, Reaper};
use crate::channel::{Channel, ChannelError};
use crate::handle::{Child, HandleError};
use crate::proto::{Event, ForkSpec, Request};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};

/// Fork requests that a seed has in its socket at once: it finds the next one there when it has done one.
const UNDER_WAY: usize = 4;

/// Why a seed gave no child.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// Its queue is full.
    #[error("{0} forks wait for the seed already")]
    Overloaded(usize),
    /// It is gone, or did not keep to the protocol; it is of no use any more.
    #[error("the seed is gone")]
    Gone(#[source] HandleError),
    /// It could not fork now.
    #[error("the seed could not fork")]
    Failed(#[source] HandleError),
}

/// A child, just forked.
#[derive(Debug)]
pub struct Forked {
    /// To talk to it.
    pub channel: AsyncChannel,
    /// Its process.
    pub process: Process,
}

struct Job {
    request: Request,
    fds: Vec<Arc<OwnedFd>>,
    theirs: Option<Channel>,
    answer: Option<oneshot::Sender<Result<Child, ForkError>>>,
}

/// A living seed.
#[derive(Debug)]
pub struct NodeSeed {
    /// Level: 0, 1 or 2.
    pub level: u8,
    /// Name for people.
    pub name: String,
    /// Forks that were asked of it.
    pub forks: AtomicU64,
    process: Process,
    jobs: mpsc::Sender<Job>,
    bound: usize,
    gone: Arc<AtomicBool>,
    reaper: Reaper,
}

impl NodeSeed {
    /// Takes over a process that has said that it is ready. `bound` is how many forks may wait.
    pub fn new(level: u8, name: String, forked: Forked, bound: usize, reaper: Reaper) -> NodeSeed {
        let (jobs, queue) = mpsc::channel(bound.max(1));
        let gone = Arc::new(AtomicBool::new(false));
        tokio::spawn(drive(forked.channel, queue, gone.clone(), reaper.clone()));
        NodeSeed {
            level,
            name,
            forks: AtomicU64::new(0),
            process: forked.process,
            jobs,
            bound: bound.max(1),
            gone,
            reaper,
        }
    }

    /// Its process on the host.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Whether it has died.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Forks that wait.
    pub fn queued(&self) -> usize {
        self.bound - self.jobs.capacity()
    }

    /// Asks for a fork. The descriptors are the child's stderr, then what its steps need.
    pub async fn fork(&self, spec: ForkSpec, fds: Vec<Arc<OwnedFd>>) -> Result<Forked, ForkError> {
        let gone = |error: ChannelError| ForkError::Gone(error.into());
        let (ours, theirs) = Channel::pair().map_err(|e| ForkError::Failed(e.into()))?;
        let channel = AsyncChannel::new(ours).map_err(|e| ForkError::Failed(e.into()))?;
        let (answer, child) = oneshot::channel();
        let job = Job { request: Request::Fork(spec), fds, theirs: Some(theirs), answer: Some(answer) };
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(ForkError::Overloaded(self.bound)),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(gone(ChannelError::Closed)),
        }
        self.forks.fetch_add(1, Ordering::Relaxed);
        let child = child.await.map_err(|_| gone(ChannelError::Closed))??;
        Ok(Forked { channel, process: Process::new(child, self.reaper.clone()) })
    }

    /// Gives it the working set that its children are to prefill.
    pub async fn set_working_set(&self, set: vmm::prefill::WorkingSet) {
        let job = Job { request: Request::WorkingSet(set), fds: Vec::new(), theirs: None, answer: None };
        // A seed that is gone needs none.
        let _ = self.jobs.send(job).await;
    }
}

/// Sends fork requests as long as there is room, and hands out the announcements, which come in the same order.
async fn drive(channel: AsyncChannel, mut queue: mpsc::Receiver<Job>, gone: Arc<AtomicBool>, reaper: Reaper) {
    let mut waiting: VecDeque<oneshot::Sender<Result<Child, ForkError>>> = VecDeque::new();
    let mut open = true;
    let error = loop {
        tokio::select! {
            job = queue.recv(), if open && waiting.len() < UNDER_WAY => {
                let Some(job) = job else {
                    open = false;
                    continue;
                };
                let mut fds: Vec<BorrowedFd<'_>> = job.theirs.iter().map(AsFd::as_fd).collect();
                fds.extend(job.fds.iter().map(|fd| fd.as_fd()));
                if let Err(error) = channel.send(&job.request, &fds).await {
                    if let Some(answer) = job.answer {
                        let _ = answer.send(Err(ForkError::Gone(ChannelError::Closed.into())));
                    }
                    break error.into();
                }
                waiting.extend(job.answer);
            }
            // Announcements are of one packet: nothing is lost where this is dropped for the other branch. It also tells of the seed's end.
            event = channel.receive::<Event>(), if open || !waiting.is_empty() => {
                let (event, fds) = match event {
                    Ok(event) => event,
                    Err(error) => break error.into(),
                };
                let (Some(answer), result) = (waiting.pop_front(), announced(event, fds)) else {
                    break HandleError::Protocol;
                };
                match result {
                    // A request that was given up: its child goes too.
                    Ok(result) => if let Err(Ok(child)) = answer.send(result) {
                        drop(Process::new(child, reaper.clone()));
                    },
                    Err(error) => break error,
                }
            }
            else => return,
        }
    };
    gone.store(true, Ordering::Release);
    tracing::debug!(%error, "a seed is gone");
    for answer in waiting {
        let _ = answer.send(Err(ForkError::Gone(ChannelError::Closed.into())));
    }
}

/// What an announcement says; an error where it is none.
fn announced(event: Event, mut fds: Vec<OwnedFd>) -> Result<Result<Child, ForkError>, HandleError> {
    match event {
        Event::Forked { pid } => {
            let pidfd = fds.pop().ok_or(HandleError::Protocol)?;
            Ok(Ok(Child::new(pid, pidfd)))
        }
        Event::Failed(failure) => Ok(Err(ForkError::Failed(failure.into()))),
        _ => Err(HandleError::Protocol),
    }
}
