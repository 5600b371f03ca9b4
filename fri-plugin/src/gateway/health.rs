//! `/healthz`, `/readyz` and `/metrics`.

use super::{Gateway, Shared};
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The paths.
pub fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
}

fn verdict(problem: Option<&'static str>) -> Response {
    match problem {
        None => (StatusCode::OK, "ok\n").into_response(),
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")).into_response(),
    }
}

/// The process answers, and the seed of all seeds lives.
async fn health(State(gateway): State<Gateway>) -> Response {
    verdict(dead(&gateway))
}

fn dead(gateway: &Gateway) -> Option<&'static str> {
    let lives = gateway.daemon.node().seeds().iter().any(|s| s.level == 0);
    (!lives).then_some("the OS seed is gone")
}

/// The OS seed and the language seeds are there, and requests are taken.
async fn readiness(State(gateway): State<Gateway>) -> Response {
    let problem = if gateway.stopping.load(Ordering::Acquire) || gateway.daemon.node().is_draining() {
        Some("draining")
    } else if !gateway.daemon.is_ready() {
        Some("seeds are being grown")
    } else {
        dead(&gateway)
    };
    verdict(problem)
}

async fn metrics(State(gateway): State<Gateway>) -> Response {
    let text = gateway.daemon.metrics().scrape(&gateway.daemon).await;
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(CONTENT_TYPE, kind)], text).into_response()
}
