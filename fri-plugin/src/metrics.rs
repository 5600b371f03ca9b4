//! What is counted: requests of functions by level, errors, refusals, durations of phases; events, HTTP answers, deploys.
//!
//! Counting takes one look-up by name and a few additions. What the tree knows itself (seeds, spares, queues) is not counted here but
//! read when it is asked for.

use crate::daemon::error::{DaemonError, Kind};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use seedtree::node::Served;
use seedtree::node::error::NodeError;
use seedtree::runtime::Reply;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

/// Upper bounds of the buckets of durations, seconds: 50 µs to 60 s.
pub const BUCKETS: [f64; 20] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_4, 0.000_8, 0.001_5, 0.003, 0.005, 0.008, 0.015, 0.03, 0.06, 0.12,
    0.25, 0.5, 1.0, 3.0, 10.0, 30.0, 60.0,
];

/// The phases that have a histogram.
pub const PHASES: [&str; 6] = ["queued", "clone", "vm", "prefill", "run", "total"];
/// Where an instance came from.
pub const SOURCES: [&str; 3] = ["fork", "spare", "kept"];

/// The counters of a daemon. A handle: copies are of the same counters.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    functions: RwLock<BTreeMap<String, Arc<PerFunction>>>,
    unknown: Counter,
    events: EventCounts,
    http: HttpCounts,
    deploys: Counter,
    failed_deploys: Counter,
    pub(crate) memory: crate::metrics_scrape::MemoryCache,
}

/// Counters of one function.
#[derive(Debug, Default)]
pub struct PerFunction {
    /// Requests that an instance was given, of all versions.
    pub requests: AtomicU64,
    /// Requests answered, by level and source; also those that the function failed.
    pub levels: [PerLevel; 3],
    /// The function's failures, by code; and requests whose client has left.
    pub errors: Mutex<BTreeMap<&'static str, u64>>,
    /// Requests that the node refused or failed, by code.
    pub refusals: Mutex<BTreeMap<&'static str, u64>>,
}

/// Counters of one function and level.
#[derive(Debug, Default)]
pub struct PerLevel {
    /// Requests, in the order of [`SOURCES`].
    pub sources: [AtomicU64; 3],
    /// In the order of [`PHASES`]; made with the first request.
    pub phases: OnceLock<[Histogram; 6]>,
    /// Times that guest code was left for the guest OS.
    pub exits: AtomicU64,
    /// Page faults on the host.
    pub faults: AtomicU64,
}

/// Counters of asynchronous events.
#[derive(Clone, Debug, Default)]
pub struct EventCounts {
    /// Taken into the queue.
    pub accepted: Counter,
    /// Refused, because the queue was full.
    pub refused: Counter,
    /// Tried again.
    pub retried: Counter,
    /// Answered by their function.
    pub done: Counter,
    /// Given up after the last try.
    pub failed: Counter,
    /// Gone with the daemon.
    pub dropped: Counter,
    /// In the queue or at work.
    pub waiting: Gauge,
}

/// Answers of the gateway, by the first digit of their status.
#[derive(Debug, Default)]
pub struct HttpCounts {
    pub(crate) invoke: [AtomicU64; 5],
    pub(crate) call: [AtomicU64; 5],
}

impl HttpCounts {
    /// An answer of the Invoke API.
    pub fn invoke(&self, status: u16) {
        count(&self.invoke, status);
    }

    /// An answer of `/fn`.
    pub fn call(&self, status: u16) {
        count(&self.call, status);
    }
}

fn count(classes: &[AtomicU64; 5], status: u16) {
    if let Some(class) = classes.get(usize::from(status / 100).saturating_sub(1)) {
        class.fetch_add(1, Ordering::Relaxed);
    }
}

/// Nanoseconds as Prometheus has durations.
#[allow(clippy::cast_precision_loss)]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

impl Metrics {
    /// Counts a request that was answered, failed or refused.
    pub fn invoked(&self, function: &str, result: &Result<Served, DaemonError>) {
        match result {
            Err(error) if error.kind() == Kind::NotFound => {
                self.unknown_request();
            }
            Err(DaemonError::Node(NodeError::Abandoned)) => self.abandoned(function),
            Err(error) => {
                let counts = self.function(function);
                let theirs = crate::gateway::is_functions(error);
                add(if theirs { &counts.errors } else { &counts.refusals }, error.code());
            }
            Ok(served) => {
                let counts = self.function(function);
                if matches!(served.reply, Reply::Error(_)) {
                    add(&counts.errors, "Function.Unhandled");
                }
                let Some(level) = counts.levels.get(usize::from(served.level)) else { return };
                let source = if served.kept { 2 } else { usize::from(served.spare) };
                if let Some(source) = level.sources.get(source) {
                    source.fetch_add(1, Ordering::Relaxed);
                }
                let [queued, clone, vm, prefill, run, total] =
                    level.phases.get_or_init(|| PHASES.map(|_| Histogram::new(BUCKETS)));
                level.exits.fetch_add(served.phases.exits, Ordering::Relaxed);
                level.faults.fetch_add(served.phases.faults, Ordering::Relaxed);
                queued.observe(seconds(served.queued));
                run.observe(seconds(served.phases.run));
                total.observe(seconds(served.total));
                // Of a spare and a kept instance these were before the request.
                if source == 0 {
                    clone.observe(seconds(served.phases.clone));
                    vm.observe(seconds(served.phases.vm));
                    prefill.observe(seconds(served.phases.prefill));
                }
            }
        }
    }

