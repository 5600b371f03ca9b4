//! The daemon: the tree of the node, the functions that stay deployed, and requests to them. The protocols translate to and from this.

pub mod deploy;
pub mod error;
pub mod invoke;
mod listed;
pub mod spec;
pub mod start;
pub mod streamed;
mod tidy;

use crate::code::{CodeStore, Pin};
use crate::config::Config;
use crate::logs::Logs;
use crate::metrics::Metrics;
use crate::room::Room;
use crate::store::Store;
use crate::trace::{Marks, Tracer};
use error::DaemonError;
use seedtree::node::{Node, Served};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The daemon. A handle: copies are of the same daemon.
#[derive(Clone, Debug)]
pub struct Daemon(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    node: Node,
    started: Instant,
    metrics: Metrics,
    tracer: OnceLock<Tracer>,
    ready: AtomicBool,
    /// For the events of all requests, however they come.
    room: Room,
    store: Arc<Store>,
    code: CodeStore,
    logs: Logs,
    /// What serves, by name.
    serving: Mutex<BTreeMap<String, Serving>>,
    /// Names that are being deployed, rolled back or removed.
    changing: Mutex<BTreeSet<String>>,
}

/// What the daemon keeps of a version that serves.
#[derive(Debug)]
struct Serving {
    /// Its code and layers, which are not collected meanwhile.
    #[expect(dead_code, reason = "held, not read")]
    pins: Vec<Pin>,
    /// Why it could not be put into service.
    failed: Option<String>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Daemon {
    /// The tree.
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// What it was started with.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Whether the OS seed and the language seeds are there, so that requests are served as they should be.
    pub fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Acquire) && !self.0.node.is_draining()
    }

    /// The bound on the bytes of the events of all requests.
    pub fn room(&self) -> &Room {
        &self.0.room
    }

    /// What functions print.
    pub fn logs(&self) -> &Logs {
        &self.0.logs
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

    /// Tells of a request that is over now, where requests are traced.
    pub fn trace(
        &self,
        marks: Option<Marks>,
        function: &str,
        request_id: &str,
        result: &Result<Served, DaemonError>,
    ) {
        if let (Some(mut marks), Some(tracer)) = (marks, self.tracer()) {
            marks.answered();
            tracer.invocation(&marks, function, request_id, result);
        }
    }

    /// Since the start.
    pub fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }
}
