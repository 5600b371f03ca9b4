//! The interface over ttrpc.

use super::listen::Listener;
use super::service::Service;
use std::future::Future;

/// Serves until `shutdown`.
pub async fn serve(
    listener: Listener,
    service: Service,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let _ = (&listener, &service);
    shutdown.await;
}
