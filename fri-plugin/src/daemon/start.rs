//! From the start of the daemon until it serves, and its end.

use super::error::DaemonError;
use super::{Daemon, Inner, Serving, lock};
use crate::code::CodeStore;
use crate::config::{Config, Reclaim};
use crate::logs::Logs;
use crate::metrics::Metrics;
use crate::room::Room;
use crate::store::Store;
use seedtree::node::{Node, NodeConfig, State};
use seedtree::reclaim::{Policy, policies};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How the sandbox processes of a daemon are made.
#[derive(Clone, Debug)]
pub struct Sandboxes {
    /// A binary that calls [`seedtree::sandbox::run_if_asked`] first. By default this process's own.
    pub exe: PathBuf,
    /// Environment by which they are known for this daemon's.
    pub mark: Vec<(String, String)>,
}

impl Default for Sandboxes {
    fn default() -> Self {
        Sandboxes { exe: NodeConfig::default().exe, mark: Vec::new() }
    }
}

impl Daemon {
    /// Opens the store, boots the OS seed, and puts every stored function into service: requests are served from the levels above until
    /// the seeds are there, which [`Daemon::grow_functions`] sees to.
    pub async fn start(config: Config, sandboxes: Sandboxes) -> Result<Daemon, DaemonError> {
        let (state, functions, limits) = (config.state.clone(), config.functions.clone(), config.code);
        let (store, code) = blocking(move || {
            std::fs::create_dir_all(&state)
                .map_err(|source| DaemonError::State { path: state.clone(), source })?;
            let store = Store::open(&state, functions.count, functions.versions)?;
            let code = CodeStore::open(&state, limits)?;
            code.collect(|| store.in_use())?;
            Ok((store, code))
        })
        .await?;
        let node = Node::plant(NodeConfig {
            rootfs: config.rootfs.clone(),
            // Functions' code and environments, with their secrets, are no other function's to read.
            hidden: std::iter::once(&config.state).chain(&config.hidden).cloned().collect(),
            public_only: config.public_only,
            env: config.env.clone().into_iter().collect(),
            prefill: config.prefill,
            fork_queue: config.fork_queue,
            replicas: config.replicas.saturating_sub(1),
            policy: policy(&config.reclaim)?,
            budget: (config.memory.budget > 0).then_some(config.memory.budget),
            grow_timeout_ms: config.grow_timeout_ms,
            exe: sandboxes.exe,
            mark: sandboxes.mark,
            ..NodeConfig::default()
        })
        .await?;
        tracing::info!("the OS seed is there");
        let logs = Logs::open(&config.state, config.logs.bytes, config.logs.memory);
        let daemon = Daemon(Arc::new(Inner {
            logs,
            room: Room::new(config.memory.events),
            config,
            node,
            started: Instant::now(),
            metrics: Metrics::default(),
            tracer: OnceLock::new(),
            ready: AtomicBool::new(false),
            store: Arc::new(store),
            code,
            serving: Default::default(),
            changing: Default::default(),
        }));
        daemon.restore().await;
        Ok(daemon)
    }

    /// Puts every stored function into service.
    async fn restore(&self) {
        let names = self.0.store.list().into_iter().map(|f| f.current.name).collect();
        self.0.logs.collect(names).await;
        for function in self.0.store.list() {
            let version = function.current;
            let name = version.name.clone();
            let placed = self.placed(&version).await;
            let served = placed.and_then(|(spec, pins)| Ok((self.node().deploy_lazily(spec)?, pins).1));
            let (pins, failed) = match served {
                Ok(pins) => (pins, None),
                Err(error) => {
                    let reason = super::error::chain(&error);
                    tracing::error!(function = name, error = reason, "a function cannot be put into service");
                    (Vec::new(), Some(reason))
                }
            };
            lock(&self.0.serving).insert(name, Serving { pins, failed });
        }
    }

    /// Grows the seeds of the runtimes, one after another; then the daemon is ready. `told` hears of each.
    pub async fn grow_languages(&self, mut told: impl FnMut(String)) -> Result<(), DaemonError> {
        for runtime in &self.0.config.runtimes {
            told(format!("starting the {} runtime", runtime.name()));
            let began = Instant::now();
            self.node().grow_language(*runtime).await?;
            let ms = began.elapsed().as_millis();
            tracing::info!(runtime = runtime.name(), ms, "a language seed is there");
        }
        self.0.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Grows the seeds of the functions, one after another.
    pub async fn grow_functions(&self, mut told: impl FnMut(String)) {
        let names: Vec<String> = self.node().functions().iter().map(|v| v.spec.name.clone()).collect();
        for (n, name) in names.iter().enumerate() {
            // No seed goes for another before anybody has asked for one of them.
            if self.node().function(name).is_ok_and(|v| !self.node().has_room(&v)) {
                told(format!("no room for seed {} of {}: {name}: it is grown on demand", n + 1, names.len()));
                continue;
            }
            told(format!("growing seed {} of {}: {name}", n + 1, names.len()));
            if let Err(error) = self.prewarm(name).await {
                tracing::warn!(
                    function = name,
                    error = super::error::chain(&error),
                    "a function's seed did not grow"
                );
            }
        }
    }

    /// Takes no more requests, and waits for those at work as long as the configuration says, or shorter; what is left then is ended, and
    /// its callers are told so ([`NodeError::Killed`]). How many were given up.
    ///
    /// [`NodeError::Killed`]: seedtree::node::error::NodeError::Killed
    pub async fn drain(&self, limit: Option<Duration>) -> usize {
        let own = Duration::from_millis(self.0.config.drain_timeout_ms);
        let limit = limit.map_or(own, |l| l.min(own));
        if tokio::time::timeout(limit, self.node().drain()).await.is_ok() {
            return 0;
        }
        let given_up = self.node().requests();
        let ended = async {
            let drained = self.node().drain();
            tokio::pin!(drained);
            // One that is ended gives its turn to one that waits.
            while tokio::time::timeout(AGAIN, &mut drained).await.is_err() {
                for (id, instance) in self.node().instances() {
                    if instance.state == State::Working {
                        // Somebody else may have ended it already.
                        let _ = self.node().kill(&id);
                    }
                }
            }
        };
        if tokio::time::timeout(ENDING, ended).await.is_err() {
            tracing::warn!(requests = self.node().requests(), "requests do not end");
        }
        given_up
    }
}

/// Between two looks at requests that are being ended.
const AGAIN: Duration = Duration::from_millis(20);
/// Time for ending them all.
const ENDING: Duration = Duration::from_secs(5);

/// The policy of a configuration, which has been checked.
fn policy(reclaim: &Reclaim) -> Result<Arc<dyn Policy>, DaemonError> {
    let policy = policies::named(&reclaim.policy, reclaim.idle_ms.saturating_mul(1_000_000));
    policy.map(Arc::from).ok_or_else(|| DaemonError::Policy(reclaim.policy.clone()))
}

/// Runs something that blocks.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DaemonError> + Send + 'static,
) -> Result<T, DaemonError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(DaemonError::Task(error)),
    }
}
