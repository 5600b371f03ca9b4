//! Replays a trace in virtual time through the code that decides in a node.

use super::trace::Request;
use super::{Candidate, Policy, Rate, Rates, victims, welcome};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};

/// What the replayed node is like.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Memory for function seeds, bytes.
    pub budget: u64,
    /// Half-life of the rates, seconds.
    pub half_life: f64,
    /// Time to start an instance with the function's seed, ns.
    pub with_seed: u64,
    /// Time to start one from the language seed, ns; growing the function's seed takes as long.
    pub without_seed: u64,
    /// How often seeds are looked over when nothing else gives cause, ns.
    pub period: u64,
}

/// What a replay came to.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct Outcome {
    /// The policy's name.
    pub policy: &'static str,
    /// Requests.
    pub requests: u64,
    /// Of these, started without the function's seed.
    pub cold: u64,
    /// Functions that were asked for.
    pub functions: usize,
    /// Of these, functions with more than three quarters of their starts cold.
    pub mostly_cold: usize,
    /// Mean start, ms.
    pub mean_start_ms: f64,
    /// Seeds grown.
    pub grown: u64,
    /// Seeds dropped.
    pub dropped: u64,
    /// Most memory that seeds held, bytes.
    pub peak_bytes: u64,
    /// Mean over time of what they held, bytes.
    pub mean_bytes: f64,
}

#[derive(Debug)]
struct Function {
    rate: Rate,
    last: u64,
    memory: u64,
    requests: u64,
    cold: u64,
    growing: bool,
    grown: Option<u64>,
}

#[derive(Debug)]
struct World<'a> {
    node: &'a Node,
    policy: &'a dyn Policy,
    rates: Rates,
    functions: Vec<Function>,
    /// Seeds that are growing: when each will be there. They grow one after another.
    growth: VecDeque<(u64, usize)>,
    held: u64,
    looked: u64,
    since: u64,
    out: Outcome,
}

/// Replays a trace, which is in the order of its times.
#[allow(clippy::cast_precision_loss)] // means
pub fn replay(trace: &[Request], node: &Node, policy: &dyn Policy) -> Outcome {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut world = World {
        node,
        policy,
        rates: Rates::new(node.half_life),
        functions: Vec::new(),
        growth: VecDeque::new(),
        held: 0,
        looked: 0,
        since: 0,
        out: Outcome {
            policy: policy.name(),
            requests: 0,
            cold: 0,
            functions: 0,
            mostly_cold: 0,
            mean_start_ms: 0.0,
            grown: 0,
            dropped: 0,
            peak_bytes: 0,
            mean_bytes: 0.0,
        },
    };
    let mut starts = 0u64;
    for request in trace {
        let next = names.len();
        let index = *names.entry(&request.function).or_insert(next);
        if index == next {
            let rate = world.rates.none();
            let (memory, last) = (request.memory, request.at);
            world.functions.push(Function {
                rate,
                last,
                memory,
                requests: 0,
                cold: 0,
                growing: false,
                grown: None,
            });
        }
        world.until(request.at);
        starts = starts.saturating_add(world.request(index, request.at));
    }
    let end = trace.last().map_or(0, |r| r.at);
    world.account(end);
    let mut out = world.out;
    out.functions = world.functions.len();
    out.mostly_cold = world.functions.iter().filter(|f| f.cold * 4 > f.requests * 3).count();
    out.mean_start_ms = starts as f64 / 1e6 / (out.requests.max(1)) as f64;
    out.mean_bytes /= end.max(1) as f64;
    out
}

