//! `/fn/NAME` and what is below it: any HTTP request, passed on as an event of API Gateway's payload format 2.0.

use super::body::{self, BodyError};
use super::errors::FunctionFailure;
use super::{Gateway, Peer, caller, http_answer, http_event};
use crate::daemon::error::{DaemonError, Kind, chain};
use crate::daemon::invoke::{Call, new_request_id};
use crate::trace::Marks;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use seedtree::node::instance::Nowhere;
use seedtree::runtime::Reply;
use serde_json::json;

/// The header with a request's identity, as API Gateway has it.
const REQUEST_ID: HeaderName = HeaderName::from_static("apigw-requestid");

/// A refusal as API Gateway words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub u16, pub &'static str);

/// The function failed, or its answer is none.
pub const BAD_ANSWER: Refused = Refused(502, "Internal Server Error");

impl Refused {
    fn of_body(error: &BodyError) -> Refused {
        match error {
            BodyError::TooLong(_) => Refused(413, "Request Entity Too Large"),
            BodyError::TooSlow => Refused(408, "Request Timeout"),
            BodyError::NoRoom => Refused(429, "Too Many Requests"),
            BodyError::Broken => Refused(400, "Bad Request"),
        }
    }

    fn of_daemon(error: &DaemonError) -> Refused {
        if FunctionFailure::of(error).is_some() {
            return BAD_ANSWER;
        }
        match error.kind() {
            Kind::NotFound => Refused(404, "Not Found"),
            Kind::Invalid => Refused(400, "Bad Request"),
            Kind::TooLarge => Refused(413, "Request Entity Too Large"),
            Kind::TooMany => Refused(429, "Too Many Requests"),
            Kind::Conflict | Kind::Unavailable => Refused(503, "Service Unavailable"),
            Kind::Function | Kind::TimedOut => BAD_ANSWER,
            Kind::Internal => Refused(500, "Internal Server Error"),
        }
    }

    fn response(self) -> Response {
        let mut response = Response::new(Body::from(json!({"message": self.1}).to_string()));
        *response.status_mut() = StatusCode::from_u16(self.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if matches!(self.0, 429 | 503) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// A request to a function.
pub async fn call(State(gateway): State<Gateway>, request: Request) -> Response {
    let id = new_request_id();
    let mut response = answer(&gateway, request, &id).await.unwrap_or_else(Refused::response);
    gateway.daemon.metrics().http().call(response.status().as_u16());
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn answer(gateway: &Gateway, request: Request, id: &str) -> Result<Response, Refused> {
    let mut marks = gateway.daemon.tracer().map(|_| Marks::begin(request.headers()));
    let (head, body) = request.into_parts();
    let path = head.uri.path().strip_prefix("/fn/").unwrap_or_default();
    let (name, rest) = path.find('/').map_or((path, ""), |at| path.split_at(at));
    let name = name.to_owned();
    let raw_path = if rest.is_empty() { "/".to_owned() } else { rest.to_owned() };
    // Before the body: nobody is to send 6 MiB to nobody.
    gateway.daemon.node().function(&name).map_err(|e| {
        gateway.daemon.metrics().unknown_request();
        Refused::of_daemon(&e.into())
    })?;
    let limits = &gateway.limits;
    let read = body::read(&head.headers, body, limits.event_bytes, limits.body_timeout, &gateway.buffered);
    let held = read.await.map_err(|e| Refused::of_body(&e))?;
    let peer = head.extensions.get::<Peer>().copied();
    let event = http_event::event(&head, &name, &raw_path, &held.bytes, peer, id);
    // The event has at least these bytes, until it is answered.
    let body::Held { bytes, share: _share } = held;
    drop(bytes);
    if let Some(marks) = &mut marks {
        marks.received();
    }
    let caller = caller::traced(&head.headers);
    let call = Call {
        function: &name,
        event: &event,
        request_id: id,
        timeout_ms: None,
        version: None,
        caller: caller.as_ref(),
    };
    let invoked = gateway.daemon.invoke(call, &mut Nowhere).await;
    gateway.daemon.trace(marks, &name, id, &invoked.result);
    match invoked
        .result
        .map_err(|error| {
            tracing::debug!(function = name, request_id = id, error = chain(&error), "a request failed");
            Refused::of_daemon(&error)
        })?
        .reply
    {
        Reply::Result(result) => http_answer::response(result).ok_or(BAD_ANSWER),
        _ => Err(BAD_ANSWER),
    }
}
