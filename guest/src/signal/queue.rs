//! Pending signals: a standard signal is queued once, a real-time one as often as it is sent.

use super::{SigInfo, SigQueue, bit};

/// Signals that a fault raises; they are delivered before all others.
const SYNCHRONOUS: u64 = bit(4) | bit(5) | bit(7) | bit(8) | bit(11) | bit(31);
/// First real-time signal.
pub const SIGRTMIN: u32 = 32;

impl SigQueue {
    /// Pending signals as a mask.
    pub fn mask(&self) -> u64 {
        self.queue.iter().fold(0, |m, i| m | bit(i.signo))
    }

    /// Adds a signal. A standard signal that is pending already stays as it is.
    pub fn push(&mut self, info: SigInfo) {
        if info.signo >= SIGRTMIN || self.mask() & bit(info.signo) == 0 {
            self.queue.push_back(info);
        }
    }

    /// Adds a fault's signal in front, in place of one of its kind.
    pub fn push_fault(&mut self, info: SigInfo) {
        self.discard(bit(info.signo));
        self.queue.push_front(info);
    }

    /// Takes the next signal out of `allowed`: faults first, then the lowest number, then the oldest.
    pub fn take(&mut self, allowed: u64) -> Option<SigInfo> {
        let ready = self.mask() & allowed;
        let ready = if ready & SYNCHRONOUS != 0 { ready & SYNCHRONOUS } else { ready };
        if ready == 0 {
            return None;
        }
        let signo = ready.trailing_zeros() + 1;
        let at = self.queue.iter().position(|i| i.signo == signo)?;
        self.queue.remove(at)
    }

    /// Drops all signals of a mask.
    pub fn discard(&mut self, mask: u64) {
        self.queue.retain(|i| bit(i.signo) & mask == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(signo: u32, tag: u64) -> SigInfo {
        SigInfo { signo, fields: [tag, 0, 0, 0], ..SigInfo::default() }
    }

    #[test]
    fn a_standard_signal_is_queued_once_and_a_real_time_one_in_order() {
        let mut q = SigQueue::default();
        for (s, t) in [(10, 1), (10, 2), (40, 3), (40, 4), (34, 5)] {
            q.push(info(s, t));
        }
        let mut order = Vec::new();
        while let Some(i) = q.take(u64::MAX) {
            order.push((i.signo, i.fields[0]));
        }
        assert_eq!(order, [(10, 1), (34, 5), (40, 3), (40, 4)]);
    }

    #[test]
    fn a_fault_goes_before_a_lower_number_and_masked_ones_stay() {
        let mut q = SigQueue::default();
        q.push(info(1, 0));
        q.push_fault(info(11, 0));
        assert_eq!(q.take(u64::MAX).unwrap().signo, 11);
        assert_eq!(q.take(!bit(1)), None);
        assert_eq!(q.mask(), bit(1));
    }
}
