//! Asynchronous events: accepted into a queue with a bound, run in the background, tried again as AWS Lambda does, never lost silently.
//!
//! The queue is in memory: what waits when the daemon ends is counted and logged, and gone.

use super::errors::Refusal;
use super::name::Target;
use super::turns::Turns;
use super::{Gateway, Limits, Shared};
use crate::daemon::error::{DaemonError, chain};
use crate::daemon::invoke::Call;
use crate::metrics::EventCounts;
use crate::trace::Marks;
use axum::body::Bytes;
use seedtree::caller::Caller;
use seedtree::node::instance::Nowhere;
use seedtree::runtime::Reply;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

/// What a request was not even begun for is tried again after so long, and after twice as long, and so on.
const REFUSED_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// How often that is done: about an hour.
const REFUSED_TRIES: u32 = 66;

/// The queue.
#[derive(Debug)]
pub struct Events {
    places: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    turns: Turns,
    counts: EventCounts,
    tasks: Mutex<JoinSet<()>>,
    stop: watch::Sender<bool>,
}

impl Events {
    /// An empty queue.
    pub fn new(limits: &Limits, counts: EventCounts) -> Events {
        let semaphore = |n: usize| Arc::new(Semaphore::new(n.min(Semaphore::MAX_PERMITS)));
        Events {
            places: semaphore(limits.async_queue),
            bytes: semaphore(limits.async_bytes),
            turns: Turns::new(limits.async_running, limits.async_function_running),
            counts,
            tasks: Mutex::default(),
            stop: watch::channel(false).0,
        }
    }

    /// Takes an event, which is JSON and whose function is there.
    pub fn accept(
        &self,
        gateway: &Gateway,
        target: &Target,
        event: Bytes,
        id: &str,
        marks: Option<Marks>,
        caller: Option<Caller>,
    ) -> Result<(), Refusal> {
        let full = |_| {
            self.counts.refused.inc();
            Refusal::too_many(
                "CallerRateLimitExceeded",
                "The queue of asynchronous events is full: try again later.",
            )
        };
        let size = u32::try_from(event.len()).unwrap_or(u32::MAX);
        let place = self.places.clone().try_acquire_owned().map_err(full)?;
        let bytes = self.bytes.clone().try_acquire_many_owned(size).map_err(full)?;
        let queued = Queued {
            shared: Arc::downgrade(gateway),
            function: target.name.clone(),
            version: target.version,
            id: id.to_owned(),
            event,
            marks,
            caller,
            counts: self.counts.clone(),
            retries: gateway.limits.async_retries,
            delay: gateway.limits.async_delay,
            settled: false,
            _share: (place, bytes),
        };
        self.counts.accepted.inc();
        self.counts.waiting.inc();
        let (turns, stopped) = (self.turns.clone(), self.stop.subscribe());
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(queued.run(turns, stopped));
        Ok(())
    }

    /// Begins no more events, and waits for those at work.
    pub async fn finish(&self, time: Duration) {
        let _ = self.stop.send(true);
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(time, all).await.is_err() {
            tasks.shutdown().await;
        }
    }
}

/// An event on its way.
struct Queued {
    shared: Weak<Shared>,
    function: String,
    version: Option<u64>,
    id: String,
    event: Bytes,
    /// Of the request that brought it, where requests are traced.
    marks: Option<Marks>,
    caller: Option<Caller>,
    counts: EventCounts,
    retries: u32,
    delay: Duration,
    settled: bool,
    _share: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

enum Outcome {
    Done,
    /// The function failed.
    Failed(String),
    /// It was not begun.
    Refused(DaemonError),
}

impl Queued {
    async fn run(mut self, turns: Turns, mut stopped: watch::Receiver<bool>) {
        let (mut failures, mut refusals) = (0, 0);
        loop {
            let mut marks = self.marks.as_ref().map(Marks::of_event);
            let turn = tokio::select! {
                biased;
                _ = stopped.wait_for(|stop| *stop) => return,
                turn = turns.turn(&self.function) => turn,
            };
            if let Some(marks) = &mut marks {
                marks.received();
            }
            let outcome = self.once(marks).await;
            drop(turn);
            let delay = match outcome {
                Outcome::Done => return self.settle(|c| c.done.inc()),
                Outcome::Failed(error) if failures >= self.retries => {
                    tracing::warn!(function = self.function, request_id = self.id, %error, "an event is given up: its function failed");
                    return self.settle(|c| c.failed.inc());
                }
                Outcome::Refused(error) if refusals >= REFUSED_TRIES || !is_temporary(&error) => {
                    let error = chain(&error);
                    tracing::warn!(
                        function = self.function,
                        request_id = self.id,
                        error,
                        "an event is given up: it was refused"
                    );
                    return self.settle(|c| c.failed.inc());
                }
                Outcome::Failed(_) => {
                    failures += 1;
                    self.delay.saturating_mul(1 << (failures - 1).min(16))
                }
                Outcome::Refused(_) => {
                    refusals += 1;
                    REFUSED_DELAY.saturating_mul(1 << (refusals - 1).min(16)).min(LONGEST_DELAY)
                }
            };
            self.counts.retried.inc();
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    async fn once(&self, marks: Option<Marks>) -> Outcome {
        let Some(shared) = self.shared.upgrade() else { return Outcome::Refused(DaemonError::GoingDown) };
        let (function, event, request_id) = (&self.function, &self.event, &self.id);
        let (version, caller) = (self.version, self.caller.as_ref());
        let call = Call { function, event, request_id, timeout_ms: None, version, caller };
        let result = shared.daemon.invoke(call, &mut Nowhere).await.result;
        shared.daemon.trace(marks, &self.function, &self.id, &result);
        match result {
            Ok(served) => match served.reply {
                Reply::Error(error) => Outcome::Failed(String::from_utf8_lossy(&error).into_owned()),
                _ => Outcome::Done,
            },
            Err(error) if super::errors::FunctionFailure::of(&error).is_some() => {
                Outcome::Failed(chain(&error))
            }
            Err(error) => Outcome::Refused(error),
        }
    }

    fn settle(&mut self, count: impl FnOnce(&EventCounts) -> u64) {
        self.settled = true;
        count(&self.counts);
    }
}

fn is_temporary(error: &DaemonError) -> bool {
    Refusal::of_daemon(error, "").is_temporary()
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.counts.waiting.dec();
        if !self.settled {
            self.counts.dropped.inc();
            tracing::warn!(
                function = self.function,
                request_id = self.id,
                "an event is dropped: the daemon is going down"
            );
        }
    }
}
