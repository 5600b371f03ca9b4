//! A seed of a node: fork requests wait in a queue with a bound, some are under way at once.

use super::channel::AsyncChannel;
use super::planter::Planter;
use super::process::{Process, Reaper};
use crate::channel::{Channel, ChannelError};
use crate::handle::{Child, HandleError};
use crate::proto::{Event, ForkSpec, Request};
use crate::sandbox::now;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

/// Fork requests that a seed has in its socket at once: it finds the next one there when it has done one.
pub(super) const UNDER_WAY: usize = 4;
/// Time for what a killed seed had said before its end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why a seed gave no child.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// Its queue is full.
    #[error("{0} forks wait for the seed already")]
    Overloaded(usize),
    /// It is gone, or did not keep to the protocol, and there is certainly no child: another seed may be asked.
    #[error("the seed is gone")]
    Gone(#[source] HandleError),
    /// It could not fork now, or it is gone and there may be a child.
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

/// What the seeds of a node have in common.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    /// Forks that may wait for one seed.
    pub queue: usize,
    /// Time that a seed has for a fork, ms.
    pub fork_timeout_ms: u64,
    pub reaper: Reaper,
    pub planter: Planter,
    /// Told when a seed is gone.
    pub lost: Arc<Notify>,
}

struct Job {
    request: Request,
    fds: Vec<Arc<OwnedFd>>,
    theirs: Option<Channel>,
    answer: Option<Answer>,
}

type Answer = oneshot::Sender<Result<Child, ForkError>>;

/// A living seed.
#[derive(Debug)]
pub struct NodeSeed {
    /// Level: 0, 1 or 2.
    pub level: u8,
    /// Name for people.
    pub name: String,
    /// Since when it is ready, CLOCK_MONOTONIC, ns.
    pub born: u64,
    /// What it holds beyond the seed that it came from, bytes.
    pub own: u64,
    /// Forks that were asked of it.
    pub forks: AtomicU64,
    /// Forks that it refused because its queue was full.
    pub refused: AtomicU64,
    /// Forks that failed otherwise.
    pub failed: AtomicU64,
    pending: AtomicUsize,
    process: Arc<Process>,
    jobs: mpsc::Sender<Job>,
    gone: Arc<AtomicBool>,
    ground: Ground,
}

impl NodeSeed {
    /// Takes over a process that has said that it is ready.
    pub(crate) fn new(level: u8, name: String, own: u64, forked: Forked, ground: Ground) -> NodeSeed {
        let (jobs, queue) = mpsc::channel(ground.queue.max(1));
        let gone = Arc::new(AtomicBool::new(false));
        let process = Arc::new(forked.process);
        let driver = Driver {
            channel: forked.channel,
            limit_ms: ground.fork_timeout_ms,
            process: Arc::downgrade(&process),
            gone: gone.clone(),
            reaper: ground.reaper.clone(),
            waiting: VecDeque::new(),
        };
        let (planter, lost) = (ground.planter.clone(), ground.lost.clone());
        tokio::spawn(async move {
            if driver.drive(queue).await {
                planter.sweep();
                lost.notify_one();
            }
        });
        let (forks, refused, failed, pending) = Default::default();
        NodeSeed {
            level,
            name,
            born: now(),
            own,
            forks,
            refused,
            failed,
            pending,
            process,
            jobs,
            gone,
            ground,
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
        self.jobs.max_capacity() - self.jobs.capacity()
    }

    /// Forks that wait or are under way.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// Time since it is ready, ns.
    pub fn age(&self) -> u64 {
        now().saturating_sub(self.born)
    }

    /// Asks for a fork. The descriptors are the child's stderr, then what its steps need.
    pub async fn fork(&self, spec: ForkSpec, fds: Vec<Arc<OwnedFd>>) -> Result<Forked, ForkError> {
        let pending = Pending::begin(&self.pending);
        let result = self.fork_uncounted(spec, fds).await;
        drop(pending);
        match &result {
            Ok(_) => {}
            Err(ForkError::Overloaded(_)) => _ = self.refused.fetch_add(1, Ordering::Relaxed),
            Err(_) => _ = self.failed.fetch_add(1, Ordering::Relaxed),
        }
        result
    }

    async fn fork_uncounted(&self, spec: ForkSpec, fds: Vec<Arc<OwnedFd>>) -> Result<Forked, ForkError> {
        let gone = || ForkError::Gone(ChannelError::Closed.into());
        let (ours, theirs) = Channel::pair().map_err(|e| ForkError::Failed(e.into()))?;
        let channel = AsyncChannel::new(ours).map_err(|e| ForkError::Failed(e.into()))?;
        let (answer, child) = oneshot::channel();
        let job = Job { request: Request::Fork(spec), fds, theirs: Some(theirs), answer: Some(answer) };
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                return Err(ForkError::Overloaded(self.jobs.max_capacity()));
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(gone()),
        }
        self.forks.fetch_add(1, Ordering::Relaxed);
        let limit_ms = self.ground.fork_timeout_ms;
        // A job that is dropped without an answer was never sent.
        match tokio::time::timeout(Duration::from_millis(limit_ms), child).await {
            Ok(child) => {
                let child = child.map_err(|_| gone())??;
                Ok(Forked { channel, process: Process::new(child, self.ground.reaper.clone()) })
            }
            Err(_) => Err(ForkError::Failed(HandleError::Silent(limit_ms))),
        }
    }

