//! What Prometheus is told: the counters of [`crate::metrics`], and what the tree says of itself at that moment.
//!
//! Memory takes milliseconds per seed to read. It is read in the background, when somebody asks, for a twentieth of the time at most
//! ([`SHARE`]), and what was read last is told.

use crate::daemon::Daemon;
use crate::metrics::{Metrics, PHASES, PerFunction, SOURCES};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use seedtree::memory::Usage;
use seedtree::node::State;
use seedtree::node::memory::{NodeMemory, SeedMemory};
use std::collections::BTreeMap;
use std::fmt::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Least age of the memory that is told before it is read again.
const FRESH: Duration = Duration::from_secs(1);
/// Time between two readings, in durations of one reading.
const SHARE: u32 = 20;

/// Memory as it was read last.
#[derive(Debug, Default)]
pub struct MemoryCache {
    /// When the next reading is due, and what was read last.
    read: Mutex<(Option<Instant>, Arc<NodeMemory>)>,
    reading: AtomicBool,
}

/// Of this process.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    descriptors: u64,
    resident: u64,
}

impl Metrics {
    /// The text that Prometheus takes.
    pub async fn scrape(&self, daemon: &Daemon) -> String {
        self.refresh_memory(daemon);
        let scrape = Scrape { metrics: self.clone(), daemon: daemon.clone() };
        // The files of the process take a moment too where it has many descriptors.
        let text = tokio::task::spawn_blocking(move || {
            let mut registry = Registry::with_prefix("coppice");
            registry.register_collector(Box::new(scrape));
            let mut text = String::new();
            encode(&mut text, &registry).map(|()| text)
        });
        match text.await {
            Ok(Ok(text)) => text,
            _ => "# EOF\n".to_owned(),
        }
    }

    /// Proportional set size of a function's seeds and instances, bytes, as it was read last; 0 before that.
    pub(crate) fn pss_of(&self, function: &str) -> u64 {
        let memory = self.memory().read.lock().unwrap_or_else(PoisonError::into_inner).1.clone();
        let seeds =
            memory.seeds.iter().filter(|s| s.level == 2 && s.name == function).map(|s| s.usage.pss_kib);
        let instances = memory.instances.get(function).map_or(0, |u| u.pss_kib);
        1024 * (seeds.sum::<u64>() + instances)
    }

    /// Begins to read the memory of the seeds, where that is due.
    pub(crate) fn refresh_memory(&self, daemon: &Daemon) {
        let cache = self.memory();
        let due = cache.read.lock().unwrap_or_else(PoisonError::into_inner).0;
        if due.is_some_and(|due| Instant::now() < due) || cache.reading.swap(true, Ordering::AcqRel) {
            return;
        }
        let (metrics, daemon) = (self.clone(), daemon.clone());
        tokio::spawn(async move {
            let began = Instant::now();
            let read = Arc::new(daemon.node().memory().await);
            let due = Instant::now() + FRESH.max(began.elapsed() * SHARE);
            let cache = metrics.memory();
            *cache.read.lock().unwrap_or_else(PoisonError::into_inner) = (Some(due), read);
            cache.reading.store(false, Ordering::Release);
        });
    }
}

fn own() -> Own {
    let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    Own { descriptors, resident: pages * rustix::param::page_size() as u64 }
}

#[derive(Debug)]
struct Scrape {
    metrics: Metrics,
    daemon: Daemon,
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

/// One metric: its descriptor, then each of its series.
fn family<'a, V>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, kind): (&str, &str, MetricType),
    series: impl Iterator<Item = (Labels<'a>, V)>,
    mut put: impl FnMut(&mut MetricEncoder<'_>, V) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in series {
        if labels.is_empty() {
            put(&mut metric, value)?;
        } else {
            put(&mut metric.encode_family(&labels)?, value)?;
        }
    }
    Ok(())
}

fn counter<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl Iterator<Item = (Labels<'a>, u64)>,
) -> Result<(), Error> {
    family(encoder, (name, help, MetricType::Counter), series, |m, v| {
        m.encode_counter::<NoLabelSet, _, f64>(&v, None)
    })
}

fn gauge<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl Iterator<Item = (Labels<'a>, u64)>,
) -> Result<(), Error> {
    family(encoder, (name, help, MetricType::Gauge), series, |m, v| {
        m.encode_gauge(&i64::try_from(v).unwrap_or(i64::MAX))
    })
}

fn one(value: u64) -> std::iter::Once<(Labels<'static>, u64)> {
    std::iter::once((Vec::new(), value))
}

type Field = fn(&Usage) -> u64;
/// Of seeds, of a function's instances (idle ones too).
const MEMORY: [(&str, &str, &str, Field); 3] = [
    ("seed_private_bytes", "instances_private_bytes", "Memory that only the process holds", |u| {
        u.private_kib
    }),
    ("seed_shared_bytes", "instances_shared_bytes", "Memory that others hold too", |u| u.shared_kib),
    ("seed_pss_bytes", "instances_pss_bytes", "Proportional set size", |u| u.pss_kib),
];

const LEVELS: [&str; 3] = ["0", "1", "2"];

fn level_name(level: u8) -> &'static str {
    LEVELS.get(usize::from(level)).copied().unwrap_or("")
}

