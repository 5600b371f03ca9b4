//! Spares: instances that are forked ahead of their request.
//!
//! Requests take them in the order in which they came. One that finds none ready takes the next that is being made, and does not fork beside
//! it: under load both would take the processors from one another, and the times of requests would lie far apart.

use super::Node;
use super::instance::{Instance, Nowhere};
use super::lock;
use super::seed::NodeSeed;
use super::version::Version;
use crate::proto::Role;
use crate::sandbox::now;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// A burst of requests is over when none came for so long. Making spares meanwhile would take the processors from it.
const PAUSE: Duration = Duration::from_millis(10);

/// The spares of one version.
#[derive(Debug, Default)]
pub(super) struct Spares {
    ready: Mutex<VecDeque<Instance>>,
    making: AtomicUsize,
    /// Attempts that failed.
    failed: AtomicUsize,
    /// Requests that wait for one.
    awaited: AtomicUsize,
    /// When one was taken last, CLOCK_MONOTONIC, ns.
    taken: AtomicU64,
    /// Tells who waits for the end of a burst that somebody waits for a spare.
    hurry: Notify,
    /// They wait in a row here.
    row: tokio::sync::Mutex<()>,
    /// Tells the first of the row that one was made, or could not be.
    news: Notify,
}

impl Spares {
    /// Those that are ready.
    pub(super) fn ready(&self) -> &Mutex<VecDeque<Instance>> {
        &self.ready
    }

    /// How many are being made.
    pub(super) fn making(&self) -> usize {
        self.making.load(Ordering::Acquire)
    }

    fn take(&self) -> Option<Instance> {
        let spare = lock(&self.ready).pop_front()?;
        self.taken.store(now(), Ordering::Release);
        Some(spare)
    }

    fn stock(&self, making: usize, wanted: usize) -> Stock {
        let (ready, awaited) = (lock(&self.ready).len(), self.awaited.load(Ordering::Acquire));
        Stock { ready, making, awaited, wanted }
    }

    /// Waits until none was taken for a while, or too few are left.
    async fn burst_is_over(&self, wanted: usize) {
        while !self.stock(0, wanted).is_short() {
            let past = Duration::from_nanos(now().saturating_sub(self.taken.load(Ordering::Acquire)));
            let Some(left) = PAUSE.checked_sub(past).filter(|left| !left.is_zero()) else { return };
            let _ = tokio::time::timeout(left, self.hurry.notified()).await;
        }
    }

    /// Adds one.
    pub(super) fn put(&self, spare: Instance) {
        lock(&self.ready).push_back(spare);
        self.news.notify_one();
    }

    /// Whether the caller is to make one; then it counts as being made.
    fn begin(&self, wanted: usize, processors: usize) -> bool {
        let more = |making: usize| self.stock(making, wanted).may_make(processors).then_some(making + 1);
        self.making.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }
}

/// Numbers of spares.
#[derive(Clone, Copy, Debug)]
struct Stock {
    ready: usize,
    making: usize,
    /// By requests that wait.
    awaited: usize,
    /// By who deployed the function.
    wanted: usize,
}

impl Stock {
    /// Fewer than half are ready, or somebody waits.
    fn is_short(self) -> bool {
        self.awaited > 0 || self.ready < self.wanted.div_ceil(2)
    }

    /// Whether one more is to be made: as many as are wanted are ready, being made or awaited, and as many are made at once as there are
    /// processors; only one while they are not short, so that the requests that take them have the processors.
    fn may_make(self, processors: usize) -> bool {
        let at_once = if self.is_short() { processors } else { 1 };
        self.ready + self.making < self.wanted + self.awaited && self.making < at_once
    }
}

/// A spare that is being made.
struct Making(Arc<Version>);

impl Drop for Making {
    fn drop(&mut self) {
        self.0.spares.making.fetch_sub(1, Ordering::AcqRel);
        self.0.spares.news.notify_one();
    }
}

/// A request that waits for a spare.
struct Awaiting<'a>(&'a Spares);