    /// Gives it the working set that its children are to prefill.
    pub async fn set_working_set(&self, set: vmm::prefill::WorkingSet) {
        let job = Job { request: Request::WorkingSet(set), fds: Vec::new(), theirs: None, answer: None };
        // A seed that is gone needs none.
        let _ = self.jobs.send(job).await;
    }
}

/// Counts a fork for as long as somebody waits for it.
struct Pending<'a>(&'a AtomicUsize);

impl<'a> Pending<'a> {
    fn begin(count: &'a AtomicUsize) -> Pending<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        Pending(count)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A fork request that the seed has.
struct Sent {
    answer: Answer,
    due: Instant,
}

struct Driver {
    channel: AsyncChannel,
    limit_ms: u64,
    process: Weak<Process>,
    gone: Arc<AtomicBool>,
    reaper: Reaper,
    waiting: VecDeque<Sent>,
}

impl Driver {
    /// Lives as long as the seed, or until it is not wanted any more; whether the seed is lost.
    async fn drive(mut self, queue: mpsc::Receiver<Job>) -> bool {
        let Err(error) = self.pass_on(queue).await else { return false };
        self.gone.store(true, Ordering::Release);
        if let Some(process) = self.process.upgrade() {
            tracing::warn!(pid = process.pid(), %error, "a seed is gone");
            // Also one that only is of no use any more.
            process.kill();
        }
        self.settle(error).await;
        true
    }

    /// Sends fork requests as long as there is room, and hands out the announcements, which come in the same order.
    async fn pass_on(&mut self, mut queue: mpsc::Receiver<Job>) -> Result<(), HandleError> {
        let limit = Duration::from_millis(self.limit_ms);
        let mut open = true;
        // Moved only when it has gone off: it costs nothing per fork.
        let watch = tokio::time::sleep(limit);
        tokio::pin!(watch);
        let mut watched = false;
        while open || !self.waiting.is_empty() {
            tokio::select! {
                biased;
                job = queue.recv(), if open && self.waiting.len() < UNDER_WAY => match job {
                    Some(job) => self.give(job).await?,
                    None => open = false,
                },
                // Announcements are of one packet: nothing is lost where this is dropped for another branch. It also tells of the seed's
                // end.
                event = self.channel.receive::<Event>() => {
                    let (event, fds) = event?;
                    self.announced(event, fds)?;
                }
                () = &mut watch, if watched => match self.waiting.front() {
                    Some(sent) if sent.due <= Instant::now() => return Err(HandleError::Silent(self.limit_ms)),
                    Some(sent) => watch.as_mut().reset(sent.due),
                    None => watched = false,
                },
            }
            if let (false, Some(sent)) = (watched, self.waiting.front()) {
                watch.as_mut().reset(sent.due);
                watched = true;
            }
        }
        Ok(())
    }

    async fn give(&mut self, job: Job) -> Result<(), HandleError> {
        if job.answer.as_ref().is_some_and(Answer::is_closed) {
            // Nobody waits for it any more.
            return Ok(());
        }
        let limit = Duration::from_millis(self.limit_ms);
        let mut fds: Vec<BorrowedFd<'_>> = job.theirs.iter().map(AsFd::as_fd).collect();
        fds.extend(job.fds.iter().map(|fd| fd.as_fd()));
        // What is not sent whole is not done: the answer is dropped with the job.
        match tokio::time::timeout(limit, self.channel.send(&job.request, &fds)).await {
            Ok(sent) => sent?,
            Err(_) => return Err(HandleError::Silent(self.limit_ms)),
        }
        let due = Instant::now() + limit;
        self.waiting.extend(job.answer.map(|answer| Sent { answer, due }));
        Ok(())
    }

    /// Hands out a child, or why there is none; an error where this is no announcement.
    fn announced(&mut self, event: Event, mut fds: Vec<OwnedFd>) -> Result<(), HandleError> {
        let result = match event {
            Event::Forked { pid } => Ok(Child::new(pid, fds.pop().ok_or(HandleError::Protocol)?)),
            Event::Failed(failure) => Err(ForkError::Failed(failure.into())),
            _ => return Err(HandleError::Protocol),
        };
        let sent = self.waiting.pop_front().ok_or(HandleError::Protocol)?;
        // A request that was given up: its child goes too.
        if let Err(Ok(child)) = sent.answer.send(result) {
            drop(Process::new(child, self.reaper.clone()));
        }
        Ok(())
    }

    /// Requests that the seed had when it went: each may have become a child, except the last where the socket says that not all was read.
    async fn settle(&mut self, error: HandleError) {
        let is_reset = |e: &ChannelError| matches!(e, ChannelError::Reset);
        let mut reset = matches!(&error, HandleError::Channel(e) if is_reset(e));
        let silent = matches!(error, HandleError::Silent(_));
        if !matches!(error, HandleError::Protocol | HandleError::Channel(ChannelError::Malformed)) {
            let last_words = async {
                loop {
                    match self.channel.receive::<Event>().await {
                        Ok((event, fds)) => {
                            if self.announced(event, fds).is_err() {
                                break;
                            }
                        }
                        Err(error) if is_reset(&error) => reset = true,
                        Err(_) => break,
                    }
                }
            };
            let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
        }
        if let Some(last) = reset.then(|| self.waiting.pop_back()).flatten() {
            let _ = last.answer.send(Err(ForkError::Gone(ChannelError::Reset.into())));
        }
        for sent in self.waiting.drain(..) {
            let why = if silent { HandleError::Silent(self.limit_ms) } else { ChannelError::Closed.into() };
            let _ = sent.answer.send(Err(ForkError::Failed(why)));
        }
    }
}

#[cfg(test)]
mod tests;
