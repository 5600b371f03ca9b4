//! The Invoke operation of the AWS Lambda API.

use super::errors::{REQUEST_ID, Refusal};
use super::name::{Addressed, Target};
use super::outcome::{Outcome, UNHANDLED};
use super::{Gateway, body, caller};
use crate::daemon::invoke::{Call, new_request_id};
use crate::trace::Marks;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use seedtree::caller::Caller;
use seedtree::node::instance::Nowhere;
use std::time::Instant;

const INVOCATION_TYPE: HeaderName = HeaderName::from_static("x-amz-invocation-type");
const LOG_TYPE: HeaderName = HeaderName::from_static("x-amz-log-type");
const LOG_RESULT: HeaderName = HeaderName::from_static("x-amz-log-result");
const FUNCTION_ERROR: HeaderName = HeaderName::from_static("x-amz-function-error");
const EXECUTED_VERSION: HeaderName = HeaderName::from_static("x-amz-executed-version");
/// Which version that was; `$LATEST` does not tell.
const VERSION: HeaderName = HeaderName::from_static("x-coppice-version");

/// How a function is invoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The client waits.
    RequestResponse,
    /// In the background.
    Event,
    /// Not at all.
    DryRun,
}

impl Kind {
    /// What the header says.
    pub fn of(headers: &HeaderMap) -> Result<Kind, Refusal> {
        match text(headers, &INVOCATION_TYPE)? {
            None | Some("" | "RequestResponse") => Ok(Kind::RequestResponse),
            Some("Event") => Ok(Kind::Event),
            Some("DryRun") => Ok(Kind::DryRun),
            Some(_) => {
                Err(Refusal::parameter("X-Amz-Invocation-Type is none of RequestResponse, Event, DryRun."))
            }
        }
    }

    fn name(self) -> &'static str {
        if self == Kind::Event { "Event" } else { "RequestResponse" }
    }
}

/// The text of a header.
pub fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let bad = |_| Refusal::parameter(format!("The header {name} is not text."));
    headers.get(name).map(|v| v.to_str().map_err(bad)).transpose()
}

/// `POST /2015-03-31/functions/NAME/invocations`.
pub async fn invoke(State(gateway): State<Gateway>, addressed: Addressed, request: Request) -> Response {
    let id = new_request_id();
    let answered = answer(&gateway, addressed, request, &id).await;
    finished(&gateway, &id, answered)
}

/// The response, counted and with the request's identity.
pub fn finished(gateway: &Gateway, id: &str, answered: Result<Response, Refusal>) -> Response {
    let mut response = answered.unwrap_or_else(Refusal::into_response);
    gateway.daemon.metrics().http().invoke(response.status().as_u16());
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// What a client asks for, besides the event.
#[derive(Debug)]
pub struct Asking {
    /// Whom.
    pub target: Target,
    /// How.
    pub kind: Kind,
    /// Whether it wants the tail of the log.
    pub wants_log: bool,
    /// Where requests are traced.
    pub marks: Option<Marks>,
    /// What the function is told of the client.
    pub caller: Option<Caller>,
    /// When all of it was here.
    pub started: Instant,
}

/// Reads a request: what it asks for, its event, and what that keeps of the bound for bodies.
pub async fn asking(
    gateway: &Gateway,
    Addressed(target): Addressed,
    request: Request,
) -> Result<(Asking, Bytes, body::Held), Refusal> {
    let mut marks = gateway.daemon.tracer().map(|_| Marks::begin(request.headers()));
    let (head, body) = request.into_parts();
    let target = target?;
    let kind = Kind::of(&head.headers)?;
    let wants_log = match text(&head.headers, &LOG_TYPE)? {
        None | Some("" | "None") => false,
        Some("Tail") => true,
        Some(_) => return Err(Refusal::parameter("X-Amz-Log-Type is none of None, Tail.")),
    };
    let caller = caller::of(&head.headers)?;
    let limits = &gateway.limits;
    let limit = if kind == Kind::Event { limits.async_event_bytes } else { limits.event_bytes };
    let held = body::read(&head.headers, body, limit, limits.body_timeout, &gateway.buffered)
        .await
        .map_err(|e| Refusal::of_body(&e, kind.name(), limit))?;
    // As on AWS Lambda: who sends nothing sends an event without anything in it.
    let event = if held.bytes.is_empty() { Bytes::from_static(b"{}") } else { held.bytes.clone() };
    check_target(gateway, &target)?;
    if let Some(marks) = &mut marks {
        marks.received();
    }
    Ok((Asking { target, kind, wants_log, marks, caller, started: Instant::now() }, event, held))
}

async fn answer(
    gateway: &Gateway,
    addressed: Addressed,
    request: Request,
    id: &str,
) -> Result<Response, Refusal> {
    let (mut asking, event, _held) = asking(gateway, addressed, request).await?;
    let target = &asking.target;
    match asking.kind {
        Kind::RequestResponse => {}
        Kind::DryRun => return Ok(StatusCode::NO_CONTENT.into_response()),
        Kind::Event => {
            seedtree::tree::check_event(&event).map_err(|e| {
                Refusal::of_daemon(&seedtree::node::error::NodeError::from(e).into(), &target.name)
            })?;
            let later = asking.caller.take().and_then(Caller::later);
            gateway.events.accept(gateway, target, event, id, asking.marks.take(), later)?;
            return Ok(with_version(StatusCode::ACCEPTED.into_response(), target, None));
        }
    }
    let Target { name, version } = target;
    let (version, caller) = (*version, asking.caller.as_ref());
    let call = Call { function: name, event: &event, request_id: id, timeout_ms: None, version, caller };
    let invoked = gateway.daemon.invoke(call, &mut Nowhere).await;
    let outcome = Outcome::of(gateway, &mut asking, id, invoked)?;
    let mut response = Response::new(Body::from(outcome.body.clone()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if outcome.failed {
        headers.insert(FUNCTION_ERROR, HeaderValue::from_static(UNHANDLED));
    }
    if asking.wants_log
        && let Ok(tail) = HeaderValue::from_str(&outcome.log_result(gateway, &asking, id))
    {
        headers.insert(LOG_RESULT, tail);
    }
    Ok(with_version(response, &asking.target, Some(outcome.version)))
}

/// The function is there, and its present version is the one that is asked for: no other serves.
fn check_target(gateway: &Gateway, target: &Target) -> Result<(), Refusal> {
    let missing = || {
        gateway.daemon.metrics().unknown_request();
        Refusal::no_function(&target.name, None)
    };
    // Told at once where it is so already; the tree looks again when it lets the request in.
    let present = gateway.daemon.node().function(&target.name).map_err(|_| missing())?.spec.version;
    match target.version {
        Some(version) if version != present => {
            Err(Refusal::no_function(&target.name, Some(&version.to_string())))
        }
        _ => Ok(()),
    }
}

/// Tells which version served: as it was asked for, and its number.
pub fn with_version(mut response: Response, target: &Target, served: Option<u64>) -> Response {
    if let Ok(version) = HeaderValue::from_str(&target.executed_version()) {
        response.headers_mut().insert(EXECUTED_VERSION, version);
    }
    if let Some(served) = served {
        response.headers_mut().insert(VERSION, served.into());
    }
    response
}
