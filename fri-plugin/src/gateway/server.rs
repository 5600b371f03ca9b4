//! Connections: accepted up to a bound, closed when they are slow or idle, finished at the end.

use super::{Limits, Peer};
use crate::rarely::Rarely;
use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::Service as _;

/// Most bytes of a request's head, and of what is read at once of a body.
const HEAD_BYTES: usize = 64 << 10;
/// Most headers of a request.
const HEADERS: usize = 100;
/// Requests of one HTTP/2 connection at once.
const STREAMS: u32 = 250;

/// Accepts and serves connections until `stop`; those with requests at work are then finished, for as long as [`Limits::drain`] says.
pub async fn run(listener: TcpListener, routes: Router, limits: &Limits, stop: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
    let (stopping, stopped) = watch::channel(false);
    let builder = Arc::new(builder(limits));
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let next = async {
            // Taken first: who finds none waits in the listener's backlog.
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = &mut stop => break,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (routes, builder, limits) = (routes.clone(), builder.clone(), *limits);
                let stopped = stopped.clone();
                connections.spawn(async move {
                    let _place = place;
                    serve(stream, peer, routes, &builder, &limits, stopped).await;
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: those at work will give some back.
                static FAILED: Rarely = Rarely::new();
                if let Some(count) = FAILED.happened() {
                    tracing::warn!(%error, count, "a connection cannot be accepted");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let _ = stopping.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, all).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "requests are given up: the time for finishing them is over"
        );
        connections.shutdown().await;
    }
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout.max(limits.idle_timeout))
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES as u32)
        .keep_alive_interval(limits.idle_timeout)
        .keep_alive_timeout(limits.header_timeout);
    builder
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    routes: Router,
    builder: &Builder<TokioExecutor>,
    limits: &Limits,
    mut stopped: watch::Receiver<bool>,
) {
    // Without it an answer might wait for the acknowledgement of what came before.
    let _ = stream.set_nodelay(true);
    let activity = Arc::new(Activity::new());
    let service = Service { routes, peer, activity: activity.clone() };
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut closing = false;
    loop {
        let patience = match activity.requests.load(Ordering::Acquire) {
            0 => limits.header_timeout,
            _ => limits.idle_timeout,
        };
        let wait = activity.quiet_until(patience).unwrap_or(Duration::ZERO);
        tokio::select! {
            // What the client did wrong it has been told, where it can be told.
            _ = &mut connection => return,
            _ = stopped.changed(), if !closing => {
                closing = true;
                connection.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep(wait.max(Duration::from_millis(10))) => {
                if activity.working.load(Ordering::Acquire) > 0 || activity.quiet_until(patience).is_some() {
                    continue;
                }
                if closing || activity.requests.load(Ordering::Acquire) == 0 {
                    return;
                }
                // An answer may be on its way yet, slowly: it has the same time again.
                closing = true;
                activity.touch();
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// What has happened on a connection.
struct Activity {
    start: Instant,
    /// Requests so far.
    requests: AtomicUsize,
    /// Requests at work.
    working: AtomicUsize,
    /// When one last came or was done, ms since the start.
    last: AtomicU64,
}

impl Activity {
    fn new() -> Activity {
        Activity {
            start: Instant::now(),
            requests: AtomicUsize::new(0),
            working: AtomicUsize::new(0),
            last: AtomicU64::new(0),
        }
    }

    fn touch(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Release);
    }

    /// How long until nothing has happened for so long; `None` when that is so.
    fn quiet_until(&self, patience: Duration) -> Option<Duration> {
        let until = Duration::from_millis(self.last.load(Ordering::Acquire)) + patience;
        until.checked_sub(self.start.elapsed()).filter(|left| !left.is_zero())
    }
}

/// Counts a request as at work, until the last copy of its [`Arc`] goes. Handlers find it among the request's extensions.
pub struct Working(Arc<Activity>);

impl Working {
    fn begin(activity: Arc<Activity>) -> Working {
        activity.working.fetch_add(1, Ordering::AcqRel);
        activity.requests.fetch_add(1, Ordering::AcqRel);
        Working(activity)
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.touch();
        self.0.working.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The routes, for one connection.
struct Service {
    routes: Router,
    peer: SocketAddr,
    activity: Arc<Activity>,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let working = Arc::new(Working::begin(self.activity.clone()));
        let mut routes = self.routes.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(self.peer));
        request.extensions_mut().insert(working.clone());
        Box::pin(async move {
            let answer = routes.call(request).await;
            drop(working);
            answer
        })
    }
}
