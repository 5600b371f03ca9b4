//! Which function seeds are worth their memory.
//!
//! A seed saves its function's requests time; it costs memory as long as it lives. Under a budget the seeds go first that save least per
//! byte. The decision is a [`Policy`], given nothing but numbers, so that the same code runs in a node and in the simulator ([`simulate`]),
//! and other policies can take its place.

pub mod policies;
pub mod simulate;
pub mod trace;

use std::collections::BTreeMap;

/// What is known of one function's seed when its fate is decided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Memory that dropping the seed gives back, bytes: what only it and its spares hold.
    pub bytes: u64,
    /// Time that a request is served earlier because the seed is there, ns.
    pub saved: u64,
    /// Requests a second, as [`Rates`] has it.
    pub rate: f64,
    /// Since the last request, ns.
    pub idle: u64,
    /// Since the seed was grown, ns.
    pub age: u64,
}

/// Decides which seeds go.
pub trait Policy: Send + Sync + std::fmt::Debug {
    /// Its name, as in a configuration.
    fn name(&self) -> &'static str;

    /// How dear a seed is: under a budget the cheapest go first. Any order will do, but it has to be total (no NaN).
    fn worth(&self, seed: &Candidate) -> f64;

    /// Whether a seed is to go even while there is memory.
    fn expired(&self, seed: &Candidate) -> bool {
        let _ = seed;
        false
    }

    /// Whether a function that was just asked for without a seed is to get one, where there is room.
    fn wants(&self, rate: f64) -> bool {
        let _ = rate;
        true
    }

    /// Whether a seed that is not there is worth dropping one that is: the one that is there has been paid for, and two that are worth
    /// much the same must not drive out one another at every request.
    fn displaces(&self, new: &Candidate, old: &Candidate) -> bool {
        self.worth(new) > self.worth(old)
    }
}

/// Which seeds are to go so that what stays fits `budget`: first the expired ones, then the least worth.
pub fn victims<K: Copy + Ord>(policy: &dyn Policy, seeds: &BTreeMap<K, Candidate>, budget: u64) -> Vec<K> {
    let (mut gone, mut rest): (Vec<_>, Vec<_>) = seeds.iter().partition(|(_, seed)| policy.expired(seed));
    let mut held = bytes(rest.iter().map(|(_, seed)| *seed));
    rest.sort_by(|(a, x), (b, y)| policy.worth(x).total_cmp(&policy.worth(y)).then(a.cmp(b)));
    for (key, seed) in rest {
        if held <= budget {
            break;
        }
        held = held.saturating_sub(seed.bytes);
        gone.push((key, seed));
    }
    gone.into_iter().map(|(key, _)| *key).collect()
}

/// Whether a function is to get a seed that would be such a one: there is room for it beside the others in `budget`, or it displaces each of
/// those that would have to go for it.
pub fn welcome<K: Copy + Ord>(
    policy: &dyn Policy,
    seeds: &BTreeMap<K, Candidate>,
    new: &Candidate,
    budget: u64,
) -> bool {
    let Some(room) = budget.checked_sub(new.bytes) else { return false };
    policy.wants(new.rate)
        && victims(policy, seeds, room)
            .iter()
            .filter_map(|key| seeds.get(key))
            .all(|old| policy.expired(old) || policy.displaces(new, old))
}

fn bytes<'a>(seeds: impl Iterator<Item = &'a Candidate>) -> u64 {
    seeds.fold(0, |sum, seed| sum.saturating_add(seed.bytes))
}

/// A function's rate of requests: each counts 1 and fades by half in every half-life, so that a burst of yesterday does not count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    weight: f64,
    at: u64,
}

/// Rates with a common half-life.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Seconds.
    half_life: f64,
}

const SECOND: f64 = 1e9;

impl Rates {
    /// `half_life` in seconds, more than 0.
    pub fn new(half_life: f64) -> Rates {
        Rates { half_life: half_life.max(1e-3) }
    }

    /// A function that was never asked for.
    pub fn none(&self) -> Rate {
        Rate { weight: 0.0, at: 0 }
    }

