//! The daemon: the tree of the node, the functions that stay deployed, and requests to them. The protocols translate to and from this.

pub mod deploy;
pub mod error;
pub mod invoke;

use crate::metrics::Metrics;
use crate::proto;
use crate::trace::Tracer;
use deploy::Record;
use error::DaemonError;
use seedtree::node::{Node, NodeConfig};
use seedtree::runtime::Runtime;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// The daemon. A handle: copies are of the same daemon.
#[derive(Clone, Debug)]
pub struct Daemon(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: Node,
    started: Instant,
    metrics: Metrics,
    tracer: OnceLock<Tracer>,
    ready: AtomicBool,
    /// What is deployed, by name.
    records: Mutex<BTreeMap<String, Record>>,
    /// One deploy, rollback or removal of a function at a time.
    changing: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Daemon {
    /// Boots the OS seed and grows the seeds of the runtimes, one after another.
    pub async fn start(config: NodeConfig, runtimes: &[Runtime]) -> Result<Daemon, DaemonError> {
        let node = Node::plant(config).await?;
        tracing::info!("the OS seed is there");
        let daemon = Daemon(Arc::new(Inner {
            node,
            started: Instant::now(),
            metrics: Metrics::default(),
            tracer: OnceLock::new(),
            ready: AtomicBool::new(false),
            records: Mutex::default(),
            changing: Mutex::default(),
        }));
        for runtime in runtimes {
            daemon.node().grow_language(*runtime).await?;
            tracing::info!(runtime = runtime.name(), "a language seed is there");
        }
        daemon.0.ready.store(true, Ordering::Release);
        Ok(daemon)
    }

    /// The tree.
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// Whether the OS seed and the language seeds are there, so that requests can be served.
    pub fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Acquire)
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Who makes traces, where somebody does.
    pub fn tracer(&self) -> Option<&Tracer> {
        self.0.tracer.get()
    }

    /// Makes traces from now on. Only the first one given counts.
    pub fn trace_with(&self, tracer: Tracer) {
        let _ = self.0.tracer.set(tracer);
    }

    /// Since the start.
    pub fn uptime(&self) -> std::time::Duration {
        self.0.started.elapsed()
    }

    /// What is deployed.
    pub fn functions(&self) -> Vec<proto::Function> {
        lock(&self.0.records).values().map(|record| self.describe(record)).collect()
    }

    /// A deployed function.
    pub fn function(&self, name: &str) -> Result<proto::Function, DaemonError> {
        let records = lock(&self.0.records);
        let record = records.get(name).ok_or_else(|| {
            DaemonError::Node(seedtree::node::error::NodeError::NoSuchFunction(name.to_owned()))
        })?;
        Ok(self.describe(record))
    }
}