    /// Counts a request that an instance was given.
    pub fn began(&self, function: &str) {
        self.function(function).requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request whose client left before it had its answer.
    pub fn abandoned(&self, function: &str) {
        add(&self.function(function).errors, NodeError::Abandoned.code());
    }

    /// Counts a request for a function that is not there.
    pub fn unknown_request(&self) {
        self.0.unknown.inc();
    }

    /// Counts a deploy.
    pub fn deployed(&self, succeeded: bool) {
        if succeeded {
            self.0.deploys.inc()
        } else {
            self.0.failed_deploys.inc()
        };
    }

    /// The counters of asynchronous events.
    pub fn events(&self) -> EventCounts {
        self.0.events.clone()
    }

    /// The counters of the gateway's answers.
    pub fn http(&self) -> &HttpCounts {
        &self.0.http
    }

    /// Requests for functions that are not there.
    pub(crate) fn unknown(&self) -> u64 {
        self.0.unknown.get()
    }

    /// Deploys that succeeded and that failed.
    pub(crate) fn deploys(&self) -> (u64, u64) {
        (self.0.deploys.get(), self.0.failed_deploys.get())
    }

    pub(crate) fn memory(&self) -> &crate::metrics_scrape::MemoryCache {
        &self.0.memory
    }

    fn function(&self, name: &str) -> Arc<PerFunction> {
        let functions = self.0.functions.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = functions.get(name) {
            return counts.clone();
        }
        drop(functions);
        let mut functions = self.0.functions.write().unwrap_or_else(PoisonError::into_inner);
        functions.entry(name.to_owned()).or_default().clone()
    }

    /// Requests that instances of a function were given, of whatever version.
    pub fn requests_of(&self, function: &str) -> u64 {
        let functions = self.0.functions.read().unwrap_or_else(PoisonError::into_inner);
        functions.get(function).map_or(0, |counts| counts.requests.load(Ordering::Relaxed))
    }

    /// Requests that a function failed.
    pub fn errors_of(&self, function: &str) -> u64 {
        let functions = self.0.functions.read().unwrap_or_else(PoisonError::into_inner);
        let Some(counts) = functions.get(function) else { return 0 };
        counts.errors.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// Requests to a function that the node refused or failed.
    pub fn refusals_of(&self, function: &str) -> u64 {
        let functions = self.0.functions.read().unwrap_or_else(PoisonError::into_inner);
        let Some(counts) = functions.get(function) else { return 0 };
        counts.refusals.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// A function was removed: its counters go, also where nobody scrapes.
    pub fn forget(&self, function: &str) {
        self.0.functions.write().unwrap_or_else(PoisonError::into_inner).remove(function);
    }

    /// The counters of the functions that are still there; the others' go.
    pub(crate) fn functions(&self, deployed: impl Fn(&str) -> bool) -> BTreeMap<String, Arc<PerFunction>> {
        let mut functions = self.0.functions.write().unwrap_or_else(PoisonError::into_inner);
        functions.retain(|name, _| deployed(name));
        functions.clone()
    }
}

fn add(counts: &Mutex<BTreeMap<&'static str, u64>>, code: &'static str) {
    *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_from_failures_and_the_unknown_makes_no_series() {
        let metrics = Metrics::default();
        for name in ["f", "f", "g"] {
            metrics.invoked(name, &Err(NodeError::Draining.into()));
        }
        metrics.invoked("f", &Err(NodeError::Function(seedtree::proto::Failure::Exited(1)).into()));
        metrics.invoked("none", &Err(NodeError::NoSuchFunction("none".into()).into()));
        assert_eq!(metrics.unknown(), 1);
        assert_eq!((metrics.errors_of("f"), metrics.refusals_of("f"), metrics.errors_of("none")), (1, 2, 0));
        let functions = metrics.functions(|name| name != "g");
        assert_eq!(functions.keys().collect::<Vec<_>>(), ["f"]);
        assert_eq!(*functions["f"].refusals.lock().unwrap(), BTreeMap::from([("Node.Draining", 2)]));
        assert_eq!(*functions["f"].errors.lock().unwrap(), BTreeMap::from([("Runtime.ExitError", 1)]));
        assert_eq!(metrics.functions(|_| true).len(), 1);
        metrics.forget("f");
        assert_eq!(metrics.functions(|_| true).len(), 0);
    }

    #[test]
    fn buckets_rise() {
        assert!(BUCKETS.windows(2).all(|w| w[0] < w[1]));
    }
}
