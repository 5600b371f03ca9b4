//! Whether a node can do its work: for a watchdog.

use super::{Inner, Node};
use std::sync::Weak;

/// Asks a node, and does not keep it.
#[derive(Clone, Debug)]
pub struct Pulse(Weak<Inner>);

impl Node {
    /// Its pulse.
    pub fn pulse(&self) -> Pulse {
        Pulse(std::sync::Arc::downgrade(&self.0))
    }
}

impl Pulse {
    /// Whether the node's locks are to be had, and the thread that starts its sandboxes answers. Without an end where they are not: who asks
    /// has a limit. A node that is gone has done its work.
    pub async fn answers(&self) -> bool {
        let Some(node) = self.0.upgrade().map(Node) else { return true };
        node.seeds();
        let planter = node.0.ground.planter.clone();
        drop(node);
        planter.answers().await
    }
}