impl<'a> Awaiting<'a> {
    fn begin(spares: &'a Spares) -> Self {
        spares.awaited.fetch_add(1, Ordering::AcqRel);
        spares.hurry.notify_one();
        Awaiting(spares)
    }
}

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.0.awaited.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Node {
    /// A spare for a request: one that is ready, or the next that is being made. `None` where none is, or is to be.
    pub(super) async fn take_spare(&self, version: &Arc<Version>) -> Option<Instance> {
        let spares = &version.spares;
        if version.spec.spares == 0 {
            return None;
        }
        // Nobody is before it.
        if let Ok(_first) = spares.row.try_lock()
            && let Some(spare) = spares.take()
        {
            return Some(spare);
        }
        let _awaiting = Awaiting::begin(spares);
        let failed = spares.failed.load(Ordering::Acquire);
        self.refill(version);
        let _first = spares.row.lock().await;
        loop {
            if let Some(spare) = spares.take() {
                return Some(spare);
            }
            // Where none can be made, a fork tells why.
            if spares.failed.load(Ordering::Acquire) != failed {
                return None;
            }
            self.refill(version);
            if spares.making() == 0 {
                return None;
            }
            spares.news.notified().await;
        }
    }

    /// Makes the spares that are missing, off the request path.
    pub(super) fn refill(&self, version: &Arc<Version>) {
        let wanted = version.spec.spares;
        // A spare of a seed without its working set would be of little use for ever. Who keeps instances records none.
        let waits = self.0.config.prefill && version.spec.keep_alive == 0 && !version.is_trained();
        if wanted == 0 || waits || version.is_retired() || self.is_draining() || version.seed().is_none() {
            return;
        }
        while version.spares.begin(wanted, self.0.processors) {
            let making = Making(version.clone());
            let node = self.clone();
            tokio::spawn(async move {
                making.0.spares.burst_is_over(wanted).await;
                match node.spare(&making.0).await {
                    Ok(()) => {
                        let version = making.0.clone();
                        drop(making);
                        node.refill(&version);
                    }
                    // The next request tries again.
                    Err(error) => {
                        tracing::debug!(function = making.0.spec.name, %error, "no spare");
                        making.0.spares.failed.fetch_add(1, Ordering::AcqRel);
                    }
                }
            });
        }
    }

    async fn spare(&self, version: &Arc<Version>) -> Result<(), super::error::NodeError> {
        let what = "making a spare";
        let Some(seed) = version.seed() else { return Ok(()) };
        let spec = self.spec(version, Role::Spare, Vec::new(), version.spec.timeout_ms);
        let mut spare = self.start(what, &seed, spec, Vec::new(), true).await?;
        spare.ready(what, self.0.config.grow_timeout_ms, &mut Nowhere).await?;
        version.put_spare(spare, &seed);
        if self.is_draining() {
            version.end_idle();
        }
        Ok(())
    }
}

impl Version {
    /// Adds a spare of `seed`; one of another seed than the present is of no use.
    fn put_spare(&self, spare: Instance, seed: &Arc<NodeSeed>) {
        self.if_present(seed, || self.spares.put(spare));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_made_as_are_wanted_and_not_too_many_at_once() {
        let spares = Spares::default();
        assert!(spares.begin(3, 2) && spares.begin(3, 2) && !spares.begin(3, 2));
        spares.making.store(0, Ordering::Release);
        assert!(spares.begin(1, 2) && !spares.begin(1, 2));
        let awaiting = Awaiting::begin(&spares);
        assert!(spares.begin(1, 2) && !spares.begin(1, 3));
        drop(awaiting);
        assert_eq!(spares.making(), 2);
    }

    #[test]
    fn a_pool_that_is_half_full_is_filled_one_by_one() {
        let may = |ready, making, awaited| Stock { ready, making, awaited, wanted: 8 }.may_make(4);
        assert!(may(3, 3, 0) && !may(3, 4, 0));
        assert!(may(4, 0, 0) && !may(4, 1, 0));
        // Who waits found none ready.
        assert!(may(4, 3, 1) && !may(4, 4, 1));
        assert!(!may(8, 0, 0) && !may(7, 1, 0));
    }

    #[tokio::test]
    async fn a_burst_is_over_after_a_pause_or_when_somebody_waits() {
        let spares = Arc::new(Spares::default());
        let taken = now();
        spares.taken.store(taken, Ordering::Release);
        spares.burst_is_over(0).await;
        assert!(u128::from(now() - taken) >= PAUSE.as_nanos());
        // It would not be over for an hour.
        spares.taken.store(taken + 3_600_000_000_000, Ordering::Release);
        let over = tokio::spawn({
            let spares = spares.clone();
            async move { spares.burst_is_over(0).await }
        });
        tokio::time::sleep(PAUSE * 3).await;
        assert!(!over.is_finished());
        let _awaiting = Awaiting::begin(&spares);
        tokio::time::timeout(Duration::from_secs(10), over).await.unwrap().unwrap();
    }
}
