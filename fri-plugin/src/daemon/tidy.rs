//! What the daemon does besides requests and deploys.

use super::Daemon;
use super::error::DaemonError;
use std::time::Duration;

/// The policy that needs no budget.
const KEEP_ALIVE: &str = "keep-alive";

impl Daemon {
    /// Removes code that no version in the store and none at work refers to. Blocks.
    pub(super) fn collect(&self) {
        match self.0.code.collect(|| self.0.store.in_use()) {
            Ok(removed) => removed.iter().for_each(|name| tracing::debug!(name, "code removed")),
            Err(error) => {
                tracing::warn!(error = super::error::chain(&error), "old code cannot be looked for");
            }
        }
    }

    /// Keeps the memory of the sandboxes within the budget, as long as the returned task is not ended. `None` where the configuration has
    /// neither a budget nor a policy that needs none.
    pub fn keep_within_budget(&self) -> Option<tokio::task::JoinHandle<()>> {
        let config = self.config();
        let budget = match config.memory.budget {
            0 if config.reclaim.policy == KEEP_ALIVE => u64::MAX,
            0 => return None,
            budget => budget,
        };
        let (daemon, interval) = (self.clone(), Duration::from_millis(config.reclaim.interval_ms));
        Some(tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                daemon.node().reclaim(budget).await;
            }
        }))
    }

    /// Grows a function's seed, where it has none, and its spares.
    pub async fn prewarm(&self, name: &str) -> Result<(), DaemonError> {
        Ok(self.node().grow(name).await?)
    }
}
