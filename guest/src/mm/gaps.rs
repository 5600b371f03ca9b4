//! The free ranges of an address space, by size, so that the place for a mapping is found without a walk over all mappings.
//!
//! Owns nothing but starts and ends of free ranges; [`super::vma::Mm`] tells it of every change.

use crate::platform::{LARGE_PAGE, PAGE_SIZE, TASK_SIZE, Va};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Free ranges that are looked at in the class of the wanted size before a larger class is taken.
const PATIENCE: usize = 32;

/// See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Gaps {
    /// End of each free range by its start.
    by_start: BTreeMap<Va, Va>,
    /// The same by size class: class n holds sizes from 2^n pages up to twice that.
    classes: BTreeMap<u32, BTreeMap<Va, Va>>,
}

fn class(len: u64) -> u32 {
    (len / PAGE_SIZE).max(1).ilog2()
}

/// Where `len` bytes fit into `bottom..top`: as high as possible, at a large-page boundary when they are that long.
fn fit(len: u64, bottom: Va, top: Va) -> Option<Va> {
    let at = top.checked_sub(len)?;
    let aligned = if len >= LARGE_PAGE { at & !(LARGE_PAGE - 1) } else { at };
    [aligned, at].into_iter().find(|a| *a >= bottom)
}

impl Gaps {
    /// Everything is free.
    pub fn new() -> Self {
        let mut gaps = Gaps { by_start: BTreeMap::new(), classes: BTreeMap::new() };
        gaps.add(0, TASK_SIZE);
        gaps
    }

    fn add(&mut self, start: Va, end: Va) {
        if start < end {
            self.by_start.insert(start, end);
            self.classes.entry(class(end - start)).or_default().insert(start, end);
        }
    }

    fn take(&mut self, start: Va) -> Option<Va> {
        let end = self.by_start.remove(&start)?;
        if let Some(members) = self.classes.get_mut(&class(end - start)) {
            members.remove(&start);
        }
        Some(end)
    }

    /// A range is mapped now; it was free.
    pub fn fill(&mut self, start: Va, end: Va) {
        let Some(first) = self.by_start.range(..=start).next_back().map(|(s, _)| *s) else { return };
        let Some(last) = self.take(first) else { return };
        self.add(first, start.min(last));
        self.add(end.max(first), last);
    }

    /// A range is free now; it was mapped.
    pub fn clear(&mut self, mut start: Va, mut end: Va) {
        if let Some((s, e)) = self.by_start.range(..start).next_back().map(|(s, e)| (*s, *e))
            && e == start
        {
            self.take(s);
            start = s;
        }
        if let Some(e) = self.take(end) {
            end = e;
        }
        self.add(start, end);
    }

    /// The highest free range of `len` bytes in `low..high`, and how many ranges were looked at. Among many ranges of nearly that size
    /// a somewhat lower, larger one may be chosen.
    pub fn find(&self, len: u64, low: Va, high: Va) -> (Option<Va>, usize) {
        let (mut best, mut steps) = (None, 0);
        let own = class(len);
        let mut fits = |start: Va, end: Va| {
            steps += 1;
            fit(len, start.max(low), end.min(high))
        };
        for (n, members) in self.classes.range(own..) {
            let patience = if *n == own { PATIENCE } else { 3 };
            for (start, end) in members.range(..high).rev().take(patience) {
                if *end <= low || best.is_some_and(|b| *end <= b) {
                    break;
                }
                if let Some(at) = fits(*start, *end) {
                    best = best.max(Some(at));
                    break;
                }
            }
        }
        if best.is_none()
            && let Some(members) = self.classes.get(&own)
        {
            best = members.range(..high).rev().skip(PATIENCE).find_map(|(start, end)| fits(*start, *end));
        }
        (best, steps)
    }
}

impl Default for Gaps {
    fn default() -> Self {
        Gaps::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_and_split() {
        let mut g = Gaps::new();
        g.fill(0x1000, 0x3000);
        g.fill(0x5000, 0x6000);
        assert_eq!(g.find(0x1000, 0, 0x5000).0, Some(0x4000));
        assert_eq!(g.find(0x2000, 0, 0x6000).0, Some(0x3000));
        assert_eq!(g.find(0x3000, 0, 0x6000).0, None);
        g.clear(0x1000, 0x3000);
        assert_eq!(g.find(0x5000, 0, 0x6000).0, Some(0));
        g.clear(0x5000, 0x6000);
        assert_eq!(g.by_start.len(), 1);
        assert_eq!(g.classes.values().map(BTreeMap::len).sum::<usize>(), 1);
    }

    /// A walk over all mappings took as many steps as there were mappings, for each new one.
    #[test]
    fn a_hundred_thousand_mappings_are_placed_in_a_few_steps_each() {
        let mut g = Gaps::new();
        let mut most = 0;
        for n in 0..100_000_u64 {
            let len = PAGE_SIZE * (1 + n % 3);
            let (at, steps) = g.find(len, 0x10000, TASK_SIZE);
            let at = at.unwrap();
            g.fill(at, at + len);
            // Every second leaves a hole of a page or more.
            if n % 2 == 1 {
                g.clear(at, at + PAGE_SIZE);
            }
            most = most.max(steps);
        }
        assert!(most <= PATIENCE + 3 * 48, "{most} steps");
    }
}
