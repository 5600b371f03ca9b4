//! The memory budget between two looks: what is known without measuring again.

use super::error::NodeError;
use super::version::Version;
use super::{Node, lock};
use crate::reclaim::{Candidate, welcome};
use crate::runtime::Runtime;
use crate::sandbox::now;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What the last look came to, and what was done about it so far.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// What stays in any case, bytes; `None` before the first look.
    fixed: Mutex<Option<u64>>,
    /// One look at a time.
    pub(super) looking: tokio::sync::Mutex<()>,
    pub(super) reclaimed: AtomicU64,
    regrown: [AtomicU64; 3],
}

impl Budget {
    /// Notes what stays in any case, bytes.
    pub(super) fn looked(&self, fixed: u64) {
        *lock(&self.fixed) = Some(fixed);
    }

    /// A seed was grown where there had been one.
    pub(super) fn grown_again(&self, level: u8) {
        if let Some(count) = self.regrown.get(usize::from(level)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Node {
    /// Functions' seeds that were given up for their memory so far.
    pub fn reclaimed(&self) -> u64 {
        self.0.budget.reclaimed.load(Ordering::Relaxed)
    }

    /// Seeds of each level that were grown again so far: the one before had died, or had been given up.
    pub fn regrown(&self) -> [u64; 3] {
        self.0.budget.regrown.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// What a version's seed, with what is forked ahead from it, will hold, bytes: what it held last, or as much as those of its runtime do.
    fn expected(&self, version: &Version) -> u64 {
        version.worth.bytes().unwrap_or_else(|| self.typical(version.spec.runtime))
    }

    fn typical(&self, runtime: Runtime) -> u64 {
        let functions = self.functions();
        let of_runtime = functions.iter().filter(|v| v.spec.runtime == runtime);
        let known: Vec<u64> = of_runtime.filter_map(|v| v.worth.bytes()).collect();
        let count = u64::try_from(known.len()).unwrap_or(u64::MAX);
        let mean = known.iter().fold(0u64, |sum, n| sum.saturating_add(*n)).checked_div(count);
        mean.or_else(|| self.language_seed(runtime).map(|seed| seed.own)).unwrap_or(0)
    }

    /// Whether a function that was asked for and has no seed is to get one.
    pub(super) fn wants_seed(&self, version: &Arc<Version>) -> bool {
        let (policy, now) = (&self.0.config.policy, now());
        let new = self.candidate(version, self.expected(version), now);
        let (Some(budget), Some(fixed)) = (self.0.config.budget, *lock(&self.0.budget.fixed)) else {
            return policy.wants(new.rate);
        };
        // What is being grown has its place already.
        let takes = |v: &Arc<Version>| v.seed().is_some() || v.is_growing();
        let others = self.functions().into_iter().filter(|v| v.number != version.number && takes(v));
        let others: BTreeMap<u64, Candidate> =
            others.map(|v| (v.number, self.candidate(&v, self.expected(&v), now))).collect();
        welcome(&**policy, &others, &new, budget.saturating_sub(fixed))
    }

    /// Whether its seed fits the budget, beside all that are there.
    pub fn has_room(&self, version: &Version) -> bool {
        let (Some(budget), Some(held)) = (self.0.config.budget, self.held()) else { return true };
        held.saturating_add(self.expected(version)) <= budget
    }

    /// Before a seed is grown: makes room for it. One that is known not to fit is not grown.
    pub(super) async fn make_room(&self, version: &Version) -> Result<(), NodeError> {
        let bytes = self.expected(version);
        self.keep_free(bytes).await;
        self.fits(version, version.worth.bytes().unwrap_or(0))
    }

    /// When a seed of so many bytes was grown, and is not yet its version's: makes room for it, if it fits at all.
    pub(super) async fn admit(&self, version: &Version, bytes: u64) -> Result<(), NodeError> {
        self.keep_free(bytes).await;
        self.fits(version, bytes)
    }

    /// A seed of so many bytes fits the budget, were it the only function's.
    fn fits(&self, version: &Version, bytes: u64) -> Result<(), NodeError> {
        let Some(budget) = self.0.config.budget else { return Ok(()) };
        let left = budget.saturating_sub(lock(&self.0.budget.fixed).unwrap_or(0));
        if bytes <= left {
            return Ok(());
        }
        Err(NodeError::OverBudget { function: version.spec.name.clone(), bytes, left })
    }

    /// What all sandboxes hold by what is known, bytes; `None` before the first look.
    fn held(&self) -> Option<u64> {
        let fixed = (*lock(&self.0.budget.fixed))?;
        let seeds = self.functions().into_iter().filter(|v| v.seed().is_some());
        Some(seeds.fold(fixed, |sum, v| sum.saturating_add(self.expected(&v))))
    }

    /// Keeps so many bytes of the budget free. Memory is measured only where they may not be.
    async fn keep_free(&self, bytes: u64) {
        let Some(budget) = self.0.config.budget else { return };
        if self.held().is_none_or(|held| held.saturating_add(bytes) > budget) {
            self.reclaim_for(budget, bytes).await;
        }
    }
}
