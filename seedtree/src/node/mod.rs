//! The tree of a node: many functions, many requests at once, in a tokio runtime.
//!
//! [`Node`] owns the OS seed, the language seeds, and of each deployed function its seed, spares and kept instances. A request takes a
//! kept instance, a spare, or a fork of the deepest living seed that fits. Seeds are grown one at a time, so that a deploy does not take
//! the machine from the requests.

pub mod channel;
pub mod error;
pub mod function;
mod grow;
pub mod instance;
pub mod process;
pub mod seed;
mod serve;

use crate::handle;
use crate::runtime::Runtime;
use channel::AsyncChannel;
use error::NodeError;
use function::{Code, FunctionSpec, Version};
use process::{Process, Reaper};
use seed::{Forked, NodeSeed};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::{Notify, Semaphore};

pub use serve::Served;

/// What a node is run with.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// A binary that calls [`crate::sandbox::run_if_asked`] first.
    pub exe: PathBuf,
    /// Root directory of the guests.
    pub rootfs: PathBuf,
    /// Environment of the runtimes.
    pub env: Vec<(String, String)>,
    /// Record working sets and prefill them.
    pub prefill: bool,
    /// Forks that may wait for one seed.
    pub fork_queue: usize,
    /// Time for growing a seed, ms.
    pub grow_timeout_ms: u64,
    /// Environment of the sandbox processes on the host, by which they are known for this node's.
    pub mark: Vec<(String, String)>,
}

/// An instance that is at work, as it is listed.
#[derive(Clone, Debug)]
pub struct Working {
    /// Whose.
    pub function: String,
    /// Its process on the host.
    pub pid: i32,
    /// CLOCK_MONOTONIC, ns.
    pub since: u64,
    /// Level of the seed that it came from.
    pub level: u8,
    kill: Arc<Notify>,
}

#[derive(Debug)]
struct Inner {
    config: NodeConfig,
    root: Arc<OwnedFd>,
    reaper: Reaper,
    os: Mutex<Option<Arc<NodeSeed>>>,
    languages: Mutex<BTreeMap<Runtime, Arc<NodeSeed>>>,
    functions: RwLock<BTreeMap<String, Arc<Version>>>,
    working: Mutex<BTreeMap<String, Working>>,
    forks: AtomicU64,
    draining: AtomicBool,
    /// One seed grows at a time.
    growth: Semaphore,
}

