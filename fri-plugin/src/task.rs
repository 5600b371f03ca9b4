//! A task that ends with whoever waits for it.

use std::future::Future;
use tokio::task::JoinHandle;

/// A task of its own. Dropped, it is given up.
#[derive(Debug)]
pub struct Bound<T>(JoinHandle<T>);

/// The task panicked. The log says how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked;

impl<T: Send + 'static> Bound<T> {
    /// Starts it.
    pub fn start(work: impl Future<Output = T> + Send + 'static) -> Bound<T> {
        Bound(tokio::spawn(work))
    }

    /// What it came to. May be dropped and called again until it has given its result.
    pub async fn result(&mut self) -> Result<T, Panicked> {
        (&mut self.0).await.map_err(|error| {
            tracing::error!(%error, "a call failed");
            Panicked
        })
    }
}

impl<T> Drop for Bound<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