    #[allow(clippy::cast_precision_loss)] // nanoseconds to seconds
    fn faded(&self, rate: Rate, now: u64) -> f64 {
        let seconds = now.saturating_sub(rate.at) as f64 / SECOND;
        rate.weight * (-seconds / self.half_life).exp2()
    }

    /// Counts a request at `now`, ns of a clock that does not go back.
    pub fn count(&self, rate: &mut Rate, now: u64) {
        *rate = Rate { weight: self.faded(*rate, now) + 1.0, at: now.max(rate.at) };
    }

    /// Requests a second. A constant stream of r a second comes to r.
    pub fn per_second(&self, rate: Rate, now: u64) -> f64 {
        self.faded(rate, now) * std::f64::consts::LN_2 / self.half_life
    }
}

#[cfg(test)]
mod tests {
    use super::policies::{Benefit, LeastRecentlyUsed};
    use super::*;
    use proptest::prelude::*;

    fn seed(bytes: u64, saved: u64, rate: f64) -> Candidate {
        Candidate { bytes, saved, rate, idle: 0, age: 0 }
    }

    #[test]
    fn a_steady_stream_has_its_rate_and_fades() {
        let rates = Rates::new(60.0);
        let mut rate = rates.none();
        for n in 0..100_000u64 {
            rates.count(&mut rate, n * 100_000_000);
        }
        let now = 100_000 * 100_000_000;
        assert!((rates.per_second(rate, now) - 10.0).abs() < 0.1, "{}", rates.per_second(rate, now));
        let later = now + 60_000_000_000;
        assert!((rates.per_second(rate, later) - 5.0).abs() < 0.1);
    }

    #[test]
    fn the_least_benefit_per_byte_goes_first() {
        let seeds = BTreeMap::from([
            ("busy", seed(100, 1_000, 10.0)),
            ("rare", seed(100, 1_000, 0.1)),
            ("fat", seed(10_000, 1_000, 20.0)),
        ]);
        assert_eq!(victims(&Benefit, &seeds, 20_000), Vec::<&str>::new());
        assert_eq!(victims(&Benefit, &seeds, 10_100), ["rare"]);
        assert_eq!(victims(&Benefit, &seeds, 200), ["rare", "fat"]);
        assert_eq!(victims(&Benefit, &seeds, 0), ["rare", "fat", "busy"]);
    }

    #[test]
    fn a_seed_is_welcome_where_there_is_room_or_it_is_worth_clearly_more() {
        let seeds = BTreeMap::from([("busy", seed(100, 1_000, 10.0)), ("rare", seed(100, 1_000, 1.0))]);
        let new = |bytes, rate| welcome(&Benefit, &seeds, &seed(bytes, 1_000, rate), 250);
        assert!(new(50, 0.1), "there is room");
        assert!(!new(100, 0.9) && !new(100, 1.1), "no better than the one that would go");
        assert!(new(100, 2.0), "better than the one that would go");
        assert!(!new(200, 9.0) && new(200, 40.0), "both would have to go");
        assert!(!new(300, 100.0), "no room even alone");
        let older = BTreeMap::from([(1, Candidate { idle: 5, ..seed(100, 1_000, 1.0) })]);
        assert!(welcome(&LeastRecentlyUsed, &older, &seed(100, 0, 0.0), 100), "it was asked for later");
    }

    proptest! {
        #[test]
        fn what_stays_fits_and_no_more_goes_than_has_to(
            sizes in prop::collection::vec((0u64..1_000, 0u64..1_000, 0.0f64..10.0), 0..40), budget in 0u64..20_000,
        ) {
            let seeds: BTreeMap<usize, Candidate> =
                sizes.iter().map(|(b, s, r)| seed(*b, *s, *r)).enumerate().collect();
            let gone = victims(&Benefit, &seeds, budget);
            let held = |without: &[usize]| -> u64 {
                seeds.iter().filter(|(k, _)| !without.contains(k)).map(|(_, s)| s.bytes).sum()
            };
            prop_assert!(held(&gone) <= budget);
            if let Some((_, but_last)) = gone.split_last() {
                prop_assert!(held(but_last) > budget);
            }
        }
    }
}
