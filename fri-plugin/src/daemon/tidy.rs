//! What the daemon does besides requests and deploys.

use super::Daemon;
use super::error::DaemonError;

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

    /// Grows a function's seed, where it has none, and its spares.
    pub async fn prewarm(&self, name: &str) -> Result<(), DaemonError> {
        let result = self.node().grow(name).await.map_err(DaemonError::from);
        if let Some(serving) = super::lock(&self.0.serving).get_mut(name) {
            serving.failed = result.as_ref().err().map(|e| super::error::chain(e));
        }
        result
    }
}