/// Series of seeds. A version that finishes its requests has a seed of the same name as the one that replaced it.
fn summed<'a>(seeds: impl Iterator<Item = (&'a str, u8, u64)>) -> Vec<(Labels<'a>, u64)> {
    let mut sums = BTreeMap::new();
    for (name, level, value) in seeds {
        *sums.entry((level, name)).or_insert(0) += value;
    }
    let labelled = |((level, name), value)| (vec![("seed", name), ("level", level_name(level))], value);
    sums.into_iter().map(labelled).collect()
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let encoder = &mut encoder;
        let versions = self.daemon.node().functions();
        let deployed: BTreeMap<&str, ()> = versions.iter().map(|v| (v.spec.name.as_str(), ())).collect();
        let counts = self.metrics.functions(|name| deployed.contains_key(name));
        functions(encoder, &counts)?;
        let of = |read: &dyn Fn(&seedtree::node::version::Version) -> u64| -> Vec<(Labels<'_>, u64)> {
            versions.iter().map(|v| (vec![("function", v.spec.name.as_str())], read(v))).collect()
        };
        let put =
            |encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, series: Vec<(Labels<'_>, u64)>| {
                gauge(encoder, name, help, series.into_iter())
            };
        put(encoder, "running", "Requests at work", of(&|v| v.running() as u64))?;
        put(encoder, "waiting", "Requests that wait for their turn", of(&|v| v.waiting() as u64))?;
        put(encoder, "spares_wanted", "Spares that the function is to have", of(&|v| v.spec.spares as u64))?;
        put(encoder, "spares_ready", "Spares that are ready", of(&|v| v.spares() as u64))?;
        put(encoder, "spares_making", "Spares that are being made", of(&|v| v.making() as u64))?;
        put(encoder, "kept", "Instances that are kept and idle", of(&|v| v.kept() as u64))?;
        self.seeds(encoder)?;
        self.node(encoder)
    }
}

fn functions(
    encoder: &mut DescriptorEncoder<'_>,
    counts: &BTreeMap<String, Arc<PerFunction>>,
) -> Result<(), Error> {
    let mut requests = Vec::new();
    let mut histograms = Vec::new();
    let (mut exits, mut faults) = (Vec::new(), Vec::new());
    for (name, function) in counts {
        for (level, l) in LEVELS.into_iter().zip(&function.levels) {
            let Some(phases) = l.phases.get() else { continue };
            for (source, n) in SOURCES.into_iter().zip(&l.sources) {
                let labels = vec![("function", name.as_str()), ("level", level), ("source", source)];
                requests.push((labels, n.load(Ordering::Relaxed)));
            }
            let labels = || vec![("function", name.as_str()), ("level", level)];
            exits.push((labels(), l.exits.load(Ordering::Relaxed)));
            faults.push((labels(), l.faults.load(Ordering::Relaxed)));
            for (phase, histogram) in PHASES.into_iter().zip(phases) {
                let labels = vec![("function", name.as_str()), ("level", level), ("phase", phase)];
                histograms.push((labels, histogram));
            }
        }
    }
    let help = "Requests that an instance answered, by the level of its seed and where it came from";
    counter(encoder, "requests", help, requests.into_iter())?;
    counter(encoder, "exits", "Times that guest code was left for the guest OS", exits.into_iter())?;
    counter(encoder, "faults", "Page faults of instances on the host", faults.into_iter())?;
    for (metric, help) in [
        ("errors", "Requests that the function failed, or whose client left (Request.Abandoned)"),
        ("refusals", "Requests that the node refused or failed"),
    ] {
        let mut series = Vec::new();
        for (name, function) in counts {
            let codes = if metric == "errors" { &function.errors } else { &function.refusals };
            for (code, n) in codes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                series.push((vec![("function", name.as_str()), ("code", *code)], *n));
            }
        }
        counter(encoder, metric, help, series.into_iter())?;
    }
    let what = ("phase_seconds", "Durations of the phases of a request", MetricType::Histogram);
    let mut metric = encoder.encode_descriptor(what.0, what.1, None, what.2)?;
    for (labels, histogram) in &histograms {
        histogram.encode(metric.encode_family(labels)?)?;
    }
    Ok(())
}

