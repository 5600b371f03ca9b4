//! The run queue and who runs where. Round robin; a task that just left user mode for a system call goes on first,
//! but only [`MAX_STREAK`] times in a row while others wait, so that a loop of cheap calls starves nobody.
//!
//! A task is in exactly one of these states ([`crate::task::TaskState`]):
//!
//! | state | on the queue | left by |
//! | --- | --- | --- |
//! | `Runnable` | yes | [`Sched::pick`] by a vCPU (then `Running`), or its death |
//! | `Running(v)` | no | its exit: back to `Runnable`, or `Blocked` when its call sleeps, or its death on that vCPU |
//! | `Blocked` | no | a waker, its deadline (`resume` is set) or a signal (`aux.interrupted` is set): `Runnable` |
//! | `Stopped` | no | SIGCONT or SIGKILL |
//!
//! Only the vCPU named in `Running(v)` may end such a task: others mark it `exiting` and kick that vCPU. The extended
//! state of a task is either in `Task::xstate` or in the one vCPU whose `fpu_owner` it is; only that vCPU may pick it.

use crate::fork::{ForkArgs, Reset};
use crate::task::{Task, Tid};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// How often a vCPU goes on with the same task after its system calls while other tasks wait.
pub const MAX_STREAK: u32 = 64;

/// See the module.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sched {
    queue: VecDeque<Tid>,
    /// Per vCPU: whose extended state it holds, and whom it just ran.
    vcpus: BTreeMap<usize, VcpuSlot>,
    online: usize,
    /// vCPUs that the driver will start at most; 0: not told yet.
    most: usize,
    /// Some task was bound to vCPUs (sched_setaffinity(2)).
    bound: bool,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct VcpuSlot {
    fpu_owner: Option<Tid>,
    last: Option<Tid>,
    /// System calls in a row after which the vCPU went on with the same task.
    streak: u32,
    /// The task that runs asked to let others go first.
    yielded: bool,
}

impl Reset for Sched {
    fn reset(&mut self, _args: &ForkArgs) {
        // Who was bound stays so.
        *self = Sched { bound: self.bound, ..Sched::default() };
    }
}

impl Sched {
    /// Puts a runnable task at the end of the queue.
    pub fn push(&mut self, tid: Tid) {
        if !self.queue.contains(&tid) {
            self.queue.push_back(tid);
        }
    }

    /// Puts a task that made a system call back so that its vCPU goes on with it.
    pub fn push_front(&mut self, tid: Tid, vcpu: usize) {
        let alone = self.queue.is_empty();
        let slot = self.vcpus.entry(vcpu).or_default();
        slot.streak = slot.streak.saturating_add(1);
        if !alone && (slot.yielded || slot.streak > MAX_STREAK) {
            slot.yielded = false;
            slot.last = None;
            self.push(tid);
            return;
        }
        slot.yielded = false;
        slot.last = Some(tid);
        if !self.queue.contains(&tid) {
            self.queue.push_front(tid);
        }
    }

    /// sched_yield(2) of the task that runs on this vCPU: at its exit it goes to the end of the queue.
    pub fn yield_now(&mut self, vcpu: usize) {
        self.vcpus.entry(vcpu).or_default().yielded = true;
    }

    /// Forgets a task.
    pub fn remove(&mut self, tid: Tid) {
        self.queue.retain(|t| *t != tid);
        for slot in self.vcpus.values_mut() {
            if slot.fpu_owner == Some(tid) {
                slot.fpu_owner = None;
            }
            if slot.last == Some(tid) {
                slot.last = None;
            }
        }
    }

    /// Takes a task that stops off the queue; its vCPU keeps its extended state.
    pub fn unqueue(&mut self, tid: Tid) {
        self.queue.retain(|t| *t != tid);
    }

    /// Takes the next task for a vCPU: the one it just ran if that is still runnable, else the first whose extended state no other
    /// vCPU holds.
    pub fn pick(&mut self, vcpu: usize, tasks: &BTreeMap<Tid, Task>) -> Option<Tid> {
        self.queue.retain(|t| tasks.contains_key(t));
        let last = self.vcpus.get_mut(&vcpu).and_then(|s| s.last.take());
        let bound = self.bound;
        let most = self.most;
        let here = |tid: &Tid| !bound || tasks.get(tid).is_none_or(|t| allows(t.aux.vcpus(), most, vcpu));
        let at =
            last.filter(here).and_then(|tid| self.queue.iter().position(|t| *t == tid)).or_else(|| {
                if let Some(slot) = self.vcpus.get_mut(&vcpu) {
                    slot.streak = 0;
                }
                self.queue.iter().position(|tid| here(tid) && self.may_run(*tid, vcpu))
            })?;
        self.queue.remove(at)
    }

