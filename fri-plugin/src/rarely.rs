//! Lines of the log that somebody else causes: one in a while, with how often it has happened.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines.
const BETWEEN: Duration = Duration::from_secs(5);

/// Counts what happens between two lines.
#[derive(Debug)]
pub struct Rarely(Mutex<State>);

#[derive(Debug)]
struct State {
    told: Option<Instant>,
    happened: u64,
}

impl Rarely {
    /// Nothing has happened yet.
    pub const fn new() -> Rarely {
        Rarely(Mutex::new(State { told: None, happened: 0 }))
    }

    /// It has happened. How often since the last line, where it is time for another one.
    pub fn happened(&self) -> Option<u64> {
        self.happened_at(Instant::now())
    }

    fn happened_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.happened += 1;
        if state.told.is_some_and(|told| now.saturating_duration_since(told) < BETWEEN) {
            return None;
        }
        state.told = Some(now);
        Some(std::mem::take(&mut state.happened))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_told_is_counted_for_the_next_line() {
        let (rarely, start) = (Rarely::new(), Instant::now());
        assert_eq!(rarely.happened_at(start), Some(1));
        for _ in 0..3 {
            assert_eq!(rarely.happened_at(start + BETWEEN / 2), None);
        }
        assert_eq!(rarely.happened_at(start + BETWEEN), Some(4));
        assert_eq!(rarely.happened_at(start + BETWEEN), None);
    }
}