impl Scrape {
    fn seeds(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let seeds = self.daemon.node().seeds();
        let of = |read: &dyn Fn(&seedtree::node::seed::NodeSeed) -> u64| -> Vec<(Labels<'_>, u64)> {
            summed(seeds.iter().map(|s| (s.name.as_str(), s.level, read(s))))
        };
        let alive = LEVELS.into_iter().enumerate().map(|(level, name)| {
            let n = seeds.iter().filter(|s| usize::from(s.level) == level).count();
            (vec![("level", name)], n as u64)
        });
        gauge(encoder, "seeds", "Living seeds", alive)?;
        let forks = of(&|s| s.forks.load(Ordering::Relaxed));
        gauge(encoder, "seed_forks", "Forks that were asked of the living seed", forks.into_iter())?;
        let failed = of(&|s| s.failed.load(Ordering::Relaxed));
        gauge(encoder, "seed_failed_forks", "Forks that the living seed could not make", failed.into_iter())?;
        let queued = of(&|s| s.queued() as u64);
        gauge(encoder, "fork_queue", "Forks that wait for a seed", queued.into_iter())?;
        let memory = self.metrics.memory().read.lock().unwrap_or_else(PoisonError::into_inner).1.clone();
        // What has gone since it was read is not told any more.
        let lives = |m: &&SeedMemory| seeds.iter().any(|s| s.pid() == m.pid);
        let node = self.daemon.node();
        for (name, of, help, field) in MEMORY {
            let of_seeds = memory.seeds.iter().filter(lives);
            let seeds = summed(of_seeds.map(|m| (m.name.as_str(), m.level, field(&m.usage) << 10)));
            gauge(encoder, name, help, seeds.into_iter())?;
            let of_instances =
                |(function, usage)| (vec![("function", String::as_str(function))], field(usage) << 10);
            let instances = memory.instances.iter().filter(|(function, _)| node.function(function).is_ok());
            gauge(encoder, of, help, instances.map(of_instances))?;
        }
        gauge(encoder, "sandboxes_pss_bytes", "Memory of all sandboxes", one(memory.total.pss_kib << 10))
    }

    fn node(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let node = self.daemon.node();
        counter(encoder, "forks", "Forks of all kinds", one(node.forks()))?;
        let listed = node.instances();
        let states = [
            ("working", State::Working),
            ("spare", State::Spare),
            ("kept", State::Kept),
            ("idle", State::Idle),
        ];
        let series = states.into_iter().map(|(name, state)| {
            (vec![("state", name)], listed.values().filter(|i| i.state == state).count() as u64)
        });
        gauge(encoder, "instances", "Instances, by what they do", series)?;
        gauge(encoder, "functions", "Deployed functions", one(node.functions().len() as u64))?;
        let (deployed, failed) = self.metrics.deploys();
        let deploys = [(vec![("result", "done")], deployed), (vec![("result", "failed")], failed)];
        counter(encoder, "seeds_reclaimed", "Seeds given up for their memory", one(node.reclaimed()))?;
        let regrown = LEVELS.iter().zip(node.regrown()).map(|(level, n)| (vec![("level", *level)], n));
        counter(encoder, "seeds_regrown", "Seeds grown where one had died or been given up", regrown)?;
        counter(encoder, "deploys", "Deploys", deploys.into_iter())?;
        let help = "Requests for functions that are not there";
        counter(encoder, "unknown_requests", help, one(self.metrics.unknown()))?;
        let events = self.metrics.events();
        let by = [
            ("accepted", &events.accepted),
            ("refused", &events.refused),
            ("retried", &events.retried),
            ("done", &events.done),
            ("failed", &events.failed),
            ("dropped", &events.dropped),
        ];
        let series = by.into_iter().map(|(what, n)| (vec![("what", what)], n.get()));
        counter(encoder, "async_events", "Asynchronous events", series)?;
        let waiting = u64::try_from(events.waiting.get()).unwrap_or(0);
        gauge(encoder, "async_waiting", "Asynchronous events that wait or run", one(waiting))?;
        let http = self.metrics.http();
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        let series = [("invoke", &http.invoke), ("fn", &http.call)].into_iter().flat_map(|(api, counts)| {
            classes
                .into_iter()
                .zip(counts)
                .map(move |(class, n)| (vec![("api", api), ("status", class)], n.load(Ordering::Relaxed)))
        });
        counter(encoder, "gateway_answers", "Answers of the HTTP gateway", series)?;
        let own = own();
        gauge(encoder, "daemon_descriptors", "Open descriptors of the daemon", one(own.descriptors))?;
        gauge(encoder, "daemon_resident_bytes", "Resident memory of the daemon", one(own.resident))?;
        gauge(encoder, "uptime_seconds", "Since the daemon's start", one(self.daemon.uptime().as_secs()))
    }
}