    fn may_run(&self, tid: Tid, vcpu: usize) -> bool {
        !self.vcpus.iter().any(|(i, s)| *i != vcpu && (s.fpu_owner == Some(tid)))
    }

    /// A task was bound to vCPUs.
    pub fn set_bound(&mut self) {
        self.bound = true;
    }

    /// Whether some task may not run on every vCPU.
    pub fn is_bound(&self) -> bool {
        self.bound
    }

    /// The driver tells how many vCPUs it starts at most.
    pub fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    /// Whether a task with this mask may run on a vCPU.
    pub fn allows(&self, mask: u64, vcpu: usize) -> bool {
        allows(mask, self.most, vcpu)
    }

    /// Tasks that wait for a vCPU.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether some vCPU other than `vcpu` could run `tid` or the vCPU itself will switch away from it.
    pub fn pick_would_move(&self, tid: Tid, vcpu: usize) -> bool {
        self.vcpus.get(&vcpu).is_none_or(|s| s.last != Some(tid))
    }

    /// Whose extended state a vCPU holds.
    pub fn fpu_owner(&self, vcpu: usize) -> Option<Tid> {
        self.vcpus.get(&vcpu).and_then(|s| s.fpu_owner)
    }

    /// Records whose extended state a vCPU holds.
    pub fn set_fpu_owner(&mut self, vcpu: usize, tid: Option<Tid>) {
        self.vcpus.entry(vcpu).or_default().fpu_owner = tid;
    }

    /// How many vCPUs the driver runs now.
    pub fn online(&self) -> usize {
        self.online
    }

    /// The driver tells how many vCPUs it runs now.
    pub fn set_online(&mut self, n: usize) {
        self.online = n;
    }
}

/// Whether a mask allows a vCPU. A mask of none, or only of such as are never started, allows all.
fn allows(mask: u64, most: usize, vcpu: usize) -> bool {
    let exist = match u32::try_from(most) {
        Ok(n) if n > 0 && n < 64 => (1 << n) - 1,
        _ => u64::MAX,
    };
    let mask = mask & exist;
    mask == 0 || u32::try_from(vcpu).ok().and_then(|n| mask.checked_shr(n)).is_some_and(|m| m & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(tids: &[Tid]) -> BTreeMap<Tid, Task> {
        tids.iter().map(|t| (*t, Task::new(*t, 1))).collect()
    }

    #[test]
    fn a_task_that_only_makes_calls_lets_others_run() {
        let (mut s, tasks) = (Sched::default(), tasks(&[1, 2]));
        s.push(1);
        s.push(2);
        let mut seen = BTreeMap::<Tid, u32>::new();
        for _ in 0..1000 {
            let tid = s.pick(0, &tasks).unwrap();
            *seen.entry(tid).or_default() += 1;
            s.push_front(tid, 0);
        }
        assert!(seen[&1] > 300 && seen[&2] > 300, "{seen:?}");
    }

    #[test]
    fn a_task_that_yields_goes_behind_the_others() {
        let (mut s, tasks) = (Sched::default(), tasks(&[1, 2]));
        s.push(1);
        s.push(2);
        assert_eq!(s.pick(0, &tasks), Some(1));
        s.yield_now(0);
        s.push_front(1, 0);
        assert_eq!(s.pick(0, &tasks), Some(2));
    }

    #[test]
    fn only_the_vcpu_that_holds_its_extended_state_picks_a_task() {
        let (mut s, tasks) = (Sched::default(), tasks(&[1]));
        s.set_fpu_owner(0, Some(1));
        s.push(1);
        assert_eq!(s.pick(1, &tasks), None);
        assert_eq!(s.pick(0, &tasks), Some(1));
    }

    #[test]
    fn a_bound_task_runs_only_where_it_may() {
        let (mut s, mut tasks) = (Sched::default(), tasks(&[1, 2]));
        tasks.get_mut(&1).unwrap().aux.affinity = vec![2];
        s.set_bound();
        s.set_most(2);
        s.push(1);
        s.push(2);
        assert_eq!(s.pick(0, &tasks), Some(2));
        assert_eq!(s.pick(0, &tasks), None);
        assert_eq!(s.pick(1, &tasks), Some(1));
        assert!(s.allows(4, 0), "the third vCPU is never started");
    }
}
