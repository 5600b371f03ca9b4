//! What a client says of itself, for the function.

use super::errors::Refusal;
use super::lambda::text;
use axum::http::{HeaderMap, HeaderName};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use seedtree::caller::{Caller, NotAnObject};

const CLIENT_CONTEXT: HeaderName = HeaderName::from_static("x-amz-client-context");
const TRACE: HeaderName = HeaderName::from_static("x-amzn-trace-id");
/// Longest client context, bytes of base64, as on AWS Lambda.
const LONGEST_CONTEXT: usize = 3583;

/// Of a request of the AWS Lambda API.
pub fn of(headers: &HeaderMap) -> Result<Option<Caller>, Refusal> {
    let Some(context) = text(headers, &CLIENT_CONTEXT)? else { return Ok(traced(headers)) };
    if context.len() > LONGEST_CONTEXT {
        return Err(Refusal::parameter(format!(
            "Client context must be no more than {LONGEST_CONTEXT} bytes."
        )));
    }
    let json = STANDARD.decode(context).map_err(|_| NotAnObject);
    json.and_then(|json| Caller::new(Some(json), trace(headers)))
        .map_err(|_| Refusal::content("Client context must be a valid Base64-encoded JSON object."))
}

/// Of any request: its AWS X-Ray trace.
pub fn traced(headers: &HeaderMap) -> Option<Caller> {
    Caller::new(None, trace(headers)).ok().flatten()
}

fn trace(headers: &HeaderMap) -> Option<&str> {
    headers.get(TRACE)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn asked(context: &str) -> Result<Option<Caller>, Refusal> {
        let fields = [(CLIENT_CONTEXT, HeaderValue::from_str(context).unwrap())];
        of(&fields.into_iter().collect())
    }

    #[test]
    fn a_context_is_base64_of_json_and_not_too_long() {
        let told = asked(&STANDARD.encode(r#"{"custom": {}}"#)).unwrap().unwrap();
        assert_eq!((told.client_context(), told.trace()), (Some(r#"{"custom": {}}"#), None));
        // Without its padding, no JSON, and a few bytes too long.
        assert!(asked("e30").is_err() && asked(&STANDARD.encode("no")).is_err());
        let json = |bytes: usize| STANDARD.encode("{}".to_owned() + &" ".repeat(bytes - 2));
        assert!(asked(&json(2685)).is_ok() && asked(&json(2688)).is_err());
    }
}
