//! Pauses between attempts that fail, and why the last one did.

use super::lock;
use std::sync::Mutex;
use std::time::Duration;

/// What is tried again after ever longer pauses, as long as it fails.
#[derive(Debug)]
pub(crate) struct Setback {
    first: Duration,
    longest: Duration,
    failed: Mutex<Option<Failed>>,
}

#[derive(Debug)]
struct Failed {
    /// In a row.
    times: u32,
    /// The next attempt's time, CLOCK_MONOTONIC, ns.
    until: u64,
    reason: String,
}

impl Setback {
    /// Pauses from `first`, doubled each time, to `longest`.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Setback {
        Setback { first, longest, failed: Mutex::new(None) }
    }

    /// An attempt that began at `began` has failed at `now`, CLOCK_MONOTONIC, ns; the pause until the next one. It is as long as the attempt
    /// at least: what fails slowly takes no more than half of the time.
    pub(crate) fn failed(&self, began: u64, now: u64, reason: String) -> Duration {
        let mut failed = lock(&self.failed);
        let times = failed.as_ref().map_or(0, |f| f.times);
        let doubled = self.first.saturating_mul(2u32.saturating_pow(times));
        let pause = doubled.max(Duration::from_nanos(now.saturating_sub(began))).min(self.longest);
        let until = now.saturating_add(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX));
        *failed = Some(Failed { times: times.saturating_add(1), until, reason });
        pause
    }

    /// The last attempt has succeeded.
    pub(crate) fn over(&self) {
        *lock(&self.failed) = None;
    }

    /// Whether the pause is over at `now`.
    pub(crate) fn may_try(&self, now: u64) -> bool {
        lock(&self.failed).as_ref().is_none_or(|f| now >= f.until)
    }

    /// Why the last attempt failed; `None` where it did not.
    pub(crate) fn reason(&self) -> Option<String> {
        lock(&self.failed).as_ref().map(|f| f.reason.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_are_no_shorter_than_the_attempt() {
        let (first, longest) = (Duration::from_nanos(10), Duration::from_nanos(100));
        let setback = Setback::new(first, longest);
        assert!(setback.may_try(0) && setback.reason().is_none());
        let pause = |began, now| setback.failed(began, now, format!("at {now}")).as_nanos();
        assert_eq!((pause(0, 5), pause(15, 20), pause(40, 45), pause(85, 145)), (10, 20, 40, 80));
        assert_eq!((pause(0, 1_000), pause(0, 5_000)), (100, 100));
        assert!(!setback.may_try(5_099) && setback.may_try(5_100));
        assert_eq!(setback.reason().as_deref(), Some("at 5000"));
        for _ in 0..100 {
            setback.failed(0, 0, String::new());
        }
        setback.over();
        assert!(setback.may_try(0) && setback.reason().is_none());
        assert_eq!(setback.failed(0, 50, String::new()).as_nanos(), 50, "as long as the attempt");
    }
}
