//! One request: a turn, an instance, its answer.

use super::Node;
use super::error::NodeError;
use super::grow::Plan;
use super::instance::{Answer, Instance, Sink};
use super::seed::{ForkError, NodeSeed};
use super::version::{Training, Version};
use crate::caller::Caller;
use crate::proto::{ForkSpec, Phases, Role, Step};
use crate::runtime::Reply;
use crate::sandbox::now;
use crate::tree::{EventError, check_event};
use std::sync::Arc;

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// JSON text.
    pub event: &'a [u8],
    /// Its identity, for the function's context and logs.
    pub request_id: &'a str,
    /// Time that the caller has for it, waiting included, ms. The function's own limit holds too.
    pub limit_ms: Option<u64>,
    /// Only this version may serve it ([`FunctionSpec::version`]).
    ///
    /// [`FunctionSpec::version`]: super::function::FunctionSpec::version
    pub version: Option<u64>,
    /// What the function is told of the client.
    pub caller: Option<&'a Caller>,
}

impl Call<'_> {
    /// The version is the one that was asked for; the sink hears of it.
    pub(super) fn enters(&self, version: &Version, sink: &mut dyn Sink) -> Result<(), NodeError> {
        sink.entered(version.spec.version);
        match self.version {
            Some(asked) if asked != version.spec.version => {
                Err(NodeError::NoSuchVersion { function: version.spec.name.clone(), version: asked })
            }
            _ => Ok(()),
        }
    }

    /// What is left of its time when it has waited for so long, ns; ms.
    pub(super) fn limit_ms(&self, version: &Version, waited: u64) -> u64 {
        let left = |limit: u64| limit.saturating_sub(waited / 1_000_000).max(1);
        self.limit_ms.map_or(u64::MAX, left).min(version.spec.timeout_ms)
    }
}

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
    /// Phases of the fork, and the request's exits and faults; of a spare and a kept instance only the run belongs to this request.
    pub phases: Phases,
    /// Level of the seed that the instance came from.
    pub level: u8,
    /// Whether the instance was forked ahead of the request.
    pub spare: bool,
    /// Whether the instance had served before.
    pub kept: bool,
}

