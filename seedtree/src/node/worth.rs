//! What a function's seed is worth, as it is measured: how often it is asked for, and what a request gains by it.

use super::lock;
use crate::reclaim::{Rate, Rates};
use std::sync::Mutex;

/// Weight of a new measurement in a moving average: one in so many.
const MEMORY: u64 = 8;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Worth(Mutex<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    rate: Option<Rate>,
    /// Last request, CLOCK_MONOTONIC, ns.
    last: u64,
    /// Moving averages of the time to an answer with a seed and without, ns.
    with: Option<u64>,
    without: Option<u64>,
    /// What the seed did when it was grown and its instances need not do, ns; `None` before it was grown.
    import: Option<u64>,
    /// What the seed and what was forked ahead from it held last, bytes.
    bytes: Option<u64>,
}

fn average(old: Option<u64>, new: u64) -> Option<u64> {
    Some(old.map_or(new, |old| (old * (MEMORY - 1) + new) / MEMORY))
}

impl Worth {
    /// Counts a request at `now`.
    pub(crate) fn requested(&self, rates: Rates, now: u64) {
        let mut state = lock(&self.0);
        let mut rate = state.rate.unwrap_or(rates.none());
        rates.count(&mut rate, now);
        (state.rate, state.last) = (Some(rate), now);
    }

    /// A request was answered in this time, ns.
    pub(crate) fn answered(&self, with_seed: bool, time: u64) {
        let mut state = lock(&self.0);
        if with_seed {
            state.with = average(state.with, time);
        } else {
            state.without = average(state.without, time);
        }
    }

    /// The seed was grown: its import took this time, ns, and it holds so many bytes.
    pub(crate) fn grown(&self, import: u64, own: u64) {
        let mut state = lock(&self.0);
        // What was measured later has the spares too.
        (state.import, state.bytes) = (Some(import), state.bytes.max(Some(own)));
    }

    /// Notes what the seed and what was forked ahead from it hold, bytes.
    pub(crate) fn holds(&self, bytes: u64) {
        lock(&self.0).bytes = Some(bytes);
    }

    /// What they held last; `None` before it was grown.
    pub(crate) fn bytes(&self) -> Option<u64> {
        lock(&self.0).bytes
    }

    /// Whether there was a seed.
    pub(crate) fn was_grown(&self) -> bool {
        lock(&self.0).import.is_some()
    }

    /// Requests a second.
    pub(crate) fn rate(&self, rates: Rates, now: u64) -> f64 {
        lock(&self.0).rate.map_or(0.0, |rate| rates.per_second(rate, now))
    }

    /// Time since the last request, ns; `None` where there was none.
    pub(crate) fn idle(&self, now: u64) -> Option<u64> {
        let state = lock(&self.0);
        state.rate.map(|_| now.saturating_sub(state.last))
    }

    /// Time that a request is answered earlier because there is a seed, ns. As measured where there were requests of both kinds, otherwise
    /// what the import took, or of a function that never had one what a request takes without.
    pub(crate) fn saved(&self) -> u64 {
        let state = *lock(&self.0);
        match (state.with, state.without) {
            (Some(with), Some(without)) => without.saturating_sub(with),
            _ => state.import.or(state.without).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_import_counts_until_both_kinds_were_measured() {
        let worth = Worth::default();
        assert!(!worth.was_grown());
        worth.answered(false, 900);
        assert_eq!(worth.saved(), 900, "nothing else is known yet");
        let worth = Worth::default();
        worth.grown(500, 70);
        assert!(worth.was_grown());
        worth.holds(90);
        worth.grown(500, 70);
        assert_eq!(worth.bytes(), Some(90));
        worth.answered(true, 100);
        assert_eq!(worth.saved(), 500);
        worth.answered(false, 900);
        assert_eq!(worth.saved(), 800);
        // A single slow request changes it a little.
        worth.answered(true, 900);
        assert_eq!(worth.saved(), 700);
        worth.answered(true, 100_000);
        assert_eq!(worth.saved(), 0, "a seed that does not help saves nothing");
    }

    #[test]
    fn requests_are_counted() {
        let (worth, rates) = (Worth::default(), Rates::new(60.0));
        assert_eq!((worth.idle(5), worth.rate(rates, 5)), (None, 0.0));
        worth.requested(rates, 10);
        assert_eq!(worth.idle(15), Some(5));
        assert!(worth.rate(rates, 15) > 0.0);
    }
}
