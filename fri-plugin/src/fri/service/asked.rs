//! Requests as clients send them: a head, and the event in pieces.

use super::{Incoming, Service, payload};
use crate::daemon::invoke::new_request_id;
use crate::daemon::streamed::{Asked, Target};
use crate::fri::error::FriError;
use crate::proto;
use crate::trace::Marks;
use futures::StreamExt;
use prost::bytes::Bytes;

/// Longest identity of a request, bytes.
const REQUEST_ID: usize = 128;

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
    let rest = input.map(|message| match Into::<Piece>::into(message?) {
        Piece::Chunk(chunk) => payload::chunk(chunk),
        _ => Err(FriError::Malformed("after its head a request has chunks only")),
    });
    let event = service.0.intake.collect(head.payload, rest).await?;
    if let Some(marks) = &mut marks {
        marks.received();
    }
    let timeout_ms = (head.timeout_ms > 0).then_some(head.timeout_ms);
    Ok((Asked { target: head.target, request_id, timeout_ms, version: None, event }, head.wants, marks))
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
    fn identities_of_requests_are_plain() {
        assert_eq!(request_id("a-1".into()).unwrap(), "a-1");
        assert_eq!(request_id(String::new()).unwrap().len(), 36);
        for bad in ["a b", "a\r\nX: y", "é", &"x".repeat(129)] {
            assert_eq!(request_id(bad.into()).unwrap_err().code(), "Request.Malformed", "{bad}");
        }
    }
}