impl Served {
    /// The answer of an instance that has just given it.
    pub(super) fn new(instance: &Instance, answer: Answer, arrived: u64, started: u64) -> Served {
        Served {
            reply: answer.reply,
            instance: instance.id.clone(),
            queued: started.saturating_sub(arrived),
            total: now().saturating_sub(started),
            phases: answer.phases,
            level: instance.level,
            spare: instance.spare,
            kept: instance.served > 1,
        }
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
    /// Serves one request in the function's own time.
    pub async fn invoke(
        &self,
        name: &str,
        event: &[u8],
        request_id: &str,
        sink: &mut dyn Sink,
    ) -> Result<Served, NodeError> {
        self.call(name, &Call { event, request_id, limit_ms: None, version: None, caller: None }, sink).await
    }

    /// Serves one request. What the function prints goes to `sink` as it comes, and its answer's parts where the sink takes such.
    ///
    /// A request is never run twice: once an instance may have begun it, its failure is the answer.
    pub async fn call(&self, name: &str, call: &Call<'_>, sink: &mut dyn Sink) -> Result<Served, NodeError> {
        let version = self.enter(name)?;
        call.enters(&version, sink)?;
        check_event(call.event)?;
        let _admitted = self.let_in()?;
        let arrived = now();
        let _turn = version.turn(call.limit_ms(&version, 0)).await?;
        let started = now();
        version.count_request(self.0.rates, started);
        let timeout_ms = call.limit_ms(&version, started.saturating_sub(arrived));
        let (instance, record, answer) = loop {
            let (mut instance, record) =
                self.instance(&version, call, timeout_ms, sink.parts().is_some()).await?;
            let answer = self.answer_of(&version, &mut instance, timeout_ms, started, sink).await;
            // One that died with the request unread is no reason to fail it.
            if !answer.as_ref().is_err_and(NodeError::is_unread) {
                break (instance, record, answer);
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                drop((instance, record));
                self.after(&version);
                return Err(error);
            }
        };
        let served = Served::new(&instance, answer, arrived, started);
        version.worth.answered(served.level == 2, served.total);
        self.done_with(&version, instance, record);
        self.after(&version);
        if served.reply == Reply::Imported { Err(NodeError::Protocol) } else { Ok(served) }
    }

    /// Waits for an instance that has its request; it is listed meanwhile.
    pub(super) async fn answer_of(
        &self,
        version: &Version,
        instance: &mut Instance,
        timeout_ms: u64,
        started: u64,
        sink: &mut dyn Sink,
    ) -> Result<Answer, NodeError> {
        let _listed = self.at_work(version, instance, started);
        sink.began(&instance.id);
        instance.answer(timeout_ms, sink).await
    }

    /// An instance that has the request: a kept one, a spare, or a fork. Also whether it records its working set.
    pub(super) async fn instance(
        &self,
        version: &Arc<Version>,
        call: &Call<'_>,
        timeout_ms: u64,
        stream: bool,
    ) -> Result<(Instance, Option<Training>), NodeError> {
        let command =
            version.function.invoke_command(call.event, call.request_id, timeout_ms, stream, call.caller);
        loop {
            let kept = version.take_kept();
            let instance = if kept.is_some() { kept } else { self.take_spare(version).await };
            let Some(instance) = instance else { break };
            // One that has died meanwhile is no reason to fail a request that it never got.
            if instance.give(command.clone(), timeout_ms).await.is_ok() {
                return Ok((instance, None));
            }
        }
        let keep = version.spec.keep_alive > 0;
        let plan = |level| {
            let steps = vec![Step::Command(command.clone())];
            let mut spec = self.spec(version, Role::Instance, steps, timeout_ms);
            let records = level == 2 && self.0.config.prefill && !keep;
            let record = if records { version.begin_training() } else { None };
            (spec.record, spec.keep) = (record.is_some(), keep);
            (spec, record)
        };
        self.fork_deepest(version, plan, "forking an instance", timeout_ms).await
    }

    /// Forks from the deepest living seed that fits. `plan` says for a level what the child is to do after it has imported the function. Where
    /// there is no seed at all it waits for one, `limit_ms` at most.
    pub(super) async fn fork_deepest(
        &self,
        version: &Arc<Version>,
        mut plan: impl FnMut(u8) -> (ForkSpec, Option<Training>),
        what: &str,
        limit_ms: u64,
    ) -> Result<(Instance, Option<Training>), NodeError> {
        let mut waited = false;
        loop {
            for level in [2, 1, 0] {
                let Some((seed, (mut steps, fds))) = self.way_from(version, level, what) else { continue };
                let (mut spec, record) = plan(level);
                steps.append(&mut spec.steps);
                spec.steps = steps;
                let spare = spec.role == Role::Spare;
                match self.start(what, &seed, spec, fds, spare).await {
                    Ok(instance) => return Ok((instance, record)),
                    Err(NodeError::Fork { source: ForkError::Gone(error), .. }) => {
                        tracing::warn!(level, seed = seed.name, %error, "a seed is gone; falling back to its parent");
                    }
                    Err(error) => return Err(error),
                }
            }
            // Where nothing lives, something is to be grown.
            self.after(version);
            if waited || !self.os_comes_back(limit_ms).await {
                break;
            }
            waited = true;
        }
        let reason = self.0.os_setback.reason().or_else(|| version.failure());
        let (function, reason) =
            (version.spec.name.clone(), reason.unwrap_or_else(|| "it is being grown".into()));
        Err(NodeError::NoSeed { function, reason })
    }

    /// The seed of a level that fits, and what its child has to do before the request.
    fn way_from(&self, version: &Arc<Version>, level: u8, what: &str) -> Option<(Arc<NodeSeed>, Plan)> {
        match level {
            2 => self.least_busy(version).map(|s| (s, (Vec::new(), Vec::new()))),
            1 => self.language_seed(version.spec.runtime).map(|s| (s, self.plan_from_language(version))),
            _ => self.os_seed(what).ok().map(|s| (s, self.plan_from_os(version))),
        }
    }

    pub(super) fn spec(&self, version: &Version, role: Role, steps: Vec<Step>, timeout_ms: u64) -> ForkSpec {
        ForkSpec {
            id: self.next_id(),
            role,
            name: version.spec.name.clone(),
            steps,
            memory: Some(version.spec.memory),
            cpus: Some(version.spec.cpus),
            timeout_ms,
            record: false,
            measure: false,
            keep: false,
        }
    }
}
