//! The tree: grows seeds, looks up the deepest one that fits a request, forks instances from it.

use crate::channel::ChannelError;
use crate::handle::{Child, Fork, HandleError, Seed, await_ready, next};
use crate::proto::{Event, Failure, ForkSpec, Measures, Phases, Request, Role, Step, send};
use crate::runtime::{Function, MAX_PAYLOAD, Reply, Runtime};
use crate::sandbox::now;
use crate::spares::{Spare, Spares};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// Time for growing a seed, ms.
const GROW_TIMEOUT_MS: u64 = 60_000;
/// How much longer than its own limit the tree waits for an instance before it kills it, ms.
const GRACE_MS: u64 = 2_000;

/// Errors of the tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The root directory cannot be opened.
    #[error("cannot open the root directory {path}")]
    Root {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A sandbox process failed.
    #[error("{what} failed")]
    Sandbox {
        /// What was attempted.
        what: String,
        /// Why.
        #[source]
        source: HandleError,
    },
    /// The seed of a level died while it forked the instance. The request may have begun, so that it is not run again.
    #[error("the seed of level {level} died while it forked the instance: the request may have begun")]
    MayHaveRun {
        /// Level of the seed.
        level: u8,
        /// How it died.
        #[source]
        source: HandleError,
    },
    /// The handler does not import: the function's own error, JSON text.
    #[error("the handler does not import")]
    Import(Vec<u8>),
    /// The event is no event.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The answer is too long.
    #[error("the function's answer is longer than {MAX_PAYLOAD} bytes, the limit")]
    AnswerTooLong,
    /// The runtime broke its protocol.
    #[error("the function's runtime answered out of protocol")]
    Protocol,
}

impl TreeError {
    /// The failure, when it is the function's own doing (it exited, crashed, ran out of time or memory) and not the host's.
    pub fn function_failure(&self) -> Option<&Failure> {
        match self {
            TreeError::Sandbox { source: HandleError::Failed(failure), .. } => match failure {
                Failure::Machine(_) | Failure::Start { .. } => None,
                failure => Some(failure),
            },
            _ => None,
        }
    }
}

