//! What a node is run with.

use crate::reclaim::Policy;
use crate::reclaim::policies::Benefit;
use std::path::PathBuf;
use std::sync::Arc;

/// What a node is run with.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// A binary that calls [`crate::sandbox::run_if_asked`] first. By default this process's own, as `/proc/self/exe`, which stays the same
    /// when the file is replaced.
    pub exe: PathBuf,
    /// Root directory of the guests. By default the host's.
    pub rootfs: PathBuf,
    /// Directories of the host that appear empty in the guests, and files that cannot be read there: what is not for functions to see.
    /// They must be there, and the root directory not in them. Hidden are these paths, where links in them lead at start, whatever comes
    /// there later, and the very objects that are there at start, wherever they are met. The node holds them open: a file system that is
    /// hidden cannot be unmounted meanwhile. None by default.
    pub hidden: Vec<PathBuf>,
    /// Show guests only what everybody may see of the root directory: files that others may read, and directories that others may
    /// search. On by default: this process may be root, and the root directory the host's.
    pub public_only: bool,
    /// Environment of the runtimes. Empty by default.
    pub env: Vec<(String, String)>,
    /// Record working sets and prefill them. On by default.
    pub prefill: bool,
    /// Forks that may wait for one seed; more are answered "overloaded". 64 by default: some 100 ms on two processors.
    pub fork_queue: usize,
    /// Time for a fork, its waiting included, ms. A seed that is silent for so long is killed. 10 s by default: it takes about a
    /// millisecond.
    pub fork_timeout_ms: u64,
    /// Time for growing a seed, ms. 60 s by default: importing a large library takes many seconds on a busy host.
    pub grow_timeout_ms: u64,
    /// Grow seeds at a lower priority of the processor, where it may be raised back (CAP_SYS_NICE, or RLIMIT_NICE). On by default.
    pub grow_nicely: bool,
    /// Further seeds that a function may have where one cannot fork fast enough. 2 by default.
    pub replicas: usize,
    /// How often it is looked whether further seeds are still needed, ms. 30 s by default.
    pub replica_idle_ms: u64,
    /// Which functions' seeds go when memory is short, and which come back. By default the time that a seed saves, per byte.
    pub policy: Arc<dyn Policy>,
    /// Memory of all sandboxes together that growing a function's seed keeps to, bytes: others go for it, or it is not grown again. None by
    /// default.
    pub budget: Option<u64>,
    /// Half-life of functions' rates of requests, s. 10 minutes by default.
    pub rate_half_life_s: f64,
    /// Instances that clients may own at once ([`super::Node::fork_ahead`]). 64 by default.
    pub owned: usize,
    /// Time without a request after which an instance that a client owns is ended, ms. 10 minutes by default.
    pub owned_idle_ms: u64,
    /// Environment of the sandbox processes on the host, by which they are known for this node's. Empty by default.
    pub mark: Vec<(String, String)>,
}

impl Default for NodeConfig {
    fn default() -> Self {
        NodeConfig {
            exe: "/proc/self/exe".into(),
            rootfs: "/".into(),
            hidden: Vec::new(),
            public_only: true,
            env: Vec::new(),
            prefill: true,
            fork_queue: 64,
            fork_timeout_ms: 10_000,
            grow_timeout_ms: 60_000,
            grow_nicely: true,
            replicas: 2,
            replica_idle_ms: 30_000,
            policy: Arc::new(Benefit),
            budget: None,
            rate_half_life_s: 600.0,
            owned: 64,
            owned_idle_ms: 600_000,
            mark: Vec::new(),
        }
    }
}
