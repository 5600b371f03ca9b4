//! Further seeds of a function that is asked for faster than one seed forks.

use super::Node;
use super::error::NodeError;
use super::instance::Nowhere;
use super::seed::{NodeSeed, UNDER_WAY};
use super::version::Version;
use crate::sandbox::now;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How long every seed of a function must have its hands full before there is another one, ns.
const HOT: u64 = 100_000_000;

/// How busy a version's seeds are.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Since when all of them have their hands full, CLOCK_MONOTONIC, ns; 0 where that is not so.
    hot: AtomicU64,
    /// Most forks that waited or were under way at once, of all seeds together, since this was looked at last.
    peak: AtomicUsize,
    replicating: AtomicBool,
}

impl Load {
    /// Notes what is to be done by the least busy seed and by all together; whether another seed would help.
    fn note(&self, least: usize, all: usize, now: u64) -> bool {
        self.peak.fetch_max(all, Ordering::Relaxed);
        if least < UNDER_WAY {
            self.hot.store(0, Ordering::Relaxed);
            return false;
        }
        let first = self.hot.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        first.is_err_and(|since| now.saturating_sub(since) >= HOT)
    }

    /// Seeds that the forks of the time since the last call would have kept busy.
    fn wanted(&self) -> usize {
        self.peak.swap(0, Ordering::Relaxed).div_ceil(UNDER_WAY)
    }
}

/// The right to grow another seed of a version.
struct Replicating(Arc<Version>);

impl Drop for Replicating {
    fn drop(&mut self) {
        self.0.load.replicating.store(false, Ordering::Release);
    }
}

impl Node {
    /// The seed to fork from; sees to it that there are enough.
    pub(super) fn least_busy(&self, version: &Arc<Version>) -> Option<Arc<NodeSeed>> {
        let seed = version.seed()?;
        let most = self.0.config.replicas;
        if most > 0 {
            let seeds = version.seeds();
            let all = seeds.iter().map(|s| s.pending()).sum();
            if version.load.note(seed.pending(), all, now()) && seeds.len() <= most {
                self.replicate(version, &seed);
            }
        }
        Some(seed)
    }

    /// Forks another seed of the same state from one, off the request path.
    fn replicate(&self, version: &Arc<Version>, seed: &Arc<NodeSeed>) {
        // Before it has its working set, a seed would hand none on.
        let early = self.0.config.prefill && version.spec.keep_alive == 0 && !version.is_trained();
        if early || self.is_draining() || version.load.replicating.swap(true, Ordering::AcqRel) {
            return;
        }
        let alone = Replicating(version.clone());
        let (node, seed) = (self.clone(), seed.clone());
        tokio::spawn(async move {
            let version = &alone.0;
            let first = version.seeds().len() == 1;
            match node.replica(version, &seed).await {
                Ok(replica) => version.add_seed(replica, &seed),
                Err(error) => tracing::debug!(function = version.spec.name, %error, "no further seed"),
            }
            version.load.hot.store(0, Ordering::Relaxed);
            if first {
                let idle = Duration::from_millis(node.0.config.replica_idle_ms.max(1));
                tokio::spawn(shed(Arc::downgrade(version), idle));
            }
        });
    }

    async fn replica(&self, version: &Version, seed: &NodeSeed) -> Result<Arc<NodeSeed>, NodeError> {
        let what = "forking a further seed";
        let mut spec = self.seed_spec(2, &version.spec.name, Vec::new());
        (spec.memory, spec.cpus) = (Some(version.spec.memory), Some(version.spec.cpus));
        let mut grown = self.start(what, seed, spec, Vec::new(), false).await?;
        grown.ready(what, self.0.config.grow_timeout_ms, &mut Nowhere).await?;
        self.seed_of(2, &version.spec.name, grown).await
    }
}

/// Takes further seeds away that are not needed any more.
async fn shed(version: Weak<Version>, idle: Duration) {
    loop {
        tokio::time::sleep(idle).await;
        let Some(version) = version.upgrade() else { return };
        let (wanted, present) = (version.load.wanted(), version.seeds().len());
        let left = if wanted < present { version.drop_seed() } else { present };
        if left <= 1 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_seed_helps_only_where_all_are_busy_for_a_while() {
        let load = Load::default();
        assert!(!load.note(UNDER_WAY, 5, 1_000));
        assert!(!load.note(UNDER_WAY, 9, 1_000 + HOT - 1));
        assert!(load.note(UNDER_WAY, 6, 1_000 + HOT));
        // A pause begins the time anew.
        assert!(!load.note(0, 0, 2 * HOT));
        assert!(!load.note(UNDER_WAY, 5, 3 * HOT));
        assert_eq!(load.wanted(), 9usize.div_ceil(UNDER_WAY));
        assert_eq!(load.wanted(), 0);
    }
}
