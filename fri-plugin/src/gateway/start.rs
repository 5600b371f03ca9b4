//! The gateway as the configuration wants it: listeners, traces, and their end.

use super::{Limits, serve, serve_metrics};
use crate::config::Config;
use crate::daemon::Daemon;
use crate::trace::{TraceError, Tracer};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Why there is no gateway.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address}: set {key} in the configuration to a free address of this host, or to \"off\""
    )]
    Listen {
        /// Key of the configuration.
        key: &'static str,
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Traces cannot be sent.
    #[error(transparent)]
    Traces(#[from] TraceError),
}

/// The gateway at work. Dropped, it ends at once.
#[derive(Debug)]
pub struct Running {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    daemon: Daemon,
}

impl Limits {
    /// As the configuration has them.
    pub fn of(config: &Config) -> Limits {
        let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let event_bytes = bytes(config.gateway.event_bytes);
        let default = Limits::default();
        Limits {
            event_bytes,
            async_event_bytes: default.async_event_bytes.min(event_bytes),
            connections: config.gateway.connections,
            header_timeout: Duration::from_millis(config.gateway.header_timeout_ms),
            body_timeout: Duration::from_millis(config.gateway.body_timeout_ms),
            idle_timeout: Duration::from_millis(config.gateway.idle_timeout_ms),
            async_queue: config.gateway.async_queue,
            async_bytes: bytes(config.gateway.async_bytes),
            async_running: config.gateway.async_running,
            async_function_running: config.gateway.async_function_running,
            async_retries: config.gateway.async_retries,
            async_delay: Duration::from_millis(config.gateway.async_retry_ms),
            drain: Duration::from_millis(config.drain_timeout_ms),
        }
    }
}

/// Listens where the configuration says so, and makes traces where it names an endpoint.
pub async fn start(daemon: &Daemon, config: &Config) -> Result<Running, StartError> {
    if let Some(endpoint) = &config.traces.otlp {
        daemon.trace_with(Tracer::start(endpoint, config.traces.sample)?);
    }
    let (stop, stopped) = watch::channel(false);
    let mut running = Running { stop, tasks: JoinSet::new(), daemon: daemon.clone() };
    let told = || {
        let mut stopped = stopped.clone();
        async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }
    };
    if let Some(address) = config.gateway.listen {
        let listener = listen("gateway.listen", address).await?;
        running.tasks.spawn(serve(daemon.clone(), listener, Limits::of(config), told()));
    }
    if let Some(address) = config.metrics.listen {
        let listener = listen("metrics.listen", address).await?;
        running.tasks.spawn(serve_metrics(daemon.clone(), listener, told()));
    }
    Ok(running)
}

async fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let refuse = |source| StartError::Listen { key, address, source };
    let listener = TcpListener::bind(address).await.map_err(refuse)?;
    let address = listener.local_addr().map_err(refuse)?;
    tracing::info!(key, %address, "listening");
    if !address.ip().is_loopback() {
        tracing::warn!(key, %address, "anybody who reaches this address may use it: it asks nobody for credentials");
    }
    Ok(listener)
}

impl Running {
    /// Takes no more requests, finishes those at work, and sends the last traces.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
        let daemon = self.daemon;
        let _ = tokio::task::spawn_blocking(move || {
            if let Some(tracer) = daemon.tracer() {
                tracer.finish();
            }
        })
        .await;
    }
}
