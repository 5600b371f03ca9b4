//! Memory of a node's processes, as the host counts it.

use super::Node;
use crate::memory::{Usage, usage};
use std::collections::BTreeMap;

/// Memory of one seed.
#[derive(Clone, Debug)]
pub struct SeedMemory {
    /// Level: 0, 1 or 2.
    pub level: u8,
    /// Its name.
    pub name: String,
    /// Its process on the host.
    pub pid: i32,
    /// What it holds.
    pub usage: Usage,
}

/// Memory of a node's sandboxes. Pages that several share count once in [`NodeMemory::total`], where `pss_kib` is what to look at; the
/// other sums count them as often as they are shared.
#[derive(Clone, Debug, Default)]
pub struct NodeMemory {
    /// Seed by seed, root first.
    pub seeds: Vec<SeedMemory>,
    /// By function: all of its instances, idle or at work.
    pub instances: BTreeMap<String, Usage>,
    /// All together.
    pub total: Usage,
}

impl Node {
    /// Reads the memory of every sandbox (proc_pid_smaps_rollup(5)). The host walks the page tables of each for it: some milliseconds per
    /// process, so this is nothing to do often.
    pub async fn memory(&self) -> NodeMemory {
        let seeds: Vec<_> = self.seeds().iter().map(|s| (s.level, s.name.clone(), s.pid())).collect();
        let instances: Vec<_> = self.instances().into_values().map(|i| (i.function, i.pid)).collect();
        let read = move || {
            let mut memory = NodeMemory::default();
            for (level, name, pid) in seeds {
                let Some(usage) = usage(pid) else { continue };
                memory.total += usage;
                memory.seeds.push(SeedMemory { level, name, pid, usage });
            }
            for (function, pid) in instances {
                let Some(usage) = usage(pid) else { continue };
                memory.total += usage;
                *memory.instances.entry(function).or_default() += usage;
            }
            memory
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }

    /// Memory of one of the node's processes; `None` where there is no such one.
    pub async fn memory_of(&self, pid: i32) -> Option<Usage> {
        let ours =
            self.seeds().iter().any(|s| s.pid() == pid) || self.instances().values().any(|i| i.pid == pid);
        if !ours {
            return None;
        }
        tokio::task::spawn_blocking(move || usage(pid)).await.ok().flatten()
    }
}
