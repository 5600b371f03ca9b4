//! One request: a turn, an instance, its answer; and what is done after it off the request path.

use super::error::NodeError;
use super::function::{Training, Version};
use super::grow::Plan;
use super::instance::{Instance, Nowhere, Sink};
use super::seed::{ForkError, NodeSeed};
use super::{Node, Working, lock};
use crate::proto::{ForkSpec, Phases, Role, Step};
use crate::runtime::Reply;
use crate::sandbox::now;
use crate::tree::{EventError, check_event};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a request came to.
#[derive(Debug)]
pub struct Served {
    /// The runtime's answer.
    pub reply: Reply,
    /// Identity of the instance, and of its first request.
    pub instance: String,
    /// Waited for a turn, ns.
    pub queued: u64,
    /// From the turn to the answer, ns.
    pub total: u64,
    /// Phases of the fork; of a spare and a kept instance only the run belongs to this request.
    pub phases: Phases,
    /// Level of the seed that the instance came from.
    pub level: u8,
    /// Whether the instance was forked ahead of the request.
    pub spare: bool,
    /// Whether the instance had served before.
    pub kept: bool,
}

/// Keeps an instance in the list of those at work.
struct Listed<'a> {
    node: &'a Node,
    id: String,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        lock(&self.node.0.working).remove(&self.id);
    }
}

impl From<EventError> for NodeError {
    fn from(error: EventError) -> Self {
        match error {
            EventError::TooLong(n) => NodeError::EventTooLong(n),
            EventError::NotJson(e) => NodeError::EventNotJson(e),
            EventError::NotText(e) => NodeError::EventNotText(e),
        }
    }
}

