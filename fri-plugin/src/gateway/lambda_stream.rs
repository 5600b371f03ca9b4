//! The InvokeWithResponseStream operation of the AWS Lambda API.

use super::errors::Refusal;
use super::event_stream::{self, PAYLOAD};
use super::lambda::{self, Asking, Kind};
use super::name::{Addressed, Target as Named};
use super::outcome::{Outcome, UNHANDLED};
use super::server::Working;
use super::{Gateway, body};
use crate::daemon::invoke::new_request_id;
use crate::daemon::streamed::{Asked, Next, Target};
use async_stream::stream;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use seedtree::node::instance::Sink;
use serde_json::{Map, Value};
use std::sync::Arc;

/// `POST /2021-11-15/functions/NAME/response-streaming-invocations`.
pub async fn invoke(State(gateway): State<Gateway>, addressed: Addressed, request: Request) -> Response {
    let id = new_request_id();
    let answered = answer(&gateway, addressed, request, &id).await;
    lambda::finished(&gateway, &id, answered)
}

async fn answer(
    gateway: &Gateway,
    addressed: Addressed,
    request: Request,
    id: &str,
) -> Result<Response, Refusal> {
    if Kind::of(request.headers())? == Kind::Event {
        return Err(Refusal::parameter("X-Amz-Invocation-Type is none of RequestResponse, DryRun."));
    }
    let working = request.extensions().get::<Arc<Working>>().cloned();
    let (mut asking, event, held) = lambda::asking(gateway, addressed, request).await?;
    if asking.kind == Kind::DryRun {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let Named { name, version } = asking.target.clone();
    let target = Target::Function(name);
    let caller = asking.caller.take();
    let asked = Asked { target, request_id: id.to_owned(), timeout_ms: None, version, caller, event };
    let mut request = asked.begin(&gateway.daemon, Kept { _working: working, _held: held }, true);
    let panicked = |_| Refusal::new(500, "ServiceException", "The request was given up.");
    // Waited for before there is a status: a refusal has its own.
    let first = match request.next().await.map_err(panicked)? {
        Next::Part(part) => Ok(part),
        Next::End(invoked) => Err(Outcome::of(gateway, &mut asking, id, *invoked)?),
    };
    let executed = asking.target.clone();
    let (gateway, id) = (gateway.clone(), id.to_owned());
    let frames = stream! {
        let mut part = match first {
            Ok(part) => part,
            Err(outcome) => {
                for frame in last(&gateway, &asking, &id, Ok(outcome)) {
                    yield Ok(frame);
                }
                return;
            }
        };
        loop {
            for frame in chunks(&part) {
                yield Ok(frame);
            }
            match request.next().await {
                Ok(Next::Part(next)) => part = next,
                Ok(Next::End(invoked)) => {
                    let outcome = Outcome::of(&gateway, &mut asking, &id, *invoked);
                    for frame in last(&gateway, &asking, &id, outcome) {
                        yield Ok(frame);
                    }
                    return;
                }
                // The connection breaks: this is no end of an answer.
                Err(_) => {
                    yield Err(std::io::Error::other("the request was given up"));
                    return;
                }
            }
        }
    };
    let mut response = Response::new(Body::from_stream(frames));
    let content_type = HeaderValue::from_static(event_stream::CONTENT_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(lambda::with_version(response, &executed, None))
}

fn chunks(part: &Bytes) -> impl Iterator<Item = Bytes> {
    part.chunks(PAYLOAD).map(|c| event_stream::event("PayloadChunk", "application/octet-stream", c))
}

/// The frames of the end. Where there were no parts, the answer comes with it.
fn last(gateway: &Gateway, asking: &Asking, id: &str, outcome: Result<Outcome, Refusal>) -> Vec<Bytes> {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(refusal) => return vec![event_stream::error(refusal.kind, &refusal.message)],
    };
    let mut complete = Map::new();
    let mut frames = Vec::new();
    if outcome.failed {
        let details = String::from_utf8_lossy(&outcome.body);
        complete.insert("ErrorCode".into(), UNHANDLED.into());
        complete.insert("ErrorDetails".into(), event_stream::cut(&details, PAYLOAD).into());
    } else {
        frames.extend(chunks(&outcome.body));
    }
    if asking.wants_log {
        complete.insert("LogResult".into(), outcome.log_result(gateway, asking, id).into());
    }
    let complete = Value::Object(complete).to_string();
    frames.push(event_stream::event("InvokeComplete", "application/json", complete.as_bytes()));
    frames
}

/// What a request at work keeps: its place among those of the connection, and its share of the bound for bodies.
struct Kept {
    _working: Option<Arc<Working>>,
    _held: body::Held,
}

impl Sink for Kept {
    fn printed(&mut self, _: &[u8]) {}
}
