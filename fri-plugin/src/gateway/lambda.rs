//! The Invoke operation of the AWS Lambda API.

use super::errors::{FunctionFailure, REQUEST_ID, Refusal};
use super::log::Report;
use super::name::{self, Target};
use super::{Gateway, body};
use crate::daemon::invoke::{Call, Invoked, new_request_id};
use crate::trace::Marks;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use seedtree::node::instance::Nowhere;
use seedtree::runtime::Reply;
use std::time::{Duration, Instant};

const INVOCATION_TYPE: HeaderName = HeaderName::from_static("x-amz-invocation-type");
const LOG_TYPE: HeaderName = HeaderName::from_static("x-amz-log-type");
const CLIENT_CONTEXT: HeaderName = HeaderName::from_static("x-amz-client-context");
const LOG_RESULT: HeaderName = HeaderName::from_static("x-amz-log-result");
const FUNCTION_ERROR: HeaderName = HeaderName::from_static("x-amz-function-error");
const EXECUTED_VERSION: HeaderName = HeaderName::from_static("x-amz-executed-version");
/// Which version that was; `$LATEST` does not tell.
const VERSION: HeaderName = HeaderName::from_static("x-coppice-version");
/// Longest client context, bytes of base64, as on AWS Lambda.
const LONGEST_CONTEXT: usize = 3583;

/// What the query says.
#[derive(Debug, Default, serde::Deserialize)]
pub struct Qualified {
    /// `$LATEST` or the number of a version.
    #[serde(rename = "Qualifier")]
    pub qualifier: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    RequestResponse,
    Event,
    DryRun,
}

