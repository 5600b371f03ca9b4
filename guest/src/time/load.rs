//! The load average (proc(5), loadavg): how many tasks wanted a processor, looked at every five seconds and averaged over 1, 5 and 15
//! minutes with exponential decay, in fixed point as Linux keeps it.

use crate::kernel::Kernel;
use crate::platform::Ns;
use crate::task::TaskState;
use serde::{Deserialize, Serialize};

/// Between two looks.
const INTERVAL: Ns = 5_000_000_000;
/// 1.0.
pub const ONE: u64 = 1 << 11;
/// What is left of an average after one interval: e to the power of -5 s through 1, 5 and 15 minutes, times [`ONE`].
const DECAY: [u64; 3] = [1884, 2014, 2037];
/// After so many intervals nothing is left of any average.
const FORGOTTEN: u64 = 5000;

/// The averages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// The last look, `CLOCK_MONOTONIC` in ns; 0 before the first.
    at: Ns,
    /// Over 1, 5 and 15 minutes, times 2048.
    pub averages: [u64; 3],
}

impl Load {
    /// Begins anew, as after a pause that the guest does not know of.
    pub fn restart(&mut self, now: Ns) {
        self.at = now;
    }

    /// Whether it is time for a look.
    pub fn is_due(&self, now: Ns) -> bool {
        self.at == 0 || now.saturating_sub(self.at) >= INTERVAL
    }

    /// Takes a look. Intervals that nobody looked at were idle: a vCPU that runs looks in every one.
    pub fn look(&mut self, now: Ns, active: u64) {
        if self.at == 0 {
            self.at = now;
            return;
        }
        let passed = now.saturating_sub(self.at) / INTERVAL;
        self.at = self.at.saturating_add(passed.saturating_mul(INTERVAL));
        let passed = passed.min(FORGOTTEN);
        for n in 1..=passed {
            let active = if n == passed { active.saturating_mul(ONE) } else { 0 };
            for (average, keep) in self.averages.iter_mut().zip(DECAY) {
                let up = u64::from(active >= *average) * (ONE - 1);
                *average = (*average * keep + active.min(1 << 40) * (ONE - keep) + up) / ONE;
            }
        }
    }
}

impl Kernel {
    /// Looks at the load if it is time to.
    pub(crate) fn look_at_load(&mut self, now: Ns) {
        if self.time.load.is_due(now) {
            let active = self.running_tasks();
            self.time.load.look(now, active);
        }
    }

    /// Tasks that run or wait for a processor.
    pub fn running_tasks(&self) -> u64 {
        let runs = |s: &TaskState| matches!(s, TaskState::Runnable | TaskState::Running(_));
        crate::num::u64_of(self.tasks.values().filter(|t| runs(&t.state)).count())
    }

    /// The averages as proc shows them.
    pub(crate) fn load_text(&self) -> String {
        // Half a hundredth more, so that it is rounded.
        let show = |x: u64| {
            let x = x + ONE / 200;
            format!("{}.{:02}", x / ONE, x % ONE * 100 / ONE)
        };
        self.time.load.averages.map(show).join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_nears_the_load_and_fades_when_idle() {
        let mut load = Load::default();
        load.look(1, 9);
        for n in 1..=60 {
            load.look(1 + n * INTERVAL, 2);
        }
        let [one, five, fifteen] = load.averages;
        assert!(one > 2 * ONE * 95 / 100 && one <= 2 * ONE, "{one}");
        assert!(one > five && five > fifteen && fifteen > 0);
        // An hour without anybody looking.
        load.look(1 + 60 * INTERVAL + 3_600_000_000_000, 0);
        assert!(load.averages[0] == 0 && load.averages[2] < ONE / 10, "{:?}", load.averages);
        load.look(u64::MAX, 1 << 60);
    }
}