impl World<'_> {
    #[allow(clippy::cast_precision_loss)] // a mean
    fn account(&mut self, now: u64) {
        self.out.mean_bytes += self.held as f64 * now.saturating_sub(self.since) as f64;
        self.since = now;
    }

    /// What happens up to a time: seeds that are ready, and the rounds in between.
    fn until(&mut self, now: u64) {
        loop {
            let round = self.looked.saturating_add(self.node.period);
            match self.growth.front().copied() {
                Some((at, index)) if at <= now && at <= round => {
                    self.growth.pop_front();
                    self.ready(index, at);
                }
                _ if round <= now => self.look(round),
                _ => return,
            }
        }
    }

    fn ready(&mut self, index: usize, now: u64) {
        self.account(now);
        let Some(memory) = self.functions.get(index).map(|f| f.memory) else { return };
        // Room is made before, so that the budget holds at every moment.
        if self.held.saturating_add(memory) > self.node.budget {
            self.drop_victims(now, self.node.budget.saturating_sub(memory));
        }
        if let Some(f) = self.functions.get_mut(index) {
            (f.growing, f.grown) = (false, Some(now));
            self.held += memory;
            self.out.grown += 1;
        }
        if self.held > self.node.budget {
            self.drop_victims(now, self.node.budget);
        }
        self.out.peak_bytes = self.out.peak_bytes.max(self.held);
    }

    /// A function's seed as the policy sees it, also one that is not there.
    fn candidate(&self, f: &Function, now: u64) -> Candidate {
        Candidate {
            bytes: f.memory,
            saved: self.node.without_seed.saturating_sub(self.node.with_seed),
            rate: self.rates.per_second(f.rate, now),
            idle: now.saturating_sub(f.last),
            age: f.grown.map_or(0, |grown| now.saturating_sub(grown)),
        }
    }

    fn candidates(&self, now: u64, which: impl Fn(&Function) -> bool) -> BTreeMap<usize, Candidate> {
        let functions = self.functions.iter().enumerate().filter(|(_, f)| which(f));
        functions.map(|(index, f)| (index, self.candidate(f, now))).collect()
    }

    fn look(&mut self, now: u64) {
        self.looked = now;
        self.drop_victims(now, self.node.budget);
    }

    fn drop_victims(&mut self, now: u64, budget: u64) {
        self.account(now);
        let seeds = self.candidates(now, |f| f.grown.is_some());
        for index in victims(self.policy, &seeds, budget) {
            if let Some(f) = self.functions.get_mut(index) {
                f.grown = None;
                self.held = self.held.saturating_sub(f.memory);
                self.out.dropped += 1;
            }
        }
    }

    /// Serves a request; its start, ns.
    fn request(&mut self, index: usize, now: u64) -> u64 {
        let Some(f) = self.functions.get_mut(index) else { return 0 };
        self.rates.count(&mut f.rate, now);
        (f.last, f.requests) = (now, f.requests + 1);
        self.out.requests += 1;
        if f.grown.is_some() {
            return self.node.with_seed;
        }
        f.cold += 1;
        self.out.cold += 1;
        if !f.growing && self.wants(index, now) {
            let begin = self.growth.back().map_or(now, |(at, _)| (*at).max(now));
            self.growth.push_back((begin.saturating_add(self.node.without_seed), index));
            if let Some(f) = self.functions.get_mut(index) {
                f.growing = true;
            }
        }
        self.node.without_seed
    }

    fn wants(&self, index: usize, now: u64) -> bool {
        let Some(new) = self.functions.get(index).map(|f| self.candidate(f, now)) else { return false };
        // What is being grown has its place already.
        let others = self.candidates(now, |f| f.grown.is_some() || f.growing);
        welcome(self.policy, &others, &new, self.node.budget)
    }
}

#[cfg(test)]
mod tests {
    use super::super::policies::{Benefit, KeepAlive, LeastRecentlyUsed};
    use super::super::trace::{Shape, synthetic};
    use super::*;

    const MIB: u64 = 1 << 20;
    const SECOND: u64 = 1_000_000_000;

    fn node(budget: u64) -> Node {
        Node {
            budget,
            half_life: 600.0,
            with_seed: 5_000_000,
            without_seed: 250_000_000,
            period: 60 * SECOND,
        }
    }

    fn request(seconds: u64, function: &str, mib: u64) -> Request {
        Request { at: seconds * SECOND, function: function.into(), duration: 1, memory: mib * MIB }
    }