impl Node {
    /// Serves one request. What the function prints goes to `sink` as it comes.
    ///
    /// A request is never run twice: once an instance may have begun it, its failure is the answer.
    pub async fn invoke(
        &self,
        name: &str,
        event: &[u8],
        request_id: &str,
        sink: &mut dyn Sink,
    ) -> Result<Served, NodeError> {
        let version = self.function(name)?;
        check_event(event)?;
        if self.0.draining.load(Ordering::Acquire) {
            return Err(NodeError::Draining);
        }
        let arrived = now();
        let _turn = version.turn().await?;
        version.requests.fetch_add(1, Ordering::Relaxed);
        let started = now();
        let timeout_ms = version.spec.timeout_ms;
        let (mut instance, record) = self.instance(&version, event, request_id).await?;
        let id = instance.id.clone();
        let entry = Working {
            function: version.spec.name.clone(),
            pid: instance.pid(),
            since: started,
            level: instance.level,
            kill: instance.killer(),
        };
        lock(&self.0.working).insert(id.clone(), entry);
        let listed = Listed { node: self, id };
        let answer = instance.answer(timeout_ms, sink).await;
        let total = now().saturating_sub(started);
        drop(listed);
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                drop((instance, record));
                self.after(&version);
                return Err(error);
            }
        };
        let served = Served {
            reply: answer.reply,
            instance: instance.id.clone(),
            queued: started.saturating_sub(arrived),
            total,
            phases: answer.phases,
            level: instance.level,
            spare: instance.spare,
            kept: instance.served > 1,
        };
        self.done_with(&version, instance, record);
        self.after(&version);
        if served.reply == Reply::Imported { Err(NodeError::Protocol) } else { Ok(served) }
    }

    /// An instance that has the request: a kept one, a spare, or a fork. Also whether it records its working set.
    async fn instance(
        &self,
        version: &Arc<Version>,
        event: &[u8],
        request_id: &str,
    ) -> Result<(Instance, Option<Training>), NodeError> {
        let function = &version.function;
        let command = function.invoke_command(event, request_id);
        let mut ahead = version.take_kept().or_else(|| version.take_spare());
        while let Some(instance) = ahead {
            // One that has died meanwhile is no reason to fail a request that it never got.
            if instance.give(command.clone(), function.timeout_ms).await.is_ok() {
                return Ok((instance, None));
            }
            ahead = version.take_spare();
        }
        let what = "forking an instance";
        let mut last = None;
        for level in [2, 1, 0] {
            let Some((seed, (mut steps, fds))) = self.plan(version, level, what) else { continue };
            steps.push(Step::Command(command.clone()));
            let keep = version.spec.keep_alive > 0;
            let records = level == 2 && self.0.config.prefill && !keep;
            let record = if records { version.begin_training() } else { None };
            let spec = self.spec(version, Role::Instance, steps, record.is_some(), keep);
            match self.start(what, &seed, spec, fds, false).await {
                Ok(instance) => return Ok((instance, record)),
                Err(NodeError::Fork { source: ForkError::Gone(error), .. }) => {
                    tracing::warn!(level, seed = seed.name, %error, "a seed is gone; falling back to its parent");
                    last = Some(ForkError::Gone(error));
                }
                Err(error) => return Err(error),
            }
        }
        let source = last.unwrap_or(ForkError::Gone(crate::channel::ChannelError::Closed.into()));
        Err(NodeError::Fork { what: "finding a living seed".into(), source })
    }

    /// The seed of a level that fits, and what its child has to do before the request.
    fn plan(&self, version: &Version, level: u8, what: &str) -> Option<(Arc<NodeSeed>, Plan)> {
        match level {
            2 => version.seed().map(|s| (s, (Vec::new(), Vec::new()))),
            1 => self.language_seed(version.spec.runtime).map(|s| (s, self.plan_from_language(version))),
            _ => self.os_seed(what).ok().map(|s| (s, self.plan_from_os(version))),
        }
    }

    fn spec(&self, version: &Version, role: Role, steps: Vec<Step>, record: bool, keep: bool) -> ForkSpec {
        ForkSpec {
            id: self.next_id(),
            role,
            steps,
            memory: Some(version.spec.memory),
            cpus: Some(version.spec.cpus),
            timeout_ms: version.spec.timeout_ms,
            record,
            measure: false,
            keep,
        }
    }

    /// Keeps an instance that has answered, or lets it end.
    fn done_with(&self, version: &Arc<Version>, mut instance: Instance, record: Option<Training>) {
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
        let left = if instance.spare { Some(instance) } else { version.keep(instance) };
        if let Some(instance) = left {
            instance.release();
        }
    }

    /// Gives the seed what an instance has recorded.
    async fn take_working_set(&self, version: &Version, instance: &mut Instance, training: Training) {
        let set = instance.measures(10_000).await.and_then(|m| m.working_set);
        let (Some(set), Some(seed)) = (set, version.seed()) else { return };
        seed.set_working_set(set).await;
        training.done();
    }

    /// Records the working set with the function's own event for warming up, where it has one.
    pub(super) async fn train(&self, version: &Arc<Version>) {
        let Some(event) = &version.spec.warm else { return };
        if !self.0.config.prefill || version.spec.keep_alive > 0 {
            return;
        }
        // A failure is told by the first request, which comes to the same.
        if let Ok((mut instance, record)) = self.instance(version, event, "training").await {
            let answer = instance.answer(version.spec.timeout_ms, &mut Nowhere).await;
            if let (Ok(_), Some(training)) = (answer, record) {
                self.take_working_set(version, &mut instance, training).await;
            }
            instance.release();
        }
    }

    /// What a request leaves to be done: a seed that is missing, spares that were taken.
    fn after(&self, version: &Arc<Version>) {
        if version.retired.load(Ordering::Acquire) {
            return;
        }
        if version.seed().is_none() && !version.growing.swap(true, Ordering::AcqRel) {
            let (node, version) = (self.clone(), version.clone());
            tokio::spawn(async move {
                let mut log = super::grow::ToLog::new(&version.spec.name);
                if let Err(error) = node.grow_function(&version, &mut log).await {
                    tracing::warn!(function = version.spec.name, %error, "a function's seed cannot be grown");
                }
                version.growing.store(false, Ordering::Release);
                node.refill(&version);
            });
            return;
        }
        self.refill(version);
    }

    /// Makes the spares that are missing, off the request path.
    pub(super) fn refill(&self, version: &Arc<Version>) {
        let wanted = version.spec.spares;
        // A spare of a seed without its working set would be of little use for ever.
        let waits = self.0.config.prefill && !version.is_trained();
        if wanted == 0 || version.seed().is_none() || waits {
            return;
        }
        let more = |making: usize| (version.spares() + making < wanted).then_some(making + 1);
        while version.making.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok() {
            let (node, version) = (self.clone(), version.clone());
            tokio::spawn(async move {
                if let Err(error) = node.spare(&version).await {
                    tracing::debug!(function = version.spec.name, %error, "no spare");
                }
                version.making.fetch_sub(1, Ordering::AcqRel);
            });
        }
    }

    async fn spare(&self, version: &Arc<Version>) -> Result<(), NodeError> {
        let what = "making a spare";
        let Some(seed) = version.seed() else { return Ok(()) };
        let spec = self.spec(version, Role::Spare, Vec::new(), false, false);
        let mut spare = self.start(what, &seed, spec, Vec::new(), true).await?;
        spare.ready(self.0.config.grow_timeout_ms).await?;
        // Of another seed than the present one, it is of another version.
        if version.seed().is_some_and(|now| Arc::ptr_eq(&now, &seed)) {
            version.put_spare(spare);
        }
        Ok(())
    }
}