/// What is wrong with an event.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// It is too long.
    #[error("the event has {0} bytes; the limit is {MAX_PAYLOAD}")]
    TooLong(usize),
    /// It is not JSON.
    #[error("the event is not JSON")]
    NotJson(#[source] serde_json::Error),
    /// It is not text: JSON is UTF-8 (RFC 8259, section 8.1).
    #[error("the event is not JSON: it is not UTF-8")]
    NotText(#[source] std::str::Utf8Error),
}

/// Checks an event: JSON, and not too long.
pub fn check_event(event: &[u8]) -> Result<(), EventError> {
    if event.len() > MAX_PAYLOAD {
        return Err(EventError::TooLong(event.len()));
    }
    // What is skipped is not checked to be UTF-8 by the parser.
    let text = std::str::from_utf8(event).map_err(EventError::NotText)?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(EventError::NotJson)?;
    Ok(())
}

/// What a tree grows on.
#[derive(Debug)]
pub struct Config {
    /// A binary that calls [`crate::sandbox::run_if_asked`] first.
    pub exe: PathBuf,
    /// Root directory of the guests.
    pub rootfs: PathBuf,
    /// Where the functions' stdout and stderr go.
    pub log: OwnedFd,
    /// Environment of the runtimes.
    pub env: Vec<(String, String)>,
    /// Record working sets and prefill them.
    pub prefill: bool,
}

/// A grown tree.
#[derive(Debug)]
pub struct Tree {
    config: Config,
    root: OwnedFd,
    /// Instances that have answered and are ending; dropped first, so that they end before their seeds.
    ending: Vec<Child>,
    spares: Spares,
    function: Option<(Function, Seed)>,
    language: Option<(Runtime, Seed)>,
    os: Option<Seed>,
    forks: u64,
    trained: bool,
}

/// An instance at work.
#[derive(Debug)]
pub struct Pending {
    fork: Fork,
    process: Child,
    started: u64,
    timeout_ms: u64,
    measure: bool,
    level: u8,
    spare: bool,
}

/// What an instance gave back.
#[derive(Debug)]
pub struct Served {
    /// The runtime's answer.
    pub reply: Reply,
    /// From request to answer, ns.
    pub total: u64,
    /// The fork's phases.
    pub phases: Phases,
    /// Level of the seed that it was forked from.
    pub level: u8,
    /// Whether it was a spare.
    pub spare: bool,
    /// What it cost, when asked for.
    pub measures: Option<Measures>,
}

impl Tree {
    /// Boots the OS seed.
    pub fn plant(config: Config) -> Result<Tree, TreeError> {
        let root = std::fs::File::open(&config.rootfs)
            .and_then(|f| {
                if f.metadata()?.is_dir() {
                    Ok(f)
                } else {
                    Err(std::io::Error::from(std::io::ErrorKind::NotADirectory))
                }
            })
            .map_err(|source| TreeError::Root { path: config.rootfs.clone(), source })?;
        let os = Seed::boot(&config.exe)
            .map_err(|source| TreeError::Sandbox { what: "booting the guest OS".into(), source })?;
        Ok(Tree {
            config,
            root: root.into(),
            ending: Vec::new(),
            spares: Spares::default(),
            function: None,
            language: None,
            os: Some(os),
            forks: 0,
            trained: false,
        })
    }

    fn next_id(&mut self) -> String {
        self.forks += 1;
        format!("{}-{}", std::process::id(), self.forks)
    }

    /// The seeds that are alive, root first.
    pub fn seeds(&self) -> Vec<&Seed> {
        let mut seeds: Vec<&Seed> = Vec::new();
        seeds.extend(&self.os);
        seeds.extend(self.language.iter().map(|(_, s)| s));
        seeds.extend(self.function.iter().map(|(_, s)| s));
        seeds
    }

    /// Grows the language seed from the OS seed. Does nothing for a runtime without one.
    pub fn grow_language(&mut self, runtime: Runtime) -> Result<(), TreeError> {
        let Some(os) = &self.os else { return Err(TreeError::Protocol) };
        let what = format!("starting the {} runtime", runtime.name());
        let Some(start) = runtime.start(&self.config.env, &self.config.rootfs) else { return Ok(()) };
        let steps = vec![Step::Root { shown: guest::vfs::Shown::default() }, start];
        let (id, memory, cpus) = (String::new(), None, None);
        let spec = ForkSpec {
            id,
            role: Role::Seed,
            name: format!("L1 {}", runtime.name()),
            steps,
            memory,
            cpus,
            timeout_ms: GROW_TIMEOUT_MS,
            record: false,
            measure: false,
            keep: false,
        };
        let fail = |source| TreeError::Sandbox { what: what.clone(), source };
        let fork = os.fork(spec, self.config.log.as_fd(), Some(self.root.as_fd())).map_err(fail)?;
        let process = os.announced().map_err(fail)?;
        await_ready(&fork.channel, GROW_TIMEOUT_MS + GRACE_MS).map_err(fail)?;
        self.language = Some((runtime, Seed::from_fork(1, runtime.name().into(), process, fork)));
        Ok(())
    }

    /// Grows the function seed from the language seed: imports the handler and, when `warm` has an event, runs it once.
    pub fn grow_function(&mut self, function: &Function, warm: Option<&[u8]>) -> Result<(), TreeError> {
        let what = format!("importing {}.{}", function.module, function.function);
        let mut steps = Vec::new();
        let (parent, root) = match (function.runtime, &self.language, &self.os) {
            (Runtime::Provided, _, Some(os)) => {
                steps.push(Step::Root { shown: guest::vfs::Shown::default() });
                steps.push(function.start(&self.config.env, &self.config.rootfs));
                (os, Some(self.root.as_fd()))
            }
            (runtime, Some((language, seed)), _) if runtime == *language => (seed, None),
            _ => return Err(TreeError::Protocol),
        };
        steps.push(Step::Command(function.import_command()));
        if let Some(event) = warm {
            steps.push(Step::Command(function.warm_up_command(event)));
        }
        let spec = ForkSpec {
            id: format!("{}-fn-{}", std::process::id(), function.name),
            role: Role::Seed,
            name: format!("L2 {}", function.name),
            steps: steps.clone(),
            memory: Some(function.memory),
            cpus: Some(function.cpus),
            timeout_ms: function.timeout_ms.max(1).saturating_mul(2),
            record: false,
            measure: false,
            keep: false,
        };
        let wait = spec.timeout_ms + GRACE_MS;
        let fail = |source| TreeError::Sandbox { what: what.clone(), source };
        let fork = parent.fork(spec, self.config.log.as_fd(), root).map_err(fail)?;
        let process = parent.announced().map_err(fail)?;
        match next(&fork.channel, wait).map_err(fail)? {
            Event::Answer { bytes, .. } => match Reply::parse(bytes) {
                Reply::Imported | Reply::Result(_) => {}
                Reply::Error(error) => return Err(TreeError::Import(error)),
                Reply::Malformed => return Err(TreeError::Protocol),
            },
            Event::Failed(failure) => return Err(fail(failure.into())),
            _ => return Err(TreeError::Protocol),
        }
        await_ready(&fork.channel, wait).map_err(fail)?;
        self.function = Some((function.clone(), Seed::from_fork(2, function.name.clone(), process, fork)));
        self.trained = false;
        Ok(())
    }

    /// Records the working set of one instance and gives it to the function's seed.
    pub fn train(&mut self, event: &[u8]) -> Result<(), TreeError> {
        if self.trained || !self.config.prefill {
            return Ok(());
        }
        let Some((function, _)) = &self.function else { return Ok(()) };
        let function = function.clone();
        let pending = self.start_with(&function, event, true, true)?;
        let served = self.finish(pending)?;
        let set = served.measures.and_then(|m| m.working_set);
        if let (Some(set), Some((_, seed))) = (set, &self.function) {
            let what = "giving the seed its working set".to_owned();
            seed.set_working_set(set).map_err(|source| TreeError::Sandbox { what, source })?;
        }
        self.trained = true;
        Ok(())
    }

    /// Starts an instance for a request and returns while it runs. Forks from the deepest seed that is alive.
    pub fn start(&mut self, function: &Function, event: &[u8], measure: bool) -> Result<Pending, TreeError> {
        if let Some(spare) = self.spares.take() {
            let command = function.invoke_command(event, &self.next_id(), function.timeout_ms, false, None);
            let started = now();
            let request = Request::Serve { command, timeout_ms: function.timeout_ms };
            if send(&spare.fork.channel, &request, &[]).is_ok() {
                return Ok(Pending {
                    fork: spare.fork,
                    process: spare.process,
                    started,
                    timeout_ms: function.timeout_ms,
                    measure,
                    level: 2,
                    spare: true,
                });
            }
            // A spare that died is no reason to fail a request.
        }
        self.start_with(function, event, measure, false)
    }

    fn start_with(
        &mut self,
        function: &Function,
        event: &[u8],
        measure: bool,
        record: bool,
    ) -> Result<Pending, TreeError> {
        self.reap();
        let id = self.next_id();
        let invoke = Step::Command(function.invoke_command(event, &id, function.timeout_ms, false, None));
        let import = Step::Command(function.import_command());
        let started = now();
        let mut last = None;
        for level in [2, 1, 0] {
            let (seed, steps, root) = match level {
                2 => match &self.function {
                    Some((f, seed)) if f == function => (seed, vec![invoke.clone()], None),
                    _ => continue,
                },
                1 => match &self.language {
                    Some((r, seed)) if *r == function.runtime => {
                        (seed, vec![import.clone(), invoke.clone()], None)
                    }
                    _ => continue,
                },
                _ => match &self.os {
                    Some(seed) => {
                        let start = function.start(&self.config.env, &self.config.rootfs);
                        (
                            seed,
                            vec![
                                Step::Root { shown: guest::vfs::Shown::default() },
                                start,
                                import.clone(),
                                invoke.clone(),
                            ],
                            Some(self.root.as_fd()),
                        )
                    }
                    None => continue,
                },
            };
            let spec = ForkSpec {
                id: id.clone(),
                role: Role::Instance,
                name: function.name.clone(),
                steps,
                memory: Some(function.memory),
                cpus: Some(function.cpus),
                timeout_ms: function.timeout_ms,
                record,
                measure,
                keep: false,
            };
            // A request that was not sent whole is not done.
            let mut may_have_run = false;
            let forked = seed.fork(spec, self.config.log.as_fd(), root).and_then(|fork| {
                let announced = seed.announced();
                // One that the seed had not read whole is not done either.
                may_have_run = !matches!(&announced, Err(HandleError::Channel(ChannelError::Reset)));
                announced.map(|process| (fork, process))
            });
            match forked {
                Ok((fork, process)) => {
                    let timeout_ms = function.timeout_ms;
                    return Ok(Pending { fork, process, started, timeout_ms, measure, level, spare: false });
                }
                Err(HandleError::Failed(failure)) => {
                    let what = "forking an instance".to_owned();
                    return Err(TreeError::Sandbox { what, source: failure.into() });
                }
                Err(error) => {
                    // The seed died: best effort goes on one level up, unless the request may be at work.
                    tracing::warn!(level, name = seed.name, %error, "a seed is gone; falling back to its parent");
                    match level {
                        2 => self.function = None,
                        1 => self.language = None,
                        _ => self.os = None,
                    }
                    if may_have_run {
                        return Err(TreeError::MayHaveRun { level, source: error });
                    }
                    last = Some(error);
                }
            }
        }
        let source = last.unwrap_or(HandleError::Channel(ChannelError::Closed));
        Err(TreeError::Sandbox { what: "finding a living seed".into(), source })
    }

    /// Waits for an instance's answer.
    pub fn finish(&mut self, pending: Pending) -> Result<Served, TreeError> {
        let wait = pending.timeout_ms + GRACE_MS;
        let fail = |source| TreeError::Sandbox { what: "the instance".into(), source };
        let (bytes, phases) = match next(&pending.fork.channel, wait).map_err(fail)? {
            Event::Answer { bytes, phases } => (bytes, phases),
            Event::Failed(failure) => return Err(fail(failure.into())),
            _ => return Err(TreeError::Protocol),
        };
        let total = now().saturating_sub(pending.started);
        if bytes.len() > MAX_PAYLOAD + 1 {
            return Err(TreeError::AnswerTooLong);
        }
        let measures = if pending.measure {
            match next(&pending.fork.channel, wait) {
                Ok(Event::Measures(measures)) => Some(*measures),
                _ => None,
            }
        } else {
            None
        };
        self.ending.push(pending.process);
        let reply = Reply::parse(bytes);
        if matches!(reply, Reply::Malformed | Reply::Imported) {
            return Err(TreeError::Protocol);
        }
        let (level, spare) = (pending.level, pending.spare);
        Ok(Served { reply, total, phases, level, spare, measures })
    }

    /// Serves one request.
    pub fn invoke(&mut self, function: &Function, event: &[u8]) -> Result<Served, TreeError> {
        check_event(event)?;
        let pending = self.start(function, event, false)?;
        self.finish(pending)
    }

    /// Makes spares until `count` are ready. `measure` lets them send what they cost.
    pub fn fill_spares(&mut self, count: usize, measure: bool) -> Result<(), TreeError> {
        while self.spares.len() < count {
            let id = self.next_id();
            let Some((function, seed)) = &self.function else { return Err(TreeError::Protocol) };
            let spec = ForkSpec {
                id,
                role: Role::Spare,
                name: function.name.clone(),
                steps: Vec::new(),
                memory: Some(function.memory),
                cpus: Some(function.cpus),
                timeout_ms: function.timeout_ms,
                record: false,
                measure,
                keep: false,
            };
            let fail = |source| TreeError::Sandbox { what: "making a spare".into(), source };
            let fork = seed.fork(spec, self.config.log.as_fd(), None).map_err(fail)?;
            let process = seed.announced().map_err(fail)?;
            await_ready(&fork.channel, GROW_TIMEOUT_MS).map_err(fail)?;
            self.spares.put(Spare { process, fork });
        }
        Ok(())
    }

    /// Reaps instances that have ended.
    pub fn reap(&mut self) {
        self.ending.retain_mut(|child| !child.try_reap());
    }

    /// Waits until every instance that answered has ended.
    pub fn settle(&mut self) {
        for child in &mut self.ending {
            child.reap();
        }
        self.ending.clear();
    }
}

#[cfg(test)]
mod tests;
