//! The tree of a node: many functions, many requests at once, in a tokio runtime.
//!
//! [`Node`] owns the OS seed, the language seeds, and of each deployed function its seed, spares and kept instances. A request takes a
//! kept instance, a spare, or a fork of the deepest living seed that fits. Functions' seeds are grown one at a time, so that a deploy does not
//! take the machine from the requests; one that dies is grown again. The seeds that functions share do not wait for them.

mod budget;
pub mod channel;
pub mod config;
pub mod deploy;
pub mod error;
pub mod function;
mod grow;
mod hidden;
pub mod instance;
mod listed;
pub mod memory;
mod owned;
pub mod planter;
mod priority;
pub mod process;
pub mod pulse;
mod replicas;
pub mod seed;
mod serve;
mod setback;
mod shrink;
mod spares;
mod tend;
pub mod version;
mod worth;

use crate::reclaim::Rates;
use crate::runtime::Runtime;
use budget::Budget;
use error::NodeError;
use listed::Working;
use owned::Owned;
use planter::Planter;
use priority::Priority;
use process::Reaper;
use seed::{Ground, NodeSeed};
use setback::Setback;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use tokio::sync::{Notify, Semaphore};
use version::{User, Version};

pub use config::NodeConfig;
pub use deploy::Prepared;
pub use listed::{Listed, State};
pub use serve::{Call, Served};
pub use shrink::{Dropped, Reclaimed};

#[derive(Debug)]
struct Inner {
    config: NodeConfig,
    root: Arc<OwnedFd>,
    /// What of the root directory the guests may see.
    shown: guest::vfs::Shown,
    /// What is hidden of it, held open so that nothing else gets its inode numbers.
    _hidden: Vec<OwnedFd>,
    ground: Ground,
    priority: Option<Priority>,
    rates: Rates,
    budget: Budget,
    os: Mutex<Option<Arc<NodeSeed>>>,
    languages: Mutex<BTreeMap<Runtime, Arc<NodeSeed>>>,
    functions: RwLock<BTreeMap<String, Arc<Version>>>,
    /// Versions that only finish their requests.
    retired: Mutex<Vec<Weak<Version>>>,
    working: Mutex<BTreeMap<String, Working>>,
    owned: Mutex<BTreeMap<String, Owned>>,
    /// This process.
    pid: u32,
    forks: AtomicU64,
    versions: AtomicU64,
    /// Requests that were let in and are not answered.
    requests: AtomicUsize,
    draining: AtomicBool,
    drained: Notify,
    /// Processors that there are.
    processors: usize,
    /// One seed that functions share grows at a time.
    shared_growth: Semaphore,
    /// Why the OS seed could not be booted.
    os_setback: Setback,
    /// One function's seed grows at a time, in the order in which they are asked for.
    growth: Semaphore,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Who grows seeds again finds that there is no node.
        self.ground.lost.notify_one();
    }
}

