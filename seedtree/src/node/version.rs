//! One version of a deployed function: its seed, its spares and kept instances, and who may enter.

use super::error::NodeError;
use super::function::{Code, FunctionSpec};
use super::instance::Instance;
use super::lock;
use super::replicas::Load;
use super::seed::NodeSeed;
use super::setback::Setback;
use super::spares::Spares;
use super::worth::Worth;
use crate::reclaim::Rates;
use crate::runtime::Function;
use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// First and longest pause before a seed that could not be grown is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

const UNTRAINED: u8 = 0;
const TRAINING: u8 = 1;
const TRAINED: u8 = 2;

/// One version of a function, with the seed that was grown of it.
#[derive(Debug)]
pub struct Version {
    /// Its number: a later version of whatever function has a larger one.
    pub number: u64,
    /// What was deployed.
    pub spec: FunctionSpec,
    /// As its runtime wants it.
    pub function: Function,
    /// Its code.
    pub code: Code,
    /// Requests begun.
    pub requests: AtomicU64,
    /// Requests that found the queue full, or waited too long in it.
    pub refused: AtomicU64,
    /// What its seed is worth.
    pub(crate) worth: Worth,
    /// Its seed could not be grown.
    pub(crate) setback: Setback,
    /// None while one is being grown, and after it was reclaimed; several where one cannot fork fast enough.
    seeds: Mutex<Vec<Arc<NodeSeed>>>,
    pub(super) load: Load,
    pub(super) spares: Spares,
    kept: Mutex<VecDeque<Instance>>,
    training: AtomicU8,
    growing: AtomicBool,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    users: AtomicUsize,
    retired: AtomicBool,
    retiring: Notify,
}

impl Version {
    /// A version without a seed.
    pub(crate) fn new(number: u64, spec: FunctionSpec, function: Function, code: Code) -> Version {
        let turns = Arc::new(Semaphore::new(spec.concurrency.clamp(1, Semaphore::MAX_PERMITS)));
        let (requests, refused, worth, seeds, load, spares, kept) = Default::default();
        let (growing, waiting, users, retired) = Default::default();
        let training = AtomicU8::new(UNTRAINED);
        let (setback, retiring) = (Setback::new(PAUSES.0, PAUSES.1), Notify::new());
        Version {
            number,
            spec,
            function,
            code,
            requests,
            refused,
            worth,
            setback,
            seeds,
            load,
            spares,
            kept,
            training,
            growing,
            turns,
            waiting,
            users,
            retired,
            retiring,
        }
    }

    /// Its seed, where it has a living one; of several that with the fewest forks to do.
    pub fn seed(&self) -> Option<Arc<NodeSeed>> {
        lock(&self.seeds).iter().filter(|s| !s.is_gone()).min_by_key(|s| s.pending()).cloned()
    }

    /// Why its seed could not be grown when that was tried last; `None` where it could.
    pub fn failure(&self) -> Option<String> {
        self.setback.reason()
    }

    /// Whether it had a seed that was given up, and none is being grown.
    pub fn is_shrunk(&self) -> bool {
        self.worth.was_grown() && !self.is_growing() && self.seed().is_none()
    }

    /// Its seeds.
    pub fn seeds(&self) -> Vec<Arc<NodeSeed>> {
        lock(&self.seeds).iter().filter(|s| !s.is_gone()).cloned().collect()
    }

    /// Adds a seed that was forked from `of`, where that is still one of this version's.
    pub(super) fn add_seed(&self, seed: Arc<NodeSeed>, of: &Arc<NodeSeed>) {
        let mut seeds = lock(&self.seeds);
        if seeds.iter().any(|s| Arc::ptr_eq(s, of)) {
            seeds.push(seed);
        }
    }

    /// Takes away the seed that came last, unless it is the only one; how many are left.
    pub(super) fn drop_seed(&self) -> usize {
        let mut seeds = lock(&self.seeds);
        let last = if seeds.len() > 1 { seeds.pop() } else { None };
        let left = seeds.len();
        drop(seeds);
        drop(last);
        left
    }

