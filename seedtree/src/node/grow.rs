//! Growing seeds at a lower priority than requests, functions' one at a time. What hangs is ended after [`super::NodeConfig::grow_timeout_ms`]
//! and two seconds, and those that wait have their turns.

use super::channel::AsyncChannel;
use super::error::NodeError;
use super::function::{LAYERS_ROOT, TASK_ROOT};
use super::instance::{Instance, Nowhere, Sink, output_pipe};
use super::process::Process;
use super::seed::{ForkError, Forked, NodeSeed};
use super::version::Version;
use super::{Node, lock};
use crate::channel::ChannelError;
use crate::proto::{ForkSpec, Role, Step};
use crate::runtime::{Reply, Runtime};
use crate::sandbox::now;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Steps of a fork, and the descriptors that they need.
pub(super) type Plan = (Vec<Step>, Vec<Arc<OwnedFd>>);

impl Node {
    /// Boots the OS seed, where there is none.
    pub(super) async fn grow_os(&self) -> Result<(), NodeError> {
        let what = "booting the guest OS";
        if self.os_seed(what).is_ok() {
            return Ok(());
        }
        let _alone = self.0.shared_growth.acquire().await;
        if self.os_seed(what).is_ok() {
            return Ok(());
        }
        let began = now();
        let booted = self.boot(what).await;
        match &booted {
            Ok(()) => self.0.os_setback.over(),
            Err(error) => _ = self.0.os_setback.failed(began, now(), crate::sandbox::chain(error)),
        }
        booted
    }

    async fn boot(&self, what: &str) -> Result<(), NodeError> {
        let config = &self.0.config;
        let fail = |source| NodeError::Sandbox { what: what.into(), source };
        let booted = self.0.ground.planter.boot(config.exe.clone(), config.mark.clone()).await;
        let (child, channel) = booted.map_err(fail)?;
        let process = Process::new(child, self.0.ground.reaper.clone());
        let channel = AsyncChannel::new(channel).map_err(|e| NodeError::of_channel(what, e))?;
        let (_, output) = output_pipe().map_err(NodeError::Host)?;
        let mut grown = Instance::new("os".into(), 0, false, Forked { channel, process }, output);
        self.slow_down(&grown);
        grown.ready(what, config.grow_timeout_ms, &mut Nowhere).await?;
        let seed = self.seed_of(0, "os", grown).await?;
        if lock(&self.0.os).replace(seed).is_some() {
            self.0.budget.grown_again(0);
        }
        Ok(())
    }

    /// Grows the seed of a language, where there is none; nothing for a runtime without one.
    pub async fn grow_language(&self, runtime: Runtime) -> Result<(), NodeError> {
        let config = &self.0.config;
        let Some(start) = runtime.start(&config.env, &config.rootfs) else { return Ok(()) };
        if self.language_seed(runtime).is_some() {
            return Ok(());
        }
        self.grow_os().await?;
        let _alone = self.0.shared_growth.acquire().await;
        if self.language_seed(runtime).is_some() {
            return Ok(());
        }
        let what = format!("starting the {} runtime", runtime.name());
        let os = self.os_seed(&what)?;
        let spec = self.seed_spec(1, runtime.name(), vec![self.root_step(), start]);
        let mut grown = self.start(&what, &os, spec, vec![self.0.root.clone()], false).await?;
        self.slow_down(&grown);
        let mut log = ToLog::new(runtime.name());
        grown.ready(&what, config.grow_timeout_ms, &mut log).await?;
        let seed = self.seed_of(1, runtime.name(), grown).await?;
        if lock(&self.0.languages).insert(runtime, seed).is_some() {
            self.0.budget.grown_again(1);
        }
        Ok(())
    }

    /// Grows the seed of a function's version. It ends when the version retires.
    pub(super) async fn grow_function(
        &self,
        version: &Version,
        printed: &mut dyn Sink,
    ) -> Result<(), NodeError> {
        let mut began = now();
        let grown = async {
            self.grow_os().await?;
            self.grow_language(version.spec.runtime).await?;
            let _alone = self.0.growth.acquire().await;
            began = now();
            self.make_room(version).await?;
            self.import(version, printed).await
        };
        let result = tokio::select! {
            result = grown => result,
            () = version.retirement() => Err(NodeError::NoSuchFunction(version.spec.name.clone())),
        };
        match &result {
            Ok(()) => version.setback.over(),
            Err(error) => _ = version.setback.failed(began, now(), crate::sandbox::chain(error)),
        }
        result
    }

