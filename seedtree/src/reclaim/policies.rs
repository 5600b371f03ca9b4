//! The policies there are.

use super::{Candidate, Policy};

/// So many times the worth of a seed has to have what takes its place. The function that was asked for last always has a little more.
const MARGIN: f64 = 1.5;

/// Time saved a second, per byte: the rate times what a request gains, over what the seed holds.
#[derive(Clone, Copy, Debug)]
pub struct Benefit;

impl Policy for Benefit {
    fn name(&self) -> &'static str {
        "benefit"
    }

    #[allow(clippy::cast_precision_loss)] // an order is wanted, not the number
    fn worth(&self, seed: &Candidate) -> f64 {
        seed.rate * seed.saved as f64 / seed.bytes.max(1) as f64
    }

    fn displaces(&self, new: &Candidate, old: &Candidate) -> bool {
        self.worth(new) > MARGIN * self.worth(old)
    }
}

/// The seed goes that was asked for longest ago.
#[derive(Clone, Copy, Debug)]
pub struct LeastRecentlyUsed;

impl Policy for LeastRecentlyUsed {
    fn name(&self) -> &'static str {
        "lru"
    }

    #[allow(clippy::cast_precision_loss)] // an order is wanted, not the number
    fn worth(&self, seed: &Candidate) -> f64 {
        -(seed.idle as f64)
    }
}

/// A seed goes when it was not asked for during this time, as keep-alive has it elsewhere; under the budget as [`LeastRecentlyUsed`].
#[derive(Clone, Copy, Debug)]
pub struct KeepAlive {
    /// ns.
    pub idle: u64,
}

impl Policy for KeepAlive {
    fn name(&self) -> &'static str {
        "keep-alive"
    }

    fn worth(&self, seed: &Candidate) -> f64 {
        LeastRecentlyUsed.worth(seed)
    }

    fn expired(&self, seed: &Candidate) -> bool {
        seed.idle > self.idle
    }
}

/// The policy of that name; `idle` (ns) is for `keep-alive`.
pub fn named(name: &str, idle: u64) -> Option<Box<dyn Policy>> {
    Some(match name {
        "benefit" => Box::new(Benefit),
        "lru" => Box::new(LeastRecentlyUsed),
        "keep-alive" => Box::new(KeepAlive { idle }),
        _ => return None,
    })
}

/// Their names.
pub const NAMES: [&str; 3] = ["benefit", "lru", "keep-alive"];
