//! What is done off the request path: instances end or are kept, spares are made, working sets recorded, seeds grown again.

use super::error::NodeError;
use super::grow::ToLog;
use super::instance::{Instance, Nowhere};
use super::serve::Call;
use super::setback::Setback;
use super::version::{Training, Version};
use super::{Inner, Node};
use crate::sandbox::now;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// Time for an instance to tell what it recorded, ms.
const RECORDED_MS: u64 = 10_000;
/// Between two looks at a seed that is being grown.
const LOOK: Duration = Duration::from_millis(20);
/// How long a request waits for the OS seed to come back: booting one takes a fraction of it.
const COMES_BACK: Duration = Duration::from_secs(2);
/// Between two looks at idle instances.
const BURIAL: Duration = Duration::from_secs(1);
/// First and longest pause between attempts to grow a seed that functions share again.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Grows the OS seed and the languages' again whenever one is lost, as long as there is the node. Functions' seeds are grown when they
/// are asked for.
pub(super) async fn regrow(node: Weak<Inner>, lost: Arc<Notify>) {
    let setback = Setback::new(PAUSES.0, PAUSES.1);
    loop {
        lost.notified().await;
        loop {
            let Some(node) = node.upgrade().map(Node) else { return };
            let began = now();
            let Err(error) = node.regrow_shared().await else {
                setback.over();
                break;
            };
            let pause = setback.failed(began, now(), crate::sandbox::chain(&error));
            tracing::warn!(%error, cause = error.cause(), "a seed cannot be grown again; trying once more later");
            drop(node);
            tokio::time::sleep(pause).await;
        }
    }
}

/// Makes spares anew that have died before their request, as long as there is the node. A request that meets a dead one goes to the next.
pub(super) async fn replace_dead(node: Weak<Inner>) {
    loop {
        tokio::time::sleep(BURIAL).await;
        let Some(node) = node.upgrade().map(Node) else { return };
        for version in node.versions().iter().filter(|version| version.bury_idle()) {
            tracing::warn!(function = version.spec.name, "idle instances have died");
            node.refill(version);
        }
    }
}

impl Node {
    /// Grows what is lost. A language that fails does not keep the others.
    async fn regrow_shared(&self) -> Result<(), NodeError> {
        self.grow_os().await?;
        self.versions().iter().for_each(|version| version.forget_gone());
        let mut result = Ok(());
        for runtime in self.languages() {
            let grown = self.grow_language(runtime).await;
            result = result.and(grown);
        }
        result
    }

    /// Boots the OS seed where it is lost, in [`COMES_BACK`] and `limit_ms` at most; whether it is there. False at once in the pause after an
    /// attempt that has failed. Who grows lost seeds again may be in a pause for another's sake.
    pub(super) async fn os_comes_back(&self, limit_ms: u64) -> bool {
        if limit_ms == 0 || self.is_draining() || !self.0.os_setback.may_try(now()) {
            return self.os_seed("").is_ok();
        }
        let limit = COMES_BACK.min(Duration::from_millis(limit_ms));
        // Booting goes on when the request's time is over. What goes wrong is kept, for the error that the request gets.
        let node = self.clone();
        let booting = tokio::spawn(async move { node.grow_os().await });
        matches!(tokio::time::timeout(limit, booting).await, Ok(Ok(Ok(()))))
    }

    /// Keeps an instance that has answered, or lets it end.
    pub(super) fn done_with(&self, version: &Arc<Version>, mut instance: Instance, record: Option<Training>) {
        if let Some(training) = record {
            let (node, version) = (self.clone(), version.clone());
            tokio::spawn(async move {
                node.take_working_set(&version, &mut instance, training).await;
                instance.release();
                node.refill(&version);
            });
            return;
        }
        // A spare ends after its answer.
        let left = if instance.spare || self.is_draining() { Some(instance) } else { version.keep(instance) };
        if let Some(instance) = left {
            instance.release();
        }
    }

    /// Gives the seed what an instance has recorded.
    async fn take_working_set(&self, version: &Version, instance: &mut Instance, training: Training) {
        let set = instance.measures(RECORDED_MS).await.and_then(|m| m.working_set);
        let (Some(set), seeds) = (set, version.seeds()) else { return };
        for seed in &seeds {
            seed.set_working_set(set.clone()).await;
        }
        if !seeds.is_empty() {
            training.done();
        }
    }

    /// Records the working set with the function's own event for warming up, where it has one.
    pub(super) async fn train(&self, version: &Arc<Version>) {
        let Some(event) = &version.spec.warm else { return };
        if !self.0.config.prefill || version.spec.keep_alive > 0 {
            return;
        }
        let timeout_ms = version.spec.timeout_ms;
        let call = Call { event, request_id: "training", limit_ms: None, version: None, caller: None };
        // A failure is told by the first request, which comes to the same.
        if let Ok((mut instance, record)) = self.instance(version, &call, timeout_ms, false).await {
            let answer = instance.answer(timeout_ms, &mut Nowhere).await;
            if let (Ok(_), Some(training)) = (answer, record) {
                self.take_working_set(version, &mut instance, training).await;
            }
            instance.release();
        }
    }

    /// What a request leaves to be done: a seed that is missing, spares that were taken.
    pub(super) fn after(&self, version: &Arc<Version>) {
        if version.is_retired() || self.is_draining() {
            return;
        }
        if version.seed().is_some() {
            self.refill(version);
            return;
        }
        if version.is_growing() || !version.setback.may_try(now()) || !self.wants_seed(version) {
            return;
        }
        if let Some(growing) = version.begin_growing() {
            let (node, version) = (self.clone(), version.clone());
            tokio::spawn(async move {
                let mut log = ToLog::new(&version.spec.name);
                match node.grow_function(&version, &mut log).await {
                    Ok(()) => node.train(&version).await,
                    Err(_) if version.is_retired() => {}
                    Err(error) => {
                        let function = &version.spec.name;
                        tracing::warn!(function, %error, cause = error.cause(), "a function's seed cannot be grown");
                    }
                }
                drop(growing);
                node.refill(&version);
            });
        }
    }

    /// Grows the seed of a function, where it has none, records its working set, and has its spares made. It may be given up again at once
    /// ([`NodeError::Outbid`]).
    pub async fn grow(&self, name: &str) -> Result<(), NodeError> {
        let mut grown = None;
        loop {
            // Looked up each time: a version that has retired meanwhile never has a seed again, its successor may have one.
            let version = self.function(name)?;
            if version.seed().is_some() {
                if !version.is_trained() {
                    self.train(&version).await;
                }
                self.refill(&version);
                return Ok(());
            }
            if grown == Some(version.number) {
                return Err(NodeError::Outbid(name.to_owned()));
            }
            let Some(growing) = version.begin_growing() else {
                // Somebody else does it.
                tokio::time::sleep(LOOK).await;
                continue;
            };
            match self.grow_function(&version, &mut ToLog::new(name)).await {
                Ok(()) => {
                    self.train(&version).await;
                    grown = Some(version.number);
                }
                Err(_) if version.is_retired() => {}
                Err(error) => return Err(error),
            }
            drop(growing);
        }
    }
}