    /// Forgets seeds that have died.
    pub(super) fn forget_gone(&self) {
        let mut seeds = lock(&self.seeds);
        let (living, gone): (Vec<_>, Vec<_>) = seeds.drain(..).partition(|s| !s.is_gone());
        *seeds = living;
        drop(seeds);
        drop(gone);
    }

    /// Gives it a seed, or takes its seed away; what was forked ahead from the old one goes too. A version that has retired takes none.
    pub(crate) fn set_seed(&self, seed: Option<Arc<NodeSeed>>) {
        let mut present = lock(&self.seeds);
        // Asked with the lock held: who retires it takes the seed away afterwards.
        let seed = seed.filter(|_| !self.is_retired());
        let old = std::mem::replace(&mut *present, seed.into_iter().collect());
        self.training.store(UNTRAINED, Ordering::Release);
        let spares = std::mem::take(&mut *lock(self.spares.ready()));
        drop(present);
        drop((old, spares));
    }

    /// Whether the caller's instance is to record the working set: one at a time does, until one has.
    pub(crate) fn begin_training(self: &Arc<Self>) -> Option<Training> {
        let free = self.training.compare_exchange(UNTRAINED, TRAINING, Ordering::AcqRel, Ordering::Acquire);
        free.is_ok().then(|| Training(self.clone()))
    }

    /// Whether the seed has its working set.
    pub fn is_trained(&self) -> bool {
        self.training.load(Ordering::Acquire) == TRAINED
    }

    /// Whether the caller is to grow a seed: one at a time does.
    pub(crate) fn begin_growing(self: &Arc<Self>) -> Option<Growing> {
        (!self.growing.swap(true, Ordering::AcqRel)).then(|| Growing(self.clone()))
    }

    /// Whether a seed is being grown, or waits for its turn.
    pub fn is_growing(&self) -> bool {
        self.growing.load(Ordering::Acquire)
    }

    /// Does something while `seed` is one of this version's, and nothing where it is not.
    pub(super) fn if_present(&self, seed: &Arc<NodeSeed>, then: impl FnOnce()) {
        let present = lock(&self.seeds);
        if present.iter().any(|now| Arc::ptr_eq(now, seed)) && !self.is_retired() {
            then();
        }
    }

    /// Spares that are ready.
    pub fn spares(&self) -> usize {
        lock(self.spares.ready()).len()
    }

    /// Spares that are being made.
    pub fn making(&self) -> usize {
        self.spares.making()
    }

    /// Takes the instance that was used last: the others may then be given up.
    pub(crate) fn take_kept(&self) -> Option<Instance> {
        if self.spec.keep_alive == 0 {
            return None;
        }
        lock(&self.kept).pop_back()
    }

    /// Keeps an instance, or gives it back where there are enough.
    pub(crate) fn keep(&self, instance: Instance) -> Option<Instance> {
        if self.spec.keep_alive == 0 {
            return Some(instance);
        }
        let mut kept = lock(&self.kept);
        if kept.len() >= self.spec.keep_alive || self.is_retired() {
            return Some(instance);
        }
        kept.push_back(instance);
        None
    }

    /// Instances that are kept and idle.
    pub fn kept(&self) -> usize {
        lock(&self.kept).len()
    }

    /// Calls a function for each spare, and for each kept instance.
    pub(crate) fn each_idle(&self, mut spare: impl FnMut(&Instance), kept: impl FnMut(&Instance)) {
        lock(self.spares.ready()).iter().for_each(&mut spare);
        lock(&self.kept).iter().for_each(kept);
    }

    /// Ends a spare or a kept instance; whether it is one of this version's.
    pub(crate) fn end_one(&self, id: &str) -> bool {
        let take = |from: &Mutex<VecDeque<Instance>>| {
            let mut from = lock(from);
            let at = from.iter().position(|i| i.id == id)?;
            from.remove(at)
        };
        take(self.spares.ready()).or_else(|| take(&self.kept)).is_some()
    }

    /// Gives up spares and kept instances whose processes have ended; whether there were any.
    pub(crate) fn bury_idle(&self) -> bool {
        let mut dead = Vec::new();
        for idle in [self.spares.ready(), &self.kept] {
            let mut idle = lock(idle);
            let (ended, living): (VecDeque<_>, _) = idle.drain(..).partition(Instance::has_ended);
            *idle = living;
            dead.extend(ended);
        }
        !dead.is_empty()
    }