impl Kind {
    fn of(headers: &HeaderMap) -> Result<Kind, Refusal> {
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

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let bad = |_| Refusal::parameter(format!("The header {name} is not text."));
    headers.get(name).map(|v| v.to_str().map_err(bad)).transpose()
}

/// `POST /2015-03-31/functions/NAME/invocations`.
pub async fn invoke(
    State(gateway): State<Gateway>,
    name: Result<Path<String>, PathRejection>,
    qualified: Result<Query<Qualified>, QueryRejection>,
    request: Request,
) -> Response {
    let id = new_request_id();
    let http = gateway.daemon.metrics().http();
    let answered = async {
        let (Path(name), Query(qualified)) = (name?, qualified?);
        answer(&gateway, &name, qualified, request, &id).await
    };
    let mut response = match answered.await {
        Ok(response) => response,
        Err(refusal) => Refusal::into_response(refusal),
    };
    http.invoke(response.status().as_u16());
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn answer(
    gateway: &Gateway,
    name: &str,
    qualified: Qualified,
    request: Request,
    id: &str,
) -> Result<Response, Refusal> {
    let mut marks = gateway.daemon.tracer().map(|_| Marks::begin(request.headers()));
    let (head, body) = request.into_parts();
    let target = name::parse(name, qualified.qualifier.as_deref())?;
    let kind = Kind::of(&head.headers)?;
    let wants_log = match text(&head.headers, &LOG_TYPE)? {
        None | Some("" | "None") => false,
        Some("Tail") => true,
        Some(_) => return Err(Refusal::parameter("X-Amz-Log-Type is none of None, Tail.")),
    };
    check_client_context(&head.headers)?;
    let limits = &gateway.limits;
    let limit = if kind == Kind::Event { limits.async_event_bytes } else { limits.event_bytes };
    let held = body::read(&head.headers, body, limit, limits.body_timeout, &gateway.buffered)
        .await
        .map_err(|e| Refusal::of_body(&e, kind.name(), limit))?;
    // As on AWS Lambda: who sends nothing sends an event without anything in it.
    let event = if held.bytes.is_empty() { Bytes::from_static(b"{}") } else { held.bytes.clone() };
    check_target(gateway, &target)?;
    match kind {
        Kind::RequestResponse => {}
        Kind::DryRun => return Ok(StatusCode::NO_CONTENT.into_response()),
        Kind::Event => {
            seedtree::tree::check_event(&event)
                .map_err(|e| Refusal::of_daemon(&seedtree::node::error::NodeError::from(e).into(), name))?;
            gateway.events.accept(gateway, &target, event, id, marks)?;
            return Ok(with_version(StatusCode::ACCEPTED.into_response(), &target, None));
        }
    }
    if let Some(marks) = &mut marks {
        marks.received();
    }
    let started = Instant::now();
    let call = Call {
        function: &target.name,
        event: &event,
        request_id: id,
        timeout_ms: None,
        version: target.version,
    };
    let invoked = gateway.daemon.invoke(call, &mut Nowhere).await;
    if let Some(marks) = &mut marks {
        marks.answered();
    }
    let response = respond(gateway, &target, id, invoked, wants_log, started, marks.as_mut())?;
    Ok(response)
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

/// The client context is checked; the runtimes do not take it yet.
fn check_client_context(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(context) = text(headers, &CLIENT_CONTEXT)? else { return Ok(()) };
    if context.len() > LONGEST_CONTEXT {
        return Err(Refusal::parameter(format!(
            "Client context must be no more than {LONGEST_CONTEXT} bytes."
        )));
    }
    let json = base64::engine::general_purpose::STANDARD.decode(context).ok();
    let valid = json.is_some_and(|j| serde_json::from_slice::<serde::de::IgnoredAny>(&j).is_ok());
    if valid {
        Ok(())
    } else {
        Err(Refusal::content("Client context must be a valid Base64-encoded JSON object."))
    }
}

fn respond(
    gateway: &Gateway,
    target: &Target,
    id: &str,
    invoked: Invoked,
    wants_log: bool,
    started: Instant,
    marks: Option<&mut Marks>,
) -> Result<Response, Refusal> {
    let mut duration = started.elapsed();
    let (failure, error);
    let result = invoked.result;
    if let (Some(marks), Some(tracer)) = (marks, gateway.daemon.tracer()) {
        tracer.invocation(marks, &target.name, id, &result);
    }
    let body = match result {
        Ok(served) => {
            duration = Duration::from_nanos(served.total);
            failure = None;
            let (body, failed) = match served.reply {
                Reply::Error(body) => (body, true),
                Reply::Result(body) => (body, false),
                Reply::Imported | Reply::Malformed => {
                    return Err(Refusal::new(500, "ServiceException", "The runtime gave no answer."));
                }
            };
            let body = Bytes::from(body);
            error = failed.then(|| body.clone());
            body
        }
        Err(failed) => match (FunctionFailure::of(&failed), failed.function_says()) {
            (_, Some(says)) => {
                let body = Bytes::copy_from_slice(says);
                (failure, error) = (None, Some(body.clone()));
                body
            }
            (Some(how), None) => {
                let body = how.json(id).into();
                (failure, error) = (Some(how), None);
                body
            }
            (None, None) => return Err(Refusal::of_daemon(&failed, &target.name)),
        },
    };
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if failure.is_some() || error.is_some() {
        headers.insert(FUNCTION_ERROR, HeaderValue::from_static("Unhandled"));
    }
    if wants_log {
        let memory = gateway.daemon.node().function(&target.name).map_or(0, |v| v.spec.memory >> 20);
        let report = Report {
            request_id: id,
            version: &target.executed_version(),
            duration,
            memory,
            failure: failure.as_ref(),
            error: error.as_deref(),
        };
        if let Ok(tail) = HeaderValue::from_str(&report.tail(&invoked.log_tail)) {
            headers.insert(LOG_RESULT, tail);
        }
    }
    Ok(with_version(response, target, Some(invoked.version)))
}

fn with_version(mut response: Response, target: &Target, served: Option<u64>) -> Response {
    if let Ok(version) = HeaderValue::from_str(&target.executed_version()) {
        response.headers_mut().insert(EXECUTED_VERSION, version);
    }
    if let Some(served) = served {
        response.headers_mut().insert(VERSION, served.into());
    }
    response
}
