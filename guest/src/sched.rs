//! The run queue and who runs where. Round robin; a task that just left user mode for a system call goes on first.

use crate::fork::{ForkArgs, Reset};
use crate::task::{Task, Tid};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// See the module.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sched {
    queue: VecDeque<Tid>,
    /// Per vCPU: whose extended state it holds, and whom it just ran.
    vcpus: BTreeMap<usize, VcpuSlot>,
    online: usize,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct VcpuSlot {
    fpu_owner: Option<Tid>,
    last: Option<Tid>,
}

impl Reset for Sched {
    fn reset(&mut self, _args: &ForkArgs) {
        *self = Sched::default();
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
        self.vcpus.entry(vcpu).or_default().last = Some(tid);
        if !self.queue.contains(&tid) {
            self.queue.push_front(tid);
        }
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

    /// Takes the next task for a vCPU: the one it just ran if that is still runnable, else the first whose extended state no other
    /// vCPU holds.
    pub fn pick(&mut self, vcpu: usize, tasks: &BTreeMap<Tid, Task>) -> Option<Tid> {
        self.queue.retain(|t| tasks.contains_key(t));
        let last = self.vcpus.get_mut(&vcpu).and_then(|s| s.last.take());
        let at = last
            .and_then(|tid| self.queue.iter().position(|t| *t == tid))
            .or_else(|| self.queue.iter().position(|tid| self.may_run(*tid, vcpu)))?;
        self.queue.remove(at)
    }

    fn may_run(&self, tid: Tid, vcpu: usize) -> bool {
        !self.vcpus.iter().any(|(i, s)| *i != vcpu && (s.fpu_owner == Some(tid)))
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
