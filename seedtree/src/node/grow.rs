//! Growing seeds, one at a time.

use super::error::NodeError;
use super::function::{LAYERS_ROOT, TASK_ROOT, Version};
use super::instance::{Instance, Sink, output_pipe};
use super::seed::{ForkError, Forked, NodeSeed};
use super::{Node, lock};
use crate::handle::HandleError;
use crate::proto::{Event, ForkSpec, Role, Step};
use crate::runtime::{Reply, Runtime};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Steps of a fork, and the descriptors that they need.
pub(super) type Plan = (Vec<Step>, Vec<Arc<OwnedFd>>);

/// Waits for the first word of a process that becomes a seed.
pub(super) async fn until_paused(what: &str, forked: &mut Forked, timeout_ms: u64) -> Result<(), NodeError> {
    let limit = Duration::from_millis(timeout_ms);
    match tokio::time::timeout(limit, forked.channel.receive::<Event>()).await {
        Ok(Ok((Event::Ready(_), _))) => Ok(()),
        Ok(Ok((Event::Failed(failure), _))) => Err(NodeError::of_failure(what, failure)),
        Ok(Ok(_)) => Err(NodeError::Protocol),
        Ok(Err(error)) => Err(NodeError::of_channel(what, error)),
        Err(_) => Err(NodeError::Sandbox { what: what.to_owned(), source: HandleError::Silent(timeout_ms) }),
    }
}

impl Node {
    /// Grows the seed of a language, where there is none yet; nothing for a runtime without one.
    pub async fn grow_language(&self, runtime: Runtime) -> Result<(), NodeError> {
        let config = &self.0.config;
        let Some(start) = runtime.start(&config.env, &config.rootfs) else { return Ok(()) };
        let _alone = self.0.growth.acquire().await;
        if lock(&self.0.languages).get(&runtime).is_some_and(|s| !s.is_gone()) {
            return Ok(());
        }
        let what = format!("starting the {} runtime", runtime.name());
        let os = self.os_seed(&what)?;
        let spec = ForkSpec {
            id: self.next_id(),
            role: Role::Seed,
            steps: vec![Step::Root, start],
            memory: None,
            cpus: None,
            timeout_ms: config.grow_timeout_ms,
            record: false,
            measure: false,
            keep: false,
        };
        let mut grown = self.start(&what, &os, spec, vec![self.0.root.clone()], false).await?;
        let mut log = ToLog::new(runtime.name());
        grown.paused(config.grow_timeout_ms, &mut log).await?;
        let seed = self.seed_of(1, runtime.name(), grown);
        lock(&self.0.languages).insert(runtime, seed);
        Ok(())
    }

    /// Grows the seed of a function's version.
    pub(super) async fn grow_function(
        &self,
        version: &Arc<Version>,
        printed: &mut dyn Sink,
    ) -> Result<(), NodeError> {
        self.grow_language(version.spec.runtime).await?;
        let _alone = self.0.growth.acquire().await;
        version.growing.store(true, Ordering::Release);
        let result = self.grow_alone(version, printed).await;
        version.growing.store(false, Ordering::Release);
        version.set_seed(Some(result?));
        self.train(version).await;
        Ok(())
    }

    async fn grow_alone(
        &self,
        version: &Version,
        printed: &mut dyn Sink,
    ) -> Result<Arc<NodeSeed>, NodeError> {
        let function = &version.function;
        let what = format!("importing {}", version.spec.handler);
        let (parent, (mut steps, fds)) = match self.language_seed(version.spec.runtime) {
            Some(language) => (language, self.plan_from_language(version)),
            None => (self.os_seed(&what)?, self.plan_from_os(version)),
        };
        if let Some(event) = &version.spec.warm {
            steps.push(Step::Command(function.invoke_command(event, "warm-up")));
        }
        let timeout_ms = self.0.config.grow_timeout_ms;
        let spec = ForkSpec {
            id: self.next_id(),
            role: Role::Seed,
            steps,
            memory: Some(function.memory),
            cpus: Some(function.cpus),
            timeout_ms,
            record: false,
            measure: false,
            keep: false,
        };
        let mut grown = self.start(&what, &parent, spec, fds, false).await?;
        match grown.answer(timeout_ms, printed).await?.reply {
            Reply::Imported | Reply::Result(_) => {}
            Reply::Error(error) => return Err(NodeError::Import(error)),
            Reply::Malformed => return Err(NodeError::Protocol),
        }
        grown.paused(timeout_ms, printed).await?;
        Ok(self.seed_of(2, &version.spec.name, grown))
    }

