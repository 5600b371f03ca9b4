//! The HTTP gateway: the AWS Lambda Invoke API, and `/fn/NAME`, which passes a request on as an event of API Gateway (payload format 2.0).
//!
//! It asks nobody for credentials: it listens on loopback, or stands behind the operator's own front. docs/GATEWAY.md describes it.

mod body;
mod caller;
mod errors;
mod event_stream;
mod events;
mod functions;
mod health;
mod http;
mod http_answer;
mod http_event;
mod lambda;
mod lambda_stream;
mod log;
mod name;
mod outcome;
mod server;
mod start;
mod times;
mod turns;

use crate::daemon::Daemon;
use crate::room::Room;
use axum::Router;
use axum::routing::{any, get, post};
use events::Events;
pub use server::run as serve_routes;
pub use start::{Running, StartError, start};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

/// Bounds of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest event of a synchronous request, bytes.
    pub event_bytes: usize,
    /// Longest event of an asynchronous one, bytes.
    pub async_event_bytes: usize,
    /// Open connections; more wait to be accepted.
    pub connections: usize,
    /// Time for the head of a request, and for a connection without one.
    pub header_timeout: Duration,
    /// Time for a request's body.
    pub body_timeout: Duration,
    /// A connection on which nothing has happened for so long is closed.
    pub idle_timeout: Duration,
    /// Asynchronous events that may wait or run.
    pub async_queue: usize,
    /// Their bytes.
    pub async_bytes: usize,
    /// Asynchronous events that run at once.
    pub async_running: usize,
    /// Of these, how many of one function.
    pub async_function_running: usize,
    /// How often an asynchronous event whose function has failed is tried again.
    pub async_retries: u32,
    /// Before the first of these tries; twice as long before the second.
    pub async_delay: Duration,
    /// Time for requests at work when the gateway is told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            event_bytes: seedtree::runtime::MAX_PAYLOAD,
            async_event_bytes: 1 << 20,
            connections: 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            async_queue: 1000,
            async_bytes: 64 << 20,
            async_running: 16,
            async_function_running: 8,
            async_retries: 2,
            async_delay: Duration::from_secs(60),
            drain: Duration::from_secs(30),
        }
    }
}

/// What the handlers share.
#[derive(Debug)]
struct Shared {
    daemon: Daemon,
    limits: Limits,
    events: Events,
    buffered: Room,
    stopping: AtomicBool,
}

type Gateway = Arc<Shared>;

/// Serves until `shutdown`, then finishes what is at work.
pub async fn serve(
    daemon: Daemon,
    listener: TcpListener,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) {
    let shared = Arc::new(Shared {
        events: Events::new(&limits, daemon.metrics().events()),
        buffered: daemon.room().clone(),
        stopping: AtomicBool::new(false),
        daemon,
        limits,
    });
    let routes = Router::new()
        .route("/2015-03-31/functions", get(functions::list))
        .route("/2015-03-31/functions/", get(functions::list))
        .route("/2015-03-31/functions/{name}", get(functions::get))
        .route("/2015-03-31/functions/{name}/configuration", get(functions::configuration))
        .route("/2015-03-31/functions/{name}/invocations", post(lambda::invoke))
        .route("/2021-11-15/functions/{name}/response-streaming-invocations", post(lambda_stream::invoke))
        .route("/fn/{name}", any(http::call))
        .route("/fn/{name}/", any(http::call))
        .route("/fn/{name}/{*path}", any(http::call))
        .merge(health::routes())
        .fallback(errors::no_such_path)
        .method_not_allowed_fallback(errors::no_such_method)
        .with_state(shared.clone());
    let stop = async {
        shutdown.await;
        shared.stopping.store(true, Ordering::Release);
    };
    server::run(listener, routes, &limits, stop).await;
    shared.events.finish(limits.drain).await;
}

/// Serves metrics, health and readiness only, until `shutdown`.
pub async fn serve_metrics(daemon: Daemon, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
    let limits =
        Limits { connections: 64, drain: Duration::from_secs(1), async_running: 1, ..Limits::default() };
    let shared = Arc::new(Shared {
        events: Events::new(&limits, daemon.metrics().events()),
        buffered: Room::new(0),
        stopping: AtomicBool::new(false),
        daemon,
        limits,
    });
    let routes = health::routes().fallback(errors::no_such_path).with_state(shared);
    server::run(listener, routes, &limits, shutdown).await;
}

/// Whether a request failed by the function's own doing.
pub(crate) fn is_functions(error: &crate::daemon::error::DaemonError) -> bool {
    error.function_says().is_some() || errors::FunctionFailure::of(error).is_some()
}

/// Who is at the other end of the connection.
#[derive(Clone, Copy, Debug)]
struct Peer(SocketAddr);
