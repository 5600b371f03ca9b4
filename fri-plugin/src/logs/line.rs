//! A line, and the last lines of a function in memory.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Longest line, bytes. A longer one becomes several.
pub const LONGEST: usize = 8 << 10;
/// What a line costs beside its texts, bytes: so that empty lines are not free.
const OVERHEAD: usize = 160;
/// Bytes that a function may print in a second, in the long run.
const RATE: f64 = (1 << 20) as f64;
/// Bytes that it may print at once.
const BURST: f64 = (8 << 20) as f64;

/// Where a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// The function's stdout and stderr, in the order in which it wrote.
    Output,
    /// The node.
    Platform,
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When it was printed, ns since 1970.
    pub time_ns: u64,
    /// By which function.
    pub function: String,
    /// For which request.
    #[serde(default)]
    pub request: String,
    /// In which instance, where that is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// Where it comes from.
    pub stream: Stream,
    /// Without its line end. What was no UTF-8 is U+FFFD.
    pub text: String,
}

impl Line {
    fn cost(&self) -> usize {
        OVERHEAD + self.function.len() + self.request.len() + self.instance.len() + self.text.len()
    }
}

/// The last lines of a function, and the rate at which it may add to them.
#[derive(Debug)]
pub struct Ring {
    lines: VecDeque<Arc<Line>>,
    bytes: usize,
    most: usize,
    allowance: f64,
    since: Instant,
}

impl Ring {
    /// Takes that many bytes of lines, and always one line.
    pub fn new(most: usize) -> Ring {
        Ring { lines: VecDeque::new(), bytes: 0, most, allowance: BURST, since: Instant::now() }
    }

    /// Adds a line; false where the function prints too fast, and this line is dropped.
    pub fn push(&mut self, line: &Arc<Line>) -> bool {
        self.push_at(line, Instant::now())
    }

    #[allow(clippy::cast_precision_loss)] // bytes of a line
    fn push_at(&mut self, line: &Arc<Line>, now: Instant) -> bool {
        let cost = line.cost();
        let earned = now.saturating_duration_since(self.since).as_secs_f64() * RATE;
        self.allowance = (self.allowance + earned).min(BURST);
        self.since = now;
        if self.allowance < cost as f64 {
            return false;
        }
        self.allowance -= cost as f64;
        self.lines.push_back(line.clone());
        self.bytes += cost;
        while self.bytes > self.most && self.lines.len() > 1 {
            self.bytes -= self.lines.pop_front().map_or(0, |l| l.cost());
        }
        true
    }

    /// The last ones, the oldest first.
    pub fn last(&self, lines: usize) -> Vec<Arc<Line>> {
        self.lines.iter().skip(self.lines.len().saturating_sub(lines)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn line(text: &str) -> Arc<Line> {
        let (function, request) = ("f".into(), "r".into());
        Arc::new(Line {
            time_ns: 1,
            function,
            request,
            instance: String::new(),
            stream: Stream::Output,
            text: text.into(),
        })
    }

    #[test]
    fn who_prints_too_fast_is_held_to_the_rate() {
        let mut ring = Ring::new(1 << 20);
        let begin = Instant::now();
        let long = line(&"x".repeat(LONGEST));
        let at_once = (0..4000).filter(|_| ring.push_at(&long, begin)).count();
        assert_eq!(at_once, (8 << 20) / long.cost());
        let later = begin + Duration::from_secs(1);
        let in_a_second = (0..4000).filter(|_| ring.push_at(&long, later)).count();
        assert!(in_a_second.abs_diff((1 << 20) / long.cost()) <= 1, "{in_a_second}");
        let empty = line("");
        let much_later = begin + Duration::from_secs(1000);
        assert!(
            (0..1_000_000).filter(|_| ring.push_at(&empty, much_later)).count() < 60_000,
            "empty lines are not free"
        );
    }

    proptest! {
        #[test]
        fn a_ring_keeps_the_last_lines_within_its_bytes(lengths in prop::collection::vec(0usize..400, 1..60)) {
            let mut ring = Ring::new(2000);
            for (n, length) in lengths.iter().enumerate() {
                ring.push(&line(&format!("{n:0length$}")));
                let kept = ring.last(usize::MAX);
                let cost: usize = kept.iter().map(|l| l.cost()).sum();
                prop_assert!(cost <= 2000 || kept.len() == 1);
                prop_assert_eq!(cost, ring.bytes);
                let numbers: Vec<usize> = kept.iter().map(|l| l.text.parse().unwrap()).collect();
                let expected: Vec<usize> = (n + 1 - kept.len()..=n).collect();
                prop_assert_eq!(numbers, expected);
            }
        }
    }
}