    #[test]
    fn a_seed_is_there_after_the_first_request_and_goes_when_it_is_idle() {
        let trace = [request(0, "a", 10), request(1, "a", 10), request(700, "a", 10), request(701, "a", 10)];
        let ten_minutes = KeepAlive { idle: 600 * SECOND };
        let out = replay(&trace, &node(u64::MAX), &ten_minutes);
        assert_eq!((out.requests, out.cold, out.grown, out.dropped), (4, 2, 2, 1));
        assert_eq!(out.peak_bytes, 10 * MIB);
        let kept = replay(&trace, &node(u64::MAX), &Benefit);
        assert_eq!((kept.cold, kept.grown, kept.dropped), (1, 1, 0));
    }

    #[test]
    fn the_budget_holds_whatever_the_policy() {
        let trace = synthetic(&Shape { functions: 60, seconds: 7_200.0, seed: 3 });
        let budget = 400 * MIB;
        for policy in [&Benefit as &dyn Policy, &LeastRecentlyUsed, &KeepAlive { idle: 600 * SECOND }] {
            let out = replay(&trace, &node(budget), policy);
            assert!(out.peak_bytes <= budget, "{out:?}");
            assert!(out.dropped > 0 && out.grown >= out.dropped, "{out:?}");
            assert_eq!(out.requests, trace.len() as u64);
        }
    }

    /// Without hysteresis.
    #[derive(Debug)]
    struct Fickle;

    impl Policy for Fickle {
        fn name(&self) -> &'static str {
            "fickle"
        }

        fn worth(&self, seed: &Candidate) -> f64 {
            Benefit.worth(seed)
        }

        fn displaces(&self, _: &Candidate, _: &Candidate) -> bool {
            true
        }
    }

    #[test]
    fn seeds_of_the_same_worth_do_not_drive_out_one_another() {
        let names = ["a", "b", "c"];
        let trace: Vec<Request> = (0..3_000).map(|n| request(n, names[n as usize % 3], 10)).collect();
        let out = replay(&trace, &node(20 * MIB), &Benefit);
        assert!(out.grown <= 6, "{out:?}");
        let fickle = replay(&trace, &node(20 * MIB), &Fickle);
        assert!(fickle.grown > 900, "{fickle:?}");
        assert!(out.mean_start_ms < fickle.mean_start_ms, "{out:?} {fickle:?}");
    }

    #[test]
    fn a_tight_budget_does_not_thrash() {
        let trace = synthetic(&Shape { functions: 60, seconds: 7_200.0, seed: 3 });
        let (steady, fickle) =
            (replay(&trace, &node(200 * MIB), &Benefit), replay(&trace, &node(200 * MIB), &Fickle));
        assert!(steady.grown * 2 < fickle.grown, "{steady:?} {fickle:?}");
        assert!(steady.mean_start_ms <= 1.05 * fickle.mean_start_ms, "{steady:?} {fickle:?}");
    }

    #[test]
    fn a_made_up_trace_has_the_skew_of_production() {
        let trace = synthetic(&Shape { functions: 200, seconds: 86_400.0, seed: 1 });
        let mut count: BTreeMap<&str, usize> = BTreeMap::new();
        for request in &trace {
            *count.entry(&request.function).or_default() += 1;
        }
        let mut counts: Vec<usize> = count.values().copied().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let few: usize = counts.iter().take(10).sum();
        assert!(few * 100 >= trace.len() * 94, "{few} of {}", trace.len());
        let out = replay(&trace, &node(u64::MAX), &KeepAlive { idle: 600 * SECOND });
        assert!(out.mostly_cold * 100 >= out.functions * 45, "{} of {}", out.mostly_cold, out.functions);
    }

    #[test]
    fn benefit_per_byte_starts_faster_than_recency_where_memory_is_short() {
        let trace = synthetic(&Shape { functions: 120, seconds: 14_400.0, seed: 5 });
        let mean = |policy: &dyn Policy| replay(&trace, &node(500 * MIB), policy).mean_start_ms;
        let (benefit, recency) = (mean(&Benefit), mean(&LeastRecentlyUsed));
        assert!(benefit < recency, "{benefit} {recency}");
    }
}
