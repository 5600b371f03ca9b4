//! Requests as clients send them: a head, and the event in pieces.

use super::{Incoming, Service, payload};
use crate::daemon::invoke::new_request_id;
use crate::daemon::streamed::{Asked, Target};
use crate::fri::error::FriError;
use crate::proto;
use crate::trace::Marks;
use futures::StreamExt;
use prost::bytes::Bytes;
use seedtree::caller::Caller;

/// Longest identity of a request, bytes.
const REQUEST_ID: usize = 128;
/// Longest client context, bytes.
const CLIENT_CONTEXT: usize = 3583;

/// What a message of a request is.
pub enum Piece {
    /// The first one.
    Head(Head),
    /// The next bytes of the event.
    Chunk(Bytes),
    /// Nothing that this daemon knows.
    Other,
}

/// The first message.
pub struct Head {
    target: Target,
    request_id: String,
    timeout_ms: u64,
    payload: Bytes,
    traceparent: String,
    client_context: String,
    amzn_trace_id: String,
    wants: Wants,
}

/// What is sent besides the answer's end.
#[derive(Clone, Copy, Debug)]
pub struct Wants {
    /// What the function prints, as it comes.
    pub logs: bool,
    /// Parts of the answer, as they come.
    pub parts: bool,
}

/// The two requests differ in whom their heads name.
macro_rules! pieces {
    ($request:ident, $parts:ident, $target:ident, $named:ident) => {
        impl From<proto::$request> for Piece {
            fn from(request: proto::$request) -> Piece {
                use proto::$parts::Part;
                match request.part {
                    Some(Part::Head(head)) => Piece::Head(Head {
                        target: Target::$target(head.$named),
                        request_id: head.request_id,
                        timeout_ms: head.timeout_ms,
                        payload: head.payload,
                        traceparent: head.traceparent,
                        client_context: head.client_context,
                        amzn_trace_id: head.amzn_trace_id,
                        wants: Wants { logs: head.logs, parts: head.stream },
                    }),
                    Some(Part::Chunk(chunk)) => Piece::Chunk(chunk),
                    None => Piece::Other,
                }
            }
        }
    };
}

pieces!(InvokeRequest, invoke_request, Function, function);
pieces!(ActivateRequest, activate_request, Instance, id);

/// Reads a request to its end, in the time that an event has: its head too, for a call without one would keep its connection for ever. With
/// its times, where requests are traced. Its event has a share of the bound.
pub async fn read<T: Into<Piece> + 'static>(
    service: &Service,
    input: Incoming<T>,
) -> Result<(Asked, Wants, Option<Marks>), FriError> {
    service.0.intake.in_time(arriving(service, input)).await
}

async fn arriving<T: Into<Piece> + 'static>(
    service: &Service,
    mut input: Incoming<T>,
) -> Result<(Asked, Wants, Option<Marks>), FriError> {
    let Some(Piece::Head(head)) = input.next().await.transpose()?.map(Into::into) else {
        return Err(FriError::Malformed("the first message of a request must be its head"));
    };
    let mut marks = service.daemon().tracer().map(|_| Marks::of_call(&head.traceparent));
    let request_id = request_id(head.request_id)?;
    let caller = caller(head.client_context, &head.amzn_trace_id)?;
    let rest = input.map(|message| match Into::<Piece>::into(message?) {
        Piece::Chunk(chunk) => payload::chunk(chunk),
        _ => Err(FriError::Malformed("after its head a request has chunks only")),
    });
    let event = service.0.intake.collect(head.payload, rest).await?;
    if let Some(marks) = &mut marks {
        marks.received();
    }
    let timeout_ms = (head.timeout_ms > 0).then_some(head.timeout_ms);
    Ok((
        Asked { target: head.target, request_id, timeout_ms, version: None, caller, event },
        head.wants,
        marks,
    ))
}

/// What the function is told of the client.
fn caller(client_context: String, trace: &str) -> Result<Option<Caller>, FriError> {
    const MALFORMED: FriError =
        FriError::Malformed("a client_context is a JSON object of at most 3,583 bytes");
    if client_context.len() > CLIENT_CONTEXT {
        return Err(MALFORMED);
    }
    let json = (!client_context.is_empty()).then(|| client_context.into_bytes());
    Caller::new(json, Some(trace)).map_err(|_| MALFORMED)
}

/// The client's identity of a request, or a new one. It reaches logs and HTTP headers.
fn request_id(given: String) -> Result<String, FriError> {
    if given.is_empty() {
        return Ok(new_request_id());
    }
    if given.len() > REQUEST_ID || !given.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(FriError::Malformed(
            "a request_id has at most 128 printable ASCII characters, no spaces",
        ));
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_context_is_json_and_short() {
        let told = |context: &str| caller(context.into(), "");
        assert_eq!(told("").unwrap(), None);
        assert_eq!(told("{}").unwrap().unwrap().client_context(), Some("{}"));
        let long = |bytes: usize| "{}".to_owned() + &" ".repeat(bytes - 2);
        assert!(told(&long(3583)).is_ok());
        for bad in ["{", "1", &long(3584)] {
            assert_eq!(told(bad).unwrap_err().code(), "Request.Malformed");
        }
    }

    #[test]
    fn identities_of_requests_are_plain() {
        assert_eq!(request_id("a-1".into()).unwrap(), "a-1");
        assert_eq!(request_id(String::new()).unwrap().len(), 36);
        for bad in ["a b", "a\r\nX: y", "é", &"x".repeat(129)] {
            assert_eq!(request_id(bad.into()).unwrap_err().code(), "Request.Malformed", "{bad}");
        }
    }
}