    /// Ends spares and kept instances.
    pub(crate) fn end_idle(&self) {
        let idle = (std::mem::take(&mut *lock(self.spares.ready())), std::mem::take(&mut *lock(&self.kept)));
        drop(idle);
    }

    /// Requests that wait for their turn.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Requests at work.
    pub fn running(&self) -> usize {
        self.spec.concurrency.max(1).saturating_sub(self.turns.available_permits())
    }

    /// Whether another version has taken its place, or it was removed: it only finishes the requests that it has.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    /// Whether requests use it, at work or waiting.
    pub fn is_used(&self) -> bool {
        self.users.load(Ordering::SeqCst) > 0
    }

    /// No more requests come. Ends what waits for them; the seed goes when those that are there are done.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
        self.retiring.notify_waiters();
        self.end_idle();
        if !self.is_used() {
            self.set_seed(None);
        }
    }

    /// Waits until it has retired.
    pub(super) async fn retirement(&self) {
        let retiring = self.retiring.notified();
        tokio::pin!(retiring);
        retiring.as_mut().enable();
        if !self.is_retired() {
            retiring.await;
        }
    }

    /// Begins to use it for a request; `None` where it has retired.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<User> {
        self.users.fetch_add(1, Ordering::SeqCst);
        let user = User(self.clone());
        (!self.is_retired()).then_some(user)
    }

    pub(crate) fn count_request(&self, rates: Rates, now: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.worth.requested(rates, now);
    }

    /// Waits for a turn: at most [`FunctionSpec::queue`] requests do, and none longer than `limit_ms`.
    pub(crate) async fn turn(&self, limit_ms: u64) -> Result<OwnedSemaphorePermit, NodeError> {
        if let Ok(turn) = self.turns.clone().try_acquire_owned() {
            return Ok(turn);
        }
        let result = self.wait(limit_ms).await;
        if result.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    async fn wait(&self, limit_ms: u64) -> Result<OwnedSemaphorePermit, NodeError> {
        let _queued =
            Queued::enter(&self.waiting, self.spec.queue).ok_or_else(|| NodeError::TooManyRequests {
                function: self.spec.name.clone(),
                limit: self.spec.concurrency,
                queued: self.spec.queue,
            })?;
        let limit = Duration::from_millis(limit_ms);
        match tokio::time::timeout(limit, self.turns.clone().acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) => Err(NodeError::Draining),
            Err(_) => Err(NodeError::WaitedTooLong(limit_ms)),
        }
    }
}

/// A version in use. The last user of a retired one takes its seed away.
#[derive(Debug)]
pub(crate) struct User(Arc<Version>);

impl Deref for User {
    type Target = Arc<Version>;

    fn deref(&self) -> &Arc<Version> {
        &self.0
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if self.0.users.fetch_sub(1, Ordering::SeqCst) == 1 && self.0.is_retired() {
            self.0.set_seed(None);
        }
    }
}

/// The right to record a version's working set. Dropped, also with a request that is given up midway, it is another instance's turn.
#[derive(Debug)]
pub(crate) struct Training(Arc<Version>);

impl Training {
    /// The seed has its working set.
    pub(crate) fn done(self) {
        self.0.training.store(TRAINED, Ordering::Release);
    }
}

impl Drop for Training {
    fn drop(&mut self) {
        let state = &self.0.training;
        let _ = state.compare_exchange(TRAINING, UNTRAINED, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// The right to grow a version's seed.
#[derive(Debug)]
pub(crate) struct Growing(Arc<Version>);

impl Drop for Growing {
    fn drop(&mut self) {
        self.0.growing.store(false, Ordering::Release);
    }
}

/// A place in a queue, given back when it is dropped.
struct Queued<'a>(&'a AtomicUsize);

impl<'a> Queued<'a> {
    fn enter(count: &'a AtomicUsize, bound: usize) -> Option<Self> {
        let more = |n| (n < bound).then_some(n + 1);
        count.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok().map(|_| Queued(count))
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
