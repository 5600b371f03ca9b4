//! A task that ends with whoever waits for it.

use crate::fri::error::FriError;
use std::future::Future;
use tokio::task::JoinHandle;

/// A task of its own. Dropped, it is given up.
#[derive(Debug)]
pub struct Bound<T>(JoinHandle<T>);

impl<T: Send + 'static> Bound<T> {
    /// Starts it.
    pub fn start(work: impl Future<Output = T> + Send + 'static) -> Bound<T> {
        Bound(tokio::spawn(work))
    }

    /// What it came to. May be dropped and called again until it has given its result.
    pub async fn result(&mut self) -> Result<T, FriError> {
        (&mut self.0).await.map_err(|error| {
            tracing::error!(%error, "a call failed");
            FriError::Internal
        })
    }
}

impl<T> Drop for Bound<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
