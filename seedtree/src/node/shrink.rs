//! Reclaiming memory: functions' seeds that are not worth it go, under the node's policy, and come back when they are asked for.

use super::error::NodeError;
use super::version::Version;
use super::{Node, lock};
use crate::memory::{Usage, usage};
use crate::reclaim::{Candidate, victims};
use crate::runtime::Runtime;
use crate::sandbox::now;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Most time that a look waits for processes on their way out.
const DEPARTING: Duration = Duration::from_millis(200);

/// A function whose seed, spares and kept instances went.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropped {
    /// Its name.
    pub function: String,
    /// Number of its version.
    pub version: u64,
    /// What the policy knew of it.
    pub known: Candidate,
}

/// What was reclaimed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reclaimed {
    /// What all sandboxes held before, bytes (proportional set size).
    pub held: u64,
    /// What went, in this order.
    pub dropped: Vec<Dropped>,
}

impl Version {
    /// Processes of its spares and kept instances.
    fn idle_pids(&self) -> Vec<i32> {
        let (mut spares, mut kept) = (Vec::new(), Vec::new());
        self.each_idle(|i| spares.push(i.pid()), |i| kept.push(i.pid()));
        spares.append(&mut kept);
        spares
    }
}

/// What several processes hold.
fn sum(pids: &[i32]) -> Usage {
    pids.iter().filter_map(|pid| usage(*pid)).fold(Usage::default(), |mut sum, one| {
        sum += one;
        sum
    })
}

impl Node {
    /// Drops functions' seeds, with their spares and kept instances, until all sandboxes together hold no more than `budget`, bytes, or none
    /// of them is left: those first that [`super::NodeConfig::policy`] says. Requests are served from the level above meanwhile, and one
    /// that comes has its function's seed grown again where the policy wants it.
    ///
    /// Memory is measured, which costs as much as [`Node::memory`].
    pub async fn reclaim(&self, budget: u64) -> Reclaimed {
        self.reclaim_for(budget, 0).await
    }

    /// The same, and keeps `bytes` of the budget free for a new seed. Nobody goes for one that would not fit if it were alone.
    pub(super) async fn reclaim_for(&self, budget: u64, bytes: u64) -> Reclaimed {
        let _alone = self.0.budget.looking.lock().await;
        self.0.ground.reaper.departed(DEPARTING).await;
        let functions = self.functions();
        // What a seed alone holds was measured before it had children: afterwards they share its pages, and it has none for itself.
        let own: Vec<u64> = functions.iter().map(|f| f.seeds().iter().map(|s| s.own).sum()).collect();
        let groups: Vec<Vec<i32>> = functions.iter().map(|f| f.idle_pids()).collect();
        let mut others: Vec<i32> = self.seeds().iter().map(|s| s.pid()).collect();
        others.extend(self.instances().values().map(|i| i.pid));
        let idle: BTreeSet<i32> = groups.iter().flatten().copied().collect();
        others.retain(|pid| !idle.contains(pid));
        let read = move || {
            let groups: Vec<Usage> = groups.iter().map(|group| sum(group)).collect();
            (groups, sum(&others))
        };
        let Ok((groups, others)) = tokio::task::spawn_blocking(read).await else {
            return Reclaimed::default();
        };
        let held = 1024 * (groups.iter().map(|g| g.pss_kib).sum::<u64>() + others.pss_kib);
        let now = now();
        let candidates: BTreeMap<usize, Candidate> = functions
            .iter()
            .zip(own.iter().zip(&groups))
            .enumerate()
            .map(|(n, (version, (own, group)))| (n, (version, own + group.private_kib * 1024)))
            .filter(|(_, (version, bytes))| *bytes > 0 || version.seed().is_some())
            .map(|(n, (version, bytes))| (n, self.candidate(version, bytes, now)))
            .collect();
        // What stays in any case: the levels above, instances at work, and pages that functions share with them.
        let freed: u64 = candidates.values().map(|c| c.bytes).sum();
        let fixed = held.saturating_sub(freed);
        self.0.budget.looked(fixed);
        for (n, seed) in &candidates {
            if let Some(version) = functions.get(*n).filter(|v| v.seed().is_some()) {
                version.worth.holds(seed.bytes);
            }
        }
        let left = budget.saturating_sub(fixed);
        let left = left.checked_sub(bytes).unwrap_or(left);
        let gone = victims(&*self.0.config.policy, &candidates, left);
        let dropped = gone.into_iter().filter_map(|n| {
            let (version, known) = (functions.get(n)?, *candidates.get(&n)?);
            version.set_seed(None);
            version.end_idle();
            let function = version.spec.name.clone();
            self.0.budget.reclaimed.fetch_add(1, Ordering::Relaxed);
            tracing::info!(function, bytes = known.bytes, held, budget, "a function's seed was reclaimed");
            Some(Dropped { function, version: version.number, known })
        });
        Reclaimed { held, dropped: dropped.collect() }
    }

    /// Drops a seed: a runtime's, or a function's with its spares and kept instances. Requests are served from the level above until it
    /// is grown again, which the next request begins.
    pub fn drop_seed(&self, name: &str) -> Result<(), NodeError> {
        if name == "os" {
            return Err(NodeError::OsSeed);
        }
        let missing = || NodeError::NoSuchSeed(name.to_owned());
        if let Some(runtime) = Runtime::named(name) {
            let dropped = lock(&self.0.languages).remove(&runtime);
            return dropped.map(drop).ok_or_else(missing);
        }
        let version = self.function(name)?;
        if version.seed().is_none() {
            return Err(missing());
        }
        version.set_seed(None);
        version.end_idle();
        Ok(())
    }

    pub(super) fn candidate(&self, version: &Arc<Version>, bytes: u64, now: u64) -> Candidate {
        let age = version.seeds().iter().map(|s| now.saturating_sub(s.born)).max().unwrap_or(0);
        let worth = &version.worth;
        let (rate, idle) = (worth.rate(self.0.rates, now), worth.idle(now).unwrap_or(age));
        Candidate { bytes, saved: worth.saved(), rate, idle, age }
    }

    /// Requests a second of a function, and what a request gains by its seed, ns.
    pub fn worth(&self, version: &Version) -> (f64, u64) {
        (version.worth.rate(self.0.rates, now()), version.worth.saved())
    }
}
