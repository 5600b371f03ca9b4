//! Timers as files (timerfd_create(2)): a count of expiries that a read takes. The queue of pending timers is the kernel's.

use super::{FileKind, OpenFile};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::platform::Ns;
use crate::time::TimerAction;
use crate::timers::Armed;
use serde::{Deserialize, Serialize};

/// One timer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TimerFd {
    /// Its object number for waiters.
    pub object: u64,
    /// CLOCK_ number.
    pub clock: i32,
    /// When it fires.
    pub armed: Armed,
    /// Expiries since the last read.
    pub ticks: u64,
}

impl TimerFd {
    /// What a read returns now. EAGAIN before the first expiry.
    pub fn peek(&self) -> Result<u64, Errno> {
        if self.ticks == 0 { Err(Errno::EAGAIN) } else { Ok(self.ticks) }
    }
}

impl Kernel {
    /// Makes a timer with one reference. `flags` are O_NONBLOCK or 0.
    pub fn timerfd_open(&mut self, clock: i32, flags: u32) -> u64 {
        let object = self.new_object();
        let id = self.objects.timerfds.insert(TimerFd { object, clock, armed: Armed::default(), ticks: 0 });
        self.files.insert(OpenFile { kind: FileKind::TimerFd(id), flags: flags | 2, pos: 0, refs: 1 })
    }

    /// Arms a timer for `at` on `CLOCK_MONOTONIC` (0 disarms) and forgets expiries so far. Returns how it was armed before.
    pub fn timerfd_arm(&mut self, id: u64, at: Ns, interval: Ns, relative: bool) -> Result<Armed, Errno> {
        let t = self.objects.timerfds.get_mut(id).ok_or(Errno::EINVAL)?;
        t.ticks = 0;
        let was = t.armed;
        self.arm_timer(&TimerAction::TimerFd(id), at, interval, relative);
        Ok(was)
    }

    /// A timer fired, and `missed` times more before anybody looked.
    pub fn timerfd_expired(&mut self, id: u64, missed: u64) {
        let Some(t) = self.objects.timerfds.get_mut(id) else { return };
        t.ticks = t.ticks.saturating_add(missed).saturating_add(1);
        let object = t.object;
        self.wake(crate::wait::WaitKey::Object(object));
    }

    /// The last reference to a timer's file is gone.
    pub fn timerfd_close(&mut self, id: u64) {
        self.arm_timer(&TimerAction::TimerFd(id), 0, 0, false);
        self.objects.timerfds.remove(id);
    }
}