/// The tree of a node. A handle: copies are of the same node.
#[derive(Clone, Debug)]
pub struct Node(Arc<Inner>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    /// Boots the OS seed. Its process ends with the thread that calls this: call it on the main thread, inside the runtime.
    pub async fn plant(config: NodeConfig) -> Result<Node, NodeError> {
        let refuse = |source| NodeError::Root { path: config.rootfs.clone(), source };
        let root = open_dir(&config.rootfs).map_err(refuse)?;
        let what = "booting the guest OS";
        let fail = |source| NodeError::Sandbox { what: what.into(), source };
        let reaper = Reaper::start();
        let (child, channel) = handle::Seed::spawn(&config.exe, &config.mark).map_err(fail)?;
        let channel = AsyncChannel::new(channel).map_err(|e| NodeError::of_channel(what, e))?;
        let mut forked = Forked { channel, process: Process::new(child, reaper.clone()) };
        grow::until_paused(what, &mut forked, config.grow_timeout_ms).await?;
        let os = NodeSeed::new(0, "os".into(), forked, config.fork_queue, reaper.clone());
        Ok(Node(Arc::new(Inner {
            root: Arc::new(root),
            reaper,
            os: Mutex::new(Some(Arc::new(os))),
            languages: Mutex::default(),
            functions: RwLock::default(),
            working: Mutex::default(),
            forks: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            growth: Semaphore::new(1),
            config,
        })))
    }

    /// Grows a seed of the function and, when it is there, lets requests go to it; the version before goes on with the requests that it
    /// has. Where that fails, nothing changes.
    pub async fn deploy(
        &self,
        spec: FunctionSpec,
        printed: &mut dyn instance::Sink,
    ) -> Result<(), NodeError> {
        let version = Arc::new(self.version(spec)?);
        self.grow_function(&version, printed).await?;
        self.switch(version);
        Ok(())
    }

    /// The same without waiting for a seed: requests are served from the levels above until there is one.
    pub fn deploy_lazily(&self, spec: FunctionSpec) -> Result<(), NodeError> {
        let version = Arc::new(self.version(spec)?);
        self.switch(version);
        Ok(())
    }

    fn version(&self, spec: FunctionSpec) -> Result<Version, NodeError> {
        let open = |path: &Path| {
            let refuse =
                |source| NodeError::Code { function: spec.name.clone(), path: path.to_owned(), source };
            open_dir(path).map(Arc::new).map_err(refuse)
        };
        let task = open(&spec.code)?;
        let layers = spec.layers.as_deref().map(open).transpose()?;
        let function = spec.function()?;
        Ok(Version::new(spec, function, Code { task, layers }))
    }

    fn switch(&self, version: Arc<Version>) {
        let mut functions = self.0.functions.write().unwrap_or_else(PoisonError::into_inner);
        let old = functions.insert(version.spec.name.clone(), version.clone());
        drop(functions);
        if let Some(old) = old {
            old.retire();
        }
        self.refill(&version);
    }

    /// Takes a function out of service. Requests at work are finished.
    pub fn remove(&self, name: &str) -> Result<(), NodeError> {
        let mut functions = self.0.functions.write().unwrap_or_else(PoisonError::into_inner);
        let old = functions.remove(name).ok_or_else(|| NodeError::NoSuchFunction(name.to_owned()))?;
        drop(functions);
        old.retire();
        Ok(())
    }

    /// The version of a function that serves now.
    pub fn function(&self, name: &str) -> Result<Arc<Version>, NodeError> {
        let functions = self.0.functions.read().unwrap_or_else(PoisonError::into_inner);
        functions.get(name).cloned().ok_or_else(|| NodeError::NoSuchFunction(name.to_owned()))
    }

    /// All functions, by name.
    pub fn functions(&self) -> Vec<Arc<Version>> {
        self.0.functions.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The living seeds, root first.
    pub fn seeds(&self) -> Vec<Arc<NodeSeed>> {
        let mut seeds: Vec<Arc<NodeSeed>> = lock(&self.0.os).iter().cloned().collect();
        seeds.extend(lock(&self.0.languages).values().cloned());
        seeds.extend(self.functions().iter().filter_map(|f| f.seed()));
        seeds.retain(|s| !s.is_gone());
        seeds
    }

    /// Instances at work, by id.
    pub fn instances(&self) -> BTreeMap<String, Working> {
        lock(&self.0.working).clone()
    }

    /// Ends an instance that is at work; its request gets [`NodeError::Killed`].
    pub fn kill(&self, id: &str) -> Result<(), NodeError> {
        let working = lock(&self.0.working).get(id).cloned();
        let working = working.ok_or_else(|| NodeError::NoSuchInstance(id.to_owned()))?;
        working.kill.notify_one();
        Ok(())
    }

    /// Takes no more requests, and waits until those at work are answered.
    pub async fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
        while !lock(&self.0.working).is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Forks of all kinds so far.
    pub fn forks(&self) -> u64 {
        self.0.forks.load(Ordering::Relaxed)
    }

    fn next_id(&self) -> String {
        let n = self.0.forks.fetch_add(1, Ordering::Relaxed) + 1;
        format!("{}-{n}", std::process::id())
    }
}

/// Opens a directory.
fn open_dir(path: &Path) -> std::io::Result<OwnedFd> {
    let file = std::fs::File::open(path)?;
    if file.metadata()?.is_dir() { Ok(file.into()) } else { Err(std::io::ErrorKind::NotADirectory.into()) }
}