    async fn import(&self, version: &Version, printed: &mut dyn Sink) -> Result<(), NodeError> {
        let function = &version.function;
        let what = format!("importing {}", version.spec.handler);
        let (parent, (mut steps, fds)) = match self.language_seed(version.spec.runtime) {
            Some(language) => (language, self.plan_from_language(version)),
            None => (self.os_seed(&what)?, self.plan_from_os(version)),
        };
        let timeout_ms = self.0.config.grow_timeout_ms;
        if let Some(event) = &version.spec.warm {
            steps.push(Step::Command(function.warm_up_command(event)));
        }
        let mut spec = self.seed_spec(2, &version.spec.name, steps);
        (spec.memory, spec.cpus) = (Some(function.memory), Some(function.cpus));
        let mut grown = self.start(&what, &parent, spec, fds, false).await?;
        self.slow_down(&grown);
        let answer = grown.answer(timeout_ms, printed).await?;
        let import = answer.phases.run;
        match answer.reply {
            Reply::Imported | Reply::Result(_) => {}
            // The first command was the import.
            Reply::Error(error) if answer.phases.commands > 1 => return Err(NodeError::WarmUp(error)),
            Reply::Error(error) => return Err(NodeError::Import(error)),
            Reply::Malformed => return Err(NodeError::Protocol),
        }
        grown.ready(&what, timeout_ms, printed).await?;
        let seed = self.seed_of(2, &version.spec.name, grown).await?;
        let again = version.worth.was_grown();
        version.worth.grown(import, seed.own);
        self.admit(version, seed.own).await?;
        if again {
            self.0.budget.grown_again(2);
        }
        version.set_seed(Some(seed));
        Ok(())
    }

    pub(super) fn seed_spec(&self, level: u8, name: &str, steps: Vec<Step>) -> ForkSpec {
        ForkSpec {
            id: self.next_id(),
            role: Role::Seed,
            name: format!("L{level} {name}"),
            steps,
            memory: None,
            cpus: None,
            timeout_ms: self.0.config.grow_timeout_ms,
            record: false,
            measure: false,
            keep: false,
        }
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

    fn slow_down(&self, growing: &Instance) {
        if let Some(priority) = self.0.priority {
            priority.lower(growing.pid());
        }
    }

    /// A process that has become a seed. Its children inherit its priority.
    pub(super) async fn seed_of(
        &self,
        level: u8,
        name: &str,
        grown: Instance,
    ) -> Result<Arc<NodeSeed>, NodeError> {
        // While it has no children: what it holds alone stays the same, because it never runs again.
        let pid = grown.pid();
        let usage = tokio::task::spawn_blocking(move || crate::memory::usage(pid)).await.ok().flatten();
        if let Some(priority) = self.0.priority {
            priority.raise(grown.pid()).map_err(NodeError::Host)?;
        }
        let own = usage.map_or(0, |u| u.private_kib * 1024);
        let ground = self.0.ground.clone();
        Ok(Arc::new(NodeSeed::new(level, name.to_owned(), own, grown.into_forked(), ground)))
    }

    /// The living OS seed.
    pub(super) fn os_seed(&self, what: &str) -> Result<Arc<NodeSeed>, NodeError> {
        let gone = || NodeError::Fork {
            what: what.to_owned(),
            source: ForkError::Gone(ChannelError::Closed.into()),
        };
        lock(&self.0.os).as_ref().filter(|s| !s.is_gone()).cloned().ok_or_else(gone)
    }

    /// The living seed of a language.
    pub(super) fn language_seed(&self, runtime: Runtime) -> Option<Arc<NodeSeed>> {
        lock(&self.0.languages).get(&runtime).filter(|s| !s.is_gone()).cloned()
    }

    /// Languages that have, or had, a seed.
    pub(super) fn languages(&self) -> Vec<Runtime> {
        lock(&self.0.languages).keys().copied().collect()
    }

    /// From a language seed to a function that has imported its handler.
    pub(super) fn plan_from_language(&self, version: &Version) -> Plan {
        let (mut steps, fds) = mounts(version);
        steps.push(Step::Command(version.function.import_command()));
        (steps, fds)
    }

    fn root_step(&self) -> Step {
        Step::Root { shown: self.0.shown.clone() }
    }

    /// The same from the OS seed.
    pub(super) fn plan_from_os(&self, version: &Version) -> Plan {
        let config = &self.0.config;
        let (mut steps, mut fds) = mounts(version);
        let mut env = config.env.clone();
        env.extend(version.spec.env.iter().cloned());
        let start = version.function.start(&env, &config.rootfs);
        // The root directory is mounted by the start, the code over it before the program runs.
        steps.insert(0, self.root_step());
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