/// The tree of a node. A handle: copies are of the same node, which ends with the last one.
#[derive(Clone, Debug)]
pub struct Node(Arc<Inner>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    /// Boots the OS seed. Call it inside a tokio runtime with time and IO.
    pub async fn plant(config: NodeConfig) -> Result<Node, NodeError> {
        let refuse = |source| NodeError::Root { path: config.rootfs.clone(), source };
        let root = open_dir(&config.rootfs).map_err(refuse)?;
        let mut shown = guest::vfs::Shown { public_only: config.public_only, ..Default::default() };
        let mut held = Vec::new();
        for path in &config.hidden {
            let hide = hidden::hide(path, &root, &config.rootfs, &mut shown);
            held.extend(hide.map_err(|source| NodeError::Hidden { path: path.clone(), source })?);
        }
        let reaper = Reaper::start();
        let grace = std::time::Duration::from_millis(config.fork_timeout_ms);
        let planter = Planter::start(reaper.known.clone(), grace).map_err(NodeError::Host)?;
        let lost = Arc::new(Notify::new());
        let (queue, fork_timeout_ms) = (config.fork_queue, config.fork_timeout_ms);
        let node = Node(Arc::new(Inner {
            root: Arc::new(root),
            shown,
            _hidden: held,
            ground: Ground { queue, fork_timeout_ms, reaper, planter, lost: lost.clone() },
            priority: config.grow_nicely.then(Priority::find).flatten(),
            rates: Rates::new(config.rate_half_life_s),
            budget: Budget::default(),
            os: Mutex::default(),
            languages: Mutex::default(),
            functions: RwLock::default(),
            retired: Mutex::default(),
            working: Mutex::default(),
            owned: Mutex::default(),
            pid: std::process::id(),
            forks: AtomicU64::new(0),
            versions: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            drained: Notify::new(),
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            shared_growth: Semaphore::new(1),
            os_setback: Setback::new(tend::PAUSES.0, tend::PAUSES.1),
            growth: Semaphore::new(1),
            config,
        }));
        node.grow_os().await?;
        tokio::spawn(tend::regrow(Arc::downgrade(&node.0), lost));
        tokio::spawn(tend::replace_dead(Arc::downgrade(&node.0)));
        Ok(node)
    }

    /// What it runs with.
    pub fn config(&self) -> &NodeConfig {
        &self.0.config
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

    /// All versions that there are: the functions', and those that only finish their requests.
    pub fn versions(&self) -> Vec<Arc<Version>> {
        let mut versions = self.functions();
        let mut retired = lock(&self.0.retired);
        retired.retain(|version| version.upgrade().is_some_and(|v| v.is_used()));
        versions.extend(retired.iter().filter_map(Weak::upgrade));
        versions
    }

    /// The living seeds, root first.
    pub fn seeds(&self) -> Vec<Arc<NodeSeed>> {
        let mut seeds: Vec<Arc<NodeSeed>> = lock(&self.0.os).iter().cloned().collect();
        seeds.extend(lock(&self.0.languages).values().cloned());
        seeds.extend(self.versions().iter().flat_map(|f| f.seeds()));
        seeds.retain(|s| !s.is_gone());
        seeds
    }

    /// The present version, in use.
    fn enter(&self, name: &str) -> Result<User, NodeError> {
        loop {
            // A version that has retired since it was looked up has a successor, or none.
            if let Some(user) = self.function(name)?.enter() {
                return Ok(user);
            }
        }
    }

    /// Lets a request in, unless the node is draining.
    fn let_in(&self) -> Result<Admitted<'_>, NodeError> {
        self.0.requests.fetch_add(1, Ordering::SeqCst);
        let admitted = Admitted(self);
        if self.is_draining() { Err(NodeError::Draining) } else { Ok(admitted) }
    }

    /// Whether it takes no more requests.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }

    /// Requests that were let in and are not answered.
    pub fn requests(&self) -> usize {
        self.0.requests.load(Ordering::SeqCst)
    }

    /// Takes no more requests, waits until those that it has, at work or waiting, are answered, and ends every instance that is left.
    pub async fn drain(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
        loop {
            let drained = self.0.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if self.requests() == 0 {
                break;
            }
            drained.await;
        }
        for version in self.versions() {
            version.end_idle();
        }
        let owned = std::mem::take(&mut *lock(&self.0.owned));
        drop(owned);
    }

    /// Forks of all kinds so far.
    pub fn forks(&self) -> u64 {
        self.0.forks.load(Ordering::Relaxed)
    }

    fn next_id(&self) -> String {
        let n = self.0.forks.fetch_add(1, Ordering::Relaxed) + 1;
        format!("{}-{n}", self.0.pid)
    }
}

/// A request that was let in.
struct Admitted<'a>(&'a Node);

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if self.0.0.requests.fetch_sub(1, Ordering::SeqCst) == 1 && self.0.is_draining() {
            self.0.0.drained.notify_waiters();
        }
    }
}

/// Opens a directory.
fn open_dir(path: &Path) -> std::io::Result<OwnedFd> {
    let file = std::fs::File::open(path)?;
    if file.metadata()?.is_dir() { Ok(file.into()) } else { Err(std::io::ErrorKind::NotADirectory.into()) }
}
