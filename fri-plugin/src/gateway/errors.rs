//! Refusals in the shape that AWS SDKs expect: the type in a header, type and message in JSON; and errors of functions as AWS Lambda
//! describes them.

use super::body::BodyError;
use crate::daemon::error::{DaemonError, Kind, chain};
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use seedtree::node::error::NodeError;
use seedtree::proto::Failure;
use serde_json::{Value, json};

/// The header with a request's identity.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
/// The header with an error's type.
pub const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
/// Account and region of this node's ARNs.
const ARN: &str = "arn:aws:lambda:us-east-1:000000000000:function:";

/// The ARN of a function.
pub fn arn(name: &str, qualifier: Option<&str>) -> String {
    qualifier.map_or_else(|| format!("{ARN}{name}"), |q| format!("{ARN}{name}:{q}"))
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The exception's name.
    pub kind: &'static str,
    /// For people.
    pub message: String,
    /// More fields of the body.
    reason: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { status, kind, message: message.into(), reason: None }
    }

    /// A parameter has a wrong value.
    pub fn parameter(message: impl Into<String>) -> Refusal {
        Refusal::new(400, "InvalidParameterValueException", message)
    }

    /// The body is not what it has to be.
    pub fn content(message: impl Into<String>) -> Refusal {
        Refusal::new(400, "InvalidRequestContentException", message)
    }

    /// What is called as a function's name is none.
    pub fn function_name(text: &str) -> Refusal {
        Refusal::validation(
            "functionName",
            text,
            "a function's name or ARN: letters, digits, - and _, at most 64",
        )
    }

    /// What is called a qualifier is none.
    pub fn qualifier(text: &str) -> Refusal {
        Refusal::validation("qualifier", text, "$LATEST or the number of a version")
    }

    fn validation(field: &str, text: &str, allowed: &str) -> Refusal {
        let shown: String = text.chars().take(140).collect();
        let message = format!(
            "1 validation error detected: Value '{shown}' at '{field}' failed to satisfy constraint: Member must be {allowed}"
        );
        Refusal::new(400, "ValidationException", message)
    }

    /// There is no such function or version.
    pub fn no_function(name: &str, qualifier: Option<&str>) -> Refusal {
        let message = format!("Function not found: {}", arn(name, qualifier));
        Refusal::new(404, "ResourceNotFoundException", message)
    }

    /// Try again later.
    pub fn too_many(reason: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { reason: Some(reason), ..Refusal::new(429, "TooManyRequestsException", message) }
    }

    /// The event has too many bytes.
    pub fn too_large(bytes: u64, invocation: &str, limit: usize) -> Refusal {
        let message = format!(
            "{bytes} byte payload is too large for the {invocation} invocation type (limit {limit} bytes)"
        );
        Refusal::new(413, "RequestTooLargeException", message)
    }

    /// The body did not come as it should.
    pub fn of_body(error: &BodyError, invocation: &str, limit: usize) -> Refusal {
        match error {
            BodyError::TooLong(n) => Refusal::too_large(*n, invocation, limit),
            BodyError::TooSlow => {
                Refusal::new(408, "RequestTimeoutException", "The event did not arrive in time.")
            }
            BodyError::NoRoom => Refusal::too_many(
                "ConcurrentInvocationLimitExceeded",
                "Too many bytes of events are at work: try again later.",
            ),
            BodyError::Broken => Refusal::content("The event did not arrive whole."),
        }
    }

    /// What the daemon refused; `None` for an error of the function's own.
    pub fn of_daemon(error: &DaemonError, name: &str) -> Refusal {
        let text = chain(error);
        match error.kind() {
            Kind::NotFound => match error {
                DaemonError::Node(NodeError::NoSuchVersion { version, .. }) => {
                    Refusal::no_function(name, Some(&version.to_string()))
                }
                _ => Refusal::no_function(name, None),
            },
            Kind::Invalid if error.code() == "Request.NotJson" => {
                Refusal::content(format!("Could not parse request body into json: {text}"))
            }
            Kind::Invalid => Refusal::parameter(text),
            Kind::TooLarge => Refusal::new(413, "RequestTooLargeException", text),
            Kind::TooMany if error.code() == "Function.TooManyRequests" => {
                Refusal::too_many("ReservedFunctionConcurrentInvocationLimitExceeded", text)
            }
            Kind::TooMany => Refusal::too_many("ConcurrentInvocationLimitExceeded", text),
            Kind::Conflict => Refusal::new(409, "ResourceConflictException", text),
            Kind::Unavailable => Refusal::new(503, "ServiceException", text),
            Kind::Function | Kind::TimedOut | Kind::Internal => Refusal::new(500, "ServiceException", text),
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_temporary(&self) -> bool {
        self.status == 429 || self.status >= 500
    }
}

impl From<PathRejection> for Refusal {
    fn from(error: PathRejection) -> Refusal {
        Refusal::parameter(error.body_text())
    }
}

impl From<QueryRejection> for Refusal {
    fn from(error: QueryRejection) -> Refusal {
        Refusal::parameter(error.body_text())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let whose = if self.status >= 500 { "Service" } else { "User" };
        // SDKs read either spelling; Lambda itself writes both, by operation.
        let mut body = json!({"Type": whose, "Message": self.message, "message": self.message});
        if let Some(reason) = self.reason {
            body["Reason"] = Value::from(reason);
        }
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ERROR_TYPE, HeaderValue::from_static(self.kind));
        if self.is_temporary() && self.status != 500 {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Of a path that is none of the gateway's.
pub async fn no_such_path() -> Refusal {
    Refusal::new(404, "UnknownOperationException", "The gateway has no such path.")
}

/// Of a path that has other methods.
pub async fn no_such_method() -> Refusal {
    Refusal::new(405, "UnknownOperationException", "The path has no such method.")
}

/// How a function failed, as AWS Lambda tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionFailure {
    /// `errorType`.
    pub kind: &'static str,
    /// What comes behind the request's identity.
    pub message: String,
}

impl FunctionFailure {
    /// Of a request whose function failed without describing it itself; `None` where it is not the function's failure.
    pub fn of(error: &DaemonError) -> Option<FunctionFailure> {
        let DaemonError::Node(error) = error else { return None };
        let kind = error.code();
        let exited = |how: String| format!("Runtime exited with error: {how}");
        let too_large = |limit: usize| {
            format!("Response payload size exceeded maximum allowed payload size ({limit} bytes).")
        };
        let message = match error {
            NodeError::Function(Failure::TimedOut(ms)) => return Some(FunctionFailure::timeout(*ms)),
            NodeError::Function(Failure::Exited(0)) => "Runtime exited without providing a reason".to_owned(),
            NodeError::Function(Failure::Exited(status)) => exited(format!("exit status {status}")),
            NodeError::Function(Failure::Killed(signal)) => {
                exited(format!("signal: {}", signal_name(*signal)))
            }
            NodeError::Function(Failure::OutOfMemory(_)) => exited("signal: killed".to_owned()),
            NodeError::Killed => {
                return Some(FunctionFailure {
                    kind: "Runtime.ExitError",
                    message: exited("signal: killed".to_owned()),
                });
            }
            NodeError::AnswerTooLong => too_large(seedtree::runtime::MAX_PAYLOAD),
            NodeError::StreamTooLong => too_large(seedtree::runtime::MAX_STREAMED),
            error if error.is_functions() => error.to_string(),
            _ => return None,
        };
        Some(FunctionFailure { kind, message })
    }

    /// It did not answer in time.
    pub fn timeout(ms: u64) -> FunctionFailure {
        #[allow(clippy::cast_precision_loss)]
        let seconds = ms as f64 / 1000.0;
        FunctionFailure {
            kind: "Sandbox.Timedout",
            message: format!("Task timed out after {seconds:.2} seconds"),
        }
    }

    /// The answer's body.
    pub fn json(&self, request_id: &str) -> Vec<u8> {
        let message = format!("RequestId: {request_id} Error: {}", self.message);
        json!({"errorMessage": message, "errorType": self.kind}).to_string().into_bytes()
    }
}

/// As Go's os package spells it, which AWS Lambda shows.
fn signal_name(number: u8) -> String {
    let known = match number {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        n => return format!("signal {n}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(failure: Failure) -> FunctionFailure {
        FunctionFailure::of(&NodeError::Function(failure).into()).unwrap()
    }

    #[test]
    fn failures_read_as_on_lambda() {
        for (failure, kind, message) in [
            (Failure::TimedOut(3000), "Sandbox.Timedout", "Task timed out after 3.00 seconds"),
            (Failure::Exited(1), "Runtime.ExitError", "Runtime exited with error: exit status 1"),
            (Failure::Exited(0), "Runtime.ExitError", "Runtime exited without providing a reason"),
            (
                Failure::Killed(11),
                "Runtime.ExitError",
                "Runtime exited with error: signal: segmentation fault",
            ),
            (Failure::OutOfMemory(128), "Runtime.OutOfMemory", "Runtime exited with error: signal: killed"),
        ] {
            assert_eq!(function(failure), FunctionFailure { kind, message: message.into() });
        }
        let text: Value = serde_json::from_slice(&function(Failure::Exited(1)).json("id")).unwrap();
        assert_eq!(text["errorMessage"], "RequestId: id Error: Runtime exited with error: exit status 1");
        assert!(FunctionFailure::of(&NodeError::Draining.into()).is_none());
        assert!(FunctionFailure::of(&NodeError::Killed.into()).is_some());
    }

    #[test]
    fn every_refusal_of_the_tree_has_its_status() {
        let status = |error: NodeError| Refusal::of_daemon(&error.into(), "f").status;
        assert_eq!(status(NodeError::NoSuchFunction("f".into())), 404);
        assert_eq!(status(NodeError::EventTooLong(7 << 20)), 413);
        assert_eq!(status(NodeError::WaitedTooLong(1)), 429);
        assert_eq!(status(NodeError::Overloaded { seed: "os".into(), queued: 1 }), 429);
        assert_eq!(status(NodeError::Draining), 503);
        assert_eq!(status(NodeError::Host(std::io::ErrorKind::Other.into())), 500);
    }
}
