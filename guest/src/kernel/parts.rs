//! The smaller parts of the kernel's state: identity, limits, counters, the work channel, deadlines, the platform's handle.

use crate::fork::{ForkArgs, Reissue};
use crate::platform::{Ns, Platform};
use crate::task::Tid;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Identity that each sandbox has of its own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Identity {
    /// Unique on this node.
    pub sandbox_id: String,
    /// uname(2)'s nodename.
    pub hostname: String,
    /// Counts the forks between the OS seed and this sandbox; guest code sees a change of it as "I was forked".
    pub generation: u64,
}

impl Reissue for Identity {
    fn reissue(&mut self, args: &ForkArgs) {
        self.sandbox_id = args.sandbox_id.clone();
        if !args.hostname.is_empty() {
            self.hostname = args.hostname.clone();
        }
        self.generation += 1;
    }
}

/// Limits of the sandbox as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Anonymous memory in bytes; a process that exceeds it is killed as by Linux's out-of-memory killer.
    pub memory: u64,
    /// vCPUs that may run at once, 1 or more.
    pub cpus: usize,
    /// Guest tasks that may exist at once.
    pub tasks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { memory: 1 << 30, cpus: 1, tasks: 1024 }
    }
}

impl Reissue for Limits {
    fn reissue(&mut self, args: &ForkArgs) {
        self.memory = args.memory_limit.unwrap_or(self.memory);
        self.cpus = args.cpus.unwrap_or(self.cpus);
    }
}

/// Counters for `--stats` and tests.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counters {
    /// System calls handled, by number; those from [`Counters::LAST`] on together.
    pub syscalls: BTreeMap<u64, u64>,
    /// Calls that returned ENOSYS because the table has no such entry, by number as in `syscalls`.
    pub unknown: BTreeMap<u64, u64>,
    /// Page faults that the kernel resolved or turned into a signal.
    pub page_faults: u64,
    /// Other processor exceptions.
    pub exceptions: u64,
    /// Times that guest code was left for the kernel.
    pub exits: u64,
    /// Processes killed at the memory limit.
    pub oom_kills: u64,
    /// Whether calls are timed.
    pub timed: bool,
    /// Calls that were timed, by number as in `syscalls`.
    pub times: BTreeMap<u64, CallTime>,
}

/// What the calls of one number came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallTime {
    /// Calls that returned.
    pub calls: u64,
    /// How many of them returned an error.
    pub errors: u64,
    /// Time in the guest kernel, without waiting, ns.
    pub ns: u64,
}

impl Counters {
    /// Where calls with this and all larger numbers are counted: the guest chooses the number, and must not choose how much the
    /// host remembers.
    pub const LAST: u64 = 1023;

    /// Adds the time that a handler took; a call that sleeps is called again and counted when it returns.
    pub fn add_time(&mut self, number: u64, ns: u64, result: &crate::wait::SysResult) {
        let time = self.times.entry(number.min(Counters::LAST)).or_default();
        time.ns = time.ns.saturating_add(ns);
        if !matches!(result, Ok(crate::wait::Outcome::Block(_))) {
            time.calls = time.calls.saturating_add(1);
            time.errors = time.errors.saturating_add(u64::from(result.is_err()));
        }
    }

    /// Counts a call in one of the maps.
    pub fn count(map: &mut BTreeMap<u64, u64>, number: u64) {
        *map.entry(number.min(Counters::LAST)).or_default() += 1;
    }
}

impl crate::fork::Reset for Counters {
    fn reset(&mut self, _args: &ForkArgs) {
        *self = Counters::default();
    }
}

/// The work channel: how a seed's runtime gets requests and gives answers (device `/dev/coppice`, descriptor 3 of a
/// runtime). Messages are byte strings; in the guest's stream each is preceded by its length as 4 bytes, little endian.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WorkChannel {
    /// Bytes that the guest has still to read.
    pub inbox: std::collections::VecDeque<u8>,
    /// Bytes that the guest wrote, not yet a whole message.
    pub partial: Vec<u8>,
    /// Whole messages for the host.
    pub outbox: std::collections::VecDeque<Vec<u8>>,
    /// Its object number for waiters.
    pub object: u64,
}

impl crate::fork::Reset for WorkChannel {
    fn reset(&mut self, _args: &ForkArgs) {
        self.inbox.clear();
        self.partial.clear();
        self.outbox.clear();
    }
}

/// A handle on the platform; the child of a fork keeps it, because the driver re-creates the machine below it.
#[derive(Clone, Debug)]
pub struct PlatformHandle(pub Arc<dyn Platform>);

impl std::ops::Deref for PlatformHandle {
    type Target = dyn Platform;
    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl Reissue for PlatformHandle {
    fn reissue(&mut self, _args: &ForkArgs) {}
}

pub(super) fn no_platform() -> PlatformHandle {
    PlatformHandle(Arc::new(crate::platform::fake::FakePlatform::new(0)))
}

/// Deadlines of sleeping tasks in order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Deadlines(pub BTreeSet<(Ns, Tid)>);

impl crate::fork::Reset for Deadlines {
    /// The kernel rebuilds the set from the tasks' blocks after it has moved the relative ones.
    fn reset(&mut self, _args: &ForkArgs) {
        self.0.clear();
    }
}