    /// Forks from a seed.
    pub(super) async fn start(
        &self,
        what: &str,
        seed: &NodeSeed,
        spec: ForkSpec,
        fds: Vec<Arc<OwnedFd>>,
        spare: bool,
    ) -> Result<Instance, NodeError> {
        let (theirs, output) = output_pipe().map_err(NodeError::Host)?;
        let mut all = vec![theirs];
        all.extend(fds);
        let id = spec.id.clone();
        match seed.fork(spec, all).await {
            Ok(forked) => Ok(Instance::new(id, seed.level, spare, forked, output)),
            Err(ForkError::Overloaded(queued)) => {
                Err(NodeError::Overloaded { seed: seed.name.clone(), queued })
            }
            Err(source) => Err(NodeError::Fork { what: what.to_owned(), source }),
        }
    }

    fn seed_of(&self, level: u8, name: &str, grown: Instance) -> Arc<NodeSeed> {
        let (bound, reaper) = (self.0.config.fork_queue, self.0.reaper.clone());
        Arc::new(NodeSeed::new(level, name.to_owned(), grown.into_forked(), bound, reaper))
    }

    /// The living OS seed.
    pub(super) fn os_seed(&self, what: &str) -> Result<Arc<NodeSeed>, NodeError> {
        let gone = || NodeError::Fork {
            what: what.to_owned(),
            source: ForkError::Gone(crate::channel::ChannelError::Closed.into()),
        };
        lock(&self.0.os).as_ref().filter(|s| !s.is_gone()).cloned().ok_or_else(gone)
    }

    /// The living seed of a language.
    pub(super) fn language_seed(&self, runtime: Runtime) -> Option<Arc<NodeSeed>> {
        lock(&self.0.languages).get(&runtime).filter(|s| !s.is_gone()).cloned()
    }

    /// From a language seed to a function that has imported its handler.
    pub(super) fn plan_from_language(&self, version: &Version) -> Plan {
        let (mut steps, fds) = mounts(version);
        steps.push(Step::Command(version.function.import_command()));
        (steps, fds)
    }

    /// The same from the OS seed.
    pub(super) fn plan_from_os(&self, version: &Version) -> Plan {
        let config = &self.0.config;
        let (mut steps, mut fds) = mounts(version);
        let mut env = config.env.clone();
        env.extend(version.spec.env.iter().cloned());
        let start = version.function.start(&env, &config.rootfs);
        // The root directory is mounted by the start, the code over it before the program runs.
        steps.insert(0, Step::Root);
        fds.insert(0, self.0.root.clone());
        steps.push(start);
        steps.push(Step::Command(version.function.import_command()));
        (steps, fds)
    }
}

/// The function's directories, and where they are mounted.
fn mounts(version: &Version) -> Plan {
    let mount = |target: &str| Step::Mount { source: b"code".to_vec(), target: target.as_bytes().to_vec() };
    let mut plan = (vec![mount(TASK_ROOT)], vec![version.code.task.clone()]);
    if let Some(layers) = &version.code.layers {
        plan.0.push(mount(LAYERS_ROOT));
        plan.1.push(layers.clone());
    }
    plan
}

/// What a language seed prints goes to the log.
pub(super) struct ToLog<'a> {
    name: &'a str,
}

impl<'a> ToLog<'a> {
    pub(super) fn new(name: &'a str) -> Self {
        ToLog { name }
    }
}

impl Sink for ToLog<'_> {
    fn printed(&mut self, bytes: &[u8]) {
        tracing::info!(seed = self.name, text = %String::from_utf8_lossy(bytes), "a seed printed");
    }
}
